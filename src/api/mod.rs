//! The server API: HTTP/1.1 for back ends, by hyper, on the control executor. docs/server-api.md describes it, and
//! `openapi.json` describes it to programs.
//!
//! | file | content |
//! | --- | --- |
//! | `connection` | a connection: requests one after the other, in time |
//! | `service` | a request: its route, its key, its body, and its answer |
//! | `keys` | the keys of back ends, and their scopes |
//! | `bodies` | bodies of broadcasts: lines and JSON |
//! | `batch`, `budget` | the events of a request, divided among the shards, and the memory of all of them |
//! | `commands`, `query` | bodies of commands, and queries of lists |
//! | `questions` | questions to the shards, and answers that are made of their replies |
//! | `idempotency` | answers that are remembered for requests that are repeated |
//! | `messages` | what the shards are sent, and the trait by which they are reached |
//! | `reply`, `refusal` | answers |
//! | `bench` | the parsers, for `benches/api.rs` |
//!
//! The API never runs on a shard, and shards never wait for it. A request is accepted as a whole or not at all: all of its
//! events are parsed first, and room in the inbox of each shard that is concerned is reserved before the first message is
//! posted.

mod batch;
#[doc(hidden)]
pub mod bench;
mod bodies;
mod budget;
mod commands;
mod connection;
mod idempotency;
mod keys;
mod messages;
mod query;
mod questions;
mod refusal;
mod reply;
mod service;
#[cfg(test)]
mod tests;

pub use batch::{Batch, EventList};
pub use budget::{ByteBudget, Charge};
pub use keys::{ApiKey, ApiKeys, KeySecretError, SECRET_BYTES_MAX, SECRET_BYTES_MIN, Scopes};
pub use messages::{
    ApiAction, ApiMessage, ApiQuestion, ApiReply, ApiTarget, ApiTotals, ApiWork, ClientEntry, PathCount,
    Shards, ShardsBusy,
};

use crate::limits::API_CONNECTIONS_MAX;
use crate::log::throttle;
use crate::metrics::SharedCounters;
use crate::qev::control::{
    AsyncListener, AsyncStream, BoundSocket, ControlExecutor, HandshakeError, Permits, ServerStream, Spawner,
    TlsAcceptor, timeout,
};
use futures_lite::{AsyncWriteExt, future};
use hyper::StatusCode;
use idempotency::RememberedKeys;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

/// The bounds on requests that the settings have.
#[derive(Clone, Copy, Debug)]
pub struct ApiBounds {
    /// The maximum size of a body in bytes.
    pub body_bytes: usize,
    /// The maximum memory of all requests that are not done yet, in bytes.
    pub bytes: usize,
}

/// The times that a peer may take.
#[derive(Clone, Copy, Debug)]
struct ApiTimes {
    /// From the connection to the end of its TLS handshake.
    handshake: Duration,
    /// To the complete head of the next request. Connections that are idle for longer are closed.
    head: Duration,
    /// From the head of a request to the end of its body.
    body: Duration,
    /// For reading a part of a response.
    response: Duration,
}

impl Default for ApiTimes {
    fn default() -> ApiTimes {
        ApiTimes {
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(60),
            body: Duration::from_secs(30),
            response: Duration::from_secs(30),
        }
    }
}

/// An error that prevents the server API from starting.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The address cannot be bound.
    #[error(
        "cannot serve the server API at {address} (setting api): {source}; is another process listening there?"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// The parts of the server API that live outside of the control executor.
#[derive(Clone, Debug)]
pub struct ApiParts {
    /// The TLS of all connections, or `None` if they are plain.
    pub tls: Option<TlsAcceptor>,
    /// The keys of back ends.
    pub keys: ApiKeys,
    /// The bounds on requests.
    pub bounds: ApiBounds,
    /// The counters of the API.
    pub counters: Arc<SharedCounters>,
}

/// Serves the API at these addresses, on the control executor and until it stops. Returns the addresses, with the ports
/// that the kernel chose where they were 0. `shards` creates the access to the shards on the executor.
///
/// # Errors
///
/// If an address cannot be bound.
pub fn serve<S: Shards>(
    control: &ControlExecutor,
    addresses: &[SocketAddr],
    parts: ApiParts,
    shards: impl FnOnce(&Spawner) -> S + Send + 'static,
) -> Result<Vec<SocketAddr>, ApiError> {
    serve_within(ApiTimes::default(), control, addresses, parts, shards)
}

