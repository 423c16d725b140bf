//! The clients that ping, each at a steady rate.

use super::client::ClientNumber;
use crate::pings::{OpenPings, PingSchedule};
use crate::results::LatencyHistogram;

/// The clients that ping: every `stride`-th client, which spreads them over rings and shards.
#[derive(Default)]
pub struct Pingers {
    schedule: PingSchedule,
    /// Pings that are intended for this time or later are not sent.
    until: u64,
    stride: usize,
    pings: Vec<OpenPings>,
    /// Pings that are intended for this time or later are measured; earlier ones only prepare for it.
    pub measured_from: u64,
    pub sent: u64,
    answered: u64,
    /// From the intended time of a ping to its answer, before and during the measurement.
    pub before: LatencyHistogram,
    pub latency: LatencyHistogram,
}

impl Pingers {
    /// Returns pingers among a number of clients, each with one ping a second from `begin` on.
    pub fn new(begin: u64, pingers: usize, clients: usize) -> Pingers {
        let pingers = pingers.min(clients);
        Pingers {
            schedule: PingSchedule::new(begin, pingers, pingers as f64),
            until: u64::MAX,
            stride: clients / pingers.max(1),
            pings: (0..pingers).map(OpenPings::of).collect(),
            measured_from: u64::MAX,
            ..Pingers::default()
        }
    }

    /// Returns the next client whose ping is due, with the number of pings that it must send now.
    pub fn take_due(&mut self, now: u64) -> Option<(ClientNumber, usize)> {
        let position = self.schedule.take_due(now, self.until)? as usize;
        self.pings[position].add_due();
        let count = self.pings[position].take_due();
        Some(((position * self.stride) as ClientNumber, count))
    }

    /// Returns the time of the next ping.
    pub fn next_due(&self) -> Option<u64> {
        self.schedule.next_due().filter(|at| *at < self.until)
    }

    /// Ends the pings that are intended for `until` or later.
    pub fn stop(&mut self, until: u64) {
        self.until = until;
    }

    /// Returns the number of pings that were sent and not answered.
    pub fn unanswered(&self) -> u64 {
        self.sent.saturating_sub(self.answered)
    }

    /// Records answers that a client has received.
    pub fn answered(&mut self, client: ClientNumber, answers: u8, now: u64) {
        let position = client as usize / self.stride.max(1);
        let Some(pings) = self.pings.get_mut(position) else { return };
        for _ in 0..answers {
            let Some(intended) = pings.answered(&self.schedule) else { return };
            self.answered += 1;
            let latency = if intended < self.measured_from { &mut self.before } else { &mut self.latency };
            latency.record(now.saturating_sub(intended));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn pingers_are_spread_and_each_pings_once_a_second() {
        let mut pingers = Pingers::new(SECOND, 4, 100);
        pingers.measured_from = 2 * SECOND;
        let due: Vec<_> = std::iter::from_fn(|| pingers.take_due(2 * SECOND)).collect();
        assert_eq!(due, [(0, 1), (25, 1), (50, 1), (75, 1), (0, 1)]);
        assert_eq!(pingers.next_due(), Some(2 * SECOND + SECOND / 4));
        pingers.sent = due.len() as u64;
        pingers.answered(0, 2, 3 * SECOND);
        pingers.answered(25, 9, 3 * SECOND);
        assert_eq!((pingers.answered, pingers.unanswered()), (3, 2));
        let count = |latency: &LatencyHistogram| latency.summary().count;
        assert_eq!((count(&pingers.before), count(&pingers.latency)), (2, 1));
    }

    #[test]
    fn nobody_pings_after_the_end() {
        let mut pingers = Pingers::new(SECOND, 4, 100);
        pingers.stop(SECOND + SECOND / 2);
        let due: Vec<_> = std::iter::from_fn(|| pingers.take_due(9 * SECOND)).collect();
        assert_eq!((due, pingers.next_due()), (vec![(0, 1), (25, 1)], None));
    }

    #[test]
    fn nobody_pings_without_pingers() {
        let mut none = Pingers::default();
        none.answered(7, 1, 5);
        assert_eq!((none.take_due(u64::MAX), none.next_due(), none.answered), (None, None, 0));
        assert_eq!(Pingers::new(0, 0, 5).take_due(u64::MAX), None);
    }
}
