//! The harness of the shard tests: complete shards on a simulated kernel, connected by their real mesh. The tests hold
//! the other ends of the sockets.
//!
//! The test kernel is strict. It panics if the real kernel would fail or act on the wrong connection: if a socket gets
//! a second send or receive while the first is in flight, if a socket is closed while an operation on it is in flight,
//! and if an operation names a socket that does not exist.

use super::kernel::{IoEvent, Kernel, RingOp};
use super::state::{ShardParts, SharedState, State};
use super::{AppCommand, Apps, AuthParts, ControlMessage, Inboxes, Loop};
use crate::api::ApiMessage;
use crate::app::qio::Qio;
use crate::app::{Application, Command, Error, Post, Registrar, Server};
use crate::config::{AuthMode, Config, ListenKind};
use crate::metrics::{Counter, Gauge};
use crate::protocol::testing::Random;
use crate::protocol::websocket::encode;
use crate::protocol::websocket::frame::Opcode;
use crate::protocol::{OHAI, raw};
use crate::qev::buffers::Frame;
use crate::qev::clock::{Clock, ClockHandle};
use crate::qev::inbox::Mailbox;
use crate::qev::mesh::{self, mesh};
use crate::qev::ring::{Descriptor, Errno, FrameBatch, PeerAddress, SendId, Token, Wait};
use crate::tls::TlsContext;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The test's end of a connection, named by the shard and by the number of its socket there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Peer {
    pub shard: usize,
    pub socket: u32,
}

/// An application made of a single registration function.
pub struct FnApp<F>(pub F);

impl<F: Fn(&mut Registrar) -> Result<(), Error> + Send + Sync + 'static> Application for FnApp<F> {
    fn name(&self) -> &str {
        "app"
    }

    fn register(&self, registrar: &mut Registrar) -> Result<(), Error> {
        (self.0)(registrar)
    }
}

/// The shards of a test, their shared state, and the manual clock that all of them follow.
pub struct World {
    pub shards: Vec<TestShard>,
    pub shared: Arc<SharedState>,
    posted: Arc<PostedCommands>,
    clock_handle: ClockHandle,
}

/// A shard on a test kernel, with the senders of its inboxes.
pub struct TestShard {
    shard: Loop<TestKernel>,
    commands: Mailbox<AppCommand>,
    control: Mailbox<ControlMessage>,
    api: Mailbox<ApiMessage>,
}

/// The capacity of an inbox in the tests, in messages.
const INBOX_MESSAGES: usize = 1 << 16;

/// The places of a shard for connections, unless a test asks for another number.
pub const PLACES: u32 = 1 << 20;

/// Commands posted by other threads or by dropped promises, with the shards that they are for.
struct PostedCommands(Mutex<Vec<(usize, AppCommand)>>);

impl Post for PostedCommands {
    fn post(&self, app: u32, command: Command) -> Result<(), Command> {
        let shard = command.client().map_or(0, |client| usize::from(client.shard));
        self.0.lock().unwrap().push((shard, AppCommand { app, command }));
        Ok(())
    }
}

impl World {
    pub fn new(shards: usize, apps: Vec<Arc<dyn Application>>) -> World {
        World::with_config(shards, Config::default(), apps)
    }

    pub fn with_config(shards: usize, config: Config, apps: Vec<Arc<dyn Application>>) -> World {
        World::with_places(shards, config, apps, PLACES, 0)
    }

    /// Creates shards that have places for `places` connections, and `link_places` socket numbers reserved for links to
    /// workers.
    pub fn with_places(
        shards: usize,
        config: Config,
        apps: Vec<Arc<dyn Application>>,
        places: u32,
        link_places: u32,
    ) -> World {
        World::with_listener(shards, config, apps, (places, link_places), (ListenKind::Plain, None))
    }

    /// Creates shards whose listener is of this kind. `places` are those for connections and for links to workers.
    pub fn with_listener(
        shards: usize,
        config: Config,
        apps: Vec<Arc<dyn Application>>,
        (places, link_places): (u32, u32),
        (kind, tls): (ListenKind, Option<TlsContext>),
    ) -> World {
        World::with_parts(shards, config, apps, (places, link_places), (kind, tls, None))
    }

    /// Creates shards whose clients can authenticate with these keys.
    pub fn with_auth(
        shards: usize,
        config: Config,
        apps: Vec<Arc<dyn Application>>,
        auth: AuthParts,
    ) -> World {
        World::with_parts(shards, config, apps, (PLACES, 0), (ListenKind::Plain, None, Some(auth)))
    }

