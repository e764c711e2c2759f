//! `poll` over mixed sets, with and without time.

use crate::world::*;
use libc::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, POLLRDHUP, pollfd};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::time::{Duration, Instant};

fn poll(asked: &[(RawFd, i16)], milliseconds: i32) -> (Seen, Vec<i16>) {
    let mut entries: Vec<_> = asked
        .iter()
        .map(|&(fd, events)| pollfd {
            fd,
            events,
            revents: -1,
        })
        .collect();
    let count = entries.len() as u64;
    let seen = call(|| unsafe { libc::poll(entries.as_mut_ptr(), count, milliseconds) });
    (
        seen,
        entries.into_iter().map(|entry| entry.revents).collect(),
    )
}

#[test]
fn what_is_ready_at_once() {
    compare(|_| {
        let (out, into) = pipe();
        let (out, into) = (out.as_raw_fd(), into.as_raw_fd());
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let set = [
            (-1, POLLIN),
            (out, POLLIN),
            (into, POLLOUT),
            (file.as_raw_fd(), POLLIN | POLLOUT),
        ];
        for milliseconds in [-1, 0, 1000] {
            assert_eq!(
                poll(&set, milliseconds),
                (good(2), vec![0, 0, POLLOUT, POLLIN | POLLOUT])
            );
        }
        assert_eq!(
            poll(&[(1 << 22, POLLIN), (out, POLLIN)], -1),
            (good(1), vec![POLLNVAL, 0])
        );
        assert_eq!(poll(&[(out, POLLIN)], 0), (good(0), vec![0]));
        assert_eq!(poll(&[], 0), (good(0), vec![]));
    });
}

#[test]
fn time_runs_out() {
    compare(|_| {
        let (out, _into) = pipe();
        let (one, _other) = tcp_pair();
        let limit = Duration::from_millis(30);
        for set in [
            vec![],
            vec![(-1, POLLIN)],
            vec![(out.as_raw_fd(), POLLIN)],
            vec![(out.as_raw_fd(), 0), (one.as_raw_fd(), POLLIN | POLLPRI)],
            vec![
                (one.as_raw_fd(), POLLRDHUP),
                (-5, POLLOUT),
                (out.as_raw_fd(), POLLIN),
            ],
        ] {
            let start = Instant::now();
            assert_eq!(poll(&set, 30), (good(0), vec![0; set.len()]));
            assert!(start.elapsed() >= limit);
        }
        let start = Instant::now();
        assert_eq!(
            call(|| unsafe { libc::poll(ptr::null_mut(), 0, 30) }),
            good(0)
        );
        assert!(start.elapsed() >= limit);
    });
}

#[test]
fn events_end_the_wait() {
    compare(|world| {
        let (one, other) = tcp_pair();
        let (out, into) = pipe();
        let (number, out_number) = (one.as_raw_fd(), out.as_raw_fd());
        let set = vec![(out_number, POLLIN), (-1, POLLIN), (number, POLLIN)];
        let polling = world.spawn({
            let set = set.clone();
            move || poll(&set, -1)
        });
        world.settle();
        assert_eq!(send(other.as_raw_fd(), b"x", 0), good(1));
        assert_eq!(polling.join(), (good(1), vec![0, 0, POLLIN]));

        // Data is no event for who asks for the peer's end, or for errors.
        let mut polls = Vec::new();
        for events in [0, POLLRDHUP] {
            polls.push(world.spawn(move || poll(&[(out_number, 0), (number, events)], -1)));
        }
        let urgent = world.spawn(move || poll(&[(number, POLLPRI)], -1));
        world.settle();
        assert_eq!(send(other.as_raw_fd(), b"!", libc::MSG_OOB), good(1));
        assert_eq!(urgent.join(), (good(1), vec![POLLPRI]));
        world.settle();
        drop(other);
        drop(into);
        let ends: Vec<_> = polls.into_iter().map(Peer::join).collect();
        for (seen, found) in &ends {
            assert!(
                seen.0 > 0 && found[0] & POLLHUP | found[1] & POLLRDHUP != 0,
                "{found:?}"
            );
        }

        let (out, into) = pipe();
        let number = into.as_raw_fd();
        assert_eq!(poll(&[(number, POLLOUT)], -1), (good(1), vec![POLLOUT]));
        make_non_blocking(number);
        while write(number, &[0; 4096]).0 > 0 {}
        let polling = world.spawn(move || poll(&[(number, POLLOUT)], 10_000));
        world.settle();
        drop(out);
        let (seen, found) = polling.join();
        assert_eq!((seen, found[0] & POLLERR), (good(1), POLLERR));
    });
}
