//! What is to be done: how many clients of which role, how fast; and which worker has which of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// What a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    Hold,
    Ping,
    Fanout,
    Churn,
    Slow,
    Mixed,
}

impl Scenario {
    /// All of them, with what each one is.
    pub const ALL: [(Scenario, &'static str, &'static str); 6] = [
        (Scenario::Hold, "hold", "connect, subscribe, and stay: memory for each connection, CPU at rest"),
        (Scenario::Ping, "ping", "pings: as fast as they are answered, or at a rate"),
        (Scenario::Fanout, "fanout", "publishers whose events are broadcast to many subscribers"),
        (Scenario::Churn, "churn", "connect, shake hands, ping, close; again"),
        (Scenario::Slow, "slow", "fanout, with some subscribers that never read"),
        (Scenario::Mixed, "mixed", "all of the above at once"),
    ];

    /// The scenario of that name.
    pub fn named(name: &str) -> Option<Scenario> {
        Scenario::ALL.iter().find(|(_, known, _)| *known == name).map(|(scenario, ..)| *scenario)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Scenario::ALL.iter().find(|(known, ..)| *known == self).map_or("", |(_, name, _)| name)
    }
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    WebSocket,
    Raw,
    /// HTTP, by requests that the server holds until it has something to say.
    LongPolling,
    /// HTTP, by a response that does not end; what the client says are requests of their own.
    EventStream,
    /// Bytes of the same number as over WebSocket, and nothing else: for the floor program.
    None,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 5] =
        [Protocol::WebSocket, Protocol::Raw, Protocol::LongPolling, Protocol::EventStream, Protocol::None];

    /// Whether its clients have sessions, whose requests come by sockets of their own.
    pub fn is_http(self) -> bool {
        matches!(self, Protocol::LongPolling | Protocol::EventStream)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::WebSocket => "websocket",
            Protocol::Raw => "raw",
            Protocol::LongPolling => "long-polling",
            Protocol::EventStream => "event-stream",
            Protocol::None => "none",
        }
    }
}

/// What a connection does once it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Publishes into the room of its own number.
    Publisher,
    /// Subscribes to one of the publishers' rooms, and reads.
    Subscriber,
    Pinger,
    Churner,
    /// Subscribes to a room where nothing happens, or to none.
    Idle,
}

impl Role {
    /// All roles, in the order in which their clients connect. Publishers come first: the floor program knows
    /// its publisher by that.
    pub const ALL: [Role; 5] = [Role::Publisher, Role::Subscriber, Role::Pinger, Role::Churner, Role::Idle];
}

/// Everything about the load; the same in every worker.
#[derive(Clone, Debug)]
pub struct Plan {
    pub scenario: Scenario,
    pub server: SocketAddr,
    pub protocol: Protocol,
    /// Loopback addresses that connections come from.
    pub sources: usize,
    pub publishers: usize,
    pub subscribers: usize,
    pub pingers: usize,
    pub churners: usize,
    pub idle: usize,
    /// Subscribers that never read.
    pub slow: usize,
    /// Bytes of a slow subscriber's receive buffer.
    pub slow_buffer_bytes: usize,
    /// Rooms that idle clients are spread over; 0: they do not subscribe.
    pub idle_rooms: usize,
    /// Bytes of the data of a published event.
    pub size: usize,
    /// Events of one publish.
    pub burst: usize,
    /// The event that a ping is.
    pub ping_event: String,
    /// Pings that a client has open at once, where no rate is set.
    pub depth: usize,
    /// A second, over all clients; 0: as fast as the server answers.
    pub ping_rate: f64,
    /// Publishes (bursts) a second, over all publishers; 0: the next when all of a worker's subscribers have it.
    pub publish_rate: f64,
    /// Connections a second, over all churners; 0: as fast as they come.
    pub churn_rate: f64,
    pub warmup: Duration,
    pub seconds: Duration,
    pub settle: Duration,
    pub drain: Duration,
    pub connect_timeout: Duration,
    /// Connections of a worker that are being opened at once.
    pub connect_window: usize,
}

impl Plan {
    /// The scenario as it is where no flag says otherwise.
    pub fn new(scenario: Scenario) -> Plan {
        let mut plan = Plan {
            scenario,
            server: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            protocol: Protocol::WebSocket,
            sources: 16,
            publishers: 0,
            subscribers: 0,
            pingers: 0,
            churners: 0,
            idle: 0,
            slow: 0,
            slow_buffer_bytes: 4096,
            idle_rooms: 100,
            size: 64,
            burst: 1,
            ping_event: "/qio/ping".into(),
            depth: 1,
            ping_rate: 0.0,
            publish_rate: 0.0,
            churn_rate: 0.0,
            warmup: Duration::from_secs(1),
            seconds: Duration::from_secs(5),
            settle: Duration::from_millis(500),
            drain: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(60),
            connect_window: 64,
        };
        plan.set_scenario(scenario);
        plan
    }

