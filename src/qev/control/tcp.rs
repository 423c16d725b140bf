//! TCP sockets of the control executor.

use std::cell::OnceCell;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite, future};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net;

use super::{sleep, timeout};

/// The number of connections that the kernel accepts before [`AsyncListener::accept`] takes them: as many as may
/// arrive at the same moment.
const BACKLOG: i32 = 1024;

/// The pause after a failed accept: if no descriptor is free, an immediate retry fails too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A TCP socket that was bound on any thread, for an [`AsyncListener`].
#[derive(Debug)]
pub struct BoundSocket {
    socket: Socket,
    address: SocketAddr,
}

impl BoundSocket {
    /// Binds an address and listens there. The kernel chooses the port if it is 0.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound.
    pub fn bind(address: SocketAddr) -> io::Result<BoundSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // As std does: connections of a process that has ended do not block its port.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok(BoundSocket { socket, address })
    }

    /// Binds several addresses as [`bind`](BoundSocket::bind) does.
    ///
    /// # Errors
    ///
    /// The first address that cannot be bound, and the reason. Then none of them is.
    pub fn bind_all(addresses: &[SocketAddr]) -> Result<Vec<BoundSocket>, (SocketAddr, io::Error)> {
        addresses
            .iter()
            .map(|&address| BoundSocket::bind(address).map_err(|error| (address, error)))
            .collect()
    }

    /// Returns the bound address, with the port that the kernel chose.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl AsFd for BoundSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A listening TCP socket. Dropping it frees its address at once.
pub struct AsyncListener {
    socket: Socket,
    /// The same socket, registered with the executor by the first accept.
    acceptor: OnceCell<net::TcpListener>,
}

impl AsyncListener {
    /// Accepts connections on the executor of the calling task.
    #[must_use]
    pub fn new(bound: BoundSocket) -> AsyncListener {
        AsyncListener { socket: bound.socket, acceptor: OnceCell::new() }
    }

    /// Waits for the next connection. If an accept fails, usually because no descriptor is free, passes the error to
    /// `failed` and retries after a pause.
    pub async fn accept(&self, failed: impl Fn(io::Error)) -> AsyncStream {
        loop {
            // Other tasks must be able to run even if connections are already waiting.
            future::yield_now().await;
            match self.try_accept().await {
                Ok(stream) => return stream,
                Err(error) => {
                    failed(error);
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn try_accept(&self) -> io::Result<AsyncStream> {
        let (stream, _) = self.acceptor()?.accept().await?;
        Ok(AsyncStream(stream))
    }

    fn acceptor(&self) -> io::Result<&net::TcpListener> {
        if let Some(acceptor) = self.acceptor.get() {
            return Ok(acceptor);
        }
        let acceptor = net::TcpListener::from_std(self.socket.try_clone()?.into())?;
        Ok(self.acceptor.get_or_init(|| acceptor))
    }
}

impl Drop for AsyncListener {
    fn drop(&mut self) {
        // A process that an application has forked may have the descriptor too, and would keep the address in use.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// A TCP connection. One part of a task may read from it while another part writes to it.
///
/// Dropping it ends the connection in both directions.
pub struct AsyncStream(net::TcpStream);

impl AsyncStream {
    /// Connects to an address within a time.
    ///
    /// # Errors
    ///
    /// If the peer refuses the connection or does not accept it in time.
    pub async fn connect(address: SocketAddr, within: Duration) -> io::Result<AsyncStream> {
        let connected = timeout(within, net::TcpStream::connect(address)).await;
        connected.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into())).map(AsyncStream)
    }

    /// Returns the first byte that the peer has sent, without taking it, or `None` if the peer has ended its direction.
    ///
    /// # Errors
    ///
    /// If the connection has ended.
    pub async fn peek(&self) -> io::Result<Option<u8>> {
        let mut first = [0];
        let len = self.0.peek(&mut first).await?;
        Ok((len > 0).then_some(first[0]))
    }

    /// Returns the address of the peer.
    ///
    /// # Errors
    ///
    /// If the connection has ended.
    pub fn peer_address(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }

    /// Ends one direction or both. Bytes that were written before are still sent.
    pub fn shut_down(&self, directions: Shutdown) {
        // This fails only if the connection has ended already.
        let _ = SockRef::from(self).shutdown(directions);
    }
}

impl Drop for AsyncStream {
    fn drop(&mut self) {
        // A process that an application has forked may have the descriptor too, and would keep the connection open.
        self.shut_down(Shutdown::Both);
    }
}

impl AsFd for AsyncStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsyncRead for &AsyncStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read(buffer) {
                // The attempt has cleared the readiness.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl AsyncWrite for &AsyncStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(bytes) {
                // The attempt has cleared the readiness.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write_vectored(buffers) {
                // The attempt has cleared the readiness.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut_down(Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}
