//! `connect` and `accept`: results, what a failed try leaves behind, and time-outs.

use crate::world::*;
use libc::{EAGAIN, EALREADY, ECONNREFUSED, EINPROGRESS, EISCONN, SO_SNDTIMEO};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::ptr;
use std::time::{Duration, Instant};

fn address(port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be(),
        },
        sin_zero: [0; 8],
    }
}

fn connect(socket: RawFd, port: u16) -> Seen {
    let address = address(port);
    let length = size_of_val(&address) as u32;
    call(|| unsafe { libc::connect(socket, (&raw const address).cast(), length) })
}

fn accept(listener: RawFd) -> Seen {
    call(|| unsafe { libc::accept(listener, ptr::null_mut(), ptr::null_mut()) })
}

fn close(accepted: Seen) {
    assert!(accepted.0 >= 0 && accepted.1 == UNTOUCHED, "{accepted:?}");
    drop(unsafe { OwnedFd::from_raw_fd(accepted.0 as RawFd) });
}

/// A bound TCP socket that does not listen yet, and its port.
fn bound() -> (OwnedFd, u16) {
    let socket = socket(libc::AF_INET, libc::SOCK_STREAM);
    let mut address = address(0);
    let mut length = size_of_val(&address) as u32;
    unsafe {
        assert_eq!(
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length),
            0
        );
        let name = (&raw mut address).cast();
        assert_eq!(libc::getsockname(socket.as_raw_fd(), name, &mut length), 0);
    }
    (socket, u16::from_be(address.sin_port))
}

#[test]
fn a_refused_socket_can_try_again() {
    compare(|_| {
        let (listener, port) = bound();
        let client = socket(libc::AF_INET, libc::SOCK_STREAM);
        let number = client.as_raw_fd();
        let before = flags(number);
        let refused = [connect(number, port), connect(number, port)];
        assert_eq!(refused, [bad(ECONNREFUSED); 2]);
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 4) }, 0);
        assert_eq!(connect(number, port), good(0));
        assert_eq!(connect(number, port), bad(EISCONN));
        assert_eq!(flags(number), before);
        let mut error = -1;
        let mut length = 4;
        let asked = unsafe {
            let error = (&raw mut error).cast();
            libc::getsockopt(number, libc::SOL_SOCKET, libc::SO_ERROR, error, &mut length)
        };
        assert_eq!((asked, error), (0, 0));
        close(accept(listener.as_raw_fd()));
        // Non-blocking by the user's will.
        let client = socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
        assert_eq!(connect(client.as_raw_fd(), port), bad(EINPROGRESS));
        // Datagram sockets only note the address.
        let client = socket(libc::AF_INET, libc::SOCK_DGRAM);
        assert_eq!(connect(client.as_raw_fd(), port), good(0));
        assert_eq!(connect(client.as_raw_fd(), port), good(0));
    });
}

#[test]
fn accepting_waits_for_each() {
    compare(|world| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let before = flags(listener.as_raw_fd());
        let accepting: Vec<_> = (0..5)
            .map(|_| {
                let listener = listener.try_clone().unwrap();
                world.spawn(move || {
                    let (stream, address) = listener.accept().unwrap();
                    address == stream.peer_addr().unwrap()
                })
            })
            .collect();
        world.settle();
        let clients: Vec<_> = (0..5)
            .map(|_| TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap())
            .collect();
        assert!(accepting.into_iter().all(Peer::join));
        assert_eq!(flags(listener.as_raw_fd()), before);
        drop(clients);
        // The flags of accept4 are for the new socket.
        let connecting = world
            .spawn(move || TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap());
        let accepted = call(|| unsafe {
            let none = ptr::null_mut();
            libc::accept4(
                listener.as_raw_fd(),
                none,
                ptr::null_mut(),
                libc::SOCK_NONBLOCK,
            )
        });
        assert!(flags(accepted.0 as RawFd) & libc::O_NONBLOCK != 0);
        close(accepted);
        drop(connecting.join());
    });
}

#[test]
fn a_connection_that_nobody_takes_times_out() {
    const LIMIT: Duration = Duration::from_millis(40);
    compare(|world| {
        let (listener, port) = bound();
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        // The queue takes one; whoever comes after that gets no answer.
        let first = socket(libc::AF_INET, libc::SOCK_STREAM);
        assert_eq!(connect(first.as_raw_fd(), port), good(0));
        let client = socket(libc::AF_INET, libc::SOCK_STREAM);
        let number = client.as_raw_fd();
        set_time_out(number, SO_SNDTIMEO, LIMIT);
        for expected in [EINPROGRESS, EALREADY] {
            let start = Instant::now();
            assert_eq!(connect(number, port), bad(expected));
            assert!(start.elapsed() >= LIMIT);
        }
        // A second connect with time enough waits for the first one's result.
        set_time_out(number, SO_SNDTIMEO, Duration::ZERO);
        let connecting = world.spawn(move || connect(number, port));
        world.settle();
        close(accept(listener.as_raw_fd()));
        assert_eq!(connecting.join(), good(0));
    });
}

#[test]
fn a_full_local_queue_is_waited_for() {
    const LIMIT: Duration = Duration::from_millis(40);
    compare(|world| {
        let directory = std::env::temp_dir();
        let name = format!("sward-{}-{}.socket", std::process::id(), world.is_green);
        let path = directory.join(name);
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let first = UnixStream::connect(&path).unwrap();

        let client = socket(libc::AF_UNIX, libc::SOCK_STREAM);
        set_time_out(client.as_raw_fd(), SO_SNDTIMEO, LIMIT);
        let mut target: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        target.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (place, &byte) in target
            .sun_path
            .iter_mut()
            .zip(path.as_os_str().as_encoded_bytes())
        {
            *place = byte as libc::c_char;
        }
        let start = Instant::now();
        let length = size_of_val(&target) as u32;
        let target = (&raw const target).cast();
        assert_eq!(
            call(|| unsafe { libc::connect(client.as_raw_fd(), target, length) }),
            bad(EAGAIN)
        );
        assert!(start.elapsed() >= LIMIT);
        assert_eq!(flags(client.as_raw_fd()) & libc::O_NONBLOCK, 0);

        let connecting = world.spawn({
            let path = path.clone();
            move || UnixStream::connect(path).is_ok()
        });
        world.settle();
        drop(listener.accept().unwrap());
        assert!(connecting.join());
        drop(listener.accept().unwrap());
        drop(first);
        std::fs::remove_file(path).unwrap();
    });
}
