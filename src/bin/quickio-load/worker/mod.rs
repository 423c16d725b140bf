//! A worker: one thread with one ring, and the connections that it drives in turns. Whatever is due is sent,
//! all of it in one call into the kernel; whatever has come is taken in; again.

mod churn;
mod connection;
mod http;
mod pings;
mod publishing;
mod session;

use crate::clock;
use crate::connect;
use crate::outcome::{Count, Outcome, Shown, Timed};
use crate::plan::{Plan, Protocol, Role, Share, Window};
use crate::request::Requests;
use crate::wire::{self, Sizes, Writer};
use churn::Churn;
use connection::{Connection, Heard, Socket, State};
use pings::{PINGS_PER_SEND_MAX, Schedule};
use publishing::Publisher;
use quickio::qev::buffers::{Buffer, Frame};
use quickio::qev::ring::{Completion, Errno, Ring, RingSettings, Token, Wait};
use session::LINES;
use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The longest sleep: so long it takes until a worker sees what it is told.
const SLEEP: Duration = Duration::from_millis(20);

/// Receive buffers of a ring: bytes of each, and how many.
const BUFFER_BYTES: u32 = 4096;
const BUFFERS_MIN: usize = 256;
const BUFFERS_MAX: usize = 4096;

/// What a worker is told and shows while it runs.
#[derive(Debug, Default)]
pub struct Link {
    pub shown: Shown,
    pub window: OnceLock<Window>,
    pub stop: AtomicBool,
}

/// Drives a worker's share of the plan until it is told to stop.
pub fn run(plan: &Plan, share: Share, link: &Link) -> Result<Outcome, String> {
    let mut worker = Worker::new(plan, share)?;
    while !link.stop.load(Ordering::Relaxed) {
        worker.turn(link)?;
    }
    worker.finish();
    Ok(worker.outcome)
}

struct Worker<'a> {
    plan: &'a Plan,
    share: Share,
    writer: Writer,
    requests: Requests,
    /// When it began.
    run: u64,
    sizes: Sizes,
    ring: Ring,
    completions: Vec<Completion>,
    connections: Vec<Connection>,
    /// The connection to open next, and how many are being opened.
    opening_next: usize,
    opening: usize,
    hello: Frame,
    greeting: Frame,
    close: Frame,
    /// 1, 2, ... pings.
    pings: Vec<Frame>,
    window: Option<Window>,
    schedule: Schedule,
    pingers: Vec<Token>,
    publishers: Vec<Publisher>,
    /// The publisher of a room, where it is this worker's.
    publisher_of: HashMap<usize, usize>,
    churn: Churn,
    outcome: Outcome,
}

/// A socket of a connection: the connection's token, and which of its sockets.
#[derive(Clone, Copy)]
struct Line {
    token: Token,
    of: usize,
}

