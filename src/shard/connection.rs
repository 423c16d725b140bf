//! The records that a shard keeps for a connection and for a client.

use super::frames::Outbox;
use crate::app::Callback;
use crate::client::callbacks::CallbackIds;
use crate::protocol::Framing;
use crate::qev::buffers::Frame;
use crate::qev::ring::{Descriptor, PeerAddress, SendId};
use crate::qev::timer::TimerId;
use std::num::NonZeroU32;

/// A connection: its transport, its outbox and its timer. An idle connection costs this record, its codec and
/// its timer.
pub(super) struct Connection {
    pub outbox: Outbox,
    /// The connection's only timer. Nothing that the connection waits for is due before it fires.
    pub timer: Option<TimerId>,
    pub peer: PeerAddress,
    pub link: Link,
    /// The cost of the frames in the outbox and in flight.
    pub outbox_bytes: u32,
    /// The cost of the frames in flight.
    pub in_flight_bytes: u32,
    /// Distinguishes this connection from earlier ones in the same slot.
    pub generation: u32,
    /// The client's slot, from the end of the handshake until the client is released.
    pub client: Option<ClientSlot>,
    /// When the handshake, the unfinished message, or the end began.
    pub began: Moment,
    pub received: Moment,
    /// When the last send was submitted, or made progress.
    pub sent: Moment,
    /// The send that is in flight.
    pub send: Option<SendId>,
    pub stage: Stage,
    pub framing: Framing,
    /// The reason for which the connection is kept only to be refused, if it is.
    pub refusal: Option<Refusal>,
    pub input: Input,
    /// The length of the Pong at the end of the outbox, or 0 if the outbox does not end with one. It says nothing about
    /// an empty outbox.
    pub pong_bytes: u8,
    /// `true` if the send in flight was not complete at the end of the turn after the one that submitted it.
    pub lagging: bool,
    /// `true` if a shutdown is in flight. The socket must not be closed before it has completed.
    pub shutting_down: bool,
    /// `true` if the connection is in the queue of connections to be flushed.
    pub queued: bool,
    /// `true` if the peer is a proxy that has not brought a request.
    pub is_silent_proxy: bool,
    /// `true` if a message has begun and is not complete.
    pub unfinished: bool,
    /// `true` if a heartbeat that must be answered was sent, and nothing has been received since.
    pub challenged: bool,
    /// `true` if more of what the peer has sent may be in the socket: the last receive filled its buffer, had none, was
    /// ended by the kernel, or was cancelled because the peer was silent.
    pub unread: bool,
}

/// How the peer of a connection is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Transport {
    /// Through a socket.
    Socket(Descriptor),
    /// Through the requests of an HTTP session, which arrive on connections of their own. The number is the session's
    /// slot in the table of sessions.
    HttpSession(u32),
}

/// A [`Transport`] in four bytes, and if TLS is spoken over it. Sockets have places in a table of at most 2^30.
#[derive(Clone, Copy)]
pub(super) struct Link(u32);

/// The bit of a link that is an HTTP session.
const IS_SESSION: u32 = 1 << 31;

/// The bit of a link whose bytes are handled by TLS.
const IS_TLS: u32 = 1 << 30;

/// The bits that number the socket or session.
const NUMBER: u32 = IS_TLS - 1;

impl Link {
    fn of(transport: Transport) -> Link {
        let (number, bit) = match transport {
            Transport::Socket(socket) => (socket.place(), 0),
            Transport::HttpSession(session) => (session, IS_SESSION),
        };
        assert!(number <= NUMBER, "there are fewer sockets and sessions than 2^30");
        Link(number | bit)
    }

    #[inline]
    fn transport(self) -> Transport {
        match self.0 & IS_SESSION {
            0 => Transport::Socket(Descriptor::at(self.0 & NUMBER)),
            _ => Transport::HttpSession(self.0 & NUMBER),
        }
    }

    #[inline]
    fn is_tls(self) -> bool {
        self.0 & IS_TLS != 0
    }

    fn set_tls(&mut self, is_tls: bool) {
        self.0 = if is_tls { self.0 | IS_TLS } else { self.0 & !IS_TLS };
    }
}

/// A limit that a connection exceeds, for which it is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// The server has `clients-max` clients. The connection is not counted among them.
    ServerFull,
    /// Its address has `connections-per-address-max` connections.
    AddressFull,
}

/// The receiving direction of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Input {
    /// A multishot receive is armed.
    Armed,
    /// The receive was cancelled, because the peer has caused too many messages to shards that are behind, and has not
    /// ended yet.
    Cancelling,
    /// The receive was cancelled, because the peer has sent its last bytes, and has not ended yet.
    Stopping,
    /// No receive is armed until the shards that are behind have caught up.
    Paused,
    /// The receive was cancelled, because the peer has been silent for long, and has not ended yet.
    Retiring,
    /// The peer has been silent for long. Its next input is waited for by an operation that takes less of the kernel's
    /// memory than a receive.
    Dormant,
    /// Nothing is received: the stream has ended, or receiving has not begun. Also the state of a connection without a
    /// socket.
    Ended,
}

