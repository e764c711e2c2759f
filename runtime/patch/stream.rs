//! `read`, `readv`, `write`, `writev`.
//!
//! Called by C and Rust code. What to do depends on what the descriptor is:
//!
//! | kind | try without blocking | when the kernel has no such form (`EOPNOTSUPP`) |
//! | --- | --- | --- |
//! | file, directory, disk | never: the plain call, in place | |
//! | socket | preadv2, pwritev2 with `RWF_NOWAIT` | recvmsg, sendmsg with `MSG_DONTWAIT` |
//! | pipe | the same | poll, then the plain call; writes at most `PIPE_BUF` at a time |
//! | device, eventfd, … | the same | poll, then the plain call |
//!
//! Offset -1 makes preadv2 and pwritev2 use and move the file position, like read and write.
//! Linux 6.18 knows `RWF_NOWAIT` for pipes, sockets, timerfd, `/dev/null`, and for reading an
//! eventfd; not for terminals, inotify, and writing an eventfd.
//!
//! Writing to a socket or pipe goes on until everything is written, as the kernel's blocking
//! calls do. A write of at most `PIPE_BUF` bytes to a pipe stays whole: the kernel takes all or none.

use super::active;
use super::descriptor::{self, Kind, Nature};
use super::gate;
use super::kernel::{Outcome, answer, kernel, uninterrupted};
use super::socket::{check_room, message_of, send_part};
use super::transfer::{self, Mode, Transfer};
use super::vectors::Vectors;
use crate::reactor::Interest;
use libc::{c_int, c_void, iovec, size_t, ssize_t};
use std::os::fd::RawFd;

/// The offset that means "at the file position".
const AT_POSITION: isize = -1;

/// A read into buffers that are not on a regular file.
struct Read {
    vectors: Vectors,
    nature: Nature,
}

impl Read {
    /// The plain call, which may block.
    fn plain(&self, descriptor: RawFd) -> Outcome {
        // SAFETY: the caller of read or readv vouches for the buffers.
        unsafe {
            kernel!(
                SYS_readv,
                descriptor,
                self.vectors.first,
                self.vectors.count
            )
        }
    }

    /// One try where preadv2 knows no `RWF_NOWAIT`.
    fn attempt_otherwise(&self, descriptor: RawFd) -> Outcome {
        // SAFETY: V1: preadv2 took the array in before it said EOPNOTSUPP.
        if unsafe { self.vectors.total() } == 0 {
            return self.plain(descriptor);
        }
        if self.nature.kind != Kind::Socket {
            return gate::when_ready(self.nature.object, descriptor, libc::POLLIN, || {
                self.plain(descriptor)
            });
        }
        let mut message = message_of(self.vectors.first.cast_mut(), self.vectors.count);
        // SAFETY: as in `plain`; recvmsg does not write to the array.
        unsafe {
            kernel!(
                SYS_recvmsg,
                descriptor,
                &raw mut message,
                libc::MSG_DONTWAIT
            )
        }
    }
}

impl Transfer for Read {
    fn attempt(&mut self, descriptor: RawFd, _: usize, mode: Mode) -> Outcome {
        if mode == Mode::InPlace {
            return self.plain(descriptor);
        }
        // SAFETY: as in `plain`.
        let outcome = unsafe {
            kernel!(
                SYS_preadv2,
                descriptor,
                self.vectors.first,
                self.vectors.count,
                AT_POSITION,
                AT_POSITION,
                libc::RWF_NOWAIT
            )
        };
        match outcome {
            Err(libc::EOPNOTSUPP) => self.attempt_otherwise(descriptor),
            outcome => outcome,
        }
    }

    fn is_complete(&mut self, _: RawFd, _: usize) -> bool {
        true
    }
}

/// A write from buffers to something that is not a regular file.
struct Write {
    vectors: Vectors,
    nature: Nature,
}

impl Write {
    /// Calls `SYS_writev` or `SYS_pwritev2` on what is left after `done` bytes, at most `limit`.
    fn write(&self, descriptor: RawFd, done: usize, limit: usize, mode: Mode) -> Outcome {
        let window;
        let (first, count) = if done == 0 && limit == usize::MAX {
            (self.vectors.first, self.vectors.count)
        } else {
            // SAFETY: V1: the array was taken in by the kernel, with a part written or refused.
            let left = unsafe { self.vectors.total() } - done;
            // SAFETY: as above.
            window = unsafe { self.vectors.window(done, left.min(limit)) };
            (window.as_ptr(), window.len())
        };
        match mode {
            // SAFETY: the caller of write or writev vouches for the buffers.
            Mode::InPlace => unsafe { kernel!(SYS_writev, descriptor, first, count) },
            // SAFETY: as above.
            Mode::Try => unsafe {
                kernel!(
                    SYS_pwritev2,
                    descriptor,
                    first,
                    count,
                    AT_POSITION,
                    AT_POSITION,
                    libc::RWF_NOWAIT
                )
            },
        }
    }

