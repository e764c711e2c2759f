//! Runtimes: workers, a reactor and stacks together, made by a program or by the first spawn.

use super::{Builder, JoinHandle};
use crate::reactor::Reactor;
use crate::scheduler::context;
use crate::scheduler::pool::{Carriers, Scheduler};
use crate::stack::{self, Pool, Reservation};
use crate::tls;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The part of a runtime that spawning needs.
#[derive(Clone)]
pub(super) struct Handle {
    scheduler: Arc<Scheduler>,
}

impl Handle {
    /// The runtime of the calling green thread, or else the default one.
    pub(super) fn of_caller() -> io::Result<Self> {
        if let Some(task) = context::task() {
            let schedule: Arc<dyn std::any::Any + Send + Sync> = task.schedule.clone();
            if let Ok(scheduler) = schedule.downcast() {
                return Ok(Self { scheduler });
            }
        }
        Ok(default_runtime()?.handle.clone())
    }

    pub(super) fn scheduler(&self) -> &Arc<Scheduler> {
        &self.scheduler
    }

    pub(super) fn reserve(&self, stack_size: Option<usize>) -> io::Result<Reservation> {
        refuse_in_forked_child()?;
        let stacks = self.scheduler.stacks();
        stacks.reserve(stack_size.unwrap_or(self.scheduler.stack_size()))
    }
}

/// # Errors
/// [`Unsupported`](io::ErrorKind::Unsupported) in a forked child of a process with a runtime.
fn refuse_in_forked_child() -> io::Result<()> {
    if context::is_forked() {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this process was forked from one that runs green threads, and cannot run any: \
             its workers stayed with the parent. Execute a program in it",
        ));
    }
    Ok(())
}

/// The runtime that starts itself, and runs until the process ends.
fn default_runtime() -> io::Result<&'static Runtime> {
    static DEFAULT: OnceLock<Runtime> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    if let Some(runtime) = DEFAULT.get() {
        return Ok(runtime);
    }
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = DEFAULT.get() {
        return Ok(runtime);
    }
    let runtime = Runtime::builder().build()?;
    Ok(DEFAULT.get_or_init(|| runtime))
}

/// Runs `function` as a green thread of the default runtime, and returns its value when it and every
/// other green thread of that runtime have ended.
///
/// # Panics
/// If `function` panics, with the same payload; if the default runtime cannot start; if called from one
/// of its own green threads, which could never end.
///
/// ```
/// let total: i32 = sward::run(|| {
///     let parts = sward::joinall((1..=3).map(|n| sward::spawn(move || n)));
///     parts.into_iter().map(Result::unwrap).sum()
/// });
/// assert_eq!(total, 6);
/// ```
pub fn run<F, T>(function: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match default_runtime() {
        Ok(runtime) => runtime.run(function),
        Err(error) => panic!("cannot start the default runtime: {error}"),
    }
}

/// Workers to run green threads on, with a reactor and stacks of their own.
///
/// A program needs none: the first [`spawn`](crate::spawn) starts the default one. Make one to choose
/// the number of workers, or to have it end: dropping a runtime waits for its green threads to end,
/// then stops its OS threads. (Dropped by one of its own green threads it cannot wait, and stops when
/// the last has ended.)
///
/// ```
/// let runtime = sward::Runtime::builder().workers(2).build()?;
/// assert_eq!(runtime.run(|| 6 * 7), 42);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Runtime {
    handle: Handle,
    carriers: Option<Carriers>,
    workers: usize,
}

/// What a runtime is to be like.
///
/// ```
/// let runtime = sward::Runtime::builder().workers(1).stack_size(256 << 10).build()?;
/// runtime.spawn(|| ()).join().unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it builds"]
pub struct RuntimeBuilder {
    workers: Option<usize>,
    stack_size: Option<usize>,
    force_migration: Option<bool>,
}

