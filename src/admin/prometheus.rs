//! `/metrics`: all metrics of each shard in the text format 0.0.4 of Prometheus.

use std::fmt::{Display, Write};
use std::time::SystemTime;

use super::Info;
use super::process::Process;
use crate::metrics::{
    AppCounter, AppTiming, Counter, Gauge, Metric, RuleCounter, RuleGauge, Snapshot, Timing,
};
use crate::qev::stats::Summary;

/// The media type of the page.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Returns the page.
pub(super) fn metrics(info: &Info, process: &Process, shards: &[Snapshot]) -> Vec<u8> {
    let mut page = MetricsPage::default();
    for &counter in Counter::ALL {
        page.counter(counter, shards);
    }
    for &gauge in Gauge::ALL {
        page.gauge(gauge, shards);
    }
    for &timing in Timing::ALL {
        page.summary(timing, shards);
    }
    for &counter in AppCounter::ALL {
        page.app_counter(counter, shards);
    }
    for &timing in AppTiming::ALL {
        page.app_summary(timing, shards);
    }
    for &counter in RuleCounter::ALL {
        page.rule_counter(counter, shards);
    }
    for &gauge in RuleGauge::ALL {
        page.rule_gauge(gauge, shards);
    }
    page.server(info);
    page.process(process);
    page.text.into_bytes()
}

#[derive(Default)]
struct MetricsPage {
    text: String,
}

impl MetricsPage {
    fn counter(&mut self, counter: Counter, shards: &[Snapshot]) {
        let Metric { name, help, .. } = counter.metric();
        let name = format!("quickio_{name}_total");
        self.family(&name, "counter", help);
        for (shard, snapshot) in shards.iter().enumerate() {
            self.sample(&name, &[("shard", &shard)], snapshot.counters.get(counter));
        }
    }

    fn gauge(&mut self, gauge: Gauge, shards: &[Snapshot]) {
        let Metric { name, help, .. } = gauge.metric();
        let name = format!("quickio_{name}");
        self.family(&name, "gauge", help);
        for (shard, snapshot) in shards.iter().enumerate() {
            self.sample(&name, &[("shard", &shard)], snapshot.gauges.get(gauge));
        }
    }

    /// Writes a summary since the start of the server. The quantiles 0 and 1 are the minimum and the maximum. A summary
    /// without values has no quantiles.
    fn summary(&mut self, timing: Timing, shards: &[Snapshot]) {
        let Metric { name, help, .. } = timing.metric();
        let name = format!("quickio_{name}_seconds");
        self.family(&name, "summary", help);
        for (shard, snapshot) in shards.iter().enumerate() {
            self.summary_samples(&name, &[("shard", &shard)], &snapshot.latencies.get(timing).summary());
        }
    }

    fn summary_samples(&mut self, name: &str, labels: &[(&str, &dyn Display)], summary: &Summary) {
        for (quantile, us) in quantiles(summary) {
            self.sample(name, &[labels, &[("quantile", &quantile)]].concat(), seconds(us));
        }
        self.sample(&format!("{name}_sum"), labels, seconds(summary.sum));
        self.sample(&format!("{name}_count"), labels, summary.count);
    }

    fn app_counter(&mut self, counter: AppCounter, shards: &[Snapshot]) {
        let Metric { name, help, .. } = counter.metric();
        let name = format!("quickio_{name}_total");
        self.family(&name, "counter", help);
        for (shard, snapshot) in shards.iter().enumerate() {
            for app in &snapshot.apps {
                self.sample(&name, &[("app", &app.name), ("shard", &shard)], app.statistics.get(counter));
            }
        }
    }

    fn app_summary(&mut self, timing: AppTiming, shards: &[Snapshot]) {
        let Metric { name, help, .. } = timing.metric();
        let name = format!("quickio_{name}_seconds");
        self.family(&name, "summary", help);
        for (shard, snapshot) in shards.iter().enumerate() {
            for app in &snapshot.apps {
                let summary = app.statistics.latency(timing).summary();
                self.summary_samples(&name, &[("app", &app.name), ("shard", &shard)], &summary);
            }
        }
    }

    fn rule_gauge(&mut self, gauge: RuleGauge, shards: &[Snapshot]) {
        let Metric { name, help, .. } = gauge.metric();
        let name = format!("quickio_{name}");
        self.family(&name, "gauge", help);
        for (shard, snapshot) in shards.iter().enumerate() {
            for rule in &snapshot.rules {
                self.sample(&name, &[("rule", &rule.path), ("shard", &shard)], rule.gauge(gauge));
            }
        }
    }

