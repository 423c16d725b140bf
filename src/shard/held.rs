//! Input that is held: it was received from peers that have caused too many messages to shards that are behind.

use super::sessions::messages::RequestId;
use super::sessions::session::EarlyRequest;
use crate::qev::mesh::LoadSource;
use crate::qev::ring::Errno;
use ahash::AHashMap;
use std::collections::VecDeque;

/// The maximum cost of all held input of a shard, in bytes. What a peer is held with is what had arrived when its receive
/// was cancelled, which is at most the receive buffers of two turns; this is for thousands of such peers. Beyond it, input
/// is handled at once.
pub(super) const HELD_BYTES_MAX: usize = 64 << 20;

/// The cost in bytes of a piece of input, apart from the bytes themselves.
const PIECE_BYTES: usize = 64;

/// A piece of input.
pub(super) enum Piece {
    /// Bytes from a connection or a worker.
    Bytes(Box<[u8]>),
    /// The end of a connection's input.
    End(Result<(), Errno>),
    /// A request of an HTTP session.
    Request(EarlyRequest),
}

impl Piece {
    fn cost(&self) -> usize {
        PIECE_BYTES
            + match self {
                Piece::Bytes(bytes) => bytes.len(),
                Piece::End(_) => 0,
                Piece::Request(request) => request.host.len() + request.body.len(),
            }
    }
}

/// The sources that the shard does not listen to for now, and their input, in order.
///
/// Invariants:
/// - each source that is held is in `order`; sources that are no longer held leave their entries, which are ignored;
/// - `bytes` is the cost of all pieces;
/// - between turns no piece is being handled.
#[derive(Default)]
pub(super) struct HeldInput {
    sources: AHashMap<LoadSource, VecDeque<Piece>>,
    /// The order in which the shard listens to the sources again.
    order: VecDeque<LoadSource>,
    /// The source of which a piece is being handled. The pieces behind it must wait until that is over.
    handled: Option<LoadSource>,
    bytes: usize,
}

impl HeldInput {
    /// Returns whether no source is held.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// The number of sources that are held.
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// The cost of all held input, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether a source is held.
    pub fn has(&self, source: LoadSource) -> bool {
        self.sources.contains_key(&source)
    }

    /// All sources that are held.
    pub fn sources(&self) -> impl Iterator<Item = LoadSource> {
        self.sources.keys().copied()
    }

    /// Holds a source from now on; returns whether it was not held before.
    pub fn add(&mut self, source: LoadSource) -> bool {
        let is_new = !self.has(source);
        if is_new {
            self.sources.insert(source, VecDeque::new());
            self.order.push_back(source);
        }
        is_new
    }

    /// Adds a piece of input of a source that is held.
    pub fn push(&mut self, source: LoadSource, piece: Piece) {
        self.bytes += piece.cost();
        self.pieces(source).push_back(piece);
    }

    /// Takes the oldest piece of input of a source that is held.
    pub fn pop(&mut self, source: LoadSource) -> Option<Piece> {
        let piece = self.sources.get_mut(&source)?.pop_front()?;
        self.bytes -= piece.cost();
        Some(piece)
    }

    /// Sets the source of which a piece is being handled.
    pub fn set_handled(&mut self, source: Option<LoadSource>) {
        self.handled = source;
    }

    /// Returns whether a piece of a source is being handled.
    pub fn is_handled(&self, source: LoadSource) -> bool {
        self.handled == Some(source)
    }

    /// Ends the holding of a source; returns its input, or `None` if it is not held.
    pub fn remove(&mut self, source: LoadSource) -> Option<VecDeque<Piece>> {
        if self.sources.is_empty() {
            return None;
        }
        let pieces = self.sources.remove(&source)?;
        self.bytes -= pieces.iter().map(Piece::cost).sum::<usize>();
        if self.sources.is_empty() {
            // Holding is rare, and the memory of a burst is not kept.
            *self = HeldInput { handled: self.handled, ..HeldInput::default() };
        }
        Some(pieces)
    }

    /// The source that the shard listens to next.
    pub fn front(&self) -> Option<LoadSource> {
        self.order.iter().copied().find(|source| self.has(*source))
    }

    /// Takes the source that the shard listens to next. If it stays held, it must be put back.
    pub fn next(&mut self) -> Option<LoadSource> {
        loop {
            let source = self.order.pop_front()?;
            if self.has(source) {
                return Some(source);
            }
        }
    }

