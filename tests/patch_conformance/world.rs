//! What scenarios are made of: two kinds of threads, calls with their errno, and descriptors.

use std::fmt::Debug;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What errno is before each call: a success must leave it.
pub(crate) const UNTOUCHED: i32 = 4242;

/// A result, and errno after it.
pub(crate) type Seen = (isize, i32);

/// A success that left errno alone.
pub(crate) const fn good(result: isize) -> Seen {
    (result, UNTOUCHED)
}

/// A failure.
pub(crate) const fn bad(number: i32) -> Seen {
    (-1, number)
}

pub(crate) fn errno() -> i32 {
    unsafe { *libc::__errno_location() }
}

pub(crate) fn set_errno(number: i32) {
    unsafe { *libc::__errno_location() = number }
}

/// Makes a call and says what came of it.
pub(crate) fn call<R: TryInto<isize, Error: Debug>>(body: impl FnOnce() -> R) -> Seen {
    set_errno(UNTOUCHED);
    let result = body();
    let errno = errno();
    (result.try_into().unwrap(), errno)
}

/// The kind of threads that a scenario runs on.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) is_green: bool,
    /// The kernel's ids of the OS threads that it made.
    threads: Arc<Mutex<Vec<libc::pid_t>>>,
    spawned: Arc<Mutex<usize>>,
}

/// A thread of either kind.
pub(crate) enum Peer<T> {
    Thread(std::thread::JoinHandle<T>),
    Green(sward::JoinHandle<T>),
}

impl<T: Send + 'static> Peer<T> {
    pub(crate) fn join(self) -> T {
        match self {
            Peer::Thread(thread) => thread.join().unwrap(),
            Peer::Green(thread) => thread.join().unwrap(),
        }
    }
}

impl World {
    fn new(is_green: bool) -> Self {
        World {
            is_green,
            threads: Arc::default(),
            spawned: Arc::default(),
        }
    }

    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Peer<T> {
        if self.is_green {
            return Peer::Green(sward::spawn(body));
        }
        *self.spawned.lock().unwrap() += 1;
        let threads = self.threads.clone();
        Peer::Thread(std::thread::spawn(move || {
            threads.lock().unwrap().push(unsafe { libc::gettid() });
            body()
        }))
    }

    /// Returns when every other thread of the scenario is blocked or has ended.
    pub(crate) fn settle(&self) {
        if self.is_green {
            // One worker: while this one sleeps it polls, and runs what the poll found before it
            // looks at the time again. A few rounds for those whom the others wake in turn.
            for _ in 0..5 {
                sward::sleep(Duration::from_millis(1));
            }
            return;
        }
        self.settle_threads(|call| call >= 0 && call != libc::SYS_futex);
    }

    /// Returns when every OS thread of the scenario is blocked in this system call, or has ended.
    pub(crate) fn settle_in(&self, number: libc::c_long) {
        self.settle_threads(|call| call == number);
    }

    fn settle_threads(&self, is_it: impl Fn(libc::c_long) -> bool) {
        loop {
            let threads = self.threads.lock().unwrap();
            if threads.len() == *self.spawned.lock().unwrap()
                && threads
                    .iter()
                    .all(|&thread| blocked_in(thread).is_none_or(&is_it))
            {
                return;
            }
            drop(threads);
            std::thread::yield_now();
        }
    }
}

/// The system call that an OS thread is blocked in: -1 if it runs, `None` if it is gone.
fn blocked_in(thread: libc::pid_t) -> Option<libc::c_long> {
    let call = std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).ok()?;
    Some(call.split_whitespace().next()?.parse().unwrap_or(-1))
}

/// Runs the scenario on both kinds of threads and compares.
pub(crate) fn compare<T: Debug + PartialEq + Send + 'static>(
    scenario: impl Fn(&World) -> T + Copy + Send + 'static,
) -> T {
    sward::patch::all();
    let on_thread = std::thread::spawn(move || scenario(&World::new(false)))
        .join()
        .unwrap();
    let on_green = on_green(scenario);
    assert_eq!(on_thread, on_green, "OS thread and green thread differ");
    on_green
}

/// Runs the scenario on green threads only.
pub(crate) fn on_green<T: Send + 'static>(
    scenario: impl FnOnce(&World) -> T + Send + 'static,
) -> T {
    sward::patch::all();
    let runtime = sward::Runtime::builder().workers(1).build().unwrap();
    runtime.run(move || scenario(&World::new(true)))
}

