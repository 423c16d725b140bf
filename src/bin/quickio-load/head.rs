//! Heads of HTTP responses: how long they are, and whether what follows is what was asked for.

use crate::cut::Broken;
use httparse::{EMPTY_HEADER, Header, Response, Status};

/// Bytes of the head of an HTTP response, at most.
const HEAD_BYTES_MAX: usize = 16 << 10;

const HEADERS_MAX: usize = 32;

/// A head that is whole.
#[derive(Debug)]
pub struct Head<'h, 'b> {
    /// Its bytes, the empty line included.
    pub len: usize,
    status: u16,
    reason: &'b str,
    headers: &'h [Header<'b>],
}

/// Gives `read` the head at the start of `bytes`; none where more bytes are needed.
pub fn read<T>(
    bytes: &[u8],
    read: impl FnOnce(Head<'_, '_>) -> Result<T, Broken>,
) -> Result<Option<T>, Broken> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut answer = Response::new(&mut headers);
    match answer.parse(bytes) {
        Ok(Status::Complete(len)) => {
            let (status, reason) = (answer.code.unwrap_or(0), answer.reason.unwrap_or(""));
            read(Head { len, status, reason, headers: answer.headers }).map(Some)
        }
        Ok(Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => Ok(None),
        Ok(Status::Partial) => Err(Broken::Http("its head does not end".into())),
        Err(error) => Err(Broken::Http(error.to_string())),
    }
}

impl Head<'_, '_> {
    /// Whether the connection is a WebSocket now, by that `Sec-WebSocket-Accept`.
    pub fn upgraded(&self, accept: &str) -> Result<(), Broken> {
        if self.status != 101 {
            return Err(Broken::Upgrade(format!("{} {}", self.status, self.reason)));
        }
        match self.header("sec-websocket-accept") {
            Some(given) if given == accept.as_bytes() => Ok(()),
            _ => Err(Broken::Upgrade("a wrong Sec-WebSocket-Accept".into())),
        }
    }

    /// Bytes of the body of a response that has to be 200 and of a stated length.
    pub fn body_len(&self) -> Result<u64, Broken> {
        self.is_200()?;
        let len = self.header("content-length").and_then(|len| std::str::from_utf8(len).ok()?.parse().ok());
        len.filter(|_| self.header("transfer-encoding").is_none()).ok_or(Broken::Response("without a length"))
    }

    /// Whether a stream of events follows, which ends with the connection.
    pub fn streams(&self) -> Result<(), Broken> {
        self.is_200()?;
        let kind = self.header("content-type").unwrap_or_default();
        let has_end = ["content-length", "transfer-encoding"].iter().any(|name| self.header(name).is_some());
        match kind.starts_with(b"text/event-stream") {
            true if !has_end => Ok(()),
            _ => Err(Broken::Response("that is no event stream")),
        }
    }

    fn is_200(&self) -> Result<(), Broken> {
        match self.status {
            200 => Ok(()),
            status => Err(Broken::Status(format!("{status} {}", self.reason))),
        }
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }
}
