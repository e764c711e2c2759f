//! Operations on the run queue and the wait word, read off bytes and checked against plain models.
//!
//! Called by: the fuzz target `park_and_queue`, and the test below, which replays its corpus.
//!
//! One thread does it all: what several do at once is loom's part. Here the sequences are long, and
//! every result is compared.

use super::run_queue::{RunQueue, SLOT_TURNS};
use crate::task::Cause;
use crate::task::state::{Commit, Fire, Generation, WaitWord};
use std::collections::VecDeque;
use std::sync::Arc;

#[cfg_attr(
    test,
    expect(unreachable_pub, reason = "public for the fuzz target alone")
)]
/// Reads `data` as operations, two bytes each, and panics if the shipped code and a model differ.
pub fn park_and_queue(data: &[u8]) {
    let mut queue = QueueRun::new();
    let mut word = WordRun::new();
    for operation in data.chunks_exact(2) {
        match operation[0] % 2 {
            0 => queue.step(operation[1]),
            _ => word.step(operation[1]),
        }
    }
}

struct QueueRun {
    queue: RunQueue<u32>,
    thief: super::run_queue::Thief<u32>,
    next: u32,
    items: VecDeque<u32>,
    slot: Option<u32>,
    slot_turns: u32,
}

impl QueueRun {
    fn new() -> Self {
        let queue = RunQueue::new();
        Self {
            thief: queue.thief(),
            queue,
            next: 0,
            items: VecDeque::new(),
            slot: None,
            slot_turns: 0,
        }
    }

    fn step(&mut self, operation: u8) {
        match operation % 5 {
            0 => {
                self.queue.push(Arc::new(self.next));
                self.items.push_back(self.next);
                self.next += 1;
            }
            1 => {
                self.queue.push_next(Arc::new(self.next));
                self.items.extend(self.slot.replace(self.next));
                self.next += 1;
            }
            2 => assert_eq!(self.queue.pop().map(|item| *item), self.pop()),
            3 => assert_eq!(self.thief.steal().map(|item| *item), self.items.pop_front()),
            _ => assert_eq!(self.thief.steal_next().map(|item| *item), self.slot.take()),
        }
        assert_eq!(
            self.thief.is_empty(),
            self.items.is_empty() && self.slot.is_none()
        );
    }

    fn pop(&mut self) -> Option<u32> {
        if self.slot_turns < SLOT_TURNS && self.slot.is_some() {
            self.slot_turns += 1;
            return self.slot.take();
        }
        self.slot_turns = 0;
        self.items.pop_front().or_else(|| self.slot.take())
    }
}

/// What a wait is, without atomics.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Idle,
    Armed,
    Parked,
    Fired(Cause),
}

struct WordRun {
    word: WaitWord,
    waits: Vec<Generation>,
    phase: Phase,
    token: bool,
    unparkable: bool,
}

impl WordRun {
    fn new() -> Self {
        Self {
            word: WaitWord::new(),
            waits: Vec::new(),
            phase: Phase::Idle,
            token: false,
            unparkable: false,
        }
    }

    fn begin(&mut self, wait: Generation) {
        assert!(!self.waits.contains(&wait), "a generation came again");
        self.waits.push(wait);
        self.phase = Phase::Armed;
    }

    /// What firing at the wait that is on gives, and what it makes of it.
    fn fired(&mut self, cause: Cause) -> Fire {
        let fire = match self.phase {
            Phase::Armed => Fire::Before,
            Phase::Parked => Fire::Turn,
            Phase::Idle | Phase::Fired(_) => return Fire::Lost,
        };
        self.phase = Phase::Fired(cause);
        self.unparkable = false;
        fire
    }

    fn end(&mut self) {
        self.phase = Phase::Idle;
        self.unparkable = false;
    }

    /// Does the operation, if the protocol allows it now.
    fn step(&mut self, operation: u8) {
        let argument = usize::from(operation / 8);
        match (operation % 8, self.phase) {
            (0, Phase::Idle) => {
                let wait = self.word.arm();
                self.begin(wait);
            }
            (1, Phase::Idle) => match self.word.arm_park() {
                Some(wait) => {
                    assert!(!self.token);
                    self.begin(wait);
                    self.unparkable = true;
                }
                None => assert!(std::mem::take(&mut self.token)),
            },
            (2, Phase::Armed) => {
                assert_eq!(self.word.cancel(), None);
                self.end();
            }
            (2, Phase::Fired(cause)) => {
                assert_eq!(self.word.cancel(), Some(cause));
                self.end();
            }
            (3, Phase::Armed) => {
                assert_eq!(self.word.commit(), Commit::Parked);
                self.phase = Phase::Parked;
            }
            (3, Phase::Fired(_)) => assert_eq!(self.word.commit(), Commit::Fired),
            (4, Phase::Fired(cause)) => {
                assert!(self.word.is_fired());
                assert_eq!(self.word.finish(), cause);
                self.end();
            }
            (5 | 6, _) if !self.waits.is_empty() => {
                let cause = [Cause::Event, Cause::Deadline][argument % 2];
                let age = argument / 2 % self.waits.len();
                let wait = self.waits[self.waits.len() - 1 - age];
                let expected = if age == 0 {
                    self.fired(cause)
                } else {
                    Fire::Lost
                };
                assert_eq!(self.word.fire(wait, cause), expected);
            }
            (7, _) => {
                let expected = if self.unparkable {
                    self.fired(Cause::Unpark)
                } else {
                    self.token = true;
                    Fire::Lost
                };
                assert_eq!(self.word.unpark(), expected);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::park_and_queue;

    #[test]
    fn replays_the_corpus() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/park_and_queue");
        let mut replayed = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            park_and_queue(&std::fs::read(entry.unwrap().path()).unwrap());
            replayed += 1;
        }
        assert!(replayed > 0, "the corpus is empty");
    }
}