impl<'a> Worker<'a> {
    fn new(plan: &'a Plan, share: Share) -> Result<Worker<'a>, String> {
        let connections = connections(plan, share);
        let buffers = (connections.len() * 2).next_power_of_two().clamp(BUFFERS_MIN, BUFFERS_MAX);
        let sockets = connections.len() * if plan.protocol.is_http() { LINES } else { 1 };
        let ring = Ring::new(RingSettings {
            descriptors: sockets.max(1) as u32,
            buffers: buffers as u16,
            buffer_bytes: BUFFER_BYTES,
            reserved: 0,
        });
        let ring = ring.map_err(|error| no_ring(&error, sockets))?;
        let writer = Writer(plan.protocol);
        Ok(Worker {
            plan,
            share,
            writer,
            requests: Requests::new(plan),
            run: clock::now(),
            sizes: Sizes::of(plan),
            ring,
            completions: Vec::new(),
            connections,
            opening_next: 0,
            opening: 0,
            hello: Frame::new(writer.hello(plan), 0),
            greeting: Frame::new(writer.text(wire::GREETING), 0),
            close: Frame::new(writer.control(wire::CLOSE, &1000u16.to_be_bytes()), 0),
            pings: writer.pings(&plan.ping_event, plan.depth.max(PINGS_PER_SEND_MAX)),
            window: None,
            schedule: Schedule::default(),
            pingers: Vec::new(),
            publishers: Vec::new(),
            publisher_of: HashMap::new(),
            churn: Churn::default(),
            outcome: Outcome::default(),
        })
    }

    fn turn(&mut self, link: &Link) -> Result<(), String> {
        let now = clock::now();
        if self.window.is_none() {
            self.open_more(now);
            link.window.get().into_iter().for_each(|window| self.begin(*window, now));
        }
        self.send_due(now);
        link.shown.show(&self.outcome.counts);
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
        self.schedule = Schedule::new(window.begin, self.pingers.len(), rate);
        for (place, token) in self.pingers.clone().into_iter().enumerate() {
            self.connections[token as usize].asked.place = place as u64;
        }
        let keep_times = plan.protocol == Protocol::None;
        for token in self.tokens(Role::Publisher).collect::<Vec<_>>() {
            let room = self.connections[token as usize].number;
            self.publisher_of.insert(room, self.publishers.len());
            self.publishers.push(Publisher::new(plan, window, token, room, keep_times));
        }
        let churners: Vec<Token> = self.tokens(Role::Churner).collect();
        let rate = plan.churn_rate * of_all(churners.len(), plan.churners);
        self.churn = Churn::new(window.begin, churners.into_iter(), rate);
        if !self.schedule.has_rate() {
            let pingers = self.pingers.clone();
            pingers.into_iter().for_each(|token| self.ping_again(token, plan.depth, now));
        }
    }

    /// Connections of that role that are open, or, for churners, could be.
    fn tokens(&self, role: Role) -> impl Iterator<Item = Token> {
        let ready = move |c: &Connection| c.role == role && (c.state == State::Open || role == Role::Churner);
        (0..).zip(&self.connections).filter(move |(_, c)| ready(c)).map(|(token, _)| token)
    }

    /// How long the next turn may sleep.
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

    /// At the end: what is known of rooms.
    fn finish(&mut self) {
        let subscribers = self.connections.iter().filter(|c| c.role == Role::Subscriber);
        for room in subscribers.filter(|c| c.state == State::Open).filter_map(Connection::busy_room) {
            self.outcome.rooms.entry(room).or_default().subscribers += 1;
        }
        let unfinished = self.connections.iter().filter(|c| c.state == State::Opening).count();
        (0..unfinished).for_each(|_| self.outcome.error("handshake not finished".into()));
    }
}

/// Opening and closing.
impl Worker<'_> {
    /// Opens connections, as many at once as the window allows.
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
        connection.state = State::Opening;
        connection.began = began;
        let first = &mut connection.lines[0];
        first.cutter.reset(self.plan.protocol);
        first.outbox.clear();
        self.opening += 1;
        let line = Line { token, of: 0 };
        if !self.connect(line) {
            return;
        }
        match self.plan.protocol {
            Protocol::None => {
                self.receive(line);
                self.opened(token, clock::now());
            }
            Protocol::LongPolling | Protocol::EventStream => self.begin_session(token),
            Protocol::WebSocket | Protocol::Raw => self.send(token, self.hello.clone()),
        }
    }

    /// Opens a socket; whether there is one. Otherwise the connection fails.
    fn connect(&mut self, line: Line) -> bool {
        let place = self.place_of(line);
        let socket = connect::start(self.plan, self.number_of(line.token)).map(Into::into);
        match socket.and_then(|socket| self.ring.adopt(place, socket)) {
            Ok(socket) => {
                self.outcome.counts.add(Count::Sockets, 1);
                self.line(line).socket = Some(socket);
                true
            }
            Err(error) => {
                self.fail(line.token, &format!("connect: {error}"));
                false
            }
        }
    }

    /// A connection's number among those of all workers.
    fn number_of(&self, token: Token) -> usize {
        token as usize * self.share.of + self.share.index
    }

    fn line(&mut self, line: Line) -> &mut Socket {
        &mut self.connections[line.token as usize].lines[line.of]
    }

    /// The ring's token of a socket: the first ones of all connections come first.
    fn place_of(&self, line: Line) -> Token {
        line.token + (line.of * self.connections.len()) as Token
    }

    fn line_of(&self, place: Token) -> Line {
        let connections = self.connections.len() as Token;
        match place.checked_sub(connections) {
            None => Line { token: place, of: 0 },
            Some(token) => Line { token, of: 1 },
        }
    }

    fn opened(&mut self, token: Token, now: u64) {
        let connection = &mut self.connections[token as usize];
        connection.state = State::Open;
        self.opening -= 1;
        let (role, took) = (connection.role, now.saturating_sub(connection.began));
        let measured = self.window.is_none_or(|window| window.measures(connection.began));
        if measured {
            self.outcome.record(Timed::Open, took);
        }
        if role == Role::Churner {
            return self.ping_again(token, 1, now);
        }
        self.outcome.counts.add(Count::Opened, 1);
    }

    /// Ends a connection that went wrong; says why.
    fn fail(&mut self, token: Token, why: &str) {
        let connection = &mut self.connections[token as usize];
        match connection.state {
            State::Opening => {
                self.opening -= 1;
                self.outcome.counts.add(Count::Failed, 1);
            }
            State::Open => self.outcome.counts.add(Count::Broken, 1),
            State::Waiting | State::Closing | State::Closed => return,
        }
        self.outcome.error(why.to_owned());
        // No cycle: whatever comes after is not timed.
        connection.began = 0;
        self.end(token);
    }

    /// Ends a connection: at once where nothing is in flight, else as soon as that has ended.
    fn end(&mut self, token: Token) {
        let connection = &mut self.connections[token as usize];
        connection.state = State::Closing;
        if connection.lines.iter().all(|line| line.socket.is_none()) {
            return self.closed(token, clock::now());
        }
        for of in 0..LINES {
            let line = Line { token, of };
            let place = self.place_of(line);
            let socket = self.line(line);
            socket.outbox.clear();
            match socket.socket {
                Some(_) if !socket.is_quiet() => {
                    let sending = socket.sending;
                    self.ring.cancel(place, sending);
                }
                Some(_) => self.close_if_quiet(line),
                None => {}
            }
        }
    }

    /// Closes a socket whose connection is closing, or which the server has closed, once nothing is in flight on it.
    fn close_if_quiet(&mut self, line: Line) {
        let place = self.place_of(line);
        let connection = &mut self.connections[line.token as usize];
        let socket = &mut connection.lines[line.of];
        if (connection.state == State::Closing || socket.closing) && socket.is_quiet() {
            socket.socket.take().into_iter().for_each(|socket| self.ring.close(socket, place));
        }
    }

    /// A socket is closed.
    fn line_closed(&mut self, line: Line, now: u64) {
        self.line(line).closing = false;
        let connection = &self.connections[line.token as usize];
        match connection.state {
            State::Closing if connection.lines.iter().all(|line| line.socket.is_none()) => {
                self.closed(line.token, now);
            }
            // It was not needed just then, and may be now.
            State::Open => self.request_next(line.token),
            _ => {}
        }
    }

    fn closed(&mut self, token: Token, now: u64) {
        let connection = &mut self.connections[token as usize];
        connection.state = State::Closed;
        if connection.role != Role::Churner {
            return;
        }
        let began = connection.began;
        if began > 0 {
            self.outcome.counts.add(Count::Cycles, 1);
            if self.window.is_some_and(|window| window.measures(began)) {
                self.outcome.record(Timed::Cycle, now.saturating_sub(began));
            }
        }
        self.churn.ended(token, now, began > 0);
    }

    /// A churner is done: says goodbye as its protocol has it. The server closes then.
    fn goodbye(&mut self, token: Token) {
        let connection = &mut self.connections[token as usize];
        connection.state = State::Closing;
        match (self.plan.protocol, connection.lines[0].socket) {
            (Protocol::WebSocket, _) => self.send(token, self.close.clone()),
            (_, Some(socket)) => self.ring.shut_down(socket, token),
            (_, None) => {}
        }
    }
}

