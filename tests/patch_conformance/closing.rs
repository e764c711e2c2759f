//! Descriptors that end or change while somebody waits on them, and flags that nobody may see.

use crate::world::*;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn close(descriptor: RawFd) -> Seen {
    call(|| unsafe { libc::close(descriptor) })
}

/// Pairs of every kind, as numbers: the first is read from.
fn pairs() -> Vec<(RawFd, OwnedFd)> {
    let (reader, writer) = tcp_pair();
    let (local, its_peer) = local_pair(libc::SOCK_STREAM);
    let (out, into) = pipe();
    vec![
        (reader.into_raw_fd(), writer.into()),
        (local.into_raw_fd(), its_peer),
        (out.into_raw_fd(), into),
    ]
}

#[test]
fn close_under_a_reader() {
    compare(|world| {
        for (number, writer) in pairs() {
            let reading = world.spawn(move || text(number));
            world.settle();
            assert_eq!(close(number), good(0));
            world.settle();
            // The waiting call holds on to the file, and gets what comes later.
            assert_eq!(write(writer.as_raw_fd(), b"late"), good(4));
            assert_eq!(reading.join(), (good(4), "late".into()));
            // With the call the last user of the file is gone.
            let peer = writer.as_raw_fd();
            assert!(matches!(
                write(peer, b"x"),
                (-1, libc::EPIPE | libc::ECONNRESET) | (1, _)
            ));
        }
    });
}

#[test]
fn dup2_under_a_reader() {
    compare(|world| {
        for use_dup3 in [false, true] {
            for (number, writer) in pairs() {
                let (out, into) = pipe();
                let source = out.as_raw_fd();
                let reading = world.spawn(move || text(number));
                world.settle();
                let replaced = call(|| unsafe {
                    match use_dup3 {
                        false => libc::dup2(source, number),
                        true => libc::dup3(source, number, libc::O_CLOEXEC),
                    }
                });
                assert_eq!(replaced, good(number as isize));
                // What the number now is has data; the waiting call must not take it.
                assert_eq!(write(into.as_raw_fd(), b"new"), good(3));
                world.settle();
                assert_eq!(write(writer.as_raw_fd(), b"old"), good(3));
                assert_eq!(reading.join(), (good(3), "old".into()));
                assert_eq!(text(number), (good(3), "new".into()));
                assert_eq!(close(number), good(0));
            }
        }
        // The same number twice changes nothing.
        let (number, writer) = pairs().remove(0);
        let reading = world.spawn(move || text(number));
        world.settle();
        assert_eq!(
            call(|| unsafe { libc::dup2(number, number) }),
            good(number as isize)
        );
        assert_eq!(write(writer.as_raw_fd(), b"same"), good(4));
        assert_eq!(reading.join(), (good(4), "same".into()));
        assert_eq!(close(number), good(0));
    });
}

