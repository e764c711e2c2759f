//! Finds, by name, what this room uses of glibc: functions of the dynamic linker and of the thread
//! library, and the descriptors that glibc keeps for debuggers.
//!
//! Called by `facts`, once.
//!
//! # Descriptors
//! glibc describes `struct pthread` and the tables of pthread keys to libthread_db by symbols
//! named `_thread_db_…`: for a size, one `u32`; for a field, three: the bits of an element, the
//! number of elements, the offset in bytes. They are part of the interface between glibc and
//! debuggers of other builds, and so are kept.

use std::ffi::{CStr, c_void};
use std::mem;
use std::ptr::NonNull;

use super::facts::Unsupported;

/// The functions of glibc that make and unmake threads' storage.
pub(super) struct Functions {
    /// `_dl_allocate_tls(tcb)`: makes the dynamic thread vector and copies the modules' initial
    /// values. Null if there is no memory.
    pub(super) allocate_tls: unsafe extern "C" fn(*mut u8) -> *mut u8,
    /// `_dl_deallocate_tls(tcb, free the tcb too)`: frees the vector and what it owns.
    pub(super) deallocate_tls: unsafe extern "C" fn(*mut u8, bool),
    /// `__ctype_init()`: sets the pointers to the character tables.
    pub(super) initialize_ctype: unsafe extern "C" fn(),
    /// `__call_tls_dtors()`: runs the destructors of thread-locals, latest first.
    pub(super) call_tls_destructors: unsafe extern "C" fn(),
}

impl Functions {
    pub(super) fn find() -> Result<Functions, Unsupported> {
        // SAFETY: the names have had these types since glibc 2.34 and before; the transmutes are
        // from a pointer to code to the type of that code.
        unsafe {
            Ok(Functions {
                allocate_tls: mem::transmute::<
                    NonNull<c_void>,
                    unsafe extern "C" fn(*mut u8) -> *mut u8,
                >(require(c"_dl_allocate_tls")?),
                deallocate_tls: mem::transmute::<
                    NonNull<c_void>,
                    unsafe extern "C" fn(*mut u8, bool),
                >(require(c"_dl_deallocate_tls")?),
                initialize_ctype: mem::transmute::<NonNull<c_void>, unsafe extern "C" fn()>(
                    require(c"__ctype_init")?,
                ),
                call_tls_destructors: mem::transmute::<NonNull<c_void>, unsafe extern "C" fn()>(
                    require(c"__call_tls_dtors")?,
                ),
            })
        }
    }
}

/// The size and alignment of the static TLS area with the TCB, as the dynamic linker has them.
pub(super) fn static_tls() -> Result<(usize, usize), Unsupported> {
    let symbol = require(c"_dl_get_tls_static_info")?;
    let (mut size, mut align) = (0, 0);
    // SAFETY: the function has had this type since before glibc 2.34; it writes both words.
    unsafe {
        let ask =
            mem::transmute::<NonNull<c_void>, unsafe extern "C" fn(*mut usize, *mut usize)>(symbol);
        ask(&mut size, &mut align);
    }
    Ok((size, align))
}

/// The address of a symbol of the running program, or `None`.
pub(super) fn find(name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: dlsym(3) with a C string; the second call drops the message of a failed search, so
    // that the program's next dlerror(3) does not speak of it.
    unsafe {
        let address = NonNull::new(libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()));
        if address.is_none() {
            libc::dlerror();
        }
        address
    }
}

/// As [`find`], for a symbol that this room cannot do without.
pub(super) fn require(name: &CStr) -> Result<NonNull<c_void>, Unsupported> {
    find(name).ok_or_else(|| {
        Unsupported::new(
            "a function of the C library",
            &format!("the symbol {}", name.to_string_lossy()),
            "none of that name",
            "link dynamically against glibc 2.34 or later",
        )
    })
}

/// Where a field is in a structure of glibc.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// The size of the whole field in bytes.
    pub(super) size: usize,
    /// The offset of the field in bytes.
    pub(super) offset: usize,
}

/// Reads the descriptor `name` of a field, or `None` if glibc does not have it.
pub(super) fn find_field(name: &CStr) -> Option<Field> {
    let descriptor = find(name)?.cast::<[u32; 3]>();
    // SAFETY: every descriptor of a field is three u32 that never change.
    let [bits, count, offset] = unsafe { descriptor.read_unaligned() };
    Some(Field {
        size: bits as usize / 8 * count as usize,
        offset: offset as usize,
    })
}

/// As [`find_field`], for one that must be there and lie within `limit` bytes.
pub(super) fn require_field(name: &CStr, limit: usize) -> Result<Field, Unsupported> {
    require(name)?;
    match find_field(name) {
        Some(field) if field.size > 0 && field.offset + field.size <= limit => Ok(field),
        found => Err(Unsupported::implausible(name, limit, &format!("{found:?}"))),
    }
}

/// Reads the descriptor `name` of a size, which must be from 1 to `limit` bytes.
pub(super) fn require_size(name: &CStr, limit: usize) -> Result<usize, Unsupported> {
    let descriptor = require(name)?.cast::<u32>();
    // SAFETY: every descriptor of a size is one u32 that never changes.
    match unsafe { descriptor.read_unaligned() } as usize {
        size if (1..=limit).contains(&size) => Ok(size),
        size => Err(Unsupported::implausible(name, limit, &size.to_string())),
    }
}
