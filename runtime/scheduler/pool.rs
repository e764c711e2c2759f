//! The workers of one runtime together: submission, queues that all share, shut-down.
//!
//! Called by: `thread` (makes it, spawns into it), `task` (through [`Schedule`]), `worker`.
//!
//! # Shut-down
//! 1. [`Scheduler::wait_until_empty`] waits for the last green thread to end.
//! 2. `stop` sets the flag and wakes all.
//! 3. Each worker finds nothing to do, sees the flag and that none is left, and leaves its loop.
//! 4. The carriers are joined.
//!
//! A green thread that never ends keeps its runtime.
//!
//! # Forced migration
//! For tests: each task goes to the inbox of the worker after the one that ran it last, so that every
//! wake-up moves it. A worker with nothing else to do for [`RESCUE`] takes from the others' inboxes,
//! so that a stuck worker does not keep what was meant for it.

use super::context;
use super::driver::Driver;
use super::idle::Idle;
use super::run_queue::{RunQueue, Thief};
use super::waiter::{self, Waiter};
use super::worker::Worker;
use crate::platform::clock::Deadline;
use crate::primitive::Mutex;
use crate::stack::{self, AlternateStack, Pool, Reservation};
use crate::task::core::{DeadlineKey, Schedule, Task, Work};
use crate::task::state::Generation;
use crate::task::{Cause, Wake};
use crossbeam_deque::{Injector, Steal};
use std::any::Any;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long an inbox of a worker is left alone by the others, under forced migration: longer than a
/// busy machine takes to let its carrier run.
pub(super) const RESCUE: Duration = Duration::from_millis(4);

/// The scheduler of one runtime.
pub(crate) struct Scheduler {
    injector: Injector<Arc<Task>>,
    /// What forced migration means for each worker; empty without it.
    inboxes: Box<[Injector<Arc<Task>>]>,
    pub(super) thieves: Box<[Thief<Task>]>,
    pub(super) idle: Idle,
    pub(super) stacks: Arc<Pool>,
    stack_size: usize,
    driver: Box<dyn Driver>,
    /// Green threads that have been spawned and have not ended.
    live: AtomicUsize,
    /// Who waits for `live` to be 0.
    waiting_for_empty: Mutex<Vec<Waiter>>,
    stopping: AtomicBool,
}

/// The carriers of a scheduler; joining them ends it.
pub(crate) struct Carriers(Vec<JoinHandle<()>>);

impl Scheduler {
    /// Makes a scheduler with `workers` workers and starts a carrier for each.
    pub(crate) fn start(
        workers: usize,
        forced: bool,
        stack_size: usize,
        stacks: Arc<Pool>,
        driver: Box<dyn Driver>,
    ) -> io::Result<(Arc<Self>, Carriers)> {
        stack::install(context::running);
        context::watch_forks();
        let queues: Vec<_> = (0..workers).map(|_| RunQueue::new()).collect();
        let inboxes = if forced { workers } else { 0 };
        let scheduler = Arc::new(Self {
            injector: Injector::new(),
            inboxes: (0..inboxes).map(|_| Injector::new()).collect(),
            thieves: queues.iter().map(RunQueue::thief).collect(),
            idle: Idle::new(workers),
            stacks,
            stack_size,
            driver,
            live: AtomicUsize::new(0),
            waiting_for_empty: Mutex::new(Vec::new()),
            stopping: AtomicBool::new(false),
        });
        let mut carriers = Carriers(Vec::with_capacity(workers));
        for (index, queue) in queues.into_iter().enumerate() {
            let own = scheduler.clone();
            let carrier = std::thread::Builder::new()
                .name(format!("sward-{index}"))
                .spawn(move || {
                    let _overflow = AlternateStack::for_this_thread();
                    Worker::new(index, own, queue).work();
                });
            match carrier {
                Ok(carrier) => carriers.0.push(carrier),
                Err(error) => {
                    scheduler.stop(carriers);
                    return Err(error);
                }
            }
        }
        Ok((scheduler, carriers))
    }

    pub(crate) fn stacks(&self) -> &Arc<Pool> {
        &self.stacks
    }

    /// The stack size of green threads that do not choose their own.
    pub(crate) fn stack_size(&self) -> usize {
        self.stack_size
    }

    pub(crate) fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    pub(super) fn is_forced(&self) -> bool {
        !self.inboxes.is_empty()
    }

