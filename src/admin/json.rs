//! `/stats`: all metrics as JSON, merged and for each shard. `/histograms`: the latencies in more detail.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::process::Process;
use super::{CertificateExpiry, Info};
use crate::metrics::{
    AppCounter, AppStatistics, AppTiming, Counter, Counters, Gauge, Gauges, Latencies, NamedApp, NamedRule,
    RuleCounter, RuleGauge, Snapshot, Timing,
};
use crate::qev::stats::{LatencyHistogram, Summary};

/// Returns the page.
pub(super) fn stats(info: &Info, process: &Process, shards: &[Snapshot]) -> serde_json::Result<Vec<u8>> {
    let mut merged = Snapshot::new();
    shards.iter().for_each(|shard| merged.merge(shard));
    let mut page = serde_json::to_vec_pretty(&StatsPage {
        server: ServerSection::of(info),
        process: ProcessSection { process, uptime_seconds: info.uptime.as_secs_f64() },
        timers_unit: "microseconds",
        all: Part::of(&merged),
        shards: shards.iter().map(Part::of).collect(),
    })?;
    page.push(b'\n');
    Ok(page)
}

/// Returns a list under a name.
pub(super) fn list<T: Serialize>(name: &str, items: &[T]) -> serde_json::Result<Vec<u8>> {
    single(&BTreeMap::from([(name, items)]))
}

/// Returns a page of one value.
pub(super) fn single<T: Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut page = serde_json::to_vec_pretty(value)?;
    page.push(b'\n');
    Ok(page)
}

/// Returns all latencies, or the one with this name, or `None` if there is no such latency.
pub(super) fn timings(only: Option<&str>) -> Option<Vec<Timing>> {
    let Some(name) = only else { return Some(Timing::ALL.to_vec()) };
    let found = Timing::ALL.iter().find(|timing| timing.metric().name == name)?;
    Some(vec![*found])
}

/// Returns the histograms of these latencies, of all shards together.
pub(super) fn histograms(shards: &[Snapshot], timings: &[Timing]) -> serde_json::Result<Vec<u8>> {
    let mut intervals = BTreeMap::new();
    for timing in timings {
        let mut merged = LatencyHistogram::new();
        shards.iter().for_each(|shard| merged.merge(shard.latencies.get(*timing)));
        intervals.insert(timing.metric().name, merged.intervals());
    }
    let mut page = serde_json::to_vec(&HistogramsPage { timers_unit: "microseconds", intervals })?;
    page.push(b'\n');
    Ok(page)
}

#[derive(Serialize)]
struct HistogramsPage {
    timers_unit: &'static str,
    /// For each latency, the longest duration and the count of each interval.
    intervals: BTreeMap<&'static str, Vec<(f64, u64)>>,
}

#[derive(Serialize)]
struct StatsPage<'a> {
    server: ServerSection<'a>,
    process: ProcessSection<'a>,
    timers_unit: &'static str,
    #[serde(flatten)]
    all: Part<'a>,
    /// The first is shard 0.
    shards: Vec<Part<'a>>,
}

#[derive(Serialize)]
struct ServerSection<'a> {
    version: &'a str,
    /// Seconds since 1970.
    started: f64,
    listen: &'a [String],
    shards: usize,
    clock: &'static str,
    tls_certificates: Vec<CertificateSection>,
    log_lines_dropped: u64,
    log_lines_failed: u64,
    log_lines_suppressed: u64,
    admin_logins_failed: u64,
    admin_logins_throttled: u64,
}

#[derive(Serialize)]
struct CertificateSection {
    name: String,
    expires_in_seconds: i64,
}

impl CertificateSection {
    fn of(certificate: &CertificateExpiry) -> CertificateSection {
        CertificateSection {
            name: certificate.name.clone(),
            expires_in_seconds: certificate.seconds_left(SystemTime::now()),
        }
    }
}

impl<'a> ServerSection<'a> {
    fn of(info: &'a Info) -> ServerSection<'a> {
        let started = info.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        ServerSection {
            version: info.version,
            started: started.as_secs_f64(),
            listen: &info.listen,
            shards: info.shards,
            clock: info.clock_name(),
            tls_certificates: info.certificates.iter().map(CertificateSection::of).collect(),
            log_lines_dropped: info.log_lines_dropped,
            log_lines_failed: info.log_lines_failed,
            log_lines_suppressed: info.log_lines_suppressed,
            admin_logins_failed: info.logins.failed,
            admin_logins_throttled: info.logins.throttled,
        }
    }
}

#[derive(Serialize)]
struct ProcessSection<'a> {
    #[serde(flatten)]
    process: &'a Process,
    uptime_seconds: f64,
}

/// One shard, or all of them.
#[derive(Serialize)]
struct Part<'a> {
    #[serde(serialize_with = "counters")]
    counters: &'a Counters,
    #[serde(serialize_with = "gauges")]
    gauges: &'a Gauges,
    #[serde(serialize_with = "timers")]
    timers: &'a Latencies,
    #[serde(serialize_with = "apps")]
    apps: &'a [NamedApp],
    #[serde(serialize_with = "rules")]
    rules: &'a [NamedRule],
}

/// One application.
#[derive(Serialize)]
struct AppPart<'a> {
    #[serde(serialize_with = "app_counters")]
    counters: &'a AppStatistics,
    #[serde(serialize_with = "app_timers")]
    timers: &'a AppStatistics,
}

