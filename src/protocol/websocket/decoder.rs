//! Bytes to messages: a client's frames, split anywhere.
//!
//! The usual case is a whole message in one frame that lies in the receive buffer from its first byte to its last: it
//! is unmasked where it lies and lent to the caller. Nothing is copied, nothing is allocated.
//!
//! Everything else (a head or a payload that is split, a fragmented message, a control frame between fragments) goes
//! through `Unfinished`, which exists only as long as there is something unfinished. Each byte of payload is
//! unmasked once where it lies, checked once and appended once.

use std::str;

use super::close;
use super::frame::{HEAD_BYTES_MAX, Head, Opcode};
use super::mask::unmask;
use crate::protocol::Utf8Gatherer;
use crate::protocol::Violation;

/// What a decoder accepts.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Bytes of payload of one message, over all of its fragments; checked when a length is read.
    pub message_bytes_max: usize,
    /// Whether messages may be binary; checked when the head of one is read.
    pub binary: bool,
}

/// What one call found.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// Bytes of the input that were used up. The caller goes on behind them.
    pub consumed: usize,
    /// `None`: all of the input was consumed, and it completed nothing.
    pub message: Option<Message<'a>>,
}

/// A message or a control frame of a client, unmasked and checked.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A Ping: a Pong with the same payload is due.
    Ping(&'a [u8]),
    /// A Pong.
    Pong(&'a [u8]),
    /// A Close, with its code and reason where it has them.
    Close(Option<(u16, &'a str)>),
}

/// The decoder of one connection: eight bytes while nothing is unfinished.
///
/// After a [`Violation`] it must not be used again: where the next frame begins is not known.
#[derive(Debug, Default)]
pub struct Decoder {
    unfinished: Option<Box<Unfinished>>,
}

impl Decoder {
    /// Finds the next message or control frame. The payload is unmasked in place.
    ///
    /// Call it with what is behind `consumed` until nothing is found, even where no input is left: only then is the
    /// memory of a message that came in pieces given back.
    #[inline]
    pub fn decode<'a>(&'a mut self, input: &'a mut [u8], rules: Rules) -> Result<Decoded<'a>, Violation> {
        if self.unfinished.is_some() {
            self.forget_delivered();
        }
        if self.unfinished.is_none() {
            if let Some((head, head_len)) = Head::parse(input)? {
                if is_whole(&head, input.len() - head_len) {
                    rules.check(&head, 0)?;
                    return lend(&head, head_len, input);
                }
            }
        }
        self.decode_piece(input, rules)
    }

    /// Looks for a Close and for nothing else: payloads are passed over, whatever they are. All of the input is
    /// consumed, or all up to the end of the Close.
    pub fn skip_to_close(&mut self, input: &[u8]) -> Result<Skipped, Violation> {
        self.unfinished.get_or_insert_default().skip_to_close(input)
    }

    /// Whether no message and no frame is begun.
    pub fn is_idle(&self) -> bool {
        self.unfinished.as_deref().is_none_or(Unfinished::is_done)
    }

    fn decode_piece<'a>(&'a mut self, input: &mut [u8], rules: Rules) -> Result<Decoded<'a>, Violation> {
        if input.is_empty() {
            return Ok(Decoded { consumed: 0, message: None });
        }
        let unfinished = self.unfinished.get_or_insert_default();
        let consumed = unfinished.gather(input, rules)?;
        Ok(Decoded { consumed, message: unfinished.delivered()? })
    }

    /// What the last call lent is not needed any more.
    fn forget_delivered(&mut self) {
        if self.is_idle() {
            self.unfinished = None;
        } else if let Some(unfinished) = &mut self.unfinished {
            unfinished.forget_delivered();
        }
    }
}

/// What [`Decoder::skip_to_close`] found.
#[derive(Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Bytes of the input that were used up.
    pub consumed: usize,
    /// Whether a whole Close was there.
    pub closed: bool,
}

