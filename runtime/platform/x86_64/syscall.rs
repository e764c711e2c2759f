//! System calls without libc: no errno, no cancellation point, no symbol that could be patched.
//!
//! Called where libc's wrappers would touch thread-local storage or come back to a patched
//! symbol.

use std::arch::asm;

/// The system call `number` with `arguments`; those that the call does not have are ignored.
/// Returns what the kernel returned: on failure, the negated error number (-4095 to -1).
///
/// # Safety
///
/// What the system call does with these arguments must be sound: pointers valid for as long as
/// the kernel uses them, no memory of others changed or unmapped.
#[inline(always)]
pub(crate) unsafe fn syscall(number: libc::c_long, arguments: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the kernel's calling convention for x86-64 (syscall(2)): it changes rax, rcx and
    // r11, and the memory that the caller vouches for.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            in("r9") arguments[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::{errno, set_errno};

    #[test]
    fn gives_the_result() {
        // SAFETY: getpid(2) has no preconditions.
        let process = unsafe { syscall(libc::SYS_getpid, [0; 6]) };
        assert_eq!(process, std::process::id() as isize);
    }

    #[test]
    fn gives_the_error_and_leaves_errno() {
        set_errno(libc::EXDEV);
        // SAFETY: there is no descriptor of this number, so nothing is closed.
        let result = unsafe { syscall(libc::SYS_close, [usize::MAX, 0, 0, 0, 0, 0]) };
        assert_eq!(result, -(libc::EBADF as isize));
        assert_eq!(errno(), libc::EXDEV);
    }

    #[test]
    fn passes_all_six_arguments() {
        // SAFETY: a new private mapping where the kernel likes; it is unmapped below.
        let address = unsafe {
            syscall(
                libc::SYS_mmap,
                [
                    0,
                    4096,
                    libc::PROT_READ as usize,
                    (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize,
                    usize::MAX,
                    0,
                ],
            )
        };
        assert!(address > 0);
        // SAFETY: the mapping made above, which nobody uses.
        let result = unsafe { syscall(libc::SYS_munmap, [address as usize, 4096, 0, 0, 0, 0]) };
        assert_eq!(result, 0);
    }
}