    /// One try where pwritev2 knows no `RWF_NOWAIT`.
    fn attempt_otherwise(&self, descriptor: RawFd, done: usize) -> Outcome {
        match self.nature.kind {
            Kind::Socket => {
                let mut message = message_of(self.vectors.first.cast_mut(), self.vectors.count);
                // SAFETY: as in `write`; sendmsg does not write to the array.
                unsafe {
                    kernel!(
                        SYS_sendmsg,
                        descriptor,
                        &raw mut message,
                        libc::MSG_DONTWAIT
                    )
                }
            }
            // A pipe that polls writable has room for one buffer of this size, no more.
            Kind::Pipe => gate::when_ready(self.nature.object, descriptor, libc::POLLOUT, || {
                self.write(descriptor, done, libc::PIPE_BUF, Mode::InPlace)
            }),
            // Devices keep what one call writes together, so there is no writing in pieces.
            Kind::Other | Kind::InPlace => {
                if descriptor::poll_now(descriptor, libc::POLLOUT) == 0 {
                    return Err(libc::EAGAIN);
                }
                self.write(descriptor, done, usize::MAX, Mode::InPlace)
            }
        }
    }
}

impl Transfer for Write {
    fn attempt(&mut self, descriptor: RawFd, done: usize, mode: Mode) -> Outcome {
        if done > 0 && self.nature.kind == Kind::Socket && mode == Mode::Try {
            // SAFETY: V1: the first part was written.
            return unsafe { send_part(descriptor, self.vectors, done, libc::MSG_DONTWAIT) };
        }
        match self.write(descriptor, done, usize::MAX, mode) {
            Err(libc::EOPNOTSUPP) if mode == Mode::Try => self.attempt_otherwise(descriptor, done),
            outcome => outcome,
        }
    }

    fn is_complete(&mut self, _: RawFd, done: usize) -> bool {
        // SAFETY: V1: a part was written.
        done >= unsafe { self.vectors.total() }
    }
}

/// Reads on a green thread. `plain` is the caller's own call, for what never is "not ready".
fn read_vectors(descriptor: RawFd, vectors: Vectors, plain: impl FnMut() -> Outcome) -> Outcome {
    match Nature::of(descriptor) {
        Ok(nature) if nature.kind != Kind::InPlace => {
            transfer::run(descriptor, Interest::READ, &mut Read { vectors, nature })
        }
        _ => uninterrupted(plain),
    }
}

/// Writes on a green thread. `plain` is the caller's own call, for what never is "not ready".
fn write_vectors(descriptor: RawFd, vectors: Vectors, plain: impl FnMut() -> Outcome) -> Outcome {
    match Nature::of(descriptor) {
        Ok(nature) if nature.kind != Kind::InPlace => {
            transfer::run(descriptor, Interest::WRITE, &mut Write { vectors, nature })
        }
        _ => uninterrupted(plain),
    }
}

/// read(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn read(
    descriptor: c_int,
    buffer: *mut c_void,
    count: size_t,
) -> ssize_t {
    // SAFETY: the caller vouches for the buffer.
    let plain = || unsafe { kernel!(SYS_read, descriptor, buffer, count) };
    // Reading nothing never waits, and on a socket it is not the same as receiving nothing.
    if !active::on_green() || count == 0 {
        return answer(plain());
    }
    let vector = iovec {
        iov_base: buffer,
        iov_len: count,
    };
    answer(read_vectors(descriptor, one(&vector), plain))
}

/// readv(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn readv(
    descriptor: c_int,
    vectors: *const iovec,
    count: c_int,
) -> ssize_t {
    // SAFETY: the caller vouches for the buffers.
    let plain = || unsafe { kernel!(SYS_readv, descriptor, vectors, count) };
    match many(vectors, count) {
        Some(vectors) if active::on_green() => answer(read_vectors(descriptor, vectors, plain)),
        _ => answer(plain()),
    }
}

/// write(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn write(
    descriptor: c_int,
    buffer: *const c_void,
    count: size_t,
) -> ssize_t {
    // SAFETY: the caller vouches for the buffer.
    let plain = || unsafe { kernel!(SYS_write, descriptor, buffer, count) };
    if !active::on_green() {
        return answer(plain());
    }
    let vector = iovec {
        iov_base: buffer.cast_mut(),
        iov_len: count,
    };
    answer(write_vectors(descriptor, one(&vector), plain))
}

/// writev(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn writev(
    descriptor: c_int,
    vectors: *const iovec,
    count: c_int,
) -> ssize_t {
    // SAFETY: the caller vouches for the buffers.
    let plain = || unsafe { kernel!(SYS_writev, descriptor, vectors, count) };
    match many(vectors, count) {
        Some(vectors) if active::on_green() => answer(write_vectors(descriptor, vectors, plain)),
        _ => answer(plain()),
    }
}

/// A single buffer as an array.
fn one(vector: &iovec) -> Vectors {
    Vectors {
        first: vector,
        count: 1,
    }
}

/// The caller's array, if its count is one that can succeed and wait.
fn many(first: *const iovec, count: c_int) -> Option<Vectors> {
    let count = usize::try_from(count).ok()?;
    (count > 0).then_some(Vectors { first, count })
}

/// `read` as called by programs compiled with `_FORTIFY_SOURCE`.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn __read_chk(
    descriptor: c_int,
    buffer: *mut c_void,
    count: size_t,
    room: size_t,
) -> ssize_t {
    check_room(count, room);
    // SAFETY: the same call, after its check.
    unsafe { read(descriptor, buffer, count) }
}
