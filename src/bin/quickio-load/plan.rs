//! The plan of a run: the number of clients of each role, their rates, and their division among the workers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The scenario of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    Hold,
    Ping,
    Fanout,
    Churn,
    Slow,
    Mixed,
    Million,
}

impl Scenario {
    /// All scenarios with their names and descriptions.
    pub const ALL: [(Scenario, &'static str, &'static str); 7] = [
        (Scenario::Hold, "hold", "connects, subscribes and stays: memory per connection, CPU at rest"),
        (Scenario::Ping, "ping", "sends pings: as fast as they are answered, or at a rate"),
        (Scenario::Fanout, "fanout", "publishes events that are broadcast to many subscribers"),
        (Scenario::Churn, "churn", "repeatedly connects, completes the handshake, pings and closes"),
        (Scenario::Slow, "slow", "fanout with some subscribers that never read"),
        (Scenario::Mixed, "mixed", "all of the above at the same time"),
        (Scenario::Million, "million", "very many clients in one thread, in steps read from standard input"),
    ];

    /// Returns the scenario with this name.
    pub fn find(name: &str) -> Option<Scenario> {
        Scenario::ALL.iter().find(|(_, known, _)| *known == name).map(|(scenario, ..)| *scenario)
    }

    /// Returns the name.
    pub fn name(self) -> &'static str {
        Scenario::ALL.iter().find(|(known, ..)| *known == self).map_or("", |(_, name, _)| name)
    }
}

/// The protocol of the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    WebSocket,
    Raw,
    /// HTTP with requests that the server holds until it has events for the client.
    LongPolling,
    /// HTTP with a response that does not end. The client sends its events in separate requests.
    EventStream,
    /// Plain bytes of the same number as over WebSocket, for the floor program.
    None,
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Protocol; 5] =
        [Protocol::WebSocket, Protocol::Raw, Protocol::LongPolling, Protocol::EventStream, Protocol::None];

    /// Returns whether clients have HTTP sessions, whose requests use several sockets.
    pub fn is_http(self) -> bool {
        matches!(self, Protocol::LongPolling | Protocol::EventStream)
    }

    /// Returns the name.
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

/// The action of a connection after it has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Publishes to the room with its own number.
    Publisher,
    /// Subscribes to the room of a publisher and reads.
    Subscriber,
    /// Sends pings.
    Pinger,
    /// Repeatedly connects, pings and closes.
    Churner,
    /// Subscribes to a room without events, or to none.
    Idle,
}

impl Role {
    /// All roles, in the order in which their clients connect. Publishers come first, because the floor program
    /// treats its first connection as the publisher.
    pub const ALL: [Role; 5] = [Role::Publisher, Role::Subscriber, Role::Pinger, Role::Churner, Role::Idle];
}

/// The complete description of the load, which is the same in every worker.
#[derive(Clone, Debug)]
pub struct Plan {
    pub scenario: Scenario,
    pub server: SocketAddr,
    pub protocol: Protocol,
    /// The TLS of the clients, or `None` if they are plain.
    pub tls: Option<TlsPlan>,
    /// The number of loopback addresses to connect from.
    pub sources: usize,
    pub publishers: usize,
    pub subscribers: usize,
    pub pingers: usize,
    pub churners: usize,
    pub idle: usize,
    /// The number of subscribers that never read.
    pub slow: usize,
    /// The size of a slow subscriber's receive buffer.
    pub slow_buffer_bytes: usize,
    /// The number of rooms among which idle clients are divided; 0: they do not subscribe.
    pub idle_rooms: usize,
    /// The size of the data of a published event, in bytes.
    pub size: usize,
    /// `true` if the data of a published event is filled up with rows of JSON, and not with spaces.
    pub has_rows: bool,
    /// `true` if clients over WebSocket offer compression.
    pub compression: bool,
    /// The tokens of clients over WebSocket, which take them in turn; empty: they have none.
    pub tokens: Arc<[String]>,
    /// The number of events of one publish.
    pub burst: usize,
    /// The path of the event that is sent as a ping.
    pub ping_event: String,
    /// The number of open pings per client, if no rate is set.
    pub depth: usize,
    /// Pings per second over all clients; 0: as fast as the server answers.
    pub ping_rate: f64,
    /// Publishes (bursts) per second over all publishers; 0: the next one starts when all of a worker's subscribers
    /// have the previous one.
    pub publish_rate: f64,
    /// Connections per second over all churners; 0: as fast as possible.
    pub churn_rate: f64,
    /// `true` if churners send a ping and await its answer before they close.
    pub churn_pings: bool,
    pub warmup: Duration,
    pub seconds: Duration,
    pub settle: Duration,
    pub drain: Duration,
    pub connect_timeout: Duration,
    /// The number of connections that a worker opens at a time.
    pub connect_window: usize,
}

