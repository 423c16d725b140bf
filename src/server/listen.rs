//! The listening sockets. Each shard has a socket of its own for each TCP address, so that the kernel distributes the
//! connections. All shards accept from the same Unix socket.

use super::left_over;
use super::unix_socket::{self, GroupError, LEFT_OVER_WAIT, SocketAccess, SocketFile};
use crate::config::{self, Config, Listen, ListenAddress, ListenKind};
use crate::limits::{LEFT_OVER_WAIT_MAX, UNSENT_BYTES_MAX};
use crate::shard::Listener;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Instant;
use thiserror::Error;

/// The reason why the server cannot listen.
#[derive(Debug, Error)]
pub enum ListenError {
    #[error("cannot listen on {address} (setting listen): {error}{hint}")]
    Address { address: String, error: io::Error, hint: String },
    #[error("{0}")]
    Group(#[from] GroupError),
}

impl ListenError {
    /// Returns the exit code of a server that ends with this error.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            ListenError::Address { .. } => 1,
            ListenError::Group(_) => config::EXIT_CODE,
        }
    }
}

/// The bound sockets of each shard.
pub(super) struct BoundListeners {
    names: Vec<String>,
    /// The kind of each.
    kinds: Vec<ListenKind>,
    /// The first TCP address that is not only for TLS.
    plain_tcp: Option<SocketAddr>,
    shards: Vec<Vec<Socket>>,
    backlog: i32,
    access: SocketAccess,
    /// Dropped at the end, or if the server cannot start, which removes them.
    files: Vec<SocketFile>,
}

/// Binds every address of the settings for every shard. Nothing is accepted yet.
pub(super) fn bind(config: &Config, shards: usize) -> Result<BoundListeners, ListenError> {
    let mut listeners = BoundListeners {
        names: Vec::new(),
        kinds: Vec::new(),
        plain_tcp: None,
        shards: (0..shards).map(|_| Vec::new()).collect(),
        backlog: config.listen_backlog as i32,
        access: SocketAccess::of(config)?,
        files: Vec::new(),
    };
    for listen in &config.listen {
        let kind = config.listen_kind(listen);
        match &listen.address {
            ListenAddress::Tcp(address) => {
                listeners.bind_tcp(*address, kind).map_err(|error| tcp_error(*address, error))
            }
            ListenAddress::Unix(path) => listeners.bind_unix(path, kind),
        }?;
    }
    Ok(listeners)
}

/// Checks an address without listening on it, because a server may be running there.
pub(super) fn check(listen: &Listen, config: &Config) -> Result<(), ListenError> {
    let access = SocketAccess::of(config)?;
    match &listen.address {
        ListenAddress::Tcp(address) => check_tcp(*address).map_err(|error| tcp_error(*address, error)),
        ListenAddress::Unix(path) => unix_socket::check(path, access).map_err(|error| {
            let hint = unix_socket::hint(path, &error);
            ListenError::Address { address: listen.address.to_string(), error: error.into(), hint }
        }),
    }
}

/// Checks that an address belongs to this host, and that the process may use its port.
pub(super) fn check_tcp(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // With this, binding succeeds beside a running server of the same user, and this socket never listens.
    socket.set_reuse_port(true)?;
    match socket.bind(&address.into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
        bound => bound,
    }
}

impl BoundListeners {
    /// Returns the addresses as clients would type them, with the port that the kernel chose, and the kind of those that
    /// take TLS.
    pub fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    /// Returns the first TCP address that is not only for TLS, with the port that the kernel chose.
    pub fn plain_tcp(&self) -> Option<SocketAddr> {
        self.plain_tcp
    }

    /// Lets the kernel accept connections from now on. Unix sockets listen already, but nobody may connect to them before.
    pub fn listen(&self) -> Result<(), ListenError> {
        for file in &self.files {
            file.admit().map_err(|error| ListenError::Address {
                address: format!("unix:{}", file.path().display()),
                hint: unix_socket::hint(file.path(), &error),
                error: error.into(),
            })?;
        }
        for socket in self.shards.iter().flatten() {
            socket.listen(self.backlog).map_err(|error| ListenError::Address {
                address: self.names.join(", "),
                hint: tcp_hint(&error).into(),
                error,
            })?;
        }
        Ok(())
    }

