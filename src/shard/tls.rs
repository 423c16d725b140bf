//! TLS on the connections of a shard: the handshakes, their share of a turn, and the sessions that they become.
//!
//! A handshake takes a thousand times longer than a message, and ten thousand peers may begin one at the same time. What a
//! peer sends during its handshake is therefore kept, and handled in order when its turn comes ([`TlsTable::pop_waiting`]).
//! Handshakes in which the server has signed come before the others: a crowd has few of them half-open at any time.

#[cfg(test)]
pub(super) mod client;
#[cfg(test)]
mod tests;

use crate::limits::{
    TLS_HANDSHAKE_INPUT_BYTES_MAX, TLS_HANDSHAKES_BUSY_TURN_NS, TLS_HANDSHAKES_MAX, TLS_HANDSHAKES_TURN_NS,
};
use crate::qev::shrink::List;
use crate::qev::slots::BLOCK;
use crate::tls::{Established, Handshake, TlsContext, TlsFailure, TlsPeer, TlsSession};
use std::collections::VecDeque;
use std::mem;

/// The state of TLS on a connection.
#[derive(Default)]
pub(super) enum TlsPhase {
    /// There is none: the connection is plain, or the slot is free.
    #[default]
    Plain,
    /// Nothing was received. The first byte decides if `is_either`; otherwise a peer that does not begin TLS is told so.
    Silent { is_either: bool },
    /// The handshake is not complete.
    Handshake(Box<HalfOpen>),
    /// The handshake is complete.
    Secured(Secured),
    /// TLS has failed. These bytes are the rest of what the peer is sent; what it sends is ignored.
    Failed(Vec<u8>),
}

/// A handshake that is not complete.
pub(super) struct HalfOpen {
    /// The generation of the connection.
    generation: u32,
    /// The state, or `None` if nothing of `input` was handled yet.
    state: Option<Handshake>,
    /// The received bytes that are not handled yet.
    input: Vec<u8>,
    /// The bytes that are sent as they are.
    output: Vec<u8>,
    /// `true` if the handshake is in a queue.
    is_waiting: bool,
    /// `true` if the peer has ended its side of the stream behind `input`.
    has_ended: bool,
    /// The time of the core that the handshake has taken.
    core_ns: u64,
}

/// A session, and what only few connections have for long.
pub(super) struct Secured {
    pub session: TlsSession,
    extra: Option<Box<Extra>>,
}

/// State that only few sessions have for long.
#[derive(Default)]
struct Extra {
    /// The beginning of a record.
    partial: Vec<u8>,
    /// Records to be sent before anything else is sealed.
    output: Vec<u8>,
}

/// The outcome of handling what a peer has sent of its handshake.
pub(super) enum Advance {
    /// More is needed.
    Incomplete,
    /// The handshake is complete.
    Complete(Completed),
    /// The handshake has failed. The alert for the peer is in the output.
    Failed(TlsFailure),
}

/// A handshake that is complete.
pub(super) struct Completed {
    pub peer: TlsPeer,
    /// The bytes that were received behind it.
    pub rest: Vec<u8>,
    /// The time of the core that it has taken, in nanoseconds.
    pub core_ns: u64,
}

/// A handshake in a queue. Its connection may have ended meanwhile.
#[derive(Clone, Copy)]
struct HandshakeEntry {
    slot: u32,
    generation: u32,
}

/// The phases of the connections in a block of slots. There is no memory while all of them are plain.
#[derive(Default)]
struct PhaseBlock {
    phases: Box<[TlsPhase]>,
    used: usize,
}

