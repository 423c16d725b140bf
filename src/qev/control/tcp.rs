//! TCP sockets of the control executor.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite, future};
use glommio::net;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::sleep;
use crate::qev::runtime::io_error;

/// The number of connections that the kernel accepts before [`AsyncListener::accept`] takes them: as many as may
/// arrive at the same moment.
const BACKLOG: i32 = 1024;

/// The pause after a failed accept: if no descriptor is free, an immediate retry fails too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A TCP socket that was bound on any thread, for an [`AsyncListener`].
#[derive(Debug)]
pub struct BoundSocket {
    socket: Socket,
    /// The same socket, for glommio.
    twin: Socket,
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
        let address = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok(BoundSocket { twin: socket.try_clone()?, socket, address })
    }

    /// Returns the bound address, with the port that the kernel chose.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A listening TCP socket. Dropping it frees its address at once.
pub struct AsyncListener {
    socket: Socket,
    acceptor: net::TcpListener,
}

impl AsyncListener {
    /// Accepts connections on the executor of the calling task.
    #[must_use]
    pub fn new(bound: BoundSocket) -> AsyncListener {
        // SAFETY: the descriptor is an open listening socket, and only the acceptor owns it.
        let acceptor = unsafe { net::TcpListener::from_raw_fd(bound.twin.into_raw_fd()) };
        AsyncListener { socket: bound.socket, acceptor }
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
        let stream = self.acceptor.accept().await.map(AsyncStream::new).map_err(io_error)?;
        SockRef::from(&stream).set_cloexec(true)?;
        Ok(stream)
    }
}

impl Drop for AsyncListener {
    fn drop(&mut self) {
        // A pending accept in the ring would otherwise keep the socket listening for some time.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// A TCP connection. One part of a task may read from it while another part writes to it.
///
/// Dropping it ends the connection in both directions.
pub struct AsyncStream(RefCell<net::TcpStream>);

impl AsyncStream {
    /// Connects to an address within a time.
    ///
    /// # Errors
    ///
    /// If the peer refuses the connection or does not accept it in time.
    pub async fn connect(address: SocketAddr, within: Duration) -> io::Result<AsyncStream> {
        net::TcpStream::connect_timeout(address, within).await.map(AsyncStream::new).map_err(io_error)
    }

    fn new(stream: net::TcpStream) -> AsyncStream {
        AsyncStream(RefCell::new(stream))
    }

    /// Returns the address of the peer.
    ///
    /// # Errors
    ///
    /// If the connection has ended.
    pub fn peer_address(&self) -> io::Result<SocketAddr> {
        self.0.borrow().peer_addr().map_err(io_error)
    }

    /// Ends one direction or both. Bytes that were written before are still sent.
    pub fn shut_down(&self, directions: Shutdown) {
        // This fails only if the connection has ended already.
        let _ = SockRef::from(self).shutdown(directions);
    }
}

impl Drop for AsyncStream {
    fn drop(&mut self) {
        // A pending poll in the ring keeps the socket open for some time after its descriptor is closed.
        self.shut_down(Shutdown::Both);
    }
}

impl AsFd for AsyncStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: glommio's stream owns the descriptor and keeps it open until it is dropped. It is never moved out
        // of its cell, and is therefore dropped only with `self`, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.0.borrow().as_raw_fd()) }
    }
}

impl AsyncRead for &AsyncStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, buffer)
    }
}

impl AsyncWrite for &AsyncStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut_down(Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}
