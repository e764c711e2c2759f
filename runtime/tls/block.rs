//! One green thread's storage and thread control block, in memory that belongs to its stack.
//!
//! Called by `stack`. See the room's head for the protocol and the invariants.
//!
//! # What is written where
//! | part of the block | `create` | `reset` |
//! | --- | --- | --- |
//! | modules' variables | by glibc | templates copied again, or by glibc if modules changed |
//! | libc's variables | by glibc, or a destroyed block's | kept |
//! | dynamic thread vector | by glibc | kept, or made anew if modules changed or it owns storage |
//! | head of the TCB | filled in | `multiple_threads` again |
//! | tid, list node, robust list, cancellation | as of a new thread | as of a new thread |
//! | pthread keys | zero | zero |
//! | resolver's state, message buffers | zero | kept |

use std::ffi::{c_int, c_void};
use std::mem;
use std::ptr::{self, NonNull};

use super::destructors::drop_values;
use super::facts::{Facts, check};
use crate::platform::thread_pointer;
use crate::platform::x86_64::tcb::{self, DynamicThreadVectorEntry};
use crate::primitive::Mutex;
use crate::primitive::atomic::{AtomicU64, Ordering};

const WORD: usize = mem::size_of::<usize>();

/// The kernel's highest thread number, PID_MAX_LIMIT (B3).
const KERNEL_HIGHEST: u64 = 1 << 22;

/// glibc keeps flags in this bit and above of the word where a mutex has its owner's tid (B3).
const MUTEX_FLAGS: u64 = 1 << 30;

/// How many tids were given out. Anybody adds; nothing but the count is published.
static TIDS: AtomicU64 = AtomicU64::new(0);

/// libc's variables of destroyed blocks: malloc's cache is in there and would be lost.
static LEFT_BEHIND: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// Unique until it has been called some 10^9 times (B3).
fn next_tid() -> c_int {
    let count = TIDS.fetch_add(1, Ordering::Relaxed);
    (KERNEL_HIGHEST + 1 + count % (MUTEX_FLAGS - KERNEL_HIGHEST - 1)) as c_int
}

/// A thread-local storage block with its thread control block.
///
/// It has no `Drop`: its memory is its stack's, which calls [`destroy`](Block::destroy) before it
/// gives the memory away. A block that is dropped leaks what glibc allocated for it.
#[derive(Debug)]
pub(crate) struct Block {
    thread_pointer: NonNull<u8>,
}

// SAFETY: a block is memory and what glibc allocated for it, tied to no OS thread. That only one
// OS thread uses it at a time is B1.
unsafe impl Send for Block {}

impl Block {
    /// Makes a block in the [`Facts::block_size`] bytes below `top`. `None` if glibc gets no
    /// memory.
    ///
    /// # Safety
    ///
    /// - `top` is a multiple of [`Facts::block_align`]; the memory below is zeroed and writable,
    ///   and stays the block's until [`destroy`](Block::destroy) (B2).
    /// - The caller runs under its own thread pointer: an OS thread's, or a green thread's that is
    ///   running.
    pub(crate) unsafe fn create(facts: &Facts, top: *mut u8) -> Option<Block> {
        let layout = &facts.layout;
        let align = facts.block_align;
        // SAFETY: the block's memory, as the caller promises; block_size was computed to hold
        // both parts with this alignment. The offsets are B4's.
        unsafe {
            let pointer = top.sub(layout.pthread_size.next_multiple_of(align));
            if (facts.functions.allocate_tls)(pointer).is_null() {
                return None;
            }
            if let Some(variables) = LEFT_BEHIND.lock().pop() {
                let libc = facts.modules.libc();
                let storage = pointer.offset(libc.start);
                ptr::copy_nonoverlapping(variables.as_ptr(), storage, variables.len());
            }
            let mut block = Block {
                thread_pointer: NonNull::new_unchecked(pointer),
            };
            let home = thread_pointer();
            for guard in [tcb::STACK_GUARD, tcb::POINTER_GUARD] {
                block.write(guard, home.add(guard).cast::<usize>().read());
            }
            block.write(tcb::TCB, pointer);
            block.write(tcb::SELF, pointer);
            block.write(
                layout.key_blocks.offset,
                pointer.add(layout.first_key_block),
            );
            let resolver = pointer.offset(layout.resolver.pointer);
            let state = pointer.add(layout.resolver.state);
            resolver.cast::<*mut u8>().write(state);
            block.write_identity(facts);
            Some(block)
        }
    }

    /// What the thread pointer is while this block is in force.
    #[inline]
    pub(crate) fn thread_pointer(&self) -> *mut u8 {
        self.thread_pointer.as_ptr()
    }

