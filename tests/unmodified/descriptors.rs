//! Descriptors that change under a waiter: closed, replaced, their number given to another file.
//!
//! What is expected is what an OS thread sees on Linux: a call that waits keeps the *file* it was
//! made for, whatever happens to the number.

use std::fs::File;
use std::io::{PipeReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{CROWD, crowd, is_child, on_workers, passes_in_child};

/// Long enough for a green thread to get from one line to the next. Should it not be, a reader
/// comes too late, which each case below allows for, as long as not all do.
const WHILE: Duration = Duration::from_millis(30);

/// `read`, as C programs do it, which do not mind whether the descriptor is still theirs.
fn raw_read(descriptor: RawFd) -> std::io::Result<Vec<u8>> {
    let mut buffer = [0; 16];
    // SAFETY: the buffer is as long as said; reading from any descriptor is sound here, because all
    // that were ever open under these numbers are sockets and pipes of this very case.
    let length = unsafe { libc::read(descriptor, buffer.as_mut_ptr().cast(), buffer.len()) };
    match usize::try_from(length) {
        Ok(length) => Ok(buffer[..length].to_vec()),
        Err(_) => Err(std::io::Error::last_os_error()),
    }
}

/// Starts one reader for each descriptor, and returns when they wait.
fn start_readers(descriptors: &[RawFd]) -> Vec<sward::JoinHandle<std::io::Result<Vec<u8>>>> {
    let begun = Arc::new(AtomicUsize::new(0));
    let spawn_reader = |&descriptor: &RawFd| {
        let begun = Arc::clone(&begun);
        sward::spawn(move || {
            begun.fetch_add(1, Ordering::SeqCst);
            raw_read(descriptor)
        })
    };
    let readers = descriptors.iter().map(spawn_reader).collect();
    while begun.load(Ordering::SeqCst) < descriptors.len() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(WHILE);
    readers
}

/// The reader goes on waiting and gets what the peer sends later.
///
/// In a process of its own: a closed number is free for anyone, also for a test beside this one.
#[test]
fn close_under_a_waiting_reader() {
    const NAME: &str = "descriptors::close_under_a_waiting_reader";
    if !is_child() {
        passes_in_child(NAME);
        return;
    }
    on_workers(NAME, || {
        let pairs = (0..CROWD).map(|_| UnixStream::pair().expect("socket pair"));
        let (ours, peers): (Vec<_>, Vec<_>) = pairs.unzip();
        let ours: Vec<RawFd> = ours.into_iter().map(IntoRawFd::into_raw_fd).collect();
        let readers = start_readers(&ours);
        for descriptor in ours {
            // SAFETY: `into_raw_fd` made it ours to close; the readers only borrow the number.
            let closed = unsafe { libc::close(descriptor) };
            assert_eq!(closed, 0);
        }
        let mut got_it = 0;
        for (mut peer, reader) in peers.into_iter().zip(readers) {
            // If the reader came too late nobody is there to read this.
            let _ = peer.write_all(b"late");
            match reader.join().expect("the reader") {
                Ok(bytes) => {
                    assert_eq!(bytes, b"late");
                    got_it += 1;
                }
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EBADF)),
            }
        }
        assert!(
            got_it > CROWD / 2,
            "only {got_it} of {CROWD} went on waiting"
        );
    });
}

/// `dup2` puts another file under the number; the reader stays with the old one.
#[test]
fn dup2_over_a_waiting_reader() {
    on_workers("dup2_over_a_waiting_reader", || {
        let pairs = (0..CROWD).map(|_| UnixStream::pair().expect("socket pair"));
        let (ours, peers): (Vec<_>, Vec<_>) = pairs.unzip();
        let numbers: Vec<RawFd> = ours.iter().map(AsRawFd::as_raw_fd).collect();
        let readers = start_readers(&numbers);

        let pairs = (0..CROWD).map(|_| UnixStream::pair().expect("socket pair"));
        let (others, mut other_peers): (Vec<_>, Vec<_>) = pairs.unzip();
        for (our, other) in ours.iter().zip(&others) {
            // SAFETY: both are open and owned here; `our` stays open, as another socket.
            let number = unsafe { libc::dup2(other.as_raw_fd(), our.as_raw_fd()) };
            assert_eq!(number, our.as_raw_fd());
        }
        let mut stayed = 0;
        for (index, (mut peer, reader)) in peers.into_iter().zip(readers).enumerate() {
            let _ = peer.write_all(b"old");
            // For a reader that came too late and waits on the new file.
            other_peers[index].write_all(b"new").expect("write");
            let bytes = reader.join().expect("the reader").expect("read");
            assert!(bytes == b"old" || bytes == b"new", "{bytes:?}");
            stayed += usize::from(bytes == b"old");
        }
        assert!(
            stayed > CROWD / 2,
            "only {stayed} of {CROWD} stayed with their file"
        );
    });
}

/// Wait on a descriptor, so that whoever watches descriptors knows it; close it; open another kind
/// of file, which mostly gets the same number; and wait on that.
#[test]
fn a_number_used_again() {
    on_workers("a_number_used_again", || {
        let reused: usize = crowd(20, |number| {
            let mut reused = 0;
            for round in 0..50 {
                let (socket, mut socket_peer) = UnixStream::pair().expect("socket pair");
                let socket_number = socket.as_raw_fd();
                let byte = (number + round) as u8;
                assert_eq!(send_while_waiting(socket, &mut socket_peer, byte), byte);

                let (pipe, mut pipe_writer) = std::io::pipe().expect("pipe");
                reused += usize::from(pipe.as_raw_fd() == socket_number);
                // What came for the old owner of the number must not reach the new one.
                let _ = socket_peer.write_all(&[!byte]);
                assert_eq!(send_while_waiting(pipe, &mut pipe_writer, byte), byte);
            }
            reused
        })
        .into_iter()
        .sum();
        assert!(
            reused > 0,
            "no number was ever used again: nothing was tested"
        );
    });
}

