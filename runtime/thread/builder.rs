//! Making green threads.

use super::join_handle::{Cell, JoinHandle};
use super::runtime::Handle;
use super::{Runtime, Thread};
use crate::stack::Reservation;
use crate::task::core::Work;
use crate::task::error::JoinError;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Spawns a green thread on the calling green thread's runtime, or else on the default one, which
/// starts itself. Follows [`std::thread::spawn`] and `gevent.spawn`. What may be spawned is what may
/// be spawned on an OS thread: a green thread moves between OS threads, and never notices.
///
/// # Panics
/// If the kernel refuses memory for a stack, or the runtime cannot start; [`Builder::spawn`] gives an
/// error instead.
///
/// ```
/// let greeting = sward::spawn(|| "hello".to_owned());
/// assert_eq!(greeting.join().unwrap(), "hello");
/// ```
pub fn spawn<F, T>(function: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match Builder::new().spawn(function) {
        Ok(handle) => handle,
        Err(error) => panic!("cannot spawn a green thread: {error}"),
    }
}

/// What a green thread is to be like. Follows [`std::thread::Builder`].
///
/// ```
/// let deep = sward::thread::Builder::new()
///     .name("deep")
///     .stack_size(8 << 20)
///     .spawn(|| sward::current().name().unwrap().to_owned())?;
/// assert_eq!(deep.join().unwrap(), "deep");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it spawns"]
pub struct Builder {
    name: Option<Box<str>>,
    stack_size: Option<usize>,
}

/// A refused spawn: why, and the function, which has not run.
///
/// ```
/// let refused = sward::thread::Builder::new().stack_size(usize::MAX).try_spawn(|| 7).unwrap_err();
/// let function = refused.into_function();
/// assert_eq!(function(), 7);
/// ```
pub struct SpawnError<F> {
    error: io::Error,
    function: F,
}

impl<F> SpawnError<F> {
    /// Why.
    ///
    /// ```
    /// let refused = sward::thread::Builder::new().stack_size(usize::MAX).try_spawn(|| ());
    /// assert_eq!(refused.unwrap_err().error().kind(), std::io::ErrorKind::OutOfMemory);
    /// ```
    #[must_use]
    pub fn error(&self) -> &io::Error {
        &self.error
    }

    /// Gives the function back.
    ///
    /// ```
    /// let refused = sward::thread::Builder::new().stack_size(usize::MAX).try_spawn(|| 7);
    /// assert_eq!((refused.unwrap_err().into_function())(), 7);
    /// ```
    #[must_use]
    pub fn into_function(self) -> F {
        self.function
    }
}

impl<F> fmt::Debug for SpawnError<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SpawnError")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl<F> fmt::Display for SpawnError<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(formatter)
    }
}

impl<F> std::error::Error for SpawnError<F> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl<F> From<SpawnError<F>> for io::Error {
    fn from(refused: SpawnError<F>) -> Self {
        refused.error
    }
}

impl Builder {
    /// A builder for an unnamed green thread with the runtime's stack size.
    ///
    /// ```
    /// sward::thread::Builder::new().spawn(|| ())?.join().unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the green thread: for [`Thread::name`], and for the report of a stack overflow.
    ///
    /// ```
    /// let handle = sward::thread::Builder::new().name("crow").spawn(|| ())?;
    /// assert_eq!(handle.thread().name(), Some("crow"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into().into_boxed_str());
        self
    }

    /// Sets the size of the stack in bytes, rounded up to pages. The memory is virtual: what a green
    /// thread does not touch costs next to nothing. Without this it is the runtime's
    /// ([`RuntimeBuilder::stack_size`](super::RuntimeBuilder::stack_size)), which is std's: 2 MiB, or
    /// `RUST_MIN_STACK`.
    ///
    /// ```
    /// sward::thread::Builder::new().stack_size(64 << 10).spawn(|| ())?.join().unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// Spawns the green thread, as [`spawn`] does.
    ///
    /// # Errors
    /// If memory for a stack is refused, or the default runtime cannot start. The function is lost;
    /// [`try_spawn`](Builder::try_spawn) gives it back.
    ///
    /// ```
    /// let refused = sward::thread::Builder::new().stack_size(usize::MAX).spawn(|| ());
    /// assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::OutOfMemory);
    /// ```
    pub fn spawn<F, T>(self, function: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Ok(self.try_spawn(function)?)
    }

    /// As [`spawn`](Builder::spawn), with an error that gives the function back.
    ///
    /// # Errors
    /// As [`spawn`](Builder::spawn).
    ///
    /// ```
    /// let handle = sward::thread::Builder::new().try_spawn(|| 7).unwrap();
    /// assert_eq!(handle.join().unwrap(), 7);
    /// ```
    pub fn try_spawn<F, T>(self, function: F) -> Result<JoinHandle<T>, SpawnError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match Handle::of_caller() {
            Ok(handle) => self.spawn_on(&handle, function),
            Err(error) => Err(SpawnError { error, function }),
        }
    }

    /// Spawns the green thread on `runtime`.
    ///
    /// # Errors
    /// As [`try_spawn`](Builder::try_spawn).
    ///
    /// ```
    /// let runtime = sward::Runtime::builder().workers(1).build()?;
    /// let handle = sward::thread::Builder::new().name("wren").spawn_in(&runtime, || 7)?;
    /// assert_eq!(handle.join().unwrap(), 7);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn spawn_in<F, T>(
        self,
        runtime: &Runtime,
        function: F,
    ) -> Result<JoinHandle<T>, SpawnError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.spawn_on(runtime.handle(), function)
    }

    fn spawn_on<F, T>(self, handle: &Handle, function: F) -> Result<JoinHandle<T>, SpawnError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match handle.reserve(self.stack_size) {
            Ok(reservation) => Ok(self.start(handle, reservation, function)),
            Err(error) => Err(SpawnError { error, function }),
        }
    }

    fn start<F, T>(self, handle: &Handle, reservation: Reservation, function: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let cell = Arc::new(Cell::new());
        let work = Box::new(Call {
            function: Some(function),
            result: None,
            cell: cell.clone(),
        });
        let task = handle.scheduler().spawn(self.name, reservation, work);
        JoinHandle::new(Thread::green(task), cell)
    }
}

/// The call of the user's function.
struct Call<F, T> {
    function: Option<F>,
    result: Option<Result<T, JoinError>>,
    cell: Arc<Cell<T>>,
}

/// Aborts the process, as std does, if a value that nobody joins panics in its destructor.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        std::process::abort();
    }
}

impl<F, T> Work for Call<F, T>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    fn run(&mut self) {
        if let Some(function) = self.function.take() {
            // The joiner gets the panic and decides, as with std's threads.
            let result = catch_unwind(AssertUnwindSafe(function));
            self.result = Some(result.map_err(JoinError::from_panic));
        }
    }

    fn finish(self: Box<Self>) {
        let guard = AbortOnUnwind;
        let Self { result, cell, .. } = *self;
        if let Some(result) = result {
            cell.complete(result);
        }
        drop(cell);
        std::mem::forget(guard);
    }
}
