//! The proxy of `quickio clienttest`. It mangles WebSocket upgrades, as bad proxies do, and nothing else.
//!
//! | file | content |
//! | --- | --- |
//! | `relay` | one connection: a task that relays in both directions, between two sockets |
//! | `exchange` | the state that the two directions share: which responses are expected, how an upgrade ended |
//! | `requests` | the client's bytes into requests, without I/O |
//! | `responses` | the server's bytes into responses, without I/O |
//! | `edits` | a head into a mangled one: the modes |
//! | `refusal` | the proxy's own responses |
//!
//! Bytes pass as they arrive, except for the heads of requests and responses, which pass when they are complete. A
//! peer that reads slowly slows down the other one: each direction holds the bytes of one read until they are
//! written. Input that cannot be followed (no HTTP, a transfer coding, contradictory lengths) passes unexamined from
//! there on: the server refuses it, or it is not an upgrade.
//!
//! The proxy runs on the control executor, beside the shards. It knows only the server's address.

mod edits;
mod exchange;
mod refusal;
mod relay;
mod requests;
mod responses;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;

use crate::config::clienttest::{Mangling, Mode};
use crate::limits::{MANGLER_CONNECTIONS_MAX, MANGLER_LINGER, MANGLER_STALL};
use crate::log::throttle;
use crate::qev::control::{AsyncListener, AsyncStream, BoundSocket, ControlExecutor, Permits, Spawner};
use refusal::ProxyRefusal;

/// An error that prevents the proxy from starting.
#[derive(Debug, Error)]
pub enum MangleError {
    /// The address cannot be bound.
    #[error("the proxy cannot listen at {address} (flag --proxy): {source}{}", hint(.source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Runs the proxy at `address`, in front of the server at `server`, on the control executor and until it stops. Returns
/// the address, with the port that the kernel chose if it was 0.
///
/// # Errors
///
/// If the address cannot be bound.
pub fn serve(
    control: &ControlExecutor,
    address: SocketAddr,
    server: SocketAddr,
    mangling: Mangling,
) -> Result<SocketAddr, MangleError> {
    let permits = Permits::new(MANGLER_CONNECTIONS_MAX);
    serve_within(Patience::default(), permits, control, address, server, mangling)
}

/// How long the proxy waits for a client.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// To read anything at all of the output that waits for it.
    stall: Duration,
    /// To close its end after the server has closed its own.
    linger: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { stall: MANGLER_STALL, linger: MANGLER_LINGER }
    }
}

fn serve_within(
    patience: Patience,
    permits: Permits,
    control: &ControlExecutor,
    address: SocketAddr,
    server: SocketAddr,
    mangling: Mangling,
) -> Result<SocketAddr, MangleError> {
    let bound = BoundSocket::bind(address).map_err(|source| MangleError::Bind { address, source })?;
    let address = bound.address();
    control.spawn(move |spawner| {
        let proxy = Proxy { server: reachable(server), modes: Modes::new(mangling), patience };
        accept(Rc::new(proxy), permits, bound, spawner)
    });
    Ok(address)
}

/// Returns the advice that follows an error of binding an address.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => ". Another process listens there; stop it, or choose another port",
        io::ErrorKind::AddrNotAvailable => ". No network interface of this host has that address",
        io::ErrorKind::PermissionDenied => {
            ". Ports below 1024 need CAP_NET_BIND_SERVICE; choose another port"
        }
        _ => "",
    }
}

/// Returns the address to connect to for a listener at `server`: `0.0.0.0` and `[::]` are every interface.
fn reachable(mut server: SocketAddr) -> SocketAddr {
    if server.ip().is_unspecified() {
        server.set_ip(if server.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    server
}

/// The running proxy.
#[derive(Debug)]
struct Proxy {
    server: SocketAddr,
    modes: Modes,
    patience: Patience,
}

async fn accept(proxy: Rc<Proxy>, permits: Permits, bound: BoundSocket, spawner: Spawner) {
    let listener = AsyncListener::new(bound);
    loop {
        let client = listener.accept(log_failed_accept).await;
        let Some(permit) = permits.try_acquire() else {
            throttle!(
                warn,
                "connections of the proxy",
                connections = permits.taken(),
                "the proxy has as many connections as it may have; one more is refused"
            );
            relay::refuse(&client, &ProxyRefusal::Full).await;
            continue;
        };
        let proxy = Rc::clone(&proxy);
        spawner.spawn(async move {
            serve_client(&proxy, client).await;
            drop(permit);
        });
    }
}

fn log_failed_accept(error: io::Error) {
    throttle!(warn, "accept of the proxy", %error, "the proxy cannot accept a connection; trying again");
}

async fn serve_client(proxy: &Proxy, client: AsyncStream) {
    // A client that has disconnected already has no address.
    let Ok(peer) = client.peer_address() else { return };
    match relay::connect(&client, proxy.server).await {
        Ok(server) => relay::relay(proxy, &client, &server, peer).await,
        Err(error) => {
            throttle!(warn, "server of the proxy", %error, "the proxy cannot connect to the server");
            relay::refuse(&client, &ProxyRefusal::Unreachable).await;
        }
    }
}

/// The choice of a mode for each upgrade.
#[derive(Debug)]
struct Modes {
    mangling: Mangling,
    /// The number of upgrades so far that got their mode by rotation.
    rotated: Cell<usize>,
}

impl Modes {
    fn new(mangling: Mangling) -> Modes {
        Modes { mangling, rotated: Cell::new(0) }
    }

    /// Returns the mode of an upgrade whose target has this `mangle=`, or `None` if there is no such mode.
    fn choose(&self, chosen: Option<&str>) -> Option<Mode> {
        match (chosen, self.mangling) {
            (Some(name), _) => Mode::find(name),
            (None, Mangling::Always(mode)) => Some(mode),
            (None, Mangling::Rotate) => {
                let turn = self.rotated.get();
                self.rotated.set(turn + 1);
                let mut modes = Mode::ALL.iter().copied().filter(|mode| *mode != Mode::None).cycle();
                modes.nth(turn % (Mode::ALL.len() - 1))
            }
        }
    }
}
