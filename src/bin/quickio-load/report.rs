//! The report: a table for people, JSON for programs.

use crate::args::Args;
use crate::outcome::{Count, Counts, Figures, Outcome, Timed};
use crate::server::{Memory, Spent};
use crate::wire::Sizes;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// Above this part of its threads' time the load generator may be what was measured.
const BUSY: f64 = 0.9;

/// What was seen from outside while the load was on.
#[derive(Clone, Debug)]
pub struct Measured {
    pub seconds: f64,
    pub counts: Counts,
    pub server: Option<Spent>,
    /// A worker's CPU time.
    pub worker: Option<Spent>,
    /// CPU time of the load generator, in microseconds.
    pub load_us: f64,
    /// The server's memory before the first connection, and with all of them.
    pub before: Option<Memory>,
    pub after: Option<Memory>,
}

/// Everything that a run has to tell.
#[derive(Debug)]
pub struct Report<'a> {
    args: &'a Args,
    measured: Measured,
    outcome: Outcome,
}

/// The server's memory for each connection, in bytes: what was added, by connections that were open.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct PerConnection {
    resident: f64,
    anonymous: f64,
}

impl<'a> Report<'a> {
    /// The report of a run.
    pub fn new(args: &'a Args, measured: Measured, outcome: Outcome) -> Report<'a> {
        Report { args, measured, outcome }
    }

    /// Whether all connections opened and stayed, nothing was refused, and nothing lost, doubled or out of order.
    pub fn went_well(&self) -> bool {
        let counts = &self.outcome.counts;
        let bad = [Count::Failed, Count::Broken, Count::Refused, Count::Disordered];
        let bad: u64 = bad.into_iter().map(|count| counts.get(count)).sum();
        bad + self.lost() + self.doubled() == 0 && self.outcome.errors.is_empty()
    }

    /// The table.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let plan = &self.args.plan;
        let name = plan.scenario.name();
        let _ =
            writeln!(out, "{name} over {}, {:.1} s measured", plan.protocol.name(), self.measured.seconds);
        self.connections(&mut out);
        self.messages(&mut out);
        self.latencies(&mut out);
        self.server(&mut out);
        self.load(&mut out);
        out
    }

    fn connections(&self, out: &mut String) {
        let plan = &self.args.plan;
        let counts = &self.outcome.counts;
        let (opened, failed) = (counts.get(Count::Opened), counts.get(Count::Failed));
        let broken = counts.get(Count::Broken);
        let _ = writeln!(out, "  connections      {opened} opened, {failed} failed, {broken} broken");
        if plan.slow > 0 {
            let slow = &self.outcome.slow;
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
            let (requests, sockets) = (counts.get(Count::Requests), counts.get(Count::Sockets));
            let _ = writeln!(out, "  HTTP             {requests} requests, by {sockets} sockets");
        }
        for (error, n) in &self.outcome.errors {
            let _ = writeln!(out, "  error            {error} ({n} times)");
        }
    }

    fn messages(&self, out: &mut String) {
        let (all, window) = (&self.outcome.counts, &self.measured.counts);
        let mut line = |what: &str, done: &str, sent: u64, arrived: Count, lost: u64| {
            let rate = window.get(arrived) as f64 / self.measured.seconds;
            let arrived = all.get(arrived);
            let _ = writeln!(out, "  {what:<17}{sent} sent, {arrived} {done}, {lost} lost; {rate:.0}/s");
        };
        if all.get(Count::Published) > 0 {
            let lost = self.lost_deliveries();
            line("events", "delivered", all.get(Count::Published), Count::Delivered, lost);
        }
        if all.get(Count::Pongs) > 0 || self.args.plan.pingers > 0 {
            line(
                "pings",
                "answered",
                self.outcome.counts.get(Count::PingsSent),
                Count::Pongs,
                self.lost_pings(),
            );
        }
        for (what, n) in [("out of order", all.get(Count::Disordered)), ("too many", self.doubled())] {
            if n > 0 {
                let _ = writeln!(out, "  {what:<17}{n}");
            }
        }
        if self.args.plan.churners > 0 {
            let rate = window.get(Count::Cycles) as f64 / self.measured.seconds;
            let _ = writeln!(out, "  cycles           {} done; {rate:.0}/s", all.get(Count::Cycles));
        }
        let mb = |count| window.get(count) as f64 / self.measured.seconds / 1e6;
        let (received, sent) = (mb(Count::BytesReceived), mb(Count::BytesSent));
        let _ = writeln!(out, "  bytes            {received:.2} MB/s from the server, {sent:.2} MB/s to it");
    }

