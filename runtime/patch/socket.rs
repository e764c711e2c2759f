//! `recv`, `recvfrom`, `recvmsg`, `send`, `sendto`, `sendmsg`.
//!
//! Called by C and Rust code. Each tries with `MSG_DONTWAIT` and goes through
//! `transfer`.
//!
//! # What the kernel's blocking calls do, and these as well
//! * Receiving returns what is there; `MSG_WAITALL` on a stream collects until the buffer is full,
//!   the peer ends, an error or the time-out comes, or control data (descriptors) arrives.
//! * Sending on a stream sends everything. Control data goes with the first part, and parts after
//!   the first raise no `SIGPIPE` (R1: the call reports what it sent).
//! * `MSG_WAITALL` with `MSG_PEEK` waits until that much can be seen. More data behind what is
//!   there is no event that the kernel would report, so this one looks again after growing pauses.
//!
//! # What passes straight through on a green thread
//! * `MSG_DONTWAIT`: the caller said so.
//! * `MSG_OOB` and `MSG_ERRQUEUE` when receiving: these never block in the kernel either.
//! * `MSG_FASTOPEN`: connects within the send; blocks its worker meanwhile.

use super::active;
use super::descriptor;
use super::kernel::{Outcome, answer, kernel, uninterrupted};
use super::transfer::{self, Mode, Transfer};
use super::vectors::{MOST, Vectors};
use super::waiting::Waiting;
use crate::reactor::Interest;
use libc::{c_int, c_void, msghdr, size_t, sockaddr, socklen_t, ssize_t};
use std::os::fd::RawFd;
use std::ptr;

/// Flags of receiving calls that never block.
const NEVER_BLOCKS: c_int = libc::MSG_DONTWAIT | libc::MSG_OOB | libc::MSG_ERRQUEUE;

/// The flag that a mode adds.
fn mode_flag(mode: Mode) -> c_int {
    match mode {
        Mode::Try => libc::MSG_DONTWAIT,
        Mode::InPlace => 0,
    }
}

/// Receives into memory: `recvfrom(2)`.
struct ReceiveBytes {
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
}

impl Transfer for ReceiveBytes {
    fn attempt(&mut self, descriptor: RawFd, done: usize, mode: Mode) -> Outcome {
        let (address, address_length) = match done {
            0 => (self.address, self.address_length),
            _ => (ptr::null_mut(), ptr::null_mut()),
        };
        // SAFETY: the caller of recvfrom vouches for its pointers; `done` bytes of the buffer's
        // `length` are filled.
        unsafe {
            kernel!(
                SYS_recvfrom,
                descriptor,
                self.buffer.wrapping_byte_add(done),
                self.length - done,
                self.flags | mode_flag(mode),
                address,
                address_length
            )
        }
    }

    fn is_complete(&mut self, descriptor: RawFd, done: usize) -> bool {
        self.flags & libc::MSG_WAITALL == 0
            || done >= self.length.min(MOST)
            || !descriptor::is_stream(descriptor)
    }
}

/// Receives with scattered buffers and control data: `recvmsg(2)`.
struct ReceiveMessage {
    message: *mut msghdr,
    flags: c_int,
    /// The control buffer's size as the caller gave it, for the parts after the first.
    control_length: size_t,
}

impl ReceiveMessage {
    fn vectors(&self) -> Vectors {
        // SAFETY: asked after the kernel took the message in, so it is readable.
        let message = unsafe { self.message.read_unaligned() };
        Vectors {
            first: message.msg_iov,
            count: message.msg_iovlen,
        }
    }
}

impl Transfer for ReceiveMessage {
    fn attempt(&mut self, descriptor: RawFd, done: usize, mode: Mode) -> Outcome {
        let flags = self.flags | mode_flag(mode);
        if done == 0 {
            // SAFETY: the caller of recvmsg vouches for the message.
            return unsafe { kernel!(SYS_recvmsg, descriptor, self.message, flags) };
        }
        let vectors = self.vectors();
        // SAFETY: V1: the first part was received.
        let mut window = unsafe { vectors.window(done, vectors.total() - done) };
        // SAFETY: as in `vectors`.
        let mut part = unsafe { self.message.read_unaligned() };
        part.msg_name = ptr::null_mut();
        part.msg_namelen = 0;
        part.msg_iov = window.as_mut_ptr();
        part.msg_iovlen = window.len();
        part.msg_controllen = self.control_length;
        // SAFETY: the window points into the caller's buffers, the control buffer is the caller's
        // and has had nothing put into it yet (`is_complete`).
        let received = unsafe { kernel!(SYS_recvmsg, descriptor, &raw mut part, flags) }?;
        // SAFETY: the kernel wrote this field when the first part came.
        unsafe { (&raw mut (*self.message).msg_controllen).write_unaligned(part.msg_controllen) };
        // SAFETY: as above.
        unsafe { (&raw mut (*self.message).msg_flags).write_unaligned(part.msg_flags) };
        Ok(received)
    }

