//! Answers for tests.

use super::{BusyPath, ClientId, ClientSummary};
use crate::event::path::Path;

/// A client in this slot of shard 0 with so much output.
pub(crate) fn summary(slot: u32, outbox_bytes: u64) -> ClientSummary {
    ClientSummary {
        id: ClientId { shard: 0, slot, generation: 1 },
        address: "10.0.0.1:1000".into(),
        user: None,
        transport: "raw",
        tls: false,
        outbox_bytes,
        in_flight_bytes: 0,
        stalled_seconds: None,
    }
}

/// A path without subscribers.
pub(crate) fn busy(path: &str, broadcasts_per_second: f64) -> BusyPath {
    BusyPath {
        path: Path::parse(path).expect("the path is clean"),
        broadcasts_per_second,
        uncertainty: 0.5,
        subscribers: 0,
    }
}