/// What is due.
impl Worker<'_> {
    fn send_due(&mut self, now: u64) {
        let Some(Window { until, .. }) = self.window else { return };
        while let Some(place) = self.schedule.take_due(now, until) {
            let token = self.pingers[place as usize];
            self.connections[token as usize].asked.is_due();
            self.ping_due(token);
        }
        for index in 0..self.publishers.len() {
            self.publish_due(index, now, until);
        }
        while let Some((token, intended)) = self.churn.take_due(now, until) {
            self.outcome.counts.add(Count::Awaited, 1);
            self.open(token, intended);
        }
    }

    fn publish_due(&mut self, index: usize, now: u64, until: u64) {
        let (token, room) = (self.publishers[index].token, self.publishers[index].room);
        let connection = &self.connections[token as usize];
        if connection.is_busy() || connection.state != State::Open {
            return;
        }
        let (subscribers, burst) = (self.subscribers_here(room), self.plan.burst as u64);
        if let Some(frame) = self.publishers[index].take_due(now, until, subscribers, burst) {
            self.outcome.counts.add(Count::Published, burst);
            self.outcome.counts.add(Count::Awaited, burst * self.plan.subscribers_of(room) as u64);
            self.outcome.rooms.entry(room).or_default().published += burst;
            self.send(token, frame);
        }
    }

    /// Subscribers of a room that this worker has. By arithmetic: it is asked for each publish.
    fn subscribers_here(&self, room: usize) -> u64 {
        let (of, rooms) = (self.share.of, self.plan.publishers);
        if of == 1 && rooms == 1 {
            return self.plan.subscribers as u64;
        }
        self.share.numbers(self.plan.subscribers).filter(|number| number % rooms == room).count() as u64
    }

    /// Sends the pings that are due on a connection, at a rate.
    fn ping_due(&mut self, token: Token) {
        let connection = &mut self.connections[token as usize];
        if connection.is_busy() || connection.state != State::Open || connection.role != Role::Pinger {
            return;
        }
        let count = connection.asked.take_due();
        self.ping(token, count);
    }

    /// Sends so many pings, now.
    fn ping_again(&mut self, token: Token, count: usize, now: u64) {
        self.connections[token as usize].asked.ask(count, now);
        self.ping(token, count);
    }

    fn ping(&mut self, token: Token, count: usize) {
        if self.connections[token as usize].role == Role::Pinger {
            self.outcome.counts.add(Count::PingsSent, count as u64);
            self.outcome.counts.add(Count::Awaited, count as u64);
        }
        if count > 0 {
            self.send(token, self.pings[count - 1].clone());
        }
    }

    /// Sends a frame; over HTTP in a request, as soon as one may be sent.
    fn send(&mut self, token: Token, frame: Frame) {
        match &mut self.connections[token as usize].session {
            Some(session) => {
                session.say(frame.as_slice());
                self.request_next(token);
            }
            None => self.send_on(Line { token, of: 0 }, frame),
        }
    }

    /// Sends bytes, or keeps them until the send in flight is done.
    fn send_on(&mut self, line: Line, frame: Frame) {
        let place = self.place_of(line);
        let socket = self.line(line);
        let Some(descriptor) = socket.socket else { return };
        if socket.sending {
            return socket.outbox.push_back(frame);
        }
        socket.sending = true;
        self.outcome.counts.add(Count::BytesSent, frame.len() as u64);
        self.ring.send(descriptor, place, frame);
    }

    fn receive(&mut self, line: Line) {
        let place = self.place_of(line);
        let socket = self.line(line);
        if let Some(descriptor) = socket.socket {
            socket.receiving = true;
            self.ring.receive(descriptor, place);
        }
    }
}

