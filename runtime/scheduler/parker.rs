//! How one idle worker sleeps: in a bed of its own, or in the reactor's poll.
//!
//! Called by: `idle`.
//!
//! # Protocol
//! Park:    1. swap SLEEPING or POLLING in; if NOTIFIED was there, go on at once   2. sleep or poll
//!          3. swap EMPTY in
//! Unpark:  1. swap NOTIFIED in   2. by what was there: ring the bed, wake the poll, or nothing
//!
//! # Invariants
//! P1  An unpark ends the park that is on, or the next one.
//! P2  A park may end for no reason; callers look again at what they slept for.
//!
//! # Memory order
//! The swaps are acquire and release: what was done before an unpark is seen after the park.
//!
//! # Checked by
//! `models.rs`: the idle models park through this.

use crate::platform::clock::Deadline;
use crate::primitive::Sleeper;
use crate::primitive::atomic::{AtomicU32, Ordering};

const EMPTY: u32 = 0;
const SLEEPING: u32 = 1;
const POLLING: u32 = 2;
const NOTIFIED: u32 = 3;

/// The blocking half of the reactor, as a parker sees it.
pub(crate) trait Poller {
    /// Waits for events, the next timer or a wake, at most until `limit`.
    fn wait(&self, limit: Option<Deadline>);

    /// Makes the `wait` that is on, or else the next one, return.
    fn wake(&self);
}

/// One worker's parker.
#[derive(Debug)]
pub(crate) struct Parker {
    state: AtomicU32,
    bed: Sleeper,
}

impl Parker {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU32::new(EMPTY),
            bed: Sleeper::new(),
        }
    }

    /// Sleeps until unparked, or until `limit`. Only the worker it belongs to calls this.
    pub(crate) fn sleep(&self, limit: Option<Deadline>) {
        if self.state.swap(SLEEPING, Ordering::AcqRel) != NOTIFIED {
            self.bed.sleep(limit);
        }
        self.state.swap(EMPTY, Ordering::AcqRel);
    }

    /// Sleeps in `poller`. Only the worker it belongs to calls this, from the driver seat.
    pub(crate) fn poll(&self, poller: &(impl Poller + ?Sized), limit: Option<Deadline>) {
        if self.state.swap(POLLING, Ordering::AcqRel) != NOTIFIED {
            poller.wait(limit);
        }
        self.state.swap(EMPTY, Ordering::AcqRel);
    }

    /// Ends the worker's sleep.
    pub(crate) fn unpark(&self, poller: &(impl Poller + ?Sized)) {
        match self.state.swap(NOTIFIED, Ordering::AcqRel) {
            SLEEPING => self.bed.wake(),
            POLLING => poller.wake(),
            _ => {}
        }
    }
}
