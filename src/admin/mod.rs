//! The admin endpoint: HTTP/1.1 for operators, by hyper, on the control executor.
//!
//! | page | response |
//! | --- | --- |
//! | `GET /stats` | JSON: every counter, gauge and latency, merged and for each shard, and the process |
//! | `GET /histograms` | JSON: the counts of all latencies, in intervals |
//! | `GET /metrics` | the same as Prometheus text |
//! | `GET /healthz` | 200 `ok`, or 503 and the reason |
//! | `GET /` | the operator's page, which polls the others |
//! | `GET /clients?slowest=N` | JSON: the clients that have most output waiting |
//! | `GET /clients/ID` | JSON: what is known of one client |
//! | `GET /paths/busiest?count=N` | JSON: the paths with most broadcasts |
//! | `GET /workers` | JSON: the worker processes |
//! | `POST /clock?advance=MS` | advances the manual clock; 404 if the server uses the system clock |
//!
//! The endpoint never runs on a shard: a [`Source`] gathers the values of the shards. The number of connections is
//! bounded, the size of heads, and the time of each step of a connection. Requests must name an allowed host, see
//! `hosts`, and may need a password, see `access`.

mod access;
mod certificates;
mod connection;
mod documents;
mod hosts;
mod json;
mod pages;
mod process;
mod prometheus;
mod reply;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use futures_lite::{AsyncWriteExt, future};
use hyper::StatusCode;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::inspect::{BusiestPaths, ClientDetails, ClientId, SlowestClients, WorkerStatus};
use crate::limits::ADMIN_CONNECTIONS_MAX;
use crate::log::throttle;
use crate::metrics::Snapshot;
use crate::qev::control::{
    AsyncListener, AsyncStream, BoundSocket, ControlExecutor, HandshakeError, Permits, ServerStream, Spawner,
    TlsAcceptor, timeout,
};
use access::AccessCheck;
pub use access::LoginCounts;
pub use certificates::{CertificateExpiry, CertificateTable};
use hosts::Hosts;

/// The bounds on peers.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// The maximum number of connections.
    connections: usize,
    /// The time from the connection to the end of its TLS handshake.
    handshake: Duration,
    /// The time from the connection, or the end of its handshake, to the complete head of the request.
    request: Duration,
    /// The time after that for creating the response and for reading it.
    response: Duration,
    /// The time after that for the peer to close its side.
    close: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            connections: ADMIN_CONNECTIONS_MAX,
            handshake: Duration::from_secs(5),
            request: Duration::from_secs(5),
            response: Duration::from_secs(10),
            close: Duration::from_secs(1),
        }
    }
}

/// The source of the values that the endpoint serves. It lives on the control executor. Many of its futures may be
/// pending at the same time.
pub trait Source: 'static {
    /// Returns the values of each shard, in the order of the shards, or `None` if a shard did not answer in time.
    fn snapshot(&self) -> impl Future<Output = Option<Rc<[Snapshot]>>>;

    /// Returns whether the server is healthy.
    fn health(&self) -> impl Future<Output = Health>;

    /// Advances the manual clock. Returns `false` if that is not possible.
    fn advance_clock(&self, by: Duration) -> impl Future<Output = bool>;

    /// Returns the clients that have most output waiting, or `None` if a shard did not answer in time.
    fn slowest_clients(&self) -> impl Future<Output = Option<Rc<SlowestClients>>>;

    /// Returns what is known of a client, or `None` if there is no such client. The outer `None` means that its shard did
    /// not answer in time.
    fn client(&self, id: ClientId) -> impl Future<Output = Option<Option<Box<ClientDetails>>>>;

    /// Returns the paths with most broadcasts, or `None` if a shard did not answer in time.
    fn busiest_paths(&self) -> impl Future<Output = Option<Rc<BusiestPaths>>>;

    /// Returns the workers of all applications, or `None` if a supervisor did not answer in time.
    fn workers(&self) -> impl Future<Output = Option<Rc<[WorkerStatus]>>>;

    /// Returns the values that do not come from the shards.
    fn info(&self) -> Info;
}

/// The health of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// All shards answer.
    Healthy,
    /// Clients cannot be served, for this reason, which is one line.
    Unhealthy(String),
}

/// The values that are available without asking the shards.
#[derive(Clone, Debug)]
pub struct Info {
    /// The version of the program.
    pub version: &'static str,
    /// The time at which the server started.
    pub started: SystemTime,
    /// The real time since then.
    pub uptime: Duration,
    /// The addresses that clients connect to, as they would type them.
    pub listen: Vec<String>,
    /// The number of shards.
    pub shards: usize,
    /// The timers use the manual clock.
    pub manual_clock: bool,
    /// The certificates of the server.
    pub certificates: Vec<CertificateExpiry>,
    /// The number of log lines that were dropped because they were not read fast enough.
    pub log_lines_dropped: u64,
    /// The number of log lines that could not be written to standard error.
    pub log_lines_failed: u64,
    /// The number of log lines that peers caused and that were counted instead of being logged.
    pub log_lines_suppressed: u64,
    /// The attempts to log in. The endpoint itself counts them.
    pub logins: LoginCounts,
}

/// The protection of the endpoint.
#[derive(Clone, Default)]
pub struct AdminProtection {
    /// The names that requests may use for this host in addition to `localhost` and IP addresses, in lower case.
    pub hosts: Vec<String>,
    /// The TLS of all addresses, or `None` if they take no TLS.
    pub tls: Option<TlsAcceptor>,
    /// The password, or `None` if there is none.
    pub password: Option<Zeroizing<Vec<u8>>>,
}

