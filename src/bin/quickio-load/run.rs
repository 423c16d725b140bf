//! The order of a run: look whether the server is there, connect, settle, warm up, measure, drain, report.

use crate::args::Args;
use crate::clock;
use crate::fleet::Fleet;
use crate::outcome::{Count, Counts, Outcome};
use crate::plan::{Plan, Role, Window};
use crate::report::{Measured, Report};
use crate::server::{Cpu, Memory};
use crate::slow;
use quickio::qev::probe;
use std::fs;
use std::io::{IsTerminal, Write, stderr};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Between telling the workers to begin and the begin.
const START: Duration = Duration::from_millis(100);

/// Something is missing, but nothing has come for so long: nothing more will. On a machine that is busy with
/// other things a second may pass before a thread runs.
const SILENCE: Duration = Duration::from_secs(2);

/// Runs the plan, prints the report; whether all went well.
pub fn run(args: &Args) -> Result<bool, String> {
    let report = carry_out(args)?;
    print!("{}", report.table());
    if let Some(file) = &args.json {
        let written = fs::write(file, report.json());
        written.map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(report.went_well())
}

fn carry_out(args: &Args) -> Result<Report<'_>, String> {
    let plan = &args.plan;
    probe::probe().map_err(|missing| missing.to_string())?;
    wake_on_time();
    slow::try_one(plan)?;
    let mut progress = Progress::new(args.quiet);
    let before = args.server_pid.map(Memory::of).transpose()?;
    let mut fleet = Fleet::start(args)?;
    if !connect(plan, &mut fleet, &mut progress)? {
        progress.end();
        return Err(nothing_opened(&fleet.stop()?));
    }
    sleep(plan.settle);
    let after = args.server_pid.map(Memory::of).transpose()?;
    let mut measured = measure(args, &mut fleet, &mut progress)?;
    (measured.before, measured.after) = (before, after);
    drain(plan, &mut fleet)?;
    progress.end();
    Ok(Report::new(args, measured, fleet.stop()?))
}

/// Asks the kernel to wake us when we asked for, not up to 50 us later. Threads inherit this from us.
fn wake_on_time() {
    // Where it is refused, wake-ups are a little late, and latencies tell so.
    let _ = fs::write("/proc/self/timerslack_ns", "1");
}

/// Waits for the connections; whether there are any.
fn connect(plan: &Plan, fleet: &mut Fleet, progress: &mut Progress) -> Result<bool, String> {
    let all = (plan.connections() - plan.count(Role::Churner)) as u64;
    let deadline = Instant::now() + plan.connect_timeout;
    loop {
        let counts = fleet.counts()?;
        let (opened, failed) = (counts.get(Count::Opened), counts.get(Count::Failed));
        progress.show(|| format!("connecting: {opened} of {all} open, {failed} failed"));
        if opened + failed >= all || Instant::now() > deadline {
            return Ok(opened > 0 || all == 0);
        }
        sleep(LOOK);
    }
}

fn nothing_opened(outcome: &Outcome) -> String {
    let errors: Vec<String> = outcome.errors.iter().map(|(text, n)| format!("{text} ({n} times)")).collect();
    format!("no connection opened: {}", errors.join("; "))
}

/// Puts the load on, and measures over the plan's seconds.
fn measure(args: &Args, fleet: &mut Fleet, progress: &mut Progress) -> Result<Measured, String> {
    let plan = &args.plan;
    let begin = clock::now() + START.as_nanos() as u64;
    let from = begin + plan.warmup.as_nanos() as u64;
    let window = Window { begin, from, until: from + plan.seconds.as_nanos() as u64 };
    fleet.go(window)?;
    watch(fleet, progress, window.from, "warming up")?;
    let start = Sample::take(args, fleet)?;
    watch(fleet, progress, window.until, "measuring")?;
    let end = Sample::take(args, fleet)?;
    Ok(end.since(&start))
}

