//! `clock_nanosleep`, `nanosleep`, `usleep`, `sleep`, `sched_yield`.
//!
//! Called by C and Rust code (`std::thread::sleep` is `clock_nanosleep`, `yield_now` is
//! `sched_yield`). A green thread that sleeps is parked with a deadline; one that sleeps for no
//! time yields. Nothing interrupts a green thread's sleep, so what is left is never written.
//!
//! | clock | relative | absolute |
//! | --- | --- | --- |
//! | `CLOCK_MONOTONIC` | a deadline | the deadline itself |
//! | `CLOCK_REALTIME` | a deadline: setting the clock does not change it | looked at each second |
//! | `CLOCK_BOOTTIME` | looked at each second | looked at each second |
//! | others | passes through, blocks its worker | the same |
//!
//! The runtime's timers run on `CLOCK_MONOTONIC`. A clock that may jump against it (set by hand,
//! or counting on while the machine is suspended) is read again at least every second: a jump
//! forward ends the sleep within a second, a jump back never ends it early.

use super::active;
use super::kernel::{Outcome, answer, answer_int, in_runtime, kernel, uninterrupted};
use crate::platform::clock::Deadline;
use crate::scheduler;
use crate::time;
use libc::{c_int, c_uint, clockid_t, timespec, useconds_t};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a jump of a clock may go unseen.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Set while `all()` looks whether the program's calls come here.
static IS_PROBED: AtomicBool = AtomicBool::new(false);

/// Set by [`sched_yield`] while it is probed.
static WAS_REACHED: AtomicBool = AtomicBool::new(false);

/// Whether `yield_now`, called as the program calls it, comes to [`sched_yield`] of this file.
pub(super) fn is_reached_by(yield_now: impl FnOnce()) -> bool {
    IS_PROBED.store(true, Ordering::Relaxed);
    yield_now();
    IS_PROBED.store(false, Ordering::Relaxed);
    WAS_REACHED.load(Ordering::Relaxed)
}

/// A C time as a duration.
///
/// # Errors
///
/// `EINVAL` for what the kernel calls invalid: negative seconds, nanoseconds not below a second.
pub(super) fn duration_of(time: timespec) -> Result<Duration, i32> {
    let seconds = u64::try_from(time.tv_sec).map_err(|_| libc::EINVAL)?;
    match u32::try_from(time.tv_nsec) {
        Ok(nanoseconds @ ..1_000_000_000) => Ok(Duration::new(seconds, nanoseconds)),
        _ => Err(libc::EINVAL),
    }
}

