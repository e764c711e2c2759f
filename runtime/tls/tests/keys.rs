//! Destructors: of thread-locals and of pthread keys.

use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::green::Green;

/// Counts its drops.
struct Counted(&'static AtomicUsize);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn key(destructor: unsafe extern "C" fn(*mut c_void)) -> libc::pthread_key_t {
    let mut key = 0;
    // SAFETY: a new key; the destructors below take any value.
    let result = unsafe { libc::pthread_key_create(&mut key, Some(destructor)) };
    assert_eq!(result, 0);
    key
}

fn set(key: libc::pthread_key_t, value: usize) {
    // SAFETY: a key of ours and a value that is not followed.
    let result = unsafe { libc::pthread_setspecific(key, ptr::without_provenance(value)) };
    assert_eq!(result, 0);
}

fn get(key: libc::pthread_key_t) -> usize {
    // SAFETY: a key of ours.
    unsafe { libc::pthread_getspecific(key) }.addr()
}

fn delete(key: libc::pthread_key_t) {
    // SAFETY: a key of ours.
    assert_eq!(unsafe { libc::pthread_key_delete(key) }, 0);
}

#[test]
fn thread_local_destructors_run_once() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static VALUE: RefCell<Option<Counted>> = const { RefCell::new(None) };
    }
    let mut green = Green::new();
    for round in 1..=3 {
        green.run(|_| {
            VALUE.with_borrow_mut(|value| {
                assert!(value.is_none());
                *value = Some(Counted(&DROPS));
            });
            assert_eq!(DROPS.load(Ordering::Relaxed), round - 1);
        });
        assert_eq!(DROPS.load(Ordering::Relaxed), round);
        green.reset();
    }
    drop(green);
    assert_eq!(DROPS.load(Ordering::Relaxed), 3);
}

#[test]
fn a_destructor_may_use_a_new_thread_local() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static LATE: RefCell<Option<Counted>> = const { RefCell::new(None) };
        static EARLY: RefCell<Option<MakesLate>> = const { RefCell::new(None) };
    }
    struct MakesLate;
    impl Drop for MakesLate {
        fn drop(&mut self) {
            LATE.with_borrow_mut(|late| *late = Some(Counted(&DROPS)));
        }
    }
    Green::new().run(|_| EARLY.with_borrow_mut(|early| *early = Some(MakesLate)));
    assert_eq!(DROPS.load(Ordering::Relaxed), 1);
}

#[test]
fn a_key_destructor_gets_the_value_and_finds_null() {
    static KEY: AtomicU32 = AtomicU32::new(0);
    static SEEN: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());
    unsafe extern "C" fn destructor(value: *mut c_void) {
        let now = get(KEY.load(Ordering::Relaxed));
        SEEN.lock().unwrap().push((value.addr(), now));
    }
    KEY.store(key(destructor), Ordering::Relaxed);
    let mut green = Green::new();
    for value in [11, 22] {
        green.run(|_| {
            assert_eq!(get(KEY.load(Ordering::Relaxed)), 0);
            set(KEY.load(Ordering::Relaxed), value);
        });
        green.reset();
    }
    green.run(|_| assert_eq!(get(KEY.load(Ordering::Relaxed)), 0));
    assert_eq!(*SEEN.lock().unwrap(), [(11, 0), (22, 0)]);
    delete(KEY.load(Ordering::Relaxed));
}

#[test]
fn a_value_set_again_gets_four_rounds() {
    static KEY: AtomicU32 = AtomicU32::new(0);
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    unsafe extern "C" fn destructor(value: *mut c_void) {
        CALLS.fetch_add(1, Ordering::Relaxed);
        if value.addr() > 1 {
            set(KEY.load(Ordering::Relaxed), value.addr() - 1);
        }
    }
    KEY.store(key(destructor), Ordering::Relaxed);
    let mut green = Green::new();
    for (value, expected) in [(1, 1), (3, 3), (4, 4), (100, 4)] {
        CALLS.store(0, Ordering::Relaxed);
        green.run(|_| set(KEY.load(Ordering::Relaxed), value));
        assert_eq!(CALLS.load(Ordering::Relaxed), expected, "value {value}");
        green.reset();
        green.run(|_| assert_eq!(get(KEY.load(Ordering::Relaxed)), 0));
        green.reset();
    }
    delete(KEY.load(Ordering::Relaxed));
}