impl RuntimeBuilder {
    /// Sets the number of workers, each on an OS thread. Without this it is `SWARD_WORKERS` from the
    /// environment, or else [`std::thread::available_parallelism`].
    ///
    /// ```
    /// sward::Runtime::builder().workers(3).build()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Sets the stack size in bytes of green threads that do not choose their own.
    ///
    /// ```
    /// sward::Runtime::builder().stack_size(128 << 10).build()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// Moves each green thread to another worker whenever it is woken: slow, and good for finding code
    /// that must not be moved. Without this, `SWARD_FORCE_MIGRATION=1` in the environment does it.
    ///
    /// ```
    /// sward::Runtime::builder().workers(2).force_migration(true).build()?.run(sward::yield_now);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn force_migration(mut self, force: bool) -> Self {
        self.force_migration = Some(force);
        self
    }

    /// Starts the runtime.
    ///
    /// # Errors
    /// * [`Unsupported`](io::ErrorKind::Unsupported): this processor or C library is not what sward
    ///   needs, or this is a forked child of a process with a runtime; the message says what differs.
    /// * [`InvalidInput`](io::ErrorKind::InvalidInput): no workers, or more than 65,535, or
    ///   `SWARD_WORKERS` is not a number.
    /// * whatever the kernel says when it refuses an epoll instance or a thread.
    ///
    /// ```
    /// let refused = sward::Runtime::builder().workers(0).build();
    /// assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    /// ```
    pub fn build(self) -> io::Result<Runtime> {
        refuse_in_forked_child()?;
        let facts = tls::check()
            .map_err(|unsupported| io::Error::new(io::ErrorKind::Unsupported, unsupported))?;
        let workers = match self.workers {
            Some(workers) => workers,
            None => default_workers()?,
        };
        if !(1..1 << 16).contains(&workers) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a runtime has 1 to 65535 workers, not {workers}"),
            ));
        }
        let forced = self.force_migration.unwrap_or_else(|| {
            std::env::var_os("SWARD_FORCE_MIGRATION").is_some_and(|value| value == "1")
        });
        let reactor = Box::new(Reactor::new(workers)?);
        let stack_size = self.stack_size.unwrap_or_else(stack::default_size);
        let (scheduler, carriers) =
            Scheduler::start(workers, forced, stack_size, Pool::new(facts), reactor)?;
        Ok(Runtime {
            handle: Handle { scheduler },
            carriers: Some(carriers),
            workers,
        })
    }
}

fn default_workers() -> io::Result<usize> {
    match std::env::var_os("SWARD_WORKERS") {
        None => std::thread::available_parallelism().map(usize::from),
        Some(text) => text
            .to_str()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("SWARD_WORKERS is {text:?}, not a number of workers"),
                )
            }),
    }
}

impl Runtime {
    /// A builder with the defaults.
    ///
    /// ```
    /// let runtime = sward::Runtime::builder().build()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Spawns a green thread here.
    ///
    /// # Panics
    /// If the kernel refuses memory for a stack; [`Builder::spawn_in`] gives an error instead.
    ///
    /// ```
    /// let runtime = sward::Runtime::builder().workers(1).build()?;
    /// assert_eq!(runtime.spawn(|| 7).join().unwrap(), 7);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn spawn<F, T>(&self, function: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match Builder::new().spawn_in(self, function) {
            Ok(handle) => handle,
            Err(refused) => panic!("cannot spawn a green thread: {refused}"),
        }
    }

    /// Runs `function` as a green thread here, and returns its value when it and every other green
    /// thread of this runtime have ended.
    ///
    /// # Panics
    /// If `function` panics, with the same payload; if called from one of this runtime's own green
    /// threads, which could never end.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// static DONE: AtomicBool = AtomicBool::new(false);
    /// let runtime = sward::Runtime::builder().workers(1).build()?;
    /// runtime.run(|| drop(sward::spawn(|| DONE.store(true, Ordering::Relaxed))));
    /// assert!(DONE.load(Ordering::Relaxed));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn run<F, T>(&self, function: F) -> T
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let scheduler = self.handle.scheduler();
        assert!(
            !scheduler.is_inside(),
            "run() on the runtime that runs the caller would wait for the caller to end; spawn() instead"
        );
        let result = self.spawn(function).join();
        scheduler.wait_until_empty();
        match result {
            Ok(value) => value,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let scheduler = self.handle.scheduler();
        let Some(carriers) = self.carriers.take() else {
            return;
        };
        if scheduler.is_inside() {
            // The carriers leave by themselves once they find nothing to do.
            scheduler.stop_when_empty();
        } else {
            scheduler.wait_until_empty();
            scheduler.stop(carriers);
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Runtime")
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}
