//! What a whole head asks for, or why it is refused. Nothing here keeps anything: a head in, a verdict out.

use std::str;

use super::head::{self, Expectation, Head};
use super::query::{self, Parameters};
use super::refusal::Refusal;
use super::response::{self, Manner};
use super::{RequestKind, SessionParams, Sid};
use crate::protocol::websocket::handshake;
use crate::protocol::{CodecSettings, Reason};

/// What the verdict depends on, beside the head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances<'a> {
    pub settings: &'a CodecSettings,
    /// Conformance tests: the path `/echo` needs no subprotocol.
    pub echo: bool,
    /// Earlier requests are not answered.
    pub pipelined: bool,
}

/// What is to be done about a request.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The caller answers it, once its body is there.
    Ask(Facts, Manner),
    /// It is answered with these bytes.
    Answer(Answer),
    /// The connection becomes a WebSocket, with these bytes.
    Upgrade { answer: Vec<u8>, echo: bool },
}

/// A whole response.
#[derive(Debug)]
pub(super) struct Answer {
    pub bytes: Vec<u8>,
    /// The connection ends behind it, for this reason.
    pub ends: Option<Reason>,
    /// It says no.
    pub refuses: bool,
}

impl Answer {
    /// A refusal of a request of which nothing is known but that it is wrong.
    pub fn refusal(refusal: Refusal) -> Answer {
        Answer::of(refusal, &Manner { last: true, ..Manner::default() })
    }

    pub fn of(refusal: Refusal, manner: &Manner) -> Answer {
        let mut bytes = Vec::new();
        response::refusal(&mut bytes, manner, refusal);
        Answer { bytes, ends: manner.last.then_some(Reason::Refused(refusal)), refuses: true }
    }

    fn preflight(manner: &Manner) -> Answer {
        let mut bytes = Vec::new();
        response::preflight(&mut bytes, manner);
        Answer { bytes, ends: manner.last.then_some(Reason::Finished), refuses: false }
    }
}

/// What is known of a request by its head, which may be moved: places in it, not slices of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    wish: Wish,
    pub body_len: usize,
    /// The client waits for leave to send the body.
    pub awaits_continue: bool,
}

#[derive(Clone, Copy, Debug)]
enum Wish {
    Poll(Name),
    Stream(Name),
    Document { path: Span, if_none_match: Option<Span> },
}

/// [`Named`], by its place in the head.
#[derive(Clone, Copy, Debug)]
struct Name {
    sid: Sid,
    connect: bool,
    close: bool,
    seq: Option<u64>,
    host: Span,
}

impl Facts {
    /// The session that the request names.
    pub fn sid(&self) -> Option<Sid> {
        match self.wish {
            Wish::Poll(name) | Wish::Stream(name) => Some(name.sid),
            Wish::Document { .. } => None,
        }
    }

    pub fn is_stream(&self) -> bool {
        matches!(self.wish, Wish::Stream(_))
    }

    /// The request itself, from the very head that this was learned from.
    pub fn asks<'a>(&self, head: &'a [u8], body: &'a str) -> RequestKind<'a> {
        match self.wish {
            Wish::Poll(name) => RequestKind::Poll { session: name.in_head(head), body },
            Wish::Stream(name) => RequestKind::Stream { session: name.in_head(head) },
            Wish::Document { path, if_none_match } => {
                let path = path.of(head);
                let if_none_match = if_none_match.map(|span| span.of(head));
                RequestKind::Document { path: if path.is_empty() { "/" } else { path }, if_none_match }
            }
        }
    }
}

impl Name {
    fn in_head(self, head: &[u8]) -> SessionParams<'_> {
        let Name { sid, connect, close, seq, host } = self;
        SessionParams { sid, connect, close, seq, host: host.of(head) }
    }
}

/// A text in a head, which has at most 8 KiB.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u16,
    end: u16,
}

impl Span {
    /// The place of this part of the head; none where it is no text.
    fn new(head: &[u8], part: &[u8]) -> Option<Span> {
        let start = (part.as_ptr() as usize).wrapping_sub(head.as_ptr() as usize);
        let is_text = str::from_utf8(part).is_ok();
        // What is empty may lie anywhere.
        let (start, end) = if part.is_empty() { (0, 0) } else { (start, start + part.len()) };
        is_text.then_some(Span { start: start as u16, end: end as u16 })
    }

