//! Until when the sleeper in the poll sleeps, for whoever adds a deadline.
//!
//! Called by: `reactor::driver`, from the poll and whenever a deadline is added.
//!
//! # Protocol
//! Add:    1. insert the deadline   2. fence A1   3. if it is earlier than what the sleeper said, wake it
//! Sleep:  1. say until when   2. fence A2   3. look at the earliest deadline again; sleep until that, but
//!         no longer than said: if the earliest was taken back meanwhile, later ones rely on the saying
//!
//! # Invariants
//! L1  A deadline that was added is slept for, or its adder wakes the sleeper.
//!
//! # Memory order
//! The word and the earliest deadline are read and written relaxed. A1 with A2: either Add 3 sees what
//! Sleep said, or Sleep 3 sees the deadline.
//!
//! # Checked by
//! `models.rs`: a1, a2.

use crate::platform::clock::Deadline;
use crate::primitive::atomic::{AtomicU64, Ordering, fence};

/// What the word says when nobody sleeps: no deadline is earlier.
const AWAKE: u64 = 0;

/// The sleeper's saying, in nanoseconds.
#[derive(Debug)]
pub(crate) struct Alarm(AtomicU64);

impl Alarm {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(AWAKE))
    }

    /// Says that the caller goes to sleep, and until when it may: the earliest deadline or `limit`.
    pub(crate) fn sleep(
        &self,
        limit: Option<Deadline>,
        earliest: impl Fn() -> Option<Deadline>,
    ) -> Option<Deadline> {
        let said = earliest().into_iter().chain(limit).min();
        let word = said.unwrap_or(Deadline::NEVER).nanoseconds();
        self.0.swap(word, Ordering::Relaxed);
        fence(Ordering::SeqCst); // A2
        earliest().into_iter().chain(said).min()
    }

    /// Says that the sleeper is up.
    pub(crate) fn get_up(&self) {
        self.0.swap(AWAKE, Ordering::Relaxed);
    }

    /// Whether the sleeper would sleep past `deadline`, which has been added.
    pub(crate) fn misses(&self, deadline: Deadline) -> bool {
        fence(Ordering::SeqCst); // A1
        deadline.nanoseconds() < self.0.load(Ordering::Relaxed)
    }
}
