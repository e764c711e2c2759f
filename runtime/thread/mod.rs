//! Green threads and runtimes, as a program sees them: the mirror of [`std::thread`].
//!
//! * [`spawn`], [`Builder`], [`JoinHandle`]: making green threads and waiting for them
//! * [`current`](fn@current), [`park`], [`sleep`], [`yield_now`]: what a green thread does to itself
//! * [`Runtime`]: the workers they run on
//!
//! Every function here may be called from plain OS threads too, and then does what std's does.

mod builder;
mod current;
mod join_handle;
mod runtime;

pub use builder::{Builder, SpawnError, spawn};
pub use current::{Thread, ThreadId, current, park, park_timeout, sleep, yield_now};
pub use join_handle::{JoinHandle, joinall};
pub use runtime::{Runtime, RuntimeBuilder, run};
