//! A shard's port on the mesh.

use super::kernel::Kernel;
use super::messages::{Envelope, ShardMessage};
use crate::log::throttle;
use crate::qev::mesh::{Class, Load, LoadSource, MeshCounters, Port, SendOutcome};
use crate::qev::shrink::List;

/// The source of messages that no peer has caused. Connections and links have numbers of their own, which are larger.
pub(super) const SHARD: LoadSource = LoadSource(0);

/// The source of what the applications' threads do.
pub(super) const THREADS: LoadSource = LoadSource(1);

/// The source of what the timers of applications do.
pub(super) const TIMERS: LoadSource = LoadSource(2);

/// A shard's port on the mesh, which sends messages to the other shards and receives theirs.
///
/// Sending never waits. Messages that do not fit into a ring overflow into a queue, where they are charged to the source
/// that is handled at the moment ([`MeshPort::begin`]). The shard keeps each source within its share (`backpressure`).
///
/// Invariants, between turns: only `deferred` has messages that were received and not handled, none of them an `Interest`;
/// `shard` is the port's own number.
pub(super) struct MeshPort {
    port: Port<Envelope>,
    shard: u16,
    /// The overflow to one shard, in bytes, beyond which operations that need messages to other shards are refused: half
    /// of what may wait.
    stuck_bytes: usize,
    /// The source of what is handled at the moment.
    source: LoadSource,
    /// `true` if something that this source has caused was refused, and the source has not been told.
    has_refused: bool,
    /// Memory for the messages that are received, kept from turn to turn.
    received: Vec<(u16, Envelope)>,
    /// Messages that were received behind the requests of this turn, and are handled first in the next one.
    deferred: Vec<(u16, Envelope)>,
}

impl MeshPort {
    /// The port of shard number `shard`. `overflow_bytes_max` is that of the port.
    pub fn new(shard: u16, port: Port<Envelope>, overflow_bytes_max: usize) -> MeshPort {
        MeshPort {
            port,
            shard,
            stuck_bytes: overflow_bytes_max / 2,
            source: SHARD,
            has_refused: false,
            received: Vec::new(),
            deferred: Vec::new(),
        }
    }

    /// Notes whose input is handled from now on.
    #[inline]
    pub fn begin(&mut self, source: LoadSource) {
        self.source = source;
        self.has_refused = false;
    }

    /// This shard's number.
    #[inline]
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// The number of shards.
    pub fn shards(&self) -> u16 {
        self.port.shards() as u16
    }

    /// The shard that a hash chooses.
    pub fn shard_of_hash(&self, hash: u64) -> u16 {
        (hash % self.port.shards() as u64) as u16
    }

    /// All other shards.
    pub fn others(&self) -> impl Iterator<Item = u16> + use<> {
        let own = self.shard;
        (0..self.shards()).filter(move |shard| *shard != own)
    }

    /// Sends a message to another shard. For Data, [`MeshPort::is_full`] must be asked before.
    pub fn send(&mut self, to: u16, message: ShardMessage, class: Class, now_ns: u64) {
        let source = self.source;
        let weigh = |envelope: &Envelope| Load { source, bytes: envelope.message.bytes() };
        let envelope = Envelope { sent_ns: now_ns, message };
        match self.port.send_weighed(usize::from(to), envelope, class, weigh) {
            SendOutcome::Queued | SendOutcome::Overflowed => {}
            // The shard has ended, and its clients have been disconnected.
            SendOutcome::Refused(_) => {}
        }
    }

    /// Returns whether more Data to a shard would be refused.
    #[inline]
    pub fn is_full(&self, to: u16) -> bool {
        self.port.has_overflow() && self.port.is_full(usize::from(to))
    }

    /// Notes that something that the current source has caused was refused. The log has a line.
    pub fn refuse(&mut self, to: u16) {
        self.has_refused = true;
        throttle!(
            warn,
            "the mesh is full",
            shard = self.shard,
            to,
            "one handler or timer has caused more events for another shard than may wait \
                 (mesh-overflow-bytes-max); the rest was refused"
        );
    }

    /// Returns whether something that the current source has caused was refused since the last call.
    #[inline]
    pub fn take_refusal(&mut self) -> bool {
        std::mem::take(&mut self.has_refused)
    }

    /// Returns whether messages wait for room.
    #[inline]
    pub fn has_overflow(&self) -> bool {
        self.port.has_overflow()
    }

    /// Returns whether other shards are so far behind that operations that need messages to them must be refused or
    /// wait.
    pub fn is_stuck(&self) -> bool {
        self.port.has_overflow()
            && self.others().any(|to| self.port.overflow_bytes(usize::from(to)) > self.stuck_bytes)
    }

    /// Returns whether a source must be kept from causing more messages.
    #[inline]
    pub fn is_over(&self, source: LoadSource) -> bool {
        self.port.has_overflow() && self.has_too_much(source)
    }

