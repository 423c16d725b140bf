//! A client of a server, for commands: one connection by WebSocket or raw TCP, with or without TLS, that never blocks.
//!
//! | file | contents |
//! | --- | --- |
//! | `url` | the address of a server, and the transport |
//! | `socket`, `tls` | the connection as a stream of bytes |
//! | `upgrade` | the WebSocket handshake |
//! | `fetch` | one HTTP request |
//! | `frames` | the messages and texts from a server |
//! | `error` | the reasons why a connection ends |

mod error;
mod fetch;
mod frames;
mod socket;
mod tls;
mod upgrade;
mod url;

pub(super) use error::PeerError;
pub(super) use fetch::fetch;
use socket::PeerSocket;
pub(super) use tls::TlsFiles;
pub(super) use url::ServerUrl;

use super::wait::EndSignals;
use crate::event::text;
use crate::protocol::raw;
use crate::protocol::websocket::encode;
use crate::protocol::websocket::frame::Opcode;
use aws_lc_rs::rand;
use frames::{ServerFraming, ServerItem};
use rustix::event::PollFlags;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};
use upgrade::UpgradeRequest;

/// The first message of each side.
const GREETING: &str = "/qio/ohai";

/// The beginning of the path of an answer.
const ANSWERS: &str = "/qio/callback/";

/// How long the end of a connection may take.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// The settings of a connection.
#[derive(Clone, Debug)]
pub(super) struct PeerOptions {
    pub(super) url: ServerUrl,
    pub(super) tls: TlsFiles,
    /// The time that the handshakes may take together.
    pub(super) timeout: Duration,
}

/// A connection to a server that has greeted.
pub(super) struct Peer {
    socket: PeerSocket,
    framing: ServerFraming,
    /// The bytes that have come.
    input: Vec<u8>,
    /// The number of them that were decoded.
    decoded: usize,
    /// The number of the last callback.
    callback: u64,
    /// `false` if the server has ended its stream.
    is_open: bool,
    /// The time at which something was received.
    heard: Instant,
    server: String,
}

/// An event from the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PeerEvent {
    /// An answer.
    Answer(PeerAnswer),
    /// An event with its data.
    Event { path: String, data: String },
    /// The server asks to connect to this address instead.
    Move(String),
}

/// An answer to an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PeerAnswer {
    /// The number of the callback.
    pub(super) callback: u64,
    pub(super) code: u16,
    pub(super) data: String,
    pub(super) message: Option<String>,
}

impl Peer {
    /// Connects to a server, and exchanges greetings.
    pub(super) fn open(options: &PeerOptions, signals: &EndSignals) -> Result<Peer, PeerError> {
        let until = Instant::now() + options.timeout;
        let socket = PeerSocket::connect(&options.url, &options.tls, signals, until)?;
        let is_websocket = options.url.scheme.is_websocket();
        let framing = if is_websocket { ServerFraming::WebSocket(None) } else { ServerFraming::Raw };
        let server = options.url.to_string();
        let mut peer = Peer {
            socket,
            framing,
            input: Vec::new(),
            decoded: 0,
            callback: 0,
            is_open: true,
            heard: Instant::now(),
            server,
        };
        let wait = Deadline { signals, until, action: "finish the handshake" };
        if is_websocket {
            let request = UpgradeRequest::new(&options.url);
            peer.socket.write(&request.bytes);
            let len = peer.until(&wait, |peer| request.check_response(&peer.input, &peer.server))?;
            peer.input.drain(..len);
            peer.write_text(GREETING.as_bytes());
            let greeting = peer.until(&wait, Peer::next_text)?;
            if greeting != GREETING {
                return Err(peer.no_server("it did not greet"));
            }
        } else {
            peer.socket.write(GREETING.as_bytes());
            peer.until(&wait, |peer| Ok((peer.input.len() >= GREETING.len()).then_some(())))?;
            if !peer.input.starts_with(GREETING.as_bytes()) {
                return Err(peer.no_server("it did not greet"));
            }
            peer.input.drain(..GREETING.len());
        }
        Ok(peer)
    }

    /// Authenticates the client with a token. Returns the Unix time at which the token expires, if it does.
    pub(super) fn authenticate(
        &mut self,
        token: &str,
        timeout: Duration,
        signals: &EndSignals,
    ) -> Result<Option<u64>, PeerError> {
        let callback = self.send_token(token);
        let wait = Deadline { signals, until: Instant::now() + timeout, action: "answer the token" };
        let answer = self.until(&wait, |peer| {
            Ok(peer.next_event()?.and_then(|event| match event {
                PeerEvent::Answer(answer) if answer.callback == callback => Some(answer),
                _ => None,
            }))
        })?;
        expiry(answer)
    }