impl Plan {
    /// Returns the default plan of a scenario.
    pub fn new(scenario: Scenario) -> Plan {
        let mut plan = Plan {
            scenario,
            server: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            protocol: Protocol::WebSocket,
            tls: None,
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
            has_rows: false,
            compression: false,
            tokens: Arc::default(),
            burst: 1,
            ping_event: "/qio/ping".into(),
            depth: 1,
            ping_rate: 0.0,
            publish_rate: 0.0,
            churn_rate: 0.0,
            churn_pings: true,
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
            // The clients of a million are not divided into roles.
            Scenario::Million => {}
        }
    }

    /// Returns the number of connections with this role, over all workers.
    pub fn count(&self, role: Role) -> usize {
        match role {
            Role::Publisher => self.publishers,
            Role::Subscriber => self.subscribers,
            Role::Pinger => self.pingers,
            Role::Churner => self.churners,
            Role::Idle => self.idle,
        }
    }

    /// Returns the number of connections of all roles, over all workers, without the slow ones.
    pub fn connections(&self) -> usize {
        Role::ALL.iter().map(|role| self.count(*role)).sum()
    }

    /// Returns the room of a client. Publishers and subscribers share the publishers' rooms.
    pub fn room(&self, role: Role, number: usize) -> Option<Room> {
        match role {
            Role::Publisher => Some(Room::Busy(number)),
            Role::Subscriber => Some(Room::Busy(number % self.publishers.max(1))),
            Role::Idle if self.idle_rooms > 0 => Some(Room::Idle(number % self.idle_rooms)),
            _ => None,
        }
    }

    /// Returns the number of subscribers of a publisher's room, over all workers.
    pub fn subscribers_of(&self, room: usize) -> usize {
        let rooms = self.publishers.max(1);
        self.subscribers / rooms + usize::from(room < self.subscribers % rooms)
    }

    /// Returns the source address of the connection with this number, or `None` if the server is not on this machine's
    /// loopback network.
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

/// The TLS of the clients.
#[derive(Clone, Debug)]
pub struct TlsPlan {
    /// The file of the authorities that certificates must be from, or `None` to accept any certificate.
    pub ca: Option<PathBuf>,
    /// The name that the clients ask for, or `None` for the address.
    pub name: Option<String>,
    /// Clients resume sessions.
    pub resumes: bool,
}

impl Default for TlsPlan {
    fn default() -> TlsPlan {
        TlsPlan { ca: None, name: None, resumes: true }
    }
}

/// A path under `/relay`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Busy(usize),
    Idle(usize),
    /// The path that all clients of a million share.
    Everyone,
}

impl Room {
    /// Returns the path. All paths have the same length.
    pub fn path(self) -> String {
        match self {
            Room::Busy(number) => format!("/relay/room{number:06}"),
            Room::Idle(number) => format!("/relay/idle{number:06}"),
            Room::Everyone => "/relay/everyone00".into(),
        }
    }

    /// The length of the path in bytes.
    pub const PATH_BYTES: usize = "/relay/room000000".len();
}

/// A worker's share of the clients: every `of`-th client, starting with number `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub index: usize,
    pub of: usize,
}

impl Share {
    /// Returns the numbers of this worker's clients out of `count`.
    pub fn numbers(self, count: usize) -> impl Iterator<Item = usize> {
        (self.index..count).step_by(self.of)
    }
}

/// The times of the load, by [`crate::clock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The start of the load.
    pub begin: u64,
    /// The start of the measurement.
    pub from: u64,
    /// The end of the load and of the measurement.
    pub until: u64,
}

impl Window {
    /// Returns whether an action that was intended for this time is measured.
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
        // Without a rate, a publisher waits for the subscribers of its own worker.
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
        for room in [Room::Busy(0), Room::Busy(999_999), Room::Idle(7), Room::Everyone] {
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
