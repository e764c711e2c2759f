//! Whether the hooks do anything: the switch that `all()` turns on and a forked child turns off.
//!
//! Called by: every hook, first of all.
//!
//! # Protocol
//! `all()`:      1. register the fork handler, once   2. set ACTIVE
//! Hook:         1. load ACTIVE   2. ask `context` whether a green thread calls
//! Forked child: 1. clear ACTIVE, before `fork` returns
//!
//! # Invariants
//! A1  While ACTIVE is clear no green thread waits through this room, so a hook may pass the call
//!     on without looking into the reactor or the wait table.
//! A2  In a forked child ACTIVE is clear: the carriers, and whatever locks they held, are not there.
//!
//! # Memory order
//! Hooks load ACTIVE relaxed: it publishes nothing, as the runtime's data is published by the
//! scheduler. A green thread sees its own `all()`, or that of whoever spawned it. Other threads
//! need ACTIVE for one thing, waking green waiters; F1 in `futex` orders that load.
//!
//! A second caller of `all()` may set ACTIVE while the first still registers the handler; a fork
//! in that instant is the only thing that could notice.

use crate::scheduler::context;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set by `all()`, cleared in forked children; read by every hook.
static ACTIVE: AtomicBool = AtomicBool::new(false);

/// Set by the first `all()`: handlers stay registered for good, also in children.
static WATCHES_FORKS: AtomicBool = AtomicBool::new(false);

/// Whether patching is on.
#[inline(always)]
pub(super) fn is_active() -> bool {
    ACTIVE.load(Ordering::Relaxed)
}

/// Whether patching is on and the caller is a green thread outside the runtime.
#[inline(always)]
pub(super) fn on_green() -> bool {
    is_active() && context::is_green()
}

/// Turns patching on.
///
/// # Panics
///
/// If there is no memory for a fork handler.
pub(super) fn activate() {
    if !WATCHES_FORKS.swap(true, Ordering::AcqRel) {
        // SAFETY: `deactivate` may run in a forked child: it stores to an atomic.
        let refused = unsafe { libc::pthread_atfork(None, None, Some(deactivate)) };
        assert_eq!(refused, 0, "no memory for a fork handler");
    }
    ACTIVE.store(true, Ordering::SeqCst);
}

/// Turns patching off. A forked child is left with the thread that forked, and must not touch what
/// it shares with its parent, the reactor's epoll instance above all.
pub(super) extern "C" fn deactivate() {
    ACTIVE.store(false, Ordering::SeqCst);
}
