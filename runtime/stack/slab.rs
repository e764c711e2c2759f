//! Size classes, the layout of one stack, and slabs: one mapping for many stacks.
//!
//! Called by `pool` only.
//!
//! # Sizes
//! A size asked for is the usable one: without the thread-local storage block and the guard. It is
//! rounded up to a size class: 16 KiB, then four steps to each doubling (20, 24, 28, 32, 40 KiB …),
//! all whole pages. Classes are few (under 200), so that a stack of nearly the same size is re-used;
//! what rounding adds is address space, not memory.
//!
//! # Slabs
//! A slab holds as many stacks as the class had before, 16 at first: small use maps little
//! (34 MB of address space at the default size), and a million stacks of 64 KiB take 17 mappings.
//! A slab stops at 64 GiB, so a million stacks of 2 MiB take 42; a refused slab is tried again
//! at half the size down to one stack, because strict overcommit and RLIMIT_AS count address space.
//!
//! # Guards
//! Four pages, because C code is often compiled without stack probes, and a few more pages make
//! the guard no slower. `MADV_GUARD_INSTALL` (Linux 6.13) splits no mapping. It is tried on a slab's
//! first stack when the slab is mapped; the others get theirs when they are first handed out: each
//! guard of a 2 MiB stack brings a page of page table with it (4 KiB, 1.5 µs), which a spawned green
//! thread that waits for its first run need not pay. Where the kernel does not know the advice, all
//! guards of a slab are made by `mprotect` at once, so that `vm.max_map_count` is met in `reserve`.
//!
//! # Rejected
//! Offsetting the tops of neighbouring stacks, so that their first lines fall in different sets of
//! the first-level cache: block and first frames are most of a page already.

use crate::platform;
use corosensei::stack::valgrind::ValgrindStackRegistration;
use std::io;
use std::ops::Range;

/// The smallest usable size of a stack. Anything less is rounded up to it.
pub(super) const MINIMUM: usize = 1 << MINIMUM_LOG;
const MINIMUM_LOG: u32 = 14;

/// The largest: half of what a process can address.
const MAXIMUM_LOG: u32 = 46;

/// How many size classes there are.
pub(super) const CLASSES: usize = (MAXIMUM_LOG - MINIMUM_LOG) as usize * 4 + 1;

/// The guard's size.
pub(super) const GUARD: usize = 16 << 10;

/// What a stack keeps below its block when [`Region::trim`] returns the rest: a guess at what the
/// next green thread will touch for certain.
const HOT: usize = 8 << 10;

/// Bounds of a slab.
const FIRST_COUNT: usize = 16;
const MAXIMUM_BYTES: usize = 64 << 30;
/// With `mprotect` a slab's guards are made at once, a microsecond and two mappings each.
const MAXIMUM_PROTECTED: usize = 1024;

/// `MADV_GUARD_INSTALL`, which the libc crate does not have for all targets.
const GUARD_INSTALL: usize = 102;

/// The alignment of a stack's base, a cache line.
const BASE_ALIGNMENT: usize = 64;

/// The size class for `size` usable bytes, or an error for more than any address space holds.
pub(super) fn class_of(size: usize) -> io::Result<usize> {
    if size <= MINIMUM {
        return Ok(0);
    }
    if size > 1 << MAXIMUM_LOG {
        return Err(io::Error::new(
            io::ErrorKind::OutOfMemory,
            format!("a stack of {size} bytes is larger than the address space"),
        ));
    }
    let log = (size - 1).ilog2();
    let doubling = (log - MINIMUM_LOG) as usize * 4;
    let quarter = (size - (1 << log)).div_ceil(1 << (log - 2));
    Ok(doubling + quarter)
}

/// The usable bytes of a stack of `class`.
pub(super) fn class_size(class: usize) -> usize {
    let Some(step) = class.checked_sub(1) else {
        return MINIMUM;
    };
    let base = MINIMUM << (step / 4);
    base + (step % 4 + 1) * (base / 4)
}

/// How the stacks of one size class lie in a slab.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    class: usize,
    /// From one stack's lowest address to the next one's: whole pages.
    stride: usize,
    /// What the thread-local storage block takes at the top.
    block: usize,
}

impl Layout {
    /// The layout for `class` with blocks of `block_size` bytes at `block_align`.
    pub(super) fn new(class: usize, block_size: usize, block_align: usize) -> Self {
        let page = platform::page_size();
        assert!(
            block_align <= page && MINIMUM.is_multiple_of(page) && GUARD.is_multiple_of(page),
            "tops of stacks are aligned to pages of at most 16 KiB, blocks must ask for no more"
        );
        let block = block_size.next_multiple_of(BASE_ALIGNMENT);
        Self {
            class,
            stride: GUARD + (class_size(class) + block).next_multiple_of(page),
            block,
        }
    }

    /// How many stacks the next slab should hold when there are `existing` already.
    pub(super) fn slab_count(&self, existing: usize) -> usize {
        let most = (MAXIMUM_BYTES / self.stride).max(1);
        existing.max(FIRST_COUNT).min(most)
    }
}

