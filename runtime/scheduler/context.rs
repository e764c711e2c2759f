//! Who is running here: a green thread, a carrier, or a plain OS thread.
//!
//! Called by: every hook of `patch` (first of all), `waiter`, `worker`, `pool`, `thread`.
//!
//! The answer is in a thread-local. Since a green thread has a thread-local storage of its own, what it
//! finds here was put there when it began and holds until it ends, wherever it runs; only *which
//! worker runs it* changes, and that is in the task.
//!
//! # Invariants
//! C1  `task` and `suspender` are set on a green thread from its begin to its end, and nowhere else.
//! C2  `inside` is set while a green thread is in the runtime or off the processor. A hook, also one
//!     reached from a signal handler, then passes straight through.
//! C3  In a forked child the forking green thread is a plain OS thread: `task` is null.

use super::worker::Worker;
use crate::coroutine::switch::{Suspender, Suspension};
use crate::stack::Culprit;
use crate::task::core::Task;
use std::cell::Cell;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

struct Context {
    task: Cell<*const Task>,
    suspender: Cell<*const Suspender>,
    /// Where a stack overflow shows: first and last-plus-one address.
    guard: Cell<(usize, usize)>,
    /// The address above the stack.
    top: Cell<usize>,
    /// Set on a carrier's own thread pointer.
    worker: Cell<*const Worker>,
    inside: Cell<bool>,
}

thread_local! {
    static CONTEXT: Context = const {
        Context {
            task: Cell::new(ptr::null()),
            suspender: Cell::new(ptr::null()),
            guard: Cell::new((0, 0)),
            top: Cell::new(0),
            worker: Cell::new(ptr::null()),
            inside: Cell::new(false),
        }
    };
}

/// Whether the caller is a green thread outside the runtime: the test that every hook begins with. It
/// reads thread-local storage and does nothing else.
///
/// A signal handler on its alternate stack is not the green thread, whatever the storage says: that
/// stack is the carrier's, and must not be left for another green thread's signals.
#[inline]
pub(crate) fn is_green() -> bool {
    let here = 0_u8;
    let here = (&raw const here).addr();
    CONTEXT.with(|context| {
        !context.task.get().is_null()
            && !context.inside.get()
            && (context.guard.get().1..context.top.get()).contains(&here)
    })
}

/// The calling green thread, if it is one.
pub(crate) fn task() -> Option<Arc<Task>> {
    let task = CONTEXT.with(|context| context.task.get());
    if task.is_null() {
        return None;
    }
    // SAFETY: C1: the task came out of an `Arc` and its worker holds a reference while it runs.
    unsafe {
        Arc::increment_strong_count(task);
        Some(Arc::from_raw(task))
    }
}

/// The worker that runs the caller, be it a green thread or the carrier itself.
///
/// The reference is good until the caller suspends.
pub(crate) fn with_worker<R>(look: impl FnOnce(Option<&Worker>) -> R) -> R {
    let worker = CONTEXT.with(|context| {
        let task = context.task.get();
        if task.is_null() {
            context.worker.get()
        } else {
            // SAFETY: C1, and the worker field is the green thread's to read while it runs.
            unsafe { &*task }.worker().cast()
        }
    });
    // SAFETY: a carrier's worker outlives its loop; the worker of a running green thread is on the
    // carrier beneath it, so it stays while the caller does not suspend.
    look(unsafe { worker.as_ref() })
}

/// Whether the caller is a carrier that runs no green thread.
pub(super) fn is_carrier() -> bool {
    CONTEXT.with(|context| context.task.get().is_null() && !context.worker.get().is_null())
}

/// The running green thread, for the report of a stack overflow. Async-signal-safe.
pub(super) fn running() -> Option<Culprit> {
    let (task, (start, end)) = CONTEXT.with(|context| (context.task.get(), context.guard.get()));
    // SAFETY: C1, and its worker holds a reference while it runs.
    let task = unsafe { task.as_ref() }?;
    Some(Culprit {
        guard: start..end,
        name: ptr::from_ref(task.name.as_deref().unwrap_or_default()),
        id: task.id,
    })
}

/// Whether the caller is in the runtime: so is a signal handler that interrupted it there.
#[inline]
pub(crate) fn is_inside() -> bool {
    CONTEXT.with(|context| context.inside.get())
}

/// Marks the calling thread as being in the runtime (C2) while it lives.
pub(crate) struct Inside {
    before: bool,
}

impl Inside {
    pub(crate) fn enter() -> Self {
        Self {
            before: CONTEXT.with(|context| context.inside.replace(true)),
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        CONTEXT.with(|context| context.inside.set(self.before));
    }
}

/// Leaves the processor. The caller is a green thread.
pub(crate) fn suspend(suspension: Suspension) {
    let _inside = Inside::enter();
    let suspender = CONTEXT.with(|context| context.suspender.get());
    // SAFETY: C1: set at the green thread's begin, and the suspender lives on its stack until its end.
    unsafe { &*suspender }.suspend(suspension);
}

/// Lets the others run; returns when it is the caller's turn again.
///
/// On a plain OS thread this is [`std::thread::yield_now`].
pub(crate) fn yield_now() {
    if CONTEXT.with(|context| context.task.get().is_null()) {
        std::thread::yield_now();
    } else {
        suspend(Suspension::Yield);
    }
}

/// Marks the caller as the green thread `task`, at its begin.
pub(super) fn begin(task: *const Task, suspender: &Suspender, guard: &Range<usize>, top: usize) {
    CONTEXT.with(|context| {
        context.guard.set((guard.start, guard.end));
        context.top.set(top);
        context.task.set(task);
        context.suspender.set(suspender);
        context.inside.set(false);
    });
}

/// Undoes [`begin`]; `false` in a forked child (C3).
pub(super) fn end() -> bool {
    CONTEXT.with(|context| {
        context.suspender.set(ptr::null());
        !context.task.replace(ptr::null()).is_null()
    })
}

/// Marks the calling OS thread as the carrier of `worker`; null when it is done.
pub(super) fn set_worker(worker: *const Worker) {
    CONTEXT.with(|context| context.worker.set(worker));
}

/// Whether this process is a forked child of one with a runtime: its carriers are not there, and what it
/// shares with its parent, the epoll instances above all, is not its own.
static FORKED: AtomicBool = AtomicBool::new(false);

/// Whether this process is a forked child of one with a runtime.
pub(crate) fn is_forked() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// Makes a plain OS thread of the caller, in a forked child.
extern "C" fn forked() {
    FORKED.store(true, Ordering::Relaxed);
    CONTEXT.with(|context| {
        context.task.set(ptr::null());
        context.worker.set(ptr::null());
    });
}

/// Has [`forked`] run in every child that is forked from now on.
pub(super) fn watch_forks() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: `forked` may run in a forked child: it touches its own thread-locals alone.
        let refused = unsafe { libc::pthread_atfork(None, None, Some(forked)) };
        assert_eq!(refused, 0, "no memory for a fork handler");
    });
}