impl Input {
    /// Returns whether a receive, or a wait for input, is in flight.
    pub fn is_in_flight(self) -> bool {
        !matches!(self, Input::Paused | Input::Ended)
    }
}

/// A stage in the life of a connection. A connection only ever moves down this list.
///
/// ```text
///   Open ---> Ending ---> AwaitingPeer ---> Flushing ---> HalfClosed ---> Dead ---> (released)
///                |                             ^              ^            ^
///                +-- no Close is awaited ------+              |            |
///                +-- the peer has disconnected, or a timeout -+------------+
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    /// In the handshake or in use.
    Open,
    /// The end was decided. It is carried out before the turn is over, or a few turns later if very many connections
    /// do not keep up at the same time.
    Ending,
    /// Our Close has been queued; the peer's Close is awaited.
    AwaitingPeer,
    /// The queued output is sent, then the sending direction is shut down.
    Flushing,
    /// The peer has been told the end of the stream; its own end is awaited.
    HalfClosed,
    /// Nothing is sent or read any more; the completions of the operations in flight are awaited.
    Dead,
}

/// A client. The record can outlive the client's connection.
pub(super) struct Client {
    /// Never 0, so that a slab of clients needs no extra byte to mark free slots.
    generation: NonZeroU32,
    connection: u32,
    pub callback_ids: CallbackIds,
}

/// The value of `connection` for a client that is detached from its connection.
const NO_CONNECTION: u32 = u32::MAX;

impl Client {
    /// A client of the connection in this slot.
    pub fn new(generation: u32, connection: u32) -> Client {
        let generation = NonZeroU32::new(generation).expect("generations are counted from 1");
        Client { generation, connection, callback_ids: CallbackIds::default() }
    }

    /// Distinguishes this client from earlier ones in the same slot.
    pub fn generation(&self) -> u32 {
        self.generation.get()
    }

    /// The slot of the client's connection, or `None` once the client is detached from it.
    pub fn connection(&self) -> Option<u32> {
        (self.connection != NO_CONNECTION).then_some(self.connection)
    }

    /// Detaches the client from its connection, which is ending. The record keeps its slot until all of the client's
    /// subscriptions have ended.
    pub fn detach(&mut self) {
        self.connection = NO_CONNECTION;
    }
}

/// A server callback that was offered to a client, and its application.
pub(super) struct ServerCallback {
    pub app: u32,
    /// The callback, or `None` for a heartbeat that must be answered, which runs nothing.
    pub run: Option<Callback>,
}

/// A client's slot. A niche makes `Option<ClientSlot>` four bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ClientSlot(NonZeroU32);

/// A point in time in milliseconds, in four bytes. Differences are right up to 49 days, and no difference that is
/// computed is longer than a heartbeat's interval.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Moment(u32);

impl Connection {
    /// A connection that was just accepted. Nothing is received from it yet.
    pub fn new(socket: Descriptor, peer: PeerAddress, generation: u32, now: Moment) -> Connection {
        Connection::over(Transport::Socket(socket), Framing::WebSocket, peer, generation, now)
    }

    /// The connection of an HTTP session, which has no socket of its own.
    pub fn of_session(session: u32, peer: PeerAddress, generation: u32, now: Moment) -> Connection {
        Connection::over(Transport::HttpSession(session), Framing::LongPolling, peer, generation, now)
    }

    fn over(
        transport: Transport,
        framing: Framing,
        peer: PeerAddress,
        generation: u32,
        now: Moment,
    ) -> Connection {
        Connection {
            outbox: Outbox::new(),
            timer: None,
            peer,
            link: Link::of(transport),
            outbox_bytes: 0,
            in_flight_bytes: 0,
            generation,
            client: None,
            began: now,
            received: now,
            sent: now,
            send: None,
            stage: Stage::Open,
            framing,
            refusal: None,
            input: Input::Ended,
            pong_bytes: 0,
            lagging: false,
            shutting_down: false,
            queued: false,
            is_silent_proxy: false,
            unfinished: false,
            challenged: false,
            unread: false,
        }
    }

    /// How the peer is reached.
    #[inline]
    pub fn transport(&self) -> Transport {
        self.link.transport()
    }

    /// The connection's socket, or `None` for an HTTP session.
    pub fn socket(&self) -> Option<Descriptor> {
        match self.transport() {
            Transport::Socket(socket) => Some(socket),
            Transport::HttpSession(_) => None,
        }
    }

    /// Returns whether the connection is one of the clients that `clients-max` limits.
    pub fn is_counted(&self) -> bool {
        self.refusal != Some(Refusal::ServerFull)
    }

    /// Returns whether the peer is reached through a socket.
    pub fn is_socket(&self) -> bool {
        matches!(self.transport(), Transport::Socket(_))
    }

    /// Returns whether the bytes of the connection are handled by TLS, which has a state in the table of sessions then
    /// (`tls.rs`).
    #[inline]
    pub fn is_tls(&self) -> bool {
        self.link.is_tls()
    }