/// The TLS of all connections of a shard, by the slots of the connections.
///
/// Connections of listeners that take TLS have blocks of slots of their own, so that plain connections cost nothing.
///
/// Invariants, which [`check`](TlsTable::check) asserts:
/// - a connection has a phase other than `Plain` if and only if its record says that its bytes are handled by TLS;
/// - `secured` and `half_open` are the numbers of connections in these phases; `begun` of the latter have a state, at most
///   `begun_max`, and `waiting` of them wait;
/// - each handshake that waits is once in `next`, if the server has signed, or else once in `first`;
/// - each handshake that has a state is in `begun_order` once.
///
/// Handshakes that are complete or have ended leave their entries in the queues, which are ignored.
pub(super) struct TlsTable {
    blocks: Vec<PhaseBlock>,
    /// The number of connections that have a phase.
    len: usize,
    secured: usize,
    half_open: usize,
    begun: usize,
    waiting: usize,
    /// Handshakes in which the server has signed, and whose peers have sent more.
    next: VecDeque<HandshakeEntry>,
    /// Handshakes in which the server has not signed.
    first: VecDeque<HandshakeEntry>,
    /// Handshakes in the order in which they have begun.
    begun_order: VecDeque<HandshakeEntry>,
    /// The time of the core that handshakes may take in this turn.
    budget_ns: u64,
    /// The server has signed in this turn.
    has_signed: bool,
    /// The time of the core that a handshake takes in which the server signs, as recent ones did.
    signing_ns: u64,
    /// The maximum of `begun`.
    begun_max: usize,
}

impl Default for TlsTable {
    /// Returns a table without connections.
    fn default() -> TlsTable {
        TlsTable {
            blocks: Vec::new(),
            len: 0,
            secured: 0,
            half_open: 0,
            begun: 0,
            waiting: 0,
            next: VecDeque::new(),
            first: VecDeque::new(),
            begun_order: VecDeque::new(),
            budget_ns: 0,
            has_signed: false,
            signing_ns: 0,
            begun_max: TLS_HANDSHAKES_MAX,
        }
    }
}

/// The phase of slots that have no block.
const PLAIN: &TlsPhase = &TlsPhase::Plain;

impl TlsTable {
    /// Begins a turn, in which handshakes have their full share.
    #[inline]
    pub fn begin_turn(&mut self) {
        self.budget_ns = TLS_HANDSHAKES_TURN_NS;
        self.has_signed = false;
    }

    /// Notes that the kernel has probably more events than it has brought in this turn: handshakes get a small share of it,
    /// so that the events are not far behind.
    pub fn limit_turn(&mut self) {
        self.budget_ns = self.budget_ns.min(TLS_HANDSHAKES_BUSY_TURN_NS);
    }

    /// The number of connections whose handshake is complete.
    pub fn secured(&self) -> usize {
        self.secured
    }

    /// The number of handshakes that are not complete.
    pub fn half_open(&self) -> usize {
        self.half_open
    }

    /// The number of handshakes that wait for their share of a turn.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Returns whether a handshake may wait for its share of a turn.
    #[inline]
    pub fn has_waiting(&self) -> bool {
        !self.next.is_empty() || !self.first.is_empty()
    }

    /// The phase of a connection.
    #[inline]
    pub fn phase(&self, slot: u32) -> &TlsPhase {
        let block = self.blocks.get(slot as usize / BLOCK);
        block.and_then(|block| block.phases.get(slot as usize % BLOCK)).unwrap_or(PLAIN)
    }

    /// The session of a connection, if its handshake is complete and TLS has not failed.
    #[inline]
    pub fn secured_mut(&mut self, slot: u32) -> Option<&mut Secured> {
        match self.blocks.get_mut(slot as usize / BLOCK)?.phases.get_mut(slot as usize % BLOCK)? {
            TlsPhase::Secured(secured) => Some(secured),
            _ => None,
        }
    }

    /// The phase of a connection that has one.
    ///
    /// # Panics
    ///
    /// The connection is plain.
    fn live_mut(&mut self, slot: u32) -> &mut TlsPhase {
        let block = self.blocks.get_mut(slot as usize / BLOCK);
        let phase = block.and_then(|block| block.phases.get_mut(slot as usize % BLOCK));
        phase.expect("a connection whose bytes are handled by TLS has a phase")
    }

    fn handshake_mut(&mut self, slot: u32) -> &mut HalfOpen {
        match self.live_mut(slot) {
            TlsPhase::Handshake(handshake) => handshake,
            _ => panic!("slot {slot} must be in its TLS handshake"),
        }
    }

