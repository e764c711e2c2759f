//! The kernel's wait and wake on a 32-bit word, futex(2), for words private to this process.
//!
//! Called by the primitives, for OS threads only: a green thread that waits here holds up its
//! carrier.
//!
//! # Protocol
//! Waiter: 1. read the word   2. decide to wait while it has that value   3. [`wait`]   4. from 1.
//! Waker:  1. change the word   2. [`wake`].
//! The kernel compares the word with `expected` under the same lock that [`wake`] takes, so a
//! change between 1 and 3 of the waiter is never missed.
//!
//! # Memory order
//! The caller's: the order of the accesses to the word is what publishes data. The kernel's own
//! lock orders its comparison after the waker's change if the waker saw no waiter.
//!
//! # Why not libc's `syscall` function
//! It sets errno, which lives in thread-local storage, and its symbol may be a patched one.

use std::ptr;
use std::sync::atomic::AtomicU32;

use super::clock::Deadline;
use super::x86_64::syscall::syscall;

/// Sleeps while `word` is `expected`, until woken or until `deadline`. May also return for no
/// reason (a signal came, for instance): the caller looks at its word and its clock again.
///
/// There is no result, as a caller that looks again needs none.
pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline: Option<Deadline>) {
    let time = deadline.map(Deadline::to_timespec);
    let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
    let arguments = [
        word.as_ptr().expose_provenance(),
        (libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG) as usize,
        expected as usize,
        time.expose_provenance(),
        0,
        libc::FUTEX_BITSET_MATCH_ANY as u32 as usize,
    ];
    // SAFETY: the word and the time live through the call; FUTEX_WAIT_BITSET reads both and
    // writes nothing. Its time is absolute and of CLOCK_MONOTONIC, as Deadline is.
    unsafe { syscall(libc::SYS_futex, arguments) };
}

/// Wakes at most `count` threads that wait on `word`. Returns how many it woke.
///
/// The word is named by its address only: it may have been freed by whom it was changed for.
pub(crate) fn wake(word: *const AtomicU32, count: u32) -> usize {
    let arguments = [
        word.addr(),
        (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG) as usize,
        count.min(i32::MAX as u32) as usize,
        0,
        0,
        0,
    ];
    // SAFETY: a private FUTEX_WAKE uses the address as a name and follows it neither to read nor
    // to write.
    let woken = unsafe { syscall(libc::SYS_futex, arguments) };
    usize::try_from(woken).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    #[test]
    fn wait_returns_at_once_when_the_word_differs() {
        let word = AtomicU32::new(1);
        wait(&word, 0, None);
        assert_eq!(wake(&word, u32::MAX), 0);
    }

    #[test]
    fn wait_ends_not_before_its_deadline() {
        let word = AtomicU32::new(0);
        let deadline = Deadline::after(Duration::from_millis(5));
        while Deadline::now() < deadline {
            wait(&word, 0, Some(deadline));
        }
        wait(&word, 0, Some(Deadline::from_nanoseconds(0)));
        assert_eq!(word.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn wait_far_in_the_future_is_accepted_and_woken() {
        let word = Arc::new(AtomicU32::new(0));
        let waiter = std::thread::spawn({
            let word = Arc::clone(&word);
            move || {
                while word.load(Ordering::Acquire) == 0 {
                    wait(&word, 0, Some(Deadline::NEVER));
                }
            }
        });
        // A wake that finds the sleeper proves that the kernel took the far deadline.
        while wake(&*word, 1) == 0 {
            std::thread::yield_now();
        }
        word.store(1, Ordering::Release);
        wake(&*word, 1);
        waiter.join().unwrap();
    }

    #[test]
    fn failures_leave_errno_alone() {
        crate::platform::set_errno(libc::EXDEV);
        wait(&AtomicU32::new(1), 0, None);
        assert_eq!(crate::platform::errno(), libc::EXDEV);
    }
}
