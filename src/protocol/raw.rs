//! Raw TCP: the client sends `/qio/ohai`, and the server replies with the same. From then on each text in both
//! directions is preceded by its length, 8 bytes in big-endian order.

use std::str;

use bytes::BufMut;

use super::utf8::{InvalidUtf8, Utf8Gatherer};
use super::{Close, CodecSettings, DecodeOutcome, Incoming, Reason, Violation};

/// The number of bytes of the length before each text.
pub const HEADER_BYTES: usize = 8;

/// Appends the header of a text of this length. The text follows it.
#[inline]
pub fn header(out: &mut Vec<u8>, text_len: usize) {
    out.put_u64(text_len as u64);
}

/// The codec of a raw connection after its handshake. It has 16 bytes while no text is incomplete.
///
/// The protocol has no closing handshake: a peer that violates it receives nothing.
#[derive(Debug, Default)]
pub struct RawCodec {
    decoder: RawDecoder,
    ended: bool,
}

impl RawCodec {
    /// Decodes the next text of the input. See [`Codec::decode`](super::Codec::decode).
    #[inline]
    pub fn decode<'a>(&'a mut self, input: &'a mut [u8], settings: &CodecSettings) -> DecodeOutcome<'a> {
        if self.ended {
            self.decoder = RawDecoder::default();
            return DecodeOutcome::incomplete(input.len());
        }
        let input_len = input.len();
        match self.decoder.decode(input, settings.message_bytes_max) {
            Ok(decoded) => DecodeOutcome {
                consumed: decoded.consumed,
                incoming: decoded.text.map_or(Incoming::Incomplete, Incoming::Event),
            },
            Err(violation) => {
                self.ended = true;
                DecodeOutcome {
                    consumed: input_len,
                    incoming: Incoming::Close(Close::silent(violation.into())),
                }
            }
        }
    }

    /// Ends the connection.
    pub fn close(&mut self, reason: Reason) -> Close {
        self.ended = true;
        self.decoder = RawDecoder::default();
        Close::silent(reason)
    }

    /// Returns whether events may be sent.
    pub fn is_open(&self) -> bool {
        !self.ended
    }

    /// Returns the memory of an incomplete text, in bytes.
    #[inline]
    pub fn incomplete_bytes(&self) -> usize {
        self.decoder
            .partial
            .as_deref()
            .map_or(0, |partial| size_of::<PartialText>() + partial.text.capacity())
    }

    /// Returns whether the connection is open and no text is incomplete.
    pub fn is_idle(&self) -> bool {
        self.is_open() && self.decoder.is_idle()
    }
}

/// The outcome of a call of [`RawDecoder::decode`].
#[derive(Debug, PartialEq, Eq)]
pub struct DecodedText<'a> {
    /// The number of input bytes that were consumed. The caller continues behind them.
    pub consumed: usize,
    /// The text that these bytes completed. If `None`, all of the input was consumed.
    pub text: Option<&'a str>,
}

/// The decoder of a raw connection. It has eight bytes while no text is incomplete. After a [`Violation`] it must not
/// be used again.
#[derive(Debug, Default)]
pub struct RawDecoder {
    partial: Option<Box<PartialText>>,
}

impl RawDecoder {
    /// Decodes the next text. If the input contains all of it, the text is borrowed from the input.
    ///
    /// Call this with the input behind `consumed` until it returns no text, even if no input is left: only then is the
    /// memory of a text that came in pieces freed.
    #[inline]
    pub fn decode<'a>(
        &'a mut self,
        input: &'a [u8],
        message_bytes_max: usize,
    ) -> Result<DecodedText<'a>, Violation> {
        if self.is_idle() {
            self.partial = None;
            if let Some((header, rest)) = input.split_first_chunk() {
                let len = parse_len(*header, message_bytes_max)?;
                if let Some(text) = rest.get(..len) {
                    let text = str::from_utf8(text).map_err(|_| InvalidUtf8)?;
                    return Ok(DecodedText { consumed: HEADER_BYTES + len, text: Some(text) });
                }
            }
        }
        self.decode_piece(input, message_bytes_max)
    }

    /// Returns whether no text is incomplete.
    pub fn is_idle(&self) -> bool {
        self.partial.as_ref().is_none_or(|partial| partial.delivered)
    }

    fn decode_piece(&mut self, input: &[u8], message_bytes_max: usize) -> Result<DecodedText<'_>, Violation> {
        if input.is_empty() {
            return Ok(DecodedText { consumed: 0, text: None });
        }
        let partial = self.partial.get_or_insert_default();
        let consumed = partial.gather(input, message_bytes_max)?;
        let text = if partial.delivered { Some(partial.text.finish()?) } else { None };
        Ok(DecodedText { consumed, text })
    }
}

