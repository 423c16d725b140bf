//! The state of a shard that is not the kernel's: its connections, clients, subscriptions, applications, timers.

use super::addresses::Addresses;
use super::apps::Apps;
use super::connection::{Client, Connection, Moment};
use super::fanout::Broadcast;
use super::flush::{CoalescedFrame, Kernel, RingOp};
use super::http::Http;
use super::links::Links;
use super::liveness::{DueTimer, Once, heartbeat_path};
use super::mail::{AppCommand, ControlMessage, Envelope};
use crate::client::ClientId;
use crate::client::subscriptions::Subscriptions;
use crate::config::Config;
use crate::event::path::Path;
use crate::metrics::{Counter, Gauge, Snapshot};
use crate::protocol::{CodecSettings, Origins};
use crate::qev::clock::{Clock, nanos};
use crate::qev::fair::Pool;
use crate::qev::mesh::Port;
use crate::qev::ring::Wait;
use crate::qev::slots::Slots;
use crate::qev::timer::Wheel;
use ahash::RandomState;
use futures_channel::mpsc;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Subscriptions of clients that have gone which are ended in one turn: as many as take a millisecond or so, with
/// their off-hooks.
const LEAVES_PER_TURN_MAX: usize = 1024;

/// What all shards share: two counts with a limit, touched when somebody connects or subscribes, never by events.
pub struct Shared {
    pub clients: Pool,
    pub subscriptions: Pool,
    /// Tells which shard an HTTP session lives on. Its keys are chosen at the start: no peer can aim at one shard.
    pub sids: RandomState,
}

impl Shared {
    /// The limits that the settings state.
    pub fn new(config: &Config) -> Shared {
        Shared {
            clients: Pool::new(config.clients_max, 100, 0),
            subscriptions: Pool::new(
                config.clients_subs_total,
                config.clients_subs_pressure,
                config.clients_subs_min,
            ),
            sids: RandomState::new(),
        }
    }
}

/// What a shard is made of.
pub struct Parts {
    pub id: u16,
    pub config: Arc<Config>,
    pub shared: Arc<Shared>,
    pub port: Port<Envelope>,
    pub clock: Clock,
    pub apps: Apps,
    /// Places of the ring that are reserved for links to workers.
    pub link_places: u32,
}

/// The state of a shard.
pub(super) struct State {
    pub id: u16,
    pub config: Arc<Config>,
    pub shared: Arc<Shared>,
    pub port: Port<Envelope>,
    pub apps: Apps,
    pub connections: Slots<Connection>,
    pub clients: Slots<Client>,
    pub subscriptions: Subscriptions,
    pub addresses: Addresses,
    pub http: Http,
    pub links: Links,
    pub timers: Wheel<DueTimer>,
    pub onces: Slots<Once>,
    /// Broadcasts of this turn that were not fanned out yet.
    pub broadcasts: Vec<Broadcast>,
    /// Connections whose end was decided, in this turn.
    pub endings: Vec<super::closing::Ending>,
    /// Clients that have gone, and whose subscriptions are not all ended yet.
    pub leaving: VecDeque<ClientId>,
    /// How many of those subscriptions may still be ended in this turn.
    pub leave_budget: usize,
    /// Connections that may have something to flush.
    pub ready: VecDeque<u32>,
    /// What the ring is to do, beside sends.
    pub ring_ops: Vec<RingOp>,
    /// The frame that was joined last, for the next client that has the same frames to send.
    pub joined: CoalescedFrame,
    pub notices: Vec<ControlMessage>,
    pub posted: Vec<AppCommand>,
    /// When a full mesh is worth a warning again.
    pub warn_again_ms: u64,
    pub metrics: Snapshot,
    pub settings: Rc<CodecSettings>,
    pub now: Moment,
    pub now_ms: u64,
    pub now_ns: u64,
    /// Accepts failed for a lack of descriptors or memory, and wait.
    pub accepts_wait: bool,
    /// The timer is set at whose end accepting is tried again.
    pub accept_timer: bool,
    pub shutdown: Option<Shutdown>,
    clock: Clock,
    generation: u32,
    scratch: String,
    fired: Vec<DueTimer>,
    /// Letters of the mesh, between their receipt and their taking.
    pub letters: Vec<(u16, Envelope)>,
    pub heartbeat: Path,
    pub clock_watchers: Vec<mpsc::Sender<()>>,
}

