//! Channels: std's `mpsc`, crossbeam-channel and flume, each with room, without, and with time-outs.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::support::{CROWD, crowd, on_workers};

/// Messages of each sender.
const EACH: usize = 20;

/// What all senders of a crowd send, added up: sender `n` sends `n` and `EACH - 1` more.
fn expected_sum() -> usize {
    (0..CROWD).map(message_sum).sum()
}

fn message_sum(number: usize) -> usize {
    (0..EACH).map(|round| number * EACH + round).sum()
}

#[test]
fn mpsc_many_senders_one_receiver() {
    on_workers("mpsc_many_senders_one_receiver", || {
        let (sender, receiver) = mpsc::channel();
        let receiving = sward::spawn(move || {
            // Each sender's messages come in the order in which it sent them.
            let mut next = vec![0; CROWD];
            for (number, round) in receiver {
                assert_eq!(next[number], round);
                next[number] += 1;
            }
            next
        });
        crowd(CROWD, move |number| {
            for round in 0..EACH {
                sender.send((number, round)).expect("send");
                std::thread::yield_now();
            }
        });
        assert_eq!(receiving.join().expect("the receiver"), vec![EACH; CROWD]);
    });
}

/// No room, or one place: senders wait for the receiver.
#[test]
fn mpsc_sync_channels() {
    on_workers("mpsc_sync_channels", || {
        for room in [0, 1, 16] {
            let (sender, receiver) = mpsc::sync_channel(room);
            let receiving = sward::spawn(move || receiver.iter().sum::<usize>());
            crowd(CROWD, move |number| {
                for round in 0..EACH {
                    sender.send(number * EACH + round).expect("send");
                }
            });
            assert_eq!(receiving.join().expect("the receiver"), expected_sum());
        }
    });
}

#[test]
fn mpsc_time_outs_and_ends() {
    on_workers("mpsc_time_outs_and_ends", || {
        crowd(CROWD, |number| {
            let (sender, receiver) = mpsc::channel::<usize>();
            let least = Duration::from_millis(5 + (number % 20) as u64);
            let begun = Instant::now();
            let outcome = receiver.recv_timeout(least);
            assert_eq!(outcome, Err(mpsc::RecvTimeoutError::Timeout));
            assert!(begun.elapsed() >= least, "after {:?}", begun.elapsed());

            // The last sender's end wakes a receiver that waits.
            let waiting = sward::spawn(move || receiver.recv());
            std::thread::sleep(Duration::from_millis(1));
            drop(sender);
            assert_eq!(waiting.join().expect("the receiver"), Err(mpsc::RecvError));
        });
    });
}

/// An OS thread at one end, green threads at the other.
#[test]
fn mpsc_between_os_and_green_threads() {
    on_workers("mpsc_between_os_and_green_threads", || {
        let (question, questions) = mpsc::channel::<(usize, mpsc::Sender<usize>)>();
        let os_thread = std::thread::spawn(move || {
            for (number, answer) in questions {
                answer.send(2 * number).expect("answer");
            }
        });
        crowd(CROWD, move |number| {
            for round in 0..EACH {
                let (answer, answers) = mpsc::channel();
                question.send((number + round, answer)).expect("ask");
                assert_eq!(answers.recv(), Ok(2 * (number + round)));
            }
        });
        os_thread.join().expect("the OS thread");
    });
}

#[test]
fn crossbeam_channels() {
    on_workers("crossbeam_channels", || {
        let channels = [
            crossbeam_channel::bounded(0),
            crossbeam_channel::bounded(3),
            crossbeam_channel::unbounded(),
        ];
        for (sender, receiver) in channels {
            // Half of the crowd sends, half receives until the channel closes.
            let receivers: Vec<_> = (0..CROWD / 2)
                .map(|_| {
                    let receiver = receiver.clone();
                    sward::spawn(move || receiver.iter().sum::<usize>())
                })
                .collect();
            crowd(CROWD, move |number| {
                for round in 0..EACH {
                    sender.send(number * EACH + round).expect("send");
                }
            });
            let sums = sward::joinall(receivers).into_iter();
            let sum: usize = sums.map(|sum| sum.expect("a receiver")).sum();
            assert_eq!(sum, expected_sum());
        }
    });
}