    fn is_complete(&mut self, descriptor: RawFd, done: usize) -> bool {
        if self.flags & libc::MSG_WAITALL == 0 {
            return true;
        }
        // SAFETY: asked after the kernel took the message in, so it is readable.
        let message = unsafe { self.message.read_unaligned() };
        message.msg_controllen != 0
            // SAFETY: V1: a part was received.
            || done >= unsafe { self.vectors().total() }
            || !descriptor::is_stream(descriptor)
    }
}

/// Sends from memory: `sendto(2)`.
struct SendBytes {
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
    address: *const sockaddr,
    address_length: socklen_t,
}

impl Transfer for SendBytes {
    fn attempt(&mut self, descriptor: RawFd, done: usize, mode: Mode) -> Outcome {
        let (address, address_length, quiet) = match done {
            0 => (self.address, self.address_length, 0),
            _ => (ptr::null(), 0, libc::MSG_NOSIGNAL),
        };
        // SAFETY: the caller of sendto vouches for its pointers; `done` bytes of the buffer's
        // `length` are sent.
        unsafe {
            kernel!(
                SYS_sendto,
                descriptor,
                self.buffer.wrapping_byte_add(done),
                self.length - done,
                self.flags | mode_flag(mode) | quiet,
                address,
                address_length
            )
        }
    }

    fn is_complete(&mut self, _: RawFd, done: usize) -> bool {
        done >= self.length.min(MOST)
    }
}

/// Sends gathered buffers and control data: `sendmsg(2)`.
struct SendMessage {
    message: *const msghdr,
    flags: c_int,
}

impl SendMessage {
    fn vectors(&self) -> Vectors {
        // SAFETY: asked after the kernel took the message in, so it is readable.
        let message = unsafe { self.message.read_unaligned() };
        Vectors {
            first: message.msg_iov,
            count: message.msg_iovlen,
        }
    }
}

impl Transfer for SendMessage {
    fn attempt(&mut self, descriptor: RawFd, done: usize, mode: Mode) -> Outcome {
        let flags = self.flags | mode_flag(mode);
        if done == 0 {
            // SAFETY: the caller of sendmsg vouches for the message.
            return unsafe { kernel!(SYS_sendmsg, descriptor, self.message, flags) };
        }
        let vectors = self.vectors();
        // SAFETY: V1: the first part was sent.
        unsafe { send_part(descriptor, vectors, done, flags) }
    }

    fn is_complete(&mut self, _: RawFd, done: usize) -> bool {
        // SAFETY: V1: a part was sent.
        done >= unsafe { self.vectors().total() }
    }
}

/// Sends the piece of `vectors` from byte `done` on, without address, control data or `SIGPIPE`.
///
/// # Safety
///
/// V1 of [`vectors`](super::vectors) holds.
pub(super) unsafe fn send_part(
    descriptor: RawFd,
    vectors: Vectors,
    done: usize,
    flags: c_int,
) -> Outcome {
    // SAFETY: handed on.
    let mut window = unsafe { vectors.window(done, vectors.total() - done) };
    let part = message_of(window.as_mut_ptr(), window.len());
    // SAFETY: the window points into the caller's buffers.
    unsafe {
        kernel!(
            SYS_sendmsg,
            descriptor,
            &raw const part,
            flags | libc::MSG_NOSIGNAL
        )
    }
}

/// A message of buffers alone.
pub(super) fn message_of(first: *mut libc::iovec, count: usize) -> msghdr {
    msghdr {
        msg_name: ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: first,
        msg_iovlen: count,
        msg_control: ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    }
}

/// `MSG_PEEK` with `MSG_WAITALL` on a stream: looks until `length` bytes can be seen.
fn peek_all(receive: &mut ReceiveBytes, descriptor: RawFd) -> Outcome {
    const ENDED: libc::c_short = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
    let mut waiting = Waiting::new(descriptor, Interest::READ);
    loop {
        // What ended before this look is all there will be.
        let ended = descriptor::poll_now(waiting.descriptor(), ENDED) & ENDED != 0;
        match receive.attempt(waiting.descriptor(), 0, Mode::Try) {
            Ok(seen) if seen < receive.length && !ended => {
                if waiting.pause().is_err() {
                    return Ok(seen);
                }
            }
            Err(libc::EAGAIN) => drop(waiting.would_block()?),
            Err(libc::EINTR) => {}
            outcome => return outcome,
        }
    }
}

