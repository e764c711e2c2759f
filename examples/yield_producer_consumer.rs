//! A producer and a consumer hand 100,000 items from one to the other, one at a time: each puts or
//! takes one item and then lets the other run, with `yield_now`. Python would use a generator.
//!
//! `cargo run --release --example yield_producer_consumer`

#![allow(clippy::print_stdout, reason = "the output is the example")]

use std::sync::{Arc, Mutex};
use std::time::Instant;

const ITEMS: u64 = 100_000;

fn main() -> std::io::Result<()> {
    // One worker: the two take turns on one OS thread, and the lock below is never waited for.
    let runtime = sward::Runtime::builder().workers(1).build()?;
    let begun = Instant::now();
    let (count, sum) = runtime.run(|| {
        let tray = Arc::new(Mutex::new(None));
        let theirs = Arc::clone(&tray);
        sward::spawn(move || produce(&theirs));
        consume(&tray)
    });
    println!("consumed {count} items in {:.1?}", begun.elapsed());
    assert_eq!(sum, (1..=ITEMS).sum(), "items were lost or doubled");
    Ok(())
}

/// Puts the numbers 1, 2, 3, … on the tray, each once the tray is empty.
fn produce(tray: &Mutex<Option<u64>>) {
    for item in 1..=ITEMS {
        while tray.lock().expect("no panic").is_some() {
            sward::yield_now(); // the consumer's turn
        }
        *tray.lock().expect("no panic") = Some(item);
    }
}

/// Takes all items off the tray; returns how many there were and what they add up to.
fn consume(tray: &Mutex<Option<u64>>) -> (u64, u64) {
    let (mut count, mut sum) = (0, 0);
    while count < ITEMS {
        let item = tray.lock().expect("no panic").take();
        match item {
            Some(item) => {
                count += 1;
                sum += item;
            }
            None => sward::yield_now(), // the producer's turn
        }
    }
    (count, sum)
}
