//! The initial values of thread-locals: one template for each module (the program and its
//! libraries) that has any, and whether modules came or went since.
//!
//! Called by `facts` (find) and by `block` (reset).
//!
//! # Protocol
//! [`Modules::find`] notes each module whose storage is part of the static area, where all
//! threads have it at the same distance from the thread pointer. A reset copies the templates
//! again, except libc's. If [`Modules::changed`], the caller leaves it to the dynamic linker.
//!
//! # Invariants
//! M1  A module noted here was there before the program started or got its storage in the static
//!     area: glibc unloads neither while threads exist that it knows. Its template is read only.
//! M2  The generation grows with each dlopen and dlclose of a module with thread-locals; it is
//!     written by the dynamic linker before that dlopen returns.

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::ptr;

use super::facts::Unsupported;
use super::symbols;
use crate::platform::thread_pointer;
use crate::primitive::atomic::{AtomicUsize, Ordering};

/// One module's storage in the static area.
pub(super) struct Image {
    /// Where it begins, in bytes from the thread pointer (negative).
    pub(super) offset: isize,
    template: *const u8,
    template_size: usize,
    /// How large the storage is; what the template does not cover starts as zeros.
    pub(super) size: usize,
}

/// The modules with thread-locals at the time of the check.
pub(super) struct Modules {
    pub(super) images: Vec<Image>,
    pub(super) libc: Image,
    /// Whether some module has its storage elsewhere, allocated when first used.
    pub(super) dynamic: bool,
    generations: Option<Generations>,
    pub(super) generation: usize,
}

// SAFETY: the pointers are to templates, which never change (M1), and to the dynamic linker's
// own list, which is read with atomics only.
unsafe impl Send for Modules {}
// SAFETY: as above; nothing in here changes after it was made.
unsafe impl Sync for Modules {}

/// A module's program header of type PT_TLS, as dl_iterate_phdr(3) tells it.
struct Found {
    module: usize,
    template: *const u8,
    template_size: usize,
    size: usize,
}

/// What `__tls_get_addr` takes: a module and a place in its storage.
#[repr(C)]
struct TlsIndex {
    module: usize,
    offset: usize,
}

unsafe extern "C" {
    fn __tls_get_addr(index: *const TlsIndex) -> *mut u8;
}

unsafe extern "C" fn collect(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    found: *mut c_void,
) -> c_int {
    // SAFETY: dl_iterate_phdr(3) passes a valid info, and the pointer that `find` gave it.
    let (info, found) = unsafe { (&*info, &mut *found.cast::<Vec<Found>>()) };
    for index in 0..usize::from(info.dlpi_phnum) {
        // SAFETY: the table has dlpi_phnum entries.
        let header = unsafe { &*info.dlpi_phdr.add(index) };
        if header.p_type == libc::PT_TLS && header.p_memsz > 0 {
            let address = (info.dlpi_addr + header.p_vaddr) as usize;
            found.push(Found {
                module: info.dlpi_tls_modid,
                template: ptr::with_exposed_provenance(address),
                template_size: header.p_filesz as usize,
                size: header.p_memsz as usize,
            });
        }
    }
    0
}

