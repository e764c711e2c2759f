//! A fiber: a function on a stack of its own, resumed by a worker and suspended by itself.
//!
//! Called by: `scheduler::worker` (`new`, `resume`, `into_stack`), `scheduler::context` (`suspend`).
//!
//! ```text
//!  worker's stack                     the fiber's stack
//!  run ─ resume ───────────────────▶  main ─ … ─ hook ─ suspend
//!        resume returns  ◀──────────────────────────────┘
//!        resume ───────────────────▶                    suspend returns …
//! ```
//!
//! The switch moves the stack pointer, the callee-saved registers and the floating-point control
//! registers. The thread pointer is the caller's business.

use crate::platform::x86_64::floating_point::FloatingPoint;
use crate::stack::Stack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

/// Why a fiber left the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suspension {
    /// It wants to go on as soon as the others have had their turn.
    Yield,
    /// It has begun a wait.
    Park,
}

/// What [`Fiber::resume`] came back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Suspended(Suspension),
    Ended,
}

/// A function on a stack.
pub(crate) struct Fiber {
    coroutine: Coroutine<(), Suspension, (), Stack>,
    thread_pointer: *mut u8,
}

/// The inner side of a fiber: how its own code leaves the processor.
#[repr(transparent)]
pub(crate) struct Suspender(Yielder<(), Suspension>);

impl Fiber {
    /// Prepares `main` to run on `stack`. `main` must not unwind.
    pub(crate) fn new(stack: Stack, main: impl FnOnce(&Suspender) + 'static) -> Self {
        let thread_pointer = stack.thread_pointer();
        let coroutine = Coroutine::with_stack(stack, move |yielder: &Yielder<_, _>, ()| {
            FloatingPoint::initial().restore();
            // SAFETY: `Suspender` is a transparent wrapper of the yielder.
            main(unsafe { &*std::ptr::from_ref(yielder).cast::<Suspender>() });
        });
        Self {
            coroutine,
            thread_pointer,
        }
    }

    /// The thread pointer that must be set before each `resume`.
    pub(crate) fn thread_pointer(&self) -> *mut u8 {
        self.thread_pointer
    }

    /// Runs the fiber until it suspends or ends.
    pub(crate) fn resume(&mut self) -> Outcome {
        match self.coroutine.resume(()) {
            CoroutineResult::Yield(suspension) => Outcome::Suspended(suspension),
            CoroutineResult::Return(()) => Outcome::Ended,
        }
    }

    /// Takes the stack back from a fiber that has ended.
    pub(crate) fn into_stack(self) -> Stack {
        self.coroutine.into_stack()
    }
}

impl Suspender {
    /// Leaves the processor; returns when the fiber is resumed, maybe on another OS thread.
    pub(crate) fn suspend(&self, suspension: Suspension) {
        let floating_point = FloatingPoint::current();
        self.0.suspend(suspension);
        floating_point.restore();
    }
}
