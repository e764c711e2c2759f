//! What is runnable on one worker: a slot for the just-woken, and a queue.
//!
//! Called by: `worker` (its own end), `pool` (the thieves' end).
//!
//! The just-woken runs next, because what it needs is still in the cache; but after
//! [`SLOT_TURNS`] turns of the slot in a row the queue has its turn, so that two green threads that
//! wake each other cannot starve the rest. Thieves take from the queue's head; from the slot only when
//! they found nothing else, so that a worker about to run what it just woke is let alone, and one
//! that is busy does not hold it up.
//!
//! The queue is crossbeam's deque, first in first out. It is trusted, not verified here: loom cannot
//! see into it.

use crossbeam_deque::{Steal, Stealer, Worker};
use std::cell::Cell;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

/// How often in a row the slot goes before the queue.
pub(crate) const SLOT_TURNS: u32 = 8;

/// The slot: a pointer that carries one reference. Taking it is an acquire, leaving it a release, so
/// whoever gets the pointer sees what was done before.
struct Slot<T>(AtomicPtr<T>);

impl<T> Slot<T> {
    fn swap(&self, item: Option<Arc<T>>) -> Option<Arc<T>> {
        let new = item.map_or(ptr::null(), Arc::into_raw).cast_mut();
        let old = self.0.swap(new, Ordering::AcqRel);
        // SAFETY: whatever is in the slot came from `into_raw` above, and the swap gives it to this
        // call alone.
        (!old.is_null()).then(|| unsafe { Arc::from_raw(old) })
    }

    fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed).is_null()
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        self.swap(None);
    }
}

/// The owner's end.
pub(crate) struct RunQueue<T> {
    queue: Worker<Arc<T>>,
    slot: Arc<Slot<T>>,
    slot_turns: Cell<u32>,
}

/// The thieves' end.
pub(crate) struct Thief<T> {
    queue: Stealer<Arc<T>>,
    slot: Arc<Slot<T>>,
}

impl<T> RunQueue<T> {
    pub(crate) fn new() -> Self {
        Self {
            queue: Worker::new_fifo(),
            slot: Arc::new(Slot(AtomicPtr::new(ptr::null_mut()))),
            slot_turns: Cell::new(0),
        }
    }

    pub(crate) fn thief(&self) -> Thief<T> {
        Thief {
            queue: self.queue.stealer(),
            slot: self.slot.clone(),
        }
    }

    /// Queues `item` behind all others.
    pub(crate) fn push(&self, item: Arc<T>) {
        self.queue.push(item);
    }

    /// Has `item` run next; what was to run next goes behind all others.
    pub(crate) fn push_next(&self, item: Arc<T>) {
        if let Some(displaced) = self.slot.swap(Some(item)) {
            self.queue.push(displaced);
        }
    }

    /// Takes what runs next.
    pub(crate) fn pop(&self) -> Option<Arc<T>> {
        let turns = self.slot_turns.get();
        if turns < SLOT_TURNS
            && !self.slot.is_empty()
            && let Some(item) = self.slot.swap(None)
        {
            self.slot_turns.set(turns + 1);
            return Some(item);
        }
        self.slot_turns.set(0);
        self.queue.pop().or_else(|| self.slot.swap(None))
    }
}

impl<T> Thief<T> {
    /// Takes from the head of the queue.
    pub(crate) fn steal(&self) -> Option<Arc<T>> {
        loop {
            match self.queue.steal() {
                Steal::Success(item) => return Some(item),
                Steal::Empty => return None,
                Steal::Retry => std::hint::spin_loop(),
            }
        }
    }

    /// Takes what was just woken.
    pub(crate) fn steal_next(&self) -> Option<Arc<T>> {
        if self.slot.is_empty() {
            return None;
        }
        self.slot.swap(None)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.slot.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{RunQueue, SLOT_TURNS};
    use std::sync::Arc;

    #[test]
    fn the_just_woken_goes_first_and_displaces_to_the_back() {
        let queue = RunQueue::new();
        queue.push(Arc::new(1));
        queue.push_next(Arc::new(2));
        queue.push_next(Arc::new(3));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop())
            .map(|item| *item)
            .collect();
        assert_eq!(order, [3, 1, 2]);
    }

    #[test]
    fn the_slot_cannot_starve_the_queue() {
        let queue = RunQueue::new();
        queue.push(Arc::new(0));
        let mut turns = 0;
        loop {
            queue.push_next(Arc::new(1));
            if *queue.pop().unwrap() == 0 {
                break;
            }
            turns += 1;
        }
        assert_eq!(turns, SLOT_TURNS);
    }

    #[test]
    fn thieves_see_queue_and_slot() {
        let queue = RunQueue::new();
        let thief = queue.thief();
        assert!(thief.is_empty());
        queue.push(Arc::new(1));
        queue.push_next(Arc::new(2));
        assert_eq!(thief.steal().as_deref(), Some(&1));
        assert!(thief.steal().is_none());
        assert!(!thief.is_empty());
        assert_eq!(thief.steal_next().as_deref(), Some(&2));
        assert!(queue.pop().is_none());
    }

    #[test]
    fn what_is_left_is_dropped_once() {
        let item = Arc::new(());
        let queue = RunQueue::new();
        queue.push(item.clone());
        queue.push_next(item.clone());
        drop(queue);
        assert_eq!(Arc::strong_count(&item), 1);
    }
}
