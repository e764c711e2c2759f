//! The first program: two things that take time, done at the same time.
//!
//! `cargo run --example quickstart`

#![allow(clippy::print_stdout, reason = "the output is the example")]

use std::time::Duration;

fn eat() -> &'static str {
    println!("eat: one bite");
    sward::sleep(Duration::from_millis(500)); // the others go on meanwhile
    println!("eat: another bite");
    "full"
}

fn play() -> &'static str {
    println!("play: one song");
    sward::sleep(Duration::from_secs(1));
    println!("play: another song");
    "happy"
}

fn main() {
    // Two green threads. `joinall` waits for both and gives back what they return, in order.
    let handles = vec![sward::spawn(eat), sward::spawn(play)];
    for outcome in sward::joinall(handles) {
        println!("and now: {}", outcome.expect("no panic"));
    }
}
