//! What a worker counted and timed, in a form that can be added up over threads and processes.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Kinds of errors that are told apart, at most; what comes after counts as "other errors".
const ERROR_KINDS_MAX: usize = 32;

/// Latencies are known to three digits, from 1 ns to an hour; others count as the nearest.
const SIGNIFICANT_DIGITS: u8 = 3;
const LONGEST_NS: u64 = 3_600_000_000_000;

/// What is counted while it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Count {
    /// Connections that finished their handshake (and subscription). Churners are not among them.
    Opened,
    /// Connections that did not.
    Failed,
    /// Open connections that the server closed, or that broke.
    Broken,
    /// Answers with another code than 200.
    Refused,
    PingsSent,
    Pongs,
    /// Events published.
    Published,
    /// Published events received by subscribers.
    Delivered,
    /// Of those: events older than one that came before.
    Disordered,
    /// HTTP requests.
    Requests,
    /// Sockets that were opened for all this.
    Sockets,
    /// Connections that were opened, used, and closed.
    Cycles,
    /// What should become of it all: answers, deliveries, cycles.
    Awaited,
    BytesReceived,
    BytesSent,
}

const COUNTS: usize = Count::BytesSent as usize + 1;

/// One value for each [`Count`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts([u64; COUNTS]);

impl Counts {
    /// Adds to a count.
    #[inline]
    pub fn add(&mut self, count: Count, n: u64) {
        self.0[count as usize] += n;
    }

    /// A count.
    pub fn get(&self, count: Count) -> u64 {
        self.0[count as usize]
    }

    /// All counts of both.
    pub fn plus(self, other: Counts) -> Counts {
        Counts(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    /// What was added since `earlier`.
    pub fn since(self, earlier: Counts) -> Counts {
        Counts(std::array::from_fn(|i| self.0[i] - earlier.0[i]))
    }

    /// Whether everything that was sent has had its effect.
    pub fn is_all_there(&self) -> bool {
        self.messages() >= self.get(Count::Awaited)
    }

    /// What the server had to do: answers, deliveries, connections.
    pub fn messages(&self) -> u64 {
        self.get(Count::Pongs) + self.get(Count::Delivered) + self.get(Count::Cycles)
    }
}

/// A worker's counts, for others to look at while it runs.
#[derive(Debug, Default)]
pub struct Shown([AtomicU64; COUNTS]);

impl Shown {
    /// Shows these counts. Only the worker calls this.
    pub fn show(&self, counts: &Counts) {
        for (shown, count) in self.0.iter().zip(counts.0) {
            shown.store(count, Ordering::Relaxed);
        }
    }

    /// What is shown.
    pub fn counts(&self) -> Counts {
        Counts(std::array::from_fn(|i| self.0[i].load(Ordering::Relaxed)))
    }
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timed {
    /// From the start of connecting (or when it was intended) to the end of the handshake.
    Open,
    /// From the intended time of a ping to its answer.
    Ping,
    /// From the intended time of a publish to a subscriber's receipt.
    Delivery,
    /// From the intended start of a connection to its end.
    Cycle,
}

impl Timed {
    /// All of them, with their names.
    pub const ALL: [(Timed, &'static str); 4] = [
        (Timed::Open, "open"),
        (Timed::Ping, "ping"),
        (Timed::Delivery, "delivery"),
        (Timed::Cycle, "cycle"),
    ];
}

/// Durations, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Latency(Histogram<u64>);

impl Latency {
    /// Records a duration.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns.max(1));
    }

    /// Adds what another one has.
    pub fn add(&mut self, other: &Latency) {
        self.0.add(&other.0).expect("all of these have the same bounds");
    }

    /// In figures.
    pub fn figures(&self) -> Figures {
        let us = |ns: u64| ns as f64 / 1000.0;
        let quantile = |q| us(self.0.value_at_quantile(q));
        Figures {
            count: self.0.len(),
            min: us(if self.0.is_empty() { 0 } else { self.0.min() }),
            mean: self.0.mean() / 1000.0,
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            p9999: quantile(0.9999),
            max: us(self.0.max()),
        }
    }
}

impl Default for Latency {
    fn default() -> Latency {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, SIGNIFICANT_DIGITS);
        Latency(histogram.expect("an hour is more than two nanoseconds, three digits are within one to five"))
    }
}

impl From<Vec<(u64, u64)>> for Latency {
    fn from(recorded: Vec<(u64, u64)>) -> Latency {
        let mut latency = Latency::default();
        for (ns, count) in recorded {
            latency.0.saturating_record_n(ns, count);
        }
        latency
    }
}

impl From<Latency> for Vec<(u64, u64)> {
    fn from(latency: Latency) -> Self {
        latency.0.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect()
    }
}

/// A latency in figures: microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    pub count: u64,
    pub min: f64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    #[serde(rename = "p99.9")]
    pub p999: f64,
    #[serde(rename = "p99.99")]
    pub p9999: f64,
    pub max: f64,
}

/// A room's part in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Events published.
    pub published: u64,
    /// Subscribers that were open.
    pub subscribers: u64,
}

