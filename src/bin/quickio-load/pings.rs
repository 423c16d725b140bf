//! The schedule of pings, and the open pings of each client with their intended times.

use std::collections::VecDeque;

/// The maximum number of pings in one send.
pub const PINGS_PER_SEND_MAX: usize = 64;

/// The schedule of a worker's pings. With a rate, ping `k` has a fixed intended time and a fixed client, because the
/// clients take turns. Late pings therefore need no memory.
#[derive(Debug, Default)]
pub struct PingSchedule {
    /// The nanoseconds between two pings of this worker; 0: as fast as they are answered.
    interval: f64,
    begin: u64,
    clients: u64,
    /// The number of pings that have been due.
    next: u64,
}

/// The open pings of a client.
#[derive(Debug, Default)]
pub struct OpenPings {
    /// The time at which each open ping was sent, without a rate.
    sent_at: VecDeque<u64>,
    /// The position of the client among those of its worker.
    pub position: u64,
    due: u64,
    sent: u64,
    answered: u64,
}

impl PingSchedule {
    /// Returns the schedule of a worker whose `clients` send `rate` pings per second together, starting at `begin`.
    pub fn new(begin: u64, clients: usize, rate: f64) -> PingSchedule {
        let interval = if rate > 0.0 { 1e9 / rate } else { 0.0 };
        PingSchedule { interval, begin, clients: clients as u64, next: 0 }
    }

    /// Returns whether pings are sent at a rate.
    pub fn has_rate(&self) -> bool {
        self.interval > 0.0
    }

    /// Returns the position of the next client whose ping is due, if it is due before `until`.
    pub fn take_due(&mut self, now: u64, until: u64) -> Option<u64> {
        let at = self.next_due()?;
        (at <= now && at < until).then(|| {
            let position = self.next % self.clients;
            self.next += 1;
            position
        })
    }

    /// Returns the time of the next ping, or `None` without a rate.
    pub fn next_due(&self) -> Option<u64> {
        (self.has_rate() && self.clients > 0).then(|| self.intended(self.next))
    }

    fn intended(&self, k: u64) -> u64 {
        self.begin + (k as f64 * self.interval) as u64
    }
}

impl OpenPings {
    /// Returns the open pings of the client at a position: none.
    pub fn of(position: usize) -> OpenPings {
        OpenPings { position: position as u64, ..OpenPings::default() }
    }

    /// Adds a ping that is due, with a rate.
    pub fn add_due(&mut self) {
        self.due += 1;
    }

    /// Returns the number of due pings to send now, at most [`PINGS_PER_SEND_MAX`].
    pub fn take_due(&mut self) -> usize {
        let count = (self.due - self.sent).min(PINGS_PER_SEND_MAX as u64);
        self.sent += count;
        count as usize
    }

    /// Adds pings that are sent now, without a rate.
    pub fn add_sent(&mut self, count: usize, now: u64) {
        self.sent_at.extend(std::iter::repeat_n(now, count));
        self.sent += count as u64;
    }

    /// Removes the oldest open ping, which was answered, and returns its intended time. Returns `None` if no ping is
    /// open.
    pub fn answered(&mut self, schedule: &PingSchedule) -> Option<u64> {
        if self.answered == self.sent {
            return None;
        }
        let nth = self.answered;
        self.answered += 1;
        match self.sent_at.pop_front() {
            None => Some(schedule.intended(self.position + nth * schedule.clients)),
            sent_at => sent_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_at_a_rate_are_timed_from_their_intended_time() {
        let mut schedule = PingSchedule::new(1000, 2, 1e8);
        let mut pings = [OpenPings::default(), OpenPings { position: 1, ..OpenPings::default() }];
        while let Some(position) = schedule.take_due(1045, u64::MAX) {
            pings[position as usize].add_due();
        }
        assert_eq!(schedule.next_due(), Some(1050));
        assert_eq!([pings[0].take_due(), pings[1].take_due()], [3, 2]);
        let times: Vec<_> = (0..4).map(|_| pings[0].answered(&schedule)).collect();
        assert_eq!(times, [Some(1000), Some(1020), Some(1040), None]);
        assert_eq!(pings[1].answered(&schedule), Some(1010));
    }

    #[test]
    fn nothing_is_due_after_the_end_or_without_a_rate() {
        let mut schedule = PingSchedule::new(1000, 1, 1e8);
        assert_eq!(schedule.take_due(2000, 1000), None);
        let mut none = PingSchedule::new(1000, 1, 0.0);
        assert_eq!((none.take_due(2000, 3000), none.next_due()), (None, None));
        let mut no_clients = PingSchedule::new(1000, 0, 5.0);
        assert_eq!(no_clients.take_due(2000, 3000), None);
    }

    #[test]
    fn pings_without_a_rate_are_timed_from_their_send() {
        let (mut pings, schedule) = (OpenPings::default(), PingSchedule::default());
        pings.add_sent(2, 7);
        pings.add_sent(1, 9);
        let times: Vec<_> = (0..4).map(|_| pings.answered(&schedule)).collect();
        assert_eq!(times, [Some(7), Some(7), Some(9), None]);
    }

    #[test]
    fn pings_per_send_are_bounded() {
        let mut pings = OpenPings::default();
        (0..100).for_each(|_| pings.add_due());
        assert_eq!([pings.take_due(), pings.take_due(), pings.take_due()], [64, 36, 0]);
    }
}
