//! The part of HTTP/1.1 that the tests need: polls, event streams, upgrades, refusals, and the statistics endpoint.

use super::stream::{self, Stream};
use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;

/// The key of RFC 6455, section 1.3, and its `Sec-WebSocket-Accept`.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A response's head. The header names are in lower case.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Debug)]
pub struct Response {
    pub head: Head,
    pub body: String,
}

/// Returns a request that upgrades to WebSocket, with `more` header lines (each with its CRLF).
pub fn upgrade(more: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

/// Removes a response's head from `input` and returns it, or returns `None` if it is not complete.
pub fn take_head(input: &mut Vec<u8>) -> Option<Head> {
    let end = input.windows(4).position(|window| window == b"\r\n\r\n")?;
    let text = String::from_utf8(input[..end].to_vec()).expect("a head in ASCII");
    input.drain(..end + 4);
    let mut lines = text.split("\r\n");
    let status_line = lines.next().unwrap();
    assert!(status_line.starts_with("HTTP/1.1 "), "not a status line: {status_line}");
    let status = status_line[9..12].parse().expect("a status of three digits");
    let headers = lines.map(|line| line.split_once(':').expect("a header line"));
    let headers =
        headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_string())).collect();
    Some(Head { status, headers })
}

/// A keep-alive connection.
pub struct Connection {
    stream: Box<dyn Stream>,
    input: Vec<u8>,
}

impl Connection {
    pub fn open(address: &str) -> Connection {
        Connection::over(stream::connect(address))
    }

    /// As [`Connection::open`], with the smallest receive buffer that the kernel allows.
    pub fn open_small(address: &str) -> Connection {
        Connection::over(stream::connect_small(None, address))
    }

    /// As [`Connection::open`], from a source address.
    pub fn open_from(source: IpAddr, address: &str) -> Connection {
        Connection::over(stream::connect_from(source, address))
    }

    fn over((stream, _): (Box<dyn Stream>, String)) -> Connection {
        Connection { stream, input: Vec::new() }
    }

    pub fn send(&mut self, request: impl AsRef<[u8]>) {
        self.stream.write_all(request.as_ref()).expect("the server reads");
    }

    /// Sends bytes to a server that may have closed already. Returns whether the kernel accepted all of them.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Shuts down the sending side. The client can still read.
    pub fn shutdown_write(&self) {
        self.stream.shutdown_write();
    }

    /// Resets the connection.
    pub fn reset(self) {
        self.stream.set_linger_zero();
    }

    /// Reads the next response.
    pub fn response(&mut self) -> Response {
        let head = self.head();
        let length = head.header("content-length").expect("a length").parse().expect("a number");
        while self.input.len() < length {
            assert!(read_more(&mut *self.stream, &mut self.input), "half a body of {length}");
        }
        let rest = self.input.split_off(length);
        let body = String::from_utf8(std::mem::replace(&mut self.input, rest)).expect("a body in UTF-8");
        Response { head, body }
    }

    /// Reads the next response's head.
    pub fn head(&mut self) -> Head {
        loop {
            if let Some(head) = take_head(&mut self.input) {
                return head;
            }
            let more = read_more(&mut *self.stream, &mut self.input);
            assert!(more, "no response, only {:?}", String::from_utf8_lossy(&self.input));
        }
    }

