//! The state of a shard: a composition of owners, on which the steps of a turn work.
//!
//! Each owner has private fields and knows no other state than its own. Work on several owners is a step, a method of
//! [`State`] in the step's file. Codecs are kept apart (see [`Codecs`]): the steps that may change one
//! take them as an argument.

use super::acceptor::Acceptor;
use super::access::AccessControl;
use super::addresses::Addresses;
use super::api_queue::ApiQueue;
use super::apps::Apps;
use super::auth::{Auth, AuthParts};
use super::busiest::Busiest;
use super::client_facts::FactsTable;
use super::codecs::Codecs;
use super::connection::{Connection, Stage};
use super::connections::Connections;
use super::drops::Drops;
use super::grant_checks::GrantChecks;
use super::held::HeldInput;
use super::identities::Identities;
use super::incomplete::Incomplete;
use super::kernel::RingOp;
use super::link_table::Links;
use super::listeners::Listeners;
use super::mesh::{MeshPort, THREADS};
use super::messages::{AppCommand, Envelope};
use super::presence::Presence;
use super::proxy_headers::ProxyHeaders;
use super::pubsub::PubSub;
use super::recoveries::Recoveries;
use super::refused::RefusedConnections;
use super::replays::Replays;
use super::sessions::Sessions;
use super::stalls::Stalls;
use super::time::{Time, ms};
use super::tls::TlsTable;
use crate::config::{Config, TrustedProxy};
use crate::history::Store;
use crate::identity::Identity;
use crate::members::{RosterBounds, Rosters};
use crate::metrics::{AppCounter, Counter, Gauge, Snapshot};
use crate::protocol::http::HttpDate;
use crate::protocol::{
    CodecSettings, Compression, CompressionBounds, Framing, Origins, TrustedProxies, WantedHeaders,
};
use crate::qev::clock::{Clock, nanos};
use crate::qev::fair::Pool;
use crate::qev::mesh::Port;
use crate::qev::ring::Wait;
use crate::qev::shrink::List;
use crate::rules::{Buckets, RuleSet};
use crate::tls::TlsContext;
use ahash::{AHashMap, RandomState};
use futures_channel::mpsc;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// State that all shards share: three counts with limits. They change when a client connects, disconnects, subscribes
/// or unsubscribes, but not with other events.
pub struct SharedState {
    /// The connections of the server, HTTP sessions included.
    pub clients: Pool,
    /// The HTTP sessions of the server, which may be only a share of its clients.
    pub sessions: Pool,
    /// The subscriptions of the server.
    pub subscriptions: Pool,
    /// The bytes of the paths of these subscriptions.
    pub path_bytes: Pool,
    /// Chooses the shard of an HTTP session, the one that counts an address, and the one that numbers the events of a path.
    /// Its keys are random, chosen at the start, which keeps peers from overloading one shard.
    pub hasher: RandomState,
    /// The maximum number of connections and sessions from one address; 0 for no limit.
    pub connections_per_address_max: usize,
    /// The output, in bytes, that may wait for all clients together.
    pub outboxes_bytes_max: usize,
    /// The memory, in bytes, that the incomplete messages of all connections may take together.
    pub incomplete_bytes_max: usize,
    /// The rules at the start.
    pub rules: Arc<RuleSet>,
    /// The token buckets of addresses.
    pub address_buckets: Buckets,
    /// The configuration of TLS at the start, or `None` if no listener takes TLS.
    pub tls: Option<TlsContext>,
}

impl SharedState {
    /// Creates counts with the limits of the settings. `places` is the number of places for connections in the rings of
    /// all shards.
    pub fn new(config: &Config, places: usize) -> SharedState {
        SharedState {
            connections_per_address_max: config.connections_per_address(places),
            outboxes_bytes_max: config.outboxes_bytes_max.unwrap_or(usize::MAX),
            incomplete_bytes_max: config.incomplete_bytes_max.unwrap_or(usize::MAX),
            clients: Pool::new(config.clients_max, 100, 0),
            sessions: Pool::new(config.sessions_max(), 100, 0),
            subscriptions: Pool::new(
                config.clients_subs_total,
                config.clients_subs_pressure,
                config.clients_subs_min,
            ),
            path_bytes: Pool::new(
                config.paths_bytes_max,
                config.clients_subs_pressure,
                config.clients_subs_min,
            ),
            hasher: RandomState::new(),
            rules: Arc::new(RuleSet::new(config.rules.clone())),
            address_buckets: Buckets::new(),
            tls: None,
        }
    }
}

