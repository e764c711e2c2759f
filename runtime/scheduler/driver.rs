//! What the scheduler needs from the rooms above it: readiness and time.
//!
//! Implemented by `reactor`; called by `worker` and `pool`. The scheduler decides who polls and when;
//! the driver knows what for.

use super::parker::Poller;
use crate::platform::clock::Deadline;
use crate::task::core::{DeadlineKey, Task};
use crate::task::state::Generation;
use std::any::Any;
use std::sync::Arc;

/// The reactor and the timers of one runtime.
///
/// `wait` (of [`Poller`]), `look` and `dispatch` are called only from the driver seat.
pub(crate) trait Driver: Poller + Any + Send + Sync {
    /// Collects the events that are there, without waiting.
    fn look(&self);

    /// Hands out the events that `wait` or `look` collected: queues who waited for them.
    fn dispatch(&self);

    /// Ends the waits whose deadline has come. Cheap when there are none.
    fn expire(&self);

    /// Has `task`'s wait `wait` ended at `deadline`. `shard` is the caller's worker.
    fn add_deadline(
        &self,
        shard: usize,
        deadline: Deadline,
        task: Arc<Task>,
        wait: Generation,
    ) -> DeadlineKey;

    /// Takes a deadline back.
    fn drop_deadline(&self, key: DeadlineKey);

    /// For the rooms above that know the driver's type.
    fn as_any(&self) -> &dyn Any;
}
