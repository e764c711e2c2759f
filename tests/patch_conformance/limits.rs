//! SO_RCVTIMEO and SO_SNDTIMEO, and sleeps: never too early, and with the kernel's results.

use crate::world::*;
use libc::{EAGAIN, EINVAL, SO_RCVTIMEO, SO_SNDTIMEO, timespec};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_millis(40);

/// Makes a call and checks that it took `LIMIT` at least.
fn took(body: impl FnOnce() -> Seen) -> Seen {
    let start = Instant::now();
    let seen = body();
    assert!(start.elapsed() >= LIMIT, "{seen:?} came too early");
    seen
}

#[test]
fn receiving_gives_up() {
    compare(|_| {
        let (one, other) = tcp_pair();
        let number = one.as_raw_fd();
        // Set through a duplicate: the option is the socket's.
        set_time_out(one.try_clone().unwrap().as_raw_fd(), SO_RCVTIMEO, LIMIT);
        let mut buffer = [0; 8];
        assert_eq!(took(|| recv(number, &mut buffer, 0)), bad(EAGAIN));
        assert_eq!(took(|| read(number, &mut buffer)), bad(EAGAIN));
        let parts = [vec![0; 4], vec![0; 4]];
        let mut vectors = vectors_of(&parts);
        let array = vectors.as_ptr();
        assert_eq!(
            took(|| call(|| unsafe { libc::readv(number, array, 2) })),
            bad(EAGAIN)
        );
        let mut header = message(&mut vectors, &mut []);
        let receive = || call(|| unsafe { libc::recvmsg(number, &mut header, 0) });
        assert_eq!(took(receive), bad(EAGAIN));
        assert_eq!(send(other.as_raw_fd(), b"abc", 0), good(3));
        assert_eq!(
            took(|| recv(number, &mut buffer, libc::MSG_WAITALL | libc::MSG_PEEK)),
            good(3)
        );
        assert_eq!(
            took(|| recv(number, &mut buffer, libc::MSG_WAITALL)),
            good(3)
        );

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        set_time_out(listener.as_raw_fd(), SO_RCVTIMEO, LIMIT);
        let accept = || {
            call(|| unsafe { libc::accept(listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut()) })
        };
        assert_eq!(took(accept), bad(EAGAIN));
    });
}

#[test]
fn the_limit_is_for_the_whole_call() {
    compare(|world| {
        let (reader, writer) = local_pair(libc::SOCK_STREAM);
        set_time_out(reader.as_raw_fd(), SO_RCVTIMEO, LIMIT);
        // A byte each 15 ms: with a limit for each wait this would not end before the 100 bytes.
        let dripping = world.spawn(move || {
            let mut sent = 0;
            while sent < 100 && send(writer.as_raw_fd(), b"x", libc::MSG_NOSIGNAL).0 == 1 {
                std::thread::sleep(Duration::from_millis(15));
                sent += 1;
            }
            sent
        });
        // The kernel counts what is left in ticks after each byte, so here it may be a little early.
        let (count, errno) = recv(reader.as_raw_fd(), &mut [0; 100], libc::MSG_WAITALL);
        assert!((1..100).contains(&count) && errno == UNTOUCHED, "{count}");
        drop(reader);
        assert!(dripping.join() < 100);
    });
}

#[test]
fn sending_gives_up() {
    compare(|_| {
        let (one, _other) = tcp_pair();
        let (local, _its_peer) = local_pair(libc::SOCK_STREAM);
        for number in [one.as_raw_fd(), local.as_raw_fd()] {
            set_time_out(number, SO_SNDTIMEO, LIMIT);
            let much = vec![0; 32 << 20];
            let (count, errno) = took(|| send(number, &much, 0));
            assert!(count > 0 && count < much.len() as isize && errno == UNTOUCHED);
            // TCP finds room for more now and then; what is full at last gives the error.
            while took(|| send(number, &much, 0)) != bad(EAGAIN) {}
            while took(|| write(number, &much)) != bad(EAGAIN) {}
        }
        let (one, _other) = local_pair(libc::SOCK_DGRAM);
        set_time_out(one.as_raw_fd(), SO_SNDTIMEO, LIMIT);
        while send(one.as_raw_fd(), b"datagram", libc::MSG_DONTWAIT).0 > 0 {}
        assert_eq!(took(|| send(one.as_raw_fd(), b"datagram", 0)), bad(EAGAIN));
    });
}

