//! Makes unmodified blocking code wait like a green thread: libc's functions, interposed.
//!
//! This crate defines the symbols below. In a program that links it they win over libc's, for the
//! program itself and for the shared libraries it uses. Each one first asks whether patching is on
//! and a green thread calls; if not, it makes the same system call as libc's function, sets errno
//! on failure, and does nothing else: no lock, no allocation. So the hooks are harmless before
//! `main`, at exit, on foreign threads, in signal handlers and in a forked child.
//!
//! # What they do on a green thread
//! | symbols | where an OS thread would block | passes straight through |
//! | --- | --- | --- |
//! | `recv` `recvfrom` `recvmsg` `send` `sendto` `sendmsg` | parks until the socket is ready | `MSG_DONTWAIT`, `MSG_OOB` and `MSG_ERRQUEUE` when receiving, `MSG_FASTOPEN` (blocks) |
//! | `read` `readv` `write` `writev` | parks; sockets, pipes, terminals, eventfd, timerfd, inotify | regular files, directories, disks (block) |
//! | `accept` `accept4` | parks | |
//! | `connect` | parks; `O_NONBLOCK` is set for one instant | datagram sockets (never wait) |
//! | `poll` | parks | |
//! | `clock_nanosleep` `nanosleep` `usleep` `sleep` | parks; monotonic, real and boot time | other clocks (block) |
//! | `sched_yield` | lets other green threads run | |
//! | `syscall` | `SYS_futex`: private wait and wake | every other number and operation |
//! | `close` `dup2` `dup3` | tell the reactor, from any thread; never wait | |
//! | `shutdown` | | all |
//! | `__read_chk` `__recv_chk` `__recvfrom_chk` `__poll_chk` | as the plain ones, after glibc's check | |
//!
//! For all of them: a descriptor that the user made non-blocking gives `EAGAIN`; SO_RCVTIMEO and
//! SO_SNDTIMEO hold over the whole call; `EINTR` is never seen; errno is untouched on success;
//! who waits on a number that is closed or replaced stays on the file that it had.
//!
//! # Not supported yet
//! * `select`, `pselect`, `ppoll`, `epoll_wait`, `recvmmsg`, `sendmmsg`, `preadv2`, `pread`,
//!   `splice`, `sendfile`, `fsync`, `flock`, `wait*`, `getaddrinfo`, `pthread_*`, `sem_*`: these
//!   block their worker.
//! * glibc's calls to itself (stdio, the resolver) reach no symbol, nor do its `__read`-like aliases.
//! * Passed-through calls are no cancellation points for `pthread_cancel`.
//! * A signal handler that runs on a green thread's stack and makes a call that would block, parks it,
//!   with the signal blocked on its carrier meanwhile. On an alternate stack its calls pass through.
//! * A call that pauses because nothing tells it when to go on (`POLLPRI`, `MSG_PEEK` with
//!   `MSG_WAITALL`) goes on on whatever has its number then.
//! * `SO_RCVLOWAT` is not honoured by the first try of a receive; `MSG_PEEK` with `MSG_WAITALL` only
//!   by `recv` and `recvfrom`.
//! * Writing more to a terminal than it has room for blocks the worker until it drains.
//! * A connection taken by an OS thread or another process between look and accept: see `accept`.
//!
//! # Linking
//! Definitions in a library count only if the linker takes them in: [`all`] refers to every one
//! (`hooks`) and checks on itself. A shared library binds to the executable's definition if the
//! executable exports it; [`unexported`] tells which are not.
//!
//! # Files
//! * `active`: the switch, and forks
//! * `kernel`, `descriptor`: system calls, and what is asked about a descriptor
//! * `waiting`, `transfer`, `vectors`, `gate`: what a call does when it would block
//! * `socket`, `stream`, `accept`, `connect`, `lifetime`, `readiness`, `time`,
//!   `system_call`, `futex`: the hooks, a family each
//!
//! # Panics
//! A panic in a hook aborts the program (`extern "C"`): no unwinding crosses a libc frame.

