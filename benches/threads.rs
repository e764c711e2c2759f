//! What green threads cost, next to std's threads: each operation is measured in turn, round by round,
//! so that a busy machine slows both. Prints medians and their ratio.
//!
//! `cargo bench --bench threads`

#![allow(clippy::print_stdout, reason = "the figures are the output")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

const ROUNDS: usize = 15;

/// An operation: its name, how often a round does it, on green threads, on std's.
type Pair = (&'static str, u32, fn(u32), fn(u32));

fn main() -> std::io::Result<()> {
    let pairs: [Pair; 4] = [
        ("spawn and join", 2_000, spawn_green, spawn_std),
        ("yield, two threads", 50_000, yield_green, yield_std),
        ("unpark and park, round trip", 5_000, park_green, park_std),
        (
            "send and receive on an mpsc channel, round trip",
            5_000,
            channel_green,
            channel_std,
        ),
    ];
    sward::patch::all();
    let runtime = sward::Runtime::builder().workers(2).build()?;
    println!(
        "{:<50} {:>10} {:>10} {:>7}",
        "median of 15 rounds, ns", "green", "std", "ratio"
    );
    for (name, times, green, std) in pairs {
        let (mut greens, mut stds) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            greens.push(runtime.run(move || nanoseconds(times, green)));
            stds.push(nanoseconds(times, std));
        }
        let (green, std) = (median(greens), median(stds));
        println!("{name:<50} {green:>10.0} {std:>10.0} {:>7.1}", std / green);
    }
    Ok(())
}

/// How long one of `times` operations takes.
fn nanoseconds(times: u32, operation: fn(u32)) -> f64 {
    let begun = Instant::now();
    operation(times);
    begun.elapsed().as_nanos() as f64 / f64::from(times)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn spawn_green(times: u32) {
    for _ in 0..times {
        sward::spawn(|| ()).join().expect("no panic");
    }
}

fn spawn_std(times: u32) {
    for _ in 0..times {
        std::thread::spawn(|| ()).join().expect("no panic");
    }
}

fn yield_green(times: u32) {
    let other = sward::spawn(move || (0..times / 2).for_each(|_| sward::yield_now()));
    (0..times / 2).for_each(|_| sward::yield_now());
    other.join().expect("no panic");
}

fn yield_std(times: u32) {
    let other = std::thread::spawn(move || (0..times / 2).for_each(|_| std::thread::yield_now()));
    (0..times / 2).for_each(|_| std::thread::yield_now());
    other.join().expect("no panic");
}

/// One side of a round trip: waits for its turn, takes it, wakes the other, `times` over.
fn take_turns(times: u32, side: u32, turn: &AtomicU32, park: fn(), wake_other: impl Fn()) {
    for round in 0..times {
        while turn.load(Ordering::Acquire) != 2 * round + side {
            park();
        }
        turn.store(2 * round + side + 1, Ordering::Release);
        wake_other();
    }
}

fn park_green(times: u32) {
    let turn = Arc::new(AtomicU32::new(0));
    let (theirs, me) = (turn.clone(), sward::current());
    let other = sward::spawn(move || take_turns(times, 1, &theirs, sward::park, || me.unpark()));
    take_turns(times, 0, &turn, sward::park, || other.thread().unpark());
    other.join().expect("no panic");
}

fn park_std(times: u32) {
    let turn = Arc::new(AtomicU32::new(0));
    let (theirs, me) = (turn.clone(), std::thread::current());
    let park = std::thread::park;
    let other = std::thread::spawn(move || take_turns(times, 1, &theirs, park, || me.unpark()));
    take_turns(times, 0, &turn, park, || other.thread().unpark());
    other.join().expect("no panic");
}

/// Both ends of the two channels; the far end echoes.
fn channel(times: u32, spawn: impl FnOnce(Box<dyn FnOnce() + Send>)) {
    let (ask, asked) = std::sync::mpsc::channel();
    let (answer, answered) = std::sync::mpsc::channel();
    spawn(Box::new(move || {
        asked
            .iter()
            .try_for_each(|item: u32| answer.send(item))
            .expect("the other end is there");
    }));
    for item in 0..times {
        ask.send(item).expect("the other end is there");
        assert_eq!(answered.recv(), Ok(item));
    }
}

fn channel_green(times: u32) {
    channel(times, |far_end| drop(sward::spawn(far_end)));
}

fn channel_std(times: u32) {
    channel(times, |far_end| drop(std::thread::spawn(far_end)));
}
