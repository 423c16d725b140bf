//! One connection: a request, its response by hyper, and an orderly close.
//!
//! A connection carries one request. Its time is bounded in each step, so that a peer that is slow or silent holds only
//! its own place.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, future};
use hyper::StatusCode;
use hyper::rt::ReadBufCursor;
use hyper::server::conn::http1;
use hyper::service::service_fn;

use super::{Bounds, Endpoint, Source, pages, reply};
use crate::qev::control::{Stream, timeout};

/// Bytes of a request's head, at most: Prometheus and browsers send less than 1 KiB. It is also the smallest buffer that
/// hyper reads into.
pub(super) const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Header fields of a request, at most.
pub(super) const HEADERS_MAX: usize = 64;

/// Bytes that are read and thrown away after the response, at most.
const DISCARDED_BYTES_MAX: usize = 64 * 1024;

/// Bytes that one read brings to hyper.
const READ_BYTES: usize = 4 * 1024;

/// How the exchange on a connection ended.
enum Ended {
    /// It is complete, or it failed.
    Served(hyper::Result<()>),
    /// No whole request came in time.
    NoRequest,
    /// The response was not made and read in time.
    NoReader,
}

/// Serves one connection to its end.
pub(super) async fn serve<S: Source>(endpoint: &Endpoint<S>, stream: &Stream) {
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
    if let Some(refusal) = refused {
        // A peer that has disconnected, or does not read, needs no answer.
        let _ = timeout(endpoint.bounds.response, { stream }.write_all(&refusal)).await;
    }
    close(endpoint.bounds, stream).await;
}

/// How far the exchange on a connection is.
#[derive(Default)]
struct Progress {
    /// The peer has sent something.
    has_received: Cell<bool>,
    /// The head of a request is whole, and its response is being made or sent.
    has_request: Cell<bool>,
}

/// Runs the exchange. The peer has a time for its request, and then another one for the response.
async fn exchange_in_time<S: Source>(endpoint: &Endpoint<S>, stream: &Stream, progress: &Progress) -> Ended {
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
    stream: &Stream,
    progress: &Progress,
) -> hyper::Result<()> {
    let answer = service_fn(|request| async move {
        progress.has_request.set(true);
        let reply = match endpoint.hosts.refuse(&request) {
            Some(refusal) => refusal,
            None => pages::answer(&request, &endpoint.source).await,
        };
        Ok::<_, Infallible>(reply)
    });
    http1::Builder::new()
        .keep_alive(false)
        // A peer may end its side after its request.
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .title_case_headers(true)
        .serve_connection(HyperStream { stream, progress }, answer)
        .await
}

/// Ends our side, then reads what the peer still sends (the body of its request) until it ends its own: closing a socket
/// with unread bytes resets the connection, and the reset may overtake the response (RFC 9112, section 9.6).
async fn close(bounds: Bounds, mut stream: &Stream) {
    stream.shut_down(Shutdown::Write);
    let discard = async {
        // Not an array: it would be part of the task, which exists as long as its connection.
        let mut scratch = vec![0; READ_BYTES];
        let mut left = DISCARDED_BYTES_MAX;
        while let Ok(len @ 1..) = stream.read(&mut scratch).await {
            left = left.saturating_sub(len);
            if left == 0 {
                break;
            }
        }
    };
    timeout(bounds.close, discard).await;
}

/// A stream as hyper reads and writes it.
///
/// What hyper writes before there is a request is its own response to what it could not parse. It has no body, and is
/// dropped: [`serve`] sends one that says what is wrong.
struct HyperStream<'a> {
    stream: &'a Stream,
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

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // `close` does it, after a refusal.
        Poll::Ready(Ok(()))
    }
}
