//! Text that arrives in pieces: checked as it comes, kept once, and never looked at twice.

use std::str;

/// The bytes are not UTF-8, and nothing that may follow could make them so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUtf8;

/// A text of which pieces have arrived. Pieces may split a character anywhere.
///
/// Every byte is checked and copied once. At most the first three bytes of a character wait for the rest of it.
#[derive(Debug, Default)]
pub struct Utf8Gatherer {
    text: String,
    /// The first bytes of a character, valid so far; the last of the four is only ever set on the way into `text`.
    split: [u8; 4],
    split_len: u8,
}

impl Utf8Gatherer {
    /// Adds a piece. Fails at the first byte that no valid text could have there, even in the middle of a character.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), InvalidUtf8> {
        let piece = self.complete_split(piece)?;
        let (whole, tail) = piece.split_at(piece.len() - split_tail_len(piece));
        self.text.push_str(str::from_utf8(whole).map_err(|_| InvalidUtf8)?);
        self.keep_split(tail)
    }

    /// The text, once its last piece was added. Fails where its last character is not whole.
    pub fn finish(&self) -> Result<&str, InvalidUtf8> {
        if self.split_len == 0 { Ok(&self.text) } else { Err(InvalidUtf8) }
    }

    /// Bytes that were added.
    pub fn len(&self) -> usize {
        self.text.len() + usize::from(self.split_len)
    }

    /// Whether none were.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Feeds the waiting character, and returns what of the piece is behind it.
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

    /// A whole character joins the text; one that may become whole waits. Four bytes are always one or the other.
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

/// How many bytes at the end begin a character that is not whole: 0 to 3. They need not be valid.
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
