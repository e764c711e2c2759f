//! The report of a stack overflow, and the alternate stack that it is written on.
//!
//! Called by `scheduler`: [`install`] when the first runtime starts, [`AlternateStack`] on each
//! carrier. The kernel calls the handler, on a carrier, when a memory access faults.
//!
//! # Protocol
//! Install:  1. remember the present actions for SIGSEGV and SIGBUS   2. put the handler in place
//! Fault:    1. in the running green thread's guard: say whose stack overflowed, abort
//!           2. else the action that was there before, as if the handler were not
//!
//! # Invariants
//! O1  The handler runs under the thread pointer of whatever green thread faulted, at any point of
//!     its code. It makes async-signal-safe calls only, allocates nothing and takes no lock.
//! O2  What the handler needs is set before the handler is put in place, and never changes.
//!
//! # Limits
//! A previous handler is called with the mask and on the stack of this one, whatever its own
//! action asked for. A handler that somebody installs later without passing faults on
//! hides this one; then an overflow is a plain SIGSEGV, still at the guard. A frame of C code larger
//! than the guard, that touches none of it, goes past it unseen, as it does on a thread.

use super::slab::{map, protect, unmap};
use crate::platform;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::{Once, OnceLock};
use std::{io, ptr};

/// The running green thread, as the report of an overflow needs it.
#[derive(Debug)]
pub(crate) struct Culprit {
    /// Its stack's guard.
    pub(crate) guard: Range<usize>,
    /// Its name, empty if it has none. Valid until the handler is done.
    pub(crate) name: *const str,
    /// Its id.
    pub(crate) id: u64,
}

struct Installed {
    running: fn() -> Option<Culprit>,
    /// The actions that were there before, for each of [`SIGNALS`].
    previous: [libc::sigaction; 2],
}

/// Guard pages give the first; file mappings and other kernels may give the second.
const SIGNALS: [libc::c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// What the handler needs (O2). Read by the handler, which is in place only once this is set.
static INSTALLED: OnceLock<Installed> = OnceLock::new();

/// Done when the handler is in place.
static INSTALL: Once = Once::new();

/// Has stack overflows of green threads reported from now on. Does something only the first time
/// in a process.
///
/// `running` is asked in a signal handler, so it must be async-signal-safe: it names the green
/// thread that runs on the calling OS thread, if one does.
///
/// # Panics
///
/// If the kernel refuses a handler for SIGSEGV, which sigaction(2) gives no reason for.
pub(crate) fn install(running: fn() -> Option<Culprit>) {
    // Whoever comes second waits until the handler is in place.
    INSTALL.call_once(|| {
        let previous = SIGNALS.map(current_action);
        INSTALLED.get_or_init(|| Installed { running, previous });
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_fault;
        // SAFETY: all-zero is a valid sigaction: no flags, an empty mask, the default handler.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        for signal in SIGNALS {
            let done = set_action(signal, &action);
            assert!(done, "sigaction: {}", io::Error::last_os_error());
        }
    });
}

fn current_action(signal: libc::c_int) -> libc::sigaction {
    let mut action = MaybeUninit::zeroed();
    // SAFETY: sigaction(2) writes the present action to where the second pointer says.
    let result = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
    assert_eq!(result, 0, "sigaction: {}", io::Error::last_os_error());
    // SAFETY: zeroed is a valid sigaction to begin with, and then it was written.
    unsafe { action.assume_init() }
}

fn set_action(signal: libc::c_int, action: &libc::sigaction) -> bool {
    // SAFETY: the handler of `action` keeps O1 (`install`) or is the default (`by_default`).
    unsafe { libc::sigaction(signal, action, ptr::null_mut()) == 0 }
}

/// The handler. O1 holds for all that it calls.
extern "C" fn on_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    let errno = platform::errno();
    let Some(installed) = INSTALLED.get() else {
        return by_default(signal, info);
    };
    // SAFETY: the kernel gives a valid siginfo, because the action has SA_SIGINFO.
    let code = unsafe { (*info).si_code };
    // A code above zero is a fault, which has an address; others were sent with kill(2) and such.
    if code > 0 {
        // SAFETY: as above.
        let address = unsafe { (*info).si_addr() } as usize;
        if let Some(culprit) = (installed.running)()
            && culprit.guard.contains(&address)
        {
            report(&culprit);
            std::process::abort();
        }
    }
    let index = usize::from(signal == SIGNALS[1]);
    pass_on(&installed.previous[index], signal, info, context);
    platform::set_errno(errno);
}

