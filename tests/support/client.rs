//! A blocking client of the QuickIO protocol, by hand, over raw TCP and WebSocket.

use super::wire::{self, Frame, Received};
use super::{DEADLINE, http};
use serde_json::Value;
use socket2::{Domain, SockRef, Socket, Type};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Raw,
    WebSocket,
}

impl Wire {
    pub const ALL: [Wire; 2] = [Wire::Raw, Wire::WebSocket];
}

/// An event that the server sent and that is no answer.
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
    /// The server callback that is offered; 0 where none is.
    pub callback: u64,
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> u64 {
        self.body["code"].as_u64().expect("an answer has a code")
    }
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A WebSocket close frame, its code and reason; where it has none, 1005 (RFC 6455, 7.1.5).
    Close(u16, String),
    /// The end of the stream, or its reset.
    Gone,
}

/// What a client reads from.
trait Stream: Read + Write + Send {
    fn set_timeouts(&self, timeout: Duration);
    fn shutdown_write(&self);
    fn set_linger_zero(&self);
}

macro_rules! stream {
    ($type:ty) => {
        impl Stream for $type {
            fn set_timeouts(&self, timeout: Duration) {
                self.set_read_timeout(Some(timeout)).unwrap();
                self.set_write_timeout(Some(timeout)).unwrap();
            }

            fn shutdown_write(&self) {
                let _ = self.shutdown(std::net::Shutdown::Write); // the peer may have gone
            }

            fn set_linger_zero(&self) {
                SockRef::from(self).set_linger(Some(Duration::ZERO)).unwrap();
            }
        }
    };
}

stream!(TcpStream);
stream!(UnixStream);

/// One connection. Every read has a deadline, and panics past it.
pub struct Client {
    stream: Box<dyn Stream>,
    wire: Wire,
    /// Bytes received and not yet taken.
    input: Vec<u8>,
    last_id: u64,
    answers: VecDeque<Answer>,
    events: VecDeque<Event>,
    /// This end's address, as the server's log names it; empty on Unix sockets.
    pub address: String,
}

impl Client {
    /// Connects and says nothing yet. `address` is `HOST:PORT` or `unix:PATH`.
    pub fn connect(address: &str, wire: Wire) -> Client {
        match address.strip_prefix("unix:") {
            Some(path) => {
                let stream = UnixStream::connect(path).expect("the server accepts");
                Client::over(Box::new(stream), wire, String::new())
            }
            None => Client::over_tcp(TcpStream::connect(address).expect("the server accepts"), wire),
        }
    }

    /// As [`Client::connect`], from a source address, with a receive buffer as small as the kernel lets it be.
    pub fn connect_from(source: IpAddr, address: &str, wire: Wire) -> Client {
        let address: SocketAddr = address.parse().expect("HOST:PORT");
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(2048).unwrap();
        socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
        socket.connect(&address.into()).expect("the server accepts");
        Client::over_tcp(socket.into(), wire)
    }

    /// Connects and completes the handshake.
    pub fn open(address: &str, wire: Wire) -> Client {
        let mut client = Client::connect(address, wire);
        client.shake_hands();
        client
    }

    fn over_tcp(stream: TcpStream, wire: Wire) -> Client {
        stream.set_nodelay(true).unwrap();
        let address = stream.local_addr().unwrap().to_string();
        Client::over(Box::new(stream), wire, address)
    }

    fn over(stream: Box<dyn Stream>, wire: Wire, address: String) -> Client {
        stream.set_timeouts(DEADLINE);
        let (answers, events) = (VecDeque::new(), VecDeque::new());
        Client { stream, wire, input: Vec::new(), last_id: 0, answers, events, address }
    }

    /// The whole handshake, up to `/qio/ohai` from both sides.
    pub fn shake_hands(&mut self) {
        if self.wire == Wire::WebSocket {
            self.upgrade();
            self.send(&Frame::text("/qio/ohai").bytes());
            assert_eq!(self.text(), "/qio/ohai");
        } else {
            self.send(b"/qio/ohai");
            self.expect_bytes(b"/qio/ohai");
        }
    }

