//! A worker: one thread with one ring and its connections. Each turn sends everything that is due, with a single
//! system call, and handles everything that was received.

mod churn;
mod connection;
mod http;
mod publishing;
mod session;

use crate::clock;
use crate::connect;
use crate::encoder::{CLOSE, CLOSE_CODE, Encoder, FrameSizes, GREETING, PONG};
use crate::error::ProtocolError;
use crate::pings::{PINGS_PER_SEND_MAX, PingSchedule};
use crate::plan::{Plan, Protocol, Role, Share, Window};
use crate::request::RequestBuilder;
use crate::results::{Counter, Results, SharedCounters, Timing};
use crate::tls::{HandshakeTimes, TlsClients};
use churn::ChurnSchedule;
use connection::{Connection, ConnectionState, Received, SocketState};
use publishing::Publisher;
use quickio::qev::buffers::{Buffer, Frame};
use quickio::qev::ring::{Completion, Errno, Ring, RingSettings, Token, Wait};
use session::SOCKETS_MAX;
use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The longest sleep, after which a worker checks for instructions.
const SLEEP: Duration = Duration::from_millis(20);

/// The size of a receive buffer in bytes.
const BUFFER_BYTES: u32 = 4096;

/// The limits of the number of receive buffers of a ring.
const BUFFERS_MIN: usize = 256;
const BUFFERS_MAX: usize = 4096;

/// The data shared with the thread that controls a worker.
#[derive(Debug, Default)]
pub struct WorkerControl {
    /// The current counters of the worker.
    pub counters: SharedCounters,
    /// The times of the load. Setting it starts the load.
    pub window: OnceLock<Window>,
    /// Stops the worker.
    pub stop: AtomicBool,
}

/// Runs a worker's share of the plan until it is stopped.
pub fn run(plan: &Plan, share: Share, control: &WorkerControl) -> Result<Results, String> {
    let mut worker = Worker::new(plan, share)?;
    while !control.stop.load(Ordering::Relaxed) {
        worker.turn(control)?;
    }
    worker.finish();
    Ok(worker.results)
}

/// A worker.
struct Worker<'a> {
    plan: &'a Plan,
    share: Share,
    encoder: Encoder,
    /// The TLS of all connections, if they have TLS.
    tls: Option<TlsClients>,
    /// The bytes that were decrypted last. Kept for its memory.
    plain: Vec<u8>,
    request_builder: RequestBuilder,
    /// The start time of the worker.
    run: u64,
    sizes: FrameSizes,
    ring: Ring,
    completions: Vec<Completion>,
    connections: Vec<Connection>,
    /// The index of the next connection to open.
    opening_next: usize,
    /// The number of connections that are being opened.
    opening: usize,
    /// The first messages of clients, which take them in turn: one for each token.
    first_messages: Vec<Frame>,
    /// The number of connections that were begun with them.
    begun: usize,
    greeting: Frame,
    close: Frame,
    /// Frames with 1, 2, ... pings.
    pings: Vec<Frame>,
    window: Option<Window>,
    schedule: PingSchedule,
    pingers: Vec<Token>,
    publishers: Vec<Publisher>,
    /// The index of the publisher of a room, if the publisher belongs to this worker.
    publisher_of: HashMap<usize, usize>,
    churn: ChurnSchedule,
    results: Results,
}

/// A socket of a connection.
#[derive(Clone, Copy)]
struct SocketId {
    /// The token of the connection.
    token: Token,
    /// The index of the socket in the connection.
    index: usize,
}

