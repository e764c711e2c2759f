//! Faults: a stack that overflows is reported with the green thread's name; other faults stay what
//! they are. Each in a child process, which dies of it.

#[path = "unmodified/support.rs"]
#[allow(dead_code, reason = "shared with the other tests of this folder")]
mod support;

use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;

use support::{is_child, run_child, watched};

/// Calls itself until the stack is used up.
#[expect(unconditional_recursion, reason = "that is the point")]
fn dig(depth: usize) -> usize {
    let frame = black_box([depth; 64]);
    dig(depth + 1) + frame[0]
}

/// Runs the test `name` in a child, where `fault` happens; wants it to die by `signal`. Returns what
/// the child wrote to stderr.
fn dies(name: &'static str, signal: i32, fault: fn()) -> String {
    if is_child() {
        watched(name, fault);
        // Not reached; if it is, the parent sees that the child passed.
        return String::new();
    }
    let output = run_child(name);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.signal(),
        Some(signal),
        "{}: {said}",
        output.status
    );
    said
}

/// True in the parent, if `said` has all of `words`; in the child nothing is left to check.
fn check(said: &str, words: &[&str]) {
    for word in words {
        assert!(is_child() || said.contains(word), "no {word:?} in {said:?}");
    }
}

fn overflow_named(name: Option<&str>) {
    let runtime = sward::Runtime::builder()
        .workers(2)
        .build()
        .expect("a runtime");
    let name = name.map(str::to_owned);
    runtime.run(|| {
        let mut builder = sward::thread::Builder::new();
        if let Some(name) = name {
            builder = builder.name(name);
        }
        let handle = builder.spawn(|| {
            // Not on a first, fresh stretch: after a switch or two.
            sward::yield_now();
            dig(0)
        });
        let _ = handle.expect("spawn").join();
    });
}

#[test]
fn names_the_green_thread() {
    let fault = || overflow_named(Some("deep"));
    let said = dies("names_the_green_thread", libc::SIGABRT, fault);
    check(&said, &["green thread 'deep' ", "has overflowed its stack"]);
}

#[test]
fn one_without_a_name() {
    let fault = || overflow_named(None);
    let said = dies("one_without_a_name", libc::SIGABRT, fault);
    check(&said, &["green thread '", "has overflowed its stack"]);
}

/// A stack that another green thread has used before is guarded as well as a new one.
#[test]
fn on_a_used_stack() {
    let fault = || {
        let runtime = sward::Runtime::builder()
            .workers(1)
            .build()
            .expect("a runtime");
        runtime.run(|| {
            support::crowd(100, |_| sward::yield_now());
            overflow_here("second hand");
        });
    };
    let said = dies("on_a_used_stack", libc::SIGABRT, fault);
    check(
        &said,
        &["green thread 'second hand' ", "has overflowed its stack"],
    );
}

fn overflow_here(name: &str) {
    let builder = sward::thread::Builder::new().name(name.to_owned());
    let _ = builder.spawn(|| dig(0)).expect("spawn").join();
}

/// An OS thread's overflow is std's to report, also while green threads are about.
#[test]
fn of_an_os_thread() {
    let fault = || {
        sward::spawn(|| ()).join().expect("join");
        let builder = std::thread::Builder::new().name("plain".to_owned());
        let _ = builder.spawn(|| dig(0)).expect("spawn").join();
    };
    let said = dies("of_an_os_thread", libc::SIGABRT, fault);
    check(&said, &["thread 'plain'", "has overflowed its stack"]);
    assert!(!said.contains("green thread"), "{said}");
}

/// A wild pointer is no overflow: it ends the process as on a thread.
#[test]
fn a_wild_pointer_is_a_plain_fault() {
    let fault = || {
        let wild = sward::spawn(|| {
            let nowhere = std::ptr::without_provenance::<u8>(black_box(16));
            // SAFETY: none. Nothing is mapped there, and the fault is what the test is about.
            unsafe { nowhere.read_volatile() }
        });
        let _ = wild.join();
    };
    let said = dies("a_wild_pointer_is_a_plain_fault", libc::SIGSEGV, fault);
    assert!(!said.contains("overflowed"), "{said}");
}
