//! Hands the result of a green thread to whoever joins it.
//!
//! Called by: the green thread's last act (`complete`), and `thread::JoinHandle` (`register`,
//! `take`).
//!
//! # Protocol
//! End:   1. write the result   2. swap DONE in (release)   3. if WAITING was there, wake the waiter
//! Join:  1. if DONE, take the result   2. write the waiter   3. EMPTY to WAITING, unless DONE came
//!        first   4. wait   5. take the result (acquire)
//!
//! # Invariants
//! J1  The result is written before DONE and read after it; the waiter is written before WAITING and
//!     read by the end that swaps WAITING out. So each cell has one user at a time.
//! J2  There is one joiner: `join` uses up the handle.
//!
//! # Checked by
//! `models.rs`: j1 (end against join), j2 (end against a dropped handle).

use super::{Cause, Wake};
use crate::primitive::UnsafeCell;
use crate::primitive::atomic::{AtomicU32, Ordering};

const EMPTY: u32 = 0;
const WAITING: u32 = 1;
const DONE: u32 = 2;

/// The cell that the two ends share.
#[derive(Debug)]
pub(crate) struct JoinCell<T, W> {
    state: AtomicU32,
    result: UnsafeCell<Option<T>>,
    waiter: UnsafeCell<Option<W>>,
}

// SAFETY: J1: the state word passes each cell from one thread to another, so a shared reference
// moves results and waiters between threads and never gives two threads access at once.
unsafe impl<T: Send, W: Send> Sync for JoinCell<T, W> {}

impl<T, W: Wake> JoinCell<T, W> {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU32::new(EMPTY),
            result: UnsafeCell::new(None),
            waiter: UnsafeCell::new(None),
        }
    }

    /// Leaves the result and wakes the joiner. Called once.
    pub(crate) fn complete(&self, result: T) {
        // SAFETY: J1: DONE is not in yet, so the result is this end's.
        self.result.with_mut(|slot| unsafe { *slot = Some(result) });
        if self.state.swap(DONE, Ordering::AcqRel) == WAITING {
            // SAFETY: J1: WAITING has been swapped out, so the waiter is this end's.
            let waiter = self.waiter.with_mut(|slot| unsafe { (*slot).take() });
            if let Some(waiter) = waiter {
                waiter.wake(Cause::Event);
            }
        }
    }

    /// Whether the result is there.
    pub(crate) fn is_done(&self) -> bool {
        self.state.load(Ordering::Acquire) == DONE
    }

    /// Asks for `waiter` to be woken when the result is there; `false` if it is there already. Only
    /// the joiner calls this, once.
    pub(crate) fn register(&self, waiter: W) -> bool {
        if self.is_done() {
            return false;
        }
        // SAFETY: J1, J2: WAITING is not in yet, so the waiter is the joiner's.
        self.waiter.with_mut(|slot| unsafe { *slot = Some(waiter) });
        self.state
            .compare_exchange(EMPTY, WAITING, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Takes the result, if it is there. Only the joiner calls this.
    pub(crate) fn take(&self) -> Option<T> {
        if !self.is_done() {
            return None;
        }
        // SAFETY: J1: DONE is in, so the result is the joiner's, and J2: there is one.
        self.result.with_mut(|slot| unsafe { (*slot).take() })
    }
}
