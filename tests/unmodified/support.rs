//! What the tests stand on: a watchdog, green threads by the hundred, and child processes.
//!
//! Used by `unmodified.rs` and, through `#[path]`, by the other test files of this folder.
//! A hang is the typical failure of a scheduler, and a hung test is a CI job that times out
//! without a word. So every case runs under [`watched`], which ends the process with the case's name.

use std::io::Write;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// How many workers each case runs on, one after the other. `SWARD_TEST_WORKERS=8` adds 8.
const WORKERS: [usize; 2] = [1, 2];

/// Green threads in a case that does not say otherwise.
pub(crate) const CROWD: usize = 200;

/// Long enough for any machine; only a hang gets there.
const PATIENCE: Duration = Duration::from_secs(180);

/// Set for a child process to the name of the test it is to play its part in.
const CHILD: &str = "SWARD_TEST_CHILD";

/// [`WORKERS`], and what the environment adds.
pub(crate) fn worker_counts() -> Vec<usize> {
    let mut counts = WORKERS.to_vec();
    if let Ok(more) = std::env::var("SWARD_TEST_WORKERS") {
        counts.push(more.parse().expect("SWARD_TEST_WORKERS is a number"));
    }
    counts
}

/// Runs `case` on an OS thread of its own and returns when it has ended. If it does not end, the
/// process aborts and says which case it was. A panic of the case goes on in the caller.
pub(crate) fn watched(name: &str, case: impl FnOnce() + Send + 'static) {
    // Nothing is ever sent: the end of the case, panic or not, drops the sender.
    let (alive, ended) = mpsc::channel::<()>();
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let _alive = alive;
            case();
        })
        .expect("an OS thread for the case");
    if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
        // Not eprintln!, whose text libtest would keep back and lose in the abort.
        let _ = writeln!(std::io::stderr(), "\ncase '{name}' hangs: aborting");
        std::process::abort();
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `case` as the first green thread of a fresh runtime, once for every count of workers.
pub(crate) fn on_workers(name: &str, case: fn()) {
    for workers in worker_counts() {
        on(name, workers, false, case);
    }
}

/// As [`on_workers`], from two workers up.
pub(crate) fn on_several_workers(name: &str, case: fn()) {
    for workers in worker_counts().into_iter().filter(|&workers| workers > 1) {
        on(name, workers, false, case);
    }
}

/// As [`on_several_workers`], on runtimes that resume a green thread on another OS thread
/// whenever they can.
pub(crate) fn on_migrating_workers(name: &str, case: fn()) {
    for workers in worker_counts().into_iter().filter(|&workers| workers > 1) {
        on(name, workers, true, case);
    }
}

fn on(name: &str, workers: usize, force_migration: bool, case: fn()) {
    sward::patch::all();
    watched(&format!("{name}, {workers} workers"), move || {
        let mut builder = sward::Runtime::builder().workers(workers);
        if force_migration {
            // Otherwise left to the environment, where SWARD_FORCE_MIGRATION=1 forces it for all.
            builder = builder.force_migration(true);
        }
        let runtime = builder.build().expect("a runtime");
        runtime.run(case);
    });
}

/// Spawns `count` green threads, gives each its number, and collects what they return, in order.
/// A panic in one of them goes on in the caller.
pub(crate) fn crowd<T, F>(count: usize, work: F) -> Vec<T>
where
    T: Send + 'static,
    F: Fn(usize) -> T + Send + Sync + 'static,
{
    let work = Arc::new(work);
    let handles = (0..count).map(|number| {
        let work = Arc::clone(&work);
        sward::spawn(move || work(number))
    });
    let handles: Vec<_> = handles.collect();
    sward::joinall(handles)
        .into_iter()
        .map(|result| result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())))
        .collect()
}

/// True in a process that [`child`] or [`run_child`] started.
pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// A command that runs this test binary again, with the one test `name` (its full path), which sees
/// [`is_child`] and does what must not happen in the process of the others.
pub(crate) fn child(name: &str) -> Command {
    let program = std::env::current_exe().expect("the path of this test binary");
    let mut command = Command::new(program);
    command
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, name)
        .env("RUST_BACKTRACE", "0");
    command
}

/// Runs [`child`] to its end.
pub(crate) fn run_child(name: &str) -> Output {
    child(name).output().expect("run this test binary again")
}

/// Runs the test `name` in a child process and wants it to pass there.
pub(crate) fn passes_in_child(name: &str) {
    let output = run_child(name);
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{name} in a child: {}\n{said}\n{complained}",
        output.status
    );
}

/// Lets this process open as many descriptors as it may.
pub(crate) fn raise_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls only read or write the one structure they are given.
    let outcome = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    };
    assert_eq!(outcome, 0, "raise the limit of open descriptors");
}
