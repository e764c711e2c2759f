//! Green threads for plain blocking code.
//!
//! After [`patch::all`], *unmodified* blocking code — std's sockets, locks, channels and sleeps, any crate
//! built on them, C libraries — running on a green thread lets other green threads run where it would
//! block an OS thread. Spawn ten thousand of them on as many OS threads as there are processors.
//!
//! ```
//! use std::thread::sleep; // std's own
//! use std::time::{Duration, Instant};
//!
//! sward::patch::all();
//! let start = Instant::now();
//! let sleepers = (0..1000).map(|n| {
//!     sward::spawn(move || {
//!         sleep(Duration::from_millis(10));
//!         n
//!     })
//! });
//! let total: u32 = sward::joinall(sleepers).into_iter().map(Result::unwrap).sum();
//! assert_eq!(total, 499_500);
//! assert!(start.elapsed() < Duration::from_secs(10)); // 1,000 × 10 ms, one after another
//! ```
//!
//! # A green thread is a thread
//!
//! Each has a stack and thread-local storage of its own, so `thread_local!`, `errno`, panics,
//! [`std::thread::current`] and everything else that belongs to a thread belongs to the green thread.
//! It may move between OS threads at each wait and cannot tell.
//!
//! # What each call holds up
//!
//! | call on a green thread | holds up |
//! | --- | --- |
//! | a patched call that must wait, a wait of this crate | the green thread |
//! | a computation, file input and output, `getaddrinfo`, a call that is not patched | its worker, for as long |
//! | `exit`, a stack overflow, a fault | the process |
//!
//! # Limits
//!
//! * Linux on x86-64 with glibc 2.34 or later, dynamically linked; the runtime checks this when it is
//!   made and says what is missing.
//! * What belongs to the *kernel's* thread is shared by the green threads of a worker: the kernel's
//!   thread id, scheduling parameters and affinity, signal masks, `setns`, OpenGL contexts.
//! * See [`patch`] for the calls that are patched.
#![cfg_attr(
    loom,
    allow(
        dead_code,
        unreachable_pub,
        reason = "the models use a part of the crate"
    )
)]

#[cfg(not(loom))]
pub(crate) mod coroutine;
#[cfg(not(loom))]
pub mod patch;
pub(crate) mod platform;
pub(crate) mod primitive;
#[cfg(not(loom))]
pub(crate) mod reactor;
pub(crate) mod scheduler;
#[cfg(not(loom))]
pub(crate) mod stack;
pub(crate) mod sync;
pub(crate) mod task;
#[cfg(not(loom))]
pub mod thread;
pub(crate) mod time;
#[cfg(not(loom))]
pub(crate) mod tls;

/// The README's program is run as a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// What the fuzz targets drive.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::scheduler::fuzzing::park_and_queue;
}

#[cfg(not(loom))]
pub use task::error::JoinError;
#[cfg(not(loom))]
pub use thread::{
    JoinHandle, Runtime, RuntimeBuilder, Thread, ThreadId, current, joinall, park, run, sleep,
    spawn, yield_now,
};
