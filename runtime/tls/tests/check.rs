//! The start-up check fails when something is not as expected, and says what and what to do. It is
//! given falsified answers, which only make a comparison fail: nothing is written outside a block.

use std::cell::Cell;

use super::super::facts::{
    Facts, Unsupported, check, check_features, check_static_tls, check_version, features, find_out,
    observe,
};
use super::super::layout::{Described, Keys, Layout, expect};
use super::super::modules::Modules;
use super::super::{symbols, trial};
use super::green::Green;
use crate::platform::thread_pointer;
use crate::platform::x86_64::tcb;

const NEW: &str = "2.36";
const REPORT: &str = "this C library differs from the glibc versions (2.34 and later) that are \
                      supported: use one of those, and please report it";

/// Expects that green threads cannot run because of `what`, and returns what is said of it.
#[track_caller]
fn refused<T>(result: Result<T, Unsupported>, what: &str, advice: &str) -> String {
    let Err(unsupported) = result else {
        panic!("nobody saw that {what} is wrong");
    };
    let message = unsupported.to_string();
    let start = format!("green threads cannot run here: {what}: ");
    let difference = message
        .strip_prefix(&start)
        .and_then(|rest| rest.strip_suffix(&format!("; {advice}")));
    difference.unwrap_or_else(|| panic!("{message}")).to_owned()
}

fn never() -> Result<Facts, Unsupported> {
    unreachable!("an earlier step has failed")
}

#[test]
fn an_old_or_unknown_libc_is_refused() {
    for version in ["2.34", "2.36", "2.36-debian", "2.40.9000", "2.100", "3.0"] {
        assert!(check_version(version).is_ok(), "{version}");
    }
    for version in [
        "2.31",
        "2.33.9000",
        "2.4",
        "1.99",
        "2",
        "2.",
        ".36",
        "musl",
        "",
    ] {
        let difference = format!("expected glibc 2.34 or later, found glibc {version}");
        let advice = "run on a newer distribution";
        for result in [
            check_version(version),
            find_out(version, 0, never).map(|_| ()),
        ] {
            assert_eq!(refused(result, "the C library", advice), difference);
        }
    }
}

#[test]
fn a_shadow_stack_is_refused() {
    for features in [0, 1, !tcb::FEATURE_SHADOW_STACK] {
        assert!(check_features(features).is_ok(), "{features:#x}");
    }
    for features in [2, 3, u32::MAX] {
        for result in [
            check_features(features),
            find_out(NEW, features, never).map(|_| ()),
        ] {
            let what = "the processor's control-flow enforcement";
            let advice = "start the program with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off";
            assert_eq!(
                refused(result, what, advice),
                "expected no shadow stack, found a shadow stack in use"
            );
        }
    }
}

#[test]
fn the_features_are_those_of_the_thread_control_block() {
    let set = |features: u32| {
        let place = thread_pointer().wrapping_add(tcb::FEATURES).cast::<u32>();
        // SAFETY: the head of the block in force; nothing looks at it before it is put back.
        unsafe { place.replace(features) }
    };
    let seen = Green::new().run(move |_| {
        let before = set(tcb::FEATURE_SHADOW_STACK);
        let seen = features();
        set(before);
        seen
    });
    assert_eq!(seen, tcb::FEATURE_SHADOW_STACK);
}

#[test]
fn implausible_static_storage_is_refused() {
    for (size, align) in [(4_096, 64), (1 << 24, 1), (0, 1 << 16)] {
        assert!(check_static_tls(size, align).is_ok(), "{size} {align}");
    }
    for (size, align) in [
        (4_096, 0),
        (4_096, 48),
        (4_096, 1 << 17),
        ((1 << 24) + 1, 64),
    ] {
        let result = check_static_tls(size, align);
        let difference = refused(result, "static thread-local storage", REPORT);
        let found = format!("found {size} bytes aligned to {align}");
        assert!(difference.ends_with(&found), "{difference}");
    }
}

#[test]
fn an_implausible_descriptor_is_refused() {
    let (tid, size) = (c"_thread_db_pthread_tid", c"_thread_db_sizeof_pthread");
    let field = symbols::require_field(tid, 8);
    let difference = refused(field, "_thread_db_pthread_tid", REPORT);
    assert!(difference.starts_with("expected a place within 8 bytes, found Some("));
    let number = symbols::require_size(size, 8);
    let difference = refused(number, "_thread_db_sizeof_pthread", REPORT);
    assert!(difference.starts_with("expected a place within 8 bytes, found "));
    let advice = "link dynamically against glibc 2.34 or later";
    assert_eq!(
        refused(
            symbols::require_size(c"none", 8),
            "a function of the C library",
            advice
        ),
        "expected the symbol none, found none of that name"
    );
}

#[test]
fn a_value_other_than_expected_is_refused() {
    assert!(expect("a word", 7, 7).is_ok());
    assert_eq!(
        refused(expect("a word", 7, 8), "a word", REPORT),
        "expected 7, found 8"
    );
}

