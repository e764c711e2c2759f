//! The stacks of one runtime: promised at spawn, handed out at the first run, kept for the next.
//!
//! Called by `thread` and `task` (reserve), [`Cache`](super::Cache) and `scheduler` (take, give
//! back).
//!
//! # Protocol
//! Each size class has two lists under one lock, *ready* (free, with a block) and *bare* (free,
//! without), and for each list a count of those of it that are not promised:
//!
//! ```text
//!            reserve: count - 1             take: pop
//!  unpromised ────────────────▶ promised ────────────────▶ in use ──▶ in a cache ─┐
//!      ▲                            │                        ▲            │       │
//!      │   drop of the reservation: │ count + 1              └────────────┘       │
//!      ├────────────────────────────┘            Cache::take: promise of the      │
//!      │                                         pool's stack released, count + 1 │
//!      └──────────────────────────────────────────────────────────────────────────┘
//!                            give_back: push, then count + 1
//! ```
//! - `reserve` promises a ready stack if there is one to promise, else a bare one and with it the
//!   memory that glibc will want for its block ([`Reserve`]), else it maps a slab first.
//! - A promise is redeemed once. A bare promise redeemed when there is a ready stack to be had takes
//!   that one, because it is hot, and its bare stack becomes unpromised.
//! - A stack given back to a ready list of [`READY`] is stripped of block and memory and becomes
//!   bare: an idle runtime does not hold on to what its busiest moment needed.
//!
//! # Invariants
//! Those of the room, of which K3 in detail: ready.len() >= ready count + ready promises, and the
//! same for bare (the list together with what is not yet carved). Both sides are equal but for
//! moments in which a stack was pushed and not yet counted. So a pop for a promise finds one.
//!
//! # Memory order
//! A count goes up by a release after the push, and down by an acquire before the pop, so who pops
//! on a promise comes after the push; the lists themselves are under the lock.

use super::Stack;
use super::slab::{CLASSES, Layout, Region, Slab, class_of};
use crate::primitive::atomic::{AtomicUsize, Ordering};
use crate::primitive::{Arc, Mutex};
use crate::tls::{Block, Facts, Reserve};
use std::sync::OnceLock;
use std::{fmt, io, mem};

/// How many ready stacks of a class the pool keeps as they are: about 16 KiB each, so 16 MiB.
const READY: usize = 1024;

/// A count of unpromised stacks of one list.
#[derive(Debug, Default)]
struct Unpromised(AtomicUsize);

impl Unpromised {
    /// Promises one, if there is one.
    fn promise(&self) -> bool {
        self.0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |count| {
                count.checked_sub(1)
            })
            .is_ok()
    }

    fn add(&self, count: usize) {
        self.0.fetch_add(count, Ordering::Release);
    }
}

#[derive(Debug, Default)]
struct Lists {
    /// Free stacks with a block, the hottest last.
    ready: Vec<Stack>,
    /// Free stacks that have lost their block. Room for all stacks of the slabs.
    bare: Vec<Region>,
    slabs: Vec<Slab>,
    /// How many stacks the slabs hold.
    mapped: usize,
    /// Where the next stack is carved: a slab and an index in it.
    next: (usize, usize),
    /// How many stacks were carved.
    carved: usize,
}

/// The stacks of one size.
#[derive(Debug)]
struct Class {
    layout: Layout,
    ready: Unpromised,
    bare: Unpromised,
    lists: Mutex<Lists>,
}

impl Class {
    fn new(layout: Layout) -> Self {
        Self {
            layout,
            ready: Unpromised::default(),
            bare: Unpromised::default(),
            lists: Mutex::new(Lists::default()),
        }
    }

    /// Promises one stack, mapping more if need be.
    fn promise(&self, facts: &Facts) -> io::Result<Promise> {
        if self.ready.promise() {
            return Ok(Promise::Ready);
        }
        if !self.bare.promise() {
            self.grow()?;
        }
        match Reserve::new(facts) {
            Some(reserve) => Ok(Promise::Bare(reserve)),
            None => {
                self.bare.add(1);
                Err(io::Error::new(
                    io::ErrorKind::OutOfMemory,
                    "no memory for a green thread's thread-local storage",
                ))
            }
        }
    }

    /// Maps a slab, and promises a bare stack of it.
    #[cold]
    fn grow(&self) -> io::Result<()> {
        let mut lists = self.lists.lock();
        // Somebody else may have mapped one while this waited for the lock.
        if self.bare.promise() {
            return Ok(());
        }
        let lists = &mut *lists;
        lists.slabs.try_reserve(1)?;
        let slab = Slab::map(self.layout, self.layout.slab_count(lists.mapped))?;
        let count = slab.count();
        let mapped = lists.mapped + count;
        lists
            .ready
            .try_reserve(mapped.min(READY) - lists.ready.len().min(READY))?;
        lists.bare.try_reserve(mapped - lists.bare.len())?;
        lists.mapped = mapped;
        lists.slabs.push(slab);
        self.bare.add(count - 1);
        Ok(())
    }

