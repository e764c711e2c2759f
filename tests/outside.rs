//! Where there is no green thread the patched calls do what libc's do: before `main`, at exit, on
//! threads that the runtime knows nothing of, in a forked child, in a signal handler.

#[path = "unmodified/support.rs"]
#[allow(dead_code, reason = "shared with the other tests of this folder")]
mod support;

#[path = "outside/fortified.rs"]
mod fortified;
#[path = "outside/hooks.rs"]
mod hooks;

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hooks::{green_round_of_calls, round_of_calls};
use support::{crowd, is_child, on_workers, passes_in_child, run_child, watched};

static BEFORE_MAIN: AtomicI32 = AtomicI32::new(-1);

extern "C" fn before_main() {
    BEFORE_MAIN.store(round_of_calls(), Ordering::Relaxed);
}

#[used]
// SAFETY: the loader calls what stands in this section before `main`; `before_main` needs nothing that
// is made later.
#[unsafe(link_section = ".init_array")]
static CALL_BEFORE_MAIN: extern "C" fn() = before_main;

#[test]
fn before_main_they_pass_through() {
    assert_eq!(BEFORE_MAIN.load(Ordering::Relaxed), 0);
}

extern "C" fn at_exit() {
    // `_exit` ends the process at once with what the round gave.
    // SAFETY: nothing is left to do.
    unsafe { libc::_exit(40 + round_of_calls()) };
}

extern "C" fn at_green_exit() {
    // SAFETY: as above.
    unsafe { libc::_exit(40 + green_round_of_calls()) };
}

/// The process ends while green threads sleep, wait and run.
#[test]
fn at_exit_they_pass_through() {
    if is_child() {
        crowded_until_exit(at_exit);
        std::process::exit(1);
    }
    let output = run_child("at_exit_they_pass_through");
    assert_eq!(output.status.code(), Some(40), "{output:?}");
}

/// A green thread ends the process: the calls of its last moments are a green thread's.
#[test]
fn at_exit_on_a_green_thread_they_work() {
    if is_child() {
        crowded_until_exit(at_green_exit);
        let ended = sward::spawn(|| std::process::exit(1)).join();
        panic!("the process outlives its exit: {ended:?}");
    }
    let output = run_child("at_exit_on_a_green_thread_they_work");
    assert_eq!(output.status.code(), Some(40), "{output:?}");
}

/// Green threads that never end, and what the process is to do when it does.
fn crowded_until_exit(last: extern "C" fn()) {
    sward::patch::all();
    for _ in 0..100 {
        sward::spawn(|| std::thread::sleep(Duration::from_secs(1000)));
        sward::spawn(|| {
            loop {
                sward::yield_now();
            }
        });
    }
    // SAFETY: the handler may run at exit.
    assert_eq!(unsafe { libc::atexit(last) }, 0);
    // Should the exit hang, this ends the child.
    std::thread::spawn(|| {
        watched("the exit of a process with green threads", || {
            loop {
                std::thread::park();
            }
        });
    });
}

extern "C" fn foreign(_: *mut libc::c_void) -> *mut libc::c_void {
    ptr::without_provenance_mut(round_of_calls() as usize)
}

/// Runs a round of calls on a thread that neither std nor the runtime made.
fn round_on_a_foreign_thread() {
    let mut thread = 0;
    let mut result = ptr::null_mut();
    // SAFETY: the function takes no argument, and the thread is joined.
    unsafe {
        let started = libc::pthread_create(&raw mut thread, ptr::null(), foreign, ptr::null_mut());
        assert_eq!(started, 0);
        assert_eq!(libc::pthread_join(thread, &raw mut result), 0);
    }
    assert_eq!(result.addr(), 0, "the round of calls failed");
}

/// Green threads wait on descriptors, whose numbers the runtime notes, and whose numbers are then free.
fn note_descriptors() {
    crowd(30, |_| {
        let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let reader = sward::spawn(move || ours.read(&mut [0]).unwrap());
        sward::yield_now();
        theirs.write_all(&[1]).unwrap();
        assert_eq!(reader.join().unwrap(), 1);
    });
}

/// Started by a green thread, and in the way of the numbers that green threads waited on.
#[test]
fn on_a_foreign_thread_they_pass_through() {
    on_workers("on_a_foreign_thread_they_pass_through", || {
        note_descriptors();
        round_on_a_foreign_thread();
    });
}

/// Before anything is patched, with the symbols in place all the same.
#[test]
fn on_a_foreign_thread_before_the_patch_they_pass_through() {
    if !is_child() {
        passes_in_child("on_a_foreign_thread_before_the_patch_they_pass_through");
        return;
    }
    watched("on_a_foreign_thread_before_the_patch", || {
        round_on_a_foreign_thread();
        let runtime = sward::Runtime::builder().workers(1).build().unwrap();
        runtime.run(round_on_a_foreign_thread);
    });
}

