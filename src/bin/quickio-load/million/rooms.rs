//! The step `rooms`: events to each room at a rate, while clients leave and come back.

use super::client::ClientNumber;
use super::deliveries::Deliveries;
use super::measured::{latency_json, seconds};
use super::run::StepRunner;
use crate::clock;
use crate::encoder::Burst;
use crate::plan::{Plan, Room};
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;

/// How long nothing may be delivered, and no client may come back, before the step ends.
const SILENCE_NS: u64 = 20_000_000_000;

/// How long a client that takes part in the churn stays at least, in seconds of churn.
const STAY_SECONDS: f64 = 10.0;

/// The number of members of a room that are tried as its publisher.
const PUBLISHERS_TRIED: usize = 16;

/// A schedule: the `n`-th of `count` actions is due at `begin + n * interval`.
struct EvenSchedule {
    begin: u64,
    interval: f64,
    next: u64,
    count: u64,
}

/// The events to all rooms, in turn.
struct RoomEvents {
    schedule: EvenSchedule,
    plan: Plan,
    published: u64,
    /// The deliveries that the published events must cause.
    expected: u64,
    /// The events whose room had no member that could publish them.
    unpublished: u64,
}

/// Clients that leave and come back, in turn.
struct Churn {
    schedule: EvenSchedule,
    first: ClientNumber,
    clients: u32,
    /// The clients that have left.
    left: u64,
    /// The clients that were not open when it was their turn.
    skipped: u64,
}

impl EvenSchedule {
    fn new(begin: u64, time: Duration, rate: f64) -> EvenSchedule {
        let count = (time.as_secs_f64() * rate) as u64;
        EvenSchedule { begin, interval: 1e9 / rate, next: 0, count }
    }

    /// Returns the number and the time of the next action, if it is due.
    fn take_due(&mut self, now: u64) -> Option<(u64, u64)> {
        let at = self.next_due().filter(|at| *at <= now)?;
        self.next += 1;
        Some((self.next - 1, at))
    }

    fn next_due(&self) -> Option<u64> {
        (self.next < self.count).then(|| self.begin + (self.next as f64 * self.interval) as u64)
    }
}

impl RoomEvents {
    /// Returns the events of a number of rooms, `rate` a second in each.
    fn new(begin: u64, time: Duration, rate: f64, rooms: usize, plan: &Plan) -> RoomEvents {
        RoomEvents {
            schedule: EvenSchedule::new(begin, time, rate * rooms as f64),
            plan: Plan { burst: 1, ..plan.clone() },
            published: 0,
            expected: 0,
            unpublished: 0,
        }
    }
}

impl Churn {
    /// Returns the churn of the last clients: enough for each to stay for some time, but at most a tenth.
    fn new(begin: u64, time: Duration, rate: f64, clients: u32) -> Churn {
        let wanted = (rate * STAY_SECONDS) as u32;
        let taking_part = if rate > 0.0 { wanted.clamp(1, clients.div_ceil(10)) } else { 0 };
        let schedule = EvenSchedule::new(begin, time, rate);
        Churn { schedule, first: clients - taking_part, clients: taking_part, left: 0, skipped: 0 }
    }

    /// Returns the next client that must leave.
    fn take_due(&mut self, now: u64) -> Option<ClientNumber> {
        let (n, _) = self.schedule.take_due(now)?;
        Some(self.first + (n % u64::from(self.clients)) as u32)
    }
}