    /// Expects TLS of a connection that was just accepted.
    pub fn start(&mut self, slot: u32, is_either: bool) {
        let number = slot as usize / BLOCK;
        while self.blocks.len() <= number {
            self.blocks.push(PhaseBlock::default());
        }
        let block = &mut self.blocks[number];
        if block.phases.is_empty() {
            block.phases = (0..BLOCK).map(|_| TlsPhase::Plain).collect();
        }
        let phase = &mut block.phases[slot as usize % BLOCK];
        assert!(matches!(phase, TlsPhase::Plain), "slot {slot} has the TLS of an earlier connection");
        *phase = TlsPhase::Silent { is_either };
        block.used += 1;
        self.len += 1;
    }

    /// Changes the phase of a connection; returns the one before.
    fn replace(&mut self, slot: u32, phase: TlsPhase) -> TlsPhase {
        self.count(&phase, 1);
        let before = mem::replace(self.live_mut(slot), phase);
        self.count(&before, -1);
        while self.begun_order.front().is_some_and(|entry| self.valid(*entry).is_none()) {
            self.begun_order.pop_front();
        }
        before
    }

    fn count(&mut self, phase: &TlsPhase, by: isize) {
        let add =
            |count: &mut usize| *count = count.checked_add_signed(by).expect("what is removed was counted");
        match phase {
            TlsPhase::Handshake(handshake) => {
                add(&mut self.half_open);
                if handshake.state.is_some() {
                    add(&mut self.begun);
                }
                if handshake.is_waiting {
                    add(&mut self.waiting);
                }
            }
            TlsPhase::Secured(_) => add(&mut self.secured),
            TlsPhase::Plain | TlsPhase::Silent { .. } | TlsPhase::Failed(_) => {}
        }
    }

    /// Drops the TLS of a connection, which is plain from now on or has ended. Does nothing if it has none.
    pub fn remove(&mut self, slot: u32) {
        if matches!(self.phase(slot), TlsPhase::Plain) {
            return;
        }
        self.replace(slot, TlsPhase::Plain);
        self.len -= 1;
        let block = &mut self.blocks[slot as usize / BLOCK];
        block.used -= 1;
        // The last block is kept for the next connection.
        if block.used == 0 && self.len > 0 {
            *block = PhaseBlock::default();
        }
    }

    /// Frees the blocks of slots from `slots` on, which no connection has.
    #[inline]
    pub fn truncate(&mut self, slots: usize) {
        if self.blocks.len() > slots.div_ceil(BLOCK) {
            self.blocks.truncate(slots.div_ceil(BLOCK));
            self.blocks.shrink_to(self.blocks.len() * 2);
        }
    }

    /// Sets the maximum number of handshakes that have begun, for tests: [`TLS_HANDSHAKES_MAX`] of them take long.
    #[cfg(test)]
    pub fn set_begun_max(&mut self, max: usize) {
        self.begun_max = max;
    }

    /// Gives back the memory that only many handshakes at once have needed.
    pub fn give_back(&mut self) {
        self.next.give_back();
        self.first.give_back();
        self.begun_order.give_back();
    }

    // Handshakes.

    /// Begins the handshake of a connection whose first byte is one of TLS.
    pub fn begin(&mut self, slot: u32, generation: u32) {
        let handshake = HalfOpen {
            generation,
            state: None,
            input: Vec::new(),
            output: Vec::new(),
            is_waiting: false,
            has_ended: false,
            core_ns: 0,
        };
        let before = self.replace(slot, TlsPhase::Handshake(Box::new(handshake)));
        debug_assert!(matches!(before, TlsPhase::Silent { .. }), "the first byte begins a handshake");
    }

    /// Keeps what the peer of a handshake has sent until its turn comes. Returns `true` if that is more than may be kept.
    pub fn add_input(&mut self, slot: u32, data: &[u8]) -> bool {
        let handshake = self.handshake_mut(slot);
        handshake.input.extend_from_slice(data);
        let is_over = handshake.input.len() > TLS_HANDSHAKE_INPUT_BYTES_MAX;
        let entry = HandshakeEntry { slot, generation: handshake.generation };
        let (is_new, has_signed) = (!mem::replace(&mut handshake.is_waiting, true), handshake.has_signed());
        match (is_new, has_signed) {
            (true, true) => self.next.push_back(entry),
            (true, false) => self.first.push_back(entry),
            (false, _) => {}
        }
        self.waiting += usize::from(is_new);
        is_over
    }

