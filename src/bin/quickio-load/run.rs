//! The steps of a run: check the server, connect, settle, warm up, measure, drain, report.

use crate::args::Args;
use crate::blocking;
use crate::clock;
use crate::plan::{Plan, Role, Window};
use crate::pool::WorkerPool;
use crate::process::{CpuTime, MemoryUsage};
use crate::progress::Progress;
use crate::report::{Measurements, Report};
use crate::results::{Counter, Counters, Results};
use quickio::qev::probe;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The interval at which the workers are polled.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The delay between the start request to the workers and the start of the load.
const START_DELAY: Duration = Duration::from_millis(100);

/// How long nothing may be received before missing messages are considered lost. On a busy machine a thread may have
/// to wait a second until it runs.
const SILENCE: Duration = Duration::from_secs(2);

/// Runs the plan and prints the report. Returns whether the run had no errors.
pub fn run(args: &Args) -> Result<bool, String> {
    let report = execute(args)?;
    let printed = crate::print(&report.table().to_string());
    if let Some(file) = &args.json {
        let written = fs::write(file, report.json());
        written.map_err(|error| format!("{}: {error}", file.display()))?;
    }
    printed.map(|()| report.went_well())
}

fn execute(args: &Args) -> Result<Report<'_>, String> {
    let plan = &args.plan;
    probe::probe().map_err(|missing| missing.to_string())?;
    clock::request_precise_wakeups();
    blocking::check_server(plan)?;
    let mut progress = Progress::new(args.quiet);
    let memory_before = args.server_pid.map(MemoryUsage::of).transpose()?;
    let mut pool = WorkerPool::start(args)?;
    if !connect(plan, &mut pool, &mut progress)? {
        progress.end();
        return Err(nothing_opened(&pool.stop()?));
    }
    sleep(plan.settle);
    let memory = args.server_pid.map(MemoryUsage::of).transpose()?;
    let mut measured = measure(args, &mut pool, &mut progress)?;
    let memory_after = args.server_pid.map(MemoryUsage::of).transpose()?;
    (measured.memory_before, measured.memory, measured.memory_after) = (memory_before, memory, memory_after);
    drain(plan, &mut pool)?;
    progress.end();
    Ok(Report::new(args, measured, pool.stop()?))
}

/// Waits until all connections are open. Returns whether at least one is.
fn connect(plan: &Plan, pool: &mut WorkerPool, progress: &mut Progress) -> Result<bool, String> {
    let all = (plan.connections() - plan.count(Role::Churner)) as u64;
    let deadline = Instant::now() + plan.connect_timeout;
    loop {
        let counters = pool.counters()?;
        let (opened, failed) = (counters.get(Counter::Opened), counters.get(Counter::Failed));
        progress.show(|| format!("connecting: {opened} of {all} open, {failed} failed"));
        if opened + failed >= all || Instant::now() > deadline {
            return Ok(opened > 0 || all == 0);
        }
        sleep(POLL_INTERVAL);
    }
}

/// Returns the error of a run in which no connection opened.
fn nothing_opened(results: &Results) -> String {
    let errors: Vec<String> = results.errors.iter().map(|(text, n)| format!("{text} ({n} times)")).collect();
    format!("no connection opened: {}", errors.join("; "))
}

/// Starts the load and measures for the duration of the plan.
fn measure(args: &Args, pool: &mut WorkerPool, progress: &mut Progress) -> Result<Measurements, String> {
    let plan = &args.plan;
    let begin = clock::now() + START_DELAY.as_nanos() as u64;
    let from = begin + plan.warmup.as_nanos() as u64;
    let window = Window { begin, from, until: from + plan.seconds.as_nanos() as u64 };
    pool.start_load(window)?;
    wait_until(pool, progress, window.from, "warming up")?;
    let start = Sample::take(args, pool)?;
    wait_until(pool, progress, window.until, "measuring")?;
    let end = Sample::take(args, pool)?;
    Ok(end.since(&start))
}

