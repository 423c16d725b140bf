//! The connections and clients of a shard: their records, what waits to be sent to them, and their ends.

#[cfg(test)]
mod tests;

use super::connection::{Client, ClientSlot, Connection, ServerCallback, Stage, Transport};
use super::ending::{Cause, Ending, Goodbye};
use super::frames::{Discarded, Outbox};
use crate::client::ClientId;
use crate::client::callbacks::Callbacks;
use crate::limits::OUTBOX_BYTES_MIN;
use crate::protocol::Framing;
use crate::qev::buffers::{AcceptedBroadcasts, FRAME_COST_BYTES, Frame};
use crate::qev::mesh::LoadSource;
use crate::qev::shrink::List;
use crate::qev::slots::{Lane, Slots};
use smallvec::SmallVec;
use std::collections::VecDeque;

/// The names of records, for the message of a panic.
const CONNECTION: &str = "connection";
const CLIENT: &str = "client";

/// The outcome of queueing a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Queued {
    /// The frame is in the outbox.
    InOutbox,
    /// The outbox is full: the connection's end was decided, because its peer does not keep up.
    Overflow,
    /// The connection is ending and takes no more frames.
    Closed,
}

impl Queued {
    /// Returns whether the frame is in the outbox.
    pub fn is_in_outbox(self) -> bool {
        self == Queued::InOutbox
    }
}

/// The room that each outbox has at a moment.
#[derive(Clone, Copy)]
struct OutboxRoom {
    bytes_max: usize,
    /// All outboxes together are full.
    is_pressed: bool,
}

impl OutboxRoom {
    /// Returns whether the outbox of a connection has room for a frame of this cost.
    #[inline]
    fn is_enough(self, connection: &Connection, cost: usize) -> bool {
        let waiting = connection.outbox_bytes as usize;
        waiting + cost <= self.bytes_max
            && (!self.is_pressed || waiting == 0 || waiting + cost <= OUTBOX_BYTES_MIN)
    }
}

/// The connections and clients of one shard.
///
/// Invariants, which [`Connections::check`] asserts between turns:
/// - a client that is not detached, and its connection, point at each other;
/// - the bytes of a connection's outbox are the costs of its frames and of those in flight, and `outbox_bytes` is the sum
///   over all connections;
/// - only clients that are not detached have open callbacks;
/// - `clients_of_framing` counts the connections that have a client;
/// - a connection whose `queued` is set is exactly once in one queue: with a socket in `ready`, a session in
///   `blocked_sessions`. No other is in a queue. Connections that are released leave their entries, which are ignored;
/// - `ready_sessions` is empty;
/// - no end that was decided is left to be carried out, except those of `overflowed`: each connection in stage `Ending` is
///   in that queue once;
/// - a connection that has ended has an operation in flight, or it would have been released.
pub(super) struct Connections {
    records: Slots<Connection>,
    clients: Slots<Client>,
    /// The number of clients that are not detached, by the index of their framing.
    clients_of_framing: [usize; Framing::PLAIN_COUNT],
    waiting: Waiting,
    /// HTTP sessions whose output has to wait until the mesh can carry it.
    blocked_sessions: Vec<QueueEntry>,
    /// Ends that were decided in this turn, in order.
    endings: Vec<Ending>,
    /// Connections whose end was decided because their outboxes are full, in order. One broadcast may decide the ends of
    /// thousands, which are carried out in several turns. Those that were carried out early leave their entries.
    overflowed: VecDeque<QueueEntry>,
    /// Frames that were dropped and are not freed yet.
    discarded: Discarded,
    /// The most that the frames of one outbox may cost, in bytes.
    outbox_bytes_max: usize,
    /// The cost of all outboxes from which on each connection may only have [`OUTBOX_BYTES_MIN`].
    outboxes_bytes_max: u64,
    /// Connections whose end was decided because of that since the last call of [`Connections::take_pressed`].
    pressed: u64,
    /// Open callbacks of the clients.
    callbacks: Callbacks<ServerCallback>,
    /// The generation of the record that was made last.
    generation: u32,
    /// This shard's number.
    shard: u16,
}

