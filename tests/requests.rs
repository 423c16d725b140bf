//! Tests of HTTP requests against a naive twin. For any bytes in any pieces, the codec accepts and refuses the same
//! requests as the twin, which has all bytes at once, examines one line after the other, and does not use httparse.

use quickio::limits::{HTTP_EMPTY_LINES_MAX, HTTP_HEADERS_MAX, HTTP_REQUESTS_UNANSWERED_MAX};
use quickio::protocol::http::{HttpDate, HttpResponse, Persistence, ReadyResponses, RequestKind};
use quickio::protocol::{
    Codec, CodecSettings, Compression, Incoming, Options, Origins, TrustedProxies, WantedHeaders,
};

mod fuzz;

const MESSAGE_BYTES_MAX: usize = 40;
const HTTP_HEAD_BYTES_MAX: usize = 8192;
const ORIGIN: &str = "https://a.example";
const SID: &str = "0123456789abcdef0123456789abcdef";

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Poll {
        connect: bool,
        seq: Option<u64>,
        host: String,
        body: String,
    },
    Stream {
        connect: bool,
        host: String,
    },
    Document {
        path: String,
        if_none_match: Option<String>,
    },
    /// The codec answered the request with this status.
    Answered(u16),
}

/// The outcomes of a connection, and whether it has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Transcript {
    outcomes: Vec<Outcome>,
    ended: bool,
}

#[test]
fn fuzz_requests() {
    fuzz::run(|random| {
        let mut input = Vec::new();
        for _ in 0..random.below(6) {
            input.extend(random_request(random));
        }
        if random.one_in(2) {
            damage(random, &mut input);
        }
        let expected = naive(&input);
        for longest in [1, 3, 20, 300, input.len()] {
            assert_eq!(transcript(random, &input, longest), expected, "{}", String::from_utf8_lossy(&input));
        }
    });
}

#[test]
fn long_heads_and_many_requests() {
    let request = |padding: &str| format!("GET /x HTTP/1.1\r\nHost: a\r\n{padding}\r\n");
    let padded = |len: usize| request(&format!("X: {}\r\n", "x".repeat(len - request("X: \r\n").len())));
    fuzz::run(|random| {
        let inputs = [
            padded(HTTP_HEAD_BYTES_MAX - 1 + random.below(3)),
            "GET / HTTP/1.1\r\n".to_owned() + &"x".repeat(HTTP_HEAD_BYTES_MAX - 17 + random.below(3)),
            request(&"X: y\r\n".repeat(HTTP_HEADERS_MAX - 3 + random.below(5))),
            request("")
                + &"\n".repeat(usize::from(HTTP_EMPTY_LINES_MAX) - 1 + random.below(3))
                + &request(""),
            request("").repeat(HTTP_REQUESTS_UNANSWERED_MAX + 1),
        ];
        let input = random.pick(&inputs).as_bytes();
        assert_eq!(transcript(random, input, 5000), naive(input));
    });
}

