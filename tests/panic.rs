//! Panics: one green thread's panic is its joiner's news, and nobody else's.

#[path = "unmodified/support.rs"]
#[allow(dead_code, reason = "shared with the other tests of this folder")]
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::{CROWD, crowd, is_child, on_workers, run_child, watched};

/// The joiner gets the payload, whatever its type.
#[test]
fn the_payload_reaches_the_joiner() {
    #[derive(Debug, PartialEq)]
    struct Trouble {
        number: usize,
        words: String,
    }
    on_workers("the_payload_reaches_the_joiner", || {
        crowd(CROWD, |number| {
            let words = format!("trouble {number}");
            let trouble = Trouble { number, words };
            let handle = sward::spawn(move || {
                sward::sleep(Duration::from_micros(number as u64 * 10));
                resume_unwind(Box::new(trouble))
            });
            let outcome: Result<(), _> = handle.join();
            let error = outcome.expect_err("it panicked");
            assert!(error.is_panic());
            assert!(!error.to_string().is_empty());
            let payload = error
                .into_panic()
                .downcast::<Trouble>()
                .expect("the payload");
            assert_eq!(payload.words, format!("trouble {number}"));
            assert_eq!(payload.number, number);
        });
    });
}

/// Destructors on the way run on the green thread, and may wait there.
#[test]
fn destructors_run_while_it_unwinds() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            sward::sleep(Duration::from_millis(1));
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    on_workers("destructors_run_while_it_unwinds", || {
        let drops = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&drops);
        crowd(CROWD, move |_| {
            let counted = Counted(Arc::clone(&count));
            let handle = sward::spawn(move || {
                let _counted = counted;
                resume_unwind(Box::new("with a destructor on the way"))
            });
            let outcome: Result<(), _> = handle.join();
            assert!(outcome.is_err());
        });
        assert_eq!(drops.load(Ordering::SeqCst), CROWD);
    });
}

/// Caught inside, it is nobody's news at all.
#[test]
fn a_caught_panic_stays_inside() {
    on_workers("a_caught_panic_stays_inside", || {
        crowd(CROWD, |number| {
            for _ in 0..10 {
                let caught = catch_unwind(AssertUnwindSafe(|| {
                    sward::yield_now();
                    resume_unwind(Box::new(number));
                }));
                let payload = caught.expect_err("a panic").downcast::<usize>();
                assert_eq!(*payload.expect("the payload"), number);
                sward::yield_now();
            }
        });
    });
}

/// The runtime outlives panics that nobody joins.
#[test]
fn unjoined_panics_harm_nobody() {
    on_workers("unjoined_panics_harm_nobody", || {
        for number in 0..CROWD {
            let lost: sward::JoinHandle<()> = sward::spawn(move || resume_unwind(Box::new(number)));
            drop(lost);
        }
        let values = crowd(CROWD, |number| {
            sward::sleep(Duration::from_millis(1));
            number
        });
        assert!(values.into_iter().eq(0..CROWD));
    });
}

/// The panic of the first green thread goes on in the caller of `run`, after the others have ended.
#[test]
fn run_passes_the_panic_on() {
    watched("run_passes_the_panic_on", || {
        let ended = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&ended);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let runtime = sward::Runtime::builder()
                .workers(2)
                .build()
                .expect("a runtime");
            runtime.run(move || {
                sward::spawn(move || {
                    sward::sleep(Duration::from_millis(20));
                    count.fetch_add(1, Ordering::SeqCst);
                });
                resume_unwind(Box::new(7));
            });
        }));
        let payload = caught.expect_err("a panic").downcast::<i32>();
        assert_eq!(*payload.expect("the payload"), 7);
        assert_eq!(ended.load(Ordering::SeqCst), 1, "run came back too soon");
    });
}

/// `panic!` itself: its message is printed, by the standard hook, from a green thread.
#[test]
fn the_message_is_printed() {
    const NAME: &str = "the_message_is_printed";
    if is_child() {
        watched(NAME, || {
            let handle = sward::thread::Builder::new()
                .name("careless".to_owned())
                .spawn(|| panic!("the milk is spilt"))
                .expect("spawn");
            let outcome: Result<(), _> = handle.join();
            let payload = outcome.expect_err("it panicked").into_panic();
            assert_eq!(payload.downcast_ref(), Some(&"the milk is spilt"));
        });
        return;
    }
    let output = run_child(NAME);
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("panicked at"), "{printed}");
    assert!(printed.contains("the milk is spilt"), "{printed}");
}
