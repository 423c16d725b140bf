//! Whole shards under test, without a kernel: they are connected by their mesh, over sockets whose other ends the tests
//! hold.
//!
//! The test kernel is strict. It panics if the real one would fail or act on the wrong connection: on a second send or
//! receive that is in flight for a socket, on closing a socket while an operation on it is in flight, and on closing a
//! socket that does not exist.

use super::kernel::{IoEvent, Kernel, RingOp};
use super::state::{ShardParts, SharedState, State};
use super::{AppCommand, Apps, ControlMessage, Inboxes, Loop};
use crate::app::qio::Qio;
use crate::app::{Application, Command, Error, Post, Registrar, Server};
use crate::config::Config;
use crate::metrics::{Counter, Gauge};
use crate::protocol::websocket::encode;
use crate::protocol::websocket::frame::Opcode;
use crate::protocol::{OHAI, raw};
use crate::qev::buffers::Frame;
use crate::qev::clock::{Clock, ClockHandle};
use crate::qev::inbox::Mailbox;
use crate::qev::mesh::{self, mesh};
use crate::qev::ring::{Descriptor, Errno, FrameBatch, PeerAddress, Token, Wait};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Where a peer's connection is: the shard, and the number of its socket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct At {
    pub shard: usize,
    pub socket: u32,
}

/// An application that is a function.
pub struct App<F>(pub F);

impl<F: Fn(&mut Registrar) -> Result<(), Error> + Send + Sync + 'static> Application for App<F> {
    fn name(&self) -> &str {
        "app"
    }

    fn register(&self, registrar: &mut Registrar) -> Result<(), Error> {
        (self.0)(registrar)
    }
}

/// Some shards, and the clock they all go by.
pub struct World {
    pub shards: Vec<TestShard>,
    pub shared: Arc<SharedState>,
    posted: Arc<Threads>,
    hand: ClockHandle,
}

pub struct TestShard {
    shard: Loop<TestKernel>,
    commands: Mailbox<AppCommand>,
    control: Mailbox<ControlMessage>,
}

/// Messages that an inbox of the tests holds.
const INBOX_MESSAGES: usize = 1 << 16;

/// What was posted from other threads, or by promises that were dropped.
struct Threads(Mutex<Vec<(usize, AppCommand)>>);

impl Post for Threads {
    fn post(&self, app: u32, command: Command) -> Result<(), Command> {
        let shard = command.client().map_or(0, |client| usize::from(client.shard));
        self.0.lock().unwrap().push((shard, AppCommand { app, command }));
        Ok(())
    }
}

impl World {
    pub fn new(shards: usize, apps: Vec<Arc<dyn Application>>) -> World {
        World::with(shards, Config::default(), apps)
    }

    pub fn with(shards: usize, config: Config, apps: Vec<Arc<dyn Application>>) -> World {
        World::with_links(shards, config, apps, 0)
    }

    /// As many places as that are reserved for links to workers.
    pub fn with_links(
        shards: usize,
        config: Config,
        apps: Vec<Arc<dyn Application>>,
        link_places: u32,
    ) -> World {
        let config = Arc::new(config);
        let shared = Arc::new(SharedState::new(&config));
        let (clock, hand) = Clock::manual();
        let posted = Arc::new(Threads(Mutex::default()));
        let own: Arc<dyn Application> = Arc::new(Qio { public_address: None, hostname: "here".into() });
        let apps: Vec<Arc<dyn Application>> = std::iter::once(own).chain(apps).collect();
        let sizes = mesh::MeshSettings {
            ring_messages: config.mesh_ring_messages,
            overflow_messages_max: config.mesh_overflow_messages_max,
        };
        let make = |(id, mut port): (usize, mesh::Port<_>)| {
            let server = Server::new(Arc::clone(&posted) as Arc<dyn Post>);
            let apps = Apps::register(id as u16, server, &apps).unwrap();
            let (config, shared, clock) = (Arc::clone(&config), Arc::clone(&shared), clock.clone());
            let (to_control, control) = port.inbox(INBOX_MESSAGES);
            let (to_commands, app_commands) = port.inbox(INBOX_MESSAGES);
            let parts = ShardParts { id: id as u16, config, shared, port, clock, apps, link_places };
            let kernel = TestKernel { reserved: link_places, ..TestKernel::default() };
            let mut shard = Loop::new(kernel, Inboxes { control, app_commands }, parts);
            shard.state.start_app_timers();
            TestShard { shard, commands: to_commands, control: to_control }
        };
        let shards = mesh(shards, sizes).into_iter().enumerate().map(make).collect();
        World { shards, shared, posted, hand }
    }

