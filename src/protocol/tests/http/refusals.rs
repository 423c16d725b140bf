//! Tests of refusals: their causes, their texts, and whether the connection persists.

use super::*;

/// Asserts the complete response that refuses the request in the input.
#[track_caller]
fn check_refusal(input: &str, expected: &str, close_reason: Option<HttpRefusal>) {
    let transcript = transcript(input);
    assert_eq!(
        (&*transcript.sent, transcript.close_reason),
        (expected, close_reason.map(Reason::Refused)),
        "{input}"
    );
    assert_eq!(transcript.asked, [], "{input}");
}

/// Asserts that the input is refused for this reason, and that the connection closes behind the response.
#[track_caller]
fn check_closing(refusal: HttpRefusal, input: &str) {
    let transcript = transcript(input);
    assert_eq!(transcript.close_reason, Some(Reason::Refused(refusal)), "{input}");
    assert_eq!(transcript.asked, [], "{input}");
    let start = format!("HTTP/1.1 {} ", refusal.status());
    assert!(
        transcript.sent.starts_with(&start) && transcript.sent.contains("\r\nConnection: close\r\n"),
        "{transcript:?}"
    );
    let end = format!("\r\nContent-Length: {}\r\n\r\n{}\n", refusal.text().len() + 1, refusal.text());
    let head_only = end.split_inclusive("\r\n\r\n").next().expect("the head");
    let end = if input.starts_with("HEAD ") { head_only } else { &end };
    assert!(transcript.sent.ends_with(end), "{transcript:?}");
}

#[test]
fn refusals_in_full() {
    let plain = |line: &str, headers: &str, text: &str| {
        let len = text.len() + 1;
        format!(
            "HTTP/1.1 {line}\r\n{headers}Content-Type: text/plain\r\nContent-Length: {len}\r\n\r\n{text}\n"
        )
    };
    let of_session = |line: &str, connection: &str, text: &str| {
        let len = text.len() + 1;
        format!(
            "HTTP/1.1 {line}\r\n{connection}Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nContent-Length: {len}\r\n\r\n{text}\n"
        )
    };
    let close = "Connection: close\r\n";
    check_refusal(
        "GET / HTTP/1.1\r\n\r\n",
        &plain("400 Bad Request", close, "host missing"),
        Some(HttpRefusal::NoHost),
    );
    check_refusal(
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        &plain("404 Not Found", "", "nothing can be posted here"),
        None,
    );
    check_refusal(
        "POST /x HTTP/1.0\r\n\r\n",
        &plain("404 Not Found", close, "nothing can be posted here"),
        Some(HttpRefusal::NotFound),
    );
    check_refusal(
        "DELETE / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        &plain(
            "405 Method Not Allowed",
            "Connection: keep-alive\r\nAllow: GET, HEAD, POST, OPTIONS\r\n",
            "method not allowed",
        ),
        None,
    );
    check_refusal(
        "PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n",
        &plain("501 Not Implemented", "Allow: GET, HEAD, POST, OPTIONS\r\n", "unknown method"),
        None,
    );
    check_refusal(
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &plain("505 HTTP Version Not Supported", close, "HTTP version must be 1.1 or 1.0"),
        Some(HttpRefusal::HttpVersion),
    );
    check_refusal(
        &format!("GET /?sid={SID} HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n"),
        &of_session("406 Not Acceptable", "", "only an event stream can be had here"),
        None,
    );
    check_refusal(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        &of_session("403 Forbidden", "", "sid must be 32 hex digits"),
        None,
    );
    check_refusal(
        &format!("POST /?sid={SID} HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n"),
        &of_session("413 Content Too Large", close, "body too long"),
        Some(HttpRefusal::TooLong),
    );
    check_refusal(
        "GET / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n",
        &plain("417 Expectation Failed", close, "unknown expectation"),
        Some(HttpRefusal::Expectation),
    );
    check_refusal(
        &UPGRADE.replace("Upgrade: websocket\r\n", ""),
        &plain(
            "426 Upgrade Required",
            "Connection: close\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            "websocket upgrade required",
        ),
        Some(HttpRefusal::UpgradeMissing),
    );
    check_refusal(
        &UPGRADE.replace(": 13", ": 8"),
        &plain(
            "400 Bad Request",
            "Connection: close\r\nSec-WebSocket-Version: 13\r\n",
            "websocket version must be 13",
        ),
        Some(HttpRefusal::Version),
    );
    check_refusal(
        &UPGRADE.replace("GET", "POST"),
        &plain(
            "405 Method Not Allowed",
            "Connection: close\r\nAllow: GET\r\n",
            "websocket handshake must be GET",
        ),
        Some(HttpRefusal::Method),
    );
}

