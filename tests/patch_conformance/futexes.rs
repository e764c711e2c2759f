//! `syscall(SYS_futex, …)`: results, order of checks, and waking across kinds of threads.

use crate::world::*;
use libc::{EAGAIN, EFAULT, EINVAL, ENOSYS, ETIMEDOUT, c_int, timespec};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

const PRIVATE: c_int = libc::FUTEX_PRIVATE_FLAG;
const WAIT: c_int = libc::FUTEX_WAIT | PRIVATE;
const WAIT_BITSET: c_int = libc::FUTEX_WAIT_BITSET | PRIVATE;
const WAKE: c_int = libc::FUTEX_WAKE | PRIVATE;
const WAKE_BITSET: c_int = libc::FUTEX_WAKE_BITSET | PRIVATE;
const REAL_TIME: c_int = libc::FUTEX_CLOCK_REALTIME;
const ANY: u32 = u32::MAX;

fn futex(
    word: *const AtomicU32,
    operation: c_int,
    value: u32,
    time_out: Option<timespec>,
    bitset: u32,
) -> Seen {
    let time_out = time_out.as_ref().map_or(ptr::null(), ptr::from_ref);
    let nothing = ptr::null::<u32>();
    call(|| unsafe {
        libc::syscall(
            libc::SYS_futex,
            word,
            operation,
            value,
            time_out,
            nothing,
            bitset,
        ) as isize
    })
}

fn after(clock: libc::clockid_t, milliseconds: i64) -> timespec {
    let mut time = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    assert_eq!(unsafe { libc::clock_gettime(clock, &mut time) }, 0);
    time.tv_nsec += milliseconds * 1_000_000;
    time.tv_sec += time.tv_nsec / 1_000_000_000;
    time.tv_nsec %= 1_000_000_000;
    time
}

#[test]
fn results_without_waiting() {
    compare(|_| {
        let word = AtomicU32::new(5);
        let past = Some(timespec {
            tv_sec: 0,
            tv_nsec: 1,
        });
        for operation in [WAIT, WAIT_BITSET, WAIT_BITSET | REAL_TIME, WAIT & !PRIVATE] {
            assert_eq!(futex(&word, operation, 4, None, ANY), bad(EAGAIN));
            assert_eq!(futex(&word, operation, 4, past, ANY), bad(EAGAIN));
            assert_eq!(futex(&word, operation, 5, past, ANY), bad(ETIMEDOUT));
            for (tv_sec, tv_nsec) in [(-1, 0), (0, -1), (0, 1_000_000_000)] {
                let time = Some(timespec { tv_sec, tv_nsec });
                assert_eq!(futex(&word, operation, 4, time, ANY), bad(EINVAL));
            }
            let crooked = (&raw const word).cast::<u8>().wrapping_add(1).cast();
            assert_eq!(futex(crooked, operation, 5, None, ANY), bad(EINVAL));
            assert_eq!(futex(ptr::null(), operation, 5, None, ANY), bad(EFAULT));
        }
        assert_eq!(futex(&word, WAIT_BITSET, 5, None, 0), bad(EINVAL));
        assert_eq!(futex(&word, WAKE_BITSET, 1, None, 0), bad(EINVAL));
        assert_eq!(futex(&word, WAIT | REAL_TIME, 5, past, ANY), bad(ENOSYS));
        assert_eq!(futex(&word, WAKE | REAL_TIME, 5, None, ANY), bad(ENOSYS));
        assert_eq!(futex(&word, 126 | PRIVATE, 5, None, ANY), bad(ENOSYS));
        for count in [0, 1, i32::MAX as u32, u32::MAX] {
            assert_eq!(futex(&word, WAKE, count, None, 0), good(0));
            assert_eq!(futex(&word, WAKE_BITSET, count, None, ANY), good(0));
        }
        let crooked = (&raw const word).cast::<u8>().wrapping_add(2).cast();
        assert_eq!(futex(crooked, WAKE, 1, None, ANY), bad(EINVAL));
        // Other numbers pass through, with all six arguments.
        let own = unsafe { libc::getpid() } as isize;
        assert_eq!(
            call(|| unsafe { libc::syscall(libc::SYS_getpid) } as isize),
            good(own)
        );
        assert_eq!(call(|| unsafe { libc::syscall(-1) } as isize), bad(ENOSYS));
        let page = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::syscall(
                libc::SYS_mmap,
                ptr::null::<u8>(),
                4096_usize,
                access,
                kind,
                -1,
                0_usize,
            )
        };
        assert!(page > 0);
        assert_eq!(
            unsafe { libc::munmap(ptr::with_exposed_provenance_mut(page as usize), 4096) },
            0
        );
    });
}

