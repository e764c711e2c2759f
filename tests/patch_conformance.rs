//! Every patched call, made on an OS thread and on a green thread, with the same results.
//!
//! A scenario runs twice: with all its threads OS threads, and with all of them green threads *of one
//! worker*. What it saw (results, errno, data) must be equal; and a call that blocked the worker in
//! place of its green thread would hang the second run, as the one who would end the wait could not run.
//!
//! Exceptions, where the two are not compared: none.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "each block is one call of libc, with what its own scenario made for it"
)]

#[path = "patch_conformance/closing.rs"]
mod closing;
#[path = "patch_conformance/connecting.rs"]
mod connecting;
#[path = "patch_conformance/devices.rs"]
mod devices;
#[path = "patch_conformance/errors.rs"]
mod errors;
#[path = "patch_conformance/futexes.rs"]
mod futexes;
#[path = "patch_conformance/limits.rs"]
mod limits;
#[path = "patch_conformance/polling.rs"]
mod polling;
#[path = "patch_conformance/transfers.rs"]
mod transfers;
#[path = "patch_conformance/world.rs"]
mod world;
