//! Descriptors that go while somebody waits for them.
//!
//! Called by: `patch`, before `close`, `dup2` and `dup3` give a number up; `wait`.
//!
//! A thread that is blocked in a call holds on to the *file*: another thread's `close` does not wake
//! it, and data that come later still reach it (close(2), "Multithreaded processes"). So whoever gives
//! up the number of a descriptor with waiters first makes a private duplicate, and hands it to them;
//! each goes on with the duplicate, and the last one closes it.
//!
//! # Invariants
//! L1  A number is forgotten before the kernel can hand it out again.
//! L2  A waiter finds a duplicate if and only if its number was forgotten between its arming and its
//!     leaving: both ends of that, and the forgetting, happen under the lock of the number's shard.
//! L3  Who arms a number between its forgetting and its going, and so arms a file that epoll is about to
//!     drop, is woken after the number has gone, and tries again. The note comes before the arming and is
//!     never taken back; whoever changes the number looks at it again after the change. The fences make
//!     one of the two see the other.

use super::driver;
use crate::platform;
use crate::scheduler::context;
use crate::task::{Cause, Wake};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A duplicate that the runtime made of a user's descriptor; closed with its last clone.
#[derive(Clone, Debug)]
pub(crate) struct PrivateDescriptor(Arc<Owned>);

#[derive(Debug)]
struct Owned(RawFd);

impl PrivateDescriptor {
    pub(super) fn duplicate(descriptor: RawFd) -> Option<Self> {
        // SAFETY: F_DUPFD_CLOEXEC takes no pointer.
        let duplicate = unsafe {
            platform::syscall(
                libc::SYS_fcntl,
                [
                    descriptor as usize,
                    libc::F_DUPFD_CLOEXEC as usize,
                    0,
                    0,
                    0,
                    0,
                ],
            )
        };
        (duplicate >= 0).then(|| Self(Arc::new(Owned(duplicate as RawFd))))
    }

    /// The number, for use while this clone lives.
    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.0.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        replace(self.0, || {
            // SAFETY: the duplicate is this struct's own, and nobody else knows its number.
            unsafe { platform::syscall(libc::SYS_close, [self.0 as usize, 0, 0, 0, 0, 0]) }
        });
    }
}

/// How many descriptor numbers the table of noted ones covers; higher ones always count as noted.
const NOTED: usize = 1 << 16;

/// Which numbers any reactor has ever armed: most are closed without.
static NOTES: [AtomicU64; NOTED / 64] = [const { AtomicU64::new(0) }; NOTED / 64];

fn place(descriptor: RawFd) -> Option<(&'static AtomicU64, u64)> {
    let number = usize::try_from(descriptor).ok()?;
    Some((NOTES.get(number / 64)?, 1 << (number % 64)))
}

/// Notes that `descriptor` is going to be armed.
pub(super) fn note(descriptor: RawFd) {
    if let Some((word, bit)) = place(descriptor)
        && word.load(Ordering::Relaxed) & bit == 0
    {
        word.fetch_or(bit, Ordering::Relaxed);
    }
    fence(Ordering::SeqCst); // L3
}

fn is_noted(descriptor: RawFd) -> bool {
    descriptor >= 0
        && !context::is_forked()
        && place(descriptor).is_none_or(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
}

/// Makes the system call `change`, after which the number `descriptor` stands for another file or for
/// none. To be called from any thread; green threads that wait for the file go on with a duplicate.
pub(crate) fn replace<R>(descriptor: RawFd, change: impl FnOnce() -> R) -> R {
    if is_noted(descriptor) {
        driver::for_each(|reactor| {
            for waiter in reactor.forget(descriptor) {
                // Who had been woken otherwise finds its duplicate too.
                let _ = waiter.wake(Cause::Event);
            }
        });
    }
    let result = change();
    fence(Ordering::SeqCst); // L3
    if is_noted(descriptor) {
        driver::for_each(|reactor| {
            for waiter in reactor.waiters(descriptor) {
                let _ = waiter.wake(Cause::Event);
            }
        });
    }
    result
}
