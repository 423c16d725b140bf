//! Lines of standard input, read without blocking longer than `poll` says.

use memchr::memchr;
use std::io::{self, ErrorKind, Read};

/// The maximum length of a line, in bytes. It bounds the memory that an input without line ends takes, and is longer than the
/// events that servers accept.
const LINE_BYTES_MAX: usize = 64 << 20;

/// The number of bytes that are read at once.
const PIECE_BYTES: usize = 64 * 1024;

/// The lines of a stream.
#[derive(Debug, Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    /// The number of bytes whose lines were returned.
    taken: usize,
    /// The number of bytes that contain no further line end.
    searched: usize,
    has_ended: bool,
}

impl Lines {
    /// Returns the next line, without its end, if it is complete. The last one needs no line end.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        let from = self.searched.max(self.taken);
        let (start, end, next) = match memchr(b'\n', &self.bytes[from..]) {
            Some(at) => (self.taken, from + at, from + at + 1),
            None if self.has_ended && self.taken < self.bytes.len() => {
                (self.taken, self.bytes.len(), self.bytes.len())
            }
            None => {
                self.searched = self.bytes.len();
                return None;
            }
        };
        (self.taken, self.searched) = (next, next);
        let line = &self.bytes[start..end];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// Reads a piece, which may block if the stream is not ready.
    ///
    /// # Errors
    ///
    /// If the stream cannot be read, or a line is too long.
    pub(super) fn read(&mut self, mut stream: impl Read) -> io::Result<()> {
        self.bytes.drain(..self.taken);
        self.searched -= self.taken.min(self.searched);
        self.taken = 0;
        if self.bytes.len() > LINE_BYTES_MAX {
            let problem = format!("a line has more than {LINE_BYTES_MAX} bytes");
            return Err(io::Error::new(ErrorKind::InvalidData, problem));
        }
        let mut piece = [0; PIECE_BYTES];
        match stream.read(&mut piece) {
            Ok(0) => self.has_ended = true,
            Ok(len) => self.bytes.extend_from_slice(&piece[..len]),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Returns whether the stream has ended. Complete lines may be left.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that gives at most this many bytes at once.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let len = self.1.min(self.0.len());
            into[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }

    #[test]
    fn lines_in_pieces_of_any_length() {
        for (text, expected) in [
            ("", &[][..]),
            ("a", &["a"]),
            ("a\n", &["a"]),
            ("a\r\nbc\n\nd", &["a", "bc", "", "d"]),
            ("\n\n", &["", ""]),
            ("ab\ncd\n", &["ab", "cd"]),
        ] {
            for piece in 1..=text.len().max(1) {
                let mut stream = Pieces(text.as_bytes(), piece);
                let (mut lines, mut found) = (Lines::default(), Vec::new());
                while !lines.has_ended() {
                    lines.read(&mut stream).unwrap();
                    while let Some(line) = lines.next() {
                        found.push(String::from_utf8(line.to_vec()).unwrap());
                    }
                }
                assert_eq!(found, expected, "{text:?} in pieces of {piece}");
            }
        }
    }
}
