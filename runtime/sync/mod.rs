//! Waiting by address.
//!
//! [`wait_table`] is the futex of green threads: `patch` sends std's and every library's futex waits
//! here.

#[cfg(all(test, loom))]
mod models;
pub(crate) mod wait_table;
