//! A thread-local storage block and a thread control block (TCB) for each green thread, so that
//! `thread_local!`, errno, pthread keys, thread identity and locks that name their owner are right
//! by construction, wherever and with whomever a green thread runs.
//!
//! Called by `stack`, which owns the memory (the block is the top of each stack), and by the
//! scheduler, which sets the thread pointer and calls [`begin`] and [`end`].
//!
//! # Protocol
//! Program start: [`check`] learns this process's [`Facts`] and tries them out, once.
//! Spawn: [`Reserve`] sets aside the memory that glibc will want.
//! Stack taken: [`Block::create`] in new memory, or [`Block::reset`] of a used block.
//! Green thread: 1. its thread pointer is put in force   2. [`begin`]   3. user code   4. [`end`]
//! 5. back to the worker's thread pointer.
//! Stack freed: [`Block::destroy`].
//!
//! # Layout
//! ```text
//!    low                                                              top
//!     [ stack … first frame ][ static TLS: libraries … program ][ struct pthread ]
//!                            ┃<──────────────── block_size ────────────────────>┃
//!                                                               ┃
//!                                                               thread pointer
//! ```
//!
//! # Invariants
//! B1  A block is in force (is some OS thread's thread pointer) on at most one OS thread at a time,
//!     and in force nowhere while it is created, reset or destroyed.
//! B2  Between `create` and `destroy` the block's memory belongs to it alone.
//! B3  Each block's tid is unique among living threads of the process, kernel's included: above
//!     the kernel's maximum (2^22) and below 2^30, where glibc's mutexes keep their flags.
//! B4  `Facts` exist only after every offset in them was seen to hold on a real thread and on a
//!     trial block of this process. Nothing is assumed from a glibc version.
//!
//! # Memory order
//! The only shared word is the tid counter (relaxed: nothing but uniqueness is asked of it). The
//! hand-over of a block between OS threads is ordered by whoever hands the green thread over.
//!
//! # What stays with a block when it is used again
//! libc's own variables (malloc's cache and arena, the resolver's state, message buffers), as they
//! are caches without identity. errno, the locale, the pending `dlerror` and pthread keys do not
//! stay. When a block is destroyed libc's variables are kept for the next block that is made.
//!
//! # Limits
//! - glibc does not know our blocks: a library that is dlopened with initial-exec ("static") TLS
//!   finds zeros, not its initial values, in green threads that are running at that moment; later
//!   ones are right. `pthread_exit`, `pthread_cancel`, `pthread_kill` of another, `pthread_join`
//!   and `pthread_detach` do not work on a green thread's `pthread_t`, nor do priority-inheriting
//!   mutexes under contention (the kernel looks for the owner by tid); robust mutexes work, but
//!   the kernel does not clean up after a green thread that ends while it holds one.
//! - After a dlopen or dlclose of a library with TLS, [`Block::reset`] takes the long way.
//! - setuid(2) and its kin work (`credentials`), unless the kernel does not tell robust lists.
//! - `gdb` and other users of libthread_db do not list green threads.
//! - The floating-point environment and the signal mask are the kernel's or the processor's, not
//!   TLS.
//!
//! # Rejected
//! Saving and restoring libc's and the program's TLS in one shared block at each switch: slower,
//! and addresses of thread-locals would be shared. `_dl_allocate_tls(NULL)`: its memory could be
//! neither on the stack nor recycled. A list of offsets for each glibc version: a wrong one
//! corrupts memory, an observed one cannot be wrong.

mod block;
mod credentials;
mod destructors;
mod facts;
mod layout;
mod modules;
mod symbols;
#[cfg(test)]
mod tests;
mod trial;

pub(crate) use self::block::{Block, Reserve};
pub(crate) use self::destructors::end;
pub(crate) use self::facts::{Facts, check};

/// Prepares the storage in force for user code, as glibc does at the start of a thread: sets the
/// character tables' pointers.
///
/// # Safety
///
/// The caller runs under the thread pointer of a block that was just created or reset, and has
/// not called this for it before.
pub(crate) unsafe fn begin(facts: &Facts) {
    // SAFETY: the function that `symbols` found; it only sets thread-locals of libc.
    unsafe { (facts.functions.initialize_ctype)() };
}
