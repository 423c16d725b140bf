//! The listeners of a shard: the kind of each, and the configuration of TLS for those that take it.

use crate::config::ListenKind;
use crate::tls::TlsContext;
use std::os::fd::OwnedFd;

/// A bound socket from which a shard accepts connections.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: OwnedFd,
    /// The kind of its connections.
    pub kind: ListenKind,
}

/// The kinds of a shard's listeners, and the configuration of TLS.
///
/// Invariant: if a listener takes TLS, there is a configuration.
pub(super) struct Listeners {
    kinds: Vec<ListenKind>,
    /// The configuration for handshakes that begin from now on.
    tls: Option<TlsContext>,
}

impl Listeners {
    /// No listeners, and the configuration for those to come.
    pub fn new(tls: Option<TlsContext>) -> Listeners {
        Listeners { kinds: Vec::new(), tls }
    }

    /// Sets the kinds of the listeners, which are counted from 0.
    pub fn set(&mut self, kinds: Vec<ListenKind>) {
        let needs_tls = kinds.iter().any(|kind| *kind != ListenKind::Plain);
        assert!(!needs_tls || self.tls.is_some(), "a listener that takes TLS has certificates");
        self.kinds = kinds;
    }

    /// The kind of a listener.
    pub fn kind(&self, listener: usize) -> ListenKind {
        self.kinds[listener]
    }

    /// The configuration for handshakes that begin now.
    pub fn tls(&self) -> Option<&TlsContext> {
        self.tls.as_ref()
    }

    /// Replaces the configuration of TLS, because certificates were reloaded. Connections keep theirs.
    pub fn set_tls(&mut self, tls: TlsContext) {
        self.tls = Some(tls);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "a listener that takes TLS has certificates")]
    fn a_listener_for_tls_needs_a_configuration() {
        Listeners::new(None).set(vec![ListenKind::Plain, ListenKind::Either]);
    }
}
