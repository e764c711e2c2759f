//! Fairness: green threads that never stop do not starve the others.

#[path = "unmodified/support.rs"]
#[allow(dead_code, reason = "shared with the other tests of this folder")]
mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use support::{crowd, on_several_workers, on_workers};

/// Sleeps, sockets and spawns, as an honest program has them.
fn honest_work() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    sward::spawn(move || {
        for _ in 0..20 {
            let (mut stream, _) = listener.accept().expect("accept");
            sward::spawn(move || {
                let mut byte = [0];
                while stream.read(&mut byte).expect("read") == 1 {
                    stream.write_all(&byte).expect("write");
                }
            });
        }
    });
    crowd(20, move |number| {
        let mut stream = TcpStream::connect(address).expect("connect");
        for round in 0..10 {
            let byte = [(number + round) as u8];
            stream.write_all(&byte).expect("write");
            let mut answer = [0];
            stream.read_exact(&mut answer).expect("read");
            assert_eq!(answer, byte);
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

/// Starts `spinners` green threads that each do `spin` until the flag is up, does honest work
/// beside them, and only then raises the flag. Were the others starved, this would never end.
fn spin_beside_honest_work(spinners: usize, spin: fn()) {
    let done = Arc::new(AtomicBool::new(false));
    let spinners: Vec<_> = (0..spinners)
        .map(|_| {
            let done = Arc::clone(&done);
            sward::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    spin();
                }
            })
        })
        .collect();
    honest_work();
    done.store(true, Ordering::Relaxed);
    for spinner in sward::joinall(spinners) {
        spinner.expect("a spinner");
    }
}

/// A queue that is never empty must not keep the poller and the timers from their turn.
#[test]
fn beside_one_that_yields_for_ever() {
    on_workers("beside_one_that_yields_for_ever", || {
        spin_beside_honest_work(1, sward::yield_now);
    });
}

#[test]
fn beside_many_that_yield_for_ever() {
    on_workers("beside_many_that_yield_for_ever", || {
        spin_beside_honest_work(10, std::thread::yield_now);
    });
}

/// Never gives up its worker at all: the rest must go on without it. (With one worker there is
/// nobody else to go on.)
#[test]
fn beside_one_that_never_yields() {
    on_several_workers("beside_one_that_never_yields", || {
        spin_beside_honest_work(1, std::hint::spin_loop);
    });
}

/// Two that always wake each other must not shut a third one out.
#[test]
fn beside_a_pair_that_wakes_each_other() {
    on_workers("beside_a_pair_that_wakes_each_other", || {
        let done = Arc::new(AtomicBool::new(false));
        let (ping, pings) = std::sync::mpsc::sync_channel(1);
        let (pong, pongs) = std::sync::mpsc::sync_channel(1);
        let flag = Arc::clone(&done);
        let first = sward::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                if ping.send(()).is_err() || pongs.recv().is_err() {
                    break;
                }
            }
        });
        let second = sward::spawn(
            move || {
                while pings.recv().is_ok() && pong.send(()).is_ok() {}
            },
        );
        honest_work();
        done.store(true, Ordering::Relaxed);
        first.join().expect("the first");
        second.join().expect("the second");
    });
}

/// A call that blocks its OS thread, and that nobody can patch, holds up no other worker.
#[test]
fn beside_a_call_that_blocks_unseen() {
    on_several_workers("beside_a_call_that_blocks_unseen", || {
        let (mut reader, mut writer) = std::io::pipe().expect("pipe");
        let blocked = sward::spawn(move || raw_read(&mut reader));
        honest_work();
        writer.write_all(&[9]).expect("write");
        assert_eq!(blocked.join().expect("the blocked one"), 9);
    });
}

/// `read` by a bare instruction, past every symbol.
fn raw_read(pipe: &mut std::io::PipeReader) -> u8 {
    use std::os::fd::AsRawFd;
    let mut byte = 0_u8;
    let mut outcome = libc::SYS_read;
    // SAFETY: the kernel writes at most one byte to `byte`, which lives across the instruction; the
    // instruction itself changes rcx and r11.
    unsafe {
        std::arch::asm!(
            "syscall",
            inout("rax") outcome,
            in("rdi") pipe.as_raw_fd(),
            in("rsi") &raw mut byte,
            in("rdx") 1,
            out("rcx") _,
            out("r11") _,
        );
    }
    assert_eq!(outcome, 1);
    byte
}

