//! Tests of HTTP connections from their first byte to their last, at every split.

mod refusals;

use super::super::http::{HttpRequest, HttpResponse, Persistence, RequestKind, SessionParams};
use super::*;
use crate::limits::{HTTP_HEADERS_MAX, HTTP_REQUESTS_UNANSWERED_MAX};

/// An owned [`RequestKind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceivedRequest {
    Poll(ReceivedParams, String),
    Stream(ReceivedParams),
    Document(String, Option<String>),
}

/// Owned [`SessionParams`]: the sid, whether the session may be created, the position, and the host.
pub type ReceivedParams = (u128, bool, Option<u64>, String);

impl ReceivedRequest {
    pub fn of(kind: &RequestKind<'_>) -> ReceivedRequest {
        let params =
            |it: &SessionParams<'_>| (u128::from_ne_bytes(it.sid.0), it.connect, it.seq, it.host.to_owned());
        match kind {
            RequestKind::Poll { session, body } => ReceivedRequest::Poll(params(session), (*body).to_owned()),
            RequestKind::Stream { session } => ReceivedRequest::Stream(params(session)),
            RequestKind::Document { path, if_none_match } => {
                ReceivedRequest::Document((*path).to_owned(), if_none_match.map(str::to_owned))
            }
        }
    }
}

const SID: &str = "0123456789abcdef0123456789ABCDEF";

fn sid() -> u128 {
    u128::from_str_radix(SID, 16).expect("hex digits")
}

fn asked_poll(body: &str) -> ReceivedRequest {
    ReceivedRequest::Poll((sid(), false, None, "a".into()), body.into())
}

fn asked_document(path: &str) -> ReceivedRequest {
    ReceivedRequest::Document(path.into(), None)
}

fn post(body: &str) -> String {
    post_with("", body)
}

/// Returns a poll with these header lines.
fn post_with(headers: &str, body: &str) -> String {
    format!("POST /?sid={SID} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn stream_with(headers: &str) -> String {
    format!("GET /?sid={SID}&connect=true HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n{headers}\r\n")
}

/// The requests and responses of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Transcript {
    asked: Vec<ReceivedRequest>,
    /// All bytes that were sent.
    sent: String,
    close_reason: Option<Reason>,
}

/// A connection and its transcript so far.
struct Driver {
    codec: Codec,
    settings: CodecSettings,
    transcript: Transcript,
    /// The requests that were not answered, with their index in `asked`.
    waiting: Vec<(u32, usize)>,
}

impl Driver {
    fn new(settings: &CodecSettings) -> Driver {
        let codec = Codec::new(Options::default());
        Driver { codec, settings: settings.clone(), transcript: Transcript::default(), waiting: Vec::new() }
    }

