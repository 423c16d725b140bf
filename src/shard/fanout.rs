//! Fan-out: a broadcast is encoded once for each protocol that has subscribers here, and every subscriber's outbox
//! gets a reference.

use super::flush::JOINED_BYTES_MAX;
use super::mail::ShardMessage;
use super::outbox::encode_event;
use super::state::State;
use crate::app::Json;
use crate::client::subscriptions::PathId;
use crate::event::path::Path;
use crate::metrics::Counter;
use crate::protocol::Framing;
use crate::qev::buffers::{AcceptedBroadcasts, Frame};
use crate::qev::mesh::Class;

/// A broadcast that this shard's subscribers will get before the turn is over.
pub(super) struct Broadcast {
    path: PathId,
    data: Json,
    accepted_ns: u64,
}

/// The frames of one run of broadcasts by protocol, each made when the first subscriber of their protocol is met.
type Frames = [Option<Frame>; Framing::COUNT];

impl State {
    /// The one entry point of broadcasts: to the subscribers here, and to the shards that have some.
    pub fn broadcast(&mut self, path: &Path, data: Json) {
        self.metrics.counters.add(Counter::Broadcasts, 1);
        let Some(id) = self.subscriptions.find(path.as_ref()) else { return };
        let shards = self.subscriptions.remote(id);
        for shard in bits(shards) {
            let mail =
                ShardMessage::Broadcast { path: path.clone(), data: data.clone(), accepted_ns: self.now_ns };
            self.mail(shard, mail, Class::Data);
        }
        self.queue_broadcast(id, data, self.now_ns);
    }

    /// Queues a broadcast for this shard's subscribers.
    pub fn queue_broadcast(&mut self, path: PathId, data: Json, accepted_ns: u64) {
        if !self.subscriptions.subscribers(path).is_empty() {
            self.broadcasts.push(Broadcast { path, data, accepted_ns });
        }
    }

    /// Puts this turn's broadcasts into the outboxes. Called at the end of the turn, and before anybody subscribes
    /// or unsubscribes: a broadcast reaches exactly those who were subscribed when it was accepted.
    pub fn fan_out(&mut self) {
        if self.broadcasts.is_empty() {
            return;
        }
        let mut broadcasts = std::mem::take(&mut self.broadcasts);
        for same_path in broadcasts.chunk_by(|a, b| a.path == b.path) {
            for run in runs(same_path) {
                self.fan_out_run(run);
            }
        }
        broadcasts.clear();
        self.broadcasts = broadcasts;
    }

    /// Sends broadcasts to one path, which follow each other, as one frame.
    fn fan_out_run(&mut self, run: &[Broadcast]) {
        let Some(first) = run.first() else { return };
        let mut frames = Frames::default();
        let mut got = 0;
        for index in 0..self.subscriptions.subscribers(first.path).len() {
            let client = self.subscriptions.subscribers(first.path)[index].client;
            let Some(slot) = self.clients.get(client as usize).map(|client| client.connection) else {
                continue;
            };
            let Some(connection) = self.connections.get(slot as usize) else { continue };
            let framing = connection.framing;
            let frame = frames[framing as usize].get_or_insert_with(|| self.encode_run(framing, run)).clone();
            got += usize::from(self.queue_frame(slot, frame));
        }
        let messages = (got * run.len()) as u64;
        self.metrics.counters.add(Counter::BroadcastDeliveries, messages);
        self.metrics.counters.add(Counter::MessagesSent, messages);
    }

    fn encode_run(&self, framing: Framing, run: &[Broadcast]) -> Frame {
        let path = self.subscriptions.path(run[0].path);
        let mut bytes = encode_event(framing, path, 0, &run[0].data);
        for broadcast in &run[1..] {
            bytes.extend_from_slice(&encode_event(framing, path, 0, &broadcast.data));
        }
        // They were accepted in the same turn or in neighbouring ones: the earliest stands for all.
        let at_ns = run.iter().map(|broadcast| broadcast.accepted_ns).min().unwrap_or(self.now_ns);
        Frame::broadcast(bytes, self.now_ns, AcceptedBroadcasts { at_ns, events: run.len() as u32 })
    }
}

/// Cuts broadcasts to one path into runs whose frame stays small enough to be copied around.
fn runs(mut broadcasts: &[Broadcast]) -> impl Iterator<Item = &[Broadcast]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = broadcasts.iter().take_while(|broadcast| {
            bytes += broadcast.data.as_str().len();
            bytes <= JOINED_BYTES_MAX
        });
        let (run, rest) = broadcasts.split_at(fits.count().max(1).min(broadcasts.len()));
        broadcasts = rest;
        (!run.is_empty()).then_some(run)
    })
}

fn bits(mut set: u128) -> impl Iterator<Item = u16> {
    std::iter::from_fn(move || {
        let bit = (set != 0).then(|| set.trailing_zeros() as u16)?;
        set &= set - 1;
        Some(bit)
    })
}
