//! Waiting for green threads to end.

use super::Thread;
use crate::scheduler::waiter::{self, Waiter};
use crate::task::error::JoinError;
use crate::task::join::JoinCell;
use std::fmt;
use std::sync::Arc;

/// What the two ends of a green thread share.
pub(super) type Cell<T> = JoinCell<Result<T, JoinError>, Waiter>;

/// Owns the right to wait for one green thread. Follows [`std::thread::JoinHandle`]: dropping it lets
/// the green thread go on by itself.
///
/// ```
/// let handle = sward::spawn(|| 6 * 7);
/// assert_eq!(handle.join().unwrap(), 42);
/// ```
pub struct JoinHandle<T> {
    thread: Thread,
    cell: Arc<Cell<T>>,
}

impl<T> JoinHandle<T> {
    pub(super) fn new(thread: Thread, cell: Arc<Cell<T>>) -> Self {
        Self { thread, cell }
    }

    /// Waits for the green thread to end, and gives its value. May be called from green threads and
    /// from OS threads. Follows [`std::thread::JoinHandle::join`]; as there, all that the green thread
    /// did, its thread-local destructors included, is done and seen when this returns.
    ///
    /// # Errors
    /// [`JoinError`] if the green thread panicked.
    ///
    /// ```
    /// let inner = sward::spawn(|| sward::spawn(|| 1).join().unwrap() + 1);
    /// assert_eq!(inner.join().unwrap(), 2);
    /// ```
    pub fn join(self) -> Result<T, JoinError> {
        waiter::wait(None, |waiter| self.cell.register(waiter.clone()));
        self.cell.take().expect("woken by the end")
    }

    /// Whether the green thread has ended, so that [`join`](JoinHandle::join) will not wait. Follows
    /// [`std::thread::JoinHandle::is_finished`].
    ///
    /// ```
    /// let parked = sward::spawn(sward::park);
    /// assert!(!parked.is_finished());
    /// parked.thread().unpark();
    /// parked.join().unwrap();
    /// ```
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.cell.is_done()
    }

    /// The green thread.
    ///
    /// ```
    /// assert!(sward::spawn(|| ()).thread().name().is_none());
    /// ```
    #[must_use]
    pub fn thread(&self) -> &Thread {
        &self.thread
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("JoinHandle")
            .field("thread", &self.thread)
            .field("is_finished", &self.is_finished())
            .finish()
    }
}

/// Waits for all of `handles`, and gives their results in the order of the handles. Follows
/// `gevent.joinall`; a panic in one does not keep it from waiting for the rest.
///
/// ```
/// let squares = sward::joinall((1..=3).map(|n| sward::spawn(move || n * n)));
/// let squares: Result<Vec<_>, _> = squares.into_iter().collect();
/// assert_eq!(squares.unwrap(), [1, 4, 9]);
/// ```
pub fn joinall<T>(handles: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<Result<T, JoinError>> {
    // All are spawned before the first is waited for, also if the iterator spawns as it goes.
    let handles: Vec<_> = handles.into_iter().collect();
    handles.into_iter().map(JoinHandle::join).collect()
}
