//! Data arrives whole, in order, and in the counts that blocking calls have.

use crate::world::*;
use libc::{MSG_PEEK, MSG_TRUNC, MSG_WAITALL};
use std::net::{Shutdown, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// More than any socket or pipe buffers.
const MUCH: usize = 8 << 20;

/// Reads until the end.
fn read_all(source: RawFd) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 100_000];
    loop {
        match read(source, &mut buffer) {
            (0, UNTOUCHED) => return all,
            (count @ 1.., UNTOUCHED) => all.extend_from_slice(&buffer[..count as usize]),
            failed => panic!("{failed:?}"),
        }
    }
}

/// Every kind of channel, as the end to read from and the end to write to.
fn channels() -> Vec<(OwnedFd, OwnedFd)> {
    let (reader, writer) = tcp_pair();
    vec![
        (reader.into(), writer.into()),
        local_pair(libc::SOCK_STREAM),
        pipe(),
    ]
}

/// Sends `MUCH` bytes with one call that says what it did, while a peer reads.
fn sends_all(makes: impl Fn(RawFd, &[u8], bool) -> Seen + Copy + Send + 'static) -> Vec<Seen> {
    compare(move |world| {
        let mut results = Vec::new();
        for (reader, writer) in channels() {
            let is_socket = {
                let mut length = 0;
                let asked = unsafe {
                    libc::getsockname(writer.as_raw_fd(), std::ptr::null_mut(), &mut length)
                };
                asked == 0 || errno() != libc::ENOTSOCK
            };
            let all = pattern(MUCH);
            let reading = world.spawn(move || read_all(reader.as_raw_fd()));
            results.push(makes(writer.as_raw_fd(), &all, is_socket));
            drop(writer);
            assert!(reading.join() == all, "the data has changed");
        }
        results
    })
}

#[test]
fn a_write_is_complete() {
    let results = sends_all(|writer, all, _| write(writer, all));
    assert_eq!(results, [good(MUCH as isize); 3]);
}

#[test]
fn a_send_is_complete() {
    let results = sends_all(|writer, all, is_socket| match is_socket {
        true => send(writer, all, 0),
        false => write(writer, all),
    });
    assert_eq!(results, [good(MUCH as isize); 3]);
}

/// `all` in 1,024 parts of very different lengths, some empty.
fn parts_of(all: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    let mut rest = all;
    for index in 0..1023 {
        let length = [0, 1, 7, 4096, 20_000][index % 5];
        let (part, behind) = rest.split_at(length);
        parts.push(part.to_vec());
        rest = behind;
    }
    parts.push(rest.to_vec());
    parts
}

#[test]
fn gathered_writes_are_complete_and_leave_the_array() {
    let results = sends_all(|writer, all, is_socket| {
        let parts = parts_of(all);
        let mut vectors = vectors_of(&parts);
        let before: Vec<_> = vectors
            .iter()
            .map(|entry| (entry.iov_base, entry.iov_len))
            .collect();
        let seen = if is_socket {
            let header = message(&mut vectors, &mut []);
            call(|| unsafe { libc::sendmsg(writer, &header, 0) })
        } else {
            call(|| unsafe { libc::writev(writer, vectors.as_ptr(), 1024) })
        };
        let after: Vec<_> = vectors
            .iter()
            .map(|entry| (entry.iov_base, entry.iov_len))
            .collect();
        assert_eq!(before, after);
        seen
    });
    assert_eq!(results, [good(MUCH as isize); 3]);
    let results = sends_all(|writer, all, _| {
        let parts = parts_of(all);
        let vectors = vectors_of(&parts);
        call(|| unsafe { libc::writev(writer, vectors.as_ptr(), 1024) })
    });
    assert_eq!(results, [good(MUCH as isize); 3]);
}

#[test]
fn small_pipe_writes_stay_whole() {
    compare(|world| {
        const WRITERS: u8 = 4;
        let (reader, writer) = pipe();
        let writers: Vec<_> = (0..WRITERS)
            .map(|name| {
                let writer = writer.try_clone().unwrap();
                world.spawn(move || {
                    for _ in 0..50 {
                        let record = [name; libc::PIPE_BUF];
                        assert_eq!(write(writer.as_raw_fd(), &record), good(4096));
                    }
                })
            })
            .collect();
        drop(writer);
        world.settle();
        let all = read_all(reader.as_raw_fd());
        writers.into_iter().for_each(Peer::join);
        assert_eq!(all.len(), usize::from(WRITERS) * 50 * libc::PIPE_BUF);
        for record in all.chunks(libc::PIPE_BUF) {
            assert!(
                record.iter().all(|&byte| byte == record[0]),
                "a record is torn"
            );
        }
    });
}

