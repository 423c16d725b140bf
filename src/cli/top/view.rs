//! The statistics as lines of text.

use super::statistics::{IntervalLatency, IntervalStatistics};

/// The counters of refusals and losses that are shown once they count: what an operator acts on.
const PROBLEMS: &[&str] = &[
    "connections_refused_limit",
    "connections_refused_address",
    "connections_refused_descriptors",
    "handshakes_refused",
    "timeouts_handshake",
    "timeouts_liveness",
    "timeouts_send",
    "closes_slow",
    "closes_slow_pressed",
    "closes_incomplete",
    "closes_violation",
    "events_unrouted",
    "subscriptions_refused_limit",
    "mesh_refused",
    "inbox_refused",
    "workers_crashed",
    "workers_hung",
    "worker_events_refused",
    "buffers_exhausted",
];

/// Returns the lines of the screen. The first is the state of the server.
pub(super) fn lines(statistics: &IntervalStatistics, url: &str) -> Vec<String> {
    let IntervalStatistics { version, uptime_seconds, cpu_percent, seconds, rss_bytes, .. } = statistics;
    let gauge = |name| count(statistics.gauge(name) as f64);
    let rate = |name| count(statistics.rate(name));
    let mut lines = vec![
        format!(
            "quickio {version} at {url}, up {}, {} shards; q ends",
            duration(*uptime_seconds),
            statistics.shards.len()
        ),
        format!("cpu {cpu_percent:.0} %   memory {}   last {seconds:.1} s", bytes(*rss_bytes as f64)),
        String::new(),
        format!(
            "connections {:>8}   clients {:>8}   TLS {:>8}   HTTP sessions {:>8}",
            gauge("connections"),
            gauge("clients"),
            gauge("tls_connections"),
            gauge("http_sessions")
        ),
        format!(
            "subscriptions {:>6}   paths {:>10}   outboxes {:>10}   worker requests {:>6}",
            gauge("subscriptions"),
            gauge("paths"),
            bytes(statistics.gauge("outbox_bytes") as f64),
            gauge("worker_requests")
        ),
        String::new(),
        format!(
            "a second   events in {:>8}   broadcasts {:>8}   deliveries {:>8}   answers {:>8}",
            rate("events_received"),
            rate("broadcasts"),
            rate("broadcast_deliveries"),
            rate("answers")
        ),
        format!(
            "           connected {:>8}   closed {:>12}   received {:>10}   sent {:>11}",
            rate("connections_accepted"),
            rate("connections_closed"),
            bytes(statistics.rate("bytes_received")),
            bytes(statistics.rate("bytes_sent"))
        ),
        String::new(),
        format!("{:<14}{:>10}{:>10}{:>10}{:>10}{:>10}", "latency", "count", "p50", "p99", "p99.9", "max"),
    ];
    lines.extend(statistics.latencies.iter().map(latency));
    lines.push(String::new());
    lines.push(format!(
        "{:<6}{:>12}{:>10}{:>12}{:>14}{:>12}{:>12}",
        "shard", "connections", "clients", "events/s", "deliveries/s", "turns/s", "outboxes"
    ));
    lines.extend(statistics.shards.iter().enumerate().map(|(number, shard)| {
        format!(
            "{number:<6}{:>12}{:>10}{:>12}{:>14}{:>12}{:>12}",
            shard.connections,
            shard.clients,
            count(shard.events),
            count(shard.deliveries),
            count(shard.turns),
            bytes(shard.outbox_bytes as f64)
        )
    }));
    lines.extend(problems(statistics));
    lines
}

/// Returns the text of `--once`.
pub(super) fn text(statistics: &IntervalStatistics, url: &str) -> String {
    let lines = lines(statistics, url);
    lines.join("\n").replacen("; q ends", "", 1) + "\n"
}

/// Shows a problem above the last statistics.
pub(super) fn set_problem(lines: &mut Vec<String>, problem: &str) {
    lines.truncate(lines.len().max(1));
    lines[0] = format!("{problem}; trying again, q ends");
}

