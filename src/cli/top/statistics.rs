//! The pages of the admin endpoint, and the rates between two of them.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Instant;

/// The pages at one time.
pub(super) struct Pages {
    stats: FetchedStats,
    histograms: FetchedHistograms,
    at: Instant,
}

#[derive(Deserialize)]
struct FetchedStats {
    server: ServerPart,
    process: ProcessPart,
    counters: BTreeMap<String, u64>,
    gauges: BTreeMap<String, u64>,
    shards: Vec<ShardPart>,
}

#[derive(Deserialize)]
struct ServerPart {
    version: String,
}

#[derive(Deserialize)]
struct ProcessPart {
    rss_bytes: u64,
    cpu_user_seconds: f64,
    cpu_system_seconds: f64,
    uptime_seconds: f64,
}

#[derive(Deserialize)]
struct ShardPart {
    counters: BTreeMap<String, u64>,
    gauges: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct FetchedHistograms {
    /// For each latency, pairs of the longest duration of an interval in microseconds, and a count.
    intervals: BTreeMap<String, Vec<(f64, u64)>>,
}

impl Pages {
    /// Parses the pages `/stats` and `/histograms`.
    pub(super) fn parse(stats: &[u8], histograms: &[u8], at: Instant) -> Result<Pages, serde_json::Error> {
        Ok(Pages {
            stats: serde_json::from_slice(stats)?,
            histograms: serde_json::from_slice(histograms)?,
            at,
        })
    }
}

/// What happened between two times.
#[derive(Debug, PartialEq)]
pub(super) struct IntervalStatistics {
    pub(super) version: String,
    pub(super) uptime_seconds: f64,
    pub(super) rss_bytes: u64,
    /// The part of a core that the process used, in percent.
    pub(super) cpu_percent: f64,
    pub(super) seconds: f64,
    /// The gauges of all shards.
    pub(super) gauges: BTreeMap<String, u64>,
    /// The increase of each counter, per second.
    pub(super) rates: BTreeMap<String, f64>,
    /// The counters since the start of the server.
    pub(super) totals: BTreeMap<String, u64>,
    /// The latencies of the interval.
    pub(super) latencies: Vec<IntervalLatency>,
    pub(super) shards: Vec<ShardStatistics>,
}

/// The percentiles of a latency, in microseconds.
#[derive(Debug, PartialEq)]
pub(super) struct IntervalLatency {
    pub(super) name: String,
    pub(super) count: u64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

/// What happened on one shard.
#[derive(Debug, PartialEq)]
pub(super) struct ShardStatistics {
    pub(super) connections: u64,
    pub(super) clients: u64,
    pub(super) outbox_bytes: u64,
    pub(super) events: f64,
    pub(super) deliveries: f64,
    pub(super) turns: f64,
}

impl IntervalStatistics {
    /// Returns what happened between two pages. After a restart of the server, the counters begin again: then this is what
    /// happened since the start.
    pub(super) fn between(before: &Pages, after: &Pages) -> IntervalStatistics {
        let seconds = after.at.saturating_duration_since(before.at).as_secs_f64().max(1e-3);
        let process = &after.stats.process;
        let cpu = |page: &Pages| page.stats.process.cpu_user_seconds + page.stats.process.cpu_system_seconds;
        let shards = after.stats.shards.iter().enumerate();
        IntervalStatistics {
            version: after.stats.server.version.clone(),
            uptime_seconds: process.uptime_seconds,
            rss_bytes: process.rss_bytes,
            cpu_percent: (cpu(after) - cpu(before)).max(0.0) / seconds * 100.0,
            seconds,
            gauges: after.stats.gauges.clone(),
            rates: rates(&before.stats.counters, &after.stats.counters, seconds),
            totals: after.stats.counters.clone(),
            latencies: latencies(&before.histograms, &after.histograms),
            shards: shards.map(|(at, shard)| shard.since(before.stats.shards.get(at), seconds)).collect(),
        }
    }

    /// Returns a gauge of all shards, or 0 if the server does not have it.
    pub(super) fn gauge(&self, name: &str) -> u64 {
        self.gauges.get(name).copied().unwrap_or(0)
    }

