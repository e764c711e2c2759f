//! 2,000 downloads at once, and the web server they come from, in one process, with code that never
//! heard of sward: `std::net` and one thread for each connection on the server's side, `ureq` on the
//! crawler's. Every "thread" here is a green thread, so all of it runs on a handful of OS threads.
//!
//! `cargo run --release --example crawler`

#![allow(clippy::print_stdout, reason = "the output is the example")]

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const DOWNLOADS: usize = 2_000;

const WORKERS: usize = 2;

/// How long the server thinks about each answer.
const DELAY: Duration = Duration::from_millis(100);

fn main() -> Result<(), Box<dyn Error>> {
    // From here on, whatever blocks a green thread blocks only that green thread.
    sward::patch::all();
    raise_descriptor_limit()?;
    let runtime = sward::Runtime::builder().workers(WORKERS).build()?;
    let wrong = runtime.spawn(crawl).join()??;
    // Not by returning: that would wait for the server, which never ends.
    std::process::exit(if wrong == 0 { 0 } else { 1 })
}

/// Starts the server, downloads every page from it, and returns how many were wrong.
fn crawl() -> std::io::Result<usize> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    allow_a_crowd(&listener)?;
    let address = listener.local_addr()?;
    sward::spawn(move || serve(&listener));

    let begun = Instant::now();
    let downloads: Vec<_> = (0..DOWNLOADS)
        .map(|number| sward::spawn(move || download(address, number)))
        .collect();
    let mut wrong = 0;
    for outcome in sward::joinall(downloads) {
        if let Err(trouble) = outcome.expect("no download panics") {
            println!("wrong: {trouble}");
            wrong += 1;
        }
    }
    let took = begun.elapsed();
    println!("{DOWNLOADS} downloads of {DELAY:?} each in {took:.2?}, {wrong} wrong");
    println!("most memory: {}", status("VmHWM:"));
    // One after another they would take 200 s; `main`'s own thread waits for the rest.
    let serial = DELAY * DOWNLOADS as u32;
    assert!(took < serial / 20, "the downloads did not go on at once");
    assert_eq!(status("Threads:"), (WORKERS + 1).to_string(), "OS threads");
    Ok(wrong)
}

/// Downloads one page and checks every word of it, as one would write it for threads.
fn download(server: SocketAddr, number: usize) -> Result<(), Box<dyn Error + Send + Sync>> {
    static DONE: AtomicUsize = AtomicUsize::new(0);
    // No proxy, whatever the environment says: the server is in this very process.
    let agent = ureq::Agent::config_builder()
        .proxy(None)
        .build()
        .new_agent();
    let path = format!("/page/{number}");
    let mut response = agent.get(format!("http://{server}{path}")).call()?;
    let text = response.body_mut().read_to_string()?;
    if text != page(&path) {
        return Err(format!("{path} has a text of {} bytes", text.len()).into());
    }
    let done = DONE.fetch_add(1, Ordering::Relaxed) + 1;
    if done.is_multiple_of(200) {
        println!("{done} pages are here; OS threads: {}", status("Threads:"));
    }
    Ok(())
}

/// Accepts connections and gives each a green thread of its own.
fn serve(listener: &TcpListener) {
    for connection in listener.incoming() {
        let connection = connection.expect("accept a connection");
        sward::spawn(move || answer(connection));
    }
}

/// Reads one request, thinks about it, and answers.
fn answer(mut connection: TcpStream) -> std::io::Result<()> {
    let mut request = BufReader::new(&connection).lines();
    let first = request.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default();
    // The headers say nothing of interest; an empty line ends them.
    for line in request.by_ref() {
        if line?.is_empty() {
            break;
        }
    }
    std::thread::sleep(DELAY);
    let body = page(path);
    write!(
        connection,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// What the server has under `path`: a different text for every path.
fn page(path: &str) -> String {
    format!("This is {path}.\n").repeat(10 + path.len() * 7)
}

/// std lets 128 connections wait to be accepted, and the kernel has those beyond try again after a
/// second. 2,000 come at once here, with green threads as with any other.
fn allow_a_crowd(listener: &TcpListener) -> std::io::Result<()> {
    // SAFETY: the descriptor is a listener's, and listen(2) takes no pointer.
    check(unsafe { libc::listen(listener.as_raw_fd(), 4096) })
}

/// One line of what the kernel says about this process.
fn status(name: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.map_or_else(|| "unknown".to_owned(), |value| value.trim().to_owned())
}

/// Both ends of 2,000 connections are in this process, and each is an open file.
fn raise_descriptor_limit() -> std::io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls only read or write the one structure they are given.
    check(unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    })
}

/// What a libc call's return value means.
fn check(outcome: libc::c_int) -> std::io::Result<()> {
    if outcome == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}
