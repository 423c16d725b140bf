//! The transformation of payloads by permessage-deflate (RFC 7692, section 7.2): one deflater and one inflater for all
//! connections of a shard.
//!
//! Neither side keeps its window from one message to the next. The state of a connection is therefore only what was
//! negotiated, and the two engines are reset for each message. They are made for the first message that needs them.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};

use super::encode;
use super::extensions::WindowBits;
use super::frame::Opcode;
use crate::limits::DEFLATED_BYTES_PER_TURN_MAX;
use crate::protocol::Violation;

/// The bytes that the flush at the end of a message appends, and that are not sent: an empty block without compression
/// (7.2.1: "Remove 4 octets (that are 0x00 0x00 0xff 0xff) from the tail end").
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// The room in bytes for what is not data: the ends of blocks and the tail.
const FLUSH_ROOM: usize = 64;

/// The memory for output that is kept from one message to the next, in bytes.
const SCRATCH_KEPT_BYTES: usize = 64 << 10;

/// The memory that an inflated message gets at first, in bytes.
const INFLATED_BYTES_MIN: usize = 512;

/// The work of beginning a stream anew, in inflated bytes. A message may consist of many streams without content.
const STREAM_COST_BYTES: usize = 64;

/// The lengths from which on messages are compressed, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressionBounds {
    /// A broadcast, which is compressed once for all subscribers of the shard.
    pub broadcast_bytes_min: usize,
    /// A message for one client.
    pub single_bytes_min: usize,
}

/// The number of messages and bytes that a shard has compressed and inflated since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompressionCounts {
    /// Messages that were compressed. A broadcast counts once, whatever the number of its subscribers.
    pub compressed: u64,
    /// Messages that were sent as they are, because compression did not shrink them by a tenth.
    pub incompressible: u64,
    /// Messages that were sent as they are, because the shard had compressed enough in this turn.
    pub skipped: u64,
    /// Bytes of the compressed messages before the compression.
    pub bytes_before: u64,
    /// Bytes of the compressed messages after the compression.
    pub bytes_after: u64,
    /// Messages that were inflated.
    pub inflated: u64,
    /// Bytes of the inflated messages.
    pub inflated_bytes: u64,
    /// Messages that were refused because they were longer than the limit once inflated.
    pub bombs: u64,
}

/// The compression of a shard's WebSocket messages, if it is on.
///
/// Codecs and the shard share it as a part of their settings. Nothing is borrowed beyond a call.
#[derive(Debug)]
pub struct Compression(Option<Box<Active>>);

#[derive(Debug)]
struct Active {
    bounds: CompressionBounds,
    engines: RefCell<Engines>,
}

#[derive(Debug, Default)]
struct Engines {
    deflater: Option<Compress>,
    inflater: Option<Decompress>,
    /// The output of the deflater.
    scratch: Vec<u8>,
    counts: CompressionCounts,
    /// The bytes that were given to the deflater in this turn.
    deflated_in_turn: usize,
    /// The work of inflating since the last call of [`Compression::take_inflated`], in bytes.
    inflated_bytes: usize,
}

impl Clone for Compression {
    /// Returns compression with the same bounds, and with engines of its own.
    fn clone(&self) -> Compression {
        Compression(self.0.as_ref().map(|active| Box::new(Active::new(active.bounds))))
    }
}

impl Active {
    fn new(bounds: CompressionBounds) -> Active {
        Active { bounds, engines: RefCell::default() }
    }
}

impl Compression {
    /// No offer of a client is accepted.
    pub const OFF: Compression = Compression(None);

    /// Returns compression that accepts the offers of clients.
    pub fn new(bounds: CompressionBounds) -> Compression {
        Compression(Some(Box::new(Active::new(bounds))))
    }

    /// Returns whether the offers of clients are accepted.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Returns what was counted.
    pub fn counts(&self) -> CompressionCounts {
        self.0.as_ref().map_or_else(CompressionCounts::default, |active| active.engines.borrow().counts)
    }

