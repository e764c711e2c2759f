//! Where things are in glibc's `struct pthread`: taken from the debugger's descriptors, and from
//! watching a real thread where there is none.
//!
//! Called by `facts`, once.
//!
//! # Protocol
//! [`Layout::observe`] starts an OS thread on a stack of known place and size, with all signals
//! blocked. There, [`watch`] has glibc put known values into `struct pthread` through its public
//! functions, and looks where they appear; it reads that structure and changes nothing in it by
//! itself. What must be there and is not ends the check; what can be done without is `None`.

use std::ffi::{c_int, c_void};
use std::fmt::Debug;
use std::mem;
use std::ptr;

use super::facts::Unsupported;
use super::modules::Modules;
use super::symbols::{self, Field};
use super::trial::{Mapping, with_signals_blocked};
use crate::platform::{syscall, thread_pointer, x86_64::tcb};

unsafe extern "C" {
    fn __res_state() -> *mut c_void;
}

const WORD: usize = mem::size_of::<usize>();

/// Offsets in bytes from the thread pointer.
#[derive(Debug)]
pub(super) struct Layout {
    /// The size of `struct pthread`.
    pub(super) pthread_size: usize,
    /// The thread's number, an `int`.
    pub(super) tid: usize,
    /// The node in glibc's list of threads, which fork(2) takes the forking thread out of.
    pub(super) list: usize,
    /// Where values of pthread keys are: an array of pointers to blocks of values.
    pub(super) key_blocks: Field,
    /// The first such block, which is part of `struct pthread`.
    pub(super) first_key_block: usize,
    /// A byte that pthread_setspecific(3) sets to one.
    pub(super) keys_used: Option<usize>,
    /// Requests to cancel the thread and how it takes them, an `int`.
    pub(super) cancellation: Option<usize>,
    /// The list of robust mutexes held: a pointer to itself when empty.
    pub(super) robust_list: Option<RobustList>,
    /// The stack's low end and, in the next word, its size.
    pub(super) stack_bounds: Option<usize>,
    /// The resolver's state of this thread, and libc's pointer to it.
    pub(super) resolver: Resolver,
    /// The processor number of rseq(2), an `int`, relative to the thread pointer.
    pub(super) processor: Option<isize>,
}

/// `struct robust_list_head`, see get_robust_list(2), and glibc's pointer back in the word before.
#[derive(Debug, Clone, Copy)]
pub(super) struct RobustList {
    pub(super) head: usize,
    /// The content of the head's second word.
    pub(super) futex_offset: usize,
}

/// Without its own state a thread would share the main thread's, which is not locked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resolver {
    /// Where the thread-local pointer is.
    pub(super) pointer: isize,
    /// Where the state is that it points to.
    pub(super) state: usize,
}

/// glibc's tables of pthread keys.
pub(super) struct Keys {
    table: *const u8,
    key_size: usize,
    pub(super) key_sequence: usize,
    pub(super) key_destructor: usize,
    pub(super) value_size: usize,
    pub(super) value_sequence: usize,
    pub(super) value_data: usize,
    pub(super) values_in_block: usize,
}

// SAFETY: the pointer is to glibc's table, which lives forever and is read with atomics only.
unsafe impl Send for Keys {}
// SAFETY: as above; nothing in here changes after it was made.
unsafe impl Sync for Keys {}

impl Keys {
    pub(super) fn find() -> Result<Keys, Unsupported> {
        let table = symbols::require(c"__pthread_keys")?.cast::<u8>().as_ptr();
        let key_size = symbols::require_size(c"_thread_db_sizeof_pthread_key_struct", 256)?;
        let value_size = symbols::require_size(c"_thread_db_sizeof_pthread_key_data", 256)?;
        let block = symbols::require_size(c"_thread_db_sizeof_pthread_key_data_level2", 1 << 16)?;
        let key = |name| symbols::require_field(name, key_size).map(|field| field.offset);
        let value = |name| symbols::require_field(name, value_size).map(|field| field.offset);
        Ok(Keys {
            table,
            key_size,
            key_sequence: key(c"_thread_db_pthread_key_struct_seq")?,
            key_destructor: key(c"_thread_db_pthread_key_struct_destr")?,
            value_size,
            value_sequence: value(c"_thread_db_pthread_key_data_seq")?,
            value_data: value(c"_thread_db_pthread_key_data_data")?,
            values_in_block: block / value_size,
        })
    }

