//! The clients of a million and their rings. Each turn opens clients that are due, and handles what the rings have
//! completed.

use super::cause::EndCause;
use super::client::{ClientNumber, ClientState, LoadClient, OpeningPart, SUBSCRIPTIONS};
use super::frames::ClientFrames;
use super::measured::Measured;
use super::opening::OpeningQueue;
use super::plan::MillionPlan;
use super::rings::Rings;
use crate::clock;
use crate::connect;
use crate::decoder::Message;
use crate::error::ProtocolError;
use crate::plan::{Plan, Protocol};
use quickio::qev::buffers::{Buffer, Frame};
use quickio::qev::ring::{Completion, Errno};
use std::collections::{HashMap, VecDeque};
use std::mem;
use std::time::Duration;

/// The longest sleep of a turn.
const SLEEP_NS: u64 = 20_000_000;

/// The maximum number of clients that a turn opens. An opening takes about 30 us.
const OPENINGS_PER_TURN_MAX: usize = 64;

/// The interval at which the time limits of openings are checked.
const TIME_LIMIT_INTERVAL_NS: u64 = 250_000_000;

/// The clients and their rings.
///
/// Invariants: `open` is the number of clients that are open. Every client that is opening is under way in `openings`.
/// Frames that wait belong to clients that have a send in flight.
pub struct Swarm<'a> {
    plan: &'a Plan,
    rings: Rings,
    clients: Vec<LoadClient>,
    openings: OpeningQueue,
    frames: ClientFrames,
    /// The frames that wait for the end of a send, which are few.
    waiting: HashMap<ClientNumber, VecDeque<Frame>>,
    open: usize,
    /// The time limit of each part of an opening, in nanoseconds.
    time_limit: u64,
    next_time_limit_check: u64,
    completions: Vec<Completion>,
    /// The clients whose sockets were closed in this turn.
    closed: Vec<ClientNumber>,
    pub measured: Measured,
}

/// The messages in a piece of received bytes.
#[derive(Default)]
struct Replies {
    upgraded: bool,
    greeted: bool,
    subscribed: u8,
    /// The callbacks of heartbeats that must be answered.
    challenges: Vec<u64>,
    control_pings: Vec<Vec<u8>>,
    refusal: Option<String>,
    /// The code of a close frame.
    closed: Option<Option<u16>>,
}

impl<'a> Swarm<'a> {
    /// Creates the rings and the records of all clients, which are closed.
    pub fn new(plan: &'a Plan, million: &MillionPlan) -> Result<Swarm<'a>, String> {
        let rings = Rings::new(million.clients, million.clients_per_ring())?;
        Ok(Swarm {
            plan,
            rings,
            clients: (0..million.clients).map(|_| LoadClient::new()).collect(),
            openings: OpeningQueue::new(plan.connect_window, million.connect_rate),
            frames: ClientFrames::new(plan, million.rooms),
            waiting: HashMap::new(),
            open: 0,
            time_limit: plan.connect_timeout.as_nanos() as u64,
            next_time_limit_check: 0,
            completions: Vec::new(),
            closed: Vec::new(),
            measured: Measured::new(clock::now()),
        })
    }

    /// Returns the number of clients.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Returns the number of clients that are open.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Returns whether no client is to be opened.
    pub fn has_opened_all(&self) -> bool {
        self.openings.is_empty()
    }

    /// Opens a client as soon as its turn comes. It must be closed.
    pub fn open_later(&mut self, client: ClientNumber) {
        debug_assert_eq!(self.clients[client as usize].state, ClientState::Closed);
        self.openings.push(client);
    }

    /// Opens clients that are due, waits until something happens or until `until`, and handles it.
    pub fn turn(&mut self, until: u64) -> Result<(), String> {
        self.closed.clear();
        let now = clock::now();
        self.open_due(now);
        self.check_time_limits(now);
        let now = clock::now();
        let due = self.openings.next_due().unwrap_or(u64::MAX).min(until);
        let ready = self.rings.wait(Duration::from_nanos(due.saturating_sub(now).min(SLEEP_NS)))?;
        let mut completions = mem::take(&mut self.completions);
        for ring in 0..ready {
            self.rings.turn(ring, &mut completions)?;
            let now = clock::now();
            completions.drain(..).for_each(|completion| self.complete(completion, now));
        }
        self.completions = completions;
        Ok(())
    }

    fn client(&mut self, client: ClientNumber) -> &mut LoadClient {
        &mut self.clients[client as usize]
    }
}

/// Opens clients.
impl Swarm<'_> {
    fn open_due(&mut self, now: u64) {
        for _ in 0..OPENINGS_PER_TURN_MAX {
            let Some(client) = self.openings.take(now) else { return };
            self.open_client(client);
        }
    }

