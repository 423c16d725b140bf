//! WebSocket (RFC 6455, version 13) after its handshake: what each message means, and the closing handshake.
//!
//! ```text
//! Greeting --"/qio/ohai"--> Open --close()--> Closing --Close--> Ended
//!     |                      | Close, violation                    ^
//!     +--anything else-------+-------------------------------------+
//! ```
//!
//! `Echo` is `Open` for conformance tests: messages come back instead of becoming events.

pub mod close;
pub mod decoder;
pub mod encode;
pub mod frame;
pub mod handshake;
pub mod mask;

use self::close::NO_STATUS;
use self::decoder::{Decoder, Message, Rules};
use self::frame::Opcode;
use super::{Close, CodecSettings, DecodeOutcome, Incoming, OHAI, Reason};

/// One WebSocket connection after its HTTP handshake: 16 bytes while no message is unfinished.
#[derive(Debug)]
pub struct WebSocket {
    decoder: Decoder,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first message is due: `/qio/ohai`.
    Greeting,
    /// Text messages are events.
    Open,
    /// Messages come back.
    Echo,
    /// Our Close was sent; the peer's is due.
    Closing,
    /// Nothing more is expected, and nothing is sent.
    Ended,
}

impl WebSocket {
    /// A connection whose HTTP handshake was accepted.
    pub fn new(echo: bool) -> WebSocket {
        let phase = if echo { Phase::Echo } else { Phase::Greeting };
        WebSocket { decoder: Decoder::default(), phase }
    }

    /// Finds what is next in the input. See [`Codec::decode`](super::Codec::decode).
    #[inline]
    pub fn decode<'a>(&'a mut self, input: &'a mut [u8], settings: &CodecSettings) -> DecodeOutcome<'a> {
        match self.phase {
            Phase::Greeting | Phase::Open | Phase::Echo => self.decode_message(input, settings),
            Phase::Closing => self.await_close(input),
            Phase::Ended => self.discard(input),
        }
    }

    /// Begins the closing handshake.
    pub fn close(&mut self, reason: Reason) -> Close {
        match self.phase {
            Phase::Greeting | Phase::Open | Phase::Echo => self.phase.close(reason),
            Phase::Closing | Phase::Ended => {
                self.phase = Phase::Ended;
                Close { bytes: Vec::new(), reason, await_peer: false }
            }
        }
    }

    /// Whether events may be sent.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Echo)
    }

    /// Whether it is open, and no message is begun.
    pub fn is_idle(&self) -> bool {
        self.is_open() && self.decoder.is_idle()
    }

    #[inline]
    fn decode_message<'a>(&'a mut self, input: &'a mut [u8], settings: &CodecSettings) -> DecodeOutcome<'a> {
        let rules =
            Rules { message_bytes_max: settings.message_bytes_max, binary: self.phase == Phase::Echo };
        let input_len = input.len();
        match self.decoder.decode(input, rules) {
            Ok(decoded) => DecodeOutcome {
                consumed: decoded.consumed,
                incoming: decoded.message.map_or(Incoming::Incomplete, |message| self.phase.receive(message)),
            },
            // 7.1.7: once it has failed the connection, "an endpoint MUST NOT continue to attempt to process data".
            Err(violation) => {
                self.phase = Phase::Ended;
                DecodeOutcome { consumed: input_len, incoming: Incoming::Close(fail(violation.into())) }
            }
        }
    }

    fn await_close(&mut self, input: &[u8]) -> DecodeOutcome<'static> {
        match self.decoder.skip_to_close(input) {
            Ok(skipped) if !skipped.closed => DecodeOutcome::not_yet(skipped.consumed),
            ended => {
                self.phase = Phase::Ended;
                DecodeOutcome {
                    consumed: ended.map_or(input.len(), |skipped| skipped.consumed),
                    incoming: Incoming::Closed,
                }
            }
        }
    }

    fn discard(&mut self, input: &[u8]) -> DecodeOutcome<'static> {
        self.decoder = Decoder::default();
        DecodeOutcome::not_yet(input.len())
    }
}

impl Phase {
    #[inline]
    fn receive<'a>(&mut self, message: Message<'a>) -> Incoming<'a> {
        match message {
            Message::Text(text) if *self == Phase::Open => Incoming::Event(text),
            Message::Text(OHAI) if *self == Phase::Greeting => {
                *self = Phase::Open;
                Incoming::Open(framed(Opcode::Text, OHAI.as_bytes()))
            }
            Message::Text(text) if *self == Phase::Echo => {
                Incoming::Reply(framed(Opcode::Text, text.as_bytes()))
            }
            Message::Binary(bytes) if *self == Phase::Echo => Incoming::Reply(framed(Opcode::Binary, bytes)),
            Message::Text(_) | Message::Binary(_) => Incoming::Close(self.close(Reason::InvalidHandshake)),
            // 5.5.3: "must have identical Application data as found in the message body of the Ping".
            Message::Ping(payload) => Incoming::Reply(framed(Opcode::Pong, payload)),
            Message::Pong(_) => Incoming::Ignore,
            Message::Close(close) => Incoming::Close(self.answer_close(close.map(|(code, _)| code))),
        }
    }

    fn close(&mut self, reason: Reason) -> Close {
        *self = Phase::Closing;
        Close { await_peer: true, ..fail(reason) }
    }

    /// 5.5.1: "an endpoint typically echos the status code it received".
    fn answer_close(&mut self, code: Option<u16>) -> Close {
        *self = Phase::Ended;
        let mut bytes = Vec::new();
        match code {
            Some(code) => encode::close(&mut bytes, code, ""),
            None => encode::close_without_code(&mut bytes),
        }
        Close { bytes, reason: Reason::PeerClosed(code.unwrap_or(NO_STATUS)), await_peer: false }
    }
}

fn fail(reason: Reason) -> Close {
    let mut bytes = Vec::new();
    match reason.code() {
        code if close::may_be_sent(code) => encode::close(&mut bytes, code, reason.text()),
        _ => encode::close_without_code(&mut bytes),
    }
    Close { bytes, reason, await_peer: false }
}

fn framed(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::frame(&mut bytes, opcode, payload);
    bytes
}