    /// Notes that the peer of a connection has ended its side of the stream. Returns `true` if that is handled later,
    /// because its handshake waits.
    pub fn end_input(&mut self, slot: u32) -> bool {
        match self.live_mut(slot) {
            TlsPhase::Handshake(handshake) if handshake.is_waiting => {
                handshake.has_ended = true;
                true
            }
            _ => false,
        }
    }

    /// Returns whether the handshake of a connection waits for its share of a turn.
    pub fn is_waiting(&self, slot: u32) -> bool {
        matches!(self.phase(slot), TlsPhase::Handshake(handshake) if handshake.is_waiting)
    }

    /// Returns whether the server has sent its signature in the handshake of a connection: what is left costs little.
    pub fn has_signed(&self, slot: u32) -> bool {
        matches!(self.phase(slot), TlsPhase::Handshake(handshake) if handshake.has_signed())
    }

    /// Returns whether the peer of a handshake that waited has ended its side of the stream.
    pub fn has_ended(&self, slot: u32) -> bool {
        matches!(self.phase(slot), TlsPhase::Handshake(handshake) if handshake.has_ended)
    }

    fn valid(&self, entry: HandshakeEntry) -> Option<&HalfOpen> {
        match self.phase(entry.slot) {
            TlsPhase::Handshake(handshake) if handshake.generation == entry.generation => Some(handshake),
            _ => None,
        }
    }

    /// Takes the next handshake that waits, if what is left of the share of the turn is enough for it. The first signature of
    /// a turn is made however long it takes.
    pub fn pop_waiting(&mut self) -> Option<u32> {
        while self.budget_ns > 0 {
            let has_room = !self.has_signed || self.budget_ns >= self.signing_ns;
            let entry = match self.next.pop_front() {
                Some(entry) => entry,
                None if has_room => self.first.pop_front()?,
                None => return None,
            };
            if self.valid(entry).is_some_and(|handshake| handshake.is_waiting) {
                return Some(entry.slot);
            }
        }
        None
    }

    /// Returns the connection whose handshake has taken longest, if another one cannot begin before it ends.
    pub fn too_many(&self, slot: u32) -> Option<u32> {
        let begins = matches!(self.phase(slot), TlsPhase::Handshake(handshake) if handshake.state.is_none());
        if !begins || self.begun < self.begun_max {
            return None;
        }
        self.begun_order.iter().find(|entry| self.valid(**entry).is_some()).map(|entry| entry.slot)
    }

    /// Handles what the peer of a handshake has sent. `core_ns` returns the time that the thread has had a core.
    pub fn advance(&mut self, slot: u32, context: &TlsContext, core_ns: impl Fn() -> u64) -> Advance {
        let before_ns = core_ns();
        let handshake = self.handshake_mut(slot);
        let was_waiting = mem::take(&mut handshake.is_waiting);
        let generation = handshake.generation;
        let begins = handshake.state.is_none();
        let state = handshake.state.get_or_insert_with(|| context.accept());
        let had_signed = state.has_signed();
        let received = state.receive(&handshake.input, &mut handshake.output);
        let has_signed_now = !had_signed && state.has_signed();
        let took_ns = core_ns().saturating_sub(before_ns);
        handshake.core_ns += took_ns;
        self.budget_ns = self.budget_ns.saturating_sub(took_ns.max(1));
        if has_signed_now {
            self.has_signed = true;
            // An average, because a client that resumes its session needs no signature.
            self.signing_ns =
                if self.signing_ns == 0 { took_ns } else { (3 * self.signing_ns + took_ns) / 4 };
        }
        self.waiting -= usize::from(was_waiting);
        if begins {
            self.begun += 1;
            self.begun_order.push_back(HandshakeEntry { slot, generation });
        }
        match received {
            Err(failure) => {
                let output = mem::take(&mut self.handshake_mut(slot).output);
                self.replace(slot, TlsPhase::Failed(output));
                Advance::Failed(failure)
            }
            Ok((consumed, None)) => {
                let input = &mut self.handshake_mut(slot).input;
                *input = input.split_off(consumed);
                Advance::Incomplete
            }
            Ok((consumed, Some(established))) => self.complete(slot, consumed, established),
        }
    }

