//! Builds HTTP requests like those of a browser.

use crate::plan::Plan;
use std::fmt::{Display, Formatter};
use std::io::Write;

/// The headers that a browser adds to every request of a page's script. The server must parse them, which makes them
/// part of the cost of a request.
const BROWSER: &str = "Connection: keep-alive\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
    Sec-Fetch-Site: cross-site\r\n\
    Sec-Fetch-Mode: cors\r\n\
    Sec-Fetch-Dest: empty\r\n\
    Accept-Encoding: gzip, deflate\r\n\
    Accept-Language: en-US,en;q=0.9\r\n";

/// The identifier of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sid {
    /// The start time of the worker, which makes the sessions of different runs distinct.
    pub run: u64,
    /// The number of the client among those of all workers.
    pub number: u64,
}

impl Display for Sid {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}{:016x}", self.run, self.number)
    }
}

/// A request with events. The server holds it while it has nothing to send.
#[derive(Debug, PartialEq, Eq)]
pub struct PostRequest {
    pub sid: Sid,
    /// Creates the session.
    pub connect: bool,
    /// The number of the request in its session, starting at 1.
    pub seq: u64,
    /// The events, one per line.
    pub events: Vec<u8>,
}

/// A builder of requests to one server.
#[derive(Debug)]
pub struct RequestBuilder {
    /// The header lines that all requests have.
    headers: String,
}

impl RequestBuilder {
    /// Returns a builder for the server of the plan.
    pub fn new(plan: &Plan) -> RequestBuilder {
        RequestBuilder { headers: format!("Host: {0}\r\nOrigin: http://{0}\r\n{BROWSER}", plan.server) }
    }

    /// Returns a request with events.
    pub fn post(&self, post: &PostRequest) -> Vec<u8> {
        let PostRequest { sid, connect, seq, events } = post;
        let connect = if *connect { "&connect=true" } else { "" };
        self.write(
            format_args!("POST /?sid={sid}{connect}&seq={seq}"),
            format_args!(
                "Accept: */*\r\nContent-Type: text/plain;charset=UTF-8\r\nContent-Length: {}\r\n",
                events.len()
            ),
            events,
        )
    }

    /// Returns the request that opens the stream of a session.
    pub fn stream(&self, sid: Sid) -> Vec<u8> {
        self.write(
            format_args!("GET /?sid={sid}&connect=true"),
            format_args!("Accept: text/event-stream\r\nCache-Control: no-store\r\n"),
            b"",
        )
    }

    fn write(&self, line: impl Display, headers: impl Display, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.headers.len() + 256 + body.len());
        write!(out, "{line} HTTP/1.1\r\n{}{headers}\r\n", self.headers)
            .expect("writing to memory cannot fail");
        out.extend_from_slice(body);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Scenario;

    const SID: Sid = Sid { run: 0xabc, number: 7 };

    /// Parses a request and returns its first line and its body.
    fn parsed(request: &[u8]) -> (String, Vec<u8>) {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut head = httparse::Request::new(&mut headers);
        let len = head.parse(request).unwrap().unwrap();
        let body = request[len..].to_vec();
        let content_length = head.headers.iter().find(|header| header.name == "Content-Length");
        let content_length = content_length.map_or("0", |header| std::str::from_utf8(header.value).unwrap());
        assert_eq!(content_length, body.len().to_string());
        (format!("{} {}", head.method.unwrap(), head.path.unwrap()), body)
    }

    #[test]
    fn requests_have_the_sid_and_their_number() {
        let requests = RequestBuilder::new(&Plan::new(Scenario::Ping));
        let post = |connect, seq, events: &[u8]| {
            parsed(&requests.post(&PostRequest { sid: SID, connect, seq, events: events.into() }))
        };
        let sid = "sid=0000000000000abc0000000000000007";
        assert_eq!(post(true, 1, b""), (format!("POST /?{sid}&connect=true&seq=1"), vec![]));
        assert_eq!(post(false, 12, b"/a:0=1\n"), (format!("POST /?{sid}&seq=12"), b"/a:0=1\n".to_vec()));
        assert_eq!(parsed(&requests.stream(SID)), (format!("GET /?{sid}&connect=true"), vec![]));
    }
}