    /// The size in bytes of a block of values.
    pub(super) fn block_size(&self) -> usize {
        self.values_in_block * self.value_size
    }

    /// The key's sequence number, which tells its incarnations apart, as a pointer into the table.
    pub(super) fn sequence(&self, key: usize) -> *const usize {
        let offset = key * self.key_size + self.key_sequence;
        self.table.wrapping_add(offset).cast()
    }

    /// The key's destructor, zero for none, as a pointer into the table.
    pub(super) fn destructor(&self, key: usize) -> *const usize {
        let offset = key * self.key_size + self.key_destructor;
        self.table.wrapping_add(offset).cast()
    }
}

/// What glibc says of `struct pthread` to debuggers, not yet seen to be true.
pub(super) struct Described {
    /// The size of `struct pthread`.
    pub(super) size: usize,
    pub(super) tid: Field,
    pub(super) list: Field,
    pub(super) key_blocks: Field,
    pub(super) cancellation: Option<Field>,
}

impl Described {
    pub(super) fn find(size: usize) -> Result<Described, Unsupported> {
        Ok(Described {
            size,
            tid: symbols::require_field(c"_thread_db_pthread_tid", size)?,
            list: symbols::require_field(c"_thread_db_pthread_list", size)?,
            key_blocks: symbols::require_field(c"_thread_db_pthread_specific", size)?,
            cancellation: symbols::find_field(c"_thread_db_pthread_cancelhandling"),
        })
    }
}

/// Reads a word of the running thread's own control block or storage.
fn word(offset: isize) -> usize {
    let address = thread_pointer().wrapping_offset(offset).cast::<usize>();
    // SAFETY: the callers name words between the start of the static area and the end of
    // `struct pthread`, which glibc allocates as a whole. Volatile: glibc writes them unseen.
    unsafe { address.read_volatile() }
}

fn at(offset: usize) -> usize {
    word(offset.cast_signed())
}

/// What the observed thread is given and gives back.
struct Watch<'check> {
    described: &'check Described,
    storage: usize,
    stack: (usize, usize),
    keys: &'check Keys,
    modules: &'check Modules,
    result: Option<Result<Layout, Unsupported>>,
}

impl Layout {
    /// Finds the layout out. `storage` is the size of the static area below the thread pointer.
    pub(super) fn observe(
        described: &Described,
        storage: usize,
        keys: &Keys,
        modules: &Modules,
    ) -> Result<Layout, Unsupported> {
        let size = (256 * 1024 + described.size + storage).next_multiple_of(1 << 16);
        let stack = Mapping::new(size)?;
        let mut watch = Watch {
            described,
            storage,
            stack: (stack.low().addr(), size),
            keys,
            modules,
            result: None,
        };
        let error = with_signals_blocked(|| {
            // SAFETY: the attributes are initialised before use; the stack is ours and outlives
            // the thread, as does `watch`, since the thread is joined here.
            unsafe {
                let mut attributes = mem::zeroed::<libc::pthread_attr_t>();
                let mut thread = mem::zeroed::<libc::pthread_t>();
                libc::pthread_attr_init(&mut attributes);
                let mut error =
                    libc::pthread_attr_setstack(&mut attributes, stack.low().cast(), size);
                if error == 0 {
                    let argument = (&raw mut watch).cast();
                    error =
                        libc::pthread_create(&mut thread, &attributes, observed_thread, argument);
                }
                libc::pthread_attr_destroy(&mut attributes);
                if error == 0 {
                    error = libc::pthread_join(thread, ptr::null_mut());
                }
                error
            }
        });
        match (error, watch.result) {
            (0, Some(result)) => result,
            (error, _) => Err(Unsupported::failed("starting a thread", error)),
        }
    }
}