    /// Decodes a piece. With `at_once`, every request is answered before the next is decoded.
    fn feed(&mut self, piece: &[u8], at_once: bool) {
        let mut piece = piece.to_vec();
        let mut at = 0;
        while self.transcript.close_reason.is_none() {
            let decoded = self.codec.decode(&mut piece[at..], &self.settings);
            at += decoded.consumed;
            match decoded.incoming {
                Incoming::Incomplete => return assert_eq!(at, piece.len()),
                Incoming::Reply(bytes) | Incoming::Refused(bytes) => self.send(&bytes),
                Incoming::Close(close) => {
                    assert!(!close.await_peer);
                    self.send(&close.bytes);
                    self.transcript.close_reason = Some(close.reason);
                }
                Incoming::Request(request) => {
                    self.waiting.push((request.number, self.transcript.asked.len()));
                    self.transcript.asked.push(ReceivedRequest::of(&request.kind));
                }
                Incoming::Ignore => {}
                other => panic!("{other:?}"),
            }
            while at_once && !self.waiting.is_empty() {
                self.answer(0);
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        let bytes = std::str::from_utf8(bytes).expect("the bytes are UTF-8");
        self.transcript.sent.push_str(&without_dates(bytes));
    }

    /// Answers one of the waiting requests. The response describes the request.
    fn answer(&mut self, which: usize) {
        let (number, place) = self.waiting.remove(which);
        let body = format!("{:?}", self.transcript.asked[place]);
        let response = match &self.transcript.asked[place] {
            ReceivedRequest::Stream(_) => HttpResponse::Stream,
            ReceivedRequest::Poll(_, body) if body.starts_with('ü') => {
                HttpResponse::Whole { status: 400, headers: "", body: b"bad" }
            }
            _ => HttpResponse::Whole { status: 200, headers: "X: y\r\n", body: body.as_bytes() },
        };
        let ready = self.codec.respond(number, response, &self.settings);
        self.send(&ready.bytes);
        if let Persistence::Close(reason) = ready.persistence {
            assert!(self.transcript.close_reason.replace(reason).is_none(), "a connection ends once");
        }
    }
}

fn transcript_in(settings: &CodecSettings, pieces: &[&[u8]], at_once: bool) -> Transcript {
    let mut driver = Driver::new(settings);
    pieces.iter().for_each(|piece| driver.feed(piece, at_once));
    while !driver.waiting.is_empty() {
        driver.answer(0);
    }
    driver.transcript
}

/// Returns the transcript of the input, which must be the same at every split and for pieces of every size.
fn transcript_with(settings: &CodecSettings, input: &[u8], at_once: bool) -> Transcript {
    let whole = transcript_in(settings, &[input], at_once);
    for split in 0..=input.len() {
        let (left, right) = input.split_at(split);
        assert_eq!(transcript_in(settings, &[left, right], at_once), whole, "split at {split}");
    }
    for size in 1..20 {
        let pieces: Vec<_> = input.chunks(size).collect();
        assert_eq!(transcript_in(settings, &pieces, at_once), whole, "pieces of {size}");
    }
    whole
}

fn transcript(input: &str) -> Transcript {
    transcript_with(&SETTINGS, input.as_bytes(), true)
}

/// Returns the requests in the input. All of them must be accepted.
fn asked(input: &str) -> Vec<ReceivedRequest> {
    let transcript = transcript(input);
    assert_eq!(transcript.close_reason, None, "{transcript:?}");
    assert_eq!(
        transcript.sent.matches("HTTP/1.1 200 OK\r\n").count(),
        transcript.asked.len(),
        "{transcript:?}"
    );
    transcript.asked
}

#[test]
fn polls_in_a_row() {
    let input = [post("/a:0=1\n"), post(""), post("€😀\0")].concat();
    assert_eq!(asked(&input), [asked_poll("/a:0=1\n"), asked_poll(""), asked_poll("€😀\0")]);
}

#[test]
fn forms_of_a_poll() {
    let body = "Content-Length: 1\r\n\r\nx";
    let long = format!("Cookie: {}\r\n", "x".repeat(500));
    let many = "X: y\r\n".repeat(HTTP_HEADERS_MAX - 2);
    let other =
        |connect, seq, host: &str| ReceivedRequest::Poll((sid(), connect, seq, host.into()), "x".into());
    let plain = || other(false, None, "a");
    for (line, headers, expected) in [
        (format!("/?sid={SID} HTTP/1.1"), "Host: a\r\n", plain()),
        (format!("/?sid={SID} HTTP/1.1"), "host:a \t\r\n", plain()),
        (format!("/?sid={} HTTP/1.1", SID.to_uppercase()), "HOST:\ta\r\n", plain()),
        (format!("/?sid={SID} HTTP/1.1"), &(long + "Host: a\r\n"), plain()),
        (format!("/?sid={SID} HTTP/1.1"), &(many + "Host: a\r\n"), plain()),
        (format!("/?sid={SID} HTTP/1.1"), "Host: a\r\nOrigin: null\r\nUpgrade: h2c\r\nTE: trailers\r\n", {
            plain()
        }),
        (format!("/?sid={SID} HTTP/1.1"), "Host:\r\n", other(false, None, "")),
        (format!("/?sid={SID} HTTP/1.1"), "Host: [::1]:8080\r\n", other(false, None, "[::1]:8080")),
        (format!("/?connect=true&sid={SID}&seq=1 HTTP/1.1"), "Host: a\r\n", other(true, Some(1), "a")),
        (format!("/?sid={SID}&seq=18446744073709551615 HTTP/1.1"), "Host: a\r\n", {
            other(false, Some(u64::MAX), "a")
        }),
        (format!("/?sid={SID}&seq=007 HTTP/1.1"), "Host: a\r\n", other(false, Some(7), "a")),
        (format!("/?&&x=sid&sid={SID}&connect=1&connect&SEQ=x&seqs=&=& HTTP/1.1"), "Host: a\r\n", plain()),
        (format!("http://b.example:80/?sid={SID} HTTP/1.1"), "Host: a\r\n", {
            other(false, None, "b.example:80")
        }),
        (format!("HTTPS://b?sid={SID} HTTP/1.1"), "Host: a\r\n", other(false, None, "b")),
    ] {
        let request = format!("POST {line}\r\n{headers}{body}");
        let expected = [expected];
        assert_eq!(asked(&request), expected, "{request}");
        let bare = request.replace("\r\n", "\n");
        assert_eq!(asked(&bare), expected, "{bare}");
    }
}

#[test]
fn documents() {
    let get = |line: &str, headers: &str| format!("{line} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    for (request, path, tags) in [
        (get("GET /", ""), "/", None),
        (get("GET /?", ""), "/", None),
        (get("GET /?connect=true&seq=0", "Accept: text/event-stream\r\n"), "/", None),
        (get("GET /quickio.js?v=1?sid=", ""), "/quickio.js", None),
        (get("GET //x/%00../", "Content-Length: 0\r\n"), "//x/%00../", None),
        (get("GET http://b", ""), "/", None),
        (get("GET http://b/c", ""), "/c", None),
        (get("GET /", "If-None-Match: \"a\", W/\"b\" \r\n"), "/", Some("\"a\", W/\"b\"")),
        (get("GET /", "If-None-Match: a\r\nif-none-match: b\r\nIf-None-Match: c\r\n"), "/", Some("")),
        (get(&format!("HEAD /?sid={SID}"), ""), "/", None),
    ] {
        let expected = ReceivedRequest::Document(path.into(), tags.map(str::to_owned));
        assert_eq!(asked(&request), [expected], "{request}");
    }
}

#[test]
fn the_response_to_a_poll() {
    let response = |connection: &str, cors: &str| {
        let body = format!("{:?}", asked_poll("x"));
        format!(
            "HTTP/1.1 200 OK\r\n{connection}Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\n{cors}X: y\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let old = |headers: &str| post_with(headers, "x").replace("HTTP/1.1", "HTTP/1.0");
    let any = "Access-Control-Allow-Origin: *\r\n";
    for (request, connection, cors, persists) in [
        (post("x"), "", "", true),
        (post_with("Connection: keep-alive\r\n", "x"), "", "", true),
        (post_with("Connection: x, Close\r\n", "x"), "Connection: close\r\n", "", false),
        (
            post_with("Connection: keep-alive\r\nConnection: ,close,\r\n", "x"),
            "Connection: close\r\n",
            "",
            false,
        ),
        (old(""), "Connection: close\r\n", "", false),
        (old("Connection: Keep-Alive\r\n"), "Connection: keep-alive\r\n", "", true),
        (old("Connection: Keep-Alive, close\r\n"), "Connection: close\r\n", "", false),
        (post_with("Origin: http://b\r\n", "x"), "", any, true),
        (post_with("Origin: null\r\nConnection: close\r\n", "x"), "Connection: close\r\n", any, false),
    ] {
        let twice = request.repeat(2);
        let transcript = transcript(&twice);
        let expected = response(connection, cors);
        assert_eq!(transcript.sent, if persists { expected.repeat(2) } else { expected }, "{request}");
        assert_eq!(transcript.close_reason, (!persists).then_some(Reason::Finished));
    }
}

#[test]
fn responses_to_documents() {
    let respond = |request: &str, status, body: &[u8]| {
        let mut codec = Codec::new(Options::default());
        feed(&mut codec, request.as_bytes(), &mut Vec::new());
        let ready =
            codec.respond(0, HttpResponse::Whole { status, headers: "ETag: \"e\"\r\n", body }, &SETTINGS);
        assert_eq!(ready.persistence, Persistence::KeepAlive);
        without_dates(std::str::from_utf8(&ready.bytes).expect("text"))
    };
    let get = "GET /x HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\n\r\n";
    let head = get.replace("GET", "HEAD");
    let ok = "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(respond(get, 200, b"abc"), format!("{ok}abc"));
    assert_eq!(respond(&head, 200, b"abc"), ok);
    assert_eq!(respond(get, 304, b""), "HTTP/1.1 304 Not Modified\r\nETag: \"e\"\r\n\r\n");
    assert_eq!(respond(get, 299, b""), "HTTP/1.1 299 \r\nETag: \"e\"\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn a_stream_is_the_last_of_its_connection() {
    let head = |cors| {
        format!(
            "HTTP/1.1 200 OK\r\n{cors}Content-Type: text/event-stream\r\nCache-Control: no-store, no-transform\r\n\
             X-Accel-Buffering: no\r\nConnection: close\r\n\r\n: quickio\n\n"
        )
    };
    let name = (sid(), true, None, "a".to_owned());
    for (accept, headers, cors) in [
        ("text/event-stream", "", ""),
        ("text/event-stream", "Origin: http://b\r\n", "Access-Control-Allow-Origin: *\r\n"),
        ("*/*, Text/Event-Stream;q=0.1", "", ""),
        ("text/html;q=0\r\nAccept: x , text/event-stream; x=y;q=0.001,", "", ""),
    ] {
        let request = stream_with(headers).replace("text/event-stream", accept);
        let transcript = transcript(&[post(""), request, post("ignored"), "\0".into()].concat());
        assert_eq!(transcript.asked, [asked_poll(""), ReceivedRequest::Stream(name.clone())]);
        assert!(transcript.sent.ends_with(&head(cors)), "{transcript:?}");
        assert_eq!(transcript.close_reason, None, "events may follow");
    }
}

#[test]
fn a_refused_stream_is_also_the_last_of_its_connection() {
    let mut codec = Codec::new(Options::default());
    feed(&mut codec, (stream_with("") + &post("ignored")).as_bytes(), &mut Vec::new());
    assert!(codec.is_open() && codec.is_idle());
    assert_eq!(codec.unanswered().collect::<Vec<_>>(), [(0, Some(Sid::from(sid())))]);
    let ready = codec.respond(0, HttpResponse::Whole { status: 403, headers: "", body: b"" }, &SETTINGS);
    assert!(
        without_dates(std::str::from_utf8(&ready.bytes).unwrap())
            .starts_with("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Type: text/plain; ")
    );
    assert_eq!(ready.persistence, Persistence::Close(Reason::Finished));
    assert!(!codec.is_open());
}

#[test]
fn an_open_stream_counts_as_unanswered_and_cannot_be_answered_again() {
    let mut codec = Codec::new(Options::default());
    feed(&mut codec, stream_with("").as_bytes(), &mut Vec::new());
    assert_eq!(codec.respond(0, HttpResponse::Stream, &SETTINGS).persistence, Persistence::KeepAlive);
    assert!(codec.is_open() && codec.is_idle() && codec.framing().is_none());
    assert_eq!(codec.unanswered().collect::<Vec<_>>(), [(0, Some(Sid::from(sid())))]);
    assert_eq!(codec.respond(0, HttpResponse::Stream, &SETTINGS), ReadyResponses::default());
    let mut seen = Vec::new();
    feed(&mut codec, &[b'x'; 10_000], &mut seen);
    assert_eq!(seen, []);
    assert_eq!(codec.close(Reason::GoingAway, &SETTINGS), Close::silent(Reason::GoingAway));
}

#[test]
fn streams_and_upgrades_must_not_be_pipelined() {
    for request in [stream_with(""), UPGRADE.into()] {
        let input = [post("x"), request, post("ignored")].concat();
        let transcript = transcript_with(&SETTINGS, input.as_bytes(), false);
        assert_eq!(transcript.asked, [asked_poll("x")]);
        assert_eq!(transcript.close_reason, Some(Reason::Refused(HttpRefusal::Pipelined)));
        assert!(
            transcript.sent.contains("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n"),
            "{transcript:?}"
        );
        assert!(
            transcript.sent.ends_with("\r\n\r\nearlier requests must be answered first\n"),
            "{transcript:?}"
        );
    }
}

#[test]
fn an_upgrade_may_follow_answered_requests() {
    let input = [post("x").as_bytes(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", UPGRADE.as_bytes()].concat();
    let ohai = client(Opcode::Text, OHAI.as_bytes());
    for split in 0..=input.len() {
        let mut codec = Codec::new(Options::default());
        let mut seen = Vec::new();
        for piece in [&input[..split], &input[split..]] {
            let mut piece = piece.to_vec();
            let mut at = 0;
            loop {
                let decoded = codec.decode(&mut piece[at..], &SETTINGS);
                at += decoded.consumed;
                match decoded.incoming {
                    Incoming::Incomplete => break,
                    Incoming::Request(request) => {
                        let number = request.number;
                        codec.respond(
                            number,
                            HttpResponse::Whole { status: 200, headers: "", body: b"" },
                            &SETTINGS,
                        );
                    }
                    Incoming::Reply(bytes) => seen.push(bytes),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(seen, [SWITCHING.as_bytes()], "split at {split}");
        assert_eq!(codec.framing(), Some(Framing::WebSocket));
        let mut seen = Vec::new();
        feed(&mut codec, &ohai, &mut seen);
        assert_eq!(seen, [Seen::Open(server(Opcode::Text, OHAI.as_bytes()))]);
    }
}

#[test]
fn preflights() {
    let allow = "Allow: GET, HEAD, POST, OPTIONS\r\nAccess-Control-Allow-Methods: GET, POST, OPTIONS\r\n\
        Access-Control-Allow-Headers: Content-Type\r\nAccess-Control-Max-Age: 86400\r\n\r\n";
    let preflight = "Origin: https://b.example\r\nAccess-Control-Request-Method: POST\r\n";
    for (target, headers, cors) in [
        ("/", preflight, "Access-Control-Allow-Origin: *\r\n"),
        ("/any/where?sid=x", preflight, "Access-Control-Allow-Origin: *\r\n"),
        ("*", "Content-Length: 0\r\n", ""),
        ("http://b", "", ""),
    ] {
        let request = format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        let transcript = transcript(&request.repeat(2));
        assert_eq!(transcript.sent, format!("HTTP/1.1 204 No Content\r\n{cors}{allow}").repeat(2));
        assert_eq!(transcript.close_reason, None);
    }
    let last = transcript("OPTIONS * HTTP/1.0\r\n\r\nOPTIONS * HTTP/1.0\r\n\r\n");
    assert_eq!(last.sent, format!("HTTP/1.1 204 No Content\r\nConnection: close\r\n{allow}"));
    assert_eq!(last.close_reason, Some(Reason::Finished));
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    let lines = ["", "\r\n", "\n", "\r\n\n\r\n\n"];
    for (first, second) in lines.iter().flat_map(|first| lines.map(|second| (first, second))) {
        let input = [&post("1"), *first, &post("2"), second, &post("3"), "\r"].concat();
        assert_eq!(asked(&input), [asked_poll("1"), asked_poll("2"), asked_poll("3")]);
    }
}

#[test]
fn a_client_that_expects_continue_receives_it() {
    let input = post_with("Expect: 100-Continue\r\n", "body");
    let head_len = input.len() - 4;
    for split in 1..=input.len() {
        for first in [1, split] {
            let (left, right) = input.as_bytes().split_at(split);
            let (begin, left) = left.split_at(first.min(left.len()));
            let transcript = transcript_in(&SETTINGS, &[begin, left, right], true);
            let interim = if split == head_len { "HTTP/1.1 100 Continue\r\n\r\n" } else { "" };
            assert!(
                transcript.sent.starts_with(&format!("{interim}HTTP/1.1 200 OK\r\n")),
                "split at {split}: {transcript:?}"
            );
            assert_eq!(transcript.asked, [asked_poll("body")]);
        }
    }
    let pieces: Vec<_> = input.as_bytes().chunks(1).collect();
    assert!(
        transcript_in(&SETTINGS, &pieces, true).sent.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")
    );
    for (request, expected) in [
        (post_with("Expect: 100-continue\r\n", ""), "200"),
        (post_with("Expect: 100-continue\r\n", "").replace("1.1", "1.0"), "200"),
        (post_with("Expect: 100-continue\r\nExpect: 100-continue\r\n", ""), "200"),
        (post_with("Expect: other\r\n", "").replace("1.1", "1.0"), "200"),
        (post_with("Expect: other\r\n", ""), "417"),
        (post_with("Expect: 100-continue, other\r\n", ""), "417"),
        (post_with("Expect: other\r\nExpect: 100-continue\r\n", ""), "417"),
        (post_with("Expect:\r\n", ""), "417"),
        (post_with("Expect: 100-continue\r\n", "").replace("Length: 0", "Length: 2000"), "413"),
    ] {
        assert_eq!(&transcript(&request).sent[9..12], expected, "{request}");
    }
}

#[test]
fn continue_is_not_sent_before_earlier_responses() {
    let mut driver = Driver::new(&SETTINGS);
    let second = post_with("Expect: 100-continue\r\n", "body");
    driver.feed(post("first").as_bytes(), false);
    driver.feed(&second.as_bytes()[..second.len() - 4], false);
    assert_eq!(driver.transcript.sent, "");
    driver.feed(b"body", false);
    assert_eq!(driver.transcript.asked, [asked_poll("first"), asked_poll("body")]);
}

#[test]
fn responses_are_sent_in_the_order_of_requests() {
    let mut driver = Driver::new(&SETTINGS);
    let not_found = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    let input = [post("0"), post("1"), not_found.into(), post("2"), "BAD\n\n".into(), post("3")].concat();
    driver.feed(input.as_bytes(), false);
    assert_eq!(driver.transcript.asked, [asked_poll("0"), asked_poll("1"), asked_poll("2")]);
    let numbers: Vec<_> = driver.codec.unanswered().collect();
    assert_eq!(numbers, [0, 1, 3].map(|number| (number, Some(Sid::from(sid())))));
    assert!(driver.codec.is_open() && driver.codec.is_idle());
    driver.answer(1);
    assert_eq!(driver.transcript.sent, "");
    assert_eq!(driver.codec.unanswered().count(), 2);
    driver.answer(0);
    let sent = std::mem::take(&mut driver.transcript.sent);
    assert_eq!(statuses(&sent), ["200", "200", "404"]);
    assert_eq!(driver.transcript.close_reason, None);
    // Numbers of requests that were answered or never came are ignored.
    for number in [0, 1, 2, 4, 5, u32::MAX] {
        let response = HttpResponse::Whole { status: 200, headers: "", body: b"" };
        assert_eq!(driver.codec.respond(number, response, &SETTINGS), ReadyResponses::default(), "{number}");
    }
    driver.answer(0);
    assert_eq!(statuses(&driver.transcript.sent), ["200", "400"]);
    assert_eq!(driver.transcript.close_reason, Some(Reason::Refused(HttpRefusal::Malformed)));
    assert!(!driver.codec.is_open() && driver.codec.unanswered().count() == 0);
}

#[test]
fn waiting_responses_are_counted() {
    let mut codec = Codec::new(Options::default());
    feed(&mut codec, [post("1"), post("2")].concat().as_bytes(), &mut Vec::new());
    assert_eq!(codec.waiting_bytes(), 0);
    codec.respond(1, HttpResponse::Whole { status: 200, headers: "", body: &[b'x'; 1000] }, &SETTINGS);
    assert!((1000..1300).contains(&codec.waiting_bytes()), "{}", codec.waiting_bytes());
    codec.respond(0, HttpResponse::Whole { status: 200, headers: "", body: b"" }, &SETTINGS);
    assert_eq!(codec.waiting_bytes(), 0);
}

#[test]
fn nothing_follows_a_bad_request() {
    let mut driver = Driver::new(&SETTINGS);
    driver.feed([post("1"), post("ü"), post("3"), post("4"), "POST".into()].concat().as_bytes(), false);
    driver.answer(2);
    assert!(!driver.codec.is_idle());
    driver.answer(1);
    assert!(driver.codec.is_idle(), "the incomplete request does not matter any more");
    driver.feed(post("ignored").as_bytes(), false);
    assert!(driver.codec.is_open() && driver.transcript.sent.is_empty());
    driver.answer(0);
    assert_eq!(statuses(&driver.transcript.sent), ["200", "400"]);
    assert!(driver.transcript.sent.contains("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n"));
    assert_eq!(driver.transcript.close_reason, Some(Reason::Finished));
    assert!(!driver.codec.is_open() && !driver.codec.is_idle());
    // The fourth request is reported, because its session may wait for the response.
    assert_eq!(driver.codec.unanswered().collect::<Vec<_>>(), [(3, Some(Sid::from(sid())))]);
    driver.answer(0);
    assert_eq!(statuses(&driver.transcript.sent).len(), 2);
    assert_eq!(driver.codec.close(Reason::GoingAway, &SETTINGS), Close::silent(Reason::GoingAway));
    assert_eq!(driver.codec.unanswered().count(), 0);
}

fn statuses(sent: &str) -> Vec<&str> {
    sent.match_indices("HTTP/1.1 ").map(|(at, it)| &sent[at + it.len()..][..3]).collect()
}

#[test]
fn unanswered_requests_are_bounded() {
    let options = "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n";
    let input = [post("first"), options.repeat(HTTP_REQUESTS_UNANSWERED_MAX - 1)].concat();
    let mut driver = Driver::new(&SETTINGS);
    driver.feed(input.as_bytes(), false);
    assert_eq!(driver.transcript.close_reason, None);
    driver.feed([post("one more"), post("ignored")].concat().as_bytes(), false);
    assert_eq!(driver.transcript.asked.len(), 1);
    driver.answer(0);
    assert_eq!(driver.transcript.close_reason, Some(Reason::Refused(HttpRefusal::TooMany)));
    let statuses = statuses(&driver.transcript.sent);
    assert_eq!(statuses.len(), HTTP_REQUESTS_UNANSWERED_MAX + 1);
    assert_eq!((statuses[0], statuses[HTTP_REQUESTS_UNANSWERED_MAX]), ("200", "429"));
}

#[test]
fn the_last_bytes_of_a_connection() {
    let last_bytes = |input: &str, reason| {
        let mut codec = Codec::new(Options::default());
        feed(&mut codec, input.as_bytes(), &mut Vec::new());
        let Close { bytes, reason: why, await_peer } = codec.close(reason, &SETTINGS);
        assert!(why == reason && !await_peer && !codec.is_open() && codec.unanswered().count() == 0);
        assert_eq!(
            codec.respond(0, HttpResponse::Stream, &SETTINGS),
            ReadyResponses::default(),
            "a response after the end is ignored"
        );
        without_dates(std::str::from_utf8(&bytes).expect("text"))
    };
    let document = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let partial = &post("body")[..70];
    assert_eq!(
        last_bytes(document, Reason::GoingAway),
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Type: text/plain\r\n\
         Content-Length: 18\r\n\r\nserver going away\n"
    );
    let poll = last_bytes(&post_with("Origin: http://b\r\n", ""), Reason::TooManyClients);
    assert!(
        poll.starts_with(
            "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: text/plain; c"
        )
    );
    assert!(
        poll.contains("\r\nAccess-Control-Allow-Origin: *\r\n")
            && poll.ends_with("\r\n\r\ntoo many clients\n")
    );
    let several = last_bytes(&(post("1") + document + partial), Reason::ClientTimeout);
    assert_eq!(statuses(&several), ["503"]);
    assert_eq!(
        last_bytes(partial, Reason::ClientTimeout),
        "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: text/plain\r\n\
         Content-Length: 22\r\n\r\nrequest took too long\n"
    );
    assert_eq!(statuses(&last_bytes("GET ", Reason::ClientTimeout)), ["408"]);
    assert_eq!(last_bytes(partial, Reason::GoingAway), "");
    assert_eq!(statuses(&last_bytes("GE", Reason::ClientTimeout)), ["408"]);
    assert_eq!(last_bytes("\r\n", Reason::ClientTimeout), "", "no request has begun");

    let mut codec = Codec::new(Options::default());
    feed(&mut codec, document.as_bytes(), &mut Vec::new());
    codec.respond(0, HttpResponse::Whole { status: 200, headers: "", body: b"" }, &SETTINGS);
    assert!(codec.is_idle());
    assert_eq!(codec.close(Reason::GoingAway, &SETTINGS), Close::silent(Reason::GoingAway));
}

#[test]
fn open_and_idle_follow_the_requests() {
    let mut codec = Codec::new(Options::default());
    let request = post("body");
    let (head, body) = request.as_bytes().split_at(request.len() - 4);
    let mut at = |piece: &[u8], open, idle| {
        feed(&mut codec, piece, &mut Vec::new());
        let is = (codec.framing(), codec.is_open(), codec.is_idle());
        assert_eq!(is, (None, open, idle), "{piece:?}");
    };
    at(b"P", false, false);
    at(&head[1..20], false, false);
    at(&head[20..], false, false);
    at(&body[..3], false, false);
    at(&body[3..], true, true);
    at(b"\r\n", true, true);
    at(&head[..1], true, false);
    at(&head[1..], true, false);
    at(body, true, true);
    at(b"BAD\n\n", true, true);
}

#[test]
fn complete_requests_are_borrowed_from_the_input() {
    let mut input = [post("first"), post("second")].concat().into_bytes();
    let range = input.as_ptr_range();
    let mut codec = Codec::new(Options::default());
    let mut at = 0;
    for _ in 0..2 {
        let decoded = codec.decode(&mut input[at..], &SETTINGS);
        at += decoded.consumed;
        let Incoming::Request(HttpRequest { kind: RequestKind::Poll { session: named, body }, .. }) =
            decoded.incoming
        else {
            panic!("a poll")
        };
        assert!(range.contains(&body.as_ptr()) && range.contains(&named.host.as_ptr()));
    }
}

/// Returns a request that is mostly valid and is neither a stream nor an upgrade.
fn random_request(random: &mut Random) -> String {
    let len = random.below(60);
    let text = String::from_utf8(random.text(len)).expect("valid text");
    let request = match random.below(11) {
        9 => format!("PROPFIND / HTTP/1.1\r\nHost: {}\r\n\r\n", random.pick(&["a", "a b"])),
        10 => {
            let (size, more) = (text.len(), random.pick(&["", ";x", ";x=\"y\""]));
            let body = if size == 0 { String::new() } else { format!("{size:x}{more}\r\n{text}\r\n") };
            format!(
                "POST /?sid={SID} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}0\r\n\r\n"
            )
        }
        0 => "GET /quickio.js HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"x\"\r\n\r\n".into(),
        1 => "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        2 => "OPTIONS * HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\n\r\n".into(),
        3 => "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".into(),
        4 => format!("POST /?sid={text:?} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
        5 => post_with("Origin: http://b\r\n", &text),
        _ => post(&text),
    };
    match random.below(40) {
        0 => request.replace("HTTP/1.1", "HTTP/1.0"),
        1 => request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
        2 => request.replace("Host: a", "Host : a"),
        3..10 => request.replace("HTTP/1.1\r\n", "HTTP/1.0\r\nConnection: keep-alive\r\n"),
        10..20 => format!("\r\n{request}"),
        _ => request,
    }
}

#[test]
fn a_peer_that_sends_nothing_more_closes_behind_its_last_response() {
    // One request, two of which the first is answered first, two of which the second is answered first.
    for (requests, order) in [(1, &[0][..]), (2, &[0, 0]), (2, &[1, 0])] {
        let mut driver = Driver::new(&SETTINGS);
        let input = [post("/a:0=").repeat(requests), post("cut")].concat();
        driver.feed(&input.as_bytes()[..input.len() - 1], false);
        driver.codec.end_input();
        assert!(driver.codec.is_idle(), "the incomplete request is dropped");
        for which in order {
            assert_eq!(driver.transcript.close_reason, None);
            driver.answer(*which);
        }
        assert_eq!(statuses(&driver.transcript.sent), vec!["200"; requests]);
        assert_eq!(driver.transcript.sent.matches("Connection: close\r\n").count(), 1);
        assert_eq!(driver.transcript.close_reason, Some(Reason::Finished));
    }
    // The last request was answered, and its response waits for another.
    let mut driver = Driver::new(&SETTINGS);
    driver.feed([post("1"), post("2")].concat().as_bytes(), false);
    driver.answer(1);
    driver.codec.end_input();
    driver.answer(0);
    assert_eq!((statuses(&driver.transcript.sent).len(), driver.transcript.close_reason), (2, None));
    // Connections without a request, and with a stream.
    for input in [String::new(), "GET / HT".into(), stream_with("")] {
        let mut driver = Driver::new(&SETTINGS);
        driver.feed(input.as_bytes(), false);
        driver.codec.end_input();
        assert_eq!(driver.codec.unanswered().count(), usize::from(input.contains("sid")));
    }
}

/// Returns some requests in a row.
pub fn random_requests(random: &mut Random) -> String {
    let requests: String = (0..random.below(6)).map(|_| random_request(random)).collect();
    requests.trim_start().to_owned()
}

/// Returns the transcript of requests that each have their own connection, up to the first one whose connection ends.
fn one_by_one(requests: &[String]) -> Transcript {
    let mut all = Transcript::default();
    for request in requests {
        let one = transcript_in(&SETTINGS, &[request.trim_start().as_bytes()], true);
        all.asked.extend(one.asked);
        all.sent.push_str(&one.sent);
        all.close_reason = one.close_reason;
        if all.close_reason.is_some() {
            break;
        }
    }
    all
}

/// The requests and responses of a connection do not depend on the pieces of the input, nor on the order and the time
/// of the responses: they are the same as if each request had its own connection.
#[test]
fn fuzz_pipelines() {
    testing::fuzz(|random| {
        let requests: Vec<_> = (0..random.below(12)).map(|_| random_request(random)).collect();
        let input = requests.concat().trim_start().to_owned();
        let expected = one_by_one(&requests);
        let mut driver = Driver::new(&SETTINGS);
        for piece in random.pieces(input.as_bytes()) {
            driver.feed(piece, false);
            while !driver.waiting.is_empty() && random.once_in(3) {
                let which = random.below(driver.waiting.len());
                driver.answer(which);
            }
            let waiting: Vec<_> = driver.codec.unanswered().map(|(number, _)| number).collect();
            if driver.transcript.close_reason.is_none() {
                assert_eq!(waiting, driver.waiting.iter().map(|(number, _)| *number).collect::<Vec<_>>());
            }
        }
        while !driver.waiting.is_empty() {
            let which = random.below(driver.waiting.len());
            driver.answer(which);
        }
        // Requests behind the last response are not answered.
        driver.transcript.asked.truncate(expected.asked.len());
        assert_eq!(driver.transcript, expected, "{input:?}");
    });
}
