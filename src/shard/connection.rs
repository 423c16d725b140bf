//! The records of a shard: what it keeps for a connection, and what it keeps for a client.

use crate::app::Callback;
use crate::client::callbacks::Callbacks;
use crate::protocol::Reason;
use crate::protocol::{Codec, Framing, Options};
use crate::qev::buffers::Frame;
use crate::qev::ring::{Descriptor, PeerAddress};
use crate::qev::timer::TimerId;
use smallvec::SmallVec;
use std::num::NonZeroU32;

/// Frames that wait in an outbox without heap of their own.
pub(super) const OUTBOX_INLINE: usize = 2;

/// A connection: how its peer is reached, its protocol, and what waits to be sent. Idle it costs this record and its
/// timer.
pub(super) struct Connection {
    pub codec: Codec,
    pub outbox: SmallVec<[Frame; OUTBOX_INLINE]>,
    pub timer: Option<TimerId>,
    pub peer: PeerAddress,
    pub transport: Transport,
    /// Bytes in the outbox and in flight.
    pub outbox_bytes: u32,
    /// Told from the connection that had this slot before.
    pub generation: u32,
    /// The client's slot, once the handshake is complete.
    pub client: Option<ClientSlot>,
    /// When the timer fires; no later than anything that is due.
    pub timer_at: Moment,
    /// When the handshake, the unfinished message, or the end began.
    pub began: Moment,
    pub received: Moment,
    pub sent: Moment,
    pub stage: Stage,
    pub framing: Framing,
    /// A multishot receive is armed.
    pub receiving: bool,
    /// A send is in flight.
    pub sending: bool,
    /// A shutdown is in flight: the socket must not be closed before it is done.
    pub shutting_down: bool,
    /// It stands in the queue of those that have something to flush.
    pub queued: bool,
    /// A message has begun and is not complete.
    pub unfinished: bool,
    /// A heartbeat that must be answered was sent, and nothing has come since.
    pub challenged: bool,
}

/// How the peer of a connection is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Transport {
    /// Through a socket.
    Socket(Descriptor),
    /// Through the requests of an HTTP session, which come by connections of their own. This is its slot among them.
    HttpSession(u32),
}

/// Where a connection is between its accept and its end. It only ever moves down this list.
///
/// ```text
///   Open ---> Ending ---> AwaitingPeer ---> Flushing ---> HalfClosed ---> Dead ---> (gone)
///                |                             ^              ^            ^
///                +-- nothing to wait for ------+              |            |
///                +-- the peer has gone, or time is up --------+------------+
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    /// In handshake or in use.
    Open,
    /// The end was decided in this turn, and happens before the turn is over.
    Ending,
    /// Our Close is on its way; the peer's is awaited.
    AwaitingPeer,
    /// What is queued is sent, then the sending side is shut down.
    Flushing,
    /// The peer has been told the end of the stream; its own is awaited.
    HalfClosed,
    /// Both directions are shut down; the last completions are awaited.
    Dead,
}

/// A client: what it is beyond its connection.
pub(super) struct Client {
    /// Never 0: a slab of clients needs no byte more to tell free slots.
    generation: NonZeroU32,
    pub connection: u32,
    pub callbacks: Callbacks<OpenCallback>,
}

/// The connection of a client that has none any more.
const NO_CONNECTION: u32 = u32::MAX;

impl Client {
    pub fn new(generation: u32, connection: u32) -> Client {
        let generation = NonZeroU32::new(generation).expect("generations are counted from 1");
        Client { generation, connection, callbacks: Callbacks::new() }
    }

    /// Told from the client that had this slot before.
    pub fn generation(&self) -> u32 {
        self.generation.get()
    }

    /// Its connection has ended. The record keeps its slot until all of its subscriptions are ended.
    pub fn has_gone(&self) -> bool {
        self.connection == NO_CONNECTION
    }

    /// Its connection ends; answers how many callbacks were open, which are dropped.
    pub fn detach(&mut self) -> usize {
        self.connection = NO_CONNECTION;
        std::mem::take(&mut self.callbacks).len()
    }
}

/// A server callback that a client may fire, and the application it belongs to.
pub(super) struct OpenCallback {
    pub app: u32,
    /// None where nothing runs: the challenge of a heartbeat.
    pub run: Option<Callback>,
}

/// A client's slot; a niche makes its option four bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ClientSlot(NonZeroU32);

/// A point in time, in milliseconds, short enough for a million records. Differences hold for 49 days, and no
/// difference that is asked for is longer than a heartbeat's interval.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Moment(u32);

