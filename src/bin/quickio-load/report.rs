//! The report of a run, as a table for people and as JSON for programs.

use crate::args::Args;
use crate::encoder::FrameSizes;
use crate::process::{CpuUsage, MemoryUsage};
use crate::results::{Counter, Counters, LatencySummary, Results, Timing};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// The fraction of its threads' time above which the load generator may have limited the result.
const BUSY: f64 = 0.9;

/// The measurements of the period with load.
#[derive(Clone, Debug)]
pub struct Measurements {
    pub seconds: f64,
    pub counters: Counters,
    pub server: Option<CpuUsage>,
    /// The CPU time of a worker process.
    pub worker: Option<CpuUsage>,
    /// The CPU time of the load generator, in microseconds.
    pub load_us: f64,
    /// The memory of the server before the first connection.
    pub memory_before: Option<MemoryUsage>,
    /// The memory of the server with all connections, before the load.
    pub memory: Option<MemoryUsage>,
    /// The memory of the server at the end of the measurement.
    pub memory_after: Option<MemoryUsage>,
}

/// The report of a run.
#[derive(Debug)]
pub struct Report<'a> {
    args: &'a Args,
    measured: Measurements,
    results: Results,
}

/// The memory of the server per connection in bytes: the increase, divided by the number of open connections.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct PerConnection {
    resident: f64,
    anonymous: f64,
}

impl<'a> Report<'a> {
    /// Returns the report of a run.
    pub fn new(args: &'a Args, measured: Measurements, results: Results) -> Report<'a> {
        Report { args, measured, results }
    }

    /// Returns whether all connections opened and stayed open, and nothing was refused, lost, duplicated or out of
    /// order.
    pub fn went_well(&self) -> bool {
        let counters = &self.results.counters;
        let bad = [Counter::Failed, Counter::Broken, Counter::Refused, Counter::OutOfOrder];
        let bad: u64 = bad.into_iter().map(|counter| counters.get(counter)).sum();
        bad + self.lost() + self.duplicates() == 0 && self.results.errors.is_empty()
    }

    /// Returns the report as a table.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let plan = &self.args.plan;
        let name = plan.scenario.name();
        let tls = if plan.tls.is_some() { " with TLS" } else { "" };
        let _ = writeln!(
            out,
            "{name} over {}{tls}, {:.1} s measured",
            plan.protocol.name(),
            self.measured.seconds
        );
        self.connections(&mut out);
        self.messages(&mut out);
        self.latencies(&mut out);
        self.server(&mut out);
        self.load(&mut out);
        out
    }

    fn connections(&self, out: &mut String) {
        let plan = &self.args.plan;
        let counters = &self.results.counters;
        let (opened, failed) = (counters.get(Counter::Opened), counters.get(Counter::Failed));
        let broken = counters.get(Counter::Broken);
        let _ = writeln!(out, "  connections      {opened} opened, {failed} failed, {broken} broken");
        if plan.slow > 0 {
            let slow = &self.results.slow;
            let _ = write!(
                out,
                "  slow clients     {} opened, {} closed by the server",
                slow.opened, slow.closed
            );
            for (how, n) in &slow.how {
                let _ = write!(out, ", {n} with {how}");
            }
            out.push('\n');
        }
        if plan.protocol.is_http() {
            let (requests, sockets) = (counters.get(Counter::Requests), counters.get(Counter::Sockets));
            let _ = writeln!(out, "  HTTP             {requests} requests, by {sockets} sockets");
        }
        for (error, n) in &self.results.errors {
            let _ = writeln!(out, "  error            {error} ({n} times)");
        }
    }