fn problems(statistics: &IntervalStatistics) -> Vec<String> {
    let total = |name: &str| statistics.totals.get(name).copied().unwrap_or(0);
    let counted: Vec<&&str> = PROBLEMS.iter().filter(|name| total(name) > 0).collect();
    if counted.is_empty() {
        return Vec::new();
    }
    let mut lines =
        vec![String::new(), format!("{:<34}{:>12}{:>12}", "refused and lost", "total", "a second")];
    lines.extend(
        counted
            .iter()
            .map(|name| format!("{name:<34}{:>12}{:>12}", total(name), count(statistics.rate(name)))),
    );
    lines
}

fn latency(latency: &IntervalLatency) -> String {
    let IntervalLatency { name, count: counted, p50, p99, p999, max } = latency;
    if *counted == 0 {
        return format!("{name:<14}{:>10}", 0);
    }
    format!(
        "{name:<14}{:>10}{:>10}{:>10}{:>10}{:>10}",
        count(*counted as f64),
        micros(*p50),
        micros(*p99),
        micros(*p999),
        micros(*max)
    )
}

/// Returns a count with at most five characters and a unit.
fn count(count: f64) -> String {
    match count {
        0.0 => "0".into(),
        count if count < 10.0 && count.fract() != 0.0 => format!("{count:.1}"),
        count if count < 100_000.0 => format!("{count:.0}"),
        count if count < 10e6 => format!("{:.0} k", count / 1e3),
        count if count < 10e9 => format!("{:.0} M", count / 1e6),
        count => format!("{:.0} G", count / 1e9),
    }
}

fn bytes(bytes: f64) -> String {
    const KIB: f64 = 1024.0;
    match bytes {
        bytes if bytes < KIB => format!("{bytes:.0} B"),
        bytes if bytes < KIB * KIB => format!("{:.1} KiB", bytes / KIB),
        bytes if bytes < KIB * KIB * KIB => format!("{:.1} MiB", bytes / KIB / KIB),
        bytes => format!("{:.1} GiB", bytes / KIB / KIB / KIB),
    }
}

fn micros(micros: f64) -> String {
    match micros {
        micros if micros < 1000.0 => format!("{micros:.0} us"),
        micros if micros < 1e6 => format!("{:.1} ms", micros / 1e3),
        micros => format!("{:.1} s", micros / 1e6),
    }
}

fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::statistics::tests::pages;
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn numbers_are_short() {
        for (value, shown) in
            [(0.0, "0"), (0.25, "0.2"), (7.0, "7"), (99_999.0, "99999"), (123_456.0, "123 k"), (25e6, "25 M")]
        {
            assert_eq!(count(value), shown);
        }
        for (value, shown) in [(0.0, "0 B"), (1536.0, "1.5 KiB"), (3.0 * 1024.0 * 1024.0, "3.0 MiB")] {
            assert_eq!(bytes(value), shown);
        }
        for (value, shown) in [(7.0, "7 us"), (1500.0, "1.5 ms"), (2.5e6, "2.5 s")] {
            assert_eq!(micros(value), shown);
        }
        for (value, shown) in
            [(5.9, "5 s"), (125.0, "2 min 5 s"), (7260.0, "2 h 1 min"), (90_061.0, "1 d 1 h")]
        {
            assert_eq!(duration(value), shown);
        }
    }

    #[test]
    fn the_lines_fit_a_terminal() {
        let start = Instant::now();
        let after = pages(start + Duration::from_secs(1), 10_000_000, "[[10,5],[20000,500000]]");
        let lines =
            lines(&IntervalStatistics::between(&pages(start, 0, "[]"), &after), "http://127.0.0.1:8081");
        assert!(lines.iter().all(|line| line.len() <= 96), "{lines:#?}");
        assert!(
            lines[0].starts_with("quickio 1.2.3 at http://127.0.0.1:8081, up 1 d 1 h, 1 shards"),
            "{}",
            lines[0]
        );
        assert!(
            lines.iter().any(|line| line.starts_with("delivery") && line.contains("20.0 ms")),
            "{lines:#?}"
        );
    }
}