/// One stack's memory, with its guard in place.
#[derive(Debug)]
pub(super) struct Region {
    low: usize,
    base: usize,
    top: usize,
    class: u8,
    /// Tells valgrind, if the program runs under it, that this is a stack.
    _valgrind: ValgrindStackRegistration,
}

impl Region {
    pub(super) fn class(&self) -> usize {
        usize::from(self.class)
    }

    /// The end of the memory, where the thread-local storage block ends.
    #[inline]
    pub(super) fn top(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.top)
    }

    #[inline]
    pub(super) fn guard(&self) -> Range<usize> {
        self.low..self.low + GUARD
    }

    #[inline]
    pub(super) fn usable(&self) -> Range<usize> {
        self.low + GUARD..self.base
    }

    /// Gives the kernel back what lies deeper than the hot part of a stack that nobody runs on.
    /// The block stays.
    pub(super) fn trim(&self) {
        let kept = (self.base - HOT) & !(platform::page_size() - 1);
        let deep = self.low + GUARD..kept.max(self.low + GUARD);
        if !deep.is_empty() {
            // Refused for locked memory only (mlockall), which then stays as it is.
            let _ = advise(deep, libc::MADV_DONTNEED as usize);
        }
    }

    /// Gives the kernel back all of a stack that nobody runs on and whose block is destroyed: it is
    /// as when it was mapped (K2).
    pub(super) fn clear(&self) {
        let all = self.low + GUARD..self.top;
        if advise(all, libc::MADV_DONTNEED as usize).is_err() {
            let block: *mut u8 = std::ptr::with_exposed_provenance_mut(self.base);
            // SAFETY: K1: the caller holds the region, so nobody else uses [base, top).
            unsafe { block.write_bytes(0, self.top - self.base) };
        }
    }
}

/// One mapping for many stacks of one class. Unmapped when dropped: K4 is its owner's to keep.
#[derive(Debug)]
pub(super) struct Slab {
    layout: Layout,
    start: usize,
    count: usize,
    /// Whether the guards of all stacks are in place, not only the first one's.
    guarded: bool,
}

impl Slab {
    /// Maps `count` stacks; fewer if so many are refused, but at least one.
    ///
    /// # Errors
    ///
    /// The kernel refuses even one stack with its guard: address space or `vm.max_map_count`.
    pub(super) fn map(layout: Layout, count: usize) -> io::Result<Self> {
        let mut slab = Self::map_unguarded(layout, count)?;
        match advise(slab.guard(0), GUARD_INSTALL) {
            Ok(()) => Ok(slab),
            Err(libc::EINVAL | libc::EPERM | libc::ENOSYS) => {
                slab.protect()?;
                Ok(slab)
            }
            Err(error) => Err(io::Error::from_raw_os_error(error)),
        }
    }

    fn map_unguarded(layout: Layout, mut count: usize) -> io::Result<Self> {
        loop {
            let Some(length) = layout.stride.checked_mul(count) else {
                count /= 2;
                continue;
            };
            match map(length) {
                Ok(start) => {
                    // Refused where the kernel has no huge pages to begin with.
                    let _ = advise(start..start + length, libc::MADV_NOHUGEPAGE as usize);
                    return Ok(Self {
                        layout,
                        start,
                        count,
                        guarded: false,
                    });
                }
                Err(error) if count <= 1 => {
                    let size = class_size(layout.class);
                    let cause = io::Error::from_raw_os_error(error);
                    return Err(io::Error::new(
                        io::ErrorKind::OutOfMemory,
                        format!("cannot map a stack of {size} bytes: {cause}"),
                    ));
                }
                Err(_) => count /= 2,
            }
        }
    }

    /// Makes the guards of all stacks with `mprotect`, and lets go of stacks that get none.
    fn protect(&mut self) -> io::Result<()> {
        self.shrink(self.count.min(MAXIMUM_PROTECTED));
        self.guarded = true;
        for index in 0..self.count {
            if let Err(error) = protect(self.guard(index)) {
                if index == 0 {
                    return Err(guard_refused(error));
                }
                self.shrink(index);
                break;
            }
        }
        Ok(())
    }

