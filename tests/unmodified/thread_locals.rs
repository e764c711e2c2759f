//! `thread_local!`: each green thread has its own, keeps it across sleeps and migrations, and its
//! destructors run once, at its end.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::support::{CROWD, crowd, on_migrating_workers, on_workers};

thread_local! {
    static JOURNAL: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    static COUNTER: Cell<usize> = const { Cell::new(0) };
}

/// Keeps a `RefCell` borrowed while other green threads run and borrow theirs.
fn journal(number: usize, pause: impl Fn()) {
    JOURNAL.with(|journal| {
        assert!(journal.borrow().is_empty(), "somebody else's journal");
        let mut pages = journal.borrow_mut();
        for round in 0..20 {
            pages.push(number + round);
            COUNTER.set(number + round);
            pause();
            // The borrow went with the green thread: it is still ours alone.
            assert!(journal.try_borrow().is_err());
            assert_eq!(COUNTER.get(), number + round);
        }
        let expected: Vec<usize> = (number..number + 20).collect();
        assert_eq!(*pages, expected);
    });
}

#[test]
fn borrowed_across_sleeps() {
    on_workers("borrowed_across_sleeps", || {
        crowd(CROWD, |number| {
            journal(number, || std::thread::sleep(Duration::from_micros(500)));
        });
    });
}

#[test]
fn borrowed_across_migrations() {
    on_migrating_workers("borrowed_across_migrations", || {
        let carriers = crowd(CROWD, |number| {
            let mut carriers = std::collections::HashSet::new();
            journal(number, std::thread::yield_now);
            for _ in 0..20 {
                carriers.insert(kernel_thread());
                std::thread::yield_now();
            }
            carriers.len()
        });
        assert!(
            carriers.into_iter().any(|carriers| carriers > 1),
            "no green thread ever changed its OS thread: nothing was tested"
        );
    });
}

/// The kernel's number of the OS thread that runs the caller just now.
fn kernel_thread() -> libc::c_long {
    // SAFETY: takes no arguments and touches no memory.
    unsafe { libc::syscall(libc::SYS_gettid) }
}

/// How often the destructor of each green thread's variable ran.
static DROPS: Mutex<Option<HashMap<usize, usize>>> = Mutex::new(None);

/// A value whose destructor blocks: on a sleep, and on a lock that others hold.
struct SlowGoodbye(usize);

impl Drop for SlowGoodbye {
    fn drop(&mut self) {
        std::thread::sleep(Duration::from_millis(2));
        let mut drops = DROPS.lock().expect("lock");
        *drops.get_or_insert_default().entry(self.0).or_default() += 1;
        std::thread::yield_now();
    }
}

thread_local! {
    static GOODBYE: RefCell<Option<SlowGoodbye>> = const { RefCell::new(None) };
}

#[test]
fn destructors_run_once_and_may_block() {
    on_workers("destructors_run_once_and_may_block", destructors);
    on_migrating_workers("destructors_run_once_and_may_block, migrating", destructors);
}

fn destructors() {
    *DROPS.lock().expect("lock") = None;
    // Twice, because the second crowd runs in the used stacks of the first.
    for offset in [0, CROWD] {
        crowd(CROWD, move |number| {
            let number = number + offset;
            GOODBYE.with(|goodbye| {
                assert!(goodbye.borrow().is_none(), "somebody else's variable");
                *goodbye.borrow_mut() = Some(SlowGoodbye(number));
            });
            std::thread::sleep(Duration::from_millis(1));
        });
    }
    // join returned, so the green threads have ended, destructors and all.
    let drops = DROPS.lock().expect("lock").take().unwrap_or_default();
    assert_eq!(drops.len(), 2 * CROWD, "not every destructor ran");
    assert!(
        drops.values().all(|&times| times == 1),
        "a destructor ran twice"
    );
}