    /// Sends a token. The answer is for [`expiry`].
    pub(super) fn send_token(&mut self, token: &str) -> u64 {
        let token = serde_json::to_string(token).expect("a text becomes JSON");
        self.send("/qio/auth", &token)
    }

    /// Adds an event to what is sent. Returns the number of the callback at which the answer arrives.
    pub(super) fn send(&mut self, path: &str, data: &str) -> u64 {
        self.callback += 1;
        let mut event = Vec::new();
        text::write_event(&mut event, path, self.callback, data);
        self.write_text(&event);
        self.callback
    }

    /// Returns the next event that has come.
    pub(super) fn next_event(&mut self) -> Result<Option<PeerEvent>, PeerError> {
        while let Some(received) = self.next_text()? {
            let Ok(event) = text::parse(&received) else { return Err(self.no_server("a text is no event")) };
            match event.path {
                "/qio/heartbeat" if event.callback != 0 => {
                    let mut reply = Vec::new();
                    text::write_event(&mut reply, &format!("{ANSWERS}{}", event.callback), 0, "");
                    self.write_text(&reply);
                }
                "/qio/heartbeat" => {}
                "/qio/move" => match serde_json::from_str(event.data) {
                    Ok(address) => return Ok(Some(PeerEvent::Move(address))),
                    Err(_) => return Err(self.no_server("it moves its clients to no address")),
                },
                path => match path.strip_prefix(ANSWERS) {
                    Some(callback) => {
                        let answer = parse_answer(callback, event.data);
                        let answer = answer.ok_or_else(|| self.no_server("an answer is malformed"))?;
                        return Ok(Some(PeerEvent::Answer(answer)));
                    }
                    None => {
                        let (path, data) = (path.to_owned(), event.data.to_owned());
                        return Ok(Some(PeerEvent::Event { path, data }));
                    }
                },
            }
        }
        Ok(None)
    }

    /// Sends and receives what is possible without waiting. [`Peer::next_event`] returns the events that have come.
    pub(super) fn turn(&mut self, ready: PollFlags) -> Result<(), PeerError> {
        if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.input.drain(..std::mem::take(&mut self.decoded));
            let before = self.input.len();
            self.is_open = self.socket.read(&mut self.input)?;
            if self.input.len() > before {
                self.heard = Instant::now();
            }
        }
        self.socket.flush()
    }

    /// Returns the descriptor and the events to wait for before the next turn.
    pub(super) fn interest(&self) -> (Option<BorrowedFd<'_>>, PollFlags) {
        self.socket.interest()
    }

    /// Returns whether something waits because the server does not read.
    pub(super) fn has_output(&self) -> bool {
        self.socket.has_output()
    }

    /// Returns the time at which something was received.
    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// Ends the connection in order: the server handles everything that was sent, and logs no error.
    pub(super) fn close(mut self, signals: &EndSignals) {
        match self.framing {
            ServerFraming::WebSocket(_) => {
                let mut close = Vec::new();
                encode::client_frame(&mut close, Opcode::Close, &1000_u16.to_be_bytes(), mask_key());
                self.socket.write(&close);
            }
            ServerFraming::Raw => self.socket.end(),
        }
        let wait = Deadline { signals, until: Instant::now() + CLOSE_WAIT, action: "close" };
        // The end of the connection is an error of each of these, and so is a server that does not close.
        let _: Result<(), PeerError> = self.until(&wait, |peer| {
            while peer.next_text()?.is_some() {}
            Ok(None)
        });
        self.socket.end();
    }

    /// Waits until `found` returns a value.
    fn until<T>(
        &mut self,
        wait: &Deadline<'_>,
        mut found: impl FnMut(&mut Peer) -> Result<Option<T>, PeerError>,
    ) -> Result<T, PeerError> {
        self.socket.flush()?;
        loop {
            if let Some(value) = found(self)? {
                return Ok(value);
            }
            if !self.is_open {
                return Err(PeerError::Lost(ErrorKind::UnexpectedEof.into()));
            }
            if Instant::now() >= wait.until {
                return Err(PeerError::Late { action: wait.action });
            }
            let ready = wait.signals.wait([self.interest()], Some(wait.until)).map_err(PeerError::Lost)?;
            let [ready] = ready.map_err(PeerError::Signal)?;
            self.turn(ready)?;
        }
    }

    /// Returns the next text that has come. Pings are answered.
    fn next_text(&mut self) -> Result<Option<String>, PeerError> {
        loop {
            let next = self.framing.next(&self.input[self.decoded..]);
            let (consumed, item) = next.map_err(|problem| self.no_server(&problem))?;
            self.decoded += consumed;
            match item {
                Some(ServerItem::Text(text)) => return Ok(Some(text)),
                Some(ServerItem::Ping(payload)) => self.write_frame(Opcode::Pong, &payload),
                Some(ServerItem::Close(code, reason)) => {
                    let echoed = code.map(u16::to_be_bytes);
                    self.write_frame(Opcode::Close, echoed.as_ref().map_or(&[], |code| &code[..]));
                    let _ = self.socket.flush();
                    self.socket.end();
                    return Err(PeerError::Closed { code: code.unwrap_or(1005), reason });
                }
                None if self.is_open => return Ok(None),
                None => {
                    let ended = std::io::Error::new(ErrorKind::UnexpectedEof, "the server ended it");
                    return Err(PeerError::Lost(ended));
                }
            }
        }
    }

    fn write_text(&mut self, text: &[u8]) {
        match self.framing {
            ServerFraming::WebSocket(_) => self.write_frame(Opcode::Text, text),
            ServerFraming::Raw => {
                let mut header = Vec::new();
                raw::header(&mut header, text.len());
                self.socket.write(&header);
                self.socket.write(text);
            }
        }
    }

    fn write_frame(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut frame = Vec::new();
        encode::client_frame(&mut frame, opcode, payload, mask_key());
        self.socket.write(&frame);
    }

    fn no_server(&self, problem: &str) -> PeerError {
        PeerError::Protocol { server: self.server.clone(), problem: problem.to_owned() }
    }
}

