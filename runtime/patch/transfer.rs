//! The one loop that all calls that move data go through.
//!
//! Called by `socket` and `stream`, on green threads only.
//!
//! # Protocol
//!  1. try, without blocking
//!  2. bytes moved: done if the call is complete with these, else go on from there
//!  3. interrupted: from 1
//!  4. would block: [`Waiting::would_block`], then from 1
//!  5. an error, or no more waiting: what was moved so far if anything was, else the error
//!
//! # Invariants
//! R1  A call that moved something reports it, never an error: the kernel's blocking calls do so,
//!     and keep the error for the next call. Before going on after a part the loop therefore looks
//!     for a broken connection with poll, which unlike a call does not take the error away.
//! R2  The first try is the caller's own call, so the kernel checks descriptor and pointers and
//!     its error numbers are the kernel's.

use super::descriptor;
use super::kernel::Outcome;
use super::waiting::{Next, Waiting};
use crate::reactor::Interest;
use std::os::fd::RawFd;

/// How to make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Without blocking: `EAGAIN` if it would.
    Try,
    /// Blocking, since nobody can wait for this descriptor.
    InPlace,
}

/// A call that moves data.
pub(super) trait Transfer {
    /// Makes the call for what is left after the first `done` bytes.
    fn attempt(&mut self, descriptor: RawFd, done: usize, mode: Mode) -> Outcome;

    /// Whether the call is complete with `done` bytes. Asked only after a successful attempt.
    fn is_complete(&mut self, descriptor: RawFd, done: usize) -> bool;
}

/// Makes the call `transfer` on `descriptor`, parking the green thread where it would block.
pub(super) fn run(descriptor: RawFd, interest: Interest, transfer: &mut impl Transfer) -> Outcome {
    let mut waiting = Waiting::new(descriptor, interest);
    let mut mode = Mode::Try;
    let mut done = 0;
    loop {
        if done > 0 && is_broken(waiting.descriptor(), interest) {
            return Ok(done);
        }
        let failure = match transfer.attempt(waiting.descriptor(), done, mode) {
            Ok(0) => return Ok(done),
            Ok(moved) => {
                done += moved;
                if transfer.is_complete(waiting.descriptor(), done) {
                    return Ok(done);
                }
                continue;
            }
            Err(libc::EINTR) => continue,
            Err(libc::EAGAIN) if mode == Mode::Try => match waiting.would_block() {
                Ok(Next::Retry) => continue,
                Ok(Next::InPlace) => {
                    mode = Mode::InPlace;
                    continue;
                }
                Err(number) => number,
            },
            Err(number) => number,
        };
        return if done > 0 { Ok(done) } else { Err(failure) };
    }
}

/// Whether the connection has ended in both directions with an error (R1), and nothing is left to
/// read that came before. A queue of error messages alone (time stamps) shows `POLLERR` without
/// `POLLHUP`.
fn is_broken(descriptor: RawFd, interest: Interest) -> bool {
    const BROKEN: libc::c_short = libc::POLLERR | libc::POLLHUP;
    descriptor::poll_now(descriptor, 0) & BROKEN == BROKEN
        && (interest == Interest::WRITE || descriptor::unread(descriptor) == 0)
}
