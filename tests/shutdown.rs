//! Runtimes: `run` waits for every green thread, several live side by side, and none leaves a trace.

#[path = "unmodified/support.rs"]
#[allow(dead_code, reason = "shared with the other tests of this folder")]
mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use sward::Runtime;

use support::{CROWD, crowd, is_child, passes_in_child, watched, worker_counts};

fn runtime(workers: usize) -> Runtime {
    Runtime::builder()
        .workers(workers)
        .build()
        .expect("a runtime")
}

/// `run` gives back what its closure returns, once the last green thread has ended.
#[test]
fn run_waits_for_all() {
    for workers in worker_counts() {
        watched("run_waits_for_all", move || {
            let ended = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&ended);
            let answer = runtime(workers).run(move || {
                for number in 0..CROWD {
                    let count = Arc::clone(&count);
                    sward::spawn(move || {
                        sward::sleep(Duration::from_micros(number as u64 * 50));
                        // Grandchildren count as well.
                        sward::spawn(move || {
                            sward::sleep(Duration::from_millis(5));
                            count.fetch_add(1, Ordering::SeqCst);
                        });
                    });
                }
                42
            });
            assert_eq!(answer, 42);
            assert_eq!(ended.load(Ordering::SeqCst), CROWD);
        });
    }
}

/// Green threads spawned into a runtime from outside, before it runs, belong to it too.
#[test]
fn run_waits_for_those_spawned_from_outside() {
    for workers in worker_counts() {
        watched("run_waits_for_those_spawned_from_outside", move || {
            let runtime = runtime(workers);
            let ended = Arc::new(AtomicUsize::new(0));
            for _ in 0..CROWD {
                let count = Arc::clone(&ended);
                runtime.spawn(move || {
                    sward::sleep(Duration::from_millis(10));
                    count.fetch_add(1, Ordering::SeqCst);
                });
            }
            runtime.run(|| ());
            assert_eq!(ended.load(Ordering::SeqCst), CROWD);
        });
    }
}

/// Green threads of two runtimes talk through a channel, a socket and joins.
#[test]
fn runtimes_side_by_side() {
    watched("runtimes_side_by_side", || {
        sward::patch::all();
        let (left, right) = (runtime(1), runtime(2));
        let (question, questions) = mpsc::sync_channel::<usize>(0);
        let (mut here, mut there) = UnixStream::pair().expect("socket pair");

        let answering = right.spawn(move || {
            for number in questions {
                there.write_all(&(2 * number).to_le_bytes()).expect("write");
            }
        });
        let asking = left.spawn(move || {
            for number in 0..1_000 {
                question.send(number).expect("send");
                let mut answer = [0; size_of::<usize>()];
                here.read_exact(&mut answer).expect("read");
                assert_eq!(usize::from_le_bytes(answer), 2 * number);
            }
        });
        // A green thread of one joins one of the other.
        let watching = right.spawn(move || asking.join().expect("the asker"));
        left.run(|| ());
        right.run(|| ());
        assert!(watching.is_finished());
        answering.join().expect("the answerer");
    });
}

/// What runtimes have made — OS threads, descriptors — is gone when they are.
///
/// In a process of its own, where nothing else comes and goes.
#[test]
fn dropped_without_a_trace() {
    const NAME: &str = "dropped_without_a_trace";
    if is_child() {
        watched(NAME, leave_no_trace);
    } else {
        passes_in_child(NAME);
    }
}

fn leave_no_trace() {
    sward::patch::all();
    // The first runtime may make what all later ones share.
    live_and_die(2);
    let (threads, descriptors) = (count("/proc/self/task"), count("/proc/self/fd"));
    for round in 0..20 {
        live_and_die(1 + round % 3);
        // One that was never used.
        drop(runtime(2));
        // Two at once.
        let (first, second) = (runtime(1), runtime(2));
        second.run(|| drop(crowd(20, |_| sward::yield_now())));
        first.run(|| drop(crowd(20, |_| sward::yield_now())));
    }
    // An OS thread that has been joined may stay in /proc for a moment. More must not remain; if
    // it does, the watchdog ends this.
    while count("/proc/self/task") > threads || count("/proc/self/fd") > descriptors {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A runtime with some of everything: sleeps, sockets, calls that block, OS threads.
fn live_and_die(workers: usize) {
    runtime(workers).run(|| {
        crowd(50, |number| {
            std::thread::sleep(Duration::from_millis(1 + number as u64 % 3));
            let (mut here, mut there) = UnixStream::pair().expect("socket pair");
            let reading = sward::spawn(move || there.read_exact(&mut [0]).expect("read"));
            here.write_all(&[1]).expect("write");
            reading.join().expect("the reader");
            if number % 10 == 0 {
                std::thread::spawn(|| ()).join().expect("an OS thread");
            }
        });
    });
}

/// How many entries the folder has.
fn count(folder: &str) -> usize {
    std::fs::read_dir(folder)
        .expect("a folder in /proc")
        .count()
}
