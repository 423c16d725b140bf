//! The chunked transfer coding (RFC 9112, 7.1): from the bytes behind a head to the data in them.
//!
//! Lines must end in CR LF. If a proxy in front took a bare LF for a part of a chunk extension, and the server took it
//! for the end of the line, the two would see different requests.

use super::refusal::HttpRefusal;
use crate::limits::HTTP_CHUNK_OVERHEAD_BYTES_MAX;

/// The decoder of one chunked body. Nothing is examined twice, and nothing is kept but these numbers.
#[derive(Debug)]
pub(super) struct ChunkDecoder {
    state: ChunkState,
    /// The size of the chunk as far as its digits have come; then the number of its bytes that have not come.
    remaining: usize,
    /// The bytes of data in all chunks whose size is known.
    data: usize,
    /// The bytes so far that are not data: sizes, extensions, line ends and trailers.
    overhead: usize,
}

/// The part of the body that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    /// The first digit of a size.
    FirstDigit,
    /// More digits of a size, or what follows it.
    Digits,
    /// White space behind a size, which only a semicolon may follow.
    Space,
    /// The rest of an extension. It is ignored.
    Extension,
    /// The LF behind a size and its extensions.
    SizeLf,
    /// The data of a chunk.
    Data,
    /// The CR behind the data.
    DataCr,
    /// The LF behind the data.
    DataLf,
    /// A trailer, or the CR of the empty line at the end.
    TrailerOrEnd,
    /// The rest of a trailer's name.
    TrailerName,
    /// The rest of a trailer's value. Trailers are ignored.
    TrailerValue,
    /// The LF behind a trailer.
    TrailerLf,
    /// The LF of the empty line at the end.
    EndLf,
    /// Nothing: the body is complete.
    End,
}

/// The outcome of decoding a piece of a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ChunkItem<'i> {
    /// All of the input was consumed, and the body is not complete.
    Incomplete,
    /// These bytes are data.
    Data(&'i [u8]),
    /// The body is complete. The input that was not consumed does not belong to it.
    End,
}

impl Default for ChunkDecoder {
    fn default() -> ChunkDecoder {
        ChunkDecoder { state: ChunkState::FirstDigit, remaining: 0, data: 0, overhead: 0 }
    }
}

impl ChunkDecoder {
    /// Decodes the next item of the input. Returns the number of consumed bytes with it. `max` is the maximum length of
    /// the data in all chunks.
    pub fn decode<'i>(&mut self, input: &'i [u8], max: usize) -> Result<(usize, ChunkItem<'i>), HttpRefusal> {
        for (at, byte) in input.iter().enumerate() {
            if self.state == ChunkState::Data {
                let rest = &input[at..];
                let data = &rest[..self.remaining.min(rest.len())];
                self.remaining -= data.len();
                if self.remaining == 0 {
                    self.state = ChunkState::DataCr;
                }
                return Ok((at + data.len(), ChunkItem::Data(data)));
            }
            self.overhead += 1;
            if self.overhead > HTTP_CHUNK_OVERHEAD_BYTES_MAX + self.data {
                return Err(HttpRefusal::ChunkOverhead);
            }
            self.state = self.next_state(*byte, max)?;
            if self.state == ChunkState::End {
                return Ok((at + 1, ChunkItem::End));
            }
        }
        Ok((input.len(), ChunkItem::Incomplete))
    }

    fn next_state(&mut self, byte: u8, max: usize) -> Result<ChunkState, HttpRefusal> {
        Ok(match (self.state, byte) {
            (ChunkState::FirstDigit | ChunkState::Digits, digit) if digit.is_ascii_hexdigit() => {
                self.add_digit(digit, max)?;
                ChunkState::Digits
            }
            (ChunkState::Digits | ChunkState::Space, b' ' | b'\t') => ChunkState::Space,
            (ChunkState::Digits | ChunkState::Space, b';') => ChunkState::Extension,
            (ChunkState::Digits | ChunkState::Extension, b'\r') => ChunkState::SizeLf,
            (ChunkState::Extension, byte) if is_text_byte(byte) => ChunkState::Extension,
            (ChunkState::SizeLf, b'\n') if self.remaining == 0 => ChunkState::TrailerOrEnd,
            (ChunkState::SizeLf, b'\n') => {
                self.data += self.remaining;
                ChunkState::Data
            }
            (ChunkState::DataCr, b'\r') => ChunkState::DataLf,
            (ChunkState::DataLf, b'\n') => ChunkState::FirstDigit,
            (ChunkState::TrailerOrEnd, b'\r') => ChunkState::EndLf,
            (ChunkState::TrailerOrEnd | ChunkState::TrailerName, byte) if is_token_byte(byte) => {
                ChunkState::TrailerName
            }
            (ChunkState::TrailerName, b':') => ChunkState::TrailerValue,
            (ChunkState::TrailerValue, b'\r') => ChunkState::TrailerLf,
            (ChunkState::TrailerValue, byte) if is_text_byte(byte) => ChunkState::TrailerValue,
            (ChunkState::TrailerLf, b'\n') => ChunkState::TrailerOrEnd,
            (ChunkState::EndLf, b'\n') => ChunkState::End,
            _ => return Err(HttpRefusal::Chunk),
        })
    }

    /// Adds a digit to the size. A size that exceeds the limit is refused at the digit with which it does, so that no
    /// size overflows.
    fn add_digit(&mut self, digit: u8, max: usize) -> Result<(), HttpRefusal> {
        let digit = char::from(digit).to_digit(16).expect("the byte is a hex digit") as usize;
        self.remaining = self.remaining * 16 + digit;
        if self.remaining > max - self.data { Err(HttpRefusal::TooLong) } else { Ok(()) }
    }
}