/// A connection as a source of messages to other shards. Generations are not 0.
pub(super) fn source_of(slot: u32, generation: u32) -> LoadSource {
    LoadSource(u64::from(generation) << 32 | u64::from(slot))
}

/// The source of the output of an HTTP session. Slots are below 2^31.
pub(super) fn output_of(session: LoadSource) -> LoadSource {
    LoadSource(session.0 | 1 << 31)
}

/// The slot of the connection that is a source, if the source is a connection, and its generation.
pub(super) fn connection_of_source(source: LoadSource) -> Option<(u32, u32)> {
    let generation = (source.0 >> 32) as u32;
    (generation != 0).then_some((source.0 as u32, generation))
}

/// The output that waits, of all connections.
struct Waiting {
    /// Connections with a socket that may have something to flush.
    ready: VecDeque<QueueEntry>,
    /// HTTP sessions that may have output, or whose output may go elsewhere now.
    ready_sessions: VecDeque<QueueEntry>,
    /// The cost of the frames in all outboxes and in flight.
    outbox_bytes: u64,
}

impl Waiting {
    /// Adds a frame to the outbox of a connection, which is then in a queue.
    #[inline]
    fn push(&mut self, connection: &mut Connection, slot: u32, frame: Frame) {
        let cost = frame.cost();
        connection.outbox_bytes += cost as u32;
        connection.pong_bytes = 0;
        self.outbox_bytes += cost as u64;
        connection.outbox.push(frame);
        if let Some(entry) = connection.enter_queue(slot) {
            match connection.transport() {
                Transport::Socket(_) => self.ready.push_back(entry),
                Transport::HttpSession(_) => self.ready_sessions.push_back(entry),
            }
        }
    }

    /// Notes that a frame in the outbox of a connection costs more than before.
    fn grow(&mut self, connection: &mut Connection, grown: usize) {
        connection.outbox_bytes += grown as u32;
        self.outbox_bytes += grown as u64;
    }
}

/// A connection in a queue. It may have been released meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct QueueEntry {
    pub slot: u32,
    generation: u32,
}

impl Connections {
    /// No connections. Each outbox is bounded by `outbox_bytes_max`.
    pub fn new(shard: u16, outbox_bytes_max: usize) -> Connections {
        Connections {
            records: Slots::new(),
            clients: Slots::new(),
            clients_of_framing: [0; Framing::PLAIN_COUNT],
            waiting: Waiting { ready: VecDeque::new(), ready_sessions: VecDeque::new(), outbox_bytes: 0 },
            blocked_sessions: Vec::new(),
            endings: Vec::new(),
            overflowed: VecDeque::new(),
            discarded: Discarded::default(),
            outbox_bytes_max,
            outboxes_bytes_max: u64::MAX,
            pressed: 0,
            callbacks: Callbacks::new(),
            generation: 0,
            shard,
        }
    }

    /// The number of records, HTTP sessions included.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// The number of slots for records, free ones included.
    pub fn slots(&self) -> usize {
        self.records.slots()
    }

    /// Returns whether no record is left.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The number of clients, those included whose subscriptions are still ending.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// The cost of the frames in all outboxes and in flight.
    pub fn outbox_bytes(&self) -> u64 {
        self.waiting.outbox_bytes
    }

    /// The number of open callbacks.
    pub fn callbacks_open(&self) -> usize {
        self.callbacks.len()
    }

    /// Returns whether a connection may have something to flush.
    pub fn has_ready(&self) -> bool {
        !self.waiting.ready.is_empty()
    }

    /// Returns whether a session may have output.
    pub fn has_ready_sessions(&self) -> bool {
        !self.waiting.ready_sessions.is_empty()
    }

    /// Returns whether an end was decided and not carried out yet.
    pub fn has_endings(&self) -> bool {
        !self.endings.is_empty()
    }