    fn rule_counter(&mut self, counter: RuleCounter, shards: &[Snapshot]) {
        let Metric { name, help, .. } = counter.metric();
        let name = format!("quickio_{name}_total");
        self.family(&name, "counter", help);
        for (shard, snapshot) in shards.iter().enumerate() {
            for rule in &snapshot.rules {
                self.sample(&name, &[("rule", &rule.path), ("shard", &shard)], rule.get(counter));
            }
        }
    }

    fn server(&mut self, info: &Info) {
        self.family("quickio_info", "gauge", "Always 1; the labels tell the server's version and clock.");
        self.sample("quickio_info", &[("version", &info.version), ("clock", &info.clock_name())], 1);
        self.family("quickio_shards", "gauge", "Shards that run.");
        self.sample("quickio_shards", &[], info.shards);
        if !info.certificates.is_empty() {
            let name = "quickio_tls_certificate_expires_in_seconds";
            self.family(name, "gauge", "Time until a certificate expires; negative if it has expired.");
            for certificate in &info.certificates {
                let left = certificate.seconds_left(SystemTime::now());
                self.sample(name, &[("certificate", &certificate.name)], left);
            }
        }
        self.family("quickio_uptime_seconds", "gauge", "How long the server has run.");
        self.sample("quickio_uptime_seconds", &[], info.uptime.as_secs_f64());
        let name = "quickio_log_lines_dropped_total";
        self.family(name, "counter", "Log lines dropped because nobody read them fast enough.");
        self.sample(name, &[], info.log_lines_dropped);
        let name = "quickio_log_lines_failed_total";
        self.family(name, "counter", "Log lines lost because standard error could not be written.");
        self.sample(name, &[], info.log_lines_failed);
        let name = "quickio_log_lines_suppressed_total";
        self.family(
            name,
            "counter",
            "Log lines that peers caused and that were counted instead of being logged.",
        );
        self.sample(name, &[], info.log_lines_suppressed);
        let name = "quickio_admin_logins_failed_total";
        self.family(name, "counter", "Requests to the admin endpoint with a wrong password.");
        self.sample(name, &[], info.logins.failed);
        let name = "quickio_admin_logins_throttled_total";
        self.family(
            name,
            "counter",
            "Requests to the admin endpoint refused unseen, because their address had sent too many wrong passwords.",
        );
        self.sample(name, &[], info.logins.throttled);
    }

    fn process(&mut self, process: &Process) {
        if let Some(bytes) = process.rss_bytes {
            self.family("quickio_process_rss_bytes", "gauge", "Resident memory of the process.");
            self.sample("quickio_process_rss_bytes", &[], bytes);
        }
        if let (Some(user), Some(system)) = (process.cpu_user_seconds, process.cpu_system_seconds) {
            let name = "quickio_process_cpu_seconds_total";
            self.family(name, "counter", "CPU time of the process.");
            self.sample(name, &[("mode", &"user")], user);
            self.sample(name, &[("mode", &"system")], system);
        }
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.text.push_str(name);
        for (index, (label, label_value)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{open}{label}=\"{}\"", escaped(&label_value.to_string()));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }
}

fn quantiles(summary: &Summary) -> impl Iterator<Item = (f64, f64)> {
    let inner = summary.quantiles();
    let all = [(0.0, summary.min)].into_iter().chain(inner).chain([(1.0, summary.max)]);
    all.filter(|_| summary.count > 0)
}

