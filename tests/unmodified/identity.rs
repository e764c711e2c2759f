//! What std and libc keep for each thread: its id and name, errno, and whether it panics.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{CROWD, crowd, on_migrating_workers, on_workers};

#[test]
fn std_thread_ids_differ_and_stay() {
    on_workers("std_thread_ids_differ_and_stay", ids);
    on_migrating_workers("std_thread_ids_differ_and_stay, migrating", ids);
}

fn ids() {
    let ids = crowd(CROWD, |_| {
        let id = std::thread::current().id();
        for _ in 0..20 {
            std::thread::yield_now();
            assert_eq!(std::thread::current().id(), id);
        }
        id
    });
    let different: HashSet<_> = ids.into_iter().collect();
    assert_eq!(different.len(), CROWD);
}

#[test]
fn errno_survives_yields_and_migrations() {
    on_workers("errno_survives_yields", errno);
    on_migrating_workers("errno_survives_migrations", errno);
}

/// Neither the value nor its place changes: std's `accept` keeps the address over its retries.
fn errno() {
    crowd(CROWD, |number| {
        // SAFETY: always returns the address of the calling thread's errno.
        let place = unsafe { libc::__errno_location() };
        for round in 0..50 {
            let value = 1 + ((number + round) % 100) as libc::c_int;
            // SAFETY: `place` is this green thread's errno, nobody else's.
            unsafe { place.write(value) };
            if round % 10 == 0 {
                std::thread::sleep(Duration::from_micros(100));
            } else {
                std::thread::yield_now();
            }
            let seen = std::io::Error::last_os_error().raw_os_error();
            assert_eq!(seen, Some(value));
            // SAFETY: as above.
            assert_eq!(unsafe { libc::__errno_location() }, place);
        }
    });
}

/// A failed call's errno is still there after other green threads have failed otherwise.
#[test]
fn errors_do_not_mix() {
    on_workers("errors_do_not_mix", || {
        crowd(CROWD, |number| {
            for _ in 0..20 {
                let (outcome, expected) = if number % 2 == 0 {
                    // SAFETY: closing a descriptor that cannot exist only fails.
                    (unsafe { libc::close(-1) }, libc::EBADF)
                } else {
                    // SAFETY: the path is a C string; the call only fails.
                    (
                        unsafe { libc::rmdir(c"/no/such/folder".as_ptr()) },
                        libc::ENOENT,
                    )
                };
                assert_eq!(outcome, -1);
                std::thread::yield_now();
                let seen = std::io::Error::last_os_error().raw_os_error();
                assert_eq!(seen, Some(expected));
            }
        });
    });
}

/// Sleeps while it is dropped, which happens in the middle of a panic.
struct SleepyDrop(Arc<AtomicUsize>);

impl Drop for SleepyDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        for _ in 0..20 {
            assert!(std::thread::panicking(), "the panic is this green thread's");
            std::thread::sleep(Duration::from_micros(500));
        }
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn panicking_is_true_only_where_the_panic_is() {
    on_workers("panicking_is_true_only_where_the_panic_is", panicking);
    on_migrating_workers(
        "panicking_is_true_only_where_the_panic_is, migrating",
        panicking,
    );
}

fn panicking() {
    let unwinding = Arc::new(AtomicUsize::new(0));
    let overlaps = crowd(CROWD, move |number| {
        let mut overlaps = 0;
        if number % 4 == 0 {
            let sleepy = SleepyDrop(Arc::clone(&unwinding));
            let caught = catch_unwind(AssertUnwindSafe(|| {
                let _sleepy = sleepy;
                // A panic without the message that `panic!` prints.
                resume_unwind(Box::new(number));
            }));
            let payload = caught.expect_err("a panic").downcast::<usize>();
            assert_eq!(*payload.expect("its own payload"), number);
        } else {
            for _ in 0..40 {
                overlaps += usize::from(unwinding.load(Ordering::SeqCst) > 0);
                assert!(!std::thread::panicking(), "a stranger's panic");
                std::thread::sleep(Duration::from_micros(300));
            }
        }
        assert!(!std::thread::panicking());
        overlaps
    });
    let overlaps: usize = overlaps.into_iter().sum();
    assert!(overlaps > 0, "no panic was under way while others ran");
}
