//! What concerns the process as a whole. Each test runs itself again in a child process, where it
//! may crash, load libraries, or count allocations undisturbed.

use std::env;
use std::ffi::{CStr, c_void};
use std::io;
use std::process::Command;
use std::ptr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::check;
use super::__res_state;
use super::green::Green;

const THREADS: usize = 4;
const ROUNDS: usize = 4_000;
const CHILD: &str = "SWARD_TLS_TEST_CHILD";

/// Runs `body` in a child process, as the test `name` of this file; panics if that fails.
fn in_child(name: &str, body: impl FnOnce()) {
    if env::var_os(CHILD).is_some() {
        return body();
    }
    let path = module_path!().split_once("::").unwrap().1;
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("{path}::{name}"), "--nocapture"])
        .env(CHILD, "1")
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Several OS threads allocate and free at once in one arena, each under a block. Without
/// `multiple_threads` glibc's `free` puts small chunks into a shared list by an exchange that is
/// not atomic, and the heap breaks.
#[test]
fn malloc_knows_of_other_threads() {
    in_child("malloc_knows_of_other_threads", || {
        let start = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let start = &start;
                scope.spawn(move || {
                    let mut green = Green::new();
                    start.wait();
                    green.run(|_| churn(thread));
                });
            }
        });
    });
}

/// Allocates and frees more small blocks than a thread's cache holds, and looks whether they keep
/// their contents.
fn churn(thread: usize) {
    for round in 0..ROUNDS {
        let fill = (thread * 31 + round) as u8;
        let blocks: Vec<Vec<u8>> = (0..64)
            .map(|index| vec![fill; 24 + index % 4 * 32])
            .collect();
        for block in &blocks {
            let whole = block.iter().all(|&byte| byte == fill);
            assert!(whole, "somebody else wrote into this block");
        }
    }
}

/// Waits for the process `child`, which must end with success.
fn expect_success(child: libc::pid_t) {
    let mut status = 0;
    // SAFETY: a child of this process.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "killed: status {status:#x}");
    assert_eq!(libc::WEXITSTATUS(status), 0);
}

#[test]
fn fork_works_under_a_block() {
    in_child("fork_works_under_a_block", || {
        let mut green = Green::new();
        for _ in 0..3 {
            green.run(|_| {
                // SAFETY: fork(2); the child allocates, starts a thread and forks again, all of
                // which glibc allows, and leaves without running anything of the parent's.
                let child = unsafe { libc::fork() };
                assert!(child >= 0);
                if child == 0 {
                    let sum = std::thread::spawn(|| vec![1; 100_000].iter().sum::<usize>());
                    let mut right = sum.join().ok() == Some(100_000);
                    // SAFETY: as above.
                    unsafe {
                        let grandchild = libc::fork();
                        if grandchild == 0 {
                            libc::_exit(0);
                        }
                        let mut status = -1;
                        right &= libc::waitpid(grandchild, &mut status, 0) == grandchild;
                        libc::_exit(libc::c_int::from(!right || status != 0));
                    }
                }
                expect_success(child);
                assert!(Command::new("/bin/true").status().unwrap().success());
            });
            green.reset();
        }
    });
}

#[test]
fn setuid_reaches_all_threads() {
    in_child("setuid_reaches_all_threads", || {
        // SAFETY: the user that the process already runs as.
        let set = |_: &dyn Fn()| unsafe { libc::setuid(libc::getuid()) };
        let (mut first, mut second) = (Green::new(), Green::new());
        assert_eq!(first.run(set), 0);
        let stop = &AtomicUsize::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                first.reset();
                first.run(|_| {
                    while stop.load(Ordering::Relaxed) == 0 {
                        std::hint::spin_loop();
                    }
                });
            });
            assert_eq!(second.run(set), 0);
            assert_eq!(set(&|| ()), 0);
            stop.store(1, Ordering::Relaxed);
        });
    });
}

/// The check needs memory of its own: without any it fails, and keeps its answer.
#[test]
fn a_failed_check_is_an_unsupported_runtime() {
    in_child("a_failed_check_is_an_unsupported_runtime", || {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: getrlimit(2) writes the limit.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) }, 0);
        // SAFETY: setrlimit(2) takes away no memory that is there.
        let set = |limit| unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) };
        let none = libc::rlimit {
            rlim_cur: 0,
            ..limit
        };
        // malloc keeps this for what the check allocates and the message.
        drop(std::hint::black_box(vec![0u8; 64 << 10]));
        let build = || crate::Runtime::builder().workers(1).build();
        assert_eq!(set(none), 0);
        let first = build();
        assert_eq!(set(limit), 0);
        for result in [first, build()] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            let message = error.to_string();
            assert!(message.starts_with("green threads cannot run here: mapping memory: expected"));
            assert!(message.ends_with("; raise the process's limits on memory and threads"));
        }
    });
}

