//! A task: what the queues hold and the workers run.
//!
//! Called by: `scheduler::worker` (runs it), `scheduler::waiter` (ends its waits), `thread` (makes it).
//!
//! | field | who may touch it |
//! | --- | --- |
//! | `id`, `name`, `schedule` | anybody; they never change |
//! | `word` | anybody, through its transitions |
//! | `body`, `worker`, `home` | whoever has the turn (T1); the green thread itself while it runs |

use super::Cause;
use super::state::{Commit, Fire, Generation, WaitWord};
use crate::coroutine::switch::Fiber;
use crate::platform::clock::Deadline;
use crate::stack::Reservation;
use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::sync::Arc;

/// What a task needs from the scheduler it belongs to.
pub(crate) trait Schedule: Any + Send + Sync {
    /// Queues a task whose turn the caller has.
    fn schedule(&self, task: Arc<Task>);

    /// Has `task`'s wait `wait` ended with [`Cause::Deadline`] when `deadline` comes.
    fn add_deadline(&self, deadline: Deadline, task: Arc<Task>, wait: Generation) -> DeadlineKey;

    /// Takes back a deadline that has not fired; nothing happens if it has.
    fn drop_deadline(&self, key: DeadlineKey);

    /// For the rooms above that know the scheduler's type.
    fn as_any(&self) -> &dyn Any;
}

/// Which deadline is meant: its shard, its time, and a number that tells equal times apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeadlineKey {
    pub(crate) shard: usize,
    pub(crate) deadline: Deadline,
    pub(crate) sequence: u64,
}

/// What a green thread runs; made by `thread`, which knows the types.
pub(crate) trait Work: Send {
    /// Runs the user's function and keeps its result. Does not unwind.
    fn run(&mut self);

    /// Hands the result to the joiner, after the thread-local destructors.
    fn finish(self: Box<Self>);
}

/// How far a task is.
pub(crate) enum Body {
    /// Not begun: no stack yet, but one is reserved.
    New(Box<dyn Work>, Reservation),
    /// Has a stack. The reservation goes when the stack does.
    Started(Fiber, Reservation),
    /// At its end, or being moved from one state to the next.
    Ended,
}

/// A green thread as the scheduler sees it.
pub(crate) struct Task {
    pub(crate) id: u64,
    pub(crate) name: Option<Box<str>>,
    pub(crate) schedule: Arc<dyn Schedule>,
    word: WaitWord,
    body: UnsafeCell<Body>,
    /// The worker that runs it, as a pointer that only the scheduler understands.
    worker: Cell<*const ()>,
    /// The number of the worker that ran it last.
    home: Cell<usize>,
}

// SAFETY: T1: `body`, `worker` and `home` are touched by the holder of the turn alone, and the turn
// passes between threads through the wait word and the queues, which order the accesses. What the
// green thread keeps on its stack may move between OS threads because it has a thread-local
// storage of its own: to its code it never changes threads.
unsafe impl Send for Task {}
// SAFETY: as above; everything else is immutable or atomic.
unsafe impl Sync for Task {}

impl Task {
    pub(crate) fn new(
        id: u64,
        name: Option<Box<str>>,
        schedule: Arc<dyn Schedule>,
        work: Box<dyn Work>,
        reservation: Reservation,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            name,
            schedule,
            word: WaitWord::new(),
            body: UnsafeCell::new(Body::New(work, reservation)),
            worker: Cell::new(std::ptr::null()),
            home: Cell::new(0),
        })
    }

    /// The body.
    ///
    /// # Safety
    /// The caller has the turn (T1) and lets go of the reference before it passes the turn on.
    #[allow(
        clippy::mut_from_ref,
        reason = "the turn is what makes the access exclusive"
    )]
    pub(crate) unsafe fn body(&self) -> &mut Body {
        // SAFETY: the caller has the turn.
        unsafe { &mut *self.body.get() }
    }

    /// Notes who runs it. Only the holder of the turn calls this.
    pub(crate) fn set_worker(&self, worker: *const (), index: usize) {
        self.worker.set(worker);
        self.home.set(index);
    }

    /// The worker that runs it. Only the green thread itself, or the holder of the turn, asks.
    pub(crate) fn worker(&self) -> *const () {
        self.worker.get()
    }

    /// The number of the worker that ran it last. Only the holder of the turn asks.
    pub(crate) fn home(&self) -> usize {
        self.home.get()
    }

    /// The word, for the green thread itself.
    pub(crate) fn word(&self) -> &WaitWord {
        &self.word
    }

    /// Parks a task that has left the processor; gives it back if its wait is over already.
    pub(crate) fn commit(self: Arc<Self>) -> Option<Arc<Self>> {
        // T3: the reference must be out of this frame before the word says PARKED, because from
        // then on it belongs to whoever takes the turn.
        let task = Arc::into_raw(self);
        // SAFETY: the reference just turned into a pointer keeps the task alive until somebody
        // takes the turn, which happens after the last access to the word in `commit`.
        let commit = unsafe { &*task }.word.commit();
        match commit {
            Commit::Parked => None,
            // SAFETY: the turn stayed here, and with it the reference.
            Commit::Fired => Some(unsafe { Arc::from_raw(task) }),
        }
    }

    /// Ends the wait `wait`; says whether it did.
    pub(crate) fn fire(self: &Arc<Self>, wait: Generation, cause: Cause) -> bool {
        self.pass_on(self.word.fire(wait, cause))
    }

    /// Ends its park, or leaves the token for the next.
    pub(crate) fn unpark(self: &Arc<Self>) {
        self.pass_on(self.word.unpark());
    }

    fn pass_on(self: &Arc<Self>, fire: Fire) -> bool {
        match fire {
            Fire::Lost => false,
            Fire::Before => true,
            Fire::Turn => {
                // SAFETY: T3: `commit` left one reference for whoever gets the turn, which W1
                // gives to this call alone.
                let task = unsafe { Arc::from_raw(Arc::as_ptr(self)) };
                let schedule = task.schedule.clone();
                schedule.schedule(task);
                true
            }
        }
    }
}
