//! The measurements of a step: latencies, failures and ends, with their causes and times.

use super::cause::EndCause;
use super::client::OpeningPart;
use crate::results::LatencyHistogram;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The maximum number of distinct failures, and of distinct ends. Further ones count as the last.
const KINDS_MAX: usize = 64;

/// The number of slow openings that are kept.
const SLOWEST: usize = 8;

/// The measurements of a step.
#[derive(Default)]
pub struct Measured {
    /// The start of the step.
    pub began: u64,
    /// From the start of an opening to its end.
    pub opened: LatencyHistogram,
    parts: [LatencyHistogram; OpeningPart::ALL.len()],
    slowest: Vec<SlowOpening>,
    last_opened: u64,
    failures: BTreeMap<(OpeningPart, EndCause), Failures>,
    /// The ends of clients that were open.
    ends: BTreeMap<EndCause, Occurrences>,
    pub heartbeats: u64,
    /// From the first end of a client to the upgrades of clients that have returned since.
    first_answer: LatencyHistogram,
}

/// Occurrences of the same kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occurrences {
    pub count: u64,
    pub first: u64,
    pub last: u64,
}

/// Openings that failed for the same reason.
#[derive(Clone, Debug, Default)]
struct Failures {
    occurrences: Occurrences,
    /// From the start of the opening to the failure.
    waited: LatencyHistogram,
}

/// An opening that took long, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct SlowOpening {
    took: u64,
    began: u64,
}

impl Occurrences {
    fn add(&mut self, at: u64) {
        if self.count == 0 {
            self.first = at;
        }
        (self.count, self.last) = (self.count + 1, at);
    }
}

impl Measured {
    /// Returns the measurements of a step that starts now.
    pub fn new(now: u64) -> Measured {
        Measured { began: now, ..Measured::default() }
    }

    /// Records the end of a part of an opening.
    pub fn part_ended(&mut self, part: OpeningPart, now: u64, took: u64) {
        self.parts[part as usize].record(took);
        if part == OpeningPart::Upgrade && !self.ends.is_empty() {
            let (first, _) = self.ends_span().unwrap_or_default();
            self.first_answer.record(now.saturating_sub(first));
        }
    }

    /// Records an opening.
    pub fn opened(&mut self, began: u64, took: u64) {
        self.opened.record(took);
        self.last_opened = began + took;
        if self.slowest.len() < SLOWEST || self.slowest.last().is_some_and(|slow| slow.took < took) {
            self.slowest.push(SlowOpening { took, began });
            self.slowest.sort_by_key(|slow| std::cmp::Reverse(slow.took));
            self.slowest.truncate(SLOWEST);
        }
    }

    /// Records an opening that failed.
    pub fn failed(&mut self, part: OpeningPart, cause: EndCause, began: u64, now: u64) {
        let failures = entry(&mut self.failures, (part, cause));
        failures.occurrences.add(now);
        failures.waited.record(now.saturating_sub(began));
    }

    /// Records the end of a client that was open.
    pub fn ended(&mut self, cause: EndCause, now: u64) {
        entry(&mut self.ends, cause).add(now);
    }

    /// Returns the number of openings that failed.
    pub fn failures(&self) -> u64 {
        self.failures.values().map(|failures| failures.occurrences.count).sum()
    }

    /// Returns the number of clients that were open and have ended.
    pub fn ends(&self) -> u64 {
        self.ends.values().map(|ends| ends.count).sum()
    }

    /// Returns the ends of one cause.
    pub fn ends_by(&self, cause: &EndCause) -> Occurrences {
        self.ends.get(cause).copied().unwrap_or_default()
    }

    /// Returns the times of the first and the last end.
    pub fn ends_span(&self) -> Option<(u64, u64)> {
        let first = self.ends.values().map(|ends| ends.first).min()?;
        Some((first, self.ends.values().map(|ends| ends.last).max()?))
    }

    /// Returns the time of the last end or opening, if a client has ended.
    pub fn last_change(&self) -> Option<u64> {
        self.ends_span().map(|(_, last)| last.max(self.last_opened))
    }

    /// Returns the members of the report that concern openings: the latency of the whole and of its parts.
    pub fn openings_json(&self) -> Map<String, Value> {
        let parts = OpeningPart::ALL.map(|(part, name)| (name, latency_json(&self.parts[part as usize])));
        let mut members = Map::new();
        members.insert("opened".into(), latency_json(&self.opened));
        members.extend(parts.map(|(name, latency)| (name.to_owned(), latency)));
        let slowest = self.slowest.iter().map(|slow| {
            json!({ "began_s": seconds(slow.began.saturating_sub(self.began)), "took_ms": ms(slow.took) })
        });
        members.insert("slowest".into(), slowest.collect());
        members
    }

