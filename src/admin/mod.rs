//! The statistics endpoint: a small HTTP/1.1 server for operators, on ordinary threads of its own.
//!
//! | page | says |
//! | --- | --- |
//! | `GET /stats` | JSON: every counter, gauge and latency, merged and for each shard, and the process |
//! | `GET /metrics` | the same as Prometheus text |
//! | `GET /healthz` | 200 `ok`, or 503 and the reason |
//! | `POST /clock?advance=MS` | moves the manual clock; 404 where the clock is the system's |
//!
//! It never runs on a shard: a [`Source`] gathers what the shards know. Everything is bounded: connections by the
//! number of threads, each of which serves one; heads in bytes; reading and writing in time. A connection carries
//! one request, so that none holds a thread for longer than that.

mod http;
mod json;
mod pages;
mod process;
mod prometheus;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;

use crate::metrics::Snapshot;
use http::{HEAD_BYTES_MAX, Head, Method, Response};

/// Threads, hence connections that are served at once; more wait in the kernel's queue.
const THREADS: usize = 8;

/// Bytes of a thread's stack: pages are built on the heap, nothing recurses.
const STACK_BYTES: usize = 256 * 1024;

/// Bytes that are read and thrown away after the answer, at most.
const DISCARDED_BYTES_MAX: usize = 64 * 1024;

/// How long a thread waits after a failed accept: where no descriptor is free, the next one fails too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a peer may take.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// From its connection to the whole request head.
    request: Duration,
    /// To read the response.
    response: Duration,
    /// To close its side after that.
    close: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            request: Duration::from_secs(5),
            response: Duration::from_secs(10),
            close: Duration::from_secs(1),
        }
    }
}

/// What the endpoint asks the server; called from the endpoint's threads, from several at once.
pub trait Source: Send + Sync {
    /// What each shard counted, in the shards' order; `None` where one did not answer in time.
    fn snapshot(&self) -> Option<Vec<Snapshot>>;

    /// Whether the server serves.
    fn healthy(&self) -> Health;

    /// Moves the manual clock; false where that is not possible.
    fn advance_clock(&self, by: Duration) -> bool;

    /// What does not come from the shards.
    fn info(&self) -> Info;
}

/// Whether the server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Healthy,
    /// It does not, and why: one line.
    Unhealthy(String),
}

/// What is known of the server without asking its shards.
#[derive(Clone, Debug)]
pub struct Info {
    /// The version of the program.
    pub version: &'static str,
    /// When it started.
    pub started: SystemTime,
    /// How long it has run, in real time.
    pub uptime: Duration,
    /// Where clients connect, as they would type it.
    pub listen: Vec<String>,
    /// How many shards run.
    pub shards: usize,
    /// Whether timers go by a clock that tests move.
    pub manual_clock: bool,
    /// Log lines that were dropped because nobody read them fast enough.
    pub log_lines_dropped: u64,
}

impl Info {
    fn clock_name(&self) -> &'static str {
        if self.manual_clock { "manual" } else { "system" }
    }
}

/// Why the endpoint could not be started.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The address cannot be listened at.
    #[error("cannot serve statistics at {address} (setting admin): {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// No thread could be started.
    #[error("cannot start a thread for the statistics: {0}")]
    Thread(#[source] io::Error),
}

/// Serves `source` at `address` until the handle is stopped or dropped. Port 0 lets the kernel choose one, which
/// [`Handle::address`] tells.
///
/// # Errors
///
/// Where the address cannot be listened at, or threads cannot be started.
pub fn serve(address: SocketAddr, source: Arc<dyn Source>) -> Result<Handle, AdminError> {
    serve_within(Times::default(), address, source)
}

fn serve_within(times: Times, address: SocketAddr, source: Arc<dyn Source>) -> Result<Handle, AdminError> {
    let bind_error = |source| AdminError::Bind { address, source };
    let listener = TcpListener::bind(address).map_err(bind_error)?;
    let address = listener.local_addr().map_err(bind_error)?;
    let slots = (0..THREADS).map(|_| Mutex::new(None)).collect();
    let shared = Arc::new(Shared { listener, source, times, stopping: AtomicBool::new(false), slots });
    let mut handle = Handle { address, shared, threads: Vec::new() };
    for slot in 0..THREADS {
        // Where one cannot be started, dropping the handle stops those before it.
        handle.threads.push(spawn(slot, Arc::clone(&handle.shared)).map_err(AdminError::Thread)?);
    }
    Ok(handle)
}

