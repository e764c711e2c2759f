//! Churn: seeded random work of green and OS threads on everything that parks, and books that must
//! balance at the end.
//!
//! `SWARD_STRESS_SEED` repeats a run's choices, `SWARD_STRESS_SECONDS` makes it longer.

#![allow(clippy::print_stdout, reason = "the seed has to be seen")]

#[path = "unmodified/support.rs"]
#[allow(dead_code, reason = "shared with the other tests of this folder")]
mod support;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use support::watched;

/// Green threads, and OS threads, that churn side by side.
const GREEN: usize = 64;
const OS: usize = 4;

/// A small generator of random numbers (xorshift64*), so that a seed gives the same choices always.
struct Dice(u64);

impl Dice {
    /// The dice of one of many players.
    fn new(seed: u64, player: usize) -> Dice {
        let mixed = seed ^ (player as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Dice(mixed.max(1))
    }

    /// Something from 0 to `sides` - 1.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % sides
    }
}

/// What all players share, with a second account of everything in plain atomics.
struct Table {
    seed: u64,
    end: Instant,
    /// Raised by two steps under the lock: odd while somebody is inside.
    locked: Mutex<u64>,
    locked_expected: AtomicUsize,
    /// Free permits, and their condition. Never more than `PERMITS`.
    permits: Mutex<usize>,
    permit_freed: Condvar,
    /// A lock word for the futex system call itself: 0 free, 1 held, 2 held with waiters.
    word: AtomicU32,
    word_owned: AtomicBool,
    /// Channels: what was sent must be received.
    mail: SyncSender<u64>,
    sent: AtomicUsize,
    rounds: AtomicUsize,
}

const PERMITS: usize = 3;

/// One player: random moves until the time is up.
fn play(table: &Arc<Table>, player: usize) {
    let mut dice = Dice::new(table.seed, player);
    while Instant::now() < table.end {
        match dice.roll(9) {
            0 => hold_the_mutex(table, &mut dice),
            1 => take_a_permit(table, &mut dice),
            2 => hold_the_word(table, &mut dice),
            3 => send(table, &mut dice),
            4 => wake_a_partner(&mut dice),
            5 => spawn_and_join(&mut dice),
            6 => std::thread::sleep(Duration::from_micros(dice.roll(2_000))),
            7 => wait_in_vain(&mut dice),
            _ => std::thread::yield_now(),
        }
        table.rounds.fetch_add(1, Ordering::Relaxed);
    }
}

/// Passes some time in one of the ways there are.
fn dawdle(dice: &mut Dice) {
    match dice.roll(4) {
        0 => std::thread::sleep(Duration::from_micros(dice.roll(300))),
        1 => std::thread::yield_now(),
        2 => (0..dice.roll(1_000)).for_each(|_| std::hint::spin_loop()),
        _ => {}
    }
}

fn hold_the_mutex(table: &Table, dice: &mut Dice) {
    let mut value = table.locked.lock().expect("lock");
    assert_eq!(*value % 2, 0, "two hold the mutex");
    *value += 1;
    dawdle(dice);
    *value += 1;
    table.locked_expected.fetch_add(2, Ordering::Relaxed);
}

/// A semaphore of mutex and condvar; waits with and without a time-out.
fn take_a_permit(table: &Table, dice: &mut Dice) {
    let mut free = table.permits.lock().expect("lock");
    while *free == 0 {
        free = match dice.roll(2) {
            0 => table.permit_freed.wait(free).expect("wait"),
            _ => {
                let time = Duration::from_micros(dice.roll(1_000));
                table.permit_freed.wait_timeout(free, time).expect("wait").0
            }
        };
    }
    *free -= 1;
    drop(free);
    dawdle(dice);
    let mut free = table.permits.lock().expect("lock");
    *free += 1;
    assert!(*free <= PERMITS, "a permit too many");
    drop(free);
    table.permit_freed.notify_one();
}

/// The textbook lock on the futex call, as C programs bring their own.
fn hold_the_word(table: &Table, dice: &mut Dice) {
    let word = &table.word;
    if word
        .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
        .is_err()
    {
        while word.swap(2, Ordering::Acquire) != 0 {
            futex(word, libc::FUTEX_WAIT, 2);
        }
    }
    assert!(
        !table.word_owned.swap(true, Ordering::SeqCst),
        "two hold the word"
    );
    dawdle(dice);
    table.word_owned.store(false, Ordering::SeqCst);
    if word.swap(0, Ordering::Release) == 2 {
        futex(word, libc::FUTEX_WAKE, 1);
    }
}

/// The futex system call, without a time-out.
fn futex(word: &AtomicU32, operation: libc::c_int, value: u32) {
    let operation = operation | libc::FUTEX_PRIVATE_FLAG;
    let forever = std::ptr::null::<libc::timespec>();
    // SAFETY: the word outlives the call, the time-out is absent, the other arguments are unused.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, forever) };
}

