//! The encoding of responses.

use std::io::Write;

use super::date::HttpDate;
use super::refusal::HttpRefusal;
use crate::protocol::origin::Cors;
use crate::protocol::{CodecSettings, Origins};

/// The properties of a response that follow from its request and not from its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ResponseFraming {
    /// The connection closes behind the response.
    pub close: bool,
    /// The request was HTTP/1.0. Such a peer assumes that the connection closes unless it is told otherwise.
    pub is_http_1_0: bool,
    /// The request was HEAD: the response has no body.
    pub is_head_only: bool,
    /// The response belongs to a session. Its body is text that must not be cached or interpreted as another type.
    pub is_session: bool,
    /// The response is a document. A document has its own rules for pages of other origins, but an error has not.
    pub is_document: bool,
    pub cors: Cors,
}

/// The headers of a response that belongs to a session. Without `nosniff` a browser might interpret a broadcast as a
/// page.
const SESSION_HEADERS: &str = "Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n";

/// The last headers of an event stream, and the first bytes of its body. These tell the client that no proxy holds the
/// stream back.
const STREAM: &str = "Content-Type: text/event-stream\r\nCache-Control: no-store, no-transform\r\n\
    X-Accel-Buffering: no\r\nConnection: close\r\n\r\n: quickio\n\n";

/// The response that tells a client to send the body (RFC 9110, 10.1.1).
pub(super) const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

/// The maximum length of a response head, without the headers that the caller gives.
const HEAD_BYTES: usize = 256;

/// Appends a complete response.
pub(super) fn whole(
    out: &mut Vec<u8>,
    settings: &CodecSettings,
    framing: &ResponseFraming,
    status: u16,
    headers: &str,
    body: &[u8],
) {
    out.reserve(HEAD_BYTES + headers.len() + body.len());
    start(out, status, settings.date);
    if framing.close {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if framing.is_http_1_0 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    if framing.is_session {
        out.extend_from_slice(SESSION_HEADERS.as_bytes());
    }
    if !framing.is_document || status >= 400 {
        cors(out, &settings.origins, framing.cors, matches!(status, 429 | 503));
    }
    out.extend_from_slice(headers.as_bytes());
    // RFC 9110, 8.6: 204 must have no `Content-Length`, and 304 only the length that 200 would have.
    if matches!(status, 204 | 304) {
        return out.extend_from_slice(b"\r\n");
    }
    write!(out, "Content-Length: {}\r\n\r\n", body.len()).expect("writing to memory does not fail");
    if !framing.is_head_only {
        out.extend_from_slice(body);
    }
}

/// Appends the head of an event stream.
pub(super) fn stream(out: &mut Vec<u8>, settings: &CodecSettings, framing: &ResponseFraming) {
    start(out, 200, settings.date);
    cors(out, &settings.origins, framing.cors, false);
    out.extend_from_slice(STREAM.as_bytes());
}

/// Appends the response that refuses a request.
pub(super) fn refusal(
    out: &mut Vec<u8>,
    settings: &CodecSettings,
    framing: &ResponseFraming,
    refusal: HttpRefusal,
) {
    plain(out, settings, framing, refusal.status(), refusal.headers(), refusal.text());
}

/// Appends a response whose body is a line of text.
pub(super) fn plain(
    out: &mut Vec<u8>,
    settings: &CodecSettings,
    framing: &ResponseFraming,
    status: u16,
    headers: &str,
    text: &str,
) {
    let content_type = if framing.is_session { "" } else { "Content-Type: text/plain\r\n" };
    whole(
        out,
        settings,
        framing,
        status,
        &format!("{headers}{content_type}"),
        format!("{text}\n").as_bytes(),
    );
}

/// Appends the response to OPTIONS, which lists what a page may ask for (Fetch, 4.8): methods, and these headers.
pub(super) fn preflight(
    out: &mut Vec<u8>,
    settings: &CodecSettings,
    framing: &ResponseFraming,
    headers: &str,
) {
    let headers = format!(
        "Allow: GET, HEAD, POST, OPTIONS\r\nAccess-Control-Allow-Methods: GET, POST, OPTIONS\r\n\
         Access-Control-Allow-Headers: {headers}\r\nAccess-Control-Max-Age: 86400\r\n"
    );
    whole(out, settings, framing, 204, &headers, b"");
}

/// Appends the status line and the headers that every response has.
fn start(out: &mut Vec<u8>, status: u16, date: HttpDate) {
    write!(out, "HTTP/1.1 {status} {}\r\nDate: ", phrase(status)).expect("writing to memory does not fail");
    out.extend_from_slice(date.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends the headers that permit a page to read the response. With `may_retry` they include `Retry-After`.
fn cors(out: &mut Vec<u8>, origins: &Origins, cors: Cors, may_retry: bool) {
    if may_retry && cors != Cors::Silent {
        out.extend_from_slice(b"Access-Control-Expose-Headers: Retry-After\r\n");
    }
    match cors {
        Cors::Silent => {}
        Cors::Any => out.extend_from_slice(b"Access-Control-Allow-Origin: *\r\n"),
        Cors::Only(number) => {
            out.extend_from_slice(b"Access-Control-Allow-Origin: ");
            out.extend_from_slice(origins.allowed(number).as_bytes());
            out.extend_from_slice(b"\r\nVary: Origin\r\n");
        }
    }
}

/// Returns the reason phrase of a status, which may be empty (RFC 9112, 4).
const fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