/// Waits for `child`, which is to end by itself, and gives its exit code.
fn exit_code(child: libc::pid_t) -> libc::c_int {
    assert!(child > 0, "no child: {}", std::io::Error::last_os_error());
    let mut status = 0;
    // SAFETY: the status is a local.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "status {status:#x}");
    libc::WEXITSTATUS(status)
}

/// A green thread forks while others wait. The child is a process with one thread: its calls block it,
/// it leaves the parent's waits alone, and it ends when the green thread's function does.
#[test]
fn in_a_forked_child_they_pass_through() {
    on_workers("in_a_forked_child_they_pass_through", || {
        let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let number = ours.as_raw_fd();
        let reader = sward::spawn(move || {
            let mut byte = [0];
            ours.read_exact(&mut byte).map(|()| byte[0])
        });
        sward::sleep(Duration::from_millis(20)); // the reader waits
        let children: Vec<_> = (0..10)
            .map(|_| {
                sward::spawn(move || {
                    // SAFETY: the child makes system calls and ends.
                    let child = unsafe { libc::fork() };
                    if child == 0 {
                        // The parent's reader must not notice.
                        // SAFETY: the child's copy of the number is its own.
                        unsafe { libc::close(number) };
                        sward::sleep(Duration::from_millis(2));
                        sward::yield_now();
                        // SAFETY: nothing is left to do.
                        unsafe { libc::_exit(50 + round_of_calls()) };
                    }
                    exit_code(child)
                })
            })
            .collect();
        for child in sward::joinall(children) {
            assert_eq!(child.unwrap(), 50);
        }
        theirs.write_all(&[9]).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 9);
    });
}

/// The function of a green thread returns in a forked child: the process ends, as when the last thread
/// of a process does.
#[test]
fn a_forked_child_ends_with_its_green_thread() {
    on_workers("a_forked_child_ends_with_its_green_thread", || {
        let forked = sward::spawn(|| {
            // SAFETY: the child does nothing but return.
            unsafe { libc::fork() }
        });
        let child = forked.join().unwrap();
        assert!(child > 0, "the child went on as a green thread");
        assert_eq!(exit_code(child), 0);
    });
}

/// An OS thread forks while green threads wait and run.
#[test]
fn in_a_child_forked_by_an_os_thread_they_pass_through() {
    on_workers(
        "in_a_child_forked_by_an_os_thread_they_pass_through",
        || {
            note_descriptors();
            let sleepers: Vec<_> = (0..20)
                .map(|_| sward::spawn(|| std::thread::sleep(Duration::from_millis(50))))
                .collect();
            for _ in 0..5 {
                let forking = std::thread::spawn(|| {
                    // SAFETY: the child makes system calls and ends.
                    let child = unsafe { libc::fork() };
                    if child == 0 {
                        // SAFETY: nothing is left to do.
                        unsafe { libc::_exit(50 + round_of_calls()) };
                    }
                    exit_code(child)
                });
                assert_eq!(forking.join().unwrap(), 50);
            }
            for sleeper in sward::joinall(sleepers) {
                sleeper.unwrap();
            }
        },
    );
}

/// A green thread makes a process by a bare system call, past libc's handlers for that. Its waits block
/// it, and the parent's go on.
#[test]
fn in_a_child_made_by_number_they_pass_through() {
    on_workers("in_a_child_made_by_number_they_pass_through", || {
        let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let reader = sward::spawn(move || ours.read(&mut [0]).unwrap());
        let (mut told, mut tell) = std::io::pipe().unwrap();
        // SAFETY: the child makes system calls and ends.
        let child = unsafe { libc::syscall(libc::SYS_fork) };
        if child == 0 {
            let mut byte = [0_u8];
            // The parent writes when it has been at work for a while: this waits.
            // SAFETY: the byte is a local; nothing is left to do at the end.
            unsafe {
                let read = libc::read(told.as_raw_fd(), byte.as_mut_ptr().cast(), 1);
                libc::_exit(if read == 1 { 50 + round_of_calls() } else { 49 })
            };
        }
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(1));
        }
        tell.write_all(&[1]).unwrap();
        assert_eq!(exit_code(child as libc::pid_t), 50);
        theirs.write_all(&[1]).unwrap();
        assert_eq!(reader.join().unwrap(), 1);
        drop(tell);
        assert_eq!(told.read(&mut [0]).unwrap(), 0);
    });
}

static HANDLED: AtomicUsize = AtomicUsize::new(0);
static BELL: AtomicI32 = AtomicI32::new(-1);

