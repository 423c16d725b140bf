//! Answers to the questions of operators about clients and paths. Each is bounded, and is given in the turn in which the
//! question arrives.

#[cfg(test)]
mod tests;

use super::connection::Connection;
use super::state::State;
use crate::client::ClientId;
use crate::event::path::Path;
use crate::inspect::{ClientDetails, ClientSummary, Inspection, SlowestClients};
use crate::limits::{CLIENT_PATHS_LISTED_MAX, CLIENTS_LISTED_MAX, SLOTS_INSPECTED_PER_TURN};
use crate::protocol::Framing;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

impl State {
    /// Answers a question.
    pub fn inspect(&mut self, inspection: Inspection) {
        // The receiver may have given up.
        match inspection {
            Inspection::Slowest { from, mut reply } => {
                drop(reply.try_send((self.mesh.shard(), self.slowest(from, SLOTS_INSPECTED_PER_TURN))));
            }
            Inspection::Client { id, mut reply } => {
                drop(reply.try_send(self.client_details(id).map(Box::new)))
            }
            Inspection::Busiest { mut reply } => drop(reply.try_send(self.busiest.ask(self.time.now_ns()))),
            Inspection::Subscribers { paths, mut reply } => {
                drop(reply.try_send(paths.iter().map(|path| self.subscribers(path)).collect()));
            }
        }
    }

    /// Returns the clients with most output in a piece of the slots of connections: so many of them, from this one on.
    fn slowest(&self, from: u32, slots: u32) -> SlowestClients {
        if self.connections.outbox_bytes() == 0 {
            return SlowestClients::default();
        }
        let end = from.saturating_add(slots).min(self.connections.slots() as u32);
        let mut slowest = BinaryHeap::new();
        for slot in from..end {
            let Some(connection) = self.connections.get(slot) else { continue };
            if connection.outbox_bytes == 0 || connection.client.is_none() {
                continue;
            }
            let bytes = connection.outbox_bytes;
            let least = slowest.peek().map_or(0, |&Reverse((least, _))| least);
            if slowest.len() == CLIENTS_LISTED_MAX && bytes <= least {
                continue;
            }
            slowest.push(Reverse((bytes, slot)));
            if slowest.len() > CLIENTS_LISTED_MAX {
                slowest.pop();
            }
        }
        let clients = slowest.into_sorted_vec().into_iter().filter_map(|Reverse((_, slot))| {
            Some(self.summary(self.connections.client_of(slot)?, slot, self.connections.live(slot)))
        });
        let next = ((end as usize) < self.connections.slots()).then_some(end);
        SlowestClients { clients: clients.collect(), next }
    }

    fn summary(&self, id: ClientId, slot: u32, connection: &Connection) -> ClientSummary {
        let stalled = connection.is_sending().then(|| self.time.now().since(connection.sent));
        ClientSummary {
            id,
            address: connection.peer.to_string(),
            user: self.identity(slot).map(|identity| identity.user.to_string()),
            transport: name(connection.framing),
            tls: connection.is_tls(),
            outbox_bytes: connection.outbox_bytes.into(),
            in_flight_bytes: connection.in_flight_bytes.into(),
            stalled_seconds: stalled.map(seconds),
        }
    }

    /// Returns what is known of a client, or `None` if it has disconnected.
    fn client_details(&self, id: ClientId) -> Option<ClientDetails> {
        let slot = self.connections.connection_of(id)?;
        let connection = self.connections.live(slot);
        let (subscriptions, paths) = self.pubsub.paths_of(id.slot, CLIENT_PATHS_LISTED_MAX);
        Some(ClientDetails {
            summary: self.summary(id, slot, connection),
            compressed: matches!(connection.framing, Framing::Deflate(_)),
            outbox_bytes_max: self.config.outbox_bytes_max as u64,
            silent_seconds: seconds(self.time.now().since(connection.received)),
            paused: connection.is_paused(),
            subscriptions: subscriptions as u64,
            paths,
            drops: self.drops.get(slot),
        })
    }

    fn subscribers(&self, path: &Path) -> u64 {
        let id = self.pubsub.find(path.as_ref());
        id.map_or(0, |id| self.pubsub.subscribers(id) as u64)
    }
}

/// Returns the name of a transport, as operators see it.
fn name(framing: Framing) -> &'static str {
    match framing {
        Framing::WebSocket | Framing::Deflate(_) => "websocket",
        Framing::Raw => "raw",
        Framing::LongPolling => "polling",
        Framing::EventStream => "stream",
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}
