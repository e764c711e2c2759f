//! Waiters by the address they wait at: futex(2) for green threads.
//!
//! Called by: `patch::futex`.
//!
//! # Protocol
//! Wait:  1. count oneself in the bucket   2. fence T1   3. lock the bucket   4. if the word no longer
//!        holds what was expected, count oneself out and go   5. put the waiter at the end   6. unlock,
//!        suspend
//! Wake:  (the caller has changed the word)   1. fence T2   2. if nobody is counted in the bucket, done
//!        3. lock it   4. take out the first waiters at the address and end their waits; one that was
//!        ended otherwise, by its deadline, counts for nothing and the next one is taken
//!
//! # Invariants
//! F1  Either Wait 4 sees the changed word or Wake 2 sees the waiter: no wake-up is lost.
//! F2  A wake of `n` ends `n` waits if there are as many: none is spent on a waiter that had gone.
//! F3  First come, first woken.
//!
//! # Memory order
//! T1 pairs with T2; the count is read and written relaxed. Without T1 the load of the word in Wait 4
//! may come before the count.
//!
//! # Rejected
//! A lock on each wake (no count): every unlock of a contended std lock by an OS thread would pay it.
//!
//! # Checked by
//! `models.rs`: f1, f2, f3.

use crate::primitive::Mutex;
use crate::primitive::atomic::{AtomicUsize, Ordering, fence};
use crate::task::{Cause, Wake};
use std::collections::VecDeque;

struct Node<W> {
    address: usize,
    bitset: u32,
    waiter: W,
}

struct Bucket<W> {
    waiting: AtomicUsize,
    nodes: Mutex<VecDeque<Node<W>>>,
}

/// A table of waiters.
pub(crate) struct WaitTable<W> {
    buckets: Box<[Bucket<W>]>,
}

impl<W: Wake> WaitTable<W> {
    /// Makes a table; `buckets` is a power of two.
    pub(crate) fn new(buckets: usize) -> Self {
        assert!(buckets.is_power_of_two());
        let bucket = || Bucket {
            waiting: AtomicUsize::new(0),
            nodes: Mutex::new(VecDeque::new()),
        };
        Self {
            buckets: (0..buckets).map(|_| bucket()).collect(),
        }
    }

    fn bucket(&self, address: usize) -> &Bucket<W> {
        // Fibonacci hashing: the words of neighbouring locks are 4 to 64 bytes apart.
        let hash = (address >> 2).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        &self.buckets[hash & (self.buckets.len() - 1)]
    }

    /// Puts `waiter` at the end of those at `address`, if `is_expected` still holds.
    pub(crate) fn enqueue(
        &self,
        address: usize,
        bitset: u32,
        waiter: W,
        is_expected: impl FnOnce() -> bool,
    ) -> bool {
        let bucket = self.bucket(address);
        bucket.waiting.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst); // T1
        let mut nodes = bucket.nodes.lock();
        let expected = is_expected();
        if expected {
            nodes.push_back(Node {
                address,
                bitset,
                waiter,
            });
        } else {
            bucket.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        expected
    }

    /// Ends the waits of up to `count` waiters at `address` that share a bit with `bitset`, and says of
    /// how many.
    pub(crate) fn wake(&self, address: usize, count: usize, bitset: u32) -> usize {
        let bucket = self.bucket(address);
        fence(Ordering::SeqCst); // T2
        if bucket.waiting.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let mut woken = 0;
        let mut place = 0;
        let mut nodes = bucket.nodes.lock();
        while woken < count && place < nodes.len() {
            if nodes[place].address != address || nodes[place].bitset & bitset == 0 {
                place += 1;
                continue;
            }
            let node = nodes.remove(place).expect("within the queue");
            bucket.waiting.fetch_sub(1, Ordering::Relaxed);
            woken += usize::from(node.waiter.wake(Cause::Event));
        }
        woken
    }

    /// Takes out the waiter that `is_it` finds, if it is still there.
    pub(crate) fn remove(&self, address: usize, is_it: impl Fn(&W) -> bool) {
        let bucket = self.bucket(address);
        let mut nodes = bucket.nodes.lock();
        if let Some(place) = nodes.iter().position(|node| is_it(&node.waiter)) {
            nodes.remove(place);
            bucket.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(not(loom))]
pub(crate) use green::{FutexWait, wait, wake};

/// The process's table, where green threads wait.
#[cfg(not(loom))]
mod green {
    use super::WaitTable;
    use crate::platform::clock::Deadline;
    use crate::scheduler::context::Inside;
    use crate::scheduler::waiter::{self, Waiter};
    use crate::task::Cause;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// More than the green threads that are likely to wait at different words at once, divided by few.
    const BUCKETS: usize = 4096;

    static TABLE: OnceLock<WaitTable<Waiter>> = OnceLock::new();

    /// How a wait at an address ended.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum FutexWait {
        Woken,
        /// The word held something else.
        Mismatch,
        TimedOut,
    }

    /// Parks the calling green thread until it is woken at `address`, if the word there is `expected`.
    ///
    /// # Safety
    /// `address` is readable and aligned to 4.
    pub(crate) unsafe fn wait(
        address: *const u32,
        expected: u32,
        bitset: u32,
        deadline: Option<Deadline>,
    ) -> FutexWait {
        let table = TABLE.get_or_init(|| WaitTable::new(BUCKETS));
        let mut noted = None;
        let cause = waiter::wait(deadline, |waiter| {
            noted = Some(waiter.clone());
            table.enqueue(address.addr(), bitset, waiter.clone(), || {
                // SAFETY: the caller vouches for the address; others change the word atomically.
                let word = unsafe { AtomicU32::from_ptr(address.cast_mut()) };
                word.load(Ordering::Relaxed) == expected
            })
        });
        match cause {
            None => FutexWait::Mismatch,
            Some(Cause::Deadline) => {
                let waiter = noted.expect("the wait has registered");
                table.remove(address.addr(), |other| other.is(&waiter));
                FutexWait::TimedOut
            }
            Some(_) => FutexWait::Woken,
        }
    }

    /// Wakes up to `count` green threads that wait at `address` with a bit of `bitset`.
    pub(crate) fn wake(address: *const u32, count: usize, bitset: u32) -> usize {
        let Some(table) = TABLE.get() else { return 0 };
        let _inside = Inside::enter();
        table.wake(address.addr(), count, bitset)
    }
}
