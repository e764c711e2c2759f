//! The primitives as loom sees them.
//!
//! Time does not pass in a model: a deadline given to [`Sleeper::sleep`] never comes by itself. A
//! model that wants a time-out to fire lets another loom thread play the clock.

use crate::platform::clock::Deadline;
use loom::sync::{Condvar, MutexGuard};

pub(crate) use loom::cell::UnsafeCell;
pub(crate) use loom::sync::Arc;

/// Atomics and fences.
pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
}

/// loom's lock, without poisoning.
#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// One loom thread's bed.
#[derive(Debug)]
pub(crate) struct Sleeper {
    woken: Mutex<bool>,
    bell: Condvar,
}

impl Sleeper {
    pub(crate) fn new() -> Self {
        Self {
            woken: Mutex::new(false),
            bell: Condvar::new(),
        }
    }

    pub(crate) fn sleep(&self, _deadline: Option<Deadline>) {
        let mut woken = self.woken.lock();
        while !*woken {
            woken = self
                .bell
                .wait(woken)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        *woken = false;
    }

    pub(crate) fn wake(&self) {
        *self.woken.lock() = true;
        self.bell.notify_one();
    }
}
