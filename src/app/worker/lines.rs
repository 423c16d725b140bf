//! The lines that a worker prints: each is cut to a length, only so many are logged, and the last few are kept.

use super::text::readable;
use crate::limits::{WORKER_LAST_LINES, WORKER_LOG_BYTES_MAX, WORKER_LOG_LINES_MAX, WORKER_RECORD_BYTES_MAX};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The period after which a worker may print `WORKER_LOG_LINES_MAX` lines again.
const REFILL_PERIOD: Duration = Duration::from_secs(1);

/// A splitter of bytes into lines. A line that is longer than `WORKER_LOG_BYTES_MAX` loses its end.
#[derive(Default)]
pub struct LineSplitter {
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
}

impl LineSplitter {
    /// Adds bytes, and passes each line that they complete to `line`.
    pub fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        let last = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            self.append(piece);
            self.emit(&mut line);
        }
        self.append(last);
    }

    /// Passes the last line to `line` if it has no end: no more bytes will arrive.
    pub fn finish(&mut self, mut line: impl FnMut(&str)) {
        if !self.line.is_empty() {
            self.emit(&mut line);
        }
    }

    fn append(&mut self, piece: &[u8]) {
        let room = WORKER_LOG_BYTES_MAX - self.line.len();
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    fn emit(&mut self, line: &mut impl FnMut(&str)) {
        let text = readable(&self.line);
        line(text.trim_end_matches('\r'));
        self.line.clear();
    }
}

/// Returns a record, without its middle if it is longer than `WORKER_RECORD_BYTES_MAX`: the beginning of an error's
/// traceback names what has failed, and its end the reason.
pub fn shortened(record: &str) -> Cow<'_, str> {
    if record.len() <= WORKER_RECORD_BYTES_MAX {
        return Cow::Borrowed(record);
    }
    let half = WORKER_RECORD_BYTES_MAX / 2;
    let to = (0..=half).rev().find(|at| record.is_char_boundary(*at)).unwrap_or_default();
    let from = (record.len() - half..=record.len()).find(|at| record.is_char_boundary(*at));
    let from = from.unwrap_or(record.len());
    Cow::Owned(format!("{}\n... ({} bytes)\n{}", &record[..to], from - to, &record[from..]))
}

/// A limit on how many lines of a worker are logged. It also keeps the last lines.
pub struct LineLimiter {
    /// The number of lines that may still be logged in this period.
    left: u32,
    period_began: Instant,
    /// Lines dropped since the last line that was admitted.
    dropped: u64,
    /// Lines dropped since the last call of `take_dropped`.
    uncounted: u64,
    /// The last lines, including dropped ones.
    last: VecDeque<String>,
}

impl LineLimiter {
    pub fn new(now: Instant) -> LineLimiter {
        LineLimiter {
            left: WORKER_LOG_LINES_MAX,
            period_began: now,
            dropped: 0,
            uncounted: 0,
            last: VecDeque::new(),
        }
    }

    /// Decides whether a record of one line or more is logged. Returns the number of lines that were dropped before it, or
    /// `None` if this record must be dropped too. The lines of a record are counted.
    pub fn admit(&mut self, record: &str, now: Instant) -> Option<u64> {
        let mut lines = 0;
        for line in record.split('\n') {
            if self.last.len() == WORKER_LAST_LINES {
                self.last.pop_front();
            }
            self.last.push_back(line.to_owned());
            lines += 1;
        }
        if now.saturating_duration_since(self.period_began) >= REFILL_PERIOD {
            (self.left, self.period_began) = (WORKER_LOG_LINES_MAX, now);
        }
        if self.left == 0 {
            self.dropped += u64::from(lines);
            self.uncounted += u64::from(lines);
            return None;
        }
        self.left = self.left.saturating_sub(lines);
        Some(std::mem::take(&mut self.dropped))
    }

    /// Returns the number of lines that were dropped since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.uncounted)
    }

    /// Returns the last lines, the oldest first.
    pub fn last_lines(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> Vec<String> {
        let (mut splitter, mut lines) = (LineSplitter::default(), Vec::new());
        pieces.iter().for_each(|piece| splitter.push(piece, |line| lines.push(line.to_owned())));
        splitter.finish(|line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn lines_may_arrive_in_any_pieces() {
        let text = b"one\n\nthree\r\nlast";
        for first in 0..text.len() {
            for second in first..text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(split(&pieces), ["one", "", "three", "last"]);
            }
        }
        assert_eq!(split(&[b"\xff\n"]), ["\\xff"]);
    }

    #[test]
    fn an_endless_line_takes_bounded_memory() {
        let piece = [b'x'; 1000];
        let mut splitter = LineSplitter::default();
        for _ in 0..100 {
            splitter.push(&piece, |_| panic!("the line has not ended"));
        }
        let mut lengths = Vec::new();
        splitter.push(b"\nnext\n", |line| lengths.push(line.len()));
        assert_eq!(lengths, [WORKER_LOG_BYTES_MAX, 4]);
    }

    #[test]
    fn a_long_record_loses_its_middle() {
        assert_eq!(shortened("a\nb"), "a\nb");
        let record = format!("first\n{}\nlast", "\u{e9}\n".repeat(WORKER_RECORD_BYTES_MAX));
        let short = shortened(&record);
        assert!(short.starts_with("first\n") && short.ends_with("\nlast"));
        assert!(short.len() < WORKER_RECORD_BYTES_MAX + 40, "{}", short.len());
    }

    #[test]
    fn a_record_counts_as_its_lines() {
        let start = Instant::now();
        let mut limiter = LineLimiter::new(start);
        for _ in 0..WORKER_LOG_LINES_MAX / 4 {
            assert_eq!(limiter.admit("one\ntwo\nthree\nfour", start), Some(0));
        }
        assert_eq!((limiter.admit("five\nsix", start), limiter.take_dropped()), (None, 2));
        assert_eq!(limiter.last_lines().last(), Some("six"));
    }

    #[test]
    fn a_flood_is_dropped_and_counted_and_its_last_lines_are_kept() {
        let start = Instant::now();
        let mut limiter = LineLimiter::new(start);
        for nth in 0..WORKER_LOG_LINES_MAX {
            assert_eq!(limiter.admit(&nth.to_string(), start), Some(0));
        }
        for nth in 0..500 {
            assert_eq!(limiter.admit(&nth.to_string(), start), None);
        }
        assert_eq!((limiter.take_dropped(), limiter.take_dropped()), (500, 0));
        let last: Vec<String> = (480..500).map(|nth| nth.to_string()).collect();
        assert!(limiter.last_lines().eq(last.iter().map(String::as_str)));
        assert_eq!(limiter.admit("later", start + REFILL_PERIOD), Some(500));
        assert_eq!(limiter.admit("later", start + REFILL_PERIOD), Some(0));
    }
}
