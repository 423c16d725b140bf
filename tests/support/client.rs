//! A blocking client over raw TCP and WebSocket. It also sends bytes that are not valid in the protocol.

use super::conversation::{Conversation, Ended, Inbox, Transport};
use super::http;
use super::stream::{self, Stream};
use super::wire::{self, Frame, Received};
use std::io::ErrorKind;
use std::net::IpAddr;

/// One connection. Every read and write has a deadline, and panics past it.
pub struct Client {
    stream: Box<dyn Stream>,
    transport: Transport,
    /// Bytes that have been received and not parsed yet.
    input: Vec<u8>,
    inbox: Inbox,
    /// This end's address as the server's log writes it; empty for Unix sockets.
    pub address: String,
}

impl Client {
    /// Connects and sends nothing yet. `address` is `HOST:PORT`, `unix:PATH` or `tls://HOST:PORT`.
    pub fn connect(address: &str, transport: Transport) -> Client {
        Client::over(stream::connect(address), transport)
    }

    /// As [`Client::connect`], from a source address, with the smallest receive buffer that the kernel allows.
    pub fn connect_from(source: IpAddr, address: &str, transport: Transport) -> Client {
        Client::over(stream::connect_small(Some(source), address), transport)
    }

    /// Connects and completes the handshake.
    pub fn open(address: &str, transport: Transport) -> Client {
        let mut client = Client::connect(address, transport);
        client.shake_hands();
        client
    }

    fn over((stream, address): (Box<dyn Stream>, String), transport: Transport) -> Client {
        assert!(
            Transport::SOCKETS.contains(&transport),
            "{transport:?} has a client of its own: `HttpClient`"
        );
        Client { stream, transport, input: Vec::new(), inbox: Inbox::default(), address }
    }

    /// Completes the handshake, up to `/qio/ohai` from both sides.
    pub fn shake_hands(&mut self) {
        if self.transport == Transport::WebSocket {
            self.upgrade();
            self.send(&Frame::text("/qio/ohai").bytes());
            assert_eq!(self.text(), "/qio/ohai");
        } else {
            self.send(b"/qio/ohai");
            self.expect_bytes(b"/qio/ohai");
        }
    }

    /// Completes the HTTP part of the handshake.
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
            assert!(self.fill(), "{}: expected an HTTP response, but the connection ended", self.address);
        }
    }

    /// Reads exactly these bytes.
    pub fn expect_bytes(&mut self, bytes: &[u8]) {
        let found = self.take_bytes(bytes.len());
        assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(bytes));
    }

    /// Reads `len` bytes, or fewer if the connection ends before.
    pub fn take_bytes(&mut self, len: usize) -> Vec<u8> {
        while self.input.len() < len && self.fill() {}
        let len = self.input.len().min(len);
        self.input.drain(..len).collect()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Sends bytes to a server that may have closed already. Returns whether the kernel accepted all of them.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Returns a text as this client's transport frames it.
    pub fn framed(&self, text: impl AsRef<[u8]>) -> Vec<u8> {
        match self.transport {
            Transport::Raw => wire::raw(text),
            _ => Frame::text(text).bytes(),
        }
    }

    /// Returns the next frame, or `None` if the connection ended.
    pub fn frame(&mut self) -> Option<Received> {
        self.take(wire::take_frame)
    }

    /// As [`Client::frame`], for a client that has negotiated compression.
    pub fn compressible_frame(&mut self) -> Option<Received> {
        self.take(wire::take_compressible_frame)
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

    /// Waits for input and reads it. Returns `false` at the connection's end.
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

    /// Expects that the server ends the connection. Over WebSocket, it must send a close frame with this code and
    /// reason first, which the client answers.
    #[track_caller]
    pub fn expect_closed(&mut self, code: u16, reason: &str) {
        if self.transport == Transport::WebSocket {
            assert_eq!(self.ended(), Ended::Close(code, reason.to_string()));
            self.try_send(&Frame::close(code, "").bytes());
        }
        self.expect_disconnect();
    }

    /// Expects that the server closes the connection, and sends nothing before.
    #[track_caller]
    pub fn expect_disconnect(&mut self) {
        assert_eq!(String::from_utf8_lossy(&self.input), "");
        assert!(
            !self.fill(),
            "expected the connection's end, but received {:?}",
            String::from_utf8_lossy(&self.input)
        );
    }

    /// Returns all bytes that come up to the connection's end.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.input)
    }

    /// Shuts down the sending side. The client can still read.
    pub fn shutdown_write(&self) {
        self.stream.shutdown_write();
    }

    /// Resets the connection.
    pub fn reset(self) {
        self.stream.set_linger_zero();
    }
}

impl Conversation for Client {
    fn send_text(&mut self, text: &str) {
        let bytes = self.framed(text);
        self.send(&bytes);
    }

    fn send_texts(&mut self, texts: &[String]) {
        let bytes: Vec<u8> = texts.iter().flat_map(|text| self.framed(text)).collect();
        self.send(&bytes);
    }

    fn next_text(&mut self) -> Result<String, Ended> {
        if self.transport == Transport::Raw {
            return match self.take(wire::take_raw) {
                Some(text) => Ok(String::from_utf8(text).expect("a text in UTF-8")),
                None => Err(Ended::Disconnected),
            };
        }
        match self.frame() {
            None => Err(Ended::Disconnected),
            Some(Received { finished: true, opcode: wire::TEXT, payload, .. }) => {
                Ok(String::from_utf8(payload).expect("a text in UTF-8"))
            }
            Some(Received { opcode: wire::CLOSE, payload, .. }) => Err(parse_close(&payload)),
            Some(frame) => panic!("expected a text frame: {frame:?}"),
        }
    }

    /// Ignores pongs, too.
    fn ended(&mut self) -> Ended {
        loop {
            let more = match self.transport {
                Transport::Raw => self.take(wire::take_raw).is_some(),
                _ => match self.frame() {
                    Some(Received { opcode: wire::CLOSE, payload, .. }) => return parse_close(&payload),
                    frame => frame.is_some(),
                },
            };
            if !more {
                return Ended::Disconnected;
            }
        }
    }

    fn inbox(&mut self) -> &mut Inbox {
        &mut self.inbox
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