/// The shard is shutting down; at this time, by [`nanos`], it ends whatever is left.
#[derive(Clone, Copy)]
pub(super) struct Shutdown {
    pub deadline_ns: u64,
}

/// The pages that browsers may connect from.
fn origins(config: &Config) -> Origins {
    match config.origin.as_slice() {
        [all] if all == "*" => Origins::Any,
        origins => Origins::Only(origins.iter().map(|origin| origin.as_str().into()).collect()),
    }
}

impl State {
    pub fn new(parts: Parts) -> State {
        let Parts { id, config, shared, port, clock, apps, link_places } = parts;
        let now_ms = clock.now_ms();
        let settings =
            CodecSettings { message_bytes_max: config.message_bytes_max, origins: origins(&config) };
        State {
            id,
            addresses: Addresses::new(config.connections_per_address_max),
            http: Http::default(),
            links: Links::new(link_places),
            config,
            shared,
            port,
            apps,
            connections: Slots::new(),
            clients: Slots::new(),
            subscriptions: Subscriptions::new(),
            timers: Wheel::new(now_ms),
            onces: Slots::new(),
            broadcasts: Vec::new(),
            endings: Vec::new(),
            ready: VecDeque::new(),
            ring_ops: Vec::new(),
            joined: CoalescedFrame::default(),
            notices: Vec::new(),
            posted: Vec::new(),
            warn_again_ms: 0,
            metrics: Snapshot::new(),
            settings: Rc::new(settings),
            now: Moment::at(now_ms),
            now_ms,
            now_ns: nanos(),
            accepts_wait: false,
            accept_timer: false,
            leaving: VecDeque::new(),
            leave_budget: LEAVES_PER_TURN_MAX,
            shutdown: None,
            clock,
            generation: 0,
            scratch: String::new(),
            fired: Vec::new(),
            letters: Vec::new(),
            heartbeat: heartbeat_path(),
            clock_watchers: Vec::new(),
        }
    }

    /// Reads the clocks, once for the turn.
    pub fn begin_turn(&mut self) {
        self.port.end_sleep();
        self.leave_budget = LEAVES_PER_TURN_MAX;
        self.now_ns = nanos();
        self.read_clock();
        self.metrics.counters.add(Counter::Turns, 1);
    }

    /// What a turn does once mail and completions were looked at.
    pub fn finish_turn(&mut self, kernel: &mut impl Kernel) {
        self.run_timers();
        self.finish_leaving();
        self.settle();
        if self.shutdown.is_some() && self.connections.is_empty() && self.leaving.is_empty() {
            self.links.abandon_all();
        }
        self.flush(kernel);
        self.tell_clock_watchers();
        self.port.flush();
    }

    /// Fans out what was broadcast, answers the requests that wait for it and carries out what was decided, until none
    /// of that has left any of the others.
    fn settle(&mut self) {
        self.unblock_sessions();
        loop {
            self.fan_out();
            self.answer_requests();
            if self.endings.is_empty() {
                break;
            }
            self.finish_endings();
        }
    }

    /// Answers requests of HTTP whose sessions have something to say.
    pub fn answer_requests(&mut self) {
        self.flush_sessions();
        self.deliver_answers();
    }

    /// Reads the clock that timers go by.
    pub fn read_clock(&mut self) {
        self.now_ms = self.clock.now_ms();
        self.now = Moment::at(self.now_ms);
        self.apps.runner().now = Duration::from_millis(self.now_ms);
    }

