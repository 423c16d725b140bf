//! The connections that have to begin with a header of the PROXY protocol, and have not sent all of it.

use ahash::AHashMap;

/// The parts of headers that connections have sent, by slot. Only a connection that has sent something takes memory beyond
/// its entry: at most twice `PROXY_HEADER_BYTES_MAX`, because the memory doubles when it is full.
///
/// Invariant: each entry is the slot of a connection with a socket, until its header is complete or it is released.
#[derive(Default)]
pub(super) struct ProxyHeaders {
    begun: AHashMap<u32, Vec<u8>>,
}

impl ProxyHeaders {
    /// Returns whether no connection has to send a header.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.begun.is_empty()
    }

    /// Notes that the connection in this slot has to send a header.
    pub fn expect(&mut self, slot: u32) {
        let before = self.begun.insert(slot, Vec::new());
        assert!(before.is_none(), "connection {slot} has to send a header already");
    }

    /// Takes what a connection has sent of its header; `None` if it does not have to send any more. The connection no
    /// longer has to, unless [`put`](ProxyHeaders::put) follows.
    pub fn take(&mut self, slot: u32) -> Option<Vec<u8>> {
        self.begun.remove(&slot)
    }

    /// Keeps what a connection has sent of its header.
    pub fn put(&mut self, slot: u32, begun: Vec<u8>) {
        self.begun.insert(slot, begun);
    }

    /// Forgets a connection, which is released; returns what it has sent of its header.
    pub fn forget(&mut self, slot: u32) -> usize {
        self.begun.remove(&slot).map_or(0, |begun| begun.capacity())
    }

    /// The memory of all headers that are incomplete.
    pub fn bytes(&self) -> u64 {
        self.begun.values().map(|begun| begun.capacity() as u64).sum()
    }

    /// Asserts the invariant.
    pub fn check(&self, has_socket: impl Fn(u32) -> bool) {
        for slot in self.begun.keys() {
            assert!(has_socket(*slot), "a header is expected in slot {slot}, which has no connection");
        }
    }
}