    fn messages(&self, out: &mut String) {
        let (all, window) = (&self.results.counters, &self.measured.counters);
        let mut line = |name: &str, done: &str, sent: u64, arrived: Counter, lost: u64| {
            let rate = window.get(arrived) as f64 / self.measured.seconds;
            let arrived = all.get(arrived);
            let _ = writeln!(out, "  {name:<17}{sent} sent, {arrived} {done}, {lost} lost; {rate:.0}/s");
        };
        if all.get(Counter::Published) > 0 {
            let lost = self.lost_deliveries();
            line("events", "delivered", all.get(Counter::Published), Counter::Delivered, lost);
        }
        if all.get(Counter::Pongs) > 0 || self.args.plan.pingers > 0 {
            line(
                "pings",
                "answered",
                self.results.counters.get(Counter::PingsSent),
                Counter::Pongs,
                self.lost_pings(),
            );
        }
        for (what, n) in [("out of order", all.get(Counter::OutOfOrder)), ("too many", self.duplicates())] {
            if n > 0 {
                let _ = writeln!(out, "  {what:<17}{n}");
            }
        }
        if self.args.plan.churners > 0 {
            let rate = window.get(Counter::Cycles) as f64 / self.measured.seconds;
            let _ = writeln!(out, "  cycles           {} done; {rate:.0}/s", all.get(Counter::Cycles));
        }
        let mb = |count| window.get(count) as f64 / self.measured.seconds / 1e6;
        let (received, sent) = (mb(Counter::BytesReceived), mb(Counter::BytesSent));
        let _ = writeln!(out, "  bytes            {received:.2} MB/s from the server, {sent:.2} MB/s to it");
    }