/// The parts that a shard is made of.
pub struct ShardParts {
    /// The shard's number, from 0.
    pub id: u16,
    /// The settings.
    pub config: Arc<Config>,
    /// State that all shards share.
    pub shared: Arc<SharedState>,
    /// The shard's port on the mesh.
    pub port: Port<Envelope>,
    /// The clock that timers follow.
    pub clock: Clock,
    /// The applications, registered on this shard.
    pub apps: Apps,
    /// The keys of tokens, and their verification, or `None` if nobody can authenticate.
    pub auth: Option<AuthParts>,
    /// The number of places of the ring for accepted sockets.
    pub places: u32,
    /// The number of places of the ring that are reserved for links to workers.
    pub link_places: u32,
}

/// The state of a shard, except for its codecs.
pub(super) struct State {
    pub config: Arc<Config>,
    pub shared: Arc<SharedState>,
    pub protocol: CodecSettings,
    pub time: Time,
    pub mesh: MeshPort,
    pub apps: Apps,
    pub auth: Auth,
    pub connections: Connections,
    /// What is kept of clients for applications.
    pub facts: FactsTable,
    pub incomplete: Incomplete,
    pub tls: TlsTable,
    pub pubsub: PubSub,
    pub addresses: Addresses,
    pub identities: Identities,
    pub access: AccessControl,
    pub grant_checks: GrantChecks,
    /// The events of the paths that this shard numbers.
    pub replays: Replays,
    /// The clients of this shard that get earlier events.
    pub recoveries: Recoveries,
    /// The members of the paths that this shard keeps.
    pub presence: Presence,
    pub drops: Drops,
    pub busiest: Busiest,
    pub refused: RefusedConnections,
    /// The proxies that send headers of the PROXY protocol.
    pub proxy_protocol: TrustedProxies,
    pub proxy_headers: ProxyHeaders,
    pub sessions: Sessions,
    pub links: Links,
    pub acceptor: Acceptor,
    pub listeners: Listeners,
    pub stalls: Stalls,
    pub held: HeldInput,
    /// The commands of threads that were taken from the inbox and are not applied yet.
    pub app_commands: VecDeque<AppCommand>,
    pub api: ApiQueue,
    /// The texts of ends that are carried out in this turn, by the slots of the connections, for WebSocket clients. Each is
    /// removed with the end.
    pub goodbye_texts: AHashMap<u32, Arc<str>>,
    /// `true` if data that was not JSON was refused, and the event that has caused it was not answered yet.
    pub has_refused_data: bool,
    /// `true` if this turn has found something new: messages, connections, bytes, or the end of a stream.
    pub has_found: bool,
    /// Operations for the ring, other than sends, in order.
    pub ring_ops: Vec<RingOp>,
    pub metrics: Snapshot,
    /// The deadline of the shutdown, as measured by [`nanos`], or `None` if none has begun.
    pub shutdown_deadline_ns: Option<u64>,
    /// The first slot whose connection has not been ended by the shutdown, or `None` if all have been, or none has begun.
    pub shutdown_from: Option<u32>,
    /// Senders for the tests that have moved the clock and wait until the timers due by then have run.
    pub clock_watchers: Vec<mpsc::Sender<()>>,
    /// When the date in `protocol` is next to be renewed, as measured by [`nanos`].
    pub date_due_ns: u64,
}

/// The number of paths whose old events are looked for in a second: it takes less than a millisecond. Events of paths that are
/// used are found anyway.
const SWEPT_PER_SECOND: usize = 4096;

/// Returns the origins of the web pages that may connect.
fn origins(config: &Config) -> Origins {
    match config.origin.as_slice() {
        [all] if all == "*" => Origins::Any,
        origins => {
            Origins::Only(origins.iter().map(|origin| origin.as_str().into()).collect::<Vec<_>>().into())
        }
    }
}

/// Returns the proxies of a setting.
fn proxies(setting: &[TrustedProxy]) -> TrustedProxies {
    let networks = setting.iter().filter_map(|proxy| match proxy {
        TrustedProxy::Network(network) => Some(*network),
        TrustedProxy::Unix => None,
    });
    TrustedProxies { networks: networks.collect(), unix: setting.contains(&TrustedProxy::Unix) }
}

