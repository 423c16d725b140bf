//! Raw TCP: `/qio/ohai` there and back, then in both directions a length of 8 bytes, big-endian, and a text.

use std::str;

use super::utf8::{InvalidUtf8, Utf8Gatherer};
use super::{Close, CodecSettings, DecodeOutcome, Incoming, Reason, Violation};

/// Bytes of the length before each text.
pub const HEAD_BYTES: usize = 8;

/// Appends the head of a text of this length. The text follows it.
#[inline]
pub fn head(out: &mut Vec<u8>, text_len: usize) {
    out.extend_from_slice(&(text_len as u64).to_be_bytes());
}

/// One raw connection after its handshake: 16 bytes while no text is unfinished.
///
/// The protocol has no closing handshake: what breaks it is told nothing.
#[derive(Debug, Default)]
pub struct Raw {
    decoder: Decoder,
    ended: bool,
}

impl Raw {
    /// Finds what is next in the input. See [`Codec::decode`](super::Codec::decode).
    #[inline]
    pub fn decode<'a>(&'a mut self, input: &'a mut [u8], settings: &CodecSettings) -> DecodeOutcome<'a> {
        if self.ended {
            self.decoder = Decoder::default();
            return DecodeOutcome::not_yet(input.len());
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

    /// Ends it.
    pub fn close(&mut self, reason: Reason) -> Close {
        self.ended = true;
        Close::silent(reason)
    }

    /// Whether events may be sent.
    pub fn is_open(&self) -> bool {
        !self.ended
    }

    /// Whether it is open, and no text is begun.
    pub fn is_idle(&self) -> bool {
        self.is_open() && self.decoder.is_idle()
    }
}

/// What one call found.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// Bytes of the input that were used up. The caller goes on behind them.
    pub consumed: usize,
    /// `None`: all of the input was consumed, and it completed nothing.
    pub text: Option<&'a str>,
}

/// The decoder of one connection: eight bytes while nothing is unfinished. After a [`Violation`] it must not be used
/// again.
#[derive(Debug, Default)]
pub struct Decoder {
    unfinished: Option<Box<Unfinished>>,
}

impl Decoder {
    /// Finds the next text: lent from the input where it lies there whole.
    ///
    /// Call it with what is behind `consumed` until nothing is found, even where no input is left: only then is the
    /// memory of a text that came in pieces given back.
    #[inline]
    pub fn decode<'a>(
        &'a mut self,
        input: &'a [u8],
        message_bytes_max: usize,
    ) -> Result<Decoded<'a>, Violation> {
        if self.is_idle() {
            self.unfinished = None;
            if let Some((head, rest)) = input.split_first_chunk() {
                let len = parse_len(*head, message_bytes_max)?;
                if let Some(text) = rest.get(..len) {
                    let text = str::from_utf8(text).map_err(|_| InvalidUtf8)?;
                    return Ok(Decoded { consumed: HEAD_BYTES + len, text: Some(text) });
                }
            }
        }
        self.decode_piece(input, message_bytes_max)
    }

    /// Whether no text is begun.
    pub fn is_idle(&self) -> bool {
        self.unfinished.as_ref().is_none_or(|unfinished| unfinished.delivered)
    }

    fn decode_piece(&mut self, input: &[u8], message_bytes_max: usize) -> Result<Decoded<'_>, Violation> {
        if input.is_empty() {
            return Ok(Decoded { consumed: 0, text: None });
        }
        let unfinished = self.unfinished.get_or_insert_default();
        let consumed = unfinished.gather(input, message_bytes_max)?;
        let text = if unfinished.delivered { Some(unfinished.text.finish()?) } else { None };
        Ok(Decoded { consumed, text })
    }
}

/// A text that has begun and is not at its end, or was lent to the caller by the last call.
#[derive(Debug, Default)]
struct Unfinished {
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that are there.
    head_len: usize,
    /// Bytes of the text that have not come yet; known once the head is whole.
    remaining: usize,
    text: Utf8Gatherer,
    delivered: bool,
}

