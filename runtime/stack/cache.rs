//! The hottest stacks of one worker.
//!
//! Called by `scheduler::worker`: `put` when a green thread has ended, `take` when the next one
//! begins, which so finds a stack that is in this processor's cache; `clear` when the worker ends.
//!
//! No lock and no system call: stacks wait here with all their memory. The bound limits what that
//! can be, and what other workers have to map in the meantime.
//!
//! A stack that is put stays counted as handed out by the pool (K3 needs no room for it). The
//! reservation that takes it gives up its promise of a stack of the pool.

use super::Stack;
use super::pool::{Pool, Reservation};
use std::collections::VecDeque;

/// How many stacks a worker keeps.
pub(super) const BOUND: usize = 32;

/// A few free stacks of one pool, last in, first out. Not shared.
///
/// To be emptied with [`clear`](Self::clear) in the end: stacks that it still holds when it is
/// dropped are leaked.
#[derive(Debug)]
pub(crate) struct Cache {
    /// The hottest is at the back.
    stacks: VecDeque<Stack>,
}

impl Cache {
    /// An empty cache. It never allocates later.
    pub(crate) fn new() -> Self {
        Self {
            stacks: VecDeque::with_capacity(BOUND),
        }
    }

    /// A stack as promised by `reservation`: from the cache if it has one of that size, else from
    /// the reservation's pool.
    ///
    /// # Panics
    ///
    /// If the reservation was used before.
    pub(crate) fn take(&mut self, reservation: &Reservation) -> Stack {
        let class = reservation.class();
        let hottest = self
            .stacks
            .iter()
            .rposition(|stack| stack.region.class() == class);
        match hottest.and_then(|index| self.stacks.remove(index)) {
            Some(mut stack) => {
                reservation.waive();
                stack.renew(reservation.facts());
                stack
            }
            None => reservation.pool().take(reservation),
        }
    }

    /// Keeps a stack of `pool` on which nobody runs and whose thread pointer is in force nowhere.
    /// If the cache is full, the coldest of its stacks goes to the pool.
    pub(crate) fn put(&mut self, stack: Stack, pool: &Pool) {
        if self.stacks.len() == BOUND
            && let Some(coldest) = self.stacks.pop_front()
        {
            pool.give_back(coldest);
        }
        self.stacks.push_back(stack);
    }

    /// Gives all stacks back to `pool`.
    pub(crate) fn clear(&mut self, pool: &Pool) {
        for stack in self.stacks.drain(..) {
            pool.give_back(stack);
        }
    }
}
