//! One connection of the proxy: a thread for each direction, between the client's socket and the server's.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use super::answers::{Answers, Out, Then};
use super::exchange::{Exchange, Expected, Tunnel};
use super::refusal::Refusal;
use super::requests::{Found, Requests};
use super::{Modes, STACK_BYTES, Times, mangle};
use crate::limits::{
    MANGLER_BUFFER_BYTES, MANGLER_CONNECT_WAIT, MANGLER_KEEPALIVE, MANGLER_KEEPALIVE_PROBES,
};

/// The pause between two questions whether a peer is still there.
const KEEPALIVE_PAUSE: Duration = Duration::from_secs(10);

/// The sockets of one connection.
#[derive(Debug)]
pub(super) struct Link {
    client: TcpStream,
    peer: SocketAddr,
    server: OnceLock<TcpStream>,
}

impl Link {
    pub(super) fn new(client: TcpStream, peer: SocketAddr) -> Link {
        Link { client, peer, server: OnceLock::new() }
    }

    /// Connects to the server, as the other end of this connection.
    pub(super) fn connect(&self, server: SocketAddr, times: Times) -> io::Result<&TcpStream> {
        let stream = TcpStream::connect_timeout(&server, MANGLER_CONNECT_WAIT)?;
        prepare(&self.client)?;
        prepare(&stream)?;
        self.client.set_write_timeout(Some(times.stall))?;
        Ok(self.server.get_or_init(|| stream))
    }

    /// Ends both sides, and so wakes whoever reads from them or writes to them.
    pub(super) fn cut(&self) {
        // A socket that ended before cannot be ended again, and needs not be.
        let _ = self.client.shutdown(Shutdown::Both);
        if let Some(server) = self.server.get() {
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    /// Answers in the server's place, and closes.
    pub(super) fn refuse(&self, refusal: &Refusal) {
        refuse(&self.client, refusal);
    }

    /// Passes bytes in both directions until both have ended.
    pub(super) fn relay(&self, server: &TcpStream, modes: &Modes, times: Times) {
        let exchange = Exchange::default();
        let relay = Relay { link: self, server, exchange: &exchange, modes, times };
        let thread = thread::Builder::new().name("proxy-back".into()).stack_size(STACK_BYTES);
        thread::scope(|scope| match thread.spawn_scoped(scope, || relay.pass_answers()) {
            Ok(_) => relay.pass_requests(),
            Err(error) => {
                tracing::warn!(peer = %self.peer, %error, "the proxy has no thread for a connection")
            }
        });
    }
}

/// Answers on a connection that goes no further, and closes it.
pub(super) fn refuse(client: &TcpStream, refusal: &Refusal) {
    // It fits into the socket's buffer, which is empty; and a client that has gone needs no answer.
    let _ = (&*client).write_all(&refusal.answer());
    let _ = client.shutdown(Shutdown::Write);
}

/// Small writes go out at once, and a peer that vanished without a word is noticed.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(MANGLER_KEEPALIVE).with_interval(KEEPALIVE_PAUSE);
    SockRef::from(stream).set_tcp_keepalive(&keepalive.with_retries(MANGLER_KEEPALIVE_PROBES))
}

/// One connection while it is served. Only [`Relay::pass_requests`] writes to the server, only
/// [`Relay::pass_answers`] to the client.
struct Relay<'a> {
    link: &'a Link,
    server: &'a TcpStream,
    exchange: &'a Exchange,
    modes: &'a Modes,
    times: Times,
}

