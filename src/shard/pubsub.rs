//! The subscriptions of a shard's clients, and the broadcasts that reach them.
//!
//! A broadcast is encoded once for each framing that has subscribers here; every subscriber's outbox gets a reference to
//! that frame.

use super::connections::Connections;
use super::frames::{COALESCED_BYTES_MAX, encode_event};
use crate::app::Json;
use crate::client::ClientId;
use crate::client::subscriptions::{
    DecisionOutcome, EndedSubscription, PathId, SubscribeOutcome, Subscriptions, UnsubscribeOutcome,
};
use crate::event::path::{Path, PathRef};
use crate::protocol::Framing;
use crate::qev::buffers::{AcceptedBroadcasts, Frame};
use std::collections::VecDeque;

/// The number of subscriptions of disconnected clients that end in one turn: as many as take about a millisecond, off-hooks
/// included.
const ENDED_PER_TURN_MAX: usize = 1024;

/// A broadcast that this shard's subscribers get before the turn is over.
struct Broadcast {
    path: PathId,
    data: Json,
    accepted_ns: u64,
}

/// The frames of a run of broadcasts, by framing. Each is encoded when the first subscriber that needs it is met.
type Frames = [Option<Frame>; Framing::COUNT];

/// Subscriptions, this turn's broadcasts, and clients that have disconnected while they were subscribed.
///
/// Invariants:
/// - a broadcast reaches exactly those who were subscribed when it was accepted: no subscription changes while a broadcast
///   waits to be fanned out (asserted by each method that changes one);
/// - every subscriber is a client of this shard;
/// - between turns no broadcast waits.
pub(super) struct PubSub {
    subscriptions: Subscriptions,
    /// Broadcasts of this turn that have not been fanned out yet.
    broadcasts: Vec<Broadcast>,
    /// Clients that have disconnected, and whose subscriptions have not all ended yet.
    leaving: VecDeque<ClientId>,
    /// The number of their subscriptions that may still end in this turn.
    budget: usize,
}

impl PubSub {
    /// No subscriptions.
    pub fn new() -> PubSub {
        PubSub {
            subscriptions: Subscriptions::new(),
            broadcasts: Vec::new(),
            leaving: VecDeque::new(),
            budget: ENDED_PER_TURN_MAX,
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

    /// Queues a broadcast for this shard's subscribers.
    pub fn queue(&mut self, path: PathId, data: Json, accepted_ns: u64) {
        if !self.subscriptions.subscribers(path).is_empty() {
            self.broadcasts.push(Broadcast { path, data, accepted_ns });
        }
    }

    /// Returns whether a broadcast waits to be fanned out.
    pub fn has_broadcasts(&self) -> bool {
        !self.broadcasts.is_empty()
    }

    /// Puts the broadcasts that wait into the outboxes of their subscribers; returns the number of messages queued.
    pub fn fan_out(&mut self, connections: &mut Connections, now_ns: u64) -> u64 {
        let mut messages = 0;
        let mut broadcasts = std::mem::take(&mut self.broadcasts);
        for same_path in broadcasts.chunk_by(|a, b| a.path == b.path) {
            for run in runs(same_path) {
                messages += self.fan_out_run(run, connections, now_ns);
            }
        }
        broadcasts.clear();
        self.broadcasts = broadcasts;
        messages
    }

    /// Sends consecutive broadcasts to one path as one frame.
    fn fan_out_run(&self, run: &[Broadcast], connections: &mut Connections, now_ns: u64) -> u64 {
        let Some(first) = run.first() else { return 0 };
        let mut frames = Frames::default();
        let mut reached = 0;
        for subscriber in self.subscriptions.subscribers(first.path) {
            let Some(slot) = connections.connection_of_subscriber(subscriber.client) else { continue };
            let framing = connections.live(slot).framing;
            let encode = || self.encode_run(framing, run, now_ns);
            let frame = frames[framing as usize].get_or_insert_with(encode).clone();
            reached += u64::from(connections.queue(slot, frame).is_in_outbox());
        }
        reached * run.len() as u64
    }

    fn encode_run(&self, framing: Framing, run: &[Broadcast], now_ns: u64) -> Frame {
        let path = self.subscriptions.path(run[0].path);
        let mut bytes = encode_event(framing, path, 0, &run[0].data);
        for broadcast in &run[1..] {
            bytes.extend_from_slice(&encode_event(framing, path, 0, &broadcast.data));
        }
        // They were accepted in the same turn or in neighbouring ones; the earliest stands for all.
        let at_ns = run.iter().map(|broadcast| broadcast.accepted_ns).min().unwrap_or(now_ns);
        Frame::broadcast(bytes, now_ns, AcceptedBroadcasts { at_ns, events: run.len() as u32 })
    }

    // Subscriptions.

    /// A client asks to subscribe; see [`Subscriptions::subscribe`].
    pub fn on(&mut self, client: u32, path: PathRef<'_>) -> SubscribeOutcome {
        self.assert_fanned_out();
        self.subscriptions.subscribe(client, path)
    }

    /// A subscription has been decided; see [`Subscriptions::decide`].
    pub fn decide(&mut self, client: u32, path: PathId, accepted: bool) -> DecisionOutcome {
        self.assert_fanned_out();
        self.subscriptions.decide(client, path, accepted)
    }

    /// A client unsubscribes; see [`Subscriptions::unsubscribe`].
    pub fn off(&mut self, client: u32, path: PathRef<'_>) -> UnsubscribeOutcome {
        self.assert_fanned_out();
        self.subscriptions.unsubscribe(client, path)
    }

    /// The number of subscriptions that a client has or awaits.
    pub fn held(&self, client: u32) -> usize {
        self.subscriptions.held(client)
    }

    /// The path of an id that is in use.
    pub fn path(&self, path: PathId) -> &Path {
        self.subscriptions.path(path)
    }

    /// Another shard has subscribers for a path now.
    pub fn remote_on(&mut self, path: &Path, shard: u16) {
        self.subscriptions.add_remote(path, shard);
    }

    /// Another shard has no subscribers for a path any more.
    pub fn remote_off(&mut self, path: &Path, shard: u16) {
        self.subscriptions.remove_remote(path, shard);
    }

    // Clients that have disconnected.

    /// Renews the number of subscriptions that may end in a turn.
    pub fn begin_turn(&mut self) {
        self.budget = ENDED_PER_TURN_MAX;
    }

    /// A client has disconnected. Its subscriptions end in this turn and, if it has many, in later ones.
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

    /// Ends as many subscriptions of the client that is next as this turn permits, and returns them. Once none is left, the
    /// client is removed from the queue, and the second value is `true`.
    pub fn end_some(&mut self) -> (Vec<(Path, EndedSubscription)>, bool) {
        self.assert_fanned_out();
        let Some(id) = self.leaving.front() else { return (Vec::new(), false) };
        let mut ended = Vec::new();
        let done = self.subscriptions.close_some(id.slot, self.budget, |path, how| ended.push((path, how)));
        self.budget -= ended.len();
        if done {
            self.leaving.pop_front();
        }
        (ended, done)
    }

    #[track_caller]
    fn assert_fanned_out(&self) {
        assert!(self.broadcasts.is_empty(), "a broadcast waits while subscriptions change");
    }

    /// Asserts the invariants. Linear in the number of subscriptions.
    pub fn check(&self) {
        assert!(self.broadcasts.is_empty(), "a broadcast was left over by its turn");
        self.subscriptions.check();
    }
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
