//! The loop that runs green threads, and the thread-pointer rule.
//!
//! Called by: `pool`, as the main function of a carrier.
//!
//! # Search order
//! 1. every [`CLOCK_ROUND`] turns the timers; every [`ROUND`] turns the injector, the reactor (if nobody
//!    polls) and one of the others, so that a green thread behind one that never stops is found also
//!    when no worker is idle
//! 2. the worker's own slot and queue   3. the injector   4. the others' queues   5. the others' slots
//! 6. sleep (see [`idle`](super::idle))
//!
//! # The thread pointer
//! Writing the thread pointer is the dearest part of a switch, so it is written once: from one green
//! thread's storage straight to the next one's. In between, this loop runs under a green thread's
//! thread pointer. The rule that keeps this sound:
//!
//! R1  While the thread pointer is a green thread's, this worker has that green thread's turn.
//!
//! So the loop takes the *next* task first, moves the thread pointer to it, and only then commits the
//! wait of the last one or queues it again, which lets another worker have it. Whatever touches
//! thread-local storage meanwhile (an allocation, say) does so as a green thread that is not running
//! anywhere else. The worker's own thread pointer is restored before it looks further than its own
//! queue, before it begins a green thread, and when one ends.
//!
//! The compiler may keep the address of a thread-local across the change: `run` and what is inlined
//! into it use none.
//!
//! # Rejected
//! Committing first, as a plain loop would: another worker may then run the green thread while this
//! one still has its thread pointer, and a signal handler or an allocation here would share its storage
//! with it. Restoring the worker's own thread pointer at each switch: one write more.

use super::context;
use super::idle::Slept;
use super::pool::{RESCUE, Scheduler};
use super::run_queue::RunQueue;
use crate::coroutine::switch::{Fiber, Outcome, Suspender, Suspension};
use crate::platform::{self, clock::Deadline};
use crate::stack::Cache;
use crate::task::core::{Body, Task, Work};
use crate::tls;
use std::cell::{Cell, RefCell};
use std::mem;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;

/// How many turns pass before a busy worker looks at the clock.
const CLOCK_ROUND: u32 = 8;

/// How many turns pass before a worker looks beyond its own queue though it is not empty: seldom
/// enough to cost nothing, often enough that a submission from outside waits microseconds (Go and tokio
/// take 61). A multiple of the above, because the worker leaves its inner loop then.
const ROUND: u32 = 8 * CLOCK_ROUND;

/// One worker, on its carrier.
pub(crate) struct Worker {
    pub(super) index: usize,
    pub(super) scheduler: Arc<Scheduler>,
    pub(super) queue: RunQueue<Task>,
    stacks: RefCell<Cache>,
    thread_pointer: *mut u8,
    turns: Cell<u32>,
    victim: Cell<usize>,
    next_rescue: Cell<Deadline>,
}

impl Worker {
    /// Makes a worker of the calling OS thread.
    pub(super) fn new(index: usize, scheduler: Arc<Scheduler>, queue: RunQueue<Task>) -> Self {
        Self {
            index,
            scheduler,
            queue,
            stacks: RefCell::new(Cache::new()),
            thread_pointer: platform::thread_pointer(),
            turns: Cell::new(0),
            victim: Cell::new(index),
            next_rescue: Cell::new(Deadline::after(RESCUE)),
        }
    }

