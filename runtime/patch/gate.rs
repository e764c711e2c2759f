//! Lets one green thread at a time do "look whether it is ready, then make the blocking call" on
//! one object.
//!
//! Called by `accept`, and by `stream` for what knows no non-blocking read. Between the look and
//! the call another green thread could take what was there, and the call would block its worker.
//!
//! # Protocol
//! 1. lock the object's gate   2. poll without waiting   3. ready: make the call   4. unlock
//!
//! # Invariants
//! G1  Nothing waits while it holds a gate: not ready is an answer (`EAGAIN`), and the call after
//!     a positive look does not block, unless an OS thread or another process takes what was
//!     there. Then the worker is held up until more comes, and so is whoever else wants this gate.
//! G2  The holder counts as being in the runtime, so a hook called by a signal handler on top of it
//!     passes straight through and does not come for the gate again.
//!
//! Objects share gates by hash, so there is nothing to make or drop with a descriptor; a shared
//! gate costs a short wait for a carrier that is running.

use super::descriptor;
use super::kernel::Outcome;
use crate::primitive::Mutex;
use crate::scheduler::context::Inside;
use std::os::fd::RawFd;

/// How many gates there are: many more than carriers, so unrelated objects seldom meet.
const GATES: usize = 64;

static LOCKS: [Mutex<()>; GATES] = [const { Mutex::new(()) }; GATES];

/// Makes `call` if `descriptor`, which refers to `object`, is ready for `event`; else `EAGAIN`.
pub(super) fn when_ready(
    object: u64,
    descriptor: RawFd,
    event: libc::c_short,
    call: impl FnOnce() -> Outcome,
) -> Outcome {
    let _inside = Inside::enter();
    // Fibonacci hashing: inode numbers run, so the low bits of neighbours already differ.
    let hash = object.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let _gate = LOCKS[hash as usize % GATES].lock();
    if descriptor::poll_now(descriptor, event) == 0 {
        return Err(libc::EAGAIN);
    }
    call()
}