    fn latencies(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "  {:<10}{:>12}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
            "us", "count", "min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"
        );
        for (name, figures) in self.figures() {
            let _ = write!(out, "  {name:<10}{:>12}", figures.count);
            let Figures { min, mean, p50, p90, p99, p999, p9999, max, .. } = figures;
            for us in [min, mean, p50, p90, p99, p999, p9999, max] {
                let _ = write!(out, "{us:>9.*}", usize::from(us < 1000.0));
            }
            out.push('\n');
        }
    }

    fn server(&self, out: &mut String) {
        if let Some(spent) = self.measured.server {
            let percent = spent.total / self.measured.seconds / 1e4;
            let _ = writeln!(out, "  server CPU       {percent:.2} % of a core");
        }
        if let Some(Spent { user, system, total }) = self.each_message() {
            let _ = writeln!(
                out,
                "  server CPU us    {total:.3} for each message: {user:.3} user, {system:.3} system"
            );
        }
        if let Some(Spent { user, system, total }) = self.each_message_of(self.measured.worker) {
            let _ = writeln!(
                out,
                "  worker CPU us    {total:.3} for each message: {user:.3} user, {system:.3} system"
            );
        }
        if let Some(Memory { resident, anonymous }) = self.measured.after {
            let _ = writeln!(
                out,
                "  server memory    {:.1} MB resident, {:.1} MB of it anonymous",
                resident as f64 / 1e6,
                anonymous as f64 / 1e6
            );
        }
        if let Some(PerConnection { resident, anonymous }) = self.each_connection() {
            let what = if self.args.plan.protocol.is_http() { "session" } else { "connection" };
            let _ = writeln!(
                out,
                "  each {what:<12}{resident:.0} bytes resident, {anonymous:.0} of it anonymous"
            );
        }
    }

    fn load(&self, out: &mut String) {
        let part = self.load_part();
        let threads = self.args.threads * self.args.processes;
        let _ = writeln!(out, "  load generator   {:.0} % of {threads} threads", part * 100.0);
        if part > BUSY {
            out.push_str("  NOTE             the load generator was busy: it may be what was measured\n");
        }
    }

    /// Everything, as JSON.
    pub fn json(&self) -> String {
        let (all, window) = (&self.outcome.counts, &self.measured.counts);
        let plan = &self.args.plan;
        let figures: Map<String, Value> =
            self.figures().map(|(name, figures)| (name.to_owned(), json!(figures))).collect();
        let report = json!({
            "scenario": plan.scenario.name(),
            "protocol": plan.protocol.name(),
            "command": self.command(),
            "seconds": self.measured.seconds,
            "clients": {
                "publishers": plan.publishers, "subscribers": plan.subscribers, "pingers": plan.pingers,
                "churners": plan.churners, "idle": plan.idle, "slow": plan.slow,
            },
            "connections": {
                "opened": all.get(Count::Opened), "failed": all.get(Count::Failed),
                "broken": all.get(Count::Broken), "refused_answers": all.get(Count::Refused),
                "sockets": all.get(Count::Sockets),
            },
            "errors": self.outcome.errors,
            "slow": self.outcome.slow,
            "bytes_each": Sizes::of(plan),
            "whole_run": {
                "published": all.get(Count::Published), "deliveries_expected": self.outcome.expected(),
                "delivered": all.get(Count::Delivered), "deliveries_lost": self.lost_deliveries(),
                "deliveries_doubled": self.doubled(), "deliveries_disordered": all.get(Count::Disordered),
                "pings": self.outcome.counts.get(Count::PingsSent), "pongs": all.get(Count::Pongs), "pings_lost": self.lost_pings(),
                "cycles": all.get(Count::Cycles), "requests": all.get(Count::Requests),
            },
            "measured": {
                "messages": window.messages(),
                "rate": window.messages() as f64 / self.measured.seconds,
                "published": window.get(Count::Published), "delivered": window.get(Count::Delivered),
                "pongs": window.get(Count::Pongs), "cycles": window.get(Count::Cycles),
                "requests": window.get(Count::Requests),
                "bytes_received": window.get(Count::BytesReceived), "bytes_sent": window.get(Count::BytesSent),
            },
            "latency_us": figures,
            "server": {
                "pid": self.args.server_pid,
                "cpu_us": self.measured.server,
                "cpu_us_each_message": self.each_message(),
                "cpu_percent": self.measured.server.map(|cpu| cpu.total / self.measured.seconds / 1e4),
                "memory_before": self.measured.before,
                "memory": self.measured.after,
                "bytes_each_connection": self.each_connection(),
            },
            "worker": {
                "pid": self.args.worker_pid,
                "cpu_us_each_message": self.each_message_of(self.measured.worker),
            },
            "load": { "threads": self.args.threads * self.args.processes, "busy": self.load_part() },
            "went_well": self.went_well(),
        });
        let mut text = serde_json::to_string_pretty(&report).expect("numbers and texts have a form in JSON");
        text.push('\n');
        text
    }

    fn command(&self) -> String {
        let typed = self.args.typed.iter().map(|arg| arg.to_string_lossy());
        ["quickio-load".into()].into_iter().chain(typed).collect::<Vec<_>>().join(" ")
    }

    /// What was timed at all.
    fn figures(&self) -> impl Iterator<Item = (&'static str, Figures)> {
        let figures =
            Timed::ALL.into_iter().map(|(timed, name)| (name, self.outcome.latency(timed).figures()));
        figures.filter(|(_, figures)| figures.count > 0)
    }

    fn each_message(&self) -> Option<Spent> {
        self.each_message_of(self.measured.server)
    }

    fn each_message_of(&self, spent: Option<Spent>) -> Option<Spent> {
        spent?.each(self.measured.counts.messages())
    }

    fn each_connection(&self) -> Option<PerConnection> {
        let (before, after) = (self.measured.before?, self.measured.after?);
        let opened = self.outcome.counts.get(Count::Opened) as f64;
        let each = |after: u64, before: u64| (after as f64 - before as f64) / opened;
        (opened > 0.0).then(|| PerConnection {
            resident: each(after.resident, before.resident),
            anonymous: each(after.anonymous, before.anonymous),
        })
    }

    fn load_part(&self) -> f64 {
        let threads = (self.args.threads * self.args.processes) as f64;
        self.measured.load_us / 1e6 / self.measured.seconds / threads
    }

    fn lost(&self) -> u64 {
        self.lost_pings() + self.lost_deliveries()
    }

    /// Deliveries and answers beyond those that there should have been.
    fn doubled(&self) -> u64 {
        let counts = &self.outcome.counts;
        // A connection that broke has got some of what is expected of those that stayed.
        let whole = counts.get(Count::Broken) + counts.get(Count::Failed) == 0;
        let deliveries = counts.get(Count::Delivered).saturating_sub(self.outcome.expected());
        let answers = counts.get(Count::Pongs).saturating_sub(counts.get(Count::PingsSent));
        if whole { deliveries + answers } else { 0 }
    }

    fn lost_pings(&self) -> u64 {
        self.outcome.counts.get(Count::PingsSent).saturating_sub(self.outcome.counts.get(Count::Pongs))
    }

    fn lost_deliveries(&self) -> u64 {
        self.outcome.expected().saturating_sub(self.outcome.counts.get(Count::Delivered))
    }
}
