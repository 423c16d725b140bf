//! The subscriptions of a shard's clients, and the broadcasts that reach them.
//!
//! A broadcast is encoded once for each framing that has subscribers here; every subscriber's outbox gets a reference
//! to that frame.

#[cfg(test)]
mod tests;

use super::connections::Connections;
use super::frames::{COALESCED_BYTES_MAX, encode_event};
use super::numbered;
use crate::app::Json;
use crate::client::ClientId;
use crate::client::subscriptions::{
    DecisionOutcome, EndedSubscription, EventForm, Membership, PathId, SubscribeOutcome, Subscriber,
    Subscriptions, UnsubscribeOutcome,
};
use crate::event::path::{Path, PathRef};
use crate::event::text;
use crate::history::Position;
use crate::protocol::{Compression, Framing, WindowBits};
use crate::qev::buffers::{AcceptedBroadcasts, Frame};
use crate::qev::shrink::List;
use std::collections::{BTreeSet, VecDeque};

/// The number of subscriptions of disconnected clients that end in one turn: they take about a millisecond, including
/// their off-hooks.
const ENDED_PER_TURN_MAX: usize = 1024;

/// The path of events about the members of paths.
const MEMBERS_PATH: &str = "/qio/members";

/// A broadcast that this shard's subscribers get before the turn is over.
struct Broadcast {
    path: PathId,
    data: Json,
    accepted_ns: u64,
    kind: BroadcastKind,
}

/// The kind of a broadcast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BroadcastKind {
    /// An event without a number.
    Plain,
    /// An event at this position.
    Numbered(Position),
    /// News of the members of the path, for those who watch them.
    Members,
}

/// Consecutive broadcasts to one path, in one form.
#[derive(Clone, Copy)]
struct Run<'a> {
    path: &'a str,
    broadcasts: &'a [Broadcast],
    form: EventForm,
}

impl Run<'_> {
    /// Puts the run into the outboxes of these clients as one frame; returns the number of messages queued.
    #[inline]
    fn send(
        self,
        clients: impl Iterator<Item = u32>,
        connections: &mut Connections,
        compression: &Compression,
        now_ns: u64,
    ) -> u64 {
        let mut frames = Frames::default();
        // Most subscribers of a path have the same framing.
        let mut last: Option<(Framing, Frame)> = None;
        let mut reached = 0;
        for client in clients {
            let Some(slot) = connections.connection_of_subscriber(client) else { continue };
            let queued = connections.queue_framed(slot, |framing| match &last {
                Some((same, frame)) if *same == framing => frame.clone(),
                _ => {
                    let frame = frames.frame(framing, self, compression, now_ns);
                    last.insert((framing, frame)).1.clone()
                }
            });
            reached += u64::from(queued.is_in_outbox());
        }
        reached * self.broadcasts.len() as u64
    }

    /// Calls `each` with the path and the data of each event.
    fn each_event(&self, mut each: impl FnMut(&str, &str)) {
        for broadcast in self.broadcasts {
            match (broadcast.kind, self.form) {
                (BroadcastKind::Numbered(at), EventForm::Numbered) => {
                    numbered::each_event(self.path, at, &broadcast.data, &mut each)
                }
                _ => each(self.path, broadcast.data.as_str()),
            }
        }
    }

    /// Encodes the events one behind the other, without compression.
    fn encode(&self, framing: Framing) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.each_event(|path, data| append(&mut bytes, encode_event(framing, path, 0, data)));
        bytes
    }

    /// Encodes the events with compression: each is a message of its own, compressed or not. Returns `None` if none of
    /// them is compressed.
    fn deflate(&self, compression: &Compression) -> Option<Vec<u8>> {
        let (mut bytes, mut is_compressed) = (Vec::new(), false);
        self.each_event(|path, data| {
            let event = encode_event(Framing::WebSocket, path, 0, data);
            let compressed = compression.shrink_broadcast(&event);
            is_compressed |= compressed.is_some();
            append(&mut bytes, compressed.unwrap_or(event));
        });
        is_compressed.then_some(bytes)
    }

    /// Returns whether all messages fit into a window.
    fn fits(&self, window: WindowBits) -> bool {
        let mut fits = true;
        self.each_event(|path, data| fits &= text::event_len(path, 0, data) <= window.message_bytes_max());
        fits
    }
}

/// Appends an encoded event. Most runs are a single event, which is not copied.
fn append(bytes: &mut Vec<u8>, event: Vec<u8>) {
    if bytes.is_empty() {
        *bytes = event;
    } else {
        bytes.extend_from_slice(&event);
    }
}