    /// A peer connects, and says nothing yet.
    pub fn connect_from(&mut self, shard: usize, peer: PeerAddress) -> At {
        let Loop { kernel, codecs, state, .. } = &mut self.shards[shard].shard;
        let socket = kernel.open();
        state.begin_turn();
        state.accepted(codecs, Descriptor::made_up(socket), peer);
        At { shard, socket }
    }

    pub fn connect(&mut self, shard: usize) -> At {
        self.connect_from(shard, peer("10.0.0.1:1000"))
    }

    /// A raw client, open: what it was sent so far is taken.
    pub fn raw_client(&mut self, shard: usize) -> At {
        let at = self.connect(shard);
        self.turn(shard);
        self.feed(at, OHAI.as_bytes());
        self.settle();
        assert_eq!(self.take_bytes(at), OHAI.as_bytes());
        at
    }

    /// A WebSocket client, open: what it was sent so far is taken.
    pub fn websocket_client(&mut self, shard: usize) -> At {
        let at = self.connect(shard);
        self.turn(shard);
        self.feed(at, UPGRADE);
        self.feed(at, &client_frame(Opcode::Text, OHAI.as_bytes()));
        self.settle();
        let answer = self.take_bytes(at);
        assert!(answer.ends_with(OHAI.as_bytes()), "{}", String::from_utf8_lossy(&answer));
        at
    }

    /// The peer sends bytes. They are received in a turn.
    pub fn feed(&mut self, at: At, bytes: &[u8]) {
        self.socket(at).from_peer.push_back(FromPeer::Bytes(bytes.to_vec()));
    }

    /// A raw client sends an event.
    pub fn say(&mut self, at: At, text: &str) {
        self.feed(at, &raw_text(text));
    }

    /// The peer ends its stream.
    pub fn end_of_stream(&mut self, at: At) {
        self.socket(at).from_peer.push_back(FromPeer::End);
    }

    /// The peer vanishes.
    pub fn reset(&mut self, at: At) {
        self.socket(at).from_peer.push_back(FromPeer::Reset);
    }

    /// Whether the peer reads what it is sent: otherwise sends stay under way.
    pub fn read(&mut self, at: At, reads: bool) {
        self.socket(at).reads = reads;
    }

    /// What the peer was sent since the last call; also where its socket is closed and no other has its number.
    pub fn take_bytes(&mut self, at: At) -> Vec<u8> {
        match self.shards[at.shard].kernel_mut().sockets.get_mut(&at.socket) {
            Some(socket) => std::mem::take(&mut socket.to_peer),
            None => self.shards[at.shard].kernel_mut().last_words.remove(&at.socket).unwrap_or_default(),
        }
    }

    /// The texts that a raw peer was sent since the last call.
    pub fn take_texts(&mut self, at: At) -> Vec<String> {
        let bytes = self.take_bytes(at);
        let (mut texts, mut rest) = (Vec::new(), &bytes[..]);
        while let Some((len, after)) = rest.split_first_chunk() {
            let (text, after) = after.split_at(u64::from_be_bytes(*len) as usize);
            texts.push(String::from_utf8(text.to_vec()).unwrap());
            rest = after;
        }
        assert!(rest.is_empty(), "half a frame");
        texts
    }

    /// The text messages that a WebSocket peer was sent since the last call.
    pub fn take_frames(&mut self, at: At) -> Vec<String> {
        let bytes = self.take_bytes(at);
        let (mut texts, mut rest) = (Vec::new(), &bytes[..]);
        while let [first, len, after @ ..] = rest {
            assert_eq!(*first, 0x81, "a whole text");
            let (len, after) = match (len, after) {
                (126, [high, low, after @ ..]) => (u16::from_be_bytes([*high, *low]).into(), after),
                (len @ ..=125, after) => (usize::from(*len), after),
                _ => panic!("no text of these tests is longer"),
            };
            let (text, after) = after.split_at(len);
            texts.push(String::from_utf8(text.to_vec()).unwrap());
            rest = after;
        }
        texts
    }

    /// Whether the peer has been told the end of the stream.
    pub fn is_ended(&mut self, at: At) -> bool {
        self.is_closed(at) || self.socket(at).write_ended
    }