#[test]
fn malformed_requests() {
    for request in [
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\x7F\r\n\r\n",
        "GET / HTTP/1.1\r\n: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHo st: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHöst: a\r\n\r\n",
        "GET / HTTP/2\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
        "hello\n\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\tHTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\r\n\r\n",
        "GET  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET \r\n\r\n",
        "GET \n\n",
    ] {
        check_closing(HttpRefusal::Malformed, request);
        // Behind another request, the first bytes no longer decide the protocol.
        let input = [&post("x"), request, &post("ignored")].concat();
        let transcript = transcript(&input);
        assert_eq!(transcript.close_reason, Some(Reason::Refused(HttpRefusal::Malformed)), "{input:?}");
        assert_eq!(transcript.asked, [asked_poll("x")]);
    }
    for second in ["\0\n\n", "\r\0", "\r\r\n", "GE\rT", "\r\n\n\r\n\n\n", "é\n\n"] {
        let input = [&*post("x"), second, "\n\n"].concat();
        let transcript = transcript(&input);
        assert_eq!(transcript.close_reason, Some(Reason::Refused(HttpRefusal::Malformed)), "{input:?}");
    }
}

/// Anything that may be a request gets an answer in HTTP, also as the first of its connection: a proxy in front would
/// otherwise believe that the server is down.
#[test]
fn every_request_line_is_answered_in_http() {
    let headers = "Host: a\r\n\r\n";
    for (line, refusal, persists) in [
        ("PROPFIND / HTTP/1.1", HttpRefusal::UnknownMethod, true),
        ("PROPFIND /any HTTP/1.0", HttpRefusal::UnknownMethod, false),
        ("get / HTTP/1.1", HttpRefusal::UnknownMethod, true),
        ("Get / HTTP/1.1", HttpRefusal::UnknownMethod, true),
        ("POSTS / HTTP/1.1", HttpRefusal::UnknownMethod, true),
        ("P / HTTP/1.1", HttpRefusal::UnknownMethod, true),
        ("M-SEARCH * HTTP/1.1", HttpRefusal::UnknownMethod, true),
        ("!#$%&'*+-.^_`|~0aZ / HTTP/1.1", HttpRefusal::UnknownMethod, true),
        ("PURGE http://a/ HTTP/1.1", HttpRefusal::UnknownMethod, true),
        ("DELETE / HTTP/1.1", HttpRefusal::MethodNotAllowed, true),
        ("PUT / HTTP/1.1", HttpRefusal::MethodNotAllowed, true),
        ("PATCH / HTTP/1.1", HttpRefusal::MethodNotAllowed, true),
        ("TRACE / HTTP/1.1", HttpRefusal::MethodNotAllowed, true),
        ("CONNECT a:443 HTTP/1.1", HttpRefusal::MethodNotAllowed, true),
        ("GET / HTTP/2.0", HttpRefusal::HttpVersion, false),
        ("GET / HTTP/3.0", HttpRefusal::HttpVersion, false),
        ("GET / HTTP/0.9", HttpRefusal::HttpVersion, false),
        ("PRI * HTTP/2.0", HttpRefusal::HttpVersion, false),
    ] {
        for empty_lines in ["", "\r\n", "\n\r\n", "\r\n\r\n\r\n\r\n"] {
            for before in [String::new(), post("x")] {
                let input = format!("{before}{empty_lines}{line}\r\n{headers}");
                let transcript = transcript(&input);
                let last = transcript.sent.rsplit("HTTP/1.1 ").next().unwrap_or_default();
                assert!(last.starts_with(&refusal.status().to_string()), "{input:?}: {transcript:?}");
                assert!(
                    last.ends_with(&format!("\r\n\r\n{}\n", refusal.text())),
                    "{input:?}: {transcript:?}"
                );
                assert_eq!(
                    last.contains("\r\nAllow: GET, HEAD, POST, OPTIONS\r\n"),
                    matches!(refusal.status(), 405 | 501),
                    "{transcript:?}"
                );
                let close_reason = (!persists).then_some(Reason::Refused(refusal));
                assert_eq!(transcript.close_reason, close_reason, "{input:?}");
            }
        }
    }
    let too_many = "\r\n".repeat(5) + "GET / HTTP/1.1\r\n\r\n";
    check_closing(HttpRefusal::Malformed, &too_many);
}