/// Does what `previous` would have done.
fn pass_on(
    previous: &libc::sigaction,
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    type Plain = extern "C" fn(libc::c_int);
    type WithInfo = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
    match previous.sa_sigaction {
        libc::SIG_DFL => by_default(signal, info),
        libc::SIG_IGN => {
            // SAFETY: as in `on_fault`.
            if unsafe { (*info).si_code } > 0 {
                // The kernel does not let a fault be ignored: it would repeat for ever.
                by_default(signal, info);
            }
        }
        address if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: an action with SA_SIGINFO has a handler of this type at this address.
            let handler = unsafe { std::mem::transmute::<usize, WithInfo>(address) };
            handler(signal, info, context);
        }
        address => {
            // SAFETY: an action without SA_SIGINFO that is no constant has one of this type.
            let handler = unsafe { std::mem::transmute::<usize, Plain>(address) };
            handler(signal);
        }
    }
}

/// Puts the default action in place and lets it happen when the handler returns: a fault repeats
/// by itself, a signal that was sent is sent again.
fn by_default(signal: libc::c_int, info: *mut libc::siginfo_t) {
    // SAFETY: all-zero is the default action.
    let action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    if !set_action(signal, &action) {
        std::process::abort();
    }
    // SAFETY: as in `on_fault`.
    if unsafe { (*info).si_code } <= 0 {
        // SAFETY: neither call has preconditions; the signal waits until the handler returns.
        unsafe {
            let process = platform::syscall(libc::SYS_getpid, [0; 6]) as usize;
            let thread = platform::syscall(libc::SYS_gettid, [0; 6]) as usize;
            let arguments = [process, thread, signal as usize, 0, 0, 0];
            platform::syscall(libc::SYS_tgkill, arguments);
        }
    }
}

/// Writes who overflowed to the standard error output, in one system call.
fn report(culprit: &Culprit) {
    // SAFETY: valid until the handler is done, says `Culprit`.
    let name = unsafe { &*culprit.name };
    let name = if name.is_empty() { "<unnamed>" } else { name };
    let mut digits = [0; 20];
    let parts = [
        "\ngreen thread '".as_bytes(),
        name.as_bytes(),
        b"' (id ",
        decimal(culprit.id, &mut digits),
        b") has overflowed its stack\nfatal runtime error: stack overflow\n",
    ];
    let vectors = parts.map(|part| libc::iovec {
        iov_base: part.as_ptr().cast_mut().cast(),
        iov_len: part.len(),
    });
    let arguments = [2, vectors.as_ptr() as usize, vectors.len(), 0, 0, 0];
    // SAFETY: writev(2) reads the parts, which outlive the call.
    unsafe { platform::syscall(libc::SYS_writev, arguments) };
}

/// `number` in decimal, at the end of `digits`.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[start..];
        }
    }
}

/// Has this OS thread's signal handlers that ask for it run on a stack of their own, so that
/// they can run when the current stack has overflowed. Undone when dropped, on the same OS thread.
///
/// std gives its threads one; this is for those that do not have one.
#[derive(Debug)]
pub(crate) struct AlternateStack {
    /// The mapping with its guard; `None` if the OS thread had an alternate stack before.
    mapping: Option<Range<usize>>,
    /// The kernel keeps the setting for each OS thread: neither `Send` nor `Sync`.
    thread: PhantomData<*mut ()>,
}

