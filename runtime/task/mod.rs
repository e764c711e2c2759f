//! What is scheduled: the wait word that decides every wake-up, the task around it, and the cell
//! that hands a result to the joiner.
//!
//! Called by: `scheduler` (runs tasks), `time`, `reactor` and `sync` (end waits), `thread` (joins).
//!
//! # Who may touch what
//! T1  Whoever holds a task's *turn* may touch its body (coroutine, stack). The turn is with the
//!     worker that took the task from a queue, until that worker has put it back in a queue or has
//!     committed its wait; from then on it is with whoever ends the wait, who passes it on by
//!     queueing the task.
//! T2  There is one turn: [`state::WaitWord`] gives it to exactly one caller of `fire`.
//! T3  While a wait is committed the turn carries one reference to the task, so a green thread that
//!     nobody can wake any more still is not freed: other threads may hold pointers to its stack.
//!
//! # Checked by
//! `models.rs` (loom): the wait word and the join cell, with the waiter that OS threads use.

#[cfg(not(loom))]
pub(crate) mod core;
pub(crate) mod error;
pub(crate) mod join;
#[cfg(all(test, loom))]
mod models;
pub(crate) mod state;
pub(crate) mod thread_waiter;

pub(crate) use state::Cause;

/// The far end of a wait: something that ends it, once.
///
/// The wait table and the join cell hold these; they are green threads or OS threads behind one
/// type in the shipped program, and loom threads in the models.
pub(crate) trait Wake {
    /// Ends the wait for `cause`, and says whether it did: `false` means that another cause came
    /// first, and that whatever the wake-up stood for has to go to somebody else.
    fn wake(&self, cause: Cause) -> bool;
}
