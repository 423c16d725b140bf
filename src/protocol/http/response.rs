//! Responses as bytes.

use std::io::Write;

use super::refusal::Refusal;
use crate::protocol::origin::Cors;

/// How the responses to a request are written, whatever they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manner {
    /// The connection ends behind it.
    pub last: bool,
    /// The request was HTTP/1.0, whose peers take a connection for ended unless they are told otherwise.
    pub old: bool,
    /// The request was HEAD.
    pub bodiless: bool,
    /// It belongs to a session: it is text that nobody shall keep, or take for something else.
    pub of_session: bool,
    pub cors: Cors,
}

/// What text of a session is. Without `nosniff` a browser might take a broadcast for a page.
const OF_SESSION: &str = "Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n";

/// The first bytes of a stream's body tell its client that no proxy holds them back.
const STREAM: &str = "Content-Type: text/event-stream\r\nCache-Control: no-store, no-transform\r\n\
    X-Accel-Buffering: no\r\nConnection: close\r\n\r\n: quickio\n\n";

/// Tells a client to send the body that it asked about (RFC 9110, 10.1.1).
pub(super) const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

/// Bytes that a head takes, at most, but for the given headers.
const HEAD_BYTES: usize = 256;

/// Appends a whole response. No `Date` is in it: a codec has no clock, and "an origin server without a clock MUST NOT
/// generate a Date" (RFC 9110, 6.6.1); nothing here is cached by its age.
pub(super) fn whole(out: &mut Vec<u8>, manner: &Manner, status: u16, headers: &str, body: &[u8]) {
    out.reserve(HEAD_BYTES + headers.len() + body.len());
    status_line(out, status);
    if manner.last {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if manner.old {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    if manner.of_session {
        out.extend_from_slice(OF_SESSION.as_bytes());
    }
    cors(out, &manner.cors);
    out.extend_from_slice(headers.as_bytes());
    // RFC 9110, 8.6: not with 204, and with 304 only the length that 200 would have.
    if matches!(status, 204 | 304) {
        return out.extend_from_slice(b"\r\n");
    }
    write!(out, "Content-Length: {}\r\n\r\n", body.len()).expect("memory takes everything");
    if !manner.bodiless {
        out.extend_from_slice(body);
    }
}

/// Appends the head of an event stream.
pub(super) fn stream(out: &mut Vec<u8>, manner: &Manner) {
    status_line(out, 200);
    cors(out, &manner.cors);
    out.extend_from_slice(STREAM.as_bytes());
}

/// Appends the response that refuses a request.
pub(super) fn refusal(out: &mut Vec<u8>, manner: &Manner, refusal: Refusal) {
    plain(out, manner, refusal.status(), refusal.headers(), refusal.text());
}

/// Appends a response whose body is a line of text.
pub(super) fn plain(out: &mut Vec<u8>, manner: &Manner, status: u16, headers: &str, text: &str) {
    let content_type = if manner.of_session { "" } else { "Content-Type: text/plain\r\n" };
    whole(out, manner, status, &format!("{headers}{content_type}"), format!("{text}\n").as_bytes());
}

/// Appends the answer to OPTIONS: what a page may ask for (Fetch, 4.8), from wherever it came.
pub(super) fn preflight(out: &mut Vec<u8>, manner: &Manner) {
    let headers = "Allow: GET, HEAD, POST, OPTIONS\r\nAccess-Control-Allow-Methods: GET, POST, OPTIONS\r\n\
        Access-Control-Allow-Headers: Content-Type\r\nAccess-Control-Max-Age: 86400\r\n";
    whole(out, manner, 204, headers, b"");
}

fn status_line(out: &mut Vec<u8>, status: u16) {
    write!(out, "HTTP/1.1 {status} {}\r\n", phrase(status)).expect("memory takes everything");
}

fn cors(out: &mut Vec<u8>, cors: &Cors) {
    match cors {
        Cors::Silent => {}
        Cors::Any => out.extend_from_slice(b"Access-Control-Allow-Origin: *\r\n"),
        Cors::Only(origin) => {
            out.extend_from_slice(b"Access-Control-Allow-Origin: ");
            out.extend_from_slice(origin.as_bytes());
            out.extend_from_slice(b"\r\nVary: Origin\r\n");
        }
    }
}

/// The words behind a status; none are needed (RFC 9112, 4).
const fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "",
    }
}