impl AlternateStack {
    /// Gives this OS thread an alternate stack unless it has one.
    ///
    /// # Errors
    ///
    /// The kernel maps no more memory (mmap(2), mprotect(2)).
    pub(crate) fn for_this_thread() -> io::Result<Self> {
        if alternate_stack()?.ss_flags & libc::SS_DISABLE == 0 {
            return Ok(Self {
                mapping: None,
                thread: PhantomData,
            });
        }
        let page = platform::page_size();
        // SAFETY: getauxval(3) has no preconditions; 0 for an entry that is not there.
        let minimum = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
        let size = (minimum.max(libc::MINSIGSTKSZ) + (16 << 10)).next_multiple_of(page);
        let start = map(page + size).map_err(io::Error::from_raw_os_error)?;
        let own = Self {
            mapping: Some(start..start + page + size),
            thread: PhantomData,
        };
        protect(start..start + page).map_err(io::Error::from_raw_os_error)?;
        set_alternate_stack(&libc::stack_t {
            ss_sp: ptr::with_exposed_provenance_mut(start + page),
            ss_flags: 0,
            ss_size: size,
        })?;
        Ok(own)
    }
}

impl Drop for AlternateStack {
    fn drop(&mut self) {
        let Some(mapping) = self.mapping.take() else {
            return;
        };
        let is_own = |set: libc::stack_t| mapping.contains(&set.ss_sp.addr());
        if !alternate_stack().is_ok_and(is_own) {
            // Somebody has set another one since, which is theirs to undo.
            let _ = unmap(mapping);
            return;
        }
        let disabled = set_alternate_stack(&libc::stack_t {
            ss_sp: ptr::null_mut(),
            ss_flags: libc::SS_DISABLE,
            ss_size: libc::MINSIGSTKSZ,
        });
        // Refused when dropped on that very stack: then it must stay mapped.
        if disabled.is_ok() {
            let _ = unmap(mapping);
        }
    }
}