impl<'a> Worker<'a> {
    fn new(plan: &'a Plan, share: Share) -> Result<Worker<'a>, String> {
        let connections = connections(plan, share);
        let buffers = (connections.len() * 2).next_power_of_two().clamp(BUFFERS_MIN, BUFFERS_MAX);
        let sockets = connections.len() * if plan.protocol.is_http() { SOCKETS_MAX } else { 1 };
        let ring = Ring::new(RingSettings {
            rings: 1,
            descriptors: sockets.max(1) as u32,
            buffers: buffers as u16,
            buffer_bytes: BUFFER_BYTES,
            reserved: 0,
        });
        let ring = ring.map_err(|error| no_ring(&error, sockets))?;
        let encoder = Encoder(plan.protocol);
        let tls = plan.tls.as_ref().map(|tls| TlsClients::new(plan, tls)).transpose()?;
        Ok(Worker {
            plan,
            share,
            encoder,
            tls,
            plain: Vec::new(),
            request_builder: RequestBuilder::new(plan),
            run: clock::now(),
            sizes: FrameSizes::of(plan),
            ring,
            completions: Vec::new(),
            connections,
            opening_next: 0,
            opening: 0,
            first_messages: first_messages(plan, share),
            begun: 0,
            greeting: Frame::new(encoder.event(GREETING), 0),
            close: Frame::new(encoder.control(CLOSE, &CLOSE_CODE), 0),
            pings: encoder.pings(&plan.ping_event, plan.depth.max(PINGS_PER_SEND_MAX)),
            window: None,
            schedule: PingSchedule::default(),
            pingers: Vec::new(),
            publishers: Vec::new(),
            publisher_of: HashMap::new(),
            churn: ChurnSchedule::default(),
            results: Results::default(),
        })
    }

    fn turn(&mut self, control: &WorkerControl) -> Result<(), String> {
        let now = clock::now();
        if self.window.is_none() {
            self.open_more(now);
            control.window.get().into_iter().for_each(|window| self.begin(*window, now));
        }
        self.send_due(now);
        control.counters.store(&self.results.counters);
        let mut completions = std::mem::take(&mut self.completions);
        let wait = self.wait(clock::now());
        self.ring.turn(wait, &mut completions).map_err(|error| format!("io_uring: {error}"))?;
        let now = clock::now();
        completions.drain(..).for_each(|completion| self.complete(completion, now));
        self.completions = completions;
        Ok(())
    }

    /// Starts the load.
    fn begin(&mut self, window: Window, now: u64) {
        let plan = self.plan;
        self.window = Some(window);
        let of_all = |count: usize, all: usize| count as f64 / all.max(1) as f64;
        self.pingers = self.tokens(Role::Pinger).collect();
        let rate = plan.ping_rate * of_all(self.pingers.len(), plan.pingers);
        self.schedule = PingSchedule::new(window.begin, self.pingers.len(), rate);
        for (position, token) in self.pingers.clone().into_iter().enumerate() {
            self.connections[token as usize].pings.position = position as u64;
        }
        let keep_times = plan.protocol == Protocol::None;
        for token in self.tokens(Role::Publisher).collect::<Vec<_>>() {
            let room = self.connections[token as usize].number;
            self.publisher_of.insert(room, self.publishers.len());
            self.publishers.push(Publisher::new(plan, window, token, room, keep_times));
        }
        let churners: Vec<Token> = self.tokens(Role::Churner).collect();
        let rate = plan.churn_rate * of_all(churners.len(), plan.churners);
        self.churn = ChurnSchedule::new(window.begin, churners.into_iter(), rate);
        if !self.schedule.has_rate() {
            let pingers = self.pingers.clone();
            pingers.into_iter().for_each(|token| self.ping_now(token, plan.depth, now));
        }
    }

    /// Returns the open connections with a role. Churners need not be open.
    fn tokens(&self, role: Role) -> impl Iterator<Item = Token> {
        let ready = move |c: &Connection| {
            c.role == role && (c.state == ConnectionState::Open || role == Role::Churner)
        };
        (0..).zip(&self.connections).filter(move |(_, c)| ready(c)).map(|(token, _)| token)
    }

    /// Returns how long the next turn may sleep.
    fn wait(&self, now: u64) -> Wait {
        let publishers = self.publishers.iter().filter(|p| !self.connections[p.token as usize].is_busy());
        let due = publishers.filter_map(Publisher::next_due);
        let due = due.chain(self.schedule.next_due()).chain(self.churn.next_due()).min();
        let until = self.window.map_or(0, |window| window.until);
        match due.filter(|at| *at < until) {
            Some(at) if at <= now => Wait::No,
            Some(at) => Wait::For(SLEEP.min(Duration::from_nanos(at - now))),
            None => Wait::For(SLEEP),
        }
    }

    /// Adds the totals at the end of the run.
    fn finish(&mut self) {
        let subscribers = self.connections.iter().filter(|c| c.role == Role::Subscriber);
        for room in subscribers.filter(|c| c.state == ConnectionState::Open).filter_map(Connection::busy_room)
        {
            self.results.rooms.entry(room).or_default().subscribers += 1;
        }
        let unfinished = self.connections.iter().filter(|c| c.state == ConnectionState::Opening).count();
        (0..unfinished).for_each(|_| self.results.add_error("handshake not finished".into()));
    }
}

/// Opens and closes connections.
impl Worker<'_> {
    /// Opens connections, as many at a time as the plan allows.
    fn open_more(&mut self, now: u64) {
        while self.opening < self.plan.connect_window && self.opening_next < self.connections.len() {
            let token = self.opening_next as Token;
            self.opening_next += 1;
            if self.connections[token as usize].role != Role::Churner {
                self.open(token, now);
            }
        }
    }

