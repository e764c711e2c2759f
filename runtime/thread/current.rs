//! The calling thread, green or not: who it is, and how it waits.

use crate::platform::clock::Deadline;
use crate::scheduler::{self, context, waiter};
use crate::task::core::Task;
use crate::time;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A handle to a green thread or an OS thread. Follows [`std::thread::Thread`].
///
/// ```
/// let worker = sward::thread::Builder::new().name("worker").spawn(sward::park).unwrap();
/// assert_eq!(worker.thread().name(), Some("worker"));
/// worker.thread().unpark();
/// worker.join().unwrap();
/// ```
#[derive(Clone)]
pub struct Thread(Inner);

#[derive(Clone)]
enum Inner {
    Green(Arc<Task>),
    System(std::thread::Thread),
}

/// Tells threads apart, green ones and OS threads alike. Follows [`std::thread::ThreadId`]; an id is
/// not used again while the process lives.
///
/// ```
/// let id = sward::spawn(|| sward::current().id()).join().unwrap();
/// assert_ne!(id, sward::current().id());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ThreadId(Id);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Id {
    Green(u64),
    System(std::thread::ThreadId),
}

impl Thread {
    pub(super) fn green(task: Arc<Task>) -> Self {
        Self(Inner::Green(task))
    }

    /// The thread's id.
    ///
    /// ```
    /// assert_eq!(sward::current().id(), sward::current().id());
    /// ```
    #[must_use]
    pub fn id(&self) -> ThreadId {
        ThreadId(match &self.0 {
            Inner::Green(task) => Id::Green(task.id),
            Inner::System(thread) => Id::System(thread.id()),
        })
    }

    /// The name given with [`Builder::name`](super::Builder::name), or the OS thread's.
    ///
    /// ```
    /// assert_eq!(sward::spawn(|| ()).thread().name(), None);
    /// ```
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Inner::Green(task) => task.name.as_deref(),
            Inner::System(thread) => thread.name(),
        }
    }

    /// Ends the thread's [`park`], or lets its next one return at once. Follows
    /// [`std::thread::Thread::unpark`]: several unparks before a park count as one, and what was
    /// written before the unpark is seen after the park.
    ///
    /// ```
    /// let parked = sward::spawn(sward::park);
    /// parked.thread().unpark();
    /// parked.join().unwrap();
    /// ```
    pub fn unpark(&self) {
        match &self.0 {
            Inner::Green(task) => {
                let _inside = context::Inside::enter();
                task.unpark();
            }
            Inner::System(thread) => thread.unpark(),
        }
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Thread")
            .field("id", &self.id())
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// The calling thread. Follows [`std::thread::current`].
///
/// ```
/// let name = sward::thread::Builder::new()
///     .name("lark")
///     .spawn(|| sward::current().name().map(str::to_owned))
///     .unwrap();
/// assert_eq!(name.join().unwrap().as_deref(), Some("lark"));
/// ```
#[must_use]
pub fn current() -> Thread {
    Thread(match context::task() {
        Some(task) => Inner::Green(task),
        None => Inner::System(std::thread::current()),
    })
}

/// Waits until another thread calls [`Thread::unpark`] on this one; at once if one has. Follows
/// [`std::thread::park`], but has no spurious wake-ups on green threads.
///
/// ```
/// sward::current().unpark();
/// sward::park(); // returns at once
/// ```
pub fn park() {
    match context::task() {
        Some(task) => waiter::park(&task, None),
        None => std::thread::park(),
    }
}

/// As [`park`], for no longer than `timeout`. Follows [`std::thread::park_timeout`].
///
/// ```
/// use std::time::{Duration, Instant};
/// let start = Instant::now();
/// sward::spawn(|| sward::thread::park_timeout(Duration::from_millis(5))).join().unwrap();
/// assert!(start.elapsed() >= Duration::from_millis(5));
/// ```
pub fn park_timeout(timeout: Duration) {
    match context::task() {
        Some(task) => waiter::park(&task, Some(Deadline::after(timeout))),
        None => std::thread::park_timeout(timeout),
    }
}

/// Parks the calling thread for `duration` at least. Follows [`std::thread::sleep`]; a duration of
/// zero lets others run.
///
/// ```
/// use std::time::{Duration, Instant};
/// let start = Instant::now();
/// sward::spawn(|| sward::sleep(Duration::from_millis(5))).join().unwrap();
/// assert!(start.elapsed() >= Duration::from_millis(5));
/// ```
pub fn sleep(duration: Duration) {
    if duration.is_zero() {
        scheduler::yield_now();
    } else {
        time::sleep_until(Deadline::after(duration));
    }
}

/// Lets the other green threads of this worker run before going on. Follows
/// [`std::thread::yield_now`], and is gevent's `sleep(0)`.
///
/// ```
/// sward::spawn(|| {
///     for _ in 0..10 {
///         sward::yield_now();
///     }
/// })
/// .join()
/// .unwrap();
/// ```
pub fn yield_now() {
    scheduler::yield_now();
}
