//! What joining a green thread can fail with.

use std::any::Any;
use std::fmt;

/// A green thread ended without a value, because it panicked.
///
/// Follows `tokio::task::JoinError`, and [`std::thread::Result`] in that
/// [`into_panic`](JoinError::into_panic) gives what [`std::panic::resume_unwind`] takes.
///
/// ```
/// let error = sward::spawn(|| panic!("no luck")).join().unwrap_err();
/// assert!(error.is_panic());
/// assert_eq!(error.to_string(), "green thread panicked: no luck");
/// ```
pub struct JoinError {
    payload: Box<dyn Any + Send>,
}

impl JoinError {
    pub(crate) fn from_panic(payload: Box<dyn Any + Send>) -> Self {
        Self { payload }
    }

    /// Whether the green thread panicked: always true today, since a green thread can end without
    /// a value in no other way.
    ///
    /// ```
    /// assert!(sward::spawn(|| panic!()).join().unwrap_err().is_panic());
    /// ```
    #[must_use]
    pub fn is_panic(&self) -> bool {
        true
    }

    /// Gives the panic's payload.
    ///
    /// ```
    /// let error = sward::spawn(|| std::panic::panic_any(7_u32)).join().unwrap_err();
    /// assert_eq!(error.into_panic().downcast_ref(), Some(&7_u32));
    /// ```
    #[must_use]
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        self.payload
    }

    fn message(&self) -> &str {
        if let Some(message) = self.payload.downcast_ref::<&'static str>() {
            message
        } else if let Some(message) = self.payload.downcast_ref::<String>() {
            message
        } else {
            "(a payload that is no string)"
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("JoinError::Panic")
            .field(&self.message())
            .finish()
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "green thread panicked: {}", self.message())
    }
}

impl std::error::Error for JoinError {}
