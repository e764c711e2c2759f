//! The primitives as they ship: std's atomics, and a bed for one OS thread over a raw futex.

use crate::platform::clock::Deadline;
use crate::platform::futex;

pub(crate) use std::sync::Arc;

/// Atomics and fences.
pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
}

/// [`std::cell::UnsafeCell`] with loom's way of access: a closure gets the pointer.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Gives `access` a pointer for writing. Whoever follows the pointer owes exclusive access.
    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        access(self.0.get())
    }
}

const EMPTY: u32 = 0;
const WOKEN: u32 = 1;

/// One OS thread's bed. Only its owner sleeps in it; anybody wakes it, and one wake is remembered.
///
/// Protocol: `wake` swaps WOKEN in and wakes the futex; `sleep` waits while the word is EMPTY and
/// takes WOKEN away when it leaves. The swap is a release and the taking an acquire, so what was
/// written before `wake` is seen after `sleep`.
#[derive(Debug)]
pub(crate) struct Sleeper {
    word: atomic::AtomicU32,
}

impl Sleeper {
    pub(crate) const fn new() -> Self {
        Self {
            word: atomic::AtomicU32::new(EMPTY),
        }
    }

    /// Sleeps until woken or until `deadline`, whichever is first. Wakes for no other reason.
    pub(crate) fn sleep(&self, deadline: Option<Deadline>) {
        while self.word.swap(EMPTY, atomic::Ordering::Acquire) == EMPTY {
            if deadline.is_some_and(|deadline| Deadline::now() >= deadline) {
                return;
            }
            futex::wait(&self.word, EMPTY, deadline);
        }
    }

    /// Wakes the sleeper now, or lets its next `sleep` return at once.
    pub(crate) fn wake(&self) {
        if self.word.swap(WOKEN, atomic::Ordering::Release) == EMPTY {
            futex::wake(&self.word, 1);
        }
    }
}