    /// Works until the scheduler stops.
    pub(super) fn work(&self) {
        context::set_worker(self);
        let scheduler = &*self.scheduler;
        let driver = scheduler.driver();
        let mut searching = false;
        let mut rescue = false;
        loop {
            let mut next = self.next();
            if next.is_none() {
                searching = searching || scheduler.idle.start_search();
                if searching {
                    next = self.search(mem::take(&mut rescue));
                }
            }
            if let Some(task) = next {
                if mem::take(&mut searching) {
                    scheduler
                        .idle
                        .found(|| scheduler.is_work(self.index), driver);
                }
                self.run(task);
                continue;
            }
            if scheduler.is_stopping() {
                break;
            }
            let limit = scheduler.rescue_time();
            let slept = scheduler.idle.sleep(
                self.index,
                searching,
                limit,
                || scheduler.is_work(self.index) || scheduler.is_stopping(),
                driver,
            );
            searching = true;
            rescue = limit.is_some_and(|limit| Deadline::now() >= limit);
            if slept == Slept::Polled {
                driver.dispatch();
                driver.expire();
                scheduler.idle.leave_seat(driver);
            }
        }
        self.stacks.borrow_mut().clear(&scheduler.stacks);
        context::set_worker(ptr::null());
    }

    /// Takes the next task of its own; in between, looks after what everybody shares.
    fn next(&self) -> Option<Arc<Task>> {
        let turns = self.turns.get();
        let driver = self.scheduler.driver();
        if turns.is_multiple_of(CLOCK_ROUND) {
            driver.expire();
        }
        if turns.is_multiple_of(ROUND) {
            if self.scheduler.idle.try_seat() {
                driver.look();
                driver.dispatch();
                self.scheduler.idle.leave_seat(driver);
            }
            let from_outside = self
                .scheduler
                .take_injected(self.index, self.is_time_to_rescue())
                .or_else(|| self.steal_in_passing());
            if from_outside.is_some() {
                return from_outside;
            }
        }
        self.queue.pop()
    }

    /// Takes from the next of the others, though there is work here.
    fn steal_in_passing(&self) -> Option<Arc<Task>> {
        let thieves = &self.scheduler.thieves;
        let victim = (self.victim.get() + 1) % thieves.len();
        self.victim.set(victim);
        if victim == self.index {
            return None;
        }
        let thief = &thieves[victim];
        thief.steal().or_else(|| thief.steal_next())
    }

    /// Whether a busy worker is to look into the others' inboxes, under forced migration.
    fn is_time_to_rescue(&self) -> bool {
        let is_time = self.scheduler.is_forced() && Deadline::now() >= self.next_rescue.get();
        if is_time {
            self.next_rescue.set(Deadline::after(RESCUE));
        }
        is_time
    }

    /// Looks at what the others have. With `rescue`, also at what is meant for others.
    fn search(&self, rescue: bool) -> Option<Arc<Task>> {
        let scheduler = &*self.scheduler;
        if let Some(task) = scheduler.take_injected(self.index, rescue) {
            return Some(task);
        }
        let workers = scheduler.thieves.len();
        // The last victim that had something first.
        let start = self.victim.get();
        let others = (0..workers)
            .map(|step| (start + step) % workers)
            .filter(|&other| other != self.index);
        for other in others.clone() {
            if let Some(task) = scheduler.thieves[other].steal() {
                self.victim.set(other);
                return Some(task);
            }
        }
        for other in others {
            if let Some(task) = scheduler.thieves[other].steal_next() {
                self.victim.set(other);
                return Some(task);
            }
        }
        None
    }

    /// Runs `task`, and after it what is next in the worker's own queue, until that is empty, a green
    /// thread ends, or it is time to look further. Returns under the worker's own thread pointer.
    #[inline(never)]
    fn run(&self, mut task: Arc<Task>) {
        // SAFETY (of each `body` below): the worker has the turn of what it took from a queue, and
        // lets go of the body before `settle`.
        self.prepare(&task);
        loop {
            // SAFETY: R1: the turn of `task` is here.
            let Body::Started(fiber, _) = (unsafe { task.body() }) else {
                unreachable!("prepared above")
            };
            // SAFETY: the pointer is to the control block of a stack that the fiber owns.
            unsafe { platform::set_thread_pointer(fiber.thread_pointer()) };
            let outcome = fiber.resume();
            let turns = self.turns.get().wrapping_add(1);
            self.turns.set(turns);
            let Outcome::Suspended(suspension) = outcome else {
                self.restore_thread_pointer();
                self.bury(task);
                return;
            };
            let next = if turns.is_multiple_of(CLOCK_ROUND) || self.scheduler.is_forced() {
                None
            } else {
                self.queue.pop()
            };
            let Some(next) = next else {
                self.restore_thread_pointer();
                self.settle(task, suspension);
                return;
            };
            match self.started(&next) {
                // SAFETY: as above; R1 holds for `next` from here on, and `task` can be let go.
                Some(thread_pointer) => unsafe { platform::set_thread_pointer(thread_pointer) },
                None => self.restore_thread_pointer(),
            }
            self.settle(mem::replace(&mut task, next), suspension);
            self.prepare(&task);
        }
    }