/// A library that is loaded late has its thread-locals new in each green thread, too.
#[test]
fn a_late_librarys_thread_locals_are_new_after_reset() {
    in_child("a_late_librarys_thread_locals_are_new_after_reset", || {
        let facts = check().unwrap();
        let mut early = Green::new();
        assert!(!facts.modules.changed());
        // The C++ library keeps each thread's exceptions: a pointer and a count.
        let globals = function(c"libstdc++.so.6", c"__cxa_get_globals");
        assert!(facts.modules.changed());
        let mut late = Green::new();
        for round in 0..3 {
            for green in [&mut early, &mut late] {
                green.run(|_| {
                    // SAFETY: the address is looked at, not followed.
                    let resolver = unsafe { __res_state() }.addr();
                    let place = resolver.wrapping_sub(crate::platform::thread_pointer().addr());
                    assert_eq!(place, facts.layout.resolver.state);
                    let globals = globals().cast::<[usize; 2]>();
                    // SAFETY: the library's struct of this thread: a pointer and an int, padded.
                    let [_, count] = unsafe { globals.read() };
                    assert_eq!(count as u32, 0, "round {round}");
                    // SAFETY: as above.
                    unsafe { globals.write([0, 7]) };
                });
                green.reset();
            }
        }
    });
}

/// The same when the library was there before the check.
#[test]
fn an_earlier_librarys_thread_locals_are_new_after_reset() {
    in_child(
        "an_earlier_librarys_thread_locals_are_new_after_reset",
        || {
            let globals = function(c"libstdc++.so.6", c"__cxa_get_globals");
            let facts = check().unwrap();
            assert!(!facts.modules.changed());
            let mut green = Green::new();
            for round in 0..3 {
                green.run(|_| {
                    let globals = globals().cast::<[usize; 2]>();
                    // SAFETY: as above.
                    let [_, count] = unsafe { globals.read() };
                    assert_eq!(count as u32, 0, "round {round}");
                    // SAFETY: as above.
                    unsafe { globals.write([0, 7]) };
                });
                green.reset();
            }
        },
    );
}

fn function(library: &CStr, name: &CStr) -> extern "C" fn() -> *mut c_void {
    // SAFETY: a library whose start-up code is harmless, and a function of this type in it.
    unsafe {
        let handle = libc::dlopen(library.as_ptr(), libc::RTLD_NOW);
        assert!(!handle.is_null(), "this test needs {library:?}");
        let address = libc::dlsym(handle, name.as_ptr());
        assert!(!address.is_null());
        std::mem::transmute::<*mut c_void, extern "C" fn() -> *mut c_void>(address)
    }
}

#[test]
fn blocks_that_come_and_go_leak_nothing() {
    in_child("blocks_that_come_and_go_leak_nothing", || {
        // A key beyond those whose values are part of the block.
        let mut last = 0;
        while last < 40 {
            // SAFETY: a new key, without a destructor.
            assert_eq!(unsafe { libc::pthread_key_create(&mut last, None) }, 0);
        }
        let round = || {
            let mut green = Green::new();
            green.run(|_| {
                drop(std::hint::black_box([vec![1u8; 40], vec![2u8; 400]]));
                // SAFETY: a key of ours, without a destructor.
                unsafe { libc::pthread_setspecific(last, ptr::without_provenance(1)) };
            });
            green.reset();
            green.run(|_| drop(std::hint::black_box(vec![3u8; 4_000])));
        };
        // SAFETY: mallinfo2(3) only counts.
        let used = || unsafe { libc::mallinfo2() }.uordblks;
        (0..20).for_each(|_| round());
        let before = used();
        (0..500).for_each(|_| round());
        let after = used();
        assert!(after < before + 20_000, "{before} bytes, then {after}");
    });
}

#[test]
fn a_signal_handler_runs_with_the_blocks_storage() {
    in_child("a_signal_handler_runs_with_the_blocks_storage", || {
        static SEEN: AtomicUsize = AtomicUsize::new(0);
        extern "C" fn handler(_signal: libc::c_int) {
            // SAFETY: pthread_self(3) may be called anywhere.
            SEEN.store(unsafe { libc::pthread_self() } as usize, Ordering::Relaxed);
        }
        // SAFETY: a handler that stores one word; raise(3) to this thread.
        unsafe { libc::signal(libc::SIGUSR1, handler as *const () as libc::sighandler_t) };
        let mut green = Green::new();
        // SAFETY: as above.
        assert_eq!(green.run(|_| unsafe { libc::raise(libc::SIGUSR1) }), 0);
        let seen = SEEN.load(Ordering::Relaxed);
        assert_eq!(ptr::without_provenance_mut(seen), green.thread_pointer());
    });
}