/// Returns whether a byte may be in a token (RFC 9110, 5.6.2).
pub(in crate::protocol) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Returns whether a byte may be in the value of a field (RFC 9110, 5.5).
fn is_text_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 40;

    /// The data, and the number of bytes up to the end of the body, or `None` if the end is not there.
    type Decoded = Result<(Vec<u8>, Option<usize>), HttpRefusal>;

    fn decode(pieces: &[&[u8]]) -> Decoded {
        let mut decoder = ChunkDecoder::default();
        let mut data = Vec::new();
        let mut before = 0;
        for piece in pieces {
            let mut at = 0;
            loop {
                let (consumed, item) = decoder.decode(&piece[at..], MAX)?;
                at += consumed;
                match item {
                    ChunkItem::Incomplete => break assert_eq!(at, piece.len()),
                    ChunkItem::Data(bytes) => data.extend_from_slice(bytes),
                    ChunkItem::End => return Ok((data, Some(before + at))),
                }
            }
            before += piece.len();
        }
        Ok((data, None))
    }

    /// Decodes the input whole, at every split, and byte by byte.
    #[track_caller]
    fn decode_everywhere(input: &[u8]) -> Decoded {
        let whole = decode(&[input]);
        for split in 0..=input.len() {
            assert_eq!(decode(&[&input[..split], &input[split..]]), whole, "split at {split}");
        }
        assert_eq!(decode(&input.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
        whole
    }

    /// The naive twin: takes one line after the other from the whole input.
    fn naive(input: &[u8]) -> Decoded {
        let mut data = Vec::new();
        let mut rest = input;
        loop {
            let digits: Vec<u8> = rest.iter().copied().take_while(u8::is_ascii_hexdigit).collect();
            let size = digits.iter().fold(0u128, |size, digit| {
                size.saturating_mul(16).saturating_add(char::from(*digit).to_digit(16).unwrap().into())
            });
            if size > (MAX - data.len()) as u128 {
                return Err(HttpRefusal::TooLong);
            }
            rest = &rest[digits.len()..];
            if digits.is_empty() && !rest.is_empty() {
                return Err(HttpRefusal::Chunk);
            }
            let Some(extension) = naive_line(&mut rest)? else {
                let spaces = rest.iter().take_while(|byte| b" \t".contains(byte)).count();
                let is_extension =
                    rest.get(spaces).is_none_or(|byte| *byte == b';' || *byte == b'\r' && spaces == 0);
                return if is_extension { Ok((data, None)) } else { Err(HttpRefusal::Chunk) };
            };
            if !extension.is_empty() && !extension.trim_ascii_start().starts_with(b";") {
                return Err(HttpRefusal::Chunk);
            }
            if size == 0 {
                break;
            }
            let part = &rest[..rest.len().min(size as usize)];
            data.extend_from_slice(part);
            rest = &rest[part.len()..];
            match rest {
                [] | [b'\r'] => return Ok((data, None)),
                [b'\r', b'\n', behind @ ..] if part.len() == size as usize => rest = behind,
                _ => return Err(HttpRefusal::Chunk),
            }
        }
        loop {
            let before = rest;
            let line = naive_line(&mut rest)?;
            if line.is_some_and(<[u8]>::is_empty) {
                return Ok((data, Some(input.len() - rest.len())));
            }
            let line_or_part = line.unwrap_or(before);
            let name: Vec<u8> =
                line_or_part.iter().copied().take_while(|byte| is_token_byte(*byte)).collect();
            let behind = line_or_part.get(name.len());
            let is_trailer = !name.is_empty() && behind == Some(&b':');
            match line {
                Some(_) if is_trailer => {}
                None if is_trailer || behind.is_none() || before == b"\r" => return Ok((data, None)),
                _ => return Err(HttpRefusal::Chunk),
            }
        }
    }

    /// Takes a line without its CR LF. Returns `None` if it does not end.
    fn naive_line<'i>(rest: &mut &'i [u8]) -> Result<Option<&'i [u8]>, HttpRefusal> {
        let len = rest.iter().take_while(|byte| is_text_byte(**byte)).count();
        let line = &rest[..len];
        match &rest[len..] {
            [] | [b'\r'] => Ok(None),
            [b'\r', b'\n', behind @ ..] => {
                *rest = behind;
                Ok(Some(line))
            }
            _ => Err(HttpRefusal::Chunk),
        }
    }

    #[test]
    fn bodies() {
        for (input, data, len) in [
            ("0\r\n\r\n", "", Some(5)),
            ("000\r\n\r\nGET", "", Some(7)),
            ("3\r\nabc\r\n0\r\n\r\n", "abc", Some(13)),
            ("3\r\nabc\r\n2\r\n\r\n\r\n0\r\n\r\n", "abc\r\n", Some(20)),
            ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", Some(35)),
            ("1;a\r\nx\r\n0;b=c;d=\"e f\"\r\n\r\n", "x", Some(25)),
            ("1 \t; a\r\nx\r\n0\t;\r\n\r\n", "x", Some(18)),
            ("0\r\nA: b\r\nc:\r\nX-", "", None),
            ("0\r\nA: \u{e9}\tb\r\nc:\r\n\r\n\r\n", "", Some(18)),
            (
                "28\r\n0123456789012345678901234567890123456789\r\n0\r\n\r\n",
                &"0123456789".repeat(4),
                Some(51),
            ),
            ("5\r\nabc", "abc", None),
            ("3\r\nabc", "abc", None),
            ("3\r\nabc\r\n", "abc", None),
            ("0\r\n", "", None),
            ("0\r\n\r", "", None),
            ("", "", None),
        ] {
            let decoded = decode_everywhere(input.as_bytes());
            assert_eq!(decoded, Ok((data.as_bytes().to_vec(), len)), "{input:?}");
            assert_eq!(naive(input.as_bytes()), decoded, "{input:?}");
        }
    }

    #[test]
    fn malformed_bodies() {
        for input in [
            "\r\n",
            "x",
            "g\r\n",
            "+1\r\n",
            "-1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1\t\r\n",
            "1 2\r\n",
            "1,\r\n",
            "1\n",
            "1\rx",
            "1;a\nx",
            "1;a\rb",
            "1;\0",
            "1;\x7F",
            "\u{661}\r\n",
            ";\r\n",
            // Data that is longer or shorter than the size says.
            "1\r\nab",
            "1\r\na\n",
            "1\r\na\rb",
            "2\r\na\r\n0\r\n\r\n",
            // Trailers.
            "0\r\n\n",
            "0\r\n\rx",
            "0\r\nA\r\n",
            "0\r\n: b\r\n",
            "0\r\nA : b\r\n",
            "0\r\n A: b\r\n",
            "0\r\nA: b\nC: d",
            "0\r\nA: b\r\n c\r\n",
            "0\r\nA: \0",
            "0\r\nA: b\rc",
        ] {
            assert_eq!(decode_everywhere(input.as_bytes()), Err(HttpRefusal::Chunk), "{input:?}");
            assert_eq!(naive(input.as_bytes()), Err(HttpRefusal::Chunk), "{input:?}");
        }
        for input in
            ["29\r\n", "100000000000000000000000000000000\r\n", "1\r\nx\r\n28\r\n", "FFFFFFFFFFFFFFFFx"]
        {
            assert_eq!(decode_everywhere(input.as_bytes()), Err(HttpRefusal::TooLong), "{input:?}");
            assert_eq!(naive(input.as_bytes()), Err(HttpRefusal::TooLong), "{input:?}");
        }
    }

    #[test]
    fn what_is_not_data_is_bounded() {
        let padding = |len: usize| "x".repeat(len);
        let most = HTTP_CHUNK_OVERHEAD_BYTES_MAX;
        for (input, len) in [
            ("0".repeat(most + 1), most + 1),
            (format!("1;{}", padding(most)), most + 1),
            (format!("0\r\nA:{}", padding(most)), most + 1),
            (format!("1\r\na\r\n0\r\nA:{}", padding(most)), most + 3),
        ] {
            // The data that a chunk has counts once more, as overhead that it may have.
            let (accepted, refused) = input.as_bytes().split_at(len - 1);
            assert!(decode(&[accepted]).is_ok_and(|(_, end)| end.is_none()), "{len}");
            assert_eq!(decode(&[accepted, &refused[..1]]), Err(HttpRefusal::ChunkOverhead), "{len}");
        }
        // A body of chunks of one byte each.
        let mut decoder = ChunkDecoder::default();
        let mut chunks = 0;
        let refused = 'decoding: loop {
            let mut input = &b"1\r\nx\r\n"[..];
            while !input.is_empty() {
                match decoder.decode(input, 1 << 20) {
                    Ok((consumed, _)) => input = &input[consumed..],
                    Err(refusal) => break 'decoding refusal,
                }
            }
            chunks += 1;
        };
        assert_eq!((refused, chunks), (HttpRefusal::ChunkOverhead, HTTP_CHUNK_OVERHEAD_BYTES_MAX / 4));
    }

    proptest! {
        /// The bytes are mostly parts of chunked bodies, in any order and in pieces of any size.
        #[test]
        fn decodes_the_same_as_the_naive_twin(
            parts in prop::collection::vec(prop::sample::select(vec![
                &b"\r\n"[..], b"0\r\n", b"1\r\nx\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"1f", b"2;a=b\r\n", b"de\r\n",
                b"A: b\r\n", b"\n", b"\r", b" ", b";", b":", b"x", b"9", b"\0", b"\xE9",
            ]), 0..12),
            size in 1usize..9,
        ) {
            let input = parts.concat();
            let expected = naive(&input);
            prop_assert_eq!(decode(&[&input]), expected.clone());
            prop_assert_eq!(decode(&input.chunks(size).collect::<Vec<_>>()), expected);
        }

        /// Data in chunks of any size is decoded as the data.
        #[test]
        fn decodes_what_was_encoded(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..9), 0..5),
            size in 1usize..9,
        ) {
            let mut input = Vec::new();
            for chunk in &chunks {
                input.extend(format!("{:X}\r\n", chunk.len()).bytes());
                input.extend(chunk);
                input.extend(b"\r\n");
            }
            input.extend(b"0\r\n\r\n");
            let decoded = decode(&input.chunks(size).collect::<Vec<_>>());
            prop_assert_eq!(decoded, Ok((chunks.concat(), Some(input.len()))));
        }
    }
}
