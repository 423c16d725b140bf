//! The decoding of a client's frames, which may be split anywhere, into messages.
//!
//! In the usual case the receive buffer contains a complete message in one frame. The payload is unmasked in place and
//! lent to the caller. Nothing is copied or allocated.
//!
//! All other cases (a header or a payload that is split, a fragmented message, a control frame between fragments) go
//! through `PartialMessage`, which exists only while there is something incomplete. Each byte of payload is unmasked in
//! place once, validated once and appended once. A compressed message goes through it too: it is inflated when it is
//! complete.

mod payload;

use std::str;

use self::payload::GatheredPayload;
use super::close;
use super::frame::{ClientFrameHeader, HEADER_BYTES_MAX, Opcode};
use super::mask::unmask;
use crate::protocol::{Compression, Violation};

/// The limits of a decoder.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'c> {
    /// The maximum length of a message over all of its fragments, in bytes. It is checked when a length is read. It is the
    /// maximum of an inflated message too.
    pub message_bytes_max: usize,
    /// `true` if messages may be binary. This is checked when the header of a message is read.
    pub binary: bool,
    /// The inflater of compressed messages, if permessage-deflate was negotiated.
    pub compression: Option<&'c Compression>,
}

/// The outcome of a call of [`Decoder::decode`].
#[derive(Debug, PartialEq, Eq)]
pub struct DecodedMessage<'a> {
    /// The number of input bytes that were consumed. The caller continues behind them.
    pub consumed: usize,
    /// The message that these bytes completed. If `None`, all of the input was consumed.
    pub message: Option<ClientMessage<'a>>,
}

/// A message or a control frame of a client, unmasked and validated.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientMessage<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A Ping, which must be replied to with a Pong with the same payload.
    Ping(&'a [u8]),
    /// A Pong.
    Pong(&'a [u8]),
    /// A Close, with its code and reason if it has them.
    Close(Option<(u16, &'a str)>),
}

/// The decoder of a connection. It has eight bytes while nothing is incomplete.
///
/// After a [`Violation`] it must not be used again, because the beginning of the next frame is unknown.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<PartialMessage>>,
}

impl Decoder {
    /// Decodes the next message or control frame. The payload is unmasked in place.
    ///
    /// Call this with the input behind `consumed` until it returns no message, even if no input is left: only then is
    /// the memory of a message that came in pieces freed.
    #[inline]
    pub fn decode<'a>(
        &'a mut self,
        input: &'a mut [u8],
        rules: Rules<'_>,
    ) -> Result<DecodedMessage<'a>, Violation> {
        if self.partial.is_some() {
            self.forget_delivered();
        }
        if self.partial.is_none() {
            if let Some((header, header_len)) = ClientFrameHeader::parse(input, rules.compression.is_some())?
            {
                if is_complete(&header, input.len() - header_len) {
                    rules.check(&header, 0)?;
                    return unmask_message(&header, header_len, input);
                }
            }
        }
        self.decode_piece(input, rules)
    }

    /// Searches for a Close. Other frames are skipped, and payloads are not validated. All of the input is consumed, or
    /// all up to the end of the Close. `deflates`: frames may be compressed.
    pub fn skip_to_close(&mut self, input: &[u8], deflates: bool) -> Result<SkipOutcome, Violation> {
        self.partial.get_or_insert_default().skip_to_close(input, deflates)
    }

    /// Returns whether no message and no frame is incomplete.
    pub fn is_idle(&self) -> bool {
        self.partial.as_deref().is_none_or(PartialMessage::is_done)
    }

    /// Returns the memory of an incomplete message or frame, in bytes.
    #[inline]
    pub fn incomplete_bytes(&self) -> usize {
        self.partial.as_deref().map_or(0, PartialMessage::bytes)
    }

    /// Frees what has come of a message, because only a Close is searched for from now on.
    pub fn forget_payloads(&mut self) {
        if let Some(partial) = self.partial.as_deref_mut() {
            (partial.message, partial.control) = (None, Vec::new());
        }
    }

    fn decode_piece<'a>(
        &'a mut self,
        input: &mut [u8],
        rules: Rules<'_>,
    ) -> Result<DecodedMessage<'a>, Violation> {
        if input.is_empty() {
            return Ok(DecodedMessage { consumed: 0, message: None });
        }
        let partial = self.partial.get_or_insert_default();
        let consumed = partial.gather(input, rules)?;
        partial.check();
        Ok(DecodedMessage { consumed, message: partial.delivered_message()? })
    }

    /// Frees the message that the last call lent to the caller.
    fn forget_delivered(&mut self) {
        if self.is_idle() {
            self.partial = None;
        } else if let Some(partial) = &mut self.partial {
            partial.forget_delivered();
        }
    }
}