    /// Sends a request and reads its response.
    pub fn request(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request);
        self.response()
    }

    /// Reads a stream up to the first `end`, and returns the text, which includes `end`.
    pub fn read_to(&mut self, end: &str) -> String {
        self.try_read_to(end).expect("the stream does not end before")
    }

    /// As [`Connection::read_to`]. Returns `None` if the stream has ended, which it must not do within an event.
    pub fn try_read_to(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = self.input.windows(end.len()).position(|window| window == end.as_bytes()) {
                let rest = self.input.split_off(at + end.len());
                return Some(String::from_utf8(std::mem::replace(&mut self.input, rest)).expect("UTF-8"));
            }
            if !read_more(&mut *self.stream, &mut self.input) {
                assert!(self.input.is_empty(), "ended at {:?}", String::from_utf8_lossy(&self.input));
                return None;
            }
        }
    }

    /// Returns whether everything that was received has been read.
    pub fn is_silent(&self) -> bool {
        self.stream.is_silent() && self.input.is_empty()
    }

    /// Waits until the server closes the connection, and expects no bytes before.
    pub fn assert_closed(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "more came: {rest:?}");
    }

    /// Returns everything that comes up to the connection's end.
    pub fn rest(&mut self) -> String {
        if let Err(error) = self.stream.read_to_end(&mut self.input) {
            // A server that closes with unread input resets the connection.
            let closed = matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
            assert!(closed, "the server does not close the connection: {error}");
        }
        String::from_utf8_lossy(&std::mem::take(&mut self.input)).into_owned()
    }

    /// Returns the status and body of every response up to the connection's end.
    pub fn responses(&mut self) -> Vec<(u16, String)> {
        let mut rest = self.rest().into_bytes();
        let mut responses = Vec::new();
        while let Some(head) = take_head(&mut rest) {
            let length = head.header("content-length").map_or(0, |length| length.parse().expect("a number"));
            let body = rest.drain(..length).collect();
            responses.push((head.status, String::from_utf8(body).expect("a body in UTF-8")));
        }
        assert!(rest.is_empty(), "bytes after the responses: {:?}", String::from_utf8_lossy(&rest));
        responses
    }
}

/// An HTTP session, given by its sid.
#[derive(Clone, Copy, Debug)]
pub struct Session(pub u128);

impl Session {
    /// Returns a request with events in its body. `query` is appended to the query.
    pub fn post(self, query: &str, body: &str) -> String {
        let (sid, len) = (self.0, body.len());
        format!(
            "POST /?sid={sid:032x}{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len}\r\n\r\n{body}"
        )
    }

    /// Returns a request for the event stream. `query` is appended to the query.
    pub fn stream(self, query: &str) -> String {
        let sid = self.0;
        format!(
            "GET /?sid={sid:032x}{query} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        )
    }
}

/// Sends a request over a new connection and reads its response. A response without `Content-Length` ends with the
/// connection.
pub fn exchange(address: &str, request: impl AsRef<[u8]>) -> Response {
    let (response, _) = exchange_on(&mut *stream::connect(address).0, request);
    response
}

/// As [`exchange`]. The server must close the connection afterwards, and send nothing after the response.
pub fn exchange_closing(address: &str, request: impl AsRef<[u8]>) -> Response {
    let (mut stream, _) = stream::connect(address);
    let (response, mut rest) = exchange_on(&mut *stream, request);
    // A server that closes with unread input resets the connection.
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty(), "bytes after the response: {:?}", String::from_utf8_lossy(&rest));
    response
}

fn exchange_on(stream: &mut dyn Stream, request: impl AsRef<[u8]>) -> (Response, Vec<u8>) {
    // A server may respond and close before it has read everything.
    let _ = stream.write_all(request.as_ref());
    let mut input = Vec::new();
    let head = loop {
        if let Some(head) = take_head(&mut input) {
            break head;
        }
        assert!(read_more(stream, &mut input), "no response, only {:?}", String::from_utf8_lossy(&input));
    };
    let length = head.header("content-length").map(|length| length.parse::<usize>().expect("a length"));
    while length.is_none_or(|length| input.len() < length) && read_more(stream, &mut input) {}
    let rest = input.split_off(length.unwrap_or(input.len()));
    (Response { head, body: String::from_utf8(input).expect("a body in UTF-8") }, rest)
}

fn read_more(stream: &mut dyn Stream, input: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 16 * 1024];
    let read = stream.read(&mut chunk).expect("the response comes before the deadline");
    input.extend_from_slice(&chunk[..read]);
    read > 0
}