    /// Begins a turn, in which messages of [`DEFLATED_BYTES_PER_TURN_MAX`] bytes may be compressed.
    #[inline]
    pub fn begin_turn(&self) {
        if let Some(active) = &self.0 {
            active.engines.borrow_mut().deflated_in_turn = 0;
        }
    }

    /// Takes the work of inflating since the last call, in bytes.
    #[inline]
    pub fn take_inflated(&self) -> usize {
        self.0.as_ref().map_or(0, |active| std::mem::take(&mut active.engines.borrow_mut().inflated_bytes))
    }

    /// Compresses a message for one client, if that shrinks it. `frame` is the message as an unfragmented frame of the
    /// server.
    #[cold]
    pub fn shrink_single(&self, window: WindowBits, frame: Vec<u8>) -> Vec<u8> {
        let Some(active) = &self.0 else { return frame };
        let lengths = active.bounds.single_bytes_min..=window.message_bytes_max();
        active.shrink(&frame, lengths).unwrap_or(frame)
    }

    /// Compresses a broadcast if that shrinks it. `frame` is the broadcast as an unfragmented frame of the server. Returns
    /// the frame to be sent instead.
    pub fn shrink_broadcast(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let active = self.0.as_ref()?;
        active.shrink(frame, active.bounds.broadcast_bytes_min..=usize::MAX)
    }

    /// Inflates the payload of a message. A message may have several blocks, and several streams of them.
    ///
    /// # Errors
    ///
    /// The payload is not what a deflater makes, or the message is longer than `bytes_max`. No more memory than that is
    /// allocated.
    pub fn inflate(&self, payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, Violation> {
        let active = self.0.as_ref().expect("a message is compressed only if that was negotiated");
        let Engines { inflater, counts, inflated_bytes, .. } = &mut *active.engines.borrow_mut();
        let inflater = inflater.get_or_insert_with(|| Decompress::new(false));
        let result = Inflation { inflater, out: Vec::new(), bytes_max, work: inflated_bytes }.run(payload);
        match &result {
            Ok(message) => {
                counts.inflated += 1;
                counts.inflated_bytes += message.len() as u64;
            }
            Err(Violation::MessageTooLong) => counts.bombs += 1,
            Err(_) => {}
        }
        result
    }
}

impl Active {
    /// Returns the message of a frame as a compressed frame, or `None` if it has to be sent as it is: its length is not
    /// one of these, it does not become shorter by a tenth, or enough was compressed in this turn.
    fn shrink(&self, frame: &[u8], lengths: RangeInclusive<usize>) -> Option<Vec<u8>> {
        let payload = encode::payload(frame);
        if !lengths.contains(&payload.len()) {
            return None;
        }
        let opcode = if frame[0] & 0x0F == Opcode::Binary as u8 { Opcode::Binary } else { Opcode::Text };
        let mut engines = self.engines.borrow_mut();
        let bytes = engines.deflate(payload).map(|compressed| {
            let mut bytes = Vec::new();
            encode::compressed_frame(&mut bytes, opcode, compressed);
            bytes
        });
        engines.scratch.clear();
        engines.scratch.shrink_to(SCRATCH_KEPT_BYTES);
        bytes
    }
}

impl Engines {
    /// Compresses a message; returns it without the tail, or `None` if it must be sent as it is.
    fn deflate(&mut self, payload: &[u8]) -> Option<&[u8]> {
        if payload.len() > DEFLATED_BYTES_PER_TURN_MAX - self.deflated_in_turn {
            self.counts.skipped += 1;
            return None;
        }
        self.deflated_in_turn += payload.len();
        let bytes_max = payload.len() - payload.len().div_ceil(10);
        let is_complete = self.deflate_to_scratch(payload);
        let compressed = self.scratch.strip_suffix(&TAIL);
        let compressed = compressed.filter(|compressed| is_complete && compressed.len() <= bytes_max);
        match compressed {
            Some(compressed) => {
                self.counts.compressed += 1;
                self.counts.bytes_before += payload.len() as u64;
                self.counts.bytes_after += compressed.len() as u64;
            }
            None => self.counts.incompressible += 1,
        }
        compressed
    }