/// Returns the compression of WebSocket messages.
fn compression(config: &Config) -> Compression {
    match config.compression {
        true => Compression::new(CompressionBounds {
            broadcast_bytes_min: config.compression_min_bytes,
            single_bytes_min: config.compression_single_min_bytes,
        }),
        false => Compression::OFF,
    }
}

impl State {
    /// Creates a shard without connections.
    pub fn new(parts: ShardParts) -> State {
        let ShardParts { id, config, shared, port, clock, apps, auth, places, link_places } = parts;
        let auth = Auth::new(config.auth, auth, config.auth_cache_bytes_max);
        let shards = port.shards();
        let addresses = Addresses::new(shared.connections_per_address_max, shards);
        let mut connections = Connections::new(id, config.outbox_bytes_max);
        connections.set_outboxes_max((shared.outboxes_bytes_max / shards) as u64);
        let access = AccessControl::new(Arc::clone(&shared.rules), &shared.address_buckets);
        let mut store = Store::new(config.history_bytes_max, RandomState::new().hash_one(id));
        store.set_rules(access.histories());
        let replays = Replays::new(store);
        let bounds = RosterBounds {
            members_max: config.members_max,
            bytes_max: config.members_bytes_max,
            linger_ms: ms(config.members_linger),
        };
        // Ids have six characters or more.
        let first_id = RandomState::new().hash_one(id) >> 33 | 1 << 31;
        let presence = Presence::new(Rosters::new(bounds, shards as u16, first_id));
        let mut metrics = Snapshot::with_apps(apps.names());
        metrics.rules = access.counters(&[]);
        State {
            protocol: CodecSettings {
                message_bytes_max: config.message_bytes_max,
                http_head_bytes_max: config.http_head_bytes_max,
                origins: origins(&config),
                proxies: proxies(&config.trusted_proxies),
                compression: compression(&config),
                wanted: WantedHeaders {
                    bearer: auth.is_on(),
                    names: config.app_headers.iter().map(|name| name.as_str().into()).collect(),
                },
                date: HttpDate::at(SystemTime::now()),
            },
            date_due_ns: 0,
            time: Time::new(clock),
            mesh: MeshPort::new(id, port, config.mesh_overflow_bytes_max),
            apps,
            auth,
            connections,
            facts: FactsTable::default(),
            incomplete: Incomplete::new((shared.incomplete_bytes_max / shards) as u64),
            tls: TlsTable::default(),
            pubsub: PubSub::new(),
            addresses,
            identities: Identities::default(),
            access,
            grant_checks: GrantChecks::default(),
            replays,
            recoveries: Recoveries::default(),
            presence,
            drops: Drops::default(),
            busiest: Busiest::default(),
            refused: RefusedConnections::default(),
            proxy_protocol: proxies(&config.proxy_protocol),
            proxy_headers: ProxyHeaders::default(),
            sessions: Sessions::new(shards),
            links: Links::new(link_places),
            listeners: Listeners::new(shared.tls.clone()),
            acceptor: Acceptor::new(places as usize, config.accepts_in_flight),
            stalls: Stalls::default(),
            app_commands: VecDeque::new(),
            api: ApiQueue::default(),
            goodbye_texts: AHashMap::new(),
            held: HeldInput::default(),
            has_refused_data: false,
            has_found: false,
            ring_ops: Vec::new(),
            metrics,
            shutdown_deadline_ns: None,
            shutdown_from: None,
            clock_watchers: Vec::new(),
            config,
            shared,
        }
    }

    /// Begins a turn: reads the clocks and renews the budgets of a turn. Returns `true` if it is the first one in a second.
    pub fn begin_turn(&mut self) -> bool {
        self.mesh.awake();
        self.has_found = false;
        self.pubsub.begin_turn();
        self.tls.begin_turn();
        self.time.begin_turn();
        self.protocol.compression.begin_turn();
        let is_new_second = self.time.now_ns() >= self.date_due_ns;
        if is_new_second {
            self.renew_date();
        }
        self.clock_was_read();
        self.count(Counter::Turns, 1);
        is_new_second
    }

