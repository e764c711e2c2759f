//! Memory for a green thread's thread-local storage is refused: the spawn fails with an error, and the
//! runtime goes on. A test binary of its own, since it interposes `malloc`.

#[path = "unmodified/support.rs"]
#[allow(dead_code, reason = "shared with the other tests of this folder")]
mod support;

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sward::thread::Builder;

unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
}

thread_local! {
    /// This thread, green or not, is refused blocks of a size that thread-local storage has.
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// Larger than anything else that a spawn allocates, and small enough for the blocks in question.
const SIZES: std::ops::Range<usize> = 1_100..20_000;

/// # Safety
///
/// As for libc's.
// SAFETY: this takes the place of libc's `malloc`, to which it leaves all the work but for refusals,
// which C allows; what it gives can be given to libc's `free` and `realloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    if SIZES.contains(&size) && REFUSED.get() {
        return std::ptr::null_mut();
    }
    // SAFETY: handed on to the caller.
    unsafe { __libc_malloc(size) }
}

#[test]
fn thread_local_storage_that_is_refused() {
    support::watched("thread_local_storage_that_is_refused", || {
        let runtime = sward::Runtime::builder().workers(1).build().unwrap();
        runtime.run(|| {
            // These hold what stacks are at hand with their storage, but leave room for more stacks.
            let released = Arc::new(AtomicBool::new(false));
            let holders: Vec<_> = (0..3)
                .map(|_| {
                    let released = Arc::clone(&released);
                    sward::spawn(move || {
                        while !released.load(Ordering::Relaxed) {
                            sward::yield_now();
                        }
                    })
                })
                .collect();
            sward::yield_now();

            REFUSED.set(true);
            let spawned = Builder::new().spawn(|| 1);
            REFUSED.set(false);
            let error = spawned.expect_err("a green thread without thread-local storage");
            assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory);
            assert!(
                error.to_string().contains("thread-local storage"),
                "{error}"
            );

            let spawned = Builder::new().spawn(|| 1).expect("memory again");
            assert_eq!(spawned.join().unwrap(), 1);
            released.store(true, Ordering::Relaxed);
            for holder in sward::joinall(holders) {
                holder.unwrap();
            }
        });
    });
}
