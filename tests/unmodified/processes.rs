//! `std::process::Command` from green threads: output, input, exit codes.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

use crate::support::{CROWD, crowd, on_workers};

/// Processes at once. 200 green threads are nothing, 200 processes are many.
const PROCESSES: usize = 16;

/// A semaphore, as one builds it from std.
struct Semaphore {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Semaphore {
    fn new(free: usize) -> Arc<Semaphore> {
        let free = Mutex::new(free);
        let freed = Condvar::new();
        Arc::new(Semaphore { free, freed })
    }

    /// Runs `work` while it holds one of the places.
    fn with<T>(&self, work: impl FnOnce() -> T) -> T {
        let free = self.free.lock().expect("lock");
        let mut free = self
            .freed
            .wait_while(free, |free| *free == 0)
            .expect("wait");
        *free -= 1;
        drop(free);
        let result = work();
        *self.free.lock().expect("lock") += 1;
        self.freed.notify_one();
        result
    }
}

#[test]
fn output_of_commands() {
    on_workers("output_of_commands", || {
        let places = Semaphore::new(PROCESSES);
        crowd(CROWD, move |number| {
            let script = format!(
                "echo out {number}; echo err {number} >&2; exit {}",
                number % 7
            );
            let output = places
                .with(|| Command::new("sh").args(["-c", &script]).output())
                .expect("run sh");
            assert_eq!(output.stdout, format!("out {number}\n").as_bytes());
            assert_eq!(output.stderr, format!("err {number}\n").as_bytes());
            assert_eq!(output.status.code(), Some((number % 7) as i32));
        });
    });
}

/// A child that reads its input while the green thread writes it, more than a pipe holds.
#[test]
fn a_child_that_reads_its_input() {
    on_workers("a_child_that_reads_its_input", || {
        let places = Semaphore::new(PROCESSES);
        crowd(CROWD, move |number| {
            places.with(|| {
                let mut child = Command::new("cat")
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .expect("run cat");
                let mut input = child.stdin.take().expect("its input");
                let mut output = child.stdout.take().expect("its output");
                let text = format!("green thread {number}\n").repeat(5_000);
                let sent = text.clone();
                let writing =
                    sward::spawn(move || input.write_all(sent.as_bytes()).expect("write"));
                let mut echoed = String::new();
                output.read_to_string(&mut echoed).expect("read");
                assert!(echoed == text, "cat changed the text");
                assert!(child.wait().expect("wait").success());
                writing.join().expect("the writer");
            });
        });
    });
}
