//! Where there is no green thread the patched calls do what libc's do: before `main`, at exit, on
//! threads that the runtime knows nothing of, in a forked child, in a signal handler.

#[path = "unmodified/support.rs"]
#[allow(dead_code, reason = "shared with the other tests of this folder")]
mod support;

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::{is_child, on_workers, run_child, watched};

/// A round of blocking calls; gives 0, or says where it went wrong. It allocates nothing, so that it can
/// run anywhere.
fn round_of_calls() -> i32 {
    let mut pair = [0; 2];
    let mut byte = [7_u8];
    let bytes = byte.as_mut_ptr().cast::<libc::c_void>();
    let moment = libc::timespec {
        tv_sec: 0,
        tv_nsec: 2_000_000,
    };
    let word = 5_u32;
    // SAFETY: the pointers are to locals of the sizes that are given, and the descriptors this
    // function's own.
    unsafe {
        if libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr()) != 0 {
            return 1;
        }
        *libc::__errno_location() = 77;
        if libc::write(pair[0], bytes, 1) != 1 || libc::read(pair[1], bytes, 1) != 1 {
            return 2;
        }
        if libc::send(pair[1], bytes, 1, 0) != 1 || libc::recv(pair[0], bytes, 1, 0) != 1 {
            return 3;
        }
        let mut poll = libc::pollfd {
            fd: pair[0],
            events: libc::POLLIN,
            revents: 0,
        };
        if libc::poll(&raw mut poll, 1, 2) != 0 {
            return 4;
        }
        if libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &raw const moment, ptr::null_mut()) != 0
            || libc::sched_yield() != 0
        {
            return 5;
        }
        if *libc::__errno_location() != 77 {
            return 6; // a call that succeeded touched errno
        }
        let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        let waited = libc::syscall(libc::SYS_futex, &raw const word, wait, 6, ptr::null::<u8>());
        if waited != -1 || *libc::__errno_location() != libc::EAGAIN {
            return 7;
        }
        if libc::dup2(pair[0], pair[1]) != pair[1] {
            return 8;
        }
        if libc::close(pair[0]) != 0 || libc::close(pair[1]) != 0 || libc::close(pair[1]) == 0 {
            return 9;
        }
    }
    0
}

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

/// The process ends while green threads sleep, wait and run.
#[test]
fn at_exit_they_pass_through() {
    if is_child() {
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
        assert_eq!(unsafe { libc::atexit(at_exit) }, 0);
        std::process::exit(1);
    }
    let output = run_child("at_exit_they_pass_through");
    assert_eq!(output.status.code(), Some(40), "{output:?}");
}

extern "C" fn foreign(_: *mut libc::c_void) -> *mut libc::c_void {
    ptr::without_provenance_mut(round_of_calls() as usize)
}

/// A thread that neither std nor the runtime made, started by a green thread.
#[test]
fn on_a_foreign_thread_they_pass_through() {
    on_workers("on_a_foreign_thread_they_pass_through", || {
        let mut thread = 0;
        let mut result = ptr::null_mut();
        // SAFETY: the function takes no argument, and the thread is joined.
        unsafe {
            let started =
                libc::pthread_create(&raw mut thread, ptr::null(), foreign, ptr::null_mut());
            assert_eq!(started, 0);
            assert_eq!(libc::pthread_join(thread, &raw mut result), 0);
        }
        assert_eq!(result.addr(), 0, "the round of calls failed");
    });
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
                    assert!(child > 0);
                    let mut status = 0;
                    // SAFETY: the status is a local.
                    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
                    assert_eq!(waited, child);
                    assert!(libc::WIFEXITED(status), "status {status:#x}");
                    libc::WEXITSTATUS(status)
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
        let mut status = 0;
        // SAFETY: the status is a local.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(
            libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
            "{status:#x}"
        );
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
        support::passes_in_child("in_a_signal_handler_they_work");
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