extern "C" fn ring(_: libc::c_int) {
    // As signal handlers do: one byte into a pipe with room.
    let byte = [1_u8];
    // SAFETY: the descriptor is open while the handler is in place.
    let written = unsafe { libc::write(BELL.load(Ordering::Relaxed), byte.as_ptr().cast(), 1) };
    HANDLED.fetch_add(usize::from(written == 1), Ordering::Relaxed);
}

/// Signals hit carriers at any moment, between green threads too; their handler writes to a pipe.
#[test]
fn in_a_signal_handler_they_work() {
    if !is_child() {
        passes_in_child("in_a_signal_handler_they_work");
        return;
    }
    sward::patch::all();
    watched("in_a_signal_handler_they_work", || {
        let (mut reader, writer) = std::io::pipe().unwrap();
        BELL.store(writer.as_raw_fd(), Ordering::Relaxed);
        let handler: extern "C" fn(libc::c_int) = ring;
        // SAFETY: the handler is async-signal-safe.
        unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
        let runtime = sward::Runtime::builder().workers(2).build().unwrap();
        let drain = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            bytes.len()
        });
        let work: Vec<_> = (0..8)
            .map(|number| {
                runtime.spawn(move || {
                    let begun = Instant::now();
                    let mut rounds = 0_u64;
                    while begun.elapsed() < Duration::from_secs(2) {
                        // SAFETY: errno is this green thread's own.
                        unsafe { *libc::__errno_location() = number };
                        sward::yield_now();
                        // SAFETY: as above.
                        assert_eq!(unsafe { *libc::__errno_location() }, number);
                        std::thread::sleep(Duration::from_micros(rounds % 3));
                        rounds += 1;
                    }
                    rounds
                })
            })
            .collect();
        let mut sent = 0;
        while !work.iter().all(sward::JoinHandle::is_finished) {
            for task in std::fs::read_dir("/proc/self/task").unwrap() {
                let task = task.unwrap();
                let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
                if name.starts_with("sward-") {
                    let task: libc::pid_t = task.file_name().to_str().unwrap().parse().unwrap();
                    let process = std::process::id() as libc::pid_t;
                    // SAFETY: the signal has a handler.
                    unsafe { libc::syscall(libc::SYS_tgkill, process, task, libc::SIGUSR1) };
                    sent += 1;
                }
            }
        }
        for worker in work {
            assert!(worker.join().unwrap() > 0);
        }
        drop(runtime);
        drop(writer);
        let read = drain.join().unwrap();
        assert!(sent > 100, "only {sent} signals were sent");
        assert_eq!(read, HANDLED.load(Ordering::Relaxed));
    });
}

/// What [`close_one`] copies and closes the copy of.
static COPIED: AtomicI32 = AtomicI32::new(-1);
static CLOSED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn close_one(_: libc::c_int) {
    // SAFETY: the copy is this handler's own, and errno is left as it was.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        if libc::close(libc::dup(COPIED.load(Ordering::Relaxed))) == 0 {
            CLOSED.fetch_add(1, Ordering::Relaxed);
        }
        *errno = before;
    }
}

/// A handler closes a descriptor, on an OS thread which itself was closing one that green threads had
/// waited on: whatever that takes, the handler must not wait for it.
#[test]
fn in_a_signal_handler_close_does_not_deadlock() {
    if !is_child() {
        passes_in_child("in_a_signal_handler_close_does_not_deadlock");
        return;
    }
    sward::patch::all();
    watched("in_a_signal_handler_close_does_not_deadlock", || {
        let runtime = sward::Runtime::builder().workers(1).build().unwrap();
        runtime.run(note_descriptors);
        let (_reader, writer) = std::io::pipe().unwrap();
        COPIED.store(writer.as_raw_fd(), Ordering::Relaxed);
        let handler: extern "C" fn(libc::c_int) = close_one;
        // SAFETY: the handler is async-signal-safe.
        unsafe { libc::signal(libc::SIGUSR2, handler as libc::sighandler_t) };
        let (tell, told) = std::sync::mpsc::channel();
        let enough = || CLOSED.load(Ordering::Relaxed) >= 20_000;
        let closing = std::thread::spawn(move || {
            // SAFETY: gettid(2) has no preconditions.
            tell.send(unsafe { libc::gettid() }).unwrap();
            while !enough() {
                // SAFETY: the copy is this thread's own.
                let closed = unsafe { libc::close(libc::dup(COPIED.load(Ordering::Relaxed))) };
                assert_eq!(closed, 0);
            }
        });
        let target = told.recv().unwrap();
        let process = std::process::id() as libc::pid_t;
        while !enough() {
            // SAFETY: the signal has a handler. (If the thread has ended, nothing is sent.)
            unsafe { libc::syscall(libc::SYS_tgkill, process, target, libc::SIGUSR2) };
            std::hint::spin_loop();
        }
        closing.join().unwrap();
    });
}
