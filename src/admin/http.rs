//! The little HTTP/1.1 that operators need: one bounded request head in, one response out. No sockets, no clock.

/// Bytes of a request head, at most: Prometheus and browsers send less than 1 KiB.
pub(super) const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Header fields of a request, at most.
const HEADERS_MAX: usize = 64;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: Method,
    /// The target up to its `?`, as it came: nothing that is served has escapes in its name.
    pub(super) path: String,
    /// What follows the `?`.
    pub(super) query: String,
}

/// Methods that mean something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Post,
    Other,
}

/// What the bytes received so far are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// The beginning of a request.
    NotYet,
    /// A whole head. A body may follow it; nothing here reads one.
    Request(Request),
    /// Nothing that can be served.
    Refused(Response),
}

/// Reads a request head. It begins anew with each byte that comes: a head is short, and its length bounded.
pub(super) fn parse(input: &[u8]) -> Head {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(input) {
        Ok(httparse::Status::Complete(len)) if len <= HEAD_BYTES_MAX => checked(&request),
        Ok(httparse::Status::Partial) if input.len() < HEAD_BYTES_MAX => Head::NotYet,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Head::Refused(Response::text(431, "head too large")),
        Err(_) => Head::Refused(Response::text(400, "not an HTTP/1.1 request")),
    }
}

fn checked(request: &httparse::Request<'_, '_>) -> Head {
    let hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host")).count();
    // RFC 9112, section 3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request
    // message that lacks a Host header field and to any request message that contains more than one".
    if hosts > 1 || (hosts == 0 && request.version == Some(1)) {
        return Head::Refused(Response::text(400, "one Host header is needed"));
    }
    let target = origin_form(request.path.unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Head::Request(Request {
        method: method(request.method.unwrap_or_default()),
        path: path.to_owned(),
        query: query.to_owned(),
    })
}

/// RFC 9112, section 3.2.2: "a server MUST accept the absolute-form in requests".
fn origin_form(target: &str) -> &str {
    match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    }
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        _ => Method::Other,
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    content_type: &'static str,
    body: Vec<u8>,
    /// The methods that the path has, for a 405.
    allow: Option<&'static str>,
}

impl Response {
    /// A line of text.
    pub(super) fn text(status: u16, line: &str) -> Response {
        Response::new(status, "text/plain; charset=utf-8", format!("{line}\n").into_bytes())
    }

    /// A body of this media type.
    pub(super) fn new(status: u16, content_type: &'static str, body: Vec<u8>) -> Response {
        Response { status, content_type, body, allow: None }
    }

    /// 405, with the methods that are allowed.
    pub(super) fn wrong_method(allow: &'static str) -> Response {
        Response { allow: Some(allow), ..Response::text(405, &format!("this page has {allow}")) }
    }

    /// The response as bytes; `head_only` leaves the body out, and still tells its length.
    pub(super) fn encode(&self, head_only: bool) -> Vec<u8> {
        let allow = self.allow.map(|methods| format!("Allow: {methods}\r\n")).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}Cache-Control: no-store\r\n\
             Connection: close\r\n\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.body.len(),
        );
        let mut bytes = head.into_bytes();
        if !head_only {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn status(input: &[u8]) -> u16 {
        match parse(input) {
            Head::NotYet => 0,
            Head::Request(_) => 200,
            Head::Refused(response) => response.status,
        }
    }

    fn request(input: &str) -> Request {
        match parse(input.as_bytes()) {
            Head::Request(request) => request,
            other => panic!("{input:?} is {other:?}"),
        }
    }

    #[test]
    fn requests() {
        for (input, method, path, query) in [
            ("GET / HTTP/1.0\r\n\r\n", Method::Get, "/", ""),
            ("GET /stats HTTP/1.1\nHost: a\n\n", Method::Get, "/stats", ""),
            ("HEAD /stats? HTTP/1.1\r\nhost:\r\n\r\n", Method::Head, "/stats", ""),
            (
                "POST /clock?advance=5?x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
                Method::Post,
                "/clock",
                "advance=5?x",
            ),
            ("GET http://a:1/stats?b HTTP/1.1\r\nHost: a\r\n\r\n", Method::Get, "/stats", "b"),
            ("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", Method::Get, "/", ""),
            ("get / HTTP/1.1\r\nHost: a\r\n\r\n", Method::Other, "/", ""),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Method::Other, "*", ""),
        ] {
            let expected = Request { method, path: path.into(), query: query.into() };
            assert_eq!(request(input), expected, "{input:?}");
        }
    }

    #[test]
    fn every_beginning_of_a_request_is_not_yet() {
        let whole = b"GET /stats HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]), Head::NotYet, "{end}");
        }
        assert_eq!(status(whole), 200);
    }

    #[test]
    fn refusals() {
        let headers = |n: usize| format!("GET / HTTP/1.0\r\n{}\r\n", "a: b\r\n".repeat(n));
        let long = format!("GET / HTTP/1.0\r\na: {}", "b".repeat(HEAD_BYTES_MAX));
        for (input, expected) in [
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("GET /\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\n\r\n", 400),
            ("\u{16}\u{3}\u{1}\u{2}", 400),
            ("/qio/ohai", 400),
            ("GET / HTTP/1.1\r\nHost a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
            (&headers(HEADERS_MAX), 200),
            (&headers(HEADERS_MAX + 1), 431),
            (&long, 431),
            (&format!("{long}\r\n\r\n"), 431),
        ] {
            assert_eq!(status(input.as_bytes()), expected, "{:?}", &input[..input.len().min(80)]);
        }
    }

    #[test]
    fn responses() {
        let text = |response: Response, head_only| String::from_utf8(response.encode(head_only)).unwrap();
        let ok = text(Response::text(200, "ok"), false);
        assert!(ok.starts_with("HTTP/1.1 200 OK\r\n") && ok.ends_with("\r\n\r\nok\n"), "{ok}");
        let head = text(Response::text(200, "ok"), true);
        assert!(head.contains("Content-Length: 3\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        let wrong = text(Response::wrong_method("GET, HEAD"), false);
        assert!(wrong.contains("\r\nAllow: GET, HEAD\r\n"), "{wrong}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_heads_panic(head in "(GET|HEAD|POST|X) [/?a-z=%:]{0,20} HTTP/1.[01]\r\n([A-Za-z]{1,8}:? ?\\PC{0,8}\r\n){0,4}(\r\n)?") {
            let _ = parse(head.as_bytes());
        }
    }
}
