//! parking_lot: its locks know threads by the address of a thread-local and wait in a queue of
//! their own, so a green thread without its own thread-locals would corrupt that queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, FairMutex, Mutex, ReentrantMutex, RwLock};

use crate::support::{CROWD, crowd, on_workers};

const MOMENT: Duration = Duration::from_millis(1);

#[test]
fn mutex_held_across_a_sleep() {
    on_workers("parking_lot mutex_held_across_a_sleep", || {
        let total = Arc::new((Mutex::new(0), FairMutex::new(0)));
        let counted = Arc::clone(&total);
        crowd(CROWD, move |_| {
            let mut value = total.0.lock();
            let seen = *value;
            std::thread::sleep(MOMENT);
            *value = seen + 1;
            drop(value);

            let mut value = total.1.lock();
            let seen = *value;
            std::thread::yield_now();
            *value = seen + 1;
        });
        assert_eq!(*counted.0.lock(), CROWD);
        assert_eq!(*counted.1.lock(), CROWD);
    });
}

#[test]
fn mutex_lock_times_out() {
    on_workers("parking_lot mutex_lock_times_out", || {
        crowd(CROWD, |number| {
            let lock = Mutex::new(());
            let _held = lock.lock();
            let least = Duration::from_millis(5 + (number % 20) as u64);
            let begun = Instant::now();
            assert!(lock.try_lock_for(least).is_none());
            assert!(begun.elapsed() >= least, "after {:?}", begun.elapsed());
        });
    });
}

/// The owner may enter again, others may not, though they may share an OS thread with it.
#[test]
fn reentrant_mutex_tells_green_threads_apart() {
    on_workers("reentrant_mutex_tells_green_threads_apart", || {
        let lock = Arc::new(ReentrantMutex::new(AtomicBool::new(false)));
        crowd(CROWD, move |_| {
            let outer = lock.lock();
            assert!(!outer.swap(true, Ordering::SeqCst), "two own the lock");
            std::thread::sleep(MOMENT);
            let inner = lock.lock();
            assert!(inner.swap(false, Ordering::SeqCst), "two own the lock");
        });
    });
}

#[test]
fn rwlock_readers_overlap_and_writers_exclude() {
    on_workers("parking_lot rwlock", || {
        let lock = Arc::new(RwLock::new(0));
        let readers = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let (value, peak) = (Arc::clone(&lock), Arc::clone(&most));
        crowd(CROWD, move |number| {
            if number % 10 == 0 {
                let mut value = lock.write();
                assert_eq!(
                    readers.load(Ordering::SeqCst),
                    0,
                    "a reader beside the writer"
                );
                std::thread::sleep(MOMENT);
                *value += 1;
            } else {
                let _value = lock.read();
                most.fetch_max(readers.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(MOMENT);
                readers.fetch_sub(1, Ordering::SeqCst);
            }
        });
        assert_eq!(*value.read(), CROWD / 10);
        assert!(
            peak.load(Ordering::SeqCst) > 1,
            "readers never shared the lock"
        );
    });
}

#[test]
fn condvar_waits_and_times_out() {
    on_workers("parking_lot condvar", || {
        crowd(CROWD, |number| {
            let pair = Arc::new((Mutex::new(0), Condvar::new()));
            let least = Duration::from_millis(5 + (number % 20) as u64);
            let begun = Instant::now();
            let outcome = pair.1.wait_while_for(&mut pair.0.lock(), |_| true, least);
            assert!(outcome.timed_out());
            assert!(begun.elapsed() >= least, "after {:?}", begun.elapsed());

            // Handing a number back and forth: even is ours, odd is the partner's.
            let partner = Arc::clone(&pair);
            let partner = sward::spawn(move || {
                for _ in 0..50 {
                    let mut value = partner.0.lock();
                    partner.1.wait_while(&mut value, |value| *value % 2 == 0);
                    *value += 1;
                    partner.1.notify_one();
                }
            });
            for _ in 0..50 {
                let mut value = pair.0.lock();
                pair.1.wait_while(&mut value, |value| *value % 2 == 1);
                *value += 1;
                pair.1.notify_one();
            }
            partner.join().expect("the partner");
            assert_eq!(*pair.0.lock(), 100);
        });
    });
}
