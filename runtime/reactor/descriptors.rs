//! Who waits for which descriptor.
//!
//! Called by: `wait` (arm, disarm), `driver` (an event came), `lifetime` (a descriptor goes).
//!
//! A table in shards, each behind a lock that is held over the one system call that arms the descriptor,
//! so that two waits for one descriptor cannot arm it in the wrong order. A waiter stays in the table
//! until it has left its wait, though it was woken before: until then it must hear of it if its number
//! goes.

use super::Interest;
use super::lifetime::PrivateDescriptor;
use crate::primitive::Mutex;
use crate::scheduler::waiter::Waiter;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Registry, Token};
use std::io;
use std::os::fd::RawFd;

const SHARDS: usize = 64;

/// One waiter, from arming the descriptor to leaving its wait.
struct Noted {
    waiter: Waiter,
    interest: Interest,
    woken: bool,
}

/// What is known of one descriptor number.
#[derive(Default)]
struct Entry {
    /// How many registrations this number has had (R2).
    generation: u32,
    /// Whether the last of them is on, as far as anybody has seen.
    registered: bool,
    noted: Vec<Noted>,
}

impl Entry {
    fn token(&self, descriptor: RawFd) -> Token {
        Token((self.generation as usize) << 32 | descriptor as usize)
    }

    fn waits_for(&self, interest: Interest) -> bool {
        self.noted
            .iter()
            .any(|noted| !noted.woken && noted.interest.includes(interest))
    }

    fn interest(&self) -> mio::Interest {
        match (
            self.waits_for(Interest::READ),
            self.waits_for(Interest::WRITE),
        ) {
            (true, true) => mio::Interest::READABLE | mio::Interest::WRITABLE,
            (_, false) => mio::Interest::READABLE,
            (false, true) => mio::Interest::WRITABLE,
        }
    }

    fn remove(&mut self, waiter: &Waiter) {
        self.noted.retain(|noted| !noted.waiter.is(waiter));
    }
}

/// The waiters of all descriptors. Entry `n` of shard `s` is for descriptor `n * SHARDS + s`.
pub(super) struct Descriptors {
    shards: [Mutex<Vec<Entry>>; SHARDS],
}

impl Descriptors {
    pub(super) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::new(Vec::new())),
        }
    }

    /// Notes `waiter` and arms `descriptor`. On an error nothing is noted.
    pub(super) fn arm(
        &self,
        registry: &Registry,
        descriptor: RawFd,
        interest: Interest,
        waiter: &Waiter,
    ) -> io::Result<()> {
        let Ok(number) = usize::try_from(descriptor) else {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        };
        let mut entries = self.shards[number % SHARDS].lock();
        let place = number / SHARDS;
        if entries.len() <= place {
            entries.resize_with(place + 1, Entry::default);
        }
        let entry = &mut entries[place];
        entry.noted.push(Noted {
            waiter: waiter.clone(),
            interest,
            woken: false,
        });
        let armed = Self::arm_entry(registry, descriptor, entry);
        if armed.is_err() {
            entry.remove(waiter);
        }
        armed
    }

    fn arm_entry(registry: &Registry, descriptor: RawFd, entry: &mut Entry) -> io::Result<()> {
        let source = &mut SourceFd(&descriptor);
        if entry.registered {
            match registry.reregister(source, entry.token(descriptor), entry.interest()) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                armed => return armed,
            }
        }
        entry.generation = entry.generation.wrapping_add(1);
        let (token, interest) = (entry.token(descriptor), entry.interest());
        let armed = match registry.register(source, token, interest) {
            // The number was closed unseen and then given the same file again, by way of a duplicate.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                registry.reregister(source, token, interest)
            }
            armed => armed,
        };
        entry.registered = armed.is_ok();
        armed
    }

    /// Takes out a waiter that leaves its wait.
    pub(super) fn disarm(&self, descriptor: RawFd, waiter: &Waiter) {
        let number = descriptor as usize;
        if let Some(entry) = self.shards[number % SHARDS].lock().get_mut(number / SHARDS) {
            entry.remove(waiter);
        }
    }

    /// Marks those whom `event` concerns, and adds them to `woken`.
    pub(super) fn woken_by(&self, event: &Event, woken: &mut Vec<Waiter>) {
        let Token(token) = event.token();
        let number = token & u32::MAX as usize;
        let mut entries = self.shards[number % SHARDS].lock();
        let Some(entry) = entries.get_mut(number / SHARDS) else {
            return;
        };
        if entry.generation as usize != token >> 32 {
            return;
        }
        let read = event.is_readable() || event.is_read_closed() || event.is_error();
        let write = event.is_writable() || event.is_write_closed() || event.is_error();
        for noted in entry.noted.iter_mut().filter(|noted| !noted.woken) {
            noted.woken = read && noted.interest.includes(Interest::READ)
                || write && noted.interest.includes(Interest::WRITE);
            if noted.woken {
                woken.push(noted.waiter.clone());
            }
        }
    }

    /// Ends the registration of a number that is about to go. If it has waiters, gives each of them
    /// with a private duplicate to `leave`, and then gives them back, to be woken.
    pub(super) fn forget(
        &self,
        registry: &Registry,
        descriptor: RawFd,
        leave: impl Fn(&Waiter, PrivateDescriptor),
    ) -> Vec<Waiter> {
        let number = descriptor as usize;
        let mut entries = self.shards[number % SHARDS].lock();
        let Some(entry) = entries.get_mut(number / SHARDS) else {
            return Vec::new();
        };
        if std::mem::take(&mut entry.registered) {
            // It fails if the number was closed unseen before: then there is nothing to end.
            let _ = registry.deregister(&mut SourceFd(&descriptor));
        }
        // An event under way is dropped (R2).
        entry.generation = entry.generation.wrapping_add(1);
        let waiters: Vec<_> = entry.noted.drain(..).map(|noted| noted.waiter).collect();
        // Without a descriptor to spare they are woken all the same, and find the number closed.
        if !waiters.is_empty()
            && let Some(private) = PrivateDescriptor::duplicate(descriptor)
        {
            for waiter in &waiters {
                leave(waiter, private.clone());
            }
        }
        waiters
    }

    /// Marks all who wait for `descriptor`, and gives them, to be woken.
    pub(super) fn waiters(&self, descriptor: RawFd) -> Vec<Waiter> {
        let number = descriptor as usize;
        let mut entries = self.shards[number % SHARDS].lock();
        let noted = entries
            .get_mut(number / SHARDS)
            .map(|entry| &mut entry.noted);
        let waiting = noted.into_iter().flatten().filter(|noted| !noted.woken);
        waiting
            .map(|noted| {
                noted.woken = true;
                noted.waiter.clone()
            })
            .collect()
    }
}
