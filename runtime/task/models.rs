//! Loom models of the wait word and the join cell.
//!
//! The waiters are loom threads that wait as OS threads do in the shipped program
//! ([`ThreadWaiter`](super::thread_waiter::ThreadWaiter)): the same word, the same commit.

use super::join::JoinCell;
use super::state::{Commit, Fire, WaitWord};
use super::thread_waiter::ThreadWaiter;
use super::{Cause, Wake};
use crate::primitive::atomic::{AtomicUsize, Ordering};
use crate::primitive::model::model;
use crate::primitive::{Arc, Sleeper, UnsafeCell};
use loom::thread;

/// A stand-in for a green thread: its word, the queue it would go in, and its stack.
struct Green {
    word: WaitWord,
    queued: AtomicUsize,
    queue: Sleeper,
    stack: UnsafeCell<usize>,
    message: UnsafeCell<usize>,
}

impl Green {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            word: WaitWord::new(),
            queued: AtomicUsize::new(0),
            queue: Sleeper::new(),
            stack: UnsafeCell::new(0),
            message: UnsafeCell::new(0),
        })
    }

    fn enqueue(&self, fire: Fire) {
        if fire == Fire::Turn {
            self.queued.fetch_add(1, Ordering::Relaxed);
            // SAFETY: T1: the turn is here, so the stack is too; loom checks that this is ordered.
            self.stack.with_mut(|stack| unsafe { *stack += 1 });
            self.queue.wake();
        }
    }

    /// Leaves what the waiter must see when it is back.
    fn write(&self) {
        // SAFETY: only the waker writes, and the waiter reads after the wake-up; loom checks it.
        self.message.with_mut(|message| unsafe { *message = 7 });
    }

    /// Reads what the waker left.
    fn read(&self) -> usize {
        // SAFETY: as above.
        self.message.with_mut(|message| unsafe { *message })
    }

    /// The worker's half: leave the stack, commit, and if parked wait to be queued.
    fn suspend(&self) -> Cause {
        // SAFETY: T1: the worker has the turn until it commits.
        self.stack.with_mut(|stack| unsafe { *stack += 1 });
        if self.word.commit() == Commit::Parked {
            self.queue.sleep(None);
        }
        // SAFETY: T1: the turn has come back through the queue, or never left.
        self.stack.with_mut(|stack| unsafe { *stack += 1 });
        self.word.finish()
    }
}

#[test]
fn s1_wake_against_suspend_is_never_lost_and_queued_at_most_once() {
    model("s1", None, 10, || {
        let green = Green::new();
        let wait = green.word.arm();
        let other = green.clone();
        let waker = thread::spawn(move || {
            other.write();
            let fire = other.word.fire(wait, Cause::Event);
            assert_ne!(fire, Fire::Lost);
            other.enqueue(fire);
        });
        assert_eq!(green.suspend(), Cause::Event);
        assert_eq!(green.read(), 7);
        waker.join().unwrap();
        assert!(green.queued.load(Ordering::Relaxed) <= 1);
    });
}

#[test]
fn s2_of_two_causes_one_wins_and_the_waiter_sees_which() {
    model("s2", Some(4), 100, || {
        let green = Green::new();
        let wait = green.word.arm();
        let wakers = [Cause::Event, Cause::Deadline].map(|cause| {
            let green = green.clone();
            thread::spawn(move || {
                let fire = green.word.fire(wait, cause);
                green.enqueue(fire);
                (fire != Fire::Lost).then_some(cause)
            })
        });
        let seen = green.suspend();
        let winners: Vec<_> = wakers
            .into_iter()
            .filter_map(|waker| waker.join().unwrap())
            .collect();
        assert_eq!(winners, [seen]);
    });
}

#[test]
fn s3_every_unpark_ends_a_park_or_is_kept() {
    model("s3", None, 100, || {
        let green = Green::new();
        let other = green.clone();
        let waker = thread::spawn(move || {
            other.write();
            for _ in 0..2 {
                let fire = other.word.unpark();
                other.enqueue(fire);
            }
        });
        // Two unparks are at least one token, so one park always returns.
        if green.word.arm_park().is_some() {
            assert_eq!(green.suspend(), Cause::Unpark);
        }
        assert_eq!(green.read(), 7);
        waker.join().unwrap();
    });
}

#[test]
fn s4_cancel_against_fire_has_one_winner() {
    model("s4", None, 4, || {
        let green = Green::new();
        let wait = green.word.arm();
        let other = green.clone();
        let waker = thread::spawn(move || other.word.fire(wait, Cause::Event));
        let cancelled = green.word.cancel();
        let fire = waker.join().unwrap();
        assert_eq!(cancelled.is_none(), fire == Fire::Lost);
        assert_ne!(fire, Fire::Turn, "it never left the processor");
    });
}

#[test]
fn s5_an_old_wake_up_does_not_end_the_next_wait() {
    model("s5", None, 10, || {
        let green = Green::new();
        let old = green.word.arm();
        let other = green.clone();
        let late = thread::spawn(move || {
            let fire = other.word.fire(old, Cause::Deadline);
            other.enqueue(fire);
        });
        let _ = green.word.cancel();
        let new = green.word.arm();
        let fire = green.word.fire(new, Cause::Event);
        assert_eq!(fire, Fire::Before);
        assert_eq!(green.suspend(), Cause::Event);
        late.join().unwrap();
    });
}

fn join(cell: &JoinCell<usize, ThreadWaiter>) -> usize {
    let waiter = ThreadWaiter::new();
    if cell.register(waiter.clone()) {
        assert_eq!(waiter.sleep(None), Cause::Event);
    }
    cell.take().expect("joined before the end")
}

#[test]
fn j1_the_joiner_is_woken_and_sees_the_result() {
    model("j1", None, 20, || {
        let cell = Arc::new(JoinCell::<usize, ThreadWaiter>::new());
        let end = cell.clone();
        let worker = thread::spawn(move || end.complete(7));
        assert_eq!(join(&cell), 7);
        worker.join().unwrap();
    });
}

#[test]
fn j2_a_result_nobody_joins_is_dropped_once() {
    model("j2", None, 2, || {
        let cell = Arc::new(JoinCell::<Arc<()>, ThreadWaiter>::new());
        let result = Arc::new(());
        let (end, given) = (cell.clone(), result.clone());
        let worker = thread::spawn(move || end.complete(given));
        drop(cell);
        worker.join().unwrap();
        assert_eq!(Arc::strong_count(&result), 1);
    });
}

#[test]
fn j3_a_time_out_against_the_end_has_one_winner() {
    model("j3", Some(3), 100, || {
        let cell = Arc::new(JoinCell::<usize, ThreadWaiter>::new());
        let waiter = ThreadWaiter::new();
        let (end, clock) = (cell.clone(), waiter.clone());
        let worker = thread::spawn(move || end.complete(7));
        let timer = thread::spawn(move || clock.wake(Cause::Deadline));
        let cause = if cell.register(waiter.clone()) {
            waiter.sleep(None)
        } else {
            Cause::Event
        };
        worker.join().unwrap();
        if timer.join().unwrap() {
            assert!(cause == Cause::Deadline || cell.is_done());
        } else {
            assert_eq!(cause, Cause::Event);
        }
        assert_eq!(cell.take(), Some(7));
    });
}
