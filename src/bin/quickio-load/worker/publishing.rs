//! The schedule of a publisher.

use crate::encoder::Burst;
use crate::plan::{Plan, Room, Window};
use quickio::qev::buffers::Frame;
use quickio::qev::ring::Token;

/// How long a publisher without a rate waits for deliveries before it considers them lost.
const DELIVERY_WAIT_NS_MAX: u64 = 2_000_000_000;

/// A publisher of this worker.
pub struct Publisher {
    pub token: Token,
    pub room: usize,
    burst: Burst,
    /// The intended time of the next publish, with a rate.
    next: u64,
    /// The nanoseconds between two publishes; 0 without a rate.
    interval: u64,
    /// The number of outstanding deliveries to this worker, without a rate.
    outstanding: u64,
    /// The time of the last publish, without a rate.
    since: u64,
    /// The times of all publishes, if the events do not contain them.
    pub times: Option<Vec<u64>>,
}

impl Publisher {
    /// Returns the publisher of a room.
    pub fn new(plan: &Plan, window: Window, token: Token, room: usize, keep_times: bool) -> Publisher {
        let interval = (plan.publish_rate > 0.0).then(|| plan.publishers as f64 * 1e9 / plan.publish_rate);
        let interval = interval.unwrap_or(0.0);
        // The offset distributes the publishes evenly over time.
        let offset = interval * room as f64 / plan.publishers.max(1) as f64;
        Publisher {
            token,
            room,
            burst: Burst::new(plan, Room::Busy(room)),
            next: window.begin + offset as u64,
            interval: interval as u64,
            outstanding: 0,
            since: 0,
            times: keep_times.then(Vec::new),
        }
    }

    /// Returns the frame of the next publish, if it is due before `until`. `subscribers` is the number of subscribers
    /// of this worker.
    pub fn take_due(&mut self, now: u64, until: u64, subscribers: u64, burst: u64) -> Option<Frame> {
        let at = if self.interval > 0 { self.next } else { now };
        let held_back = self.interval == 0 && self.outstanding > 0 && now - self.since < DELIVERY_WAIT_NS_MAX;
        if at > now || at >= until || held_back {
            return None;
        }
        self.next += self.interval;
        (self.outstanding, self.since) = (subscribers * burst, now);
        self.times.iter_mut().for_each(|times| times.push(at));
        Some(self.burst.at(at))
    }

    /// Records that subscribers of this worker have received events.
    pub fn delivered(&mut self, events: u64) {
        self.outstanding = self.outstanding.saturating_sub(events);
    }

    /// Returns the time of the next publish, or `None` if it depends on deliveries.
    pub fn next_due(&self) -> Option<u64> {
        (self.interval > 0).then_some(self.next)
    }

    /// Returns the intended time of an event by its number, which starts at 0.
    pub fn time_of(&self, event: u64, burst: u64) -> Option<u64> {
        self.times.as_ref()?.get((event / burst) as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Scenario;

    const WINDOW: Window = Window { begin: 1000, from: 1000, until: u64::MAX };

    #[test]
    fn at_a_rate_publishers_take_turns() {
        let plan = Plan { publishers: 2, publish_rate: 1e8, ..Plan::new(Scenario::Fanout) };
        let mut publishers = [0, 1].map(|room| Publisher::new(&plan, WINDOW, 0, room, false));
        assert_eq!(publishers[0].next_due(), Some(1000));
        assert_eq!(publishers[1].next_due(), Some(1010));
        assert!(publishers[0].take_due(1000, u64::MAX, 5, 1).is_some());
        assert!(publishers[0].take_due(1000, u64::MAX, 5, 1).is_none());
        assert_eq!(publishers[0].next_due(), Some(1020));
        assert!(publishers[0].take_due(1100, 1020, 5, 1).is_none(), "the run has ended");
    }

    #[test]
    fn without_a_rate_a_publisher_waits_for_all_deliveries() {
        let plan = Plan { burst: 3, ..Plan::new(Scenario::Fanout) };
        let mut publisher = Publisher::new(&plan, WINDOW, 0, 0, true);
        assert!(publisher.take_due(1000, u64::MAX, 5, 3).is_some());
        publisher.delivered(14);
        assert!(publisher.take_due(1001, u64::MAX, 5, 3).is_none());
        publisher.delivered(1);
        assert!(publisher.take_due(1002, u64::MAX, 5, 3).is_some());
        assert!(
            publisher.take_due(1002 + DELIVERY_WAIT_NS_MAX, u64::MAX, 5, 3).is_some(),
            "the wait is limited"
        );
        assert_eq!(publisher.time_of(5, 3), Some(1002));
        assert_eq!(publisher.time_of(99, 3), None);
    }
}