    fn latencies(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "  {:<10}{:>12}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
            "us", "count", "min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"
        );
        for (name, summary) in self.summaries() {
            let _ = write!(out, "  {name:<10}{:>12}", summary.count);
            let LatencySummary { min, mean, p50, p90, p99, p999, p9999, max, .. } = summary;
            for us in [min, mean, p50, p90, p99, p999, p9999, max] {
                let _ = write!(out, "{us:>9.*}", usize::from(us < 1000.0));
            }
            out.push('\n');
        }
    }

    fn server(&self, out: &mut String) {
        if let Some(usage) = self.measured.server {
            let percent = usage.total / self.measured.seconds / 1e4;
            let _ = writeln!(out, "  server CPU       {percent:.2} % of a core");
        }
        if let Some(CpuUsage { user, system, total }) = self.per_message() {
            let _ = writeln!(
                out,
                "  server CPU us    {total:.3} for each message: {user:.3} user, {system:.3} system"
            );
        }
        if let Some(CpuUsage { user, system, total }) = self.per_message_of(self.measured.worker) {
            let _ = writeln!(
                out,
                "  worker CPU us    {total:.3} for each message: {user:.3} user, {system:.3} system"
            );
        }
        for (what, memory) in
            [("server memory", self.measured.memory), ("after the load", self.measured.memory_after)]
        {
            let Some(MemoryUsage { resident, anonymous }) = memory else { continue };
            let _ = writeln!(
                out,
                "  {what:<17}{:.1} MB resident, {:.1} MB of it anonymous",
                resident as f64 / 1e6,
                anonymous as f64 / 1e6
            );
        }
        if let Some(PerConnection { resident, anonymous }) = self.per_connection() {
            let what = if self.args.plan.protocol.is_http() { "session" } else { "connection" };
            let _ = writeln!(
                out,
                "  each {what:<12}{resident:.0} bytes resident, {anonymous:.0} of it anonymous"
            );
        }
    }

    fn load(&self, out: &mut String) {
        let fraction = self.load_fraction();
        let threads = self.args.threads * self.args.processes;
        let _ = writeln!(out, "  load generator   {:.0} % of {threads} threads", fraction * 100.0);
        if fraction > BUSY {
            out.push_str("  NOTE             the load generator was busy and may have limited the result\n");
        }
    }

    /// Returns the report as JSON.
    pub fn json(&self) -> String {
        let (all, window) = (&self.results.counters, &self.measured.counters);
        let plan = &self.args.plan;
        let latencies: Map<String, Value> =
            self.summaries().map(|(name, summary)| (name.to_owned(), json!(summary))).collect();
        let report = json!({
            "scenario": plan.scenario.name(),
            "protocol": plan.protocol.name(),
            "tls": plan.tls.is_some(),
            "command": self.command(),
            "seconds": self.measured.seconds,
            "clients": {
                "publishers": plan.publishers, "subscribers": plan.subscribers, "pingers": plan.pingers,
                "churners": plan.churners, "idle": plan.idle, "slow": plan.slow,
            },
            "connections": {
                "opened": all.get(Counter::Opened), "failed": all.get(Counter::Failed),
                "broken": all.get(Counter::Broken), "refused_answers": all.get(Counter::Refused),
                "sockets": all.get(Counter::Sockets),
            },
            "errors": self.results.errors,
            "slow": self.results.slow,
            "bytes_each": FrameSizes::of(plan),
            "whole_run": {
                "published": all.get(Counter::Published), "deliveries_expected": self.results.expected_deliveries(),
                "delivered": all.get(Counter::Delivered), "deliveries_lost": self.lost_deliveries(),
                "deliveries_doubled": self.duplicates(), "deliveries_disordered": all.get(Counter::OutOfOrder),
                "pings": self.results.counters.get(Counter::PingsSent), "pongs": all.get(Counter::Pongs), "pings_lost": self.lost_pings(),
                "cycles": all.get(Counter::Cycles), "requests": all.get(Counter::Requests),
            },
            "measured": {
                "messages": window.messages(),
                "rate": window.messages() as f64 / self.measured.seconds,
                "published": window.get(Counter::Published), "delivered": window.get(Counter::Delivered),
                "pongs": window.get(Counter::Pongs), "cycles": window.get(Counter::Cycles),
                "requests": window.get(Counter::Requests),
                "bytes_received": window.get(Counter::BytesReceived), "bytes_sent": window.get(Counter::BytesSent),
            },
            "latency_us": latencies,
            "server": {
                "pid": self.args.server_pid,
                "cpu_us": self.measured.server,
                "cpu_us_each_message": self.per_message(),
                "cpu_percent": self.measured.server.map(|cpu| cpu.total / self.measured.seconds / 1e4),
                "memory_before": self.measured.memory_before,
                "memory": self.measured.memory,
                "memory_after": self.measured.memory_after,
                "bytes_each_connection": self.per_connection(),
            },
            "worker": {
                "pid": self.args.worker_pid,
                "cpu_us_each_message": self.per_message_of(self.measured.worker),
            },
            "load": { "threads": self.args.threads * self.args.processes, "busy": self.load_fraction() },
            "went_well": self.went_well(),
        });
        let mut text =
            serde_json::to_string_pretty(&report).expect("numbers and texts can be written as JSON");
        text.push('\n');
        text
    }

    fn command(&self) -> String {
        let typed = self.args.typed.iter().map(|arg| arg.to_string_lossy());
        ["quickio-load".into()].into_iter().chain(typed).collect::<Vec<_>>().join(" ")
    }

    /// Returns the summaries of the latencies that were recorded.
    fn summaries(&self) -> impl Iterator<Item = (&'static str, LatencySummary)> {
        let summaries =
            Timing::ALL.into_iter().map(|(timing, name)| (name, self.results.latency(timing).summary()));
        summaries.filter(|(_, summary)| summary.count > 0)
    }

    fn per_message(&self) -> Option<CpuUsage> {
        self.per_message_of(self.measured.server)
    }

    fn per_message_of(&self, usage: Option<CpuUsage>) -> Option<CpuUsage> {
        usage?.per(self.measured.counters.messages())
    }

    fn per_connection(&self) -> Option<PerConnection> {
        let (before, after) = (self.measured.memory_before?, self.measured.memory?);
        let opened = self.results.counters.get(Counter::Opened) as f64;
        let each = |after: u64, before: u64| (after as f64 - before as f64) / opened;
        (opened > 0.0).then(|| PerConnection {
            resident: each(after.resident, before.resident),
            anonymous: each(after.anonymous, before.anonymous),
        })
    }

    fn load_fraction(&self) -> f64 {
        let threads = (self.args.threads * self.args.processes) as f64;
        self.measured.load_us / 1e6 / self.measured.seconds / threads
    }

    fn lost(&self) -> u64 {
        self.lost_pings() + self.lost_deliveries()
    }

    /// Returns the number of deliveries and answers beyond the expected ones.
    fn duplicates(&self) -> u64 {
        let counters = &self.results.counters;
        // A connection that failed has received events that are not among the expected ones.
        let no_failures = counters.get(Counter::Broken) + counters.get(Counter::Failed) == 0;
        let deliveries = counters.get(Counter::Delivered).saturating_sub(self.results.expected_deliveries());
        let answers = counters.get(Counter::Pongs).saturating_sub(counters.get(Counter::PingsSent));
        if no_failures { deliveries + answers } else { 0 }
    }

    fn lost_pings(&self) -> u64 {
        self.results
            .counters
            .get(Counter::PingsSent)
            .saturating_sub(self.results.counters.get(Counter::Pongs))
    }

    fn lost_deliveries(&self) -> u64 {
        self.results.expected_deliveries().saturating_sub(self.results.counters.get(Counter::Delivered))
    }
}