    fn with_parts(
        shards: usize,
        config: Config,
        apps: Vec<Arc<dyn Application>>,
        (places, link_places): (u32, u32),
        (kind, tls, auth): (ListenKind, Option<TlsContext>, Option<AuthParts>),
    ) -> World {
        let config = Arc::new(config);
        let shared = SharedState { tls, ..SharedState::new(&config, places as usize * shards) };
        let shared = Arc::new(shared);
        let (clock, clock_handle) = Clock::manual();
        let posted = Arc::new(PostedCommands(Mutex::default()));
        let message_bytes_max = config.message_bytes_max;
        let has_auth = config.auth != AuthMode::Off;
        let qio = Qio { public_address: None, hostname: "here".into(), has_auth, message_bytes_max };
        let qio: Arc<dyn Application> = Arc::new(qio);
        let apps: Vec<Arc<dyn Application>> = std::iter::once(qio).chain(apps).collect();
        let mesh_settings = mesh::MeshSettings {
            ring_messages: config.mesh_ring_messages,
            overflow_bytes_max: config.mesh_overflow_bytes_max,
        };
        let make = |(id, mut port): (usize, mesh::Port<_>)| {
            let server = Server::new(Arc::clone(&posted) as Arc<dyn Post>);
            let apps = Apps::register(id as u16, server, &apps).unwrap();
            let (config, shared, clock) = (Arc::clone(&config), Arc::clone(&shared), clock.clone());
            let (to_control, control) = port.inbox(INBOX_MESSAGES);
            let (to_commands, app_commands) = port.inbox(INBOX_MESSAGES);
            let (to_api, api) = port.inbox(INBOX_MESSAGES);
            let parts = ShardParts {
                id: id as u16,
                config,
                shared,
                port,
                clock,
                apps,
                auth: auth.clone(),
                places,
                link_places,
            };
            let kernel = TestKernel { places, reserved_places: link_places, ..TestKernel::default() };
            let mut shard = Loop::new(kernel, Inboxes { control, app_commands, api }, parts);
            shard.state.start_app_timers();
            shard.state.start_accepting(vec![kind]);
            TestShard { shard, commands: to_commands, control: to_control, api: to_api }
        };
        let shards = mesh(shards, mesh_settings).into_iter().enumerate().map(make).collect();
        World { shards, shared, posted, clock_handle }
    }

    /// Connects a peer, which sends nothing yet. The shard must have an accept armed for it.
    pub fn connect_from(&mut self, shard: usize, address: PeerAddress) -> Peer {
        self.try_connect_from(shard, address).expect("the shard must accept")
    }

    /// Connects a peer, or returns `None` if the shard has no accept armed: the peer waits in the backlog.
    pub fn try_connect_from(&mut self, shard: usize, address: PeerAddress) -> Option<Peer> {
        let Loop { kernel, codecs, state, .. } = &mut self.shards[shard].shard;
        state.ring_ops.drain(..).for_each(|op| kernel.submit(op));
        kernel.accepts = kernel.accepts.checked_sub(1)?;
        let socket = kernel.open();
        state.begin_turn();
        state.accepted(codecs, 0, Descriptor::made_up(socket), address);
        Some(Peer { shard, socket })
    }

    pub fn connect(&mut self, shard: usize) -> Peer {
        self.connect_from(shard, address("10.0.0.1:1000"))
    }

    /// Connects a raw client, completes its handshake, and discards the server's output up to then.
    pub fn connect_raw(&mut self, shard: usize) -> Peer {
        let peer = self.connect(shard);
        self.turn(shard);
        self.send_bytes(peer, OHAI.as_bytes());
        self.run_until_idle();
        assert_eq!(self.take_bytes(peer), OHAI.as_bytes());
        peer
    }

    /// Connects a WebSocket client, completes its handshake, and discards the server's output up to then.
    pub fn connect_websocket(&mut self, shard: usize) -> Peer {
        let peer = self.connect(shard);
        self.turn(shard);
        self.send_bytes(peer, UPGRADE);
        self.send_bytes(peer, &client_frame(Opcode::Text, OHAI.as_bytes()));
        self.run_until_idle();
        let output = self.take_bytes(peer);
        assert!(output.ends_with(OHAI.as_bytes()), "{}", String::from_utf8_lossy(&output));
        peer
    }

