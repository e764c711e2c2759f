//! What is particular to x86-64 Linux, so that another processor is one more folder.
//!
//! Called by the rest of `platform` and by `tls`.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`syscall`](mod@syscall) | system calls without libc |
//! | [`thread_pointer`](mod@thread_pointer) | the base of the `fs` segment: whose thread-local storage is in force |
//! | [`floating_point`](mod@floating_point) | how floating-point arithmetic rounds and traps |
//! | [`tcb`] | the head of glibc's thread control block, which the thread pointer points to |

pub(crate) mod floating_point;
pub(crate) mod syscall;
pub(crate) mod tcb;
pub(crate) mod thread_pointer;