fn send(table: &Table, dice: &mut Dice) {
    table.mail.send(dice.roll(100)).expect("send");
    table.sent.fetch_add(1, Ordering::Relaxed);
}

/// A partner parks until it is told; the wake-up comes before, during or after it does.
fn wake_a_partner(dice: &mut Dice) {
    let told = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&told);
    let partner = sward::spawn(move || {
        while !theirs.load(Ordering::Relaxed) {
            sward::park();
        }
    });
    dawdle(dice);
    told.store(true, Ordering::Relaxed);
    partner.thread().unpark();
    if dice.roll(2) == 0 {
        partner.join().expect("the partner");
    }
}

/// A few green threads, joined in either order, or never.
fn spawn_and_join(dice: &mut Dice) {
    let mut handles: Vec<_> = (0..dice.roll(5))
        .map(|number| {
            let mut theirs = Dice(dice.0 ^ (number + 1));
            let handle = sward::spawn(move || {
                dawdle(&mut theirs);
                number
            });
            (number, handle)
        })
        .collect();
    if dice.roll(2) == 0 {
        handles.reverse();
    }
    handles.truncate(dice.roll(6) as usize);
    for (number, handle) in handles {
        assert_eq!(handle.join().expect("join"), number);
    }
}

/// Time-outs that nothing cuts short: of park, of a channel.
fn wait_in_vain(dice: &mut Dice) {
    let time = Duration::from_micros(dice.roll(1_000));
    match dice.roll(2) {
        0 => std::thread::park_timeout(time),
        _ => {
            let (_sender, receiver) = mpsc::channel::<()>();
            let begun = Instant::now();
            assert!(receiver.recv_timeout(time).is_err());
            assert!(begun.elapsed() >= time, "a time-out came early");
        }
    }
}

/// Receives until all senders are gone; says how much came.
fn postman(mail: Receiver<u64>) -> usize {
    mail.into_iter().count()
}

fn churn(seed: u64, workers: usize, seconds: f64) {
    sward::patch::all();
    let (mail, box_) = mpsc::sync_channel(4);
    let table = Arc::new(Table {
        seed,
        end: Instant::now() + Duration::from_secs_f64(seconds),
        locked: Mutex::new(0),
        locked_expected: AtomicUsize::new(0),
        permits: Mutex::new(PERMITS),
        permit_freed: Condvar::new(),
        word: AtomicU32::new(0),
        word_owned: AtomicBool::new(false),
        mail,
        sent: AtomicUsize::new(0),
        rounds: AtomicUsize::new(0),
    });
    let runtime = sward::Runtime::builder()
        .workers(workers)
        .build()
        .expect("a runtime");
    let receiving = runtime.spawn(move || postman(box_));
    let green: Vec<_> = (0..GREEN)
        .map(|player| {
            let table = Arc::clone(&table);
            runtime.spawn(move || play(&table, player))
        })
        .collect();
    let os: Vec<_> = (GREEN..GREEN + OS)
        .map(|player| {
            let table = Arc::clone(&table);
            std::thread::spawn(move || play(&table, player))
        })
        .collect();
    for player in sward::joinall(green) {
        player.expect("a green player");
    }
    for player in os {
        player.join().expect("an OS player");
    }

    let table = Arc::into_inner(table).expect("all players have left the table");
    let locked = table.locked.into_inner().expect("not poisoned");
    assert_eq!(locked as usize, table.locked_expected.into_inner());
    assert_eq!(table.permits.into_inner().expect("not poisoned"), PERMITS);
    assert_eq!(table.word.into_inner(), 0, "the word is still held");
    drop(table.mail);
    let received = receiving.join().expect("the postman");
    assert_eq!(received, table.sent.into_inner(), "mail was lost");
    runtime.run(|| ());
    println!(
        "{workers} workers: {} moves, all books balance",
        table.rounds.into_inner()
    );
}

#[test]
fn the_books_balance() {
    let from_environment = |name| std::env::var(name).ok();
    let seed = match from_environment("SWARD_STRESS_SEED") {
        Some(seed) => seed.parse().expect("SWARD_STRESS_SEED is a number"),
        None => std::process::id().into(),
    };
    let seconds = match from_environment("SWARD_STRESS_SECONDS") {
        Some(seconds) => seconds.parse().expect("SWARD_STRESS_SECONDS is a number"),
        None => 1.5,
    };
    println!("SWARD_STRESS_SEED={seed}");
    for workers in [1, 2, 8] {
        watched(
            &format!("churn, {workers} workers, seed {seed}"),
            move || {
                churn(seed, workers, seconds);
            },
        );
    }
}