/// `select!` over two rendezvous channels, an `after` and a `never`.
#[test]
fn crossbeam_select() {
    on_workers("crossbeam_select", || {
        crowd(CROWD, |number| {
            let (left_sender, left) = crossbeam_channel::bounded(0);
            let (right_sender, right) = crossbeam_channel::bounded(0);
            // Clones that stay here, so that neither channel closes before the other is done.
            let _open = (left_sender.clone(), right_sender.clone());
            let senders = [left_sender, right_sender].map(|sender| {
                sward::spawn(move || {
                    for round in 0..EACH {
                        sender.send(number * EACH + round).expect("send");
                        std::thread::sleep(Duration::from_micros((number % 5) as u64 * 100));
                    }
                })
            });
            let never = crossbeam_channel::never::<()>();
            let (mut from_left, mut from_right) = (0, 0);
            for _ in 0..2 * EACH {
                crossbeam_channel::select! {
                    recv(left) -> message => from_left += message.expect("left"),
                    recv(right) -> message => from_right += message.expect("right"),
                    recv(never) -> _ => unreachable!("never is never ready"),
                }
            }
            assert_eq!([from_left, from_right], [message_sum(number); 2]);
            for sender in sward::joinall(senders) {
                sender.expect("a sender");
            }
        });
    });
}

#[test]
fn crossbeam_time_outs() {
    on_workers("crossbeam_time_outs", || {
        crowd(CROWD, |number| {
            let (sender, receiver) = crossbeam_channel::bounded::<()>(0);
            let least = Duration::from_millis(5 + (number % 20) as u64);

            let begun = Instant::now();
            assert!(receiver.recv_timeout(least).is_err());
            assert!(begun.elapsed() >= least, "after {:?}", begun.elapsed());

            let begun = Instant::now();
            assert!(sender.send_timeout((), least).is_err());
            assert!(begun.elapsed() >= least, "after {:?}", begun.elapsed());

            let begun = Instant::now();
            crossbeam_channel::select! {
                recv(receiver) -> _ => unreachable!("nobody sends"),
                recv(crossbeam_channel::after(least)) -> _ => {}
            }
            assert!(begun.elapsed() >= least, "after {:?}", begun.elapsed());

            let begun = Instant::now();
            crossbeam_channel::select! {
                recv(receiver) -> _ => unreachable!("nobody sends"),
                default(least) => {}
            }
            assert!(begun.elapsed() >= least, "after {:?}", begun.elapsed());
        });
    });
}

#[test]
fn flume_channels() {
    on_workers("flume_channels", || {
        for (sender, receiver) in [flume::bounded(0), flume::bounded(3), flume::unbounded()] {
            let receivers: Vec<_> = (0..CROWD / 2)
                .map(|_| {
                    let receiver = receiver.clone();
                    sward::spawn(move || receiver.iter().sum::<usize>())
                })
                .collect();
            crowd(CROWD, move |number| {
                for round in 0..EACH {
                    sender.send(number * EACH + round).expect("send");
                }
            });
            let sums = sward::joinall(receivers).into_iter();
            let sum: usize = sums.map(|sum| sum.expect("a receiver")).sum();
            assert_eq!(sum, expected_sum());
        }
    });
}

#[test]
fn flume_time_outs_and_ends() {
    on_workers("flume_time_outs_and_ends", || {
        crowd(CROWD, |number| {
            let (sender, receiver) = flume::bounded::<()>(0);
            let least = Duration::from_millis(5 + (number % 20) as u64);

            let begun = Instant::now();
            assert_eq!(
                receiver.recv_timeout(least),
                Err(flume::RecvTimeoutError::Timeout)
            );
            assert!(begun.elapsed() >= least, "after {:?}", begun.elapsed());

            let begun = Instant::now();
            assert!(sender.send_timeout((), least).is_err());
            assert!(begun.elapsed() >= least, "after {:?}", begun.elapsed());

            let waiting = sward::spawn(move || receiver.recv());
            std::thread::sleep(Duration::from_millis(1));
            drop(sender);
            let outcome = waiting.join().expect("the receiver");
            assert_eq!(outcome, Err(flume::RecvError::Disconnected));
        });
    });
}
