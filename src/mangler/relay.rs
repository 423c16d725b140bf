//! One connection of the proxy: relays in both directions between the client's socket and the server's.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use socket2::{SockRef, TcpKeepalive};

use super::exchange::{Exchange, ExpectedResponse, Tunnel};
use super::refusal::ProxyRefusal;
use super::requests::{RequestEvent, RequestParser};
use super::responses::{ClientOutput, ResponseEvent, ResponseParser};
use super::{Proxy, edits};
use crate::limits::{
    MANGLER_BUFFER_BYTES, MANGLER_CONNECT_WAIT, MANGLER_KEEPALIVE, MANGLER_KEEPALIVE_PROBES,
};
use crate::log::throttle;
use crate::qev::control::{AsyncStream, timeout};

/// The pause between two keep-alive probes.
const KEEPALIVE_PAUSE: Duration = Duration::from_secs(10);

/// Connects to the server, as the other end of a client's connection.
pub(super) async fn connect(client: &AsyncStream, server: SocketAddr) -> io::Result<AsyncStream> {
    let server = AsyncStream::connect(server, MANGLER_CONNECT_WAIT).await?;
    for stream in [client, &server] {
        // Small writes are sent at once, and a peer that vanishes without a word is noticed.
        let keepalive = TcpKeepalive::new().with_time(MANGLER_KEEPALIVE).with_interval(KEEPALIVE_PAUSE);
        SockRef::from(stream).set_tcp_nodelay(true)?;
        SockRef::from(stream).set_tcp_keepalive(&keepalive.with_retries(MANGLER_KEEPALIVE_PROBES))?;
    }
    Ok(server)
}

/// Responds on a connection that is not relayed, and ends it.
pub(super) async fn refuse(mut client: &AsyncStream, refusal: &ProxyRefusal) {
    // It fits into the socket's buffer, which is empty. A client that has disconnected needs no response.
    let _ = future::poll_once(client.write_all(&refusal.response())).await;
    client.shut_down(Shutdown::Write);
}

/// Relays bytes in both directions until both have ended.
pub(super) async fn relay(proxy: &Proxy, client: &AsyncStream, server: &AsyncStream, peer: SocketAddr) {
    let relay = RelayedConnection { proxy, client, server, peer, exchange: Exchange::default() };
    future::zip(relay.relay_requests(), relay.relay_responses()).await;
}

/// One connection while it is relayed. Only [`RelayedConnection::relay_requests`] writes to the server, and only
/// [`RelayedConnection::relay_responses`] to the client.
struct RelayedConnection<'a> {
    proxy: &'a Proxy,
    client: &'a AsyncStream,
    server: &'a AsyncStream,
    peer: SocketAddr,
    exchange: Exchange,
}