impl Modules {
    /// Notes the modules whose storage lies in the `storage` bytes below the thread pointer.
    pub(super) fn find(storage: usize) -> Result<Modules, Unsupported> {
        let generations = Generations::find();
        let generation = generations.as_ref().map_or(0, Generations::latest);
        let mut found = Vec::<Found>::with_capacity(64);
        // SAFETY: `collect` has the type asked for and gets the vector, which outlives the call.
        unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut found).cast()) };
        let here = thread_pointer();
        // SAFETY: __errno_location has no preconditions.
        let errno = unsafe { libc::__errno_location() }.addr();
        let (mut images, mut libc_image, mut dynamic) = (Vec::new(), None, false);
        for module in found {
            let index = TlsIndex {
                module: module.module,
                offset: 0,
            };
            // SAFETY: the number of a module that is loaded. Its storage is made if need be.
            let address = unsafe { __tls_get_addr(&index) }.addr();
            let offset = address.wrapping_sub(here.addr()).cast_signed();
            if !(-storage.cast_signed()..0).contains(&offset) {
                dynamic = true;
                continue;
            }
            let image = Image {
                offset,
                template: module.template,
                template_size: module.template_size,
                size: module.size,
            };
            if (address..address + module.size).contains(&errno) {
                libc_image = Some(image);
            } else {
                images.push(image);
            }
        }
        let libc = libc_image.ok_or_else(|| {
            Unsupported::layout(
                "libc's thread-local storage",
                "a module in the static area that contains errno",
                "none",
            )
        })?;
        Ok(Modules {
            images,
            libc,
            dynamic,
            generations,
            generation,
        })
    }

    /// libc's own storage, in bytes from the thread pointer.
    pub(super) fn libc(&self) -> Range<isize> {
        self.libc.offset..self.libc.offset + self.libc.size.cast_signed()
    }

    /// Whether a module with thread-locals was loaded or unloaded since the check (M2).
    #[inline]
    pub(super) fn changed(&self) -> bool {
        match &self.generations {
            Some(generations) => generations.latest() != self.generation,
            None => false,
        }
    }

    /// Whether the generation can be read at all.
    pub(super) fn changes_are_seen(&self) -> bool {
        self.generations.is_some()
    }

    /// Sets all thread-locals in the static area but libc's to their initial values.
    ///
    /// # Safety
    ///
    /// `thread_pointer` is that of a block which is in force nowhere (B1).
    #[inline]
    pub(super) unsafe fn write_initial_values(&self, thread_pointer: *mut u8) {
        for image in &self.images {
            // SAFETY: the image lies in the block's static area, as in every thread's (M1); the
            // template is valid for its size and lies elsewhere.
            unsafe {
                let storage = thread_pointer.offset(image.offset);
                ptr::copy_nonoverlapping(image.template, storage, image.template_size);
                let rest = image.size - image.template_size;
                ptr::write_bytes(storage.add(image.template_size), 0, rest);
            }
        }
    }
}

/// The dynamic linker's list of modules with thread-locals, each with the generation in which it
/// came (or went).
struct Generations {
    first: *const u8,
    length: usize,
    next: usize,
    slots: usize,
    slot_size: usize,
    slot_generation: usize,
    slot_module: usize,
}

impl Generations {
    /// The list as libthread_db's descriptors tell, or `None` if one of them is missing.
    fn find() -> Option<Generations> {
        let list = symbols::find_field(c"_thread_db_rtld_global__dl_tls_dtv_slotinfo_list")?;
        let global = symbols::find(c"_rtld_global")?.cast::<u8>().as_ptr();
        let field = |name| symbols::find_field(name).map(|field| field.offset);
        // SAFETY: the descriptor tells where the list's address is in `_rtld_global`; it is set
        // before the program starts and does not change.
        let first = unsafe { global.add(list.offset).cast::<*const u8>().read() };
        let slot_size = symbols::require_size(c"_thread_db_sizeof_dtv_slotinfo", 256).ok()?;
        (!first.is_null()).then_some(Generations {
            first,
            length: field(c"_thread_db_dtv_slotinfo_list_len")?,
            next: field(c"_thread_db_dtv_slotinfo_list_next")?,
            slots: field(c"_thread_db_dtv_slotinfo_list_slotinfo")?,
            slot_size,
            slot_generation: field(c"_thread_db_dtv_slotinfo_gen")?,
            slot_module: field(c"_thread_db_dtv_slotinfo_map")?,
        })
    }

    /// The latest generation. Module numbers are given out from 1 on, the lowest first, and a
    /// slot once used keeps a generation: the first slot that has neither ends the search.
    fn latest(&self) -> usize {
        // SAFETY: the list is never shortened and its parts never freed; the dynamic linker, too,
        // reads it while others write.
        let word = |address: *const u8| unsafe {
            AtomicUsize::from_ptr(address.cast::<usize>().cast_mut()).load(Ordering::Relaxed)
        };
        let mut latest = 0;
        let mut list = self.first;
        let mut first_slot = 1;
        while !list.is_null() {
            // SAFETY: the fields of one part of the list, and as many slots as its length tells.
            unsafe {
                for index in first_slot..word(list.add(self.length)) {
                    let slot = list.add(self.slots + index * self.slot_size);
                    let generation = word(slot.add(self.slot_generation));
                    if generation == 0 && word(slot.add(self.slot_module)) == 0 {
                        return latest;
                    }
                    latest = latest.max(generation);
                }
                list = ptr::with_exposed_provenance(word(list.add(self.next)));
            }
            first_slot = 0;
        }
        latest
    }
}
