//! A connection as a stream of bytes that never blocks: TCP or a Unix socket, with or without TLS.

use super::error::PeerError;
use super::tls::TlsFiles;
use super::url::{ServerHost, ServerUrl};
use crate::cli::wait::EndSignals;
use rustix::event::PollFlags;
use rustls::ClientConnection;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

/// The number of bytes that are read at once.
const PIECE_BYTES: usize = 64 * 1024;

/// A connection to a server.
pub(in crate::cli) struct PeerSocket {
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
    /// What waits to be sent without TLS.
    output: Vec<u8>,
    server: String,
}

impl PeerSocket {
    /// Connects to a server. With TLS, the handshake begins with the first flush.
    pub(in crate::cli) fn connect(
        url: &ServerUrl,
        tls: &TlsFiles,
        signals: &EndSignals,
        until: Instant,
    ) -> Result<PeerSocket, PeerError> {
        let mut tls = url.scheme.is_tls().then(|| tls.connection(url)).transpose()?.map(Box::new);
        if let Some(tls) = &mut tls {
            // What is sent before the end of the handshake waits there.
            tls.set_buffer_limit(None);
        }
        let server = url.to_string();
        let mut failed = None;
        for address in addresses(&url.host)? {
            match connect_to(&address, signals, until) {
                Ok(Ok(socket)) => return Ok(PeerSocket { socket, tls, output: Vec::new(), server }),
                Ok(Err(signal)) => return Err(PeerError::Signal(signal)),
                Err(error) => failed = Some(error),
            }
        }
        let source = failed.unwrap_or_else(|| ErrorKind::AddrNotAvailable.into());
        Err(PeerError::Connect { server, source })
    }

    /// Adds bytes to what is sent.
    pub(in crate::cli) fn write(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(bytes).expect("its buffer has no limit"),
            None => self.output.extend_from_slice(bytes),
        }
    }

    /// Sends as much as the kernel takes.
    pub(in crate::cli) fn flush(&mut self) -> Result<(), PeerError> {
        loop {
            let (waits, sent) = match &mut self.tls {
                Some(tls) if tls.wants_write() => (true, tls.write_tls(&mut self.socket)),
                Some(_) => (false, Ok(0)),
                None if self.output.is_empty() => (false, Ok(0)),
                None => (true, self.socket.write(&self.output)),
            };
            match sent {
                _ if !waits => return Ok(()),
                Ok(0) => return Err(PeerError::Lost(ErrorKind::WriteZero.into())),
                Ok(len) if self.tls.is_none() => drop(self.output.drain(..len)),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(PeerError::Lost(error)),
            }
        }
    }

    /// Returns whether something waits to be sent.
    pub(in crate::cli) fn has_output(&self) -> bool {
        self.tls.as_ref().map_or(!self.output.is_empty(), |tls| tls.wants_write())
    }

    /// Reads what has come, at most a piece, to the end of `input`. Returns `false` if the server has ended its stream.
    pub(in crate::cli) fn read(&mut self, input: &mut Vec<u8>) -> Result<bool, PeerError> {
        let mut piece = [0; PIECE_BYTES];
        let Some(tls) = &mut self.tls else {
            return match self.socket.read(&mut piece) {
                Ok(len) => {
                    input.extend_from_slice(&piece[..len]);
                    Ok(len > 0)
                }
                Err(error) if is_passing(&error) => Ok(true),
                Err(error) => Err(PeerError::Lost(error)),
            };
        };
        let is_open = match tls.read_tls(&mut self.socket) {
            Ok(len) => len > 0,
            Err(error) if is_passing(&error) => return Ok(true),
            Err(error) => return Err(PeerError::Lost(error)),
        };
        let state = match tls.process_new_packets() {
            Ok(state) => state,
            Err(error) => {
                // The alert tells the server why.
                let _ = tls.write_tls(&mut self.socket);
                return Err(PeerError::Tls { server: self.server.clone(), problem: error.to_string() });
            }
        };
        let (at, len) = (input.len(), state.plaintext_bytes_to_read());
        input.resize(at + len, 0);
        tls.reader().read_exact(&mut input[at..]).map_err(PeerError::Lost)?;
        Ok(is_open && !state.peer_has_closed())
    }

    /// Announces the end of what is sent.
    pub(in crate::cli) fn end(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        let _ = self.flush();
        // The server may have closed the connection already.
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
    }

    /// Returns the descriptor and the events to wait for.
    pub(in crate::cli) fn interest(&self) -> (Option<BorrowedFd<'_>>, PollFlags) {
        let output = if self.has_output() { PollFlags::OUT } else { PollFlags::empty() };
        (Some(self.socket.as_fd()), PollFlags::IN | output)
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn addresses(host: &ServerHost) -> Result<Vec<SockAddr>, PeerError> {
    match host {
        ServerHost::Unix(path) => {
            let address = SockAddr::unix(path);
            let failed = |source| PeerError::Connect { server: format!("unix:{}", path.display()), source };
            Ok(vec![address.map_err(failed)?])
        }
        ServerHost::Tcp { name, port } => {
            let found = (name.as_str(), *port).to_socket_addrs();
            let found = found.map_err(|source| PeerError::Lookup { name: name.clone(), source })?;
            Ok(found.map(|address: SocketAddr| address.into()).collect())
        }
    }
}

/// Connects to an address. Returns the signal if one has come.
fn connect_to(address: &SockAddr, signals: &EndSignals, until: Instant) -> io::Result<Result<Socket, i32>> {
    let domain = if address.is_unix() { Domain::UNIX } else { Domain::from(i32::from(address.family())) };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(address) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
            let ready = signals.wait([(Some(socket.as_fd()), PollFlags::OUT)], Some(until))?;
            match ready {
                Err(signal) => return Ok(Err(signal)),
                Ok([events]) if events.is_empty() => return Err(ErrorKind::TimedOut.into()),
                Ok(_) => socket.take_error()?.map_or(Ok(()), Err)?,
            }
        }
        Err(error) => return Err(error),
    }
    if !address.is_unix() {
        socket.set_tcp_nodelay(true)?;
    }
    Ok(Ok(socket))
}
