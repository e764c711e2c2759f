//! Just enough of a green thread to try storage on: a block, the stack below it and a coroutine.

use std::marker::PhantomData;
use std::mem;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use corosensei::{Coroutine, CoroutineResult};

use super::super::trial::Mapping;
use super::super::{Block, Facts, begin, check, end};
use crate::platform::{set_thread_pointer, thread_pointer};

const STACK_SIZE: usize = 512 * 1024;

/// A block in memory of its own, and the stack below it.
pub(super) struct Green {
    block: Option<Block>,
    memory: Mapping,
}

/// Where the stack is: from `low` to the block.
#[derive(Clone, Copy)]
struct Stack {
    low: NonZeroUsize,
    base: NonZeroUsize,
}

// SAFETY: base and limit are multiples of 16 in one writable mapping, far enough apart. There is
// no guard below: the tests' frames are few.
unsafe impl corosensei::stack::Stack for Stack {
    fn base(&self) -> NonZeroUsize {
        self.base
    }

    fn limit(&self) -> NonZeroUsize {
        self.low
    }
}

// SAFETY: block, stack and memory are tied to no OS thread.
unsafe impl Send for Green {}

impl Green {
    pub(super) fn new() -> Green {
        let facts = check().unwrap();
        let size = STACK_SIZE + facts.block_size + facts.block_align;
        let memory = Mapping::new(size).unwrap();
        // SAFETY: the mapping is zeroed, holds a block below an aligned top, and lives as long.
        let block = unsafe { Block::create(facts, memory.top(facts.block_align)) }.unwrap();
        Green {
            block: Some(block),
            memory,
        }
    }

    fn block(&mut self) -> &mut Block {
        self.block.as_mut().unwrap()
    }

    pub(super) fn thread_pointer(&self) -> *mut u8 {
        self.block.as_ref().unwrap().thread_pointer()
    }

    pub(super) fn reset(&mut self) {
        // SAFETY: the block is in force only within `Running::step`, which has returned.
        unsafe { self.block().reset(check().unwrap()) }.unwrap();
    }

    fn stack(&self) -> Stack {
        let facts = check().unwrap();
        let top = self.memory.top(facts.block_align).addr();
        Stack {
            low: NonZeroUsize::new(self.memory.low().addr()).unwrap(),
            base: NonZeroUsize::new((top - facts.block_size) & !15).unwrap(),
        }
    }

    /// Sets the stack's bounds; returns its low end and its size.
    pub(super) fn set_stack_bounds(&mut self) -> (usize, usize) {
        let (low, base) = (self.memory.low(), self.stack().base);
        let size = base.get() - low.addr();
        // SAFETY: as in `reset`; the stack that `start` uses.
        unsafe { self.block().set_stack_bounds(check().unwrap(), low, size) };
        (low.addr(), size)
    }

    /// Runs `body` to its end.
    pub(super) fn run<R: 'static>(&mut self, body: impl FnOnce(&dyn Fn()) -> R) -> R {
        let mut running = self.start(body);
        loop {
            if let Some(result) = running.step() {
                return result;
            }
        }
    }

    /// Prepares to run `body`, which is given a function that suspends it.
    pub(super) fn start<'a, R: 'static>(
        &'a mut self,
        body: impl FnOnce(&dyn Fn()) -> R + 'a,
    ) -> Running<'a, R> {
        let facts: &Facts = check().unwrap();
        let thread_pointer = self.thread_pointer();
        let stack = self.stack();
        let body: Box<Body<'a, R>> = Box::new(body);
        // SAFETY: only the lifetime changes; `Running` has it, and the coroutine with it.
        let body = unsafe { mem::transmute::<Box<Body<'a, R>>, Box<Body<'static, R>>>(body) };
        let coroutine = Coroutine::with_stack(stack, move |yielder, ()| {
            // SAFETY: `step` put the block in force, and it is new or reset.
            unsafe { begin(facts) };
            let suspend = || yielder.suspend(());
            let result = catch_unwind(AssertUnwindSafe(|| body(&suspend)));
            // SAFETY: `body` has ended, and nobody else runs on the block.
            unsafe { end(facts) };
            result
        });
        Running {
            coroutine,
            thread_pointer,
            _green: PhantomData,
        }
    }
}

impl Drop for Green {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            // SAFETY: as in `reset`.
            unsafe { block.destroy() };
        }
    }
}

type Body<'a, R> = dyn FnOnce(&dyn Fn()) -> R + 'a;

/// A [`Green`] on which something runs.
pub(super) struct Running<'a, R> {
    coroutine: Coroutine<(), (), std::thread::Result<R>, Stack>,
    thread_pointer: *mut u8,
    _green: PhantomData<&'a mut Green>,
}

// SAFETY: the coroutine has its own storage, so it may go on on another OS thread; the tests put
// nothing else on its stack that may not.
unsafe impl<R: Send> Send for Running<'_, R> {}

impl<R> Running<'_, R> {
    /// Runs until the body suspends (`None`) or ends. Panics if the body panicked.
    pub(super) fn step(&mut self) -> Option<R> {
        match resume(self) {
            CoroutineResult::Yield(()) => None,
            CoroutineResult::Return(Ok(result)) => Some(result),
            CoroutineResult::Return(Err(payload)) => resume_unwind(payload),
        }
    }
}

/// Keeps H1: not inlined, and no thread-local between the changes but on the other side.
#[inline(never)]
fn resume<R>(running: &mut Running<'_, R>) -> CoroutineResult<(), std::thread::Result<R>> {
    let home = thread_pointer();
    // SAFETY: the block is complete and, as `running` is borrowed uniquely, in force nowhere.
    unsafe { set_thread_pointer(running.thread_pointer) };
    let result = running.coroutine.resume(());
    // SAFETY: this OS thread's own, as it was.
    unsafe { set_thread_pointer(home) };
    result
}