/// Returns a request that is mostly valid and is not an upgrade.
fn random_request(random: &mut fuzz::Random) -> Vec<u8> {
    let body = random.pick(&["", "x", "/a:0=1\n", "ü€😀", "GET / HTTP/1.1\r\n\r\n"]).to_string();
    let line_end = if random.one_in(10) { "\n" } else { "\r\n" };
    let mut request = String::new();
    while random.one_in(8) {
        request += if random.one_in(20) { "\r" } else { line_end };
    }
    let method =
        *random.pick(&["GET", "GET", "POST", "POST", "POST", "HEAD", "OPTIONS", "PUT", "PROPFIND", "get"]);
    let target = match random.below(12) {
        0 => (*random.pick(&["/x", "*", "x", "http://b", "http://b/x?y", "/?sid", "http://u@b/", "/ü"]))
            .to_owned(),
        1 => format!(
            "/?sid={SID}&seq={}",
            random.pick(&["0", "1", "", "+1", "18446744073709551616", "7&seq=7"])
        ),
        2 => format!("http://b:1/?connect=true&sid={SID}"),
        3 => "/".to_owned(),
        _ => format!("/?sid={SID}"),
    };
    let version = *random.pick(&["1.1", "1.1", "1.1", "1.1", "1.1", "1.0", "1.2", "2.0", "1.10"]);
    request += &format!("{method} {target} HTTP/{version}{line_end}");
    for _ in 0..random.below(4) {
        request += *random.pick(&[
            "X: y",
            "Accept: text/event-stream",
            "Accept: */*, text/event-stream;q=0.0",
            "Accept: text/event-stream; Q=0.01;x",
            "Accept: text/event-stream;q=0.,text/event-stream ; q=1",
            "Connection: close",
            "Connection: keep-alive",
            "Origin: https://a.example",
            "Origin: null",
            "If-None-Match: \"a\"",
            "X:\u{1}",
            "Expect: other",
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: x, Chunked,",
            "Transfer-Encoding: identity",
            "Transfer-Encoding:",
            " folded",
            "X : y",
            "nothing",
            "Cookie: ü",
        ]);
        request += line_end;
    }
    match random.below(20) {
        0 => {}
        1 => request += &format!("Host: b{}c{line_end}", random.pick(&[" ", ",", "/", "@", "\u{80}"])),
        2 => request += &format!("Host: b{line_end}Host: b{line_end}"),
        _ => request += &format!("Host: a{line_end}"),
    }
    let len = if method == "POST" { body.len() } else { 0 };
    let is_chunked = random.one_in(4);
    match random.below(20) {
        _ if is_chunked => request += &format!("Transfer-Encoding: chunked{line_end}"),
        0 => {}
        1 => request += &format!("Content-Length: {len}, {len}{line_end}"),
        2 => request += &format!("Content-Length: {len}{line_end}content-length: {len}{line_end}"),
        3 => request += &format!("Content-Length: 41{line_end}"),
        4 => request += &format!("Content-Length: +{len}{line_end}"),
        _ => request += &format!("Content-Length: {len}{line_end}"),
    }
    request += line_end;
    if is_chunked {
        let (start, end) = body.split_at(body.char_indices().nth(1).map_or(0, |(at, _)| at));
        for chunk in [start, end].into_iter().filter(|chunk| !chunk.is_empty()) {
            request += &format!("{:x}{}\r\n{chunk}\r\n", chunk.len(), random.pick(&["", ";a", " ;b=\"c\""]));
        }
        request += *random.pick(&["0\r\n\r\n", "00\r\nX: y\r\n\r\n", "0\r\n\r\n", "0\n\n"]);
    } else if method == "POST" {
        request += &body;
    }
    request.into_bytes()
}

/// Changes, removes or inserts a few bytes, but not the first one, which tells that the protocol is HTTP.
fn damage(random: &mut fuzz::Random, input: &mut Vec<u8>) {
    for _ in 0..=random.below(3) {
        if input.len() > 1 {
            let at = 1 + random.below(input.len() - 1);
            let byte = *random.pick(b"\r\n\0 \t:;,=/?&x0\x7F\x80\xFF");
            match random.below(3) {
                0 => input[at] = byte,
                1 => drop(input.remove(at)),
                _ => input.insert(at, byte),
            }
        }
    }
}

fn settings() -> CodecSettings {
    CodecSettings {
        message_bytes_max: MESSAGE_BYTES_MAX,
        http_head_bytes_max: HTTP_HEAD_BYTES_MAX,
        origins: Origins::Only(vec![ORIGIN.into()].into()),
        proxies: TrustedProxies::NONE,
        compression: Compression::OFF,
        wanted: WantedHeaders::NONE,
        date: HttpDate::EPOCH,
    }
}

/// Returns the transcript of the codec for the input in pieces of at most `longest` bytes. Every request is answered at
/// once.
fn transcript(random: &mut fuzz::Random, mut input: &[u8], longest: usize) -> Transcript {
    let settings = settings();
    let mut codec = Codec::new(Options::default());
    let mut transcript = Transcript::default();
    while !input.is_empty() && !transcript.ended {
        let (piece, rest) = input.split_at((1 + random.below(longest)).min(input.len()));
        input = rest;
        feed(&mut codec, piece, &settings, &mut transcript);
    }
    transcript
}

