//! One connection: its record, and what it heard in a piece of bytes. Over HTTP it is a session, and has two sockets.

use super::pings::{Asked, Schedule};
use super::session::{LINES, Session};
use crate::cut::{Broken, Cutter, Said};
use crate::outcome::{Outcome, Timed};
use crate::plan::{Protocol, Role, Room, Window};
use quickio::qev::buffers::Frame;
use quickio::qev::ring::Descriptor;
use std::collections::VecDeque;

/// A connection of a worker.
pub struct Connection {
    pub role: Role,
    /// Among all clients of its role, over all workers.
    pub number: usize,
    pub room: Option<Room>,
    pub state: State,
    /// The second is there over HTTP only.
    pub lines: [Socket; LINES],
    pub session: Option<Box<Session>>,
    /// When it began to connect, or was meant to.
    pub began: u64,
    pub asked: Asked,
    /// Bytes received, where there is no protocol that tells messages apart.
    pub bytes: u64,
    /// The time of the newest event of its room.
    newest: u64,
}

/// A socket of a connection, or the place of one.
pub struct Socket {
    pub socket: Option<Descriptor>,
    pub sending: bool,
    pub receiving: bool,
    /// The server has closed it, and we are about to: the place is taken until then.
    pub closing: bool,
    /// What goes out when the send in flight is done.
    pub outbox: VecDeque<Frame>,
    pub cutter: Cutter,
}

/// Waiting -> Opening -> Open -> Closing -> Closed (-> Opening, for churners)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Waiting,
    Opening,
    Open,
    Closing,
    Closed,
}

/// What a piece of bytes said, added up.
#[derive(Default)]
pub struct Heard {
    pub upgraded: bool,
    pub greeted: bool,
    pub subscribed: bool,
    pub pongs: u64,
    pub published: u64,
    /// Of those: older than one that came before.
    pub disordered: u64,
    pub refused: u64,
    /// The first refusal's text.
    pub refusal: Option<String>,
    /// Heartbeats that want an answer.
    pub heartbeats: Vec<u64>,
    pub control_pings: Vec<Vec<u8>>,
    pub closed: Option<String>,
    responses: u64,
}

impl Socket {
    fn new(cutter: Cutter) -> Socket {
        Socket {
            socket: None,
            sending: false,
            receiving: false,
            closing: false,
            outbox: VecDeque::new(),
            cutter,
        }
    }

    /// Whether nothing is in flight.
    pub fn is_quiet(&self) -> bool {
        !self.sending && !self.receiving
    }
}

impl Connection {
    /// A connection that waits for its turn to open.
    pub fn new(protocol: Protocol, role: Role, number: usize, room: Option<Room>) -> Connection {
        Connection {
            role,
            number,
            room,
            state: State::Waiting,
            lines: [Socket::new(Cutter::new(protocol)), Socket::new(Cutter::of_requests())],
            session: None,
            began: 0,
            asked: Asked::default(),
            bytes: 0,
            newest: 0,
        }
    }

    /// Whether what it says now would have to wait.
    pub fn is_busy(&self) -> bool {
        self.session.as_ref().map_or(self.lines[0].sending, |session| session.is_busy())
    }

    /// Whether it subscribes to its room once it is greeted.
    pub fn subscribes(&self) -> bool {
        self.room.is_some() && self.role != Role::Publisher
    }

    /// The number of the room whose events it gets.
    pub fn busy_room(&self) -> Option<usize> {
        match self.room {
            Some(Room::Busy(room)) => Some(room),
            _ => None,
        }
    }

    /// Takes a piece of bytes in, that came by that socket; what was timed goes into `outcome`.
    pub fn hear(
        &mut self,
        line: usize,
        piece: &[u8],
        now: u64,
        schedule: &Schedule,
        window: Option<Window>,
        outcome: &mut Outcome,
    ) -> Result<Heard, Broken> {
        let mut heard = Heard::default();
        if self.session.as_mut().is_some_and(|session| session.keep_early(line, piece)) {
            return Ok(heard);
        }
        let (asked, newest) = (&mut self.asked, &mut self.newest);
        let mut time = |timed, intended: Option<u64>| {
            let measured = intended.filter(|at| window.is_some_and(|window| window.measures(*at)));
            measured.into_iter().for_each(|at| outcome.record(timed, now.saturating_sub(at)));
        };
        let mut each = |heard: &mut Heard, said: Said<'_>| match said {
            Said::Published(at) => {
                heard.published += 1;
                heard.disordered += u64::from(at < *newest);
                *newest = at.max(*newest);
                time(Timed::Delivery, Some(at));
            }
            Said::Pong => {
                heard.pongs += 1;
                time(Timed::Ping, asked.answered(schedule));
            }
            other => heard.note(other),
        };
        self.lines[line].cutter.cut(piece, |said| each(&mut heard, said))?;
        let mut next = line;
        while heard.responses > 0 {
            heard.responses -= 1;
            let session = self.session.as_mut().filter(|_| heard.responses == 0);
            let (other, early) =
                session.and_then(|s| s.answered(next)).ok_or(Broken::Response("to no request"))?;
            if !early.is_empty() {
                self.lines[other].cutter.cut(&early, |said| each(&mut heard, said))?;
            }
            next = other;
        }
        Ok(heard)
    }
}

