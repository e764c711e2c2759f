//! `std::thread` on a green thread: park and unpark, OS threads spawned and joined, scopes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::support::{CROWD, crowd, on_workers};

/// Waits with `park` until `turn` has the value `mine`; a wake-up without cause is allowed for.
fn await_turn(turn: &AtomicUsize, mine: usize) {
    while turn.load(Ordering::SeqCst) != mine {
        thread::park();
    }
}

/// Two green threads wake each other through std's `Thread`, a hundred times.
#[test]
fn park_and_unpark() {
    const ROUNDS: usize = 100;
    on_workers("park_and_unpark", || {
        crowd(CROWD, |_| {
            let turn = Arc::new(AtomicUsize::new(0));
            let first: Thread = thread::current();
            let theirs = Arc::clone(&turn);
            let (tell, told) = std::sync::mpsc::channel();
            let second = sward::spawn(move || {
                tell.send(thread::current()).expect("send");
                for round in 0..ROUNDS {
                    await_turn(&theirs, 2 * round + 1);
                    theirs.store(2 * round + 2, Ordering::SeqCst);
                    first.unpark();
                }
            });
            let partner = told.recv().expect("receive");
            for round in 0..ROUNDS {
                await_turn(&turn, 2 * round);
                turn.store(2 * round + 1, Ordering::SeqCst);
                partner.unpark();
            }
            await_turn(&turn, 2 * ROUNDS);
            second.join().expect("the partner");
        });
    });
}

#[test]
fn a_token_left_beforehand_ends_the_next_park() {
    on_workers("a_token_left_beforehand_ends_the_next_park", || {
        crowd(CROWD, |_| {
            thread::current().unpark();
            thread::park();
            thread::current().unpark();
            // Were the token lost, this would take an hour and the watchdog would bark.
            thread::park_timeout(Duration::from_secs(3600));
        });
    });
}

/// `park_timeout` may return early by std's contract, but it must return.
#[test]
fn park_timeout_ends() {
    on_workers("park_timeout_ends", || {
        crowd(CROWD, |number| {
            let length = Duration::from_millis(1 + (number % 20) as u64);
            let begun = Instant::now();
            let mut wakes = 0;
            while begun.elapsed() < length {
                thread::park_timeout(length - begun.elapsed());
                wakes += 1;
            }
            assert!(
                wakes < 100,
                "park_timeout spins: {wakes} times in {length:?}"
            );
        });
    });
}

#[test]
fn an_os_thread_unparks_green_threads() {
    on_workers("an_os_thread_unparks_green_threads", || {
        let (tell, told) = std::sync::mpsc::channel::<(Thread, Arc<AtomicUsize>)>();
        let os_thread = thread::spawn(move || {
            for (parked, turn) in told {
                turn.fetch_add(1, Ordering::SeqCst);
                parked.unpark();
            }
        });
        crowd(CROWD, move |_| {
            let turn = Arc::new(AtomicUsize::new(0));
            for round in 1..=20 {
                tell.send((thread::current(), Arc::clone(&turn)))
                    .expect("send");
                await_turn(&turn, round);
            }
        });
        os_thread.join().expect("the OS thread");
    });
}

/// OS threads started by green threads, which talk to them and then join them.
#[test]
fn os_threads_spawned_and_joined() {
    on_workers("os_threads_spawned_and_joined", || {
        let sums = crowd(CROWD, |number| {
            let (send, receive) = std::sync::mpsc::channel();
            let (reply, answer) = std::sync::mpsc::channel();
            let os_thread = thread::spawn(move || {
                let told: usize = receive.recv().expect("receive");
                thread::sleep(Duration::from_millis(5));
                reply.send(told + 1).expect("send");
                told + 2
            });
            thread::sleep(Duration::from_millis(1));
            send.send(number).expect("send");
            // Waiting for the answer parks; by then the OS thread is as good as gone.
            assert_eq!(answer.recv(), Ok(number + 1));
            os_thread.join().expect("the OS thread")
        });
        assert!(sums.into_iter().eq(2..CROWD + 2));
    });
}

#[test]
fn an_os_threads_panic_reaches_the_green_joiner() {
    on_workers("an_os_threads_panic_reaches_the_green_joiner", || {
        crowd(20, |number| {
            let os_thread = thread::spawn(move || std::panic::resume_unwind(Box::new(number)));
            let payload = os_thread
                .join()
                .expect_err("it panicked")
                .downcast::<usize>();
            assert_eq!(*payload.expect("the payload"), number);
        });
    });
}

/// A scope's OS threads borrow from the green thread's stack, and end before it goes on.
#[test]
fn scopes() {
    on_workers("scopes", || {
        crowd(20, |number| {
            let mut parts = [0; 4];
            thread::scope(|scope| {
                for (index, part) in parts.iter_mut().enumerate() {
                    scope.spawn(move || {
                        thread::sleep(Duration::from_millis(2));
                        *part = number + index;
                    });
                }
            });
            assert_eq!(parts, [number, number + 1, number + 2, number + 3]);
        });
    });
}
