//! std's `Mutex`, `RwLock`, `Condvar`, `Barrier` and once-cells, held and waited for across sleeps.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, LazyLock, Mutex, Once, OnceLock, RwLock};
use std::time::{Duration, Instant};

use crate::support::{CROWD, crowd, on_workers};

const MOMENT: Duration = Duration::from_millis(1);

/// The holder sleeps with the lock in hand while all others queue up for it.
#[test]
fn mutex_held_across_a_sleep() {
    on_workers("mutex_held_across_a_sleep", || {
        let total = Arc::new(Mutex::new(0));
        let inside = Arc::new(AtomicBool::new(false));
        let counted = Arc::clone(&total);
        crowd(CROWD, move |_| {
            let mut total = total.lock().expect("lock");
            assert!(!inside.swap(true, Ordering::SeqCst), "two hold the lock");
            let seen = *total;
            std::thread::sleep(MOMENT);
            *total = seen + 1;
            inside.store(false, Ordering::SeqCst);
        });
        assert_eq!(*counted.lock().expect("lock"), CROWD);
    });
}

#[test]
fn a_panic_poisons_the_mutex() {
    on_workers("a_panic_poisons_the_mutex", || {
        let lock = Arc::new(Mutex::new(()));
        let holder = Arc::clone(&lock);
        let panicked = sward::spawn(move || {
            let _guard = holder.lock().expect("lock");
            std::thread::sleep(MOMENT);
            std::panic::resume_unwind(Box::new("with the lock held"));
        });
        assert!(panicked.join().is_err());
        assert!(lock.lock().is_err(), "std's Mutex is poisoned by a panic");
    });
}

/// Readers share, writers exclude everyone.
#[test]
fn rwlock_readers_overlap_and_writers_exclude() {
    on_workers("rwlock_readers_overlap_and_writers_exclude", || {
        let lock = Arc::new(RwLock::new(0));
        let readers = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let (value, peak) = (Arc::clone(&lock), Arc::clone(&most));
        crowd(CROWD, move |number| {
            for _ in 0..3 {
                if number % 10 == 0 {
                    let mut value = lock.write().expect("write lock");
                    assert_eq!(
                        readers.load(Ordering::SeqCst),
                        0,
                        "a reader beside the writer"
                    );
                    let seen = *value;
                    std::thread::sleep(MOMENT);
                    *value = seen + 1;
                } else {
                    let value = lock.read().expect("read lock");
                    let now = readers.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    let seen = *value;
                    std::thread::sleep(MOMENT);
                    assert_eq!(*value, seen, "a writer beside the readers");
                    readers.fetch_sub(1, Ordering::SeqCst);
                }
            }
        });
        assert_eq!(*value.read().expect("read lock"), CROWD / 10 * 3);
        assert!(
            peak.load(Ordering::SeqCst) > 1,
            "readers never shared the lock"
        );
    });
}

/// A small buffer between many producers and many consumers: both kinds wait, all items arrive.
#[test]
fn condvar_bounded_buffer() {
    const EACH: usize = 20;
    const ROOM: usize = 4;
    #[derive(Default)]
    struct Buffer {
        items: Mutex<VecDeque<usize>>,
        not_empty: Condvar,
        not_full: Condvar,
    }
    on_workers("condvar_bounded_buffer", || {
        let buffer = Arc::new(Buffer::default());
        let taken = crowd(CROWD, move |number| {
            let mut sum = 0;
            for round in 0..EACH {
                let items = buffer.items.lock().expect("lock");
                if number % 2 == 0 {
                    let full = |items: &mut VecDeque<_>| items.len() == ROOM;
                    let mut items = buffer.not_full.wait_while(items, full).expect("wait");
                    items.push_back(number * EACH + round);
                    buffer.not_empty.notify_one();
                } else {
                    let empty = |items: &mut VecDeque<_>| items.is_empty();
                    let mut items = buffer.not_empty.wait_while(items, empty).expect("wait");
                    sum += items.pop_front().expect("not empty");
                    buffer.not_full.notify_one();
                }
            }
            sum
        });
        let put = (0..CROWD)
            .step_by(2)
            .flat_map(|n| (0..EACH).map(move |round| n * EACH + round));
        assert_eq!(taken.into_iter().sum::<usize>(), put.sum());
    });
}

