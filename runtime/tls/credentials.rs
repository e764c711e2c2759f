//! Lets setuid(2) and its kin reach OS threads that run green threads.
//!
//! Called by `facts` (install, once), then by the kernel.
//!
//! # Protocol
//! The kernel keeps user and group ids for each OS thread. glibc changes them in all: it marks
//! each thread in its list, sends it a signal of its own (33, one that sigaction(2) does not give
//! to programs), whose handler makes the change and takes the mark off the thread control block in
//! force, and goes on sending until all marks are off. Under a block that is the wrong thread
//! control block, and the caller would wait forever. So this handler stands before glibc's:
//! 1. it asks the kernel for this OS thread's robust list, which is in the thread's own TCB
//! 2. puts that TCB in force   3. calls glibc's handler   4. puts the former back.
//!
//! # Invariants
//! C1  H1 of `thread_pointer`: [`handler`] is never inlined and uses no thread-local.
//! C2  [`ORIGINAL`] and [`ROBUST_LIST`] are set before [`handler`] is installed.
//!
//! # Memory order
//! The two words are released before, and the system call that installs the handler orders them.

use std::ffi::{c_int, c_void};
use std::mem;
use std::ptr;

use super::layout::Layout;
use crate::platform::{set_thread_pointer, syscall, thread_pointer};
use crate::primitive::atomic::{AtomicUsize, Ordering};

/// The second of the two real-time signals that glibc keeps for itself.
const SIGNAL: usize = 33;

/// glibc's handler (C2).
static ORIGINAL: AtomicUsize = AtomicUsize::new(0);

/// The offset of the robust list in a thread control block (C2).
static ROBUST_LIST: AtomicUsize = AtomicUsize::new(0);

type Handler = unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// The kernel's form of a signal's action, see rt_sigaction(2).
#[repr(C)]
struct Action {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// Puts [`handler`] before glibc's, if glibc has one: it does once a thread was started. Without
/// a known robust list nothing is installed, and setuid(2) does not end while green threads run.
pub(super) fn install(layout: &Layout) {
    let Some(robust_list) = layout.robust_list else {
        return;
    };
    let mut action = Action {
        handler: 0,
        flags: 0,
        restorer: 0,
        mask: 0,
    };
    let change = |new: usize, old: usize| {
        let arguments = [SIGNAL, new, old, mem::size_of::<u64>(), 0, 0];
        // SAFETY: the addresses are null or of an `Action`; the new handler is one that may run
        // at any time (C1), and else the action is glibc's.
        unsafe { syscall(libc::SYS_rt_sigaction, arguments) }
    };
    let address = (&raw mut action).expose_provenance();
    let own = handler as *const () as usize;
    let known = change(0, address) == 0;
    if !known || action.handler <= libc::SIG_IGN || action.handler == own {
        return;
    }
    ROBUST_LIST.store(robust_list.head, Ordering::Release);
    ORIGINAL.store(action.handler, Ordering::Release);
    action.handler = own;
    change((&raw mut action).expose_provenance(), 0);
}

/// The thread pointer that this OS thread was started with, or null if the kernel does not tell.
fn own_thread_pointer() -> *mut u8 {
    let (mut head, mut length) = (0usize, 0usize);
    let arguments = [
        0,
        (&raw mut head).expose_provenance(),
        (&raw mut length).expose_provenance(),
        0,
        0,
        0,
    ];
    // SAFETY: get_robust_list(2) of the calling thread writes the two words.
    let result = unsafe { syscall(libc::SYS_get_robust_list, arguments) };
    if result != 0 || head == 0 {
        return ptr::null_mut();
    }
    ptr::with_exposed_provenance_mut(head - ROBUST_LIST.load(Ordering::Acquire))
}

#[inline(never)]
unsafe extern "C" fn handler(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let here = thread_pointer();
    let own = own_thread_pointer();
    // SAFETY: C2: glibc's handler, called as the kernel would; the thread pointers are this OS
    // thread's own and the one it has now, which is put back (C1).
    unsafe {
        let original = mem::transmute::<usize, Handler>(ORIGINAL.load(Ordering::Acquire));
        if own.is_null() || own == here {
            original(signal, info, context);
        } else {
            set_thread_pointer(own);
            original(signal, info, context);
            set_thread_pointer(here);
        }
    }
}