    /// Compresses a message into the scratch; returns whether that had room for all of it.
    ///
    /// There is room even if the message becomes longer, by nine bits for each byte. If the room were used up, output would
    /// be left in the deflater, and zlib-rs 0.6.8 forgets the place of such output when it is reset: it panics in a later
    /// message.
    fn deflate_to_scratch(&mut self, payload: &[u8]) -> bool {
        let deflater = self.deflater.get_or_insert_with(|| Compress::new(flate2::Compression::fast(), false));
        deflater.reset();
        self.scratch.reserve(payload.len() + payload.len() / 8 + FLUSH_ROOM);
        let status = deflater.compress_vec(payload, &mut self.scratch, FlushCompress::Sync);
        let is_consumed = deflater.total_in() == payload.len() as u64;
        // zlib: if no room is left, the flush may be incomplete.
        let is_flushed = self.scratch.len() < self.scratch.capacity();
        let is_complete = matches!(status, Ok(Status::Ok)) && is_consumed && is_flushed;
        if !is_complete {
            self.deflater = None;
        }
        is_complete
    }
}

/// A message that is being inflated.
struct Inflation<'a> {
    inflater: &'a mut Decompress,
    out: Vec<u8>,
    bytes_max: usize,
    work: &'a mut usize,
}

impl Inflation<'_> {
    /// 7.2.2: "Append 4 octets of 0x00 0x00 0xff 0xff to the tail end of the payload of the message. Decompress the
    /// resulting data using DEFLATE."
    fn run(mut self, payload: &[u8]) -> Result<Vec<u8>, Violation> {
        self.inflater.reset(false);
        let is_ended = self.feed(payload)?;
        if !is_ended {
            self.feed(&TAIL)?;
        }
        Ok(self.out)
    }

    /// Inflates a part. Returns whether it ends with the end of a stream, which a block with BFINAL makes.
    ///
    /// 7.2.1: if such a block does not end at a byte boundary, it is padded, and "the next DEFLATE block follows the padded
    /// data if any". 7.2.3.4 has an example of a message that is flushed in this way.
    fn feed(&mut self, mut part: &[u8]) -> Result<bool, Violation> {
        loop {
            let (before_in, before_out) = (self.inflater.total_in(), self.out.len());
            let (status, has_room) = self.step(part)?;
            let consumed = (self.inflater.total_in() - before_in) as usize;
            part = &part[consumed..];
            *self.work += self.out.len() - before_out;
            if status == Status::StreamEnd {
                *self.work += STREAM_COST_BYTES;
                if part.is_empty() {
                    return Ok(true);
                }
                self.inflater.reset(false);
            } else if has_room && part.is_empty() {
                return Ok(false);
            } else if has_room && consumed == 0 && self.out.len() == before_out {
                return Err(Violation::Deflate);
            }
        }
    }

    /// Inflates until the input or the room for output is used up. Returns whether there was more room than was needed.
    fn step(&mut self, part: &[u8]) -> Result<(Status, bool), Violation> {
        if self.out.len() == self.out.capacity() {
            if self.out.len() >= self.bytes_max {
                return self.step_without_room(part);
            }
            let capacity = (2 * self.out.len()).max(INFLATED_BYTES_MIN).min(self.bytes_max);
            self.out.reserve_exact(capacity - self.out.len());
        }
        let status = self.inflater.decompress_vec(part, &mut self.out, FlushDecompress::None);
        // The allocator may have given more than was asked for.
        if self.out.len() > self.bytes_max {
            return Err(Violation::MessageTooLong);
        }
        Ok((status.map_err(|_| Violation::Deflate)?, self.out.len() < self.out.capacity()))
    }

    /// Consumes input that makes no output: the message has its maximum length.
    fn step_without_room(&mut self, part: &[u8]) -> Result<(Status, bool), Violation> {
        let before = self.inflater.total_out();
        let status = self.inflater.decompress(part, &mut [0], FlushDecompress::None);
        if self.inflater.total_out() > before {
            return Err(Violation::MessageTooLong);
        }
        Ok((status.map_err(|_| Violation::Deflate)?, true))
    }
}

#[cfg(test)]
mod tests;
