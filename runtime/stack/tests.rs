//! White-box tests of the room. What ends the process or needs it to itself runs in a child: the
//! test binary again, asked for the one test.

use super::cache::BOUND;
use super::pool::tests::assert_idle;
use super::slab::{CLASSES, GUARD, MINIMUM, class_of, class_size};
use super::*;
use crate::platform::page_size;
use crate::primitive::Arc;
use crate::tls;
use corosensei::stack::Stack as _;
use corosensei::{Coroutine, CoroutineResult};
use std::collections::HashSet;
use std::hint::black_box;
use std::os::fd::AsRawFd;
use std::process::{Command, Output};
use std::sync::mpsc;

const SIZE: usize = 64 << 10;

pub(super) fn pool() -> Arc<Pool> {
    Pool::new(tls::check().unwrap())
}

pub(super) fn take(pool: &Arc<Pool>, size: usize) -> Stack {
    pool.take(&pool.reserve(size).unwrap())
}

fn base(stack: &Stack) -> usize {
    stack.usable().end
}

/// Runs `body` in a process of its own; what became of it. `module` and `name` are
/// the calling test's.
pub(super) fn in_child(module: &str, name: &str, body: impl FnOnce()) -> Output {
    if std::env::var_os("SWARD_TEST_CHILD").is_some() {
        body();
        std::process::exit(0);
    }
    let (_, room) = module.split_once("::").unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args([&format!("{room}::{name}"), "--exact", "--nocapture"])
        .env("SWARD_TEST_CHILD", "1")
        .output()
        .unwrap()
}