#[test]
fn upgrades_get_the_checks_of_other_requests() {
    let with = |line: &str, headers: &str| {
        UPGRADE.replace("GET /any?where HTTP/1.1\r\n", &format!("{line}\r\n{headers}"))
    };
    for (refusal, line, headers) in [
        (HttpRefusal::Target, "GET * HTTP/1.1", ""),
        (HttpRefusal::Target, "GET ftp://a/ HTTP/1.1", ""),
        (HttpRefusal::Target, "GET ws://a/ HTTP/1.1", ""),
        (HttpRefusal::Target, "GET a HTTP/1.1", ""),
        (HttpRefusal::Target, "GET a:80 HTTP/1.1", ""),
        (HttpRefusal::Target, "GET http:///x HTTP/1.1", ""),
        (HttpRefusal::Host, "GET http://u@b/ HTTP/1.1", ""),
        (HttpRefusal::Expectation, "GET / HTTP/1.1", "Expect: foo\r\n"),
        (HttpRefusal::RepeatedHeader, "GET / HTTP/1.1", "Host: a\r\n"),
        (HttpRefusal::RepeatedHeader, "GET / HTTP/1.1", "Origin: http://a\r\nOrigin: http://a\r\n"),
        (HttpRefusal::RepeatedHeader, "GET / HTTP/1.1", "Sec-WebSocket-Version: 13\r\n"),
        (HttpRefusal::Body, "GET / HTTP/1.1", "Content-Length: 1\r\n"),
        (HttpRefusal::Body, "GET / HTTP/1.1", "Transfer-Encoding: chunked\r\n"),
        (HttpRefusal::Length, "GET / HTTP/1.1", "Content-Length: 0\r\nContent-Length: 0\r\n"),
        (HttpRefusal::Length, "GET / HTTP/1.1", "Content-Length: +0\r\n"),
        (HttpRefusal::UnsupportedCoding, "GET / HTTP/1.1", "Transfer-Encoding: gzip, chunked\r\n"),
        (HttpRefusal::Method, "POST / HTTP/1.1", ""),
        (HttpRefusal::Method, "get / HTTP/1.1", ""),
        (HttpRefusal::Method, "PROPFIND / HTTP/1.1", ""),
        (HttpRefusal::OldHttp, "GET / HTTP/1.0", ""),
        (HttpRefusal::HttpVersion, "GET / HTTP/2.0", ""),
    ] {
        check_closing(refusal, &with(line, headers));
    }
    check_closing(HttpRefusal::Host, &UPGRADE.replace("quickio.example", "a b"));
    check_closing(HttpRefusal::NoHost, &UPGRADE.replace("Host: quickio.example\r\n", ""));
    for (line, headers) in [
        ("GET http://a/ HTTP/1.1", ""),
        ("GET HTTPS://a:443?b HTTP/1.1", ""),
        ("GET / HTTP/1.1", "Expect: 100-continue\r\n"),
        ("GET / HTTP/1.1", "Content-Length: 0\r\n"),
    ] {
        assert_eq!(transcript(&with(line, headers)).sent, SWITCHING, "{line} {headers}");
    }
}