impl Relay<'_> {
    /// Client to server, up to the client's end.
    fn pass_requests(&self) {
        let mut requests = Requests::default();
        let mut buffer = vec![0; MANGLER_BUFFER_BYTES];
        // What comes when the server takes no more is read and dropped: so the client is not held up, nor its connection
        // reset, before it has read the last answer.
        let mut passes = true;
        loop {
            match read(&self.link.client, &mut buffer) {
                Ok(0) => break,
                Ok(len) => passes = passes && self.pass_request_bytes(&mut requests, &buffer[..len]),
                Err(_) => {
                    self.reset();
                    break;
                }
            }
        }
        if passes {
            self.to_server(requests.rest());
        }
        let _ = self.server.shutdown(Shutdown::Write);
        self.exchange.end_client();
    }

    /// Returns false when nothing more goes to the server.
    fn pass_request_bytes(&self, requests: &mut Requests, mut input: &[u8]) -> bool {
        while !input.is_empty() {
            match self.exchange.tunnel() {
                None => {}
                Some(Tunnel::Pass) => return self.to_server(input),
                Some(Tunnel::Swallow) => return true,
            }
            let (taken, found) = requests.read(input);
            let passes = match found {
                Found::NotYet => true,
                Found::Bytes => self.to_server(&input[..taken]),
                Found::Plain { head, answer } => self.request(&head, answer),
                Found::Upgrade { head, mangle } => self.upgrade(&head, mangle),
                Found::Unknown(kept) => {
                    self.exchange.lose_sight();
                    self.to_server(&kept)
                }
                Found::Refused(refusal) => self.refuse(refusal),
            };
            if !passes {
                return false;
            }
            input = &input[taken..];
        }
        true
    }

    fn request(&self, head: &[u8], answer: Expected) -> bool {
        self.exchange.expect(answer);
        self.to_server(head)
    }

    fn upgrade(&self, head: &[u8], asked: Option<String>) -> bool {
        let Some(mode) = self.modes.choose(asked.as_deref()) else {
            return self.refuse(Refusal::UnknownMode(asked.unwrap_or_default()));
        };
        tracing::info!(peer = %self.link.peer, mode = mode.name(), "an upgrade");
        self.request(&mangle::request(mode, head), Expected::Upgrade(mode))
    }

    fn refuse(&self, refusal: Refusal) -> bool {
        tracing::info!(peer = %self.link.peer, ?refusal, "a request is refused by the proxy");
        self.exchange.refuse(refusal);
        // The other direction sees the server's end, and answers.
        let _ = self.server.shutdown(Shutdown::Both);
        false
    }

    fn to_server(&self, bytes: &[u8]) -> bool {
        let mut server = self.server;
        server.write_all(bytes).is_ok()
    }

    /// Server to client, up to the server's end; then the client has some time for its own.
    fn pass_answers(&self) {
        let mut answers = Answers::default();
        let mut buffer = vec![0; MANGLER_BUFFER_BYTES];
        while let Ok(len @ 1..) = read(self.server, &mut buffer) {
            if !self.pass_answer_bytes(&mut answers, &buffer[..len]) {
                self.reset();
                break;
            }
        }
        // Even a half answer: the client is to see what the server sent.
        let mut last = answers.rest().to_vec();
        if let Some(refusal) = self.exchange.end_server() {
            last.extend(refusal.answer());
        }
        self.to_client(&last);
        let _ = self.link.client.shutdown(Shutdown::Write);
        self.exchange.wait_for_client(self.times.linger);
        self.link.cut();
    }

    /// Returns false when the connection is to be reset: by the mode, or since the client takes no more.
    fn pass_answer_bytes(&self, answers: &mut Answers, mut input: &[u8]) -> bool {
        while !input.is_empty() {
            let step = answers.read(input, || self.exchange.expected());
            let sent = match &step.out {
                Out::Nothing => true,
                Out::Bytes => self.to_client(&input[..step.taken]),
                Out::Head(bytes) => self.to_client(bytes),
            };
            if !sent {
                return false;
            }
            match step.then {
                Then::Nothing => {}
                Then::Answered => self.exchange.answered(),
                Then::Opened(tunnel) => self.exchange.open(tunnel),
                Then::Cut => return false,
            }
            input = &input[step.taken..];
        }
        true
    }

    fn to_client(&self, bytes: &[u8]) -> bool {
        let mut client = &self.link.client;
        client.write_all(bytes).is_ok()
    }

    /// Breaks off both sides: their peers see a reset when the sockets are closed.
    fn reset(&self) {
        for stream in [&self.link.client, self.server] {
            // Where it has gone already it needs no reset.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        self.link.cut();
    }
}

fn read(mut stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
