//! Spawning: from green and from OS threads, names and ids, stack sizes, and being refused.

#[path = "unmodified/support.rs"]
#[allow(dead_code, reason = "shared with the other tests of this folder")]
mod support;

use std::collections::HashSet;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sward::thread::Builder;

use support::{CROWD, crowd, is_child, on_workers, passes_in_child, watched};

/// No ceremony: the default runtime starts itself.
#[test]
fn from_a_plain_os_thread() {
    watched("from_a_plain_os_thread", || {
        let words = String::from("hello");
        let handle = sward::spawn(move || format!("{words}, green thread"));
        assert_eq!(handle.join().expect("join"), "hello, green thread");
    });
}

#[test]
fn from_many_os_threads_at_once() {
    watched("from_many_os_threads_at_once", || {
        let spawners: Vec<_> = (0..8)
            .map(|_| {
                std::thread::spawn(|| crowd(CROWD, |number| number).into_iter().sum::<usize>())
            })
            .collect();
        for spawner in spawners {
            assert_eq!(spawner.join().expect("an OS thread"), (0..CROWD).sum());
        }
    });
}

/// A tree: each green thread spawns two more and adds up what they return.
#[test]
fn from_green_threads() {
    fn leaves(depth: usize) -> usize {
        if depth == 0 {
            return 1;
        }
        let halves = [depth - 1; 2].map(|depth| sward::spawn(move || leaves(depth)));
        let leaves = sward::joinall(halves).into_iter();
        leaves.map(|leaves| leaves.expect("join")).sum()
    }
    on_workers("from_green_threads", || assert_eq!(leaves(10), 1 << 10));
}

/// More than any run queue holds, spawned before the first one can run on a single worker.
#[test]
fn ten_thousand_at_once() {
    on_workers("ten_thousand_at_once", || {
        let ran = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&ran);
        crowd(10_000, move |_| count.fetch_add(1, Ordering::Relaxed));
        assert_eq!(ran.load(Ordering::Relaxed), 10_000);
    });
}

#[test]
fn names_and_ids() {
    on_workers("names_and_ids", || {
        let handle = Builder::new()
            .name("Ada".to_owned())
            .spawn(|| {
                let thread = sward::current();
                assert_eq!(thread.name(), Some("Ada"));
                sward::yield_now();
                assert_eq!(sward::current().id(), thread.id());
                thread.id()
            })
            .expect("spawn");
        assert_eq!(handle.thread().name(), Some("Ada"));
        let from_outside = handle.thread().id();
        assert_eq!(handle.join().expect("join"), from_outside);

        let nameless = sward::spawn(|| sward::current().name().is_none());
        assert!(nameless.join().expect("join"));

        let ids: HashSet<_> = crowd(CROWD, |_| sward::current().id())
            .into_iter()
            .collect();
        assert_eq!(ids.len(), CROWD);
    });
}

/// `current` works on OS threads too, so that they can be unparked like green threads.
#[test]
fn current_on_os_threads() {
    watched("current_on_os_threads", || {
        let mine = sward::current().id();
        assert_eq!(sward::current().id(), mine);
        let other = std::thread::spawn(|| sward::current().id());
        assert_ne!(other.join().expect("join"), mine);
        let green = sward::spawn(|| sward::current().id());
        assert_ne!(green.join().expect("join"), mine);
    });
}

/// Uses at least a kilobyte of stack for each level.
fn descend(levels: usize) -> usize {
    let frame = black_box([levels; 128]);
    match levels {
        0 => 0,
        _ => descend(levels - 1) + frame[127] / levels,
    }
}

/// Ten megabytes at the least: many times the default stack.
#[test]
fn a_big_stack_holds_deep_recursion() {
    const LEVELS: usize = 10_000;
    on_workers("a_big_stack_holds_deep_recursion", || {
        let handles: Vec<_> = (0..10)
            .map(|_| {
                let builder = Builder::new().stack_size(64 << 20);
                builder.spawn(|| descend(LEVELS)).expect("spawn")
            })
            .collect();
        for depth in sward::joinall(handles) {
            assert_eq!(depth.expect("join"), LEVELS);
        }
    });
}