    /// Makes a used block as new. `None` if glibc gets no memory; the block is then as it was, and
    /// may be reset later or destroyed.
    ///
    /// # Safety
    ///
    /// - The block is in force nowhere (B1), and [`end`](super::end) has returned for the green
    ///   thread it was used for, if there was one (D2 in `destructors`).
    /// - The caller runs under its own thread pointer: an OS thread's, or a green thread's that is
    ///   running.
    pub(crate) unsafe fn reset(&mut self, facts: &Facts) -> Option<()> {
        let pointer = self.thread_pointer();
        // SAFETY: the caller's promises; offsets are B4's.
        unsafe {
            if facts.modules.changed() || self.owns_storage(facts) {
                self.renew(facts)?;
            } else {
                facts.modules.write_initial_values(pointer);
            }
            let used = facts.layout.keys_used;
            if used.is_none_or(|used| pointer.add(used).read() != 0) {
                drop_values(facts, pointer);
            }
            self.write_identity(facts);
        }
        Some(())
    }

    /// Tells glibc where the stack is, for how much it may take at once; it has no other use for
    /// it. Without it, or if [`Facts`] do not know the place, glibc takes up to 64 KiB at once.
    ///
    /// # Safety
    ///
    /// The block is in force nowhere, or with the caller. `size` bytes from `low` are the stack
    /// that the block's green thread runs on.
    pub(crate) unsafe fn set_stack_bounds(&mut self, facts: &Facts, low: *mut u8, size: usize) {
        if let Some(offset) = facts.layout.stack_bounds {
            // SAFETY: two words in the block (B4).
            unsafe {
                self.write(offset, low);
                self.write(offset + WORD, size);
            }
        }
    }

    /// Gives glibc back what it allocated for the block. The memory remains with the stack.
    ///
    /// # Safety
    ///
    /// As [`reset`](Block::reset).
    pub(crate) unsafe fn destroy(self) {
        // A block was made with facts, so there are some.
        if let Ok(facts) = check() {
            // SAFETY: the caller's promise.
            unsafe { self.destroy_with(facts) };
        }
    }

    /// [`destroy`](Block::destroy) for the trial, which runs within [`check`].
    ///
    /// # Safety
    ///
    /// As [`destroy`](Block::destroy).
    pub(super) unsafe fn destroy_with(self, facts: &Facts) {
        // SAFETY: the caller's promise.
        unsafe {
            drop_values(facts, self.thread_pointer());
            if let Some(variables) = self.libc_variables(facts) {
                LEFT_BEHIND.lock().push(variables);
            }
            (facts.functions.deallocate_tls)(self.thread_pointer(), false);
        }
    }

    /// Writes what every green thread begins with, whoever had the block before.
    ///
    /// # Safety
    ///
    /// The block is complete but for this, and in force nowhere.
    #[inline]
    unsafe fn write_identity(&mut self, facts: &Facts) {
        let layout = &facts.layout;
        let pointer = self.thread_pointer();
        // SAFETY: offsets within the block (B4). The list node and the robust list are linked to
        // themselves, as empty ones are: fork(2)'s child unlinks the node, and robust mutexes
        // link themselves behind the head.
        unsafe {
            self.write::<c_int>(tcb::MULTIPLE_THREADS, 1);
            self.write::<c_int>(layout.tid, next_tid());
            let list = pointer.add(layout.list);
            self.write(layout.list, list);
            self.write(layout.list + WORD, list);
            if let Some(robust) = layout.robust_list {
                let head = pointer.add(robust.head);
                self.write(robust.head - WORD, head);
                self.write(robust.head, head);
                self.write(robust.head + WORD, robust.futex_offset);
                self.write(robust.head + 2 * WORD, 0usize);
            }
            if let Some(cancellation) = layout.cancellation {
                self.write::<c_int>(cancellation, 0);
            }
            if let Some(processor) = layout.processor {
                pointer.offset(processor).cast::<c_int>().write(-1);
            }
        }
    }

    /// Whether a module's storage was allocated for this block alone.
    ///
    /// # Safety
    ///
    /// As [`reset`](Block::reset).
    #[inline]
    unsafe fn owns_storage(&self, facts: &Facts) -> bool {
        if !facts.modules.dynamic && facts.modules.changes_are_seen() {
            return false;
        }
        // SAFETY: the head holds the vector, whose entry -1 tells how many entries follow entry 0.
        unsafe {
            let vector = self.read::<*const DynamicThreadVectorEntry>(tcb::DYNAMIC_THREAD_VECTOR);
            let entries = vector.sub(1).read().value;
            (1..=entries).any(|index| !vector.add(index).read().to_free.is_null())
        }
    }