    /// Returns the latency of the first answers to clients that return, since the first end.
    pub fn first_answer_json(&self) -> Value {
        latency_json(&self.first_answer)
    }

    /// Returns the number of openings that the server or its kernel has refused, as opposed to those without an answer.
    pub fn refusals(&self) -> u64 {
        let refused = self.failures.iter().filter(|((_, cause), _)| cause.is_refusal());
        refused.map(|(_, failures)| failures.occurrences.count).sum()
    }

    /// Returns the number of failed openings by reason.
    pub fn failures_json(&self) -> Value {
        let reasons = self.failures.iter();
        let counts = reasons.map(|((part, cause), failures)| (part, cause, failures.occurrences.count));
        counts
            .map(|(part, cause, n)| (format!("{}: {cause}", part.name()), json!(n)))
            .collect::<Map<_, _>>()
            .into()
    }

    /// Returns the times of failed openings: since the start of the step, and how long the clients had waited.
    pub fn failure_times_json(&self) -> Value {
        let times = self.failures.iter().map(|((part, cause), failures)| {
            let Occurrences { count, first, last } = failures.occurrences;
            json!({
                "reason": format!("{}: {cause}", part.name()), "count": count, "first_s": self.since(first),
                "last_s": self.since(last), "waited": latency_json(&failures.waited),
            })
        });
        times.collect()
    }

    /// Returns the number of ends by cause.
    pub fn ends_json(&self) -> Value {
        self.ends
            .iter()
            .map(|(cause, ends)| (cause.to_string(), json!(ends.count)))
            .collect::<Map<_, _>>()
            .into()
    }

    fn since(&self, at: u64) -> f64 {
        seconds(at.saturating_sub(self.began))
    }
}

/// Returns the entry of a key, or the last entry if there are too many.
fn entry<K: Ord + Clone, V: Default>(map: &mut BTreeMap<K, V>, key: K) -> &mut V {
    let known = map.len() < KINDS_MAX || map.contains_key(&key);
    let key = if known { key } else { map.keys().next_back().cloned().unwrap_or(key) };
    map.entry(key).or_default()
}

/// Returns the summary of a histogram in milliseconds.
pub fn latency_json(latency: &LatencyHistogram) -> Value {
    let summary = latency.summary();
    json!({
        "count": summary.count, "p50_ms": summary.p50 / 1e3, "p99_ms": summary.p99 / 1e3,
        "p999_ms": summary.p999 / 1e3, "max_ms": summary.max / 1e3,
    })
}

/// Converts nanoseconds to seconds.
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Converts nanoseconds to milliseconds.
pub fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn failures_tell_their_part_cause_time_and_wait() {
        let mut measured = Measured::new(SECOND);
        let refused = EndCause::Os(libc::ECONNREFUSED);
        measured.failed(OpeningPart::Tcp, refused.clone(), 2 * SECOND, 2 * SECOND);
        measured.failed(OpeningPart::Tcp, refused, 3 * SECOND, 5 * SECOND);
        measured.failed(OpeningPart::Hello, EndCause::TimedOut(60_000), 0, 61 * SECOND);
        assert_eq!(measured.failures(), 3);
        assert_eq!(
            measured.failures_json(),
            json!({ "tcp: Connection refused (os error 111)": 2, "hello: no answer within 60 s": 1 })
        );
        let times = measured.failure_times_json();
        assert_eq!((&times[0]["first_s"], &times[0]["last_s"]), (&json!(1.0), &json!(4.0)));
        assert!((1999.0..2003.0).contains(&times[0]["waited"]["max_ms"].as_f64().unwrap()));
    }

    #[test]
    fn ends_are_counted_by_cause() {
        let mut measured = Measured::new(0);
        [5, 7, 9].into_iter().for_each(|at| measured.ended(EndCause::Closed(Some(1001)), at));
        measured.ended(EndCause::EndOfStream, 4);
        assert_eq!(
            measured.ends_by(&EndCause::Closed(Some(1001))),
            Occurrences { count: 3, first: 5, last: 9 }
        );
        assert_eq!((measured.ends(), measured.ends_span()), (4, Some((4, 9))));
    }

    #[test]
    fn distinct_causes_are_bounded() {
        let mut measured = Measured::new(0);
        (0..1000).for_each(|code| measured.ended(EndCause::Closed(Some(code)), 1));
        assert_eq!((measured.ends.len(), measured.ends()), (KINDS_MAX, 1000));
    }

    #[test]
    fn the_slowest_openings_are_kept() {
        let mut measured = Measured::new(0);
        (1..100).for_each(|n| measured.opened(n * SECOND, n * 1_000_000));
        let slowest = &measured.openings_json()["slowest"];
        assert_eq!(slowest.as_array().unwrap().len(), SLOWEST);
        assert_eq!(slowest[0], json!({ "began_s": 99.0, "took_ms": 99.0 }));
    }
}
