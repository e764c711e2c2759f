//! What is read and written like a file and is none: eventfd, timerfd, inotify, terminals; and files.

use crate::world::*;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

fn owned(number: RawFd) -> OwnedFd {
    assert!(number >= 0);
    unsafe { OwnedFd::from_raw_fd(number) }
}

#[test]
fn event_counters() {
    compare(|world| {
        let events = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) });
        let number = events.as_raw_fd();
        let reading = world.spawn(move || {
            let mut count = [0; 8];
            (read(number, &mut count), u64::from_ne_bytes(count))
        });
        world.settle();
        assert_eq!(write(number, &3_u64.to_ne_bytes()), good(8));
        assert_eq!(reading.join(), (good(8), 3));
        assert_eq!(read(number, &mut [0; 4]), bad(libc::EINVAL));
        // A full counter makes the writer wait.
        assert_eq!(write(number, &(u64::MAX - 1).to_ne_bytes()), good(8));
        let writing = world.spawn(move || write(number, &2_u64.to_ne_bytes()));
        world.settle();
        assert_eq!(read(number, &mut [0; 8]), good(8));
        assert_eq!(writing.join(), good(8));
        // Several readers, one event each: none may block the worker for a lost race.
        let semaphore = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_SEMAPHORE) });
        let number = semaphore.as_raw_fd();
        let reading: Vec<_> = (0..4)
            .map(|_| world.spawn(move || read(number, &mut [0; 8])))
            .collect();
        world.settle();
        for _ in 0..4 {
            assert_eq!(write(number, &1_u64.to_ne_bytes()), good(8));
        }
        reading
            .into_iter()
            .for_each(|peer| assert_eq!(peer.join(), good(8)));
    });
}

#[test]
fn timers() {
    compare(|world| {
        let timer =
            owned(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC) });
        let number = timer.as_raw_fd();
        let reading: Vec<_> = (0..2)
            .map(|_| world.spawn(move || read(number, &mut [0; 8])))
            .collect();
        world.settle();
        let millisecond = libc::timespec {
            tv_sec: 0,
            tv_nsec: 1_000_000,
        };
        let time = libc::itimerspec {
            it_interval: millisecond,
            it_value: millisecond,
        };
        let set = unsafe { libc::timerfd_settime(number, 0, &time, std::ptr::null_mut()) };
        assert_eq!(set, 0);
        reading
            .into_iter()
            .for_each(|peer| assert_eq!(peer.join(), good(8)));
    });
}

#[test]
fn watches() {
    compare(|world| {
        let directory = std::env::temp_dir().join(format!(
            "sward-watch-{}-{}",
            std::process::id(),
            world.is_green
        ));
        std::fs::create_dir(&directory).unwrap();
        let name = std::ffi::CString::new(directory.as_os_str().as_encoded_bytes()).unwrap();
        let watch = owned(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) });
        let number = watch.as_raw_fd();
        assert!(unsafe { libc::inotify_add_watch(number, name.as_ptr(), libc::IN_CREATE) } > 0);
        // Two wait, one event: the other must still be waiting, not its worker.
        let reading: Vec<_> = (0..2)
            .map(|_| world.spawn(move || read(number, &mut [0; 512]).0 > 0))
            .collect();
        world.settle();
        std::fs::write(directory.join("one"), "").unwrap();
        world.settle();
        std::fs::write(directory.join("two"), "").unwrap();
        assert!(reading.into_iter().all(Peer::join));
        std::fs::remove_dir_all(directory).unwrap();
    });
}

#[test]
fn terminals() {
    compare(|world| {
        let (mut near, mut far) = (-1, -1);
        let none = std::ptr::null_mut();
        let opened = unsafe {
            libc::openpty(
                &mut near,
                &mut far,
                none,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
        assert_eq!(opened, 0);
        let (near, far) = (owned(near), owned(far));
        let number = far.as_raw_fd();
        let reading = world.spawn(move || (text(number), text(number)));
        world.settle();
        assert_eq!(write(near.as_raw_fd(), b"one\ntwo"), good(7));
        world.settle();
        assert_eq!(write(near.as_raw_fd(), b"\n"), good(1));
        // A terminal gives a line at a time.
        assert_eq!(
            reading.join(),
            ((good(4), "one\n".into()), (good(4), "two\n".into()))
        );
        let number = near.as_raw_fd();
        // The echo, "one\r\ntwo\r\n", comes in as many pieces as the kernel's worker makes.
        let mut echoed = 0;
        while echoed < 10 {
            let (count, error) = read(number, &mut [0; 64]);
            assert!(count > 0, "errno {error}");
            echoed += count;
        }
        let reading = world.spawn(move || read(number, &mut [0; 64]));
        world.settle();
        drop(far);
        reading.join()
    });
}

#[test]
fn files() {
    compare(|world| {
        let path = std::env::temp_dir().join(format!(
            "sward-file-{}-{}",
            std::process::id(),
            world.is_green
        ));
        let mut options = std::fs::OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        let number = file.as_raw_fd();
        let all = pattern(3 << 20);
        assert_eq!(write(number, &all), good(3 << 20));
        assert_eq!(read(number, &mut [0; 8]), good(0));
        assert_eq!(unsafe { libc::lseek(number, 0, libc::SEEK_SET) }, 0);
        let mut back = vec![0; 4 << 20];
        assert_eq!(read(number, &mut back), good(3 << 20));
        assert!(back.starts_with(&all));
        let directory = std::fs::File::open(std::env::temp_dir()).unwrap();
        assert_eq!(read(directory.as_raw_fd(), &mut back), bad(libc::EISDIR));
        for name in ["/dev/zero", "/dev/null", "/dev/urandom", "/proc/self/stat"] {
            let file = std::fs::File::open(name).unwrap();
            let seen = read(file.as_raw_fd(), &mut [0; 8]);
            assert_eq!(
                seen,
                good(if name == "/dev/null" { 0 } else { 8 }),
                "{name}"
            );
        }
        std::fs::remove_file(path).unwrap();
    });
}