    /// Has glibc make the storage anew, with all modules there are now, but keeps libc's
    /// variables. The new vector comes before the old one goes, so that a failure changes nothing.
    ///
    /// # Safety
    ///
    /// As [`reset`](Block::reset).
    #[cold]
    unsafe fn renew(&mut self, facts: &Facts) -> Option<()> {
        let pointer = self.thread_pointer();
        let libc = facts.modules.libc();
        // SAFETY: the caller's promise. `allocate_tls` puts its new vector into the head and
        // copies templates; `deallocate_tls` frees the vector that the head names.
        unsafe {
            let storage = pointer.offset(libc.start);
            let variables = Box::<[u8]>::from(std::slice::from_raw_parts(storage, libc.len()));
            let old = self.read::<*mut c_void>(tcb::DYNAMIC_THREAD_VECTOR);
            if (facts.functions.allocate_tls)(pointer).is_null() {
                return None;
            }
            ptr::copy_nonoverlapping(variables.as_ptr(), storage, variables.len());
            let new = self.read::<*mut c_void>(tcb::DYNAMIC_THREAD_VECTOR);
            self.write(tcb::DYNAMIC_THREAD_VECTOR, old);
            (facts.functions.deallocate_tls)(pointer, false);
            self.write(tcb::DYNAMIC_THREAD_VECTOR, new);
        }
        Some(())
    }

    /// A copy of libc's variables, unless one of them is bound to this block's place: only the
    /// pointer to the resolver's state may be, which `create` writes anew.
    ///
    /// # Safety
    ///
    /// As [`reset`](Block::reset).
    unsafe fn libc_variables(&self, facts: &Facts) -> Option<Box<[u8]>> {
        let libc = facts.modules.libc();
        let end = self.thread_pointer().addr() + facts.layout.pthread_size;
        let block = end.saturating_sub(facts.block_size)..end;
        // SAFETY: libc's variables in this block, which nobody changes meanwhile.
        let mut variables: Box<[u8]> = unsafe {
            let storage = self.thread_pointer().offset(libc.start);
            std::slice::from_raw_parts(storage, libc.len()).into()
        };
        let resolver = (facts.layout.resolver.pointer - libc.start).cast_unsigned();
        variables[resolver..resolver + WORD].fill(0);
        let misalignment = libc.start.rem_euclid(WORD as isize).cast_unsigned();
        let (words, _) = variables[(WORD - misalignment) % WORD..].as_chunks::<WORD>();
        let bound = words
            .iter()
            .any(|word| block.contains(&usize::from_ne_bytes(*word)));
        (!bound).then_some(variables)
    }

    /// # Safety
    ///
    /// `T` at `offset` lies within the block and has this type.
    #[inline(always)]
    unsafe fn write<T>(&mut self, offset: usize, value: T) {
        // SAFETY: the caller's promise.
        unsafe { self.thread_pointer().add(offset).cast::<T>().write(value) };
    }

    /// # Safety
    ///
    /// As [`write`](Block::write).
    #[inline(always)]
    unsafe fn read<T>(&self, offset: usize) -> T {
        // SAFETY: the caller's promise.
        unsafe { self.thread_pointer().add(offset).cast::<T>().read() }
    }
}

/// The size in bytes of the dynamic thread vector of whoever calls: about that of a new one.
fn vector_size() -> usize {
    let head = thread_pointer();
    // SAFETY: every TCB's head names a vector, whose entry -1 tells how many entries follow entry
    // 0; only the thread itself changes it.
    let entries = unsafe {
        let vector = head.add(tcb::DYNAMIC_THREAD_VECTOR);
        let vector = vector.cast::<*const DynamicThreadVectorEntry>().read();
        vector.sub(1).read().value
    };
    (entries + 2) * mem::size_of::<DynamicThreadVectorEntry>()
}

/// Memory set aside when a green thread is spawned, for what glibc will allocate when its block is
/// made: dropped just before [`Block::create`], it lets that succeed when memory is short.
///
/// It is larger than what malloc keeps in a thread's cache, which `calloc` does not look into.
#[derive(Debug)]
pub(crate) struct Reserve {
    memory: NonNull<c_void>,
}

// SAFETY: memory from malloc, which any thread may free, and which nobody looks into.
unsafe impl Send for Reserve {}
// SAFETY: as above.
unsafe impl Sync for Reserve {}

impl Reserve {
    /// More than malloc's per-thread cache keeps at most (1,032 bytes).
    const AT_LEAST: usize = 1_100;

    /// Sets memory aside, or returns `None` if there is none.
    pub(crate) fn new(_facts: &Facts) -> Option<Reserve> {
        let size = vector_size().max(Reserve::AT_LEAST);
        // SAFETY: malloc(3) has no preconditions.
        let memory = NonNull::new(unsafe { libc::malloc(size) })?;
        Some(Reserve { memory })
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        // SAFETY: the memory from `new`, freed once.
        unsafe { libc::free(self.memory.as_ptr()) };
    }
}
