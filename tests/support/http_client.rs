//! A blocking client with an HTTP session: it polls, or opens an event stream.

use super::conversation::{Conversation, Ended, Inbox, Transport};
use super::http::{Connection, Session};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

/// A client. Its requests go over one connection, and are pipelined while the server holds one.
pub struct HttpClient {
    pub session: Session,
    address: String,
    /// Opened with the first request, because the server closes connections that send none.
    requests: Option<Connection>,
    /// The number of requests without a response.
    unanswered: usize,
    /// The event stream of a client that does not poll.
    stream: Option<Connection>,
    texts: VecDeque<String>,
    inbox: Inbox,
}

/// Returns a session with a sid that no other client of this process has.
pub fn new_session() -> Session {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Session(
        0x0051_d000_0000_0000_0000_0000_0000_0000 | u128::from(NEXT.fetch_add(1, Ordering::Relaxed)) << 32,
    )
}

impl HttpClient {
    /// Opens a session.
    pub fn open(address: &str, transport: Transport) -> HttpClient {
        let session = new_session();
        let mut requests = None;
        let stream = match transport {
            Transport::Poll => {
                let connection = requests.insert(Connection::open(address));
                let response = connection.request(session.post("&connect=true", "/qio/ping:1000000="));
                assert_eq!(response.head.status, 200, "{response:?}");
                None
            }
            Transport::Stream => {
                let mut stream = Connection::open(address);
                stream.send(session.stream("&connect=true"));
                assert_eq!(stream.head().status, 200);
                assert_eq!(stream.read_to("\n\n"), ": quickio\n\n");
                Some(stream)
            }
            Transport::Raw | Transport::WebSocket => {
                panic!("{transport:?} has a client of its own: `Client`")
            }
        };
        let (texts, inbox, address) = (VecDeque::new(), Inbox::default(), address.to_owned());
        HttpClient { session, address, requests, unanswered: 0, stream, texts, inbox }
    }

    fn requests(&mut self) -> &mut Connection {
        self.requests.get_or_insert_with(|| Connection::open(&self.address))
    }

    /// Sends events, one a line.
    fn post(&mut self, lines: &str) {
        let request = self.session.post("", lines);
        self.requests().send(request);
        self.unanswered += 1;
    }

    /// Receives the response of one poll.
    fn poll(&mut self) -> Result<(), Ended> {
        if self.unanswered == 0 {
            self.post("");
        }
        let response = self.requests().response();
        self.unanswered -= 1;
        self.texts.extend(response.body.lines().map(str::to_owned));
        if response.head.status == 200 { Ok(()) } else { Err(Ended::Status(response.head.status)) }
    }

    /// Receives one event of the stream.
    fn read_stream(&mut self) -> Result<(), Ended> {
        self.expect_responses();
        let stream = self.stream.as_mut().expect("a client that streams");
        let Some(event) = stream.try_read_to("\n\n") else {
            self.post("");
            self.unanswered -= 1;
            return Err(Ended::Status(self.requests().response().head.status));
        };
        let text = event.strip_prefix("data:").expect("an event of a stream").trim_end();
        self.texts.push_back(text.to_owned());
        Ok(())
    }

    /// Receives the responses to all requests. While a stream is open, the server responds to every request at once
    /// and with an empty body.
    fn expect_responses(&mut self) {
        for _ in 0..std::mem::take(&mut self.unanswered) {
            let response = self.requests().response();
            // If the event has ended the session, the response to its request has the status 403.
            assert!(response.body.is_empty() && [200, 403].contains(&response.head.status), "{response:?}");
        }
    }
}

impl Conversation for HttpClient {
    fn send_text(&mut self, text: &str) {
        self.post(text);
    }

    fn send_texts(&mut self, texts: &[String]) {
        self.post(&texts.join("\n"));
    }

    fn next_text(&mut self) -> Result<String, Ended> {
        while self.texts.is_empty() {
            match self.stream {
                Some(_) => self.read_stream()?,
                None => self.poll()?,
            }
        }
        Ok(self.texts.pop_front().unwrap())
    }

    fn ended(&mut self) -> Ended {
        loop {
            if let Err(ended) = self.next_text() {
                return ended;
            }
        }
    }

    fn inbox(&mut self) -> &mut Inbox {
        &mut self.inbox
    }
}
