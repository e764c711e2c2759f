//! Calls that fail at once, or have nothing to do, fail and succeed alike.

use crate::world::*;
use libc::{EAGAIN, EBADF, EFAULT, EINVAL, EMSGSIZE, ENOTCONN, ENOTSOCK, EPIPE};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

/// A number that no process has open.
const CLOSED: RawFd = 1 << 22;

/// Every data call on `descriptor`.
fn all_calls(descriptor: RawFd) -> Vec<Seen> {
    let mut buffer = [0; 4];
    let parts = [b"abcd".to_vec()];
    let mut vectors = vectors_of(&parts);
    let mut message = message(&mut vectors, &mut []);
    let flags = libc::MSG_NOSIGNAL;
    vec![
        recv(descriptor, &mut buffer, 0),
        call(|| unsafe { libc::recvmsg(descriptor, &mut message, 0) }),
        send(descriptor, b"abcd", flags),
        call(|| unsafe { libc::sendmsg(descriptor, &message, flags) }),
        call(|| unsafe { libc::accept(descriptor, ptr::null_mut(), ptr::null_mut()) }),
        call(|| unsafe { libc::accept4(descriptor, ptr::null_mut(), ptr::null_mut(), -1) }),
        call(|| unsafe { libc::shutdown(descriptor, libc::SHUT_RD) }),
        call(|| unsafe { libc::connect(descriptor, ptr::null(), 0) }),
    ]
}

#[test]
fn bad_descriptors() {
    compare(|_| {
        for number in [-1, CLOSED] {
            for seen in all_calls(number) {
                assert_eq!(seen, bad(EBADF));
            }
            assert_eq!(read(number, &mut [0; 4]), bad(EBADF));
            assert_eq!(read(number, &mut []), bad(EBADF));
            assert_eq!(write(number, b"abcd"), bad(EBADF));
            assert_eq!(write(number, b""), bad(EBADF));
            assert_eq!(call(|| unsafe { libc::close(number) }), bad(EBADF));
            assert_eq!(call(|| unsafe { libc::dup2(number, 5) }), bad(EBADF));
            assert_eq!(call(|| unsafe { libc::dup3(5, 5, 0) }), bad(EINVAL));
        }
        let (reader, writer) = pipe();
        assert_eq!(write(reader.as_raw_fd(), b"abcd"), bad(EBADF));
        assert_eq!(read(writer.as_raw_fd(), &mut [0; 4]), bad(EBADF));
    });
}

#[test]
fn what_is_no_socket_or_not_connected() {
    compare(|_| {
        let (reader, _writer) = pipe();
        let on_pipe = all_calls(reader.as_raw_fd());
        for (index, &seen) in on_pipe.iter().enumerate() {
            // accept4 looks at its flags before it looks at what the descriptor is.
            let number = if index == 5 { EINVAL } else { ENOTSOCK };
            assert_eq!(seen, bad(number), "call {index}");
        }
        let stream = socket(libc::AF_INET, libc::SOCK_STREAM);
        let on_stream = all_calls(stream.as_raw_fd());
        assert_eq!(on_stream[0], bad(ENOTCONN));
        assert_eq!(on_stream[2], bad(EPIPE));
        assert_eq!(on_stream[4], bad(EINVAL));
        let datagrams = socket(libc::AF_INET, libc::SOCK_DGRAM);
        let accepted =
            unsafe { libc::accept(datagrams.as_raw_fd(), ptr::null_mut(), ptr::null_mut()) };
        assert_eq!((accepted, errno()), (-1, libc::EOPNOTSUPP));
        // Connected, and with nothing to read: accept must not wait for data.
        let (one, _other) = tcp_pair();
        let no_listener =
            call(|| unsafe { libc::accept(one.as_raw_fd(), ptr::null_mut(), ptr::null_mut()) });
        assert_eq!(no_listener, bad(EINVAL));
        (on_pipe, on_stream)
    });
}

