//! Readiness of descriptors, from the kernel to the waiting green thread.
//!
//! Called by: `patch` (waits, and says when a descriptor goes), `scheduler` (polls, through
//! [`Driver`](crate::scheduler::driver::Driver)).
//!
//! One blocking read goes: hook: the call would block ─▶ [`wait`](fn@wait) ─▶ [`descriptors`]: note the waiter,
//! arm epoll ─▶ the green thread parks ─▶ [`driver`]: the poll returns ─▶ [`descriptors`]: who waited for
//! this? ─▶ queued ─▶ the hook tries again.
//!
//! # Invariants
//! R1  Descriptors are armed anew for each wait, after the waiter is noted. Arming makes the kernel look
//!     (edge-triggered `EPOLL_CTL_MOD` and `ADD` report what is ready), so what came between the failed
//!     try and the arming is reported, and a descriptor that was closed unseen and its number used again is
//!     found out (`ENOENT`) and registered anew.
//! R2  A token carries the generation of its registration: an event that was under way for an earlier
//!     owner of the number is dropped.
//! R3  All who wait for a direction are woken by its event, because one edge may serve several.
//! R4  A wake-up may be spurious: callers try again.
//!
//! # Rejected
//! Registering once and keeping readiness words (tokio, Go) saves the arming call, but it needs to see
//! every close of a descriptor, and C libraries close some where no symbol shows it (`fclose`).

pub(crate) mod descriptors;
pub(crate) mod driver;
mod lifetime;
mod wait;

pub(crate) use driver::Reactor;
pub(crate) use lifetime::{PrivateDescriptor, replace};
pub(crate) use wait::{AnyReadiness, Readiness, wait, wait_any};

/// What somebody waits for on a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interest(u8);

impl Interest {
    pub(crate) const READ: Self = Self(1);
    pub(crate) const WRITE: Self = Self(2);
    pub(crate) const BOTH: Self = Self(3);

    /// Whether it includes all of `other`.
    pub(crate) fn includes(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}