impl Connection {
    pub fn new(
        socket: Descriptor,
        peer: PeerAddress,
        generation: u32,
        options: Options,
        now: Moment,
    ) -> Connection {
        Connection::by(Transport::Socket(socket), peer, generation, Codec::new(options), now)
    }

    fn by(transport: Transport, peer: PeerAddress, generation: u32, codec: Codec, now: Moment) -> Connection {
        Connection {
            codec,
            outbox: SmallVec::new(),
            timer: None,
            peer,
            transport,
            outbox_bytes: 0,
            generation,
            client: None,
            timer_at: now,
            began: now,
            received: now,
            sent: now,
            stage: Stage::Open,
            framing: Framing::WebSocket,
            receiving: true,
            sending: false,
            shutting_down: false,
            queued: false,
            unfinished: false,
            challenged: false,
        }
    }

    /// The connection of an HTTP session: what it gets and sends crosses no socket of its own.
    pub fn of_session(session: u32, peer: PeerAddress, generation: u32, now: Moment) -> Connection {
        let nowhere = Transport::HttpSession(session);
        let connection = Connection::by(nowhere, peer, generation, Codec::default(), now);
        Connection { framing: Framing::LongPolling, receiving: false, ..connection }
    }

    /// Its socket, where it has one.
    pub fn socket(&self) -> Option<Descriptor> {
        match self.transport {
            Transport::Socket(socket) => Some(socket),
            Transport::HttpSession(_) => None,
        }
    }

    pub fn is_socket(&self) -> bool {
        matches!(self.transport, Transport::Socket(_))
    }
}

impl ClientSlot {
    pub fn new(slot: u32) -> ClientSlot {
        let number = slot.checked_add(1).expect("there are fewer clients than numbers for them");
        ClientSlot(NonZeroU32::new(number).expect("it was added to"))
    }

    pub fn get(self) -> u32 {
        self.0.get() - 1
    }
}

impl Moment {
    pub fn at(ms: u64) -> Moment {
        Moment(ms as u32)
    }

    /// Whether this is later than the other, which may be past.
    pub fn is_after(self, other: Moment) -> bool {
        self.0.wrapping_sub(other.0) as i32 > 0
    }

    /// Milliseconds from `earlier` to this.
    pub fn since(self, earlier: Moment) -> u64 {
        u64::from(self.0.wrapping_sub(earlier.0))
    }
}

/// Why a connection ends, as the shard knows it: the protocol's reason, and what no peer is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// For a reason that has a code.
    Reason(Reason),
    /// The handshake was not completed in time.
    HandshakeTimeout,
    /// A message was begun and not completed in time.
    MessageTimeout,
    /// Nothing was heard for too long.
    LivenessTimeout,
    /// An HTTP session had no request to answer for too long.
    SessionTimeout,
    /// The peer closed the stream.
    EndOfStream,
    /// The network failed, or the peer has vanished.
    Broken(i32),
    /// Its address has as many connections as it may.
    TooManyOfAddress,
}

impl Cause {
    /// What the peer is told.
    pub fn reason(self) -> Reason {
        match self {
            Cause::Reason(reason) => reason,
            Cause::HandshakeTimeout
            | Cause::MessageTimeout
            | Cause::LivenessTimeout
            | Cause::SessionTimeout => Reason::ClientTimeout,
            Cause::TooManyOfAddress => Reason::TooManyClients,
            Cause::EndOfStream | Cause::Broken(_) => Reason::ConnectionLost,
        }
    }

    /// Whether the peer is told nothing and not waited for: it cannot be reached, or must not hold a connection.
    pub fn is_abrupt(self) -> bool {
        matches!(self, Cause::Broken(_) | Cause::TooManyOfAddress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The budget of an idle client is in docs/benchmarks.md; these are its largest parts.
    #[test]
    fn records_keep_to_their_budget() {
        assert!(size_of::<Option<Connection>>() <= 136, "{}", size_of::<Option<Connection>>());
        assert!(size_of::<Option<Client>>() <= 24, "{}", size_of::<Option<Client>>());
        assert_eq!(size_of::<Option<ClientSlot>>(), 4);
    }

    #[test]
    fn moments_tell_differences_across_their_wrapping() {
        let before = Moment::at(u64::from(u32::MAX) - 10);
        let after = Moment::at(u64::from(u32::MAX) + 90);
        assert_eq!(after.since(before), 100);
        assert!(after.is_after(before) && !before.is_after(after) && !after.is_after(after));
    }
}