    fn open(&mut self, token: Token, began: u64) {
        let connection = &mut self.connections[token as usize];
        connection.state = ConnectionState::Opening;
        connection.began = began;
        connection.bytes = 0;
        let is_churner = connection.role == Role::Churner;
        let first = &mut connection.sockets[0];
        first.decoder.reset(self.plan.protocol);
        first.outbox.clear();
        self.opening += 1;
        let id = SocketId { token, index: 0 };
        if !self.connect(id) {
            return;
        }
        match self.plan.protocol {
            Protocol::None if !is_churner => {
                self.receive(id);
                self.opened(token, clock::now());
            }
            Protocol::LongPolling | Protocol::EventStream => self.begin_session(token),
            Protocol::WebSocket | Protocol::Raw | Protocol::None => {
                let first = self.first_messages[self.begun % self.first_messages.len()].clone();
                self.begun += 1;
                self.send(token, first);
            }
        }
    }

    /// Opens a socket. Returns `false` if the connection has failed instead.
    fn connect(&mut self, id: SocketId) -> bool {
        let ring_token = self.ring_token(id);
        let socket = connect::start(self.plan, self.number_of(id.token)).map(Into::into);
        match socket.and_then(|socket| self.ring.adopt(ring_token, socket)) {
            Ok(descriptor) => {
                self.results.counters.add(Counter::Sockets, 1);
                self.socket(id).descriptor = Some(descriptor);
                self.begin_tls(id)
            }
            Err(error) => {
                self.fail(id.token, &format!("connect: {error}"));
                false
            }
        }
    }

    /// Begins the handshake of a socket, if it has TLS. Returns `false` if the connection has failed instead.
    fn begin_tls(&mut self, id: SocketId) -> bool {
        let Some(clients) = &self.tls else { return true };
        match clients.client() {
            Ok(client) => {
                self.socket(id).tls = Some(Box::new(client));
                self.send_tls_output(id);
                true
            }
            Err(error) => {
                self.fail(id.token, &format!("TLS: {error}"));
                false
            }
        }
    }

    /// Returns the number of a connection among those of all workers.
    fn number_of(&self, token: Token) -> usize {
        token as usize * self.share.of + self.share.index
    }

    fn socket(&mut self, id: SocketId) -> &mut SocketState {
        &mut self.connections[id.token as usize].sockets[id.index]
    }

    /// Returns the ring's token of a socket. The first sockets of all connections come before the second ones.
    fn ring_token(&self, id: SocketId) -> Token {
        id.token + (id.index * self.connections.len()) as Token
    }

    fn socket_id(&self, ring_token: Token) -> SocketId {
        let connections = self.connections.len() as Token;
        match ring_token.checked_sub(connections) {
            None => SocketId { token: ring_token, index: 0 },
            Some(token) => SocketId { token, index: 1 },
        }
    }

    fn opened(&mut self, token: Token, now: u64) {
        let connection = &mut self.connections[token as usize];
        connection.state = ConnectionState::Open;
        self.opening -= 1;
        let (role, took) = (connection.role, now.saturating_sub(connection.began));
        let measured = self.window.is_none_or(|window| window.measures(connection.began));
        if measured {
            self.results.record(Timing::Open, took);
        }
        if role == Role::Churner && self.plan.churn_pings {
            return self.ping_now(token, 1, now);
        }
        if role == Role::Churner {
            return self.begin_close(token);
        }
        self.results.counters.add(Counter::Opened, 1);
    }

    /// Ends a failed connection and records the error.
    fn fail(&mut self, token: Token, why: &str) {
        let connection = &mut self.connections[token as usize];
        match connection.state {
            ConnectionState::Opening => {
                self.opening -= 1;
                self.results.counters.add(Counter::Failed, 1);
            }
            ConnectionState::Open => self.results.counters.add(Counter::Broken, 1),
            ConnectionState::Waiting | ConnectionState::Closing | ConnectionState::Closed => return,
        }
        self.results.add_error(why.to_owned());
        // This is not a complete cycle and must not be timed.
        connection.began = 0;
        self.end(token);
    }

