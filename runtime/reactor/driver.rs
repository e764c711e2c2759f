//! The reactor of one runtime: mio's poll, the timers, and the descriptors' waiters together.
//!
//! Called by: the scheduler, through [`Driver`]; `wait` and `lifetime` beside it.

use super::Interest;
use super::descriptors::Descriptors;
use super::lifetime::PrivateDescriptor;
use crate::platform::clock::Deadline;
use crate::primitive::Mutex;
use crate::scheduler::context::{self, Inside};
use crate::scheduler::driver::Driver;
use crate::scheduler::parker::Poller;
use crate::scheduler::pool::Scheduler;
use crate::scheduler::waiter::Waiter;
use crate::task::core::{DeadlineKey, Task};
use crate::task::state::Generation;
use crate::task::{Cause, Wake};
use crate::time::alarm::Alarm;
use crate::time::timers::Timers;
use mio::{Events, Poll, Registry, Token, Waker};
use std::any::Any;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How many events one poll takes.
const EVENTS: usize = 1024;

/// The waker's token: no descriptor has this number.
const WAKE: Token = Token(usize::MAX);

/// One runtime's reactor.
pub(crate) struct Reactor(Arc<Inner>);

struct Inner {
    poll: Mutex<(Poll, Events)>,
    registry: Registry,
    waker: Waker,
    timers: Timers,
    descriptors: Descriptors,
    alarm: Alarm,
    /// Private duplicates for waiters whose descriptor went, until these pick them up.
    moved: Mutex<Vec<(Waiter, PrivateDescriptor)>>,
    moves: AtomicUsize,
}

/// All reactors of the process: descriptors are the process's.
static REACTORS: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

impl Reactor {
    /// Makes a reactor for `workers` workers. Fails if the kernel refuses an epoll instance or an
    /// eventfd.
    pub(crate) fn new(workers: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Waker::new(&registry, WAKE)?;
        let inner = Arc::new(Inner {
            poll: Mutex::new((poll, Events::with_capacity(EVENTS))),
            registry,
            waker,
            timers: Timers::new(workers),
            descriptors: Descriptors::new(),
            alarm: Alarm::new(),
            moved: Mutex::new(Vec::new()),
            moves: AtomicUsize::new(0),
        });
        let mut reactors = REACTORS.lock();
        let reactor = Arc::downgrade(&inner);
        // A place that has come free is taken again, so that the others stay where they are.
        match reactors.iter_mut().find(|old| old.strong_count() == 0) {
            Some(free) => *free = reactor,
            None => reactors.push(reactor),
        }
        Ok(Self(inner))
    }

    pub(super) fn arm(
        &self,
        descriptor: RawFd,
        interest: Interest,
        waiter: &Waiter,
    ) -> io::Result<()> {
        let inner = &*self.0;
        inner
            .descriptors
            .arm(&inner.registry, descriptor, interest, waiter)
    }

    pub(super) fn forget(&self, descriptor: RawFd) -> Vec<Waiter> {
        self.0
            .descriptors
            .forget(&self.0.registry, descriptor, |waiter, private| {
                let mut moved = self.0.moved.lock();
                moved.push((waiter.clone(), private));
                self.0.moves.store(moved.len(), Ordering::Relaxed);
            })
    }

    pub(super) fn waiters(&self, descriptor: RawFd) -> Vec<Waiter> {
        self.0.descriptors.waiters(descriptor)
    }

    /// Takes `waiter` out, and picks up the duplicate if its number went meanwhile.
    pub(super) fn leave(&self, descriptor: RawFd, waiter: &Waiter) -> Option<PrivateDescriptor> {
        self.0.descriptors.disarm(descriptor, waiter);
        // Left under the lock that `disarm` took, so a relaxed look at the count is enough.
        if self.0.moves.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut moved = self.0.moved.lock();
        let place = moved.iter().position(|(other, _)| other.is(waiter))?;
        let (_, private) = moved.swap_remove(place);
        self.0.moves.store(moved.len(), Ordering::Relaxed);
        Some(private)
    }

    fn poll(&self, limit: Option<Duration>) {
        let (poll, events) = &mut *self.0.poll.lock();
        if let Err(error) = poll.poll(events, limit) {
            // Interrupted: the caller looks again anyhow. Anything else means that the runtime cannot
            // wait at all.
            assert_eq!(
                error.kind(),
                io::ErrorKind::Interrupted,
                "epoll_wait failed: {error}"
            );
        }
    }
}

impl Poller for Reactor {
    fn wait(&self, limit: Option<Deadline>) {
        let until = self.0.alarm.sleep(limit, || self.0.timers.earliest());
        self.poll(until.map(|until| until.saturating_duration_since(Deadline::now())));
        self.0.alarm.get_up();
    }

    fn wake(&self) {
        let _inside = Inside::enter();
        // An eventfd's write fails only when its counter is full, and then it wakes anyhow.
        let _ = self.0.waker.wake();
    }
}

impl Driver for Reactor {
    fn look(&self) {
        self.poll(Some(Duration::ZERO));
    }

    fn dispatch(&self) {
        let mut woken = Vec::new();
        {
            let (_, events) = &mut *self.0.poll.lock();
            for event in &*events {
                if event.token() != WAKE {
                    self.0.descriptors.woken_by(event, &mut woken);
                }
            }
            events.clear();
        }
        for waiter in woken {
            // Whoever lost its wait meanwhile has left; it needs no wake-up.
            let _ = waiter.wake(Cause::Event);
        }
    }

    fn expire(&self) {
        self.0.timers.expire();
    }

    fn add_deadline(
        &self,
        shard: usize,
        deadline: Deadline,
        task: Arc<Task>,
        wait: Generation,
    ) -> DeadlineKey {
        let key = self.0.timers.add(shard, deadline, task, wait);
        if self.0.alarm.misses(deadline) {
            self.wake();
        }
        key
    }

    fn drop_deadline(&self, key: DeadlineKey) {
        self.0.timers.remove(key);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Calls `with` for the reactor of the calling green thread's runtime.
pub(super) fn with_current<R>(with: impl FnOnce(&Reactor) -> R) -> R {
    let task = context::task().expect("only green threads wait for descriptors");
    let scheduler: &Scheduler = task
        .schedule
        .as_any()
        .downcast_ref()
        .expect("one scheduler type");
    let reactor = scheduler.driver().as_any().downcast_ref();
    with(reactor.expect("one driver type"))
}

/// Calls `each` for every reactor of the process.
pub(super) fn for_each(each: impl Fn(&Reactor)) {
    let _inside = Inside::enter();
    // One at a time, without a list of them: this may run where nothing must be allocated.
    for place in 0.. {
        let reactor = match REACTORS.lock().get(place) {
            Some(reactor) => reactor.upgrade(),
            None => break,
        };
        if let Some(reactor) = reactor {
            each(&Reactor(reactor));
        }
    }
}
