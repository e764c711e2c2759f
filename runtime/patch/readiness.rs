//! `poll`.
//!
//! Called by C and Rust code (`connect_timeout` and `Command::output` in std).
//!
//! # Protocol
//!  1. poll without waiting: the kernel checks the array and fills it in
//!  2. something found, nothing to wait for, or an error: that is the answer
//!  3. time-out come: 0
//!  4. park in the reactor on all descriptors that are not negative, then from 1
//!
//! # Invariants
//! L1  The array is read only after the kernel has taken it in (step 1), so it is readable.
//! L2  What the reactor cannot watch for (`POLLPRI`, out-of-band bands) or what it reports though
//!     poll finds nothing does not spin and is not missed: the wait is cut into pauses that grow to
//!     16 ms.
//!
//! A number closed while it is polled gives `POLLNVAL` at once; the kernel leaves that open.

use super::active;
use super::kernel::{Outcome, answer_int, in_runtime, kernel};
use super::socket::check_room;
use super::waiting::Pauses;
use crate::platform::clock::Deadline;
use crate::reactor::{self, AnyReadiness, Interest};
use libc::{c_int, c_short, nfds_t, pollfd, size_t};
use std::mem::size_of;
use std::os::fd::RawFd;
use std::time::Duration;

/// The events that the reactor's read interest covers.
const READ_EVENTS: c_short = libc::POLLIN | libc::POLLRDNORM | libc::POLLRDHUP;

/// The events that the reactor's write interest covers.
const WRITE_EVENTS: c_short = libc::POLLOUT | libc::POLLWRNORM;

/// A wait that took longer than this was for something, even if another thread took what came.
const NO_SPIN: Duration = Duration::from_millis(1);

/// What a polled set asks of the reactor.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) watched: Vec<(RawFd, Interest)>,
    /// Whether the reactor can tell all that is asked for.
    pub(super) is_exact: bool,
}

impl Wanted {
    pub(super) fn of(entries: &[pollfd]) -> Self {
        let mut wanted = Wanted {
            watched: Vec::with_capacity(entries.len()),
            is_exact: true,
        };
        for entry in entries.iter().filter(|entry| entry.fd >= 0) {
            let reads = entry.events & READ_EVENTS != 0;
            let writes = entry.events & WRITE_EVENTS != 0;
            let interest = match (reads, writes) {
                (true, true) => Interest::BOTH,
                (false, true) => Interest::WRITE,
                // Errors and hang-ups are reported with any interest.
                (_, false) => Interest::READ,
            };
            wanted.watched.push((entry.fd, interest));
            wanted.is_exact &=
                entry.events != 0 && entry.events & !(READ_EVENTS | WRITE_EVENTS) == 0;
        }
        wanted
    }
}

/// poll(2) with no time to wait.
fn poll_now(entries: *mut pollfd, count: nfds_t) -> Outcome {
    loop {
        // SAFETY: the caller of poll vouches for its array.
        match unsafe { kernel!(SYS_poll, entries, count, 0) } {
            Err(libc::EINTR) => {}
            outcome => return outcome,
        }
    }
}

/// `poll` on a green thread.
fn poll_or_wait(entries: *mut pollfd, count: nfds_t, milliseconds: c_int) -> Outcome {
    let mut outcome = poll_now(entries, count);
    if outcome != Ok(0) || milliseconds == 0 {
        return outcome;
    }
    let deadline = u64::try_from(milliseconds)
        .ok()
        .map(|milliseconds| Deadline::after(Duration::from_millis(milliseconds)));
    let entries_read = match count {
        0 => &[],
        // SAFETY: L1; the kernel takes no more entries than there can be descriptors.
        _ => unsafe { std::slice::from_raw_parts(entries, count as usize) },
    };
    let wanted = Wanted::of(entries_read);
    let mut pauses = Pauses::default();
    while outcome == Ok(0) {
        if deadline.is_some_and(|deadline| deadline <= Deadline::now()) {
            return Ok(0);
        }
        if wanted.is_exact {
            let began = Deadline::now();
            let ended = in_runtime(|| reactor::wait_any(&wanted.watched, deadline));
            outcome = poll_now(entries, count);
            if ended == AnyReadiness::TimedOut {
                return outcome;
            }
            if Deadline::now().saturating_duration_since(began) > NO_SPIN {
                pauses = Pauses::default();
            }
        }
        if outcome == Ok(0) {
            pauses.take(deadline);
            outcome = poll_now(entries, count);
        }
    }
    outcome
}

/// poll(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn poll(
    entries: *mut pollfd,
    count: nfds_t,
    milliseconds: c_int,
) -> c_int {
    if !active::on_green() {
        // SAFETY: the caller vouches for its array.
        return answer_int(unsafe { kernel!(SYS_poll, entries, count, milliseconds) });
    }
    answer_int(poll_or_wait(entries, count, milliseconds))
}

/// `poll` as called by programs compiled with `_FORTIFY_SOURCE`.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn __poll_chk(
    entries: *mut pollfd,
    count: nfds_t,
    milliseconds: c_int,
    room: size_t,
) -> c_int {
    check_room(count as size_t, room / size_of::<pollfd>());
    // SAFETY: the same call, after its check.
    unsafe { poll(entries, count, milliseconds) }
}