/// Stacks of different sizes side by side, each big enough for what it was asked for.
#[test]
fn stacks_of_many_sizes() {
    on_workers("stacks_of_many_sizes", || {
        crowd(CROWD, |number| {
            let size = (64 << 10) << (number % 6);
            let levels = size / (8 << 10);
            let builder = Builder::new().stack_size(size);
            let handle = builder.spawn(move || descend(levels)).expect("spawn");
            assert_eq!(handle.join().expect("join"), levels);
        });
    });
}

/// std rounds a stack that is too small up; so do we.
#[test]
fn a_tiny_stack_is_rounded_up() {
    on_workers("a_tiny_stack_is_rounded_up", || {
        let handle = Builder::new().stack_size(1).spawn(|| 7).expect("spawn");
        assert_eq!(handle.join().expect("join"), 7);
    });
}

/// Without address space for another stack `spawn` gives an error, `try_spawn` gives the closure
/// back as well, and the program goes on.
#[test]
fn refused_for_want_of_memory() {
    const NAME: &str = "refused_for_want_of_memory";
    if is_child() {
        watched(NAME, be_refused);
    } else {
        passes_in_child(NAME);
    }
}

fn be_refused() {
    /// More stacks of 8 MiB than the limit below has room for.
    const TOO_MANY: usize = 1_000;
    let runtime = sward::Runtime::builder()
        .workers(2)
        .build()
        .expect("a runtime");
    runtime.run(|| {
        // The first one runs before the limit, as it may make what all share.
        sward::spawn(|| ()).join().expect("join");
        limit_address_space(2 << 30);

        let go = Arc::new(AtomicBool::new(false));
        let mut handles = Vec::with_capacity(TOO_MANY);
        let refused = loop {
            let go = Arc::clone(&go);
            let wait = move || {
                while !go.load(Ordering::SeqCst) {
                    sward::sleep(Duration::from_millis(10));
                }
                1
            };
            match Builder::new().stack_size(8 << 20).try_spawn(wait) {
                Ok(handle) => handles.push(handle),
                Err(refused) => break refused,
            }
            assert!(handles.len() < TOO_MANY, "the limit limits nothing");
        };
        assert!(handles.len() > 10, "refused after only {}", handles.len());
        let again = Builder::new().stack_size(8 << 20).spawn(|| ());
        assert!(again.is_err(), "spawn is refused as try_spawn was");

        // The closure came back whole: it can run right here.
        go.store(true, Ordering::SeqCst);
        let closure = refused.into_function();
        assert_eq!(closure(), 1);
        let count = handles.len();
        let sum: usize = sward::joinall(handles)
            .into_iter()
            .map(|one| one.expect("join"))
            .sum();
        assert_eq!(sum, count);

        // With the others gone there is room again.
        let handle = Builder::new()
            .stack_size(8 << 20)
            .spawn(|| 2)
            .expect("spawn");
        assert_eq!(handle.join().expect("join"), 2);
    });
}

/// Allows this process `more` bytes of address space than it has now.
fn limit_address_space(more: u64) {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: u64 = statm
        .split(' ')
        .next()
        .expect("size")
        .parse()
        .expect("a number");
    // SAFETY: asks for a number; sets a limit from a structure that outlives the call.
    let outcome = unsafe {
        let page = u64::try_from(libc::sysconf(libc::_SC_PAGESIZE)).expect("a page size");
        let limit = libc::rlimit {
            rlim_cur: pages * page + more,
            rlim_max: libc::RLIM_INFINITY,
        };
        libc::setrlimit(libc::RLIMIT_AS, &raw const limit)
    };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}
