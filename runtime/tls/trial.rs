//! The trial: one block is made, put in force for a few instructions, looked at, and destroyed.
//!
//! Called by `facts`, as the last step of the check. Also holds the two helpers of the check:
//! a private mapping, and the blocking of signals.
//!
//! # Invariants
//! R1  Signals are blocked while the trial block is in force: a handler would run with it.
//! R2  [`visit`] keeps H1: it is not inlined and uses no thread-local between the two changes.

use std::arch::asm;
use std::cell::Cell;
use std::ptr;

use super::block::Block;
use super::facts::{Facts, Unsupported};
use crate::platform::{errno, page_size, set_thread_pointer, syscall, thread_pointer};

const INITIAL: usize = 0x5EED_5EED_5EED_5EED;
const CHANGED: usize = !INITIAL;

thread_local! {
    pub(super) static MARKER: Cell<usize> = const { Cell::new(INITIAL) };
}

/// Zeroed private memory, unmapped when dropped.
pub(super) struct Mapping {
    low: *mut u8,
    size: usize,
}

impl Mapping {
    pub(super) fn new(size: usize) -> Result<Mapping, Unsupported> {
        let size = size.next_multiple_of(page_size());
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping where the kernel likes touches no other memory.
        let low = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
        if low == libc::MAP_FAILED {
            return Err(Unsupported::failed("mapping memory", errno()));
        }
        Ok(Mapping {
            low: low.cast(),
            size,
        })
    }

    pub(super) fn low(&self) -> *mut u8 {
        self.low
    }

    /// The highest address in the mapping that is a multiple of `align`.
    pub(super) fn top(&self, align: usize) -> *mut u8 {
        let end = self.low.wrapping_add(self.size);
        end.map_addr(|address| address & !(align - 1))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, which nobody uses any more.
        unsafe { libc::munmap(self.low.cast(), self.size) };
    }
}

/// Runs `action` with all signals blocked on this OS thread.
pub(super) fn with_signals_blocked<R>(action: impl FnOnce() -> R) -> R {
    let mask = |how: libc::c_int, new: *const u64, old: *mut u64| {
        let arguments = [
            how as usize,
            new.expose_provenance(),
            old.expose_provenance(),
            size_of::<u64>(),
            0,
            0,
        ];
        // SAFETY: rt_sigprocmask(2) with sets of the kernel's size; it takes away no memory.
        unsafe { syscall(libc::SYS_rt_sigprocmask, arguments) };
    };
    let mut before = 0;
    mask(libc::SIG_SETMASK, &u64::MAX, &mut before);
    let result = action();
    mask(libc::SIG_SETMASK, &before, ptr::null_mut());
    result
}

/// What [`visit`] saw under the trial block.
struct Seen {
    thread_pointer: usize,
    thread: usize,
    errno: usize,
    marker: usize,
}

/// Looks around under another thread pointer (R1, R2).
///
/// # Safety
///
/// `pointer` is that of a block in force nowhere; a word at `marker` bytes from it is readable.
#[inline(never)]
unsafe fn visit(pointer: *mut u8, marker: isize) -> Seen {
    let home = thread_pointer();
    let value: usize;
    // SAFETY: the caller's promise; between the changes only the processor's registers and
    // functions that read the thread control block are used.
    unsafe {
        set_thread_pointer(pointer);
        let here = thread_pointer().addr();
        let thread = libc::pthread_self() as usize;
        let errno = libc::__errno_location().addr();
        asm!(
            "mov {value}, fs:[{marker}]",
            marker = in(reg) marker,
            value = out(reg) value,
            options(nostack, readonly, preserves_flags),
        );
        set_thread_pointer(home);
        Seen {
            thread_pointer: here,
            thread,
            errno,
            marker: value,
        }
    }
}

/// Makes a block with `facts` and tries it out.
pub(super) fn run(facts: &Facts) -> Result<(), Unsupported> {
    let memory = Mapping::new(facts.block_size + facts.block_align)?;
    // SAFETY: the mapping is zeroed and holds a whole block below an aligned top.
    let block = unsafe { Block::create(facts, memory.top(facts.block_align)) };
    let mut block = block.ok_or_else(|| Unsupported::failed("a trial block", libc::ENOMEM))?;
    let result = look(facts, &mut block);
    // SAFETY: the block made above, in force nowhere.
    unsafe { block.destroy_with(facts) };
    result
}

fn look(facts: &Facts, block: &mut Block) -> Result<(), Unsupported> {
    let pointer = block.thread_pointer();
    let home = thread_pointer().addr();
    let place = |address: usize| address.wrapping_sub(home).cast_signed();
    let marker = place(MARKER.with(|marker| marker.as_ptr().addr()));
    // In a library that was itself loaded later the marker may be outside of the static area:
    // then any word will do, and its value means nothing.
    let below = facts.block_size - facts.layout.pthread_size;
    let is_static = (-below.cast_signed()..0).contains(&marker);
    let watched = if is_static { marker } else { 0 };
    // SAFETY: __errno_location has no preconditions.
    let errno = place(unsafe { libc::__errno_location() }.addr());

    MARKER.set(CHANGED);
    // SAFETY: a block just made, in force nowhere; the word is in its static area or its head.
    let seen = with_signals_blocked(|| unsafe { visit(pointer, watched) });
    if is_static {
        // SAFETY: the marker's word in the block.
        unsafe { pointer.offset(marker).cast::<usize>().write(CHANGED) };
    }
    // SAFETY: as above.
    let reset = unsafe { block.reset(facts) };
    // SAFETY: as above.
    let again = with_signals_blocked(|| unsafe { visit(pointer, watched) });
    let home_marker = MARKER.replace(INITIAL);

    let address = pointer.addr();
    let value = if is_static { INITIAL } else { address };
    let errno = address.wrapping_add_signed(errno);
    let checks = [
        ("the thread pointer", address, seen.thread_pointer),
        ("pthread_self", address, seen.thread),
        ("the place of errno", errno, seen.errno),
        ("a thread-local's initial value", value, seen.marker),
        ("the thread's own thread-local", CHANGED, home_marker),
        (
            "whether a block can be reset",
            1,
            usize::from(reset.is_some()),
        ),
        ("a thread-local's value after reset", value, again.marker),
    ];
    for (what, expected, found) in checks {
        if expected != found {
            let (expected, found) = (format!("{expected:#x}"), format!("{found:#x}"));
            let what = format!("{what} in a trial block");
            return Err(Unsupported::layout(&what, &expected, &found));
        }
    }
    Ok(())
}
