//! The deadlines of one runtime's waits, ordered by time.
//!
//! Called by: `reactor::driver`.
//!
//! There is a shard for each worker, so that workers that set deadlines do not meet; but any worker
//! may fire any shard's, because its own may be busy with a green thread that does not yield. A shard
//! is an ordered map behind a lock, and says in an atomic what its earliest deadline is, so that looking
//! for due ones costs a load. Deadlines are taken back when a wait ends otherwise, from any thread.
//!
//! # Invariants
//! T1  No deadline fires before its time.
//! T2  `earliest` is never later than the shard's first entry while the lock is free.
//!
//! # Memory order
//! `earliest` is written under the lock. Who adds a deadline and whoever goes to sleep until the
//! earliest one meet in [`alarm`](super::alarm), which brings the fences.

use crate::platform::clock::Deadline;
use crate::primitive::Mutex;
use crate::task::Cause;
use crate::task::core::{DeadlineKey, Task};
use crate::task::state::Generation;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const NEVER: u64 = Deadline::NEVER.nanoseconds();

type Entries = BTreeMap<(Deadline, u64), (Arc<Task>, Generation)>;

struct Shard {
    earliest: AtomicU64,
    entries: Mutex<(Entries, u64)>,
}

impl Shard {
    fn note_earliest(&self, entries: &Entries) {
        let earliest = entries
            .first_key_value()
            .map_or(NEVER, |((deadline, _), _)| deadline.nanoseconds());
        self.earliest.store(earliest, Ordering::Relaxed);
    }
}

/// The deadlines of one runtime.
pub(crate) struct Timers {
    shards: Box<[Shard]>,
}

impl Timers {
    pub(crate) fn new(shards: usize) -> Self {
        let shard = || Shard {
            earliest: AtomicU64::new(NEVER),
            entries: Mutex::new((BTreeMap::new(), 0)),
        };
        Self {
            shards: (0..shards).map(|_| shard()).collect(),
        }
    }

    /// Has `task`'s wait `wait` ended at `deadline`.
    pub(crate) fn add(
        &self,
        shard: usize,
        deadline: Deadline,
        task: Arc<Task>,
        wait: Generation,
    ) -> DeadlineKey {
        let mut locked = self.shards[shard].entries.lock();
        let (entries, next_sequence) = &mut *locked;
        let sequence = *next_sequence;
        *next_sequence += 1;
        entries.insert((deadline, sequence), (task, wait));
        self.shards[shard].note_earliest(entries);
        DeadlineKey {
            shard,
            deadline,
            sequence,
        }
    }

    /// Takes a deadline back.
    pub(crate) fn remove(&self, key: DeadlineKey) {
        let shard = &self.shards[key.shard];
        let mut locked = shard.entries.lock();
        let removed = locked.0.remove(&(key.deadline, key.sequence));
        shard.note_earliest(&locked.0);
        drop(locked);
        // Freed after the lock is: it may be the last reference to a task.
        drop(removed);
    }

    /// The earliest deadline of all, or `None`.
    pub(crate) fn earliest(&self) -> Option<Deadline> {
        let earliest = self
            .shards
            .iter()
            .map(|shard| shard.earliest.load(Ordering::Relaxed))
            .min()
            .unwrap_or(NEVER);
        (earliest != NEVER).then(|| Deadline::from_nanoseconds(earliest))
    }

    /// Fires what is due.
    pub(crate) fn expire(&self) {
        if self.earliest().is_none() {
            return;
        }
        let now = Deadline::now();
        for shard in &self.shards {
            if shard.earliest.load(Ordering::Relaxed) > now.nanoseconds() {
                continue;
            }
            let due = {
                let mut locked = shard.entries.lock();
                let later = locked.0.split_off(&(now, u64::MAX));
                let due = std::mem::replace(&mut locked.0, later);
                shard.note_earliest(&locked.0);
                due
            };
            for (task, wait) in due.into_values() {
                // Whether it was in time is the wait's affair.
                let _ = task.fire(wait, Cause::Deadline);
            }
        }
    }
}