/// A text that is incomplete, or that the last call lent to the caller.
///
/// Invariant: if the text is delivered, its header is complete and no bytes remain.
#[derive(Debug, Default)]
struct PartialText {
    header: [u8; HEADER_BYTES],
    /// The number of header bytes that have come.
    header_len: usize,
    /// The number of bytes of the text that have not come yet. Known when the header is complete.
    remaining: usize,
    text: Utf8Gatherer,
    delivered: bool,
}

impl PartialText {
    /// Consumes input until the text is complete or no input is left. Returns the number of consumed bytes.
    fn gather(&mut self, input: &[u8], message_bytes_max: usize) -> Result<usize, Violation> {
        let rest = self.gather_header(input, message_bytes_max)?;
        if self.header_len < HEADER_BYTES {
            return Ok(input.len());
        }
        let (piece, rest) = rest.split_at(self.remaining.min(rest.len()));
        self.text.push(piece)?;
        self.remaining -= piece.len();
        self.delivered = self.remaining == 0;
        debug_assert!(self.header_len == HEADER_BYTES, "a delivered text must have a complete header");
        Ok(input.len() - rest.len())
    }

    /// Consumes the missing part of the header. Returns the input behind it.
    fn gather_header<'a>(
        &mut self,
        input: &'a [u8],
        message_bytes_max: usize,
    ) -> Result<&'a [u8], Violation> {
        let missing = HEADER_BYTES - self.header_len;
        let (piece, rest) = input.split_at(missing.min(input.len()));
        self.header[self.header_len..][..piece.len()].copy_from_slice(piece);
        self.header_len += piece.len();
        if missing > 0 && self.header_len == HEADER_BYTES {
            self.remaining = parse_len(self.header, message_bytes_max)?;
        }
        Ok(rest)
    }
}