impl Rules {
    /// Checks a head, where so many bytes of its message are there already.
    fn check(&self, head: &Head, gathered_len: usize) -> Result<(), Violation> {
        if head.opcode.is_control() {
            return Ok(());
        }
        if head.opcode == Opcode::Binary && !self.binary {
            return Err(Violation::Binary);
        }
        if head.payload_len > self.message_bytes_max.saturating_sub(gathered_len) as u64 {
            return Err(Violation::MessageTooLong);
        }
        Ok(())
    }
}

/// Whether this is all of a message or control frame, and lies in the bytes that are there.
#[inline]
fn is_whole(head: &Head, available: usize) -> bool {
    head.fin && head.opcode != Opcode::Continuation && head.payload_len <= available as u64
}

/// Unmasks a whole message or control frame where it lies.
#[inline]
fn lend<'a>(head: &Head, head_len: usize, input: &'a mut [u8]) -> Result<Decoded<'a>, Violation> {
    let consumed = head_len + head.payload_len as usize;
    let payload = &mut input[head_len..consumed];
    unmask(payload, head.key, 0);
    Ok(Decoded { consumed, message: Some(message(head.opcode, payload)?) })
}

#[inline]
fn message(opcode: Opcode, payload: &[u8]) -> Result<Message<'_>, Violation> {
    Ok(match opcode {
        Opcode::Text => Message::Text(str::from_utf8(payload).map_err(|_| Violation::InvalidUtf8)?),
        Opcode::Binary | Opcode::Continuation => Message::Binary(payload),
        Opcode::Close => Message::Close(close::parse(payload)?),
        Opcode::Ping => Message::Ping(payload),
        Opcode::Pong => Message::Pong(payload),
    })
}

/// What has begun and is not at its end, or was lent to the caller by the last call.
///
/// Invariant between calls: at least one of these holds: a head is begun, a frame is begun, a message is begun,
/// something is delivered. A head is never begun while a frame is.
#[derive(Debug, Default)]
struct Unfinished {
    /// The bytes of a head that is not whole.
    head: [u8; HEAD_BYTES_MAX],
    head_len: usize,
    /// The frame whose payload is arriving.
    frame: Option<Frame>,
    /// The message whose fragments are arriving. Grows with the bytes received, never with those announced.
    message: Option<Gathered>,
    /// The payload of a control frame: it may come between the fragments of the message.
    control: Vec<u8>,
    /// What the last call lent to the caller.
    delivered: Delivered,
}

#[derive(Debug)]
struct Frame {
    head: Head,
    /// Bytes of its payload that have not come yet.
    remaining: u64,
}