fn feed(codec: &mut Codec, piece: &[u8], settings: &CodecSettings, transcript: &mut Transcript) {
    let mut piece = piece.to_vec();
    let mut at = 0;
    while !transcript.ended {
        let decoded = codec.decode(&mut piece[at..], settings);
        at += decoded.consumed;
        match decoded.incoming {
            Incoming::Incomplete => return assert_eq!(at, piece.len()),
            Incoming::Refused(bytes) if bytes.is_empty() => {}
            Incoming::Reply(bytes) | Incoming::Refused(bytes) => {
                transcript.outcomes.push(Outcome::Answered(status(&bytes)))
            }
            Incoming::Close(close) => {
                transcript.outcomes.push(Outcome::Answered(status(&close.bytes)));
                transcript.ended = true;
            }
            Incoming::Request(request) => {
                let number = request.number;
                let outcome = outcome(&request.kind);
                let response = match outcome {
                    Outcome::Stream { .. } => HttpResponse::Stream,
                    _ => HttpResponse::Whole { status: 200, headers: "", body: b"" },
                };
                transcript.ended = matches!(outcome, Outcome::Stream { .. });
                transcript.outcomes.push(outcome);
                let ReadyResponses { bytes, persistence } = codec.respond(number, response, settings);
                assert_eq!(status(&bytes), 200);
                transcript.ended |= persistence != Persistence::KeepAlive;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn status(bytes: &[u8]) -> u16 {
    let text = std::str::from_utf8(bytes).expect("responses are UTF-8");
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "there must be one response: {text}");
    text["HTTP/1.1 ".len()..][..3].parse().expect("a status")
}

fn outcome(kind: &RequestKind<'_>) -> Outcome {
    match kind {
        RequestKind::Poll { session, body } => {
            let (connect, seq) = (session.connect, session.seq);
            Outcome::Poll { connect, seq, host: session.host.into(), body: (*body).into() }
        }
        RequestKind::Stream { session } => {
            Outcome::Stream { connect: session.connect, host: session.host.into() }
        }
        RequestKind::Document { path, if_none_match } => {
            Outcome::Document { path: (*path).into(), if_none_match: if_none_match.map(str::to_owned) }
        }
    }
}

// The naive twin.

/// Returns the transcript of the twin. It ends with the response that closes the connection.
fn naive(mut input: &[u8]) -> Transcript {
    let mut transcript = Transcript::default();
    while !transcript.ended && !input.is_empty() {
        let (taken, outcome) = match naive_request(input) {
            Ok(None) => break,
            Ok(Some((taken, outcome, closes))) => {
                transcript.ended = closes;
                (taken, outcome)
            }
            Err(status) => {
                transcript.ended = true;
                (0, Outcome::Answered(status))
            }
        };
        transcript.outcomes.push(outcome);
        input = &input[taken..];
    }
    transcript
}

/// A request: its length, its outcome, and whether the connection ends behind it. `None` means that it is incomplete,
/// `Err` that it is refused with this status and the connection ends.
type NaiveOutcome = Result<Option<(usize, Outcome, bool)>, u16>;

fn naive_request(input: &[u8]) -> NaiveOutcome {
    let mut start = 0;
    let mut lines = 0;
    while start < input.len() {
        match &input[start..] {
            [b'\n', ..] => start += 1,
            [b'\r', b'\n', ..] => start += 2,
            [b'\r'] => return Ok(None),
            [b'\r', ..] => return Err(400),
            _ => break,
        }
        lines += 1;
        if lines > HTTP_EMPTY_LINES_MAX {
            return Err(400);
        }
    }
    let input = &input[start..];
    if input.is_empty() {
        return Ok(None);
    }
    let ends = |len: &usize| input[..*len].ends_with(b"\n\n") || input[..*len].ends_with(b"\n\r\n");
    let Some(len) = (1..=input.len().min(HTTP_HEAD_BYTES_MAX)).find(ends) else {
        return if input.len() >= HTTP_HEAD_BYTES_MAX { Err(431) } else { Ok(None) };
    };
    let (head, body) = input.split_at(len);
    let lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let lines: Vec<&[u8]> = lines.take_while(|line| !line.is_empty()).collect();
    let [first, headers @ ..] = &lines[..] else { return Err(400) };
    let request = NaiveRequest::new(first, headers)?;
    let found = request.outcome(body)?;
    Ok(found.map(|(taken, outcome, closes)| (start + len + taken, outcome, closes)))
}

struct NaiveRequest {
    method: String,
    target: String,
    is_http_1_0: bool,
    /// The headers. Names are in lower case, and values have no white space around them.
    headers: Vec<(String, Vec<u8>)>,
}

impl NaiveRequest {
    fn new(first: &[u8], lines: &[&[u8]]) -> Result<NaiveRequest, u16> {
        let parts: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
        let [method, target, version] = parts[..] else { return Err(400) };
        let target = std::str::from_utf8(target).map_err(|_| 400u16)?;
        let is_http_1_0 = match version {
            b"HTTP/1.0" => true,
            b"HTTP/1.1" => false,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit()
                    && minor.is_ascii_digit()
                    && is_token(method)
                    && is_target(target) =>
            {
                return Err(505);
            }
            _ => return Err(400),
        };
        if !is_token(method) || !is_target(target) {
            return Err(400);
        }
        let mut headers = Vec::new();
        for line in lines {
            let colon = line.iter().position(|byte| *byte == b':').ok_or(400u16)?;
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            let is_control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7F;
            if !is_token(name) || value.iter().any(is_control) {
                return Err(400);
            }
            if headers.len() == HTTP_HEADERS_MAX {
                return Err(431);
            }
            let name = String::from_utf8(name.to_ascii_lowercase()).expect("a token");
            headers.push((name, value.trim_ascii().to_vec()));
        }
        let method = String::from_utf8(method.to_vec()).expect("a token");
        Ok(NaiveRequest { method, target: target.to_owned(), is_http_1_0, headers })
    }

    fn all(&self, name: &str) -> Vec<&[u8]> {
        self.headers.iter().filter(|(own, _)| own == name).map(|(_, value)| &value[..]).collect()
    }

    fn lists(&self, name: &str, element: &str) -> bool {
        let all = self.all(name).join(&b","[..]).to_ascii_lowercase();
        all.split(|byte| *byte == b',').any(|own| own.trim_ascii() == element.as_bytes())
    }

    fn closes(&self) -> bool {
        self.lists("connection", "close") || (self.is_http_1_0 && !self.lists("connection", "keep-alive"))
    }

    fn outcome(&self, body: &[u8]) -> NaiveOutcome {
        if ["host", "origin", "content-length"].iter().any(|name| self.all(name).len() > 1) {
            return Err(400);
        }
        let is_of_host =
            |text: &[u8]| text.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(b));
        let host = match self.all("host")[..] {
            [host] if is_of_host(host) => String::from_utf8(host.to_vec()).expect("ASCII"),
            [] if self.is_http_1_0 => String::new(),
            _ => return Err(400),
        };
        let length = self.length()?;
        let chunked = self.is_chunked()?;
        let has_body = chunked || length.is_some_and(|len| len > 0);
        assert!(self.all("sec-websocket-key").is_empty() && self.all("upgrade").is_empty());
        if !self.is_http_1_0 && self.all("expect").iter().any(|it| !it.eq_ignore_ascii_case(b"100-continue"))
        {
            return Err(417);
        }
        // If a request with a body is refused, the body is not read, and the connection ends.
        let refused = |status| Ok(Some((0, Outcome::Answered(status), has_body || self.closes())));
        let allowed = self.all("origin").iter().all(|origin| *origin == ORIGIN.as_bytes());
        let method = &self.method[..];
        if !["GET", "HEAD", "POST", "OPTIONS"].contains(&method) {
            return refused(if method == "PUT" { 405 } else { 501 });
        }
        if method == "OPTIONS" && self.target == "*" {
            return if has_body { Err(400) } else { refused(if allowed { 204 } else { 403 }) };
        }
        let (authority, path, query) = self.target_parts().ok_or(400u16)?;
        if !is_of_host(authority.unwrap_or_default().as_bytes()) {
            return Err(400);
        }
        let host = authority.map_or(host, str::to_owned);
        let is_root = path == "/";
        let parameters: Vec<(&str, &str)> =
            query.split('&').map(|it| it.split_once('=').unwrap_or((it, ""))).collect();
        let values = |name| -> Vec<&str> {
            parameters.iter().filter(|(own, _)| *own == name).map(|(_, value)| *value).collect()
        };
        let (sids, seqs) = (values("sid"), values("seq"));
        let is_repeated = sids.len() > 1 || seqs.len() > 1;
        if method == "POST" {
            if !is_root {
                return refused(404);
            }
        } else if method == "OPTIONS" {
            return if has_body { Err(400) } else { refused(if allowed { 204 } else { 403 }) };
        } else if has_body || (method == "GET" && is_root && is_repeated) {
            return Err(400);
        } else if method == "HEAD" || !is_root || sids.is_empty() {
            let tags = self.all("if-none-match");
            let if_none_match = match tags[..] {
                [] => None,
                [tag] => String::from_utf8(tag.to_vec()).ok(),
                _ => Some(String::new()),
            };
            return Ok(Some((0, Outcome::Document { path: path.into(), if_none_match }, self.closes())));
        }
        if !allowed {
            return refused(403);
        }
        if method == "POST" {
            match length {
                Some(length) if length > MESSAGE_BYTES_MAX as u64 => return Err(413),
                Some(_) | None => {}
            }
            if is_repeated {
                return Err(400);
            }
        }
        if sids.first().is_none_or(|sid| sid.len() != 32 || !sid.bytes().all(|b| b.is_ascii_hexdigit())) {
            return refused(403);
        }
        let seq = match seqs.first() {
            None => None,
            Some(seq) if seq.starts_with('+') => return Err(400),
            Some(seq) => match seq.parse() {
                Ok(0) | Err(_) => return Err(400),
                Ok(seq) => Some(seq),
            },
        };
        let connect = values("connect").contains(&"true");
        if method == "GET" {
            if !self.accepts_streams() {
                return refused(406);
            }
            return Ok(Some((0, Outcome::Stream { connect, host }, true)));
        }
        if chunked {
            let Some((length, text)) = naive_chunks(body)? else { return Ok(None) };
            let poll = Outcome::Poll { connect, seq, host, body: text };
            return Ok(Some((length, poll, self.closes())));
        }
        let length = length.unwrap_or_default() as usize;
        let part = &body[..length.min(body.len())];
        match std::str::from_utf8(part) {
            Err(error) if part.len() == length || error.error_len().is_some() => Err(400),
            _ if part.len() < length => Ok(None),
            Ok(text) => {
                Ok(Some((length, Outcome::Poll { connect, seq, host, body: text.into() }, self.closes())))
            }
            Err(_) => unreachable!("the part has the announced length"),
        }
    }

    fn is_chunked(&self) -> Result<bool, u16> {
        let values = self.all("transfer-encoding");
        if values.is_empty() {
            return Ok(false);
        }
        let all = String::from_utf8_lossy(&values.join(&b","[..])).to_ascii_lowercase();
        let mut codings: Vec<&str> =
            all.split(',').map(str::trim_ascii).filter(|it| !it.is_empty()).collect();
        let last = codings.pop();
        if self.is_http_1_0 || last != Some("chunked") || codings.contains(&"chunked") {
            return Err(400);
        }
        if codings.is_empty() { Ok(true) } else { Err(501) }
    }

    fn length(&self) -> Result<Option<u64>, u16> {
        let Some(text) = self.all("content-length").first().copied() else { return Ok(None) };
        let text = std::str::from_utf8(text).map_err(|_| 400u16)?;
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !is_number || !self.all("transfer-encoding").is_empty() {
            return Err(400);
        }
        text.parse().map(Some).map_err(|_| 400)
    }

    fn target_parts(&self) -> Option<(Option<&str>, &str, &str)> {
        let target = &self.target[..];
        let (authority, rest) = if target.starts_with('/') {
            (None, target)
        } else {
            let lower = target.to_ascii_lowercase();
            let scheme = ["http://", "https://"].iter().find(|scheme| lower.starts_with(**scheme))?;
            let rest = &target[scheme.len()..];
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            if end == 0 {
                return None;
            }
            (Some(&rest[..end]), &rest[end..])
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        Some((authority, if path.is_empty() { "/" } else { path }, query))
    }

    fn accepts_streams(&self) -> bool {
        let all = self.all("accept").join(&b","[..]);
        let all = String::from_utf8_lossy(&all).to_ascii_lowercase();
        all.split(',').any(|element| {
            let parts: Vec<&str> =
                element.split(';').map(|part| part.trim_matches(|c| c == ' ' || c == '\t')).collect();
            let is_zero = |part: &&str| {
                part.strip_prefix("q=0").is_some_and(|rest| {
                    rest.is_empty() || rest.strip_prefix('.').is_some_and(|it| it.bytes().all(|b| b == b'0'))
                })
            };
            parts[0] == "text/event-stream" && !parts[1..].iter().any(is_zero)
        })
    }
}

/// Returns the length of a chunked body and its text, or `None` if it is incomplete.
fn naive_chunks(input: &[u8]) -> Result<Option<(usize, String)>, u16> {
    let mut text = Vec::new();
    let mut at = 0;
    let is_utf8 = |text: &[u8], is_complete: bool| match std::str::from_utf8(text) {
        Err(error) => !is_complete && error.error_len().is_none(),
        Ok(_) => true,
    };
    loop {
        let digits = input[at..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = input[at..at + digits].iter().fold(0u128, |size, digit| {
            size.saturating_mul(16).saturating_add(char::from(*digit).to_digit(16).unwrap().into())
        });
        if size > (MESSAGE_BYTES_MAX - text.len()) as u128 {
            return Err(413);
        }
        at += digits;
        if at == input.len() {
            return Ok(None);
        }
        let spaces = input[at..].iter().take_while(|byte| b" \t".contains(byte)).count();
        let is_line = match input.get(at + spaces) {
            None | Some(b';') => true,
            Some(b'\r') => spaces == 0,
            Some(_) => false,
        };
        if digits == 0 || !is_line {
            return Err(400);
        }
        let Some((_, end)) = naive_line(input, at)? else { return Ok(None) };
        at = end;
        if size == 0 {
            break;
        }
        let part = &input[at..input.len().min(at + size as usize)];
        text.extend_from_slice(part);
        at += part.len();
        if !is_utf8(&text, false) {
            return Err(400);
        }
        match &input[at..] {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] => at += 2,
            _ => return Err(400),
        }
    }
    loop {
        let start = at;
        let line = naive_line(input, at)?;
        let content = line.map_or(&input[start..], |(content, _)| content);
        let is_empty_line = content.is_empty() || (line.is_none() && content == b"\r");
        let colon = content.iter().position(|byte| !is_token(&[*byte]));
        let is_trailer = match colon {
            Some(colon) => colon > 0 && content[colon] == b':',
            None => line.is_none(),
        };
        if !is_empty_line && !is_trailer {
            return Err(400);
        }
        let Some((_, end)) = line else { return Ok(None) };
        at = end;
        if is_empty_line {
            break;
        }
    }
    if !is_utf8(&text, true) {
        return Err(400);
    }
    Ok(Some((at, String::from_utf8(text).expect("checked"))))
}

/// Returns the content of the line that starts here and the position behind its CR LF, or `None` if it does not end.
fn naive_line(input: &[u8], start: usize) -> Result<Option<(&[u8], usize)>, u16> {
    let is_text = |byte: &u8| (*byte >= b' ' && *byte != 0x7F) || *byte == b'\t';
    let len = input[start..].iter().take_while(|byte| is_text(byte)).count();
    match &input[start + len..] {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => Ok(Some((&input[start..start + len], start + len + 2))),
        _ => Err(400),
    }
}

fn is_target(target: &str) -> bool {
    !target.is_empty() && target.bytes().all(|b| b > b' ' && b != 0x7F)
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}