    /// Sends bytes from a peer. The shard receives them in a later turn.
    pub fn send_bytes(&mut self, peer: Peer, bytes: &[u8]) {
        self.socket(peer).input.push_back(PeerInput::Bytes(bytes.to_vec()));
    }

    /// Sends an event from a raw client. The shard receives it in a later turn.
    pub fn send_event(&mut self, peer: Peer, text: &str) {
        self.send_bytes(peer, &raw_message(text));
    }

    /// Ends the stream of bytes from a peer. The peer can still receive.
    pub fn end_stream(&mut self, peer: Peer) {
        self.socket(peer).input.push_back(PeerInput::End);
    }

    /// Resets a connection from the peer's end: nothing can be sent or received any more.
    pub fn reset(&mut self, peer: Peer) {
        self.socket(peer).input.push_back(PeerInput::Reset);
    }

    /// Sets whether a peer reads. While it does not read, sends to it do not complete.
    pub fn set_reading(&mut self, peer: Peer, reads: bool) {
        self.socket(peer).reads = reads;
    }

    /// Has a peer that does not read otherwise read a part of what is being sent to it.
    pub fn read_a_part(&mut self, peer: Peer) {
        self.socket(peer).progresses = true;
    }

    /// Takes the bytes sent to a peer since the last call. If its socket has been closed, they can be taken until
    /// another socket with the same number is closed.
    pub fn take_bytes(&mut self, peer: Peer) -> Vec<u8> {
        match self.shards[peer.shard].kernel_mut().sockets.get_mut(&peer.socket) {
            Some(socket) => std::mem::take(&mut socket.output),
            None => {
                self.shards[peer.shard].kernel_mut().unread_output.remove(&peer.socket).unwrap_or_default()
            }
        }
    }

    /// Takes the messages sent to a raw client since the last call.
    pub fn take_raw_messages(&mut self, peer: Peer) -> Vec<String> {
        raw_texts(&self.take_bytes(peer))
    }

    /// Takes the text messages sent to a WebSocket client since the last call.
    pub fn take_websocket_messages(&mut self, peer: Peer) -> Vec<String> {
        websocket_texts(&self.take_bytes(peer))
    }

    /// Returns whether the server has ended its stream of bytes to a peer.
    pub fn is_stream_ended(&mut self, peer: Peer) -> bool {
        self.is_closed(peer) || self.socket(peer).write_ended
    }

    /// Returns whether the server has closed the socket.
    pub fn is_closed(&self, peer: Peer) -> bool {
        !self.shards[peer.shard].kernel().sockets.contains_key(&peer.socket)
    }

    pub fn socket(&mut self, peer: Peer) -> &mut TestSocket {
        self.shards[peer.shard].kernel_mut().sockets.get_mut(&peer.socket).expect("the socket must be open")
    }

    /// Advances the clock without running any turn.
    pub fn advance(&mut self, by: Duration) {
        self.clock_handle.advance(by);
    }

