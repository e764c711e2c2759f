//! Stacks for green threads: mapped many at a time, guarded, recycled while hot, counted so that
//! a promised stack is always there.
//!
//! Called by `thread` and `task` (reserve at spawn), `coroutine` (runs on a [`Stack`]),
//! `scheduler` (takes a stack when a green thread first runs, puts it back when it has ended).
//!
//! | file | what it is |
//! | --- | --- |
//! | [`slab`] | size classes, the layout of one stack, one mapping for many of them, guards |
//! | [`pool`] | promises, free stacks, growth: one for a runtime |
//! | [`cache`] | the few hottest stacks of one worker |
//! | [`overflow`] | the report of a stack overflow |
//!
//! # A stack
//! ```text
//!  low                                                                     top
//!   ┃ guard (16 KiB) ┃ usable stack …               ◀─ grows down ┃ tls block ┃
//!   ┃ faults         ┃ untouched pages cost nothing                ┃ and TCB   ┃
//!   limit()                                                       base()      next stack's low
//! ```
//! The block is at the top, as glibc has it for its own threads, so that the first frames share
//! its second page: an idle green thread touches two pages.
//!
//! # Protocol
//! Spawn:      1. [`Pool::reserve`]: whatever can be refused is refused here
//! First run:  2. [`Cache::take`], else [`Pool::take`]: block made or made as new
//! End:        3. [`Cache::put`]; the coldest one of a full cache goes to [`Pool::give_back`]
//!             4. the [`Reservation`] is dropped, before or after 3.
//!
//! # Invariants
//! K1  A stack is in one place: in use, in one cache, or in the pool. Only who holds it touches
//!     its memory.
//! K2  Bytes [top - block, top) of a stack without a block are zero.
//! K3  For each size class there are at least as many free stacks in the pool as promises not yet
//!     redeemed; see [`pool`].
//! K4  A slab is unmapped only when all its stacks are back in the pool.
//! K5  The guard of a stack is in place from before its first use for as long as it is mapped.
//!
//! K6  The thread pointer of a stack that is put or given back is in force nowhere: the next who
//!     takes it makes the block as new. `take`, `put`, `give_back`, `clear` and the drop of a pool
//!     run under the caller's own thread pointer, because blocks are made and destroyed there.
//!
//! # Limits
//! `reserve`, `take`, the ways back and the drop of a reservation may allocate or free memory. No
//! system call here but those of [`overflow`] touches errno.
//!
//! A promise covers address space, mappings and malloc's memory. As for any memory under
//! overcommit, that the kernel has pages when they are touched cannot be promised: neither for
//! the stack's contents nor for the page table of its guard.

mod cache;
mod overflow;
mod pool;
mod slab;
#[cfg(all(test, not(loom)))]
mod tests;

pub(crate) use self::cache::Cache;
pub(crate) use self::overflow::{AlternateStack, Culprit, install};
pub(crate) use self::pool::{Pool, Reservation};

use self::slab::Region;
use crate::primitive::atomic::{AtomicUsize, Ordering};
use crate::tls::Block;
use corosensei::stack::StackPointer;
use std::ops::Range;

/// The size of a stack when nobody says: std's for a thread.
const DEFAULT_SIZE: usize = 2 << 20;

/// A stack for one green thread, with its thread-local storage block.
///
/// Dropping it outside the pool leaks it, and with it the slab that it is part of: goes back by
/// [`Cache::put`] or [`Pool::give_back`].
#[derive(Debug)]
pub(crate) struct Stack {
    region: Region,
    block: Block,
}

// SAFETY: a stack is memory and a block in it, both owned (K1) and tied to no OS thread: a block
// is made, reset and destroyed by whoever holds the stack, wherever that is.
unsafe impl Send for Stack {}

impl Stack {
    /// What to set the thread pointer to for code that runs on this stack.
    #[inline]
    pub(crate) fn thread_pointer(&self) -> *mut u8 {
        self.block.thread_pointer()
    }

    /// The addresses below the usable ones, where an overflow faults.
    #[inline]
    pub(crate) fn guard(&self) -> Range<usize> {
        self.region.guard()
    }

    /// The addresses that code on this stack may use.
    #[inline]
    pub(crate) fn usable(&self) -> Range<usize> {
        self.region.usable()
    }
}

// SAFETY: K5 gives the guard; the smallest size class is larger than `MIN_STACK_SIZE`; `Region`
// keeps base and limit aligned and other than zero.
unsafe impl corosensei::stack::Stack for Stack {
    #[inline]
    fn base(&self) -> StackPointer {
        StackPointer::new(self.usable().end).expect("mapped memory is not at address 0")
    }

    #[inline]
    fn limit(&self) -> StackPointer {
        StackPointer::new(self.guard().start).expect("mapped memory is not at address 0")
    }
}

/// The size of a stack when nobody says: the environment's `RUST_MIN_STACK` in bytes, as it was at
/// the first call, else 2 MiB.
pub(crate) fn default_size() -> usize {
    /// The size once it is known, else 0. Anybody writes it; it publishes nothing else.
    static SIZE: AtomicUsize = AtomicUsize::new(0);
    match SIZE.load(Ordering::Relaxed) {
        0 => {
            let asked = std::env::var_os("RUST_MIN_STACK");
            let size = parse_size(asked.as_deref().and_then(std::ffi::OsStr::to_str));
            match SIZE.compare_exchange(0, size, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => size,
                Err(earlier) => earlier,
            }
        }
        size => size,
    }
}

/// The size that `asked` stands for; the default if it is no number. Never 0.
fn parse_size(asked: Option<&str>) -> usize {
    asked
        .and_then(|text| text.parse().ok())
        .map_or(DEFAULT_SIZE, |size: usize| size.max(1))
}
