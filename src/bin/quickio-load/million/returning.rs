//! The step `return`: the server ends, and every client connects again.

use super::backoff::pause;
use super::client::ClientNumber;
use super::measured::{latency_json, seconds};
use super::network::NetworkCounters;
use super::run::StepRunner;
use crate::clock;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Write;

/// The time limit of each part of an opening, which is that of the client library.
const HANDSHAKE_NS: u64 = 5_000_000_000;

/// The clients that wait for their next attempt, by its time.
#[derive(Default)]
struct Pausing(BinaryHeap<Reverse<(u64, ClientNumber)>>);

impl Pausing {
    fn add(&mut self, client: ClientNumber, until: u64) {
        self.0.push(Reverse((until, client)));
    }

    fn next_due(&self) -> Option<u64> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    fn take_due(&mut self, now: u64) -> Option<ClientNumber> {
        self.next_due().filter(|at| *at <= now)?;
        self.0.pop().map(|Reverse((_, client))| client)
    }
}

impl<W: Write> StepRunner<'_, W> {
    /// Waits until the server has ended, and connects every client again.
    pub fn come_back(&mut self) -> Result<Value, String> {
        let network = NetworkCounters::read();
        let clients = self.swarm.open() as u64;
        let limit = self.swarm.time_limit;
        self.swarm.time_limit = limit.min(HANDSHAKE_NS);
        self.write(&json!({ "ready": "return" }))?;
        let (mut pausing, mut attempts) = (Pausing::default(), 0);
        let (mut at_99, mut at_100) = (None, None);
        while at_100.is_none() && !self.has_stalled() {
            let now = clock::now();
            while let Some(client) = pausing.take_due(now) {
                attempts += 1;
                self.swarm.open_later(client);
            }
            self.swarm.turn(pausing.next_due().unwrap_or(u64::MAX))?;
            let now = clock::now();
            for client in self.swarm.closed() {
                pausing.add(*client, now + pause(*client, self.swarm.failures(*client)));
            }
            let (lost, open) = (self.swarm.measured.ends(), self.swarm.open() as u64);
            if lost >= clients {
                at_99 = at_99.or((open * 100 >= clients * 99).then_some(now));
                at_100 = (open >= clients).then_some(now);
            }
            self.progress
                .show(|| format!("return: {lost} of {clients} lost, {open} open, {attempts} attempts"));
        }
        self.swarm.time_limit = limit;
        let measured = &self.swarm.measured;
        let first = measured.ends_span().map(|(first, _)| first);
        let since = |at: Option<u64>| at.zip(first).map(|(at, first)| seconds(at.saturating_sub(first)));
        Ok(json!({
            "step": "return", "lost": measured.ends(), "ends": measured.ends_json(), "back": self.swarm.open(),
            "seconds_to_99": since(at_99), "seconds_to_100": since(at_100), "refusals": measured.refusals(),
            "attempts": attempts, "first_answer": measured.first_answer_json(), "opened": latency_json(&measured.opened),
            "failures": measured.failures_json(), "failure_times": measured.failure_times_json(),
            "kernel": network.increase_json(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_made_in_the_order_of_their_times() {
        let mut pausing = Pausing::default();
        [(7, 30), (8, 10), (9, 20)].into_iter().for_each(|(client, until)| pausing.add(client, until));
        assert_eq!(pausing.next_due(), Some(10));
        assert_eq!(
            [pausing.take_due(20), pausing.take_due(20), pausing.take_due(20)],
            [Some(8), Some(9), None]
        );
        assert_eq!(pausing.take_due(30), Some(7));
    }
}
