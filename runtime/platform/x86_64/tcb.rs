//! The head of glibc's thread control block: the part of `struct pthread` that compilers and the
//! psABI know, and which is therefore the same in every glibc for x86-64.
//!
//! Called by `tls`, which fills it in. Offsets are in bytes from the thread pointer:
//!
//! ```text
//!          static thread-local storage          struct pthread
//!   …[libraries' variables][program's variables]┃[head][the rest: tls room]
//!                                               ┃
//!                                               thread pointer
//! ```

/// The thread control block's own address: what `mov rax, fs:0` reads to find thread-locals.
pub(crate) const TCB: usize = 0x00;

/// The dynamic thread vector: where each module's thread-local storage is. The pointer is to
/// entry 0, which holds the generation; entry -1 holds the number of entries.
pub(crate) const DYNAMIC_THREAD_VECTOR: usize = 0x08;

/// The thread control block's own address again: what `pthread_self` reads.
pub(crate) const SELF: usize = 0x10;

/// An `int`: zero lets glibc leave out its locks and atomic operations, malloc's among them.
pub(crate) const MULTIPLE_THREADS: usize = 0x18;

/// The value that guards the return addresses of functions compiled with stack protection.
/// The same in all threads.
pub(crate) const STACK_GUARD: usize = 0x28;

/// The value that glibc mangles stored code pointers with. The same in all threads.
pub(crate) const POINTER_GUARD: usize = 0x30;

/// An `unsigned int`: which control-flow enforcement features are on ([`FEATURE_SHADOW_STACK`]).
pub(crate) const FEATURES: usize = 0x48;

/// The bit of [`FEATURES`] that says that the processor keeps a shadow stack.
pub(crate) const FEATURE_SHADOW_STACK: u32 = 1 << 1;

/// One entry of the dynamic thread vector, from entry 1 on: a module's storage in this thread.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct DynamicThreadVectorEntry {
    /// Where the storage is; [`usize::MAX`] if it is not yet allocated. In entry -1 the number
    /// of entries, in entry 0 the generation.
    pub(crate) value: usize,
    /// What `free` must be given, null if the storage is part of the block or not allocated.
    pub(crate) to_free: *mut u8,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::thread_pointer;

    fn word(offset: usize) -> usize {
        // SAFETY: the head of the running thread's control block, which nobody else changes.
        unsafe { thread_pointer().add(offset).cast::<usize>().read() }
    }

    #[test]
    fn self_pointers_agree() {
        assert_eq!(word(TCB), thread_pointer().addr());
        assert_eq!(word(SELF), thread_pointer().addr());
    }

    #[test]
    fn guards_are_the_same_in_all_threads() {
        let here = (word(STACK_GUARD), word(POINTER_GUARD));
        let there = std::thread::spawn(|| (word(STACK_GUARD), word(POINTER_GUARD)));
        assert_eq!(here, there.join().unwrap());
    }

    #[test]
    fn a_program_with_threads_has_the_flag() {
        let flag = std::thread::spawn(|| word(MULTIPLE_THREADS) as u32)
            .join()
            .unwrap();
        assert_eq!(flag, 1);
    }

    #[test]
    fn the_vector_has_entries() {
        let vector = word(DYNAMIC_THREAD_VECTOR) as *const DynamicThreadVectorEntry;
        // SAFETY: glibc keeps entry -1 before the one that the head points to.
        let entries = unsafe { vector.sub(1).read() }.value;
        assert!((1..100_000).contains(&entries));
    }
}