    /// Returns the rate of a counter.
    pub(super) fn rate(&self, name: &str) -> f64 {
        self.rates.get(name).copied().unwrap_or(0.0)
    }
}

impl ShardPart {
    fn since(&self, before: Option<&ShardPart>, seconds: f64) -> ShardStatistics {
        let none = BTreeMap::new();
        let rates = rates(before.map_or(&none, |before| &before.counters), &self.counters, seconds);
        let rate = |name: &str| rates.get(name).copied().unwrap_or(0.0);
        let gauge = |name: &str| self.gauges.get(name).copied().unwrap_or(0);
        ShardStatistics {
            connections: gauge("connections"),
            clients: gauge("clients"),
            outbox_bytes: gauge("outbox_bytes"),
            events: rate("events_received"),
            deliveries: rate("broadcast_deliveries"),
            turns: rate("turns"),
        }
    }
}

fn rates(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
    seconds: f64,
) -> BTreeMap<String, f64> {
    let increase = |name: &String, count: u64| {
        let before = before.get(name).copied().unwrap_or(0);
        count.checked_sub(before).unwrap_or(count)
    };
    after.iter().map(|(name, count)| (name.clone(), increase(name, *count) as f64 / seconds)).collect()
}

fn latencies(before: &FetchedHistograms, after: &FetchedHistograms) -> Vec<IntervalLatency> {
    let all = after.intervals.iter();
    all.map(|(name, intervals)| {
        let earlier: BTreeMap<u64, u64> = before
            .intervals
            .get(name)
            .into_iter()
            .flatten()
            .map(|(longest, count)| (longest.to_bits(), *count))
            .collect();
        let increases = intervals.iter().map(|(longest, count)| {
            let earlier = earlier.get(&longest.to_bits()).copied().unwrap_or(0);
            (*longest, count.checked_sub(earlier).unwrap_or(*count))
        });
        percentiles(name, &Vec::from_iter(increases))
    })
    .collect()
}

/// Returns the percentiles of durations that are counted in intervals, in ascending order.
fn percentiles(name: &str, intervals: &[(f64, u64)]) -> IntervalLatency {
    let count: u64 = intervals.iter().map(|(_, count)| count).sum();
    let at = |part: f64| {
        let wanted = (count as f64 * part).ceil() as u64;
        let mut seen = 0;
        let found = intervals.iter().find(|(_, count)| {
            seen += count;
            seen >= wanted.max(1)
        });
        found.map_or(0.0, |(longest, _)| *longest)
    };
    IntervalLatency {
        name: name.to_owned(),
        count,
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        max: at(1.0),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::time::Duration;

    /// Returns the pages of a server at this time, with these counts.
    pub(in super::super) fn pages(at: Instant, events: u64, delivery: &str) -> Pages {
        let part = format!(
            r#""counters":{{"events_received":{events},"broadcast_deliveries":{0},"turns":5}},"gauges":{{"connections":3,"clients":2}}"#,
            events * 10
        );
        let stats = format!(
            r#"{{"server":{{"version":"1.2.3"}},"process":{{"rss_bytes":1048576,"cpu_user_seconds":{},"cpu_system_seconds":0,
            "uptime_seconds":90061}},{part},"shards":[{{{part}}}]}}"#,
            events as f64 / 100.0
        );
        let histograms = format!(r#"{{"intervals":{{"delivery":{delivery}}}}}"#);
        Pages::parse(stats.as_bytes(), histograms.as_bytes(), at).unwrap()
    }

    #[test]
    fn rates_and_latencies_are_those_of_the_interval() {
        let start = Instant::now();
        let before = pages(start, 100, "[[10,5],[20,5]]");
        let after = pages(start + Duration::from_secs(2), 300, "[[10,5],[20,102],[40,2],[80,1]]");
        let statistics = IntervalStatistics::between(&before, &after);
        assert_eq!((statistics.rate("events_received"), statistics.rate("nothing")), (100.0, 0.0));
        assert_eq!((statistics.gauge("connections"), statistics.cpu_percent), (3, 100.0));
        assert_eq!(statistics.shards[0].deliveries, 1000.0);
        let delivery = &statistics.latencies[0];
        assert_eq!((delivery.count, delivery.p50, delivery.p99, delivery.max), (100, 20.0, 40.0, 80.0));
        // A server that was restarted.
        let restarted =
            IntervalStatistics::between(&after, &pages(start + Duration::from_secs(3), 50, "[[10,1]]"));
        assert_eq!((restarted.rate("events_received"), restarted.latencies[0].count), (50.0, 1));
        assert_eq!(restarted.cpu_percent, 0.0);
    }

    #[test]
    fn nothing_has_no_percentiles() {
        let latency = percentiles("x", &[(10.0, 0)]);
        assert_eq!((latency.count, latency.p50, latency.max), (0, 0.0, 0.0));
    }
}
