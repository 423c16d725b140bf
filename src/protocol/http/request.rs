//! The validation of a request's head: what the request asks for, or why it is refused. The functions are pure.

use std::net::IpAddr;
use std::str;

use super::body::BodyFraming;
use super::chunked::is_token_byte;
use super::head::{self, Expectation, RequestHead};
use super::query::Parameters;
use super::refusal::HttpRefusal;
use super::response::{self, ResponseFraming};
use super::{RequestKind, SessionParams, Sid};
use crate::limits::HTTP_PREFLIGHT_BYTES_MAX;
use crate::protocol::opening::TwoTokens;
use crate::protocol::origin::Cors;
use crate::protocol::websocket::handshake::{self, Upgrade};
use crate::protocol::{CodecSettings, OpeningHeaders, Reason};

/// The context of a request: what its validation depends on apart from its head.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestContext<'a> {
    pub settings: &'a CodecSettings,
    /// For conformance tests: the path `/echo` needs no subprotocol.
    pub echo: bool,
    /// Earlier requests were not answered.
    pub is_pipelined: bool,
    /// The reason for refusing the request whatever it is, if the connection is over a limit.
    pub refusal: Option<HttpRefusal>,
}

/// The outcome of validating a request.
#[derive(Debug)]
pub(super) enum Validation {
    /// The caller answers the request when its body is complete.
    Accepted(ValidRequest, ResponseFraming),
    /// The request is answered with this response.
    Answered(ImmediateResponse),
    /// The connection becomes a WebSocket.
    Upgrade { upgrade: Upgrade, echo: bool, client: Option<IpAddr>, opening: Option<Box<OpeningHeaders>> },
}

/// A response that does not need the caller.
#[derive(Debug)]
pub(super) struct ImmediateResponse {
    pub bytes: Vec<u8>,
    /// The reason for which the connection closes behind the response, if it does.
    pub close_reason: Option<Reason>,
    pub is_refusal: bool,
}

impl ImmediateResponse {
    /// Returns a refusal of a request of which only these bytes of its head are known, which need not be well-formed.
    /// The connection closes behind it.
    pub fn refusal_of_part(refusal: HttpRefusal, head: &[u8], settings: &CodecSettings) -> ImmediateResponse {
        let cors = head::find_origin(head).and_then(|origin| settings.origins.admit(origin));
        let framing =
            ResponseFraming { close: true, cors: cors.unwrap_or_default(), ..ResponseFraming::default() };
        ImmediateResponse::refusal(refusal, &framing, settings)
    }

    pub fn refusal(
        refusal: HttpRefusal,
        framing: &ResponseFraming,
        settings: &CodecSettings,
    ) -> ImmediateResponse {
        let mut bytes = Vec::new();
        response::refusal(&mut bytes, settings, framing, refusal);
        let close_reason = framing.close.then_some(Reason::Refused(refusal));
        ImmediateResponse { bytes, close_reason, is_refusal: true }
    }

    fn preflight(framing: &ResponseFraming, headers: &str, settings: &CodecSettings) -> ImmediateResponse {
        let mut bytes = Vec::new();
        response::preflight(&mut bytes, settings, framing, headers);
        let close_reason = framing.close.then_some(Reason::Finished);
        ImmediateResponse { bytes, close_reason, is_refusal: false }
    }
}

/// A request whose head is valid. It refers to the head by positions and not by slices, because the head may be moved.
#[derive(Clone, Debug)]
pub(super) struct ValidRequest {
    kind: KindSpans,
    /// The address of the client, if the peer is a trusted proxy.
    pub client: Option<IpAddr>,
    /// The headers that are kept, if the request may create a session.
    pub opening: Option<Box<OpeningHeaders>>,
    pub body: BodyFraming,
    /// The client waits for 100 Continue before it sends the body.
    pub awaits_continue: bool,
}

/// A [`RequestKind`] whose texts are positions in the head.
#[derive(Clone, Copy, Debug)]
enum KindSpans {
    Poll(SessionSpans),
    Stream(SessionSpans),
    Document { path: Span, if_none_match: Option<Span> },
}

/// [`SessionParams`] whose texts are positions in the head.
#[derive(Clone, Copy, Debug)]
struct SessionSpans {
    sid: Sid,
    connect: bool,
    close: bool,
    linger: bool,
    seq: Option<u64>,
    host: Span,
}

impl ValidRequest {
    /// Returns the session that the request names.
    pub fn sid(&self) -> Option<Sid> {
        match self.kind {
            KindSpans::Poll(session) | KindSpans::Stream(session) => Some(session.sid),
            KindSpans::Document { .. } => None,
        }
    }