    fn open_client(&mut self, client: ClientNumber) {
        let now = clock::now();
        let record = self.client(client);
        debug_assert!(record.state == ClientState::Closed && record.is_idle());
        record.state = ClientState::Opening(OpeningPart::Tcp);
        (record.began, record.reached, record.confirmed) = (now, now, 0);
        record.decoder.reset(Protocol::WebSocket);
        let socket = connect::start(self.plan, client as usize).map(Into::into);
        match socket.and_then(|socket| self.rings.adopt(client, socket)) {
            // The send waits until the socket is connected, and is then the first thing that happens.
            Ok(()) => self.send(client, self.frames.upgrade.clone()),
            Err(error) => {
                self.opening_failed(client, EndCause::from(&error), clock::now());
                self.client(client).state = ClientState::Closed;
                self.closed.push(client);
            }
        }
    }

    /// Records the end of a part of an opening, and begins the next one.
    fn part_ended(&mut self, client: ClientNumber, part: OpeningPart, now: u64) {
        let record = &mut self.clients[client as usize];
        self.measured.part_ended(part, now.saturating_sub(record.reached));
        record.reached = now;
        record.state = match part {
            OpeningPart::Tcp => ClientState::Opening(OpeningPart::Upgrade),
            OpeningPart::Upgrade => ClientState::Opening(OpeningPart::Hello),
            OpeningPart::Hello => ClientState::Opening(OpeningPart::Subscriptions),
            OpeningPart::Subscriptions => {
                record.failures = 0;
                self.measured.opened(record.began, now.saturating_sub(record.began));
                self.openings.ended();
                self.open += 1;
                ClientState::Open
            }
        };
    }

    fn opening_failed(&mut self, client: ClientNumber, cause: EndCause, now: u64) {
        let record = &mut self.clients[client as usize];
        let part = record.opening().expect("only an opening can fail");
        record.failures += 1;
        self.measured.failed(part, cause, record.began, now);
        self.openings.ended();
    }

    fn check_time_limits(&mut self, now: u64) {
        if now < self.next_time_limit_check {
            return;
        }
        self.next_time_limit_check = now + TIME_LIMIT_INTERVAL_NS;
        let clients = &self.clients;
        let under_way = self.openings.under_way(|client| clients[client as usize].opening().is_some());
        for client in under_way {
            if self.clients[client as usize].reached + self.time_limit < now {
                self.end(client, EndCause::TimedOut(self.time_limit / 1_000_000), now);
            }
        }
    }
}

/// Ends clients.
impl Swarm<'_> {
    /// Records that a client has failed or has ended, and closes its socket.
    fn end(&mut self, client: ClientNumber, cause: EndCause, now: u64) {
        match self.client(client).state {
            ClientState::Opening(_) => self.opening_failed(client, cause, now),
            ClientState::Open => self.ended(cause, now),
            // Already recorded.
            ClientState::Leaving => {}
            ClientState::Closed | ClientState::Closing => return,
        }
        self.close(client);
    }

    fn ended(&mut self, cause: EndCause, now: u64) {
        self.open -= 1;
        self.measured.ended(cause, now);
    }

    /// Closes the socket of a client, as soon as no operation is in flight.
    fn close(&mut self, client: ClientNumber) {
        let record = &mut self.clients[client as usize];
        record.state = ClientState::Closing;
        if mem::take(&mut record.has_waiting) {
            self.waiting.remove(&client);
        }
        if record.is_idle() {
            return self.rings.close(client);
        }
        self.rings.cancel(client, record.sending);
    }

    fn close_if_idle(&mut self, client: ClientNumber) {
        let record = &self.clients[client as usize];
        if record.state == ClientState::Closing && record.is_idle() {
            self.rings.close(client);
        }
    }

    fn socket_closed(&mut self, client: ClientNumber) {
        self.client(client).state = ClientState::Closed;
        self.closed.push(client);
    }
}

