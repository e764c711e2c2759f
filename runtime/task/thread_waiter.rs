//! A wait of an OS thread: the same wait word as a green thread's, with a bed instead of a worker.
//!
//! Called by: `scheduler::waiter` when the caller is no green thread. Made anew for each wait, so no
//! wake-up can reach a later one.

use super::state::{Commit, Fire, Generation, WaitWord};
use super::{Cause, Wake};
use crate::platform::clock::Deadline;
use crate::primitive::{Arc, Sleeper};

/// One wait of one OS thread.
#[derive(Clone, Debug)]
pub(crate) struct ThreadWaiter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    word: WaitWord,
    wait: Generation,
    bed: Sleeper,
}

impl ThreadWaiter {
    /// Begins a wait of the calling thread.
    pub(crate) fn new() -> Self {
        let word = WaitWord::new();
        let wait = word.arm();
        Self(Arc::new(Inner {
            word,
            wait,
            bed: Sleeper::new(),
        }))
    }

    /// Whether both are of the same wait.
    #[cfg_attr(
        loom,
        expect(dead_code, reason = "the models have no green threads beside it")
    )]
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Sleeps until something ends the wait; at the deadline, ends it itself.
    pub(crate) fn sleep(&self, deadline: Option<Deadline>) -> Cause {
        let inner = &*self.0;
        if inner.word.commit() == Commit::Parked {
            while !inner.word.is_fired() {
                inner.bed.sleep(deadline);
                if deadline.is_some_and(|deadline| Deadline::now() >= deadline) {
                    // The answer is in the word: either this ended the wait, or something had.
                    let _ = inner.word.fire(inner.wait, Cause::Deadline);
                }
            }
        }
        inner.word.finish()
    }
}

impl Wake for ThreadWaiter {
    fn wake(&self, cause: Cause) -> bool {
        match self.0.word.fire(self.0.wait, cause) {
            Fire::Lost => false,
            Fire::Before => true,
            Fire::Turn => {
                self.0.bed.wake();
                true
            }
        }
    }
}