/// The limits of a wait.
struct Deadline<'a> {
    signals: &'a EndSignals,
    until: Instant,
    /// The action that the server must finish.
    action: &'static str,
}

/// Returns the Unix time at which a token expires, from the answer to it.
pub(super) fn expiry(answer: PeerAnswer) -> Result<Option<u64>, PeerError> {
    #[derive(Deserialize)]
    struct TokenAnswer {
        expires: Option<u64>,
    }
    match answer.code {
        200 => {
            Ok(serde_json::from_str(&answer.data).ok().and_then(|identified: TokenAnswer| identified.expires))
        }
        404 => Err(PeerError::Token {
            code: 404,
            message: Some("it does not ask for tokens (auth = \"off\"); run the command without one".into()),
        }),
        code => Err(PeerError::Token { code, message: answer.message }),
    }
}

/// RFC 6455, 5.3: "The masking key needs to be unpredictable".
fn mask_key() -> [u8; 4] {
    let mut key = [0; 4];
    rand::fill(&mut key).expect("the kernel has random bytes");
    key
}

fn parse_answer(callback: &str, data: &str) -> Option<PeerAnswer> {
    #[derive(Deserialize)]
    struct AnswerFields<'a> {
        code: u16,
        #[serde(borrow)]
        data: &'a RawValue,
        err_msg: Option<String>,
    }
    let fields: AnswerFields<'_> = serde_json::from_str(data).ok()?;
    let callback = callback.parse().ok()?;
    Some(PeerAnswer {
        callback,
        code: fields.code,
        data: fields.data.get().to_owned(),
        message: fields.err_msg,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let answer = parse_answer("7", r#"{"code":200,"data":{"a": 1}}"#).unwrap();
        assert_eq!(
            (answer.callback, answer.code, answer.data.as_str(), answer.message),
            (7, 200, r#"{"a": 1}"#, None)
        );
        let answer = parse_answer("1", r#"{"code":404,"data":null,"err_msg":"no \"path\""}"#).unwrap();
        assert_eq!((answer.code, answer.message.as_deref()), (404, Some("no \"path\"")));
        assert!(parse_answer("1", r#"{"code":404,"data":null,"err_msg":null}"#).is_some());
        for (callback, data) in
            [("x", r#"{"code":200,"data":null}"#), ("1", "null"), ("1", r#"{"code":200}"#)]
        {
            assert_eq!(parse_answer(callback, data), None, "{data}");
        }
    }

    #[test]
    fn answers_to_tokens() {
        let answer = |code, data: &str| PeerAnswer { callback: 1, code, data: data.into(), message: None };
        assert_eq!(expiry(answer(200, r#"{"user":"7","expires":12}"#)).unwrap(), Some(12));
        assert_eq!(expiry(answer(200, r#"{"user":"7","expires":null}"#)).unwrap(), None);
        assert!(expiry(answer(404, "null")).unwrap_err().to_string().contains("auth = \"off\""));
        assert!(expiry(answer(401, "null")).is_err_and(|error| !error.is_passing()));
    }
}
