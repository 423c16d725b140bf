//! Frames: events as each protocol sends them, and several frames as one.

use crate::event::text;
use crate::protocol::{self, Compression, Framing};
use crate::qev::buffers::Frame;
use std::collections::VecDeque;

/// Frames that wait to be sent, in order. Two of them need no memory on the heap. The frames of a batch are taken from the
/// front, at a cost that does not depend on the number of those behind them.
///
/// Invariant: a place of `front` is used only if those before it are used, and `rest` exists only if both places are used
/// and it has frames.
#[derive(Default)]
pub(super) struct Outbox {
    front: [Option<Frame>; 2],
    #[expect(
        clippy::box_collection,
        reason = "each connection has an outbox, and most have no rest: 8 bytes, not 32"
    )]
    rest: Option<Box<VecDeque<Frame>>>,
}

impl Outbox {
    /// An empty outbox.
    pub const fn new() -> Outbox {
        Outbox { front: [None, None], rest: None }
    }

    /// Returns whether there are no frames.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.front[0].is_none()
    }

    /// The number of frames.
    pub fn len(&self) -> usize {
        self.front.iter().flatten().count() + self.rest.as_ref().map_or(0, |rest| rest.len())
    }

    /// Adds a frame behind the others.
    #[inline]
    pub fn push(&mut self, frame: Frame) {
        match &mut self.front {
            [first @ None, _] => *first = Some(frame),
            [_, second @ None] => *second = Some(frame),
            _ => self.rest.get_or_insert_default().push_back(frame),
        }
    }

    /// The frame that was added last.
    pub fn last_mut(&mut self) -> Option<&mut Frame> {
        let [first, second] = &mut self.front;
        let last = self.rest.as_mut().and_then(|rest| rest.back_mut());
        last.or(second.as_mut()).or(first.as_mut())
    }

    /// Takes the only frame, if there is exactly one.
    #[inline]
    pub fn take_only(&mut self) -> Option<Frame> {
        if self.front[1].is_some() { None } else { self.front[0].take() }
    }

    /// Takes the first frames, at most `max` of them, which must be at least two.
    pub fn take_first(&mut self, max: usize) -> Outbox {
        debug_assert!(max >= self.front.len(), "a batch has room for the first frames");
        let Some(rest) = self.rest.as_mut().filter(|rest| self.front.len() + rest.len() > max) else {
            return std::mem::take(self);
        };
        let front = std::mem::take(&mut self.front);
        let first: VecDeque<Frame> = rest.drain(..max - front.len()).collect();
        if rest.len() < rest.capacity() / 4 {
            rest.shrink_to(rest.len() * 2);
        }
        self.front = [rest.pop_front(), rest.pop_front()];
        self.rest = self.rest.take_if(|rest| !rest.is_empty());
        Outbox { front, rest: (!first.is_empty()).then(|| Box::new(first)) }
    }

    /// Takes the first frame, and those behind it that have no more than `bytes_max` bytes together with it.
    pub fn take_bytes(&mut self, bytes_max: usize) -> Outbox {
        let mut bytes = 0;
        let fits = |frame: &&Frame| {
            bytes += frame.len();
            bytes <= bytes_max
        };
        match self.iter().take_while(fits).count() {
            count if count >= self.len() => std::mem::take(self),
            0 | 1 => self.pop_front().into_iter().collect(),
            count => self.take_first(count),
        }
    }

    fn pop_front(&mut self) -> Option<Frame> {
        let [first, second] = &mut self.front;
        let frame = first.take();
        *first = second.take();
        *second = self.rest.as_mut().and_then(|rest| rest.pop_front());
        self.rest.take_if(|rest| rest.is_empty());
        frame
    }

    /// All frames, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Frame> + Clone {
        self.front.iter().flatten().chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }
}

impl IntoIterator for Outbox {
    type Item = Frame;
    type IntoIter = std::iter::Chain<
        std::iter::Flatten<std::array::IntoIter<Option<Frame>, 2>>,
        std::collections::vec_deque::IntoIter<Frame>,
    >;

    fn into_iter(self) -> Self::IntoIter {
        let rest = self.rest.map_or_else(VecDeque::new, |rest| *rest);
        self.front.into_iter().flatten().chain(rest)
    }
}

impl FromIterator<Frame> for Outbox {
    fn from_iter<I: IntoIterator<Item = Frame>>(frames: I) -> Outbox {
        let mut outbox = Outbox::new();
        frames.into_iter().for_each(|frame| outbox.push(frame));
        outbox
    }
}

/// The number of frames of one outbox that are freed at once.
const FREED_AT_ONCE: usize = 64;

/// How much is freed in a turn, in units that take about 50 ns: a frame, and four KiB of its bytes.
const FREED_PER_TURN: usize = 16 << 10;

/// The bytes that cost as much to free as a frame.
const BYTES_PER_UNIT: usize = 4 << 10;

/// Frames that are no longer needed. Dropping many of them takes long: an outbox may have thousands, and thousands of
/// outboxes may be dropped in one turn.
#[derive(Default)]
pub(super) struct Discarded(VecDeque<Outbox>);

impl Discarded {
    /// Adds frames. Few small ones are freed at once.
    pub fn add(&mut self, frames: Outbox) {
        if frames.front[1].is_some() {
            self.0.push_back(frames);
        }
    }

    /// Returns whether nothing is left to be freed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Frees as much as one turn permits.
    #[inline]
    pub fn free_some(&mut self) {
        // The list gives its memory back one call after it has become empty, at the latest.
        if self.0.capacity() > 0 {
            self.free_first();
        }
    }

