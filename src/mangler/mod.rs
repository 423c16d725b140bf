//! The proxy of `quickio clienttest`: it mangles WebSocket upgrades, as bad proxies do, and nothing else.
//!
//! | file | is |
//! | --- | --- |
//! | `link` | one connection: a thread for each direction, between two sockets |
//! | `exchange` | what these two tell each other: which answers are expected, what came of an upgrade |
//! | `requests` | the client's bytes into requests, without I/O |
//! | `answers` | the server's bytes into answers, without I/O |
//! | `mangle` | a head into a mangled one: the modes |
//! | `refusal` | the answers that are the proxy's own |
//!
//! Bytes pass as they come, the heads of requests and answers excepted, which pass when they are whole. A peer that reads
//! slowly slows down the other: each direction holds what one read brought, until it is written. What cannot be followed
//! (no HTTP, a transfer coding, contradictory lengths) passes from there on without being looked at: the server refuses
//! it, or it is no upgrade.
//!
//! Ordinary threads and blocking sockets: a client library's tests open few connections, and this runs beside the shards,
//! not on them.

mod answers;
mod exchange;
mod link;
mod mangle;
mod refusal;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;
use thiserror::Error;

use crate::config::clienttest::{Mangling, Mode};
use crate::limits::{MANGLER_CONNECTIONS_MAX, MANGLER_LINGER, MANGLER_STALL};
use link::Link;
use refusal::Refusal;

/// Bytes of a thread's stack: buffers are on the heap, nothing recurses.
const STACK_BYTES: usize = 256 * 1024;

/// How long it waits after a failed accept: where no descriptor is free, the next one fails too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the proxy could not be started.
#[derive(Debug, Error)]
pub enum MangleError {
    /// The address cannot be listened at.
    #[error("the proxy cannot listen at {address} (flag --proxy): {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// No thread could be started.
    #[error("cannot start a thread for the proxy: {0}")]
    Thread(#[source] io::Error),
}

/// Runs the proxy at `address`, before the server at `server`, until the handle is dropped. Port 0 lets the kernel
/// choose one, which [`Handle::address`] tells.
///
/// # Errors
///
/// Where the address cannot be listened at, or no thread can be started.
pub fn serve(address: SocketAddr, server: SocketAddr, mangling: Mangling) -> Result<Handle, MangleError> {
    serve_within(Times::default(), address, server, mangling)
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// To read anything at all of what waits for it.
    stall: Duration,
    /// To close its end after the server's.
    linger: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times { stall: MANGLER_STALL, linger: MANGLER_LINGER }
    }
}

fn serve_within(
    times: Times,
    address: SocketAddr,
    server: SocketAddr,
    mangling: Mangling,
) -> Result<Handle, MangleError> {
    let bind_error = |source| MangleError::Bind { address, source };
    let listener = TcpListener::bind(address).map_err(bind_error)?;
    let address = listener.local_addr().map_err(bind_error)?;
    let proxy = Arc::new(Proxy {
        listener,
        server: reachable(server),
        modes: Modes { mangling, upgrades: AtomicUsize::new(0) },
        times,
        links: Mutex::new(HashMap::new()),
        stopping: AtomicBool::new(false),
    });
    let runs = Arc::clone(&proxy);
    let accepts = thread::Builder::new().name("proxy".into()).spawn(move || runs.run());
    let accepts = Some(accepts.map_err(MangleError::Thread)?);
    Ok(Handle { address, proxy, accepts })
}

/// Where one connects to reach a listener at this address: `0.0.0.0` and `[::]` are on every interface.
fn reachable(mut server: SocketAddr) -> SocketAddr {
    if server.ip().is_unspecified() {
        server.set_ip(if server.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    server
}

/// The running proxy. Dropping it cuts its connections and waits for its threads.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    proxy: Arc<Proxy>,
    /// Taken when it is dropped.
    accepts: Option<JoinHandle<()>>,
}

impl Handle {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.proxy.stop();
        if let Some(accepts) = self.accepts.take() {
            // A thread that panicked has said so, and is gone as it should be.
            let _ = accepts.join();
        }
    }
}

#[derive(Debug)]
struct Proxy {
    listener: TcpListener,
    server: SocketAddr,
    modes: Modes,
    times: Times,
    /// The connections of this moment, at most [`MANGLER_CONNECTIONS_MAX`], so that stopping can cut them.
    links: Mutex<HashMap<u64, Arc<Link>>>,
    stopping: AtomicBool,
}

impl Proxy {
    /// Accepts until it is stopped; then waits for its connections' threads.
    fn run(&self) {
        thread::scope(|scope| {
            for id in 0.. {
                match self.listener.accept() {
                    _ if self.stopping() => return,
                    Ok((client, peer)) => self.begin(scope, id, client, peer),
                    Err(error) => {
                        tracing::warn!(%error, "the proxy cannot accept");
                        thread::park_timeout(ACCEPT_PAUSE);
                    }
                }
            }
        });
    }

    fn begin<'scope>(
        &'scope self,
        scope: &'scope thread::Scope<'scope, '_>,
        id: u64,
        client: TcpStream,
        peer: SocketAddr,
    ) {
        let mut links = self.links();
        if links.len() >= MANGLER_CONNECTIONS_MAX {
            drop(links);
            tracing::warn!(%peer, "the proxy has {MANGLER_CONNECTIONS_MAX} connections already: one is refused");
            return link::refuse(&client, &Refusal::Full);
        }
        let link = Arc::new(Link::new(client, peer));
        links.insert(id, Arc::clone(&link));
        drop(links);
        let thread = thread::Builder::new().name(format!("proxy-{id}")).stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn_scoped(scope, move || self.serve(id, &link)) {
            tracing::warn!(%peer, %error, "the proxy has no thread for a connection");
            self.links().remove(&id);
        }
    }

    /// The life of a connection's thread.
    fn serve(&self, id: u64, link: &Link) {
        let _end = LinkEnd { proxy: self, id };
        let server = link.connect(self.server, self.times);
        // Looked at after the connection was made: either this sees the flag, or `stop` sees both sockets.
        if self.stopping() {
            return link.cut();
        }
        match server {
            Ok(server) => link.relay(server, &self.modes, self.times),
            Err(error) => {
                tracing::warn!(%error, "the proxy cannot reach the server");
                link.refuse(&Refusal::Unreachable);
            }
        }
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that waits in accept(2), for which std has no call.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        self.links().values().for_each(|link| link.cut());
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn links(&self) -> MutexGuard<'_, HashMap<u64, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets a connection when its thread ends, however it does.
struct LinkEnd<'a> {
    proxy: &'a Proxy,
    id: u64,
}

impl Drop for LinkEnd<'_> {
    fn drop(&mut self) {
        self.proxy.links().remove(&self.id);
    }
}

/// Which mode the next upgrade gets.
#[derive(Debug)]
struct Modes {
    mangling: Mangling,
    /// Upgrades that rotation was asked for so far.
    upgrades: AtomicUsize,
}

impl Modes {
    /// The mode of an upgrade whose target has this `mangle=`; `None` where there is no such mode.
    fn choose(&self, asked: Option<&str>) -> Option<Mode> {
        match (asked, self.mangling) {
            (Some(name), _) => Mode::find(name),
            (None, Mangling::Always(mode)) => Some(mode),
            (None, Mangling::Rotate) => {
                let turn = self.upgrades.fetch_add(1, Ordering::Relaxed);
                let mut modes = Mode::ALL.iter().copied().filter(|mode| *mode != Mode::None).cycle();
                modes.nth(turn % (Mode::ALL.len() - 1))
            }
        }
    }
}
