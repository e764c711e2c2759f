//! Time: the deadlines of all waits, and sleeping.
//!
//! Called by: `reactor` (which polls until the next deadline), `thread` and `patch` (sleep).

pub(crate) mod alarm;
#[cfg(all(test, loom))]
mod models;
#[cfg(not(loom))]
pub(crate) mod timers;

/// Parks the caller until `deadline`; never returns before it.
#[cfg(not(loom))]
pub(crate) fn sleep_until(deadline: crate::platform::clock::Deadline) {
    crate::scheduler::waiter::wait(Some(deadline), |_| true);
}
