//! The one place that knows std from loom.
//!
//! Every room above takes its atomics, cells, locks and reference counts from here, so that what
//! loom explores is the code that ships. `std.rs` and `loom.rs` supply the same names:
//!
//! | name | what it is |
//! | --- | --- |
//! | [`atomic`] | atomics, [`Ordering`](::std::sync::atomic::Ordering) and fences |
//! | [`UnsafeCell`] | a cell whose accesses loom can check for order (`with`, `with_mut`) |
//! | [`Arc`] | reference counts |
//! | [`Mutex`] | a lock without poisoning that never reaches a patched symbol |
//! | [`Sleeper`] | one OS thread's bed: `sleep` until `wake`, with one remembered wake |
//!
//! Rules for those who use it: transitions of a shared word are read-modify-write operations; a
//! store-then-load race is closed by two named `fence(SeqCst)` and relaxed accesses, never by
//! SeqCst loads and stores (loom treats these as acquire and release); and nothing is held across
//! a stack switch.

#[cfg(not(loom))]
mod lock;
#[cfg(loom)]
mod loom;
#[cfg(all(test, loom))]
pub(crate) mod model;
#[cfg(not(loom))]
mod std;

#[cfg(not(loom))]
pub(crate) use self::lock::Mutex;
#[cfg(loom)]
pub(crate) use self::loom::{Arc, Mutex, Sleeper, UnsafeCell, atomic};
#[cfg(not(loom))]
pub(crate) use self::std::{Arc, Sleeper, UnsafeCell, atomic};