    /// Ends a connection, as soon as no operation is in flight.
    fn end(&mut self, token: Token) {
        let connection = &mut self.connections[token as usize];
        connection.state = ConnectionState::Closing;
        if connection.sockets.iter().all(|socket| socket.descriptor.is_none()) {
            return self.closed(token, clock::now());
        }
        for index in 0..SOCKETS_MAX {
            let id = SocketId { token, index };
            let ring_token = self.ring_token(id);
            let socket = self.socket(id);
            socket.outbox.clear();
            match socket.descriptor {
                Some(_) if !socket.is_idle() => {
                    let send = socket.send;
                    self.ring.cancel(ring_token, send);
                }
                Some(_) => self.close_if_idle(id),
                None => {}
            }
        }
    }

    /// Closes a socket if no operation is in flight, and its connection is closing or the server has closed the socket.
    fn close_if_idle(&mut self, id: SocketId) {
        let ring_token = self.ring_token(id);
        let connection = &mut self.connections[id.token as usize];
        let socket = &mut connection.sockets[id.index];
        if (connection.state == ConnectionState::Closing || socket.closing) && socket.is_idle() {
            socket.tls = None;
            socket
                .descriptor
                .take()
                .into_iter()
                .for_each(|descriptor| self.ring.close(descriptor, ring_token));
        }
    }

    /// Handles the end of a socket.
    fn socket_closed(&mut self, id: SocketId, now: u64) {
        self.socket(id).closing = false;
        let connection = &self.connections[id.token as usize];
        match connection.state {
            ConnectionState::Closing
                if connection.sockets.iter().all(|socket| socket.descriptor.is_none()) =>
            {
                self.closed(id.token, now);
            }
            // The socket was closed when it was not needed. A new one may be needed now.
            ConnectionState::Open => self.send_next_request(id.token),
            _ => {}
        }
    }

    fn closed(&mut self, token: Token, now: u64) {
        let connection = &mut self.connections[token as usize];
        connection.state = ConnectionState::Closed;
        if connection.role != Role::Churner {
            return;
        }
        let began = connection.began;
        if began > 0 {
            self.results.counters.add(Counter::Cycles, 1);
            if self.window.is_some_and(|window| window.measures(began)) {
                self.results.record(Timing::Cycle, now.saturating_sub(began));
            }
        }
        self.churn.release(token, now, began > 0);
    }

    /// Starts the orderly close of a churner's connection. The server then closes it.
    fn begin_close(&mut self, token: Token) {
        let connection = &mut self.connections[token as usize];
        connection.state = ConnectionState::Closing;
        let id = SocketId { token, index: 0 };
        if self.plan.protocol == Protocol::Raw && connection.sockets[0].tls.is_some() {
            connection.sockets[0].tls.as_mut().into_iter().for_each(|tls| tls.close());
            return self.send_tls_output(id);
        }
        match (self.plan.protocol, connection.sockets[0].descriptor) {
            (Protocol::WebSocket | Protocol::None, _) => self.send(token, self.close.clone()),
            (_, Some(descriptor)) => self.ring.shut_down(descriptor, token),
            (_, None) => {}
        }
    }
}

