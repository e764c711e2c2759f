//! The one atomic word that decides how a wait ends.
//!
//! Called by: the waiter itself (`arm`, `cancel`, `finish`), the worker that runs it (`commit`),
//! and whoever ends a wait (`fire`, `unpark`).
//!
//! # Protocol
//! Waiter:  1. `arm` (IDLE to ARMED)   2. tell a wait queue, a timer, the reactor   3. suspend
//! Worker:  4. `commit` (ARMED to PARKED), only after the stack switch
//! Waker:   `fire` (ARMED or PARKED to FIRED with its cause); if it was PARKED, queue the waiter
//! Waiter:  5. back on the processor, `finish` (FIRED to IDLE of the next generation), reads the cause
//!
//! A waker that comes before the commit queues nothing: the commit finds FIRED, and the worker keeps
//! the turn. So a green thread is never resumed while it is still on its stack.
//!
//! # Layout
//! | bits | meaning |
//! | --- | --- |
//! | 0-1 | phase: IDLE, ARMED, PARKED, FIRED |
//! | 2-4 | cause, while FIRED |
//! | 5 | UNPARKABLE: this wait may be ended by `unpark`. Set by `arm`, cleared when the wait ends |
//! | 6 | TOKEN: an `unpark` came while no such wait was on. Taken by the next `arm_park` |
//! | 8-63 | generation: which wait this is |
//!
//! # Invariants
//! W1  A wait ends by one `fire`, `unpark` or `cancel`; all the others see that they lost.
//! W2  A `fire` for an earlier generation does nothing, however late it comes.
//! W3  One `unpark` ends one park, or is remembered for the next; several before a park are one.
//!
//! # Memory order
//! All transitions are read-modify-write. Firing releases what the waker wrote, and `finish` acquires
//! it; `commit` releases the suspended stack, and the `fire` that takes the turn acquires it.
//!
//! # Checked by
//! `models.rs`: s1, s2, s3; the fuzz target `park_and_queue` against a plain model.

use crate::primitive::atomic::{AtomicU64, Ordering};

const PHASE: u64 = 0b11;
const IDLE: u64 = 0;
const ARMED: u64 = 1;
const PARKED: u64 = 2;
const FIRED: u64 = 3;
const CAUSE_SHIFT: u32 = 2;
const CAUSE: u64 = 0b111 << CAUSE_SHIFT;
const UNPARKABLE: u64 = 1 << 5;
const TOKEN: u64 = 1 << 6;
const GENERATION_SHIFT: u32 = 8;
const ONE_GENERATION: u64 = 1 << GENERATION_SHIFT;

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// What was waited for has come.
    Event,
    /// The deadline has come.
    Deadline,
    /// Somebody called `unpark`.
    Unpark,
}

impl Cause {
    fn bits(self) -> u64 {
        (match self {
            Cause::Event => 0,
            Cause::Deadline => 1,
            Cause::Unpark => 2,
        }) << CAUSE_SHIFT
    }

    fn of(word: u64) -> Self {
        match (word & CAUSE) >> CAUSE_SHIFT {
            0 => Cause::Event,
            1 => Cause::Deadline,
            _ => Cause::Unpark,
        }
    }
}

/// Which wait of a waiter is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u64);

/// What a call of [`WaitWord::fire`] did.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fire {
    /// Another cause ended this wait, or it is an earlier one.
    Lost,
    /// The wait is ended; the waiter has not left the processor yet and will see it.
    Before,
    /// The wait is ended and the caller now has the waiter's turn: it must queue it.
    Turn,
}

/// What a call of [`WaitWord::commit`] found.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    /// The waiter is parked, and its turn is with whoever ends the wait.
    Parked,
    /// The wait was over already: the caller keeps the turn.
    Fired,
}

/// The word. One waiter owns it; anybody may fire at it.
#[derive(Debug)]
pub(crate) struct WaitWord(AtomicU64);

fn generation(word: u64) -> u64 {
    word >> GENERATION_SHIFT
}

/// The word of the idle state that follows `word`'s wait.
fn next_idle(word: u64) -> u64 {
    ((generation(word) << GENERATION_SHIFT).wrapping_add(ONE_GENERATION)) | (word & TOKEN)
}

