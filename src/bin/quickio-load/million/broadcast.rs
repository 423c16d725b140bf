//! The step `broadcast`: one event to all clients, while some of them ping.

use super::deliveries::Deliveries;
use super::measured::{latency_json, ms};
use super::pinging::Pingers;
use super::run::StepRunner;
use crate::blocking::{self, NUMBERS_FROM};
use crate::clock;
use crate::encoder::Burst;
use crate::plan::{Plan, Room};
use serde_json::{Value, json};
use std::io::Write;

/// How long pings go on before the event, and at least after it.
const PINGS_NS: u64 = 1_000_000_000;

/// How long nothing may be delivered before the step ends, and how long the answers to pings may then take.
const SILENCE_NS: u64 = 20_000_000_000;

impl<W: Write> StepRunner<'_, W> {
    /// Publishes one event to all clients.
    pub fn broadcast(&mut self) -> Result<Value, String> {
        // The clients are worth more than this step.
        let failed = |error: String| Ok(json!({ "step": "broadcast", "error": error }));
        let publisher = match blocking::open(self.plan, NUMBERS_FROM, None, None) {
            Ok((socket, _)) => socket,
            Err(error) => return failed(error),
        };
        let begin = clock::now();
        self.swarm.pingers = Pingers::new(begin, self.million.pingers, self.swarm.clients());
        self.turns_until(begin + PINGS_NS)?;
        let expected = self.swarm.open() as u64;
        let at = clock::now();
        self.swarm.deliveries = Deliveries::new(at, u32::MAX);
        self.swarm.pingers.measured_from = at;
        let event = Burst::new(&Plan { burst: 1, ..self.plan.clone() }, Room::Everyone).at(at);
        if let Err(error) = (&publisher).write_all(event.as_slice()) {
            self.swarm.pingers = Pingers::default();
            return failed(format!("cannot publish: {error}"));
        }
        self.wait_for_deliveries(at, expected + self.swarm.measured.ends())?;
        self.wait_for_pings()?;
        let pingers = std::mem::take(&mut self.swarm.pingers);
        let deliveries = &self.swarm.deliveries;
        let latency = deliveries.latency.summary();
        let since = |time: u64| ms(time.saturating_sub(at));
        Ok(json!({
            "step": "broadcast", "expected": expected, "delivered": deliveries.delivered,
            "duplicated": deliveries.duplicated, "late": deliveries.late, "lost": self.swarm.measured.ends(),
            "ends": self.swarm.measured.ends_json(),
            "first_ms": since(deliveries.first), "p50_ms": latency.p50 / 1e3, "p99_ms": latency.p99 / 1e3,
            "p999_ms": latency.p999 / 1e3, "max_ms": latency.max / 1e3, "last_ms": since(deliveries.last),
            "pings": latency_json(&pingers.latency), "pings_before": latency_json(&pingers.before),
            "pings_sent": pingers.sent, "pings_unanswered": pingers.unanswered(),
        }))
    }

    /// Waits until the deliveries and the clients that were lost in this step are as many as `all`.
    fn wait_for_deliveries(&mut self, at: u64, all: u64) -> Result<(), String> {
        loop {
            let now = clock::now();
            let Deliveries { delivered, last, .. } = self.swarm.deliveries;
            let is_over = delivered + self.swarm.measured.ends() >= all || now > last.max(at) + SILENCE_NS;
            if is_over && now >= at + PINGS_NS {
                return Ok(());
            }
            self.progress.show(|| format!("broadcast: {delivered} of {all} delivered"));
            self.swarm.turn(now + PINGS_NS)?;
        }
    }

    /// Waits for the answers to all pings: without those that take the longest, the latencies would be too good.
    fn wait_for_pings(&mut self) -> Result<(), String> {
        let now = clock::now();
        self.swarm.pingers.stop(now);
        while self.swarm.pingers.unanswered() > 0 && clock::now() < now + SILENCE_NS {
            self.swarm.turn(now + SILENCE_NS)?;
        }
        Ok(())
    }
}