impl RelayedConnection<'_> {
    /// Relays from client to server, until the client ends.
    async fn relay_requests(&self) {
        let mut requests = RequestParser::default();
        let mut buffer = vec![0; MANGLER_BUFFER_BYTES];
        // Bytes that arrive after the server has ended are read and dropped. This way the client is not held up, and
        // its connection is not reset before it has read the last response.
        let mut passes = true;
        loop {
            match read(self.client, &mut buffer).await {
                Ok(0) => break,
                Ok(len) => {
                    passes = passes && self.relay_request_bytes(&mut requests, &buffer[..len]).await;
                }
                Err(_) => {
                    self.reset();
                    break;
                }
            }
        }
        if passes {
            self.to_server(requests.rest()).await;
        }
        self.server.shut_down(Shutdown::Write);
        self.exchange.end_client();
    }

    /// Returns `false` if nothing more goes to the server.
    async fn relay_request_bytes(&self, requests: &mut RequestParser, mut input: &[u8]) -> bool {
        while !input.is_empty() {
            match self.exchange.tunnel().await {
                None => {}
                Some(Tunnel::Pass) => return self.to_server(input).await,
                Some(Tunnel::Swallow) => return true,
            }
            let (consumed, event) = requests.read(input);
            let passes = match event {
                RequestEvent::Incomplete => true,
                RequestEvent::Bytes => self.to_server(&input[..consumed]).await,
                RequestEvent::Plain { head, response } => self.relay_head(&head, response).await,
                RequestEvent::Upgrade { head, mangle } => self.relay_upgrade(&head, mangle).await,
                RequestEvent::Unknown(held) => {
                    self.exchange.stop_examining();
                    self.to_server(&held).await
                }
                RequestEvent::Refused(refusal) => self.refuse_request(refusal).await,
            };
            if !passes {
                return false;
            }
            input = &input[consumed..];
        }
        true
    }

    async fn relay_head(&self, head: &[u8], response: ExpectedResponse) -> bool {
        self.exchange.expect(response).await;
        self.to_server(head).await
    }

    async fn relay_upgrade(&self, head: &[u8], chosen: Option<String>) -> bool {
        let Some(mode) = self.proxy.modes.choose(chosen.as_deref()) else {
            return self.refuse_request(ProxyRefusal::UnknownMode(chosen.unwrap_or_default())).await;
        };
        throttle!(info, mode.name(), peer = %self.peer, mode = mode.name(), "upgrade received");
        self.relay_head(&edits::request(mode, head), ExpectedResponse::Upgrade(mode)).await
    }

    async fn refuse_request(&self, refusal: ProxyRefusal) -> bool {
        throttle!(info, "refusal of the proxy", peer = %self.peer, ?refusal, "the proxy refuses a request");
        self.exchange.refuse(refusal).await;
        // The other direction sees the server's end, and responds.
        self.server.shut_down(Shutdown::Both);
        false
    }

    async fn to_server(&self, bytes: &[u8]) -> bool {
        let mut server = self.server;
        server.write_all(bytes).await.is_ok()
    }

    /// Relays from server to client, until the server ends. Then the client has some time for its own end.
    async fn relay_responses(&self) {
        let mut responses = ResponseParser::default();
        let mut buffer = vec![0; MANGLER_BUFFER_BYTES];
        while let Ok(len @ 1..) = read(self.server, &mut buffer).await {
            if !self.relay_response_bytes(&mut responses, &buffer[..len]).await {
                self.reset();
                break;
            }
        }
        // An incomplete head passes too: the client is to see everything that the server sent.
        let mut last = responses.rest().to_vec();
        if let Some(refusal) = self.exchange.end_server() {
            last.extend(refusal.response());
        }
        self.to_client(&last).await;
        self.client.shut_down(Shutdown::Write);
        self.exchange.wait_for_client(self.proxy.patience.linger).await;
        self.end();
    }

    /// Returns `false` if the connection has to be reset: because the mode says so, or because the client reads no
    /// more.
    async fn relay_response_bytes(&self, responses: &mut ResponseParser, mut input: &[u8]) -> bool {
        while !input.is_empty() {
            let step = responses.read(input, || self.exchange.expected());
            let sent = match &step.output {
                ClientOutput::Nothing => true,
                ClientOutput::Bytes => self.to_client(&input[..step.consumed]).await,
                ClientOutput::Head(bytes) => self.to_client(bytes).await,
            };
            if !sent {
                return false;
            }
            match step.event {
                ResponseEvent::None => {}
                ResponseEvent::Complete => self.exchange.complete_response(),
                ResponseEvent::Upgraded(tunnel) => self.exchange.open_tunnel(tunnel),
                ResponseEvent::Cut => return false,
            }
            input = &input[step.consumed..];
        }
        true
    }

    /// Returns `false` if the client has ended, or reads nothing for too long.
    async fn to_client(&self, mut bytes: &[u8]) -> bool {
        let mut client = self.client;
        while !bytes.is_empty() {
            match timeout(self.proxy.patience.stall, client.write(bytes)).await {
                Some(Ok(len @ 1..)) => bytes = &bytes[len..],
                _ => return false,
            }
        }
        true
    }

    /// Resets both connections: the peers see the reset when the sockets are closed.
    fn reset(&self) {
        for stream in [self.client, self.server] {
            // A connection that has ended already needs no reset.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        self.end();
    }

    /// Ends both connections, which wakes the direction that reads from them or writes to them.
    fn end(&self) {
        self.client.shut_down(Shutdown::Both);
        self.server.shut_down(Shutdown::Both);
    }
}

async fn read(mut stream: &AsyncStream, buffer: &mut [u8]) -> io::Result<usize> {
    // A fast peer must not keep other tasks, or the other direction, from running.
    future::yield_now().await;
    stream.read(buffer).await
}
