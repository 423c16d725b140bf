//! HTTP requests, as a browser sends them.

use crate::plan::Plan;
use std::fmt::{Display, Formatter};
use std::io::Write;

/// What a browser adds to every request of a page's script. The server has to read past it, so it belongs to what a
/// request costs.
const BROWSER: &str = "Connection: keep-alive\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
    Sec-Fetch-Site: cross-site\r\n\
    Sec-Fetch-Mode: cors\r\n\
    Sec-Fetch-Dest: empty\r\n\
    Accept-Encoding: gzip, deflate\r\n\
    Accept-Language: en-US,en;q=0.9\r\n";

/// What a session is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sid {
    /// When the worker began, so that no two runs have a session in common.
    pub run: u64,
    /// The client's number, over all workers.
    pub number: u64,
}

impl Display for Sid {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}{:016x}", self.run, self.number)
    }
}

/// A request that carries events, and is held where nothing comes of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Post {
    pub sid: Sid,
    /// It creates the session.
    pub connect: bool,
    /// Its place among those of the session, from 1.
    pub seq: u64,
    /// One event a line.
    pub events: Vec<u8>,
}

/// Writes requests to a server.
#[derive(Debug)]
pub struct Requests {
    /// The lines that are the same in all.
    headers: String,
}

impl Requests {
    /// For the server of the plan.
    pub fn new(plan: &Plan) -> Requests {
        Requests { headers: format!("Host: {0}\r\nOrigin: http://{0}\r\n{BROWSER}", plan.server) }
    }

    /// A request with events.
    pub fn post(&self, post: &Post) -> Vec<u8> {
        let Post { sid, connect, seq, events } = post;
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

    /// The request that opens a session's stream.
    pub fn stream(&self, sid: Sid) -> Vec<u8> {
        self.write(
            format_args!("GET /?sid={sid}&connect=true"),
            format_args!("Accept: text/event-stream\r\nCache-Control: no-store\r\n"),
            b"",
        )
    }

    fn write(&self, line: impl Display, headers: impl Display, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.headers.len() + 256 + body.len());
        write!(out, "{line} HTTP/1.1\r\n{}{headers}\r\n", self.headers).expect("memory takes everything");
        out.extend_from_slice(body);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Scenario;

    const SID: Sid = Sid { run: 0xabc, number: 7 };

    /// The request's first line and its body; its head is one that a parser takes.
    fn parsed(request: &[u8]) -> (String, Vec<u8>) {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut head = httparse::Request::new(&mut headers);
        let len = head.parse(request).unwrap().unwrap();
        let body = request[len..].to_vec();
        let stated = head.headers.iter().find(|header| header.name == "Content-Length");
        let stated = stated.map_or("0", |header| std::str::from_utf8(header.value).unwrap());
        assert_eq!(stated, body.len().to_string());
        (format!("{} {}", head.method.unwrap(), head.path.unwrap()), body)
    }

    #[test]
    fn requests_name_their_session_and_their_place_in_it() {
        let requests = Requests::new(&Plan::new(Scenario::Ping));
        let post = |connect, seq, events: &[u8]| {
            parsed(&requests.post(&Post { sid: SID, connect, seq, events: events.into() }))
        };
        let sid = "sid=0000000000000abc0000000000000007";
        assert_eq!(post(true, 1, b""), (format!("POST /?{sid}&connect=true&seq=1"), vec![]));
        assert_eq!(post(false, 12, b"/a:0=1\n"), (format!("POST /?{sid}&seq=12"), b"/a:0=1\n".to_vec()));
        assert_eq!(parsed(&requests.stream(SID)), (format!("GET /?{sid}&connect=true"), vec![]));
    }
}