    fn has_too_much(&self, source: LoadSource) -> bool {
        let charge = self.port.charge(source);
        charge > self.port.share() || charge > 0 && self.is_stuck()
    }

    /// Returns whether a source that was beyond its share may cause more messages: half of the share is free.
    pub fn may_resume(&self, source: LoadSource) -> bool {
        !self.port.has_overflow() || self.port.charge(source) <= self.port.share() / 2 && !self.is_stuck()
    }

    /// The cost of all messages that wait for room, in bytes.
    pub fn overflow_bytes(&self) -> usize {
        self.others().map(|to| self.port.overflow_bytes(usize::from(to))).sum()
    }

    /// Receives at most `max` messages with their senders. Return the list by [`MeshPort::reuse`] once it is empty.
    ///
    /// A request, or a broadcast that this shard numbers, may be the consequence of a subscription on a third shard, whose ring
    /// was read before the `Interest` of that subscription was put there: rings are read one after the other. If there is one, the rings are therefore
    /// read once more, which finds every `Interest` that is older than it, and every `Interest` is handled before all else.
    /// All other messages that the second reading finds are deferred to the next turn.
    pub fn receive(&mut self, max: usize) -> Vec<(u16, Envelope)> {
        self.receive_in_two(max, max)
    }

    fn receive_in_two(&mut self, first_max: usize, second_max: usize) -> Vec<(u16, Envelope)> {
        let mut received = std::mem::take(&mut self.received);
        if self.has_deferred() {
            received.append(&mut self.deferred);
        }
        let (mut has_request, mut has_interest) = (!received.is_empty(), false);
        self.port.receive(first_max, |from, envelope| {
            has_request |= matches!(envelope.message, ShardMessage::Request(_) | ShardMessage::Keep { .. });
            has_interest |= is_interest(&envelope);
            received.push((from as u16, envelope));
        });
        if !has_request {
            return received;
        }
        let (deferred, mut late) = (&mut self.deferred, Vec::new());
        self.port.receive(second_max, |from, envelope| {
            let to = if is_interest(&envelope) { &mut late } else { &mut *deferred };
            to.push((from as u16, envelope));
        });
        if !has_interest && late.is_empty() {
            return received;
        }
        // Those of one shard keep their order: the last one counts.
        let (mut first, others): (Vec<_>, Vec<_>) =
            received.into_iter().partition(|(_, envelope)| is_interest(envelope));
        first.append(&mut late);
        first.extend(others);
        first
    }

    /// Gives back the memory that only many messages at once have needed.
    pub fn give_back(&mut self) {
        self.received.give_back();
        self.deferred.give_back();
    }

    /// Returns whether messages were received that are handled in the next turn.
    pub fn has_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// Keeps the memory of a list of messages.
    pub fn reuse(&mut self, received: Vec<(u16, Envelope)>) {
        debug_assert!(received.is_empty(), "every message that was received must be handled");
        self.received = received;
    }

    /// Moves messages that overflowed into rings that have room again.
    pub fn flush(&mut self) {
        self.port.flush();
    }

    /// Wakes the shards that sleep and have been sent messages; returns how many.
    pub fn ring_doorbells(&mut self, kernel: &mut impl Kernel) -> u64 {
        let mut rung = 0;
        self.port.doorbells(|peer| {
            kernel.ring_doorbell(peer);
            rung += 1;
        });
        rung
    }

    /// Returns whether the shard may sleep: no message has arrived, and the sender of the next one wakes it.
    pub fn try_sleep(&mut self) -> bool {
        self.port.try_sleep()
    }

    /// Notes that the shard is awake.
    pub fn awake(&mut self) {
        self.port.end_sleep();
    }

    /// Asserts the invariants of the port. Linear in the number of shards.
    pub fn check(&self) {
        self.port.check();
        assert_eq!(usize::from(self.shard), self.port.shard(), "the number of the port's shard");
        assert!(self.received.is_empty(), "a message that was received was left over by its turn");
        let late = self.deferred.iter().any(|(_, envelope)| is_interest(envelope));
        assert!(!late, "news of a subscription was deferred");
    }

    /// Messages sent, received, overflowed and refused.
    pub fn counters(&self) -> MeshCounters {
        self.port.counters()
    }
}