fn seconds(us: f64) -> f64 {
    us / 1e6
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::{info, two_shards};
    use std::collections::{BTreeMap, BTreeSet};

    /// One family of the text format.
    #[derive(Debug, Default)]
    struct Family {
        kind: String,
        /// The value of each sample, by its name and labels.
        samples: BTreeMap<String, f64>,
    }

    /// Parses the text format strictly: each family once, its HELP, then its TYPE, then its samples; names, labels
    /// and values are valid; no sample occurs twice.
    fn read(page: &str) -> BTreeMap<String, Family> {
        assert!(page.ends_with('\n'));
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut lines = page.lines().peekable();
        while let Some(line) = lines.next() {
            let (name, help) = line.strip_prefix("# HELP ").unwrap().split_once(' ').unwrap();
            assert!(!help.is_empty() && is_name(name), "{line}");
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap();
            let mut family = Family { kind: kind.to_owned(), ..Family::default() };
            while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
                let (series, value) = sample.rsplit_once(' ').unwrap();
                let value: f64 = value.parse().unwrap();
                check_series(name, kind, series);
                assert!(family.samples.insert(series.to_owned(), value).is_none(), "{series} twice");
            }
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} twice");
        }
        families
    }

    fn is_name(name: &str) -> bool {
        name.starts_with("quickio_") && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    }

    fn check_series(family: &str, kind: &str, series: &str) {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{series} is not of {family}"));
        match kind {
            "summary" => assert!(["", "_sum", "_count"].contains(&suffix), "{series}"),
            "counter" => assert!(suffix.is_empty() && name.ends_with("_total"), "{series}"),
            "gauge" => assert!(suffix.is_empty() && !name.ends_with("_total"), "{series}"),
            other => panic!("type {other}"),
        }
        if labels.is_empty() {
            return;
        }
        let mut seen = BTreeSet::new();
        for pair in labels.strip_suffix('}').unwrap().split("\",") {
            let (label, value) = pair.split_once("=\"").unwrap();
            assert!(
                label.bytes().all(|b| b.is_ascii_lowercase()) && seen.insert(label.to_owned()),
                "{series}"
            );
            assert!(!value.contains('\n'), "{series}");
        }
        assert_eq!(seen.contains("quantile"), kind == "summary" && suffix.is_empty(), "{series}");
    }

    fn page(shards: &[Snapshot]) -> BTreeMap<String, Family> {
        let process = Process {
            rss_bytes: Some(1 << 20),
            cpu_user_seconds: Some(1.5),
            cpu_system_seconds: Some(2.0),
            threads: Some(3),
        };
        read(std::str::from_utf8(&metrics(&info(), &process, shards)).unwrap())
    }

    #[test]
    fn every_metric_is_a_family_with_a_sample_for_each_shard() {
        let families = page(&two_shards());
        for counter in Counter::ALL {
            let family = &families[&format!("quickio_{}_total", counter.metric().name)];
            assert_eq!((family.kind.as_str(), family.samples.len()), ("counter", 2), "{counter:?}");
        }
        for gauge in Gauge::ALL {
            let family = &families[&format!("quickio_{}", gauge.metric().name)];
            assert_eq!((family.kind.as_str(), family.samples.len()), ("gauge", 2), "{gauge:?}");
        }
        for timing in Timing::ALL {
            let name = format!("quickio_{}_seconds", timing.metric().name);
            assert_eq!(families[&name].kind, "summary", "{timing:?}");
            assert!(families[&name].samples.contains_key(&format!("{name}_count{{shard=\"1\"}}")));
        }
    }

    #[test]
    fn values_are_in_seconds_and_of_their_shard() {
        let families = page(&two_shards());
        assert_eq!(families["quickio_sends_total"].samples["quickio_sends_total{shard=\"1\"}"], 20.0);
        let turn = &families["quickio_turn_seconds"].samples;
        assert_eq!(turn["quickio_turn_seconds_count{shard=\"1\"}"], 2.0);
        let near = |series: &str, expected: f64| (turn[series] / expected - 1.0).abs() < 0.01;
        assert!(near("quickio_turn_seconds{shard=\"0\",quantile=\"0.5\"}", 1e-6), "{turn:?}");
        assert!(near("quickio_turn_seconds{shard=\"1\",quantile=\"1\"}", 3e-3), "{turn:?}");
        assert!(near("quickio_turn_seconds_sum{shard=\"1\"}", 6e-3), "{turn:?}");
        let route = &families["quickio_route_seconds"].samples;
        assert_eq!(route.len(), 4, "no quantiles without values: {route:?}");
        let events = &families["quickio_app_events_total"].samples;
        assert_eq!(events["quickio_app_events_total{app=\"chat\",shard=\"1\"}"], 6.0);
        assert_eq!(events.len(), 4, "one for each application on each shard");
        let answers = &families["quickio_app_answer_seconds"].samples;
        assert_eq!(answers["quickio_app_answer_seconds_count{app=\"chat\",shard=\"1\"}"], 1.0);
        let cpu = &families["quickio_process_cpu_seconds_total"].samples;
        assert_eq!(cpu["quickio_process_cpu_seconds_total{mode=\"system\"}"], 2.0);
    }

    #[test]
    fn unknown_values_are_omitted() {
        let text = metrics(&info(), &Process::default(), &[]);
        let families = read(std::str::from_utf8(&text).unwrap());
        assert!(!families.contains_key("quickio_process_rss_bytes"));
        assert!(families["quickio_sends_total"].samples.is_empty());
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