/// A green thread that has begun waits in the queue behind one that never stops: another worker must
/// take it, though it has a stack and has run here.
#[test]
fn a_started_green_thread_is_stolen() {
    // SAFETY: gettid(2) has no preconditions.
    let here = || unsafe { libc::gettid() };
    let case = move || {
        let mut stolen = false;
        while !stolen {
            let home = here();
            let moved = Arc::new(AtomicBool::new(false));
            let flag = Arc::clone(&moved);
            let hog = sward::spawn(move || {
                // Unless it was stolen itself: then the other was not behind it.
                let blocks = here() == home;
                while blocks && !flag.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                blocks
            });
            sward::yield_now();
            stolen = here() != home;
            moved.store(true, Ordering::Relaxed);
            stolen &= hog.join().expect("the hog");
        }
    };
    support::watched("a_started_green_thread_is_stolen", move || {
        let runtime = sward::Runtime::builder().workers(2);
        let runtime = runtime.force_migration(false).build().expect("a runtime");
        runtime.run(case);
    });
}

/// As [`on_several_workers`], never with forced migration: that sends every other turn to the worker which
/// is kept, and takes it from there only now and then.
fn on_stealing_workers(name: &str, case: fn()) {
    for workers in support::worker_counts()
        .into_iter()
        .filter(|&workers| workers > 1)
    {
        support::watched(&format!("{name}, {workers} workers"), move || {
            let builder = sward::Runtime::builder().workers(workers);
            let runtime = builder.force_migration(false).build();
            runtime.expect("a runtime").run(case);
        });
    }
}

/// Green threads that have begun and always yield wait behind one that never does. The other workers
/// have turns enough of their own, and must take these over all the same.
#[test]
fn the_started_are_stolen_by_busy_workers() {
    on_stealing_workers("the_started_are_stolen_by_busy_workers", || {
        for _ in 0..20 {
            let turns: Arc<Vec<AtomicUsize>> =
                Arc::new((0..8).map(|_| AtomicUsize::new(0)).collect());
            let done = Arc::new(AtomicBool::new(false));
            let yielding: Vec<_> = (0..turns.len())
                .map(|number| {
                    let (turns, done) = (Arc::clone(&turns), Arc::clone(&done));
                    sward::spawn(move || {
                        while !done.load(Ordering::Relaxed) {
                            turns[number].fetch_add(1, Ordering::Relaxed);
                            sward::yield_now();
                        }
                    })
                })
                .collect();
            let counted = || -> Vec<_> {
                turns
                    .iter()
                    .map(|turns| turns.load(Ordering::Relaxed))
                    .collect()
            };
            while counted().iter().any(|&turns| turns < 3) {
                sward::yield_now();
            }
            // All have begun. From here this one keeps its worker.
            let before = counted();
            while counted()
                .iter()
                .zip(&before)
                .any(|(now, before)| *now < before + 3)
            {
                std::hint::spin_loop();
            }
            done.store(true, Ordering::Relaxed);
            for outcome in sward::joinall(yielding) {
                outcome.expect("a green thread that yields");
            }
        }
    });
}

/// One keeps its worker, another keeps the rest busy: the timers of the others still go off.
#[test]
fn beside_one_that_never_yields_and_one_that_always_does() {
    on_stealing_workers(
        "beside_one_that_never_yields_and_one_that_always_does",
        || {
            for _ in 0..10 {
                let done = Arc::new(AtomicBool::new(false));
                let sleepers: Vec<_> = (0..20)
                    .map(|_| {
                        sward::spawn(|| {
                            for _ in 0..50 {
                                sward::sleep(Duration::from_millis(1));
                            }
                        })
                    })
                    .collect();
                let beside = |turn: fn()| {
                    let done = Arc::clone(&done);
                    sward::spawn(move || {
                        while !done.load(Ordering::Relaxed) {
                            turn();
                        }
                    })
                };
                let yielding = beside(sward::yield_now);
                sward::yield_now();
                let spinning = beside(std::hint::spin_loop);
                for sleeper in sward::joinall(sleepers) {
                    sleeper.expect("a sleeper");
                }
                done.store(true, Ordering::Relaxed);
                yielding.join().expect("the one that yields");
                spinning.join().expect("the one that spins");
            }
        },
    );
}