    /// Whether the server has closed the socket.
    pub fn is_closed(&self, at: At) -> bool {
        !self.shards[at.shard].kernel().sockets.contains_key(&at.socket)
    }

    pub fn socket(&mut self, at: At) -> &mut TestSocket {
        self.shards[at.shard].kernel_mut().sockets.get_mut(&at.socket).expect("the socket is open")
    }

    /// Lets time pass. No turn is taken.
    pub fn advance(&mut self, by: Duration) {
        self.hand.advance(by);
    }

    /// One turn of a shard: its messages, then the events of its kernel.
    pub fn turn(&mut self, shard: usize) {
        for (to, posted) in std::mem::take(&mut *self.posted.0.lock().unwrap()) {
            assert!(self.shards[to].commands.post(posted).is_ok(), "the inbox has room");
        }
        self.shards[shard].turn();
        self.check();
    }

    /// The counts that shards share are the sums of what the shards have.
    fn check(&self) {
        let connections: usize = self.states().map(|state| state.connections.len()).sum();
        assert_eq!(self.shared.clients.used(), connections, "connections of the whole server");
    }

    /// Leaves a message of the server's own for a shard.
    pub fn control(&mut self, shard: usize, message: ControlMessage) {
        assert!(self.shards[shard].control.post(message).is_ok(), "the inbox has room");
    }

    pub fn states(&self) -> impl Iterator<Item = &State> {
        self.shards.iter().map(TestShard::state)
    }

    /// Turns of shards that have something to do, until all of them would sleep.
    pub fn settle(&mut self) {
        let mut left = 10_000;
        while (0..self.shards.len()).any(|shard| self.has_news(shard)) {
            for shard in 0..self.shards.len() {
                if self.has_news(shard) {
                    self.turn(shard);
                }
            }
            left -= 1;
            assert!(left > 0, "the shards never rest");
        }
    }

    /// Whether a shard would not sleep, or would be woken.
    pub fn has_news(&mut self, shard: usize) -> bool {
        let posted = !self.posted.0.lock().unwrap().is_empty();
        let Loop { kernel, inboxes, state, .. } = &mut self.shards[shard].shard;
        state.mesh.ring_doorbells(kernel);
        let wait = state.time.wait(state.shutdown_deadline_ns);
        let sleeps = !state.has_work() && wait != Wait::No && state.mesh.try_sleep();
        state.mesh.awake();
        let has_messages = !inboxes.app_commands.is_empty() || !inboxes.control.is_empty();
        !sleeps || has_messages || kernel.has_events() || posted
    }

    pub fn count(&self, counter: Counter) -> u64 {
        self.states().map(|state| state.metrics.counters.get(counter)).sum()
    }

    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.states().map(|state| state.snapshot().gauges.get(gauge)).sum()
    }

    /// Nothing is left of connections that have ended: no record, no count, no timer.
    #[track_caller]
    pub fn assert_empty(&self) {
        for (id, shard) in self.shards.iter().enumerate() {
            let (state, kernel) = (shard.state(), shard.kernel());
            assert!(state.connections.is_empty(), "shard {id} has {} connections", state.connections.len());
            assert!(
                state.connections.clients() == 0,
                "shard {id} has {} clients",
                state.connections.clients()
            );
            assert!(state.pubsub.subscriptions() == 0 && state.pubsub.paths() == 0, "shard {id}");
            assert!(state.sessions.len() == 0 && !state.connections.has_blocked_sessions(), "shard {id}");
            assert!(kernel.sockets.is_empty(), "shard {id} has sockets {:?}", kernel.sockets.keys());
            assert!(state.ring_ops.is_empty() && !state.has_work(), "shard {id} has work");
            state.check(&shard.shard.codecs);
        }
        assert_eq!((self.shared.clients.used(), self.shared.subscriptions.used()), (0, 0));
        assert_eq!(self.gauge(Gauge::OutboxBytes), 0);
        assert_eq!(self.gauge(Gauge::CallbacksOpen), 0);
    }
}

impl TestShard {
    pub fn state(&self) -> &State {
        &self.shard.state
    }

    pub fn state_mut(&mut self) -> &mut State {
        &mut self.shard.state
    }

    pub fn kernel(&self) -> &TestKernel {
        &self.shard.kernel
    }

    pub fn kernel_mut(&mut self) -> &mut TestKernel {
        &mut self.shard.kernel
    }

