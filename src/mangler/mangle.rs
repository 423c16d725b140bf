//! A head into a mangled one. What a mode does not touch stays byte for byte.

use std::ops::Range;

use httparse::Header;

use crate::config::clienttest::Mode;
use crate::limits::HTTP_HEADERS_MAX;

/// What a mode does to one header.
#[derive(Clone, Copy)]
enum Edit {
    /// Its lines vanish.
    Remove,
    /// It has this value then, also where there was none.
    Set(&'static str),
    /// The first character of its value is another then: a key stays a key, an accept becomes wrong.
    Alter,
}

/// The request's head that goes to the server.
pub(super) fn request(mode: Mode, head: &[u8]) -> Vec<u8> {
    let (name, edit) = match mode {
        Mode::ConnectionRemoved => ("Connection", Edit::Remove),
        Mode::UpgradeRemoved => ("Upgrade", Edit::Remove),
        Mode::KeyRemoved => ("Sec-WebSocket-Key", Edit::Remove),
        Mode::KeyChanged => ("Sec-WebSocket-Key", Edit::Alter),
        Mode::VersionRemoved => ("Sec-WebSocket-Version", Edit::Remove),
        // 13 is the only one that was ever a standard; up to 12 some servers know drafts.
        Mode::VersionChanged => ("Sec-WebSocket-Version", Edit::Set("99")),
        Mode::ProtocolRemoved => ("Sec-WebSocket-Protocol", Edit::Remove),
        Mode::ProtocolChanged => ("Sec-WebSocket-Protocol", Edit::Set("mangled")),
        _ => return head.to_vec(),
    };
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(_) => edited(head, request.headers, name, edit),
        Err(_) => head.to_vec(), // it was parsed before
    }
}

/// The head of a 101 that goes to the client; half of it where the connection is to be cut.
pub(super) fn answer(mode: Mode, head: &[u8]) -> Vec<u8> {
    let (name, edit) = match mode {
        Mode::AnswerConnectionRemoved => ("Connection", Edit::Remove),
        Mode::AnswerUpgradeRemoved => ("Upgrade", Edit::Remove),
        Mode::AnswerProtocolRemoved => ("Sec-WebSocket-Protocol", Edit::Remove),
        Mode::AnswerProtocolChanged => ("Sec-WebSocket-Protocol", Edit::Set("mangled")),
        Mode::AcceptRemoved => ("Sec-WebSocket-Accept", Edit::Remove),
        Mode::AcceptChanged => ("Sec-WebSocket-Accept", Edit::Alter),
        Mode::Status200 => return with_status_200(head),
        Mode::Cut => return head[..head.len() / 2].to_vec(),
        _ => return head.to_vec(),
    };
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    match answer.parse(head) {
        Ok(_) => edited(head, answer.headers, name, edit),
        Err(_) => head.to_vec(), // it was parsed before
    }
}

fn with_status_200(head: &[u8]) -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\n", &head[line_end(head, 0)..]].concat()
}

/// The head with one header edited. `headers` are slices of `head`.
fn edited(head: &[u8], headers: &[Header<'_>], name: &str, edit: Edit) -> Vec<u8> {
    let mut out = Vec::with_capacity(head.len() + 64);
    let mut kept = 0;
    for header in headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)) {
        let line = line_of(head, header);
        out.extend_from_slice(&head[kept..line.start]);
        if let Edit::Alter = edit {
            write_line(&mut out, header.name, &altered(header.value));
        }
        kept = line.end;
    }
    let last_line = empty_line(head);
    out.extend_from_slice(&head[kept..last_line]);
    if let Edit::Set(value) = edit {
        write_line(&mut out, name, value.as_bytes());
    }
    out.extend_from_slice(&head[last_line..]);
    out
}

fn write_line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Another first character, of the base64 alphabet.
fn altered(value: &[u8]) -> Vec<u8> {
    let first = if value.first() == Some(&b'A') { b'B' } else { b'A' };
    let rest = value.get(1..).unwrap_or_default();
    [&[first], rest].concat()
}

/// The whole line of a header, its line end included. Values have no line ends in them: folded lines are not parsed.
fn line_of(head: &[u8], header: &Header<'_>) -> Range<usize> {
    let start = header.name.as_ptr().addr() - head.as_ptr().addr();
    start..line_end(head, start)
}

fn line_end(head: &[u8], from: usize) -> usize {
    head[from..].iter().position(|byte| *byte == b'\n').map_or(head.len(), |at| from + at + 1)
}

