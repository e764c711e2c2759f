//! Forced migration: every wait ends on another OS thread, whatever the green thread waited for.

#[path = "unmodified/support.rs"]
#[allow(dead_code, reason = "shared with the other tests of this folder")]
mod support;

use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

/// Waits of a kind, and how many of them must move the green thread. The others are for a worker that
/// does not get the processor while it should take the green thread over.
const WAITS: usize = 100;
const MOVES: usize = 80;

/// How many of [`WAITS`] waits ended on another OS thread than they began on.
fn moves(mut wait: impl FnMut()) -> usize {
    // SAFETY: gettid(2) has no preconditions.
    let here = || unsafe { libc::gettid() };
    let moved = |_: &usize| {
        let before = here();
        wait();
        here() != before
    };
    (0..WAITS).filter(moved).count()
}

/// Runs `case` as a green thread of two workers which move it whenever they can, and wants it moved.
fn moves_by(name: &'static str, case: fn() -> usize) {
    sward::patch::all();
    support::watched(name, move || {
        let builder = sward::Runtime::builder().workers(2).force_migration(true);
        let moves = builder.build().expect("a runtime").run(case);
        assert!(moves >= MOVES, "{moves} of {WAITS} waits moved it");
    });
}

#[test]
fn a_yield_moves() {
    moves_by("a_yield_moves", || moves(sward::yield_now));
}

#[test]
fn a_sleep_moves() {
    moves_by("a_sleep_moves", || {
        moves(|| std::thread::sleep(Duration::from_micros(50)))
    });
}

/// What std's channels wait by. (Not a channel: its receiver may wait a second time, for the lock that
/// the sender holds while it wakes it, and so be back where it was.)
#[test]
fn a_park_moves() {
    moves_by("a_park_moves", || {
        let parked = std::thread::current();
        let (ask, asked) = mpsc::channel();
        let partner = sward::spawn(move || {
            for () in asked {
                // So that the other does wait: a token that is there already moves nobody.
                std::thread::sleep(Duration::from_millis(1));
                parked.unpark();
            }
        });
        let moves = moves(|| {
            ask.send(()).expect("the partner is there");
            std::thread::park();
        });
        drop(ask);
        partner.join().expect("the partner");
        moves
    });
}

#[test]
fn a_condition_variable_moves() {
    moves_by("a_condition_variable_moves", || {
        let answer = Arc::new((Mutex::new(false), Condvar::new()));
        let answers = Arc::clone(&answer);
        let (ask, asked) = mpsc::channel();
        let partner = sward::spawn(move || {
            for () in asked {
                std::thread::sleep(Duration::from_millis(1));
                // The lock is free again by the time the other is woken.
                *answer.0.lock().expect("the lock") = true;
                answer.1.notify_one();
            }
        });
        let moves = moves(|| {
            ask.send(()).expect("the partner is there");
            let answered = answers.0.lock().expect("the lock");
            let answered = answers.1.wait_while(answered, |answered| !*answered);
            *answered.expect("the lock") = false;
        });
        drop(ask);
        partner.join().expect("the partner");
        moves
    });
}

/// Where nothing forces it and there is no other worker, a green thread stays.
#[test]
fn a_lone_worker_keeps_its_green_thread() {
    sward::patch::all();
    support::watched("a_lone_worker_keeps_its_green_thread", || {
        let builder = sward::Runtime::builder().workers(1).force_migration(false);
        let runtime = builder.build().expect("a runtime");
        assert_eq!(runtime.run(|| moves(sward::yield_now)), 0);
    });
}
