//! What a green thread's storage promises, tried on blocks that run in a bare coroutine.
//!
//! | file | what it is |
//! | --- | --- |
//! | `check` | the start-up check, given falsified answers |
//! | `green` | a block, a stack and a coroutine: just enough of a green thread |
//! | `keys` | pthread keys and destructors |
//! | `process` | what concerns the process as a whole, in a child process |

mod check;
mod green;
mod keys;
mod process;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::mem;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use self::green::Green;
use super::*;
use crate::platform::{errno, set_errno, thread_pointer};

unsafe extern "C" {
    fn __res_state() -> *mut libc::c_void;
    fn isalpha(letter: libc::c_int) -> libc::c_int;
    fn toupper(letter: libc::c_int) -> libc::c_int;
    fn sched_getcpu() -> libc::c_int;
    fn pthread_mutexattr_setrobust(
        attributes: *mut libc::pthread_mutexattr_t,
        robust: libc::c_int,
    ) -> libc::c_int;
}

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(41) };
    static LAZY: RefCell<Vec<String>> = RefCell::new(vec!["first".to_string()]);
}

#[test]
fn the_check_succeeds_and_is_made_once() {
    let first = check().unwrap();
    let second = std::thread::spawn(|| ptr::from_ref(check().unwrap()).addr());
    assert_eq!(ptr::from_ref(first).addr(), second.join().unwrap());
    assert_eq!(first.block_size % first.block_align, 0);
}

#[test]
fn versions_are_compared_as_numbers() {
    let parse = facts::parse_version;
    assert_eq!(parse("2.34"), Some((2, 34)));
    assert_eq!(parse("2.40.9000"), Some((2, 40)));
    assert_eq!(parse("2.36-debian"), Some((2, 36)));
    assert!(parse("2.9") < parse("2.34"));
    assert_eq!(parse("musl"), None);
}

#[test]
fn the_message_says_what_differs_and_what_to_do() {
    let message = super::facts::Unsupported::new("the C library", "glibc", "another", "use glibc")
        .to_string();
    assert_eq!(
        message,
        "green threads cannot run here: the C library: expected glibc, found another; use glibc"
    );
    let missing = symbols::require(c"no_such_symbol").unwrap_err().to_string();
    assert!(missing.contains("no_such_symbol"), "{missing}");
}

#[test]
fn thread_locals_are_each_ones_own() {
    COUNT.set(1);
    let body = |number: usize| {
        move |suspend: &dyn Fn()| {
            assert_eq!(COUNT.get(), 41);
            COUNT.set(number);
            LAZY.with_borrow_mut(|lazy| {
                lazy.push(number.to_string());
                suspend();
                assert_eq!(*lazy, ["first".to_string(), number.to_string()]);
            });
            suspend();
            COUNT.get()
        }
    };
    let (mut first, mut second) = (Green::new(), Green::new());
    let mut first = first.start(body(100));
    let mut second = second.start(body(200));
    for _ in 0..2 {
        assert_eq!(first.step(), None);
        assert_eq!(second.step(), None);
        assert_eq!(COUNT.get(), 1);
    }
    assert_eq!((first.step(), second.step()), (Some(100), Some(200)));
    assert_eq!(COUNT.replace(41), 1);
    LAZY.with_borrow(|lazy| assert_eq!(*lazy, ["first"]));
}

#[test]
fn thread_locals_are_new_after_reset() {
    let mut green = Green::new();
    for round in 0..5 {
        green.run(|_| {
            assert_eq!(COUNT.replace(round), 41);
            LAZY.with_borrow_mut(|lazy| {
                assert_eq!(*lazy, ["first"]);
                lazy.push("second".to_string());
            });
        });
        green.reset();
    }
}

#[test]
fn a_started_thread_may_move_to_another_os_thread() {
    let mut green = Green::new();
    let mut running = green.start(|suspend| {
        let address = COUNT.with(|count| count.as_ptr().addr());
        COUNT.set(7);
        set_errno(libc::EXDEV);
        let id = std::thread::current().id();
        suspend();
        assert_eq!(errno(), libc::EXDEV);
        assert_eq!(COUNT.get(), 7);
        assert_eq!(std::thread::current().id(), id);
        COUNT.with(|count| assert_eq!(count.as_ptr().addr(), address));
    });
    assert!(running.step().is_none());
    std::thread::scope(|scope| {
        let there = scope.spawn(move || running.step().is_some());
        assert!(there.join().unwrap());
    });
}

#[test]
fn each_is_a_thread_of_its_own_to_std() {
    let mut seen = HashSet::from([std::thread::current().id()]);
    let mut green = Green::new();
    for _ in 0..10 {
        assert!(seen.insert(green.run(|_| std::thread::current().id())));
        green.reset();
    }
}

