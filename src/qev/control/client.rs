//! Connections that the control executor opens to other servers, with or without TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::ReadBufCursor;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::ReadBuf;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tcp::AsyncStream;
use super::timeout;

/// The size of a read in bytes.
const READ_BYTES: usize = 4 * 1024;

/// A connection to another server. It has the traits of hyper.
pub enum ClientStream {
    /// Without TLS.
    Plain(AsyncStream),
    /// With TLS, after its handshake.
    Tls(Box<TlsStream<AsyncStream>>),
}

impl ClientStream {
    /// Connects to the first address of a host that accepts the connection, and runs the handshake if there is a
    /// configuration of TLS. All of this must be done within a time.
    ///
    /// # Errors
    ///
    /// The name is unknown, no address accepts the connection, the handshake fails, or the time is over.
    pub async fn connect(
        host: &str,
        port: u16,
        tls: Option<Arc<ClientConfig>>,
        within: Duration,
    ) -> io::Result<ClientStream> {
        let connected = timeout(within, async {
            // An IPv6 address has brackets in the address of a document.
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let stream = connect_to_any(tokio::net::lookup_host((host, port)).await?, within).await?;
            let Some(tls) = tls else { return Ok(ClientStream::Plain(stream)) };
            let name = ServerName::try_from(host.to_owned())
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            let stream = TlsConnector::from(tls).connect(name, stream).await?;
            Ok(ClientStream::Tls(Box::new(stream)))
        });
        connected.await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }
}

async fn connect_to_any(
    addresses: impl Iterator<Item = SocketAddr>,
    within: Duration,
) -> io::Result<AsyncStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match AsyncStream::connect(address, within).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl hyper::rt::Read for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; READ_BYTES];
        let room = buffer.remaining().min(READ_BYTES);
        let mut read = ReadBuf::new(&mut bytes[..room]);
        match self.get_mut() {
            ClientStream::Plain(stream) => {
                ready!(tokio::io::AsyncRead::poll_read(Pin::new(stream), cx, &mut read))?;
            }
            ClientStream::Tls(stream) => {
                ready!(tokio::io::AsyncRead::poll_read(Pin::new(stream), cx, &mut read))?;
            }
        }
        buffer.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            ClientStream::Plain(stream) => tokio::io::AsyncWrite::poll_write(Pin::new(stream), cx, bytes),
            ClientStream::Tls(stream) => tokio::io::AsyncWrite::poll_write(Pin::new(stream), cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ClientStream::Plain(stream) => tokio::io::AsyncWrite::poll_flush(Pin::new(stream), cx),
            ClientStream::Tls(stream) => tokio::io::AsyncWrite::poll_flush(Pin::new(stream), cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ClientStream::Plain(stream) => tokio::io::AsyncWrite::poll_shutdown(Pin::new(stream), cx),
            ClientStream::Tls(stream) => tokio::io::AsyncWrite::poll_shutdown(Pin::new(stream), cx),
        }
    }
}
