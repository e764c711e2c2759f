//! One way to wait, for green threads and OS threads.
//!
//! Called by: `time`, `reactor`, `sync`, `thread`.
//!
//! # Protocol
//! 1. begin a wait   2. hand a [`Waiter`] to whoever may end it   3. add the deadline, if any
//! 4. leave the processor   5. back again: drop the deadline, read the cause
//!
//! Whoever ends it before step 4 is seen by the worker's commit (see [`crate::task::state`]).

use super::context;
use crate::coroutine::switch::Suspension;
use crate::platform::clock::Deadline;
use crate::task::core::Task;
use crate::task::state::Generation;
use crate::task::thread_waiter::ThreadWaiter;
use crate::task::{Cause, Wake};
use std::sync::Arc;

/// The far end of one wait of a green or an OS thread.
#[derive(Clone)]
pub(crate) enum Waiter {
    Green(Arc<Task>, Generation),
    Thread(ThreadWaiter),
}

impl Wake for Waiter {
    fn wake(&self, cause: Cause) -> bool {
        match self {
            Waiter::Green(task, wait) => task.fire(*wait, cause),
            Waiter::Thread(waiter) => waiter.wake(cause),
        }
    }
}

impl Waiter {
    /// Whether both are of the same wait.
    pub(crate) fn is(&self, other: &Waiter) -> bool {
        match (self, other) {
            (Waiter::Green(task, wait), Waiter::Green(other, other_wait)) => {
                Arc::ptr_eq(task, other) && wait == other_wait
            }
            (Waiter::Thread(waiter), Waiter::Thread(other)) => waiter.is(other),
            _ => false,
        }
    }
}

/// Waits until the [`Waiter`] that `register` got is woken, or until `deadline`. If `register` gives
/// `false` there is nothing to wait for, and the answer is `None`.
///
/// `register` must not wait itself.
pub(crate) fn wait(
    deadline: Option<Deadline>,
    register: impl FnOnce(&Waiter) -> bool,
) -> Option<Cause> {
    let Some(task) = context::task() else {
        let waiter = ThreadWaiter::new();
        return register(&Waiter::Thread(waiter.clone())).then(|| waiter.sleep(deadline));
    };
    let _inside = context::Inside::enter();
    let generation = task.word().arm();
    if !register(&Waiter::Green(task.clone(), generation)) {
        return task.word().cancel();
    }
    Some(leave(&task, generation, deadline))
}

/// Waits until somebody unparks the calling green thread or `deadline` comes; at once if an unpark has
/// come already.
pub(crate) fn park(task: &Arc<Task>, deadline: Option<Deadline>) {
    let _inside = context::Inside::enter();
    if let Some(generation) = task.word().arm_park() {
        leave(task, generation, deadline);
    }
}

fn leave(task: &Arc<Task>, generation: Generation, deadline: Option<Deadline>) -> Cause {
    let key = deadline.map(|deadline| {
        task.schedule
            .add_deadline(deadline, task.clone(), generation)
    });
    context::suspend(Suspension::Park);
    let cause = task.word().finish();
    if let Some(key) = key
        && cause != Cause::Deadline
    {
        task.schedule.drop_deadline(key);
    }
    cause
}