    fn of(self, head: &[u8]) -> &str {
        let part = &head[usize::from(self.start)..usize::from(self.end)];
        str::from_utf8(part).expect("it was text when its place was noted")
    }
}

/// Where the target points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target<'a> {
    /// Of a URL: the host, which goes before that of the header.
    authority: Option<&'a str>,
    /// Empty in a URL that has none.
    path: &'a str,
    query: &'a str,
}

impl<'a> Target<'a> {
    /// A path, or a URL (RFC 9112, 3.2.1 and 3.2.2).
    fn parse(target: &'a str) -> Option<Target<'a>> {
        let (authority, rest) = match target.starts_with('/') {
            true => (None, target),
            false => {
                let (scheme, rest) = target.split_once("://")?;
                let is_http = ["http", "https"].iter().any(|http| http.eq_ignore_ascii_case(scheme));
                let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                (is_http && !authority.is_empty()).then_some((Some(authority), rest))?
            }
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        Some(Target { authority, path, query })
    }

    fn is_root(&self) -> bool {
        matches!(self.path, "/" | "")
    }
}

/// What is to be done about the request of this head.
pub(super) fn judge(head: &[u8], circumstances: Circumstances<'_>) -> Verdict {
    let mut space = head::header_space();
    match Head::parse(head, &mut space) {
        Ok(parsed) => Case::new(head, &parsed, circumstances).verdict(),
        Err(refusal) => Verdict::Answer(Answer::refusal(refusal)),
    }
}

/// A head that is judged.
struct Case<'c, 'h, 'a> {
    bytes: &'a [u8],
    head: &'c Head<'h, 'a>,
    circumstances: Circumstances<'c>,
    manner: Manner,
}

impl<'c, 'h, 'a> Case<'c, 'h, 'a> {
    fn new(bytes: &'a [u8], head: &'c Head<'h, 'a>, circumstances: Circumstances<'c>) -> Case<'c, 'h, 'a> {
        let manner = Manner {
            last: !head.persists(),
            old: head.old,
            bodiless: head.method == "HEAD",
            ..Manner::default()
        };
        Case { bytes, head, circumstances, manner }
    }

    fn verdict(mut self) -> Verdict {
        match self.decide() {
            Ok(verdict) => verdict,
            Err(refusal) => {
                // A body that is not read would be taken for the next request.
                self.manner.last |= !refusal.may_persist() || self.has_body();
                Verdict::Answer(Answer::of(refusal, &self.manner))
            }
        }
    }

    fn decide(&mut self) -> Result<Verdict, Refusal> {
        self.check_host()?;
        let length = self.length()?;
        if self.head.wants_upgrade() {
            return self.upgrade();
        }
        if !self.head.old && self.head.fields.expectation == Expectation::Unknown {
            return Err(Refusal::Expectation);
        }
        match self.head.method {
            "GET" => self.get(),
            "HEAD" => self.document(),
            "POST" => self.post(length),
            "OPTIONS" => self.options(),
            _ => Err(Refusal::UnknownMethod),
        }
    }

    /// RFC 9112, 3.2: 400 "to any HTTP/1.1 request message that lacks a Host header field and to any request message
    /// that contains more than one Host header field line or a Host header field with an invalid field value".
    fn check_host(&self) -> Result<(), Refusal> {
        match self.head.fields.host {
            Some(host) if host.iter().all(|byte| is_of_host(*byte)) => Ok(()),
            Some(_) => Err(Refusal::Host),
            None if self.head.old => Ok(()),
            None => Err(Refusal::NoHost),
        }
    }

    /// The announced length of the body, which is one number or none.
    fn length(&self) -> Result<Option<u64>, Refusal> {
        let fields = &self.head.fields;
        match fields.content_length {
            None => Ok(None),
            Some(_) if fields.has_transfer_encoding => Err(Refusal::Length),
            Some(text) => query::number(text).map(Some).ok_or(Refusal::Length),
        }
    }

    /// Whether anything belongs to the request behind its head, as far as can be told.
    fn has_body(&self) -> bool {
        self.head.fields.has_transfer_encoding || !matches!(self.length(), Ok(None | Some(0)))
    }

    fn upgrade(&mut self) -> Result<Verdict, Refusal> {
        // What follows would be frames, or a request; nobody can tell.
        self.manner.last = true;
        let (answer, echo) = handshake::upgrade(self.head, self.circumstances.echo)?;
        self.check_origin()?;
        self.check_alone()?;
        Ok(Verdict::Upgrade { answer, echo })
    }

    fn get(&mut self) -> Result<Verdict, Refusal> {
        let target = self.target()?;
        let parameters =
            if target.is_root() { Parameters::parse(target.query)? } else { Parameters::default() };
        if parameters.sid.is_none() {
            return self.document();
        }
        self.check_no_body()?;
        let name = self.name(&target, &parameters)?;
        if !self.head.fields.accepts_streams {
            return Err(Refusal::NotAcceptable);
        }
        // Its end is the connection's, so nothing that could follow would be answered.
        self.manner.last = true;
        self.check_alone()?;
        Ok(self.ask(Wish::Stream(name), 0))
    }

    /// A GET of no session, or a HEAD: that of a session would be the head of a stream, and says nothing.
    fn document(&mut self) -> Result<Verdict, Refusal> {
        let target = self.target()?;
        self.check_no_body()?;
        let path = Span::new(self.bytes, target.path.as_bytes()).ok_or(Refusal::Target)?;
        let if_none_match = self.head.fields.if_none_match.and_then(|tags| Span::new(self.bytes, tags));
        Ok(self.ask(Wish::Document { path, if_none_match }, 0))
    }

    fn post(&mut self, length: Option<u64>) -> Result<Verdict, Refusal> {
        let target = self.target()?;
        if !target.is_root() {
            return Err(Refusal::NotFound);
        }
        self.manner.of_session = true;
        self.check_origin()?;
        let length = length.ok_or(Refusal::NoLength)?;
        let max = self.circumstances.settings.message_bytes_max;
        let body_len = usize::try_from(length).ok().filter(|len| *len <= max).ok_or(Refusal::TooLong)?;
        let name = self.name(&target, &Parameters::parse(target.query)?)?;
        Ok(self.ask(Wish::Poll(name), body_len))
    }

    fn options(&mut self) -> Result<Verdict, Refusal> {
        if self.head.target != "*" {
            self.target()?;
        }
        self.check_no_body()?;
        self.check_origin()?;
        Ok(Verdict::Answer(Answer::preflight(&self.manner)))
    }

    fn ask(&self, wish: Wish, body_len: usize) -> Verdict {
        let awaits_continue = !self.head.old && self.head.fields.expectation == Expectation::Continue;
        Verdict::Ask(Facts { wish, body_len, awaits_continue }, self.manner.clone())
    }

    fn target(&self) -> Result<Target<'a>, Refusal> {
        let target = Target::parse(self.head.target).ok_or(Refusal::Target)?;
        let is_host = |authority: &str| authority.bytes().all(is_of_host);
        if target.authority.is_none_or(is_host) { Ok(target) } else { Err(Refusal::Host) }
    }