#[test]
fn hosts_and_targets() {
    let get = |line: &str, host: &str| format!("GET {line} HTTP/1.1\r\n{host}\r\n");
    for (refusal, request) in [
        (HttpRefusal::NoHost, get("/", "")),
        (HttpRefusal::RepeatedHeader, get("/", "Host: a\r\nhost: a\r\n")),
        (HttpRefusal::RepeatedHeader, get("/", "Host: a\r\nHost: b\r\n").replace("1.1", "1.0")),
        (HttpRefusal::Host, get("/", "Host: a b\r\n")),
        (HttpRefusal::Host, get("/", "Host: a,b\r\n")),
        (HttpRefusal::Host, get("/", "Host: a/b\r\n")),
        (HttpRefusal::Host, get("/", "Host: u@a\r\n")),
        (HttpRefusal::Host, get("/", "Host: \"a\"\r\n")),
        (HttpRefusal::Host, get("/", "Host: bücher\r\n").replace("1.1", "1.0")),
        (HttpRefusal::Host, get("http://u@a/", "Host: a\r\n")),
        (HttpRefusal::Host, get("http://bücher/", "Host: a\r\n")),
        (HttpRefusal::Target, get("*", "Host: a\r\n")),
        (HttpRefusal::Target, get("a", "Host: a\r\n")),
        (HttpRefusal::Target, get("a:80", "Host: a\r\n")),
        (HttpRefusal::Target, get("?sid=x", "Host: a\r\n")),
        (HttpRefusal::Target, get("http:///x", "Host: a\r\n")),
        (HttpRefusal::Target, get("http://", "Host: a\r\n")),
        (HttpRefusal::Target, get("ftp://a/", "Host: a\r\n")),
        (HttpRefusal::Target, get("://a/", "Host: a\r\n")),
        (HttpRefusal::Target, get("*", "Host: a\r\n").replace("GET", "HEAD")),
        (HttpRefusal::Target, get("*", "Host: a\r\nContent-Length: 0\r\n").replace("GET", "POST")),
        (HttpRefusal::Target, get("**", "Host: a\r\n").replace("GET", "OPTIONS")),
    ] {
        check_closing(refusal, &request);
    }
}

