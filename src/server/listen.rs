//! The listening sockets. Each shard has a socket of its own for each TCP address, so that the kernel distributes the
//! connections. All shards accept from the same Unix socket.

use crate::config::{Config, Listen};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use thiserror::Error;

/// How long an address may still be in use after its server was killed: the kernel cancels the accepts of a ring only
/// after the process has ended, and they keep the socket open until then.
const LEFT_OVER_WAIT: Duration = Duration::from_secs(1);

/// The error of an address that the server cannot listen on.
#[derive(Debug, Error)]
#[error("cannot listen on {address} (setting listen): {error}{hint}")]
pub struct ListenError {
    address: String,
    error: io::Error,
    hint: &'static str,
}

/// The bound sockets of each shard.
pub(super) struct Listeners {
    names: Vec<String>,
    /// The first TCP address.
    tcp: Option<SocketAddr>,
    shards: Vec<Vec<Socket>>,
    backlog: i32,
    files: Vec<PathBuf>,
}

/// Binds every address of the settings for every shard. Nothing is accepted yet.
pub(super) fn bind(config: &Config, shards: usize) -> Result<Listeners, ListenError> {
    let mut listeners = Listeners {
        names: Vec::new(),
        tcp: None,
        shards: (0..shards).map(|_| Vec::new()).collect(),
        backlog: config.listen_backlog as i32,
        files: Vec::new(),
    };
    for address in &config.listen {
        match address {
            Listen::Tcp(address) => listeners.bind_tcp(*address),
            Listen::Unix(path) => listeners.bind_unix(path),
        }
        .map_err(|error| ListenError { address: address.to_string(), hint: hint(&error), error })?;
    }
    Ok(listeners)
}

impl Drop for Listeners {
    /// Removes the files of Unix sockets, at the end or if the server cannot start.
    fn drop(&mut self) {
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
    }
}

impl Listeners {
    /// Returns the addresses as clients would type them, with the port that the kernel chose.
    pub fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    /// Returns the first TCP address, with the port that the kernel chose.
    pub fn tcp(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// Lets the kernel accept connections from now on.
    pub fn listen(&self) -> Result<(), ListenError> {
        for socket in self.shards.iter().flatten() {
            socket.listen(self.backlog).map_err(|error| ListenError {
                address: self.names.join(", "),
                hint: hint(&error),
                error,
            })?;
        }
        Ok(())
    }

    /// Moves the sockets of one shard to it.
    pub fn take(&mut self, shard: usize) -> Vec<OwnedFd> {
        self.shards[shard].drain(..).map(OwnedFd::from).collect()
    }

    fn bind_tcp(&mut self, mut address: SocketAddr) -> io::Result<()> {
        wait_until_free(address)?;
        for shard in &mut self.shards {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            if address.is_ipv6() {
                // `[::]` and `0.0.0.0` are two addresses, and the server may listen on both.
                socket.set_only_v6(true)?;
            }
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            // Accepted sockets inherit this, which saves a system call for each connection.
            socket.set_tcp_nodelay(true)?;
            socket.bind(&address.into())?;
            // The kernel has chosen a port if it was 0. The other shards get the same one.
            address = socket.local_addr()?.as_socket().unwrap_or(address);
            shard.push(socket);
        }
        self.names.push(address.to_string());
        self.tcp.get_or_insert(address);
        Ok(())
    }

    fn bind_unix(&mut self, path: &Path) -> io::Result<()> {
        remove_left_over(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        for shard in &mut self.shards {
            shard.push(socket.try_clone()?);
        }
        self.names.push(format!("unix:{}", path.display()));
        self.files.push(path.to_owned());
        Ok(())
    }
}

/// Fails if another socket listens on the address. With `SO_REUSEPORT`, a second server would get half of the
/// connections without anybody noticing. A server that was just killed is waited for: the kernel frees its rings a
/// moment later.
fn wait_until_free(address: SocketAddr) -> io::Result<()> {
    let until = Instant::now() + LEFT_OVER_WAIT;
    loop {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        match socket.bind(&address.into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                thread::sleep(LEFT_OVER_WAIT / 100);
            }
            bound => return bound,
        }
    }
}

/// Removes the file of a socket that no process listens on any more. Any other file is left alone.
fn remove_left_over(path: &Path) -> io::Result<()> {
    let is_socket = || std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let until = Instant::now() + LEFT_OVER_WAIT;
    while is_socket() {
        match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return std::fs::remove_file(path);
            }
            Ok(_) if Instant::now() < until => thread::sleep(LEFT_OVER_WAIT / 100),
            _ => break,
        }
    }
    Ok(())
}

/// Returns the advice that follows an error.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => ". Another process listens there; stop it, or choose another address",
        io::ErrorKind::PermissionDenied => {
            ". Ports below 1024 need CAP_NET_BIND_SERVICE; a Unix socket needs a folder that can be written to"
        }
        io::ErrorKind::AddrNotAvailable => ". No interface of this host has that address",
        _ => "",
    }
}
