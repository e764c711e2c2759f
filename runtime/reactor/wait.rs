//! Waiting for a descriptor, from the green thread's side.
//!
//! Called by: `patch`.

use super::lifetime::{self, PrivateDescriptor};
use super::{Interest, Reactor, driver};
use crate::platform::clock::Deadline;
use crate::scheduler::waiter;
use crate::task::Cause;
use std::io;
use std::os::fd::RawFd;

/// How a wait for a descriptor ended.
#[derive(Debug)]
pub(crate) enum Readiness {
    /// Try again; it may be too early (R4).
    Ready,
    /// The deadline came first.
    TimedOut,
    /// The number was closed or taken over meanwhile: go on with this one, which is the same file.
    Moved(PrivateDescriptor),
    /// epoll does not know this kind of file, which therefore never waits: do the call in place.
    Unpollable,
    /// The descriptor is unusable, for this error number.
    Failed(i32),
}

/// How a wait for one of several descriptors ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnyReadiness {
    /// Look again; it may be too early (R4).
    Ready,
    /// The deadline came first.
    TimedOut,
}

fn refused(error: &io::Error) -> Readiness {
    match error.raw_os_error() {
        Some(libc::EPERM) => Readiness::Unpollable,
        Some(number) => Readiness::Failed(number),
        None => Readiness::Failed(libc::EIO),
    }
}

/// Parks the calling green thread until `descriptor` is ready for `interest`, or until `deadline`.
pub(crate) fn wait(descriptor: RawFd, interest: Interest, deadline: Option<Deadline>) -> Readiness {
    driver::with_current(|reactor: &Reactor| {
        let mut noted = None;
        let mut error = None;
        let cause = waiter::wait(deadline, |waiter| {
            lifetime::note(descriptor);
            noted = Some(waiter.clone());
            error = reactor.arm(descriptor, interest, waiter).err();
            error.is_none()
        });
        if let Some(error) = error {
            return refused(&error);
        }
        let waiter = noted.expect("the wait has registered");
        match (reactor.leave(descriptor, &waiter), cause) {
            // Also at the deadline: a last try must not be made on the file that has the number now.
            (Some(private), _) => Readiness::Moved(private),
            (None, Some(Cause::Deadline)) => Readiness::TimedOut,
            (None, _) => Readiness::Ready,
        }
    })
}

/// Parks the calling green thread until one of `descriptors` is ready for its interest, or until
/// `deadline`. Descriptors that epoll refuses count as ready.
pub(crate) fn wait_any(
    descriptors: &[(RawFd, Interest)],
    deadline: Option<Deadline>,
) -> AnyReadiness {
    driver::with_current(|reactor: &Reactor| {
        let mut noted = None;
        let mut armed = 0;
        let cause = waiter::wait(deadline, |waiter| {
            noted = Some(waiter.clone());
            descriptors.iter().all(|&(descriptor, interest)| {
                lifetime::note(descriptor);
                let good = reactor.arm(descriptor, interest, waiter).is_ok();
                armed += usize::from(good);
                good
            })
        });
        let waiter = noted.expect("the wait has registered");
        for &(descriptor, _) in &descriptors[..armed] {
            // Whoever closed one of them left a duplicate; looking again tells the caller.
            drop(reactor.leave(descriptor, &waiter));
        }
        if cause == Some(Cause::Deadline) {
            AnyReadiness::TimedOut
        } else {
            AnyReadiness::Ready
        }
    })
}