    pub fn is_stream(&self) -> bool {
        matches!(self.kind, KindSpans::Stream(_))
    }

    /// Returns the part of the head that [`ValidRequest::kind`] needs, to which the request refers from now on. While the
    /// body arrives, the rest of the head needs no memory.
    pub fn keep_head(&mut self, head: &[u8]) -> Vec<u8> {
        match &mut self.kind {
            KindSpans::Poll(session) | KindSpans::Stream(session) => session.keep_host(head),
            KindSpans::Document { .. } => head.to_vec(),
        }
    }

    /// Returns the request itself. `head` must be the head that was validated, or the part of it that was kept.
    pub fn kind<'a>(&self, head: &'a [u8], body: &'a str) -> RequestKind<'a> {
        match self.kind {
            KindSpans::Poll(session) => RequestKind::Poll { session: session.params(head), body },
            KindSpans::Stream(session) => RequestKind::Stream { session: session.params(head) },
            KindSpans::Document { path, if_none_match } => {
                let path = path.text(head);
                let if_none_match = if_none_match.map(|span| span.text(head));
                RequestKind::Document { path: if path.is_empty() { "/" } else { path }, if_none_match }
            }
        }
    }
}

impl SessionSpans {
    /// Moves the position of the host to the beginning of the memory that the head is replaced by.
    fn keep_host(&mut self, head: &[u8]) -> Vec<u8> {
        let host = self.host.text(head).as_bytes().to_vec();
        self.host = Span { start: 0, end: host.len() as u32 };
        host
    }

    fn params(self, head: &[u8]) -> SessionParams<'_> {
        let SessionSpans { sid, connect, close, linger, seq, host } = self;
        SessionParams { sid, connect, close, linger, seq, host: host.text(head) }
    }
}

/// The position of a text in a head.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Returns the position of this part of the head, or `None` if the part is not UTF-8.
    fn new(head: &[u8], part: &[u8]) -> Option<Span> {
        let start = (part.as_ptr() as usize).wrapping_sub(head.as_ptr() as usize);
        let is_text = str::from_utf8(part).is_ok();
        // An empty part may point anywhere.
        let (start, end) = if part.is_empty() { (0, 0) } else { (start, start + part.len()) };
        is_text.then_some(Span { start: start as u32, end: end as u32 })
    }

    fn text(self, head: &[u8]) -> &str {
        let part = &head[self.start as usize..self.end as usize];
        str::from_utf8(part).expect("the part was UTF-8 when its position was taken")
    }
}

/// The parts of a request's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target<'a> {
    /// The host of a target that is a URL. It takes precedence over the `Host` header.
    authority: Option<&'a str>,
    /// The path, which is empty if a URL has none.
    path: &'a str,
    query: &'a str,
}

impl<'a> Target<'a> {
    /// Parses a path or a URL (RFC 9112, 3.2.1 and 3.2.2).
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

/// Validates the request with this head.
pub(super) fn validate(head: &[u8], context: RequestContext<'_>) -> Validation {
    let mut space = head::header_space();
    match RequestHead::parse(head, &mut space) {
        Ok(parsed) => Validator::new(head, &parsed, context).validate(),
        Err(refusal) => {
            Validation::Answered(ImmediateResponse::refusal_of_part(refusal, head, context.settings))
        }
    }
}

/// A head that is being validated.
struct Validator<'c, 'h, 'a> {
    bytes: &'a [u8],
    head: &'c RequestHead<'h, 'a>,
    context: RequestContext<'c>,
    /// How the end of the body is found, or the refusal if that is not known.
    body: Result<BodyFraming, HttpRefusal>,
    /// The page that has sent the request may not connect.
    is_foreign: bool,
    framing: ResponseFraming,
}