#[test]
fn time_outs_are_not_early() {
    compare(|_| {
        let word = AtomicU32::new(5);
        let limit = Duration::from_millis(30);
        let relative = timespec {
            tv_sec: 0,
            tv_nsec: 30_000_000,
        };
        let start = Instant::now();
        assert_eq!(futex(&word, WAIT, 5, Some(relative), 0), bad(ETIMEDOUT));
        assert!(start.elapsed() >= limit);
        for (operation, clock) in [
            (WAIT_BITSET, libc::CLOCK_MONOTONIC),
            (WAIT_BITSET | REAL_TIME, libc::CLOCK_REALTIME),
        ] {
            let start = Instant::now();
            let end = after(clock, 30);
            assert_eq!(futex(&word, operation, 5, Some(end), ANY), bad(ETIMEDOUT));
            assert!(start.elapsed() >= limit);
        }
    });
}

#[test]
fn wakes_count_and_match() {
    compare(|world| {
        let word = Arc::new(AtomicU32::new(0));
        let waiting: Vec<_> = [1, 2, 2, ANY, 4]
            .map(|bitset| {
                let word = word.clone();
                world.spawn(move || futex(&*word, WAIT_BITSET, 0, None, bitset))
            })
            .into_iter()
            .collect();
        let woken = |operation, count, bitset| {
            settle_in_futex(world);
            futex(&*word, operation, count, None, bitset)
        };
        assert_eq!(woken(WAKE_BITSET, 1, 8), good(1)); // The one that takes any.
        assert_eq!(woken(WAKE_BITSET, 9, 8), good(0));
        assert_eq!(woken(WAKE_BITSET, 9, 2), good(2));
        assert_eq!(woken(WAKE, 0, 0), good(1)); // The kernel wakes one for zero.
        assert_eq!(woken(WAKE, 9, 0), good(1));
        for peer in waiting {
            assert_eq!(peer.join(), good(0));
        }
    });
}

/// Gives every waiter time to be in the kernel; an OS thread that is woken is not in there any more.
fn settle_in_futex(world: &World) {
    if world.is_green {
        world.settle();
    } else {
        world.settle_in(libc::SYS_futex);
    }
}

#[test]
fn os_threads_and_green_threads_wake_each_other() {
    on_green(|world| {
        let word = Arc::new(AtomicU32::new(0));
        let green = world.spawn({
            let word = word.clone();
            move || futex(&*word, WAIT, 0, None, 0)
        });
        world.settle();
        // An OS thread wakes the green one.
        let waker = std::thread::spawn({
            let word = word.clone();
            move || {
                word.store(1, Ordering::Relaxed);
                futex(&*word, WAKE, 1, None, 0)
            }
        });
        assert_eq!(green.join(), good(0));
        assert_eq!(waker.join().unwrap(), good(1));
    });
}

#[test]
fn an_os_thread_does_not_starve_behind_green_ones() {
    on_green(|world| {
        let word = Arc::new(AtomicU32::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (word, ended) = (word.clone(), ended.clone());
            move || {
                futex(&*word, WAIT, 0, None, 0);
                ended.store(true, Ordering::Release);
            }
        });
        let greens: Vec<_> = (0..3)
            .map(|_| {
                let (word, ended) = (word.clone(), ended.clone());
                world.spawn(move || {
                    while !ended.load(Ordering::Acquire) {
                        futex(&*word, WAIT, 0, None, 0);
                    }
                })
            })
            .collect();
        // There is always a green thread to wake; still the OS thread gets its turn.
        while !ended.load(Ordering::Acquire) {
            world.settle();
            futex(&*word, WAKE, 1, None, 0);
        }
        word.store(1, Ordering::Relaxed);
        futex(&*word, WAKE, u32::MAX >> 1, None, 0);
        greens.into_iter().for_each(Peer::join);
        thread.join().unwrap();
    });
}