/// Lets a green thread wait on `reader`, then writes one byte. Returns the byte that arrived.
fn send_while_waiting(
    mut reader: impl Read + Send + 'static,
    writer: &mut impl Write,
    byte: u8,
) -> u8 {
    let waiting = sward::spawn(move || {
        let mut buffer = [0];
        reader.read_exact(&mut buffer).expect("read");
        buffer[0]
    });
    std::thread::yield_now();
    writer.write_all(&[byte]).expect("write");
    waiting.join().expect("the reader")
}

/// The hard case of a number used again: a twin keeps the old *file* open, so that the kernel goes
/// on reporting its events, under the number that now belongs to another.
#[test]
fn events_of_a_twin_do_not_reach_the_next_owner() {
    on_workers("events_of_a_twin_do_not_reach_the_next_owner", || {
        crowd(20, |_| {
            for _ in 0..20 {
                // Make the number known, then free it while the twin keeps the file.
                let (first, mut first_peer) = UnixStream::pair().expect("socket pair");
                let mut twin = first.try_clone().expect("clone");
                assert_eq!(send_while_waiting(first, &mut first_peer, 1), 1);

                let (second, mut second_peer) = UnixStream::pair().expect("socket pair");
                let mut watcher = second.try_clone().expect("clone");
                let waiting = sward::spawn(move || {
                    let mut byte = [0];
                    (&second).read_exact(&mut byte).expect("read");
                    byte[0]
                });
                std::thread::yield_now();
                // An event for the old file: at most a wake-up without cause for the new one.
                first_peer.write_all(&[2]).expect("write");
                std::thread::yield_now();
                second_peer.write_all(&[3]).expect("write");
                assert_eq!(waiting.join().expect("the reader"), 3);

                // The old file still works, and under its own name waits again.
                let mut byte = [0];
                twin.read_exact(&mut byte).expect("read");
                assert_eq!(byte[0], 2);
                second_peer.write_all(&[4]).expect("write");
                watcher.read_exact(&mut byte).expect("read");
                assert_eq!(byte[0], 4);
            }
        });
    });
}

/// A clone dropped under a reader that waits on the other descriptor of the same file.
#[test]
fn a_clone_dropped_beside_a_waiting_reader() {
    on_workers("a_clone_dropped_beside_a_waiting_reader", || {
        crowd(CROWD, |number| {
            let (stream, mut peer) = UnixStream::pair().expect("socket pair");
            let clone = OwnedFd::from(stream.try_clone().expect("clone"));
            let mut stream = stream;
            let waiting = sward::spawn(move || {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("read");
                byte[0]
            });
            std::thread::yield_now();
            drop(clone);
            peer.write_all(&[number as u8]).expect("write");
            assert_eq!(waiting.join().expect("the reader"), number as u8);
        });
    });
}

/// Regular files cannot be waited for; reading them from many green threads just works.
#[test]
fn regular_files() {
    on_workers("regular_files", || {
        let path = std::env::current_exe().expect("a file that exists");
        let size = std::fs::metadata(&path).expect("metadata").len();
        crowd(20, move |_| {
            let mut file = File::open(&path).expect("open");
            let length = std::io::copy(&mut file, &mut std::io::sink()).expect("read");
            assert_eq!(length, size);
        });
    });
}

/// Many readers of one pipe: each byte goes to exactly one of them.
#[test]
fn many_readers_of_one_pipe() {
    on_workers("many_readers_of_one_pipe", || {
        let (reader, mut writer) = std::io::pipe().expect("pipe");
        let reader: Arc<PipeReader> = Arc::new(reader);
        let readers: Vec<_> = (0..CROWD)
            .map(|_| {
                let reader = Arc::clone(&reader);
                sward::spawn(move || {
                    let mut byte = [0];
                    (&*reader).read_exact(&mut byte).expect("read");
                    usize::from(byte[0])
                })
            })
            .collect();
        for number in 0..CROWD {
            writer.write_all(&[number as u8]).expect("write");
            if number % 10 == 0 {
                std::thread::yield_now();
            }
        }
        let sum: usize = sward::joinall(readers)
            .into_iter()
            .map(|byte| byte.expect("a reader"))
            .sum();
        assert_eq!(sum, (0..CROWD).sum());
    });
}

/// A descriptor handed on by its bare number to a green thread that makes a `File` of it.
#[test]
fn a_descriptor_adopted_by_number() {
    on_workers("a_descriptor_adopted_by_number", || {
        crowd(CROWD, |number| {
            let (reader, mut writer) = std::io::pipe().expect("pipe");
            let raw = reader.into_raw_fd();
            let adopting = sward::spawn(move || {
                // SAFETY: `into_raw_fd` gave the descriptor up, this green thread alone takes it.
                let mut file = unsafe { File::from_raw_fd(raw) };
                let mut text = String::new();
                file.read_to_string(&mut text).expect("read");
                text
            });
            write!(writer, "number {number}").expect("write");
            drop(writer);
            assert_eq!(
                adopting.join().expect("the adopter"),
                format!("number {number}")
            );
        });
    });
}