/// Where the empty line begins that ends a whole head.
fn empty_line(head: &[u8]) -> usize {
    let before = &head[..head.len().saturating_sub(1)];
    before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "GET /?a=b HTTP/1.1\r\nHost: h\r\nconnection:keep-alive,  Upgrade\r\nUpgrade: websocket \r\n\
                           sec-websocket-KEY:\tdGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Protocol: quickio\r\nX-Empty:\r\n\r\n";
    const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: quickio\r\n\r\n";

    /// What a mode takes out of the request and puts in its place; then the same for the answer.
    type Row = (Mode, [&'static str; 2], [&'static str; 2]);

    const SAME: [&str; 2] = ["", ""];

    const TABLE: &[Row] = &[
        (Mode::None, SAME, SAME),
        (Mode::Status200, SAME, ["HTTP/1.1 101 Switching Protocols\r\n", "HTTP/1.1 200 OK\r\n"]),
        (Mode::ConnectionRemoved, ["connection:keep-alive,  Upgrade\r\n", ""], SAME),
        (Mode::UpgradeRemoved, ["Upgrade: websocket \r\n", ""], SAME),
        (Mode::KeyRemoved, ["sec-websocket-KEY:\tdGhlIHNhbXBsZSBub25jZQ==\r\n", ""], SAME),
        (
            Mode::KeyChanged,
            ["sec-websocket-KEY:\tdGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-KEY: AGhlIHNhbXBsZSBub25jZQ=="],
            SAME,
        ),
        (Mode::VersionRemoved, ["Sec-WebSocket-Version: 13\r\n", ""], SAME),
        (
            Mode::VersionChanged,
            [
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: quickio\r\nX-Empty:\r\n",
                "Sec-WebSocket-Protocol: quickio\r\nX-Empty:\r\nSec-WebSocket-Version: 99\r\n",
            ],
            SAME,
        ),
        (Mode::ProtocolRemoved, ["Sec-WebSocket-Protocol: quickio\r\n", ""], SAME),
        (
            Mode::ProtocolChanged,
            [
                "Sec-WebSocket-Protocol: quickio\r\nX-Empty:\r\n",
                "X-Empty:\r\nSec-WebSocket-Protocol: mangled\r\n",
            ],
            SAME,
        ),
        (Mode::AnswerConnectionRemoved, SAME, ["Connection: Upgrade\r\n", ""]),
        (Mode::AnswerUpgradeRemoved, SAME, ["Upgrade: websocket\r\n", ""]),
        (Mode::AnswerProtocolRemoved, SAME, ["Sec-WebSocket-Protocol: quickio\r\n", ""]),
        (Mode::AnswerProtocolChanged, SAME, ["Protocol: quickio", "Protocol: mangled"]),
        (Mode::AcceptRemoved, SAME, ["Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", ""]),
        (Mode::AcceptChanged, SAME, ["Accept: s3", "Accept: A3"]),
        (Mode::Swallow, SAME, SAME),
        (Mode::Cut, SAME, [ANSWER.split_at(ANSWER.len() / 2).1, ""]),
    ];

    fn replaced(head: &str, [from, to]: [&str; 2]) -> String {
        assert!(head.contains(from), "{from:?}");
        head.replacen(from, to, 1)
    }

    #[test]
    fn every_mode_changes_just_what_it_says() {
        assert_eq!(TABLE.iter().map(|row| row.0).collect::<Vec<Mode>>(), Mode::ALL);
        for (mode, in_request, in_answer) in TABLE {
            let mangled = request(*mode, REQUEST.as_bytes());
            assert_eq!(String::from_utf8(mangled).unwrap(), replaced(REQUEST, *in_request), "{mode:?}");
            let mangled = answer(*mode, ANSWER.as_bytes());
            assert_eq!(String::from_utf8(mangled).unwrap(), replaced(ANSWER, *in_answer), "{mode:?}");
        }
    }

    #[test]
    fn repeated_headers_and_bare_line_feeds() {
        for (mode, head, expected) in [
            (
                Mode::UpgradeRemoved,
                "GET / HTTP/1.1\nUpgrade: a\nX: y\nupgrade: b\n\n",
                "GET / HTTP/1.1\nX: y\n\n",
            ),
            (
                Mode::VersionChanged,
                "\r\nGET / HTTP/1.1\n\n",
                "\r\nGET / HTTP/1.1\nSec-WebSocket-Version: 99\r\n\n",
            ),
            (
                Mode::ProtocolChanged,
                "GET / HTTP/1.1\r\nSec-WebSocket-Protocol: a\r\nsec-websocket-protocol:b\r\n\r\n",
                "GET / HTTP/1.1\r\nSec-WebSocket-Protocol: mangled\r\n\r\n",
            ),
            (
                Mode::KeyChanged,
                "GET / HTTP/1.1\r\nSec-WebSocket-Key:\r\nSec-WebSocket-Key: Ab\r\n\r\n",
                "GET / HTTP/1.1\r\nSec-WebSocket-Key: A\r\nSec-WebSocket-Key: Bb\r\n\r\n",
            ),
            (Mode::KeyChanged, "GET / HTTP/1.1\r\nA: b\r\n\r\n", "GET / HTTP/1.1\r\nA: b\r\n\r\n"),
        ] {
            assert_eq!(String::from_utf8(request(mode, head.as_bytes())).unwrap(), expected);
        }
    }
}
