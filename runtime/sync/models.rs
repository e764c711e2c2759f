//! Loom models of the wait table: a tiny mutex-like word, waited for as std's locks do.

use super::wait_table::WaitTable;
use crate::primitive::Arc;
use crate::primitive::atomic::{AtomicU32, Ordering};
use crate::primitive::model::model;
use crate::task::thread_waiter::ThreadWaiter;
use crate::task::{Cause, Wake};
use loom::thread;

type Table = WaitTable<ThreadWaiter>;

const HERE: usize = 0x1000;
const ANY: u32 = u32::MAX;

/// Waits at the word while it is 0; gives the cause if it slept.
fn wait(table: &Table, word: &AtomicU32, waiter: &ThreadWaiter) -> Option<Cause> {
    let expected = || word.load(Ordering::Relaxed) == 0;
    table
        .enqueue(HERE, ANY, waiter.clone(), expected)
        .then(|| waiter.sleep(None))
}

#[test]
fn f1_a_wake_after_the_change_is_never_lost() {
    model("f1", None, 10, || {
        let shared = Arc::new((Table::new(1), AtomicU32::new(0)));
        let other = shared.clone();
        let waker = thread::spawn(move || {
            let (table, word) = &*other;
            word.store(1, Ordering::Relaxed);
            table.wake(HERE, 1, ANY)
        });
        let (table, word) = &*shared;
        let slept = wait(table, word, &ThreadWaiter::new()).is_some();
        assert!(waker.join().unwrap() >= usize::from(slept));
    });
}

#[test]
fn f2_one_wake_is_not_spent_on_a_waiter_that_timed_out() {
    model("f2", Some(3), 50, || {
        let shared = Arc::new((Table::new(1), AtomicU32::new(0)));
        let waiters = [ThreadWaiter::new(), ThreadWaiter::new()];
        for waiter in &waiters {
            let queued = shared.0.enqueue(HERE, ANY, waiter.clone(), || true);
            assert!(queued);
        }
        let first = waiters[0].clone();
        let clock = thread::spawn(move || first.wake(Cause::Deadline));
        let other = shared.clone();
        let waker = thread::spawn(move || other.0.wake(HERE, 1, ANY));
        let timed_out = clock.join().unwrap();
        assert_eq!(waker.join().unwrap(), 1);
        // The wake went to the first, or, if that had timed out, to the second.
        assert_eq!(waiters[1].wake(Cause::Deadline), !timed_out);
    });
}

#[test]
fn f3_two_waiters_two_wakes() {
    model("f3", Some(2), 100, || {
        let shared = Arc::new((Table::new(1), AtomicU32::new(0)));
        let sleepers = [(); 2].map(|()| {
            let shared = shared.clone();
            thread::spawn(move || {
                let (table, word) = &*shared;
                wait(table, word, &ThreadWaiter::new())
            })
        });
        let (table, word) = &*shared;
        word.store(1, Ordering::Relaxed);
        table.wake(HERE, 2, ANY);
        for sleeper in sleepers {
            assert_ne!(sleeper.join().unwrap(), Some(Cause::Deadline));
        }
    });
}