    /// Formats the date of HTTP responses, which is valid for the rest of this second.
    #[cold]
    fn renew_date(&mut self) {
        let now = SystemTime::now();
        let nanos_of_second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
        self.protocol.date = HttpDate::at(now);
        self.busiest.expire(self.time.now_ns());
        let now_s = self.now_s();
        self.replays.store.sweep(SWEPT_PER_SECOND, now_s);
        self.date_due_ns = self.time.now_ns() + u64::from(1_000_000_000 - nanos_of_second);
    }

    /// Gives back the memory of lists that only a turn with much to do has needed.
    #[cold]
    pub fn give_back(&mut self) {
        self.time.give_back();
        self.mesh.give_back();
        self.connections.give_back();
        self.pubsub.give_back();
        self.tls.give_back();
        self.replays.questions.give_back();
        self.recoveries.give_back();
        self.presence.give_back();
        self.identities.give_back(self.connections.slots());
        self.ring_ops.give_back();
        self.app_commands.give_back();
    }

    /// Tells the applications the time that was just read.
    pub fn clock_was_read(&mut self) {
        self.apps.set_now(Duration::from_millis(self.time.now_ms()));
    }

    /// Adds to a counter.
    #[inline]
    pub fn count(&mut self, counter: Counter, n: u64) {
        self.metrics.counters.add(counter, n);
    }

    /// Returns whether the next turn must not wait.
    pub fn has_work(&self) -> bool {
        debug_assert!(!self.connections.has_endings(), "a turn leaves no decided end");
        debug_assert!(!self.pubsub.has_broadcasts(), "a turn leaves no broadcast");
        debug_assert!(!self.connections.has_ready_sessions(), "a turn leaves no session with output");
        debug_assert!(!self.sessions.has_responses(), "a turn leaves no response");
        // Output that waits for the mesh is sent when the mesh has room, which it may have got at the end of a turn.
        // While it does not, the shard is woken when it gets some.
        let unblocked = self.connections.has_blocked_sessions() && !self.mesh.has_overflow();
        let enforces = self.can_enforce_rules();
        let leaving = self.pubsub.has_leaving() && !self.links.are_full() && !self.mesh.is_stuck();
        let ends = self.connections.has_overflowed() || self.shutdown_from.is_some();
        let later = self.connections.has_discarded() || self.stalls.is_checking();
        let ready = ends || later || self.connections.has_ready() || self.mesh.has_deferred();
        let held = self.has_source_to_listen_to();
        let commands = !self.app_commands.is_empty() && !self.mesh.is_over(THREADS);
        let waiting =
            commands || enforces || self.tls.has_waiting() || self.has_api_work() || self.auth.has_released();
        let replaying = !self.replays.questions.is_empty() || self.has_recoveries_to_look_at();
        let members = self.presence.has_work(self.time.now_ms()) || self.can_renew_memberships();
        ready || members || !self.ring_ops.is_empty() || leaving || unblocked || held || waiting || replaying
    }

    /// Returns how long the kernel may wait for events: not at all while there is work, and without limit if no timer
    /// is set.
    pub fn wait(&mut self) -> Wait {
        let wait = self.time_to_wait();
        self.time.plan(wait);
        wait
    }

    fn time_to_wait(&mut self) -> Wait {
        if self.has_work() {
            return Wait::No;
        }
        let wait = self.time.wait(self.shutdown_deadline_ns);
        if wait == Wait::No || !self.mesh.try_sleep() {
            return Wait::No;
        }
        self.count(Counter::Sleeps, 1);
        wait
    }

    /// Returns who the client of a connection is, or `None` if it has not authenticated.
    pub fn identity(&self, slot: u32) -> Option<&Identity> {
        self.identities.get(slot).map(|identity| &**identity)
    }

    /// Returns whether the server shuts down.
    pub fn is_shutting_down(&self) -> bool {
        self.shutdown_deadline_ns.is_some()
    }

