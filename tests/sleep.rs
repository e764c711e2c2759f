//! `sward::sleep`: never too short, many at once, in the order of their ends; on OS threads too.

#[path = "unmodified/support.rs"]
#[allow(dead_code, reason = "shared with the other tests of this folder")]
mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::{CROWD, crowd, on_workers, watched};

#[test]
fn never_early() {
    on_workers("never_early", || {
        crowd(CROWD, |number| {
            for round in 0..20 {
                let length = Duration::from_micros(((number * 53 + round * 977) % 15_000) as u64);
                let begun = Instant::now();
                sward::sleep(length);
                let took = begun.elapsed();
                assert!(took >= length, "slept {took:?} instead of {length:?}");
            }
        });
    });
}

#[test]
fn sleeps_overlap() {
    const SLEEP: Duration = Duration::from_millis(50);
    on_workers("sleeps_overlap", || {
        let begun = Instant::now();
        crowd(1_000, |_| sward::sleep(SLEEP));
        let (took, one_by_one) = (begun.elapsed(), SLEEP * 1_000);
        assert!(took >= SLEEP);
        assert!(took < one_by_one / 4, "{took:?} of {one_by_one:?}");
    });
}

#[test]
fn zero_and_on_an_os_thread() {
    watched("zero_and_on_an_os_thread", || {
        let begun = Instant::now();
        sward::sleep(Duration::ZERO);
        sward::sleep(Duration::from_millis(5));
        assert!(begun.elapsed() >= Duration::from_millis(5));
    });
}

/// A sleep longer than any program runs is no overflow, and holds nobody up.
#[test]
fn a_very_long_sleep() {
    watched("a_very_long_sleep", || {
        sward::spawn(|| sward::sleep(Duration::MAX));
        sward::spawn(|| sward::sleep(Duration::from_millis(5)))
            .join()
            .expect("join");
    });
}

/// 10,000 sleepers in five groups, 200 ms apart: on the average, each group wakes before the next.
#[test]
fn ten_thousand_wake_in_order() {
    const SLEEPERS: usize = 10_000;
    const GROUPS: usize = 5;
    on_workers("ten_thousand_wake_in_order", || {
        let woken = Arc::new(Mutex::new(Vec::with_capacity(SLEEPERS)));
        let order = Arc::clone(&woken);
        // Late enough that all are asleep by then.
        let dawn = Instant::now() + Duration::from_millis(500);
        crowd(SLEEPERS, move |number| {
            let group = number % GROUPS;
            let end = dawn + Duration::from_millis(200) * group as u32;
            sward::sleep(end.saturating_duration_since(Instant::now()));
            assert!(Instant::now() >= end, "woke early");
            order.lock().expect("lock").push(group);
        });
        let woken = woken.lock().expect("lock");
        assert_eq!(woken.len(), SLEEPERS);
        let mut places = [0; GROUPS];
        for (place, &group) in woken.iter().enumerate() {
            places[group] += place;
        }
        assert!(places.is_sorted(), "groups woke out of order: {places:?}");
    });
}