/// Descriptors of a pair that some call made.
fn pair(make: impl FnOnce(&mut [RawFd; 2]) -> i32) -> (OwnedFd, OwnedFd) {
    let mut numbers = [-1; 2];
    assert_eq!(make(&mut numbers), 0);
    unsafe {
        (
            OwnedFd::from_raw_fd(numbers[0]),
            OwnedFd::from_raw_fd(numbers[1]),
        )
    }
}

/// A pipe: the end to read from, the end to write to.
pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    pair(|numbers| unsafe { libc::pipe2(numbers.as_mut_ptr(), libc::O_CLOEXEC) })
}

/// Two connected `AF_UNIX` sockets.
pub(crate) fn local_pair(kind: i32) -> (OwnedFd, OwnedFd) {
    pair(|numbers| unsafe {
        libc::socketpair(
            libc::AF_UNIX,
            kind | libc::SOCK_CLOEXEC,
            0,
            numbers.as_mut_ptr(),
        )
    })
}

/// Two connected TCP sockets.
pub(crate) fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// A new unconnected socket.
pub(crate) fn socket(domain: i32, kind: i32) -> OwnedFd {
    let number = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, 0) };
    assert!(number >= 0);
    unsafe { OwnedFd::from_raw_fd(number) }
}

pub(crate) fn flags(descriptor: RawFd) -> i32 {
    unsafe { libc::fcntl(descriptor, libc::F_GETFL) }
}

pub(crate) fn make_non_blocking(descriptor: RawFd) {
    let set = flags(descriptor) | libc::O_NONBLOCK;
    assert_eq!(unsafe { libc::fcntl(descriptor, libc::F_SETFL, set) }, 0);
}

/// Sets SO_RCVTIMEO or SO_SNDTIMEO.
pub(crate) fn set_time_out(descriptor: RawFd, name: i32, limit: Duration) {
    let limit = libc::timeval {
        tv_sec: limit.as_secs() as i64,
        tv_usec: limit.subsec_micros().into(),
    };
    let length = size_of::<libc::timeval>() as u32;
    let set = unsafe {
        libc::setsockopt(
            descriptor,
            libc::SOL_SOCKET,
            name,
            (&raw const limit).cast(),
            length,
        )
    };
    assert_eq!(set, 0);
}

pub(crate) fn recv(descriptor: RawFd, buffer: &mut [u8], flags: i32) -> Seen {
    call(|| unsafe { libc::recv(descriptor, buffer.as_mut_ptr().cast(), buffer.len(), flags) })
}

pub(crate) fn send(descriptor: RawFd, bytes: &[u8], flags: i32) -> Seen {
    call(|| unsafe { libc::send(descriptor, bytes.as_ptr().cast(), bytes.len(), flags) })
}

pub(crate) fn read(descriptor: RawFd, buffer: &mut [u8]) -> Seen {
    call(|| unsafe { libc::read(descriptor, buffer.as_mut_ptr().cast(), buffer.len()) })
}

pub(crate) fn write(descriptor: RawFd, bytes: &[u8]) -> Seen {
    call(|| unsafe { libc::write(descriptor, bytes.as_ptr().cast(), bytes.len()) })
}

/// Receives one short message as text.
pub(crate) fn text(descriptor: RawFd) -> (Seen, String) {
    let mut buffer = [0; 64];
    let seen = read(descriptor, &mut buffer);
    let length = usize::try_from(seen.0).unwrap_or(0);
    (seen, String::from_utf8_lossy(&buffer[..length]).into())
}

/// An iovec array over `parts`.
pub(crate) fn vectors_of(parts: &[Vec<u8>]) -> Vec<libc::iovec> {
    let of = |part: &Vec<u8>| libc::iovec {
        iov_base: part.as_ptr().cast_mut().cast(),
        iov_len: part.len(),
    };
    parts.iter().map(of).collect()
}

/// A message of `vectors` and `control`.
pub(crate) fn message(vectors: &mut [libc::iovec], control: &mut [u64]) -> libc::msghdr {
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len();
    if !control.is_empty() {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(control);
    }
    message
}

/// Bytes that show when some are lost, doubled or moved.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}