    /// The HTTP part of the handshake.
    pub fn upgrade(&mut self) {
        self.send(http::upgrade("Sec-WebSocket-Protocol: quickio\r\n").as_bytes());
        let head = self.head();
        assert_eq!(head.status, 101, "{head:?}");
        assert_eq!(head.header("sec-websocket-accept"), Some(http::ACCEPT));
        assert_eq!(head.header("sec-websocket-protocol"), Some("quickio"));
    }

    /// Reads a response's head.
    pub fn head(&mut self) -> http::Head {
        loop {
            if let Some(head) = http::take_head(&mut self.input) {
                return head;
            }
            assert!(self.fill(), "{}: the connection ended in place of an HTTP response", self.address);
        }
    }

    /// Reads exactly these bytes.
    pub fn expect_bytes(&mut self, bytes: &[u8]) {
        let found = self.take_bytes(bytes.len());
        assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(bytes));
    }

    /// Reads so many bytes; fewer where the connection ends before.
    pub fn take_bytes(&mut self, len: usize) -> Vec<u8> {
        while self.input.len() < len && self.fill() {}
        let len = self.input.len().min(len);
        self.input.drain(..len).collect()
    }

    // Sending.

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Sends bytes to a server that may have closed already.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// A text as this client's protocol frames it.
    pub fn framed(&self, text: impl AsRef<[u8]>) -> Vec<u8> {
        match self.wire {
            Wire::Raw => wire::raw(text),
            Wire::WebSocket => Frame::text(text).bytes(),
        }
    }

    /// Sends one text.
    pub fn send_text(&mut self, text: impl AsRef<[u8]>) {
        let bytes = self.framed(text);
        self.send(&bytes);
    }

    /// Sends an event that asks for no answer.
    pub fn tell(&mut self, path: &str, data: &str) {
        self.send_text(format!("{path}:0={data}"));
    }

    /// Sends an event that asks for an answer, and returns the callback's id.
    pub fn ask(&mut self, path: &str, data: &str) -> u64 {
        self.last_id += 1;
        self.send_text(format!("{path}:{}={data}", self.last_id));
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

    /// Pings. Whatever the server queued for this client before has been read afterwards.
    pub fn ping(&mut self) {
        self.request_code("/qio/ping", "null", 200);
    }

    pub fn subscribe(&mut self, path: &str) {
        self.request_code("/qio/on", &format!("{path:?}"), 200);
    }

    pub fn unsubscribe(&mut self, path: &str) {
        self.request_code("/qio/off", &format!("{path:?}"), 200);
    }

    // Receiving.

    /// Waits for the answer to a callback. What comes before it is kept.
    pub fn answer(&mut self, id: u64) -> Answer {
        loop {
            if let Some(at) = self.answers.iter().position(|answer| answer.id == id) {
                return self.answers.remove(at).unwrap();
            }
            self.receive();
        }
    }

    /// The next event that is no answer.
    pub fn event(&mut self) -> Event {
        while self.events.is_empty() {
            self.receive();
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

    fn receive(&mut self) {
        let text = self.text();
        match parse_answer(&text) {
            Some(answer) => self.answers.push_back(answer),
            None => self.events.push_back(parse_event(&text)),
        }
    }

    /// The next text.
    pub fn text(&mut self) -> String {
        match self.next_text() {
            Ok(text) => text,
            Err(ended) => panic!("{}: the connection ended in place of a text: {ended:?}", self.address),
        }
    }

    /// The next text, or how the connection ended in its place.
    pub fn next_text(&mut self) -> Result<String, Ended> {
        if self.wire == Wire::Raw {
            return match self.take(wire::take_raw) {
                Some(text) => Ok(String::from_utf8(text).expect("a text in UTF-8")),
                None => Err(Ended::Gone),
            };
        }
        match self.frame() {
            None => Err(Ended::Gone),
            Some(Received { finished: true, opcode: wire::TEXT, payload }) => {
                Ok(String::from_utf8(payload).expect("a text in UTF-8"))
            }
            Some(Received { opcode: wire::CLOSE, payload, .. }) => Err(parse_close(&payload)),
            Some(frame) => panic!("expected a text frame: {frame:?}"),
        }
    }

    /// The next frame; none where the connection ended.
    pub fn frame(&mut self) -> Option<Received> {
        self.take(wire::take_frame)
    }

    fn take<T>(&mut self, take: impl Fn(&mut Vec<u8>) -> Option<T>) -> Option<T> {
        loop {
            if let Some(taken) = take(&mut self.input) {
                return Some(taken);
            }
            if !self.fill() {
                assert!(self.input.is_empty(), "the connection ended within a message: {:?}", self.input);
                return None;
            }
        }
    }

    /// Reads what is there, waiting for it; false at the connection's end.
    fn fill(&mut self) -> bool {
        let mut chunk = [0; 64 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(read) => {
                self.input.extend_from_slice(&chunk[..read]);
                read > 0
            }
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => false,
            Err(error) => panic!("nothing came from the server before the deadline: {error}"),
        }
    }

    // Ending.

    /// Reads to the connection's end, passing over texts and pongs.
    pub fn ended(&mut self) -> Ended {
        loop {
            let more = match self.wire {
                Wire::Raw => self.take(wire::take_raw).is_some(),
                Wire::WebSocket => match self.frame() {
                    Some(Received { opcode: wire::CLOSE, payload, .. }) => return parse_close(&payload),
                    frame => frame.is_some(),
                },
            };
            if !more {
                return Ended::Gone;
            }
        }
    }

    /// Expects that the server ends the connection: a WebSocket by this code and reason, whose close frame is
    /// answered, and then in any case by closing it.
    pub fn expect_closed(&mut self, code: u16, reason: &str) {
        if self.wire == Wire::WebSocket {
            assert_eq!(self.ended(), Ended::Close(code, reason.to_string()));
            self.try_send(&Frame::close(code, "").bytes());
        }
        self.expect_gone();
    }

    /// Expects that the server closes the connection, and sends nothing before.
    pub fn expect_gone(&mut self) {
        assert_eq!(String::from_utf8_lossy(&self.input), "");
        assert!(
            !self.fill(),
            "bytes in place of the connection's end: {:?}",
            String::from_utf8_lossy(&self.input)
        );
    }

    /// Everything that comes up to the connection's end, as it is.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.input)
    }

    /// Sends no more, and still reads.
    pub fn shutdown_write(&self) {
        self.stream.shutdown_write();
    }

    /// Vanishes: the connection is reset.
    pub fn vanish(self) {
        self.stream.set_linger_zero();
    }
}

fn parse_close(payload: &[u8]) -> Ended {
    match payload {
        [] => Ended::Close(1005, String::new()),
        [a, b, reason @ ..] => {
            let reason = std::str::from_utf8(reason).expect("a reason in UTF-8 (RFC 6455, 5.5.1)");
            Ended::Close(u16::from_be_bytes([*a, *b]), reason.to_string())
        }
        [_] => panic!("a close frame with one byte (RFC 6455, 5.5.1)"),
    }
}

/// An answer, where the text is one.
pub fn parse_answer(text: &str) -> Option<Answer> {
    let rest = text.strip_prefix("/qio/callback/")?;
    let (id, rest) = rest.split_once(':').expect("a colon");
    let (callback, data) = rest.split_once('=').expect("an equals sign");
    Some(Answer {
        text: text.to_string(),
        id: id.parse().expect("an id"),
        callback: callback.parse().expect("a callback"),
        // What a client sent may come back, and that may be no JSON.
        body: serde_json::from_str(data).unwrap_or(Value::Null),
    })
}

/// Takes an event apart; panics where it is malformed.
pub fn parse_event(text: &str) -> Event {
    let (path, rest) = text.split_once(':').expect("a colon");
    let (callback, data) = rest.split_once('=').expect("an equals sign");
    let callback = callback.parse().expect("a callback id");
    Event { path: path.to_string(), callback, data: data.to_string() }
}