/// The outcome of a call of [`Decoder::skip_to_close`].
#[derive(Debug, PartialEq, Eq)]
pub struct SkipOutcome {
    /// The number of input bytes that were consumed.
    pub consumed: usize,
    /// `true` if they ended with a complete Close.
    pub closed: bool,
}

impl Rules<'_> {
    /// Checks a header. `gathered_len` is the length of the message so far.
    fn check(&self, header: &ClientFrameHeader, gathered_len: usize) -> Result<(), Violation> {
        if header.opcode.is_control() {
            return Ok(());
        }
        if header.opcode == Opcode::Binary && !self.binary {
            return Err(Violation::Binary);
        }
        if header.payload_len > self.message_bytes_max.saturating_sub(gathered_len) as u64 {
            return Err(Violation::MessageTooLong);
        }
        Ok(())
    }
}

/// Returns whether the frame is a complete message or control frame, all of its payload is available, and it need not be
/// inflated.
#[inline]
fn is_complete(header: &ClientFrameHeader, available: usize) -> bool {
    header.fin
        && header.opcode != Opcode::Continuation
        && !header.compressed
        && header.payload_len <= available as u64
}

/// Unmasks a complete message or control frame in place and returns it.
#[inline]
fn unmask_message<'a>(
    header: &ClientFrameHeader,
    header_len: usize,
    input: &'a mut [u8],
) -> Result<DecodedMessage<'a>, Violation> {
    let consumed = header_len + header.payload_len as usize;
    let payload = &mut input[header_len..consumed];
    unmask(payload, header.key, 0);
    Ok(DecodedMessage { consumed, message: Some(message(header.opcode, payload)?) })
}

#[inline]
fn message(opcode: Opcode, payload: &[u8]) -> Result<ClientMessage<'_>, Violation> {
    Ok(match opcode {
        Opcode::Text => ClientMessage::Text(str::from_utf8(payload).map_err(|_| Violation::InvalidUtf8)?),
        Opcode::Binary | Opcode::Continuation => ClientMessage::Binary(payload),
        Opcode::Close => ClientMessage::Close(close::parse(payload)?),
        Opcode::Ping => ClientMessage::Ping(payload),
        Opcode::Pong => ClientMessage::Pong(payload),
    })
}

/// A message or a control frame that is incomplete, or that the last call lent to the caller.
///
/// Invariants between calls, asserted in debug builds: a part of a header, a part of a frame or a part of a message is
/// here, or something is delivered. No part of a header is here while a frame is incomplete.
#[derive(Debug, Default)]
struct PartialMessage {
    /// The bytes of a header that is incomplete.
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    /// The frame whose payload is incomplete.
    frame: Option<PartialFrame>,
    /// The message whose fragments are incomplete. Its memory grows with the received bytes and not with announced
    /// lengths.
    message: Option<GatheredPayload>,
    /// The payload of a control frame, which may come between the fragments of the message.
    control: Vec<u8>,
    /// The part that the last call lent to the caller.
    delivered: Delivery,
}

#[derive(Debug)]
struct PartialFrame {
    header: ClientFrameHeader,
    /// The number of bytes of its payload that have not come yet.
    remaining: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Delivery {
    #[default]
    Nothing,
    Message,
    Control(Opcode),
}

impl PartialMessage {
    /// Returns the memory of the message, in bytes.
    fn bytes(&self) -> usize {
        let message = match &self.message {
            Some(message) => message.capacity(),
            None => 0,
        };
        size_of::<PartialMessage>() + self.control.capacity() + message
    }

    /// Consumes input until a message or control frame is complete, or no input is left. Returns the number of consumed
    /// bytes.
    fn gather(&mut self, input: &mut [u8], rules: Rules<'_>) -> Result<usize, Violation> {
        let mut at = 0;
        while self.delivered == Delivery::Nothing {
            if self.frame.is_none() {
                let deflates = rules.compression.is_some();
                let Some(header) = self.gather_header(input, &mut at, deflates)? else { break };
                self.begin(header, rules)?;
            }
            at += self.gather_payload(&mut input[at..])?;
            if !self.end_frame() {
                break;
            }
            if self.delivered == Delivery::Message {
                self.inflate(rules)?;
            }
        }
        Ok(at)
    }

    /// Returns the message or control frame that became complete.
    fn delivered_message(&self) -> Result<Option<ClientMessage<'_>>, Violation> {
        match (self.delivered, &self.message) {
            (Delivery::Control(opcode), _) => message(opcode, &self.control).map(Some),
            (Delivery::Message, Some(payload)) => payload.message().map(Some),
            (Delivery::Message, None) | (Delivery::Nothing, _) => Ok(None),
        }
    }

    /// Asserts the invariants in debug builds.
    fn check(&self) {
        let has_header = self.header_len > 0;
        let is_begun = has_header || self.frame.is_some() || self.message.is_some();
        debug_assert!(
            is_begun || self.delivered != Delivery::Nothing,
            "something must be incomplete or delivered"
        );
        debug_assert!(
            !has_header || self.frame.is_none(),
            "no header may be begun while a frame is incomplete"
        );
    }