#[test]
fn lengths() {
    let with = |method: &str, headers: &str| {
        format!("{method} /?sid={SID} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n{headers}\r\nx")
    };
    let of = |text: &str| format!("Content-Length: {text}\r\n");
    let chunked = "Transfer-Encoding: chunked\r\n";
    for text in ["", "+1", "-1", "1 1", "1,1", "1, 1", "0x1", "1.", "١", "18446744073709551616", "a", "1;"] {
        for method in ["POST", "GET", "HEAD", "OPTIONS", "PUT"] {
            check_closing(HttpRefusal::Length, &with(method, &of(text)));
        }
    }
    check_closing(HttpRefusal::Length, &with("POST", &of("1").repeat(2)));
    check_closing(HttpRefusal::Length, &with("POST", &(of("1") + &of("2"))));
    check_closing(HttpRefusal::Length, &with("GET", &of("0").repeat(2)));
    check_closing(HttpRefusal::Length, &with("POST", &(of("1") + chunked)));
    check_closing(HttpRefusal::Length, &with("POST", &(chunked.to_owned() + &of("0"))));
    check_closing(HttpRefusal::Chunk, &with("POST", chunked));
    check_closing(HttpRefusal::TransferCoding, &with("POST", chunked).replace("HTTP/1.1", "HTTP/1.0"));
    for method in ["POST", "GET", "OPTIONS", "PUT"] {
        let coding = |value: &str| with(method, &format!("transfer-encoding: {value}\r\n"));
        for value in [
            "",
            ",",
            "identity",
            "gzip",
            "chunked, identity",
            "chunked,chunked",
            "x, chunked, chunked",
            "chunked\r\nTransfer-Encoding: identity",
            "chunked;q=1",
            "\"chunked\"",
            "xchunked",
        ] {
            check_closing(HttpRefusal::TransferCoding, &coding(value));
        }
        for value in ["gzip, chunked", "gzip\r\nTransfer-Encoding: chunked", "identity, chunked"] {
            check_closing(HttpRefusal::UnsupportedCoding, &coding(value));
        }
    }
    check_closing(HttpRefusal::TooLong, &with("POST", &of("1025")));
    check_closing(HttpRefusal::TooLong, &with("POST", &of("18446744073709551615")));
    for method in ["GET", "HEAD", "OPTIONS"] {
        check_closing(HttpRefusal::Body, &with(method, &of("1")));
        check_closing(HttpRefusal::Body, &with(method, chunked));
    }
    check_closing(HttpRefusal::MethodNotAllowed, &with("PUT", &of("1")));
    check_closing(HttpRefusal::UnknownMethod, &with("PROPFIND", &of("1")));
    check_closing(HttpRefusal::MethodNotAllowed, &with("PUT", chunked));
    check_closing(HttpRefusal::NotFound, &with("POST", &of("1")).replace("/?", "/x?"));
    check_closing(HttpRefusal::Sid, &with("POST", &of("1")).replace("sid=", "sid=x"));
    check_closing(HttpRefusal::Body, &UPGRADE.replace("Host:", "Content-Length: 1\r\nHost:"));
    check_closing(HttpRefusal::Body, &UPGRADE.replace("Host:", &format!("{chunked}Host:")));
    assert_eq!(asked(&with("POST", &of("001"))), [asked_poll("x")]);
    let largest = "x".repeat(1024);
    assert_eq!(asked(&post(&largest)), [asked_poll(&largest)]);
    // RFC 9112, 6.3: without a length and without a transfer coding, the length is zero.
    let head = |headers: &str| format!("POST /?sid={SID} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    assert_eq!(asked(&(head("") + &post("x"))), [asked_poll(""), asked_poll("x")]);
}

fn chunked_post(body: &str) -> String {
    format!("POST /?sid={SID} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

#[test]
fn chunked_bodies() {
    for (body, text) in [
        ("0\r\n\r\n", ""),
        ("6\r\n/a:0=1\r\n0\r\n\r\n", "/a:0=1"),
        ("1\r\n/\r\n003;x=y\r\na:0\r\n2\r\n=1\r\n0\r\nX: y\r\n\r\n", "/a:0=1"),
        // A character in two chunks.
        ("1\r\na\r\n7\r\n\u{20AC}\u{1F600}\r\n0\r\n\r\n", "a\u{20AC}\u{1F600}"),
    ] {
        let input = [chunked_post(body), post("x"), chunked_post(body)].concat();
        assert_eq!(asked(&input), [asked_poll(text), asked_poll("x"), asked_poll(text)], "{body:?}");
    }
    let split = [chunked_post("2\r\n").as_bytes(), b"\xE2\x82\r\n1\r\n\xAC\r\n0\r\n\r\n"].concat();
    assert_eq!(transcript_with(&SETTINGS, &split, true).asked, [asked_poll("\u{20AC}")]);
    for spelling in ["Chunked", " chunked ", ",chunked,", "\r\nTransfer-Encoding: chunked"] {
        let input = chunked_post("0\r\n\r\n").replace(" chunked", spelling);
        assert_eq!(asked(&input), [asked_poll("")], "{spelling:?}");
    }
    let largest = "x".repeat(1024);
    assert_eq!(asked(&chunked_post(&format!("400\r\n{largest}\r\n0\r\n\r\n"))), [asked_poll(&largest)]);
    for (refusal, body) in [
        (HttpRefusal::TooLong, "401\r\n"),
        (HttpRefusal::TooLong, &format!("400\r\n{largest}\r\n1\r\n")),
        (HttpRefusal::Chunk, "x"),
        (HttpRefusal::Chunk, "1\nx\n0\n\n"),
        (HttpRefusal::Chunk, "1\r\nab"),
        (HttpRefusal::ChunkOverhead, &"0".repeat(20_000)),
    ] {
        let input = [post("x"), chunked_post(body), post("ignored")].concat().into_bytes();
        for size in [1, 7, 1000, input.len()] {
            let transcript = transcript_in(&SETTINGS, &input.chunks(size).collect::<Vec<_>>(), true);
            assert_eq!(transcript.close_reason, Some(Reason::Refused(refusal)), "{body:.40}");
            assert_eq!(transcript.asked, [asked_poll("x")], "{body:.40}");
        }
    }
    let invalid = [chunked_post("1\r\n").as_bytes(), b"\xFF\r\n0\r\n\r\n"].concat();
    let refused = transcript_with(&SETTINGS, &invalid, true);
    assert_eq!(refused.close_reason, Some(Reason::Refused(HttpRefusal::InvalidUtf8)));
    let unfinished = [chunked_post("1\r\n").as_bytes(), b"\xE2\r\n0\r\n\r\n"].concat();
    let refused = transcript_with(&SETTINGS, &unfinished, true);
    assert_eq!(refused.close_reason, Some(Reason::Refused(HttpRefusal::InvalidUtf8)));
}

/// Every answer to a request of a page that may connect can be read by the page, however early the request is refused.
#[test]
fn every_answer_to_a_page_may_be_read_by_it() {
    let origin = "https://b.example";
    let origins = Origins::Only(vec![origin.into()].into());
    let only = CodecSettings { origins, ..SETTINGS };
    let many = "X: y\r\n".repeat(HTTP_HEADERS_MAX);
    let long = format!("Cookie: {}\r\n", "x".repeat(SETTINGS.http_head_bytes_max));
    let length = "Content-Length: 0\r\n";
    let poll = format!("POST /?sid={SID}");
    for (status, line, headers) in [
        (200, &*poll, length),
        (204, "OPTIONS /", ""),
        (400, "GET /", "X : y\r\n"),
        (400, "GET /", "Host: a\r\n"),
        (400, "GET *", ""),
        (400, &poll, "Content-Length: +0\r\n"),
        (400, &poll, "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
        (400, &format!("{poll}&sid="), length),
        (403, "POST /", length),
        (404, "POST /x", length),
        (405, "DELETE /", ""),
        (406, &format!("GET /?sid={SID}"), ""),
        (413, &poll, "Content-Length: 1025\r\n"),
        (417, &poll, "Content-Length: 0\r\nExpect: x\r\n"),
        (426, "GET /", "Sec-WebSocket-Key: x\r\n"),
        (431, "GET /", &many),
        (431, "GET /", &long),
        (501, "PROPFIND /", ""),
        (501, &poll, "Transfer-Encoding: gzip, chunked\r\n"),
        (505, "HTTP/2.0", ""),
    ] {
        let version = if status == 505 { "" } else { " HTTP/1.1" };
        let line = if status == 505 { "GET / HTTP/2.0" } else { line };
        let request =
            |origin: &str| format!("{line}{version}\r\nHost: a\r\n{origin}{headers}\r\n").into_bytes();
        let sent = |settings: &CodecSettings, origin: &str| {
            let whole = transcript_in(settings, &[&request(origin)], true).sent;
            for size in [1, 1000] {
                let pieces = request(origin);
                let in_pieces = transcript_in(settings, &pieces.chunks(size).collect::<Vec<_>>(), true).sent;
                assert_eq!(in_pieces, whole, "{line} in pieces of {size}");
            }
            assert!(whole.starts_with(&format!("HTTP/1.1 {status} ")), "{line} {headers:.40}: {whole}");
            whole
        };
        let from = |origin: &str| format!("oRigin:{origin}\r\n");
        let named = sent(&only, &from(origin));
        assert!(
            named.contains("\r\nAccess-Control-Allow-Origin: https://b.example\r\nVary: Origin\r\n"),
            "{named}"
        );
        assert_eq!(named.matches("Access-Control-Allow-Origin").count(), 1, "{named}");
        assert!(sent(&SETTINGS, &from(origin)).contains("\r\nAccess-Control-Allow-Origin: *\r\n"), "{line}");
        assert!(
            !sent(&SETTINGS, "").contains("Access-Control-Allow-Origin"),
            "{line}: the request is of no page"
        );
        let foreign = transcript_in(&only, &[&request(&from("https://c.example"))], true).sent;
        assert!(!foreign.contains("Access-Control-Allow-Origin"), "{line}: the page may not connect");
    }
    // Requests that took too long, in their head and in their body, and one that was not answered in the end.
    let head = format!("{poll} HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\nContent-Length: 2\r\n\r\n");
    for (input, reason, status) in [
        (&head[..head.len() - 2], Reason::ClientTimeout, "408"),
        (&(head.clone() + "a"), Reason::ClientTimeout, "408"),
        (&(head.clone() + "ab"), Reason::GoingAway, "503"),
    ] {
        let mut driver = Driver::new(&only);
        driver.feed(input.as_bytes(), false);
        let closed = String::from_utf8(driver.codec.close(reason, &only).bytes).unwrap();
        assert!(closed.starts_with(&format!("HTTP/1.1 {status} ")), "{closed}");
        assert!(closed.contains("\r\nAccess-Control-Allow-Origin: https://b.example\r\n"), "{closed}");
        assert_eq!(closed.contains("\r\nAccess-Control-Expose-Headers: Retry-After\r\n"), status == "503");
    }
    // A document has rules of its own, but an error has not.
    let document = format!("GET / HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\n\r\n");
    for (status, readable) in [(200, false), (304, false), (404, true)] {
        let mut codec = Codec::new(Options::default());
        feed(&mut codec, document.as_bytes(), &mut Vec::new());
        let response = HttpResponse::Whole { status, headers: "", body: b"" };
        let sent = String::from_utf8(codec.respond(0, response, &SETTINGS).bytes).unwrap();
        assert_eq!(sent.contains("Access-Control-Allow-Origin: *"), readable, "{sent}");
    }
}

#[test]
fn a_page_may_send_the_headers_that_it_asks_for() {
    let asked = |headers: &str| {
        let request = format!("OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: null\r\n{headers}\r\n");
        let sent = transcript(&request).sent;
        let line = sent.split("\r\n").find_map(|line| line.strip_prefix("Access-Control-Allow-Headers: "));
        line.expect("the header").to_owned()
    };
    let of = |names: &str| format!("Access-Control-Request-Headers: {names}\r\n");
    for (names, allowed) in [
        ("cache-control,last-event-id", "cache-control, last-event-id"),
        ("Cache-Control, X-Requested-With , Authorization", "Cache-Control, X-Requested-With, Authorization"),
        ("x-1\r\naccess-control-request-headers:,x-2,", "x-1, x-2"),
        ("", "Content-Type"),
        (",", "Content-Type"),
        ("x y", "Content-Type"),
        ("x, y:z", "Content-Type"),
        ("x, \u{e9}", "Content-Type"),
    ] {
        assert_eq!(asked(&of(names)), allowed, "{names:?}");
    }
    let longest = "x".repeat(crate::limits::HTTP_PREFLIGHT_BYTES_MAX);
    assert_eq!(asked(&of(&longest)), longest);
    assert_eq!(asked(&of(&(longest.clone() + "x"))), "Content-Type");
}

#[test]
fn parameters() {
    let post = |query: &str| format!("POST /?{query} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    let status = |request: &str| {
        let transcript = transcript(request);
        assert_eq!((transcript.close_reason, transcript.asked.len()), (None, 0), "{request}");
        transcript.sent[9..12].to_owned()
    };
    for query in [
        "".to_owned(),
        "sid".into(),
        "sid=".into(),
        format!("SID={SID}"),
        format!("sid={}", &SID[1..]),
        format!("sid={SID}0"),
        format!("sid=+{}", &SID[1..]),
        format!("sid={}g", &SID[1..]),
        format!("sid={}é", &SID[2..]),
        format!("sid={SID}#"),
        format!("sid=%30{}", &SID[1..]),
        "sid=x&seq=0".into(),
    ] {
        assert_eq!(status(&post(&query)), "403", "{query}");
    }
    for query in [
        format!("sid={SID}&sid={SID}"),
        format!("sid={SID}&sid"),
        format!("sid={SID}&seq=1&seq=1"),
        format!("sid={SID}&seq"),
        format!("sid={SID}&seq="),
        format!("sid={SID}&seq=0"),
        format!("sid={SID}&seq=+1"),
        format!("sid={SID}&seq=-1"),
        format!("sid={SID}&seq=1 ").trim().to_owned() + "a",
        format!("sid={SID}&seq=18446744073709551616"),
    ] {
        check_closing(HttpRefusal::Parameters, &post(&query));
        let stream = stream_with("").replace(&format!("sid={SID}&connect=true"), &query);
        check_closing(HttpRefusal::Parameters, &stream);
    }
    assert_eq!(status(&stream_with("").replace(SID, "0")), "403");
    for accept in
        ["", "*/*", "text/*", "text/event-stream;q=0", "text/event-stream; Q=0.000", "text/event-streams"]
    {
        let request = stream_with("").replace("text/event-stream\r\n", &format!("{accept}\r\n"));
        assert_eq!(status(&request), "406", "{accept}");
    }
}

#[test]
fn a_body_must_be_utf8() {
    for bad in [&b"/a:0=\xFF"[..], b"/a:0=\xE2\x82", b"\xC0\x80", b"/a:0=\xED\xA0\x80x"] {
        let head = format!("POST /?sid={SID} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", bad.len());
        let input = [post("é").as_bytes(), head.as_bytes(), bad].concat();
        for behind in [&b""[..], post("ignored").as_bytes()] {
            let transcript = transcript_with(&SETTINGS, &[&input[..], behind].concat(), true);
            assert_eq!(transcript.asked, [asked_poll("é")]);
            assert_eq!(transcript.close_reason, Some(Reason::Refused(HttpRefusal::InvalidUtf8)));
            assert!(transcript.sent.ends_with("\r\n\r\nbody must be UTF-8\n"), "{transcript:?}");
        }
    }
}

#[test]
fn the_length_of_a_head_is_limited() {
    for (len, accepted) in [(SETTINGS.http_head_bytes_max, true), (SETTINGS.http_head_bytes_max + 1, false)] {
        for line_end in ["\r\n", "\n"] {
            let empty = format!("GET / HTTP/1.1{line_end}Host: a{line_end}X: {line_end}{line_end}");
            let head = empty.replace("X: ", &format!("X: {}", "x".repeat(len - empty.len())));
            assert_eq!(head.len(), len);
            for size in [1, 1000, 16_383, 16_384, 16_385, 20_000] {
                let pieces: Vec<_> = head.as_bytes().chunks(size).collect();
                let transcript = transcript_in(&SETTINGS, &pieces, true);
                let refused = Some(Reason::Refused(HttpRefusal::TooLarge));
                assert_eq!(
                    transcript.close_reason,
                    if accepted { None } else { refused },
                    "{len} in pieces of {size}"
                );
                assert_eq!(transcript.asked.len(), usize::from(accepted));
            }
        }
    }
    let endless = transcript_in(&SETTINGS, &[b"GET /", &[b'x'; 20_000]], true);
    assert_eq!(endless.close_reason, Some(Reason::Refused(HttpRefusal::TooLarge)));
    assert_eq!(&endless.sent[..12], "HTTP/1.1 431");
    let headers = "X: y\r\n".repeat(HTTP_HEADERS_MAX);
    check_closing(HttpRefusal::TooLarge, &format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n"));
}

#[test]
fn only_allowed_origins_are_accepted() {
    let allowed = "https://b.example";
    let origins = Origins::Only(vec!["http://localhost:8080".into(), allowed.into()].into());
    let settings = CodecSettings { origins, ..SETTINGS };
    let transcript = |request: &str| transcript_with(&settings, request.as_bytes(), true);
    let of = |origin: &str| format!("Origin: {origin}\r\n");
    let cors = "Access-Control-Allow-Origin: https://b.example\r\nVary: Origin\r\n";
    let options = |headers: &str| format!("OPTIONS / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    for request in [
        post_with,
        |headers: &str, _: &str| stream_with(headers),
        |headers: &str, _: &str| format!("OPTIONS / HTTP/1.1\r\nHost: a\r\n{headers}\r\n"),
    ] {
        assert!(transcript(&request(&of(allowed), "")).sent.contains(cors));
        assert!(
            !transcript(&request("", "")).sent.contains("Access-Control-Allow-Origin"),
            "the request comes from no page"
        );
        for other in [
            "null",
            "",
            "http://b.example",
            "https://b.example:443",
            "https://b.example/",
            "https://B.example",
        ] {
            let transcript = transcript(&request(&of(other), ""));
            assert!(transcript.sent.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{other}: {transcript:?}");
            assert!(transcript.sent.ends_with("\r\n\r\norigin not allowed\n"), "{other}: {transcript:?}");
            assert!(
                !transcript.sent.contains("Access-Control") && transcript.asked.is_empty(),
                "{other}: {transcript:?}"
            );
            assert_eq!(transcript.close_reason, None, "there was no body, and the connection persists");
        }
    }
    assert_eq!(
        transcript(&post_with(&of("null"), "x")).close_reason,
        Some(Reason::Refused(HttpRefusal::Origin))
    );
    let twice = options(&(of(allowed) + &of(allowed)));
    assert_eq!(transcript(&twice).close_reason, Some(Reason::Refused(HttpRefusal::RepeatedHeader)));
    let page = "GET / HTTP/1.1\r\nHost: a\r\nOrigin: null\r\n\r\n";
    assert_eq!(transcript(page).asked, [asked_document("/")], "every page may read documents");

    let upgrade = |origin| UPGRADE.replace("Host:", &format!("Origin: {origin}\r\nHost:"));
    let refused = transcript(&upgrade("http://c"));
    assert_eq!(refused.close_reason, Some(Reason::Refused(HttpRefusal::Origin)));
    assert!(refused.sent.starts_with("HTTP/1.1 403 Forbidden\r\nConnection: close\r\n"), "{refused:?}");
    let mut codec = Codec::new(Options::default());
    let mut input = upgrade(allowed).into_bytes();
    assert_eq!(codec.decode(&mut input, &settings).incoming, Incoming::Reply(SWITCHING.into()));
}