    fn set_scenario(&mut self, scenario: Scenario) {
        match scenario {
            Scenario::Hold => (self.idle, self.warmup) = (10_000, Duration::ZERO),
            Scenario::Ping => self.pingers = 200,
            Scenario::Fanout => (self.publishers, self.subscribers) = (1, 1000),
            Scenario::Churn => self.churners = 50,
            Scenario::Slow => {
                (self.publishers, self.subscribers, self.slow) = (1, 50, 10);
                (self.publish_rate, self.size) = (200.0, 16_384);
            }
            Scenario::Mixed => {
                (self.publishers, self.subscribers, self.pingers) = (2, 500, 100);
                (self.churners, self.idle, self.slow) = (10, 1000, 5);
                (self.publish_rate, self.ping_rate, self.churn_rate) = (20.0, 1000.0, 50.0);
            }
        }
    }

    /// Connections of that role, over all workers.
    pub fn count(&self, role: Role) -> usize {
        match role {
            Role::Publisher => self.publishers,
            Role::Subscriber => self.subscribers,
            Role::Pinger => self.pingers,
            Role::Churner => self.churners,
            Role::Idle => self.idle,
        }
    }

    /// Connections of all roles, over all workers, without the slow ones.
    pub fn connections(&self) -> usize {
        Role::ALL.iter().map(|role| self.count(*role)).sum()
    }

    /// The room of a client: publishers and subscribers meet in the publishers' rooms.
    pub fn room(&self, role: Role, number: usize) -> Option<Room> {
        match role {
            Role::Publisher => Some(Room::Busy(number)),
            Role::Subscriber => Some(Room::Busy(number % self.publishers.max(1))),
            Role::Idle if self.idle_rooms > 0 => Some(Room::Idle(number % self.idle_rooms)),
            _ => None,
        }
    }

    /// Subscribers of a publisher's room, over all workers.
    pub fn subscribers_of(&self, room: usize) -> usize {
        let rooms = self.publishers.max(1);
        self.subscribers / rooms + usize::from(room < self.subscribers % rooms)
    }

    /// The address that the connection of that number comes from; none where the server is not on this
    /// machine's loopback network.
    pub fn source(&self, number: usize) -> Option<IpAddr> {
        match self.server.ip() {
            IpAddr::V4(ip) if ip.is_loopback() => {
                let offset = (number % self.sources) as u32;
                Some(IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + offset)))
            }
            _ => None,
        }
    }
}

/// A path under `/relay`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Busy(usize),
    Idle(usize),
}

impl Room {
    /// Its path. All paths have the same length.
    pub fn path(self) -> String {
        match self {
            Room::Busy(number) => format!("/relay/room{number:06}"),
            Room::Idle(number) => format!("/relay/idle{number:06}"),
        }
    }

    /// Bytes of its path.
    pub const PATH_BYTES: usize = "/relay/room000000".len();
}

/// A worker's part: of the clients numbered from 0 it has every `of`-th, from `index` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub index: usize,
    pub of: usize,
}

impl Share {
    /// The numbers of this worker's clients, of `count`.
    pub fn numbers(self, count: usize) -> impl Iterator<Item = usize> {
        (self.index..count).step_by(self.of)
    }
}

/// When things happen, by [`crate::clock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// From here on there is load.
    pub begin: u64,
    /// From here on it is measured.
    pub from: u64,
    /// Here it ends.
    pub until: u64,
}

impl Window {
    /// Whether what was intended for that time is measured.
    pub fn measures(&self, intended: u64) -> bool {
        self.from <= intended && intended < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_has_one_worker() {
        for of in 1..5 {
            let mut numbers: Vec<usize> =
                (0..of).flat_map(|index| Share { index, of }.numbers(103)).collect();
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(0..103));
        }
    }

    #[test]
    fn a_publishers_worker_has_a_subscriber_of_its_room() {
        // Where no rate is set a publisher waits for the subscribers of its own worker.
        let plan = Plan { publishers: 3, subscribers: 100, ..Plan::new(Scenario::Fanout) };
        for of in 1..5 {
            for index in 0..of {
                let share = Share { index, of };
                for publisher in share.numbers(plan.publishers) {
                    let room = plan.room(Role::Publisher, publisher);
                    let mut rooms = share.numbers(plan.subscribers).map(|n| plan.room(Role::Subscriber, n));
                    assert!(rooms.any(|of_subscriber| of_subscriber == room));
                }
            }
        }
    }

    #[test]
    fn subscribers_are_spread_over_the_rooms() {
        for (subscribers, publishers) in [(100, 3), (3, 5), (0, 1), (1000, 1)] {
            let plan = Plan { publishers, subscribers, ..Plan::new(Scenario::Fanout) };
            for room in 0..publishers {
                let of_room = |n: &usize| plan.room(Role::Subscriber, *n) == Some(Room::Busy(room));
                assert_eq!(plan.subscribers_of(room), (0..subscribers).filter(of_room).count());
            }
        }
    }

    #[test]
    fn all_rooms_have_paths_of_one_length() {
        for room in [Room::Busy(0), Room::Busy(999_999), Room::Idle(7)] {
            assert_eq!(room.path().len(), Room::PATH_BYTES);
        }
    }

    #[test]
    fn sources_are_loopback_addresses() {
        let plan = Plan::new(Scenario::Ping);
        assert_eq!(plan.source(0), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(plan.source(17), Some("127.0.0.2".parse().unwrap()));
        let elsewhere = Plan { server: "[::1]:8080".parse().unwrap(), ..plan };
        assert_eq!(elsewhere.source(0), None);
    }
}
