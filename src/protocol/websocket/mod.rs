//! WebSocket (RFC 6455, version 13) after its handshake: the meaning of messages, and the closing handshake.
//!
//! ```text
//! Greeting --"/qio/ohai"--> Open --close()--> Closing --Close--> Ended
//!     |                      | Close, violation                    ^
//!     +--any other message---+-------------------------------------+
//! ```
//!
//! `Echo` is `Open` for conformance tests: messages are sent back instead of being events.

pub mod close;
pub mod decoder;
pub mod deflate;
pub mod encode;
pub mod extensions;
pub mod frame;
pub mod handshake;
pub mod mask;

use self::close::NO_STATUS;
use self::decoder::{ClientMessage, DecodedMessage, Decoder, Rules};
use self::extensions::WindowBits;
use self::frame::Opcode;
use super::{Close, CodecSettings, Compression, DecodeOutcome, Framing, Incoming, OHAI, Reason};

/// The codec of a WebSocket connection after its HTTP handshake. It has 16 bytes while no message is incomplete.
#[derive(Debug)]
pub struct WebSocketCodec {
    decoder: Decoder,
    phase: WebSocketPhase,
    /// The window with which messages may be compressed, if permessage-deflate was negotiated.
    window: Option<WindowBits>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WebSocketPhase {
    /// The first message must come: `/qio/ohai`.
    Greeting,
    /// Text messages are events.
    Open,
    /// Messages are sent back.
    Echo,
    /// Our Close was sent. The peer's Close must come.
    Closing,
    /// Input is discarded, and nothing is sent.
    Ended,
}

impl WebSocketCodec {
    /// Returns the codec of a connection whose HTTP handshake was accepted.
    pub fn new(echo: bool, window: Option<WindowBits>) -> WebSocketCodec {
        let phase = if echo { WebSocketPhase::Echo } else { WebSocketPhase::Greeting };
        WebSocketCodec { decoder: Decoder::default(), phase, window }
    }

    /// Returns how events are sent to the client.
    pub fn framing(&self) -> Framing {
        self.window.map_or(Framing::WebSocket, Framing::Deflate)
    }

    /// Decodes the next item of the input. See [`Codec::decode`](super::Codec::decode).
    #[inline]
    pub fn decode<'a>(&'a mut self, input: &'a mut [u8], settings: &CodecSettings) -> DecodeOutcome<'a> {
        match self.phase {
            WebSocketPhase::Greeting | WebSocketPhase::Open | WebSocketPhase::Echo => {
                self.decode_message(input, settings)
            }
            WebSocketPhase::Closing => self.await_close(input),
            WebSocketPhase::Ended => self.discard(input),
        }
    }

    /// Returns the memory of an incomplete message, in bytes.
    #[inline]
    pub fn incomplete_bytes(&self) -> usize {
        self.decoder.incomplete_bytes()
    }

    /// Begins the closing handshake.
    pub fn close(&mut self, reason: Reason) -> Close {
        self.close_with(reason, reason.text())
    }

    /// Ends the connection from our side, with this text instead of that of the reason. It has at most
    /// [`close::TEXT_BYTES_MAX`] bytes.
    pub fn close_with(&mut self, reason: Reason, text: &str) -> Close {
        self.decoder.forget_payloads();
        match self.phase {
            WebSocketPhase::Greeting | WebSocketPhase::Open | WebSocketPhase::Echo => {
                self.phase.close(reason, text)
            }
            WebSocketPhase::Closing | WebSocketPhase::Ended => {
                self.phase = WebSocketPhase::Ended;
                Close { bytes: Vec::new(), reason, await_peer: false }
            }
        }
    }

    /// Returns whether events may be sent.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, WebSocketPhase::Open | WebSocketPhase::Echo)
    }

    /// Returns whether the connection is open and no message is incomplete.
    pub fn is_idle(&self) -> bool {
        self.is_open() && self.decoder.is_idle()
    }

