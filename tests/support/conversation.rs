//! The exchange of events with the server, the same over every transport.

use serde_json::Value;
use std::collections::VecDeque;

/// A way to connect to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Raw,
    WebSocket,
    /// An HTTP session that gets its output as the responses of polls.
    Poll,
    /// An HTTP session that gets its output as an event stream.
    Stream,
}

impl Transport {
    pub const ALL: [Transport; 4] =
        [Transport::Raw, Transport::WebSocket, Transport::Poll, Transport::Stream];
    /// Those of [`super::Client`].
    pub const SOCKETS: [Transport; 2] = [Transport::Raw, Transport::WebSocket];
    /// Those of [`super::HttpClient`].
    pub const HTTP: [Transport; 2] = [Transport::Poll, Transport::Stream];
}

/// An event from the server that is not the answer to an event of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub path: String,
    pub callback: u64,
    pub data: String,
}

/// The server's answer to an event.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The whole text.
    pub text: String,
    pub id: u64,
    /// The server callback that the answer offers; 0 if it offers none.
    pub callback: u64,
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> u64 {
        self.body["code"].as_u64().expect("an answer has a code")
    }
}

/// The end of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A WebSocket close frame, with its code and reason. The code of a frame without one is 1005 (RFC 6455, 7.1.5).
    Close(u16, String),
    /// The end of the TCP stream, or its reset.
    Disconnected,
    /// The status of a response to a request whose session has ended.
    Status(u16),
}

/// Events and answers that were received while the test waited for something else.
#[derive(Default)]
pub struct Inbox {
    last_id: u64,
    answers: VecDeque<Answer>,
    events: VecDeque<Event>,
}

/// A client whose handshake is complete. Every wait has a deadline, and panics past it.
pub trait Conversation: Send {
    // The part of the transport.

    /// Sends the text of one event.
    fn send_text(&mut self, text: &str);

    /// Sends the texts of several events in one piece.
    fn send_texts(&mut self, texts: &[String]);

    /// Returns the next text, or the end of the conversation.
    fn next_text(&mut self) -> Result<String, Ended>;

    /// Returns the end of the conversation. Ignores the texts before it.
    fn ended(&mut self) -> Ended;

    fn inbox(&mut self) -> &mut Inbox;

    // Sending.

    /// Sends an event that asks for no answer.
    fn tell(&mut self, path: &str, data: &str) {
        self.send_text(&format!("{path}:0={data}"));
    }

    /// Sends an event that asks for an answer, and returns the callback's id.
    fn ask(&mut self, path: &str, data: &str) -> u64 {
        self.inbox().last_id += 1;
        let id = self.inbox().last_id;
        self.send_text(&format!("{path}:{id}={data}"));
        id
    }

    /// Sends an event and returns its answer.
    #[track_caller]
    fn request(&mut self, path: &str, data: &str) -> Answer {
        let id = self.ask(path, data);
        self.answer(id)
    }

    /// Sends an event and returns its answer, which must have this code.
    #[track_caller]
    fn request_code(&mut self, path: &str, data: &str, code: u64) -> Answer {
        let answer = self.request(path, data);
        assert_eq!(answer.code(), code, "{path}={data} was answered {}", answer.text);
        answer
    }

    /// Sends a ping and waits for its answer. Everything that the server queued for this client before has been
    /// received then.
    #[track_caller]
    fn ping(&mut self) {
        self.request_code("/qio/ping", "null", 200);
    }

    #[track_caller]
    fn subscribe(&mut self, path: &str) {
        self.request_code("/qio/on", &format!("{path:?}"), 200);
    }

    #[track_caller]
    fn unsubscribe(&mut self, path: &str) {
        self.request_code("/qio/off", &format!("{path:?}"), 200);
    }

    // Receiving.

    /// Returns the next text.
    #[track_caller]
    fn text(&mut self) -> String {
        self.next_text()
            .unwrap_or_else(|ended| panic!("expected a text, but the conversation ended: {ended:?}"))
    }

    /// Returns the answer to a callback. Other texts that come before it are kept.
    #[track_caller]
    fn answer(&mut self, id: u64) -> Answer {
        loop {
            let answers = &mut self.inbox().answers;
            if let Some(at) = answers.iter().position(|answer| answer.id == id) {
                return answers.remove(at).unwrap();
            }
            self.receive();
        }
    }

    /// Returns the next event that is not an answer.
    #[track_caller]
    fn event(&mut self) -> Event {
        loop {
            if let Some(event) = self.inbox().events.pop_front() {
                return event;
            }
            self.receive();
        }
    }

    /// Returns the events that have been received and not returned yet.
    fn events(&mut self) -> Vec<Event> {
        self.inbox().events.drain(..).collect()
    }

    /// Returns the answers that have been received and not returned yet.
    fn answers(&mut self) -> Vec<Answer> {
        self.inbox().answers.drain(..).collect()
    }

    /// Receives one text into the inbox.
    #[track_caller]
    fn receive(&mut self) {
        let text = self.text();
        match parse_answer(&text) {
            Some(answer) => self.inbox().answers.push_back(answer),
            None => self.inbox().events.push_back(parse_event(&text)),
        }
    }
}

impl<C: Conversation + ?Sized> Conversation for Box<C> {
    fn send_text(&mut self, text: &str) {
        (**self).send_text(text);
    }

    fn send_texts(&mut self, texts: &[String]) {
        (**self).send_texts(texts);
    }

    fn next_text(&mut self) -> Result<String, Ended> {
        (**self).next_text()
    }

    fn ended(&mut self) -> Ended {
        (**self).ended()
    }

    fn inbox(&mut self) -> &mut Inbox {
        (**self).inbox()
    }
}

/// Parses an answer. Returns `None` if the text is not an answer.
fn parse_answer(text: &str) -> Option<Answer> {
    let rest = text.strip_prefix("/qio/callback/")?;
    let (id, rest) = rest.split_once(':').expect("a colon");
    let (callback, data) = rest.split_once('=').expect("an equals sign");
    Some(Answer {
        text: text.to_string(),
        id: id.parse().expect("an id"),
        callback: callback.parse().expect("a callback"),
        // The server may echo data of a client that is not JSON.
        body: serde_json::from_str(data).unwrap_or(Value::Null),
    })
}

/// Parses an event. Panics if it is malformed.
fn parse_event(text: &str) -> Event {
    let (path, rest) = text.split_once(':').expect("a colon");
    let (callback, data) = rest.split_once('=').expect("an equals sign");
    let callback = callback.parse().expect("a callback id");
    Event { path: path.to_string(), callback, data: data.to_string() }
}