    /// Advances the clock second by second, and runs the shards until they are idle after each second.
    pub fn run_seconds(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.advance(Duration::from_secs(1));
            self.run_until_idle();
        }
    }

    /// Runs one turn of a shard, after the commands posted so far have been delivered to the inboxes.
    pub fn turn(&mut self, shard: usize) {
        for (to, command) in std::mem::take(&mut *self.posted.0.lock().unwrap()) {
            assert!(self.shards[to].commands.post(command).is_ok(), "the inbox must have room");
        }
        self.shards[shard].turn();
        self.check();
    }

    /// Asserts that the shared count of connections equals the sum over the shards.
    fn check(&self) {
        let path_bytes: usize = self.states().map(|state| state.pubsub.path_bytes()).sum();
        assert_eq!(self.shared.path_bytes.used(), path_bytes, "bytes of paths of the whole server");
        let connections = self.states().flat_map(|state| state.connections.iter());
        let connections = connections.filter(|(_, connection)| connection.is_counted()).count();
        assert_eq!(self.shared.clients.used(), connections, "connections of the whole server");
        let sessions: usize = self.states().map(|state| state.sessions.len()).sum();
        assert_eq!(self.shared.sessions.used(), sessions, "sessions of the whole server");
    }

    /// Posts a command as a thread of an application does.
    pub fn post_command(&mut self, shard: usize, command: Command) {
        assert!(
            self.shards[shard].commands.post(AppCommand { app: 0, command }).is_ok(),
            "the inbox must have room"
        );
    }

    /// Posts a message of the server API to a shard.
    pub fn post_api(&mut self, shard: usize, message: ApiMessage) {
        assert!(self.shards[shard].api.post(message).is_ok(), "the inbox must have room");
    }

    /// Posts a control message to a shard.
    pub fn send_control(&mut self, shard: usize, message: ControlMessage) {
        assert!(self.shards[shard].control.post(message).is_ok(), "the inbox must have room");
    }

    pub fn states(&self) -> impl Iterator<Item = &State> {
        self.shards.iter().map(TestShard::state)
    }

    /// Runs turns of the shards that have work, until all shards would sleep.
    pub fn run_until_idle(&mut self) {
        let mut rounds_left = 10_000;
        while (0..self.shards.len()).any(|shard| self.is_runnable(shard)) {
            for shard in 0..self.shards.len() {
                if self.is_runnable(shard) {
                    self.turn(shard);
                }
            }
            rounds_left -= 1;
            assert!(rounds_left > 0, "the shards never become idle");
        }
    }

    /// Returns whether a shard would run a turn now: it would not sleep, or something would wake it.
    pub fn is_runnable(&mut self, shard: usize) -> bool {
        let posted = !self.posted.0.lock().unwrap().is_empty();
        let Loop { kernel, inboxes, state, .. } = &mut self.shards[shard].shard;
        state.mesh.ring_doorbells(kernel);
        let wait = state.time.wait(state.shutdown_deadline_ns);
        let sleeps = !state.has_work() && wait != Wait::No && state.mesh.try_sleep();
        state.mesh.awake();
        let has_messages =
            inboxes.app_commands.has_work() || inboxes.api.has_work() || !inboxes.control.is_empty();
        !sleeps || has_messages || kernel.has_events() || posted
    }

    pub fn counter(&self, counter: Counter) -> u64 {
        self.states().map(|state| state.snapshot().counters.get(counter)).sum()
    }

    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.states().map(|state| state.snapshot().gauges.get(gauge)).sum()
    }

    /// Asserts that nothing is left of connections that have ended: no record, no count, no work.
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
            assert_eq!(state.pubsub.subscriptions(), 0, "shard {id} has subscriptions");
            // At a shutdown, shards do not tell each other that they have no subscribers any more.
            assert!(state.pubsub.paths() == 0 || state.is_shutting_down(), "shard {id} has paths");
            assert!(
                state.recoveries.len() == 0 && state.replays.questions.is_empty(),
                "shard {id} has recoveries"
            );
            assert!(state.sessions.len() == 0 && !state.connections.has_blocked_sessions(), "shard {id}");
            assert!(kernel.sockets.is_empty(), "shard {id} has sockets {:?}", kernel.sockets.keys());
            assert!(state.ring_ops.is_empty() && !state.has_work(), "shard {id} has work");
            state.check(&shard.shard.codecs);
        }
        assert_eq!((self.shared.clients.used(), self.shared.subscriptions.used()), (0, 0));
        assert_eq!(self.shared.path_bytes.used(), 0);
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

/// A simulated kernel.
#[derive(Default)]
pub struct TestKernel {
    pub sockets: BTreeMap<u32, TestSocket>,
    /// The socket numbers below this one are for links to workers; connections do not get them.
    reserved_places: u32,
    /// Bytes sent on sockets that have since been closed, by socket number, which no test has taken yet.
    pub unread_output: BTreeMap<u32, Vec<u8>>,
    /// The number of sockets that there may be besides the reserved ones.
    places: u32,
    /// The accepts that are armed.
    pub accepts: usize,
    pub has_stopped_listening: bool,
    /// `true` while shutdowns stay pending. The real kernel executes them on a thread of its own.
    pub delays_shutdowns: bool,
    /// If set, receives end now and then behind bytes or for lack of buffers, and what was received of some connections is
    /// deferred to the next turn.
    pub irregular: Option<Random>,
    /// The number of connections whose input is handed over in one turn; 0: all.
    pub heard_per_turn: usize,
    /// The sockets that have become ready, in order, and marks between them. Used only if not all are handed over.
    ready: VecDeque<Option<u32>>,
    /// `true` while there is no buffer to receive into.
    pub lacks_buffers: bool,
    /// `true` while each receive ends behind the first bytes, as if there were no room for more completions. Used only if
    /// not all input is handed over.
    pub ends_receives: bool,
    /// Events of receives that were deferred, and a mark behind them. The shard gets them before the others of the next turn.
    deferred: Vec<TestEvent>,
    /// `true` if a mark was set, and was not reported.
    is_marked: bool,
}

