//! 100,000 green threads asleep at the same moment, on stacks of the default size.

#![allow(clippy::print_stdout, reason = "reports what it measured")]

#[path = "unmodified/support.rs"]
#[allow(dead_code, reason = "shared with the other tests of this folder")]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::{crowd, watched};

const SLEEPERS: usize = 100_000;

/// Nobody wakes for good before all are asleep: each sleeps on until the last one has come.
#[test]
fn a_hundred_thousand_asleep_at_once() {
    watched("a_hundred_thousand_asleep_at_once", || {
        let runtime = sward::Runtime::builder()
            .workers(2)
            .build()
            .expect("a runtime");
        let begun = Instant::now();
        let asleep = Arc::new(AtomicUsize::new(0));
        let woken = runtime.run(move || {
            crowd(SLEEPERS, move |number| {
                asleep.fetch_add(1, Ordering::SeqCst);
                while asleep.load(Ordering::SeqCst) < SLEEPERS {
                    sward::sleep(Duration::from_secs(1));
                }
                number
            })
        });
        assert!(woken.into_iter().eq(0..SLEEPERS));
        println!(
            "{SLEEPERS} green threads asleep at once: {:.1?}, at most {} MiB resident",
            begun.elapsed(),
            peak_memory() >> 20
        );
    });
}

/// The most memory this process ever had resident, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .expect("VmHWM");
    let kibibytes = line.split_whitespace().nth(1).expect("a number");
    1024 * kibibytes.parse::<u64>().expect("a number")
}
