//! `futex(2)`: the waits and wakes behind std's, parking_lot's and Rust's locks in general.
//!
//! Called by `system_call`, as these reach the kernel through libc's `syscall` function.
//!
//! # What is done here
//! | operation, private | on a green thread | on an OS thread |
//! | --- | --- | --- |
//! | `FUTEX_WAIT`, time-out relative | waits in [`wait_table`] | passes through |
//! | `FUTEX_WAIT_BITSET`, time-out absolute, monotonic or real time | waits in [`wait_table`] | passes through |
//! | `FUTEX_WAKE`, `FUTEX_WAKE_BITSET` | wakes green threads and OS threads | the same |
//!
//! The rest passes through: words shared between processes, requeueing, priority inheritance,
//! `FUTEX_WAKE_OP`, `futex_waitv`. A wait among these blocks its worker; a requeue or `WAKE_OP`
//! finds OS threads alone.
//!
//! # Protocol of a wake
//!  1. usually: green threads first, then the kernel for the rest of the count. While nobody green
//!     waits this costs a look at a counter on top of the system call; when the green ones were
//!     enough there is no system call.
//!  2. A word on which OS threads wait as well could starve these for ever by 1. So of the wakes
//!     that green threads alone would have used up, every [`KERNEL_TURN`]th asks the kernel first.
//!     Counters are per address hash: locks do not take each other's turns, except by collision.
//!
//! Green threads and OS threads are two queues, each in order; between them there is none.
//!
//! # Invariants
//! F0  A green thread waits in the table only if ACTIVE was set before, so wakers need not look
//!     there while it is clear.
//!
//! # Memory order
//! F1  A waker changes the word, then loads ACTIVE. Without a fence in between the load could be
//!     served before the change is visible; a green thread would then still find the old value,
//!     wait, and not be woken. The waiter's side is the table's own: it counts itself, and only
//!     then reads the word.
//!
//! # Limits
//! A word's address that is not mapped gives a fault in place of `EFAULT`, except null. A time-out
//! by `CLOCK_REALTIME` is converted when the wait begins: setting the clock forward does not end
//! it earlier; setting it back makes it wait on.

use super::active;
use super::kernel::{Outcome, in_runtime, kernel, uninterrupted};
use super::time;
use crate::platform::clock::Deadline;
use crate::sync::wait_table::{self, FutexWait};
use libc::{c_int, timespec};
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Duration;

/// Matches every waiter.
pub(super) const ANY: u32 = u32::MAX;

/// Every how many wakes the kernel's waiters go first (step 2).
const KERNEL_TURN: u32 = 8;

/// How many turn counters there are.
const COUNTERS: usize = 64;

/// Wakes used up by green threads alone, per address hash. Written by wakers, relaxed: a lost or
/// late count moves a turn, no more.
static TURNS: [AtomicU32; COUNTERS] = [const { AtomicU32::new(0) }; COUNTERS];

/// The end of a wait as the operation gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeOut {
    /// A length of time.
    Relative,
    /// A time of `CLOCK_MONOTONIC`.
    Monotonic,
    /// A time of `CLOCK_REALTIME`.
    RealTime,
}

/// A futex operation, as far as this room acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Wait {
        bitset: u32,
        time_out: TimeOut,
    },
    Wake {
        bitset: u32,
    },
    /// For the kernel, errors included.
    Other,
}

impl Operation {
    /// Reads the operation word; `bitset` is the call's sixth argument.
    pub(super) fn decode(operation: c_int, bitset: u32) -> Operation {
        const WAIT: c_int = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        const WAIT_BITSET: c_int = libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG;
        const WAIT_BITSET_REAL_TIME: c_int = WAIT_BITSET | libc::FUTEX_CLOCK_REALTIME;
        const WAKE: c_int = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        const WAKE_BITSET: c_int = libc::FUTEX_WAKE_BITSET | libc::FUTEX_PRIVATE_FLAG;
        match (operation, bitset) {
            (WAIT, _) => Operation::Wait {
                bitset: ANY,
                time_out: TimeOut::Relative,
            },
            (WAKE, _) => Operation::Wake { bitset: ANY },
            // An empty bit set is EINVAL.
            (_, 0) => Operation::Other,
            (WAIT_BITSET, _) => Operation::Wait {
                bitset,
                time_out: TimeOut::Monotonic,
            },
            (WAIT_BITSET_REAL_TIME, _) => Operation::Wait {
                bitset,
                time_out: TimeOut::RealTime,
            },
            (WAKE_BITSET, _) => Operation::Wake { bitset },
            _ => Operation::Other,
        }
    }
}

