//! The server's side of TLS on the control executor, by tokio-rustls.

use super::tcp::AsyncStream;
use super::timeout;
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use rustls::ServerConfig;
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Shutdown};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::ReadBuf;
use tokio_rustls::server::TlsStream;

/// The type of the records that a handshake consists of (RFC 8446, section 5.1), which is the first byte of a connection.
const HANDSHAKE: u8 = 22;

/// The maximum number of bytes that are read and discarded while the peer has not closed its side.
const DISCARDED_BYTES_MAX: usize = 64 * 1024;

/// The size of such a read in bytes.
const DISCARD_BYTES: usize = 4 * 1024;

/// The configuration of TLS for the listeners of an executor. Any thread may replace it. A clone is another handle of it.
#[derive(Clone, Debug)]
pub struct TlsAcceptor(Arc<Mutex<Arc<ServerConfig>>>);

/// The reason why a connection did not complete its handshake.
pub enum HandshakeError {
    /// The connection does not begin with a handshake. It can be answered without TLS.
    NotTls(ServerStream),
    /// The peer, or its certificate, was refused, or it has ended the connection.
    Failed(io::Error),
}

impl TlsAcceptor {
    /// Begins with this configuration.
    #[must_use]
    pub fn new(config: Arc<ServerConfig>) -> TlsAcceptor {
        TlsAcceptor(Arc::new(Mutex::new(config)))
    }

    /// Replaces the configuration for handshakes that begin from now on.
    pub fn set(&self, config: Arc<ServerConfig>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// Runs the handshake of a connection. The caller bounds its time.
    ///
    /// # Errors
    ///
    /// If the connection does not begin with a handshake, or if the handshake fails.
    pub async fn accept(&self, stream: AsyncStream) -> Result<ServerStream, HandshakeError> {
        if stream.peek().await.map_err(HandshakeError::Failed)? != Some(HANDSHAKE) {
            return Err(HandshakeError::NotTls(ServerStream::Plain(stream)));
        }
        let config = Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let accepted = tokio_rustls::TlsAcceptor::from(config).accept(stream).await;
        accepted
            .map(|stream| ServerStream::Tls(Box::new(RefCell::new(stream))))
            .map_err(HandshakeError::Failed)
    }
}

/// A connection that a client has opened, with or without TLS.
pub enum ServerStream {
    /// Without TLS.
    Plain(AsyncStream),
    /// With TLS, after its handshake.
    Tls(Box<RefCell<TlsStream<AsyncStream>>>),
}

impl ServerStream {
    /// Returns the IP address of the peer, or `None` if the connection has ended.
    pub fn peer_ip(&self) -> Option<IpAddr> {
        let address = match self {
            ServerStream::Plain(stream) => stream.peer_address(),
            ServerStream::Tls(stream) => stream.borrow().get_ref().0.peer_address(),
        };
        address.ok().map(|address| address.ip())
    }

    /// Closes our side, then reads what the peer still sends until it closes its own, for a time and up to 64 KiB. Closing a
    /// socket with unread bytes resets the connection, and the reset may overtake the response (RFC 9112, section 9.6).
    pub async fn close_in_order(&self, wait: Duration) {
        let mut stream = self;
        let discard = async {
            // This fails only if the connection has ended already.
            let _ = stream.close().await;
            // An array would be part of the task, and would use memory during the whole connection.
            let mut scratch = vec![0; DISCARD_BYTES];
            let mut left = DISCARDED_BYTES_MAX;
            while let Ok(len @ 1..) = stream.read(&mut scratch).await {
                left = left.saturating_sub(len);
                if left == 0 {
                    break;
                }
            }
        };
        timeout(wait, discard).await;
    }
}

impl AsyncRead for &ServerStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match *self {
            ServerStream::Plain(stream) => Pin::new(&mut { stream }).poll_read(cx, buffer),
            ServerStream::Tls(stream) => {
                let mut buffer = ReadBuf::new(buffer);
                let mut stream = stream.borrow_mut();
                ready!(tokio::io::AsyncRead::poll_read(Pin::new(&mut *stream), cx, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            }
        }
    }
}

impl AsyncWrite for &ServerStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match *self {
            ServerStream::Plain(stream) => Pin::new(&mut { stream }).poll_write(cx, bytes),
            ServerStream::Tls(stream) => {
                tokio::io::AsyncWrite::poll_write(Pin::new(&mut *stream.borrow_mut()), cx, bytes)
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {
            ServerStream::Plain(stream) => Pin::new(&mut { stream }).poll_flush(cx),
            ServerStream::Tls(stream) => {
                tokio::io::AsyncWrite::poll_flush(Pin::new(&mut *stream.borrow_mut()), cx)
            }
        }
    }

    /// Ends the direction to the peer, with the alert `close_notify` if there is TLS.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {
            ServerStream::Plain(stream) => Pin::new(&mut { stream }).poll_close(cx),
            ServerStream::Tls(stream) => {
                tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut *stream.borrow_mut()), cx)
            }
        }
    }
}

impl tokio::io::AsyncRead for AsyncStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut stream = &*self;
        let len = ready!(AsyncRead::poll_read(Pin::new(&mut stream), cx, buffer.initialize_unfilled()))?;
        buffer.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for AsyncStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut stream = &*self;
        AsyncWrite::poll_write(Pin::new(&mut stream), cx, bytes)
    }

    /// Writes several buffers at once. After a handshake that has failed, tokio-rustls tries to write once: without this,
    /// it would write the ServerHello, and not the alert behind it.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut stream = &*self;
        AsyncWrite::poll_write_vectored(Pin::new(&mut stream), cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut_down(Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}