fn is_interest(envelope: &Envelope) -> bool {
    matches!(envelope.message, ShardMessage::Interest { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::path::Path;
    use crate::protocol::http::{SessionParams, Sid};
    use crate::qev::mesh::{MeshSettings, mesh};
    use crate::qev::ring::PeerAddress;
    use crate::shard::sessions::messages::{RelayedRequest, RequestId, SessionRequest};

    /// The ports of two shards whose rings and overflow queues hold one message each.
    fn two() -> [MeshPort; 2] {
        let ports = mesh(2, MeshSettings { ring_messages: 1, overflow_bytes_max: 1 });
        let mut ports = (0..).zip(ports).map(|(shard, port)| MeshPort::new(shard, port, 1));
        [ports.next().unwrap(), ports.next().unwrap()]
    }

    fn message() -> ShardMessage {
        ShardMessage::AddressCounted { slot: 0, generation: 1, share: crate::shard::addresses::ShareUse::Low }
    }

    fn request() -> ShardMessage {
        let id = RequestId { shard: 1, connection: 0, generation: 1, number: 0 };
        let session = SessionParams {
            sid: Sid::from(7),
            connect: true,
            close: false,
            linger: false,
            seq: None,
            host: "",
        };
        let request = SessionRequest {
            id,
            peer: PeerAddress::UNIX,
            session,
            opening: None,
            certificate: None,
            body: Some(""),
        };
        ShardMessage::Request(Box::new(RelayedRequest::of(&request)))
    }

    fn interest(subscribed: bool) -> ShardMessage {
        ShardMessage::Interest { path: Path::parse("/a").unwrap(), subscribed }
    }

    /// The kinds of the messages of these tests: requests, and news that there are subscribers or none.
    fn kinds(received: &mut Vec<(u16, Envelope)>) -> Vec<(u16, &'static str)> {
        let kind = |message: &ShardMessage| match message {
            ShardMessage::Request(_) => "request",
            ShardMessage::Interest { subscribed: true, .. } => "subscribers",
            ShardMessage::Interest { subscribed: false, .. } => "none",
            _ => "other",
        };
        received.drain(..).map(|(from, envelope)| (from, kind(&envelope.message))).collect()
    }

    /// The ring of the shard with the request is read before the ring of the shard with the news.
    #[test]
    fn news_of_subscriptions_is_handled_before_requests() {
        let ports = mesh(3, MeshSettings { ring_messages: 8, overflow_bytes_max: 8 });
        let mut ports: Vec<MeshPort> =
            (0..).zip(ports).map(|(shard, port)| MeshPort::new(shard, port, 8)).collect();
        ports[1].send(0, request(), Class::Control, 0);
        ports[1].send(0, interest(true), Class::Control, 0);
        ports[1].send(0, interest(false), Class::Control, 0);
        ports[2].send(0, interest(true), Class::Control, 0);
        ports[2].send(0, message(), Class::Control, 0);
        let mut received = ports[0].receive(100);
        let expected = [(1, "subscribers"), (1, "none"), (2, "subscribers"), (1, "request"), (2, "other")];
        assert_eq!(kinds(&mut received), expected);
        assert!(received.is_empty() && !ports[0].has_deferred());
    }

    #[test]
    fn the_rings_are_read_once_more_if_there_is_a_request() {
        let ports = mesh(2, MeshSettings { ring_messages: 8, overflow_bytes_max: 8 });
        let mut ports: Vec<MeshPort> =
            (0..).zip(ports).map(|(shard, port)| MeshPort::new(shard, port, 8)).collect();
        for message in [request(), interest(true), request(), message()] {
            ports[1].send(0, message, Class::Control, 0);
        }
        // The first reading finds one message, the second one two, and the next turn's the last.
        let receive = |port: &mut MeshPort| kinds(&mut port.receive_in_two(1, 2));
        assert_eq!(receive(&mut ports[0]), [(1, "subscribers"), (1, "request")]);
        assert!(ports[0].has_deferred());
        ports[0].check();
        assert_eq!(receive(&mut ports[0]), [(1, "request"), (1, "other")]);
        assert!(!ports[0].has_deferred());
    }

    #[test]
    fn a_port_is_stuck_while_more_messages_overflow_than_may() {
        let [mut a, mut b] = two();
        while !a.is_stuck() {
            a.send(1, message(), Class::Control, 0);
            a.check();
        }
        while a.is_stuck() {
            let mut received = b.receive(1);
            assert_eq!(received.len(), 1);
            received.clear();
            b.reuse(received);
            b.check();
            a.flush();
        }
        assert_eq!(a.others().collect::<Vec<_>>(), [1]);
        assert_eq!(b.others().collect::<Vec<_>>(), [0]);
    }

    #[test]
    #[should_panic(expected = "a message that was received was left over by its turn")]
    fn the_check_finds_a_message_that_was_left_over() {
        let [mut port, _] = two();
        port.received.push((1, Envelope { sent_ns: 0, message: message() }));
        port.check();
    }

    #[test]
    #[should_panic(expected = "the number of the port's shard")]
    fn the_check_finds_a_port_of_another_shard() {
        let [mut port, _] = two();
        port.shard = 1;
        port.check();
    }

    #[test]
    #[should_panic(expected = "every message that was received must be handled")]
    fn a_list_with_messages_is_not_kept() {
        let [mut port, _] = two();
        port.reuse(vec![(1, Envelope { sent_ns: 0, message: message() })]);
    }
}
