//! `accept`, `accept4`.
//!
//! Called by C and Rust code. The kernel has no accept that neither waits nor needs `O_NONBLOCK`
//! on the listener, which may be shared with other processes. So: poll, then accept, behind the
//! listener's [`gate`], since a connection that another green thread takes in between would leave
//! this one blocking its worker.
//!
//! A connection that is reset while it is queued stays in the queue (Linux reports it to the
//! accepted socket), so after a positive look only another taker makes accept block.
//!
//! **The hole that is left**: an OS thread or another process that accepts from the same listener
//! can be that taker. The worker is then held up until the next connection, as is every green
//! thread whose listener shares the gate. A listener that the user made non-blocking has no such
//! hole.

use super::active;
use super::descriptor::{self, Kind, Nature};
use super::gate;
use super::kernel::{Outcome, answer_int, kernel};
use super::waiting::Waiting;
use crate::reactor::Interest;
use libc::{c_int, sockaddr, socklen_t};
use std::os::fd::RawFd;

/// Accepts on a green thread; `call` is accept4 on the descriptor that it gets.
fn accept_or_wait(listener: RawFd, call: impl Fn(RawFd) -> Outcome) -> Outcome {
    let object = match Nature::of(listener) {
        Ok(nature) if nature.kind == Kind::Socket => nature.object,
        // EBADF or ENOTSOCK, as the kernel says it.
        _ => return call(listener),
    };
    let mut waiting = Waiting::new(listener, Interest::READ);
    loop {
        let descriptor = waiting.descriptor();
        match gate::when_ready(object, descriptor, libc::POLLIN, || call(descriptor)) {
            Err(libc::EAGAIN) => {}
            Err(libc::EINTR) => continue,
            outcome => return outcome,
        }
        // What does not listen has no connections to wait for: EINVAL or EOPNOTSUPP, at once.
        if descriptor::socket_option(descriptor, libc::SO_ACCEPTCONN) == Ok(0) {
            return call(descriptor);
        }
        waiting.would_block()?;
    }
}

/// accept(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn accept(
    listener: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
) -> c_int {
    // SAFETY: accept is accept4 without flags.
    unsafe { accept4(listener, address, address_length, 0) }
}

/// accept4(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn accept4(
    listener: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    let call = |listener: RawFd| {
        // SAFETY: the caller vouches for its pointers.
        unsafe { kernel!(SYS_accept4, listener, address, address_length, flags) }
    };
    if !active::on_green() {
        return answer_int(call(listener));
    }
    answer_int(accept_or_wait(listener, call))
}