/// Waits until that time, and shows what happens.
fn watch(fleet: &mut Fleet, progress: &mut Progress, until: u64, what: &str) -> Result<(), String> {
    let mut last = (clock::now(), fleet.counts()?);
    while clock::now() < until {
        sleep(LOOK.min(Duration::from_nanos(until.saturating_sub(clock::now()))));
        if progress.is_due() {
            let now = (clock::now(), fleet.counts()?);
            let seconds = (now.0 - last.0) as f64 / 1e9;
            let rate = now.1.since(last.1).messages() as f64 / seconds;
            let left = Duration::from_nanos(until.saturating_sub(now.0)).as_secs_f64();
            progress.show(|| format!("{what}: {rate:.0} messages/s, {left:.0} s left"));
            last = now;
        }
    }
    Ok(())
}

/// Waits until everything has come, or nothing for a while.
fn drain(plan: &Plan, fleet: &mut Fleet) -> Result<(), String> {
    let end = Instant::now() + plan.drain;
    let (mut last, mut since) = (fleet.counts()?, Instant::now());
    while !last.is_all_there() && Instant::now() < end && since.elapsed() < SILENCE {
        sleep(LOOK);
        let counts = fleet.counts()?;
        if counts != last {
            (last, since) = (counts, Instant::now());
        }
    }
    Ok(())
}

/// Where everything stands at one time.
struct Sample {
    at: u64,
    counts: Counts,
    server: Option<Cpu>,
    worker: Option<Cpu>,
    load: Vec<Cpu>,
}

impl Sample {
    fn take(args: &Args, fleet: &mut Fleet) -> Result<Sample, String> {
        let server = args.server_pid.map(Cpu::of).transpose()?;
        let worker = args.worker_pid.map(Cpu::of).transpose()?;
        Ok(Sample { at: clock::now(), counts: fleet.counts()?, server, worker, load: fleet.cpus() })
    }

    fn since(&self, start: &Sample) -> Measured {
        let server = self.server.zip(start.server).map(|(end, start)| end.since(start));
        let worker = self.worker.zip(start.worker).map(|(end, start)| end.since(start));
        let load = self.load.iter().zip(&start.load).map(|(end, start)| end.since(*start).total).sum();
        Measured {
            seconds: (self.at - start.at) as f64 / 1e9,
            counts: self.counts.since(start.counts),
            server,
            worker,
            load_us: load,
            before: None,
            after: None,
        }
    }
}

/// One line on stderr: over and over on a terminal, a line a second elsewhere.
struct Progress {
    quiet: bool,
    terminal: bool,
    last: Option<Instant>,
}

impl Progress {
    fn new(quiet: bool) -> Progress {
        Progress { quiet, terminal: stderr().is_terminal(), last: None }
    }

    fn is_due(&self) -> bool {
        let interval = Duration::from_millis(if self.terminal { 200 } else { 1000 });
        !self.quiet && self.last.is_none_or(|last| last.elapsed() >= interval)
    }

    fn show(&mut self, text: impl FnOnce() -> String) {
        if !self.is_due() {
            return;
        }
        self.last = Some(Instant::now());
        // A terminal that is gone is no reason to end the run.
        let _ = match self.terminal {
            true => write!(stderr(), "\r\x1b[K{}", text()),
            false => writeln!(stderr(), "{}", text()),
        };
    }

