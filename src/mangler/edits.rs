//! The edits of the modes: a head into a mangled one. Everything that a mode does not edit stays byte for byte.

use std::ops::Range;

use httparse::Header;

use crate::config::clienttest::Mode;
use crate::limits::HTTP_HEADERS_MAX;

/// The edit of one header.
#[derive(Clone, Copy)]
enum HeaderEdit {
    /// Its lines are removed.
    Remove,
    /// Sets this value. The header is added if there was none.
    Set(&'static str),
    /// The first character of its value is replaced: a key stays a key, an accept becomes wrong.
    Alter,
}

/// Returns the head of a request that goes to the server.
pub(super) fn request(mode: Mode, head: &[u8]) -> Vec<u8> {
    let (name, edit) = match mode {
        Mode::ConnectionRemoved => ("Connection", HeaderEdit::Remove),
        Mode::UpgradeRemoved => ("Upgrade", HeaderEdit::Remove),
        Mode::KeyRemoved => ("Sec-WebSocket-Key", HeaderEdit::Remove),
        Mode::KeyChanged => ("Sec-WebSocket-Key", HeaderEdit::Alter),
        Mode::VersionRemoved => ("Sec-WebSocket-Version", HeaderEdit::Remove),
        // 13 is the only version that was ever a standard. Some servers know drafts, which are up to 12.
        Mode::VersionChanged => ("Sec-WebSocket-Version", HeaderEdit::Set("99")),
        Mode::ProtocolRemoved => ("Sec-WebSocket-Protocol", HeaderEdit::Remove),
        Mode::ProtocolChanged => ("Sec-WebSocket-Protocol", HeaderEdit::Set("mangled")),
        _ => return head.to_vec(),
    };
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(_) => edited(head, request.headers, name, edit),
        Err(_) => head.to_vec(), // it has been parsed before
    }
}

/// Returns the head of a 101 that goes to the client: the first half of it if the connection is to be cut.
pub(super) fn response(mode: Mode, head: &[u8]) -> Vec<u8> {
    let (name, edit) = match mode {
        Mode::AnswerConnectionRemoved => ("Connection", HeaderEdit::Remove),
        Mode::AnswerUpgradeRemoved => ("Upgrade", HeaderEdit::Remove),
        Mode::AnswerProtocolRemoved => ("Sec-WebSocket-Protocol", HeaderEdit::Remove),
        Mode::AnswerProtocolChanged => ("Sec-WebSocket-Protocol", HeaderEdit::Set("mangled")),
        Mode::AcceptRemoved => ("Sec-WebSocket-Accept", HeaderEdit::Remove),
        Mode::AcceptChanged => ("Sec-WebSocket-Accept", HeaderEdit::Alter),
        Mode::Status200 => return with_status_200(head),
        Mode::Cut => return head[..head.len() / 2].to_vec(),
        _ => return head.to_vec(),
    };
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(head) {
        Ok(_) => edited(head, response.headers, name, edit),
        Err(_) => head.to_vec(), // it has been parsed before
    }
}

fn with_status_200(head: &[u8]) -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\n", &head[line_end(head, 0)..]].concat()
}

/// Returns the head with one header edited. `headers` are slices of `head`.
fn edited(head: &[u8], headers: &[Header<'_>], name: &str, edit: HeaderEdit) -> Vec<u8> {
    let mut out = Vec::with_capacity(head.len() + 64);
    let mut kept = 0;
    for header in headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)) {
        let line = line_of(head, header);
        out.extend_from_slice(&head[kept..line.start]);
        if let HeaderEdit::Alter = edit {
            write_line(&mut out, header.name, &altered(header.value));
        }
        kept = line.end;
    }
    let last_line = empty_line(head);
    out.extend_from_slice(&head[kept..last_line]);
    if let HeaderEdit::Set(value) = edit {
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

/// Returns the value with another first character, of the base64 alphabet.
fn altered(value: &[u8]) -> Vec<u8> {
    let first = if value.first() == Some(&b'A') { b'B' } else { b'A' };
    let rest = value.get(1..).unwrap_or_default();
    [&[first], rest].concat()
}

/// Returns the line of a header, including its end. Values have no line ends in them: folded lines are not parsed.
fn line_of(head: &[u8], header: &Header<'_>) -> Range<usize> {
    let start = header.name.as_ptr().addr() - head.as_ptr().addr();
    start..line_end(head, start)
}

fn line_end(head: &[u8], from: usize) -> usize {
    head[from..].iter().position(|byte| *byte == b'\n').map_or(head.len(), |at| from + at + 1)
}

/// Returns the start of the empty line that ends a complete head.
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
    const RESPONSE: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: quickio\r\n\r\n";

    /// A mode, the text that it replaces in the request and the replacement, and the same for the response.
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
        (Mode::Cut, SAME, [RESPONSE.split_at(RESPONSE.len() / 2).1, ""]),
    ];

    fn replaced(head: &str, [from, to]: [&str; 2]) -> String {
        assert!(head.contains(from), "{from:?}");
        head.replacen(from, to, 1)
    }

    #[test]
    fn every_mode_edits_only_its_header() {
        assert_eq!(TABLE.iter().map(|row| row.0).collect::<Vec<Mode>>(), Mode::ALL);
        for (mode, in_request, in_response) in TABLE {
            let mangled = request(*mode, REQUEST.as_bytes());
            assert_eq!(String::from_utf8(mangled).unwrap(), replaced(REQUEST, *in_request), "{mode:?}");
            let mangled = response(*mode, RESPONSE.as_bytes());
            assert_eq!(String::from_utf8(mangled).unwrap(), replaced(RESPONSE, *in_response), "{mode:?}");
        }
    }

    #[test]
    fn repeated_headers_and_bare_line_feeds_are_edited() {
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