/// Sends everything that is due.
impl Worker<'_> {
    fn send_due(&mut self, now: u64) {
        let Some(Window { until, .. }) = self.window else { return };
        while let Some(position) = self.schedule.take_due(now, until) {
            let token = self.pingers[position as usize];
            self.connections[token as usize].pings.add_due();
            self.ping_due(token);
        }
        for index in 0..self.publishers.len() {
            self.publish_due(index, now, until);
        }
        while let Some((token, intended)) = self.churn.take_due(now, until) {
            self.results.counters.add(Counter::Expected, 1);
            self.open(token, intended);
        }
    }

    fn publish_due(&mut self, index: usize, now: u64, until: u64) {
        let (token, room) = (self.publishers[index].token, self.publishers[index].room);
        let connection = &self.connections[token as usize];
        if connection.is_busy() || connection.state != ConnectionState::Open {
            return;
        }
        let (subscribers, burst) = (self.subscribers_here(room), self.plan.burst as u64);
        if let Some(frame) = self.publishers[index].take_due(now, until, subscribers, burst) {
            self.results.counters.add(Counter::Published, burst);
            self.results.counters.add(Counter::Expected, burst * self.plan.subscribers_of(room) as u64);
            self.results.rooms.entry(room).or_default().published += burst;
            self.send(token, frame);
        }
    }

    /// Returns the number of a room's subscribers in this worker. It is computed, because each publish needs it.
    fn subscribers_here(&self, room: usize) -> u64 {
        let (of, rooms) = (self.share.of, self.plan.publishers);
        if of == 1 && rooms == 1 {
            return self.plan.subscribers as u64;
        }
        self.share.numbers(self.plan.subscribers).filter(|number| number % rooms == room).count() as u64
    }

    /// Sends the due pings of a connection, with a rate.
    fn ping_due(&mut self, token: Token) {
        let connection = &mut self.connections[token as usize];
        if connection.is_busy()
            || connection.state != ConnectionState::Open
            || connection.role != Role::Pinger
        {
            return;
        }
        let count = connection.pings.take_due();
        self.ping(token, count);
    }

    /// Sends pings now, without a rate.
    fn ping_now(&mut self, token: Token, count: usize, now: u64) {
        self.connections[token as usize].pings.add_sent(count, now);
        self.ping(token, count);
    }

    fn ping(&mut self, token: Token, count: usize) {
        if self.connections[token as usize].role == Role::Pinger {
            self.results.counters.add(Counter::PingsSent, count as u64);
            self.results.counters.add(Counter::Expected, count as u64);
        }
        if count > 0 {
            self.send(token, self.pings[count - 1].clone());
        }
    }

    /// Sends a frame. Over HTTP it is sent in the next possible request.
    fn send(&mut self, token: Token, frame: Frame) {
        match &mut self.connections[token as usize].session {
            Some(session) => {
                session.add_events(frame.as_slice());
                self.send_next_request(token);
            }
            None => self.send_on(SocketId { token, index: 0 }, frame),
        }
    }

    /// Sends a frame on a socket, encrypted if it has TLS, or queues it if a send is in flight.
    fn send_on(&mut self, id: SocketId, frame: Frame) {
        match &mut self.socket(id).tls {
            Some(tls) => {
                tls.write(frame.as_slice());
                self.send_tls_output(id);
            }
            None => self.send_bytes(id, frame),
        }
    }

    /// Sends what the TLS of a socket has for the server.
    fn send_tls_output(&mut self, id: SocketId) {
        if let Some(output) = self.socket(id).tls.as_mut().and_then(|tls| tls.take_output()) {
            self.send_bytes(id, Frame::new(output, 0));
        }
    }

    fn send_bytes(&mut self, id: SocketId, frame: Frame) {
        let ring_token = self.ring_token(id);
        let socket = self.socket(id);
        let Some(descriptor) = socket.descriptor else { return };
        if socket.send.is_some() {
            return socket.outbox.push_back(frame);
        }
        self.results.counters.add(Counter::BytesSent, frame.len() as u64);
        let send = self.ring.send(descriptor, ring_token, frame);
        self.socket(id).send = Some(send);
    }

    fn receive(&mut self, id: SocketId) {
        let ring_token = self.ring_token(id);
        let socket = self.socket(id);
        if let Some(descriptor) = socket.descriptor {
            socket.receiving = true;
            self.ring.receive(descriptor, ring_token);
        }
    }
}

