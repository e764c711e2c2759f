//! What a call does when it would block: give up, or park its green thread and say "try again".
//!
//! Called by [`transfer`](super::transfer), [`accept`](super::accept) and
//! [`connect`](super::connect); one [`Waiting`] lives for one call.
//!
//! # Protocol
//! The call: 1. try   2. would block: [`Waiting::would_block`]   3. from 1, on [`Waiting::descriptor`]
//! `would_block`:
//!  1. first time: `EAGAIN` if the user made the descriptor non-blocking; else the deadline is
//!     taken from SO_RCVTIMEO or SO_SNDTIMEO. As in the kernel, what is set later is for later calls.
//!  2. `EAGAIN` if the deadline has come. A time-out leads to one more try, so data that came in
//!     time wins.
//!  3. from the second time in a row on: if poll says that the descriptor is ready, try again after
//!     a pause
//!  4. park in the reactor, which looks at the descriptor's readiness anew when it arms it
//!
//! # Invariants
//! W1  A parked call stays on the file that it began with: when somebody closes the descriptor or
//!     dup2s over it, the reactor hands over a private duplicate, used from then on.
//! W2  A call never spins and never waits for an event that does not come: where the kernel's
//!     poll and the call disagree (an unconnected `AF_UNIX` datagram socket is always "writable",
//!     though the receiver's queue be full) step 3 turns the wait into a growing pause.

use super::descriptor;
use super::kernel::in_runtime;
use crate::platform::clock::Deadline;
use crate::reactor::{self, Interest, PrivateDescriptor, Readiness};
use crate::time;
use std::os::fd::RawFd;
use std::time::Duration;

/// The pause after the first disagreement (W2); each further one doubles it.
const SHORTEST_PAUSE: Duration = Duration::from_micros(250);

/// How often the pause doubles: up to 16 ms.
const DOUBLINGS: u32 = 6;

/// How to go on with a call that would have blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Try again; it may work now.
    Retry,
    /// Nobody can wait for this descriptor: make the call so that it blocks.
    InPlace,
}

/// The waiting of one call.
#[derive(Debug)]
pub(super) struct Waiting {
    descriptor: RawFd,
    interest: Interest,
    /// W1: what to use in place of `descriptor` since it was closed.
    private: Option<PrivateDescriptor>,
    /// `None` until the first time that the call would block.
    deadline: Option<Option<Deadline>>,
    pauses: Pauses,
}

impl Waiting {
    pub(super) fn new(descriptor: RawFd, interest: Interest) -> Self {
        Self {
            descriptor,
            interest,
            private: None,
            deadline: None,
            pauses: Pauses::default(),
        }
    }

    /// The descriptor to try on.
    pub(super) fn descriptor(&self) -> RawFd {
        self.private
            .as_ref()
            .map_or(self.descriptor, PrivateDescriptor::as_raw_fd)
    }

    /// Waits for a reason to try again.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if the call is not to wait, or not longer; what the reactor could not do.
    pub(super) fn would_block(&mut self) -> Result<Next, i32> {
        let deadline = self.deadline()?;
        let descriptor = self.descriptor();
        if self.pauses.have_begun() {
            if descriptor::poll_now(descriptor, descriptor::event(self.interest)) != 0 {
                self.pauses.take(deadline);
                return Ok(Next::Retry);
            }
            self.pauses = Pauses::default();
        }
        self.pauses.begin();
        match in_runtime(|| reactor::wait(descriptor, self.interest, deadline)) {
            Readiness::Ready | Readiness::TimedOut => Ok(Next::Retry),
            Readiness::Moved(private) => {
                self.private = Some(private);
                Ok(Next::Retry)
            }
            Readiness::Unpollable => Ok(Next::InPlace),
            Readiness::Failed(number) => Err(number),
        }
    }

    /// Waits a little, for what no readiness tells.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if the call is not to wait, or not longer.
    pub(super) fn pause(&mut self) -> Result<(), i32> {
        let deadline = self.deadline()?;
        self.pauses.begin();
        self.pauses.take(deadline);
        Ok(())
    }

    /// When the call is to give up: steps 1 and 2.
    fn deadline(&mut self) -> Result<Option<Deadline>, i32> {
        let deadline = match self.deadline {
            Some(known) => known,
            None => {
                let descriptor = self.descriptor();
                if descriptor::is_non_blocking(descriptor)? {
                    return Err(libc::EAGAIN);
                }
                descriptor::time_out(descriptor, self.interest).map(Deadline::after)
            }
        };
        self.deadline = Some(deadline);
        match deadline {
            Some(deadline) if deadline <= Deadline::now() => Err(libc::EAGAIN),
            deadline => Ok(deadline),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // With its last clone a duplicate is closed, which runs the reactor.
        if let Some(private) = self.private.take() {
            in_runtime(|| drop(private));
        }
    }
}

/// Pauses that grow, for what has no event. The first is none, unless they were begun before.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    count: u32,
}

impl Pauses {
    /// Leaves out the first pause, which is none.
    fn begin(&mut self) {
        self.count = self.count.max(1);
    }

    fn have_begun(&self) -> bool {
        self.count > 0
    }

    /// Sleeps for the next pause, but not past `deadline`.
    pub(super) fn take(&mut self, deadline: Option<Deadline>) {
        if let Some(doublings) = self.count.checked_sub(1) {
            let end = Deadline::after(SHORTEST_PAUSE * (1 << doublings.min(DOUBLINGS)));
            let end = deadline.map_or(end, |deadline| deadline.min(end));
            in_runtime(|| time::sleep_until(end));
        }
        self.count = self.count.saturating_add(1);
    }
}
