//! What the user set on a socket holds: time-outs end a wait with the right error and never early,
//! and a socket made non-blocking does not block.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use crate::support::{CROWD, crowd, on_workers};

/// A time-out of its own for each green thread, so that they do not all fire in the same instant.
fn time_out(number: usize) -> Duration {
    Duration::from_millis(20 + (number % 50) as u64)
}

/// Runs `wait`, which must fail as time-outs on Unix do, and not before `least`.
fn times_out<T>(least: Duration, wait: impl FnOnce() -> std::io::Result<T>) {
    let begun = Instant::now();
    let error = wait().err().expect("a time-out");
    let took = begun.elapsed();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    assert!(took >= least, "timed out after {took:?}, not {least:?}");
}

#[test]
fn reads_time_out_and_then_go_on() {
    on_workers("reads_time_out_and_then_go_on", || {
        crowd(CROWD, |number| {
            let (mut stream, mut peer) = UnixStream::pair().expect("socket pair");
            let least = time_out(number);
            stream
                .set_read_timeout(Some(least))
                .expect("set the time-out");
            times_out(least, || stream.read(&mut [0; 8]));
            // A second time-out, because some have fired only once.
            times_out(least, || stream.read(&mut [0; 8]));

            peer.write_all(b"late").expect("write");
            let mut buffer = [0; 4];
            stream
                .read_exact(&mut buffer)
                .expect("read after time-outs");
            assert_eq!(&buffer, b"late");

            // Without the time-out the same socket waits for as long as it takes.
            stream.set_read_timeout(None).expect("clear the time-out");
            let writer = sward::spawn(move || {
                std::thread::sleep(2 * least);
                peer.write_all(b"last").expect("write");
            });
            stream
                .read_exact(&mut buffer)
                .expect("read without a time-out");
            assert_eq!(&buffer, b"last");
            writer.join().expect("the writer");
        });
    });
}

#[test]
fn writes_time_out_when_nobody_reads() {
    on_workers("writes_time_out_when_nobody_reads", || {
        crowd(CROWD, |number| {
            let (mut stream, mut peer) = UnixStream::pair().expect("socket pair");
            let least = time_out(number);
            stream
                .set_write_timeout(Some(least))
                .expect("set the time-out");
            let chunk = [number as u8; 16 * 1024];
            let mut sent = 0;
            let error = loop {
                let begun = Instant::now();
                match stream.write(&chunk) {
                    Ok(length) => sent += length,
                    Err(error) => {
                        let took = begun.elapsed();
                        assert!(took >= least, "timed out after {took:?}, not {least:?}");
                        break error;
                    }
                }
            };
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");

            // What was reported as sent, and no more, is there.
            drop(stream);
            let mut received = Vec::new();
            peer.read_to_end(&mut received).expect("read");
            assert_eq!(received.len(), sent);
            assert!(received.iter().all(|&byte| byte == number as u8));
        });
    });
}

#[test]
fn datagrams_time_out() {
    on_workers("datagrams_time_out", || {
        crowd(CROWD, |number| {
            let least = time_out(number);
            let udp = UdpSocket::bind("127.0.0.1:0").expect("bind");
            udp.set_read_timeout(Some(least)).expect("set the time-out");
            times_out(least, || udp.recv_from(&mut [0; 8]));

            let (left, _right) = UnixDatagram::pair().expect("socket pair");
            left.set_read_timeout(Some(least))
                .expect("set the time-out");
            times_out(least, || left.recv(&mut [0; 8]));
        });
    });
}

/// Data that comes in time beats the time-out.
#[test]
fn a_generous_time_out_does_not_fire() {
    on_workers("a_generous_time_out_does_not_fire", || {
        crowd(CROWD, |number| {
            let (mut stream, mut peer) = UnixStream::pair().expect("socket pair");
            let generous = Some(Duration::from_secs(3600));
            stream.set_read_timeout(generous).expect("set the time-out");
            let writer = sward::spawn(move || {
                for round in 0..5 {
                    std::thread::sleep(Duration::from_millis(1 + (number % 3) as u64));
                    peer.write_all(&[round]).expect("write");
                }
            });
            for round in 0..5 {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("read");
                assert_eq!(byte[0], round);
            }
            writer.join().expect("the writer");
        });
    });
}

/// Were one of these to park, nobody would wake it: the case would hang.
#[test]
fn non_blocking_sockets_do_not_wait() {
    fn would_block<T>(outcome: std::io::Result<T>) {
        let error = outcome.err().expect("nothing is there");
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    }
    on_workers("non_blocking_sockets_do_not_wait", || {
        crowd(CROWD, |_| {
            let (mut stream, mut peer) = UnixStream::pair().expect("socket pair");
            stream.set_nonblocking(true).expect("make non-blocking");
            would_block(stream.read(&mut [0; 8]));
            let full = loop {
                if let Err(error) = stream.write(&[0; 16 * 1024]) {
                    break error;
                }
            };
            would_block::<()>(Err(full));
            peer.write_all(b"here").expect("write");
            let mut buffer = [0; 4];
            stream.read_exact(&mut buffer).expect("read what is there");
            assert_eq!(&buffer, b"here");

            let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
            listener.set_nonblocking(true).expect("make non-blocking");
            would_block(listener.accept());

            let udp = UdpSocket::bind("127.0.0.1:0").expect("bind");
            udp.set_nonblocking(true).expect("make non-blocking");
            would_block(udp.recv(&mut [0; 8]));

            // Made blocking again, it waits again.
            stream.set_nonblocking(false).expect("make blocking");
            let writer = sward::spawn(move || {
                std::thread::sleep(Duration::from_millis(5));
                peer.write_all(b"then").expect("write");
            });
            stream.read_exact(&mut buffer).expect("wait");
            assert_eq!(&buffer, b"then");
            writer.join().expect("the writer");
        });
    });
}

/// While a green thread waits on it, a socket looks to the user as it did before: blocking.
#[test]
fn waiting_leaves_the_socket_blocking() {
    fn is_blocking(socket: BorrowedFd<'_>) -> bool {
        // SAFETY: asks for the flags of a descriptor that is borrowed for the call.
        let flags = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_GETFL) };
        assert!(flags >= 0, "{}", std::io::Error::last_os_error());
        flags & libc::O_NONBLOCK == 0
    }
    on_workers("waiting_leaves_the_socket_blocking", || {
        crowd(CROWD, |_| {
            let (mut stream, mut peer) = UnixStream::pair().expect("socket pair");
            let twin = stream.try_clone().expect("clone");
            let reader = sward::spawn(move || {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("read");
            });
            for _ in 0..5 {
                assert!(is_blocking(twin.as_fd()));
                std::thread::sleep(Duration::from_millis(1));
            }
            peer.write_all(&[1]).expect("write");
            reader.join().expect("the reader");
            assert!(is_blocking(twin.as_fd()));
        });
    });
}
