//! `connect`.
//!
//! Called by C and Rust code. The kernel begins a connection without waiting for it only if the
//! descriptor is `O_NONBLOCK`, so the flag is set for the instant of that one call. This is the
//! only place where sward touches a flag of the user's.
//!
//! # Protocol
//!  1. non-blocking by the user's will, or datagrams (they never wait): the plain call
//!  2. set `O_NONBLOCK`, connect, restore
//!  3. `EINPROGRESS`, or `EALREADY` when another thread's connect is under way: wait until
//!     writable, then connect once more. The kernel's own blocking connect ends with that step
//!     too: it reports the result, clears the pending error, and leaves a refused socket ready for
//!     another try, which reading `SO_ERROR` would not.
//!  4. `EAGAIN` on `AF_UNIX`: the listener's queue is full, and nothing tells when there is room:
//!     from 2, after growing pauses
//!
//! When SO_SNDTIMEO runs out the answer is step 2's, as in the kernel: `EINPROGRESS` (the attempt
//! goes on), `EALREADY`, or on `AF_UNIX` `EAGAIN`.
//!
//! # Invariants
//! N1  The second connect of step 3 is made only when poll says that the attempt has ended, so it
//!     does not wait though the flag is not set.
//! N2  Two connects at once on one socket, or a change of flags by another thread in that instant,
//!     may see or lose the flag. Programs do not do that on purpose.

use super::active;
use super::descriptor;
use super::kernel::{Outcome, answer_int, kernel, uninterrupted};
use super::waiting::{Next, Waiting};
use crate::reactor::Interest;
use libc::{c_int, sockaddr, socklen_t};
use std::os::fd::RawFd;

/// Connects on a green thread; `call` is connect(2) on the descriptor that it gets.
fn connect_or_wait(socket: RawFd, call: impl Fn(RawFd) -> Outcome) -> Outcome {
    let waits = matches!(
        descriptor::socket_option(socket, libc::SO_TYPE),
        Ok(libc::SOCK_STREAM | libc::SOCK_SEQPACKET)
    );
    if !waits || descriptor::is_non_blocking(socket)? {
        return uninterrupted(|| call(socket));
    }
    let mut waiting = Waiting::new(socket, Interest::WRITE);
    loop {
        match without_waiting(waiting.descriptor(), &call) {
            Err(number @ (libc::EINPROGRESS | libc::EALREADY)) => {
                return finish(&mut waiting, number, &call);
            }
            Err(libc::EAGAIN) if descriptor::is_local(socket) => waiting.pause()?,
            Err(libc::EINTR) => {}
            outcome => return outcome,
        }
    }
}

/// Step 2.
fn without_waiting(socket: RawFd, call: impl Fn(RawFd) -> Outcome) -> Outcome {
    let flags = descriptor::status_flags(socket)?;
    descriptor::set_status_flags(socket, flags | libc::O_NONBLOCK)?;
    let outcome = call(socket);
    descriptor::set_status_flags(socket, flags)?;
    outcome
}

/// Step 3. `under_way` is what the kernel said about the attempt.
fn finish(waiting: &mut Waiting, under_way: i32, call: impl Fn(RawFd) -> Outcome) -> Outcome {
    loop {
        let socket = waiting.descriptor();
        if descriptor::poll_now(socket, libc::POLLOUT) != 0 {
            return match uninterrupted(|| call(socket)) {
                // Another thread's connect was quicker to collect the result.
                Err(libc::EISCONN) => Ok(0),
                outcome => outcome,
            };
        }
        match waiting.would_block() {
            Ok(Next::Retry | Next::InPlace) => {}
            Err(libc::EAGAIN) => return Err(under_way),
            Err(number) => return Err(number),
        }
    }
}

/// connect(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn connect(
    socket: c_int,
    address: *const sockaddr,
    address_length: socklen_t,
) -> c_int {
    let call = |socket: RawFd| {
        // SAFETY: the caller vouches for the address.
        unsafe { kernel!(SYS_connect, socket, address, address_length) }
    };
    if !active::on_green() {
        return answer_int(call(socket));
    }
    answer_int(connect_or_wait(socket, call))
}