fn parse_len(header: [u8; HEADER_BYTES], message_bytes_max: usize) -> Result<usize, Violation> {
    let len = u64::from_be_bytes(header);
    match usize::try_from(len) {
        Ok(len) if len <= message_bytes_max => Ok(len),
        _ => Err(Violation::MessageTooLong),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::testing;

    /// The decoded texts, each with the number of bytes that had come by then; and a violation, or whether no text is
    /// incomplete.
    type Texts = (Vec<(usize, String)>, Result<bool, Violation>);

    /// The naive twin: examines all bytes of a text again whenever a byte comes.
    fn naive(stream: &[u8], message_bytes_max: usize) -> Texts {
        let mut texts = Vec::new();
        let mut start = 0;
        for end in 1..=stream.len() {
            let Some((head, text)) = stream[start..end].split_first_chunk::<8>() else { continue };
            let len = u64::from_be_bytes(*head);
            if len > message_bytes_max as u64 {
                return (texts, Err(Violation::MessageTooLong));
            }
            let whole = text.len() as u64 == len;
            match str::from_utf8(text) {
                Err(error) if whole || error.error_len().is_some() => {
                    return (texts, Err(Violation::InvalidUtf8));
                }
                Ok(text) if whole => {
                    texts.push((end, text.to_owned()));
                    start = end;
                }
                _ => {}
            }
        }
        (texts, Ok(start == stream.len()))
    }

    fn decoded(pieces: &[&[u8]], message_bytes_max: usize) -> Texts {
        let mut decoder = RawDecoder::default();
        let mut texts = Vec::new();
        let mut before = 0;
        for piece in pieces {
            let mut at = 0;
            loop {
                match decoder.decode(&piece[at..], message_bytes_max) {
                    Ok(DecodedText { consumed, text: None }) => break assert_eq!(at + consumed, piece.len()),
                    Ok(DecodedText { consumed, text: Some(text) }) => {
                        at += consumed;
                        texts.push((before + at, text.to_owned()));
                    }
                    Err(violation) => return (texts, Err(violation)),
                }
            }
            before += piece.len();
            assert_eq!(decoder.is_idle(), decoder.partial.is_none(), "a delivered text is freed");
        }
        (texts, Ok(decoder.is_idle()))
    }

    fn framed(text: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        header(&mut bytes, text.len());
        bytes.extend_from_slice(text);
        bytes
    }

    #[test]
    fn decodes_texts_at_every_split() {
        let texts = [&b"/a:0=1"[..], b"", "€😀".as_bytes(), b"0123456789"];
        for last in [
            &b""[..],
            b"\0",
            b"\0\0\0\0\0\0\0\x0B",
            &[0xFF; 8],
            &framed(b"\xC3"),
            &framed(b"\xF4\x90\x80\x80"),
        ] {
            let stream = [texts.map(framed).concat(), last.to_vec()].concat();
            for split in 0..=stream.len() {
                let (left, right) = stream.split_at(split);
                assert_eq!(
                    decoded(&[left, right], 10),
                    naive(&stream, 10),
                    "split at {split} of {stream:X?}"
                );
            }
        }
    }

    #[test]
    fn invalid_text_fails_at_its_byte() {
        let stream = framed(b"abc\xF4\x90\x80\x80");
        assert_eq!(decoded(&[&stream[..12]], 100), (vec![], Ok(false)));
        assert_eq!(decoded(&[&stream[..13]], 100), (vec![], Err(Violation::InvalidUtf8)));
    }

    #[test]
    fn memory_grows_with_the_bytes_received() {
        let mut decoder = RawDecoder::default();
        let stream = [&(1u64 << 40).to_be_bytes()[..], &[b'x'; 100]].concat();
        assert_eq!(decoder.decode(&stream, 1 << 40), Ok(DecodedText { consumed: 108, text: None }));
        assert!(decoder.partial.expect("a text is incomplete").text.capacity() <= 200);
    }

    #[test]
    fn a_complete_text_is_borrowed_from_the_input() {
        let stream = framed(b"/a:0=1");
        let mut decoder = RawDecoder::default();
        let text = decoder.decode(&stream, 100).expect("a text").text.expect("a text");
        assert_eq!(text.as_bytes().as_ptr_range(), stream[8..].as_ptr_range());
    }

    #[test]
    fn fuzz_texts_in_pieces() {
        testing::fuzz(|random| {
            let mut stream = Vec::new();
            for _ in 0..random.below(6) {
                let longest = random.pick(&[1, 10, 300]);
                let len = random.below(longest);
                stream.extend(framed(&random.text(len)));
            }
            if random.once_in(3) {
                random.damage(&mut stream);
            }
            let limit = random.pick(&[0, 20, 400]);
            let pieces = random.pieces(&stream);
            let expected = naive(&stream, limit);
            assert_eq!(decoded(&stream.chunks(1).collect::<Vec<_>>(), limit), expected);
            assert_eq!(decoded(&[&stream], limit), expected);
            assert_eq!(decoded(&pieces, limit), expected);
        });
    }

    proptest! {
        #[test]
        fn decodes_what_was_encoded(texts in prop::collection::vec(".{0,30}", 0..8), size in 1usize..50) {
            let stream: Vec<u8> = texts.iter().flat_map(|text| framed(text.as_bytes())).collect();
            let (found, idle) = decoded(&stream.chunks(size).collect::<Vec<_>>(), usize::MAX);
            prop_assert_eq!(found.into_iter().map(|(_, text)| text).collect::<Vec<_>>(), texts);
            prop_assert_eq!(idle, Ok(true));
        }
    }
}
