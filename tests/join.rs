//! Joining: values come back, in order, to whoever waits, and a green thread nobody joins runs too.

#[path = "unmodified/support.rs"]
#[allow(dead_code, reason = "shared with the other tests of this folder")]
mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use support::{CROWD, crowd, on_workers, watched, worker_counts};

#[test]
fn joinall_keeps_the_order() {
    on_workers("joinall_keeps_the_order", || {
        // The later ones end first.
        let handles: Vec<_> = (0..CROWD)
            .map(|number| {
                sward::spawn(move || {
                    sward::sleep(Duration::from_micros((CROWD - number) as u64 * 100));
                    number
                })
            })
            .collect();
        let results = sward::joinall(handles).into_iter();
        let values: Vec<_> = results.map(|result| result.expect("join")).collect();
        assert!(values.into_iter().eq(0..CROWD));
    });
}

#[test]
fn joinall_of_nothing() {
    on_workers("joinall_of_nothing", || {
        let none: Vec<sward::JoinHandle<()>> = Vec::new();
        assert!(sward::joinall(none).is_empty());
    });
}

/// One failure does not hide the others' values.
#[test]
fn joinall_with_panics_among_them() {
    on_workers("joinall_with_panics_among_them", || {
        let handles: Vec<_> = (0..CROWD)
            .map(|number| {
                sward::spawn(move || match number % 3 {
                    0 => std::panic::resume_unwind(Box::new(number)),
                    _ => number,
                })
            })
            .collect();
        for (number, result) in sward::joinall(handles).into_iter().enumerate() {
            match result {
                Ok(value) => assert_eq!(value, number),
                Err(error) => {
                    assert_eq!(number % 3, 0);
                    let payload = error.into_panic().downcast::<usize>();
                    assert_eq!(*payload.expect("its payload"), number);
                }
            }
        }
    });
}

#[test]
fn before_and_after_the_end() {
    on_workers("before_and_after_the_end", || {
        crowd(CROWD, |number| {
            let (go, wait) = mpsc::channel::<()>();
            let handle = sward::spawn(move || {
                wait.recv().expect("receive");
                vec![number; 3]
            });
            assert!(!handle.is_finished(), "it cannot have ended");
            go.send(()).expect("send");
            if number % 2 == 0 {
                while !handle.is_finished() {
                    sward::yield_now();
                }
            }
            assert_eq!(handle.join().expect("join"), vec![number; 3]);
        });
    });
}

/// An OS thread joins a green thread, and a green thread one that an OS thread spawned.
#[test]
fn between_green_and_os_threads() {
    for workers in worker_counts() {
        watched("between_green_and_os_threads", move || {
            let runtime = sward::Runtime::builder()
                .workers(workers)
                .build()
                .expect("a runtime");
            let handles: Vec<_> = (0..CROWD)
                .map(|number| {
                    runtime.spawn(move || {
                        sward::sleep(Duration::from_millis(1));
                        number
                    })
                })
                .collect();
            let first = sward::spawn(|| 40);
            let second = runtime.spawn(move || first.join().expect("join") + 2);
            for (number, handle) in handles.into_iter().enumerate() {
                assert_eq!(handle.join().expect("join"), number);
            }
            assert_eq!(second.join().expect("join"), 42);
        });
    }
}

/// A chain: each green thread waits for the next one, all are parked at once.
#[test]
fn a_chain_of_joins() {
    fn chain(length: usize) -> usize {
        match length {
            0 => 0,
            _ => {
                1 + sward::spawn(move || chain(length - 1))
                    .join()
                    .expect("join")
            }
        }
    }
    on_workers("a_chain_of_joins", || assert_eq!(chain(1_000), 1_000));
}

/// Counts how often it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A dropped handle detaches: the green thread runs to its end, and its result is dropped once.
#[test]
fn a_dropped_handle_detaches() {
    for workers in worker_counts() {
        watched("a_dropped_handle_detaches", move || {
            let runtime = sward::Runtime::builder()
                .workers(workers)
                .build()
                .expect("a runtime");
            let drops = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&drops);
            runtime.run(move || {
                for number in 0..CROWD {
                    let result = Counted(Arc::clone(&count));
                    let handle = sward::spawn(move || {
                        if number % 2 == 0 {
                            sward::sleep(Duration::from_millis(1));
                        }
                        result
                    });
                    if number % 3 == 0 {
                        sward::yield_now();
                    }
                    drop(handle);
                }
            });
            assert_eq!(drops.load(Ordering::SeqCst), CROWD);
        });
    }
}

/// What the closure owns is dropped before `join` returns, and so is its result if nobody takes it.
#[test]
fn closures_are_dropped_once() {
    on_workers("closures_are_dropped_once", || {
        let drops = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&drops);
        crowd(CROWD, move |_| {
            let owned = Counted(Arc::clone(&count));
            let before = sward::spawn(move || drop(owned));
            before.join().expect("join");
        });
        assert_eq!(drops.load(Ordering::SeqCst), CROWD);
    });
}
