//! One HTTP request, for commands that ask the admin endpoint.

use super::PeerError;
use super::socket::PeerSocket;
use super::tls::TlsFiles;
use super::url::ServerUrl;
use crate::cli::wait::EndSignals;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

/// The maximum size of a response, in bytes: `/stats` of 128 shards has 2 MiB.
const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// The user name that goes with a password. The admin endpoint accepts any.
const USER: &str = "admin";

/// The maximum number of header lines of a response.
const HEADERS_MAX: usize = 100;

/// Returns the body of a page. A status other than 200 is an error. `password` is for HTTP Basic authentication (RFC 7617).
pub(in crate::cli) fn fetch(
    url: &ServerUrl,
    path: &str,
    password: Option<&[u8]>,
    tls: &TlsFiles,
    timeout: Duration,
    signals: &EndSignals,
) -> Result<Vec<u8>, PeerError> {
    let until = Instant::now() + timeout;
    let server = url.to_string();
    let mut socket = PeerSocket::connect(url, tls, signals, until)?;
    let basic = |password| STANDARD.encode([USER.as_bytes(), b":", password].concat());
    let authorization =
        password.map_or_else(String::new, |password| format!("Authorization: Basic {}\r\n", basic(password)));
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: quickio/{}\r\n{authorization}Connection: close\r\n\r\n",
        url.authority(),
        env!("CARGO_PKG_VERSION")
    );
    socket.write(request.as_bytes());
    let mut input = Vec::new();
    loop {
        socket.flush()?;
        let is_late = Instant::now() >= until;
        let ready = signals.wait([socket.interest()], Some(until)).map_err(PeerError::Lost)?;
        let [ready] = ready.map_err(PeerError::Signal)?;
        let is_open = ready.is_empty() || socket.read(&mut input)?;
        if let Some(body) = body(&input, &server, is_open)? {
            return Ok(body);
        }
        if is_late {
            return Err(PeerError::Late { action: "answer" });
        }
        if !is_open {
            return Err(PeerError::Lost(ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Returns the body of a response, or `None` if it is incomplete. Without a length, it ends with the connection.
fn body(input: &[u8], server: &str, is_open: bool) -> Result<Option<Vec<u8>>, PeerError> {
    let no_server = |problem: &str| PeerError::Protocol { server: server.into(), problem: problem.into() };
    if input.len() > RESPONSE_BYTES_MAX {
        return Err(no_server("its response does not end"));
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(input) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(no_server("its response is not HTTP")),
    };
    let status = response.code.unwrap_or_default();
    let len = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("Content-Length"));
    let len = len.and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok());
    let rest = &input[head..];
    let body = match len {
        Some(len) => rest.get(..len),
        None => (!is_open).then_some(rest),
    };
    match (body, status) {
        (None, _) => Ok(None),
        (Some(body), 200) => Ok(Some(body.to_vec())),
        (Some(body), status) => {
            let reason =
                String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(200).collect();
            Err(PeerError::Status { status, reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_end_by_their_length_or_with_the_connection() {
        let with_len = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        for len in 0..with_len.len() {
            assert_eq!(body(&with_len[..len], "a", true).unwrap(), None);
        }
        assert_eq!(body(with_len, "a", true).unwrap().unwrap(), b"{}");
        let without = b"HTTP/1.1 200 OK\r\n\r\n{}";
        assert_eq!(body(without, "a", true).unwrap(), None);
        assert_eq!(body(without, "a", false).unwrap().unwrap(), b"{}");
        let error = body(b"HTTP/1.1 421 X\r\nContent-Length: 3\r\n\r\nno\n", "a", true).unwrap_err();
        assert_eq!(error.to_string(), "the server answered HTTP 421: no");
        assert!(body(b"SSH-2.0\r\n", "a", true).is_err());
    }
}