impl<W: Write> StepRunner<'_, W> {
    /// Publishes to each room `rate` times a second, while `churn` clients a second leave and come back.
    pub fn rooms(&mut self, time: Duration, rate: f64, churn: f64) -> Result<Value, String> {
        let begin = clock::now();
        let mut events = RoomEvents::new(begin, time, rate, self.swarm.members.rooms(), self.plan);
        let mut churn = Churn::new(begin, time, churn, self.swarm.clients() as u32);
        self.swarm.set_stayers(churn.first);
        self.swarm.deliveries = Deliveries::new(begin, churn.first);
        let mut quiet_since = (0, 0, begin);
        loop {
            let now = clock::now();
            self.publish_due(&mut events, now);
            self.churn_due(&mut churn, now);
            let (delivered, expected) = (self.swarm.deliveries.delivered, events.expected);
            let published = events.published;
            self.progress
                .show(|| format!("rooms: {published} published, {delivered} of {expected} delivered"));
            let back = self.swarm.measured.opened.count() + self.swarm.measured.failures();
            if (quiet_since.0, quiet_since.1) != (delivered, back) {
                quiet_since = (delivered, back, now);
            }
            let due = [events.schedule.next_due(), churn.schedule.next_due()].into_iter().flatten().min();
            let is_over = delivered >= expected && back >= churn.left || now > quiet_since.2 + SILENCE_NS;
            if due.is_none() && is_over {
                break;
            }
            self.swarm.turn(due.unwrap_or(u64::MAX))?;
            self.reopen_churned(&churn);
        }
        self.swarm.set_stayers(ClientNumber::MAX);
        Ok(self.rooms_report(begin, &events, &churn))
    }

    fn publish_due(&mut self, events: &mut RoomEvents, now: u64) {
        while let Some((n, at)) = events.schedule.take_due(now) {
            let room = n as usize % self.swarm.members.rooms();
            let Some(publisher) = self.publisher_of(room) else {
                events.unpublished += 1;
                continue;
            };
            self.swarm.send_from(publisher, Burst::new(&events.plan, Room::Busy(room)).at(at));
            events.published += 1;
            events.expected += self.swarm.members.of(room);
        }
    }

    fn rooms_report(&self, begin: u64, events: &RoomEvents, churn: &Churn) -> Value {
        let (deliveries, measured) = (&self.swarm.deliveries, &self.swarm.measured);
        let took = seconds(deliveries.last.saturating_sub(begin));
        json!({
            "step": "rooms", "seconds": took, "published": events.published, "unpublished": events.unpublished,
            "expected": events.expected, "delivered": deliveries.delivered, "late": deliveries.late,
            "lost": events.expected.saturating_sub(deliveries.delivered), "duplicated": deliveries.duplicated,
            "delivered_to_churners": deliveries.to_churners,
            "deliveries_per_s": if took > 0.0 { deliveries.delivered as f64 / took } else { 0.0 },
            "latency": latency_json(&deliveries.latency), "lost_clients": measured.ends(), "ends": measured.ends_json(),
            "churned": churn.left, "churn_skipped": churn.skipped, "failed": measured.failures(),
            "failures": measured.failures_json(), "opened": latency_json(&measured.opened),
        })
    }

    /// Returns an open member of a room that does not take part in the churn, if its first members include one.
    fn publisher_of(&self, room: usize) -> Option<ClientNumber> {
        let members = (room..self.swarm.clients()).step_by(self.swarm.members.rooms()).take(PUBLISHERS_TRIED);
        let mut members = members.map(|client| client as ClientNumber);
        members.find(|client| *client < self.swarm.deliveries.stayers && self.swarm.is_open(*client))
    }

    fn churn_due(&mut self, churn: &mut Churn, now: u64) {
        while let Some(client) = churn.take_due(now) {
            if self.swarm.is_open(client) {
                churn.left += 1;
                self.swarm.leave(client);
            } else {
                churn.skipped += 1;
            }
        }
    }

    /// Opens the clients again that have left. A client whose opening has failed stays away.
    fn reopen_churned(&mut self, churn: &Churn) {
        let closed = self.swarm.closed().iter().copied();
        let returning = closed.filter(|client| *client >= churn.first && self.swarm.failures(*client) == 0);
        let returning: Vec<ClientNumber> = returning.collect();
        returning.into_iter().for_each(|client| self.swarm.open_later(client));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_spread_evenly_and_keep_their_times() {
        let mut schedule = EvenSchedule::new(1000, Duration::from_nanos(50), 1e8);
        assert_eq!((schedule.next_due(), schedule.take_due(999)), (Some(1000), None));
        let due: Vec<_> = std::iter::from_fn(|| schedule.take_due(5000)).collect();
        assert_eq!(due, [(0, 1000), (1, 1010), (2, 1020), (3, 1030), (4, 1040)]);
        assert_eq!(schedule.next_due(), None);
        assert_eq!(EvenSchedule::new(0, Duration::from_secs(60), 0.0).next_due(), None);
    }

    #[test]
    fn the_last_clients_leave_in_turn() {
        let mut churn = Churn::new(0, Duration::from_secs(5), 1.0, 1000);
        assert_eq!((churn.first, churn.clients), (990, 10));
        let leaving: Vec<_> = std::iter::from_fn(|| churn.take_due(u64::MAX)).collect();
        assert_eq!(leaving, [990, 991, 992, 993, 994]);
        assert_eq!(Churn::new(0, Duration::from_secs(5), 1000.0, 70).first, 63, "at most a tenth");
        assert_eq!(Churn::new(0, Duration::from_secs(5), 0.0, 70).first, 70);
    }
}