/// A socket, and the state of the peer at its other end.
#[derive(Default)]
pub struct TestSocket {
    /// Input from the peer that the shard has not received yet.
    input: VecDeque<PeerInput>,
    /// Output that the peer has received and no test has taken yet.
    output: Vec<u8>,
    /// `true` if the peer reads.
    reads: bool,
    /// `true` if the peer has read a part of what is being sent to it, which completes later.
    progresses: bool,
    receive: Option<Token>,
    /// The wait for input in flight.
    await_input: Option<Token>,
    send: Option<(Token, FrameBatch)>,
    shutdown: Option<Token>,
    write_ended: bool,
    /// `true` if the peer has reset the connection. All operations fail from then on.
    is_reset: bool,
    /// `true` if the operations in flight have been cancelled.
    cancelled: bool,
    /// `true` if the receive or the wait for input in flight has been cancelled.
    receive_cancelled: bool,
}

/// Input from a peer.
enum PeerInput {
    Bytes(Vec<u8>),
    End,
    Reset,
}

/// A completion that the test kernel reports; the owned form of [`IoEvent`].
enum TestEvent {
    Received { token: Token, bytes: Vec<u8>, ended: bool },
    InputReady(Token),
    ReceiveEnded(Token, Result<(), Errno>),
    Sent(Token, Result<(), Errno>, FrameBatch),
    SendProgressed(Token),
    ShutDown(Token),
    Marked,
}

impl TestKernel {
    /// Opens a socket. It gets the lowest free number, as in the real kernel, so numbers are soon reused.
    fn open(&mut self) -> u32 {
        let socket = (self.reserved_places..).find(|number| !self.sockets.contains_key(number)).unwrap();
        assert!(socket < self.reserved_places + self.places, "an accept was armed, but no place is free");
        self.sockets.insert(socket, TestSocket { reads: true, ..TestSocket::default() });
        socket
    }

    fn socket(&mut self, socket: Descriptor) -> &mut TestSocket {
        let number = self.number(socket);
        self.sockets.get_mut(&number).expect("the socket of an operation must be open")
    }

    fn number(&self, socket: Descriptor) -> u32 {
        (0..).find(|number| Descriptor::made_up(*number) == socket).expect("descriptors are numbered from 0")
    }

    fn close(&mut self, socket: Descriptor) {
        let found = self.socket(socket);
        let waits = found.receive.is_some() || found.await_input.is_some();
        assert!(!waits && found.send.is_none(), "closed while an operation is in flight");
        assert!(
            found.shutdown.is_none(),
            "closed while a shutdown is pending, which could hit a later socket"
        );
        let number = self.number(socket);
        let closed = self.sockets.remove(&number).expect("the socket was found above");
        self.unread_output.insert(number, closed.output);
    }

    fn has_events(&self) -> bool {
        !self.deferred.is_empty()
            || self.is_marked
            || self.ready.contains(&None)
            || self.sockets.values().any(|socket| socket.has_events(self.delays_shutdowns))
    }

    fn take_events(&mut self) -> Vec<TestEvent> {
        let (delays_shutdowns, irregular) = (self.delays_shutdowns, &mut self.irregular);
        let mut events = std::mem::take(&mut self.deferred);
        if self.lacks_buffers {
            events.extend(self.sockets.values_mut().filter_map(TestSocket::fail_without_buffer));
        }
        if self.heard_per_turn > 0 {
            return self.take_some_events();
        }
        for socket in self.sockets.values_mut() {
            events.append(&mut socket.take_events(delays_shutdowns, irregular));
        }
        if std::mem::take(&mut self.is_marked) {
            events.push(TestEvent::Marked);
        }
        let Some(random) = irregular else { return events };
        let mut used_up: Vec<Token> = Vec::new();
        let (deferred, events) = events.into_iter().partition(|event| match event {
            TestEvent::Received { token, .. } if !used_up.contains(token) && random.once_in(6) => {
                used_up.push(*token);
                true
            }
            TestEvent::Received { token, .. } | TestEvent::ReceiveEnded(token, _) => used_up.contains(token),
            TestEvent::Marked => !used_up.is_empty(),
            TestEvent::InputReady(_) => false,
            TestEvent::Sent(..) | TestEvent::SendProgressed(_) | TestEvent::ShutDown(_) => false,
        });
        self.deferred = deferred;
        events
    }