    fn free_first(&mut self) {
        let mut units = 0;
        while units < FREED_PER_TURN {
            let Some(first) = self.0.front_mut() else {
                self.0 = VecDeque::new();
                return;
            };
            let frames = first.take_first(FREED_AT_ONCE);
            if first.is_empty() {
                self.0.pop_front();
            }
            frames.iter().for_each(|frame| units += 1 + frame.len() / BYTES_PER_UNIT);
        }
    }
}

/// The largest total size, in bytes, of frames that are copied into one frame to be sent. A copy of this size costs
/// less than the kernel's walk over an iovec, and all clients that have the same frames to send share it.
pub(super) const COALESCED_BYTES_MAX: usize = 64 << 10;

/// The frame that was coalesced last, and the frames that it was made from. In a fan-out most clients have the same
/// frames to send, which are then copied once. It lives for one turn.
#[derive(Default)]
pub(super) struct CoalescedFrame(Option<(Outbox, Frame)>);

impl CoalescedFrame {
    /// Returns one frame with the bytes of all these frames.
    pub fn coalesce(&mut self, frames: Outbox) -> Frame {
        if let Some((parts, coalesced)) = &self.0 {
            if parts.len() == frames.len()
                && parts.iter().zip(frames.iter()).all(|(part, frame)| part.ptr_eq(frame))
            {
                return coalesced.clone();
            }
        }
        let coalesced = Frame::joined(frames.iter());
        self.0 = Some((frames, coalesced.clone()));
        coalesced
    }
}

/// Encodes a message for one client, which is compressed if the connection allows it and that shrinks it.
#[inline]
pub(super) fn encode_for_one(
    compression: &Compression,
    framing: Framing,
    len: usize,
    write: impl FnOnce(&mut Vec<u8>),
) -> Vec<u8> {
    let bytes = encode(framing, len, write);
    match framing {
        Framing::Deflate(window) => compression.shrink_single(window, bytes),
        _ => bytes,
    }
}

/// Encodes an event for one client; see [`encode_for_one`].
pub(super) fn encode_event_for_one(
    compression: &Compression,
    framing: Framing,
    path: &str,
    callback: u64,
    data: &str,
) -> Vec<u8> {
    let len = text::event_len(path, callback, data);
    encode_for_one(compression, framing, len, |out| text::write_event(out, path, callback, data))
}

/// Encodes an event as a protocol sends it, without compression.
pub(super) fn encode_event(framing: Framing, path: &str, callback: u64, data: &str) -> Vec<u8> {
    let len = text::event_len(path, callback, data);
    encode(framing, len, |out| text::write_event(out, path, callback, data))
}

/// Encodes a text of known length as a protocol sends it, without compression, with a single allocation.
pub(super) fn encode(framing: Framing, len: usize, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(protocol::frame_len(framing, len));
    protocol::frame_with(framing, &mut bytes, len, write);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(number: usize) -> Frame {
        Frame::new(number.to_string().into_bytes(), 0)
    }

    fn numbers<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> Vec<&'a [u8]> {
        frames.into_iter().map(Frame::as_slice).collect()
    }

    #[test]
    fn an_outbox_is_small() {
        assert_eq!(size_of::<Outbox>(), 24);
    }

    #[test]
    fn much_is_freed_in_several_turns_and_in_the_end_everything() {
        let mut discarded = Discarded::default();
        let kept: Vec<Frame> = (0..FREED_PER_TURN + 100).map(frame).collect();
        for outbox in kept.chunks(3000) {
            discarded.add(outbox.iter().cloned().collect());
        }
        let left = |kept: &[Frame]| kept.iter().filter(|frame| frame.ref_count() > 1).count();
        discarded.free_some();
        let after = left(&kept);
        assert!(after > 0 && after <= 100, "{after} are left");
        discarded.free_some();
        assert_eq!((left(&kept), discarded.is_empty()), (0, true));
        // Large frames count more.
        let large: Vec<Frame> = (0..30).map(|_| Frame::new(vec![0; 4 << 20], 0)).collect();
        large.chunks(2).for_each(|outbox| discarded.add(outbox.iter().cloned().collect()));
        discarded.free_some();
        assert!((10..20).contains(&left(&large)), "{} are left", left(&large));
        discarded.add(large.into_iter().take(1).collect());
        discarded.free_some();
        assert!(discarded.is_empty());
    }

    proptest! {
        /// Each step adds frames, and then takes a batch of at most this many, if it is at least two.
        #[test]
        fn behaves_like_a_queue(steps in prop::collection::vec((0usize..40, 0usize..24), 1..40)) {
            let (mut outbox, mut model, mut number) = (Outbox::new(), VecDeque::new(), 0);
            for (pushes, batch) in steps {
                for _ in 0..pushes {
                    let frame = frame(number);
                    outbox.push(frame.clone());
                    model.push_back(frame);
                    number += 1;
                }
                if batch >= 2 {
                    let taken = outbox.take_first(batch);
                    let expected: Vec<Frame> = model.drain(..batch.min(model.len())).collect();
                    prop_assert_eq!(taken.len(), expected.len());
                    prop_assert_eq!(numbers(taken.iter()), numbers(&expected));
                } else if let Some(only) = outbox.take_only() {
                    prop_assert_eq!(model.len(), 1);
                    prop_assert!(only.ptr_eq(&model.pop_front().unwrap()));
                } else {
                    prop_assert!(model.len() != 1);
                }
                prop_assert_eq!((outbox.len(), outbox.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(numbers(outbox.iter()), numbers(&model));
                prop_assert_eq!(outbox.last_mut().map(|last| last.as_slice()), model.back().map(Frame::as_slice));
            }
            let left: Vec<Frame> = outbox.into_iter().collect();
            prop_assert_eq!(numbers(&left), numbers(&model));
        }
    }
}