    fn turn(&mut self) {
        self.shard.turn().expect("the test kernel never fails");
        let Loop { kernel, codecs, state, .. } = &mut self.shard;
        state.check(codecs);
        state.mesh.ring_doorbells(kernel);
    }
}

/// A kernel that tests made up.
#[derive(Default)]
pub struct TestKernel {
    pub sockets: BTreeMap<u32, TestSocket>,
    /// Numbers from 0 on that no connection is given.
    reserved: u32,
    /// What the peers of closed sockets were sent and nobody has looked at.
    pub last_words: BTreeMap<u32, Vec<u8>>,
    pub accepts_again: usize,
    pub listens_no_more: bool,
    /// Whether shutting down takes until somebody lets it happen: the real one has a thread of its own for that.
    pub shuts_down_late: bool,
}

/// A socket, and the peer at its other end.
#[derive(Default)]
pub struct TestSocket {
    from_peer: VecDeque<FromPeer>,
    to_peer: Vec<u8>,
    reads: bool,
    receive: Option<Token>,
    send: Option<(Token, FrameBatch)>,
    shutdown: Option<Token>,
    write_ended: bool,
    /// The peer has vanished: nothing works any more.
    ended: bool,
    /// What is under way is cancelled.
    cancelled: bool,
}

enum FromPeer {
    Bytes(Vec<u8>),
    End,
    Reset,
}

enum KernelEvent {
    Received(Token, Vec<u8>),
    ReceiveEnded(Token, Result<(), Errno>),
    Sent(Token, Result<(), Errno>, FrameBatch),
    ShutDown(Token),
}

impl TestKernel {
    /// The lowest free number is used again at once, as by the real one.
    fn open(&mut self) -> u32 {
        let socket = (self.reserved..).find(|number| !self.sockets.contains_key(number)).unwrap();
        self.sockets.insert(socket, TestSocket { reads: true, ..TestSocket::default() });
        socket
    }

    fn socket(&mut self, socket: Descriptor) -> &mut TestSocket {
        let number = self.number(socket);
        self.sockets.get_mut(&number).expect("an operation on a socket that is closed")
    }

    fn number(&self, socket: Descriptor) -> u32 {
        (0..).find(|number| Descriptor::made_up(*number) == socket).expect("they are numbered from 0")
    }

    fn close(&mut self, socket: Descriptor) {
        let found = self.socket(socket);
        assert!(found.receive.is_none() && found.send.is_none(), "closed with an operation under way");
        assert!(found.shutdown.is_none(), "closed before it was shut down: its number is used again");
        let number = self.number(socket);
        let closed = self.sockets.remove(&number).expect("it was just looked at");
        self.last_words.insert(number, closed.to_peer);
    }

    fn has_events(&self) -> bool {
        self.sockets.values().any(|socket| socket.has_events(self.shuts_down_late))
    }

    fn take_events(&mut self) -> Vec<KernelEvent> {
        let late = self.shuts_down_late;
        self.sockets.values_mut().flat_map(|socket| socket.take_events(late)).collect()
    }
}

impl TestSocket {
    fn has_events(&self, shuts_down_late: bool) -> bool {
        (self.receive.is_some() && (self.is_over() || !self.from_peer.is_empty()))
            || (self.send.is_some() && (self.reads || self.is_over()))
            || (self.shutdown.is_some() && !shuts_down_late)
    }

    fn take_events(&mut self, shuts_down_late: bool) -> Vec<KernelEvent> {
        let mut events = Vec::new();
        if !shuts_down_late {
            self.shut_down(&mut events);
        }
        if let Some((token, frames)) = self.send.take_if(|_| self.reads || self.ended || self.cancelled) {
            let result = if self.is_over() { Err(Errno(libc::EPIPE)) } else { Ok(()) };
            if result.is_ok() {
                frames.frames().iter().for_each(|frame| self.to_peer.extend_from_slice(frame.as_slice()));
            }
            events.push(KernelEvent::Sent(token, result, frames));
        }
        while let Some(token) = self.receive {
            match self.from_peer.front() {
                _ if self.cancelled => {
                    events.push(KernelEvent::ReceiveEnded(token, Err(Errno(libc::ECANCELED))));
                }
                Some(FromPeer::Bytes(_)) => {
                    let Some(FromPeer::Bytes(bytes)) = self.from_peer.pop_front() else { unreachable!() };
                    events.push(KernelEvent::Received(token, bytes));
                    continue;
                }
                Some(FromPeer::End) => events.push(KernelEvent::ReceiveEnded(token, Ok(()))),
                Some(FromPeer::Reset) => {
                    self.ended = true;
                    events.push(KernelEvent::ReceiveEnded(token, Err(Errno(libc::ECONNRESET))));
                }
                None if self.ended => events.push(KernelEvent::ReceiveEnded(token, Ok(()))),
                None => break,
            }
            self.receive = None;
        }
        self.cancelled = false;
        events
    }