fn clock(clock: libc::clockid_t) -> timespec {
    let mut time = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    assert_eq!(unsafe { libc::clock_gettime(clock, &mut time) }, 0);
    time
}

fn later(time: timespec, nanoseconds: i64) -> timespec {
    let sum = time.tv_nsec + nanoseconds;
    timespec {
        tv_sec: time.tv_sec + sum / 1_000_000_000,
        tv_nsec: sum % 1_000_000_000,
    }
}

#[test]
fn sleeps_are_not_early() {
    compare(|_| {
        let forty = timespec {
            tv_sec: 0,
            tv_nsec: 40_000_000,
        };
        for which in [
            libc::CLOCK_MONOTONIC,
            libc::CLOCK_REALTIME,
            libc::CLOCK_BOOTTIME,
            libc::CLOCK_TAI,
        ] {
            let relative =
                || call(|| unsafe { libc::clock_nanosleep(which, 0, &forty, ptr::null_mut()) });
            assert_eq!(took(relative), good(0));
            let end = later(clock(which), 40_000_000);
            let flag = libc::TIMER_ABSTIME;
            let absolute =
                call(|| unsafe { libc::clock_nanosleep(which, flag, &end, ptr::null_mut()) });
            assert_eq!(absolute, good(0));
            let now = clock(which);
            assert!((now.tv_sec, now.tv_nsec) >= (end.tv_sec, end.tv_nsec));
            // What is past does not wait.
            let past = timespec {
                tv_sec: 1,
                tv_nsec: 0,
            };
            let absolute =
                call(|| unsafe { libc::clock_nanosleep(which, flag, &past, ptr::null_mut()) });
            assert_eq!(absolute, good(0));
        }
        let mut left = timespec {
            tv_sec: 77,
            tv_nsec: 77,
        };
        assert_eq!(
            took(|| call(|| unsafe { libc::nanosleep(&forty, &mut left) })),
            good(0)
        );
        assert_eq!((left.tv_sec, left.tv_nsec), (77, 77));
        assert_eq!(took(|| call(|| unsafe { libc::usleep(40_000) })), good(0));
        assert_eq!(took(|| call(|| unsafe { libc::sleep(1) } as i32)), good(0));
        assert_eq!(call(|| unsafe { libc::sleep(0) } as i32), good(0));
        assert_eq!(call(|| unsafe { libc::sched_yield() }), good(0));
    });
}

#[test]
fn bad_times_are_refused() {
    compare(|_| {
        for (tv_sec, tv_nsec) in [(-1, 0), (0, -1), (0, 1_000_000_000)] {
            let time = timespec { tv_sec, tv_nsec };
            assert_eq!(
                call(|| unsafe { libc::nanosleep(&time, ptr::null_mut()) }),
                bad(EINVAL)
            );
            for flags in [0, libc::TIMER_ABSTIME] {
                // The number is returned; errno is not touched.
                let clock = libc::CLOCK_MONOTONIC;
                let slept =
                    call(|| unsafe { libc::clock_nanosleep(clock, flags, &time, ptr::null_mut()) });
                assert_eq!(slept, good(EINVAL as isize));
            }
        }
        assert_eq!(
            call(|| unsafe { libc::nanosleep(ptr::null(), ptr::null_mut()) }),
            bad(libc::EFAULT)
        );
        let time = timespec {
            tv_sec: 0,
            tv_nsec: 1,
        };
        [
            libc::CLOCK_THREAD_CPUTIME_ID,
            libc::CLOCK_MONOTONIC_COARSE,
            1000,
            -1,
        ]
        .map(|clock| call(|| unsafe { libc::clock_nanosleep(clock, 0, &time, ptr::null_mut()) }))
    });
}
