//! The clients of a shard as applications see them.

use super::client_facts::FactsTable;
use super::connections::Connections;
use super::identities::Identities;
use crate::app::{ClientDirectory, ClientInfo};
use crate::client::ClientId;

/// The parts of a shard that know something of its clients.
pub(super) struct Directory<'a> {
    pub connections: &'a Connections,
    pub identities: &'a Identities,
    pub facts: &'a FactsTable,
    /// The setting `app-headers`.
    pub names: &'a [Box<str>],
}

impl ClientDirectory for Directory<'_> {
    fn find(&self, client: ClientId) -> Option<ClientInfo<'_>> {
        let slot = self.connections.connection_of(client)?;
        let facts = self.facts.get(slot);
        Some(ClientInfo {
            identity: self.identities.get(slot).map(|identity| &**identity),
            address: self.connections.live(slot).peer.ip(),
            headers: facts.map_or(&[], |facts| &facts.headers),
            names: self.names,
            certificate: facts.and_then(|facts| facts.certificate.as_deref()),
        })
    }
}

/// Borrows the parts of a shard that know its clients, and leaves the others to be changed.
macro_rules! directory {
    ($state:expr) => {
        $crate::shard::directory::Directory {
            connections: &$state.connections,
            identities: &$state.identities,
            facts: &$state.facts,
            names: &$state.protocol.wanted.names,
        }
    };
}

pub(super) use directory;
