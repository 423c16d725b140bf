//! What a worker prints, line by line: each is cut to a length, only so many are passed on, and the last few are kept.

use crate::limits::{WORKER_LAST_LINES, WORKER_LOG_BYTES_MAX, WORKER_LOG_LINES_MAX};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often the allowance of lines is filled up.
const REFILL: Duration = Duration::from_secs(1);

/// Bytes into lines. The end of a line that is too long is left out.
#[derive(Default)]
pub struct Lines {
    line: Vec<u8>,
}

impl Lines {
    /// Takes bytes; gives each line that they complete.
    pub fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        let last = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            self.add(piece);
            self.give(&mut line);
        }
        self.add(last);
    }

    /// There will be no more: gives the line that was not ended.
    pub fn end(&mut self, mut line: impl FnMut(&str)) {
        if !self.line.is_empty() {
            self.give(&mut line);
        }
    }

    fn add(&mut self, piece: &[u8]) {
        let room = WORKER_LOG_BYTES_MAX - self.line.len();
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    fn give(&mut self, line: &mut impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.line);
        line(text.trim_end_matches('\r'));
        self.line.clear();
    }
}

/// How many lines a worker may still print, and the last ones that it did.
pub struct Allowance {
    left: u32,
    filled: Instant,
    /// Left out since the last one that was not.
    dropped: u64,
    /// Left out, and not counted by the server yet.
    uncounted: u64,
    last: VecDeque<String>,
}

/// What becomes of a line.
#[derive(PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is passed on, behind so many that were not.
    Pass {
        dropped: u64,
    },
    Drop,
}

impl Allowance {
    pub fn new(now: Instant) -> Allowance {
        Allowance { left: WORKER_LOG_LINES_MAX, filled: now, dropped: 0, uncounted: 0, last: VecDeque::new() }
    }

    /// Judges a line.
    pub fn judge(&mut self, line: &str, now: Instant) -> Verdict {
        if self.last.len() == WORKER_LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
        if now.saturating_duration_since(self.filled) >= REFILL {
            (self.left, self.filled) = (WORKER_LOG_LINES_MAX, now);
        }
        if self.left == 0 {
            self.dropped += 1;
            self.uncounted += 1;
            return Verdict::Drop;
        }
        self.left -= 1;
        Verdict::Pass { dropped: std::mem::take(&mut self.dropped) }
    }

    /// How many were left out since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.uncounted)
    }

    /// The last lines, in order.
    pub fn last(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut got) = (Lines::default(), Vec::new());
        pieces.iter().for_each(|piece| lines.push(piece, |line| got.push(line.to_owned())));
        lines.end(|line| got.push(line.to_owned()));
        got
    }

    #[test]
    fn lines_come_in_any_pieces() {
        let text = b"one\n\nthree\r\nlast";
        for first in 0..text.len() {
            for second in first..text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(lines(&pieces), ["one", "", "three", "last"]);
            }
        }
        assert_eq!(lines(&[b"\xff\n"]), ["\u{fffd}"]);
    }

    #[test]
    fn a_line_without_end_takes_no_memory_without_end() {
        let piece = [b'x'; 1000];
        let mut lines = Lines::default();
        for _ in 0..100 {
            lines.push(&piece, |_| panic!("it has not ended"));
        }
        let mut got = Vec::new();
        lines.push(b"\nnext\n", |line| got.push(line.len()));
        assert_eq!(got, [WORKER_LOG_BYTES_MAX, 4]);
    }

    #[test]
    fn a_flood_is_dropped_and_counted_and_its_end_is_kept() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        for nth in 0..WORKER_LOG_LINES_MAX {
            assert_eq!(allowance.judge(&nth.to_string(), start), Verdict::Pass { dropped: 0 });
        }
        for nth in 0..500 {
            assert_eq!(allowance.judge(&nth.to_string(), start), Verdict::Drop);
        }
        assert_eq!((allowance.take_dropped(), allowance.take_dropped()), (500, 0));
        let last: Vec<String> = (480..500).map(|nth| nth.to_string()).collect();
        assert!(allowance.last().eq(last.iter().map(String::as_str)));
        assert_eq!(allowance.judge("later", start + REFILL), Verdict::Pass { dropped: 500 });
        assert_eq!(allowance.judge("later", start + REFILL), Verdict::Pass { dropped: 0 });
    }
}