#[test]
fn condvar_wait_timeout() {
    on_workers("condvar_wait_timeout", || {
        crowd(CROWD, |number| {
            let pair = Arc::new((Mutex::new(false), Condvar::new()));
            let least = Duration::from_millis(10 + (number % 20) as u64);

            // Nobody notifies: it times out, and not early.
            let begun = Instant::now();
            let guard = pair.0.lock().expect("lock");
            let waited = pair.1.wait_timeout_while(guard, least, |ready| !*ready);
            let (guard, outcome) = waited.expect("wait");
            assert!(outcome.timed_out());
            assert!(begun.elapsed() >= least, "after {:?}", begun.elapsed());
            drop(guard);

            // Somebody notifies long before the time is up.
            let notifier = Arc::clone(&pair);
            let notifying = sward::spawn(move || {
                std::thread::sleep(MOMENT);
                *notifier.0.lock().expect("lock") = true;
                notifier.1.notify_all();
            });
            let guard = pair.0.lock().expect("lock");
            let hour = Duration::from_secs(3600);
            let waited = pair.1.wait_timeout_while(guard, hour, |ready| !*ready);
            assert!(!waited.expect("wait").1.timed_out());
            notifying.join().expect("the notifier");
        });
    });
}

/// One `notify_all` wakes them all, from an OS thread too.
#[test]
fn notify_all_from_an_os_thread() {
    on_workers("notify_all_from_an_os_thread", || {
        let pair = Arc::new((Mutex::new(0), Condvar::new()));
        let notifier = Arc::clone(&pair);
        let os_thread = std::thread::spawn(move || {
            let waiting = notifier.0.lock().expect("lock");
            let mut waiting = notifier
                .1
                .wait_while(waiting, |n| *n < CROWD)
                .expect("wait");
            *waiting = usize::MAX;
            notifier.1.notify_all();
        });
        crowd(CROWD, move |_| {
            let mut waiting = pair.0.lock().expect("lock");
            *waiting += 1;
            pair.1.notify_all();
            let all = pair.1.wait_while(waiting, |n| *n != usize::MAX);
            drop(all.expect("wait"));
        });
        os_thread.join().expect("the OS thread");
    });
}

/// In each round all arrive before any goes on, and one of them leads.
#[test]
fn barrier_keeps_step() {
    const ROUNDS: usize = 10;
    on_workers("barrier_keeps_step", || {
        let barrier = Arc::new(Barrier::new(CROWD));
        let arrived = Arc::new(AtomicUsize::new(0));
        let led = crowd(CROWD, move |_| {
            let mut led = 0;
            for round in 1..=ROUNDS {
                arrived.fetch_add(1, Ordering::SeqCst);
                led += usize::from(barrier.wait().is_leader());
                let seen = arrived.load(Ordering::SeqCst);
                assert!(seen >= round * CROWD, "{seen} arrived in round {round}");
            }
            led
        });
        assert_eq!(led.into_iter().sum::<usize>(), ROUNDS);
    });
}

/// The first one initialises, with a sleep in the middle; the others wait for it.
#[test]
fn once_cells_run_once() {
    #[derive(Clone, Default)]
    struct Cells(Arc<(AtomicUsize, OnceLock<usize>)>);
    static ONCE: Once = Once::new();
    static ONCE_RUNS: AtomicUsize = AtomicUsize::new(0);
    static LAZY_RUNS: AtomicUsize = AtomicUsize::new(0);
    static LAZY: LazyLock<usize> = LazyLock::new(|| {
        std::thread::sleep(MOMENT);
        LAZY_RUNS.fetch_add(1, Ordering::SeqCst)
    });
    on_workers("once_cells_run_once", || {
        let cells = Cells::default();
        let all = cells.clone();
        let answers = crowd(CROWD, move |number| {
            ONCE.call_once(|| {
                std::thread::sleep(MOMENT);
                ONCE_RUNS.fetch_add(1, Ordering::SeqCst);
            });
            assert_eq!(ONCE_RUNS.load(Ordering::SeqCst), 1);
            assert_eq!(*LAZY, 0);
            let (runs, cell) = &*cells.0;
            *cell.get_or_init(|| {
                std::thread::sleep(MOMENT);
                runs.fetch_add(1, Ordering::SeqCst);
                number
            })
        });
        assert!(answers.iter().all(|&answer| answer == answers[0]));
        assert_eq!(all.0.0.load(Ordering::SeqCst), 1);
        assert_eq!(LAZY_RUNS.load(Ordering::SeqCst), 1);
    });
}
