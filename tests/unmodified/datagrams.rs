//! Datagrams: `UdpSocket` (addressed and connected) and `UnixDatagram`, each answer to its own asker.

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;

use crate::support::{CROWD, crowd, on_workers};

const ROUNDS: usize = 10;

/// One server socket for all; `recv_from` and `send_to` tell the askers apart. There are fewer of
/// them than elsewhere, because UDP drops what the server's buffer has no room for.
#[test]
fn udp_echo_through_one_server() {
    const ASKERS: usize = 50;
    on_workers("udp_echo_through_one_server", || {
        let server = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let address = server.local_addr().expect("address");
        sward::spawn(move || {
            let mut buffer = [0; 64];
            for _ in 0..ASKERS * ROUNDS {
                let (length, asker) = server.recv_from(&mut buffer).expect("receive");
                server.send_to(&buffer[..length], asker).expect("send");
            }
        });
        crowd(ASKERS, move |number| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
            for round in 0..ROUNDS {
                let question = format!("asker {number}, round {round}");
                socket.send_to(question.as_bytes(), address).expect("send");
                let mut buffer = [0; 64];
                let (length, from) = socket.recv_from(&mut buffer).expect("receive");
                assert_eq!(&buffer[..length], question.as_bytes());
                assert_eq!(from, address);
            }
        });
    });
}

/// A pair of sockets connected to each other, so that `send` and `recv` do.
#[test]
fn udp_echo_between_connected_sockets() {
    on_workers("udp_echo_between_connected_sockets", || {
        crowd(CROWD, |number| {
            let left = UdpSocket::bind("127.0.0.1:0").expect("bind");
            let right = UdpSocket::bind("127.0.0.1:0").expect("bind");
            left.connect(right.local_addr().expect("address"))
                .expect("connect");
            right
                .connect(left.local_addr().expect("address"))
                .expect("connect");
            let answerer = sward::spawn(move || {
                for _ in 0..ROUNDS {
                    let mut buffer = [0; 64];
                    // Looking first must not take the datagram away.
                    let seen = right.peek(&mut buffer).expect("peek");
                    let length = right.recv(&mut buffer).expect("receive");
                    assert_eq!(seen, length);
                    right.send(&buffer[..length]).expect("send");
                }
            });
            for round in 0..ROUNDS {
                let question = format!("pair {number}, round {round}");
                left.send(question.as_bytes()).expect("send");
                let mut buffer = [0; 64];
                let length = left.recv(&mut buffer).expect("receive");
                assert_eq!(&buffer[..length], question.as_bytes());
            }
            answerer.join().expect("the answerer");
        });
    });
}

/// A Unix datagram socket, unlike UDP, makes the sender wait when the receiver's queue is full.
#[test]
fn unix_datagrams_all_arrive_in_order() {
    const DATAGRAMS: usize = 500;
    on_workers("unix_datagrams_all_arrive_in_order", || {
        crowd(20, |_| {
            let (sender, receiver) = UnixDatagram::pair().expect("socket pair");
            let sending = sward::spawn(move || {
                for number in 0..DATAGRAMS {
                    sender.send(&number.to_le_bytes()).expect("send");
                }
            });
            for number in 0..DATAGRAMS {
                let mut buffer = [0; 16];
                let length = receiver.recv(&mut buffer).expect("receive");
                assert_eq!(&buffer[..length], &number.to_le_bytes());
            }
            sending.join().expect("the sender");
        });
    });
}
