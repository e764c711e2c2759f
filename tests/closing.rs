//! A descriptor that goes at the very moment when somebody begins to wait for it. A reader on another
//! worker spins until the closer does, so that the two meet; it must get the data, an error or the new
//! file, and never wait for ever.

#[path = "unmodified/support.rs"]
#[allow(dead_code, reason = "shared with the other tests of this folder")]
mod support;

use std::io::Write;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use support::on_several_workers;

/// A number that one test closes must not become another's.
static NUMBERS: Mutex<()> = Mutex::new(());

/// How many meetings. Without the second look at the waiters after the number has gone, one in some
/// 100,000 hangs: `SWARD_STRESS_ROUNDS=1000000` finds it for certain.
fn rounds() -> usize {
    std::env::var("SWARD_STRESS_ROUNDS").map_or(20_000, |rounds| rounds.parse().expect("a number"))
}

/// Reads what comes on `number`, as a green thread that starts when `go` says.
fn read_when(go: Arc<AtomicBool>, number: RawFd) -> sward::JoinHandle<std::io::Result<Vec<u8>>> {
    sward::spawn(move || {
        while !go.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
        let mut buffer = [0_u8; 16];
        // SAFETY: the buffer is as long as it says.
        let got = unsafe { libc::read(number, buffer.as_mut_ptr().cast(), buffer.len()) };
        match usize::try_from(got) {
            Ok(got) => Ok(buffer[..got].to_vec()),
            Err(_) => Err(std::io::Error::last_os_error()),
        }
    })
}

fn meet(round: usize, go: &AtomicBool, change: impl FnOnce()) {
    go.store(true, Ordering::Release);
    for _ in 0..round % 300 {
        std::hint::spin_loop();
    }
    change();
}

#[test]
fn close_against_a_reader_that_arrives() {
    let _numbers = NUMBERS.lock().unwrap();
    on_several_workers("close_against_a_reader_that_arrives", || {
        for round in 0..rounds() {
            let (ours, mut peer) = UnixStream::pair().unwrap();
            let number = ours.into_raw_fd();
            let go = Arc::new(AtomicBool::new(false));
            let reader = read_when(go.clone(), number);
            meet(round, &go, || {
                // SAFETY: the number is this test's own.
                assert_eq!(unsafe { libc::close(number) }, 0);
            });
            // Whoever was in time holds on to the socket and gets this; else there is no reader.
            let _ = peer.write_all(b"late");
            match reader.join().unwrap() {
                Ok(text) => assert_eq!(text, b"late"),
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EBADF)),
            }
        }
    });
}

#[test]
fn dup2_against_a_reader_that_arrives() {
    let _numbers = NUMBERS.lock().unwrap();
    on_several_workers("dup2_against_a_reader_that_arrives", || {
        for round in 0..rounds() {
            let (ours, mut peer) = UnixStream::pair().unwrap();
            let (other, mut other_peer) = UnixStream::pair().unwrap();
            let go = Arc::new(AtomicBool::new(false));
            let reader = read_when(go.clone(), ours.as_raw_fd());
            meet(round, &go, || {
                // SAFETY: both numbers are this test's own.
                let replaced = unsafe { libc::dup2(other.as_raw_fd(), ours.as_raw_fd()) };
                assert_eq!(replaced, ours.as_raw_fd());
            });
            let _ = peer.write_all(b"late");
            other_peer.write_all(b"new").unwrap();
            let text = reader.join().unwrap().unwrap();
            assert!(text == b"late" || text == b"new", "read {text:?}");
        }
    });
}