    /// Takes the events of the sockets that have become ready first, and of all sends.
    fn take_some_events(&mut self) -> Vec<TestEvent> {
        self.queue_ready();
        let mut events = Vec::new();
        for _ in 0..self.heard_per_turn {
            match self.ready.pop_front() {
                Some(Some(number)) => {
                    let (socket, ends) = (self.sockets.get_mut(&number), self.ends_receives);
                    let take = |socket: &mut TestSocket| match ends {
                        true => socket.take_first_input(),
                        false => socket.take_events(false, &mut None),
                    };
                    events.extend(socket.into_iter().flat_map(take));
                }
                Some(None) => events.push(TestEvent::Marked),
                None => break,
            }
        }
        for socket in self.sockets.values_mut().filter(|socket| socket.send.is_some()) {
            let input = std::mem::take(&mut socket.input);
            events.append(&mut socket.take_events(false, &mut None));
            socket.input = input;
        }
        events
    }

    /// Queues the sockets that have become ready.
    fn queue_ready(&mut self) {
        for (number, socket) in &self.sockets {
            if socket.has_events(false) && !self.ready.contains(&Some(*number)) {
                self.ready.push_back(Some(*number));
            }
        }
    }
}

impl TestSocket {
    fn has_events(&self, delays_shutdowns: bool) -> bool {
        let waits = self.receive.is_some() || self.await_input.is_some();
        (waits && (self.is_unusable() || self.receive_cancelled || !self.input.is_empty()))
            || (self.send.is_some() && (self.reads || self.progresses || self.is_unusable()))
            || (self.shutdown.is_some() && !delays_shutdowns)
    }

    fn take_events(&mut self, delays_shutdowns: bool, irregular: &mut Option<Random>) -> Vec<TestEvent> {
        let mut events = Vec::new();
        if !delays_shutdowns {
            self.complete_shutdown(&mut events);
        }
        if let (true, Some((token, _))) = (std::mem::take(&mut self.progresses), &self.send) {
            events.push(TestEvent::SendProgressed(*token));
        }
        if let Some((token, frames)) = self.send.take_if(|_| self.reads || self.is_reset || self.cancelled) {
            let result = if self.is_unusable() { Err(Errno(libc::EPIPE)) } else { Ok(()) };
            if result.is_ok() {
                frames.frames().iter().for_each(|frame| self.output.extend_from_slice(frame.as_slice()));
            }
            events.push(TestEvent::Sent(token, result, frames));
        }
        self.complete_await_input(irregular, &mut events);
        while let Some(token) = self.receive {
            let mut happens = |times| irregular.as_mut().is_some_and(|random| random.once_in(times));
            match self.input.front() {
                // What had been received when the kernel got to the cancellation comes before it.
                Some(PeerInput::Bytes(_)) if self.receive_cancelled && happens(2) => {
                    let Some(PeerInput::Bytes(bytes)) = self.input.pop_front() else { unreachable!() };
                    events.push(TestEvent::Received { token, bytes, ended: false });
                    continue;
                }
                _ if self.cancelled || self.receive_cancelled => {
                    events.push(TestEvent::ReceiveEnded(token, Err(Errno(libc::ECANCELED))));
                }
                Some(PeerInput::Bytes(_)) => {
                    if happens(20) {
                        events.push(TestEvent::ReceiveEnded(token, Err(Errno(libc::ENOBUFS))));
                        self.receive = None;
                        break;
                    }
                    let Some(PeerInput::Bytes(bytes)) = self.input.pop_front() else { unreachable!() };
                    let ended = happens(10);
                    events.push(TestEvent::Received { token, bytes, ended });
                    if ended {
                        self.receive = None;
                    }
                    continue;
                }
                Some(PeerInput::End) => events.push(TestEvent::ReceiveEnded(token, Ok(()))),
                Some(PeerInput::Reset) => {
                    self.is_reset = true;
                    events.push(TestEvent::ReceiveEnded(token, Err(Errno(libc::ECONNRESET))));
                }
                None if self.is_reset => events.push(TestEvent::ReceiveEnded(token, Ok(()))),
                None => break,
            }
            self.receive = None;
        }
        self.cancelled = false;
        self.receive_cancelled = false;
        events
    }