    fn end(&mut self) {
        if self.terminal && !self.quiet {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{self, Command};
    use crate::peer::{self, Fault};
    use crate::plan::Protocol;
    use serde_json::Value;

    /// A short run against a server of the test's own: its report, as JSON.
    fn report(words: &str, protocol: Protocol, fault: Fault) -> Result<Value, String> {
        let server = peer::start(protocol, fault);
        let common = "--quiet --seconds 0.2 --warmup 0.05 --settle 0";
        let line = format!("{words} {common} --server {server} --protocol {}", protocol.name());
        let words = line.split_ascii_whitespace().map(Into::into);
        let Ok(Command::Run(args)) = args::parse(words) else { panic!("{line}") };
        let report = carry_out(&args)?;
        assert!(report.table().contains("connections"));
        Ok(serde_json::from_str(&report.json()).unwrap())
    }

    /// Both protocols; all has to go well.
    fn good_reports(words: &str) -> impl Iterator<Item = Value> {
        [Protocol::WebSocket, Protocol::Raw].into_iter().map(move |protocol| {
            let report = report(words, protocol, Fault::Nothing).unwrap();
            assert_eq!(report["went_well"], true, "{words}: {report:#}");
            report
        })
    }

    fn number(report: &Value, pointer: &str) -> u64 {
        report.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer}: {report:#}"))
    }

    #[test]
    fn hold_opens_and_subscribes_all() {
        for report in good_reports("hold --connections 150 --rooms 7 --threads 2") {
            assert_eq!(number(&report, "/connections/opened"), 150);
            assert_eq!(number(&report, "/latency_us/open/count"), 150);
        }
    }

    #[test]
    fn every_ping_is_answered_and_timed() {
        for words in ["ping --connections 5 --depth 3", "ping --connections 5 --rate 2000 --threads 2"] {
            for report in good_reports(words) {
                assert!(number(&report, "/whole_run/pings") > 15);
                assert_eq!(number(&report, "/whole_run/pings"), number(&report, "/whole_run/pongs"));
                assert!(number(&report, "/latency_us/ping/count") > 0);
            }
        }
    }

    #[test]
    fn every_event_reaches_every_subscriber() {
        for words in [
            "fanout --subscribers 20 --publishers 2",
            "fanout --subscribers 21 --publishers 2 --threads 2 --rate 200 --burst 3",
            "fanout --subscribers 5 --size 5000 --rate 50",
        ] {
            for report in good_reports(words) {
                let delivered = number(&report, "/whole_run/delivered");
                assert!(delivered > 0);
                assert_eq!(delivered, number(&report, "/whole_run/deliveries_expected"));
                assert!(number(&report, "/latency_us/delivery/count") > 0);
            }
        }
    }

    #[test]
    fn churners_come_and_go() {
        for words in ["churn --connections 4", "churn --connections 4 --rate 100"] {
            for report in good_reports(words) {
                assert!(number(&report, "/whole_run/cycles") > 4);
                assert!(number(&report, "/latency_us/cycle/count") > 0);
            }
        }
    }

    #[test]
    fn all_at_once() {
        let words = "mixed --subscribers 20 --pingers 5 --churners 3 --idle 10 --slow 2";
        for report in good_reports(words) {
            assert_eq!(number(&report, "/connections/opened"), 20 + 5 + 10 + 2);
            assert_eq!(number(&report, "/slow/opened"), 2);
            assert!(number(&report, "/whole_run/cycles") > 0);
        }
    }

    #[test]
    fn what_goes_wrong_is_told() {
        let refused = report("ping", Protocol::WebSocket, Fault::RefusesUpgrades);
        assert_eq!(refused.unwrap_err(), "upgrade refused: 503 Service Unavailable");
        let refused = report("hold --connections 3", Protocol::Raw, Fault::RefusesSubscriptions).unwrap_err();
        assert!(refused.contains("subscription refused (3 times)") && refused.contains("420"), "{refused}");
        let closed = report("ping --connections 3", Protocol::WebSocket, Fault::ClosesPingers).unwrap();
        assert_eq!(number(&closed, "/connections/broken"), 3);
        assert_eq!(number(&closed, "/errors/closed by the server: 1013 slow"), 3);
        assert_eq!(closed["went_well"], false);
    }

    #[test]
    fn a_server_that_is_not_there_is_named() {
        let words = "ping --server 127.0.0.1:1".split(' ').map(Into::into);
        let Ok(Command::Run(args)) = args::parse(words) else { panic!("it parses") };
        let error = carry_out(&args).map(|_| ()).unwrap_err();
        assert_eq!(error, "no connection to 127.0.0.1:1: Connection refused (os error 111)");
    }
}