    /// The thread pointer of a task that has begun.
    fn started(&self, task: &Task) -> Option<*mut u8> {
        // SAFETY: R1: the caller took the task from a queue.
        match unsafe { task.body() } {
            Body::Started(fiber, _) => Some(fiber.thread_pointer()),
            _ => None,
        }
    }

    /// Notes who runs `task`, and gives it a stack if it has none: then the caller is under the worker's
    /// own thread pointer, which making a block of thread-local storage asks for.
    fn prepare(&self, task: &Arc<Task>) {
        task.set_worker(ptr::from_ref(self).cast(), self.index);
        // SAFETY: R1: the caller took the task from a queue.
        let body = unsafe { task.body() };
        if let Body::New(..) = body {
            let Body::New(work, reservation) = mem::replace(body, Body::Ended) else {
                unreachable!("looked at above")
            };
            let stack = self.stacks.borrow_mut().take(&reservation);
            let (this, guard, top) = (Arc::as_ptr(task), stack.guard(), stack.usable().end);
            let fiber = Fiber::new(stack, move |suspender| {
                green_main(this, work, suspender, &guard, top);
            });
            *body = Body::Started(fiber, reservation);
        }
    }

    /// Lets go of a task that has left the processor.
    fn settle(&self, task: Arc<Task>, suspension: Suspension) {
        let runnable = match suspension {
            Suspension::Yield => Some(task),
            Suspension::Park => task.commit(),
        };
        if let Some(task) = runnable {
            self.scheduler.requeue(self, task);
        }
    }

    /// Takes back what a task had that has ended.
    fn bury(&self, task: Arc<Task>) {
        // SAFETY: R1: the turn is here, and it ends with the task.
        let body = mem::replace(unsafe { task.body() }, Body::Ended);
        if let Body::Started(fiber, reservation) = body {
            self.stacks
                .borrow_mut()
                .put(fiber.into_stack(), &self.scheduler.stacks);
            drop(reservation);
        }
        drop(task);
        self.scheduler.ended();
    }

    fn restore_thread_pointer(&self) {
        // SAFETY: it is this OS thread's own, read when the worker was made.
        unsafe { platform::set_thread_pointer(self.thread_pointer) };
    }
}

/// The bottom frame of every green thread.
fn green_main(
    task: *const Task,
    mut work: Box<dyn Work>,
    suspender: &Suspender,
    guard: &Range<usize>,
    top: usize,
) {
    let facts = tls::check().expect("checked before the first runtime was made");
    // SAFETY: this is the first code to run under the green thread's thread pointer.
    unsafe { tls::begin(facts) };
    context::begin(task, suspender, guard, top);
    work.run();
    // SAFETY: user code is over; its thread-local destructors are still green.
    unsafe { tls::end(facts) };
    work.finish();
    // SAFETY: dropping a result that nobody joins may have used thread-locals again.
    unsafe { tls::end(facts) };
    if !context::end() {
        // A forked child, whose only thread this is: it ends as a process does when its last
        // thread ends (pthread_exit(3)).
        std::process::exit(0);
    }
}
