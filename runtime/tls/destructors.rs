//! The end of a green thread's storage: destructors of thread-locals and of pthread keys.
//!
//! Called by the scheduler, on the green thread and under its thread pointer, after user code.
//!
//! # Protocol
//! 1. thread-local destructors, the latest registered first
//! 2. a round over the pthread keys: each value that is not null is set to null, then given to its
//!    key's destructor, if the key is the one that the value was set for
//! 3. if any was called, thread-local destructors that those registered, and again from 2 while
//!    there are values: four rounds at most (`PTHREAD_DESTRUCTOR_ITERATIONS`)
//! 4. values left are dropped without a call; locale, pending `dlerror` and errno as in the
//!    beginning.
//!
//! glibc does the same when a thread ends, but that in step 3 it leaves the thread-locals out.
//!
//! # Invariants
//! D1  A value is null before its destructor runs, so none runs twice for one value.
//! D2  When [`end`] returns no destructor of a thread-local is left: glibc's list of them is among
//!     libc's variables, which stay with the block.
//! D3  A destructor may block and come back on another OS thread: what is kept across its call is
//!     addresses in this block, which stay.
//!
//! # Memory order
//! The table of keys is changed by other threads; it is read with relaxed atomics, as glibc does:
//! who deletes a key while a thread ends must itself see to the order.

use std::ffi::c_void;
use std::mem;
use std::ptr;

use super::facts::Facts;
use crate::platform::{set_errno, thread_pointer};
use crate::primitive::atomic::{AtomicUsize, Ordering};

/// `PTHREAD_DESTRUCTOR_ITERATIONS` of limits.h.
const ROUNDS: usize = 4;

/// `LC_GLOBAL_LOCALE` of locale.h.
const GLOBAL_LOCALE: libc::locale_t = ptr::without_provenance_mut(usize::MAX);

const WORD: usize = mem::size_of::<usize>();

/// Runs the destructors of the storage in force, as at a thread's end, and leaves libc's variables
/// as at a thread's beginning.
///
/// # Safety
///
/// - The caller runs under the thread pointer of a [`Block`](super::Block) on which no user code
///   will run any more, on the green thread's own stack.
/// - It holds no reference into thread-locals.
///
/// # Aborts
///
/// If a destructor panics, as std does.
pub(crate) unsafe fn end(facts: &Facts) {
    let block = thread_pointer();
    // SAFETY: the caller's promise; `call_tls_destructors` is the function that `symbols` found.
    unsafe {
        (facts.functions.call_tls_destructors)();
        for _ in 0..ROUNDS {
            if !keys_used(facts, block) || !run_round(facts, block) {
                break;
            }
            (facts.functions.call_tls_destructors)();
        }
        drop_values(facts, block);
        libc::uselocale(GLOBAL_LOCALE);
        // The first call takes a message left behind, the next frees it.
        if !libc::dlerror().is_null() {
            libc::dlerror();
        }
    }
    set_errno(0);
}

/// Whether a key of this block may have been set since the byte was last cleared.
///
/// # Safety
///
/// `block` is a complete block's thread pointer.
#[inline]
unsafe fn keys_used(facts: &Facts, block: *mut u8) -> bool {
    match facts.layout.keys_used {
        // SAFETY: the byte lies in the block. Volatile: glibc writes it unseen.
        Some(offset) => unsafe { block.add(offset).read_volatile() != 0 },
        None => true,
    }
}

/// # Safety
///
/// As [`keys_used`].
#[inline]
unsafe fn clear_keys_used(facts: &Facts, block: *mut u8) {
    if let Some(offset) = facts.layout.keys_used {
        // SAFETY: as in `keys_used`.
        unsafe { block.add(offset).write_volatile(0) };
    }
}

/// One round over the keys. Returns whether it called a destructor, which may have set keys again.
///
/// # Safety
///
/// As [`end`]; `block` is the thread pointer in force.
unsafe fn run_round(facts: &Facts, block: *mut u8) -> bool {
    let (keys, layout) = (&facts.keys, &facts.layout);
    // SAFETY: offsets within the block, and within the blocks of values that glibc allocated for
    // it, as the check has seen them (B4). A destructor has the type that pthread_key_create(3)
    // demands, and the table's word holds it.
    unsafe {
        clear_keys_used(facts, block);
        let mut any = false;
        for index in 0..layout.key_blocks.size / WORD {
            let values = block.add(layout.key_blocks.offset + index * WORD);
            let values = values.cast::<*mut u8>().read_volatile();
            if values.is_null() {
                continue;
            }
            for slot in 0..keys.values_in_block {
                let key = index * keys.values_in_block + slot;
                let value = values.add(slot * keys.value_size);
                let data = value.add(keys.value_data).cast::<*mut c_void>();
                let taken = data.read_volatile();
                if taken.is_null() {
                    continue;
                }
                data.write_volatile(ptr::null_mut());
                let sequence = value.add(keys.value_sequence).cast::<usize>().read();
                if sequence != load(keys.sequence(key)) {
                    continue;
                }
                let destructor = load(keys.destructor(key));
                if destructor != 0 {
                    let destructor =
                        mem::transmute::<usize, extern "C" fn(*mut c_void)>(destructor);
                    destructor(taken);
                    any = true;
                }
            }
        }
        any
    }
}

/// Reads a word of the table of keys.
///
/// # Safety
///
/// `word` is one of [`Keys`](super::layout::Keys)' pointers.
unsafe fn load(word: *const usize) -> usize {
    // SAFETY: the table lives forever; glibc, too, changes it with atomic operations.
    unsafe { AtomicUsize::from_ptr(word.cast_mut()).load(Ordering::Relaxed) }
}

/// Drops all values of pthread keys without calling destructors, and the memory of the blocks of
/// values but the first.
///
/// # Safety
///
/// `block` is a complete block's thread pointer, and no code runs on the block meanwhile but the
/// caller.
pub(super) unsafe fn drop_values(facts: &Facts, block: *mut u8) {
    let layout = &facts.layout;
    // SAFETY: offsets within the block (B4); glibc got the other blocks from calloc(3).
    unsafe {
        for index in 1..layout.key_blocks.size / WORD {
            let values = block.add(layout.key_blocks.offset + index * WORD);
            let values = values.cast::<*mut c_void>();
            let taken = values.read_volatile();
            if !taken.is_null() {
                values.write_volatile(ptr::null_mut());
                libc::free(taken);
            }
        }
        let first = block.add(layout.first_key_block);
        ptr::write_bytes(first, 0, facts.keys.block_size());
        clear_keys_used(facts, block);
    }
}