#[test]
fn a_panic_is_counted_where_it_happens() {
    let mut green = Green::new();
    let mut running = green.start(|suspend| {
        struct Suspends<'a>(&'a dyn Fn());
        impl Drop for Suspends<'_> {
            fn drop(&mut self) {
                assert!(std::thread::panicking());
                (self.0)();
                assert!(std::thread::panicking());
            }
        }
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _suspends = Suspends(suspend);
            std::panic::resume_unwind(Box::new(5));
        }));
        panicked.is_err() && !std::thread::panicking()
    });
    assert_eq!(running.step(), None);
    assert!(!std::thread::panicking());
    assert_eq!(running.step(), Some(true));
}

#[test]
fn errno_is_each_ones_own() {
    let mut green = Green::new();
    set_errno(libc::EXDEV);
    let mut running = green.start(|suspend| {
        assert_eq!(errno(), 0);
        set_errno(libc::ENOTTY);
        suspend();
        errno()
    });
    assert_eq!(running.step(), None);
    assert_eq!(errno(), libc::EXDEV);
    assert_eq!(running.step(), Some(libc::ENOTTY));
    drop(running);
    green.reset();
    assert_eq!(green.run(|_| errno()), 0);
}

fn mutex(kind: libc::c_int, robust: bool) -> libc::pthread_mutex_t {
    // SAFETY: attributes and mutex are initialised here; a mutex that is not locked may be moved.
    unsafe {
        let mut attributes = mem::zeroed::<libc::pthread_mutexattr_t>();
        let mut mutex = mem::zeroed::<libc::pthread_mutex_t>();
        libc::pthread_mutexattr_init(&mut attributes);
        assert_eq!(libc::pthread_mutexattr_settype(&mut attributes, kind), 0);
        assert_eq!(
            pthread_mutexattr_setrobust(&mut attributes, robust.into()),
            0
        );
        assert_eq!(libc::pthread_mutex_init(&mut mutex, &attributes), 0);
        mutex
    }
}

#[test]
fn two_blocks_on_one_os_thread_are_two_owners() {
    for (kind, own) in [
        (libc::PTHREAD_MUTEX_RECURSIVE, 0),
        (libc::PTHREAD_MUTEX_ERRORCHECK, libc::EDEADLK),
    ] {
        let mut mutex = mutex(kind, false);
        let mutex = (&raw mut mutex).expose_provenance();
        let get = move || ptr::with_exposed_provenance_mut::<libc::pthread_mutex_t>(mutex);
        let (mut owner, mut other) = (Green::new(), Green::new());
        // SAFETY: the mutex outlives both; each unlock is by the one that locked.
        let mut owner = owner.start(move |suspend| unsafe {
            assert_eq!(libc::pthread_mutex_lock(get()), 0);
            suspend();
            if libc::pthread_mutex_lock(get()) == 0 {
                libc::pthread_mutex_unlock(get());
                libc::pthread_mutex_unlock(get());
                return 0;
            }
            libc::pthread_mutex_unlock(get());
            libc::EDEADLK
        });
        assert_eq!(owner.step(), None);
        // SAFETY: as above.
        let mut other = other.start(move |_| unsafe {
            let unlock = libc::pthread_mutex_unlock(get());
            (libc::pthread_mutex_trylock(get()), unlock)
        });
        assert_eq!(other.step(), Some((libc::EBUSY, libc::EPERM)));
        // SAFETY: as above.
        assert_eq!(unsafe { libc::pthread_mutex_trylock(get()) }, libc::EBUSY);
        assert_eq!(owner.step(), Some(own));
    }
}

#[test]
fn robust_mutexes_lock_and_unlock() {
    let mut first = mutex(libc::PTHREAD_MUTEX_NORMAL, true);
    let mut second = mutex(libc::PTHREAD_MUTEX_NORMAL, true);
    let mutexes = [&raw mut first, &raw mut second].map(|mutex| mutex.expose_provenance());
    let mut green = Green::new();
    for _ in 0..3 {
        green.run(move |_| {
            let mutexes = mutexes.map(ptr::with_exposed_provenance_mut);
            // SAFETY: both mutexes outlive the green thread.
            let locked = mutexes.map(|mutex| unsafe { libc::pthread_mutex_lock(mutex) });
            assert_eq!(locked, [0, 0]);
            // SAFETY: as above, and locked here.
            let unlocked = mutexes.map(|mutex| unsafe { libc::pthread_mutex_unlock(mutex) });
            assert_eq!(unlocked, [0, 0]);
        });
        green.reset();
    }
}

#[test]
fn tids_are_unique_and_no_kernels() {
    let facts = check().unwrap();
    let mut greens = [Green::new(), Green::new(), Green::new()];
    let mut seen = HashSet::new();
    for _ in 0..4 {
        for green in &mut greens {
            let tid = green.thread_pointer().wrapping_add(facts.layout.tid);
            // SAFETY: the tid's place in a block that is in force nowhere.
            let tid = unsafe { tid.cast::<i32>().read() };
            assert!(tid > 1 << 22 && tid < 1 << 30);
            assert!(seen.insert(tid));
            green.reset();
        }
    }
}

