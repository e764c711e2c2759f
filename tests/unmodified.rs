//! A green thread is a thread: code that never heard of sward runs on it as on an OS thread.
//!
//! Everything in `unmodified/` is plain std, libc or a well-known crate, as it would stand in a
//! program of OS threads. Each case runs on one and on two workers, mostly in 200 green threads.
//! With one worker a single call that blocks the OS thread hangs the case; with two, what belongs
//! to the OS thread and not to the green thread goes wrong after a migration.

#[path = "unmodified/channels.rs"]
mod channels;
#[path = "unmodified/datagrams.rs"]
mod datagrams;
#[path = "unmodified/descriptors.rs"]
mod descriptors;
#[path = "unmodified/identity.rs"]
mod identity;
#[path = "unmodified/locks.rs"]
mod locks;
#[path = "unmodified/parking_lot.rs"]
mod parking_lot;
#[path = "unmodified/pipes.rs"]
mod pipes;
#[path = "unmodified/processes.rs"]
mod processes;
#[path = "unmodified/streams.rs"]
mod streams;
#[path = "unmodified/support.rs"]
#[allow(dead_code, reason = "shared with the other tests of this folder")]
mod support;
#[path = "unmodified/thread_locals.rs"]
mod thread_locals;
#[path = "unmodified/threads.rs"]
mod threads;
#[path = "unmodified/time.rs"]
mod time;
#[path = "unmodified/time_outs.rs"]
mod time_outs;
