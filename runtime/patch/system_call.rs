//! `syscall`: libc's door to system calls by number.
//!
//! Called by std (`SYS_futex`, and a few calls that have no wrapper) and by C and Rust libraries.
//! Futexes go to [`futex`]; every other number passes through with six arguments.
//!
//! # Variadic in C
//! `long syscall(long number, ...)` can be defined with a fixed list on x86-64: integer and pointer
//! arguments travel alike in both, the number and five of them in registers, the sixth on the
//! stack. Where a caller gave fewer, the rest is whatever lies there; the kernel does not look at
//! arguments that a call does not have. glibc's own does the same.
//!
//! # Fork by number
//! `SYS_fork`, and `SYS_clone` without `CLONE_VM`, run no fork handlers; the child's hooks are
//! turned off here.

use super::active;
use super::futex;
use super::kernel::{answer, call};
use libc::c_long;

/// syscall(2).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn syscall(
    number: c_long,
    first: usize,
    second: usize,
    third: usize,
    fourth: usize,
    fifth: usize,
    sixth: usize,
) -> c_long {
    let arguments = [first, second, third, fourth, fifth, sixth];
    if number == libc::SYS_futex {
        // SAFETY: the caller vouches for the call.
        return answer(unsafe { futex::futex(arguments) }) as c_long;
    }
    // SAFETY: the caller vouches for the call.
    let outcome = unsafe { call(number, arguments) };
    if outcome == Ok(0) && makes_process(number, first) {
        active::deactivate();
    }
    answer(outcome) as c_long
}

/// Whether a call that returned 0 may have returned in a child with memory of its own.
fn makes_process(number: c_long, first: usize) -> bool {
    match number {
        libc::SYS_fork => true,
        libc::SYS_clone => first & libc::CLONE_VM as usize == 0,
        _ => false,
    }
}