    fn complete(&mut self, slot: u32, consumed: usize, established: Established) -> Advance {
        let Established { session, peer } = established;
        let handshake = self.handshake_mut(slot);
        let rest = handshake.input.split_off(consumed);
        let (output, core_ns) = (mem::take(&mut handshake.output), handshake.core_ns);
        let extra = (!output.is_empty()).then(|| Box::new(Extra { partial: Vec::new(), output }));
        self.replace(slot, TlsPhase::Secured(Secured { session, extra }));
        Advance::Complete(Completed { peer, rest, core_ns })
    }

    /// Notes that TLS has failed. `alert` is what the peer is sent.
    pub fn fail(&mut self, slot: u32, alert: Vec<u8>) {
        let before = self.replace(slot, TlsPhase::Failed(Vec::new()));
        let mut output = match before {
            TlsPhase::Secured(Secured { extra: Some(extra), .. }) => extra.output,
            _ => Vec::new(),
        };
        output.extend_from_slice(&alert);
        *self.live_mut(slot) = TlsPhase::Failed(output);
    }

    // Output.

    /// Returns whether a connection has something to send that is not in its outbox.
    #[inline]
    pub fn has_output(&self, slot: u32) -> bool {
        match self.phase(slot) {
            TlsPhase::Secured(secured) => secured.has_output(),
            TlsPhase::Handshake(handshake) => !handshake.output.is_empty(),
            TlsPhase::Failed(output) => !output.is_empty(),
            TlsPhase::Plain | TlsPhase::Silent { .. } => false,
        }
    }

    /// Takes what must be sent before anything else is sealed.
    #[inline]
    pub fn take_output(&mut self, slot: u32) -> Vec<u8> {
        match self.live_mut(slot) {
            TlsPhase::Secured(secured) => secured.take_output(),
            TlsPhase::Handshake(handshake) => mem::take(&mut handshake.output),
            TlsPhase::Failed(output) => mem::take(output),
            TlsPhase::Plain | TlsPhase::Silent { .. } => Vec::new(),
        }
    }

    /// The memory of what is incomplete on a connection: its handshake, or the beginning of a record, and output that waits
    /// for either.
    pub fn incomplete_bytes(&self, slot: u32) -> usize {
        self.phase(slot).incomplete_bytes()
    }

    /// The part of it that the peer could have made smaller: the bytes that it has sent of a handshake, or all that is
    /// incomplete otherwise. The state of a handshake and the certificates in its output are as large as the server's
    /// configuration makes them.
    pub fn incomplete_input_bytes(&self, slot: u32) -> usize {
        match self.phase(slot) {
            TlsPhase::Handshake(handshake) => {
                handshake.state.as_ref().map_or(0, Handshake::received) + handshake.input.len()
            }
            phase => phase.incomplete_bytes(),
        }
    }

    fn phases(&self) -> impl Iterator<Item = (u32, &TlsPhase)> {
        (0..).step_by(BLOCK).zip(&self.blocks).flat_map(|(first, block)| (first..).zip(&block.phases))
    }

    fn half_opens(&self) -> impl Iterator<Item = (u32, &HalfOpen)> {
        self.phases().filter_map(|(slot, phase)| match phase {
            TlsPhase::Handshake(handshake) => Some((slot, &**handshake)),
            _ => None,
        })
    }

    /// The memory of what is incomplete on all connections. Linear in the number of slots.
    pub fn all_incomplete_bytes(&self) -> u64 {
        self.phases().map(|(_, phase)| phase.incomplete_bytes() as u64).sum()
    }

