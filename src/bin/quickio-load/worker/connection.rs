//! The record of one connection, and the messages in a piece of received bytes. Over HTTP a connection is a session,
//! and has two sockets.

use super::session::{SOCKETS_MAX, Session};
use crate::decoder::{Decoder, Message};
use crate::encoder::FrameSizes;
use crate::error::ProtocolError;
use crate::pings::{OpenPings, PingSchedule};
use crate::plan::{Protocol, Role, Room, Window};
use crate::results::{Results, Timing};
use crate::tls::TlsClient;
use quickio::qev::buffers::Frame;
use quickio::qev::ring::{Descriptor, SendId};
use std::collections::VecDeque;

/// A connection of a worker.
pub struct Connection {
    pub role: Role,
    /// The number among all clients of its role, over all workers.
    pub number: usize,
    pub room: Option<Room>,
    pub state: ConnectionState,
    /// The sockets. Only HTTP uses the second one.
    pub sockets: [SocketState; SOCKETS_MAX],
    pub session: Option<Box<Session>>,
    /// The (intended) time at which it started to connect.
    pub began: u64,
    pub pings: OpenPings,
    /// The number of bytes received, without a protocol that separates messages.
    pub bytes: u64,
    /// The time of the newest event of its room.
    newest: u64,
}

/// The state of a socket of a connection.
pub struct SocketState {
    /// The descriptor, if the socket is open.
    pub descriptor: Option<Descriptor>,
    /// The send that is in flight.
    pub send: Option<SendId>,
    pub receiving: bool,
    /// The server has closed the socket, and it is about to be closed here. It cannot be reused before that.
    pub closing: bool,
    /// The frames to send after the current send.
    pub outbox: VecDeque<Frame>,
    pub decoder: Decoder,
    /// The TLS of the socket, if it is open and has TLS.
    pub tls: Option<Box<TlsClient>>,
}

/// The state of a connection: Waiting -> Opening -> Open -> Closing -> Closed (-> Opening, for churners).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    Waiting,
    Opening,
    Open,
    Closing,
    Closed,
}

/// The messages in a piece of received bytes.
#[derive(Default)]
pub struct Received {
    pub upgraded: bool,
    pub greeted: bool,
    pub subscribed: bool,
    pub pongs: u64,
    pub published: u64,
    /// The number of published events that are older than an event received before.
    pub out_of_order: u64,
    pub refused: u64,
    /// The text of the first refusal.
    pub refusal: Option<String>,
    /// The callback ids of heartbeats that must be answered.
    pub heartbeats: Vec<u64>,
    pub control_pings: Vec<Vec<u8>>,
    /// The code and reason of a close frame.
    pub closed: Option<String>,
    responses: u64,
}

impl SocketState {
    fn new(decoder: Decoder) -> SocketState {
        SocketState {
            descriptor: None,
            send: None,
            receiving: false,
            closing: false,
            outbox: VecDeque::new(),
            decoder,
            tls: None,
        }
    }

    /// Returns whether no operation is in flight.
    pub fn is_idle(&self) -> bool {
        self.send.is_none() && !self.receiving
    }
}

impl Connection {
    /// Returns a connection that waits to be opened.
    pub fn new(protocol: Protocol, role: Role, number: usize, room: Option<Room>) -> Connection {
        Connection {
            role,
            number,
            room,
            state: ConnectionState::Waiting,
            sockets: [SocketState::new(Decoder::new(protocol)), SocketState::new(Decoder::for_requests())],
            session: None,
            began: 0,
            pings: OpenPings::default(),
            bytes: 0,
            newest: 0,
        }
    }

    /// Returns whether new messages would have to wait.
    pub fn is_busy(&self) -> bool {
        self.session.as_ref().map_or(self.sockets[0].send.is_some(), |session| session.is_busy())
    }

    /// Returns whether it subscribes to its room after the greeting.
    pub fn subscribes(&self) -> bool {
        self.room.is_some() && self.role != Role::Publisher
    }

    /// Returns the number of the room whose events it receives.
    pub fn busy_room(&self) -> Option<usize> {
        match self.room {
            Some(Room::Busy(room)) => Some(room),
            _ => None,
        }
    }

    /// Handles bytes that a churner has received without a protocol: the messages that they complete, by their sizes.
    pub fn receive_bytes(&mut self, len: u64, sizes: FrameSizes) -> Received {
        let before = self.bytes;
        self.bytes += len;
        let after = self.bytes;
        let completes = |end: usize| (before + 1..=after).contains(&(end as u64));
        let greeted = sizes.upgraded + sizes.greeted;
        Received {
            upgraded: completes(sizes.upgraded),
            greeted: completes(greeted),
            pongs: u64::from(completes(greeted + sizes.answer)),
            ..Received::default()
        }
    }