    /// Completes a wait for input. If it was cancelled while there is input, either may come first.
    fn complete_await_input(&mut self, irregular: &mut Option<Random>, events: &mut Vec<TestEvent>) {
        let Some(token) = self.await_input else { return };
        let is_ready = self.is_reset || !self.input.is_empty();
        let is_cancelled = self.cancelled || self.receive_cancelled;
        let mut ready_first = || irregular.as_mut().is_some_and(|random| random.once_in(2));
        if is_ready && (!is_cancelled || ready_first()) {
            events.push(TestEvent::InputReady(token));
        } else if is_cancelled {
            events.push(TestEvent::ReceiveEnded(token, Err(Errno(libc::ECANCELED))));
        } else {
            return;
        }
        self.await_input = None;
    }

    /// Takes the events, but only the first piece of input, which ends the receive.
    fn take_first_input(&mut self) -> Vec<TestEvent> {
        let rest = self.input.split_off(self.input.len().min(1));
        let mut events = self.take_events(false, &mut None);
        if let Some(TestEvent::Received { ended, .. }) = events.last_mut() {
            *ended = true;
            self.receive = None;
        }
        self.input.extend(rest);
        events
    }

    /// Fails the receive in flight, if something is to be received.
    fn fail_without_buffer(&mut self) -> Option<TestEvent> {
        let token = self.receive.take_if(|_| !self.input.is_empty())?;
        Some(TestEvent::ReceiveEnded(token, Err(Errno(libc::ENOBUFS))))
    }

    fn has_operation(&self, token: Token) -> bool {
        self.receive == Some(token)
            || self.await_input == Some(token)
            || self.send.as_ref().is_some_and(|(of_send, _)| *of_send == token)
    }

    fn is_unusable(&self) -> bool {
        self.is_reset || self.cancelled
    }

    fn complete_shutdown(&mut self, events: &mut Vec<TestEvent>) {
        if let Some(token) = self.shutdown.take() {
            self.write_ended = true;
            events.push(TestEvent::ShutDown(token));
        }
    }
}

impl Kernel for TestKernel {
    fn ring_doorbell(&mut self, _: usize) {}

    fn enter(&mut self, _: Wait) -> io::Result<()> {
        Ok(())
    }