pub(super) fn assert_success(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

/// Numbers that look random and are the same in every run (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}

/// How many of the pages in `range` are in memory.
fn resident(range: std::ops::Range<usize>) -> usize {
    let start = range.start & !(page_size() - 1);
    let mut pages = vec![0_u8; (range.end - start).div_ceil(page_size())];
    // SAFETY: mincore(2) writes one byte for each page of the range.
    let result = unsafe {
        libc::mincore(
            start as *mut libc::c_void,
            range.end - start,
            pages.as_mut_ptr(),
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    pages.iter().filter(|page| **page & 1 != 0).count()
}

pub(super) fn write(address: usize, value: u8) {
    // SAFETY: callers pass an address in a stack that they hold, or one that is meant to fault.
    unsafe { (address as *mut u8).write_volatile(value) };
}

fn read(address: usize) -> u8 {
    // SAFETY: callers pass an address in a stack that they hold.
    unsafe { (address as *mut u8).read_volatile() }
}

/// Whether the bytes at both ends of `range` fault, as the kernel finds when it is to read them.
fn faults(range: std::ops::Range<usize>) -> bool {
    let (_reader, writer) = std::io::pipe().unwrap();
    [range.start, range.end - 1].iter().all(|&address| {
        // SAFETY: write(2) of a byte that cannot be read is an error, not a fault.
        let result = unsafe { libc::write(writer.as_raw_fd(), address as *const _, 1) };
        result == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
    })
}

fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().count()
}

#[test]
fn sizes_round_up_to_classes() {
    for class in 0..CLASSES {
        let size = class_size(class);
        assert_eq!(size % page_size(), 0);
        assert_eq!(class_of(size).unwrap(), class);
        assert_eq!(class_of(size - 1).unwrap(), class);
        if class + 1 < CLASSES {
            assert_eq!(class_of(size + 1).unwrap(), class + 1);
            assert!(class_size(class + 1) <= size + size / 4);
        }
    }
    assert_eq!(class_size(class_of(0).unwrap()), MINIMUM);
    assert_eq!(class_size(class_of(SIZE).unwrap()), SIZE);
    assert_eq!(class_size(class_of(2 << 20).unwrap()), 2 << 20);
}

#[test]
fn impossible_sizes_are_errors() {
    let pool = pool();
    for size in [usize::MAX, usize::MAX / 2, 1 << 63, (1 << 46) + 1, 1 << 46] {
        // The last one is a size that exists, but two of them are more than there is.
        let held: Vec<_> = (0..2).map(|_| pool.reserve(size)).collect();
        let refused = held.into_iter().find_map(Result::err).unwrap();
        assert_eq!(refused.kind(), std::io::ErrorKind::OutOfMemory, "{refused}");
        assert!(refused.to_string().contains("stack of"), "{refused}");
    }
    take(&pool, SIZE);
}

#[test]
fn default_size_is_stds() {
    assert_eq!(parse_size(None), 2 << 20);
    assert_eq!(parse_size(Some("123456")), 123_456);
    assert_eq!(parse_size(Some("a lot")), 2 << 20);
    assert_eq!(parse_size(Some("0")), 1);
    let asked = std::env::var("RUST_MIN_STACK").ok();
    assert_eq!(default_size(), parse_size(asked.as_deref()));
    assert_eq!(default_size(), default_size());
}

#[test]
fn stacks_are_as_large_as_asked_and_do_not_overlap() {
    let pool = pool();
    let sizes = [0, 1, MINIMUM, MINIMUM + 1, SIZE, 100_000, 2 << 20];
    let stacks: Vec<_> = (0..140)
        .map(|index| (sizes[index % 7], take(&pool, sizes[index % 7])))
        .collect();
    let mut taken = Vec::new();
    for (asked, stack) in &stacks {
        let (usable, guard) = (stack.usable(), stack.guard());
        assert!(usable.len() >= *asked);
        assert_eq!(guard.end, usable.start);
        assert_eq!(guard.len(), GUARD);
        assert!(faults(guard.clone()) && !faults(usable.clone()));
        assert_eq!(stack.base().get(), usable.end);
        assert_eq!(stack.limit().get(), guard.start);
        assert_eq!(usable.end % 64, 0);
        let pointer = stack.thread_pointer() as usize;
        assert!(pointer > usable.end);
        write(usable.start, 1);
        write(usable.end - 1, 1);
        taken.push(guard.start..pointer);
    }
    taken.sort_by_key(|range| range.start);
    assert!(taken.windows(2).all(|pair| pair[0].end <= pair[1].start));
    stacks
        .into_iter()
        .for_each(|(_, stack)| pool.give_back(stack));
}

#[test]
fn a_coroutine_runs_on_a_stack() {
    let pool = pool();
    let stack = take(&pool, SIZE);
    let usable = stack.usable();
    let mut coroutine = Coroutine::with_stack(stack, move |yielder, input: usize| {
        let local = black_box(input);
        assert!(usable.contains(&(&raw const local as usize)));
        yielder.suspend(local + 1)
    });
    assert!(matches!(coroutine.resume(1), CoroutineResult::Yield(2)));
    assert!(matches!(coroutine.resume(3), CoroutineResult::Return(3)));
    pool.give_back(coroutine.into_stack());
}

#[test]
fn the_hottest_stack_comes_first() {
    let pool = pool();
    let stacks: Vec<_> = (0..3).map(|_| take(&pool, SIZE)).collect();
    let order: Vec<_> = stacks.iter().map(base).collect();
    stacks.into_iter().for_each(|stack| pool.give_back(stack));
    let again: Vec<_> = (0..3).map(|_| take(&pool, SIZE)).collect();
    assert!(again.iter().map(base).eq(order.into_iter().rev()));
    again.into_iter().for_each(|stack| pool.give_back(stack));
}

#[test]
fn a_promise_of_a_bare_stack_takes_a_hot_one() {
    let pool = pool();
    let stack = take(&pool, SIZE);
    let place = base(&stack);
    let early = pool.reserve(SIZE).unwrap();
    pool.give_back(stack);
    let stack = pool.take(&early);
    assert_eq!(base(&stack), place);
    pool.give_back(stack);
}

#[test]
fn a_cache_is_last_in_first_out_and_overflows_to_the_pool() {
    let pool = pool();
    let mut cache = Cache::new();
    let stacks: Vec<_> = (0..BOUND + 2).map(|_| take(&pool, SIZE)).collect();
    let other = take(&pool, 2 * SIZE);
    let order: Vec<_> = stacks.iter().map(base).collect();
    stacks.into_iter().for_each(|stack| cache.put(stack, &pool));
    let in_pool: Vec<_> = (0..2).map(|_| take(&pool, SIZE)).collect();
    assert!(in_pool.iter().map(base).eq([order[1], order[0]]));

    let place = base(&other);
    cache.put(other, &pool);
    let third = take(&pool, SIZE);
    assert_eq!(base(&third), order[2]);
    let hottest = cache.take(&pool.reserve(SIZE).unwrap());
    assert_eq!(base(&hottest), order[BOUND + 1]);
    let of_other_size = cache.take(&pool.reserve(2 * SIZE).unwrap());
    assert_eq!(base(&of_other_size), place);
    let rest: Vec<_> = (0..BOUND - 2)
        .map(|_| cache.take(&pool.reserve(SIZE).unwrap()))
        .collect();
    assert!(
        rest.iter()
            .map(base)
            .eq(order[3..=BOUND].iter().rev().copied())
    );

    cache.put(hottest, &pool);
    cache.clear(&pool);
    let stack = take(&pool, SIZE);
    assert_eq!(base(&stack), order[BOUND + 1]);
    pool.give_back(stack);
    pool.give_back(of_other_size);
    pool.give_back(third);
    rest.into_iter()
        .chain(in_pool)
        .for_each(|stack| pool.give_back(stack));
}

#[test]
#[should_panic(expected = "good for one stack")]
fn a_reservation_is_good_for_one_stack() {
    let pool = pool();
    let reservation = pool.reserve(SIZE).unwrap();
    pool.give_back(pool.take(&reservation));
    pool.take(&reservation);
}

#[test]
fn deep_pages_go_back_to_the_kernel() {
    let pool = pool();
    let stack = take(&pool, 2 << 20);
    let usable = stack.usable();
    for address in usable.clone().step_by(page_size()) {
        write(address, 1);
    }
    assert!(resident(usable.clone()) >= 512);
    pool.give_back(stack);
    assert!(resident(usable.clone()) <= 4);
    assert_ne!(resident(usable), 0, "the hot part stays");
    let stack = take(&pool, 2 << 20);
    assert_eq!(read(stack.usable().start), 0);
    pool.give_back(stack);
}

#[test]
fn a_burst_does_not_keep_its_memory() {
    const COUNT: usize = 3000;
    let pool = pool();
    let stacks: Vec<_> = (0..COUNT).map(|_| take(&pool, SIZE)).collect();
    let ranges: Vec<_> = stacks.iter().map(Stack::usable).collect();
    for stack in stacks {
        write(base(&stack) - 1, 1);
        pool.give_back(stack);
    }
    let holding = |range: &std::ops::Range<usize>| resident(range.clone()) > 0;
    assert_eq!(ranges.iter().filter(|range| holding(range)).count(), 1024);
    // Stripped stacks are as good as new ones: the block's memory was zero when it was made again.
    let again: Vec<_> = (0..COUNT).map(|_| take(&pool, SIZE)).collect();
    let places: HashSet<_> = again.iter().map(base).collect();
    assert_eq!(places, ranges.iter().map(|range| range.end).collect());
    assert!(again.iter().all(|stack| faults(stack.guard())));
    again.into_iter().for_each(|stack| pool.give_back(stack));
    assert_idle(&pool, SIZE);
}

/// Any order of operations against a simple account of where each stack is.
#[test]
fn random_operations_agree_with_a_model() {
    let sizes = [MINIMUM, SIZE, 2 << 20];
    for seed in 1..=20 {
        let mut numbers = Numbers(seed);
        let pool = pool();
        let mut caches = [Cache::new(), Cache::new()];
        let mut reserved: Vec<(usize, Reservation)> = Vec::new();
        let mut used: Vec<(usize, u8, Stack)> = Vec::new();
        let mut places: [HashSet<usize>; 3] = Default::default();
        let mut most = [0_usize; 3];
        for step in 0..3000 {
            let which = numbers.below(3);
            match numbers.below(8) {
                0..=2 => reserved.push((which, pool.reserve(sizes[which]).unwrap())),
                3 if !reserved.is_empty() => {
                    reserved.swap_remove(numbers.below(reserved.len()));
                }
                4 | 5 if !reserved.is_empty() => {
                    let (which, reservation) = reserved.swap_remove(numbers.below(reserved.len()));
                    let stack = match numbers.below(3) {
                        2 => pool.take(&reservation),
                        cache => caches[cache].take(&reservation),
                    };
                    assert!(
                        stack.usable().len() >= sizes[which],
                        "seed {seed} step {step}"
                    );
                    let lone = used.iter().all(|(_, _, other)| base(other) != base(&stack));
                    assert!(lone, "seed {seed} step {step}: handed out twice");
                    places[which].insert(base(&stack));
                    write(base(&stack) - 1, step as u8);
                    used.push((which, step as u8, stack));
                }
                _ if !used.is_empty() => {
                    let (_, stamp, stack) = used.swap_remove(numbers.below(used.len()));
                    assert_eq!(read(base(&stack) - 1), stamp, "seed {seed} step {step}");
                    match numbers.below(3) {
                        2 => pool.give_back(stack),
                        cache => caches[cache].put(stack, &pool),
                    }
                }
                _ => {}
            }
            for (which, most) in most.iter_mut().enumerate() {
                let reserved = reserved.iter().filter(|entry| entry.0 == which).count();
                let used = used.iter().filter(|entry| entry.0 == which).count();
                *most = (*most).max(reserved + used);
            }
        }
        for (most, places) in most.into_iter().zip(&places) {
            assert!(places.len() <= most + 2 * BOUND, "seed {seed}: stacks lost");
        }
        drop(reserved);
        used.into_iter()
            .for_each(|(_, _, stack)| pool.give_back(stack));
        caches.iter_mut().for_each(|cache| cache.clear(&pool));
        for (size, most) in sizes.into_iter().zip(most) {
            let mapped = assert_idle(&pool, size);
            assert!(mapped <= 2 * (most + 2 * BOUND), "seed {seed}: {mapped}");
        }
    }
}

#[test]
fn threads_share_a_pool() {
    let pool = pool();
    let (sender, receiver) = mpsc::channel::<(u8, Stack)>();
    let receiver = std::sync::Mutex::new(receiver);
    std::thread::scope(|scope| {
        for stamp in 1..=4 {
            let (pool, sender, receiver) = (&pool, sender.clone(), &receiver);
            scope.spawn(move || {
                let mut cache = Cache::new();
                for round in 0..5000 {
                    let held: Vec<_> = (0..round % 5).map(|_| pool.reserve(SIZE)).collect();
                    let stack = cache.take(&pool.reserve(SIZE).unwrap());
                    write(base(&stack) - 1, stamp);
                    write(stack.thread_pointer() as usize - 1, 0);
                    // Half of the stacks end on another thread.
                    if round % 2 == 0 {
                        sender.send((stamp, stack)).unwrap();
                        let (stamp, stack) = receiver.lock().unwrap().recv().unwrap();
                        assert_eq!(read(base(&stack) - 1), stamp);
                        pool.give_back(stack);
                    } else {
                        assert_eq!(read(base(&stack) - 1), stamp);
                        cache.put(stack, pool);
                    }
                    for reservation in held.into_iter().skip(1) {
                        cache.put(pool.take(&reservation.unwrap()), pool);
                    }
                }
                cache.clear(pool);
            });
        }
    });
    assert_idle(&pool, SIZE);
}

#[test]
fn a_pool_unmaps_its_stacks_unless_one_is_out() {
    let output = in_child(
        module_path!(),
        "a_pool_unmaps_its_stacks_unless_one_is_out",
        || {
            let complete = pool();
            let stacks: Vec<_> = (0..20).map(|_| take(&complete, SIZE)).collect();
            let place = stacks[3].guard().start;
            stacks
                .into_iter()
                .for_each(|stack| complete.give_back(stack));
            drop(complete);
            // SAFETY: mincore(2) writes one byte for one page.
            let result = unsafe { libc::mincore(place as *mut _, 1, [0].as_mut_ptr()) };
            assert_eq!(result, -1, "still mapped");

            let incomplete = pool();
            let stack = take(&incomplete, SIZE);
            incomplete.give_back(take(&incomplete, SIZE));
            write(stack.usable().start, 5);
            drop(incomplete);
            assert_eq!(read(stack.usable().start), 5);
        },
    );
    assert_success(&output);
}

#[test]
fn a_hundred_thousand_stacks_take_few_mappings() {
    const COUNT: usize = 100_000;
    let output = in_child(
        module_path!(),
        "a_hundred_thousand_stacks_take_few_mappings",
        || {
            let pool = pool();
            let reserved: Vec<_> = (0..COUNT).map(|_| pool.reserve(2 << 20).unwrap()).collect();
            let stacks: Vec<_> = reserved.iter().map(|one| pool.take(one)).collect();
            stacks.iter().for_each(|stack| write(base(stack) - 1, 1));
            assert!(mappings() < 2000, "{} mappings", mappings());
            stacks.into_iter().for_each(|stack| pool.give_back(stack));
        },
    );
    assert_success(&output);
}

#[test]
fn refused_address_space_is_an_error_and_loses_nothing() {
    let output = in_child(
        module_path!(),
        "refused_address_space_is_an_error_and_loses_nothing",
        || {
            let pool = pool();
            let limit = libc::rlimit {
                rlim_cur: 1 << 30,
                rlim_max: 1 << 30,
            };
            // SAFETY: setrlimit(2) reads the structure.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
            let mut reserved = Vec::new();
            let refused = loop {
                match pool.reserve(2 << 20) {
                    Ok(reservation) => reserved.push(reservation),
                    Err(error) => break error,
                }
            };
            assert_eq!(refused.kind(), std::io::ErrorKind::OutOfMemory);
            assert!(refused.to_string().contains("cannot map"), "{refused}");
            // Most of the gigabyte was handed out, though the last slabs asked for were too large.
            assert!(reserved.len() > 300, "{}", reserved.len());
            // Promised is promised, and what is released can be promised again.
            let count = reserved.len();
            let stacks: Vec<_> = reserved.drain(..).map(|one| pool.take(&one)).collect();
            stacks.into_iter().for_each(|stack| pool.give_back(stack));
            for _ in 0..2 {
                let again: Vec<_> = (0..count).map(|_| pool.reserve(2 << 20).unwrap()).collect();
                assert!(pool.reserve(2 << 20).is_err());
                drop(again);
            }
            assert_idle(&pool, 2 << 20);
        },
    );
    assert_success(&output);
}