    fn skip_to_close(&mut self, input: &[u8], deflates: bool) -> Result<SkipOutcome, Violation> {
        self.message = None;
        self.control.clear();
        let mut at = 0;
        loop {
            if self.frame.is_none() {
                let Some(header) = self.gather_header(input, &mut at, deflates)? else { break };
                self.frame = Some(PartialFrame::new(header));
            }
            let Some(frame) = &mut self.frame else { break };
            at += frame.advance(input.len() - at);
            if frame.remaining > 0 {
                break;
            }
            if frame.header.opcode == Opcode::Close {
                return Ok(SkipOutcome { consumed: at, closed: true });
            }
            self.frame = None;
        }
        Ok(SkipOutcome { consumed: at, closed: false })
    }

    /// Returns whether everything here was delivered.
    fn is_done(&self) -> bool {
        match self.delivered {
            Delivery::Nothing => false,
            Delivery::Message => true,
            Delivery::Control(_) => self.message.is_none(),
        }
    }

    /// Forgets the part that was lent to the caller. This is a control frame, because an incomplete message is here
    /// too.
    fn forget_delivered(&mut self) {
        if self.delivered != Delivery::Nothing {
            self.delivered = Delivery::Nothing;
            self.control.clear();
        }
    }

    /// Parses the next header. Its first bytes may have come earlier.
    fn gather_header(
        &mut self,
        input: &[u8],
        at: &mut usize,
        deflates: bool,
    ) -> Result<Option<ClientFrameHeader>, Violation> {
        let had = self.header_len;
        let more = (input.len() - *at).min(HEADER_BYTES_MAX - had);
        self.header[had..had + more].copy_from_slice(&input[*at..*at + more]);
        let header = &self.header[..had + more];
        let Some((header, header_len)) = ClientFrameHeader::parse(header, deflates)? else {
            self.header_len = had + more;
            *at += more;
            return Ok(None);
        };
        self.header_len = 0;
        *at += header_len - had;
        Ok(Some(header))
    }

    /// Begins a frame, after checking that it may come now (5.4).
    fn begin(&mut self, header: ClientFrameHeader, rules: Rules<'_>) -> Result<(), Violation> {
        match (header.opcode, &self.message) {
            (Opcode::Continuation, None) => return Err(Violation::UnexpectedContinuation),
            // "The fragments of one message MUST NOT be interleaved between the fragments of another message".
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Violation::ExpectedContinuation),
            _ => {}
        }
        rules.check(&header, self.message.as_ref().map_or(0, GatheredPayload::len))?;
        match header.opcode {
            Opcode::Text | Opcode::Binary => self.message = Some(GatheredPayload::of(&header)),
            Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => {}
        }
        self.frame = Some(PartialFrame::new(header));
        Ok(())
    }

    /// Unmasks and appends the available part of the frame's payload. Returns its length.
    fn gather_payload(&mut self, input: &mut [u8]) -> Result<usize, Violation> {
        let Some(frame) = &mut self.frame else { return Ok(0) };
        let offset = frame.offset();
        let len = frame.advance(input.len());
        let piece = &mut input[..len];
        unmask(piece, frame.header.key, offset);
        match &mut self.message {
            _ if frame.header.opcode.is_control() => self.control.extend_from_slice(piece),
            Some(payload) => payload.push(piece)?,
            None => {}
        }
        Ok(piece.len())
    }

    /// Ends the frame if its payload is complete. Returns whether it is.
    fn end_frame(&mut self) -> bool {
        let Some(frame) = self.frame.take_if(|frame| frame.remaining == 0) else { return false };
        if frame.header.opcode.is_control() {
            self.delivered = Delivery::Control(frame.header.opcode);
        } else if frame.header.fin {
            self.delivered = Delivery::Message;
        }
        true
    }

    /// Inflates the message that became complete, if it is compressed.
    fn inflate(&mut self, rules: Rules<'_>) -> Result<(), Violation> {
        self.message = match self.message.take() {
            Some(payload) => Some(payload.inflated(rules)?),
            None => None,
        };
        Ok(())
    }
}

impl PartialFrame {
    fn new(header: ClientFrameHeader) -> PartialFrame {
        PartialFrame { remaining: header.payload_len, header }
    }

    /// Returns the position in the payload of the next byte, which decides the byte of the key. It may be truncated.
    fn offset(&self) -> usize {
        (self.header.payload_len - self.remaining) as usize
    }

    /// Consumes the available bytes of the payload. Returns their number.
    fn advance(&mut self, available: usize) -> usize {
        let len = self.remaining.min(available as u64);
        self.remaining -= len;
        len as usize
    }
}

#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;
