//! Loom models of the alarm. The deadlines are one word that is written relaxed, as a shard's earliest is.

use super::alarm::Alarm;
use crate::platform::clock::Deadline;
use crate::primitive::Arc;
use crate::primitive::atomic::{AtomicU64, Ordering};
use crate::primitive::model::model;
use loom::thread;

/// The alarm, and the earliest deadline or [`Deadline::NEVER`].
struct Shared {
    alarm: Alarm,
    earliest: AtomicU64,
}

const NEVER: u64 = Deadline::NEVER.nanoseconds();

impl Shared {
    fn new(earliest: u64) -> Arc<Self> {
        Arc::new(Self {
            alarm: Alarm::new(),
            earliest: AtomicU64::new(earliest),
        })
    }

    fn set(&self, earliest: u64) {
        self.earliest.store(earliest, Ordering::Relaxed);
    }

    fn sleep(&self) -> Deadline {
        let earliest = || {
            let earliest = self.earliest.load(Ordering::Relaxed);
            (earliest != NEVER).then(|| Deadline::from_nanoseconds(earliest))
        };
        self.alarm.sleep(None, earliest).unwrap_or(Deadline::NEVER)
    }

    /// Whether the sleeper is to be woken.
    fn add(&self, deadline: u64) -> bool {
        self.set(deadline);
        self.alarm.misses(Deadline::from_nanoseconds(deadline))
    }
}

#[test]
fn a1_a_new_deadline_is_slept_for_or_wakes() {
    model("a1", None, 3, || {
        let shared = Shared::new(NEVER);
        let other = shared.clone();
        let adder = thread::spawn(move || other.add(7));
        let until = shared.sleep();
        // Somebody who adds after the sleeper has got up need not wake it: it has not here.
        let woken = adder.join().unwrap();
        assert!(woken || until.nanoseconds() <= 7);
    });
}

#[test]
fn a2_a_deadline_taken_back_does_not_hide_a_later_one() {
    model("a2", None, 5, || {
        let shared = Shared::new(5);
        let other = shared.clone();
        let adder = thread::spawn(move || {
            other.set(NEVER);
            other.add(7)
        });
        let until = shared.sleep();
        let woken = adder.join().unwrap();
        assert!(woken || until.nanoseconds() <= 7);
    });
}