    /// All records with their slots.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Connection)> {
        self.records.iter().map(|(slot, connection)| (slot as u32, connection))
    }

    /// Returns the next generation: never 0.
    pub fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1).max(1);
        self.generation
    }

    /// Adds a connection; returns its slot. HTTP sessions have blocks of slots of their own, for which there are no codecs, and
    /// so have connections whose bytes are handled by TLS: others have no sessions of TLS.
    pub fn insert(&mut self, connection: Connection) -> u32 {
        let lane = match (connection.is_socket(), connection.is_tls()) {
            (true, false) => Lane::First,
            (false, _) => Lane::Second,
            (true, true) => Lane::Third,
        };
        self.records.insert_in(lane, connection) as u32
    }

    /// Removes a connection that has ended, once nothing of it is in flight.
    ///
    /// # Panics
    ///
    /// The slot holds no connection, or one that is not ready to be released.
    pub fn remove(&mut self, slot: u32) -> Connection {
        self.drop_outbox(slot);
        let connection = self.records.expect_remove(slot as usize, CONNECTION);
        assert!(connection.stage == Stage::Dead, "connection {slot} was released before its end");
        assert!(!connection.is_in_flight(), "connection {slot} was released with an operation in flight");
        connection
    }

    /// The connection in a slot that a completion or the shard's own records name.
    ///
    /// # Panics
    ///
    /// The slot holds no connection.
    #[inline]
    #[track_caller]
    pub fn live(&self, slot: u32) -> &Connection {
        self.records.expect(slot as usize, CONNECTION)
    }

    /// As [`Connections::live`], to be changed.
    #[inline]
    #[track_caller]
    pub fn live_mut(&mut self, slot: u32) -> &mut Connection {
        self.records.expect_mut(slot as usize, CONNECTION)
    }

    /// The connection in a slot, or `None` if it is free.
    pub fn get(&self, slot: u32) -> Option<&Connection> {
        self.records.get(slot as usize)
    }

    /// The connection in a slot that may have been released meanwhile.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Connection> {
        self.records.get_mut(slot as usize)
    }

    /// The connection in a slot, if it is still the one of this generation.
    pub fn get_of(&self, slot: u32, generation: u32) -> Option<&Connection> {
        self.records.get(slot as usize).filter(|connection| connection.generation == generation)
    }

    /// The connection in a slot, as a source of messages to other shards.
    #[inline]
    #[track_caller]
    pub fn source(&self, slot: u32) -> LoadSource {
        source_of(slot, self.live(slot).generation)
    }

    /// Returns whether a slot holds a connection with a socket that has not ended.
    pub fn has_socket(&self, slot: u32) -> bool {
        let connection = self.records.get(slot as usize);
        connection.is_some_and(|connection| connection.is_socket() && connection.stage != Stage::Dead)
    }

    /// Returns whether the connection in a slot is still the one of this generation, and no end of it was decided.
    pub fn is_open(&self, slot: u32, generation: u32) -> bool {
        self.get_of(slot, generation).is_some_and(|connection| connection.stage == Stage::Open)
    }

    // Clients.

    /// Creates the client of a connection whose handshake is complete, with the framing of its events.
    pub fn create_client(&mut self, slot: u32, framing: Framing) -> ClientId {
        let generation = self.next_generation();
        let client = self.clients.insert(Client::new(generation, slot)) as u32;
        let connection = self.live_mut(slot);
        connection.framing = framing;
        connection.client = Some(ClientSlot::new(client));
        self.clients_of_framing[framing.plain_index()] += 1;
        ClientId { shard: self.shard, slot: client, generation }
    }

    /// Detaches a connection's client, if it has one: its callbacks are dropped. Its record stays until
    /// [`Connections::remove_client`].
    pub fn detach_client(&mut self, slot: u32) -> Option<ClientId> {
        let connection = self.live_mut(slot);
        let client = connection.client.take()?.get();
        let framing = connection.framing.plain_index();
        self.clients_of_framing[framing] -= 1;
        let record = self.clients.expect_mut(client as usize, CLIENT);
        record.detach();
        self.callbacks.close(client);
        Some(ClientId { shard: self.shard, slot: client, generation: record.generation() })
    }

    /// Changes the framing of a connection; returns the one before.
    pub fn set_framing(&mut self, slot: u32, framing: Framing) -> Framing {
        let connection = self.live_mut(slot);
        let before = std::mem::replace(&mut connection.framing, framing);
        if connection.client.is_some() {
            self.clients_of_framing[before.plain_index()] -= 1;
            self.clients_of_framing[framing.plain_index()] += 1;
        }
        before
    }

    /// The number of clients that are connected with this framing, compressed or not.
    pub fn clients_of_framing(&self, framing: Framing) -> usize {
        self.clients_of_framing[framing.plain_index()]
    }

    /// Removes the record of a client that has been detached.
    pub fn remove_client(&mut self, id: ClientId) {
        let client = self.clients.expect_remove(id.slot as usize, CLIENT);
        assert!(client.connection().is_none(), "client {} was removed before it was detached", id.slot);
    }

    /// The client of a connection, from the end of its handshake to its own end.
    pub fn client_of(&self, slot: u32) -> Option<ClientId> {
        let client = self.records.get(slot as usize)?.client?.get();
        let record = self.clients.expect(client as usize, CLIENT);
        Some(ClientId { shard: self.shard, slot: client, generation: record.generation() })
    }

    /// The slot of a client's connection, or `None` if the client has disconnected.
    pub fn connection_of(&self, id: ClientId) -> Option<u32> {
        let client = self.clients.get(id.slot as usize)?;
        let is_same = client.generation() == id.generation && id.shard == self.shard;
        client.connection().filter(|_| is_same)
    }

    /// The slot of the connection of a subscriber, which is named by its client's slot. `None` if the client has
    /// disconnected and its subscriptions are still ending.
    #[inline]
    pub fn connection_of_subscriber(&self, client: u32) -> Option<u32> {
        self.clients.expect(client as usize, CLIENT).connection()
    }

    /// The client in a slot, connected or not.
    pub fn client_at(&self, slot: u32) -> ClientId {
        let generation = self.clients.expect(slot as usize, CLIENT).generation();
        ClientId { shard: self.shard, slot, generation }
    }

    /// Returns whether a slot holds a client, connected or not.
    pub fn has_client(&self, client: u32) -> bool {
        self.clients.get(client as usize).is_some()
    }

    /// The clients that have been detached, and not removed. Linear in the number of clients.
    pub fn detached(&self) -> usize {
        self.clients.iter().filter(|(_, client)| client.connection().is_none()).count()
    }

    /// Returns whether a client has been detached, and not removed.
    pub fn is_detached(&self, id: ClientId) -> bool {
        let client = self.clients.get(id.slot as usize);
        client.is_some_and(|client| client.generation() == id.generation && client.connection().is_none())
    }

    /// Returns whether the client is connected to this shard.
    pub fn is_connected(&self, id: ClientId) -> bool {
        self.connection_of(id).is_some()
    }

    /// The clients that are connected, and those whose subscriptions are still ending.
    #[cfg(test)]
    pub fn client_ids(&self) -> impl Iterator<Item = ClientId> {
        let shard = self.shard;
        let clients = self.clients.iter();
        clients.map(move |(slot, client)| ClientId {
            shard,
            slot: slot as u32,
            generation: client.generation(),
        })
    }

    // Callbacks.

    /// Issues a callback to a client; returns its id and whether another was evicted for it. `None` if the client has
    /// disconnected.
    pub fn issue(&mut self, id: ClientId, callback: ServerCallback, expires_ms: u64) -> Option<(u64, bool)> {
        self.connection_of(id)?;
        let client = self.clients.get_mut(id.slot as usize)?;
        let ids = &mut client.callback_ids;
        let (number, evicted) = self.callbacks.issue(id.slot, ids, callback, expires_ms);
        Some((number, evicted.is_some()))
    }

    /// Takes a callback that a client fires, and drops those that have expired; returns it and how many were dropped.
    pub fn take_callback(
        &mut self,
        id: ClientId,
        number: u64,
        now_ms: u64,
    ) -> Option<(Option<ServerCallback>, usize)> {
        self.connection_of(id)?;
        let before = self.callbacks.len();
        let fired = self.callbacks.take(id.slot, number, now_ms);
        let dropped = before - self.callbacks.len() - usize::from(fired.is_some());
        Some((fired, dropped))
    }

    /// Drops the callbacks of a connection's client that have expired; returns how many.
    pub fn expire_callbacks(&mut self, slot: u32, now_ms: u64) -> usize {
        let Some(client) = self.live(slot).client else { return 0 };
        self.callbacks.expire(client.get(), now_ms)
    }

    /// The time at which the next callback of a connection's client expires.
    pub fn next_callback_expiry(&self, slot: u32) -> Option<u64> {
        self.callbacks.next_expiry(self.live(slot).client?.get())
    }

    // Output.

    /// Puts a frame into the outbox of a connection. If that exceeds the limit, the connection's end is decided: its
    /// peer does not keep up.
    #[inline]
    pub fn queue(&mut self, slot: u32, frame: Frame) -> Queued {
        self.queue_framed(slot, |_| frame)
    }

    /// Queues the frame that `frame` returns for the framing of the connection; see [`Connections::queue`].
    #[inline]
    pub fn queue_framed(&mut self, slot: u32, frame: impl FnOnce(Framing) -> Frame) -> Queued {
        let room = self.room();
        let connection = self.records.expect_mut(slot as usize, CONNECTION);
        if connection.stage != Stage::Open {
            return Queued::Closed;
        }
        let frame = frame(connection.framing);
        if !room.is_enough(connection, frame.cost()) {
            return self.overflow(slot);
        }
        self.waiting.push(connection, slot, frame);
        Queued::InOutbox
    }

    /// Queues bytes for this connection alone; see [`Connections::queue`]. If the last frame of the outbox is not shared
    /// with other outboxes, and is not large, the bytes are appended to it: many small answers take one frame.
    #[inline]
    pub fn queue_bytes(&mut self, slot: u32, bytes: Vec<u8>, now_ns: u64) -> Queued {
        let room = self.room();
        let connection = self.records.expect_mut(slot as usize, CONNECTION);
        if connection.stage != Stage::Open {
            return Queued::Closed;
        }
        if !room.is_enough(connection, FRAME_COST_BYTES + bytes.capacity()) {
            return self.overflow(slot);
        }
        match connection.outbox.last_mut().and_then(|last| last.append(&bytes)) {
            Some(grown) => {
                connection.pong_bytes = 0;
                self.waiting.grow(connection, grown);
            }
            None => self.waiting.push(connection, slot, Frame::new(bytes, now_ns)),
        }
        Queued::InOutbox
    }

    /// Queues a Pong; see [`Connections::queue`]. If the Pong before it still waits at the end of the outbox, because the
    /// send in flight takes longer than a turn, the new one replaces it: a peer that does not read is owed one Pong, for its
    /// newest Ping (RFC 6455, 5.5.3). The second value is `true` in this case.
    pub fn queue_pong(&mut self, slot: u32, pong: Vec<u8>, now_ns: u64) -> (Queued, bool) {
        let connection = self.records.expect_mut(slot as usize, CONNECTION);
        let len = u8::try_from(pong.len()).expect("a control frame has at most 127 bytes");
        let waiting = usize::from(connection.pong_bytes);
        if connection.stage == Stage::Open && connection.lagging && waiting > 0 {
            let last = connection.outbox.last_mut();
            if let Some(grown) = last.and_then(|last| last.replace_end(waiting, &pong)) {
                connection.pong_bytes = len;
                self.waiting.grow(connection, grown);
                return (Queued::InOutbox, true);
            }
        }
        let queued = self.queue_bytes(slot, pong, now_ns);
        if queued.is_in_outbox() {
            self.live_mut(slot).pong_bytes = len;
        }
        (queued, false)
    }

    /// Returns whether a frame of this many bytes exceeds the limit of a connection's outbox.
    pub fn would_overflow(&self, slot: u32, bytes: usize) -> bool {
        !self.room().is_enough(self.live(slot), FRAME_COST_BYTES + bytes)
    }

    /// Bounds the cost of all outboxes of the shard; see the setting `outboxes-bytes-max`.
    pub fn set_outboxes_max(&mut self, bytes: u64) {
        self.outboxes_bytes_max = bytes;
    }

    /// Takes the number of connections whose end was decided because all outboxes together were full.
    pub fn take_pressed(&mut self) -> u64 {
        std::mem::take(&mut self.pressed)
    }

    /// The room that each outbox has at this moment.
    #[inline]
    fn room(&self) -> OutboxRoom {
        let is_pressed = self.waiting.outbox_bytes >= self.outboxes_bytes_max;
        OutboxRoom { bytes_max: self.outbox_bytes_max, is_pressed }
    }

    /// Decides the end of a connection whose outbox has no room.
    #[cold]
    fn overflow(&mut self, slot: u32) -> Queued {
        self.pressed += u64::from(self.room().is_pressed);
        let connection = self.records.expect_mut(slot as usize, CONNECTION);
        connection.stage = Stage::Ending;
        self.overflowed.push_back(QueueEntry { slot, generation: connection.generation });
        Queued::Overflow
    }

    /// Puts the response to an HTTP request into the outbox of its connection. A response that a session's outbox could
    /// hold is accepted by an empty outbox whatever its size: only what the peer has not read of others counts against it.
    pub fn queue_response(
        &mut self,
        slot: u32,
        bytes: Vec<u8>,
        accepted: SmallVec<[AcceptedBroadcasts; 1]>,
        now_ns: u64,
    ) {
        let connection = self.live(slot);
        if connection.outbox_bytes > 0 && accepted.is_empty() {
            self.queue_bytes(slot, bytes, now_ns);
        } else if connection.outbox_bytes > 0 {
            self.queue(slot, Frame::with_broadcasts(bytes, now_ns, accepted));
        } else if connection.stage == Stage::Open {
            self.push(slot, Frame::with_broadcasts(bytes, now_ns, accepted));
        }
    }

    /// Puts a connection's last frame into its outbox, regardless of the limit.
    pub fn queue_goodbye(&mut self, slot: u32, frame: Frame) {
        self.push(slot, frame);
    }

    fn push(&mut self, slot: u32, frame: Frame) {
        let connection = self.records.expect_mut(slot as usize, CONNECTION);
        self.waiting.push(connection, slot, frame);
    }

    /// Has a connection with a socket flushed at the end of the turn, if it has anything to send or is ending.
    pub fn queue_for_flush(&mut self, slot: u32) {
        let connection = self.records.expect_mut(slot as usize, CONNECTION);
        if !connection.outbox.is_empty() || connection.stage != Stage::Open {
            self.waiting.ready.extend(connection.enter_queue(slot));
        }
    }

    /// Has a TLS connection flushed at the end of the turn, because it has something to send that is not in its outbox.
    pub fn queue_tls_output(&mut self, slot: u32) {
        let connection = self.records.expect_mut(slot as usize, CONNECTION);
        self.waiting.ready.extend(connection.enter_queue(slot));
    }

    /// Has a session checked for output before the turn is over.
    pub fn queue_session(&mut self, slot: u32) {
        let connection = self.records.expect_mut(slot as usize, CONNECTION);
        self.waiting.ready_sessions.extend(connection.enter_queue(slot));
    }

    /// Gives back the memory that only many connections with output, or many ends, at once have needed.
    pub fn give_back(&mut self) {
        self.waiting.ready.give_back();
        self.waiting.ready_sessions.give_back();
        self.blocked_sessions.give_back();
        self.overflowed.give_back();
    }

    /// The number of connections that wait to be flushed.
    pub fn ready(&self) -> usize {
        self.waiting.ready.len()
    }

    /// Takes the next connection to be flushed, which may have been released; see [`Connections::leave_queue`].
    #[inline]
    pub fn pop_ready(&mut self) -> Option<QueueEntry> {
        self.waiting.ready.pop_front()
    }

    /// Takes the next session to be checked for output.
    pub fn pop_ready_session(&mut self) -> Option<u32> {
        loop {
            let entry = self.waiting.ready_sessions.pop_front()?;
            if self.leave_queue(entry).is_some() {
                return Some(entry.slot);
            }
        }
    }

    /// Notes that a connection was taken from its queue; returns it, or `None` if it was released.
    #[inline]
    pub fn leave_queue(&mut self, entry: QueueEntry) -> Option<&mut Connection> {
        let connection = self.records.get_mut(entry.slot as usize)?;
        if connection.generation != entry.generation {
            return None;
        }
        connection.queued = false;
        Some(connection)
    }

    /// Keeps a session until [`Connections::unblock_sessions`], unless it is in a queue already, from which it is taken no
    /// later.
    pub fn block_session(&mut self, slot: u32) {
        let connection = self.records.expect_mut(slot as usize, CONNECTION);
        self.blocked_sessions.extend(connection.enter_queue(slot));
    }

    /// Returns whether a session's output waits for the mesh.
    pub fn has_blocked_sessions(&self) -> bool {
        !self.blocked_sessions.is_empty()
    }

    /// Has the sessions whose output waited for the mesh checked again.
    pub fn unblock_sessions(&mut self) {
        self.waiting.ready_sessions.extend(self.blocked_sessions.drain(..));
    }

    /// Takes everything from the outbox of an HTTP session, whose frames are never in flight.
    pub fn take_outbox(&mut self, slot: u32) -> Outbox {
        let connection = self.records.expect_mut(slot as usize, CONNECTION);
        self.waiting.outbox_bytes -= u64::from(connection.outbox_bytes);
        connection.outbox_bytes = 0;
        std::mem::take(&mut connection.outbox)
    }

    /// Drops what waits in an outbox, but not what is in flight. It is freed in later turns if it is much.
    pub fn drop_outbox(&mut self, slot: u32) {
        let connection = self.records.expect_mut(slot as usize, CONNECTION);
        let dropped = std::mem::take(&mut connection.outbox);
        self.waiting.outbox_bytes -= u64::from(connection.outbox_bytes - connection.in_flight_bytes);
        connection.outbox_bytes = connection.in_flight_bytes;
        self.discarded.add(dropped);
    }

    /// Frees frames that are no longer needed in later turns, if they are many.
    pub fn discard(&mut self, frames: Vec<Frame>) {
        self.discarded.add(frames.into_iter().collect());
    }

    /// Frees some of what was dropped.
    pub fn free_discarded(&mut self) {
        self.discarded.free_some();
    }

    /// Returns whether something was dropped and is not freed yet.
    pub fn has_discarded(&self) -> bool {
        !self.discarded.is_empty()
    }

    /// Notes that frames were taken from the outbox of a connection to be sent. They cost `before`, and what is sent in
    /// their place costs `in_flight`.
    #[inline]
    pub fn started(&mut self, slot: u32, before: usize, in_flight: usize) {
        let connection = self.records.expect_mut(slot as usize, CONNECTION);
        connection.in_flight_bytes = in_flight as u32;
        connection.outbox_bytes = connection.outbox_bytes - before as u32 + in_flight as u32;
        self.waiting.outbox_bytes = self.waiting.outbox_bytes - before as u64 + in_flight as u64;
    }

    /// Notes that the send of a connection has completed. If the connection has more to send, or is ending, it is flushed at
    /// the end of the turn. Returns its stage, and if its bytes are handled by TLS.
    #[inline]
    pub fn sent(&mut self, slot: u32) -> (Stage, bool) {
        let connection = self.records.expect_mut(slot as usize, CONNECTION);
        let cost = std::mem::take(&mut connection.in_flight_bytes);
        (connection.send, connection.lagging) = (None, false);
        connection.outbox_bytes -= cost;
        self.waiting.outbox_bytes -= u64::from(cost);
        if !connection.outbox.is_empty() || !matches!(connection.stage, Stage::Open | Stage::Dead) {
            self.waiting.ready.extend(connection.enter_queue(slot));
        }
        (connection.stage, connection.is_tls())
    }

    // Ends.

    /// Decides the end of a connection, unless it was decided before.
    pub fn end(&mut self, slot: u32, cause: Cause, goodbye: Option<Goodbye>) {
        let connection = self.records.expect_mut(slot as usize, CONNECTION);
        if connection.stage != Stage::Open {
            return;
        }
        connection.stage = Stage::Ending;
        self.endings.push(Ending { slot, cause, goodbye });
    }

    /// Takes the ends that were decided, in order.
    pub fn take_endings(&mut self) -> Vec<Ending> {
        std::mem::take(&mut self.endings)
    }

    /// Takes the ends of HTTP sessions that were decided, in order.
    pub fn take_session_endings(&mut self) -> Vec<Ending> {
        let endings = self.take_endings();
        let (of_sockets, of_sessions) =
            endings.into_iter().partition(|ending| self.live(ending.slot).is_socket());
        self.endings = of_sockets;
        of_sessions
    }

    /// Returns whether the ends of connections that do not keep up are left to be carried out.
    pub fn has_overflowed(&self) -> bool {
        !self.overflowed.is_empty()
    }

    /// Takes the next connection that does not keep up, and whose end was not carried out yet.
    pub fn pop_overflowed(&mut self) -> Option<u32> {
        loop {
            let QueueEntry { slot, generation } = self.overflowed.pop_front()?;
            if self.get_of(slot, generation).is_some_and(|connection| connection.stage == Stage::Ending) {
                return Some(slot);
            }
        }
    }

    /// Asserts the invariants. Linear in the number of records.
    pub fn check(&self) {
        self.records.check();
        self.clients.check();
        assert!(!self.has_endings(), "an end was decided and not carried out");
        let mut outbox_bytes = 0;
        let mut queued = 0;
        let mut of_framing = [0; Framing::PLAIN_COUNT];
        for (slot, connection) in self.iter() {
            connection.check(slot);
            outbox_bytes += u64::from(connection.outbox_bytes);
            queued += usize::from(connection.queued);
            if let Some(client) = connection.client {
                let client = self.clients.expect(client.get() as usize, CLIENT);
                assert_eq!(client.connection(), Some(slot), "the client of connection {slot} has another");
                of_framing[connection.framing.plain_index()] += 1;
            }
        }
        assert_eq!(outbox_bytes, self.waiting.outbox_bytes, "the bytes in all outboxes");
        assert!(self.waiting.ready_sessions.is_empty(), "a session with output was left over by its turn");
        let of_sockets = self.waiting.ready.iter().map(|entry| (entry, true));
        let of_sessions = self.blocked_sessions.iter().map(|entry| (entry, false));
        let mut entries = 0;
        for (&QueueEntry { slot, generation }, with_socket) in of_sockets.chain(of_sessions) {
            let Some(connection) = self.get_of(slot, generation) else { continue };
            assert!(connection.queued, "connection {slot} is in a queue, and does not know it");
            assert_eq!(connection.is_socket(), with_socket, "connection {slot} is in the wrong queue");
            entries += 1;
        }
        let ending = self.iter().filter(|(_, connection)| connection.stage == Stage::Ending).count();
        let overflowed = self.overflowed.iter().filter(|entry| {
            let connection = self.get_of(entry.slot, entry.generation);
            connection.is_some_and(|connection| connection.stage == Stage::Ending)
        });
        assert_eq!(
            ending,
            overflowed.count(),
            "each end that is left to be carried out is in the queue, once"
        );
        assert_eq!(entries, queued, "each connection that is queued is in one queue, once");
        for (slot, client) in self.clients.iter() {
            if let Some(connection) = client.connection() {
                let of_connection = self.live(connection).client.map(ClientSlot::get);
                assert_eq!(of_connection, Some(slot as u32), "client {slot} and its connection");
            }
        }
        assert_eq!(of_framing, self.clients_of_framing, "the clients of each framing");
        self.callbacks.check(|client| {
            let client = self.clients.expect(client as usize, CLIENT);
            assert!(client.connection().is_some(), "a client that has disconnected has open callbacks");
            client.callback_ids
        });
    }
}

impl Connection {
    /// Marks the connection as queued; returns its entry, or `None` if it is in a queue already.
    #[inline]
    fn enter_queue(&mut self, slot: u32) -> Option<QueueEntry> {
        let is_new = !std::mem::replace(&mut self.queued, true);
        is_new.then_some(QueueEntry { slot, generation: self.generation })
    }
}
