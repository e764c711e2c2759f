//! Loom models of the idle protocol.
//!
//! The queue is a stand-in that promises as little as crossbeam's: a push ends in a release store, and
//! looking whether it is empty is an acquire load; neither has a fence, and no lock hides a missing one.
//! The poll is a bed that events ring as wakes do.

use super::idle::{Idle, Slept};
use super::parker::Poller;
use crate::platform::clock::Deadline;
use crate::primitive::atomic::{AtomicUsize, Ordering};
use crate::primitive::model::model;
use crate::primitive::{Arc, Sleeper};
use loom::thread;

struct Pool {
    idle: Idle,
    /// How many items have been put in the queue and not taken.
    queue: AtomicUsize,
    /// How many events the kernel holds ready.
    events: AtomicUsize,
    poll: Poll,
}

struct Poll(Sleeper);

impl Poller for Poll {
    fn wait(&self, _limit: Option<Deadline>) {
        self.0.sleep(None);
    }

    fn wake(&self) {
        self.0.wake();
    }
}

fn take_one(count: &AtomicUsize) -> bool {
    count
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
            count.checked_sub(1)
        })
        .is_ok()
}

impl Pool {
    fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            idle: Idle::new(workers),
            queue: AtomicUsize::new(0),
            events: AtomicUsize::new(0),
            poll: Poll(Sleeper::new()),
        })
    }

    fn is_work(&self) -> bool {
        self.queue.load(Ordering::Acquire) > 0
    }

    /// A submission: what `Scheduler::submit` does.
    fn submit(&self) {
        self.queue.fetch_add(1, Ordering::Release);
        self.idle.submitted(&self.poll);
    }

    /// The kernel has an event.
    fn event(&self) {
        self.events.fetch_add(1, Ordering::Release);
        self.poll.0.wake();
    }

    /// The worker's loop, until it has taken one item; as `Worker::work`.
    fn work_one(&self, worker: usize) {
        let mut searching = false;
        loop {
            searching = searching || self.idle.start_search();
            if searching && take_one(&self.queue) {
                self.idle.found(|| self.is_work(), &self.poll);
                return;
            }
            let slept = self
                .idle
                .sleep(worker, searching, None, || self.is_work(), &self.poll);
            searching = true;
            if slept == Slept::Polled {
                while take_one(&self.events) {
                    self.queue.fetch_add(1, Ordering::Release);
                }
                self.idle.leave_seat(&self.poll);
            }
        }
    }
}

#[test]
fn i1_a_submission_is_seen_by_the_last_worker_going_to_sleep() {
    model("i1", None, 50, || {
        let pool = Pool::new(1);
        let other = pool.clone();
        let worker = thread::spawn(move || other.work_one(0));
        pool.submit();
        worker.join().unwrap();
    });
}

#[test]
fn i2_two_submissions_reach_two_workers() {
    model("i2", Some(2), 1000, || {
        let pool = Pool::new(2);
        let workers = [0, 1].map(|index| {
            let pool = pool.clone();
            thread::spawn(move || pool.work_one(index))
        });
        pool.submit();
        pool.submit();
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

#[test]
fn i3_an_event_and_a_submission_both_reach_a_lone_worker() {
    model("i3", Some(3), 50, || {
        let pool = Pool::new(1);
        let other = pool.clone();
        let worker = thread::spawn(move || {
            other.work_one(0);
            other.work_one(0);
        });
        let kernel = pool.clone();
        let event = thread::spawn(move || kernel.event());
        pool.submit();
        event.join().unwrap();
        worker.join().unwrap();
    });
}

/// One worker takes a submission and never comes back, as one whose green thread never yields; the
/// event must reach the other (I2).
#[test]
fn i4_a_busy_worker_leaves_the_seat_to_a_sleeper() {
    model("i4", Some(3), 1000, || {
        let pool = Pool::new(2);
        let workers = [0, 1].map(|index| {
            let pool = pool.clone();
            thread::spawn(move || pool.work_one(index))
        });
        pool.submit();
        pool.event();
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

/// A busy worker polls in passing while the other goes to sleep and finds the seat taken (F4).
#[test]
fn i5_a_seat_taken_in_passing_is_handed_on() {
    model("i5", Some(3), 50, || {
        let pool = Pool::new(2);
        let other = pool.clone();
        let sleeper = thread::spawn(move || other.work_one(1));
        if pool.idle.try_seat() {
            while take_one(&pool.events) {
                pool.submit();
            }
            pool.idle.leave_seat(&pool.poll);
        }
        pool.event();
        sleeper.join().unwrap();
    });
}
