//! `close`, `dup2`, `dup3`, `shutdown`.
//!
//! Called by C and Rust code, on any thread. None of them waits. The first three end a number's
//! life, and whoever waits on that number stays on the file that it had, as a thread blocked in
//! the kernel does: the call is made by way of the reactor, which moves its waiters to a private
//! duplicate before.
//!
//! `shutdown` wakes whoever waits through the socket's own readiness; it is interposed so that the
//! table of what a socket's life consists of is whole, and passes straight through.
//!
//! Closing may block in the kernel (`SO_LINGER`, a network file system): it then blocks its
//! worker. It is never made twice: after `EINTR` the number is free already.
//!
//! # Limits
//! A signal handler that interrupts its thread inside the runtime, whose locks that thread may hold,
//! closes without telling the reactor: whoever waits on the number then waits on.
//! A child made with `vfork` shares memory but not descriptors with its parent: when it closes a
//! number before `exec`, the parent's waiters on that number move to a duplicate for nothing.
//! `close_range` and `closefrom` do not tell the reactor.

use super::active;
use super::descriptor;
use super::kernel::{Outcome, answer_int, in_runtime, kernel};
use crate::reactor;
use crate::scheduler::context;
use libc::c_int;

/// Makes the system call `change`, by which the number becomes a duplicate of `old`.
fn replace_by(old: c_int, number: c_int, change: impl FnOnce() -> Outcome) -> Outcome {
    if old != number && descriptor::status_flags(old).is_ok() {
        replace(number, change)
    } else {
        change()
    }
}

/// Makes the system call `change`, by which the number comes to stand for something else or nothing.
fn replace(number: c_int, change: impl FnOnce() -> Outcome) -> Outcome {
    if active::is_active() && !context::is_inside() {
        in_runtime(|| reactor::replace(number, change))
    } else {
        change()
    }
}

/// close(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn close(descriptor: c_int) -> c_int {
    // SAFETY: closing what the caller owns is the caller's affair.
    let change = || unsafe { kernel!(SYS_close, descriptor) };
    answer_int(replace(descriptor, change))
}

/// dup2(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn dup2(old: c_int, new: c_int) -> c_int {
    // SAFETY: replacing what the caller owns is the caller's affair.
    let change = || unsafe { kernel!(SYS_dup2, old, new) };
    answer_int(replace_by(old, new, change))
}

/// dup3(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    // SAFETY: replacing what the caller owns is the caller's affair.
    let change = || unsafe { kernel!(SYS_dup3, old, new, flags) };
    answer_int(replace_by(old, new, change))
}

/// shutdown(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn shutdown(socket: c_int, how: c_int) -> c_int {
    // SAFETY: no memory is involved.
    answer_int(unsafe { kernel!(SYS_shutdown, socket, how) })
}