/// `syscall(SYS_futex, …)`.
///
/// # Safety
///
/// As futex(2).
pub(super) unsafe fn futex(arguments: [usize; 6]) -> Outcome {
    let [address, operation, value, time_out, _, bitset] = arguments;
    let operation = Operation::decode(operation as c_int, bitset as u32);
    let address = address as *const u32;
    if address.is_aligned() && !address.is_null() {
        match operation {
            Operation::Wake { bitset } => {
                // F1
                fence(Ordering::SeqCst);
                if active::is_active() {
                    return wake(address, bitset, value as c_int, arguments);
                }
            }
            Operation::Wait {
                bitset,
                time_out: form,
            } if active::on_green() => {
                let limit = time_out as *const timespec;
                // SAFETY: the caller vouches for the time-out.
                let limit = (!limit.is_null()).then(|| unsafe { time::read_duration(limit) });
                let limit = limit.transpose()?;
                // SAFETY: aligned, as looked at above; readable, as the caller vouches.
                return unsafe { wait(address, value as u32, bitset, form, limit) };
            }
            _ => {}
        }
    }
    if active::on_green() {
        // SAFETY: handed on.
        return unsafe { pass_uninterrupted(arguments) };
    }
    // SAFETY: handed on.
    unsafe { pass(arguments) }
}

/// The kernel's futex, for a green thread: what is not waited for here blocks the worker, and shows no
/// `EINTR`. A relative time-out becomes an absolute one, so that signals do not lengthen it.
///
/// # Safety
///
/// As futex(2).
unsafe fn pass_uninterrupted(mut arguments: [usize; 6]) -> Outcome {
    let end;
    let limit = arguments[3] as *const timespec;
    if arguments[1] as c_int == libc::FUTEX_WAIT && !limit.is_null() {
        // SAFETY: the caller vouches for the time-out.
        end = Deadline::after(unsafe { time::read_duration(limit) }?).to_timespec();
        arguments[1] = libc::FUTEX_WAIT_BITSET as usize;
        arguments[3] = (&raw const end).expose_provenance();
        arguments[5] = ANY as usize;
    }
    // SAFETY: handed on; `end` outlives the call.
    uninterrupted(|| unsafe { pass(arguments) })
}

/// The kernel's futex.
///
/// # Safety
///
/// As futex(2).
unsafe fn pass(arguments: [usize; 6]) -> Outcome {
    let [address, operation, value, time_out, second, bitset] = arguments;
    // SAFETY: handed on.
    unsafe {
        kernel!(
            SYS_futex, address, operation, value, time_out, second, bitset
        )
    }
}

/// Waits on a green thread.
///
/// # Safety
///
/// `address` is aligned and readable, as futex(2) asks.
unsafe fn wait(
    address: *const u32,
    expected: u32,
    bitset: u32,
    form: TimeOut,
    limit: Option<Duration>,
) -> Outcome {
    let mut deadline = limit.map(|limit| match form {
        TimeOut::Relative => Deadline::after(limit),
        TimeOut::Monotonic => time::deadline_of(limit),
        TimeOut::RealTime => until_shown(limit),
    });
    loop {
        // SAFETY: handed on.
        let wait = || unsafe { wait_table::wait(address, expected, bitset, deadline) };
        match in_runtime(wait) {
            FutexWait::Woken => return Ok(0),
            FutexWait::Mismatch => return Err(libc::EAGAIN),
            FutexWait::TimedOut => match limit {
                Some(end)
                    if form == TimeOut::RealTime && time::present(libc::CLOCK_REALTIME) < end =>
                {
                    deadline = Some(until_shown(end));
                }
                _ => return Err(libc::ETIMEDOUT),
            },
        }
    }
}

/// When `CLOCK_REALTIME` will show `end`, unless it is set.
fn until_shown(end: Duration) -> Deadline {
    Deadline::after(end.saturating_sub(time::present(libc::CLOCK_REALTIME)))
}

/// Wakes green threads and OS threads, together at most as many as the kernel would.
fn wake(address: *const u32, bitset: u32, count: c_int, arguments: [usize; 6]) -> Outcome {
    // The kernel wakes one also for zero and less.
    let wanted = count.max(1) as usize;
    let green = |count: usize| in_runtime(|| wait_table::wake(address, count, bitset));
    let kernel = |count: usize| {
        let mut arguments = arguments;
        arguments[2] = count;
        // SAFETY: a private wake uses the address as a name and does not follow it.
        unsafe { pass(arguments) }
    };
    // Words are four bytes apart at least; the hash spreads neighbours.
    let hash = (address.addr() as u64 >> 2).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let turn = &TURNS[hash as usize % COUNTERS];
    if turn.load(Ordering::Relaxed) % KERNEL_TURN == KERNEL_TURN - 1 {
        turn.fetch_add(1, Ordering::Relaxed);
        let woken = kernel(wanted)?;
        return Ok(woken
            + if woken < wanted {
                green(wanted - woken)
            } else {
                0
            });
    }
    let woken = green(wanted);
    if woken >= wanted {
        turn.fetch_add(1, Ordering::Relaxed);
        return Ok(woken);
    }
    Ok(woken + kernel(wanted - woken)?)
}