impl<'c, 'h, 'a> Validator<'c, 'h, 'a> {
    fn new(
        bytes: &'a [u8],
        head: &'c RequestHead<'h, 'a>,
        context: RequestContext<'c>,
    ) -> Validator<'c, 'h, 'a> {
        let cors = match head.fields.origin {
            Some(origin) => context.settings.origins.admit(origin),
            None => Some(Cors::Silent),
        };
        let is_foreign = cors.is_none();
        let framing = ResponseFraming {
            close: !head.persists(),
            is_http_1_0: head.is_http_1_0,
            is_head_only: head.method == "HEAD",
            cors: cors.unwrap_or_default(),
            ..ResponseFraming::default()
        };
        Validator { bytes, head, context, body: head.body(), is_foreign, framing }
    }

    fn validate(mut self) -> Validation {
        match self.accept() {
            Ok(validation) => validation,
            Err(refusal) => {
                // If a body was not read, its bytes would be taken for the next request.
                self.framing.close |= !refusal.may_persist() || self.has_body();
                Validation::Answered(ImmediateResponse::refusal(
                    refusal,
                    &self.framing,
                    self.context.settings,
                ))
            }
        }
    }

    fn accept(&mut self) -> Result<Validation, HttpRefusal> {
        if let Some(refusal) = self.context.refusal {
            // A page that may connect may also read why it cannot now.
            self.check_origin()?;
            return Err(refusal);
        }
        self.check_host()?;
        let body = self.body?;
        if !self.head.is_http_1_0 && self.head.fields.expectation == Expectation::Unknown {
            return Err(HttpRefusal::Expectation);
        }
        if self.head.wants_upgrade() {
            return self.upgrade();
        }
        match self.head.method {
            "GET" => self.get(),
            "HEAD" => self.document(),
            "POST" => self.post(body),
            "OPTIONS" => self.options(),
            // RFC 9110, 9.1: 405 for a method that is known, but not allowed; 501 for others.
            "PUT" | "PATCH" | "DELETE" | "TRACE" | "CONNECT" => Err(HttpRefusal::MethodNotAllowed),
            _ => Err(HttpRefusal::UnknownMethod),
        }
    }

    /// RFC 9112, 3.2: 400 "to any HTTP/1.1 request message that lacks a Host header field and to any request message
    /// that contains more than one Host header field line or a Host header field with an invalid field value".
    fn check_host(&self) -> Result<(), HttpRefusal> {
        match self.head.fields.host {
            Some(host) if host.iter().all(|byte| is_host_byte(*byte)) => Ok(()),
            Some(_) => Err(HttpRefusal::Host),
            None if self.head.is_http_1_0 => Ok(()),
            None => Err(HttpRefusal::NoHost),
        }
    }

    /// Returns whether bytes behind the head belong to the request, as far as this is known.
    fn has_body(&self) -> bool {
        self.body.map_or(true, BodyFraming::has_body)
    }

    fn upgrade(&mut self) -> Result<Validation, HttpRefusal> {
        // If the upgrade is refused, the bytes that follow may be frames or a request.
        self.framing.close = true;
        if self.head.method != "GET" {
            return Err(HttpRefusal::Method);
        }
        let target = self.target()?;
        let echo = self.context.echo && target.path == "/echo";
        self.check_no_body()?;
        let upgrade = handshake::upgrade(self.head, echo, self.context.settings.compression.is_on())?;
        self.check_origin()?;
        self.check_not_pipelined()?;
        let opening = self.opening()?;
        Ok(Validation::Upgrade { upgrade, echo, client: self.client(), opening })
    }

    fn get(&mut self) -> Result<Validation, HttpRefusal> {
        let target = self.target()?;
        let parameters =
            if target.is_root() { Parameters::parse(target.query)? } else { Parameters::default() };
        if parameters.sid.is_none() {
            return self.document();
        }
        self.check_no_body()?;
        let session = self.session(&target, &parameters)?;
        if !self.head.fields.accepts_streams {
            return Err(HttpRefusal::NotAcceptable);
        }
        // The stream ends with the connection. A request behind it could not be answered.
        self.framing.close = true;
        self.check_not_pipelined()?;
        self.accepted(KindSpans::Stream(session), BodyFraming::Length(0))
    }

    /// Validates a GET without a session, or a HEAD. A HEAD with a session would ask for the head of a stream, which
    /// tells nothing.
    fn document(&mut self) -> Result<Validation, HttpRefusal> {
        let target = self.target()?;
        self.check_no_body()?;
        let path = Span::new(self.bytes, target.path.as_bytes()).ok_or(HttpRefusal::Target)?;
        let if_none_match = self.head.fields.if_none_match.and_then(|tags| Span::new(self.bytes, tags));
        self.framing.is_document = true;
        self.accepted(KindSpans::Document { path, if_none_match }, BodyFraming::Length(0))
    }

    fn post(&mut self, body: BodyFraming) -> Result<Validation, HttpRefusal> {
        let target = self.target()?;
        if !target.is_root() {
            return Err(HttpRefusal::NotFound);
        }
        self.framing.is_session = true;
        self.check_origin()?;
        match body {
            BodyFraming::Length(len) if len > self.context.settings.message_bytes_max => {
                return Err(HttpRefusal::TooLong);
            }
            BodyFraming::Length(_) | BodyFraming::Chunked => {}
        }
        let session = self.session(&target, &Parameters::parse(target.query)?)?;
        self.accepted(KindSpans::Poll(session), body)
    }

    fn options(&mut self) -> Result<Validation, HttpRefusal> {
        if self.head.target != "*" {
            self.target()?;
        }
        self.check_no_body()?;
        self.check_origin()?;
        let headers = self.requested_headers().unwrap_or_else(|| "Content-Type".into());
        Ok(Validation::Answered(ImmediateResponse::preflight(&self.framing, &headers, self.context.settings)))
    }

    /// Returns the headers that a page asks to send. No header makes the server do anything that it would not do for a
    /// program, and therefore all are allowed: polyfills of `EventSource` and other libraries send some of their own.
    fn requested_headers(&self) -> Option<String> {
        let mut headers = String::new();
        for name in self.head.headers.tokens("Access-Control-Request-Headers") {
            let is_name = name.iter().all(|byte| is_token_byte(*byte));
            let name = str::from_utf8(name).ok().filter(|_| is_name)?;
            if !headers.is_empty() {
                headers.push_str(", ");
            }
            headers.push_str(name);
        }
        (1..=HTTP_PREFLIGHT_BYTES_MAX).contains(&headers.len()).then_some(headers)
    }

    fn accepted(&self, kind: KindSpans, body: BodyFraming) -> Result<Validation, HttpRefusal> {
        let awaits_continue = !self.head.is_http_1_0 && self.head.fields.expectation == Expectation::Continue;
        let client = self.client();
        let opening = match kind {
            KindSpans::Poll(SessionSpans { connect: true, .. })
            | KindSpans::Stream(SessionSpans { connect: true, .. }) => self.opening()?,
            _ => None,
        };
        let valid = ValidRequest { kind, client, opening, body, awaits_continue };
        Ok(Validation::Accepted(valid, self.framing.clone()))
    }

    /// Returns the headers that are kept of a request that opens a connection.
    fn opening(&self) -> Result<Option<Box<OpeningHeaders>>, HttpRefusal> {
        let headers = self.head.headers;
        let opening = self.context.settings.wanted.of(|name| headers.values(name).collect());
        opening.map_err(|TwoTokens| HttpRefusal::RepeatedHeader)
    }

    /// Returns the address of the client, if the peer is a trusted proxy.
    fn client(&self) -> Option<IpAddr> {
        self.context.settings.proxies.client(self.head.headers)
    }

    fn target(&self) -> Result<Target<'a>, HttpRefusal> {
        let target = Target::parse(self.head.target).ok_or(HttpRefusal::Target)?;
        let is_host = |authority: &str| authority.bytes().all(is_host_byte);
        if target.authority.is_none_or(is_host) { Ok(target) } else { Err(HttpRefusal::Host) }
    }

    fn session(
        &mut self,
        target: &Target<'a>,
        parameters: &Parameters<'_>,
    ) -> Result<SessionSpans, HttpRefusal> {
        self.framing.is_session = true;
        self.check_origin()?;
        let host = target.authority.map(str::as_bytes).or(self.head.fields.host).unwrap_or_default();
        Ok(SessionSpans {
            sid: parameters.sid()?,
            connect: parameters.connect,
            close: parameters.close,
            linger: parameters.linger,
            seq: parameters.seq()?,
            host: Span::new(self.bytes, host).ok_or(HttpRefusal::Host)?,
        })
    }

    /// RFC 9110, 9.3.1: content in a GET "has no generally defined semantics", and some "reject the request and close
    /// the connection because of its potential as a request smuggling attack".
    fn check_no_body(&self) -> Result<(), HttpRefusal> {
        if self.has_body() { Err(HttpRefusal::Body) } else { Ok(()) }
    }

    /// Refuses pages that may not connect.
    fn check_origin(&self) -> Result<(), HttpRefusal> {
        if !self.is_foreign {
            return Ok(());
        }
        self.context.settings.origins.refused(self.head.fields.origin.unwrap_or_default());
        Err(HttpRefusal::Origin)
    }

    fn check_not_pipelined(&self) -> Result<(), HttpRefusal> {
        if self.context.is_pipelined { Err(HttpRefusal::Pipelined) } else { Ok(()) }
    }
}

/// Returns whether a byte may be in a host and its port (RFC 3986, 3.2.2). A comma may not, because it joins two hosts.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte)
}
