//! The thread pointer: the base of the `fs` segment, which says whose thread-local storage and
//! thread control block are in force.
//!
//! Called by `tls` (its self-check) and by the scheduler, around each stack switch.
//!
//! # Protocol
//! To run with another thread control block: 1. remember [`thread_pointer`]
//! 2. [`set_thread_pointer`] to the other   3. run   4. set the first one back.
//!
//! # Invariants
//! H1  The function that changes the thread pointer is `#[inline(never)]` and uses no
//!     thread-local, errno included, between the change and the stack switch or the change back:
//!     the compiler takes it for granted that the address of a thread-local does not change
//!     within a function, and may have kept one.
//! H2  The word at offset 0x10 of a thread control block is its own address ([`tcb::SELF`]).
//!
//! # Cost
//! `wrfsbase` takes some 11 ns; where the kernel does not let programs use it (AT_HWCAP2 bit 1,
//! see getauxval(3); valgrind and some sandboxes hide it), arch_prctl(2) does the same in a
//! system call.

use std::arch::asm;
use std::sync::atomic::{AtomicU8, Ordering};

use super::syscall::syscall;
use super::tcb;

/// The bit of AT_HWCAP2 that says that the kernel lets programs use `wrfsbase`.
const HWCAP2_FSGSBASE: libc::c_ulong = 1 << 1;

/// The arch_prctl(2) operation that sets the base of `fs`.
const ARCH_SET_FS: usize = 0x1002;

const UNKNOWN: u8 = 0;
const INSTRUCTION: u8 = 1;
const SYSTEM_CALL: u8 = 2;

/// How the thread pointer is set. Anybody writes it, always with the same value.
static WAY: AtomicU8 = AtomicU8::new(UNKNOWN);

/// The thread pointer in force: the address of the thread control block.
#[inline(always)]
pub(crate) fn thread_pointer() -> *mut u8 {
    let pointer: *mut u8;
    // SAFETY: H2: every thread control block, glibc's and ours, has its address there.
    unsafe {
        asm!(
            "mov {pointer}, fs:[{offset}]",
            pointer = out(reg) pointer,
            offset = const tcb::SELF,
            options(nostack, readonly, preserves_flags),
        );
    }
    pointer
}

/// Puts another thread control block, and with it other thread-local storage, in force.
///
/// # Safety
///
/// - `pointer` is the address of a complete thread control block (H2), which is in force nowhere
///   else, and its storage stays valid while it is in force.
/// - The caller keeps H1.
#[inline]
pub(crate) unsafe fn set_thread_pointer(pointer: *mut u8) {
    let way = match WAY.load(Ordering::Relaxed) {
        UNKNOWN => find_way(),
        way => way,
    };
    if way == INSTRUCTION {
        // SAFETY: the processor and the kernel allow it (`find_way`); the caller vouches for the
        // pointer. No `nomem`: memory accesses before and after stay on their side.
        unsafe { asm!("wrfsbase {}", in(reg) pointer, options(nostack, preserves_flags)) };
    } else {
        let arguments = [ARCH_SET_FS, pointer.expose_provenance(), 0, 0, 0, 0];
        // SAFETY: as above. The call fails only for an address that no program can have.
        unsafe { syscall(libc::SYS_arch_prctl, arguments) };
    }
}

/// Whether the thread pointer is set by an instruction, not by a system call.
#[cfg(test)]
fn is_instruction() -> bool {
    match WAY.load(Ordering::Relaxed) {
        UNKNOWN => find_way() == INSTRUCTION,
        way => way == INSTRUCTION,
    }
}

#[cold]
fn find_way() -> u8 {
    // SAFETY: getauxval(3) only reads the vector that the kernel gave the program.
    let capabilities = unsafe { libc::getauxval(libc::AT_HWCAP2) };
    let way = if capabilities & HWCAP2_FSGSBASE != 0 {
        INSTRUCTION
    } else {
        SYSTEM_CALL
    };
    WAY.store(way, Ordering::Relaxed);
    way
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_thread_control_block() {
        // SAFETY: pthread_self(3) has no preconditions.
        let expected = unsafe { libc::pthread_self() };
        assert_eq!(thread_pointer().addr() as libc::pthread_t, expected);
    }

    #[test]
    fn differs_between_threads() {
        let here = thread_pointer().addr();
        let there = std::thread::spawn(|| thread_pointer().addr())
            .join()
            .unwrap();
        assert_ne!(here, there);
    }

    /// Both ways of setting the thread pointer to what it is.
    #[test]
    fn both_ways_set_it() {
        let here = thread_pointer();
        // SAFETY: the thread's own pointer, so nothing changes.
        unsafe { set_thread_pointer(here) };
        assert_eq!(thread_pointer(), here);
        let arguments = [ARCH_SET_FS, here.expose_provenance(), 0, 0, 0, 0];
        // SAFETY: as above.
        let result = unsafe { syscall(libc::SYS_arch_prctl, arguments) };
        assert_eq!((result, thread_pointer()), (0, here));
    }

    #[test]
    fn the_way_is_what_the_kernel_says() {
        // SAFETY: getauxval(3) has no preconditions.
        let capabilities = unsafe { libc::getauxval(libc::AT_HWCAP2) };
        assert_eq!(is_instruction(), capabilities & HWCAP2_FSGSBASE != 0);
    }
}
