//! One call of every patched symbol, written so that it can run anywhere: it allocates nothing and needs
//! no runtime, no std and nothing that is made after the loader has done its work.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr;

use crate::fortified::{__poll_chk, __read_chk, __recv_chk, __recvfrom_chk};

/// Counts the allocations of each thread on that thread, and is the system's allocator otherwise.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does the work; the counter is a plain number without a destructor, and
// so needs no allocation itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: handed on to the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: handed on to the caller.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The errno a round begins with. A call that succeeds leaves it.
const UNTOUCHED: c_int = 77;

/// How a round goes: the number of its present step, and the first that failed.
struct Round {
    step: c_int,
    failed: c_int,
}

impl Round {
    fn errno() -> c_int {
        // SAFETY: errno of this thread, which is always there.
        unsafe { *libc::__errno_location() }
    }

    fn set_errno(errno: c_int) {
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = errno };
    }

    /// The call `name` was to succeed and to leave errno.
    fn gives(&mut self, name: &str, held: bool) {
        self.note(name, held && Self::errno() == UNTOUCHED);
    }

    /// The call `name` was to fail with `errno`.
    fn fails(&mut self, name: &str, failed: bool, errno: c_int) {
        self.note(name, failed && Self::errno() == errno);
    }

    fn note(&mut self, name: &str, held: bool) {
        self.step += 1;
        if !held && self.failed == 0 {
            self.failed = self.step;
            let errno = if Self::errno() == UNTOUCHED {
                "\n"
            } else {
                ", and errno changed\n"
            };
            for text in ["a round of calls fails at ", name, errno] {
                // SAFETY: the text is as long as it says.
                unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
            }
        }
        Self::set_errno(UNTOUCHED);
    }
}

/// Calls every patched symbol once or more, none of which waits for another thread. Gives 0, or the number
/// (below 100) of the first step that went wrong, which it also names on standard error. An allocation
/// on the way is the last such step.
pub(crate) fn round_of_calls() -> c_int {
    let before = ALLOCATIONS.get();
    let mut round = every_call();
    round.gives("allocating nothing", ALLOCATIONS.get() == before);
    round.failed
}

/// As [`round_of_calls`], on a green thread, where the calls may allocate.
pub(crate) fn green_round_of_calls() -> c_int {
    every_call().failed
}

fn every_call() -> Round {
    Round::set_errno(UNTOUCHED);
    let mut round = Round { step: 0, failed: 0 };
    streams(&mut round);
    sockets(&mut round);
    connections(&mut round);
    sleeps(&mut round);
    futexes(&mut round);
    round
}

fn streams(round: &mut Round) {
    let mut pipe = [0; 2];
    let mut bytes = [7_u8; 4];
    let room = bytes.as_mut_ptr().cast::<c_void>();
    let part = libc::iovec {
        iov_base: room,
        iov_len: 2,
    };
    // SAFETY: the pointers are to locals of the sizes that are given, and the descriptors this
    // function's own.
    unsafe {
        round.gives("pipe", libc::pipe(pipe.as_mut_ptr()) == 0);
        let [reader, writer] = pipe;
        round.gives("write", libc::write(writer, room, 2) == 2);
        round.gives("read", libc::read(reader, room, 4) == 2);
        round.gives("writev", libc::writev(writer, &raw const part, 1) == 2);
        round.gives("readv", libc::readv(reader, &raw const part, 1) == 2);
        libc::write(writer, room, 2);
        round.gives("__read_chk", __read_chk(reader, room, 4, 4) == 2);

        let mut entry = libc::pollfd {
            fd: reader,
            events: libc::POLLIN,
            revents: 0,
        };
        let entry = &raw mut entry;
        round.gives("poll in vain", libc::poll(entry, 1, 2) == 0);
        round.gives(
            "__poll_chk in vain",
            __poll_chk(entry, 1, 2, size_of::<libc::pollfd>()) == 0,
        );
        libc::write(writer, room, 2);
        round.gives("poll", libc::poll(entry, 1, -1) == 1);
        round.gives(
            "__poll_chk",
            __poll_chk(entry, 1, -1, size_of::<libc::pollfd>()) == 1,
        );

        round.gives("dup2", libc::dup2(reader, writer) == writer);
        round.gives(
            "dup3",
            libc::dup3(reader, writer, libc::O_CLOEXEC) == writer,
        );
        round.gives(
            "close",
            libc::close(reader) == 0 && libc::close(writer) == 0,
        );
        round.fails("close of none", libc::close(-1) == -1, libc::EBADF);
        round.fails("read of none", libc::read(-1, room, 4) == -1, libc::EBADF);
    }
}

