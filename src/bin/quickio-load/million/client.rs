//! The record of a client. There are very many: it has at most 96 bytes.

use crate::decoder::Decoder;
use crate::plan::Protocol;
use quickio::qev::ring::SendId;

/// The number of a client, which is also the token of its operations.
pub type ClientNumber = u32;

/// The number of subscriptions of each client: its room, and the path that all share.
pub const SUBSCRIPTIONS: u8 = 2;

/// A client.
pub struct LoadClient {
    pub state: ClientState,
    /// The number of subscriptions that the server has confirmed, while they are being made.
    pub confirmed: u8,
    pub receiving: bool,
    /// Frames wait until the send in flight has ended.
    pub has_waiting: bool,
    /// The send in flight.
    pub sending: Option<SendId>,
    /// The number of attempts to connect that have failed since the client was last open.
    pub failures: u32,
    pub decoder: Decoder,
    /// The time at which it began to connect.
    pub began: u64,
    /// The time at which the last part of its opening ended.
    pub reached: u64,
    /// The intended time of the newest event that it has received.
    pub newest: u64,
}

/// The state of a client: Closed -> Opening -> Open -> Leaving -> Cancelling -> Closing -> Closed. A client that fails goes
/// from Opening or Open to Cancelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    Closed,
    Opening(OpeningPart),
    Open,
    /// A close frame was sent in one direction or both, and the client waits for the other one or the end of the stream.
    Leaving,
    /// The operations in flight are being cancelled.
    Cancelling,
    /// No operation is in flight, and the socket is being closed.
    Closing,
}

/// A part of an opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpeningPart {
    /// The TCP connection, until the kernel has accepted the request for the upgrade.
    Tcp,
    Upgrade,
    Hello,
    Subscriptions,
}

impl OpeningPart {
    /// All parts with their names, in their order.
    pub const ALL: [(OpeningPart, &'static str); 4] = [
        (OpeningPart::Tcp, "tcp"),
        (OpeningPart::Upgrade, "upgrade"),
        (OpeningPart::Hello, "hello"),
        (OpeningPart::Subscriptions, "subscriptions"),
    ];

    /// Returns the name.
    pub fn name(self) -> &'static str {
        OpeningPart::ALL[self as usize].1
    }
}

impl LoadClient {
    /// Returns a client that is not connected.
    pub fn new() -> LoadClient {
        LoadClient {
            state: ClientState::Closed,
            confirmed: 0,
            receiving: false,
            has_waiting: false,
            sending: None,
            failures: 0,
            decoder: Decoder::new(Protocol::WebSocket),
            began: 0,
            reached: 0,
            newest: 0,
        }
    }

    /// Returns whether no operation is in flight.
    pub fn is_idle(&self) -> bool {
        self.sending.is_none() && !self.receiving
    }

    /// Returns whether its socket is in use: it is neither closed nor being closed.
    pub fn is_connected(&self) -> bool {
        matches!(self.state, ClientState::Opening(_) | ClientState::Open | ClientState::Leaving)
    }

    /// Returns the part of the opening that is under way.
    pub fn opening(&self) -> Option<OpeningPart> {
        match self.state {
            ClientState::Opening(part) => Some(part),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_small() {
        assert!(size_of::<LoadClient>() <= 96, "{}", size_of::<LoadClient>());
    }

    #[test]
    fn parts_have_their_names() {
        for (part, name) in OpeningPart::ALL {
            assert_eq!(part.name(), name);
        }
    }
}
