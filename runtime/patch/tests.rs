//! The pure pieces of the room, and whether its symbols are the ones that the program finds.

use super::futex::{ANY, Operation, TimeOut};
use super::readiness::Wanted;
use super::time::{deadline_of, duration_of};
use super::vectors::{MOST, Vectors, WINDOW};
use crate::platform::clock::Deadline;
use crate::reactor::Interest;
use libc::{iovec, pollfd, timespec};
use std::time::Duration;

/// A xorshift generator: the same cases in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit) as usize
    }
}

fn vectors_of(entries: &[iovec]) -> Vectors {
    Vectors {
        first: entries.as_ptr(),
        count: entries.len(),
    }
}

/// The addresses of the bytes in `entries`, in order.
fn addresses(entries: &[iovec]) -> Vec<usize> {
    entries
        .iter()
        .flat_map(|entry| (0..entry.iov_len).map(|byte| entry.iov_base.addr() + byte))
        .collect()
}

#[test]
fn windows_put_together_are_the_array() {
    let mut random = Random(0x5eed_0001);
    for _ in 0..500 {
        let entries: Vec<_> = (0..random.below(3 * WINDOW as u64))
            .map(|index| iovec {
                iov_base: std::ptr::without_provenance_mut(0x1_0000 * (index + 1)),
                iov_len: random.below(4) * random.below(9),
            })
            .collect();
        let before = addresses(&entries);
        let vectors = vectors_of(&entries);
        // SAFETY: V1: the array is this test's.
        let total = unsafe { vectors.total() };
        assert_eq!(total, before.len());

        let mut seen = Vec::new();
        while seen.len() < total {
            let limit = (1 + random.below(100)).min(total - seen.len());
            // SAFETY: V1.
            let window = unsafe { vectors.window(seen.len(), limit) };
            // SAFETY: a window has so many entries.
            let part = unsafe { std::slice::from_raw_parts(window.as_ptr(), window.len()) };
            assert!(part.len() <= WINDOW && part.iter().all(|entry| entry.iov_len > 0));
            let part = addresses(part);
            assert!(!part.is_empty() && part.len() <= limit);
            assert_eq!(part, before[seen.len()..][..part.len()]);
            seen.extend(part);
        }
        assert_eq!(
            addresses(&entries),
            before,
            "the caller's array has changed"
        );
    }
}

#[test]
fn an_array_counts_no_more_than_one_call_moves() {
    let entry = iovec {
        iov_base: std::ptr::without_provenance_mut(0x1000),
        iov_len: isize::MAX as usize,
    };
    let entries = [entry; 4];
    // SAFETY: V1: only lengths are looked at.
    assert_eq!(unsafe { vectors_of(&entries).total() }, MOST);
    // SAFETY: as above.
    let window = unsafe { vectors_of(&entries).window(10, MOST - 10) };
    assert_eq!(window.len(), 1);
    // SAFETY: the window has an entry.
    let first = unsafe { *window.as_ptr() };
    assert_eq!((first.iov_base.addr(), first.iov_len), (0x100a, MOST - 10));
    // SAFETY: an array of no entries is not looked at.
    assert_eq!(unsafe { vectors_of(&[]).total() }, 0);
}

#[test]
fn times_are_checked_as_the_kernel_does() {
    let time = |tv_sec, tv_nsec| duration_of(timespec { tv_sec, tv_nsec });
    assert_eq!(time(0, 0), Ok(Duration::ZERO));
    assert_eq!(time(1, 999_999_999), Ok(Duration::new(1, 999_999_999)));
    assert_eq!(time(i64::MAX, 0), Ok(Duration::from_secs(i64::MAX as u64)));
    for (seconds, nanoseconds) in [
        (-1, 0),
        (i64::MIN, 0),
        (0, -1),
        (0, 1_000_000_000),
        (0, i64::MAX),
        (0, i64::MIN),
        (i64::MAX, 1_000_000_000),
    ] {
        assert_eq!(time(seconds, nanoseconds), Err(libc::EINVAL));
    }
    assert_eq!(
        deadline_of(Duration::from_nanos(7)),
        Deadline::from_nanoseconds(7)
    );
    assert_eq!(
        deadline_of(Duration::from_secs(i64::MAX as u64)),
        Deadline::NEVER
    );
}