    fn drain(&mut self, mut handle: impl FnMut(IoEvent<'_>) -> usize) {
        for event in self.take_events() {
            let _ = match event {
                TestEvent::Received { token, mut bytes, ended } => {
                    handle(IoEvent::Received { token, data: &mut bytes, ended })
                }
                TestEvent::InputReady(token) => handle(IoEvent::InputReady { token }),
                TestEvent::ReceiveEnded(token, result) => handle(IoEvent::ReceiveEnded { token, result }),
                TestEvent::Sent(token, result, frames) => handle(IoEvent::Sent { token, result, frames }),
                TestEvent::SendProgressed(token) => handle(IoEvent::SendProgressed { token }),
                TestEvent::ShutDown(token) => handle(IoEvent::ShutDown { token }),
                TestEvent::Marked => handle(IoEvent::Marked),
            };
        }
    }

    fn may_have_more(&self) -> bool {
        !self.ready.is_empty()
    }

    fn take_submissions_full(&mut self) -> u64 {
        0
    }

    fn send(&mut self, socket: Descriptor, token: Token, frame: Frame) -> SendId {
        let socket = self.socket(socket);
        assert!(socket.send.is_none(), "a socket has two sends in flight");
        assert!(!socket.write_ended, "a send follows the end of the stream");
        assert!(!frame.is_empty());
        // A gathered send stays one: its cost is that of its frames.
        socket.send = Some((token, FrameBatch::One(frame)));
        send_id(token)
    }

    fn send_gathered(&mut self, socket: Descriptor, token: Token, frames: Vec<Frame>) -> SendId {
        let number = self.number(socket);
        let send = self.send(socket, token, Frame::joined(&frames));
        let socket = self.sockets.get_mut(&number).expect("the send was just begun");
        socket.send = Some((token, FrameBatch::gathered(frames)));
        send
    }

    fn sends_in_flight(&self) -> usize {
        self.sockets.values().filter(|socket| socket.send.is_some()).count()
    }

    fn visit_sends(&self, from: usize, count: usize, mut each: impl FnMut(Token)) -> Option<usize> {
        let sends = self.sockets.values().filter_map(|socket| socket.send.as_ref());
        sends.skip(from).take(count).for_each(|(token, _)| each(*token));
        (from + count < self.sends_in_flight()).then_some(from + count)
    }

    fn submit(&mut self, op: RingOp) {
        match op {
            RingOp::Receive(socket, token) => {
                let socket = self.socket(socket);
                assert_eq!(socket.await_input, None, "a socket is received from and waited for");
                assert_eq!(socket.receive.replace(token), None, "a socket has two receives in flight");
            }
            RingOp::AwaitInput(socket, token) => {
                let socket = self.socket(socket);
                assert_eq!(socket.receive, None, "a socket is waited for and received from");
                assert_eq!(socket.await_input.replace(token), None, "a socket is waited for twice");
            }
            RingOp::ShutDown(socket, token) => {
                let shutdown = &mut self.socket(socket).shutdown;
                assert_eq!(shutdown.replace(token), None, "a socket has two shutdowns in flight");
            }
            RingOp::Cancel { token, send } => {
                let mut sockets = self.sockets.values_mut();
                if let Some(socket) = sockets.find(|socket| socket.has_operation(token)) {
                    assert_eq!(
                        socket.send.as_ref().map(|(token, _)| send_id(*token)),
                        send,
                        "`send` must name the send that is in flight"
                    );
                    socket.cancelled = true;
                }
            }
            RingOp::CancelReceive(token) => {
                let mut sockets = self.sockets.values_mut();
                if let Some(socket) =
                    sockets.find(|socket| socket.receive.or(socket.await_input) == Some(token))
                {
                    socket.receive_cancelled = true;
                }
            }
            RingOp::Discard(socket) => self.close(socket),
            RingOp::Adopt(place, _) => {
                assert!(place < self.reserved_places, "the place of a link must be reserved");
                let socket = TestSocket { reads: true, ..TestSocket::default() };
                assert!(self.sockets.insert(place, socket).is_none(), "the place of a link must be free");
            }
            RingOp::Release(place) => self.close(Descriptor::at(place)),
            RingOp::Accept(listener) => {
                assert_eq!(listener, 0, "there is one listener");
                self.accepts += 1;
            }
            RingOp::StopListening => self.has_stopped_listening = true,
            RingOp::Mark if self.heard_per_turn > 0 => {
                self.queue_ready();
                self.ready.push_back(None);
            }
            RingOp::Mark => self.is_marked = true,
        }
    }
}

/// The id of a send in the test kernel.
fn send_id(token: Token) -> SendId {
    SendId::at(token as usize % (1 << 28))
}

pub fn address(text: &str) -> PeerAddress {
    PeerAddress::internet(text.parse::<SocketAddr>().unwrap())
}

/// The texts of the messages that a raw client has received.
pub fn raw_texts(bytes: &[u8]) -> Vec<String> {
    let (mut texts, mut rest) = (Vec::new(), bytes);
    while let Some((len, after)) = rest.split_first_chunk() {
        let (text, after) = after.split_at(u64::from_be_bytes(*len) as usize);
        texts.push(String::from_utf8(text.to_vec()).unwrap());
        rest = after;
    }
    assert!(rest.is_empty(), "the last message is incomplete");
    texts
}

/// The texts of the messages that a WebSocket client has received.
pub fn websocket_texts(bytes: &[u8]) -> Vec<String> {
    let (mut texts, mut rest) = (Vec::new(), bytes);
    while let [first, len, after @ ..] = rest {
        assert_eq!(*first, 0x81, "an unfragmented text frame");
        let (len, after) = match (len, after) {
            (126, [high, low, after @ ..]) => (u16::from_be_bytes([*high, *low]).into(), after),
            (len @ ..=125, after) => (usize::from(*len), after),
            _ => panic!("the tests send no text of 64 KiB or more"),
        };
        let (text, after) = after.split_at(len);
        texts.push(String::from_utf8(text.to_vec()).unwrap());
        rest = after;
    }
    texts
}

/// Encodes an event as a raw client sends it.
pub fn raw_message(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    raw::header(&mut bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Encodes a frame as a WebSocket client sends it.
pub fn client_frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::client_frame(&mut bytes, opcode, payload, [1, 2, 3, 4]);
    bytes
}

/// Encodes a Close frame as a WebSocket client sends it.
pub fn client_close(code: u16) -> Vec<u8> {
    client_frame(Opcode::Close, &code.to_be_bytes())
}

pub const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: quickio\r\n\r\n";
