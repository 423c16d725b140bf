//! The time of a shard in which it did not attend to its peers: its process was stopped, its thread waited for a core, or
//! a handler blocked.

use std::collections::VecDeque;

/// The number of spans that are kept. Older ones are combined, and are less exact.
const SPANS_MAX: usize = 64;

/// The longest span, in milliseconds, that a further stall is added to: the error of an exact answer.
const SPAN_MS: u64 = 1000;

/// The times that a shard has lost, by the clock that timers follow.
///
/// Invariants: the spans are in order and do not overlap; none lost more time than it has; there are at most
/// [`SPANS_MAX`].
#[derive(Default)]
pub(super) struct LostTime {
    spans: VecDeque<LostSpan>,
}

/// A span of time in which a part was lost.
#[derive(Clone, Copy, Debug)]
struct LostSpan {
    from_ms: u64,
    until_ms: u64,
    lost_ms: u64,
}

impl LostSpan {
    /// Returns how much of the span was lost after `since_ms`, which may be within it: then in proportion.
    fn lost_since(&self, since_ms: u64) -> u64 {
        match self.until_ms.saturating_sub(since_ms) {
            0 => 0,
            _ if since_ms <= self.from_ms => self.lost_ms,
            after => {
                (u128::from(self.lost_ms) * u128::from(after) / u128::from(self.until_ms - self.from_ms))
                    as u64
            }
        }
    }
}

impl LostTime {
    /// Adds time that was lost in a stall that began at `from_ms` and ended at `until_ms`, when the last one had ended.
    pub fn add(&mut self, from_ms: u64, until_ms: u64, lost_ms: u64) {
        let from_ms = self.spans.back().map_or(from_ms, |last| from_ms.max(last.until_ms));
        let lost_ms = lost_ms.min(until_ms.saturating_sub(from_ms));
        if lost_ms == 0 {
            return;
        }
        match self.spans.back_mut() {
            Some(last) if until_ms - last.from_ms <= SPAN_MS => {
                (last.until_ms, last.lost_ms) = (until_ms, last.lost_ms + lost_ms);
            }
            _ => self.spans.push_back(LostSpan { from_ms, until_ms, lost_ms }),
        }
        if self.spans.len() > SPANS_MAX {
            self.combine_oldest();
        }
    }

    fn combine_oldest(&mut self) {
        let oldest = self.spans.pop_front().expect("there are too many spans");
        let next = self.spans.front_mut().expect("there are too many spans");
        (next.from_ms, next.lost_ms) = (oldest.from_ms, oldest.lost_ms + next.lost_ms);
    }

    /// Returns how much time was lost since `since_ms`.
    pub fn since(&self, since_ms: u64) -> u64 {
        let recent = self.spans.iter().rev().take_while(|span| span.until_ms > since_ms);
        recent.map(|span| span.lost_since(since_ms)).sum()
    }

    /// Asserts the invariants.
    pub fn check(&self) {
        assert!(self.spans.len() <= SPANS_MAX, "{} spans of lost time", self.spans.len());
        let mut before_ms = 0;
        for span in &self.spans {
            assert!(before_ms <= span.from_ms && span.from_ms < span.until_ms, "{span:?} is out of order");
            assert!(span.lost_ms <= span.until_ms - span.from_ms, "{span:?} lost more than it has");
            before_ms = span.until_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lost(spans: &[(u64, u64, u64)]) -> LostTime {
        let mut lost = LostTime::default();
        spans.iter().for_each(|(from, until, ms)| lost.add(*from, *until, *ms));
        lost.check();
        lost
    }

    #[test]
    fn time_lost_before_a_moment_does_not_count() {
        let lost = lost(&[(1000, 21_000, 20_000), (50_000, 60_000, 5000)]);
        assert_eq!(lost.since(0), 25_000);
        assert_eq!(lost.since(1000), 25_000);
        assert_eq!(lost.since(11_000), 15_000, "half of the first stall");
        assert_eq!(lost.since(21_000), 5000);
        assert_eq!(lost.since(58_000), 1000, "in proportion");
        assert_eq!(lost.since(60_000), 0);
        assert_eq!(LostTime::default().since(0), 0);
    }

    #[test]
    #[should_panic(expected = "lost more than it has")]
    fn the_check_finds_a_span_that_lost_too_much() {
        let spans = VecDeque::from([LostSpan { from_ms: 0, until_ms: 5, lost_ms: 6 }]);
        LostTime { spans }.check();
    }

    #[test]
    #[should_panic(expected = "is out of order")]
    fn the_check_finds_spans_that_overlap() {
        let span = LostSpan { from_ms: 0, until_ms: 5, lost_ms: 1 };
        LostTime { spans: VecDeque::from([span, span]) }.check();
    }

    proptest! {
        /// However long a shard stalls again and again, the time that it was there adds up: a peer that sends nothing is
        /// not waited for for ever.
        #[test]
        fn what_was_not_lost_adds_up(
            turns in prop::collection::vec((1..3000_u64, 1..3000_u64), 1..400),
            begin in 0..200_usize,
        ) {
            let (mut lost, mut now_ms, mut since, mut there) = (LostTime::default(), 1, 1, 0);
            for (turn, (stall_ms, attended_ms)) in turns.into_iter().enumerate() {
                if turn == begin {
                    (since, there) = (now_ms, 0);
                }
                let until_ms = now_ms + stall_ms + attended_ms;
                lost.add(now_ms, until_ms, stall_ms);
                (now_ms, there) = (until_ms, there + attended_ms);
                lost.check();
                let attended = now_ms - since - lost.since(since);
                // Exact for recent moments. A span that was combined answers in proportion.
                prop_assert!(attended <= now_ms - since);
                if turn.saturating_sub(begin) < 32 {
                    prop_assert!(attended.abs_diff(there) <= SPAN_MS, "{} of {}", attended, there);
                }
            }
        }
    }
}