#[derive(Debug)]
enum Gathered {
    Text(Utf8Gatherer),
    Binary(Vec<u8>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Delivered {
    #[default]
    Nothing,
    Message,
    Control(Opcode),
}

impl Unfinished {
    /// Takes input until something is complete or nothing is left; returns how much it took.
    fn gather(&mut self, input: &mut [u8], rules: Rules) -> Result<usize, Violation> {
        let mut at = 0;
        while self.delivered == Delivered::Nothing {
            if self.frame.is_none() {
                let Some(head) = self.take_head(input, &mut at)? else { break };
                self.begin(head, rules)?;
            }
            at += self.take_payload(&mut input[at..])?;
            if !self.end_frame() {
                break;
            }
        }
        Ok(at)
    }

    /// What became complete.
    fn delivered(&self) -> Result<Option<Message<'_>>, Violation> {
        match (self.delivered, &self.message) {
            (Delivered::Control(opcode), _) => message(opcode, &self.control).map(Some),
            (Delivered::Message, Some(Gathered::Text(text))) => Ok(Some(Message::Text(text.finish()?))),
            (Delivered::Message, Some(Gathered::Binary(bytes))) => Ok(Some(Message::Binary(bytes))),
            (Delivered::Message, None) | (Delivered::Nothing, _) => Ok(None),
        }
    }

    fn skip_to_close(&mut self, input: &[u8]) -> Result<Skipped, Violation> {
        self.message = None;
        self.control.clear();
        let mut at = 0;
        loop {
            if self.frame.is_none() {
                let Some(head) = self.take_head(input, &mut at)? else { break };
                self.frame = Some(Frame::new(head));
            }
            let Some(frame) = &mut self.frame else { break };
            at += frame.advance(input.len() - at);
            if frame.remaining > 0 {
                break;
            }
            if frame.head.opcode == Opcode::Close {
                return Ok(Skipped { consumed: at, closed: true });
            }
            self.frame = None;
        }
        Ok(Skipped { consumed: at, closed: false })
    }

    /// Whether all that was begun is delivered.
    fn is_done(&self) -> bool {
        match self.delivered {
            Delivered::Nothing => false,
            Delivered::Message => true,
            Delivered::Control(_) => self.message.is_none(),
        }
    }

    /// What is left is a message in fragments, so what was lent is a control frame.
    fn forget_delivered(&mut self) {
        if self.delivered != Delivered::Nothing {
            self.delivered = Delivered::Nothing;
            self.control.clear();
        }
    }

    /// Reads the next head, of which the first bytes may have come earlier.
    fn take_head(&mut self, input: &[u8], at: &mut usize) -> Result<Option<Head>, Violation> {
        let had = self.head_len;
        let more = (input.len() - *at).min(HEAD_BYTES_MAX - had);
        self.head[had..had + more].copy_from_slice(&input[*at..*at + more]);
        let Some((head, head_len)) = Head::parse(&self.head[..had + more])? else {
            self.head_len = had + more;
            *at += more;
            return Ok(None);
        };
        self.head_len = 0;
        *at += head_len - had;
        Ok(Some(head))
    }

    /// Checks whether this frame may come now (5.4), and makes room for what it begins.
    fn begin(&mut self, head: Head, rules: Rules) -> Result<(), Violation> {
        match (head.opcode, &self.message) {
            (Opcode::Continuation, None) => return Err(Violation::UnexpectedContinuation),
            // "The fragments of one message MUST NOT be interleaved between the fragments of another message".
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Violation::ExpectedContinuation),
            _ => {}
        }
        rules.check(&head, self.message.as_ref().map_or(0, Gathered::len))?;
        match head.opcode {
            Opcode::Text => self.message = Some(Gathered::Text(Utf8Gatherer::default())),
            Opcode::Binary => self.message = Some(Gathered::Binary(Vec::new())),
            Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => {}
        }
        self.frame = Some(Frame::new(head));
        Ok(())
    }

    /// Unmasks and appends what is there of the frame's payload; returns how much that is.
    fn take_payload(&mut self, input: &mut [u8]) -> Result<usize, Violation> {
        let Some(frame) = &mut self.frame else { return Ok(0) };
        let offset = frame.offset();
        let len = frame.advance(input.len());
        let piece = &mut input[..len];
        unmask(piece, frame.head.key, offset);
        match &mut self.message {
            _ if frame.head.opcode.is_control() => self.control.extend_from_slice(piece),
            Some(Gathered::Text(text)) => text.push(piece)?,
            Some(Gathered::Binary(bytes)) => bytes.extend_from_slice(piece),
            None => {}
        }
        Ok(piece.len())
    }

    /// Where the frame's payload is whole, goes on to whatever comes behind it.
    fn end_frame(&mut self) -> bool {
        let Some(frame) = self.frame.take_if(|frame| frame.remaining == 0) else { return false };
        if frame.head.opcode.is_control() {
            self.delivered = Delivered::Control(frame.head.opcode);
        } else if frame.head.fin {
            self.delivered = Delivered::Message;
        }
        true
    }
}

impl Frame {
    fn new(head: Head) -> Frame {
        Frame { remaining: head.payload_len, head }
    }

    /// Where in the payload the next byte belongs, as far as the key goes by it.
    fn offset(&self) -> usize {
        (self.head.payload_len - self.remaining) as usize
    }

    /// Goes on over what is available of the payload; returns how much that is.
    fn advance(&mut self, available: usize) -> usize {
        let len = self.remaining.min(available as u64);
        self.remaining -= len;
        len as usize
    }
}

impl Gathered {
    fn len(&self) -> usize {
        match self {
            Gathered::Text(text) => text.len(),
            Gathered::Binary(bytes) => bytes.len(),
        }
    }
}

#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;