    /// Whether the workers are to leave.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed) && self.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.live.load(Ordering::Acquire) == 0
    }

    /// Until when a worker may sleep before it must look after the others' inboxes.
    pub(super) fn rescue_time(&self) -> Option<Deadline> {
        self.is_forced().then(|| Deadline::after(RESCUE))
    }

    /// Makes a green thread and queues it.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        name: Option<Box<str>>,
        reservation: Reservation,
        work: Box<dyn Work>,
    ) -> Arc<Task> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        self.live.fetch_add(1, Ordering::Relaxed);
        let task = Task::new(id, name, self.clone(), work, reservation);
        let _inside = context::Inside::enter();
        self.submit(task.clone(), RunQueue::push);
        task
    }

    /// Queues a task: on the caller's worker as `push` says, else for all.
    fn submit(&self, task: Arc<Task>, push: impl FnOnce(&RunQueue<Task>, Arc<Task>)) {
        if self.is_forced() {
            let target = (task.home() + 1) % self.inboxes.len();
            self.inboxes[target].push(task);
            self.idle.wake(target, self.driver());
            return;
        }
        context::with_worker(|worker| match worker {
            Some(worker) if std::ptr::eq(&*worker.scheduler, self) => push(&worker.queue, task),
            _ => self.injector.push(task),
        });
        self.idle.submitted(self.driver());
    }

    /// Queues a task that `worker` has just run.
    pub(super) fn requeue(&self, worker: &Worker, task: Arc<Task>) {
        if self.is_forced() {
            self.submit(task, RunQueue::push);
        } else {
            worker.queue.push(task);
            self.idle.submitted(self.driver());
        }
    }

    /// Takes what was submitted from outside; with `rescue`, also what is in the others' inboxes.
    pub(super) fn take_injected(&self, worker: usize, rescue: bool) -> Option<Arc<Task>> {
        let inboxes = self.inboxes.len();
        let reach = if rescue { inboxes } else { inboxes.min(1) };
        take(&self.injector)
            .or_else(|| (0..reach).find_map(|step| take(&self.inboxes[(worker + step) % inboxes])))
    }

    /// Whether there is something that `worker` might take.
    pub(super) fn is_work(&self, worker: usize) -> bool {
        !self.injector.is_empty()
            || self
                .inboxes
                .get(worker)
                .is_some_and(|inbox| !inbox.is_empty())
            || self.thieves.iter().any(|thief| !thief.is_empty())
    }

    /// Counts a green thread as ended.
    pub(super) fn ended(&self) {
        if self.live.fetch_sub(1, Ordering::AcqRel) == 1 {
            let waiters = std::mem::take(&mut *self.waiting_for_empty.lock());
            for waiter in waiters {
                waiter.wake(Cause::Event);
            }
            // Either this sees the flag, or `stop_when_empty` sees that none is left.
            fence(Ordering::SeqCst);
            if self.stopping.load(Ordering::Relaxed) {
                self.idle.wake_all(self.driver());
            }
        }
    }

    /// Waits until there is no green thread in this scheduler.
    pub(crate) fn wait_until_empty(&self) {
        while !self.is_empty() {
            waiter::wait(None, |waiter| {
                // `ended` counts before it takes the lock, so either this sees 0 or it sees the waiter.
                let mut waiting = self.waiting_for_empty.lock();
                let wait = !self.is_empty();
                if wait {
                    waiting.push(waiter.clone());
                }
                wait
            });
        }
    }

    /// Whether the caller is one of this scheduler's green threads or carriers.
    pub(crate) fn is_inside(&self) -> bool {
        context::with_worker(|worker| {
            worker.is_some_and(|worker| std::ptr::eq(&*worker.scheduler, self))
        })
    }

    /// Has the workers leave when the last green thread has ended.
    pub(crate) fn stop_when_empty(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        // The fence in `wake` makes a worker that is going to sleep see the flag, or be seen.
        self.idle.wake_all(self.driver());
    }

    /// Stops the workers and joins the carriers. No green thread is left.
    pub(crate) fn stop(&self, carriers: Carriers) {
        self.stop_when_empty();
        for carrier in carriers.0 {
            if let Err(panic) = carrier.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

fn take(injector: &Injector<Arc<Task>>) -> Option<Arc<Task>> {
    loop {
        match injector.steal() {
            Steal::Success(task) => return Some(task),
            Steal::Empty => return None,
            Steal::Retry => std::hint::spin_loop(),
        }
    }
}

impl Schedule for Scheduler {
    fn schedule(&self, task: Arc<Task>) {
        let _inside = context::Inside::enter();
        if context::is_carrier() {
            self.submit(task, RunQueue::push);
        } else {
            self.submit(task, RunQueue::push_next);
        }
    }

    fn add_deadline(&self, deadline: Deadline, task: Arc<Task>, wait: Generation) -> DeadlineKey {
        let shard = context::with_worker(|worker| worker.map_or(0, |worker| worker.index));
        self.driver.add_deadline(shard, deadline, task, wait)
    }

    fn drop_deadline(&self, key: DeadlineKey) {
        self.driver.drop_deadline(key);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