#[test]
fn close_under_a_writer_and_an_accept() {
    compare(|world| {
        for (number, peer) in pairs().into_iter().take(2) {
            let writing = world.spawn(move || write(number, &pattern(8 << 20)));
            world.settle();
            assert_eq!(close(number), good(0));
            let mut received = Vec::new();
            let mut buffer = vec![0; 100_000];
            while let (count @ 1.., _) = read(peer.as_raw_fd(), &mut buffer) {
                received.extend_from_slice(&buffer[..count as usize]);
            }
            assert_eq!(writing.join(), good(8 << 20));
            assert!(received == pattern(8 << 20));
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let number = listener.into_raw_fd();
        let accepting = world.spawn(move || {
            call(|| unsafe { libc::accept(number, ptr::null_mut(), ptr::null_mut()) })
        });
        world.settle();
        assert_eq!(close(number), good(0));
        let client = std::net::TcpStream::connect(address).unwrap();
        let accepted = accepting.join();
        assert!(accepted.0 >= 0 && accepted.1 == UNTOUCHED, "{accepted:?}");
        assert_eq!(close(accepted.0 as RawFd), good(0));
        drop(client);
    });
}

#[test]
fn shutdown_under_a_waiter() {
    compare(|world| {
        let (reader, _writer) = tcp_pair();
        let number = reader.as_raw_fd();
        let reading = world.spawn(move || text(number));
        world.settle();
        assert_eq!(
            call(|| unsafe { libc::shutdown(number, libc::SHUT_RD) }),
            good(0)
        );
        assert_eq!(reading.join(), (good(0), String::new()));

        let (one, other) = local_pair(libc::SOCK_STREAM);
        let number = one.as_raw_fd();
        let reading = world.spawn(move || text(number));
        world.settle();
        assert_eq!(
            call(|| unsafe { libc::shutdown(other.as_raw_fd(), libc::SHUT_WR) }),
            good(0)
        );
        assert_eq!(reading.join(), (good(0), String::new()));

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = listener.as_raw_fd();
        let accepting = world.spawn(move || {
            call(|| unsafe { libc::accept(number, ptr::null_mut(), ptr::null_mut()) })
        });
        world.settle();
        assert_eq!(
            call(|| unsafe { libc::shutdown(number, libc::SHUT_RDWR) }),
            good(0)
        );
        assert_eq!(accepting.join(), bad(libc::EINVAL));
    });
}

#[test]
fn a_number_replaced_between_wake_and_return() {
    // Both orders: which of two woken green threads runs first is the scheduler's affair.
    for replacer_first in [false, true] {
        on_green(move |world| {
            let (victim, victim_writer) = local_pair(libc::SOCK_STREAM);
            let (bell, bell_writer) = pipe();
            let number = victim.into_raw_fd();
            let (out, into) = pipe();
            assert_eq!(write(into.as_raw_fd(), b"stranger's"), good(10));
            let source = out.as_raw_fd();
            let reader = || world.spawn(move || text(number));
            let replacer = || {
                let bell = bell.try_clone().unwrap();
                world.spawn(move || {
                    text(bell.as_raw_fd());
                    unsafe { libc::dup2(source, number) };
                })
            };
            let (reading, replacing) = if replacer_first {
                let replacing = replacer();
                (reader(), replacing)
            } else {
                (reader(), replacer())
            };
            world.settle();
            // One poll finds both: nobody else runs between the two writes.
            let order = [&victim_writer, &bell_writer];
            for writer in order
                .into_iter()
                .cycle()
                .skip(usize::from(replacer_first))
                .take(2)
            {
                assert_eq!(write(writer.as_raw_fd(), b"owner's"), good(7));
            }
            assert_eq!(reading.join(), (good(7), "owner's".into()));
            replacing.join();
            assert_eq!(text(number), (good(10), "stranger's".into()));
            assert_eq!(close(number), good(0));
        });
    }
}

/// Looks at the flags of descriptors on an OS thread until dropped.
struct Watch {
    ends: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<usize>>,
}

impl Watch {
    fn over(numbers: Vec<RawFd>) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let (started, start) = std::sync::mpsc::channel();
        let seen = ends.clone();
        let thread = std::thread::spawn(move || {
            started.send(()).unwrap();
            let mut looks = 0;
            while !seen.load(Ordering::Relaxed) {
                for &number in &numbers {
                    assert_eq!(flags(number) & libc::O_NONBLOCK, 0, "O_NONBLOCK was seen");
                    looks += 1;
                }
            }
            looks
        });
        start.recv().unwrap();
        Watch {
            ends,
            thread: Some(thread),
        }
    }

    fn end(mut self) {
        self.ends.store(true, Ordering::Relaxed);
        assert!(self.thread.take().unwrap().join().unwrap() > 0);
    }
}

#[test]
fn nobody_sees_a_flag_that_the_user_did_not_set() {
    on_green(|world| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (one, other) = tcp_pair();
        let (out, into) = pipe();
        let watch = Watch::over(vec![
            listener.as_raw_fd(),
            one.as_raw_fd(),
            other.as_raw_fd(),
            out.as_raw_fd(),
            into.as_raw_fd(),
        ]);
        let address = listener.local_addr().unwrap();
        let accepting = world.spawn(move || {
            for _ in 0..20 {
                listener.accept().unwrap();
            }
            listener
        });
        let reading = world.spawn(move || {
            let mut buffer = vec![0; 1 << 20];
            while read(out.as_raw_fd(), &mut buffer).0 > 0 {}
            out
        });
        let receiving = world.spawn(move || {
            let mut buffer = vec![0; 1 << 20];
            while recv(one.as_raw_fd(), &mut buffer, 0).0 > 0 {}
            one
        });
        for _ in 0..20 {
            drop(std::net::TcpStream::connect(address).unwrap());
            assert_eq!(write(into.as_raw_fd(), &[0; 200_000]), good(200_000));
            assert_eq!(send(other.as_raw_fd(), &[0; 200_000], 0), good(200_000));
        }
        watch.end();
        drop((into, other));
        drop((accepting.join(), reading.join(), receiving.join()));
    });
}

#[test]
fn a_forked_child_passes_through() {
    on_green(|_| {
        let (out, into) = pipe();
        let child = unsafe { libc::fork() };
        if child == 0 {
            // No other thread is here: a read that parked would wait for ever.
            let mut byte = [0_u8; 1];
            unsafe {
                libc::close(into.as_raw_fd());
                libc::usleep(1);
                libc::sched_yield();
                let got = libc::read(out.as_raw_fd(), byte.as_mut_ptr().cast(), 1);
                libc::_exit(if got == 0 { 7 } else { 8 });
            }
        }
        assert!(child > 0);
        drop(into);
        let mut status = 0;
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(
            (libc::WIFEXITED(status), libc::WEXITSTATUS(status)),
            (true, 7)
        );
    });
}
