//! The floor: what the processor, the kernel and libc's entry points are, without any policy.
//!
//! Called by every room above it. This room names no other room, and keeps no state but facts
//! about the machine that never change once known.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`clock`] | points in time on the kernel's monotonic clock |
//! | [`futex`] | the kernel's wait and wake on a 32-bit word |
//! | [`x86_64`] | everything that depends on the processor: system calls, thread pointer, TCB layout |
//!
//! # Invariants
//! P1  [`syscall`] leaves errno alone, so that it may be used under any thread pointer.
//! P2  [`errno`] and [`set_errno`] look errno's place up at each call. A caller may therefore
//!     change the thread pointer, or be moved to another OS thread, between two calls.
//!
//! # Memory order
//! The facts are single words that everybody computes alike: relaxed atomics publish nothing else.

#[cfg(not(target_os = "linux"))]
compile_error!("sward runs on Linux only");
#[cfg(all(target_os = "linux", not(target_arch = "x86_64")))]
compile_error!("sward runs on x86-64 only");
#[cfg(all(
    target_os = "linux",
    target_arch = "x86_64",
    not(all(target_env = "gnu", target_pointer_width = "64"))
))]
compile_error!("sward needs glibc and 64-bit pointers: build for x86_64-unknown-linux-gnu");
#[cfg(all(target_os = "linux", target_env = "gnu", target_feature = "crt-static"))]
compile_error!("sward needs a dynamically linked libc: build without target-feature=+crt-static");

pub(crate) mod clock;
pub(crate) mod futex;
pub(crate) mod x86_64;

pub(crate) use self::x86_64::syscall::syscall;
pub(crate) use self::x86_64::thread_pointer::{set_thread_pointer, thread_pointer};

use std::sync::atomic::{AtomicUsize, Ordering};

/// Zero until [`page_size`] was asked once. Anybody writes it, always with the same number.
static PAGE_SIZE: AtomicUsize = AtomicUsize::new(0);

/// The size of a page of memory in bytes: a power of two.
#[inline]
pub(crate) fn page_size() -> usize {
    match PAGE_SIZE.load(Ordering::Relaxed) {
        0 => ask_page_size(),
        size => size,
    }
}

#[cold]
fn ask_page_size() -> usize {
    // SAFETY: getauxval(3) only reads the vector that the kernel gave the program; the entry
    // AT_PAGESZ is always there.
    let size = unsafe { libc::getauxval(libc::AT_PAGESZ) } as usize;
    PAGE_SIZE.store(size, Ordering::Relaxed);
    size
}

/// errno of whoever's thread pointer is set (P2).
#[inline(never)]
pub(crate) fn errno() -> i32 {
    // SAFETY: libc gives a valid, aligned pointer to the calling thread's errno.
    unsafe { *libc::__errno_location() }
}

/// Sets errno of whoever's thread pointer is set (P2).
#[inline(never)]
pub(crate) fn set_errno(value: i32) {
    // SAFETY: libc gives a valid, aligned pointer to the calling thread's errno.
    unsafe { *libc::__errno_location() = value };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_size_is_what_sysconf_says() {
        // SAFETY: sysconf(3) has no preconditions.
        let expected = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        assert_eq!(page_size(), expected as usize);
        assert!(page_size().is_power_of_two());
    }

    #[test]
    fn errno_is_set_and_read() {
        set_errno(libc::EXDEV);
        assert_eq!(errno(), libc::EXDEV);
        assert_eq!(
            std::io::Error::last_os_error().raw_os_error(),
            Some(libc::EXDEV)
        );
        set_errno(0);
        assert_eq!(errno(), 0);
    }
}
