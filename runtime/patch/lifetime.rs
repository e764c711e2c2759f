//! `close`, `dup2`, `dup3`, `shutdown`.
//!
//! Called by C and Rust code, on any thread. None of them waits. The first three end a number's
//! life, and whoever waits on that number stays on the file that it had, as a thread blocked in
//! the kernel does: the reactor is told *before* the number is free for reuse, and moves its
//! waiters to a private duplicate.
//!
//! `shutdown` wakes whoever waits through the socket's own readiness; it is interposed so that the
//! table of what a socket's life consists of is whole, and passes straight through.
//!
//! Closing may block in the kernel (`SO_LINGER`, a network file system): it then blocks its
//! worker. It is never made twice: after `EINTR` the number is free already.
//!
//! # Limits
//! A child made with `vfork` shares memory but not descriptors with its parent: when it closes a
//! number before `exec`, the parent's waiters on that number move to a duplicate for nothing.
//! `close_range` and `closefrom` do not tell the reactor.

use super::active;
use super::descriptor;
use super::kernel::{answer_int, in_runtime, kernel};
use crate::reactor;
use libc::c_int;

/// Tells the reactor that `new` is about to become a duplicate of `old`, if it is.
fn forget_for(old: c_int, new: c_int) {
    if active::is_active() && old != new && descriptor::status_flags(old).is_ok() {
        forget(new);
    }
}

/// Tells the reactor that the number is about to refer to something else, or nothing.
fn forget(descriptor: c_int) {
    if active::is_active() {
        in_runtime(|| reactor::forget(descriptor));
    }
}

/// close(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn close(descriptor: c_int) -> c_int {
    forget(descriptor);
    // SAFETY: closing what the caller owns is the caller's affair.
    answer_int(unsafe { kernel!(SYS_close, descriptor) })
}

/// dup2(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn dup2(old: c_int, new: c_int) -> c_int {
    forget_for(old, new);
    // SAFETY: replacing what the caller owns is the caller's affair.
    answer_int(unsafe { kernel!(SYS_dup2, old, new) })
}

/// dup3(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    forget_for(old, new);
    // SAFETY: replacing what the caller owns is the caller's affair.
    answer_int(unsafe { kernel!(SYS_dup3, old, new, flags) })
}

/// shutdown(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn shutdown(socket: c_int, how: c_int) -> c_int {
    // SAFETY: no memory is involved.
    answer_int(unsafe { kernel!(SYS_shutdown, socket, how) })
}
