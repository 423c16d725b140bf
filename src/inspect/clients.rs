//! Answers about clients.

use super::ClientId;
use crate::limits::CLIENTS_LISTED_MAX;
use serde::{Serialize, Serializer};

/// A client and the output that waits for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClientSummary {
    /// The client.
    #[serde(serialize_with = "text")]
    pub id: ClientId,
    /// The address of the peer, or that of the client behind a trusted proxy.
    pub address: String,
    /// The user that the client has authenticated as, or `None` if it has not.
    pub user: Option<String>,
    /// `websocket`, `raw`, `polling` or `stream`.
    pub transport: &'static str,
    /// TLS is spoken with the client.
    pub tls: bool,
    /// The bytes that wait for the client, those in flight included.
    pub outbox_bytes: u64,
    /// The bytes that the kernel was given and has not sent.
    pub in_flight_bytes: u64,
    /// The time since the client last read something, while something is in flight.
    pub stalled_seconds: Option<f64>,
}

/// The clients of a piece of a shard that have most output waiting, the first of them the most.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SlowestClients {
    /// The clients, at most [`CLIENTS_LISTED_MAX`] of them.
    pub clients: Vec<ClientSummary>,
    /// The slot with which the next piece of the shard begins, or `None` if this one was the last.
    pub next: Option<u32>,
}

impl SlowestClients {
    /// Adds the clients of another piece, and takes its place.
    pub fn merge(&mut self, other: SlowestClients) {
        self.clients.extend(other.clients);
        self.clients.sort_by_key(|client| (std::cmp::Reverse(client.outbox_bytes), client.id));
        self.clients.truncate(CLIENTS_LISTED_MAX);
        self.next = other.next;
    }
}

/// The losses of a client, since it connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClientDrops {
    /// The events and subscriptions of the client that were answered with 420: a limit was reached, or an application was
    /// busy.
    pub requests_refused: u32,
    /// The server callbacks that were dropped before the client fired them.
    pub callbacks_dropped: u32,
    /// The Pings of the client that were not answered, because it had sent a newer one before it read the answer.
    pub pongs_replaced: u32,
}

/// Everything that a shard knows of a client.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClientDetails {
    /// The client, its address and its output.
    #[serde(flatten)]
    pub summary: ClientSummary,
    /// WebSocket messages to the client may be compressed.
    pub compressed: bool,
    /// The most bytes that may wait for the client. It is closed when there are more.
    pub outbox_bytes_max: u64,
    /// The time since something was received from the client.
    pub silent_seconds: f64,
    /// The client is not listened to for now, because it has caused too many messages to shards that are behind.
    pub paused: bool,
    /// The number of subscriptions, those included that an application has not decided yet.
    pub subscriptions: u64,
    /// The paths of the subscriptions, in order: at most [`CLIENT_PATHS_LISTED_MAX`](crate::limits::CLIENT_PATHS_LISTED_MAX)
    /// of them.
    pub paths: Vec<String>,
    /// What the client has lost. A client that does not read loses no events: it is closed when its outbox is full.
    pub drops: ClientDrops,
}

/// Writes a client as operators see it in logs, such as `0.17.3`.
fn text<S: Serializer>(id: &ClientId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::testing::summary;

    #[test]
    fn the_slowest_of_all_pieces_are_kept_in_order() {
        let piece = |bytes: &[u64], next| SlowestClients {
            clients: bytes.iter().map(|bytes| summary(*bytes as u32, *bytes)).collect(),
            next,
        };
        let mut all = SlowestClients::default();
        all.merge(piece(&[7, 3], Some(10)));
        all.merge(piece(&[9, 5, 1], None));
        assert_eq!(all, piece(&[9, 7, 5, 3, 1], None));
        let many: Vec<u64> = (100..400).collect();
        all.merge(piece(&many, None));
        assert_eq!(all.clients.len(), CLIENTS_LISTED_MAX);
        assert_eq!((all.clients[0].outbox_bytes, all.clients[1].outbox_bytes), (399, 398));
    }

    #[test]
    fn ids_are_texts() {
        let json = serde_json::to_value(summary(7, 1)).unwrap();
        assert_eq!((&json["id"], &json["user"]), (&"0.7.1".into(), &serde_json::Value::Null));
    }
}