impl<'a> Part<'a> {
    fn of(snapshot: &'a Snapshot) -> Part<'a> {
        Part {
            counters: &snapshot.counters,
            gauges: &snapshot.gauges,
            timers: &snapshot.latencies,
            apps: &snapshot.apps,
            rules: &snapshot.rules,
        }
    }
}

fn counters<S: Serializer>(counters: &Counters, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(Counter::ALL.iter().map(|&counter| (counter.metric().name, counters.get(counter))))
}

fn gauges<S: Serializer>(gauges: &Gauges, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(Gauge::ALL.iter().map(|&gauge| (gauge.metric().name, gauges.get(gauge))))
}

fn timers<S: Serializer>(timers: &Latencies, serializer: S) -> Result<S::Ok, S::Error> {
    let latency = |&timing: &Timing| (timing.metric().name, Latency::from(timers.get(timing).summary()));
    serializer.collect_map(Timing::ALL.iter().map(latency))
}

fn apps<S: Serializer>(apps: &[NamedApp], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        apps.iter().map(|app| (&*app.name, AppPart { counters: &app.statistics, timers: &app.statistics })),
    )
}

fn rules<S: Serializer>(rules: &[NamedRule], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(rules.iter().map(|rule| (&*rule.path, RulePart(rule))))
}

/// One rule.
struct RulePart<'a>(&'a NamedRule);

impl Serialize for RulePart<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let counter = |&counter: &RuleCounter| (counter.metric().name, self.0.get(counter));
        let gauge = |&gauge: &RuleGauge| (gauge.metric().name, self.0.gauge(gauge));
        serializer.collect_map(RuleCounter::ALL.iter().map(counter).chain(RuleGauge::ALL.iter().map(gauge)))
    }
}

fn app_counters<S: Serializer>(statistics: &AppStatistics, serializer: S) -> Result<S::Ok, S::Error> {
    let value = |&counter: &AppCounter| (counter.metric().name, statistics.get(counter));
    serializer.collect_map(AppCounter::ALL.iter().map(value))
}

fn app_timers<S: Serializer>(statistics: &AppStatistics, serializer: S) -> Result<S::Ok, S::Error> {
    let latency =
        |&timing: &AppTiming| (timing.metric().name, Latency::from(statistics.latency(timing).summary()));
    serializer.collect_map(AppTiming::ALL.iter().map(latency))
}

/// A latency histogram, in microseconds.
#[derive(Serialize)]
struct Latency {
    count: u64,
    min: f64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p999: f64,
    #[serde(rename = "p99.99")]
    p9999: f64,
    max: f64,
}

impl From<Summary> for Latency {
    fn from(summary: Summary) -> Latency {
        let Summary { count, min, mean, p50, p90, p99, p999, p9999, max, .. } = summary;
        Latency { count, min, mean, p50, p90, p99, p999, p9999, max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::{info, two_shards};
    use serde_json::Value;

    #[test]
    fn histograms_are_those_of_all_shards() {
        let page = histograms(&two_shards(), &timings(None).unwrap()).unwrap();
        let page: Value = serde_json::from_slice(&page).unwrap();
        assert_eq!(page["intervals"]["turn"], serde_json::json!([[1.023, 1], [3014.655, 2]]));
        assert_eq!(page["intervals"].as_object().unwrap().len(), Timing::ALL.len());
        assert_eq!(page["intervals"]["route"], serde_json::json!([]));
        let page = histograms(&two_shards(), &timings(Some("turn")).unwrap()).unwrap();
        let page: Value = serde_json::from_slice(&page).unwrap();
        assert_eq!(page["intervals"], serde_json::json!({"turn": [[1.023, 1], [3014.655, 2]]}));
        assert_eq!(timings(Some("Turn")), None);
    }

    #[test]
    fn every_metric_is_present_merged_and_for_each_shard() {
        let page = stats(&info(), &Process::default(), &two_shards()).unwrap();
        let page: Value = serde_json::from_slice(&page).unwrap();
        assert_eq!(page["shards"].as_array().unwrap().len(), 2);
        for part in [&page, &page["shards"][0], &page["shards"][1]] {
            for counter in Counter::ALL {
                assert!(part["counters"][counter.metric().name].is_u64(), "{counter:?}");
            }
            for gauge in Gauge::ALL {
                assert!(part["gauges"][gauge.metric().name].is_u64(), "{gauge:?}");
            }
            for timing in Timing::ALL {
                let timer = &part["timers"][timing.metric().name];
                for key in ["min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"] {
                    assert!(timer[key].is_f64(), "{timing:?} {key}");
                }
                assert!(timer["count"].is_u64());
            }
        }
    }

    #[test]
    fn values_are_in_their_places() {
        let page = stats(&info(), &Process::default(), &two_shards()).unwrap();
        let page: Value = serde_json::from_slice(&page).unwrap();
        assert_eq!(page["counters"]["sends"], 30);
        assert_eq!(page["shards"][1]["counters"]["sends"], 20);
        assert_eq!(page["gauges"]["clients"], 3);
        assert_eq!(page["timers"]["turn"]["count"], 3);
        assert_eq!(page["timers"]["turn"]["min"], 1.0);
        assert_eq!(page["shards"][0]["timers"]["turn"]["count"], 1);
        let chat = |part: &Value| part["apps"]["chat"].clone();
        assert_eq!(chat(&page)["counters"]["app_events"], 11);
        assert_eq!(chat(&page["shards"][1])["counters"]["app_events"], 6);
        assert_eq!(chat(&page)["timers"]["app_answer"]["count"], 1);
        assert_eq!(page["apps"]["qio"]["counters"]["app_failures"], 0);
        assert_eq!(page["server"]["version"], "1.2.3");
        assert_eq!(page["process"]["uptime_seconds"], 2.5);
        assert_eq!(page["server"]["started"], 1_700_000_000.0);
        assert_eq!(page["server"]["listen"][1], "unix:/\"q\"");
        assert_eq!(page["server"]["clock"], "manual");
        assert!(page["process"]["rss_bytes"].is_null());
    }
}