    /// Returns whether every client has disconnected and all of their subscriptions have ended.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty() && !self.pubsub.has_leaving()
    }

    /// Returns whether the server shuts down and this shard has nothing left to do, or its deadline has passed.
    pub fn is_done(&self) -> bool {
        self.shutdown_deadline_ns.is_some_and(|deadline_ns| {
            self.is_empty() && self.links.are_shut_down() || nanos() >= deadline_ns
        })
    }

    /// Returns everything counted, with the gauges as they are now.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.metrics.clone();
        let mut gauge = |gauge, value: usize| snapshot.gauges.set(gauge, value as u64);
        gauge(Gauge::Connections, self.connections.len() - self.sessions.len() - self.refused.uncounted());
        gauge(Gauge::ConnectionsRefusing, self.refused.len());
        gauge(Gauge::ClientsAuthenticated, self.identities.len());
        gauge(Gauge::Users, self.identities.users());
        gauge(Gauge::ClientFactsBytes, self.facts.bytes());
        gauge(Gauge::AuthPending, self.auth.pending());
        gauge(Gauge::AuthSeenBytes, self.auth.seen_bytes());
        gauge(Gauge::HttpSessions, self.sessions.len());
        gauge(Gauge::TlsConnections, self.tls.secured());
        gauge(Gauge::TlsHandshakesOpen, self.tls.half_open());
        gauge(Gauge::TlsHandshakesWaiting, self.tls.waiting());
        gauge(Gauge::Clients, self.connections.clients());
        gauge(Gauge::ClientsWebsocket, self.connections.clients_of_framing(Framing::WebSocket));
        gauge(Gauge::ClientsRaw, self.connections.clients_of_framing(Framing::Raw));
        gauge(Gauge::ClientsPolling, self.connections.clients_of_framing(Framing::LongPolling));
        gauge(Gauge::ClientsStreaming, self.connections.clients_of_framing(Framing::EventStream));
        gauge(Gauge::Subscriptions, self.pubsub.subscriptions());
        gauge(Gauge::Paths, self.pubsub.paths());
        gauge(Gauge::PathBytes, self.pubsub.path_bytes());
        gauge(Gauge::Timers, self.time.timers());
        gauge(Gauge::OutboxBytes, self.connections.outbox_bytes() as usize);
        gauge(Gauge::IncompleteBytes, self.incomplete.bytes() as usize);
        gauge(Gauge::MeshOverflowBytes, self.mesh.overflow_bytes());
        gauge(Gauge::InputsHeld, self.held.len());
        gauge(Gauge::InputBytesHeld, self.held.bytes());
        gauge(Gauge::CallbacksOpen, self.connections.callbacks_open());
        // The buckets of addresses belong to no shard. Added to any shard, they make the sums complete.
        let is_first = self.mesh.shard() == 0;
        let addresses = Some(&self.shared.address_buckets).filter(|_| is_first);
        let address_bytes = addresses.map_or(0, Buckets::bytes);
        gauge(Gauge::RateBucketBytes, self.access.bucket_bytes() + address_bytes);
        let kept = self.replays.store.totals();
        gauge(Gauge::HistoryPaths, self.replays.store.paths());
        gauge(Gauge::HistoryEvents, kept.events);
        gauge(Gauge::HistoryBytes, kept.bytes);
        gauge(Gauge::ReplaysWaiting, self.replays.questions.len());
        gauge(Gauge::Recoveries, self.recoveries.len());
        let members = self.presence.rosters.totals();
        gauge(Gauge::MembersPaths, self.presence.rosters.paths());
        gauge(Gauge::Members, members.connections);
        gauge(Gauge::MembersBytes, members.bytes);
        gauge(Gauge::MembersWaiting, self.presence.questions.len());
        let mesh = self.mesh.counters();
        let mut counter = |counter, value| snapshot.counters.add(counter, value);
        counter(Counter::RateBucketsEvicted, self.access.evicted() + addresses.map_or(0, Buckets::evicted));
        counter(Counter::HistoryEvictions, self.replays.store.evicted());
        counter(Counter::MembersListsDropped, members.dropped);
        counter(Counter::MeshSent, mesh.sent);
        counter(Counter::MeshReceived, mesh.received);
        counter(Counter::MeshOverflowed, mesh.overflowed);
        counter(Counter::MeshRefused, mesh.refused);
        let compression = self.protocol.compression.counts();
        counter(Counter::MessagesCompressed, compression.compressed);
        counter(Counter::MessagesIncompressible, compression.incompressible);
        counter(Counter::CompressionSkipped, compression.skipped);
        counter(Counter::CompressedBytesBefore, compression.bytes_before);
        counter(Counter::CompressedBytesAfter, compression.bytes_after);
        counter(Counter::MessagesInflated, compression.inflated);
        counter(Counter::InflatedBytes, compression.inflated_bytes);
        counter(Counter::InflationsRefused, compression.bombs);
        self.add_kept(&mut snapshot.rules);
        self.links.add_to(&mut snapshot.gauges);
        for (app, group) in self.apps.worker_groups() {
            let Snapshot { counters, apps, .. } = &mut snapshot;
            group.add_to(counters, &mut apps[app].statistics);
        }
        for (app, panics) in snapshot.apps.iter_mut().zip(self.apps.panics()) {
            app.statistics.add(AppCounter::Errors, *panics);
        }
        for (app, refused) in snapshot.apps.iter_mut().zip(self.apps.promises_refused()) {
            app.statistics.add(AppCounter::PromisesRefused, *refused);
        }
        snapshot
    }

    /// Asserts the invariants of all owners, between turns. Linear in the size of the shard.
    pub fn check(&self, codecs: &Codecs) {
        self.time.check();
        self.mesh.check();
        self.connections.check();
        self.pubsub.check(&self.connections);
        let count = |which: fn(&Connection) -> bool| {
            self.connections.iter().filter(|(_, connection)| which(connection)).count()
        };
        let refused = count(|connection| connection.refusal.is_some());
        self.refused.check(refused, count(|connection| !connection.is_counted()));
        let by_address = |connection: &Connection| {
            connection.is_counted() && self.addresses.counted(connection.peer).is_some()
        };
        self.addresses
            .check(self.connections.iter().filter(|(_, connection)| by_address(connection)).count());
        let silent_proxies = count(|connection| connection.is_silent_proxy);
        self.acceptor.check(self.connections.len() - self.sessions.len(), silent_proxies);
        self.sessions.check(&self.connections);
        codecs.check(|slot| self.connections.has_socket(slot));
        for (slot, connection) in self.connections.iter() {
            let needs_timer = connection.is_socket() && connection.stage == Stage::Open;
            let waits = || codecs.get(slot).unanswered().next().is_some();
            assert!(
                !needs_timer || connection.timer.is_some() || waits(),
                "connection {slot} has no timer, and no request that waits"
            );
        }
        let is_open = |slot| {
            let connection = self.connections.get(slot);
            connection.is_some_and(|connection| matches!(connection.stage, Stage::Open | Stage::Ending))
        };
        self.identities.check(is_open);
        self.auth.check(is_open);
        self.facts.check(is_open);
        self.proxy_headers.check(|slot| self.connections.has_socket(slot));
        let of_peers = codecs.incomplete_bytes() + self.proxy_headers.bytes() + self.sessions.kept_bytes();
        self.incomplete.check(of_peers + self.tls.all_incomplete_bytes() + self.auth.all_held_bytes() as u64);
        self.check_tls();
        let is_unreleased = |slot| self.connections.live(slot).stage <= Stage::Ending;
        self.drops.check(is_unreleased);
        self.links.check();
        self.check_held();
        self.api.check();
        assert!(self.goodbye_texts.is_empty(), "a turn leaves no text of an end");
        self.apps.check();
        self.access.check(&self.metrics.rules);
        self.grant_checks.check();
        self.replays.check();
        self.recoveries.check();
        self.presence.check();
    }
}

/// Records that a shard may have to be checked after every turn.
const CHECKED_EVERY_TURN: usize = 64;

/// Free slots that cost a check about as much as one record.
const FREE_SLOTS_PER_RECORD: usize = 8;

impl State {
    /// Asserts the invariants, in debug builds. A check is linear in the size of the shard, free slots included, so
    /// that large shards are checked only once in a number of turns.
    pub fn check_sometimes(&self, codecs: &Codecs) {
        let subscribed = self.pubsub.paths() + self.pubsub.subscriptions();
        let free = self.connections.slots() / FREE_SLOTS_PER_RECORD;
        let size = self.connections.len() + subscribed + self.time.timers() + free;
        let interval = if cfg!(test) { size / 1024 + 1 } else { size / CHECKED_EVERY_TURN + 1 };
        if self.metrics.counters.get(Counter::Turns) % interval as u64 == 0 {
            self.check(codecs);
        }
    }
}
