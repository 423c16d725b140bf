//! The counters and latencies of a worker, in a form that can be added up over threads and processes.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// The maximum number of distinct errors. Further ones count as "other errors".
const ERROR_KINDS_MAX: usize = 32;

/// Latencies are recorded with three digits, from 1 ns to an hour. Others count as the nearest of these.
const SIGNIFICANT_DIGITS: u8 = 3;
const LONGEST_NS: u64 = 3_600_000_000_000;

/// A counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Connections that completed their handshake (and subscription), without churners.
    Opened,
    /// Connections that did not complete it.
    Failed,
    /// Open connections that the server closed or that failed.
    Broken,
    /// Answers with a code other than 200.
    Refused,
    PingsSent,
    Pongs,
    /// Events published.
    Published,
    /// Published events received by subscribers.
    Delivered,
    /// Received events that are older than an event received before.
    OutOfOrder,
    /// HTTP requests sent.
    Requests,
    /// Sockets opened.
    Sockets,
    /// Connections of churners that were opened, used and closed.
    Cycles,
    /// Answers, deliveries and cycles that should follow from everything sent.
    Expected,
    BytesReceived,
    BytesSent,
}

const COUNTERS: usize = Counter::BytesSent as usize + 1;

/// A value for each [`Counter`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters([u64; COUNTERS]);

impl Counters {
    /// Adds `n` to a counter.
    #[inline]
    pub fn add(&mut self, counter: Counter, n: u64) {
        self.0[counter as usize] += n;
    }

    /// Returns the value of a counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// Returns the sums of the counters.
    pub fn plus(self, other: Counters) -> Counters {
        Counters(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    /// Returns the increase since `earlier`.
    pub fn since(self, earlier: Counters) -> Counters {
        Counters(std::array::from_fn(|i| self.0[i] - earlier.0[i]))
    }

    /// Returns whether everything that was sent has had its effect.
    pub fn is_complete(&self) -> bool {
        self.messages() >= self.get(Counter::Expected)
    }

    /// Returns the number of messages that the server handled: answers, deliveries, connections.
    pub fn messages(&self) -> u64 {
        self.get(Counter::Pongs) + self.get(Counter::Delivered) + self.get(Counter::Cycles)
    }
}

/// A worker's counters, which other threads can read while it runs.
#[derive(Debug, Default)]
pub struct SharedCounters([AtomicU64; COUNTERS]);

impl SharedCounters {
    /// Stores the current values. Only the worker calls this.
    pub fn store(&self, counters: &Counters) {
        for (shared, value) in self.0.iter().zip(counters.0) {
            shared.store(value, Ordering::Relaxed);
        }
    }

    /// Returns the values stored last.
    pub fn load(&self) -> Counters {
        Counters(std::array::from_fn(|i| self.0[i].load(Ordering::Relaxed)))
    }
}

/// A duration that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// From the (intended) start of connecting to the end of the handshake.
    Open,
    /// From the intended time of a ping to its answer.
    Ping,
    /// From the intended time of a publish to the receipt by a subscriber.
    Delivery,
    /// From the intended start of a connection to its end.
    Cycle,
    /// From the start of connecting to the end of a full handshake of TLS.
    TlsFull,
    /// From the start of connecting to the end of a handshake of TLS that resumes a session.
    TlsResumed,
    /// The time that a client computes for its handshake of TLS.
    TlsClient,
}

impl Timing {
    /// All of them with their names.
    pub const ALL: [(Timing, &'static str); 7] = [
        (Timing::Open, "open"),
        (Timing::Ping, "ping"),
        (Timing::Delivery, "delivery"),
        (Timing::Cycle, "cycle"),
        (Timing::TlsFull, "tls-full"),
        (Timing::TlsResumed, "tls-resume"),
        (Timing::TlsClient, "tls-client"),
    ];
}

/// A histogram of durations in nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct LatencyHistogram(Histogram<u64>);

impl LatencyHistogram {
    /// Records a duration.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns.max(1));
    }

    /// Adds the durations of another histogram.
    pub fn add(&mut self, other: &LatencyHistogram) {
        self.0.add(&other.0).expect("all histograms have the same bounds");
    }