fn alternate_stack() -> io::Result<libc::stack_t> {
    let mut present = MaybeUninit::zeroed();
    // SAFETY: sigaltstack(2) with a null first pointer only writes the present setting.
    match unsafe { libc::sigaltstack(ptr::null(), present.as_mut_ptr()) } {
        // SAFETY: zeroed is a valid stack_t to begin with, and then it was written.
        0 => Ok(unsafe { present.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set_alternate_stack(setting: &libc::stack_t) -> io::Result<()> {
    // SAFETY: callers pass memory of their own that stays mapped while it is set, or none.
    match unsafe { libc::sigaltstack(setting, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::stack::tests::{assert_success, in_child, pool, take, write};
    use corosensei::Coroutine;
    use std::hint::black_box;
    use std::os::unix::process::ExitStatusExt;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Where the guard of the stack is that the test runs on.
    static GUARD: AtomicUsize = AtomicUsize::new(0);

    fn culprit(name: &'static str) -> Option<Culprit> {
        let start = GUARD.load(Ordering::Relaxed);
        (start != 0).then_some(Culprit {
            guard: start..start + super::super::slab::GUARD,
            name,
            id: 18_446_744_073_709_551_615,
        })
    }

    fn recurse(depth: u64) -> u64 {
        let frame = black_box([depth; 64]);
        match black_box(depth) {
            u64::MAX => 0,
            _ => recurse(depth + 1) + frame[depth as usize % 64],
        }
    }

    fn overflow() {
        let stack = take(&pool(), 64 << 10);
        GUARD.store(stack.guard().start, Ordering::Relaxed);
        Coroutine::<(), (), u64, _>::with_stack(stack, |_, ()| recurse(0)).resume(());
    }

    #[test]
    fn an_overflow_names_the_green_thread() {
        let name = "an_overflow_names_the_green_thread";
        let output = in_child(module_path!(), name, || {
            install(|| culprit("worms & co"));
            overflow();
        });
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
        let report = String::from_utf8(output.stderr).unwrap();
        let expected = "\ngreen thread 'worms & co' (id 18446744073709551615) has overflowed its \
                        stack\nfatal runtime error: stack overflow\n";
        assert!(report.ends_with(expected), "{report:?}");
    }

    #[test]
    fn an_overflow_of_a_nameless_one_does_too() {
        let name = "an_overflow_of_a_nameless_one_does_too";
        let output = in_child(module_path!(), name, || {
            install(|| culprit(""));
            overflow();
        });
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
        let report = String::from_utf8(output.stderr).unwrap();
        assert!(
            report.contains("\ngreen thread '<unnamed>' (id "),
            "{report:?}"
        );
    }

    #[test]
    fn other_faults_are_none_of_ours() {
        let name = "other_faults_are_none_of_ours";
        let output = in_child(module_path!(), name, || {
            let stack = take(&pool(), 64 << 10);
            GUARD.store(stack.guard().start, Ordering::Relaxed);
            install(|| culprit("innocent"));
            write(black_box(8), 1);
        });
        assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{output:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("innocent"));
    }

    fn set_previous(handler: usize, flags: libc::c_int) {
        // SAFETY: all-zero is a valid sigaction.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = handler;
        action.sa_flags = flags | libc::SA_ONSTACK;
        assert!(SIGNALS.iter().all(|&signal| set_action(signal, &action)));
    }

    extern "C" fn plain(signal: libc::c_int) {
        // SAFETY: _exit(2) has no preconditions.
        unsafe { libc::_exit(100 + signal) }
    }

    extern "C" fn with_info(
        signal: libc::c_int,
        info: *mut libc::siginfo_t,
        context: *mut libc::c_void,
    ) {
        // SAFETY: the kernel's siginfo, passed on.
        let address = unsafe { (*info).si_addr() } as usize;
        let complete = address == 24 && !context.is_null();
        // SAFETY: _exit(2) has no preconditions.
        unsafe { libc::_exit(if complete { signal } else { 1 }) }
    }

    #[test]
    fn the_previous_handler_gets_other_faults() {
        let name = "the_previous_handler_gets_other_faults";
        let output = in_child(module_path!(), name, || {
            let handler: extern "C" fn(libc::c_int) = plain;
            set_previous(handler as usize, 0);
            install(|| culprit(""));
            install(|| unreachable!("installed once"));
            write(black_box(8), 1);
        });
        assert_eq!(output.status.code(), Some(111), "{output:?}");
    }

    #[test]
    fn the_previous_handler_gets_all_it_asked_for() {
        let name = "the_previous_handler_gets_all_it_asked_for";
        let output = in_child(module_path!(), name, || {
            let handler: extern "C" fn(_, _, _) = with_info;
            set_previous(handler as usize, libc::SA_SIGINFO);
            install(|| culprit(""));
            write(black_box(24), 1);
        });
        assert_eq!(output.status.code(), Some(libc::SIGSEGV), "{output:?}");
    }

    fn send(signal: libc::c_int) {
        // SAFETY: raise(3) has no preconditions.
        assert_eq!(unsafe { libc::raise(signal) }, 0);
    }

    #[test]
    fn a_signal_that_was_sent_is_not_lost() {
        let name = "a_signal_that_was_sent_is_not_lost";
        let output = in_child(module_path!(), name, || {
            set_previous(libc::SIG_DFL, 0);
            install(|| culprit(""));
            send(libc::SIGBUS);
        });
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
    }

    #[test]
    fn what_was_ignored_is_ignored_but_for_faults() {
        let name = "what_was_ignored_is_ignored_but_for_faults";
        let output = in_child(module_path!(), name, || {
            set_previous(libc::SIG_IGN, 0);
            install(|| culprit(""));
            send(libc::SIGSEGV);
            send(libc::SIGBUS);
            write(black_box(8), 1);
        });
        assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{output:?}");
    }

    #[test]
    fn an_alternate_stack_is_set_where_there_is_none() {
        let name = "an_alternate_stack_is_set_where_there_is_none";
        let output = in_child(module_path!(), name, || {
            let before = alternate_stack().unwrap();
            assert_eq!(before.ss_flags, 0, "std sets one");
            drop(AlternateStack::for_this_thread().unwrap());
            assert_eq!(alternate_stack().unwrap().ss_sp, before.ss_sp);

            set_alternate_stack(&libc::stack_t {
                ss_flags: libc::SS_DISABLE,
                ..before
            })
            .unwrap();
            let own = AlternateStack::for_this_thread().unwrap();
            let set = alternate_stack().unwrap();
            assert_eq!(set.ss_flags, 0);
            assert!(set.ss_size >= libc::MINSIGSTKSZ + (16 << 10));
            write(set.ss_sp as usize, 1);
            write(set.ss_sp as usize + set.ss_size - 1, 1);
            drop(own);
            assert_ne!(alternate_stack().unwrap().ss_flags & libc::SS_DISABLE, 0);
            set_alternate_stack(&before).unwrap();
        });
        assert_success(&output);
    }
}
