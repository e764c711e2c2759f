//! Connections: `TcpStream` and `UnixStream` echo, a thousand at once, and `std::io::copy` as a proxy.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use crate::support::{CROWD, crowd, on_workers, raise_descriptor_limit};

/// Rounds of question and answer on each connection.
const ROUNDS: usize = 10;

/// The server's side of one connection: give everything back until the client is done.
fn echo(mut stream: impl Read + Write) {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).expect("read") {
            0 => return,
            length => stream.write_all(&buffer[..length]).expect("write"),
        }
    }
}

/// The client's side: send something only this client sends, and want exactly that back.
fn converse(mut stream: impl Read + Write, number: usize) {
    for round in 0..ROUNDS {
        let question = format!("client {number}, round {round};").repeat(1 + number % 7);
        stream.write_all(question.as_bytes()).expect("write");
        let mut answer = vec![0; question.len()];
        stream.read_exact(&mut answer).expect("read");
        assert_eq!(answer, question.as_bytes());
    }
}

/// Accepts `count` connections and serves each on a green thread of its own.
fn serve_tcp(listener: TcpListener, count: usize) {
    sward::spawn(move || {
        for _ in 0..count {
            let (stream, _) = listener.accept().expect("accept");
            sward::spawn(move || echo(stream));
        }
    });
}

#[test]
fn tcp_echo() {
    on_workers("tcp_echo", || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        serve_tcp(listener, CROWD);
        crowd(CROWD, move |number| {
            converse(TcpStream::connect(address).expect("connect"), number);
        });
    });
}

#[test]
fn unix_echo() {
    on_workers("unix_echo", || {
        let path = socket_path("echo");
        let listener = UnixListener::bind(&path).expect("bind");
        sward::spawn(move || {
            for stream in listener.incoming().take(CROWD) {
                let stream = stream.expect("accept");
                sward::spawn(move || echo(stream));
            }
        });
        let server = path.clone();
        crowd(CROWD, move |number| {
            converse(UnixStream::connect(&server).expect("connect"), number);
        });
        std::fs::remove_file(path).expect("remove the socket");
    });
}

/// A path for a socket that no other case, test or run uses.
fn socket_path(name: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let unique = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    std::env::temp_dir().join(format!("sward-{name}-{process}-{unique}"))
}

/// Every connection is open before the first one speaks.
#[test]
fn a_thousand_connections_at_once() {
    const CONNECTIONS: usize = 1_000;
    raise_descriptor_limit();
    on_workers("a_thousand_connections_at_once", || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        serve_tcp(listener, CONNECTIONS);
        let all_connected = Arc::new(Barrier::new(CONNECTIONS));
        crowd(CONNECTIONS, move |number| {
            let stream = TcpStream::connect(address).expect("connect");
            all_connected.wait();
            converse(stream, number);
        });
    });
}

/// client → `io::copy` → echo server → `io::copy` → client, with more than any socket buffer holds,
/// so that all four sides are now and then full or empty.
#[test]
fn copy_from_socket_to_socket() {
    const BYTES: usize = 1 << 20;
    on_workers("copy_from_socket_to_socket", || {
        crowd(20, |number| {
            let (client, proxy_front) = tcp_pair();
            let (proxy_back, server) = tcp_pair();
            let front = proxy_front.try_clone().expect("clone");
            let back = proxy_back.try_clone().expect("clone");
            let helpers = [
                sward::spawn(move || echo(server)),
                sward::spawn(move || pump(proxy_front, proxy_back)),
                sward::spawn(move || pump(back, front)),
            ];

            let payload: Vec<u8> = (0..BYTES)
                .map(|index| (index * 31 + number) as u8)
                .collect();
            let sent = payload.clone();
            let mut writer = client.try_clone().expect("clone");
            let sender = sward::spawn(move || {
                writer.write_all(&sent).expect("write");
                writer.shutdown(Shutdown::Write).expect("shutdown");
            });
            let mut received = Vec::new();
            (&client).read_to_end(&mut received).expect("read");

            assert!(received == payload, "the payload came back changed");
            sender.join().expect("the sender");
            for helper in sward::joinall(helpers) {
                helper.expect("echo or pump");
            }
        });
    });
}

/// Copies one direction of a proxied connection and passes the end on.
fn pump(mut from: TcpStream, mut to: TcpStream) {
    std::io::copy(&mut from, &mut to).expect("copy");
    // The other direction may have ended the connection already.
    let _ = to.shutdown(Shutdown::Write);
}

/// Two ends of one TCP connection.
fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let client = TcpStream::connect(address).expect("connect");
    let (server, _) = listener.accept().expect("accept");
    (client, server)
}

/// A pipe at one end makes std use `splice` instead of read and send. That call holds up its worker,
/// so the far ends belong to OS threads.
#[test]
fn copy_from_pipe_to_socket() {
    const BYTES: usize = 300_000;
    on_workers("copy_from_pipe_to_socket", || {
        crowd(20, |number| {
            let (mut source, mut pipe_writer) = std::io::pipe().expect("pipe");
            let (mut socket, mut reader) = UnixStream::pair().expect("socket pair");
            let expected = vec![number as u8; BYTES];
            let payload = expected.clone();
            let feeder = std::thread::spawn(move || pipe_writer.write_all(&payload));
            let sink = std::thread::spawn(move || {
                let mut received = Vec::new();
                reader.read_to_end(&mut received).map(|_| received)
            });
            let copied = std::io::copy(&mut source, &mut socket).expect("copy");
            assert_eq!(copied, BYTES as u64);
            drop(socket);
            feeder.join().expect("the feeder").expect("write");
            let received = sink.join().expect("the sink").expect("read");
            assert!(received == expected, "changed on the way");
        });
    });
}

/// `shutdown` from another green thread ends a read that waits, as it does on threads.
#[test]
fn shutdown_wakes_the_reader() {
    on_workers("shutdown_wakes_the_reader", || {
        crowd(CROWD, |_| {
            let (mut stream, _peer) = UnixStream::pair().expect("socket pair");
            let twin = stream.try_clone().expect("clone");
            let reader = sward::spawn(move || stream.read(&mut [0; 8]).expect("read"));
            sward::yield_now();
            twin.shutdown(Shutdown::Both).expect("shutdown");
            assert_eq!(reader.join().expect("the reader"), 0);
        });
    });
}
