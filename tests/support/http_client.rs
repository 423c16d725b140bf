//! A blocking client that has an HTTP session: it polls, or opens an event stream.

use super::client::{Answer, Event, parse_answer, parse_event};
use super::http::{Connection, Session};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a client gets what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Poll,
    Stream,
}

impl Way {
    pub const ALL: [Way; 2] = [Way::Poll, Way::Stream];
}

/// A client. Its requests go over one connection, pipelined where one is held.
pub struct HttpClient {
    pub session: Session,
    address: String,
    /// Opened with the first request: the server does not wait for that without end.
    requests: Option<Connection>,
    /// Requests that were not answered.
    unanswered: usize,
    stream: Option<Connection>,
    texts: VecDeque<String>,
    answers: VecDeque<Answer>,
    events: VecDeque<Event>,
    last_id: u64,
}

/// A sid that no other client of this process has.
pub fn new_session() -> Session {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Session(
        0x0051_d000_0000_0000_0000_0000_0000_0000 | u128::from(NEXT.fetch_add(1, Ordering::Relaxed)) << 32,
    )
}

impl HttpClient {
    /// A session that is open.
    pub fn open(address: &str, way: Way) -> HttpClient {
        let session = new_session();
        let mut requests = None;
        let stream = match way {
            Way::Poll => {
                let connection = requests.insert(Connection::open(address));
                let response = connection.ask(session.post("&connect=true", "/qio/ping:1000000="));
                assert_eq!(response.head.status, 200, "{response:?}");
                None
            }
            Way::Stream => {
                let mut stream = Connection::open(address);
                stream.send(session.stream("&connect=true"));
                assert_eq!(stream.head().status, 200);
                assert_eq!(stream.read_to("\n\n"), ": quickio\n\n");
                Some(stream)
            }
        };
        let (texts, answers, events) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let address = address.to_owned();
        HttpClient { session, address, requests, unanswered: 0, stream, texts, answers, events, last_id: 0 }
    }

    fn requests(&mut self) -> &mut Connection {
        self.requests.get_or_insert_with(|| Connection::open(&self.address))
    }

    /// Sends events, one a line.
    pub fn send(&mut self, lines: &str) {
        let request = self.session.post("", lines);
        self.requests().send(request);
        self.unanswered += 1;
    }

    /// Sends an event that asks for no answer.
    pub fn tell(&mut self, path: &str, data: &str) {
        self.send(&format!("{path}:0={data}"));
    }

    /// Sends an event that asks for an answer, and returns the callback's id.
    pub fn ask(&mut self, path: &str, data: &str) -> u64 {
        self.last_id += 1;
        self.send(&format!("{path}:{}={data}", self.last_id));
        self.last_id
    }

    /// Sends an event and waits for its answer.
    pub fn request(&mut self, path: &str, data: &str) -> Answer {
        let id = self.ask(path, data);
        self.answer(id)
    }

    /// Sends an event and expects that it is answered with this code.
    pub fn request_code(&mut self, path: &str, data: &str, code: u64) -> Answer {
        let answer = self.request(path, data);
        assert_eq!(answer.code(), code, "{path}={data} was answered {}", answer.text);
        answer
    }

    /// Pings. What came before has been read afterwards.
    pub fn ping(&mut self) {
        self.request_code("/qio/ping", "null", 200);
    }

    pub fn subscribe(&mut self, path: &str) {
        self.request_code("/qio/on", &format!("{path:?}"), 200);
    }

    /// Waits for the answer to a callback. What comes before it is kept.
    pub fn answer(&mut self, id: u64) -> Answer {
        loop {
            if let Some(at) = self.answers.iter().position(|answer| answer.id == id) {
                return self.answers.remove(at).unwrap();
            }
            self.sort_next();
        }
    }

    /// The next event that is no answer.
    pub fn event(&mut self) -> Event {
        while self.events.is_empty() {
            self.sort_next();
        }
        self.events.pop_front().unwrap()
    }

    /// The events that came already.
    pub fn events(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }

    /// Answers that came already and that nobody waited for.
    pub fn answers(&mut self) -> Vec<Answer> {
        self.answers.drain(..).collect()
    }

    fn sort_next(&mut self) {
        let text = self.text();
        match parse_answer(&text) {
            Some(answer) => self.answers.push_back(answer),
            None => self.events.push_back(parse_event(&text)),
        }
    }

    /// The next text.
    pub fn text(&mut self) -> String {
        self.next_text().unwrap_or_else(|status| panic!("the session ended by {status} in place of a text"))
    }

    /// The next text, or the status that a request got at the session's end.
    pub fn next_text(&mut self) -> Result<String, u16> {
        while self.texts.is_empty() {
            match self.stream {
                Some(_) => self.read_stream()?,
                None => self.poll()?,
            }
        }
        Ok(self.texts.pop_front().unwrap())
    }

    fn poll(&mut self) -> Result<(), u16> {
        if self.unanswered == 0 {
            self.send("");
        }
        let response = self.requests().response();
        self.unanswered -= 1;
        self.texts.extend(response.body.lines().map(str::to_owned));
        if response.head.status == 200 { Ok(()) } else { Err(response.head.status) }
    }

    fn read_stream(&mut self) -> Result<(), u16> {
        self.expect_answered();
        let stream = self.stream.as_mut().expect("a client that streams");
        let Some(event) = stream.try_read_to("\n\n") else {
            self.send("");
            self.unanswered -= 1;
            return Err(self.requests().response().head.status);
        };
        let text = event.strip_prefix("data:").expect("an event of a stream").trim_end();
        self.texts.push_back(text.to_owned());
        Ok(())
    }

    /// While a stream is open every request is answered at once, with nothing.
    fn expect_answered(&mut self) {
        for _ in 0..std::mem::take(&mut self.unanswered) {
            let response = self.requests().response();
            // Where the event has ended the session, its own request is told so.
            assert!(response.body.is_empty() && [200, 403].contains(&response.head.status), "{response:?}");
        }
    }

    /// Reads to the session's end; the status that tells it.
    pub fn ended(&mut self) -> u16 {
        loop {
            if let Err(status) = self.next_text() {
                return status;
            }
        }
    }
}
