//! When pings are due, and for when those that are answered were intended.

use std::collections::VecDeque;

/// Pings of one send, at most.
pub const PINGS_PER_SEND_MAX: usize = 64;

/// The pings of a worker: at a rate the k-th is intended for a fixed time, and its client is the k-th of the
/// worker's, in turn. So nothing has to be kept for a ping that is late.
#[derive(Debug, Default)]
pub struct Schedule {
    /// Nanoseconds between two pings of this worker; 0: as fast as they are answered.
    interval: f64,
    begin: u64,
    clients: u64,
    /// Pings that were due so far.
    next: u64,
}

/// What a client has asked.
#[derive(Debug, Default)]
pub struct Asked {
    /// When each open ping was sent, where there is no rate.
    sent_at: VecDeque<u64>,
    /// The client's place among its worker's.
    pub place: u64,
    due: u64,
    sent: u64,
    answered: u64,
}

impl Schedule {
    /// Pings of a worker that has `clients` of them and does `rate` a second, from `begin` on.
    pub fn new(begin: u64, clients: usize, rate: f64) -> Schedule {
        let interval = if rate > 0.0 { 1e9 / rate } else { 0.0 };
        Schedule { interval, begin, clients: clients as u64, next: 0 }
    }

    /// Whether pings go out at a rate.
    pub fn has_rate(&self) -> bool {
        self.interval > 0.0
    }

    /// The place of the next client whose ping is due before `until`, if any is.
    pub fn take_due(&mut self, now: u64, until: u64) -> Option<u64> {
        let at = self.next_due()?;
        (at <= now && at < until).then(|| {
            let place = self.next % self.clients;
            self.next += 1;
            place
        })
    }

    /// When the next ping is due; none where there is no rate.
    pub fn next_due(&self) -> Option<u64> {
        (self.has_rate() && self.clients > 0).then(|| self.intended(self.next))
    }

    fn intended(&self, k: u64) -> u64 {
        self.begin + (k as f64 * self.interval) as u64
    }
}

impl Asked {
    /// One more is to be sent, at a rate.
    pub fn is_due(&mut self) {
        self.due += 1;
    }

    /// Takes those that are due, at most what one send has.
    pub fn take_due(&mut self) -> usize {
        let count = (self.due - self.sent).min(PINGS_PER_SEND_MAX as u64);
        self.sent += count;
        count as usize
    }

    /// So many are sent now, where there is no rate.
    pub fn ask(&mut self, count: usize, now: u64) {
        self.sent_at.extend(std::iter::repeat_n(now, count));
        self.sent += count as u64;
    }

    /// The oldest open one is answered: for when it was intended. None where none was open.
    pub fn answered(&mut self, schedule: &Schedule) -> Option<u64> {
        if self.answered == self.sent {
            return None;
        }
        let nth = self.answered;
        self.answered += 1;
        match self.sent_at.pop_front() {
            None => Some(schedule.intended(self.place + nth * schedule.clients)),
            sent_at => sent_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_at_a_rate_are_answered_for_the_time_they_were_intended() {
        let mut schedule = Schedule::new(1000, 2, 1e8);
        let mut asked = [Asked::default(), Asked { place: 1, ..Asked::default() }];
        while let Some(place) = schedule.take_due(1045, u64::MAX) {
            asked[place as usize].is_due();
        }
        assert_eq!(schedule.next_due(), Some(1050));
        assert_eq!([asked[0].take_due(), asked[1].take_due()], [3, 2]);
        let times: Vec<_> = (0..4).map(|_| asked[0].answered(&schedule)).collect();
        assert_eq!(times, [Some(1000), Some(1020), Some(1040), None]);
        assert_eq!(asked[1].answered(&schedule), Some(1010));
    }

    #[test]
    fn nothing_is_due_after_the_end_or_without_a_rate() {
        let mut schedule = Schedule::new(1000, 1, 1e8);
        assert_eq!(schedule.take_due(2000, 1000), None);
        let mut none = Schedule::new(1000, 1, 0.0);
        assert_eq!((none.take_due(2000, 3000), none.next_due()), (None, None));
        let mut nobody = Schedule::new(1000, 0, 5.0);
        assert_eq!(nobody.take_due(2000, 3000), None);
    }

    #[test]
    fn pings_without_a_rate_are_timed_from_their_send() {
        let (mut asked, schedule) = (Asked::default(), Schedule::default());
        asked.ask(2, 7);
        asked.ask(1, 9);
        let times: Vec<_> = (0..4).map(|_| asked.answered(&schedule)).collect();
        assert_eq!(times, [Some(7), Some(7), Some(9), None]);
    }

    #[test]
    fn one_send_has_so_many_and_no_more() {
        let mut asked = Asked::default();
        (0..100).for_each(|_| asked.is_due());
        assert_eq!([asked.take_due(), asked.take_due(), asked.take_due()], [64, 36, 0]);
    }
}