#[test]
fn character_tables_and_locale_are_as_in_the_beginning() {
    let mut green = Green::new();
    for _ in 0..2 {
        green.run(|_| {
            // SAFETY: characters within the tables; a locale of our own, freed when not in use.
            unsafe {
                assert!(isalpha(b'x'.into()) != 0 && isalpha(b'1'.into()) == 0);
                assert_eq!(toupper(b'q'.into()), b'Q'.into());
                let global = libc::uselocale(ptr::null_mut());
                assert_eq!(global.addr(), usize::MAX);
                let mine = libc::newlocale(libc::LC_ALL_MASK, c"C".as_ptr(), ptr::null_mut());
                assert!(!mine.is_null());
                libc::uselocale(mine);
            }
        });
        green.reset();
    }
}

#[test]
fn a_pending_dlerror_is_not_inherited() {
    let mut green = Green::new();
    for _ in 0..2 {
        green.run(|_| {
            // SAFETY: the pointer is looked at, not followed; a library that does not exist.
            unsafe {
                assert!(libc::dlerror().is_null());
                assert!(libc::dlopen(c"/no/such/library".as_ptr(), libc::RTLD_NOW).is_null());
            }
        });
        green.reset();
    }
}

#[test]
fn the_processors_number_is_the_kernels() {
    // SAFETY: sysconf(3) and sched_getcpu(3) have no preconditions.
    let processors = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
    let mut green = Green::new();
    // SAFETY: as above.
    let number = green.run(|_| unsafe { sched_getcpu() });
    assert!((0..processors).contains(&number.into()), "{number}");
    // Pinned to one processor, both must name that one; a stale number would not follow.
    std::thread::spawn(move || {
        for processor in 0..processors.min(2) as usize {
            // SAFETY: sets of this size, for the calling thread.
            unsafe {
                let mut set = mem::zeroed::<libc::cpu_set_t>();
                libc::CPU_SET(processor, &mut set);
                if libc::sched_setaffinity(0, mem::size_of_val(&set), &set) != 0 {
                    continue;
                }
            }
            // SAFETY: as above.
            let number = green.run(|_| unsafe { sched_getcpu() });
            assert_eq!(number, processor as libc::c_int);
            green.reset();
        }
    })
    .join()
    .unwrap();
}

#[test]
fn the_resolvers_state_is_each_ones_own() {
    // SAFETY: the address is looked at, not followed.
    let state = |_: &dyn Fn()| unsafe { __res_state() }.addr();
    let (mut first, mut second) = (Green::new(), Green::new());
    let states = [state(&|| ()), first.run(state), second.run(state)];
    assert_eq!(HashSet::from(states).len(), 3);
    let inside = first.thread_pointer().addr()..;
    assert!(inside.contains(&states[1]));
    first.reset();
    assert_eq!(first.run(state), states[1]);
}

#[test]
fn the_stack_bounds_are_where_glibc_looks() {
    let facts = check().unwrap();
    let mut green = Green::new();
    let (low, size) = green.set_stack_bounds();
    if let Some(offset) = facts.layout.stack_bounds {
        let place = green.thread_pointer().wrapping_add(offset);
        // SAFETY: two words of a block that is in force nowhere.
        let found = unsafe { place.cast::<[usize; 2]>().read() };
        assert_eq!(found, [low, size]);
    }
    // 3 MiB of pointers: qsort(3) asks for how much it may put on the stack.
    green.run(|_| {
        unsafe extern "C" fn compare(
            left: *const libc::c_void,
            right: *const libc::c_void,
        ) -> libc::c_int {
            // SAFETY: qsort(3) passes pointers to elements.
            unsafe { left.cast::<u64>().read().cmp(&right.cast::<u64>().read()) as libc::c_int }
        }
        let mut numbers: Vec<u64> = (0..400_000).map(|n| n * 7_919 % 400_009).collect();
        // SAFETY: the vector's elements, and a function that compares two of them.
        unsafe { libc::qsort(numbers.as_mut_ptr().cast(), numbers.len(), 8, Some(compare)) };
        assert!(numbers.is_sorted());
    });
}

#[test]
fn os_threads_can_be_started_and_joined() {
    let total = Arc::new(AtomicUsize::new(0));
    let mut green = Green::new();
    green.run({
        let total = Arc::clone(&total);
        move |_| {
            let threads = [1, 2, 3].map(|number| {
                let total = Arc::clone(&total);
                std::thread::spawn(move || {
                    assert_eq!(COUNT.get(), 41);
                    total.fetch_add(number, Ordering::Relaxed);
                })
            });
            for thread in threads {
                thread.join().unwrap();
            }
        }
    });
    assert_eq!(total.load(Ordering::Relaxed), 6);
}

#[test]
fn the_os_threads_own_storage_is_untouched() {
    let home = thread_pointer();
    COUNT.set(5);
    Green::new().run(|_| COUNT.set(6));
    assert_eq!((thread_pointer(), COUNT.replace(41)), (home, 5));
}