/// The frames of a run of broadcasts. Each is encoded for the first subscriber that needs it.
#[derive(Default)]
struct Frames {
    /// The frame of each framing, without compression.
    plain: [Option<Frame>; Framing::PLAIN_COUNT],
    /// The frame of WebSocket with compression. It is the plain one if that shrinks nothing.
    deflated: Option<Frame>,
}

impl Frames {
    /// Returns the frame of a run for clients with this framing.
    #[cold]
    fn frame(&mut self, framing: Framing, run: Run<'_>, compression: &Compression, now_ns: u64) -> Frame {
        match framing {
            Framing::Deflate(window) => self.deflated(window, run, compression, now_ns),
            _ => self.plain(framing, run, now_ns),
        }
    }

    fn plain(&mut self, framing: Framing, run: Run<'_>, now_ns: u64) -> Frame {
        let encode = || Frame::broadcast(run.encode(framing), now_ns, accepted(run.broadcasts, now_ns));
        self.plain[framing.plain_index()].get_or_insert_with(encode).clone()
    }

    /// Returns the frame for clients with compression. If a message of the run is too long for the window, the run is sent
    /// without compression: at most two frames are made, whatever windows the clients have.
    fn deflated(
        &mut self,
        window: WindowBits,
        run: Run<'_>,
        compression: &Compression,
        now_ns: u64,
    ) -> Frame {
        if window != WindowBits::Fifteen && !run.fits(window) {
            return self.plain(Framing::WebSocket, run, now_ns);
        }
        if let Some(frame) = &self.deflated {
            return frame.clone();
        }
        let frame = match run.deflate(compression) {
            Some(bytes) => Frame::broadcast(bytes, now_ns, accepted(run.broadcasts, now_ns)),
            None => self.plain(Framing::WebSocket, run, now_ns),
        };
        self.deflated.insert(frame).clone()
    }
}

/// Subscriptions, this turn's broadcasts, and clients that have disconnected while they were subscribed.
///
/// Invariants:
/// - a broadcast reaches exactly the clients that were subscribed when it was accepted: no subscription changes while
///   a broadcast waits to be fanned out (asserted by each method that changes one);
/// - each client that has subscriptions has a record on this shard, which stays until its subscriptions have ended;
/// - the clients in `leaving` are those that have been detached from their connections, in order;
/// - between turns no broadcast waits.
pub(super) struct PubSub {
    subscriptions: Subscriptions,
    /// Broadcasts of this turn that have not been fanned out yet.
    broadcasts: Vec<Broadcast>,
    /// Clients that have disconnected, and whose subscriptions have not all ended yet.
    leaving: VecDeque<ClientId>,
    /// The number of subscriptions of `leaving` clients that may still end in this turn.
    budget: usize,
    /// The bytes of paths that were acquired from the pool of the server.
    charged_path_bytes: usize,
    /// The clients whose subscriptions are pending and who ask for the members of the paths.
    asking: BTreeSet<(u32, PathId)>,
}

impl PubSub {
    /// No subscriptions.
    pub fn new() -> PubSub {
        PubSub {
            subscriptions: Subscriptions::new(),
            broadcasts: Vec::new(),
            leaving: VecDeque::new(),
            budget: ENDED_PER_TURN_MAX,
            charged_path_bytes: 0,
            asking: BTreeSet::new(),
        }
    }

