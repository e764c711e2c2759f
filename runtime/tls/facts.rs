//! What must be known of this process to make thread control blocks, and the start-up check that
//! finds it out or says why it cannot be.
//!
//! Called by whoever starts a runtime, before anything else of it.
//!
//! # Protocol
//! [`check`], once: 1. libc's version and the processor's features   2. [`observe`]: the names in
//! libc (`symbols`), the modules' initial values (`modules`), and the layout, observed on a real
//! thread (`layout`)   3. a trial block (`trial`)   4. the signal handler of `credentials`. The
//! first step that finds something else than expected ends it.
//!
//! # Invariants
//! B4 (see the room's head) is kept here: nobody else makes [`Facts`], and [`check`] gives out none
//! that were not tried.

use std::borrow::Cow;
use std::error::Error;
use std::ffi::CStr;
use std::fmt;
use std::sync::OnceLock;

use super::credentials;
use super::layout::{Described, Keys, Layout};
use super::modules::Modules;
use super::symbols::{self, Functions};
use super::trial;
use crate::platform::x86_64::tcb;
use crate::platform::{page_size, thread_pointer};

/// What [`check`] found out about thread control blocks and thread-local storage in this process.
pub(crate) struct Facts {
    /// The size of a block in bytes, a multiple of [`block_align`](Facts::block_align).
    pub(crate) block_size: usize,
    /// The alignment in bytes of a block's top: a power of two.
    pub(crate) block_align: usize,
    pub(super) functions: Functions,
    pub(super) layout: Layout,
    pub(super) keys: Keys,
    pub(super) modules: Modules,
}

impl fmt::Debug for Facts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Facts")
            .field("block_size", &self.block_size)
            .field("block_align", &self.block_align)
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

/// Why green threads cannot run in this process: one message that says what was expected, what
/// was found, and what to do.
#[derive(Debug)]
pub(crate) struct Unsupported {
    message: String,
}

impl Unsupported {
    pub(super) fn new(what: &str, expected: &str, found: &str, advice: &str) -> Unsupported {
        Unsupported {
            message: format!(
                "green threads cannot run here: {what}: expected {expected}, found {found}; {advice}"
            ),
        }
    }

    /// A descriptor of glibc's that cannot be true.
    pub(super) fn implausible(name: &CStr, limit: usize, found: &str) -> Unsupported {
        Unsupported::layout(
            &name.to_string_lossy(),
            &format!("a place within {limit} bytes"),
            found,
        )
    }

    /// Something in glibc's layout that is not as in any glibc known.
    pub(super) fn layout(what: &str, expected: &str, found: &str) -> Unsupported {
        Unsupported::new(
            what,
            expected,
            found,
            "this C library differs from the glibc versions (2.34 and later) that are supported: \
             use one of those, and please report it",
        )
    }

    /// A system call or function that failed with the error number `error`.
    pub(super) fn failed(what: &str, error: i32) -> Unsupported {
        Unsupported::new(
            what,
            "success",
            &std::io::Error::from_raw_os_error(error).to_string(),
            "raise the process's limits on memory and threads",
        )
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl Error for Unsupported {}

/// Finds out, on the first call, whether and how green threads can have storage of their own here;
/// later calls return the same.
///
/// The first call starts an OS thread for a moment, and must come from an OS thread.
///
/// # Errors
///
/// [`Unsupported`], if the processor, the kernel or libc is not as this room needs it.
pub(crate) fn check() -> Result<&'static Facts, &'static Unsupported> {
    static FACTS: OnceLock<Result<Facts, Unsupported>> = OnceLock::new();
    let facts = FACTS.get_or_init(|| find_out(&libc_version(), features(), observe));
    facts.as_ref()
}

/// All steps of the check, for a libc of this version, a thread with these features, and the facts
/// that `observe` finds, which are tried out.
pub(super) fn find_out(
    version: &str,
    features: u32,
    observe: impl FnOnce() -> Result<Facts, Unsupported>,
) -> Result<Facts, Unsupported> {
    check_version(version)?;
    check_features(features)?;
    let facts = observe()?;
    trial::run(&facts)?;
    credentials::install(&facts.layout);
    Ok(facts)
}

/// Learns what the trial is to confirm.
pub(super) fn observe() -> Result<Facts, Unsupported> {
    let functions = Functions::find()?;
    let (size, align) = symbols::static_tls()?;
    check_static_tls(size, align)?;
    let pthread_size = symbols::require_size(c"_thread_db_sizeof_pthread", size)?;
    // The TCB is at a multiple of the alignment, and the modules' storage goes down from it.
    let storage = (size - pthread_size).next_multiple_of(align);
    let modules = Modules::find(storage)?;
    let keys = Keys::find()?;
    let described = Described::find(pthread_size)?;
    let layout = Layout::observe(&described, storage, &keys, &modules)?;
    Ok(Facts {
        block_size: storage + pthread_size.next_multiple_of(align),
        block_align: align,
        functions,
        layout,
        keys,
        modules,
    })
}

/// What is beyond this is no size of storage, but a function of another type than known.
pub(super) fn check_static_tls(size: usize, align: usize) -> Result<(), Unsupported> {
    if align.is_power_of_two() && align <= 16 * page_size() && size <= 1 << 24 {
        return Ok(());
    }
    Err(Unsupported::layout(
        "static thread-local storage",
        "at most 16 MiB with an alignment of at most 16 pages",
        &format!("{size} bytes aligned to {align}"),
    ))
}

fn libc_version() -> Cow<'static, str> {
    // SAFETY: gnu_get_libc_version(3) returns a C string that lives forever.
    unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) }.to_string_lossy()
}

/// glibc 2.34 merged libpthread and libdl into libc: what comes before has its names elsewhere.
pub(super) fn check_version(version: &str) -> Result<(), Unsupported> {
    if parse_version(version).is_some_and(|version| version >= (2, 34)) {
        return Ok(());
    }
    Err(Unsupported::new(
        "the C library",
        "glibc 2.34 or later",
        &format!("glibc {version}"),
        "run on a newer distribution",
    ))
}

pub(super) fn parse_version(version: &str) -> Option<(u32, u32)> {
    let (major, rest) = version.split_once('.')?;
    let minor = rest
        .split(|letter: char| !letter.is_ascii_digit())
        .next()?
        .parse();
    Some((major.parse().ok()?, minor.ok()?))
}

/// Which control-flow enforcement features the running thread has on.
pub(super) fn features() -> u32 {
    // SAFETY: the head of the running thread's control block is valid for reading.
    unsafe { thread_pointer().add(tcb::FEATURES).cast::<u32>().read() }
}

/// A shadow stack would take each stack switch for an attack.
pub(super) fn check_features(features: u32) -> Result<(), Unsupported> {
    if features & tcb::FEATURE_SHADOW_STACK == 0 {
        return Ok(());
    }
    Err(Unsupported::new(
        "the processor's control-flow enforcement",
        "no shadow stack",
        "a shadow stack in use",
        "start the program with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off",
    ))
}