/// Handles completions.
impl Worker<'_> {
    fn complete(&mut self, completion: Completion, now: u64) {
        match completion {
            Completion::Received { token, buffer, ended } => {
                let id = self.socket_id(token);
                self.received(id, &buffer, now);
                self.ring.recycle(buffer);
                if ended {
                    self.receive(id);
                }
            }
            Completion::ReceiveEnded { token, result } => self.receive_ended(self.socket_id(token), result),
            Completion::Sent { token, result, .. } => self.sent(self.socket_id(token), result),
            Completion::Closed { token } => self.socket_closed(self.socket_id(token), now),
            _ => {}
        }
    }

    fn received(&mut self, id: SocketId, buffer: &Buffer, now: u64) {
        let SocketId { token, index } = id;
        let connection = &mut self.connections[token as usize];
        let piece = self.ring.data(buffer);
        self.results.counters.add(Counter::BytesReceived, piece.len() as u64);
        if self.plan.protocol == Protocol::None {
            let len = piece.len() as u64;
            return self.received_bytes(token, len, now);
        }
        if let Some(tls) = &mut connection.sockets[index].tls {
            let mut plain = std::mem::take(&mut self.plain);
            let handshake = tls.receive(piece, &mut plain);
            self.received_tls(id, handshake, &plain, now);
            plain.clear();
            self.plain = plain;
            return;
        }
        let received = connection.receive(index, piece, now, &self.schedule, self.window, &mut self.results);
        self.handle_received(token, received, now);
    }

    /// Handles bytes that were decrypted, and the end of the handshake.
    fn received_tls(
        &mut self,
        id: SocketId,
        handshake: Result<Option<HandshakeTimes>, String>,
        plain: &[u8],
        now: u64,
    ) {
        // Alerts too.
        self.send_tls_output(id);
        match handshake {
            Ok(handshake) => handshake.into_iter().for_each(|times| self.record_handshake(&times)),
            Err(error) => return self.fail(id.token, &error),
        }
        if !plain.is_empty() {
            let connection = &mut self.connections[id.token as usize];
            let received =
                connection.receive(id.index, plain, now, &self.schedule, self.window, &mut self.results);
            self.handle_received(id.token, received, now);
        }
    }

    fn record_handshake(&mut self, times: &HandshakeTimes) {
        if self.window.is_none_or(|window| window.measures(times.began)) {
            let timing = if times.is_resumed { Timing::TlsResumed } else { Timing::TlsFull };
            self.results.record(timing, times.took);
            self.results.record(Timing::TlsClient, times.computed);
        }
    }

    fn handle_received(&mut self, token: Token, received: Result<Received, ProtocolError>, now: u64) {
        match received {
            Ok(received) => self.handle_messages(token, received, now),
            Err(error) => self.fail(token, &error.to_string()),
        }
        if self.plan.protocol.is_http() {
            // Due pings are sent with the next poll, which follows immediately.
            if self.schedule.has_rate() {
                self.ping_due(token);
            }
            self.send_next_request(token);
        }
    }

    /// Handles bytes without a protocol. Messages are separated by their size.
    fn received_bytes(&mut self, token: Token, len: u64, now: u64) {
        let connection = &mut self.connections[token as usize];
        if connection.role == Role::Churner {
            let received = connection.receive_bytes(len, self.sizes);
            let intended = if received.pongs > 0 { connection.pings.answered(&self.schedule) } else { None };
            let measures = |at: &u64| self.window.is_some_and(|window| window.measures(*at));
            if let Some(at) = intended.filter(measures) {
                self.results.record(Timing::Ping, now.saturating_sub(at));
            }
            return self.handle_messages(token, received, now);
        }
        let message = self.sizes.received_by(connection.role) as u64;
        let first = connection.bytes / message;
        connection.bytes += len;
        let messages = first..connection.bytes / message;
        let count = messages.end - messages.start;
        let mut received = Received::default();
        match connection.role {
            Role::Subscriber => received.published = count,
            _ => received.pongs = count,
        }
        for message in messages {
            let connection = &mut self.connections[token as usize];
            let (timing, intended) = match connection.role {
                Role::Subscriber => {
                    let publisher = self.publishers.first();
                    let burst = self.plan.burst as u64;
                    (Timing::Delivery, publisher.and_then(|publisher| publisher.time_of(message, burst)))
                }
                _ => (Timing::Ping, connection.pings.answered(&self.schedule)),
            };
            let measures = |at: &u64| self.window.is_some_and(|window| window.measures(*at));
            if let Some(at) = intended.filter(measures) {
                self.results.record(timing, now.saturating_sub(at));
            }
        }
        self.handle_messages(token, received, now);
    }

    fn handle_messages(&mut self, token: Token, received: Received, now: u64) {
        if received.published > 0 {
            self.results.counters.add(Counter::OutOfOrder, received.out_of_order);
            self.delivered(token, received.published);
        }
        if received.pongs > 0 {
            self.pings_answered(token, received.pongs, now);
        }
        if received.upgraded {
            self.send(token, self.greeting.clone());
        }
        let connection = &self.connections[token as usize];
        if connection.state == ConnectionState::Opening {
            let subscribe = connection.room.filter(|_| connection.subscribes());
            match subscribe {
                Some(room) if received.greeted => {
                    self.send(token, Frame::new(self.encoder.subscribe(room), 0));
                }
                None if received.greeted => self.opened(token, now),
                _ if received.subscribed => self.opened(token, now),
                _ => {}
            }
        }
        self.handle_rare_messages(token, received);
    }

    fn handle_rare_messages(&mut self, token: Token, received: Received) {
        for callback in received.heartbeats {
            self.send(token, Frame::new(self.encoder.heartbeat_answer(callback), 0));
        }
        for data in received.control_pings {
            self.send(token, Frame::new(self.encoder.control(PONG, &data), 0));
        }
        self.results.counters.add(Counter::Refused, received.refused);
        if let Some(refusal) = received.refusal {
            self.results.add_error(format!("refused: {refusal}"));
            if self.connections[token as usize].state == ConnectionState::Opening {
                self.fail(token, "subscription refused");
            }
        }
        if let Some(closed) = received.closed {
            self.fail(token, &closed);
        }
    }

    fn delivered(&mut self, token: Token, events: u64) {
        self.results.counters.add(Counter::Delivered, events);
        let room = self.connections[token as usize].busy_room();
        if let Some(index) = room.and_then(|room| self.publisher_of.get(&room)) {
            self.publishers[*index].delivered(events);
        }
    }

    fn pings_answered(&mut self, token: Token, count: u64, now: u64) {
        if self.connections[token as usize].role == Role::Churner {
            return self.begin_close(token);
        }
        self.results.counters.add(Counter::Pongs, count);
        let until = self.window.map_or(0, |window| window.until);
        if !self.schedule.has_rate() && now < until {
            self.ping_now(token, count as usize, now);
        }
    }

    fn sent(&mut self, id: SocketId, result: Result<(), Errno>) {
        let connection = &mut self.connections[id.token as usize];
        let opens = matches!(connection.state, ConnectionState::Opening | ConnectionState::Open);
        let socket = &mut connection.sockets[id.index];
        socket.send = None;
        if let Err(error) = result {
            self.fail(id.token, &format!("send: {error}"));
            return self.close_if_idle(id);
        }
        if opens && !socket.receiving && !socket.closing {
            self.receive(id);
        }
        match self.socket(id).outbox.pop_front() {
            Some(frame) => self.send_bytes(id, frame),
            None if self.schedule.has_rate() => self.ping_due(id.token),
            None => {}
        }
        self.close_if_idle(id);
    }

    fn receive_ended(&mut self, id: SocketId, result: Result<(), Errno>) {
        if result.is_err_and(Errno::is_no_buffers) {
            return self.receive(id);
        }
        let connection = &mut self.connections[id.token as usize];
        let socket = &mut connection.sockets[id.index];
        socket.receiving = false;
        match result {
            Err(error) => self.fail(id.token, &format!("receive: {error}")),
            // The server may close a socket that had no request for a long time.
            Ok(()) if connection.session.as_ref().is_some_and(|session| session.is_idle(id.index)) => {
                socket.closing = true;
            }
            Ok(()) => self.fail(id.token, "the server closed the connection"),
        }
        self.close_if_idle(id);
    }
}

/// Returns the first messages of a worker's clients, at least one.
fn first_messages(plan: &Plan, share: Share) -> Vec<Frame> {
    let count = plan.tokens.len().max(share.of);
    let first = |opening| Frame::new(Encoder(plan.protocol).first_message(plan, opening), 0);
    share.numbers(count).map(first).collect()
}

/// Returns the connections of a worker, in the order in which they open.
fn connections(plan: &Plan, share: Share) -> Vec<Connection> {
    let of_role = |role: Role| {
        share
            .numbers(plan.count(role))
            .map(move |number| Connection::new(plan.protocol, role, number, plan.room(role, number)))
    };
    Role::ALL.into_iter().flat_map(of_role).collect()
}

/// Describes the error of a ring that could not be created.
fn no_ring(error: &std::io::Error, descriptors: usize) -> String {
    match error.raw_os_error() {
        Some(libc::EMFILE) => format!(
            "a ring cannot hold {descriptors} sockets: the limit on open files (ulimit -n) applies to each \
             ring. Use more --threads or --processes"
        ),
        _ => format!("io_uring: {error}"),
    }
}
