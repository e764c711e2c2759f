//! `sward::park` and `Thread::unpark`: one token, as std's, between green and OS threads alike.

#[path = "unmodified/support.rs"]
#[allow(dead_code, reason = "shared with the other tests of this folder")]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use support::{CROWD, crowd, on_migrating_workers, on_workers, watched};

#[test]
fn an_unpark_beforehand_is_not_lost() {
    on_workers("an_unpark_beforehand_is_not_lost", || {
        crowd(CROWD, |_| {
            let me = sward::current();
            me.unpark();
            sward::park();
            // Left by another green thread, before this one parks.
            let other = sward::spawn(move || me.unpark());
            other.join().expect("join");
            sward::park();
        });
    });
}

/// However often it is left, the token is one.
#[test]
fn tokens_do_not_add_up() {
    on_workers("tokens_do_not_add_up", || {
        crowd(CROWD, |_| {
            let me = sward::current();
            me.unpark();
            me.unpark();
            sward::park();
            let sent = Arc::new(AtomicBool::new(false));
            let flag = Arc::clone(&sent);
            let other = sward::spawn(move || {
                sward::sleep(Duration::from_millis(5));
                flag.store(true, Ordering::SeqCst);
                me.unpark();
            });
            sward::park();
            assert!(sent.load(Ordering::SeqCst), "the second token counted");
            other.join().expect("join");
        });
    });
}

/// What was written before `unpark` is seen after `park`.
#[test]
fn rounds_between_green_threads() {
    on_workers("rounds_between_green_threads", || rounds(CROWD));
    on_migrating_workers("rounds_between_green_threads, migrating", || rounds(CROWD));
}

fn rounds(pairs: usize) {
    const ROUNDS: usize = 200;
    crowd(pairs, |_| {
        let turn = Arc::new(AtomicUsize::new(0));
        let (theirs, me) = (Arc::clone(&turn), sward::current());
        let partner = sward::spawn(move || {
            for round in 0..ROUNDS {
                while theirs.load(Ordering::Relaxed) != 2 * round + 1 {
                    sward::park();
                }
                theirs.store(2 * round + 2, Ordering::Relaxed);
                me.unpark();
            }
        });
        for round in 0..ROUNDS {
            turn.store(2 * round + 1, Ordering::Relaxed);
            partner.thread().unpark();
            while turn.load(Ordering::Relaxed) != 2 * round + 2 {
                sward::park();
            }
        }
        partner.join().expect("the partner");
    });
}

#[test]
fn an_os_thread_unparks_and_parks() {
    const ROUNDS: usize = 2_000;
    on_workers("an_os_thread_unparks_and_parks", || {
        let turn = Arc::new(AtomicUsize::new(0));
        let (theirs, me) = (Arc::clone(&turn), sward::current());
        let (tell, told) = mpsc::channel();
        let os_thread = std::thread::spawn(move || {
            tell.send(sward::current()).expect("send");
            for round in 0..ROUNDS {
                while theirs.load(Ordering::Relaxed) != 2 * round + 1 {
                    sward::park();
                }
                theirs.store(2 * round + 2, Ordering::Relaxed);
                me.unpark();
            }
        });
        let partner = told.recv().expect("receive");
        for round in 0..ROUNDS {
            turn.store(2 * round + 1, Ordering::Relaxed);
            partner.unpark();
            while turn.load(Ordering::Relaxed) != 2 * round + 2 {
                sward::park();
            }
        }
        os_thread.join().expect("the OS thread");
    });
}

/// With nobody to wake it, a green thread's `park_timeout` ends at its time and not before; with a
/// token, at once.
#[test]
fn park_timeout() {
    on_workers("park_timeout", || {
        crowd(CROWD, |number| {
            let length = Duration::from_millis(1 + (number % 20) as u64);
            let begun = Instant::now();
            sward::thread::park_timeout(length);
            assert!(begun.elapsed() >= length, "after {:?}", begun.elapsed());

            // Were the token not seen, this would take an hour and the watchdog would bark.
            sward::current().unpark();
            sward::thread::park_timeout(Duration::from_secs(3600));
        });
    });
}

/// A wake-up that comes just when the time is up is either the cause or a token for the next park;
/// it is never both, and never lost.
#[test]
fn an_unpark_in_the_last_moment() {
    on_workers("an_unpark_in_the_last_moment", || {
        crowd(CROWD, |number| {
            for round in 0..20 {
                let length = Duration::from_micros(200 + ((number + round) % 7) as u64 * 10);
                let told = Arc::new(AtomicBool::new(false));
                let (flag, me) = (Arc::clone(&told), sward::current());
                let waker = sward::spawn(move || {
                    sward::sleep(length);
                    flag.store(true, Ordering::SeqCst);
                    me.unpark();
                });
                let begun = Instant::now();
                sward::thread::park_timeout(length);
                if !told.load(Ordering::SeqCst) {
                    assert!(begun.elapsed() >= length, "neither told nor timed out");
                }
                waker.join().expect("the waker");
                // Takes the token if the time-out was first; does not wait if it was not.
                sward::thread::park_timeout(Duration::ZERO);
            }
        });
    });
}

/// Many wakers for one sleeper: it may see fewer wake-ups than there were, but never none.
#[test]
fn many_wakers_at_once() {
    on_workers("many_wakers_at_once", || {
        let (me, calls) = (sward::current(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&calls);
        let wakers = sward::spawn(move || {
            crowd(CROWD, move |_| {
                for _ in 0..20 {
                    count.fetch_add(1, Ordering::SeqCst);
                    me.unpark();
                    sward::yield_now();
                }
            });
        });
        while calls.load(Ordering::SeqCst) < CROWD * 20 {
            sward::park();
        }
        wakers.join().expect("the wakers");
    });
}

/// Handles outlive their green threads, and waking the dead does nothing.
#[test]
fn unparking_one_that_has_ended() {
    watched("unparking_one_that_has_ended", || {
        let handle = sward::spawn(|| ());
        let thread = handle.thread().clone();
        handle.join().expect("join");
        // Its stack serves the next ones; they must not feel it.
        let bystanders: Vec<_> = (0..CROWD)
            .map(|_| {
                sward::spawn(|| {
                    let sent = Arc::new(AtomicBool::new(false));
                    let (flag, me) = (Arc::clone(&sent), sward::current());
                    sward::spawn(move || {
                        sward::sleep(Duration::from_millis(5));
                        flag.store(true, Ordering::SeqCst);
                        me.unpark();
                    });
                    sward::park();
                    sent.load(Ordering::SeqCst)
                })
            })
            .collect();
        for _ in 0..1_000 {
            thread.unpark();
        }
        for woken_by_its_own in sward::joinall(bystanders) {
            assert!(woken_by_its_own.expect("join"));
        }
    });
}