mod accept;
mod active;
mod connect;
mod descriptor;
mod futex;
mod gate;
mod kernel;
mod lifetime;
mod readiness;
mod socket;
mod stream;
mod system_call;
#[cfg(test)]
mod tests;
mod time;
mod transfer;
mod vectors;
mod waiting;

use std::ffi::{CStr, c_void};

/// A symbol that this room defines.
#[derive(Clone, Copy, Debug)]
struct Hook {
    symbol: &'static CStr,
    address: *const c_void,
}

/// `hooks![file: symbol …; …]`: the table of these functions.
macro_rules! hooks {
    ($($file:ident: $($symbol:ident)*;)*) => {
        [$($(Hook {
            symbol: {
                const NAME: &str = concat!(stringify!($symbol), "\0");
                // A name of our own ends with the only zero byte in it.
                match CStr::from_bytes_with_nul(NAME.as_bytes()) {
                    Ok(name) => name,
                    Err(_) => panic!("a symbol holds a zero byte"),
                }
            },
            address: $file::$symbol as *const c_void,
        },)*)*]
    };
}

/// Every symbol of this room and its function. Naming them here is what makes the linker take them.
fn hooks() -> impl IntoIterator<Item = Hook> {
    hooks! {
        socket: recv recvfrom recvmsg send sendto sendmsg __recv_chk __recvfrom_chk;
        stream: read readv write writev __read_chk;
        accept: accept accept4;
        connect: connect;
        lifetime: close dup2 dup3 shutdown;
        readiness: poll __poll_chk;
        time: clock_nanosleep nanosleep usleep sleep sched_yield;
        system_call: syscall;
    }
}

/// Lets blocking calls of green threads, in this program and its libraries, wait without holding up
/// their worker.
///
/// Follows `gevent.monkey.patch_all`. May be called at any time, from any thread, and again; calls that
/// are already blocked are not affected. It is off in a forked child, where no worker of its parent
/// runs.
///
/// ```
/// use std::sync::mpsc;
///
/// sward::patch::all();
/// let (sender, receiver) = mpsc::channel();
/// // One worker is enough: whoever waits for the other makes room for it.
/// let runtime = sward::Runtime::builder().workers(1).build()?;
/// let received = runtime.spawn(move || receiver.recv().unwrap()); // std's, and waits
/// runtime.spawn(move || sender.send("a letter").unwrap());
/// assert_eq!(received.join().unwrap(), "a letter");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Panics
///
/// If the program's calls do not reach sward's functions, or there is no memory to watch for forks.
pub fn all() {
    for hook in hooks() {
        std::hint::black_box(hook);
    }
    assert!(
        time::is_reached_by(std::thread::yield_now),
        "sward::patch::all(): this program's calls go to libc and not to sward, so blocking calls \
         would block whole workers. Link sward statically into the executable (an ordinary \
         dependency does), not into a shared library, and load no library before it that defines \
         the same symbols (sched_yield was tried; see LD_PRELOAD)"
    );
    active::activate();
}

/// The patched symbols that the executable does not export: shared libraries that are loaded while
/// the program runs may call libc's in their place, and block whole workers.
///
/// Empty in an ordinary build. If it is not, pass
/// `-C link-args=-Wl,--export-dynamic-symbol=NAME` for each.
///
/// ```
/// assert!(sward::patch::unexported().is_empty());
/// ```
pub fn unexported() -> Vec<&'static str> {
    hooks()
        .into_iter()
        .filter(|hook| {
            // SAFETY: a valid name; RTLD_DEFAULT searches as the dynamic linker does.
            let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, hook.symbol.as_ptr()) };
            !std::ptr::eq(found, hook.address)
        })
        .filter_map(|hook| hook.symbol.to_str().ok())
        .collect()
}