    /// The number of active subscriptions.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.len()
    }

    /// The number of paths that have subscribers here or on other shards.
    pub fn paths(&self) -> usize {
        self.subscriptions.paths()
    }

    // Broadcasts.

    /// The path's id, if it has subscribers here or on other shards.
    pub fn find(&self, path: PathRef<'_>) -> Option<PathId> {
        self.subscriptions.find(path)
    }

    /// The other shards that have subscribers for a path.
    pub fn remote(&self, path: PathId) -> impl Iterator<Item = u16> + use<> {
        bits(self.subscriptions.remote(path))
    }

    /// The number of this shard's subscribers of a path.
    pub fn subscribers(&self, path: PathId) -> usize {
        self.subscriptions.subscribers(path).len()
    }

    /// Returns whether a client has a subscription of the path that is active or pending, and has not given it up.
    pub fn is_wanted(&self, client: u32, path: PathRef<'_>) -> bool {
        self.subscriptions.is_wanted(client, path)
    }

    /// Returns whether a client is subscribed to a path.
    pub fn is_active(&self, client: u32, path: PathRef<'_>) -> bool {
        self.subscriptions.is_active(client, path)
    }

    /// The ids in use among `max` places from this one on.
    pub fn ids_from(&self, from: usize, max: usize) -> impl Iterator<Item = PathId> {
        self.subscriptions.ids_from(from, max)
    }

    /// The number of places of paths.
    pub fn places(&self) -> usize {
        self.subscriptions.places()
    }

    /// Queues a broadcast for this shard's subscribers.
    pub fn queue(&mut self, path: PathId, data: Json, accepted_ns: u64, kind: BroadcastKind) {
        if !self.subscriptions.subscribers(path).is_empty() {
            self.broadcasts.push(Broadcast { path, data, accepted_ns, kind });
        }
    }

    /// Returns whether a broadcast waits to be fanned out.
    pub fn has_broadcasts(&self) -> bool {
        !self.broadcasts.is_empty()
    }

    /// Puts the broadcasts that wait into the outboxes of their subscribers; returns the number of messages queued.
    pub fn fan_out(&mut self, connections: &mut Connections, compression: &Compression, now_ns: u64) -> u64 {
        let mut messages = 0;
        let mut broadcasts = std::mem::take(&mut self.broadcasts);
        let kind = |broadcast: &Broadcast| std::mem::discriminant(&broadcast.kind);
        let is_alike = |a: &Broadcast, b: &Broadcast| a.path == b.path && kind(a) == kind(b);
        for alike in broadcasts.chunk_by(is_alike) {
            for run in runs(alike) {
                messages += self.fan_out_run(run, connections, compression, now_ns);
            }
        }
        broadcasts.clear();
        self.broadcasts = broadcasts;
        messages
    }

    /// Sends consecutive broadcasts of one kind to the subscribers of their path, in the form that each wants.
    fn fan_out_run(
        &self,
        broadcasts: &[Broadcast],
        connections: &mut Connections,
        compression: &Compression,
        now_ns: u64,
    ) -> u64 {
        let Some(first) = broadcasts.first() else { return 0 };
        let subscribers = self.subscriptions.subscribers(first.path).iter();
        let run = Run { path: self.path(first.path).as_str(), broadcasts, form: EventForm::Plain };
        match first.kind {
            BroadcastKind::Plain => {
                let clients = subscribers.map(|subscriber| subscriber.client());
                run.send(clients, connections, compression, now_ns)
            }
            BroadcastKind::Numbered(_) => {
                let send = |form| {
                    let wanting = subscribers.clone().filter(|subscriber| subscriber.form() == form);
                    let clients = wanting.map(|subscriber| subscriber.client());
                    Run { form, ..run }.send(clients, connections, compression, now_ns)
                };
                [EventForm::Plain, EventForm::Numbered].map(send).iter().sum()
            }
            BroadcastKind::Members => {
                let watching =
                    subscribers.filter(|subscriber| subscriber.membership() == Membership::Watching);
                let clients = watching.map(|subscriber| subscriber.client());
                Run { path: MEMBERS_PATH, ..run }.send(clients, connections, compression, now_ns)
            }
        }
    }

    /// Sends the members of a path to clients that have asked for them; returns the number of messages queued.
    pub fn send_list(
        &self,
        (path, data): (PathId, Json),
        clients: &[u32],
        connections: &mut Connections,
        compression: &Compression,
        now_ns: u64,
    ) -> u64 {
        self.assert_fanned_out();
        let list = [Broadcast { path, data, accepted_ns: now_ns, kind: BroadcastKind::Members }];
        let run = Run { path: MEMBERS_PATH, broadcasts: &list, form: EventForm::Plain };
        run.send(clients.iter().copied(), connections, compression, now_ns)
    }

    /// Notes that a client whose subscription is pending asks for the members of the path.
    pub fn ask_for_members(&mut self, client: u32, path: PathId) {
        self.asking.insert((client, path));
    }

    /// The membership of a client of a path, or `None` if it is not subscribed.
    pub fn membership(&self, client: u32, path: PathId) -> Option<Membership> {
        self.subscriptions.membership(client, path)
    }

    /// Sets the membership of a client that is subscribed to a path.
    pub fn set_membership(&mut self, client: u32, path: PathId, membership: Membership) {
        self.assert_fanned_out();
        self.subscriptions.set_membership(client, path, membership);
    }

    // Subscriptions.

    /// Subscribes a client; see [`Subscriptions::subscribe`].
    pub fn on(&mut self, client: u32, path: &Path) -> SubscribeOutcome {
        self.assert_fanned_out();
        self.subscriptions.subscribe(client, path)
    }

    /// Completes a subscription with the application's decision; see [`Subscriptions::decide`].
    pub fn decide(&mut self, client: u32, path: PathId, accepted: bool) -> DecisionOutcome {
        self.decide_in(client, path, accepted.then_some(EventForm::Plain))
    }

    /// Completes a subscription that is accepted with events in this form; see [`Subscriptions::decide_in`].
    pub fn accept_in(&mut self, client: u32, path: PathId, form: EventForm) -> DecisionOutcome {
        self.decide_in(client, path, Some(form))
    }

    fn decide_in(&mut self, client: u32, path: PathId, accepted: Option<EventForm>) -> DecisionOutcome {
        self.assert_fanned_out();
        let outcome = self.subscriptions.decide_in(client, path, accepted);
        // Nearly nobody asks.
        if !self.asking.is_empty() && outcome != DecisionOutcome::Unknown {
            let asks = self.asking.remove(&(client, path));
            if asks && matches!(outcome, DecisionOutcome::Subscribed { .. }) {
                self.subscriptions.set_membership(client, path, Membership::Asking);
            }
        }
        outcome
    }

    /// Unsubscribes a client; see [`Subscriptions::unsubscribe`].
    pub fn off(&mut self, client: u32, path: PathRef<'_>) -> UnsubscribeOutcome {
        self.assert_fanned_out();
        self.subscriptions.unsubscribe(client, path)
    }

    /// Returns the bytes of paths that clients hold and that were not acquired from the server's pool yet. The server has
    /// this many shards.
    pub fn uncharged_path_bytes(&self, shards: u16) -> usize {
        let bytes = self.subscriptions.held_path_bytes(usize::from(shards));
        bytes.saturating_sub(self.charged_path_bytes)
    }

    /// Notes that these bytes of paths were acquired.
    pub fn charge_path_bytes(&mut self, bytes: usize) {
        self.charged_path_bytes += bytes;
    }

    /// Returns the bytes of paths that were acquired and that no client holds any more. They must be released.
    pub fn take_freed_path_bytes(&mut self, shards: u16) -> usize {
        let bytes = self.subscriptions.held_path_bytes(usize::from(shards));
        let freed = self.charged_path_bytes.saturating_sub(bytes);
        self.charged_path_bytes -= freed;
        freed
    }

    /// The bytes of paths that were acquired from the server's pool.
    pub fn path_bytes(&self) -> usize {
        self.charged_path_bytes
    }

    /// The number of subscriptions that a client has or that wait for a decision.
    pub fn held(&self, client: u32) -> usize {
        self.subscriptions.held(client)
    }

    /// The number of subscriptions that a client has or that wait for a decision, and the paths of at most `max` of them,
    /// in order. Looks at no more than four times as many places of the client's list.
    pub fn paths_of(&self, client: u32, max: usize) -> (usize, Vec<String>) {
        let ids = self.subscriptions.paths_of(client).take(4 * max).flatten().take(max);
        let mut paths: Vec<String> = ids.map(|id| self.path(id).as_str().to_owned()).collect();
        paths.sort_unstable();
        (self.held(client), paths)
    }

    /// The ids of the paths that a client has subscribed to, also of those that wait for a decision.
    pub fn path_ids_of(&self, client: u32) -> Vec<PathId> {
        self.subscriptions.paths_of(client).flatten().collect()
    }

    /// The path of an id, or `None` if the id is not in use.
    pub fn path_in_use(&self, id: PathId) -> Option<&Path> {
        let is_known = id.index() < self.subscriptions.path_ids();
        let entry = is_known.then(|| self.subscriptions.subscribers_at(id.index()))?;
        entry.map(|(path, _)| path)
    }

    /// The path of an id that is in use.
    pub fn path(&self, path: PathId) -> &Path {
        self.subscriptions.path(path)
    }

    /// The path of a client's subscription that waits for a decision.
    pub fn pending_path(&self, client: u32, path: PathId) -> Option<&Path> {
        self.subscriptions.pending_path(client, path)
    }

    /// The number of indices of paths; some of them may have no path.
    pub fn path_ids(&self) -> usize {
        self.subscriptions.path_ids()
    }

    /// The path with this index, and its subscribers on this shard. `None` if there is no path.
    pub fn subscribers_at(&self, index: usize) -> Option<(&Path, &[Subscriber])> {
        self.subscriptions.subscribers_at(index)
    }

    /// Notes that another shard has subscribers for a path.
    pub fn remote_on(&mut self, path: &Path, shard: u16) {
        self.subscriptions.add_remote(path, shard);
    }

    /// Notes that another shard no longer has subscribers for a path.
    pub fn remote_off(&mut self, path: &Path, shard: u16) {
        self.subscriptions.remove_remote(path, shard);
    }

    // Clients that have disconnected.

    /// Gives back the memory that only many broadcasts or many disconnections at once have needed.
    pub fn give_back(&mut self) {
        self.broadcasts.give_back();
        self.leaving.give_back();
    }

    /// Renews the number of subscriptions that may end in a turn.
    pub fn begin_turn(&mut self) {
        self.budget = ENDED_PER_TURN_MAX;
    }

    /// Handles a client's disconnection. Its subscriptions end in this turn and, if it has many, in later ones.
    pub fn disconnected(&mut self, client: ClientId) {
        self.leaving.push_back(client);
    }

    /// Returns whether a disconnected client still has subscriptions to end.
    pub fn has_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// The disconnected client whose subscriptions end next, while this turn permits it.
    pub fn next_leaving(&self) -> Option<ClientId> {
        self.leaving.front().copied().filter(|_| self.budget > 0)
    }

    /// Ends as many subscriptions of the client that is next as this turn permits, and returns them. Once none is
    /// left, the client is removed from the queue, and the second value is `true`.
    pub fn end_some(&mut self) -> (Vec<(Path, EndedSubscription)>, bool) {
        self.assert_fanned_out();
        let Some(id) = self.leaving.front() else { return (Vec::new(), false) };
        let (mut ended, asking) = (Vec::new(), &mut self.asking);
        let done = self.subscriptions.close_some(id.slot, self.budget, |path, how| {
            if let EndedSubscription::Pending(path) = how {
                asking.remove(&(id.slot, path));
            }
            ended.push((path, how));
        });
        // A client without subscriptions counts too: thousands may disconnect at once.
        self.budget -= ended.len().max(1);
        if done {
            self.leaving.pop_front();
        }
        (ended, done)
    }

    #[track_caller]
    fn assert_fanned_out(&self) {
        assert!(self.broadcasts.is_empty(), "a broadcast waits while subscriptions change");
    }

    /// Asserts the invariants. Linear in the number of clients and subscriptions.
    pub fn check(&self, connections: &Connections) {
        assert!(self.broadcasts.is_empty(), "a broadcast was left over by its turn");
        self.subscriptions.check();
        for client in self.subscriptions.holders() {
            assert!(connections.has_client(client), "slot {client} has subscriptions, but no client");
        }
        for client in &self.leaving {
            assert!(connections.is_detached(*client), "client {client:?} is leaving, but was not detached");
        }
        assert_eq!(self.leaving.len(), connections.detached(), "each client that was detached is leaving");
        for (client, path) in &self.asking {
            let is_pending = self.subscriptions.is_pending(*client, *path);
            assert!(is_pending, "client {client} asks for members with a subscription that is pending");
        }
    }
}

/// Returns when a run was accepted, and the number of its events. They were accepted in the same turn or in neighbouring
/// ones; the earliest time counts for all.
fn accepted(run: &[Broadcast], now_ns: u64) -> AcceptedBroadcasts {
    let at_ns = run.iter().map(|broadcast| broadcast.accepted_ns).min().unwrap_or(now_ns);
    AcceptedBroadcasts { at_ns, events: run.len() as u32 }
}

/// Cuts broadcasts to one path into runs whose frame is small enough to be copied.
fn runs(mut broadcasts: &[Broadcast]) -> impl Iterator<Item = &[Broadcast]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = broadcasts.iter().take_while(|broadcast| {
            bytes += broadcast.data.as_str().len();
            bytes <= COALESCED_BYTES_MAX
        });
        let (run, rest) = broadcasts.split_at(fits.count().max(1).min(broadcasts.len()));
        broadcasts = rest;
        (!run.is_empty()).then_some(run)
    })
}

/// The numbers of the bits that are set.
fn bits(mut set: u128) -> impl Iterator<Item = u16> {
    std::iter::from_fn(move || {
        let bit = (set != 0).then(|| set.trailing_zeros() as u16)?;
        set &= set - 1;
        Some(bit)
    })
}