#[test]
fn futex_operations_are_told_apart() {
    let private = libc::FUTEX_PRIVATE_FLAG;
    let real_time = libc::FUTEX_CLOCK_REALTIME;
    let wait = |bitset, time_out| Operation::Wait { bitset, time_out };
    let decode = Operation::decode;
    // FUTEX_WAIT and FUTEX_WAKE have no bit set: what lies in that argument means nothing.
    for rubbish in [0, 1, ANY] {
        assert_eq!(
            decode(libc::FUTEX_WAIT | private, rubbish),
            wait(ANY, TimeOut::Relative)
        );
        assert_eq!(
            decode(libc::FUTEX_WAKE | private, rubbish),
            Operation::Wake { bitset: ANY }
        );
    }
    assert_eq!(
        decode(libc::FUTEX_WAIT_BITSET | private, 6),
        wait(6, TimeOut::Monotonic)
    );
    assert_eq!(
        decode(libc::FUTEX_WAIT_BITSET | private | real_time, 6),
        wait(6, TimeOut::RealTime)
    );
    assert_eq!(
        decode(libc::FUTEX_WAKE_BITSET | private, 6),
        Operation::Wake { bitset: 6 }
    );
    for (operation, bitset) in [
        // Shared between processes.
        (libc::FUTEX_WAIT, ANY),
        (libc::FUTEX_WAIT_BITSET, ANY),
        (libc::FUTEX_WAKE, ANY),
        (libc::FUTEX_WAKE_BITSET, ANY),
        // EINVAL.
        (libc::FUTEX_WAIT_BITSET | private, 0),
        (libc::FUTEX_WAKE_BITSET | private, 0),
        // ENOSYS.
        (libc::FUTEX_WAIT | private | real_time, ANY),
        (libc::FUTEX_WAKE | private | real_time, ANY),
        (-1, ANY),
        // Not done here.
        (libc::FUTEX_REQUEUE | private, ANY),
        (libc::FUTEX_CMP_REQUEUE | private, ANY),
        (libc::FUTEX_WAKE_OP | private, ANY),
        (libc::FUTEX_LOCK_PI | private, ANY),
    ] {
        assert_eq!(decode(operation, bitset), Operation::Other, "{operation}");
    }
}

#[test]
fn polled_events_become_interests() {
    let entry = |fd, events| pollfd {
        fd,
        events,
        revents: 0,
    };
    let wanted = Wanted::of(&[
        entry(3, libc::POLLIN),
        entry(-1, libc::POLLIN),
        entry(4, libc::POLLOUT),
        entry(5, libc::POLLRDNORM | libc::POLLWRNORM),
        entry(6, libc::POLLRDHUP),
    ]);
    assert!(wanted.is_exact);
    let watched = [
        (3, Interest::READ),
        (4, Interest::WRITE),
        (5, Interest::BOTH),
        (6, Interest::READ),
    ];
    assert_eq!(wanted.watched, watched);
    for events in [0, libc::POLLPRI, libc::POLLIN | libc::POLLPRI] {
        let wanted = Wanted::of(&[entry(3, events)]);
        assert!(!wanted.is_exact, "{events:#x}");
        assert_eq!(wanted.watched, [(3, Interest::READ)]);
    }
    assert!(Wanted::of(&[]).is_exact);
}

#[test]
fn symbols_of_the_program_are_those_of_the_table() {
    let mut count = 0;
    for hook in super::hooks() {
        // SAFETY: a valid name; RTLD_DEFAULT searches as the dynamic linker does.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, hook.symbol.as_ptr()) };
        assert!(
            std::ptr::eq(found, hook.address),
            "libraries do not see sward's {:?}",
            hook.symbol
        );
        count += 1;
    }
    assert_ne!(count, 0);
    assert!(super::unexported().is_empty());
}

#[test]
fn patching_can_be_turned_on_again_and_again() {
    super::all();
    super::all();
    assert!(super::active::is_active());
    // This is no green thread: everything passes through.
    assert!(!super::active::on_green());
}
