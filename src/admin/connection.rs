//! One connection: a request, the response by hyper, and an orderly close.
//!
//! A connection carries one request. The time of each step is bounded: a slow or silent peer occupies only its own
//! slot.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use futures_lite::{AsyncRead, AsyncWrite, AsyncWriteExt, future};
use hyper::StatusCode;
use hyper::rt::ReadBufCursor;
use hyper::server::conn::http1;
use hyper::service::service_fn;

use super::{Bounds, Endpoint, Source, pages, reply};
use crate::qev::control::{ServerStream, timeout};

/// The maximum size of a request's head in bytes: Prometheus and browsers send less than 1 KiB. This is also the
/// smallest buffer that hyper supports.
pub(super) const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The maximum number of header fields of a request.
pub(super) const HEADERS_MAX: usize = 64;

/// The size of a read in bytes.
const READ_BYTES: usize = 4 * 1024;

/// The end of the exchange on a connection.
enum Ended {
    /// The exchange is complete, or it failed.
    Served(hyper::Result<()>),
    /// No complete request arrived in time.
    NoRequest,
    /// The response was not created and read in time.
    NoReader,
}

/// Serves one connection to its end.
pub(super) async fn serve<S: Source>(endpoint: &Endpoint<S>, stream: &ServerStream) {
    let progress = Progress::default();
    let refused = match exchange_in_time(endpoint, stream, &progress).await {
        Ended::Served(Err(error)) if error.is_parse_too_large() => {
            Some(reply::refusal(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head too large"))
        }
        Ended::Served(Err(error)) if error.is_parse() => {
            Some(reply::refusal(StatusCode::BAD_REQUEST, "not an HTTP/1.1 request"))
        }
        Ended::Served(_) => None,
        Ended::NoRequest if progress.has_received.get() => {
            Some(reply::refusal(StatusCode::REQUEST_TIMEOUT, "the request did not come in time"))
        }
        Ended::NoRequest | Ended::NoReader => return,
    };
    match refused {
        Some(refusal) => refuse(endpoint.bounds, stream, &refusal).await,
        None => stream.close_in_order(endpoint.bounds.close).await,
    }
}

/// Sends a response without a request, and closes the connection.
pub(super) async fn refuse(bounds: Bounds, mut stream: &ServerStream, refusal: &[u8]) {
    let written = async {
        stream.write_all(refusal).await?;
        stream.flush().await
    };
    // A peer that has disconnected or does not read needs no response.
    let _ = timeout(bounds.response, written).await;
    stream.close_in_order(bounds.close).await;
}

/// The progress of the exchange on a connection.
#[derive(Default)]
struct Progress {
    /// The peer has sent something.
    has_received: Cell<bool>,
    /// The head of a request is complete, and the response is being created or sent.
    has_request: Cell<bool>,
}

/// Runs the exchange within the times for the request and for the response.
async fn exchange_in_time<S: Source>(
    endpoint: &Endpoint<S>,
    stream: &ServerStream,
    progress: &Progress,
) -> Ended {
    let mut exchange = pin!(exchange(endpoint, stream, progress));
    let until_request = async {
        // The exchange sets this, and is polled first.
        future::poll_fn(|_| if progress.has_request.get() { Poll::Ready(()) } else { Poll::Pending }).await;
        None
    };
    let begun = future::or(async { Some(exchange.as_mut().await) }, until_request);
    match timeout(endpoint.bounds.request, begun).await {
        None => Ended::NoRequest,
        Some(Some(served)) => Ended::Served(served),
        Some(None) => {
            timeout(endpoint.bounds.response, exchange).await.map_or(Ended::NoReader, Ended::Served)
        }
    }
}

async fn exchange<S: Source>(
    endpoint: &Endpoint<S>,
    stream: &ServerStream,
    progress: &Progress,
) -> hyper::Result<()> {
    let answer = service_fn(|request| async move {
        progress.has_request.set(true);
        let reply = match endpoint.hosts.refuse(&request) {
            Some(refusal) => refusal,
            None => pages::answer(&request, stream.peer_ip(), &endpoint.access, &endpoint.source).await,
        };
        Ok::<_, Infallible>(reply)
    });
    http1::Builder::new()
        .keep_alive(false)
        // A peer may close its side after its request.
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .title_case_headers(true)
        .serve_connection(HyperStream { stream, progress }, answer)
        .await
}

/// A stream with hyper's traits for reading and writing.
///
/// Bytes that hyper writes before there is a request are its own response to input that it could not parse. This
/// response has no body, and is discarded: [`serve`] sends one that describes the problem.
struct HyperStream<'a> {
    stream: &'a ServerStream,
    progress: &'a Progress,
}

impl hyper::rt::Read for HyperStream<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; READ_BYTES];
        let room = buffer.remaining().min(READ_BYTES);
        let mut stream = self.stream;
        let len = ready!(Pin::new(&mut stream).poll_read(cx, &mut bytes[..room]))?;
        if len > 0 {
            self.progress.has_received.set(true);
        }
        buffer.put_slice(&bytes[..len]);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for HyperStream<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.progress.has_request.get() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let mut stream = self.stream;
        Pin::new(&mut stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = self.stream;
        Pin::new(&mut stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // `close` does this, after a refusal.
        Poll::Ready(Ok(()))
    }
}
