//! Points in time on the kernel's monotonic clock.
//!
//! Called by whoever waits with a time-out: futex, timers, reactor.
//!
//! # Protocol
//! A wait computes its [`Deadline`] once, when it begins, and every retry waits for that same
//! deadline; so spurious wake-ups do not make it longer.
//!
//! # Invariants
//! K1  Reading the clock touches no thread-local storage: clock_gettime(2) is answered by the
//!     kernel's vDSO and sets errno only when it fails, which it does not for this clock.

use std::time::Duration;

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// A point in time: nanoseconds of `CLOCK_MONOTONIC`. It suffices for 584 years of uptime; what
/// would be later is [`Deadline::NEVER`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Deadline(u64);

impl Deadline {
    /// Later than any time that comes.
    pub(crate) const NEVER: Deadline = Deadline(u64::MAX);

    /// The present time.
    #[inline]
    pub(crate) fn now() -> Deadline {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `time` is valid for writing; the clock is one that every kernel has.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
        Deadline(time.tv_sec as u64 * NANOSECONDS_PER_SECOND + time.tv_nsec as u64)
    }

    /// The time when `duration` has passed from now.
    pub(crate) fn after(duration: Duration) -> Deadline {
        Deadline::now().saturating_add(duration)
    }

    /// The time when `duration` has passed from this one.
    pub(crate) fn saturating_add(self, duration: Duration) -> Deadline {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Deadline(self.0.saturating_add(nanoseconds))
    }

    /// The time at `nanoseconds` of the monotonic clock.
    pub(crate) const fn from_nanoseconds(nanoseconds: u64) -> Deadline {
        Deadline(nanoseconds)
    }

    /// The monotonic clock's nanoseconds at this time.
    pub(crate) const fn nanoseconds(self) -> u64 {
        self.0
    }

    /// How much later this time is than `earlier`; zero if it is not later.
    pub(crate) fn saturating_duration_since(self, earlier: Deadline) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The form in which system calls take an absolute time. The kernel accepts all that
    /// [`Deadline`] can express, [`Deadline::NEVER`] included.
    pub(crate) fn to_timespec(self) -> libc::timespec {
        libc::timespec {
            tv_sec: (self.0 / NANOSECONDS_PER_SECOND) as libc::time_t,
            tv_nsec: (self.0 % NANOSECONDS_PER_SECOND) as libc::c_long,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_does_not_go_back() {
        let first = Deadline::now();
        let second = Deadline::now();
        assert!(first <= second);
        assert!(first > Deadline::from_nanoseconds(0));
    }

    #[test]
    fn after_is_later_by_at_least_the_duration() {
        let duration = Duration::from_millis(7);
        let before = Deadline::now();
        let deadline = Deadline::after(duration);
        assert!(deadline.saturating_duration_since(before) >= duration);
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Deadline::after(Duration::MAX), Deadline::NEVER);
        let (early, late) = (
            Deadline::from_nanoseconds(3),
            Deadline::from_nanoseconds(10),
        );
        assert_eq!(early.saturating_duration_since(late), Duration::ZERO);
        assert_eq!(
            late.saturating_duration_since(early),
            Duration::from_nanos(7)
        );
    }

    #[test]
    fn timespec_splits_into_seconds_and_rest() {
        let time = Deadline::from_nanoseconds(5_000_000_042).to_timespec();
        assert_eq!((time.tv_sec, time.tv_nsec), (5, 42));
        let never = Deadline::NEVER.to_timespec();
        assert!(never.tv_sec > 0 && never.tv_nsec < 1_000_000_000);
    }
}