impl Info {
    fn clock_name(&self) -> &'static str {
        if self.manual_clock { "manual" } else { "system" }
    }
}

/// An error that prevents the endpoint from starting.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The address cannot be bound.
    #[error("cannot serve statistics at {address} (setting admin): {source}{}", hint(.source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Returns the advice that follows an error of binding an address.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            ". Another process listens there, probably another server; give this one another port, or `admin = \"off\"`"
        }
        io::ErrorKind::PermissionDenied => {
            ". Ports below 1024 need CAP_NET_BIND_SERVICE; choose another port"
        }
        io::ErrorKind::AddrNotAvailable => {
            ". No network interface of this host has that address; `ip address` lists those that exist"
        }
        _ => "",
    }
}

/// Serves the pages at these addresses, on the control executor and until it stops. Returns the addresses, with the
/// ports that the kernel chose where they were 0.
///
/// `source` creates the source on the executor.
///
/// # Errors
///
/// If an address cannot be bound.
pub fn serve<S: Source>(
    control: &ControlExecutor,
    addresses: &[SocketAddr],
    protection: AdminProtection,
    source: impl FnOnce(&Spawner) -> S + Send + 'static,
) -> Result<Vec<SocketAddr>, AdminError> {
    serve_within(Bounds::default(), control, addresses, protection, source)
}

fn serve_within<S: Source>(
    bounds: Bounds,
    control: &ControlExecutor,
    addresses: &[SocketAddr],
    protection: AdminProtection,
    source: impl FnOnce(&Spawner) -> S + Send + 'static,
) -> Result<Vec<SocketAddr>, AdminError> {
    let sockets =
        BoundSocket::bind_all(addresses).map_err(|(address, source)| AdminError::Bind { address, source })?;
    let addresses = sockets.iter().map(BoundSocket::address).collect();
    control.spawn(move |spawner| {
        let AdminProtection { hosts, tls, password } = protection;
        let access = AccessCheck::new(password.as_ref().map(|password| password.as_slice()));
        let endpoint =
            Rc::new(Endpoint { source: source(&spawner), tls, hosts: Hosts::new(hosts), access, bounds });
        let permits = Permits::new(bounds.connections);
        for socket in sockets {
            spawner.spawn(accept(Rc::clone(&endpoint), permits.clone(), socket, spawner.clone()));
        }
        future::ready(())
    });
    Ok(addresses)
}

/// The running endpoint.
struct Endpoint<S> {
    source: S,
    /// The TLS of all connections, or `None` if they are plain.
    tls: Option<TlsAcceptor>,
    hosts: Hosts,
    access: AccessCheck,
    bounds: Bounds,
}

async fn accept<S: Source>(
    endpoint: Rc<Endpoint<S>>,
    permits: Permits,
    bound: BoundSocket,
    spawner: Spawner,
) {
    let listener = AsyncListener::new(bound);
    loop {
        let stream = listener.accept(log_failed_accept).await;
        let Some(permit) = permits.try_acquire() else {
            refuse(&endpoint, &stream).await;
            continue;
        };
        let endpoint = Rc::clone(&endpoint);
        spawner.spawn(async move {
            if let Some(stream) = begin(&endpoint, stream).await {
                connection::serve(&endpoint, &stream).await;
            }
            drop(permit);
        });
    }
}

/// Runs the handshake of a connection, if it has one. Returns `None` if the connection must end.
async fn begin<S: Source>(endpoint: &Endpoint<S>, stream: AsyncStream) -> Option<ServerStream> {
    let Some(tls) = &endpoint.tls else { return Some(ServerStream::Plain(stream)) };
    match timeout(endpoint.bounds.handshake, tls.accept(stream)).await? {
        Ok(stream) => Some(stream),
        Err(HandshakeError::NotTls(stream)) => {
            let text = "this port speaks TLS: use https:// instead of http://";
            connection::refuse(endpoint.bounds, &stream, &reply::refusal(StatusCode::BAD_REQUEST, text))
                .await;
            None
        }
        Err(HandshakeError::Failed(error)) => {
            throttle!(info, "TLS handshakes of the admin endpoint", %error,
                "a TLS handshake with the admin endpoint failed; the client must trust the certificate, and present one \
                 itself if tls-client-ca is set");
            None
        }
    }
}

fn log_failed_accept(error: io::Error) {
    throttle!(warn, "accept of the admin endpoint", %error,
        "the admin endpoint cannot accept a connection; trying again");
}

/// Sends 503, as far as the socket takes it at once. A connection with TLS is closed without an answer.
async fn refuse<S: Source>(endpoint: &Endpoint<S>, mut stream: &AsyncStream) {
    if endpoint.tls.is_none() {
        let refusal = reply::refusal(StatusCode::SERVICE_UNAVAILABLE, "too many connections");
        // It fits into the socket's buffer, which is empty.
        let _ = future::poll_once(stream.write(&refusal)).await;
    }
    throttle!(
        warn,
        "connections of the admin endpoint",
        connections = ADMIN_CONNECTIONS_MAX,
        "the admin endpoint refuses connections: it has the maximum number, and some must end first"
    );
}

#[cfg(test)]
mod tests;