#[test]
fn receiving_waits_and_gives_what_is_there() {
    compare(|world| {
        for (reader, writer) in channels() {
            let reading = world.spawn(move || (text(reader.as_raw_fd()), text(reader.as_raw_fd())));
            world.settle();
            assert_eq!(write(writer.as_raw_fd(), b"hello"), good(5));
            world.settle();
            drop(writer);
            let (first, second) = reading.join();
            assert_eq!(first, (good(5), "hello".into()));
            assert_eq!(second, (good(0), String::new()));
        }
    });
}

#[test]
fn peek_and_wait_for_all() {
    compare(|world| {
        let mut seen = Vec::new();
        for flags in [MSG_WAITALL, MSG_WAITALL | MSG_PEEK] {
            for is_local in [true, false] {
                let (reader, writer): (OwnedFd, OwnedFd) = if is_local {
                    local_pair(libc::SOCK_STREAM)
                } else {
                    let (reader, writer) = tcp_pair();
                    (reader.into(), writer.into())
                };
                let reading = world.spawn(move || {
                    let mut buffer = [0; 6];
                    let first = recv(reader.as_raw_fd(), &mut buffer, flags);
                    let second = recv(reader.as_raw_fd(), &mut [0; 64], 0);
                    (first, buffer, second, reader)
                });
                for part in [b"ab", b"cd", b"ef", b"gh"] {
                    world.settle();
                    assert_eq!(send(writer.as_raw_fd(), part, 0), good(2));
                }
                let (first, buffer, second, reader) = reading.join();
                // Linux gives what one look shows when peeking on AF_UNIX.
                if !(is_local && flags & MSG_PEEK != 0) {
                    assert_eq!((first, &buffer), (good(6), b"abcdef"));
                }
                seen.push((first, buffer, second));
                if flags & MSG_PEEK == 0 {
                    // The peer's end comes before the buffer is full.
                    let reading =
                        world.spawn(move || recv(reader.as_raw_fd(), &mut [0; 100], flags));
                    world.settle();
                    assert_eq!(send(writer.as_raw_fd(), b"xyz", 0), good(3));
                    world.settle();
                    drop(writer);
                    seen.push((reading.join(), buffer, second));
                }
            }
        }
        // What is peeked at is still there.
        let (reader, writer) = tcp_pair();
        let peeking = world.spawn(move || {
            let number = reader.as_raw_fd();
            (
                recv(number, &mut [0; 8], MSG_PEEK),
                recv(number, &mut [0; 8], 0),
            )
        });
        world.settle();
        assert_eq!(send(writer.as_raw_fd(), b"data", 0), good(4));
        assert_eq!(peeking.join(), (good(4), good(4)));
        let _ = writer.shutdown(Shutdown::Both);
        // The second receive after a full first depends on how the kernel glued the parts.
        seen.into_iter()
            .map(|(first, buffer, _)| (first, buffer))
            .collect::<Vec<_>>()
    });
}

#[test]
fn scattered_receives_wait_for_all() {
    compare(|world| {
        let (reader, writer) = tcp_pair();
        let reading = world.spawn(move || {
            let parts = parts_of(&pattern(MUCH));
            let mut vectors = vectors_of(&parts);
            let mut header = message(&mut vectors, &mut []);
            let got =
                call(|| unsafe { libc::recvmsg(reader.as_raw_fd(), &mut header, MSG_WAITALL) });
            (got, header.msg_flags, parts.concat())
        });
        let all: Vec<_> = pattern(MUCH).into_iter().rev().collect();
        assert_eq!(send(writer.as_raw_fd(), &all, 0), good(MUCH as isize));
        let (got, flags, data) = reading.join();
        assert_eq!((got, flags), (good(MUCH as isize), 0));
        assert!(data == all);
    });
}

#[test]
fn datagrams_are_whole_or_cut() {
    compare(|world| {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        let from = sender.local_addr().unwrap();
        let receiving = world.spawn(move || {
            let number = receiver.as_raw_fd();
            let mut buffer = [0; 4];
            let cut = recv(number, &mut buffer, 0);
            let real_length = recv(number, &mut buffer, MSG_TRUNC);
            let for_all = recv(number, &mut [0; 64], MSG_WAITALL);
            let (count, address) = receiver.recv_from(&mut buffer).unwrap();
            (cut, real_length, for_all, count, address == from)
        });
        for bytes in [&b"0123456789"[..], b"0123456789", b"short", b"last"] {
            world.settle();
            assert_eq!(
                send(sender.as_raw_fd(), bytes, 0),
                good(bytes.len() as isize)
            );
        }
        assert_eq!(receiving.join(), (good(4), good(10), good(5), 4, true));
    });
}