fn spawn(slot: usize, shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let builder = thread::Builder::new().name(format!("admin-{slot}")).stack_size(STACK_BYTES);
    builder.spawn(move || shared.run(slot))
}

/// The running endpoint. Dropping it stops it.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Handle {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening, cuts off whoever is being served, and waits for the threads to end. It waits for a page
    /// that is being made, so for [`Source::snapshot`].
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // A thread that panicked (in a source) has said so, and is gone as it should be.
            let _ = thread.join();
        }
    }
}

/// What the threads share.
struct Shared {
    listener: TcpListener,
    source: Arc<dyn Source>,
    times: Times,
    stopping: AtomicBool,
    /// The connection that each thread serves now, so that stopping can cut it off.
    slots: Vec<Mutex<Option<Arc<TcpStream>>>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Shared {
    /// The life of one thread: accept, serve, again.
    fn run(&self, slot: usize) {
        while !self.stopping() {
            match self.listener.accept() {
                Ok((stream, _)) => self.serve_in_slot(slot, Arc::new(stream)),
                Err(error) if !self.stopping() => {
                    tracing::warn!(%error, "the statistics endpoint cannot accept");
                    thread::park_timeout(ACCEPT_PAUSE);
                }
                Err(_) => {}
            }
        }
    }

    fn serve_in_slot(&self, slot: usize, stream: Arc<TcpStream>) {
        self.put(slot, Some(Arc::clone(&stream)));
        // Looked at after the slot was filled: either this sees the flag, or `stop` sees the stream.
        if !self.stopping() {
            // What goes wrong on a connection of an operator concerns nobody else.
            let _ = self.serve_one(&stream);
        }
        self.put(slot, None);
    }

    /// One request, one answer, and an orderly close.
    fn serve_one(&self, stream: &TcpStream) -> io::Result<()> {
        let Some(response) = self.response(stream)? else { return Ok(()) };
        write_within(stream, &response, self.times.response)?;
        stream.shutdown(Shutdown::Write)?;
        discard_within(stream, self.times.close)
    }

    /// Reads a request and makes its answer; `None` where the peer went without having asked.
    fn response(&self, stream: &TcpStream) -> io::Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + self.times.request;
        let mut head = vec![0; HEAD_BYTES_MAX];
        let mut filled = 0;
        loop {
            match http::parse(&head[..filled]) {
                Head::NotYet => {}
                Head::Refused(response) => return Ok(Some(response.encode(false))),
                Head::Request(request) => {
                    let response = pages::answer(&request, self.source.as_ref());
                    return Ok(Some(response.encode(request.method == Method::Head)));
                }
            }
            match read_until(stream, &mut head[filled..], deadline) {
                Ok(0) => return Ok(None),
                Ok(n) => filled += n,
                Err(error) if is_timeout(&error) && filled > 0 => {
                    return Ok(Some(Response::text(408, "the request did not come in time").encode(false)));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes every thread that waits in accept(2), for which std has no call.
        let _ = socket2::SockRef::from(&self.listener).shutdown(Shutdown::Both);
        for slot in &self.slots {
            if let Some(stream) = slot.lock().unwrap_or_else(PoisonError::into_inner).take() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    fn put(&self, slot: usize, stream: Option<Arc<TcpStream>>) {
        *self.slots[slot].lock().unwrap_or_else(PoisonError::into_inner) = stream;
    }
}

/// Writes it all before the deadline, however slowly the peer reads.
fn write_within(mut stream: &TcpStream, mut bytes: &[u8], time: Duration) -> io::Result<()> {
    let deadline = Instant::now() + time;
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads what the peer still sends (a request's body) until it closes: closing a socket with unread bytes resets
/// the connection, and the reset may overtake the answer (RFC 9112, section 9.6).
fn discard_within(stream: &TcpStream, time: Duration) -> io::Result<()> {
    let deadline = Instant::now() + time;
    let mut scratch = [0; 4096];
    let mut discarded = 0;
    while discarded < DISCARDED_BYTES_MAX {
        match read_until(stream, &mut scratch, deadline)? {
            0 => break,
            n => discarded += n,
        }
    }
    Ok(())
}

fn read_until(mut stream: &TcpStream, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The time until the deadline, which is never zero: a socket takes that for no limit.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// A socket's timeout is reported as `EAGAIN`.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests;