    /// Handles bytes received on a socket. Latencies are recorded in `results`.
    pub fn receive(
        &mut self,
        socket: usize,
        piece: &[u8],
        now: u64,
        schedule: &PingSchedule,
        window: Option<Window>,
        results: &mut Results,
    ) -> Result<Received, ProtocolError> {
        let mut received = Received::default();
        if self.session.as_mut().is_some_and(|session| session.keep_early(socket, piece)) {
            return Ok(received);
        }
        let (pings, newest) = (&mut self.pings, &mut self.newest);
        let mut record = |timing, intended: Option<u64>| {
            let measured = intended.filter(|at| window.is_some_and(|window| window.measures(*at)));
            measured.into_iter().for_each(|at| results.record(timing, now.saturating_sub(at)));
        };
        let mut handle = |received: &mut Received, message: Message<'_>| match message {
            Message::Published(at) => {
                received.published += 1;
                received.out_of_order += u64::from(at < *newest);
                *newest = at.max(*newest);
                record(Timing::Delivery, Some(at));
            }
            Message::Pong => {
                received.pongs += 1;
                record(Timing::Ping, pings.answered(schedule));
            }
            other => received.add(other),
        };
        self.sockets[socket].decoder.decode(piece, |message| handle(&mut received, message))?;
        let mut next = socket;
        while received.responses > 0 {
            received.responses -= 1;
            let session = self.session.as_mut().filter(|_| received.responses == 0);
            let (other, early) =
                session.and_then(|s| s.answered(next)).ok_or(ProtocolError::Response("without a request"))?;
            if !early.is_empty() {
                self.sockets[other].decoder.decode(&early, |message| handle(&mut received, message))?;
            }
            next = other;
        }
        Ok(received)
    }
}

impl Received {
    /// Adds a message of a less frequent kind.
    fn add(&mut self, message: Message<'_>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match message {
            Message::Upgraded => self.upgraded = true,
            Message::Greeted => self.greeted = true,
            Message::Subscribed => self.subscribed = true,
            Message::Refused(answer) => {
                self.refused += 1;
                self.refusal.get_or_insert_with(|| text(answer));
            }
            Message::Heartbeat(0) | Message::Other(_) | Message::Published(_) | Message::Pong => {}
            Message::ResponseEnd => self.responses += 1,
            Message::Heartbeat(callback) => self.heartbeats.push(callback),
            Message::ControlPing(data) => self.control_pings.push(data.to_vec()),
            Message::Close(code, reason) => {
                let code = code.map_or("without a code".into(), |code| code.to_string());
                self.closed = Some(format!("closed by the server: {code} {}", text(reason)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Plan, Scenario};
    use crate::request::Sid;

    const WINDOW: Window = Window { begin: 0, from: 0, until: u64::MAX };

    fn polling() -> Connection {
        let mut connection = Connection::new(Protocol::LongPolling, Role::Subscriber, 0, Some(Room::Busy(0)));
        connection.session = Some(Box::new(Session::new(Sid { run: 1, number: 2 }, false)));
        connection
    }

    /// Returns a response with an event that was published at a time.
    fn delivery(at: u64) -> Vec<u8> {
        let event = format!("{}:0={{\"t\":{}}}\n", Room::Busy(0).path(), 1_000_000_000_000_000_000 + at);
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{event}", event.len()).into_bytes()
    }

    fn receive(connection: &mut Connection, socket: usize, piece: &[u8]) -> Result<Received, ProtocolError> {
        connection.receive(
            socket,
            piece,
            1000,
            &PingSchedule::default(),
            Some(WINDOW),
            &mut Results::default(),
        )
    }

    /// The session sends requests on both sockets; the response to the second one is received first.
    #[test]
    fn responses_are_handled_in_the_order_of_their_requests() {
        let (first, second) = (delivery(5), delivery(7));
        for split in 0..=first.len() {
            let mut connection = polling();
            let session = connection.session.as_mut().unwrap();
            [0, 1].into_iter().for_each(|socket| drop(session.next_request(socket)));
            let (head, tail) = first.split_at(split);
            let mut received = Received::default();
            for (socket, piece) in [(0, head), (1, &second[..9]), (1, &second[9..]), (0, tail)] {
                let more = receive(&mut connection, socket, piece).unwrap();
                received.published += more.published;
                received.out_of_order += more.out_of_order;
                if split < first.len() && (socket, piece) != (0, tail) {
                    assert_eq!(received.published, 0, "the first response is incomplete");
                }
            }
            assert_eq!((received.published, received.out_of_order), (2, 0), "split at {split}");
            assert_eq!(connection.session.unwrap().next_socket(), Some(0), "nothing is unanswered");
        }
    }

    #[test]
    fn events_out_of_order_are_counted() {
        let mut connection = polling();
        let out_of_order: Vec<u64> = [5, 7, 6, 7, 3]
            .into_iter()
            .map(|at| {
                connection.session.as_mut().unwrap().next_request(0);
                receive(&mut connection, 0, &delivery(at)).unwrap().out_of_order
            })
            .collect();
        assert_eq!(out_of_order, [0, 0, 1, 0, 1]);
    }

    #[test]
    fn a_churner_counts_the_bytes_of_its_messages() {
        let sizes = FrameSizes::of(&Plan::new(Scenario::Churn));
        let mut churner = Connection::new(Protocol::None, Role::Churner, 0, None);
        let mut receive = |len: usize| {
            let received = churner.receive_bytes(len as u64, sizes);
            (received.upgraded, received.greeted, received.pongs)
        };
        assert_eq!(receive(sizes.upgraded - 1), (false, false, 0));
        assert_eq!(receive(1), (true, false, 0));
        assert_eq!(receive(sizes.greeted), (false, true, 0));
        assert_eq!(receive(sizes.answer - 1), (false, false, 0));
        assert_eq!(receive(1), (false, false, 1));
        assert_eq!(receive(sizes.closed), (false, false, 0));
    }

    #[test]
    fn a_response_without_a_request_is_an_error() {
        let error = receive(&mut polling(), 0, &delivery(1)).err();
        assert_eq!(error, Some(ProtocolError::Response("without a request")));
        let mut connection = polling();
        connection.session.as_mut().unwrap().next_request(0);
        let error = receive(&mut connection, 0, &delivery(1).repeat(2)).err();
        assert_eq!(error, Some(ProtocolError::Response("without a request")));
    }
}
