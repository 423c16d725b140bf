//! Text that arrives in pieces. Each byte is validated when it comes, is stored once, and is never examined again.

use std::str;

/// The error for bytes that are not UTF-8 and that no further bytes could make valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUtf8;

/// A text that arrives in pieces. Pieces may split a character anywhere.
///
/// Every byte is validated and copied once. At most three bytes, the beginning of a character, wait for its end.
#[derive(Debug, Default)]
pub struct Utf8Gatherer {
    text: String,
    /// The first bytes of a split character, which are valid so far. All four are used only while a complete character
    /// is moved to `text`.
    split: [u8; 4],
    split_len: u8,
}

impl Utf8Gatherer {
    /// Adds a piece.
    ///
    /// # Errors
    ///
    /// Fails at the first byte that no valid text could have at its place, even in the middle of a character.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), InvalidUtf8> {
        let piece = self.complete_split(piece)?;
        let (whole, tail) = piece.split_at(piece.len() - split_tail_len(piece));
        self.text.push_str(str::from_utf8(whole).map_err(|_| InvalidUtf8)?);
        self.keep_split(tail)
    }

    /// Returns the text after its last piece was added.
    ///
    /// # Errors
    ///
    /// Fails if the last character is incomplete.
    pub fn finish(&self) -> Result<&str, InvalidUtf8> {
        if self.split_len == 0 { Ok(&self.text) } else { Err(InvalidUtf8) }
    }

    /// Returns the number of bytes that were added.
    pub fn len(&self) -> usize {
        self.text.len() + usize::from(self.split_len)
    }

    /// Returns `true` if no bytes were added.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the capacity of the text's memory, in bytes.
    pub fn capacity(&self) -> usize {
        self.text.capacity()
    }

    /// Adds bytes to the split character until it is complete. Returns the rest of the piece.
    fn complete_split<'a>(&mut self, mut piece: &'a [u8]) -> Result<&'a [u8], InvalidUtf8> {
        while self.split_len > 0 {
            let Some((byte, rest)) = piece.split_first() else { break };
            self.split[usize::from(self.split_len)] = *byte;
            self.split_len += 1;
            piece = rest;
            self.check_split()?;
        }
        Ok(piece)
    }

    fn keep_split(&mut self, tail: &[u8]) -> Result<(), InvalidUtf8> {
        if tail.is_empty() {
            return Ok(());
        }
        self.split[..tail.len()].copy_from_slice(tail);
        self.split_len = tail.len() as u8;
        self.check_split()
    }

    /// Moves the split character to the text if it is complete. Four bytes are always complete or invalid.
    fn check_split(&mut self) -> Result<(), InvalidUtf8> {
        match str::from_utf8(&self.split[..usize::from(self.split_len)]) {
            Ok(character) => {
                self.text.push_str(character);
                self.split_len = 0;
                Ok(())
            }
            Err(error) if error.error_len().is_none() => Ok(()),
            Err(_) => Err(InvalidUtf8),
        }
    }
}

/// Returns the number of bytes at the end of the piece that begin an incomplete character: 0 to 3. The bytes need not
/// be valid.
fn split_tail_len(piece: &[u8]) -> usize {
    for (back, byte) in piece.iter().rev().take(3).enumerate() {
        let width = match byte {
            0x80..=0xBF => continue,
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xFF => 4,
            _ => 1,
        };
        let len = back + 1;
        return if width > len { len } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::testing;

    /// The naive twin: examines all bytes again whenever a byte comes. Fails with the position of the first invalid
    /// byte.
    fn naive(bytes: &[u8]) -> Result<&str, usize> {
        let bad = (1..=bytes.len())
            .find(|len| str::from_utf8(&bytes[..*len]).is_err_and(|error| error.error_len().is_some()));
        match bad {
            Some(len) => Err(len - 1),
            None => str::from_utf8(bytes).map_err(|_| bytes.len()),
        }
    }

    fn gathered(pieces: &[&[u8]]) -> Result<String, InvalidUtf8> {
        let mut gatherer = Utf8Gatherer::default();
        for piece in pieces {
            let len = gatherer.len();
            gatherer.push(piece)?;
            assert_eq!(gatherer.len(), len + piece.len());
        }
        gatherer.finish().map(str::to_owned)
    }

    /// Asserts that the outcome is that of the naive twin, at every pair of splits. When the bytes come one by one, it
    /// must fail at the same byte.
    fn check(bytes: &[u8]) {
        let expected = naive(bytes);
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                let expected = expected.map(str::to_owned).map_err(|_| InvalidUtf8);
                assert_eq!(gathered(&pieces), expected, "{bytes:X?} split at {first} and {second}");
            }
        }
        let mut gatherer = Utf8Gatherer::default();
        let bad = bytes.iter().position(|byte| gatherer.push(&[*byte]).is_err());
        let outcome = match bad {
            Some(at) => Err(at),
            None => gatherer.finish().map_err(|_| bytes.len()),
        };
        assert_eq!(outcome, expected, "{bytes:X?}");
    }

    #[test]
    fn characters_of_every_width_and_every_mistake_at_every_split() {
        for bytes in [
            &b""[..],
            b"plain",
            "aü€😀z".as_bytes(),
            "κόσμε \u{7F}\u{80}\u{7FF}\u{800}\u{FFFF}\u{10000}\u{10FFFF}".as_bytes(),
            "\u{D7FF}\u{E000}\u{FFFD}".as_bytes(),
            // Autobahn 6.4: valid text, a code point above the last one, and valid text.
            b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xF4\x90\x80\x80edited",
            // Lone continuation bytes, incomplete and overlong characters, surrogates, characters that are too large,
            // and bytes that are never in UTF-8.
            b"a\x80",
            b"a\xBFb",
            b"\xC3",
            b"\xE2\x82",
            b"\xF0\x9F\x98",
            b"\xC3a",
            b"\xE2\x82a",
            b"\xF0\x9F\x98a",
            b"\xC0\x80",
            b"\xC1\xBF",
            b"\xE0\x9F\xBF",
            b"\xF0\x8F\xBF\xBF",
            b"\xED\xA0\x80",
            b"\xED\xBF\xBF",
            b"\xF4\x90\x80\x80",
            b"\xF5\x80\x80\x80",
            b"\xFE\xFF",
        ] {
            check(bytes);
        }
    }

    #[test]
    fn every_two_bytes() {
        for pair in 0..=u16::MAX {
            check(&pair.to_be_bytes());
        }
    }

    #[test]
    fn fuzz_damaged_text_in_pieces() {
        testing::fuzz(|random| {
            let len = random.below(500);
            let mut bytes = random.text(len);
            if random.once_in(2) {
                random.damage(&mut bytes);
            }
            let pieces = random.pieces(&bytes);
            assert_eq!(gathered(&pieces), naive(&bytes).map(str::to_owned).map_err(|_| InvalidUtf8));
        });
    }
}