    /// Moves the sockets of one shard to it.
    pub fn take(&mut self, shard: usize) -> Vec<Listener> {
        let sockets = self.shards[shard].drain(..);
        sockets
            .zip(&self.kinds)
            .map(|(socket, kind)| Listener { socket: socket.into(), kind: *kind })
            .collect()
    }

    fn add_name(&mut self, address: &str, kind: ListenKind) {
        self.names.push(match kind {
            ListenKind::Plain => address.to_owned(),
            ListenKind::Tls | ListenKind::Either => format!("{}://{address}", kind.name()),
        });
        self.kinds.push(kind);
    }

    fn bind_tcp(&mut self, mut address: SocketAddr, kind: ListenKind) -> io::Result<()> {
        wait_until_free(address)?;
        for shard in &mut self.shards {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            if address.is_ipv6() {
                // `[::]` and `0.0.0.0` are two addresses, and the server may listen on both.
                socket.set_only_v6(true)?;
            }
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            // Accepted sockets inherit these two, which saves system calls for each connection.
            socket.set_tcp_nodelay(true)?;
            socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
            socket.bind(&address.into())?;
            // The kernel has chosen a port if it was 0. The other shards get the same one.
            address = socket.local_addr()?.as_socket().unwrap_or(address);
            shard.push(socket);
        }
        self.add_name(&address.to_string(), kind);
        if kind != ListenKind::Tls {
            self.plain_tcp.get_or_insert(address);
        }
        Ok(())
    }

    fn bind_unix(&mut self, path: &Path, kind: ListenKind) -> Result<(), ListenError> {
        let address = format!("unix:{}", path.display());
        let failed = |error| {
            let hint = unix_socket::hint(path, &error);
            ListenError::Address { address: address.clone(), error: error.into(), hint }
        };
        let (socket, file) = unix_socket::bind(path, self.access, self.backlog).map_err(failed)?;
        self.files.push(file);
        for shard in &mut self.shards {
            shard.push(socket.try_clone().map_err(|error| failed(error.into()))?);
        }
        self.add_name(&address, kind);
        Ok(())
    }
}

/// Fails if another socket listens on the address. With `SO_REUSEPORT`, a second server would get half of the
/// connections without anybody noticing. A server that was just killed is waited for: the kernel frees its rings a
/// moment later, or some seconds later if it had many connections.
fn wait_until_free(address: SocketAddr) -> io::Result<()> {
    let began = Instant::now();
    let mut is_logged = false;
    loop {
        let error = match bind_alone(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
            bound => return bound,
        };
        if began.elapsed() < LEFT_OVER_WAIT {
            thread::sleep(LEFT_OVER_WAIT / 100);
            continue;
        }
        if began.elapsed() >= LEFT_OVER_WAIT_MAX || !left_over::is_left_over(address) {
            return Err(error);
        }
        if !is_logged {
            is_logged = true;
            tracing::info!(%address, "waiting until the kernel has closed the connections of a server that was killed");
        }
        // To bind, the kernel goes through all sockets of the port under a lock that it needs to close them: for a million
        // of them that is a tenth of a second. Looking for sockets that listen is cheap.
        while began.elapsed() < LEFT_OVER_WAIT_MAX && left_over::is_left_over(address) {
            thread::sleep(LEFT_OVER_WAIT / 20);
        }
    }
}

/// Binds a socket that shares the address with no other socket that listens, and drops it.
fn bind_alone(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

fn tcp_error(address: SocketAddr, error: io::Error) -> ListenError {
    ListenError::Address { address: address.to_string(), hint: tcp_hint(&error).into(), error }
}

/// Returns the advice that follows an error of a TCP address.
fn tcp_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => ". Another process listens there; stop it, or choose another port",
        io::ErrorKind::PermissionDenied => {
            ". Ports below 1024 need the capability CAP_NET_BIND_SERVICE; choose another port, or give it to the server: \
             AmbientCapabilities=CAP_NET_BIND_SERVICE in a systemd unit, `setcap cap_net_bind_service=ep` on the file"
        }
        io::ErrorKind::AddrNotAvailable => {
            ". No network interface of this host has that address; `ip address` lists those that exist, and 0.0.0.0 and \
             [::] are all of them"
        }
        _ => "",
    }
}