fn sockets(round: &mut Round) {
    let mut pair = [0; 2];
    let mut bytes = [7_u8; 4];
    let room = bytes.as_mut_ptr().cast::<c_void>();
    let mut part = libc::iovec {
        iov_base: room,
        iov_len: 2,
    };
    let none = ptr::null_mut();
    let size = ptr::null_mut();
    // SAFETY: as in `streams`; a message header of zeros is one without address, parts and control data.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        let message = &raw mut message;
        let made = libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr());
        round.gives("socketpair", made == 0);
        let [ours, theirs] = pair;
        round.gives("send", libc::send(ours, room, 2, 0) == 2);
        round.gives("recv", libc::recv(theirs, room, 4, 0) == 2);
        round.gives("sendto", libc::sendto(ours, room, 2, 0, none, 0) == 2);
        round.gives(
            "recvfrom",
            libc::recvfrom(theirs, room, 4, 0, none, size) == 2,
        );
        round.gives("sendmsg", libc::sendmsg(ours, message, 0) == 2);
        round.gives("recvmsg", libc::recvmsg(theirs, message, 0) == 2);
        libc::send(ours, room, 4, 0);
        round.gives("__recv_chk", __recv_chk(theirs, room, 2, 4, 0) == 2);
        let received = __recvfrom_chk(theirs, room, 4, 4, 0, none, size);
        round.gives("__recvfrom_chk", received == 2);
        round.gives("shutdown", libc::shutdown(ours, libc::SHUT_WR) == 0);
        round.gives("recv at the end", libc::recv(theirs, room, 4, 0) == 0);
        round.gives(
            "close of a socket",
            libc::close(ours) == 0 && libc::close(theirs) == 0,
        );
    }
}

fn connections(round: &mut Round) {
    let mut size = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: as in `streams`; an IPv4 address of zeros is one that `bind` fills in.
    unsafe {
        let mut address: libc::sockaddr_in = std::mem::zeroed();
        address.sin_family = libc::AF_INET as libc::sa_family_t;
        address.sin_addr.s_addr = libc::INADDR_LOOPBACK.to_be();
        let address = (&raw mut address).cast::<libc::sockaddr>();
        let socket = || libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        let listener = socket();
        let bound = libc::bind(listener, address, size) == 0
            && libc::listen(listener, 4) == 0
            && libc::getsockname(listener, address, &raw mut size) == 0;
        round.gives("listen", bound);
        let first = socket();
        round.gives("connect", libc::connect(first, address, size) == 0);
        let first_peer = libc::accept(listener, ptr::null_mut(), ptr::null_mut());
        round.gives("accept", first_peer >= 0);
        let second = socket();
        round.gives("connect again", libc::connect(second, address, size) == 0);
        let second_peer = libc::accept4(
            listener,
            ptr::null_mut(),
            ptr::null_mut(),
            libc::SOCK_CLOEXEC,
        );
        round.gives("accept4", second_peer >= 0);
        for descriptor in [first, first_peer, second, second_peer, listener] {
            round.gives("close of a connection", libc::close(descriptor) == 0);
        }
    }
}

fn sleeps(round: &mut Round) {
    let moment = libc::timespec {
        tv_sec: 0,
        tv_nsec: 2_000_000,
    };
    let moment = &raw const moment;
    let none = ptr::null_mut();
    // SAFETY: the time is a local, and nobody asks what is left of it.
    unsafe {
        let slept = libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, moment, none);
        round.gives("clock_nanosleep", slept == 0);
        round.gives("nanosleep", libc::nanosleep(moment, none) == 0);
        round.gives("usleep", libc::usleep(10) == 0);
        round.gives("sleep", libc::sleep(0) == 0);
        round.gives("sched_yield", libc::sched_yield() == 0);
    }
}

fn futexes(round: &mut Round) {
    let word = 5_u32;
    let word = &raw const word;
    let moment = libc::timespec {
        tv_sec: 0,
        tv_nsec: 2_000_000,
    };
    let moment = &raw const moment;
    let none = ptr::null::<u8>();
    let every = libc::FUTEX_BITSET_MATCH_ANY;
    for private in [libc::FUTEX_PRIVATE_FLAG, 0] {
        let wait = libc::FUTEX_WAIT | private;
        let wait_bits = libc::FUTEX_WAIT_BITSET | private;
        let wake = libc::FUTEX_WAKE | private;
        let wake_bits = libc::FUTEX_WAKE_BITSET | private;
        // SAFETY: the word and the time are locals, and nobody else waits on the word.
        unsafe {
            let futex = libc::SYS_futex;
            let woken = libc::syscall(futex, word, wake, 1);
            round.gives("FUTEX_WAKE", woken == 0);
            let woken = libc::syscall(futex, word, wake_bits, 1, none, none, every);
            round.gives("FUTEX_WAKE_BITSET", woken == 0);
            let waited = libc::syscall(futex, word, wait, 6, none);
            round.fails("FUTEX_WAIT for another value", waited == -1, libc::EAGAIN);
            let waited = libc::syscall(futex, word, wait, 5, moment);
            round.fails("FUTEX_WAIT", waited == -1, libc::ETIMEDOUT);
            // Two milliseconds after the machine was started: long ago.
            let waited = libc::syscall(futex, word, wait_bits, 5, moment, none, every);
            round.fails("FUTEX_WAIT_BITSET", waited == -1, libc::ETIMEDOUT);
        }
    }
    // SAFETY: neither call has preconditions.
    let same = unsafe { libc::syscall(libc::SYS_getpid) == i64::from(libc::getpid()) };
    round.gives("another system call", same);
}