/// Waits until a time, and shows the progress.
fn wait_until(pool: &mut WorkerPool, progress: &mut Progress, until: u64, what: &str) -> Result<(), String> {
    let mut last = (clock::now(), pool.counters()?);
    while clock::now() < until {
        sleep(POLL_INTERVAL.min(Duration::from_nanos(until.saturating_sub(clock::now()))));
        if progress.is_due() {
            let now = (clock::now(), pool.counters()?);
            let seconds = (now.0 - last.0) as f64 / 1e9;
            let rate = now.1.since(last.1).messages() as f64 / seconds;
            let left = Duration::from_nanos(until.saturating_sub(now.0)).as_secs_f64();
            progress.show(|| format!("{what}: {rate:.0} messages/s, {left:.0} s left"));
            last = now;
        }
    }
    Ok(())
}

/// Waits until everything was received, or nothing for a while.
fn drain(plan: &Plan, pool: &mut WorkerPool) -> Result<(), String> {
    let end = Instant::now() + plan.drain;
    let (mut last, mut since) = (pool.counters()?, Instant::now());
    while !last.is_complete() && Instant::now() < end && since.elapsed() < SILENCE {
        sleep(POLL_INTERVAL);
        let counters = pool.counters()?;
        if counters != last {
            (last, since) = (counters, Instant::now());
        }
    }
    Ok(())
}

/// A sample of all counters at one time.
struct Sample {
    at: u64,
    counters: Counters,
    server: Option<CpuTime>,
    worker: Option<CpuTime>,
    load: Vec<CpuTime>,
}

impl Sample {
    fn take(args: &Args, pool: &mut WorkerPool) -> Result<Sample, String> {
        let server = args.server_pid.map(CpuTime::of).transpose()?;
        let worker = args.worker_pid.map(CpuTime::of).transpose()?;
        Ok(Sample { at: clock::now(), counters: pool.counters()?, server, worker, load: pool.cpu_times() })
    }

    fn since(&self, start: &Sample) -> Measurements {
        let server = self.server.zip(start.server).map(|(end, start)| end.since(start));
        let worker = self.worker.zip(start.worker).map(|(end, start)| end.since(start));
        let load = self.load.iter().zip(&start.load).map(|(end, start)| end.since(*start).total).sum();
        Measurements {
            seconds: (self.at - start.at) as f64 / 1e9,
            counters: self.counters.since(start.counters),
            server,
            worker,
            load_us: load,
            memory_before: None,
            memory: None,
            memory_after: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{self, Command};
    use crate::plan::Protocol;
    use crate::test_server::{self, Fault};
    use serde_json::Value;

    /// Returns the JSON report of a short run against a test server.
    fn report(words: &str, protocol: Protocol, fault: Fault) -> Result<Value, String> {
        let server = test_server::start(protocol, fault);
        let common = "--quiet --seconds 0.2 --warmup 0.05 --settle 0";
        let line = format!("{words} {common} --server {server} --protocol {}", protocol.name());
        let words = line.split_ascii_whitespace().map(Into::into);
        let Ok(Command::Run(args)) = args::parse(words) else { panic!("{line}") };
        let report = execute(&args)?;
        assert!(report.table().contains("connections"));
        Ok(serde_json::from_str(&report.json()).unwrap())
    }

    /// Returns the reports of runs over both protocols, which must not have errors.
    fn good_reports(words: &str) -> impl Iterator<Item = Value> {
        [Protocol::WebSocket, Protocol::Raw].into_iter().map(move |protocol| {
            let report = report(words, protocol, Fault::None).unwrap();
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
    fn churners_connect_repeatedly() {
        for words in
            ["churn --connections 4", "churn --connections 4 --rate 100", "churn --connections 4 --no-ping"]
        {
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
    fn reports_errors() {
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
    fn reports_a_server_that_is_not_running() {
        let words = "ping --server 127.0.0.1:1".split(' ').map(Into::into);
        let Ok(Command::Run(args)) = args::parse(words) else { panic!("it parses") };
        let error = execute(&args).map(|_| ()).unwrap_err();
        assert_eq!(
            error,
            "no connection to 127.0.0.1:1: Connection refused (os error 111). Nothing listens there: start the \
             server, or give its address with --server"
        );
    }
}
