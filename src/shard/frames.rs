//! Frames: events as each protocol sends them, and several frames as one.

use crate::app::Json;
use crate::event::path::Path;
use crate::event::text;
use crate::protocol::{self, Framing};
use crate::qev::buffers::Frame;
use smallvec::SmallVec;

/// The number of frames that an outbox holds without memory on the heap.
const OUTBOX_INLINE: usize = 2;

/// Frames that wait to be sent, in order.
pub(super) type Outbox = SmallVec<[Frame; OUTBOX_INLINE]>;

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
                && parts.iter().zip(&frames).all(|(part, frame)| part.ptr_eq(frame))
            {
                return coalesced.clone();
            }
        }
        let coalesced = Frame::joined(&frames);
        self.0 = Some((frames, coalesced.clone()));
        coalesced
    }
}

/// Encodes an event as a protocol sends it.
pub(super) fn encode_event(framing: Framing, path: &Path, callback: u64, data: &Json) -> Vec<u8> {
    let (path, data) = (path.as_str(), data.as_str());
    let len = text::event_len(path, callback, data);
    encode(framing, len, |out| text::write_event(out, path, callback, data))
}

/// Encodes a text of known length as a protocol sends it, with a single allocation.
pub(super) fn encode(framing: Framing, len: usize, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(protocol::frame_len(framing, len));
    protocol::frame_with(framing, &mut bytes, len, write);
    bytes
}