/// How clients that do not read ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowTally {
    pub opened: u64,
    /// Closed by the server before the run's end.
    pub closed: u64,
    /// Of those: how many by which close code, or how else.
    pub how: BTreeMap<String, u64>,
}

/// Everything a worker, or all of them, have to tell at the end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub counts: Counts,
    latencies: [Latency; Timed::ALL.len()],
    /// What went wrong, and how often.
    pub errors: BTreeMap<String, u64>,
    pub rooms: BTreeMap<usize, Tally>,
    pub slow: SlowTally,
}

impl Outcome {
    /// The latency of that kind.
    pub fn latency(&self, timed: Timed) -> &Latency {
        &self.latencies[timed as usize]
    }

    /// Records a duration.
    #[inline]
    pub fn record(&mut self, timed: Timed, ns: u64) {
        self.latencies[timed as usize].record(ns);
    }

    /// Counts an error by its text.
    pub fn error(&mut self, text: String) {
        self.errors(text, 1);
    }

    /// Deliveries that there should have been: each event of a room, to each of its subscribers.
    pub fn expected(&self) -> u64 {
        self.rooms.values().map(|room| room.published * room.subscribers).sum()
    }

    /// Adds what another worker has to tell.
    pub fn merge(&mut self, other: Outcome) {
        self.counts = self.counts.plus(other.counts);
        self.latencies.iter_mut().zip(&other.latencies).for_each(|(ours, theirs)| ours.add(theirs));
        other.errors.into_iter().for_each(|(text, n)| self.errors(text, n));
        for (room, theirs) in other.rooms {
            let ours = self.rooms.entry(room).or_default();
            ours.published += theirs.published;
            ours.subscribers += theirs.subscribers;
        }
        self.slow.opened += other.slow.opened;
        self.slow.closed += other.slow.closed;
        other.slow.how.into_iter().for_each(|(how, n)| *self.slow.how.entry(how).or_default() += n);
    }

    fn errors(&mut self, text: String, n: u64) {
        let known = self.errors.len() < ERROR_KINDS_MAX || self.errors.contains_key(&text);
        let text = if known { text } else { "other errors".into() };
        *self.errors.entry(text).or_default() += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_outcome() -> Outcome {
        let mut outcome = Outcome::default();
        outcome.counts.add(Count::Pongs, 3);
        [1_000, 2_000, 3_000].into_iter().for_each(|ns| outcome.record(Timed::Ping, ns));
        outcome.error("closed".into());
        outcome.rooms.insert(4, Tally { published: 10, subscribers: 7 });
        outcome
    }

    #[test]
    fn an_outcome_survives_its_way_between_processes() {
        let outcome = some_outcome();
        let text = serde_json::to_string(&outcome).unwrap();
        let mut merged: Outcome = serde_json::from_str(&text).unwrap();
        assert_eq!(merged.latency(Timed::Ping).figures().count, 3);
        assert!((2.0..2.01).contains(&outcome.latency(Timed::Ping).figures().p50));
        assert_eq!(merged.latency(Timed::Ping).figures().p50, outcome.latency(Timed::Ping).figures().p50);
        merged.merge(outcome);
        assert_eq!(merged.counts.get(Count::Pongs), 6);
        assert_eq!(merged.latency(Timed::Ping).figures().count, 6);
        assert_eq!(merged.errors["closed"], 2);
        assert_eq!(merged.expected(), 20 * 14);
    }

    #[test]
    fn kinds_of_errors_are_bounded() {
        let mut outcome = Outcome::default();
        (0..100).for_each(|n| outcome.error(format!("error {n}")));
        assert_eq!(outcome.errors.len(), ERROR_KINDS_MAX + 1);
        assert_eq!(outcome.errors.values().sum::<u64>(), 100);
    }
}
