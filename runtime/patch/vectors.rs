//! A caller's iovec array, seen through: how much it is, and the piece from some byte on.
//!
//! Called by `socket` and `stream` when a call goes on after a part. The caller's array is never
//! changed: a window is a copy, of at most [`WINDOW`] entries, on the stack, since the allocator
//! itself may have called the hook.
//!
//! # Invariants
//! V1  The array is looked at only after the kernel has accepted it in the same call, so it is
//!     readable, has at most 1,024 entries, and no length is over `isize::MAX`. A bad array got
//!     `EFAULT`, `EINVAL` or `EMSGSIZE` from the kernel and never comes here.

use libc::iovec;

/// How many entries a window has at most.
pub(super) const WINDOW: usize = 64;

/// How many bytes one system call moves at most (`MAX_RW_COUNT` in the kernel): also a blocking
/// call is complete then.
pub(super) const MOST: usize = 0x7fff_f000;

/// A part of a caller's array, copied.
pub(super) struct Window {
    entries: [iovec; WINDOW],
    count: usize,
}

impl Window {
    pub(super) fn as_ptr(&self) -> *const iovec {
        self.entries.as_ptr()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut iovec {
        self.entries.as_mut_ptr()
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }
}

/// A caller's array.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vectors {
    pub(super) first: *const iovec,
    pub(super) count: usize,
}

impl Vectors {
    /// The entries, one by one.
    ///
    /// # Safety
    ///
    /// V1 holds.
    unsafe fn entries(self) -> impl Iterator<Item = iovec> {
        // SAFETY: V1: the entries are readable. C code need not align them.
        (0..self.count).map(move |index| unsafe { self.first.add(index).read_unaligned() })
    }

    /// The number of bytes with which a call on this array is complete.
    ///
    /// # Safety
    ///
    /// V1 holds.
    pub(super) unsafe fn total(self) -> usize {
        // SAFETY: handed on.
        unsafe { self.entries() }
            .fold(0_usize, |total, entry| total.saturating_add(entry.iov_len))
            .min(MOST)
    }

    /// The piece from byte `skip` on, of at most `limit` bytes and [`WINDOW`] entries.
    ///
    /// # Safety
    ///
    /// V1 holds.
    pub(super) unsafe fn window(self, mut skip: usize, mut limit: usize) -> Window {
        const NOTHING: iovec = iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        let mut window = Window {
            entries: [NOTHING; WINDOW],
            count: 0,
        };
        // SAFETY: handed on.
        for entry in unsafe { self.entries() } {
            if window.count == WINDOW || limit == 0 {
                break;
            }
            let skipped = skip.min(entry.iov_len);
            skip -= skipped;
            let length = (entry.iov_len - skipped).min(limit);
            if length > 0 {
                limit -= length;
                window.entries[window.count] = iovec {
                    iov_base: entry.iov_base.wrapping_byte_add(skipped),
                    iov_len: length,
                };
                window.count += 1;
            }
        }
        window
    }
}