/// `recvfrom` on a green thread.
fn receive(descriptor: RawFd, mut receive: ReceiveBytes) -> Outcome {
    const PEEK_ALL: c_int = libc::MSG_PEEK | libc::MSG_WAITALL;
    if receive.flags & PEEK_ALL == PEEK_ALL
        && descriptor::is_stream(descriptor)
        && !descriptor::is_local(descriptor)
    {
        return peek_all(&mut receive, descriptor);
    }
    if receive.flags & libc::MSG_PEEK != 0 {
        receive.flags &= !libc::MSG_WAITALL;
    }
    transfer::run(descriptor, Interest::READ, &mut receive)
}

/// recv(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn recv(
    descriptor: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: recv is recvfrom without an address.
    unsafe {
        recvfrom(
            descriptor,
            buffer,
            length,
            flags,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    }
}

/// recvfrom(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn recvfrom(
    descriptor: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
) -> ssize_t {
    let mut call = ReceiveBytes {
        buffer,
        length,
        flags,
        address,
        address_length,
    };
    if !active::on_green() || flags & NEVER_BLOCKS != 0 {
        return answer(call.attempt(descriptor, 0, Mode::InPlace));
    }
    answer(receive(descriptor, call))
}

/// recvmsg(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn recvmsg(
    descriptor: c_int,
    message: *mut msghdr,
    flags: c_int,
) -> ssize_t {
    if !active::on_green() || flags & NEVER_BLOCKS != 0 {
        // SAFETY: the caller vouches for the message.
        return answer(unsafe { kernel!(SYS_recvmsg, descriptor, message, flags) });
    }
    let mut call = ReceiveMessage {
        message,
        flags,
        control_length: 0,
    };
    if flags & libc::MSG_PEEK != 0 {
        call.flags &= !libc::MSG_WAITALL;
    }
    if call.flags & libc::MSG_WAITALL != 0 && !message.is_null() {
        // SAFETY: the caller vouches for the message, whose size field the kernel overwrites.
        call.control_length = unsafe { (&raw const (*message).msg_controllen).read_unaligned() };
    }
    answer(transfer::run(descriptor, Interest::READ, &mut call))
}

/// send(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn send(
    descriptor: c_int,
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: send is sendto without an address.
    unsafe { sendto(descriptor, buffer, length, flags, ptr::null(), 0) }
}

/// sendto(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn sendto(
    descriptor: c_int,
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
    address: *const sockaddr,
    address_length: socklen_t,
) -> ssize_t {
    let mut call = SendBytes {
        buffer,
        length,
        flags,
        address,
        address_length,
    };
    if !active::on_green() || flags & libc::MSG_DONTWAIT != 0 {
        return answer(call.attempt(descriptor, 0, Mode::InPlace));
    }
    if flags & libc::MSG_FASTOPEN != 0 {
        return answer(uninterrupted(|| call.attempt(descriptor, 0, Mode::InPlace)));
    }
    answer(transfer::run(descriptor, Interest::WRITE, &mut call))
}

/// sendmsg(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn sendmsg(
    descriptor: c_int,
    message: *const msghdr,
    flags: c_int,
) -> ssize_t {
    let mut call = SendMessage { message, flags };
    if !active::on_green() || flags & libc::MSG_DONTWAIT != 0 {
        return answer(call.attempt(descriptor, 0, Mode::InPlace));
    }
    if flags & libc::MSG_FASTOPEN != 0 {
        return answer(uninterrupted(|| call.attempt(descriptor, 0, Mode::InPlace)));
    }
    answer(transfer::run(descriptor, Interest::WRITE, &mut call))
}

unsafe extern "C" {
    /// glibc's report of a buffer overflow found by `_FORTIFY_SOURCE`; does not return.
    fn __chk_fail() -> !;
}

/// Ends the program, as glibc's checked functions do, if more is asked for than the buffer holds.
pub(super) fn check_room(length: size_t, room: size_t) {
    if length > room {
        // SAFETY: no preconditions.
        unsafe { __chk_fail() }
    }
}

/// `recv` as called by programs compiled with `_FORTIFY_SOURCE`.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn __recv_chk(
    descriptor: c_int,
    buffer: *mut c_void,
    length: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    check_room(length, room);
    // SAFETY: the same call, after its check.
    unsafe { recv(descriptor, buffer, length, flags) }
}

/// `recvfrom` as called by programs compiled with `_FORTIFY_SOURCE`.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn __recvfrom_chk(
    descriptor: c_int,
    buffer: *mut c_void,
    length: size_t,
    room: size_t,
    flags: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
) -> ssize_t {
    check_room(length, room);
    // SAFETY: the same call, after its check.
    unsafe { recvfrom(descriptor, buffer, length, flags, address, address_length) }
}