#[test]
fn keys_beyond_the_first_block_work() {
    static SUM: AtomicUsize = AtomicUsize::new(0);
    unsafe extern "C" fn destructor(value: *mut c_void) {
        SUM.fetch_add(value.addr(), Ordering::Relaxed);
    }
    let keys: Vec<_> = (0..100).map(|_| key(destructor)).collect();
    assert!(keys.iter().any(|&key| key >= 64));
    let mut green = Green::new();
    for _ in 0..3 {
        SUM.store(0, Ordering::Relaxed);
        green.run(|_| {
            for (value, &key) in keys.iter().enumerate() {
                assert_eq!(get(key), 0);
                set(key, value);
            }
        });
        assert_eq!(SUM.load(Ordering::Relaxed), (0..100).sum());
        green.reset();
    }
    keys.into_iter().for_each(delete);
}

#[test]
fn a_deleted_or_reused_key_has_no_destructor_for_old_values() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    unsafe extern "C" fn destructor(_value: *mut c_void) {
        CALLS.fetch_add(1, Ordering::Relaxed);
    }
    let mut green = Green::new();
    green.run(|_| {
        let old = key(destructor);
        set(old, 1);
        delete(old);
    });
    assert_eq!(CALLS.load(Ordering::Relaxed), 0);
    green.reset();
    let keys = green.run(|_| {
        let old = key(destructor);
        set(old, 1);
        delete(old);
        // A key of the same number has a new sequence number; there may be others in between.
        let mut keys = vec![key(destructor)];
        while keys.last() != Some(&old) && keys.len() < 200 {
            keys.push(key(destructor));
        }
        keys
    });
    assert_eq!(CALLS.load(Ordering::Relaxed), 0);
    keys.into_iter().for_each(delete);
}

#[test]
fn a_thread_local_made_by_a_key_destructor_is_dropped() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static VALUE: RefCell<Option<Counted>> = const { RefCell::new(None) };
    }
    unsafe extern "C" fn destructor(_value: *mut c_void) {
        VALUE.with_borrow_mut(|value| *value = Some(Counted(&DROPS)));
    }
    let key = key(destructor);
    Green::new().run(|_| set(key, 1));
    assert_eq!(DROPS.load(Ordering::Relaxed), 1);
    delete(key);
}

#[test]
fn the_os_threads_keys_are_its_own() {
    unsafe extern "C" fn destructor(_value: *mut c_void) {}
    let key = key(destructor);
    set(key, 5);
    Green::new().run(|_| {
        assert_eq!(get(key), 0);
        set(key, 6);
    });
    assert_eq!(get(key), 5);
    set(key, 0);
    delete(key);
}

/// A destructor that suspends and goes on on another OS thread.
#[test]
fn a_destructor_may_move_to_another_os_thread() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    struct Suspends(Box<dyn Fn()>);
    impl Drop for Suspends {
        fn drop(&mut self) {
            (self.0)();
            DROPS.fetch_add(1, Ordering::Relaxed);
        }
    }
    thread_local! {
        static VALUE: RefCell<Option<Suspends>> = const { RefCell::new(None) };
    }
    let mut green = Green::new();
    let mut running = green.start(|suspend| {
        // SAFETY: only the lifetime changes; the destructor runs before the coroutine's frame,
        // which `suspend` borrows from, is gone.
        let suspend = unsafe { std::mem::transmute::<&dyn Fn(), &'static dyn Fn()>(suspend) };
        VALUE.with_borrow_mut(|value| *value = Some(Suspends(Box::new(suspend))));
    });
    assert!(running.step().is_none());
    assert_eq!(DROPS.load(Ordering::Relaxed), 0);
    std::thread::scope(|scope| {
        let there = scope.spawn(move || running.step().is_some());
        assert!(there.join().unwrap());
    });
    assert_eq!(DROPS.load(Ordering::Relaxed), 1);
}