    /// Sets whether the bytes of the connection are handled by TLS.
    pub fn set_tls(&mut self, is_tls: bool) {
        self.link.set_tls(is_tls);
    }

    /// Returns whether an operation that names the socket is in flight.
    pub fn is_in_flight(&self) -> bool {
        self.input.is_in_flight() || self.is_sending() || self.shutting_down
    }

    /// Returns whether the socket is closed as soon as the output that waits has been sent.
    #[inline]
    pub fn closes_behind_output(&self) -> bool {
        self.stage == Stage::Flushing && matches!(self.input, Input::Stopping | Input::Ended)
    }

    /// Returns whether the server does not listen to the peer for now.
    pub fn is_paused(&self) -> bool {
        matches!(self.input, Input::Cancelling | Input::Paused)
    }

    /// Returns whether a send is in flight.
    #[inline]
    pub fn is_sending(&self) -> bool {
        self.send.is_some()
    }

    /// Notes that something was received from the peer.
    pub fn heard(&mut self, now: Moment) {
        self.received = now;
        self.challenged = false;
    }

    /// Asserts what holds for every connection between two turns.
    pub fn check(&self, slot: u32) {
        let waiting: usize = self.outbox.iter().map(Frame::cost).sum();
        let last = self.outbox.iter().last().map_or(usize::MAX, Frame::len);
        assert!(
            usize::from(self.pong_bytes) <= last,
            "connection {slot} has a Pong that is not in its outbox"
        );
        let (bytes, in_flight) = (self.outbox_bytes as usize, self.in_flight_bytes as usize);
        assert!(
            waiting + in_flight == bytes,
            "connection {slot} counts {bytes} bytes, but {waiting} wait and {in_flight} are in flight"
        );
        assert!(
            self.is_sending() || in_flight == 0,
            "connection {slot} counts bytes in flight, but no send is"
        );
        let has_client_stage = matches!(self.stage, Stage::Open | Stage::Ending);
        assert!(self.client.is_none() || has_client_stage, "connection {slot} has kept its client");
        assert!(self.is_socket() || !self.is_in_flight(), "session {slot} has an operation in flight");
        assert!(
            self.refusal.is_none() || self.client.is_none(),
            "connection {slot} is a client, but refused"
        );
        let has_ended = self.stage == Stage::Dead;
        assert!(!has_ended || self.is_in_flight(), "connection {slot} has ended, but was not released");
        // A shutdown cannot be cancelled, so nothing is repeated while only that is in flight.
        let waits_for_shutdown = has_ended && !self.input.is_in_flight() && !self.is_sending();
        // A connection of HTTP needs no timer while a request waits for its response, which `State::check` asserts.
        let may_wait = self.stage == Stage::Open && self.is_socket() && self.client.is_none();
        let may_lack_timer = waits_for_shutdown || self.stage == Stage::Ending || may_wait;
        assert!(self.timer.is_some() || may_lack_timer, "connection {slot} has no timer");
    }
}

impl ClientSlot {
    /// The slot with this number.
    pub fn new(slot: u32) -> ClientSlot {
        let number = slot.checked_add(1).expect("there are fewer clients than numbers for them");
        ClientSlot(NonZeroU32::new(number).expect("one was added"))
    }

    /// The slot's number.
    pub fn get(self) -> u32 {
        self.0.get() - 1
    }
}

impl Moment {
    /// The moment at this time of the clock, in milliseconds.
    pub fn at(ms: u64) -> Moment {
        Moment(ms as u32)
    }

    /// Returns the moment that was this many milliseconds earlier.
    pub fn before(self, ms: u64) -> Moment {
        Moment(self.0.wrapping_sub(ms as u32))
    }

    /// Returns the milliseconds from `earlier` to this moment.
    pub fn since(self, earlier: Moment) -> u64 {
        u64::from(self.0.wrapping_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Codec;

    /// docs/benchmarks.md states the budget of an idle client; these are its largest parts.
    #[test]
    fn records_keep_to_their_budget() {
        let connection = size_of::<Option<Connection>>() + size_of::<Codec>();
        assert!(connection <= 120, "{connection}");
        assert!(size_of::<Option<Client>>() <= 16, "{}", size_of::<Option<Client>>());
        assert_eq!(size_of::<Option<ClientSlot>>(), 4);
    }

    #[test]
    fn a_link_knows_its_transport_and_tls() {
        for transport in [Transport::Socket(Descriptor::made_up(NUMBER)), Transport::HttpSession(7)] {
            let mut link = Link::of(transport);
            assert!(link.transport() == transport && !link.is_tls());
            link.set_tls(true);
            assert!(link.transport() == transport && link.is_tls());
            link.set_tls(false);
            assert!(link.transport() == transport && !link.is_tls());
        }
    }

    #[test]
    fn moments_differ_across_their_wrapping() {
        let before = Moment::at(u64::from(u32::MAX) - 10);
        let after = Moment::at(u64::from(u32::MAX) + 90);
        assert_eq!(after.since(before), 100);
    }
}