    /// Asserts the invariants. `is_tls` returns whether a slot holds a connection whose bytes are handled by TLS, and `len`
    /// is the number of them. Linear in the number of slots.
    pub fn check(&self, len: usize, is_tls: impl Fn(u32) -> bool) {
        let (mut used, mut secured) = (0, 0);
        for (slot, phase) in self.phases().filter(|(_, phase)| !matches!(phase, TlsPhase::Plain)) {
            assert!(is_tls(slot), "slot {slot} has TLS without a connection");
            used += 1;
            secured += usize::from(matches!(phase, TlsPhase::Secured(_)));
        }
        assert_eq!((used, used), (self.len, len), "connections whose bytes are handled by TLS");
        assert_eq!(self.blocks.iter().map(|block| block.used).sum::<usize>(), len, "slots of all blocks");
        assert_eq!(secured, self.secured, "TLS connections whose handshake is complete");
        let begun = self.half_opens().filter(|(_, handshake)| handshake.state.is_some()).count();
        let waiting = self.half_opens().filter(|(_, handshake)| handshake.is_waiting).count();
        let counted = (self.half_opens().count(), begun, waiting);
        assert_eq!(counted, (self.half_open, self.begun, self.waiting), "TLS handshakes");
        assert!(begun <= self.begun_max, "{begun} TLS handshakes have begun");
        let valid = |queue: &VecDeque<HandshakeEntry>, has_signed: bool| {
            let entries = queue.iter().filter_map(|entry| self.valid(*entry));
            entries.filter(|handshake| handshake.is_waiting && handshake.has_signed() == has_signed).count()
        };
        let waiting = |has_signed: bool| {
            let waiting = self.half_opens().filter(|(_, handshake)| handshake.is_waiting);
            waiting.filter(|(_, handshake)| handshake.has_signed() == has_signed).count()
        };
        assert_eq!(
            valid(&self.next, true),
            waiting(true),
            "handshakes that wait behind the server's signature"
        );
        assert_eq!(
            valid(&self.first, false),
            waiting(false),
            "handshakes that wait for the server's signature"
        );
        let in_order = self.begun_order.iter().filter_map(|entry| self.valid(*entry)).count();
        assert_eq!(in_order, begun, "handshakes in the order of their beginning");
    }
}

impl HalfOpen {
    /// Returns whether the server has sent its signature.
    fn has_signed(&self) -> bool {
        self.state.as_ref().is_some_and(Handshake::has_signed)
    }
}

impl TlsPhase {
    fn incomplete_bytes(&self) -> usize {
        match self {
            TlsPhase::Plain | TlsPhase::Silent { .. } => 0,
            TlsPhase::Handshake(handshake) => {
                let state = handshake.state.as_ref().map_or(0, Handshake::memory);
                state + size_of::<HalfOpen>() + handshake.input.capacity() + handshake.output.capacity()
            }
            TlsPhase::Secured(secured) => secured.incomplete_bytes(),
            TlsPhase::Failed(output) => output.capacity(),
        }
    }
}

impl Secured {
    #[inline]
    fn has_output(&self) -> bool {
        self.session.owes_at_once() || self.extra.as_ref().is_some_and(|extra| !extra.output.is_empty())
    }

    #[inline]
    fn take_output(&mut self) -> Vec<u8> {
        let Some(extra) = &mut self.extra else { return Vec::new() };
        let output = mem::take(&mut extra.output);
        self.drop_empty();
        output
    }

    /// Returns whether a record has begun and is not complete.
    #[inline]
    pub fn has_partial(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| !extra.partial.is_empty())
    }

    /// Takes the beginning of a record.
    #[inline]
    pub fn take_partial(&mut self) -> Option<Vec<u8>> {
        let extra = self.extra.as_mut()?;
        let partial = mem::take(&mut extra.partial);
        self.drop_empty();
        (!partial.is_empty()).then_some(partial)
    }

    /// Keeps the beginning of a record.
    pub fn keep_partial(&mut self, partial: Vec<u8>) {
        if !partial.is_empty() {
            self.extra.get_or_insert_default().partial = partial;
        }
    }

    fn drop_empty(&mut self) {
        self.extra.take_if(|extra| extra.partial.is_empty() && extra.output.is_empty());
    }

    fn incomplete_bytes(&self) -> usize {
        self.extra
            .as_ref()
            .map_or(0, |extra| size_of::<Extra>() + extra.partial.capacity() + extra.output.capacity())
    }
}