impl WaitWord {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(IDLE))
    }

    /// Applies `change` until it holds; `None` leaves the word alone. Gives the word found.
    fn update(&self, order: Ordering, mut change: impl FnMut(u64) -> Option<u64>) -> u64 {
        let mut word = self.0.load(Ordering::Acquire);
        while let Some(next) = change(word) {
            match self
                .0
                .compare_exchange_weak(word, next, order, Ordering::Acquire)
            {
                Ok(_) => break,
                Err(found) => word = found,
            }
        }
        word
    }

    /// Begins a wait. Only the owner calls this, and not within another wait.
    pub(crate) fn arm(&self) -> Generation {
        let word = self.0.fetch_or(ARMED, Ordering::AcqRel);
        debug_assert_eq!(word & PHASE, IDLE, "a wait within a wait");
        Generation(generation(word))
    }

    /// Begins a wait that `unpark` may end; `None` if an `unpark` has come already, which is then
    /// used up.
    pub(crate) fn arm_park(&self) -> Option<Generation> {
        let word = self.update(Ordering::AcqRel, |word| {
            debug_assert_eq!(word & PHASE, IDLE, "a wait within a wait");
            Some(if word & TOKEN != 0 {
                word & !TOKEN
            } else {
                word | ARMED | UNPARKABLE
            })
        });
        (word & TOKEN == 0).then(|| Generation(generation(word)))
    }

    /// Gives up a wait before suspending: `None` if nobody had ended it, else why it ended. Either
    /// way the word is idle again.
    pub(crate) fn cancel(&self) -> Option<Cause> {
        let word = self.update(Ordering::AcqRel, |word| Some(next_idle(word)));
        debug_assert!(matches!(word & PHASE, ARMED | FIRED));
        (word & PHASE == FIRED).then(|| Cause::of(word))
    }

    /// Parks a waiter that has left the processor. Only the worker with its turn calls this.
    pub(crate) fn commit(&self) -> Commit {
        let word = self.update(Ordering::AcqRel, |word| {
            (word & PHASE == ARMED).then_some((word & !PHASE) | PARKED)
        });
        if word & PHASE == ARMED {
            Commit::Parked
        } else {
            debug_assert_eq!(word & PHASE, FIRED);
            Commit::Fired
        }
    }

    /// Ends the wait `wait` for `cause`.
    pub(crate) fn fire(&self, wait: Generation, cause: Cause) -> Fire {
        let word = self.update(Ordering::AcqRel, |word| {
            (generation(word) == wait.0 && matches!(word & PHASE, ARMED | PARKED))
                .then_some((word & !(PHASE | CAUSE | UNPARKABLE)) | FIRED | cause.bits())
        });
        if generation(word) != wait.0 {
            return Fire::Lost;
        }
        match word & PHASE {
            ARMED => Fire::Before,
            PARKED => Fire::Turn,
            _ => Fire::Lost,
        }
    }

    /// Ends the park that is on, or leaves the token for the next one.
    pub(crate) fn unpark(&self) -> Fire {
        let ends = |word: u64| word & UNPARKABLE != 0 && matches!(word & PHASE, ARMED | PARKED);
        let word = self.update(Ordering::AcqRel, |word| {
            Some(if ends(word) {
                (word & !(PHASE | CAUSE | UNPARKABLE)) | FIRED | Cause::Unpark.bits()
            } else {
                word | TOKEN
            })
        });
        match word & PHASE {
            PARKED if ends(word) => Fire::Turn,
            ARMED if ends(word) => Fire::Before,
            _ => Fire::Lost,
        }
    }

    /// Whether the wait that is on has been ended. Only for a waiter that sleeps on its own.
    pub(crate) fn is_fired(&self) -> bool {
        self.0.load(Ordering::Acquire) & PHASE == FIRED
    }

    /// Ends a wait that was fired: the waiter is back on the processor.
    pub(crate) fn finish(&self) -> Cause {
        let word = self.update(Ordering::AcqRel, |word| Some(next_idle(word)));
        debug_assert_eq!(word & PHASE, FIRED, "resumed without a cause");
        Cause::of(word)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Cause, Commit, Fire, WaitWord};

    #[test]
    fn first_cause_wins_and_the_rest_lose() {
        let word = WaitWord::new();
        let wait = word.arm();
        assert_eq!(word.fire(wait, Cause::Deadline), Fire::Before);
        assert_eq!(word.fire(wait, Cause::Event), Fire::Lost);
        assert_eq!(word.commit(), Commit::Fired);
        assert_eq!(word.finish(), Cause::Deadline);
        assert_eq!(word.fire(wait, Cause::Event), Fire::Lost);
    }

    #[test]
    fn the_waker_after_the_commit_gets_the_turn() {
        let word = WaitWord::new();
        let wait = word.arm();
        assert_eq!(word.commit(), Commit::Parked);
        assert_eq!(word.fire(wait, Cause::Event), Fire::Turn);
        assert_eq!(word.finish(), Cause::Event);
    }

    #[test]
    fn an_old_generation_does_not_end_a_new_wait() {
        let word = WaitWord::new();
        let old = word.arm();
        assert_eq!(word.cancel(), None);
        let new = word.arm();
        assert_ne!(old, new);
        assert_eq!(word.fire(old, Cause::Event), Fire::Lost);
        assert_eq!(word.commit(), Commit::Parked);
        assert_eq!(word.fire(old, Cause::Event), Fire::Lost);
        assert_eq!(word.fire(new, Cause::Event), Fire::Turn);
    }

    #[test]
    fn unparks_before_a_park_are_one_token() {
        let word = WaitWord::new();
        assert_eq!(word.unpark(), Fire::Lost);
        assert_eq!(word.unpark(), Fire::Lost);
        assert!(word.arm_park().is_none());
        assert!(word.arm_park().is_some());
    }

    #[test]
    fn unpark_leaves_other_waits_alone() {
        let word = WaitWord::new();
        let wait = word.arm();
        assert_eq!(word.commit(), Commit::Parked);
        assert_eq!(word.unpark(), Fire::Lost);
        assert_eq!(word.fire(wait, Cause::Event), Fire::Turn);
        assert_eq!(word.finish(), Cause::Event);
        assert!(word.arm_park().is_none(), "the token outlives the wait");
    }

    #[test]
    fn a_second_unpark_during_a_park_is_kept_for_the_next() {
        let word = WaitWord::new();
        assert!(word.arm_park().is_some());
        assert_eq!(word.unpark(), Fire::Before);
        assert_eq!(word.unpark(), Fire::Lost);
        assert_eq!(word.commit(), Commit::Fired);
        assert_eq!(word.finish(), Cause::Unpark);
        assert!(word.arm_park().is_none());
    }
}