/// The monotonic time at which `time`, an absolute one of `CLOCK_MONOTONIC`, is.
pub(super) fn deadline_of(time: Duration) -> Deadline {
    Deadline::from_nanoseconds(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// The present time of a clock that every kernel has.
pub(super) fn present(clock: clockid_t) -> Duration {
    let mut time = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writing.
    unsafe { libc::clock_gettime(clock, &mut time) };
    duration_of(time).unwrap_or(Duration::ZERO)
}

/// Reads a C time.
///
/// # Safety
///
/// `time` is null or readable.
///
/// # Errors
///
/// `EFAULT` for null, `EINVAL` as [`duration_of`].
pub(super) unsafe fn read_duration(time: *const timespec) -> Result<Duration, i32> {
    if time.is_null() {
        return Err(libc::EFAULT);
    }
    // SAFETY: readable, as the caller vouches.
    duration_of(unsafe { time.read_unaligned() })
}

/// Parks the calling green thread until `deadline`.
fn sleep_until(deadline: Deadline) {
    in_runtime(|| {
        if deadline <= Deadline::now() {
            scheduler::yield_now();
        } else {
            time::sleep_until(deadline);
        }
    });
}

/// Parks the calling green thread until `clock` shows `end`.
fn sleep_until_shown(clock: clockid_t, end: Duration) {
    loop {
        let left = end.saturating_sub(present(clock));
        sleep_until(Deadline::after(left.min(LOOK_AGAIN)));
        if present(clock) >= end {
            return;
        }
    }
}

/// `clock_nanosleep` on a green thread; `None` if the clock is one that passes through.
fn sleep_on(clock: clockid_t, is_absolute: bool, time: Duration) -> Option<()> {
    match (clock, is_absolute) {
        (libc::CLOCK_MONOTONIC, true) => sleep_until(deadline_of(time)),
        (libc::CLOCK_MONOTONIC | libc::CLOCK_REALTIME, false) => {
            sleep_until(Deadline::after(time));
        }
        (libc::CLOCK_BOOTTIME, false) => {
            sleep_until_shown(clock, present(clock).saturating_add(time));
        }
        (libc::CLOCK_REALTIME | libc::CLOCK_BOOTTIME, true) => sleep_until_shown(clock, time),
        _ => return None,
    }
    Some(())
}

/// `clock_nanosleep` as an [`Outcome`].
///
/// # Safety
///
/// As clock_nanosleep(2).
unsafe fn clock_sleep(
    clock: clockid_t,
    flags: c_int,
    request: *const timespec,
    left: *mut timespec,
) -> Outcome {
    // A bad time goes on to the kernel: it looks at the clock first, and so chooses the error.
    if active::on_green()
        // SAFETY: handed on.
        && let Ok(time) = unsafe { read_duration(request) }
        && sleep_on(clock, flags & libc::TIMER_ABSTIME != 0, time).is_some()
    {
        return Ok(0);
    }
    if !active::on_green() || request.is_null() {
        // SAFETY: handed on.
        return unsafe { kernel!(SYS_clock_nanosleep, clock, flags, request, left) };
    }
    // SAFETY: readable, as the caller vouches.
    let mut rest = unsafe { request.read_unaligned() };
    // After a signal the kernel leaves what is left of a relative sleep, and an absolute one alone.
    // SAFETY: a local, which the kernel reads before it writes.
    uninterrupted(|| unsafe {
        kernel!(
            SYS_clock_nanosleep,
            clock,
            flags,
            &raw const rest,
            &raw mut rest
        )
    })
}

/// clock_nanosleep(2): returns the error number, and leaves errno alone.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn clock_nanosleep(
    clock: clockid_t,
    flags: c_int,
    request: *const timespec,
    left: *mut timespec,
) -> c_int {
    // glibc refuses this clock itself, with another error than the kernel's.
    if clock == libc::CLOCK_THREAD_CPUTIME_ID {
        return libc::EINVAL;
    }
    // SAFETY: handed on.
    match unsafe { clock_sleep(clock, flags, request, left) } {
        Ok(_) => 0,
        Err(number) => number,
    }
}

/// nanosleep(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nanosleep(request: *const timespec, left: *mut timespec) -> c_int {
    // SAFETY: handed on; nanosleep is this call.
    answer_int(unsafe { clock_sleep(libc::CLOCK_REALTIME, 0, request, left) })
}

/// usleep(3).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn usleep(microseconds: useconds_t) -> c_int {
    let request = timespec {
        tv_sec: (microseconds / 1_000_000).into(),
        tv_nsec: (microseconds % 1_000_000 * 1_000).into(),
    };
    // SAFETY: a valid time, and nowhere to write what is left.
    unsafe { nanosleep(&request, ptr::null_mut()) }
}

/// sleep(3): returns how many seconds were left when a signal ended it.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn sleep(seconds: c_uint) -> c_uint {
    let mut time = timespec {
        tv_sec: seconds.into(),
        tv_nsec: 0,
    };
    // SAFETY: a valid time, which may be overwritten with what is left.
    match unsafe { nanosleep(&time, &mut time) } {
        0 => 0,
        _ => time.tv_sec as c_uint,
    }
}

/// sched_yield(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn sched_yield() -> c_int {
    if IS_PROBED.load(Ordering::Relaxed) {
        WAS_REACHED.store(true, Ordering::Relaxed);
    }
    if active::on_green() {
        in_runtime(scheduler::yield_now);
        return 0;
    }
    // SAFETY: no preconditions.
    answer(unsafe { kernel!(SYS_sched_yield) }) as c_int
}