/// Sends and receives.
impl Swarm<'_> {
    /// Sends a frame now, or after the send in flight.
    fn send(&mut self, client: ClientNumber, frame: Frame) {
        let record = &mut self.clients[client as usize];
        if record.sending.is_some() {
            record.has_waiting = true;
            return self.waiting.entry(client).or_default().push_back(frame);
        }
        record.sending = Some(self.rings.send(client, frame));
    }

    fn send_waiting(&mut self, client: ClientNumber) {
        let Some(frames) = self.waiting.get_mut(&client) else { return };
        let frame = frames.pop_front();
        if frames.is_empty() {
            self.waiting.remove(&client);
            self.client(client).has_waiting = false;
        }
        frame.into_iter().for_each(|frame| self.send(client, frame));
    }

    fn complete(&mut self, completion: Completion, now: u64) {
        match completion {
            Completion::Received { token, buffer, ended } => {
                self.client(token).receiving = !ended;
                self.received(token, &buffer, now);
                self.rings.recycle(token, buffer);
                if ended {
                    self.receive(token);
                }
            }
            Completion::ReceiveEnded { token, result } => {
                self.client(token).receiving = false;
                match result {
                    Err(error) if error.is_no_buffers() => self.receive(token),
                    Err(error) => self.end(token, EndCause::Os(error.0), now),
                    Ok(()) => self.end(token, EndCause::EndOfStream, now),
                }
                self.close_if_idle(token);
            }
            Completion::Sent { token, result, .. } => self.sent(token, result, now),
            Completion::Closed { token } => self.socket_closed(token),
            _ => {}
        }
    }

    /// Receives, unless the client is closing.
    fn receive(&mut self, client: ClientNumber) {
        let record = &mut self.clients[client as usize];
        if record.state == ClientState::Closing {
            return self.close_if_idle(client);
        }
        if !record.receiving {
            record.receiving = true;
            self.rings.receive(client);
        }
    }

    fn sent(&mut self, client: ClientNumber, result: Result<(), Errno>, now: u64) {
        let record = self.client(client);
        record.sending = None;
        match result {
            Err(error) => {
                self.end(client, EndCause::Os(error.0), now);
                return self.close_if_idle(client);
            }
            Ok(()) if record.state == ClientState::Opening(OpeningPart::Tcp) => {
                self.part_ended(client, OpeningPart::Tcp, now);
                self.receive(client);
            }
            Ok(()) => {}
        }
        if self.client(client).has_waiting {
            self.send_waiting(client);
        }
        self.close_if_idle(client);
    }

    fn received(&mut self, client: ClientNumber, buffer: &Buffer, now: u64) {
        let mut replies = Replies::default();
        let piece = self.rings.data(client, buffer);
        let record = &mut self.clients[client as usize];
        let heartbeats = &mut self.measured.heartbeats;
        let decoded = record.decoder.decode(piece, |message| match message {
            Message::Heartbeat(callback) => {
                *heartbeats += 1;
                if callback > 0 {
                    replies.challenges.push(callback);
                }
            }
            other => replies.add(other),
        });
        self.handle(client, replies, decoded, now);
    }

    fn handle(
        &mut self,
        client: ClientNumber,
        replies: Replies,
        decoded: Result<(), ProtocolError>,
        now: u64,
    ) {
        if let Some(part) = self.client(client).opening() {
            self.advance(client, part, &replies, now);
        }
        for callback in replies.challenges {
            self.send(client, self.frames.heartbeat_answer(callback));
        }
        for data in replies.control_pings {
            self.send(client, self.frames.pong(&data));
        }
        if let Some(answer) = replies.refusal.filter(|_| self.clients[client as usize].opening().is_some()) {
            self.end(client, EndCause::Refused(answer), now);
        }
        if let Some(code) = replies.closed {
            self.told_to_leave(client, code, now);
        }
        if let Err(error) = decoded {
            self.end(client, EndCause::from(&error), now);
        }
    }

    /// Handles the answers that an opening waits for.
    fn advance(&mut self, client: ClientNumber, part: OpeningPart, replies: &Replies, now: u64) {
        if part == OpeningPart::Upgrade && replies.upgraded {
            self.part_ended(client, OpeningPart::Upgrade, now);
            self.send(client, self.frames.greeting.clone());
        }
        if self.client(client).opening() == Some(OpeningPart::Hello) && replies.greeted {
            self.part_ended(client, OpeningPart::Hello, now);
            self.send(client, self.frames.subscriptions(client));
        }
        if self.client(client).opening() == Some(OpeningPart::Subscriptions) {
            self.client(client).confirmed += replies.subscribed;
            if self.client(client).confirmed == SUBSCRIPTIONS {
                self.part_ended(client, OpeningPart::Subscriptions, now);
            }
        }
    }

    /// Handles a close frame: an open client answers it and waits until the server ends the connection.
    fn told_to_leave(&mut self, client: ClientNumber, code: Option<u16>, now: u64) {
        if self.client(client).state != ClientState::Open {
            return self.end(client, EndCause::Closed(code), now);
        }
        self.ended(EndCause::Closed(code), now);
        self.client(client).state = ClientState::Leaving;
        self.send(client, self.frames.close(code));
    }
}

impl Replies {
    fn add(&mut self, message: Message<'_>) {
        match message {
            Message::Upgraded => self.upgraded = true,
            Message::Greeted => self.greeted = true,
            Message::Subscribed => self.subscribed += 1,
            Message::Refused(answer) => {
                self.refusal.get_or_insert_with(|| String::from_utf8_lossy(answer).into_owned());
            }
            Message::ControlPing(data) => self.control_pings.push(data.to_vec()),
            Message::Close(code, _) => self.closed = Some(code),
            Message::Heartbeat(_)
            | Message::Pong
            | Message::Published(_)
            | Message::ResponseEnd
            | Message::Other(_) => {}
        }
    }
}