    fn release(&self, promise: Promise) {
        match promise {
            Promise::Ready => self.ready.add(1),
            Promise::Bare(reserve) => {
                drop(reserve);
                self.bare.add(1);
            }
        }
    }

    /// A ready stack, for a promise of one.
    fn pop_ready(&self, facts: &Facts) -> Stack {
        let stack = self.lists.lock().ready.pop();
        let mut stack = stack.expect("K3: one was promised");
        stack.renew(facts);
        stack
    }

    /// A bare stack, for a promise of one, made ready.
    fn pop_bare(&self, facts: &Facts, reserve: Reserve) -> Stack {
        let region = self.pop_region();
        drop(reserve);
        // SAFETY: K1 and K2: [top - block, top) is zero and nobody else's; the layout keeps it
        // writable and `top` aligned to a page. K6.
        let block = unsafe { Block::create(facts, region.top()) };
        let Some(mut block) = block else {
            no_memory(facts)
        };
        let usable = region.usable();
        let low = std::ptr::with_exposed_provenance_mut(usable.start);
        // SAFETY: what runs on the stack runs in these bytes; the block is in force nowhere yet.
        unsafe { block.set_stack_bounds(facts, low, usable.len()) };
        Stack { region, block }
    }

    fn pop_region(&self) -> Region {
        let mut lists = self.lists.lock();
        if let Some(region) = lists.bare.pop() {
            return region;
        }
        let (slab, index) = lists.next;
        lists.carved += 1;
        lists.next = if index + 1 < lists.slabs[slab].count() {
            (slab, index + 1)
        } else {
            (slab + 1, 0)
        };
        match lists.slabs[slab].carve(index) {
            Ok(region) => region,
            // Like a page fault that finds no memory, only noticed.
            Err(_) => std::alloc::handle_alloc_error(std::alloc::Layout::new::<[u8; 4096]>()),
        }
    }

    /// Takes back a stack: trimmed, or if there are many already, stripped of block and memory.
    fn push(&self, stack: Stack) {
        // Others may push between the two locks: the bound is no exact one.
        if self.lists.lock().ready.len() < READY {
            stack.region.trim();
            self.lists.lock().ready.push(stack);
            self.ready.add(1);
        } else {
            let region = stack.strip();
            self.lists.lock().bare.push(region);
            self.bare.add(1);
        }
    }
}

impl Drop for Class {
    fn drop(&mut self) {
        let mut lists = mem::take(&mut *self.lists.lock());
        let returned = lists.ready.len() + lists.bare.len();
        lists.ready.drain(..).map(Stack::strip).for_each(drop);
        if returned < lists.carved {
            // K4: somebody still has a stack of these.
            mem::forget(lists.slabs);
        }
    }
}

/// What a reservation is owed by the pool.
#[derive(Debug)]
enum Promise {
    /// A stack of the ready list.
    Ready,
    /// A stack of the bare list, and memory for its block.
    Bare(Reserve),
}

/// The right to take one stack of a certain size, once.
///
/// Gives the right back when dropped without having been used; a stack that was taken is
/// independent of it.
#[derive(Debug)]
pub(crate) struct Reservation {
    pool: Arc<Pool>,
    class: usize,
    /// None once redeemed.
    promise: Mutex<Option<Promise>>,
}

impl Reservation {
    pub(super) fn class(&self) -> usize {
        self.class
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(super) fn facts(&self) -> &'static Facts {
        self.pool.facts
    }

    /// Gives the right back: the caller has found a stack elsewhere.
    ///
    /// # Panics
    ///
    /// If it was used before.
    pub(super) fn waive(&self) {
        let promise = self.redeem();
        self.pool.class(self.class).release(promise);
    }

    #[track_caller]
    fn redeem(&self) -> Promise {
        let promise = self.promise.lock().take();
        promise.expect("a reservation is good for one stack")
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let promise = self.promise.lock().take();
        if let Some(promise) = promise {
            self.pool.class(self.class).release(promise);
        }
    }
}

/// The stacks of one runtime.
///
/// Unmaps them when dropped. A size class of which some stack has not come back is leaked on
/// purpose: somebody may still run on that stack, or hold a pointer into it.
pub(crate) struct Pool {
    facts: &'static Facts,
    /// Held to put a class in `classes`, so that no two do.
    adding: Mutex<()>,
    classes: [OnceLock<Class>; CLASSES],
}

impl Pool {
    /// A pool without stacks, for blocks as `facts` describes them.
    pub(crate) fn new(facts: &'static Facts) -> Arc<Self> {
        Arc::new(Self {
            facts,
            adding: Mutex::new(()),
            classes: [const { OnceLock::new() }; CLASSES],
        })
    }

    /// Makes sure that a stack with at least `size` usable bytes can be taken.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` if the size exceeds the address space, if the kernel maps no more (RLIMIT_AS,
    /// overcommit, `vm.max_map_count`: mmap(2), mprotect(2)), or if malloc refuses.
    pub(crate) fn reserve(self: &Arc<Self>, size: usize) -> io::Result<Reservation> {
        let class = class_of(size)?;
        if self.classes[class].get().is_none() {
            self.add_class(class);
        }
        let promise = self.class(class).promise(self.facts)?;
        Ok(Reservation {
            pool: self.clone(),
            class,
            promise: Mutex::new(Some(promise)),
        })
    }