    fn is_used_with(&self, token: Token) -> bool {
        self.receive == Some(token) || self.send.as_ref().is_some_and(|(of_send, _)| *of_send == token)
    }

    fn is_over(&self) -> bool {
        self.ended || self.cancelled
    }

    fn shut_down(&mut self, events: &mut Vec<KernelEvent>) {
        if let Some(token) = self.shutdown.take() {
            self.write_ended = true;
            events.push(KernelEvent::ShutDown(token));
        }
    }
}

impl Kernel for TestKernel {
    fn ring_doorbell(&mut self, _: usize) {}

    fn enter(&mut self, _: Wait) -> io::Result<()> {
        Ok(())
    }

    fn drain(&mut self, mut handle: impl FnMut(IoEvent<'_>)) {
        for event in self.take_events() {
            match event {
                KernelEvent::Received(token, mut data) => {
                    handle(IoEvent::Received { token, data: &mut data, ended: false });
                }
                KernelEvent::ReceiveEnded(token, result) => handle(IoEvent::ReceiveEnded { token, result }),
                KernelEvent::Sent(token, result, frames) => handle(IoEvent::Sent { token, result, frames }),
                KernelEvent::ShutDown(token) => handle(IoEvent::ShutDown { token }),
            }
        }
    }

    fn take_submissions_full(&mut self) -> u64 {
        0
    }

    fn send(&mut self, socket: Descriptor, token: Token, frame: Frame) {
        let socket = self.socket(socket);
        assert!(socket.send.is_none(), "two sends of a socket are under way");
        assert!(!socket.write_ended, "nothing can be sent any more");
        assert!(!frame.is_empty());
        socket.send = Some((token, FrameBatch::One(frame)));
    }

    fn send_gathered(&mut self, socket: Descriptor, token: Token, frames: Vec<Frame>) {
        self.send(socket, token, Frame::joined(&frames));
    }

    fn submit(&mut self, op: RingOp) {
        match op {
            RingOp::Receive(socket, token) => {
                let receive = &mut self.socket(socket).receive;
                assert_eq!(receive.replace(token), None, "two receives of a socket are under way");
            }
            RingOp::ShutDown(socket, token) => {
                let shutdown = &mut self.socket(socket).shutdown;
                assert_eq!(shutdown.replace(token), None, "two shutdowns of a socket are under way");
            }
            RingOp::Cancel { token, sending } => {
                let mut sockets = self.sockets.values_mut();
                if let Some(socket) = sockets.find(|socket| socket.is_used_with(token)) {
                    assert_eq!(
                        socket.send.is_some(),
                        sending,
                        "a send that is not cancelled, or is not there"
                    );
                    socket.cancelled = true;
                }
            }
            RingOp::Discard(socket) => self.close(socket),
            RingOp::Adopt(place, _) => {
                assert!(place < self.reserved, "the kernel may give this place to a connection");
                let socket = TestSocket { reads: true, ..TestSocket::default() };
                assert!(self.sockets.insert(place, socket).is_none(), "the place is taken");
            }
            RingOp::Release(place) => self.close(Descriptor::at(place)),
            RingOp::AcceptAgain => self.accepts_again += 1,
            RingOp::StopListening => self.listens_no_more = true,
        }
    }
}

pub fn peer(address: &str) -> PeerAddress {
    PeerAddress::internet(address.parse::<SocketAddr>().unwrap())
}

/// An event as a raw client sends it.
pub fn raw_text(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    raw::header(&mut bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// A frame as a WebSocket client sends it.
pub fn client_frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::client_frame(&mut bytes, opcode, payload, [1, 2, 3, 4]);
    bytes
}

/// A Close as a WebSocket client sends it.
pub fn client_close(code: u16) -> Vec<u8> {
    client_frame(Opcode::Close, &code.to_be_bytes())
}

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: quickio\r\n\r\n";
