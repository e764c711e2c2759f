//! Runs green threads on carriers: M of them on N OS threads.
//!
//! Called by: `thread` (spawn, run), `time`, `reactor` and `sync` (waits), `patch` (context).
//!
//! A *worker* is a run queue; a *carrier* is the OS thread that runs it. A green thread goes round:
//!
//! ```text
//! spawn ─▶ a queue ─▶ worker: resume ─▶ suspends ─▶ worker: commit ─▶ waits ─▶ woken: a queue ─▶ …
//!                                     └ ends ─▶ worker: stack back to the cache
//! ```
//!
//! * [`context`]: who is running here: a green thread, a worker, or a plain OS thread
//! * [`waiter`]: one way to wait, for green and OS threads
//! * [`run_queue`]: what is runnable on one worker
//! * [`worker`]: the loop that runs it, and the thread-pointer rule
//! * [`idle`]: who sleeps, who polls, who is woken (modelled with loom)
//! * [`pool`]: the workers of one runtime together: submission, stealing, shut-down
//! * [`driver`]: what the scheduler needs from the reactor and the timers

#[cfg(not(loom))]
pub(crate) mod context;
#[cfg(not(loom))]
pub(crate) mod driver;
#[cfg(all(any(test, fuzzing), not(loom)))]
pub(crate) mod fuzzing;
pub(crate) mod idle;
#[cfg(all(test, loom))]
mod models;
pub(crate) mod parker;
#[cfg(not(loom))]
pub(crate) mod pool;
#[cfg(not(loom))]
pub(crate) mod run_queue;
#[cfg(not(loom))]
pub(crate) mod waiter;
#[cfg(not(loom))]
pub(crate) mod worker;

#[cfg(not(loom))]
pub(crate) use context::yield_now;