impl Heard {
    /// Notes what is said less often.
    fn note(&mut self, said: Said<'_>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match said {
            Said::Upgraded => self.upgraded = true,
            Said::Greeted => self.greeted = true,
            Said::Subscribed => self.subscribed = true,
            Said::Refused(answer) => {
                self.refused += 1;
                self.refusal.get_or_insert_with(|| text(answer));
            }
            Said::Heartbeat(0) | Said::Other(_) | Said::Published(_) | Said::Pong => {}
            Said::Answered => self.responses += 1,
            Said::Heartbeat(callback) => self.heartbeats.push(callback),
            Said::ControlPing(data) => self.control_pings.push(data.to_vec()),
            Said::Close(code, reason) => {
                let code = code.map_or("without a code".into(), |code| code.to_string());
                self.closed = Some(format!("closed by the server: {code} {}", text(reason)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Sid;

    const WINDOW: Window = Window { begin: 0, from: 0, until: u64::MAX };

    fn polling() -> Connection {
        let mut connection = Connection::new(Protocol::LongPolling, Role::Subscriber, 0, Some(Room::Busy(0)));
        connection.session = Some(Box::new(Session::new(Sid { run: 1, number: 2 }, false)));
        connection
    }

    /// A response with an event published at that time.
    fn delivery(at: u64) -> Vec<u8> {
        let event = format!("{}:0={{\"t\":{}}}\n", Room::Busy(0).path(), 1_000_000_000_000_000_000 + at);
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{event}", event.len()).into_bytes()
    }

    fn hear(connection: &mut Connection, line: usize, piece: &[u8]) -> Result<Heard, Broken> {
        connection.hear(line, piece, 1000, &Schedule::default(), Some(WINDOW), &mut Outcome::default())
    }

    /// The session asks by both lines; what came for the second request came first.
    #[test]
    fn responses_are_heard_in_the_order_of_their_requests() {
        let (first, second) = (delivery(5), delivery(7));
        for split in 0..=first.len() {
            let mut connection = polling();
            let session = connection.session.as_mut().unwrap();
            [0, 1].into_iter().for_each(|line| drop(session.next_request(line)));
            let (head, tail) = first.split_at(split);
            let mut heard = Heard::default();
            for (line, piece) in [(0, head), (1, &second[..9]), (1, &second[9..]), (0, tail)] {
                let more = hear(&mut connection, line, piece).unwrap();
                heard.published += more.published;
                heard.disordered += more.disordered;
                if split < first.len() && (line, piece) != (0, tail) {
                    assert_eq!(heard.published, 0, "the first is not whole");
                }
            }
            assert_eq!((heard.published, heard.disordered), (2, 0), "split at {split}");
            assert_eq!(connection.session.unwrap().next_line(), Some(0), "nothing is unanswered");
        }
    }

    #[test]
    fn events_out_of_order_are_counted() {
        let mut connection = polling();
        let disordered: Vec<u64> = [5, 7, 6, 7, 3]
            .into_iter()
            .map(|at| {
                connection.session.as_mut().unwrap().next_request(0);
                hear(&mut connection, 0, &delivery(at)).unwrap().disordered
            })
            .collect();
        assert_eq!(disordered, [0, 0, 1, 0, 1]);
    }

    #[test]
    fn a_response_that_nobody_asked_for_is_an_error() {
        let broken = hear(&mut polling(), 0, &delivery(1)).err();
        assert_eq!(broken, Some(Broken::Response("to no request")));
        let mut connection = polling();
        connection.session.as_mut().unwrap().next_request(0);
        let broken = hear(&mut connection, 0, &delivery(1).repeat(2)).err();
        assert_eq!(broken, Some(Broken::Response("to no request")));
    }
}
