//! Decides which workers sleep, which of them sits in the reactor's poll, and who is woken.
//!
//! Called by: `worker` (out of work), `pool` (work came in, shut-down).
//!
//! A worker is *busy*, *searching* (looks at the others' queues) or *sleeping*. At most one sleeper
//! is in the *driver seat*: it waits for I/O and timers. The others lie in their beds.
//!
//! # Protocol
//! Submit:  1. put the work in a queue   2. fence F1   3. if somebody sleeps and nobody searches,
//!          take a sleeper off the list, count it as searching, unpark it
//! Sleep:   1. put oneself on the list, as a sleeper and no searcher   2. fence F2   3. look at every
//!          queue again; if there is work, take oneself off the list   4. take the seat if it is free
//!          and poll, else lie down
//! Found:   1. the searcher with work is busy   2. fence F3   3. if it was the last searcher, and there
//!          is more work or nobody in the seat, wake one
//! Leave:   1. give up the seat   2. fence F4   3. as Submit 3
//!
//! # Invariants
//! I1  A submission that returned is seen by a worker that is awake, or wakes one.
//! I2  While a worker sleeps and none searches, one is in the seat: no event and no timer waits for a
//!     busy worker.
//! I3  One submission wakes one worker at most.
//!
//! # Memory order
//! The counts are read relaxed; the fences make them exact. F1 with F2: either Sleep 3 sees the work or
//! Submit 3 sees the sleeper. F3 with F1: either Found 3 sees the work that a submitter kept quiet about
//! because somebody searched, or the submitter saw nobody search. F4 with F2: either Sleep 4 gets the
//! seat or Leave 3 sees the sleeper. Release and acquire alone let both sides miss.
//!
//! # Rejected
//! A lock around both sides costs a lock for each wake-up. Waking on every submission makes idle
//! workers wake for nothing. Polling only from busy workers leaves events to a green thread that
//! never yields.
//!
//! # Checked by
//! `models.rs`: i1 to i5.

use super::parker::{Parker, Poller};
use crate::platform::clock::Deadline;
use crate::primitive::Mutex;
use crate::primitive::atomic::{AtomicBool, AtomicU32, Ordering, fence};

const ONE_SLEEPER: u32 = 1 << 16;
const SEARCHERS: u32 = ONE_SLEEPER - 1;

fn sleepers(counts: u32) -> u32 {
    counts >> 16
}

fn searchers(counts: u32) -> u32 {
    counts & SEARCHERS
}

/// How a sleep ended.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slept {
    /// Look for work.
    Woken,
    /// The poll has returned: hand out its events, then [`Idle::leave_seat`], then look for work.
    Polled,
}

/// The idle state of one runtime's workers.
#[derive(Debug)]
pub(crate) struct Idle {
    /// Sleepers in the high half, searchers in the low one. Changes of the sleepers happen under the
    /// list's lock.
    counts: AtomicU32,
    /// The workers that sleep, the last to lie down last.
    list: Mutex<Vec<usize>>,
    parkers: Box<[Parker]>,
    seat: AtomicBool,
}

impl Idle {
    pub(crate) fn new(workers: usize) -> Self {
        assert!(workers < ONE_SLEEPER as usize, "too many workers");
        Self {
            counts: AtomicU32::new(0),
            list: Mutex::new(Vec::with_capacity(workers)),
            parkers: (0..workers).map(|_| Parker::new()).collect(),
            seat: AtomicBool::new(false),
        }
    }

    /// Says that work has been put in a queue.
    #[inline]
    pub(crate) fn submitted(&self, poller: &(impl Poller + ?Sized)) {
        fence(Ordering::SeqCst); // F1
        self.wake_if_nobody_searches(poller);
    }

    #[inline]
    fn wake_if_nobody_searches(&self, poller: &(impl Poller + ?Sized)) {
        let counts = self.counts.load(Ordering::Relaxed);
        if sleepers(counts) > 0 && searchers(counts) == 0 {
            self.wake_one(poller);
        }
    }

