//! The admin endpoint: HTTP/1.1 for operators, by hyper, on the control executor.
//!
//! | page | response |
//! | --- | --- |
//! | `GET /stats` | JSON: every counter, gauge and latency, merged and for each shard, and the process |
//! | `GET /metrics` | the same as Prometheus text |
//! | `GET /healthz` | 200 `ok`, or 503 and the reason |
//! | `POST /clock?advance=MS` | moves the manual clock; 404 if the server's clock is the system's |
//!
//! It never runs on a shard: a [`Source`] gathers what the shards know. Everything is bounded: connections in number,
//! heads in bytes, and each step of a connection in time. Requests must name a host that is allowed, see `hosts`.

mod connection;
mod hosts;
mod json;
mod pages;
mod process;
mod prometheus;
mod reply;

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use futures_lite::{AsyncWriteExt, future};
use hyper::StatusCode;
use thiserror::Error;

use crate::limits::ADMIN_CONNECTIONS_MAX;
use crate::metrics::Snapshot;
use crate::qev::control::{BoundSocket, ControlExecutor, Listener, Permits, Spawner, Stream};
use hosts::Hosts;

/// How long the log is silent about connections that are refused after it has warned.
const WARN_PAUSE: Duration = Duration::from_secs(1);

/// What peers may take.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Connections at the same time.
    connections: usize,
    /// How long a peer may take from its connection to the whole head of its request.
    request: Duration,
    /// How long a peer may take after that to read the response, the time in which it is made included.
    response: Duration,
    /// How long a peer may take after that to close its side.
    close: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            connections: ADMIN_CONNECTIONS_MAX,
            request: Duration::from_secs(5),
            response: Duration::from_secs(10),
            close: Duration::from_secs(1),
        }
    }
}

/// What the endpoint shows of the server. It lives on the control executor, and many of its futures may be waited for at
/// the same time.
pub trait Source: 'static {
    /// Returns what each shard counted, in the shards' order, or `None` if one did not answer in time.
    fn snapshot(&self) -> impl Future<Output = Option<Rc<[Snapshot]>>>;

    /// Returns whether the server serves.
    fn health(&self) -> impl Future<Output = Health>;

    /// Moves the manual clock. Returns `false` if that is not possible.
    fn advance_clock(&self, by: Duration) -> impl Future<Output = bool>;

    /// Returns what does not come from the shards.
    fn info(&self) -> Info;
}

/// Whether the server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// The server serves.
    Healthy,
    /// The server does not serve, with the reason: one line.
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
    /// The addresses that clients connect to, as they would type them.
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
    /// The address cannot be bound.
    #[error("cannot serve statistics at {address} (setting admin): {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Serves the pages at `address`, on the control executor and until it stops. Returns the address, with the port that
/// the kernel chose if it was 0.
///
/// `hosts` are the names that requests may use for this host beside `localhost` and IP addresses, in lower case. `source`
/// makes the source on the executor.
///
/// # Errors
///
/// If the address cannot be bound.
pub fn serve<S: Source>(
    control: &ControlExecutor,
    address: SocketAddr,
    hosts: Vec<String>,
    source: impl FnOnce(&Spawner) -> S + Send + 'static,
) -> Result<SocketAddr, AdminError> {
    serve_within(Bounds::default(), control, address, hosts, source)
}

fn serve_within<S: Source>(
    bounds: Bounds,
    control: &ControlExecutor,
    address: SocketAddr,
    hosts: Vec<String>,
    source: impl FnOnce(&Spawner) -> S + Send + 'static,
) -> Result<SocketAddr, AdminError> {
    let bound = BoundSocket::bind(address).map_err(|source| AdminError::Bind { address, source })?;
    let address = bound.address();
    control.spawn(move |spawner| {
        let endpoint = Endpoint { source: source(&spawner), hosts: Hosts::new(hosts), bounds };
        accept(Rc::new(endpoint), bound, spawner)
    });
    Ok(address)
}

/// The running endpoint.
struct Endpoint<S> {
    source: S,
    hosts: Hosts,
    bounds: Bounds,
}

async fn accept<S: Source>(endpoint: Rc<Endpoint<S>>, bound: BoundSocket, spawner: Spawner) {
    let listener = Listener::new(bound, "the admin endpoint");
    let permits = Permits::new(endpoint.bounds.connections);
    let refused = Refusals::default();
    loop {
        let stream = listener.accept().await;
        let Some(permit) = permits.try_acquire() else {
            refused.refuse(&stream).await;
            continue;
        };
        let endpoint = Rc::clone(&endpoint);
        spawner.spawn(async move {
            connection::serve(&endpoint, &stream).await;
            drop(permit);
        });
    }
}

/// The connections that were refused because there were too many.
#[derive(Default)]
struct Refusals {
    count: Cell<u64>,
    warned: Cell<Option<Instant>>,
}

impl Refusals {
    /// Answers a connection 503, as far as the peer reads at once, and counts it.
    async fn refuse(&self, mut stream: &Stream) {
        let refusal = reply::refusal(StatusCode::SERVICE_UNAVAILABLE, "too many connections");
        // It fits into the socket's buffer, which is empty.
        let _ = future::poll_once(stream.write(&refusal)).await;
        self.count.set(self.count.get() + 1);
        let now = Instant::now();
        if self.warned.get().is_none_or(|warned| now - warned >= WARN_PAUSE) {
            self.warned.set(Some(now));
            let refused = self.count.get();
            tracing::warn!(
                refused,
                "the admin endpoint has as many connections as it may have, and refuses more until some have ended"
            );
        }
    }
}

#[cfg(test)]
mod tests;
