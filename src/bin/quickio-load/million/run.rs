//! Runs the steps: reads a line, runs its step, writes its report. Between the steps the clients go on to answer the
//! server.

use super::cause::EndCause;
use super::measured::{Measured, ms, seconds};
use super::network::NetworkCounters;
use super::plan::MillionPlan;
use super::steps::MillionStep;
use super::swarm::Swarm;
use crate::blocking::{self, NUMBERS_FROM};
use crate::clock;
use crate::plan::{Plan, Room};
use crate::progress::Progress;
use quickio::qev::probe;
use serde_json::{Map, Value, json};
use std::io::{self, BufRead, Write};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::Duration;

/// How long a step may wait for the first of the events that it is about, such as the end of the server.
const FIRST_EVENT_LIMIT_NS: u64 = 600_000_000_000;

/// How long a step waits after the last such event before it gives up.
const SILENCE_NS: u64 = 60_000_000_000;

/// The clients, and the output of the steps.
pub struct StepRunner<'a, W> {
    pub plan: &'a Plan,
    pub million: &'a MillionPlan,
    pub swarm: Swarm<'a>,
    pub progress: Progress,
    out: W,
}

/// Runs the steps that standard input requests. Returns whether all could run.
pub fn run(plan: &Plan, million: &MillionPlan, quiet: bool) -> Result<bool, String> {
    probe::probe().map_err(|missing| missing.to_string())?;
    clock::request_precise_wakeups();
    blocking::open(plan, NUMBERS_FROM, Some(Room::Everyone), None)?;
    run_lines(plan, million, quiet, read_lines(), io::stdout())
}

/// Runs the steps of some lines, and writes the reports to `out`.
fn run_lines(
    plan: &Plan,
    million: &MillionPlan,
    quiet: bool,
    lines: Receiver<String>,
    out: impl Write,
) -> Result<bool, String> {
    let swarm = Swarm::new(plan, million)?;
    let mut runner = StepRunner { plan, million, swarm, progress: Progress::new(quiet), out };
    loop {
        match lines.try_recv() {
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) => runner.run_step(MillionStep::parse(line.trim())?)?,
            Err(TryRecvError::Empty) => runner.swarm.turn(u64::MAX)?,
            Err(TryRecvError::Disconnected) => return Ok(true),
        }
    }
}

/// Reads lines in a thread of its own.
fn read_lines() -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let lines = io::stdin().lock().lines();
        lines.map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    receiver
}

