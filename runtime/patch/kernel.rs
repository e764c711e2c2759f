//! The hooks' own way into the kernel, and back out to a C caller.
//!
//! Called by every file of this room. A call through [`kernel!`] touches neither errno nor any
//! symbol, so it may be made before `main`, in a signal handler and in a forked child.
//!
//! # Invariants
//! E1  errno is written by [`answer`] alone, and only on failure.
//! E2  Whatever may run other code of the runtime (a wait, a wake) is wrapped in [`in_runtime`], so
//!     a call that succeeds after a wait leaves errno as it was, and what the runtime itself calls
//!     (the write that wakes its poll, the locks of std) passes through the hooks.

use crate::platform;
use crate::scheduler::context::Inside;
use libc::c_long;

/// What the kernel answered: a count (or descriptor), or an error number.
pub(super) type Outcome = Result<usize, i32>;

/// The largest error number that the kernel returns.
const LAST_ERROR: isize = 4095;

/// `kernel!(SYS_name, argument, …)`: the system call as an [`Outcome`].
macro_rules! kernel {
    ($number:ident $(, $argument:expr)* $(,)?) => {
        $crate::patch::kernel::call(libc::$number, [$($argument as usize),*])
    };
}
pub(super) use kernel;

/// The system call `number`; arguments that are not given are zero.
///
/// # Safety
///
/// As for [`platform::syscall`]. Pointers that the kernel refuses (`EFAULT`) are no breach.
#[inline(always)]
pub(super) unsafe fn call<const GIVEN: usize>(number: c_long, given: [usize; GIVEN]) -> Outcome {
    let mut arguments = [0; 6];
    arguments[..GIVEN].copy_from_slice(&given);
    // SAFETY: handed on to the caller.
    let result = unsafe { platform::syscall(number, arguments) };
    if (-LAST_ERROR..0).contains(&result) {
        Err(-result as i32)
    } else {
        Ok(result as usize)
    }
}

/// Makes the call again for as long as a signal interrupts it: code on a green thread sees no
/// `EINTR`, since which OS thread a signal hits is not its affair.
pub(super) fn uninterrupted(mut call: impl FnMut() -> Outcome) -> Outcome {
    loop {
        match call() {
            Err(libc::EINTR) => {}
            outcome => return outcome,
        }
    }
}

/// The C way to say `outcome`: the count, or -1 with errno set.
#[inline(always)]
pub(super) fn answer(outcome: Outcome) -> isize {
    match outcome {
        Ok(count) => count as isize,
        Err(number) => {
            platform::set_errno(number);
            -1
        }
    }
}

/// [`answer`] for the functions that return `int`.
#[inline(always)]
pub(super) fn answer_int(outcome: Outcome) -> libc::c_int {
    answer(outcome) as libc::c_int
}

/// Runs `body` as a part of the runtime, and puts errno back (E2).
pub(super) fn in_runtime<R>(body: impl FnOnce() -> R) -> R {
    let _inside = Inside::enter();
    let before = platform::errno();
    let result = body();
    platform::set_errno(before);
    result
}
