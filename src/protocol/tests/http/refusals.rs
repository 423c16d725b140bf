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
            "unknown method",
        ),
        None,
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
        &format!("POST /?sid={SID} HTTP/1.1\r\nHost: a\r\n\r\n"),
        &of_session("411 Length Required", close, "content length required"),
        Some(HttpRefusal::NoLength),
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
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
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
    for second in
        ["\0\n\n", "\r\0", "\r\r\n", "GE\rT", "\r\n\n\r\n\n\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "é\n\n"]
    {
        let input = [&*post("x"), second, "\n\n"].concat();
        let transcript = transcript(&input);
        assert_eq!(transcript.close_reason, Some(Reason::Refused(HttpRefusal::Malformed)), "{input:?}");
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
    check_closing(HttpRefusal::NoLength, &with("POST", ""));
    check_closing(HttpRefusal::NoLength, &with("POST", chunked));
    check_closing(HttpRefusal::NoLength, &with("POST", "transfer-encoding: identity\r\n"));
    check_closing(HttpRefusal::TooLong, &with("POST", &of("1025")));
    check_closing(HttpRefusal::TooLong, &with("POST", &of("18446744073709551615")));
    for method in ["GET", "HEAD", "OPTIONS"] {
        check_closing(HttpRefusal::Body, &with(method, &of("1")));
        check_closing(HttpRefusal::Body, &with(method, chunked));
    }
    check_closing(HttpRefusal::UnknownMethod, &with("PUT", &of("1")));
    check_closing(HttpRefusal::UnknownMethod, &with("PUT", chunked));
    check_closing(HttpRefusal::NotFound, &with("POST", &of("1")).replace("/?", "/x?"));
    check_closing(HttpRefusal::Sid, &with("POST", &of("1")).replace("sid=", "sid=x"));
    check_closing(HttpRefusal::Body, &UPGRADE.replace("Host:", "Content-Length: 1\r\nHost:"));
    check_closing(HttpRefusal::Body, &UPGRADE.replace("Host:", &format!("{chunked}Host:")));
    assert_eq!(asked(&with("POST", &of("001"))), [asked_poll("x")]);
    let largest = "x".repeat(1024);
    assert_eq!(asked(&post(&largest)), [asked_poll(&largest)]);
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
    for (len, accepted) in [(HTTP_HEAD_BYTES_MAX, true), (HTTP_HEAD_BYTES_MAX + 1, false)] {
        for line_end in ["\r\n", "\n"] {
            let empty = format!("GET / HTTP/1.1{line_end}Host: a{line_end}X: {line_end}{line_end}");
            let head = empty.replace("X: ", &format!("X: {}", "x".repeat(len - empty.len())));
            assert_eq!(head.len(), len);
            for size in [1, 1000, 8191, 8192, 8193, 10_000] {
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
    let endless = transcript_in(&SETTINGS, &[&[b'G'; 3], b"GET /", &[b'x'; 20_000]], true);
    assert_eq!(endless.close_reason, Some(Reason::UnknownProtocol));
    let endless = transcript_in(&SETTINGS, &[b"GET /", &[b'x'; 20_000]], true);
    assert_eq!(endless.close_reason, Some(Reason::Refused(HttpRefusal::TooLarge)));
    assert_eq!(&endless.sent[..12], "HTTP/1.1 431");
    let headers = "X: y\r\n".repeat(HTTP_HEADERS_MAX);
    check_closing(HttpRefusal::TooLarge, &format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n"));
}

#[test]
fn only_allowed_origins_are_accepted() {
    let allowed = "https://b.example";
    let settings = CodecSettings {
        message_bytes_max: 1024,
        origins: Origins::Only(vec!["http://localhost:8080".into(), allowed.into()].into()),
    };
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
