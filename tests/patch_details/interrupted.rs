//! Signals hit the worker while a green thread waits. They are the worker's and not the green thread's,
//! so no wait says `EINTR`, though the handler asks for no restart.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::support::watched;

/// One case at a time, since they share the count of signals.
static ALONE: Mutex<()> = Mutex::new(());
static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

/// Waits, as a green thread, until some more signals have hit the worker.
fn under_fire() {
    let before = HANDLED.load(Ordering::Relaxed);
    while HANDLED.load(Ordering::Relaxed) < before + 20 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `case` on the one worker of a runtime while signals rain on that.
fn in_the_rain(name: &'static str, case: fn()) {
    sward::patch::all();
    // A case that failed leaves nothing behind that matters here.
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the handler is async-signal-safe, and an action of zeros has no flags and an empty mask.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(libc::c_int) = count;
        action.sa_sigaction = handler as libc::sighandler_t;
        let set = libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut());
        assert_eq!(set, 0);
    }
    watched(name, move || {
        let runtime = sward::Runtime::builder().workers(1).build().unwrap();
        // SAFETY: gettid(2) has no preconditions.
        let worker = runtime.run(|| unsafe { libc::gettid() });
        let dry = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&dry);
        let rain = std::thread::spawn(move || {
            let process = std::process::id() as libc::pid_t;
            while !ends.load(Ordering::Relaxed) {
                // SAFETY: the signal has a handler, and the worker outlives the rain.
                unsafe { libc::syscall(libc::SYS_tgkill, process, worker, libc::SIGUSR2) };
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        let outcome = runtime.spawn(case).join();
        dry.store(true, Ordering::Relaxed);
        rain.join().unwrap();
        drop(runtime);
        if let Err(error) = outcome {
            std::panic::resume_unwind(error.into_panic());
        }
    });
}

/// What `call` gives and errno after it. (`libc` and not std, which asks again after `EINTR`.)
fn told(call: impl FnOnce() -> isize) -> (isize, i32) {
    // SAFETY: errno is this green thread's own.
    unsafe {
        *libc::__errno_location() = 0;
        let outcome = call();
        (outcome, *libc::__errno_location())
    }
}

/// What a call gives that succeeds with 1 byte.
const ONE: (isize, i32) = (1, 0);

#[test]
fn receiving() {
    in_the_rain("interrupted::receiving", || {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let green = sward::spawn(move || {
            let mut byte = [0_u8];
            // SAFETY: the byte is a local.
            told(|| unsafe { libc::recv(ours.as_raw_fd(), byte.as_mut_ptr().cast(), 1, 0) })
        });
        under_fire();
        theirs.write_all(&[1]).unwrap();
        assert_eq!(green.join().unwrap(), ONE);
    });
}

#[test]
fn reading() {
    in_the_rain("interrupted::reading", || {
        let (ours, mut theirs) = std::io::pipe().unwrap();
        let green = sward::spawn(move || {
            let mut byte = [0_u8];
            // SAFETY: the byte is a local.
            told(|| unsafe { libc::read(ours.as_raw_fd(), byte.as_mut_ptr().cast(), 1) })
        });
        under_fire();
        theirs.write_all(&[1]).unwrap();
        assert_eq!(green.join().unwrap(), ONE);
    });
}

#[test]
fn accepting() {
    in_the_rain("interrupted::accepting", || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let green = sward::spawn(move || {
            let none = std::ptr::null_mut();
            let accept = || {
                // SAFETY: the address is not asked for.
                let accepted =
                    unsafe { libc::accept(listener.as_raw_fd(), none, std::ptr::null_mut()) };
                if accepted >= 0 {
                    // SAFETY: the new descriptor is nobody else's.
                    unsafe { libc::close(accepted) };
                }
                isize::from(accepted >= 0)
            };
            told(accept)
        });
        under_fire();
        let client = TcpStream::connect(address).unwrap();
        assert_eq!(green.join().unwrap(), ONE);
        drop(client);
    });
}

#[test]
fn polling() {
    in_the_rain("interrupted::polling", || {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let poll = move |milliseconds| {
            let mut entry = libc::pollfd {
                fd: ours.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: the entry is a local.
            told(|| unsafe { libc::poll(&raw mut entry, 1, milliseconds) } as isize)
        };
        assert_eq!(poll(20), (0, 0));
        let green = sward::spawn(move || poll(-1));
        under_fire();
        theirs.write_all(&[1]).unwrap();
        assert_eq!(green.join().unwrap(), ONE);
    });
}

#[test]
fn sending() {
    in_the_rain("interrupted::sending", || {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let bytes = [0_u8; 4096];
        let send = move |flags| {
            let socket = ours.as_raw_fd();
            // SAFETY: the bytes are a local.
            told(|| unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), flags) })
        };
        let mut full = 0_usize;
        while let (sent @ 1.., 0) = send(libc::MSG_DONTWAIT) {
            full += sent as usize;
        }
        let green = sward::spawn(move || send(0));
        under_fire();
        theirs.read_exact(&mut vec![0; full]).unwrap();
        assert_eq!(green.join().unwrap(), (4096, 0));
    });
}

#[test]
fn sleeping() {
    in_the_rain("interrupted::sleeping", || {
        let moment = libc::timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        let clocks = [
            libc::CLOCK_MONOTONIC,
            libc::CLOCK_REALTIME,
            libc::CLOCK_BOOTTIME,
            libc::CLOCK_TAI,
            libc::CLOCK_PROCESS_CPUTIME_ID,
        ];
        for clock in clocks {
            let none = std::ptr::null_mut();
            // SAFETY: the time is a local, and nobody asks what is left of it.
            let slept = unsafe { libc::clock_nanosleep(clock, 0, &raw const moment, none) };
            assert_eq!(slept, 0, "clock {clock}");
        }
    });
}

#[test]
fn waiting_for_a_futex() {
    in_the_rain("interrupted::waiting_for_a_futex", || {
        let word = 0_u32;
        let moment = libc::timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        for private in [libc::FUTEX_PRIVATE_FLAG, 0] {
            let wait = libc::FUTEX_WAIT | private;
            let (word, moment) = (&raw const word, &raw const moment);
            // SAFETY: the word and the time are locals.
            let call = || unsafe { libc::syscall(libc::SYS_futex, word, wait, 0, moment) as isize };
            assert_eq!(told(call), (-1, libc::ETIMEDOUT), "private: {private}");
        }
    });
}