    #[cold]
    fn add_class(&self, class: usize) {
        let _adding = self.adding.lock();
        let layout = Layout::new(class, self.facts.block_size, self.facts.block_align);
        // The lock is held, so the cell's own is free: it waits for nobody. Somebody else may have
        // set it before.
        let _ = self.classes[class].set(Class::new(layout));
    }

    fn class(&self, class: usize) -> &Class {
        self.classes[class].get().expect("set in reserve")
    }

    /// A stack as promised, the hottest there is, with its block as new.
    ///
    /// If the kernel or glibc have no memory for it in spite of what was set aside, the process
    /// ends as it does when Rust's allocator fails.
    ///
    /// # Panics
    ///
    /// If the reservation was used before.
    pub(crate) fn take(&self, reservation: &Reservation) -> Stack {
        debug_assert!(
            std::ptr::eq(self, &*reservation.pool),
            "a reservation is of one pool"
        );
        let class = self.class(reservation.class);
        match reservation.redeem() {
            Promise::Ready => class.pop_ready(self.facts),
            Promise::Bare(reserve) => {
                if class.ready.promise() {
                    class.release(Promise::Bare(reserve));
                    class.pop_ready(self.facts)
                } else {
                    class.pop_bare(self.facts, reserve)
                }
            }
        }
    }

    /// Takes back a stack of this pool on which nobody runs and whose thread pointer is nowhere in
    /// force. What lies deep in it goes back to the kernel.
    pub(crate) fn give_back(&self, stack: Stack) {
        self.class(stack.region.class()).push(stack);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_list()
            .entries(self.classes.iter().filter_map(OnceLock::get))
            .finish()
    }
}

impl Stack {
    /// Makes the block as new, for a green thread that has not begun.
    pub(super) fn renew(&mut self, facts: &Facts) {
        // SAFETY: K1: the caller took the stack from a list, and nobody runs under its thread
        // pointer. K6.
        if unsafe { self.block.reset(facts) }.is_none() {
            no_memory(facts)
        }
    }

    /// Gives up the block and all memory.
    fn strip(self) -> Region {
        // SAFETY: K1: the caller holds the stack, and nobody runs under its thread pointer. K6.
        unsafe { self.block.destroy() };
        self.region.clear();
        self.region
    }
}

#[cold]
fn no_memory(facts: &Facts) -> ! {
    let layout = std::alloc::Layout::from_size_align(facts.block_size, 1);
    std::alloc::handle_alloc_error(layout.unwrap_or(std::alloc::Layout::new::<u8>()))
}

#[cfg(all(test, not(loom)))]
pub(super) mod tests {
    use super::*;
    use crate::stack::Cache;
    use crate::stack::tests::{pool, take};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    const SIZE: usize = 64 << 10;

    /// Fails unless all stacks of the class for `size` are back and nothing is promised (K3); how
    /// many there are.
    pub(in super::super) fn assert_idle(pool: &Pool, size: usize) -> usize {
        let class = pool.class(class_of(size).unwrap());
        let lists = class.lists.lock();
        let bare = lists.bare.len() + lists.mapped - lists.carved;
        assert_eq!(class.ready.0.load(Ordering::Relaxed), lists.ready.len());
        assert_eq!(class.bare.0.load(Ordering::Relaxed), bare);
        assert_eq!(lists.ready.len() + bare, lists.mapped);
        lists.mapped
    }

    #[test]
    fn reservations_that_are_dropped_are_promised_again() {
        let pool = pool();
        for _ in 0..200 {
            let held: Vec<_> = (0..16).map(|_| pool.reserve(SIZE).unwrap()).collect();
            pool.give_back(pool.take(&held[0]));
        }
        assert_eq!(assert_idle(&pool, SIZE), 16);
    }

    #[test]
    fn stacks_from_a_cache_leave_the_promised_one_to_others() {
        let pool = pool();
        let mut cache = Cache::new();
        cache.put(take(&pool, SIZE), &pool);
        for _ in 0..200 {
            let stack = cache.take(&pool.reserve(SIZE).unwrap());
            cache.put(stack, &pool);
        }
        let reservation = pool.reserve(SIZE).unwrap();
        let stack = cache.take(&reservation);
        assert!(catch_unwind(AssertUnwindSafe(|| pool.take(&reservation))).is_err());
        cache.put(stack, &pool);
        cache.clear(&pool);
        assert_eq!(assert_idle(&pool, SIZE), 16);
    }

    #[test]
    fn a_bare_promise_kept_with_a_ready_stack_leaves_the_bare_one_to_others() {
        let pool = pool();
        let stack = take(&pool, SIZE);
        let reservation = pool.reserve(SIZE).unwrap();
        pool.give_back(stack);
        pool.give_back(pool.take(&reservation));
        assert_eq!(assert_idle(&pool, SIZE), 16);
    }
}
