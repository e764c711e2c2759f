//! Time: the deadlines of all waits, and sleeping.
//!
//! Called by: `reactor` (which polls until the next deadline), `thread` and `patch` (sleep).

pub(crate) mod timers;

use crate::platform::clock::Deadline;
use crate::scheduler::waiter;

/// Parks the caller until `deadline`; never returns before it.
pub(crate) fn sleep_until(deadline: Deadline) {
    waiter::wait(Some(deadline), |_| true);
}
