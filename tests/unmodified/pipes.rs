//! Pipes that are full: the writers wait, and every line arrives whole. `println!` is such a writer.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use crate::support::{CROWD, child, crowd, is_child, on_workers, watched};

const WRITERS: usize = 1_000;

/// The line that writer `number` writes: long, and different from all others.
fn line(number: usize) -> String {
    let message = "all is well, ".repeat(10 + number % 10);
    format!("writer {number} says {message}goodbye")
}

/// Makes the pipe as small as pipes get, so that it is full at once.
fn shrink(pipe: &impl AsRawFd) {
    // SAFETY: changes the size of a pipe that is borrowed for the call.
    let size = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    assert!(size > 0, "{}", std::io::Error::last_os_error());
}

/// Waits until the pipe holds something like all it can: its writers stand still.
fn await_full(pipe: &impl AsRawFd) {
    let mut held: libc::c_int = 0;
    while held < 3_000 {
        std::thread::sleep(Duration::from_millis(1));
        // SAFETY: FIONREAD writes one int, and the pipe is borrowed for the call.
        let outcome = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut held) };
        assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
    }
}

/// Reads slowly, with pauses in which the pipe fills up again.
fn drain_slowly(mut pipe: impl Read) -> String {
    let mut everything = Vec::new();
    let mut buffer = [0; 2_000];
    for turn in 0.. {
        match pipe.read(&mut buffer).expect("read") {
            0 => break,
            length => everything.extend_from_slice(&buffer[..length]),
        }
        if turn % 16 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    String::from_utf8(everything).expect("text")
}

/// Wants each writer's line once, whole, and nothing else.
fn assert_every_line_whole<'a>(lines: impl Iterator<Item = &'a str>) {
    let mut missing: HashSet<String> = (0..WRITERS).map(line).collect();
    for line in lines {
        assert!(missing.remove(line), "torn or twice: {line:?}");
    }
    assert!(missing.is_empty(), "{} lines never came", missing.len());
}

fn small_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().expect("pipe");
    shrink(&writer);
    (reader, writer)
}

/// The lock keeps a line whole over the many writes of one `writeln!`, each of which may park.
#[test]
fn a_thousand_writers_into_a_full_pipe() {
    on_workers("a_thousand_writers_into_a_full_pipe", || {
        let (reader, writer) = small_pipe();
        let drain = std::thread::spawn(move || {
            await_full(&reader);
            drain_slowly(reader)
        });
        let writer = Mutex::new(writer);
        crowd(WRITERS, move |number| {
            let mut writer = writer.lock().expect("lock");
            writeln!(writer, "{}", line(number)).expect("write");
        });
        let text = drain.join().expect("the drain");
        assert_every_line_whole(text.lines());
    });
}

/// A pipe between green threads, each reading what another writes, more than the pipe holds.
#[test]
fn pipes_between_green_threads() {
    const LINES: usize = 200;
    on_workers("pipes_between_green_threads", || {
        crowd(CROWD, |number| {
            let (reader, mut writer) = small_pipe();
            let writing = sward::spawn(move || {
                for index in 0..LINES {
                    writeln!(writer, "{}", line(number + index)).expect("write");
                }
            });
            let mut count = 0;
            for (index, text) in BufReader::new(reader).lines().enumerate() {
                assert_eq!(text.expect("read"), line(number + index));
                count += 1;
            }
            assert_eq!(count, LINES);
            writing.join().expect("the writer");
        });
    });
}

/// The last reader's end makes writers fail, also those that wait.
#[test]
fn a_closed_pipe_wakes_the_writer() {
    on_workers("a_closed_pipe_wakes_the_writer", || {
        crowd(CROWD, |_| {
            let (reader, mut writer) = small_pipe();
            let writing = sward::spawn(move || writer.write_all(&[0; 100_000]));
            std::thread::sleep(Duration::from_millis(1));
            drop(reader);
            let error = writing.join().expect("no panic").expect_err("nobody reads");
            assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
        });
    });
}

/// What the child prints before and after its lines; libtest prints around them.
const BEGIN: &str = "-- the crowd begins --";
const END: &str = "-- the crowd ends --";

/// 1,000 green threads of a child process `println!` into its standard output, a full pipe.
#[test]
fn a_thousand_green_threads_print() {
    const NAME: &str = "pipes::a_thousand_green_threads_print";
    if is_child() {
        on_workers(NAME, print_in_child);
        return;
    }
    watched(NAME, || {
        let (output, writer) = small_pipe();
        let mut command = child(NAME);
        let mut child = command
            .stdout(Stdio::from(writer))
            .spawn()
            .expect("a child");
        // The command keeps a writing end of the pipe: without this the end would never come.
        drop(command);
        await_full(&output);
        let text = drain_slowly(output);
        assert!(child.wait().expect("wait").success(), "{text}");

        let mut runs = 0;
        for run in text.split(BEGIN).skip(1) {
            let (lines, _) = run.split_once(END).expect("the end");
            assert_every_line_whole(lines.trim().lines());
            runs += 1;
        }
        assert_eq!(runs, crate::support::worker_counts().len());
    });
}

#[expect(clippy::print_stdout, reason = "println! is what is tested")]
fn print_in_child() {
    println!("\n{BEGIN}");
    crowd(WRITERS, |number| println!("{}", line(number)));
    println!("{END}");
}
