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
        let read = event.is_readable() || event.is_read_closed() || event.is_error();
        let write = event.is_writable() || event.is_write_closed() || event.is_error();
        self.woken_at(event.token(), read, write, woken);
    }

    fn woken_at(&self, token: Token, read: bool, write: bool, woken: &mut Vec<Waiter>) {
        let Token(token) = token;
        let number = token & u32::MAX as usize;
        let mut entries = self.shards[number % SHARDS].lock();
        let Some(entry) = entries.get_mut(number / SHARDS) else {
            return;
        };
        if entry.generation as usize != token >> 32 {
            return;
        }
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

#[cfg(test)]
mod tests {
    use super::{Descriptors, Token};
    use crate::reactor::Interest;
    use crate::scheduler::waiter::Waiter;
    use crate::task::thread_waiter::ThreadWaiter;
    use std::os::fd::AsRawFd;

    fn waiter() -> Waiter {
        Waiter::Thread(ThreadWaiter::new())
    }

    /// The number of waiters that an event of `generation` wakes.
    fn woken(table: &Descriptors, number: usize, generation: usize, write: bool) -> usize {
        let mut woken = Vec::new();
        table.woken_at(Token(generation << 32 | number), true, write, &mut woken);
        woken.len()
    }

    #[test]
    fn an_event_for_an_earlier_owner_of_the_number_wakes_nobody() {
        let poll = mio::Poll::new().unwrap();
        let (registry, table) = (poll.registry(), Descriptors::new());
        let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
        let number = near.as_raw_fd();
        let arm = || {
            let armed = table.arm(registry, number, Interest::READ, &waiter());
            armed.unwrap();
        };
        arm();
        assert_eq!(table.forget(registry, number, |_, _| ()).len(), 1);
        arm();
        // The first registration was 1, forgetting it made 2, the second is 3.
        for earlier in [1, 2] {
            assert_eq!(woken(&table, number as usize, earlier, true), 0);
        }
        assert_eq!(woken(&table, number as usize, 3, false), 1);
        assert_eq!(woken(&table, number as usize, 3, false), 0, "woken once");
    }

    #[test]
    fn an_event_wakes_all_of_its_direction_and_no_other() {
        let poll = mio::Poll::new().unwrap();
        let (registry, table) = (poll.registry(), Descriptors::new());
        let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
        let number = near.as_raw_fd();
        for interest in [Interest::READ, Interest::READ, Interest::WRITE] {
            table.arm(registry, number, interest, &waiter()).unwrap();
        }
        assert_eq!(woken(&table, number as usize, 1, false), 2);
        assert_eq!(woken(&table, number as usize, 1, true), 1);
    }

    #[test]
    fn a_number_closed_unseen_is_registered_anew() {
        let poll = mio::Poll::new().unwrap();
        let (registry, table) = (poll.registry(), Descriptors::new());
        let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
        let (other, _end) = std::os::unix::net::UnixStream::pair().unwrap();
        let number = near.as_raw_fd();
        table
            .arm(registry, number, Interest::READ, &waiter())
            .unwrap();
        // SAFETY: the raw call passes the hooks by, as a close inside libc does; both are this test's.
        let replaced = unsafe {
            crate::platform::syscall(
                libc::SYS_dup2,
                [other.as_raw_fd() as usize, number as usize, 0, 0, 0, 0],
            )
        };
        assert_eq!(replaced, number as isize);
        table
            .arm(registry, number, Interest::READ, &waiter())
            .unwrap();
        assert_eq!(woken(&table, number as usize, 1, true), 0);
        assert_eq!(woken(&table, number as usize, 2, true), 2);
    }
}
