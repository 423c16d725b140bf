//! What is kept of clients for applications: headers of the request that has opened the connection, and the subject of a
//! certificate. Only connections that have some are in the table.

use crate::qev::shrink::shrink;
use ahash::AHashMap;

/// What is kept of a client.
#[derive(Debug, Default)]
pub(super) struct ClientFacts {
    /// The values of headers, each with the place of its name in the setting `app-headers`.
    pub headers: Vec<(u8, Box<str>)>,
    /// The subject of the client's TLS certificate.
    pub certificate: Option<Box<str>>,
}

impl ClientFacts {
    /// The memory of the facts, in bytes.
    fn bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(_, value)| size_of::<(u8, Box<str>)>() + value.len());
        size_of::<ClientFacts>() + headers.sum::<usize>() + self.certificate.as_deref().map_or(0, str::len)
    }
}

/// What is kept of the clients of a shard, by the slots of their connections.
///
/// Invariants, which [`check`](FactsTable::check) asserts: only connections that have not ended are in the table, and `bytes` is
/// the memory of what is kept.
#[derive(Default)]
pub(super) struct FactsTable {
    /// Boxed: an empty place of the table takes 8 bytes.
    by_slot: AHashMap<u32, Box<ClientFacts>>,
    bytes: usize,
}

impl FactsTable {
    /// Keeps headers of a connection.
    pub fn set_headers(&mut self, slot: u32, headers: &[(u8, Box<str>)]) {
        if !headers.is_empty() {
            self.change(slot, |facts| facts.headers = headers.to_vec());
        }
    }

    /// Keeps the subject of a connection's certificate.
    pub fn set_certificate(&mut self, slot: u32, subject: Box<str>) {
        self.change(slot, |facts| facts.certificate = Some(subject));
    }

    fn change(&mut self, slot: u32, change: impl FnOnce(&mut ClientFacts)) {
        let facts = self.by_slot.entry(slot).or_insert_with(|| {
            self.bytes += ClientFacts::default().bytes();
            Box::default()
        });
        let before = facts.bytes();
        change(facts);
        self.bytes = self.bytes - before + facts.bytes();
    }

    /// What is kept of a connection.
    pub fn get(&self, slot: u32) -> Option<&ClientFacts> {
        self.by_slot.get(&slot).map(|facts| &**facts)
    }

    /// Returns whether nothing is kept of anybody.
    pub fn is_empty(&self) -> bool {
        self.by_slot.is_empty()
    }

    /// Forgets a connection.
    pub fn remove(&mut self, slot: u32) {
        let Some(facts) = self.by_slot.remove(&slot) else { return };
        self.bytes -= facts.bytes();
        shrink(&mut self.by_slot);
    }

    /// The memory of what is kept, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Asserts the invariants. Linear in the number of connections in the table.
    pub fn check(&self, is_open: impl Fn(u32) -> bool) {
        let bytes: usize = self.by_slot.values().map(|facts| facts.bytes()).sum();
        assert_eq!(self.bytes, bytes, "the memory of what is kept of clients");
        for slot in self.by_slot.keys() {
            assert!(is_open(*slot), "something is kept of connection {slot}, which has ended");
        }
    }
}
