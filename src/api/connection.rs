//! One connection of a back end: requests one after the other, answered by hyper, and an orderly close.

use super::service;
use super::{ApiEndpoint, ApiTimes, Shards};
use crate::qev::control::{ServerStream, sleep, timeout};
use futures_lite::{AsyncRead, AsyncWrite, AsyncWriteExt};
use hyper::rt::{ReadBufCursor, Sleep, Timer};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// The maximum size of a request's head in bytes. This is also the smallest buffer that hyper supports.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The size of hyper's buffer for input, which grows with the input.
const BUFFER_BYTES: usize = 64 * 1024;

/// The maximum number of header fields of a request.
const HEADERS_MAX: usize = 64;

/// The size of a read in bytes.
const READ_BYTES: usize = 16 * 1024;

/// The time after our side was closed for the peer to close its own.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Serves one connection to its end.
pub(super) async fn serve<S: Shards>(endpoint: &Rc<ApiEndpoint<S>>, stream: &ServerStream, peer: SocketAddr) {
    let answer =
        service_fn(
            |request| async move { Ok::<_, Infallible>(service::answer(endpoint, peer, request).await) },
        );
    // A request that is not HTTP, or whose head is too large, is answered by hyper, with a status and no body.
    let _ = http1::Builder::new()
        .timer(ControlTimer)
        .header_read_timeout(endpoint.times.head)
        // A peer may close its side after its request.
        .half_close(true)
        .max_buf_size(BUFFER_BYTES)
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .title_case_headers(true)
        .serve_connection(ApiStream::new(stream, endpoint.times.response), answer)
        .await;
    stream.close_in_order(CLOSE_WAIT).await;
}

/// Sends a response without a request, and closes the connection.
pub(super) async fn refuse(times: ApiTimes, mut stream: &ServerStream, refusal: &[u8]) {
    let written = async {
        stream.write_all(refusal).await?;
        stream.flush().await
    };
    // A peer that has disconnected or does not read needs no response.
    let _ = timeout(times.response, written).await;
    stream.close_in_order(CLOSE_WAIT).await;
}

/// A stream with hyper's traits for reading and writing. A write that makes no progress for too long fails.
struct ApiStream<'a> {
    stream: &'a ServerStream,
    write_wait: Duration,
    /// The deadline of the write that waits.
    stalled: Option<Pin<Box<ControlSleep>>>,
}

impl<'a> ApiStream<'a> {
    fn new(stream: &'a ServerStream, write_wait: Duration) -> ApiStream<'a> {
        ApiStream { stream, write_wait, stalled: None }
    }

    /// Returns an error if the write that waits has waited for too long.
    fn check_stall(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let write_wait = self.write_wait;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(ControlSleep::new(write_wait)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl hyper::rt::Read for ApiStream<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; READ_BYTES];
        let room = buffer.remaining().min(READ_BYTES);
        let mut stream = self.stream;
        let len = ready!(Pin::new(&mut stream).poll_read(cx, &mut bytes[..room]))?;
        buffer.put_slice(&bytes[..len]);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for ApiStream<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut stream = self.stream;
        match Pin::new(&mut stream).poll_write(cx, bytes) {
            Poll::Ready(result) => {
                self.stalled = None;
                Poll::Ready(result)
            }
            Poll::Pending => self.check_stall(cx),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = self.stream;
        Pin::new(&mut stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // `close` does this.
        Poll::Ready(Ok(()))
    }
}

/// The timer of hyper on the control executor.
struct ControlTimer;

impl Timer for ControlTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(ControlSleep::new(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(ControlSleep::new(deadline.saturating_duration_since(Instant::now())))
    }
}

/// A time that passes.
struct ControlSleep(Pin<Box<dyn Future<Output = ()> + Send + Sync>>);

impl ControlSleep {
    fn new(duration: Duration) -> ControlSleep {
        ControlSleep(Box::pin(sleep(duration)))
    }
}

impl Future for ControlSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl Sleep for ControlSleep {}
