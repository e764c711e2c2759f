//! Stackful coroutines: the only room that knows corosensei.
//!
//! [`switch`] makes a stack run a function and switches to and from it. It knows nothing of tasks,
//! queues or thread pointers; `scheduler::worker` puts these together.

pub(crate) mod switch;
