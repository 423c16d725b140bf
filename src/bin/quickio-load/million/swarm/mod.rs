//! The clients of a million and their rings. Each turn opens clients that are due, and handles what the rings have
//! completed.

mod messages;

use super::backoff::LASTING_NS;
use super::cause::EndCause;
use super::client::{ClientNumber, ClientState, LoadClient, OpeningPart};
use super::deliveries::Deliveries;
use super::frames::ClientFrames;
use super::measured::Measured;
use super::members::RoomMembers;
use super::opening::OpeningQueue;
use super::pinging::Pingers;
use super::plan::MillionPlan;
use super::rings::Rings;
use crate::clock;
use crate::connect;
use crate::plan::{Plan, Protocol};
use quickio::qev::buffers::Frame;
use quickio::qev::ring::Completion;
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
/// Invariants: `open` is the number of clients that are open, and `members` counts them by room. Every client that is
/// opening is under way in `openings`. Frames that wait belong to clients that have a send in flight.
pub struct Swarm<'a> {
    plan: &'a Plan,
    rings: Rings,
    clients: Vec<LoadClient>,
    openings: OpeningQueue,
    frames: ClientFrames,
    /// The frames that wait for the end of a send, which are few.
    waiting: HashMap<ClientNumber, VecDeque<Frame>>,
    open: usize,
    pub members: RoomMembers,
    /// The time limit of each part of an opening, in nanoseconds.
    pub time_limit: u64,
    next_time_limit_check: u64,
    completions: Vec<Completion>,
    /// The clients whose sockets were closed in this turn.
    closed: Vec<ClientNumber>,
    pub measured: Measured,
    pub deliveries: Deliveries,
    pub pingers: Pingers,
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
            members: RoomMembers::new(million.rooms),
            time_limit: plan.connect_timeout.as_nanos() as u64,
            next_time_limit_check: 0,
            completions: Vec::new(),
            closed: Vec::new(),
            measured: Measured::new(clock::now()),
            deliveries: Deliveries::default(),
            pingers: Pingers::default(),
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

    /// Returns the clients whose sockets were closed in the last turn.
    pub fn closed(&self) -> &[ClientNumber] {
        &self.closed
    }

    /// Opens a client that is closed, as soon as its turn comes.
    pub fn open_later(&mut self, client: ClientNumber) {
        debug_assert_eq!(self.clients[client as usize].state, ClientState::Closed);
        self.openings.push(client);
    }

    /// Opens all clients that are closed, as soon as their turn comes. None may be queued.
    pub fn open_all_later(&mut self) {
        debug_assert!(self.openings.is_empty());
        let closed = (0..).zip(&self.clients).filter(|(_, record)| record.state == ClientState::Closed);
        closed.for_each(|(client, _)| self.openings.push(client));
    }

    /// Returns whether a client is open.
    pub fn is_open(&self, client: ClientNumber) -> bool {
        self.clients[client as usize].state == ClientState::Open
    }

    /// Returns the number of attempts of a client that have failed in a row.
    pub fn failures(&self, client: ClientNumber) -> u32 {
        self.clients[client as usize].failures
    }

    /// Makes the clients from number `stayers` on those that take part in the churn.
    pub fn set_stayers(&mut self, stayers: ClientNumber) {
        let clients = (0..).zip(&self.clients);
        let open = clients.filter(|(_, record)| record.state == ClientState::Open).map(|(client, _)| client);
        self.members.recount(stayers, open);
    }

    /// Sends a frame of an open client.
    pub fn send_from(&mut self, client: ClientNumber, frame: Frame) {
        debug_assert!(self.is_open(client));
        self.send(client, frame);
    }

    /// Closes an open client in an orderly way. This does not count as the end of a client.
    pub fn leave(&mut self, client: ClientNumber) {
        debug_assert!(self.is_open(client));
        self.open -= 1;
        self.members.ended(client);
        self.client(client).state = ClientState::Leaving;
        self.send(client, self.frames.close(None));
    }

    /// Opens clients that are due, waits until something happens or until `until`, and handles it.
    pub fn turn(&mut self, until: u64) -> Result<(), String> {
        self.closed.clear();
        let now = clock::now();
        self.open_due(now);
        while let Some((client, pings)) = self.pingers.take_due(now) {
            self.ping(client, pings);
        }
        self.check_time_limits(now);
        let now = clock::now();
        let due =
            [self.openings.next_due(), self.pingers.next_due(), Some(until)].into_iter().flatten().min();
        let due = due.unwrap_or(until);
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
        self.measured.part_ended(part, now, now.saturating_sub(record.reached));
        record.reached = now;
        record.state = match part {
            OpeningPart::Tcp => ClientState::Opening(OpeningPart::Upgrade),
            OpeningPart::Upgrade => ClientState::Opening(OpeningPart::Hello),
            OpeningPart::Hello => ClientState::Opening(OpeningPart::Subscriptions),
            OpeningPart::Subscriptions => {
                self.measured.opened(record.began, now.saturating_sub(record.began));
                self.openings.ended();
                self.open += 1;
                self.members.opened(client);
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
            ClientState::Open => self.ended(client, cause, now),
            // Already recorded.
            ClientState::Leaving => {}
            ClientState::Closed | ClientState::Cancelling | ClientState::Closing => return,
        }
        self.close(client);
    }

    fn ended(&mut self, client: ClientNumber, cause: EndCause, now: u64) {
        let record = &mut self.clients[client as usize];
        let lasted = now.saturating_sub(record.reached) >= LASTING_NS;
        record.failures = if lasted { 0 } else { record.failures + 1 };
        self.open -= 1;
        self.members.ended(client);
        self.measured.ended(cause, now);
    }

    /// Closes the socket of a client, as soon as no operation is in flight.
    fn close(&mut self, client: ClientNumber) {
        let record = &mut self.clients[client as usize];
        record.state = ClientState::Cancelling;
        if mem::take(&mut record.has_waiting) {
            self.waiting.remove(&client);
        }
        if !record.is_idle() {
            self.rings.cancel(client, record.sending);
        }
        self.close_if_idle(client);
    }

    fn close_if_idle(&mut self, client: ClientNumber) {
        let record = &mut self.clients[client as usize];
        if record.state == ClientState::Cancelling && record.is_idle() {
            record.state = ClientState::Closing;
            self.rings.close(client);
        }
    }

    fn socket_closed(&mut self, client: ClientNumber) {
        debug_assert_eq!(self.client(client).state, ClientState::Closing);
        self.client(client).state = ClientState::Closed;
        self.closed.push(client);
    }
}