fn serve_within<S: Shards>(
    times: ApiTimes,
    control: &ControlExecutor,
    addresses: &[SocketAddr],
    parts: ApiParts,
    shards: impl FnOnce(&Spawner) -> S + Send + 'static,
) -> Result<Vec<SocketAddr>, ApiError> {
    let sockets =
        BoundSocket::bind_all(addresses).map_err(|(address, source)| ApiError::Bind { address, source })?;
    let addresses = sockets.iter().map(BoundSocket::address).collect();
    control.spawn(move |spawner| {
        let endpoint = Rc::new(ApiEndpoint::new(parts, times, shards(&spawner), spawner.clone()));
        let permits = Permits::new(API_CONNECTIONS_MAX);
        for socket in sockets {
            spawner.spawn(accept(Rc::clone(&endpoint), permits.clone(), socket));
        }
        future::ready(())
    });
    Ok(addresses)
}

/// The running API.
struct ApiEndpoint<S> {
    shards: S,
    parts: ApiParts,
    times: ApiTimes,
    /// The memory of the requests that are not done yet.
    budget: ByteBudget,
    remembered: RefCell<RememberedKeys>,
    started: Instant,
    spawner: Spawner,
}

impl<S: Shards> ApiEndpoint<S> {
    fn new(parts: ApiParts, times: ApiTimes, shards: S, spawner: Spawner) -> ApiEndpoint<S> {
        ApiEndpoint {
            shards,
            budget: ByteBudget::new(parts.bounds.bytes),
            parts,
            times,
            remembered: RefCell::default(),
            started: Instant::now(),
            spawner,
        }
    }
}

async fn accept<S: Shards>(endpoint: Rc<ApiEndpoint<S>>, permits: Permits, bound: BoundSocket) {
    let listener = AsyncListener::new(bound);
    loop {
        let stream = listener.accept(log_failed_accept).await;
        let Some(permit) = permits.try_acquire() else {
            refuse(&endpoint, &stream).await;
            continue;
        };
        let (spawner, endpoint) = (endpoint.spawner.clone(), Rc::clone(&endpoint));
        spawner.spawn(async move {
            // A connection that has ended already has no peer.
            if let Ok(peer) = stream.peer_address() {
                if let Some(stream) = begin(&endpoint, stream).await {
                    connection::serve(&endpoint, &stream, peer).await;
                }
            }
            drop(permit);
        });
    }
}

/// Runs the handshake of a connection, if it has one. Returns `None` if the connection must end.
async fn begin<S: Shards>(endpoint: &ApiEndpoint<S>, stream: AsyncStream) -> Option<ServerStream> {
    let Some(tls) = &endpoint.parts.tls else { return Some(ServerStream::Plain(stream)) };
    match timeout(endpoint.times.handshake, tls.accept(stream)).await? {
        Ok(stream) => Some(stream),
        Err(HandshakeError::NotTls(stream)) => {
            let error = "this port speaks TLS: use https:// instead of http://";
            let refusal = reply::refusal_bytes(StatusCode::BAD_REQUEST, error);
            connection::refuse(endpoint.times, &stream, &refusal).await;
            None
        }
        Err(HandshakeError::Failed(error)) => {
            throttle!(info, "TLS handshakes of the server API", %error,
                "a TLS handshake with the server API failed; the client must trust the certificate, and present one itself \
                 if tls-client-ca is set");
            None
        }
    }
}

fn log_failed_accept(error: io::Error) {
    throttle!(warn, "accept of the server API", %error, "the server API cannot accept a connection; trying again");
}

/// Sends 503, as far as the socket takes it at once. A connection with TLS is closed without an answer.
async fn refuse<S: Shards>(endpoint: &ApiEndpoint<S>, mut stream: &AsyncStream) {
    if endpoint.parts.tls.is_none() {
        let refusal = reply::refusal_bytes(StatusCode::SERVICE_UNAVAILABLE, "too many connections");
        // It fits into the socket's buffer, which is empty.
        let _ = future::poll_once(stream.write(&refusal)).await;
    }
    throttle!(
        warn,
        "connections of the server API",
        connections = API_CONNECTIONS_MAX,
        "the server API refuses connections: it has the maximum number, and some must end first"
    );
}