#[test]
fn bad_pointers_and_counts() {
    compare(|_| {
        let nowhere: *mut libc::c_void = ptr::without_provenance_mut(8);
        let (one, other) = local_pair(libc::SOCK_STREAM);
        let (one, other) = (one.as_raw_fd(), other.as_raw_fd());
        let (pipe_out, pipe_in) = pipe();
        let (pipe_out, pipe_in) = (pipe_out.as_raw_fd(), pipe_in.as_raw_fd());
        for target in [other, pipe_in] {
            assert_eq!(write(target, b"data"), good(4));
            assert_eq!(
                call(|| unsafe { libc::write(target, nowhere, 4) }),
                bad(EFAULT)
            );
            let array = nowhere.cast();
            assert_eq!(
                call(|| unsafe { libc::writev(target, array, 1) }),
                bad(EFAULT)
            );
        }
        for source in [one, pipe_out] {
            assert_eq!(
                call(|| unsafe { libc::read(source, nowhere, 4) }),
                bad(EFAULT)
            );
            let array = nowhere.cast();
            assert_eq!(
                call(|| unsafe { libc::readv(source, array, 1) }),
                bad(EFAULT)
            );
            let parts = vec![vec![0_u8; 1]; 1025];
            let many = vectors_of(&parts);
            for (count, answer) in [(-1, bad(EINVAL)), (0, good(0)), (1025, bad(EINVAL))] {
                let array = many.as_ptr();
                assert_eq!(
                    call(|| unsafe { libc::readv(source, array, count) }),
                    answer
                );
            }
        }
        assert_eq!(
            call(|| unsafe { libc::recv(one, nowhere, 4, 0) }),
            bad(EFAULT)
        );
        assert_eq!(
            call(|| unsafe { libc::recvmsg(one, ptr::null_mut(), 0) }),
            bad(EFAULT)
        );
        let waits_for_all = libc::MSG_WAITALL;
        assert_eq!(
            call(|| unsafe { libc::recvmsg(one, ptr::null_mut(), waits_for_all) }),
            bad(EFAULT)
        );
        assert_eq!(
            call(|| unsafe { libc::sendmsg(one, ptr::null(), 0) }),
            bad(EFAULT)
        );
        assert_eq!(
            call(|| unsafe { libc::poll(nowhere.cast(), 1, -1) }),
            bad(EFAULT)
        );
        let parts = vec![vec![0_u8; 1]; 1025];
        let mut many = vectors_of(&parts);
        let message = message(&mut many, &mut []);
        assert_eq!(
            call(|| unsafe { libc::sendmsg(one, &message, 0) }),
            bad(EMSGSIZE)
        );
    });
}

#[test]
fn nothing_to_move() {
    compare(|_| {
        let (one, other) = local_pair(libc::SOCK_STREAM);
        let (out, into) = pipe();
        for (reader, writer) in [(&one, &other), (&out, &into)] {
            // None of these waits, though there is nothing to read.
            assert_eq!(read(reader.as_raw_fd(), &mut []), good(0));
            assert_eq!(write(writer.as_raw_fd(), b""), good(0));
            let parts = [vec![], vec![]];
            let empty = vectors_of(&parts);
            let (array, count) = (empty.as_ptr(), 2);
            assert_eq!(
                call(|| unsafe { libc::readv(reader.as_raw_fd(), array, count) }),
                good(0)
            );
            assert_eq!(
                call(|| unsafe { libc::writev(writer.as_raw_fd(), array, count) }),
                good(0)
            );
        }
        // An empty datagram is a datagram.
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        for bytes in [&b""[..], b"two"] {
            assert_eq!(
                send(sender.as_raw_fd(), bytes, 0),
                good(bytes.len() as isize)
            );
        }
        assert_eq!(read(receiver.as_raw_fd(), &mut []), good(0));
        let mut buffer = [0; 8];
        assert_eq!(recv(receiver.as_raw_fd(), &mut buffer, 0), good(0));
        assert_eq!(recv(receiver.as_raw_fd(), &mut buffer, 0), good(3));
    });
}

#[test]
fn what_the_user_made_non_blocking() {
    compare(|_| {
        let mut buffer = [0; 8];
        let (one, other) = tcp_pair();
        let number = one.as_raw_fd();
        assert_eq!(recv(number, &mut buffer, libc::MSG_DONTWAIT), bad(EAGAIN));
        make_non_blocking(number);
        let before = flags(number);
        assert_eq!(recv(number, &mut buffer, 0), bad(EAGAIN));
        assert_eq!(recv(number, &mut buffer, libc::MSG_WAITALL), bad(EAGAIN));
        assert_eq!(
            recv(number, &mut buffer, libc::MSG_PEEK | libc::MSG_WAITALL),
            bad(EAGAIN)
        );
        assert_eq!(read(number, &mut buffer), bad(EAGAIN));
        let parts = [vec![0; 4], vec![0; 4]];
        let mut vectors = vectors_of(&parts);
        let (array, count) = (vectors.as_ptr(), 2);
        assert_eq!(
            call(|| unsafe { libc::readv(number, array, count) }),
            bad(EAGAIN)
        );
        let mut header = message(&mut vectors, &mut []);
        assert_eq!(
            call(|| unsafe { libc::recvmsg(number, &mut header, 0) }),
            bad(EAGAIN)
        );
        // Part of what was asked for is there: that is what comes.
        assert_eq!(send(other.as_raw_fd(), b"abc", 0), good(3));
        assert_eq!(recv(number, &mut buffer, libc::MSG_WAITALL), good(3));
        let chunk = vec![0; 1 << 20];
        while write(number, &chunk).0 > 0 {}
        assert_eq!(write(number, &chunk), bad(EAGAIN));
        assert_eq!(send(number, &chunk, 0), bad(EAGAIN));
        assert_eq!(flags(number), before);

        let (out, into) = pipe();
        make_non_blocking(out.as_raw_fd());
        make_non_blocking(into.as_raw_fd());
        assert_eq!(read(out.as_raw_fd(), &mut buffer), bad(EAGAIN));
        assert_eq!(write(into.as_raw_fd(), &chunk), good(65_536));
        assert_eq!(write(into.as_raw_fd(), &chunk), bad(EAGAIN));

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        make_non_blocking(listener.as_raw_fd());
        let accepted = call(|| unsafe {
            libc::accept(listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut())
        });
        assert_eq!(accepted, bad(EAGAIN));
    });
}
