//! The deliveries of published events.

use super::client::ClientNumber;
use crate::results::LatencyHistogram;

/// The deliveries of the events of a step. Each event contains its intended time, which is unique in its room and tells
/// it from the others; the server delivers the events of a room in their order.
#[derive(Default)]
pub struct Deliveries {
    /// Events that were intended earlier belong to other steps.
    pub from: u64,
    /// The clients with this number and higher ones take part in the churn, and miss events while they are away.
    pub stayers: ClientNumber,
    /// Events received by clients that stay.
    pub delivered: u64,
    /// Events received by clients that take part in the churn.
    pub to_churners: u64,
    /// Events that a client has received a second time, or after a newer one.
    pub duplicated: u64,
    /// Events of earlier steps.
    pub late: u64,
    /// From the intended time of an event to its receipt, by clients that stay.
    pub latency: LatencyHistogram,
    pub first: u64,
    pub last: u64,
}

impl Deliveries {
    /// Returns the deliveries of a step whose events are intended for `from` or later. Clients from number `stayers` on
    /// take part in the churn.
    pub fn new(from: u64, stayers: ClientNumber) -> Deliveries {
        Deliveries { from, stayers, ..Deliveries::default() }
    }

    /// Records an event that a client has received, by the intended time in it. `newest` is that of the newest event that
    /// the client has received before.
    #[inline]
    pub fn record(&mut self, client: ClientNumber, newest: &mut u64, intended: u64, now: u64) {
        if intended < self.from {
            self.late += 1;
        } else if intended <= *newest {
            self.duplicated += 1;
        } else {
            *newest = intended;
            if client >= self.stayers {
                self.to_churners += 1;
                return;
            }
            if self.delivered == 0 {
                self.first = now;
            }
            (self.delivered, self.last) = (self.delivered + 1, now);
            self.latency.record(now.saturating_sub(intended));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_of_a_client_counts_once() {
        let (mut deliveries, mut newest) = (Deliveries::new(100, 5), 0);
        for (intended, now) in [(99, 120), (100, 130), (110, 131), (110, 132), (105, 133)] {
            deliveries.record(4, &mut newest, intended, now);
        }
        assert_eq!((deliveries.late, deliveries.delivered, deliveries.duplicated), (1, 2, 2));
        assert_eq!((deliveries.first, deliveries.last, deliveries.latency.summary().count), (130, 131, 2));
        deliveries.record(5, &mut 0, 100, 140);
        assert_eq!((deliveries.to_churners, deliveries.delivered, deliveries.last), (1, 2, 131));
    }
}