    fn name(&mut self, target: &Target<'a>, parameters: &Parameters<'_>) -> Result<Name, Refusal> {
        self.manner.of_session = true;
        self.check_origin()?;
        let host = target.authority.map(str::as_bytes).or(self.head.fields.host).unwrap_or_default();
        Ok(Name {
            sid: parameters.sid()?,
            connect: parameters.connect,
            close: parameters.close,
            seq: parameters.seq()?,
            host: Span::new(self.bytes, host).ok_or(Refusal::Host)?,
        })
    }

    /// RFC 9110, 9.3.1: content in a GET "has no generally defined semantics", and some "reject the request and close
    /// the connection because of its potential as a request smuggling attack".
    fn check_no_body(&self) -> Result<(), Refusal> {
        if self.has_body() { Err(Refusal::Body) } else { Ok(()) }
    }

    /// From here on the page that asked may read the answer, or is refused.
    fn check_origin(&mut self) -> Result<(), Refusal> {
        let Some(origin) = self.head.fields.origin else { return Ok(()) };
        self.manner.cors = self.circumstances.settings.origins.admit(origin).ok_or(Refusal::Origin)?;
        Ok(())
    }

    fn check_alone(&self) -> Result<(), Refusal> {
        if self.circumstances.pipelined { Err(Refusal::Pipelined) } else { Ok(()) }
    }
}

/// Whether a byte may stand in a host and its port (RFC 3986, 3.2.2), but for the comma, which joins two.
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte)
}