    /// Lets go of the stacks from `count` on.
    fn shrink(&mut self, count: usize) {
        let cut = self.start + count * self.layout.stride;
        let end = self.start + self.count * self.layout.stride;
        // Where the kernel would not cut the mapping, the rest stays mapped and unused for good.
        let _ = unmap(cut..end);
        self.count = count;
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    fn guard(&self, index: usize) -> Range<usize> {
        let low = self.start + index * self.layout.stride;
        low..low + GUARD
    }

    /// The stack at `index`, for the first and only time, with its guard.
    ///
    /// # Errors
    ///
    /// The kernel has no memory for the guard's page table.
    pub(super) fn carve(&self, index: usize) -> io::Result<Region> {
        debug_assert!(index < self.count);
        let guard = self.guard(index);
        if !self.guarded && index > 0 {
            // mlockall(2) since the slab was mapped makes the advice invalid, but not mprotect.
            advise(guard.clone(), GUARD_INSTALL)
                .or_else(|_| protect(guard.clone()))
                .map_err(guard_refused)?;
        }
        let low = guard.start;
        let top = low + self.layout.stride;
        let base = top - self.layout.block;
        let start: *mut u8 = std::ptr::with_exposed_provenance_mut(guard.end);
        Ok(Region {
            low,
            base,
            top,
            class: self.layout.class as u8,
            _valgrind: ValgrindStackRegistration::new(start, base - guard.end),
        })
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        let end = self.start + self.count * self.layout.stride;
        // Fails for nothing that could be done about here; the memory is then lost.
        let _ = unmap(self.start..end);
    }
}

fn guard_refused(error: i32) -> io::Error {
    let cause = io::Error::from_raw_os_error(error);
    if error != libc::ENOMEM {
        return io::Error::new(cause.kind(), format!("cannot guard a stack: {cause}"));
    }
    io::Error::new(
        cause.kind(),
        "cannot guard another stack: before Linux 6.13 each one takes two of the process's memory \
         mappings, and their limit is reached (sysctl vm.max_map_count)",
    )
}

/// What a raw system call returned, as a result with the error number.
fn outcome(returned: isize) -> Result<usize, i32> {
    if (-4095..0).contains(&returned) {
        Err(-returned as i32)
    } else {
        Ok(returned as usize)
    }
}

pub(super) fn map(length: usize) -> Result<usize, i32> {
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as usize;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    // SAFETY: mmap(2) of new memory where the kernel likes touches no existing mapping.
    outcome(unsafe {
        platform::syscall(
            libc::SYS_mmap,
            [0, length, protection, flags as usize, usize::MAX, 0],
        )
    })
}

pub(super) fn unmap(range: Range<usize>) -> Result<usize, i32> {
    // SAFETY: callers pass mappings of their own: parts of a slab of which no stack is or ever will
    // be in use (K4), or an alternate stack that is no longer set.
    outcome(unsafe { platform::syscall(libc::SYS_munmap, [range.start, range.len(), 0, 0, 0, 0]) })
}

pub(super) fn protect(guard: Range<usize>) -> Result<(), i32> {
    let none = libc::PROT_NONE as usize;
    // SAFETY: callers pass the guard of a stack that was never in use, of green threads or of
    // signals; nothing else is there.
    outcome(unsafe {
        platform::syscall(
            libc::SYS_mprotect,
            [guard.start, guard.len(), none, 0, 0, 0],
        )
    })
    .map(drop)
}

fn advise(range: Range<usize>, advice: usize) -> Result<(), i32> {
    // SAFETY: callers pass guards, whole slabs that nobody uses yet, or the dead part of a stack
    // that they hold (K1): what the advice throws away nobody reads again.
    outcome(unsafe {
        platform::syscall(
            libc::SYS_madvise,
            [range.start, range.len(), advice, 0, 0, 0],
        )
    })
    .map(drop)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::stack::tests::{in_child, pool, write};
    use crate::stack::{Culprit, install};
    use std::os::unix::process::ExitStatusExt;

    const SIZE: usize = 64 << 10;

    /// Has the kernel refuse `MADV_GUARD_INSTALL` from now on, as kernels before 6.13 do.
    fn be_an_old_kernel() {
        let statement = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        let give = (libc::BPF_RET | libc::BPF_K) as u16;
        let mut program = [
            statement(load, 0, 0, 0),
            statement(equal, 0, 3, libc::SYS_madvise as u32),
            statement(load, 0, 0, 32),
            statement(equal, 0, 1, 102),
            statement(give, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32),
            statement(give, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let filter = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_mut_ptr(),
        };
        // SAFETY: prctl(2) takes no pointer here.
        let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        assert_eq!(result, 0);
        // SAFETY: seccomp(2) copies the program.
        let result = unsafe {
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const filter,
            )
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    #[test]
    fn old_kernels_guard_too_and_say_when_mappings_run_out() {
        let output = in_child(
            module_path!(),
            "old_kernels_guard_too_and_say_when_mappings_run_out",
            || {
                be_an_old_kernel();
                let pool = pool();
                let mut reserved = Vec::new();
                let refused = loop {
                    match pool.reserve(SIZE) {
                        Ok(reservation) => reserved.push(reservation),
                        Err(error) => break error,
                    }
                    if reserved.len() > 1_000_000 {
                        panic!("there are guards without mappings");
                    }
                };
                assert!(
                    refused.to_string().contains("vm.max_map_count"),
                    "{refused}"
                );
                let stacks: Vec<_> = reserved.iter().map(|one| pool.take(one)).collect();
                stacks
                    .iter()
                    .for_each(|stack| write(stack.usable().start, 1));
                // Whatever faults from here on is reported as an overflow, and nothing did before.
                install(|| {
                    Some(Culprit {
                        guard: 0..usize::MAX,
                        name: "",
                        id: 1,
                    })
                });
                write(stacks.last().unwrap().guard().end - 1, 1);
            },
        );
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    }
}