    #[inline]
    fn decode_message<'a>(&'a mut self, input: &'a mut [u8], settings: &CodecSettings) -> DecodeOutcome<'a> {
        let rules = Rules {
            message_bytes_max: settings.message_bytes_max,
            binary: self.phase == WebSocketPhase::Echo,
            compression: self.window.map(|_| &settings.compression),
        };
        let input_len = input.len();
        match self.decoder.decode(input, rules) {
            Ok(DecodedMessage {
                consumed,
                message: Some(message @ (ClientMessage::Text(_) | ClientMessage::Binary(_))),
            }) if self.phase == WebSocketPhase::Echo => {
                let bytes = echo(message, self.window, &settings.compression);
                DecodeOutcome { consumed, incoming: Incoming::Reply(bytes) }
            }
            Ok(decoded) => DecodeOutcome {
                consumed: decoded.consumed,
                incoming: decoded.message.map_or(Incoming::Incomplete, |message| self.phase.receive(message)),
            },
            // 7.1.7: after failing the connection, "an endpoint MUST NOT continue to attempt to process data".
            Err(violation) => {
                self.phase = WebSocketPhase::Ended;
                DecodeOutcome { consumed: input_len, incoming: Incoming::Close(fail(violation.into())) }
            }
        }
    }

    fn await_close(&mut self, input: &[u8]) -> DecodeOutcome<'static> {
        match self.decoder.skip_to_close(input, self.window.is_some()) {
            Ok(skipped) if !skipped.closed => DecodeOutcome::incomplete(skipped.consumed),
            ended => {
                self.phase = WebSocketPhase::Ended;
                DecodeOutcome {
                    incoming: Incoming::Closed { is_last: ended.is_ok() },
                    consumed: ended.map_or(input.len(), |skipped| skipped.consumed),
                }
            }
        }
    }

    fn discard(&mut self, input: &[u8]) -> DecodeOutcome<'static> {
        self.decoder = Decoder::default();
        DecodeOutcome::incomplete(input.len())
    }
}

impl WebSocketPhase {
    #[inline]
    fn receive<'a>(&mut self, message: ClientMessage<'a>) -> Incoming<'a> {
        match message {
            ClientMessage::Text(text) if *self == WebSocketPhase::Open => Incoming::Event(text),
            ClientMessage::Text(OHAI) if *self == WebSocketPhase::Greeting => {
                *self = WebSocketPhase::Open;
                Incoming::Open(framed(Opcode::Text, OHAI.as_bytes()))
            }
            ClientMessage::Text(_) | ClientMessage::Binary(_) => {
                Incoming::Close(self.close(Reason::InvalidHandshake, Reason::InvalidHandshake.text()))
            }
            // 5.5.3: "must have identical Application data as found in the message body of the Ping".
            ClientMessage::Ping(payload) => Incoming::Pong(framed(Opcode::Pong, payload)),
            ClientMessage::Pong(_) => Incoming::Ignore,
            ClientMessage::Close(close) => Incoming::Close(self.reply_to_close(close.map(|(code, _)| code))),
        }
    }

    fn close(&mut self, reason: Reason, text: &str) -> Close {
        *self = WebSocketPhase::Closing;
        Close { await_peer: true, ..fail_with(reason, text) }
    }

    /// 5.5.1: "an endpoint typically echos the status code it received".
    fn reply_to_close(&mut self, code: Option<u16>) -> Close {
        *self = WebSocketPhase::Ended;
        let mut bytes = Vec::new();
        match code {
            Some(code) => encode::close(&mut bytes, code, ""),
            None => encode::close_without_code(&mut bytes),
        }
        Close { bytes, reason: Reason::PeerClosed(code.unwrap_or(NO_STATUS)), await_peer: false }
    }
}

fn fail(reason: Reason) -> Close {
    fail_with(reason, reason.text())
}

fn fail_with(reason: Reason, text: &str) -> Close {
    let mut bytes = Vec::new();
    match reason.code() {
        code if close::may_be_sent(code) => encode::close(&mut bytes, code, text),
        _ => encode::close_without_code(&mut bytes),
    }
    Close { bytes, reason, await_peer: false }
}

/// Returns the frame that sends a message back.
fn echo(message: ClientMessage<'_>, window: Option<WindowBits>, compression: &Compression) -> Vec<u8> {
    let frame = match message {
        ClientMessage::Text(text) => framed(Opcode::Text, text.as_bytes()),
        ClientMessage::Binary(bytes) => framed(Opcode::Binary, bytes),
        _ => unreachable!("only messages are sent back"),
    };
    match window {
        Some(window) => compression.shrink_single(window, frame),
        None => frame,
    }
}

fn framed(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::frame(&mut bytes, opcode, payload);
    bytes
}