    /// Whether the next turn must not wait.
    pub fn has_work(&self) -> bool {
        debug_assert!(self.endings.is_empty() && self.broadcasts.is_empty(), "a turn leaves none");
        debug_assert!(self.http.ready.is_empty() && self.http.answers.is_empty(), "a turn leaves none");
        // Output of sessions that waited for the mesh goes as soon as that has room, which the end of a turn may bring.
        let unblocked = !self.http.blocked.is_empty() && !self.mesh_is_stuck();
        let leaves = !self.leaving.is_empty() && !self.links.are_full();
        !self.ready.is_empty() || !self.ring_ops.is_empty() || leaves || unblocked
    }

    /// Whether the server shuts down and this shard has nothing left, or no time.
    pub fn is_done(&self) -> bool {
        match self.shutdown {
            Some(shutdown) => {
                let is_empty = self.connections.is_empty() && self.leaving.is_empty();
                is_empty && self.links.are_shut_down() || nanos() >= shutdown.deadline_ns
            }
            None => false,
        }
    }

    /// How long nothing is due. By a clock that stands still nothing ever is, but the end of a shutdown.
    pub fn time_to_next_due(&self) -> Wait {
        let shutdown = self
            .shutdown
            .map(|shutdown| Duration::from_nanos(shutdown.deadline_ns.saturating_sub(self.now_ns)));
        let timer = self.timers.next_ms().map(|at_ms| at_ms.saturating_sub(self.clock.now_ms()));
        let timer = match timer {
            Some(0) => return Wait::No,
            Some(_) if self.clock.is_manual() => None,
            ms => ms.map(Duration::from_millis),
        };
        match (timer, shutdown) {
            (Some(timer), Some(shutdown)) => Wait::For(timer.min(shutdown)),
            (Some(time), None) | (None, Some(time)) => Wait::For(time),
            (None, None) => Wait::Forever,
        }
    }

    /// Runs the timers that are due.
    pub fn run_timers(&mut self) {
        let mut fired = std::mem::take(&mut self.fired);
        self.timers.advance(self.now_ms, &mut fired);
        for due in fired.drain(..) {
            self.due(due);
        }
        self.fired = fired;
    }

    pub fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1).max(1);
        self.generation
    }

    /// The client with this identity, if it is still there.
    pub fn client(&mut self, id: ClientId) -> Option<&mut Client> {
        let client = self.clients.get_mut(id.slot as usize)?;
        let is_here = client.generation() == id.generation && id.shard == self.id && !client.has_gone();
        is_here.then_some(client)
    }

    /// Everything counted, with the gauges as they are now.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.metrics.clone();
        let mut gauge = |gauge, value: usize| snapshot.gauges.set(gauge, value as u64);
        gauge(Gauge::Connections, self.connections.len() - self.http.sessions.len());
        gauge(Gauge::HttpSessions, self.http.sessions.len());
        gauge(Gauge::Clients, self.clients.len());
        gauge(Gauge::Subscriptions, self.subscriptions.len());
        gauge(Gauge::Paths, self.subscriptions.paths());
        gauge(Gauge::Timers, self.timers.len());
        let mesh = self.port.counters();
        let mut counter = |counter, value| snapshot.counters.add(counter, value);
        counter(Counter::MeshSent, mesh.sent);
        counter(Counter::MeshReceived, mesh.received);
        counter(Counter::MeshOverflowed, mesh.overflowed);
        counter(Counter::MeshRefused, mesh.refused);
        self.links.add_to(&mut snapshot.gauges);
        self.apps.worker_groups().for_each(|team| team.add_to(&mut snapshot.counters));
        snapshot
    }

    /// Memory for cleaning a path, lent for the time of one event.
    pub fn lend_scratch(&mut self) -> String {
        std::mem::take(&mut self.scratch)
    }

    pub fn take_scratch_back(&mut self, scratch: String) {
        self.scratch = scratch;
    }
}
