//! Details of the patched calls that no comparison with an OS thread call by call would show: what they
//! cost while nothing happens, whom they block, and what errno and signals see of them.

#[path = "unmodified/support.rs"]
#[allow(dead_code, reason = "shared with the other tests of this folder")]
mod support;

#[path = "outside/fortified.rs"]
mod fortified;
#[path = "patch_details/interrupted.rs"]
mod interrupted;

use std::io::{IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fortified::{__poll_chk, __read_chk, __recv_chk, __recvfrom_chk};
use support::{is_child, on_workers, passes_in_child, watched};

/// Runs `case` as a green thread of a runtime with this many workers.
fn on(name: &'static str, workers: usize, case: impl FnOnce() + Send + 'static) {
    sward::patch::all();
    watched(name, move || {
        let runtime = sward::Runtime::builder().workers(workers).build();
        runtime.expect("a runtime").run(case);
    });
}

/// A green thread that waits has its file, and not just a number: an OS thread that closes the number
/// meanwhile, as the kernel has it, does not take the file away.
#[test]
fn a_descriptor_closed_by_an_os_thread_under_a_green_reader() {
    // One worker, so that the reader waits by the time its spawner sees that it has begun.
    on(
        "a_descriptor_closed_by_an_os_thread_under_a_green_reader",
        1,
        || {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let number = ours.into_raw_fd();
            let begun = Arc::new(AtomicBool::new(false));
            let begins = Arc::clone(&begun);
            let reader = sward::spawn(move || {
                let mut bytes = [0_u8; 8];
                begins.store(true, Ordering::Relaxed);
                // SAFETY: the bytes are a local.
                let read = unsafe { libc::read(number, bytes.as_mut_ptr().cast(), bytes.len()) };
                (read, bytes)
            });
            while !begun.load(Ordering::Relaxed) {
                sward::yield_now();
            }
            // SAFETY: nobody uses the number from here on but for the reader, which is what this is about.
            let closing = std::thread::spawn(move || unsafe { libc::close(number) });
            assert_eq!(closing.join().unwrap(), 0);
            theirs.write_all(b"late").unwrap();
            assert_eq!(reader.join().unwrap(), (4, *b"late\0\0\0\0"));
        },
    );
}

/// The ids of the workers' OS threads that the kernel keeps in accept(2) at this moment.
fn carriers_in_accept() -> Vec<std::ffi::OsString> {
    let calls = [libc::SYS_accept, libc::SYS_accept4].map(|call| format!("{call} "));
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .map(|task| task.unwrap())
        .filter(|task| {
            // A task that has ended meanwhile has no files.
            let file = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let call = file("syscall");
            calls.iter().any(|name| call.starts_with(name)) && file("comm").starts_with("sward-")
        })
        .map(|task| task.file_name())
        .collect()
}

/// Green threads that share a listener never make a worker block in `accept`, though all of them see
/// each connection come and only one gets it.
#[test]
fn accept_never_keeps_a_worker() {
    const ACCEPTING: usize = 8;
    const EACH: usize = 250;
    sward::patch::all();
    watched("accept_never_keeps_a_worker", || {
        let runtime = sward::Runtime::builder().workers(2).build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let accepting: Vec<_> = (0..ACCEPTING)
            .map(|_| {
                let listener = listener.try_clone().unwrap();
                let accepted = Arc::clone(&accepted);
                runtime.spawn(move || {
                    for _ in 0..EACH {
                        drop(listener.accept().unwrap());
                        accepted.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for connections in 1..=ACCEPTING * EACH {
            drop(TcpStream::connect(address).unwrap());
            while accepted.load(Ordering::Relaxed) < connections {
                std::thread::yield_now();
            }
            if connections % 20 == 0 {
                // Nobody connects now, so a worker that blocks in accept is there at both looks.
                std::thread::sleep(Duration::from_millis(1));
                let mut blocked = carriers_in_accept();
                if !blocked.is_empty() {
                    std::thread::sleep(Duration::from_millis(1));
                    let still = carriers_in_accept();
                    blocked.retain(|task| still.contains(task));
                }
                assert!(blocked.is_empty(), "blocked in accept: {blocked:?}");
            }
        }
        for green in accepting {
            green.join().unwrap();
        }
    });
}

fn processor_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the time is a local.
    let told = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(told, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Idle workers sleep: they take next to no processor time. (In a process of its own: it is the whole
/// process's time.)
#[test]
fn an_idle_runtime_takes_no_processor_time() {
    if !is_child() {
        passes_in_child("an_idle_runtime_takes_no_processor_time");
        return;
    }
    on("an_idle_runtime_takes_no_processor_time", 4, || {
        let idle = Duration::from_millis(500);
        let before = processor_time();
        std::thread::sleep(idle);
        let took = processor_time() - before;
        assert!(took < idle / 4, "{took:?} of processor time in {idle:?}");
    });
}

/// Until the program asks for the patch, a call on a green thread blocks its worker, as libc's does.
#[test]
fn before_the_patch_calls_pass_through() {
    if !is_child() {
        passes_in_child("before_the_patch_calls_pass_through");
        return;
    }
    watched("before_the_patch_calls_pass_through", || {
        let runtime = sward::Runtime::builder().workers(1).build().unwrap();
        // SAFETY: gettid(2) has no preconditions.
        let worker = runtime.run(|| unsafe { libc::gettid() });
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let ran = Arc::new(AtomicBool::new(false));
        let runs = Arc::clone(&ran);
        let reading = runtime.spawn(move || {
            reader.read_exact(&mut [0]).unwrap();
            ran.load(Ordering::Relaxed)
        });
        let other = runtime.spawn(move || runs.store(true, Ordering::Relaxed));
        let call = format!("/proc/self/task/{worker}/syscall");
        let reads = format!("{} ", libc::SYS_read);
        while !std::fs::read_to_string(&call).unwrap().starts_with(&reads) {
            std::thread::yield_now();
        }
        writer.write_all(&[1]).unwrap();
        assert!(
            !reading.join().unwrap(),
            "another green thread ran beside the read"
        );
        other.join().unwrap();
    });
}

#[test]
fn the_checked_forms_wait() {
    on_workers("the_checked_forms_wait", || {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = receiver.local_addr().unwrap();
        let from = sender.local_addr().unwrap().port();
        let receiving = sward::spawn(move || {
            let socket = receiver.as_raw_fd();
            let mut bytes = [0_u8; 8];
            let room = bytes.as_mut_ptr().cast();
            let mut size = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            let mut entry = libc::pollfd {
                fd: socket,
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: the pointers are to locals of the sizes that are given; an address may be zeros.
            unsafe {
                let mut address: libc::sockaddr_in = std::mem::zeroed();
                let received = [
                    __read_chk(socket, room, 8, 8),
                    __recv_chk(socket, room, 8, 8, 0),
                    __recvfrom_chk(
                        socket,
                        room,
                        8,
                        8,
                        0,
                        (&raw mut address).cast(),
                        &raw mut size,
                    ),
                ];
                let ready = __poll_chk(&raw mut entry, 1, -1, size_of_val(&entry));
                (received, ready, u16::from_be(address.sin_port))
            }
        });
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(3));
            sender.send_to(b"abc", to).unwrap();
        }
        assert_eq!(receiving.join().unwrap(), ([3; 3], 1, from));
    });
}

/// More is asked for than there is room: the process ends as glibc has it, before anything is read.
#[test]
fn the_checked_forms_check() {
    if is_child() {
        on("the_checked_forms_check", 1, || {
            let (_theirs, ours) = UnixStream::pair().unwrap();
            let socket = ours.as_raw_fd();
            let mut bytes = [0_u8; 16];
            let room = bytes.as_mut_ptr().cast();
            let mut entry = libc::pollfd {
                fd: socket,
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: the pointers are to locals, and there is room for what is asked for; the room
            // that is told is a lie.
            unsafe {
                match std::env::var("SWARD_TEST_CHECKED").as_deref() {
                    Ok("read") => __read_chk(socket, room, 16, 8),
                    Ok("recv") => __recv_chk(socket, room, 16, 8, 0),
                    Ok("recvfrom") => __recvfrom_chk(
                        socket,
                        room,
                        16,
                        8,
                        0,
                        std::ptr::null_mut(),
                        std::ptr::null_mut(),
                    ),
                    _ => __poll_chk(&raw mut entry, 1, -1, size_of_val(&entry) - 1) as isize,
                }
            };
        });
        return;
    }
    for call in ["read", "recv", "recvfrom", "poll"] {
        let mut child = support::child("the_checked_forms_check");
        let output = child.env("SWARD_TEST_CHECKED", call).output().unwrap();
        let complained = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.signal(),
            Some(libc::SIGABRT),
            "{call}: {output:?}"
        );
        assert!(
            complained.contains("buffer overflow detected"),
            "{call}: {complained}"
        );
    }
}

#[test]
fn a_read_into_several_buffers_after_a_wait() {
    on_workers("a_read_into_several_buffers_after_a_wait", || {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let reading = sward::spawn(move || {
            let (mut first, mut second) = ([0; 2], [0; 4]);
            let mut buffers = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
            let read = (&ours).read_vectored(&mut buffers).unwrap();
            (read, first, second)
        });
        std::thread::sleep(Duration::from_millis(3));
        theirs.write_all(b"abcde").unwrap();
        assert_eq!(reading.join().unwrap(), (5, *b"ab", *b"cde\0"));
    });
}

/// A `poll` of what cannot be waited for, and of what can, that runs out of time: the answer is 0, which is
/// no error, and errno is as it was.
#[test]
fn errno_after_a_wait_that_succeeds() {
    on_workers("errno_after_a_wait_that_succeeds", || {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let polled = |descriptor, events| {
            let mut entry = libc::pollfd {
                fd: descriptor,
                events,
                revents: 0,
            };
            // SAFETY: the entry is a local, and errno this green thread's own.
            unsafe {
                *libc::__errno_location() = 4242;
                (libc::poll(&raw mut entry, 1, 30), *libc::__errno_location())
            }
        };
        assert_eq!(polled(file.as_raw_fd(), libc::POLLRDHUP), (0, 4242));
        assert_eq!(polled(ours.as_raw_fd(), libc::POLLIN), (0, 4242));
        assert_eq!(polled(ours.as_raw_fd(), libc::POLLOUT), (1, 4242));
    });
}
