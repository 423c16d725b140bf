//! Publishers: when each of them publishes next.

use crate::plan::{Plan, Room, Window};
use crate::wire::Burst;
use quickio::qev::buffers::Frame;
use quickio::qev::ring::Token;

/// Without a rate: how long deliveries are awaited before they are given up.
const AWAITED_NS_MAX: u64 = 2_000_000_000;

/// A publisher of this worker.
pub struct Publisher {
    pub token: Token,
    pub room: usize,
    burst: Burst,
    /// At a rate: when the next publish is intended, and the time between two.
    next: u64,
    interval: u64,
    /// Without: deliveries to this worker that are awaited, and since when.
    awaited: u64,
    since: u64,
    /// All times published at, where the events do not carry them.
    pub times: Option<Vec<u64>>,
}

impl Publisher {
    /// The publisher of that room.
    pub fn new(plan: &Plan, window: Window, token: Token, room: usize, keep_times: bool) -> Publisher {
        let interval = (plan.publish_rate > 0.0).then(|| plan.publishers as f64 * 1e9 / plan.publish_rate);
        let interval = interval.unwrap_or(0.0);
        // Publishers take turns, so that they do not all publish at once.
        let offset = interval * room as f64 / plan.publishers.max(1) as f64;
        Publisher {
            token,
            room,
            burst: Burst::new(plan, Room::Busy(room)),
            next: window.begin + offset as u64,
            interval: interval as u64,
            awaited: 0,
            since: 0,
            times: keep_times.then(Vec::new),
        }
    }

    /// The next publish, where it is due and before `until`: its bytes. `subscribers` are those of this worker.
    pub fn take_due(&mut self, now: u64, until: u64, subscribers: u64, burst: u64) -> Option<Frame> {
        let at = if self.interval > 0 { self.next } else { now };
        let held_back = self.interval == 0 && self.awaited > 0 && now - self.since < AWAITED_NS_MAX;
        if at > now || at >= until || held_back {
            return None;
        }
        self.next += self.interval;
        (self.awaited, self.since) = (subscribers * burst, now);
        self.times.iter_mut().for_each(|times| times.push(at));
        Some(self.burst.at(at))
    }

    /// Subscribers of this worker got so many events.
    pub fn delivered(&mut self, events: u64) {
        self.awaited = self.awaited.saturating_sub(events);
    }

    /// When it publishes next; none where that depends on deliveries.
    pub fn next_due(&self) -> Option<u64> {
        (self.interval > 0).then_some(self.next)
    }

    /// For when the event of that number, from 0, was intended.
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
        assert!(publishers[0].take_due(1100, 1020, 5, 1).is_none(), "the end is the end");
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
        assert!(publisher.take_due(1002 + AWAITED_NS_MAX, u64::MAX, 5, 3).is_some(), "given up");
        assert_eq!(publisher.time_of(5, 3), Some(1002));
        assert_eq!(publisher.time_of(99, 3), None);
    }
}