    #[cold]
    fn wake_one(&self, poller: &(impl Poller + ?Sized)) {
        let mut list = self.list.lock();
        // Another submitter may have woken a searcher since the counts were read (I3).
        if searchers(self.counts.load(Ordering::Relaxed)) > 0 {
            return;
        }
        let Some(worker) = list.pop() else { return };
        self.rouse(list, worker, poller);
    }

    /// Wakes `worker` if it sleeps.
    pub(crate) fn wake(&self, worker: usize, poller: &(impl Poller + ?Sized)) {
        fence(Ordering::SeqCst); // F1
        let mut list = self.list.lock();
        if let Some(place) = list.iter().position(|&sleeper| sleeper == worker) {
            list.remove(place);
            self.rouse(list, worker, poller);
        }
    }

    /// Counts a worker that was just taken off the list as a searcher, and unparks it.
    fn rouse(
        &self,
        list: impl std::ops::Deref<Target = Vec<usize>>,
        worker: usize,
        poller: &(impl Poller + ?Sized),
    ) {
        self.counts.fetch_sub(ONE_SLEEPER - 1, Ordering::Relaxed);
        drop(list);
        self.parkers[worker].unpark(poller);
    }

    /// Wakes every worker.
    pub(crate) fn wake_all(&self, poller: &(impl Poller + ?Sized)) {
        for worker in 0..self.parkers.len() {
            self.wake(worker, poller);
        }
    }

    /// Begins a search, unless half of the workers search already.
    pub(crate) fn start_search(&self) -> bool {
        let counts = self.counts.load(Ordering::Relaxed);
        if 2 * searchers(counts) as usize >= self.parkers.len() {
            return false;
        }
        self.counts.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Ends a search that found work; `is_work` says whether there is more.
    pub(crate) fn found(&self, is_work: impl FnOnce() -> bool, poller: &(impl Poller + ?Sized)) {
        let counts = self.counts.fetch_sub(1, Ordering::Relaxed);
        if searchers(counts) == 1 {
            fence(Ordering::SeqCst); // F3
            if sleepers(self.counts.load(Ordering::Relaxed)) > 0
                && (!self.seat.load(Ordering::Relaxed) || is_work())
            {
                self.wake_one(poller);
            }
        }
    }

    /// Sleeps until there may be work, or until `limit`. The caller counts as searching afterwards,
    /// and says whether it did before.
    pub(crate) fn sleep(
        &self,
        worker: usize,
        searching: bool,
        limit: Option<Deadline>,
        is_work: impl FnOnce() -> bool,
        poller: &(impl Poller + ?Sized),
    ) -> Slept {
        {
            let mut list = self.list.lock();
            list.push(worker);
            self.counts
                .fetch_add(ONE_SLEEPER - u32::from(searching), Ordering::Relaxed);
        }
        fence(Ordering::SeqCst); // F2
        let slept = if is_work() {
            Slept::Woken
        } else if self.try_seat() {
            self.parkers[worker].poll(poller, limit);
            Slept::Polled
        } else {
            self.parkers[worker].sleep(limit);
            Slept::Woken
        };
        self.get_up(worker);
        slept
    }

    /// Takes the worker off the list, if nobody who woke it has.
    fn get_up(&self, worker: usize) {
        let mut list = self.list.lock();
        if let Some(place) = list.iter().position(|&sleeper| sleeper == worker) {
            list.remove(place);
            self.counts.fetch_sub(ONE_SLEEPER - 1, Ordering::Relaxed);
        }
    }

    /// Takes the driver seat if it is free.
    pub(crate) fn try_seat(&self) -> bool {
        !self.seat.swap(true, Ordering::Acquire)
    }

    /// Gives up the driver seat.
    pub(crate) fn leave_seat(&self, poller: &(impl Poller + ?Sized)) {
        self.seat.swap(false, Ordering::Release);
        fence(Ordering::SeqCst); // F4
        self.wake_if_nobody_searches(poller);
    }
}
