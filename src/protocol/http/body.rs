//! The body of a request: how its end is found, and its text while it arrives in pieces.

use super::chunked::{ChunkDecoder, ChunkItem};
use super::refusal::HttpRefusal;
use crate::protocol::utf8::Utf8Gatherer;

/// The way in which the end of a body is found (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFraming {
    /// The body has this many bytes.
    Length(usize),
    /// The body has the chunked transfer coding, which says where it ends.
    Chunked,
}

impl BodyFraming {
    /// Returns whether bytes may follow the head that belong to the request.
    pub fn has_body(self) -> bool {
        self != BodyFraming::Length(0)
    }
}

/// A body of which a part has come. Its memory grows with the bytes that have come, never with those announced.
#[derive(Debug)]
pub(super) struct PartialBody {
    text: Utf8Gatherer,
    rest: BodyRest,
}

/// The part of a body that has not come.
#[derive(Debug)]
enum BodyRest {
    /// This many bytes.
    Bytes(usize),
    /// More of a chunked body.
    Chunks(ChunkDecoder),
}

impl PartialBody {
    pub fn new(framing: BodyFraming) -> PartialBody {
        let rest = match framing {
            BodyFraming::Length(len) => BodyRest::Bytes(len),
            BodyFraming::Chunked => BodyRest::Chunks(ChunkDecoder::default()),
        };
        PartialBody { text: Utf8Gatherer::default(), rest }
    }

    /// Adds input. Returns the number of consumed bytes, and whether the body is complete. `max` is the maximum length
    /// of a chunked body; a length was checked with the head.
    pub fn push(&mut self, input: &[u8], max: usize) -> Result<(usize, bool), HttpRefusal> {
        let (consumed, is_complete) = match &mut self.rest {
            BodyRest::Bytes(remaining) => {
                let piece = &input[..input.len().min(*remaining)];
                *remaining -= piece.len();
                self.text.push(piece).map_err(|_| HttpRefusal::InvalidUtf8)?;
                (piece.len(), *remaining == 0)
            }
            BodyRest::Chunks(decoder) => push_chunks(&mut self.text, decoder, input, max)?,
        };
        if is_complete {
            self.text.finish().map_err(|_| HttpRefusal::InvalidUtf8)?;
        }
        Ok((consumed, is_complete))
    }

    /// Returns the text of a complete body.
    pub fn text(&self) -> &str {
        self.text.finish().expect("the body was found to be UTF-8")
    }

    /// Returns the capacity of the text's memory, in bytes.
    pub fn capacity(&self) -> usize {
        self.text.capacity()
    }
}

fn push_chunks(
    text: &mut Utf8Gatherer,
    decoder: &mut ChunkDecoder,
    input: &[u8],
    max: usize,
) -> Result<(usize, bool), HttpRefusal> {
    let mut at = 0;
    loop {
        let (consumed, item) = decoder.decode(&input[at..], max)?;
        at += consumed;
        match item {
            ChunkItem::Incomplete => return Ok((at, false)),
            ChunkItem::Data(piece) => text.push(piece).map_err(|_| HttpRefusal::InvalidUtf8)?,
            ChunkItem::End => return Ok((at, true)),
        }
    }
}