impl<W: Write> StepRunner<'_, W> {
    fn run_step(&mut self, step: MillionStep) -> Result<(), String> {
        self.swarm.measured = Measured::new(clock::now());
        let report = match step {
            MillionStep::Connect => self.connect()?,
            MillionStep::Hold { time } => self.hold(time)?,
            MillionStep::Broadcast => self.broadcast()?,
            MillionStep::Rooms { time, rate, churn } => self.rooms(time, rate, churn)?,
            MillionStep::Return => self.come_back()?,
            MillionStep::Stop => self.stop()?,
        };
        self.progress.end();
        self.write(&report)
    }

    /// Writes a line of JSON to the output.
    pub fn write(&mut self, value: &Value) -> Result<(), String> {
        let written = writeln!(self.out, "{value}").and_then(|()| self.out.flush());
        written.map_err(|error| format!("cannot write to standard output: {error}"))
    }

    /// Opens all clients.
    fn connect(&mut self) -> Result<Value, String> {
        let network = NetworkCounters::read();
        let clients = self.swarm.clients();
        self.swarm.open_all_later();
        while !self.swarm.has_opened_all() {
            self.swarm.turn(u64::MAX)?;
            let (open, failed) = (self.swarm.open(), self.swarm.measured.failures());
            self.progress.show(|| format!("connect: {open} of {clients} open, {failed} failed"));
        }
        let measured = &self.swarm.measured;
        let took = seconds(clock::now() - measured.began);
        let opened = measured.opened.count();
        let mut report = members(json!({
            "step": "connect", "connected": self.swarm.open(), "failed": measured.failures(),
            "failures": measured.failures_json(), "failure_times": measured.failure_times_json(),
            "seconds": took, "rate": opened as f64 / took, "lost": measured.ends(), "ends": measured.ends_json(),
        }));
        report.extend(measured.openings_json());
        report.insert("kernel".into(), network.increase_json());
        Ok(report.into())
    }

    /// Answers heartbeats for some time.
    fn hold(&mut self, time: Duration) -> Result<Value, String> {
        let until = clock::now() + time.as_nanos() as u64;
        while clock::now() < until {
            self.swarm.turn(until)?;
            let (open, heartbeats) = (self.swarm.open(), self.swarm.measured.heartbeats);
            let left = seconds(until.saturating_sub(clock::now()));
            self.progress.show(|| format!("hold: {open} open, {heartbeats} heartbeats, {left:.0} s left"));
        }
        let measured = &self.swarm.measured;
        Ok(json!({
            "step": "hold", "seconds": seconds(clock::now() - measured.began), "open": self.swarm.open(),
            "heartbeats": measured.heartbeats, "lost": measured.ends(), "ends": measured.ends_json(),
        }))
    }

    /// Waits until every client has been told to leave.
    fn stop(&mut self) -> Result<Value, String> {
        let clients = self.swarm.open();
        self.write(&json!({ "ready": "stop" }))?;
        while self.swarm.open() > 0 && !self.has_stalled() {
            self.swarm.turn(u64::MAX)?;
            let told = clients - self.swarm.open();
            self.progress.show(|| format!("stop: {told} of {clients} told to leave"));
        }
        let measured = &self.swarm.measured;
        let (first, last) = measured.ends_span().unwrap_or_default();
        let told = measured.ends_by(&EndCause::Closed(Some(1001)));
        Ok(json!({
            "step": "stop", "clients": clients, "closed_1001": told.count, "closes": measured.ends_json(),
            "still_open": self.swarm.open(), "seconds": seconds(last - first), "first_ms": ms(told.first.saturating_sub(first)),
            "last_ms": ms(told.last.saturating_sub(first)),
        }))
    }

    /// Handles what happens until a time.
    pub fn turns_until(&mut self, until: u64) -> Result<(), String> {
        while clock::now() < until {
            self.swarm.turn(until)?;
        }
        Ok(())
    }

    /// Returns whether a step that waits for the server's end has waited long enough since anything has happened.
    pub fn has_stalled(&self) -> bool {
        let measured = &self.swarm.measured;
        let now = clock::now();
        match measured.last_change() {
            Some(last) => now > last + SILENCE_NS,
            None => now > measured.began + FIRST_EVENT_LIMIT_NS,
        }
    }
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => unreachable!("a report is an object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Protocol, Scenario};
    use crate::test_server::{self, Fault};
    use std::net::SocketAddr;

    /// Returns the reports of steps with 70 clients in 3 rings and 7 rooms, against a test server.
    fn reports(lines: &[&str], fault: Fault) -> Result<Vec<Value>, String> {
        reports_from(test_server::start(Protocol::WebSocket, fault), lines)
    }

    fn reports_from(server: SocketAddr, lines: &[&str]) -> Result<Vec<Value>, String> {
        let plan = Plan {
            server,
            connect_window: 20,
            connect_timeout: Duration::from_millis(300),
            ..Plan::new(Scenario::Million)
        };
        let million =
            MillionPlan { clients: 70, rooms: 7, clients_per_ring: Some(30), ..MillionPlan::default() };
        let (sender, receiver) = channel();
        lines.iter().for_each(|line| sender.send((*line).into()).unwrap());
        drop(sender);
        let mut out = Vec::new();
        run_lines(&plan, &million, true, receiver, &mut out)?;
        Ok(String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    #[test]
    fn all_clients_open_and_stay() {
        let reports = reports(&["connect", "", "hold 0.1", "connect"], Fault::None).unwrap();
        let (connect, hold) = (&reports[0], &reports[1]);
        assert_eq!((&connect["step"], &connect["connected"]), (&json!("connect"), &json!(70)));
        assert_eq!((&connect["failed"], &connect["failures"]), (&json!(0), &json!({})));
        for latency in ["opened", "tcp", "upgrade", "hello", "subscriptions"] {
            assert_eq!(connect[latency]["count"], 70, "{latency}");
            assert!(connect[latency]["max_ms"].as_f64().unwrap() > 0.0, "{latency}");
        }
        assert_eq!((&hold["step"], &hold["open"], &hold["lost"]), (&json!("hold"), &json!(70), &json!(0)));
        let again = &reports[2];
        assert_eq!(
            (&again["connected"], &again["opened"]["count"]),
            (&json!(70), &json!(0)),
            "all were open"
        );
    }

    #[test]
    fn failures_tell_their_part_and_cause() {
        for (fault, reason) in [
            (Fault::RefusesUpgrades, "upgrade: upgrade refused: 503 Service Unavailable"),
            (
                Fault::RefusesSubscriptions,
                "subscriptions: refused: /qio/callback/1:0={\"code\":420,\"data\":null}",
            ),
            (Fault::IgnoresGreetings, "hello: no answer within 0.3 s"),
        ] {
            let report = &reports(&["connect"], fault).unwrap()[0];
            assert_eq!((&report["connected"], &report["failed"]), (&json!(0), &json!(70)), "{report:#}");
            assert_eq!(report["failures"], json!({ reason: 70 }));
            let times = &report["failure_times"][0];
            assert_eq!((&times["reason"], &times["count"]), (&json!(reason), &json!(70)));
            assert_eq!(times["waited"]["count"], 70);
        }
    }

    #[test]
    fn every_client_that_is_told_to_leave_is_counted() {
        let reports = reports(&["connect", "stop"], Fault::DismissesSubscribers).unwrap();
        let stop = reports.last().unwrap();
        let told = reports[0]["ends"]["closed by the server with 1001"].as_u64().unwrap_or(0);
        assert_eq!(reports[reports.len() - 2], json!({ "ready": "stop" }));
        assert_eq!(stop["closed_1001"].as_u64().unwrap() + told, 70, "{reports:#?}");
        assert_eq!(stop["still_open"], 0);
    }

    #[test]
    fn one_event_reaches_all_clients_while_some_ping() {
        let broadcast = &reports(&["connect", "broadcast"], Fault::None).unwrap()[1];
        assert_eq!(
            (&broadcast["expected"], &broadcast["delivered"]),
            (&json!(70), &json!(70)),
            "{broadcast:#}"
        );
        assert_eq!((&broadcast["duplicated"], &broadcast["lost"]), (&json!(0), &json!(0)));
        let ms = |name: &str| broadcast[name].as_f64().unwrap();
        assert!(0.0 < ms("first_ms") && ms("first_ms") <= ms("last_ms"), "{broadcast:#}");
        let pings = |name: &str| broadcast[name]["count"].as_u64().unwrap();
        assert!(pings("pings") > 0 && pings("pings_before") > 0, "{broadcast:#}");
        assert_eq!(broadcast["pings_sent"], json!(pings("pings") + pings("pings_before")), "{broadcast:#}");
        assert_eq!(broadcast["pings_unanswered"], 0, "{broadcast:#}");
    }

    #[test]
    fn every_event_of_a_room_reaches_its_members_also_during_churn() {
        let reports = reports(&["connect", "rooms 0.5 10", "rooms 0.5 10 40"], Fault::None).unwrap();
        let (quiet, churn) = (&reports[1], &reports[2]);
        assert_eq!((&quiet["published"], &quiet["expected"]), (&json!(35), &json!(350)), "{quiet:#}");
        assert_eq!((&quiet["delivered"], &quiet["churned"]), (&json!(350), &json!(0)), "{quiet:#}");
        assert_eq!(churn["delivered"], churn["expected"], "{churn:#}");
        assert_eq!(churn["expected"], json!(35 * 9), "one of ten takes part in the churn: {churn:#}");
        for report in [quiet, churn] {
            assert_eq!((&report["lost"], &report["duplicated"]), (&json!(0), &json!(0)), "{report:#}");
            assert_eq!((&report["failed"], &report["lost_clients"]), (&json!(0), &json!(0)), "{report:#}");
        }
        let churned = churn["churned"].as_u64().unwrap();
        assert!(churned > 0 && churned + churn["churn_skipped"].as_u64().unwrap() == 20, "{churn:#}");
        assert_eq!(churn["opened"]["count"], churned, "{churn:#}");
    }

    #[test]
    fn a_broadcast_that_cannot_be_published_is_reported_and_the_run_goes_on() {
        let reports = reports(&["connect", "broadcast", "hold 0.1"], Fault::RefusesUpgrades).unwrap();
        assert_eq!(
            reports[1],
            json!({ "step": "broadcast", "error": "upgrade refused: 503 Service Unavailable" })
        );
        assert_eq!(reports[2]["step"], "hold");
    }

    #[test]
    fn every_client_comes_back() {
        let server = test_server::start(Protocol::WebSocket, Fault::EndsAllOnce);
        let reports = reports_from(server, &["connect", "return", "hold 0.1"]).unwrap();
        let (ready, back) = (&reports[1], &reports[2]);
        assert_eq!(ready, &json!({ "ready": "return" }));
        assert_eq!((&back["lost"], &back["back"]), (&json!(70), &json!(70)), "{back:#}");
        let refused = back["refusals"].as_u64().unwrap();
        assert!(back["attempts"].as_u64().unwrap() >= 70 + refused, "{back:#}");
        assert!(back["seconds_to_99"].as_f64().unwrap() <= back["seconds_to_100"].as_f64().unwrap());
        assert!(back["first_answer"]["count"].as_u64().unwrap() >= 70, "{back:#}");
        assert_eq!(reports[3]["open"], 70);
    }

    #[test]
    fn an_invalid_line_ends_the_run() {
        let error = reports(&["jump"], Fault::None).unwrap_err();
        assert!(error.starts_with("there is no step `jump`; the steps are: connect"), "{error}");
    }
}