    /// Puts a source that stays held behind all others.
    pub fn put_back(&mut self, source: LoadSource) {
        if self.has(source) {
            self.order.push_back(source);
        }
    }

    /// The number of requests of a session that are held.
    pub fn requests(&self, source: LoadSource) -> usize {
        self.sources.get(&source).map_or(0, VecDeque::len)
    }

    /// Gives a held request the place of its repetition; returns the earlier arrival, if its connection still exists.
    /// `None` if the request is not held.
    pub fn repeat(
        &mut self,
        source: LoadSource,
        seq: u64,
        request_id: RequestId,
    ) -> Option<Option<RequestId>> {
        let same = self.requests_mut(source).find(|request| request.seq == seq)?;
        Some(same.request_id.replace(request_id))
    }

    /// Notes that the connection of a request has been lost; returns whether the request is held.
    pub fn lose(&mut self, source: LoadSource, request_id: RequestId) -> bool {
        let lost = self.requests_mut(source).find(|request| request.request_id == Some(request_id));
        lost.map(|request| request.request_id = None).is_some()
    }

    /// Notes that the peer of a request sends nothing more; returns whether the request is held and has events.
    pub fn hurry(&mut self, source: LoadSource, request_id: RequestId) -> bool {
        let mut requests = self.requests_mut(source).filter(|request| request.request_id == Some(request_id));
        requests.any(|request| request.hurry())
    }

    fn requests_mut(&mut self, source: LoadSource) -> impl Iterator<Item = &mut EarlyRequest> {
        let pieces = self.sources.get_mut(&source).into_iter().flatten();
        pieces.filter_map(|piece| match piece {
            Piece::Request(request) => Some(request),
            Piece::Bytes(_) | Piece::End(_) => None,
        })
    }

    fn pieces(&mut self, source: LoadSource) -> &mut VecDeque<Piece> {
        self.sources.get_mut(&source).expect("input is held only for a source that is held")
    }

    /// Asserts the invariants. Linear in the number of pieces.
    pub fn check(&self) {
        let bytes: usize = self.sources.values().flatten().map(Piece::cost).sum();
        assert_eq!(bytes, self.bytes, "the cost of all held input");
        assert!(self.handled.is_none(), "a piece is being handled between turns");
        for source in self.sources() {
            assert!(self.order.contains(&source), "{source:?} is held and would never be listened to again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> HeldInput {
        let mut held = HeldInput::default();
        assert!(held.add(LoadSource(7)) && held.add(LoadSource(8)) && !held.add(LoadSource(7)));
        held.push(LoadSource(7), Piece::Bytes(Box::from(*b"abc")));
        held.push(LoadSource(7), Piece::End(Ok(())));
        held
    }

    #[test]
    fn input_is_kept_in_order_and_counted() {
        let mut held = held();
        held.check();
        assert_eq!(held.bytes(), 2 * PIECE_BYTES + 3);
        assert!(matches!(held.pop(LoadSource(7)), Some(Piece::Bytes(_))));
        assert!(matches!(held.pop(LoadSource(7)), Some(Piece::End(Ok(())))));
        assert!(held.pop(LoadSource(7)).is_none());
        assert_eq!(held.bytes(), 0);
        assert!(held.remove(LoadSource(7)).is_some() && held.remove(LoadSource(7)).is_none());
        assert_eq!(
            held.front(),
            Some(LoadSource(8)),
            "an entry of a source that is no longer held is ignored"
        );
        held.check();
    }

    #[test]
    fn sources_take_turns() {
        let mut held = held();
        assert_eq!(held.next(), Some(LoadSource(7)));
        held.put_back(LoadSource(7));
        assert_eq!(held.next(), Some(LoadSource(8)));
        held.remove(LoadSource(8));
        held.put_back(LoadSource(8));
        assert_eq!(held.next(), Some(LoadSource(7)));
        assert_eq!(held.next(), None);
    }

    #[test]
    #[should_panic(expected = "the cost of all held input")]
    fn the_check_finds_a_wrong_cost() {
        let mut held = held();
        held.bytes += 1;
        held.check();
    }

    #[test]
    #[should_panic(expected = "is held and would never be listened to again")]
    fn the_check_finds_a_source_that_is_forgotten() {
        let mut held = held();
        held.next();
        held.check();
    }
}
