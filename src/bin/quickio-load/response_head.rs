//! Parses the heads of HTTP responses, and checks that they are the expected ones.

use crate::error::ProtocolError;
use httparse::{EMPTY_HEADER, Header, Response, Status};

/// The maximum size of the head of an HTTP response, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// The maximum number of header lines.
const HEADERS_MAX: usize = 32;

/// A complete head.
#[derive(Debug)]
pub struct ResponseHead<'h, 'b> {
    /// The length in bytes, including the empty line.
    pub len: usize,
    status: u16,
    reason: &'b str,
    headers: &'h [Header<'b>],
}

/// Parses the head at the start of `bytes` and returns the result of `then`, or `None` if the head is incomplete.
pub fn parse<T>(
    bytes: &[u8],
    then: impl FnOnce(ResponseHead<'_, '_>) -> Result<T, ProtocolError>,
) -> Result<Option<T>, ProtocolError> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut response = Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(Status::Complete(len)) => {
            let (status, reason) = (response.code.unwrap_or(0), response.reason.unwrap_or(""));
            then(ResponseHead { len, status, reason, headers: response.headers }).map(Some)
        }
        Ok(Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => Ok(None),
        Ok(Status::Partial) => Err(ProtocolError::Http("its head is too long".into())),
        Err(error) => Err(ProtocolError::Http(error.to_string())),
    }
}

impl ResponseHead<'_, '_> {
    /// Checks that the connection is now a WebSocket, with this `Sec-WebSocket-Accept`.
    pub fn check_upgrade(&self, accept: &str) -> Result<(), ProtocolError> {
        if self.status != 101 {
            return Err(ProtocolError::Upgrade(format!("{} {}", self.status, self.reason)));
        }
        match self.header("sec-websocket-accept") {
            Some(given) if given == accept.as_bytes() => Ok(()),
            _ => Err(ProtocolError::Upgrade("a wrong Sec-WebSocket-Accept".into())),
        }
    }

    /// Returns the length of the body. The response must be 200 and state the length.
    pub fn body_len(&self) -> Result<u64, ProtocolError> {
        self.check_200()?;
        let len = self.header("content-length").and_then(|len| std::str::from_utf8(len).ok()?.parse().ok());
        len.filter(|_| self.header("transfer-encoding").is_none())
            .ok_or(ProtocolError::Response("without a length"))
    }

    /// Checks that the body is an event stream, which ends with the connection.
    pub fn check_event_stream(&self) -> Result<(), ProtocolError> {
        self.check_200()?;
        let kind = self.header("content-type").unwrap_or_default();
        let has_end = ["content-length", "transfer-encoding"].iter().any(|name| self.header(name).is_some());
        match kind.starts_with(b"text/event-stream") {
            true if !has_end => Ok(()),
            _ => Err(ProtocolError::Response("that is not an event stream")),
        }
    }

    fn check_200(&self) -> Result<(), ProtocolError> {
        match self.status {
            200 => Ok(()),
            status => Err(ProtocolError::Status(format!("{status} {}", self.reason))),
        }
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }
}