/// What has come.
impl Worker<'_> {
    fn complete(&mut self, completion: Completion, now: u64) {
        match completion {
            Completion::Received { token, buffer, ended } => {
                let line = self.line_of(token);
                self.received(line, &buffer, now);
                self.ring.recycle(buffer);
                if ended {
                    self.receive(line);
                }
            }
            Completion::ReceiveEnded { token, result } => self.receive_ended(self.line_of(token), result),
            Completion::Sent { token, result, .. } => self.sent(self.line_of(token), result),
            Completion::Closed { token } => self.line_closed(self.line_of(token), now),
            _ => {}
        }
    }

    fn received(&mut self, line: Line, buffer: &Buffer, now: u64) {
        let Line { token, of } = line;
        let connection = &mut self.connections[token as usize];
        let piece = self.ring.data(buffer);
        self.outcome.counts.add(Count::BytesReceived, piece.len() as u64);
        if self.plan.protocol == Protocol::None {
            let len = piece.len() as u64;
            return self.received_bytes(token, len, now);
        }
        match connection.hear(of, piece, now, &self.schedule, self.window, &mut self.outcome) {
            Ok(heard) => self.heard(token, heard, now),
            Err(broken) => self.fail(token, &broken.to_string()),
        }
        if self.plan.protocol.is_http() {
            // What is due goes with the next poll, which follows at once.
            if self.schedule.has_rate() {
                self.ping_due(token);
            }
            self.request_next(token);
        }
    }

    /// Without a protocol messages are told apart by their number of bytes.
    fn received_bytes(&mut self, token: Token, len: u64, now: u64) {
        let connection = &mut self.connections[token as usize];
        let message = self.sizes.received_by(connection.role) as u64;
        let first = connection.bytes / message;
        connection.bytes += len;
        let messages = first..connection.bytes / message;
        let count = messages.end - messages.start;
        let mut heard = Heard::default();
        match connection.role {
            Role::Subscriber => heard.published = count,
            _ => heard.pongs = count,
        }
        for message in messages {
            let connection = &mut self.connections[token as usize];
            let (timed, intended) = match connection.role {
                Role::Subscriber => {
                    let publisher = self.publishers.first();
                    let burst = self.plan.burst as u64;
                    (Timed::Delivery, publisher.and_then(|publisher| publisher.time_of(message, burst)))
                }
                _ => (Timed::Ping, connection.asked.answered(&self.schedule)),
            };
            let measures = |at: &u64| self.window.is_some_and(|window| window.measures(*at));
            if let Some(at) = intended.filter(measures) {
                self.outcome.record(timed, now.saturating_sub(at));
            }
        }
        self.heard(token, heard, now);
    }

    fn heard(&mut self, token: Token, heard: Heard, now: u64) {
        if heard.published > 0 {
            self.outcome.counts.add(Count::Disordered, heard.disordered);
            self.delivered(token, heard.published);
        }
        if heard.pongs > 0 {
            self.ponged(token, heard.pongs, now);
        }
        if heard.upgraded {
            self.send(token, self.greeting.clone());
        }
        let connection = &self.connections[token as usize];
        if connection.state == State::Opening {
            let subscribe = connection.room.filter(|_| connection.subscribes());
            match subscribe {
                Some(room) if heard.greeted => {
                    self.send(token, Frame::new(self.writer.subscribe(room), 0));
                }
                None if heard.greeted => self.opened(token, now),
                _ if heard.subscribed => self.opened(token, now),
                _ => {}
            }
        }
        self.heard_rarely(token, heard);
    }

    fn heard_rarely(&mut self, token: Token, heard: Heard) {
        for callback in heard.heartbeats {
            self.send(token, Frame::new(self.writer.heartbeat_answer(callback), 0));
        }
        for data in heard.control_pings {
            self.send(token, Frame::new(self.writer.control(wire::PONG, &data), 0));
        }
        self.outcome.counts.add(Count::Refused, heard.refused);
        if let Some(refusal) = heard.refusal {
            self.outcome.error(format!("refused: {refusal}"));
            if self.connections[token as usize].state == State::Opening {
                self.fail(token, "subscription refused");
            }
        }
        if let Some(closed) = heard.closed {
            self.fail(token, &closed);
        }
    }

    fn delivered(&mut self, token: Token, events: u64) {
        self.outcome.counts.add(Count::Delivered, events);
        let room = self.connections[token as usize].busy_room();
        if let Some(index) = room.and_then(|room| self.publisher_of.get(&room)) {
            self.publishers[*index].delivered(events);
        }
    }

    fn ponged(&mut self, token: Token, count: u64, now: u64) {
        if self.connections[token as usize].role == Role::Churner {
            return self.goodbye(token);
        }
        self.outcome.counts.add(Count::Pongs, count);
        let until = self.window.map_or(0, |window| window.until);
        if !self.schedule.has_rate() && now < until {
            self.ping_again(token, count as usize, now);
        }
    }

    fn sent(&mut self, line: Line, result: Result<(), Errno>) {
        let connection = &mut self.connections[line.token as usize];
        let opens = matches!(connection.state, State::Opening | State::Open);
        let socket = &mut connection.lines[line.of];
        socket.sending = false;
        if let Err(error) = result {
            self.fail(line.token, &format!("send: {error}"));
            return self.close_if_quiet(line);
        }
        if opens && !socket.receiving && !socket.closing {
            self.receive(line);
        }
        match self.line(line).outbox.pop_front() {
            Some(frame) => self.send_on(line, frame),
            None if self.schedule.has_rate() => self.ping_due(line.token),
            None => {}
        }
        self.close_if_quiet(line);
    }

    fn receive_ended(&mut self, line: Line, result: Result<(), Errno>) {
        if result.is_err_and(Errno::is_no_buffers) {
            return self.receive(line);
        }
        let connection = &mut self.connections[line.token as usize];
        let socket = &mut connection.lines[line.of];
        socket.receiving = false;
        match result {
            Err(error) => self.fail(line.token, &format!("receive: {error}")),
            // A connection that was asked nothing for long.
            Ok(()) if connection.session.as_ref().is_some_and(|session| session.is_idle(line.of)) => {
                socket.closing = true;
            }
            Ok(()) => self.fail(line.token, "the server closed the connection"),
        }
        self.close_if_quiet(line);
    }
}

/// The connections of a worker, in the order in which they open.
fn connections(plan: &Plan, share: Share) -> Vec<Connection> {
    let of_role = |role: Role| {
        share
            .numbers(plan.count(role))
            .map(move |number| Connection::new(plan.protocol, role, number, plan.room(role, number)))
    };
    Role::ALL.into_iter().flat_map(of_role).collect()
}

fn no_ring(error: &std::io::Error, descriptors: usize) -> String {
    match error.raw_os_error() {
        Some(libc::EMFILE) => format!(
            "a ring cannot hold {descriptors} sockets: the limit on descriptors (ulimit -n) holds for each \
             ring. Use more --threads or --processes"
        ),
        _ => format!("io_uring: {error}"),
    }
}