/// Observes the layout of a real thread, with some of what glibc says falsified.
fn observed(
    falsify: impl FnOnce(&mut Described, &mut Keys, &mut Modules),
) -> Result<Layout, Unsupported> {
    let facts = check().unwrap();
    let size = facts.layout.pthread_size;
    let storage = facts.block_size - size.next_multiple_of(facts.block_align);
    let mut described = Described::find(size)?;
    let (mut keys, mut modules) = (Keys::find()?, Modules::find(storage)?);
    falsify(&mut described, &mut keys, &mut modules);
    Layout::observe(&described, storage, &keys, &modules)
}

#[test]
fn a_layout_that_is_not_the_threads_is_refused() {
    assert!(observed(|_, _, _| ()).is_ok());
    let layout = &check().unwrap().layout;
    // The last value of the first block of pthread keys, which no new thread has set.
    let zeros = layout.first_key_block + Keys::find().unwrap().block_size() - 16;
    type Falsify<'a> = &'a dyn Fn(&mut Described, &mut Keys, &mut Modules);
    let cases: [(&str, Falsify<'_>); 9] = [
        ("the thread's number", &|it, _, _| it.tid.offset += 8),
        ("the list node's size", &|it, _, _| it.list.size -= 8),
        ("whether the list node is linked", &|it, _, _| {
            it.list.offset = zeros;
        }),
        ("whether the first key block is in the TCB", &|it, _, _| {
            it.key_blocks.offset += 8;
        }),
        ("a pthread key's value", &|_, keys, _| {
            keys.value_data = keys.value_sequence;
        }),
        ("a pthread key's sequence number", &|_, keys, _| {
            keys.value_sequence = keys.value_data;
        }),
        ("a pthread key's sequence number", &|_, keys, _| {
            keys.key_sequence = keys.key_destructor;
        }),
        ("a pthread key's destructor", &|_, keys, _| {
            keys.key_destructor = keys.key_sequence;
        }),
        (
            "libc's pointer to the resolver's state",
            &|_, _, modules| {
                modules.libc.size = 0;
            },
        ),
    ];
    for (what, falsify) in cases {
        let difference = refused(observed(falsify), what, REPORT);
        let (expected, found) = difference.split_once(", found ").unwrap();
        assert_ne!(expected.strip_prefix("expected "), Some(found));
    }
}

/// Runs the check on facts of which some are falsified.
fn tried(falsify: impl FnOnce(&mut Facts)) -> Result<Facts, Unsupported> {
    find_out(NEW, 0, || {
        let mut facts = observe()?;
        falsify(&mut facts);
        Ok(facts)
    })
}

/// Where the trial's thread-local is, in bytes from the thread pointer.
fn marker() -> isize {
    let address = trial::MARKER.with(|marker| marker.as_ptr().addr());
    let offset = address.wrapping_sub(thread_pointer().addr());
    offset.cast_signed()
}

#[test]
fn facts_that_do_not_hold_in_a_trial_block_are_refused() {
    type Falsify = fn(&mut Facts);
    let cases: [(&str, Falsify); 4] = [
        ("the thread pointer", |facts| facts.layout.tid = tcb::SELF),
        ("the place of errno", |facts| facts.layout.tid = tcb::TCB),
        ("a thread-local's initial value", |facts| {
            facts.layout.processor = Some(marker());
        }),
        ("a thread-local's value after reset", |facts| {
            facts.modules.images.clear();
        }),
    ];
    for (what, falsify) in cases {
        let difference = refused(tried(falsify), &format!("{what} in a trial block"), REPORT);
        assert!(difference.starts_with("expected 0x"), "{difference}");
    }
}

thread_local! {
    /// Whether [`allocates_once`] or [`spoils_the_second`] was called.
    static CALLED: Cell<bool> = const { Cell::new(false) };
}

unsafe extern "C" fn allocates_nothing(_block: *mut u8) -> *mut u8 {
    std::ptr::null_mut()
}

unsafe extern "C" fn allocates_once(block: *mut u8) -> *mut u8 {
    if CALLED.replace(true) {
        return std::ptr::null_mut();
    }
    // SAFETY: as the caller calls this.
    unsafe { (check().unwrap().functions.allocate_tls)(block) }
}

unsafe extern "C" fn spoils_the_second(block: *mut u8) -> *mut u8 {
    if CALLED.replace(true) {
        trial::MARKER.set(7);
    }
    // SAFETY: as the caller calls this.
    unsafe { (check().unwrap().functions.allocate_tls)(block) }
}

#[test]
fn functions_that_fail_in_a_trial_are_refused() {
    let result = tried(|facts| facts.functions.allocate_tls = allocates_nothing);
    let advice = "raise the process's limits on memory and threads";
    let difference = refused(result, "a trial block", advice);
    assert!(difference.starts_with("expected success, found "));

    // As if a library had come meanwhile: the reset asks for new storage.
    CALLED.set(false);
    let result = tried(|facts| {
        facts.functions.allocate_tls = allocates_once;
        facts.modules.generation += 1;
    });
    let what = "whether a block can be reset in a trial block";
    assert_eq!(refused(result, what, REPORT), "expected 0x1, found 0x0");

    CALLED.set(false);
    let result = tried(|facts| {
        facts.functions.allocate_tls = spoils_the_second;
        facts.modules.generation += 1;
    });
    let what = "the thread's own thread-local in a trial block";
    assert!(refused(result, what, REPORT).ends_with(", found 0x7"));
}
