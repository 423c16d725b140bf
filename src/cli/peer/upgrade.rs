//! The client's side of the WebSocket handshake (RFC 6455, 4.1).

use super::error::PeerError;
use super::url::ServerUrl;
use crate::protocol::websocket::handshake;
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The maximum length of the head of a response, in bytes. That of a server has 200; proxies add some lines.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The maximum number of header lines of a response.
const HEADERS_MAX: usize = 100;

/// A handshake that has begun.
pub(super) struct UpgradeRequest {
    /// The request.
    pub(super) bytes: Vec<u8>,
    key: String,
}

impl UpgradeRequest {
    /// Returns the request for a WebSocket at this URL.
    pub(super) fn new(url: &ServerUrl) -> UpgradeRequest {
        let mut key = [0; 16];
        rand::fill(&mut key).expect("the kernel has random bytes");
        UpgradeRequest::with_key(url, &key)
    }

    fn with_key(url: &ServerUrl, key: &[u8; 16]) -> UpgradeRequest {
        let key = STANDARD.encode(key);
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {}\r\nUser-Agent: quickio/{}\r\n\r\n",
            url.target,
            url.authority(),
            handshake::SUBPROTOCOL,
            env!("CARGO_PKG_VERSION"),
        );
        UpgradeRequest { bytes: request.into_bytes(), key }
    }

    /// Checks the response at the start of the input. Returns its length, or `None` if it is incomplete.
    pub(super) fn check_response(&self, input: &[u8], server: &str) -> Result<Option<usize>, PeerError> {
        let no_server =
            |problem: &str| PeerError::Protocol { server: server.into(), problem: problem.into() };
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let len = match response.parse(input) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) if input.len() <= HEAD_BYTES_MAX => return Ok(None),
            _ => return Err(no_server("its response is not HTTP")),
        };
        let status = response.code.unwrap_or_default();
        if status != 101 {
            return Err(PeerError::Refused { status, reason: reason(&response, &input[len..]) });
        }
        let has = |name: &str, value: &str| {
            let mut named = response.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            named.any(|header| header.value.eq_ignore_ascii_case(value.as_bytes()))
        };
        let accept =
            response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("Sec-WebSocket-Accept"));
        if accept.is_none_or(|header| header.value != handshake::accept(self.key.as_bytes()).as_bytes()) {
            return Err(no_server("it accepted another WebSocket handshake"));
        }
        if !has("Upgrade", "websocket") || !has("Connection", "upgrade") {
            return Err(no_server("it did not switch to WebSocket"));
        }
        if !has("Sec-WebSocket-Protocol", handshake::SUBPROTOCOL) {
            return Err(no_server("it does not know the subprotocol quickio"));
        }
        Ok(Some(len))
    }
}

/// Returns the first line of a response's body, which has the reason, or the reason phrase.
fn reason(response: &httparse::Response<'_, '_>, body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    let line = body.lines().next().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('<'));
    let line = line.or(response.reason).unwrap_or_default();
    line.chars().filter(|character| !character.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(response: &str) -> Result<Option<usize>, String> {
        let url = ServerUrl::for_clients("ws://a.example:80/x").unwrap();
        // The key and the accept of RFC 6455, 1.3.
        let request = UpgradeRequest::with_key(&url, b"the sample nonce");
        let text = String::from_utf8(request.bytes.clone()).unwrap();
        assert!(text.starts_with("GET /x HTTP/1.1\r\nHost: a.example:80\r\n") && text.ends_with("\r\n\r\n"));
        assert!(text.contains("\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"));
        request.check_response(response.as_bytes(), "ws://a").map_err(|error| error.to_string())
    }

    const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: quickio\r\n\r\n";

    #[test]
    fn a_response_is_checked_when_it_is_complete() {
        for len in 0..GOOD.len() {
            assert_eq!(check(&GOOD[..len]), Ok(None), "{len}");
        }
        assert_eq!(check(&format!("{GOOD}more")), Ok(Some(GOOD.len())));
        for (from, to, problem) in [
            ("s3pP", "S3pP", "another WebSocket handshake"),
            ("WebSocket\r\nConnection", "h2c\r\nConnection", "did not switch"),
            (": quickio", ": mqtt", "subprotocol"),
            ("HTTP/1.1 101", "SSH-2.0", "not HTTP"),
        ] {
            let error = check(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn refusals_have_the_reason_of_the_body() {
        let refused = "HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nno\u{1b}t you\n";
        assert_eq!(check(refused).unwrap_err(), "the server refused the WebSocket with HTTP 403: not you");
        let page = "HTTP/1.1 404 Not Found\r\n\r\n<html>";
        assert_eq!(check(page).unwrap_err(), "the server refused the WebSocket with HTTP 404: Not Found");
    }
}
