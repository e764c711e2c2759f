//! What is known of a descriptor: asked of the kernel when it is needed, never remembered.
//!
//! Called by the files that wait. Nothing here is cached: the user may set options at any time,
//! through any duplicate, in another process even, and numbers are closed and reused. The price
//! is paid where a call is about to wait anyway.
//!
//! | question | asked by | when |
//! | --- | --- | --- |
//! | what is it? | fstat | before `read`, `write` and `accept`: they act on the kind |
//! | did the user make it non-blocking? | fcntl(F_GETFL) | when a call would block |
//! | how long may a call take? | getsockopt(SO_RCVTIMEO, SO_SNDTIMEO) | when a call would block |
//! | is it ready? | poll, without waiting | where the kernel has no non-blocking form of a call |

use super::kernel::{Outcome, kernel};
use crate::reactor::Interest;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::RawFd;
use std::time::Duration;

/// What a descriptor refers to, as far as the data calls differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file, a directory, a disk: never "not ready", so calls are made in place.
    InPlace,
    /// A socket: has its own non-blocking calls.
    Socket,
    /// A pipe, named or not.
    Pipe,
    /// A character device, or what has no name in the file system: eventfd, timerfd, inotify.
    Other,
}

/// The kind of a descriptor, and which object it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nature {
    pub(super) kind: Kind,
    /// Equal for all descriptors of one socket or pipe; may be equal for different objects.
    pub(super) object: u64,
}

impl Nature {
    /// Asks fstat(2).
    ///
    /// # Errors
    ///
    /// `EBADF`.
    pub(super) fn of(descriptor: RawFd) -> Result<Nature, i32> {
        let mut status = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: the buffer is of the type that fstat fills; on x86-64 the kernel's and libc's
        // are the same.
        unsafe { kernel!(SYS_fstat, descriptor, status.as_mut_ptr()) }?;
        // SAFETY: fstat succeeded, so it filled the buffer.
        let status = unsafe { status.assume_init() };
        let kind = match status.st_mode & libc::S_IFMT {
            libc::S_IFSOCK => Kind::Socket,
            libc::S_IFIFO => Kind::Pipe,
            libc::S_IFREG | libc::S_IFDIR | libc::S_IFBLK | libc::S_IFLNK => Kind::InPlace,
            _ => Kind::Other,
        };
        Ok(Nature {
            kind,
            object: status.st_ino ^ status.st_rdev,
        })
    }
}

/// The file status flags, by fcntl(F_GETFL).
pub(super) fn status_flags(descriptor: RawFd) -> Result<libc::c_int, i32> {
    // SAFETY: F_GETFL reads a number and touches no memory.
    unsafe { kernel!(SYS_fcntl, descriptor, libc::F_GETFL) }.map(|flags| flags as libc::c_int)
}

/// Sets the file status flags, by fcntl(F_SETFL).
pub(super) fn set_status_flags(descriptor: RawFd, flags: libc::c_int) -> Result<(), i32> {
    // SAFETY: F_SETFL changes flags of a descriptor and touches no memory.
    unsafe { kernel!(SYS_fcntl, descriptor, libc::F_SETFL, flags) }.map(drop)
}

/// Whether the user made the descriptor non-blocking.
pub(super) fn is_non_blocking(descriptor: RawFd) -> Result<bool, i32> {
    Ok(status_flags(descriptor)? & libc::O_NONBLOCK != 0)
}

/// One option of a socket; `T` is the type that the option has.
fn option<T: Copy>(descriptor: RawFd, level: libc::c_int, name: libc::c_int) -> Result<T, i32> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: value and length are valid for writing and belong together.
    let asked = unsafe {
        kernel!(
            SYS_getsockopt,
            descriptor,
            level,
            name,
            value.as_mut_ptr(),
            &raw mut length
        )
    };
    asked?;
    // SAFETY: zeroed, then written by the kernel; the types asked for are plain integers, for
    // which any bits are a value.
    Ok(unsafe { value.assume_init() })
}

/// An integer option of level `SOL_SOCKET`.
pub(super) fn socket_option(descriptor: RawFd, name: libc::c_int) -> Result<libc::c_int, i32> {
    option(descriptor, libc::SOL_SOCKET, name)
}

/// How long one call may wait for `interest`; `None`: for ever, as for all that is no socket.
pub(super) fn time_out(descriptor: RawFd, interest: Interest) -> Option<Duration> {
    let name = if interest == Interest::WRITE {
        libc::SO_SNDTIMEO
    } else {
        libc::SO_RCVTIMEO
    };
    let limit: libc::timeval = option(descriptor, libc::SOL_SOCKET, name).ok()?;
    let limit = Duration::from_secs(limit.tv_sec.try_into().ok()?)
        + Duration::from_micros(limit.tv_usec.try_into().ok()?);
    (limit != Duration::ZERO).then_some(limit)
}

/// Whether a socket is one on which data flows without borders between messages.
pub(super) fn is_stream(descriptor: RawFd) -> bool {
    socket_option(descriptor, libc::SO_TYPE) == Ok(libc::SOCK_STREAM)
}

/// Whether a socket is of the family `AF_UNIX`.
pub(super) fn is_local(descriptor: RawFd) -> bool {
    socket_option(descriptor, libc::SO_DOMAIN) == Ok(libc::AF_UNIX)
}

/// How many bytes a stream socket has ready for reading; zero if it cannot tell.
pub(super) fn unread(descriptor: RawFd) -> libc::c_int {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    let asked = unsafe { kernel!(SYS_ioctl, descriptor, libc::FIONREAD, &raw mut count) };
    asked.map_or(0, |_| count)
}

/// What poll(2) finds without waiting; zero if nothing of `events` holds.
pub(super) fn poll_now(descriptor: RawFd, events: libc::c_short) -> libc::c_short {
    let mut entry = libc::pollfd {
        fd: descriptor,
        events,
        revents: 0,
    };
    // A pending signal makes poll give EINTR when nothing is ready; that is "nothing" as well.
    // SAFETY: one valid entry.
    let _: Outcome = unsafe { kernel!(SYS_poll, &raw mut entry, 1, 0) };
    entry.revents
}

/// The poll event that says that a call for `interest` would not wait.
pub(super) fn event(interest: Interest) -> libc::c_short {
    if interest == Interest::WRITE {
        libc::POLLOUT
    } else {
        libc::POLLIN
    }
}