extern "C" fn observed_thread(watch: *mut c_void) -> *mut c_void {
    // SAFETY: `observe` passes its `Watch` and does not touch it until the thread has ended.
    let watch = unsafe { &mut *watch.cast::<Watch<'_>>() };
    watch.result = Some(self::watch(watch));
    ptr::null_mut()
}

pub(super) fn expect<T: PartialEq + Debug>(
    what: &str,
    expected: T,
    found: T,
) -> Result<(), Unsupported> {
    if found == expected {
        return Ok(());
    }
    let (expected, found) = (format!("{expected:?}"), format!("{found:?}"));
    Err(Unsupported::layout(what, &expected, &found))
}

fn watch(watch: &Watch<'_>) -> Result<Layout, Unsupported> {
    let Described {
        size,
        tid,
        list,
        cancellation,
        ..
    } = *watch.described;
    let here = thread_pointer().addr();
    expect("the TCB's first word", here, at(tcb::TCB))?;
    expect("the TCB's self pointer", here, at(tcb::SELF))?;
    expect("multiple_threads", 1, at(tcb::MULTIPLE_THREADS) as c_int)?;

    // SAFETY: gettid(2) has no preconditions.
    let number = unsafe { syscall(libc::SYS_gettid, [0; 6]) } as c_int;
    expect("the thread's number", number, at(tid.offset) as c_int)?;

    expect("the list node's size", 2 * WORD, list.size)?;
    expect(
        "whether the list node is linked",
        true,
        at(list.offset) != 0 && at(list.offset + WORD) != 0,
    )?;

    let (key_blocks, first_key_block, keys_used) = watch_keys(watch)?;
    let cancellation = cancellation
        .filter(|field| field.size == 4 && field.offset + 4 <= size && at_int(field.offset) == 0)
        .map(|field| field.offset);
    let bounds = (0..size - WORD).step_by(WORD);
    let mut bounds = bounds.filter(|&offset| (at(offset), at(offset + WORD)) == watch.stack);
    let stack_bounds = bounds.next().filter(|_| bounds.next().is_none());

    Ok(Layout {
        pthread_size: size,
        tid: tid.offset,
        list: list.offset,
        key_blocks,
        first_key_block,
        keys_used,
        cancellation,
        robust_list: watch_robust_list(size)?,
        stack_bounds,
        resolver: watch_resolver(watch)?,
        processor: find_processor(watch),
    })
}

fn at_int(offset: usize) -> c_int {
    let address = thread_pointer().wrapping_add(offset).cast::<c_int>();
    // SAFETY: as in `word`.
    unsafe { address.read_volatile() }
}

extern "C" fn no_destructor(_value: *mut c_void) {}

/// Sets a key and looks where its value appears, and which byte tells that a key was set.
fn watch_keys(watch: &Watch<'_>) -> Result<(Field, usize, Option<usize>), Unsupported> {
    let Described {
        size,
        key_blocks: blocks,
        ..
    } = *watch.described;
    let keys = watch.keys;
    let here = thread_pointer().addr();
    let first = at(blocks.offset).wrapping_sub(here);
    let inside = first.is_multiple_of(WORD) && first.saturating_add(keys.block_size()) <= size;
    expect("whether the first key block is in the TCB", true, inside)?;

    let snapshot = || (0..size).map(|offset| at(offset & !7).to_ne_bytes()[offset & 7]);
    let before: Vec<u8> = snapshot().collect();
    let mut key = 0;
    let marker = here.wrapping_add(first);
    // SAFETY: a new key, whose value is never followed; it is taken back below.
    let error = unsafe {
        match libc::pthread_key_create(&mut key, Some(no_destructor)) {
            0 => libc::pthread_setspecific(key, ptr::without_provenance(marker)),
            error => error,
        }
    };
    if error != 0 {
        return Err(Unsupported::failed("creating a pthread key", error));
    }
    let key = key as usize;
    let after: Vec<u8> = snapshot().collect();
    let block = at(blocks.offset + key / keys.values_in_block * WORD);
    let value = block + key % keys.values_in_block * keys.value_size;
    let read = |address: usize| {
        let address = ptr::with_exposed_provenance::<usize>(address);
        // SAFETY: glibc's block for this key, checked not to be null below; its table of keys.
        unsafe { address.read_volatile() }
    };
    expect("whether the key's block is there", true, block != 0)?;
    let data = read(value + keys.value_data);
    let sequence = read(value + keys.value_sequence);
    let expected = read(keys.sequence(key).expose_provenance());
    let destructor = read(keys.destructor(key).expose_provenance());
    // SAFETY: the key made above, with its value back to null.
    unsafe {
        libc::pthread_setspecific(key as _, ptr::null());
        libc::pthread_key_delete(key as _);
    }
    expect("a pthread key's value", marker, data)?;
    expect("a pthread key's sequence number", expected, sequence)?;
    let given = no_destructor as extern "C" fn(*mut c_void) as usize;
    expect("a pthread key's destructor", given, destructor)?;

    let in_keys = |offset: &usize| {
        (first..first + keys.block_size()).contains(offset)
            || (blocks.offset..blocks.offset + blocks.size).contains(offset)
    };
    let mut changed = (0..size).filter(|&offset| before[offset] != after[offset]);
    let used = changed.by_ref().find(|offset| !in_keys(offset));
    let more = changed.any(|offset| !in_keys(&offset));
    let used = used.filter(|&offset| !more && (before[offset], after[offset]) == (0, 1));
    Ok((blocks, first, used))
}

/// The kernel knows where the thread's robust list is. `None` if it does not tell.
fn watch_robust_list(size: usize) -> Result<Option<RobustList>, Unsupported> {
    let (mut head, mut length) = (0usize, 0usize);
    let arguments = [
        0,
        (&raw mut head).expose_provenance(),
        (&raw mut length).expose_provenance(),
        0,
        0,
        0,
    ];
    // SAFETY: get_robust_list(2) of the calling thread writes the two words.
    let result = unsafe { syscall(libc::SYS_get_robust_list, arguments) };
    let offset = head.wrapping_sub(thread_pointer().addr());
    if result != 0 || head == 0 || !(WORD..size.saturating_sub(3 * WORD)).contains(&offset) {
        return Ok(None);
    }
    expect("the list of robust mutexes", head, at(offset))?;
    expect("the pointer back to it", head, at(offset - WORD))?;
    Ok(Some(RobustList {
        head: offset,
        futex_offset: at(offset + WORD),
    }))
}

/// The resolver's state is in the TCB, and one word of libc's storage points to it.
fn watch_resolver(watch: &Watch<'_>) -> Result<Resolver, Unsupported> {
    // SAFETY: res_init(3)'s accessor only reads libc's thread-local pointer.
    let state = unsafe { __res_state() }.addr();
    let offset = state.wrapping_sub(thread_pointer().addr());
    let inside = (1..watch.described.size).contains(&offset);
    expect("whether the resolver's state is in the TCB", true, inside)?;
    let storage = watch.modules.libc();
    let first = storage.start.next_multiple_of_word();
    let words = (first..storage.end - (WORD as isize - 1)).step_by(WORD);
    let places: Vec<isize> = words.filter(|&place| word(place) == state).collect();
    match places[..] {
        [pointer] => Ok(Resolver {
            pointer,
            state: offset,
        }),
        _ => Err(Unsupported::layout(
            "libc's pointer to the resolver's state",
            "one word",
            &places.len().to_string(),
        )),
    }
}

/// Where the kernel would write the processor's number, from the offset that glibc publishes for
/// users of rseq(2) since 2.35.
fn find_processor(watch: &Watch<'_>) -> Option<isize> {
    let symbol = symbols::find(c"__rseq_offset")?.cast::<isize>();
    // SAFETY: a constant of type ptrdiff_t, set before the program starts.
    let offset = unsafe { symbol.read() };
    let inside = -watch.storage.cast_signed()..watch.described.size.cast_signed() - 8;
    // The number is the second word of 32 bits of struct rseq.
    (inside.contains(&offset) && offset % 4 == 0).then_some(offset + 4)
}

trait NextWord {
    fn next_multiple_of_word(self) -> Self;
}

impl NextWord for isize {
    fn next_multiple_of_word(self) -> isize {
        (self + WORD as isize - 1).div_euclid(WORD as isize) * WORD as isize
    }
}