#[test]
fn local_datagrams_wait_for_room() {
    compare(|world| {
        // To a peer that it is connected to, and to one that it is not: only the first has an event.
        for is_connected in [true, false] {
            let receiver = std::os::unix::net::UnixDatagram::unbound().unwrap();
            let name = format!(
                "\0sward-{}-{}-{is_connected}",
                std::process::id(),
                world.is_green
            );
            let address = local_address(&name);
            let length = (size_of::<libc::sa_family_t>() + name.len()) as u32;
            let bound =
                unsafe { libc::bind(receiver.as_raw_fd(), (&raw const address).cast(), length) };
            assert_eq!(bound, 0);
            let sender = socket(libc::AF_UNIX, libc::SOCK_DGRAM);
            if is_connected {
                let target = (&raw const address).cast();
                assert_eq!(
                    call(|| unsafe { libc::connect(sender.as_raw_fd(), target, length) }),
                    good(0)
                );
            }
            let sending = world.spawn(move || {
                for number in 0_u32..100 {
                    let bytes = number.to_ne_bytes();
                    let (target, length) = match is_connected {
                        true => (std::ptr::null(), 0),
                        false => ((&raw const address).cast(), length),
                    };
                    let sent = call(|| unsafe {
                        let bytes = bytes.as_ptr().cast();
                        libc::sendto(sender.as_raw_fd(), bytes, 4, 0, target, length)
                    });
                    assert_eq!(sent, good(4));
                }
            });
            world.settle();
            for number in 0_u32..100 {
                let mut bytes = [0; 4];
                assert_eq!(recv(receiver.as_raw_fd(), &mut bytes, 0), good(4));
                assert_eq!(u32::from_ne_bytes(bytes), number);
            }
            sending.join();
        }
    });
}

fn local_address(name: &str) -> libc::sockaddr_un {
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (place, &byte) in address.sun_path.iter_mut().zip(name.as_bytes()) {
        *place = byte as libc::c_char;
    }
    address
}

#[test]
fn descriptors_travel_once_with_the_first_part() {
    compare(|world| {
        let (one, other) = local_pair(libc::SOCK_STREAM);
        let (out, into) = pipe();
        let carried = into.as_raw_fd();
        let sending = world.spawn(move || {
            let parts = [pattern(MUCH)];
            let mut vectors = vectors_of(&parts);
            let mut control = [0_u64; 3];
            let header = message(&mut vectors, &mut control);
            unsafe {
                let first = libc::CMSG_FIRSTHDR(&header);
                (*first).cmsg_level = libc::SOL_SOCKET;
                (*first).cmsg_type = libc::SCM_RIGHTS;
                (*first).cmsg_len = libc::CMSG_LEN(4) as usize;
                libc::CMSG_DATA(first)
                    .cast::<RawFd>()
                    .write_unaligned(carried);
            }
            call(|| unsafe { libc::sendmsg(other.as_raw_fd(), &header, 0) })
        });
        world.settle();
        let mut total = 0;
        let mut arrived = Vec::new();
        while total < MUCH {
            let parts = [vec![0_u8; 50_000]];
            let mut vectors = vectors_of(&parts);
            let mut control = [0_u64; 3];
            let mut header = message(&mut vectors, &mut control);
            let (count, errno) = call(|| unsafe { libc::recvmsg(one.as_raw_fd(), &mut header, 0) });
            assert!(count > 0 && errno == UNTOUCHED && header.msg_flags == 0);
            total += count as usize;
            let first = unsafe { libc::CMSG_FIRSTHDR(&header) };
            if !first.is_null() {
                let number = unsafe { libc::CMSG_DATA(first).cast::<RawFd>().read_unaligned() };
                arrived.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        assert_eq!(sending.join(), good(MUCH as isize));
        assert_eq!(arrived.len(), 1);
        drop(into);
        assert_eq!(write(arrived[0].as_raw_fd(), b"through"), good(7));
        assert_eq!(text(out.as_raw_fd()), (good(7), "through".into()));
    });
}

#[test]
fn broken_connections() {
    compare(|world| {
        let (out, into) = pipe();
        drop(out);
        assert_eq!(write(into.as_raw_fd(), b"data"), bad(libc::EPIPE));
        let (one, other) = local_pair(libc::SOCK_STREAM);
        drop(other);
        assert_eq!(write(one.as_raw_fd(), b"data"), bad(libc::EPIPE));
        // The reader goes while the writer waits: what was written counts, the error comes next.
        let mut seen = Vec::new();
        for (reader, writer) in channels() {
            let writing = world.spawn(move || {
                let all = pattern(MUCH);
                let first = write(writer.as_raw_fd(), &all);
                (
                    first,
                    write(writer.as_raw_fd(), &all),
                    write(writer.as_raw_fd(), &all),
                )
            });
            world.settle();
            drop(reader);
            let (first, second, third) = writing.join();
            assert!(
                first.0 > 0 && first.0 < MUCH as isize && first.1 == UNTOUCHED,
                "{first:?}"
            );
            assert_eq!(third, bad(libc::EPIPE));
            seen.push(second);
        }
        seen
    });
}