    /// Returns the number of durations.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Returns the summary.
    pub fn summary(&self) -> LatencySummary {
        let us = |ns: u64| ns as f64 / 1000.0;
        let quantile = |q| us(self.0.value_at_quantile(q));
        LatencySummary {
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

impl Default for LatencyHistogram {
    fn default() -> LatencyHistogram {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, SIGNIFICANT_DIGITS);
        LatencyHistogram(
            histogram.expect("an hour is more than two nanoseconds, three digits are within one to five"),
        )
    }
}

impl From<Vec<(u64, u64)>> for LatencyHistogram {
    fn from(recorded: Vec<(u64, u64)>) -> LatencyHistogram {
        let mut latency = LatencyHistogram::default();
        for (ns, count) in recorded {
            latency.0.saturating_record_n(ns, count);
        }
        latency
    }
}

impl From<LatencyHistogram> for Vec<(u64, u64)> {
    fn from(latency: LatencyHistogram) -> Self {
        latency.0.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect()
    }
}

/// The summary of a histogram, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LatencySummary {
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

/// The totals of a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomTotals {
    /// Events published.
    pub published: u64,
    /// Subscribers that were connected.
    pub subscribers: u64,
}

/// The totals of clients that do not read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowClientTotals {
    pub opened: u64,
    /// Closed by the server before the end of the run.
    pub closed: u64,
    /// The closed clients by close code or other cause.
    pub how: BTreeMap<String, u64>,
}

/// The results of one worker, or of several workers together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    pub counters: Counters,
    latencies: [LatencyHistogram; Timing::ALL.len()],
    /// The number of occurrences of each error.
    pub errors: BTreeMap<String, u64>,
    pub rooms: BTreeMap<usize, RoomTotals>,
    pub slow: SlowClientTotals,
}

impl Results {
    /// Returns the histogram of a duration.
    pub fn latency(&self, timing: Timing) -> &LatencyHistogram {
        &self.latencies[timing as usize]
    }

    /// Records a duration.
    #[inline]
    pub fn record(&mut self, timing: Timing, ns: u64) {
        self.latencies[timing as usize].record(ns);
    }

    /// Counts an error by its text.
    pub fn add_error(&mut self, text: String) {
        self.add_errors(text, 1);
    }

    /// Returns the expected number of deliveries: each event of a room, to each of its subscribers.
    pub fn expected_deliveries(&self) -> u64 {
        self.rooms.values().map(|room| room.published * room.subscribers).sum()
    }

    /// Adds the results of another worker.
    pub fn merge(&mut self, other: Results) {
        self.counters = self.counters.plus(other.counters);
        self.latencies.iter_mut().zip(&other.latencies).for_each(|(ours, theirs)| ours.add(theirs));
        other.errors.into_iter().for_each(|(text, n)| self.add_errors(text, n));
        for (room, theirs) in other.rooms {
            let ours = self.rooms.entry(room).or_default();
            ours.published += theirs.published;
            ours.subscribers += theirs.subscribers;
        }
        self.slow.opened += other.slow.opened;
        self.slow.closed += other.slow.closed;
        other.slow.how.into_iter().for_each(|(how, n)| *self.slow.how.entry(how).or_default() += n);
    }

    fn add_errors(&mut self, text: String, n: u64) {
        let known = self.errors.len() < ERROR_KINDS_MAX || self.errors.contains_key(&text);
        let text = if known { text } else { "other errors".into() };
        *self.errors.entry(text).or_default() += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_results() -> Results {
        let mut results = Results::default();
        results.counters.add(Counter::Pongs, 3);
        [1_000, 2_000, 3_000].into_iter().for_each(|ns| results.record(Timing::Ping, ns));
        results.add_error("closed".into());
        results.rooms.insert(4, RoomTotals { published: 10, subscribers: 7 });
        results
    }

    #[test]
    fn results_can_be_sent_between_processes() {
        let results = some_results();
        let text = serde_json::to_string(&results).unwrap();
        let mut merged: Results = serde_json::from_str(&text).unwrap();
        assert_eq!(merged.latency(Timing::Ping).summary().count, 3);
        assert!((2.0..2.01).contains(&results.latency(Timing::Ping).summary().p50));
        assert_eq!(merged.latency(Timing::Ping).summary().p50, results.latency(Timing::Ping).summary().p50);
        merged.merge(results);
        assert_eq!(merged.counters.get(Counter::Pongs), 6);
        assert_eq!(merged.latency(Timing::Ping).summary().count, 6);
        assert_eq!(merged.errors["closed"], 2);
        assert_eq!(merged.expected_deliveries(), 20 * 14);
    }

    #[test]
    fn distinct_errors_are_bounded() {
        let mut results = Results::default();
        (0..100).for_each(|n| results.add_error(format!("error {n}")));
        assert_eq!(results.errors.len(), ERROR_KINDS_MAX + 1);
        assert_eq!(results.errors.values().sum::<u64>(), 100);
    }
}