impl Unfinished {
    /// Takes input until the text is complete or nothing is left; returns how much it took.
    fn gather(&mut self, input: &[u8], message_bytes_max: usize) -> Result<usize, Violation> {
        let rest = self.take_head(input, message_bytes_max)?;
        if self.head_len < HEAD_BYTES {
            return Ok(input.len());
        }
        let (piece, rest) = rest.split_at(self.remaining.min(rest.len()));
        self.text.push(piece)?;
        self.remaining -= piece.len();
        self.delivered = self.remaining == 0;
        Ok(input.len() - rest.len())
    }

    /// Takes what is missing of the head, and returns what is behind it.
    fn take_head<'a>(&mut self, input: &'a [u8], message_bytes_max: usize) -> Result<&'a [u8], Violation> {
        let missing = HEAD_BYTES - self.head_len;
        let (piece, rest) = input.split_at(missing.min(input.len()));
        self.head[self.head_len..][..piece.len()].copy_from_slice(piece);
        self.head_len += piece.len();
        if missing > 0 && self.head_len == HEAD_BYTES {
            self.remaining = parse_len(self.head, message_bytes_max)?;
        }
        Ok(rest)
    }
}

fn parse_len(head: [u8; HEAD_BYTES], message_bytes_max: usize) -> Result<usize, Violation> {
    let len = u64::from_be_bytes(head);
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

    /// Texts that were found, and how many bytes had come by then; then a violation, or whether a text is begun.
    type Outcome = (Vec<(usize, String)>, Result<bool, Violation>);

    /// The naive twin: looks at everything from the start whenever a byte comes.
    fn naive(stream: &[u8], message_bytes_max: usize) -> Outcome {
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

    fn decoded(pieces: &[&[u8]], message_bytes_max: usize) -> Outcome {
        let mut decoder = Decoder::default();
        let mut texts = Vec::new();
        let mut before = 0;
        for piece in pieces {
            let mut at = 0;
            loop {
                match decoder.decode(&piece[at..], message_bytes_max) {
                    Ok(Decoded { consumed, text: None }) => break assert_eq!(at + consumed, piece.len()),
                    Ok(Decoded { consumed, text: Some(text) }) => {
                        at += consumed;
                        texts.push((before + at, text.to_owned()));
                    }
                    Err(violation) => return (texts, Err(violation)),
                }
            }
            before += piece.len();
            assert_eq!(decoder.is_idle(), decoder.unfinished.is_none(), "what was lent is given back");
        }
        (texts, Ok(decoder.is_idle()))
    }

    fn framed(text: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        head(&mut bytes, text.len());
        bytes.extend_from_slice(text);
        bytes
    }

    #[test]
    fn every_split() {
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
        let mut decoder = Decoder::default();
        let stream = [&(1u64 << 40).to_be_bytes()[..], &[b'x'; 100]].concat();
        assert_eq!(decoder.decode(&stream, 1 << 40), Ok(Decoded { consumed: 108, text: None }));
        assert!(decoder.unfinished.expect("a text is begun").text.capacity() <= 200);
    }

    #[test]
    fn a_whole_text_is_lent_from_the_input() {
        let stream = framed(b"/a:0=1");
        let mut decoder = Decoder::default();
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
        fn whatever_is_sent_comes_out(texts in prop::collection::vec(".{0,30}", 0..8), size in 1usize..50) {
            let stream: Vec<u8> = texts.iter().flat_map(|text| framed(text.as_bytes())).collect();
            let (found, idle) = decoded(&stream.chunks(size).collect::<Vec<_>>(), usize::MAX);
            prop_assert_eq!(found.into_iter().map(|(_, text)| text).collect::<Vec<_>>(), texts);
            prop_assert_eq!(idle, Ok(true));
        }
    }
}
