//! The byte streams under clients: TCP, Unix sockets, and TLS over TCP. Reads and writes have a deadline.

use super::{DEADLINE, tls};
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A byte stream to the server.
pub trait Stream: Read + Write + Send {
    /// Shuts down the sending side. The client can still read.
    fn shutdown_write(&self);

    /// Has the end of the stream reset it.
    fn set_linger_zero(&self);

    /// Returns whether everything that was received has been read.
    fn is_silent(&self) -> bool;
}

macro_rules! stream {
    ($type:ty) => {
        impl Stream for $type {
            fn shutdown_write(&self) {
                let _ = self.shutdown(Shutdown::Write); // fails if the peer has disconnected
            }

            fn set_linger_zero(&self) {
                SockRef::from(self).set_linger(Some(Duration::ZERO)).unwrap();
            }

            fn is_silent(&self) -> bool {
                self.set_nonblocking(true).unwrap();
                let mut byte = [std::mem::MaybeUninit::uninit()];
                let peeked = SockRef::from(self).peek(&mut byte);
                self.set_nonblocking(false).unwrap();
                peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
            }
        }
    };
}

stream!(TcpStream);
stream!(UnixStream);

impl Stream for tls::TlsStream {
    /// Ends the stream without closing TLS, as somebody who cuts the connection would.
    fn shutdown_write(&self) {
        self.sock.shutdown_write();
    }

    fn set_linger_zero(&self) {
        self.sock.set_linger_zero();
    }

    fn is_silent(&self) -> bool {
        panic!("what was received is not known without handling it");
    }
}

/// Connects to `HOST:PORT`, `unix:PATH`, or `tls://HOST:PORT`. The certificate of the latter must be one of
/// tests/certificates for localhost. Returns this end's address, too, as the server's log writes it.
pub fn connect(address: &str) -> (Box<dyn Stream>, String) {
    if let Some(path) = address.strip_prefix("unix:") {
        let stream = UnixStream::connect(path).expect("the server accepts");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        return (Box::new(stream), String::new());
    }
    connect_by(address, |socket, to| socket.connect(&to.into())).expect("the server accepts")
}

/// As [`connect`], from a source address. Not for Unix sockets.
pub fn connect_from(source: IpAddr, address: &str) -> (Box<dyn Stream>, String) {
    try_connect_from(source, address).expect("the server accepts")
}

/// As [`connect_from`], or returns the error if the server does not accept the connection or refuses TLS.
pub fn try_connect_from(source: IpAddr, address: &str) -> io::Result<(Box<dyn Stream>, String)> {
    connect_by(address, |socket, to| {
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.connect(&to.into())
    })
}

/// As [`connect_from`], with the smallest receive buffer that the kernel allows.
pub fn connect_small(source: Option<IpAddr>, address: &str) -> (Box<dyn Stream>, String) {
    let connected = connect_by(address, |socket, to| {
        socket.set_recv_buffer_size(2048)?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.connect(&to.into())
    });
    connected.expect("the server accepts")
}

fn connect_by(
    address: &str,
    connect: impl FnOnce(&Socket, SocketAddr) -> io::Result<()>,
) -> io::Result<(Box<dyn Stream>, String)> {
    let secured = address.strip_prefix("tls://");
    let to = secured.unwrap_or(address).to_socket_addrs().expect("HOST:PORT").next().expect("an address");
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    connect(&socket, to)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    stream.set_nodelay(true)?;
    let own = stream.local_addr()?.to_string();
    match secured {
        Some(_) => Ok((Box::new(tls::begin(stream, &tls::client_of_tests(), "localhost")?), own)),
        None => Ok((Box::new(stream), own)),
    }
}
