//! `std::thread::sleep`: many sleep at once, none wakes early.

use std::time::{Duration, Instant};

use crate::support::{CROWD, crowd, on_workers};

#[test]
fn sleeps_overlap() {
    const SLEEP: Duration = Duration::from_millis(100);
    on_workers("sleeps_overlap", || {
        let begun = Instant::now();
        crowd(CROWD, |_| {
            let begun = Instant::now();
            std::thread::sleep(SLEEP);
            assert!(begun.elapsed() >= SLEEP, "woke after {:?}", begun.elapsed());
        });
        // One after the other they would take 20 seconds.
        let one_by_one = SLEEP * CROWD as u32;
        let took = begun.elapsed();
        assert!(took < one_by_one / 4, "{took:?} of {one_by_one:?}");
    });
}

/// Many lengths at once, among them none at all and less than any clock tick.
#[test]
fn no_sleep_is_too_short() {
    on_workers("no_sleep_is_too_short", || {
        crowd(CROWD, |number| {
            for round in 0..10 {
                let length = Duration::from_micros(((number * 37 + round * 411) % 20_000) as u64);
                let begun = Instant::now();
                std::thread::sleep(length);
                let took = begun.elapsed();
                assert!(took >= length, "slept {took:?} instead of {length:?}");
            }
            std::thread::sleep(Duration::ZERO);
        });
    });
}
