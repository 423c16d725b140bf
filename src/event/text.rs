//! The text form of events, `<event path>:<callback id>=<JSON>`: parsing, writing, and writing answers.

use super::find::find_byte;
use std::io::{self, Write};

/// The data of an event without data (protocol.md, section 1). An empty data part has the same meaning.
const NULL: &str = "null";

/// The code of an answer that is not an error.
const OK: u16 = 200;

/// The parts of an event, borrowed from its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventText<'a> {
    /// The path as the peer wrote it. It is not clean and may be empty.
    pub path: &'a str,
    /// The callback id, or 0 if the peer wants no answer.
    pub callback: u64,
    /// The data, which is never empty and is not validated. It is one JSON text if the peer is honest, and `null` if
    /// the text had no data.
    pub data: &'a str,
}

/// The reason why a text is not an event. The server closes the connection that sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventTextError {
    #[error("there is no `:` behind the event path")]
    NoColon,
    #[error("there is no digit behind the event path")]
    NoDigits,
    #[error("there is no `=` behind the callback id")]
    NoEquals,
    #[error("the callback id is greater than 2^64-1")]
    CallbackTooLarge,
}

/// Splits the text of an event at the first `:` and at the `=` that must follow the digits behind it.
///
/// The data is not examined.
///
/// ```
/// let event = quickio::event::text::parse(r#"/chat/say:7={"text":"hi"}"#).unwrap();
/// assert_eq!((event.path, event.callback, event.data), ("/chat/say", 7, r#"{"text":"hi"}"#));
/// ```
pub fn parse(text: &str) -> Result<EventText<'_>, EventTextError> {
    let colon = find_byte(text.as_bytes(), b':').ok_or(EventTextError::NoColon)?;
    let (path, rest) = (&text[..colon], &text[colon + 1..]);
    let (callback, digits) = leading_number(rest.as_bytes())?;
    let data = rest[digits..].strip_prefix('=').ok_or(EventTextError::NoEquals)?;
    Ok(EventText { path, callback, data: or_null(data) })
}

/// Returns the length of the text that [`write_event`] appends.
pub fn event_len(path: &str, callback: u64, data: &str) -> usize {
    path.len() + 1 + digits(callback) + 1 + or_null(data).len()
}

/// Appends the text of an event. `path` must be clean. `data` is one JSON text, or empty, which is written as `null`.
pub fn write_event(out: &mut Vec<u8>, path: &str, callback: u64, data: &str) {
    out.reserve(event_len(path, callback, data));
    write_all(out, &[path, ":", itoa::Buffer::new().format(callback), "=", or_null(data)]);
}

/// The server's answer to an event with a callback (protocol.md, section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerText<'a> {
    /// The callback id of the client's event.
    pub id: u64,
    /// The callback that the server offers with its answer, or 0. It is written as 0 if the code is not 200.
    pub server_callback: u64,
    /// 200, or the code of an error.
    pub code: u16,
    /// One JSON text, or empty, which is written as `null`.
    pub data: &'a str,
    /// The error message. It is not written if the code is 200.
    pub message: Option<&'a str>,
}

const ANSWER_PATH: &str = "/qio/callback/";
const ANSWER_CODE: &str = r#"={"code":"#;
const ANSWER_DATA: &str = r#","data":"#;
const ANSWER_MESSAGE: &str = r#","err_msg":"#;

impl AnswerText<'_> {
    /// Returns the length of the text that [`write`](Self::write) appends. It is exact, because a frame's header
    /// precedes the text.
    #[expect(clippy::len_without_is_empty, reason = "an answer is never empty")]
    pub fn len(&self) -> usize {
        let numbers = digits(self.id) + digits(self.offered_callback()) + digits(u64::from(self.code));
        let head = ANSWER_PATH.len() + ":".len() + ANSWER_CODE.len() + ANSWER_DATA.len() + numbers;
        head + or_null(self.data).len() + self.message_len() + "}".len()
    }

    /// Appends the answer as the text of an event.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.len());
        let (mut id, mut callback, mut code) =
            (itoa::Buffer::new(), itoa::Buffer::new(), itoa::Buffer::new());
        write_all(out, &[ANSWER_PATH, id.format(self.id), ":", callback.format(self.offered_callback())]);
        write_all(out, &[ANSWER_CODE, code.format(self.code), ANSWER_DATA, or_null(self.data)]);
        if self.code != OK {
            out.extend_from_slice(ANSWER_MESSAGE.as_bytes());
            self.write_message(&mut *out);
        }
        out.push(b'}');
    }

    fn offered_callback(&self) -> u64 {
        if self.code == OK { self.server_callback } else { 0 }
    }

    fn message_len(&self) -> usize {
        if self.code == OK {
            return 0;
        }
        let mut count = LengthCounter(ANSWER_MESSAGE.len());
        self.write_message(&mut count);
        count.0
    }

    /// Writes the message as a JSON string or `null`. It is measured by the same function, which keeps the two
    /// consistent.
    fn write_message(&self, out: impl Write) {
        serde_json::to_writer(out, &self.message)
            .expect("a string can be written as JSON, and the writer does not fail");
    }
}

/// A writer that only counts bytes.
struct LengthCounter(usize);

impl Write for LengthCounter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Parses the number at the beginning of `bytes`. Returns it with the number of its digits.
fn leading_number(bytes: &[u8]) -> Result<(u64, usize), EventTextError> {
    let mut number: u64 = 0;
    let mut digits = 0;
    for byte in bytes {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        let shifted = number.checked_mul(10).ok_or(EventTextError::CallbackTooLarge)?;
        number = shifted.checked_add(u64::from(digit)).ok_or(EventTextError::CallbackTooLarge)?;
        digits += 1;
    }
    if digits == 0 { Err(EventTextError::NoDigits) } else { Ok((number, digits)) }
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

fn or_null(data: &str) -> &str {
    if data.is_empty() { NULL } else { data }
}

fn write_all(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_split() {
        let cases = [
            ("/chat/say:7={}", "/chat/say", 7, "{}"),
            ("/a:0=", "/a", 0, "null"),
            ("/a:1= ", "/a", 1, " "),
            (":1=2", "", 1, "2"),
            ("/a:18446744073709551615=1", "/a", u64::MAX, "1"),
            ("/a:00000000000000000000000007=1", "/a", 7, "1"),
            ("/a:1==:", "/a", 1, "=:"),
            ("/a:1=\"b:2=c\"", "/a", 1, "\"b:2=c\""),
            ("\u{e9}:1=\u{e9}", "\u{e9}", 1, "\u{e9}"),
        ];
        for (text, path, callback, data) in cases {
            assert_eq!(parse(text), Ok(EventText { path, callback, data }), "{text}");
        }
    }

    #[test]
    fn malformed_texts_are_errors() {
        let cases = [
            ("", EventTextError::NoColon),
            ("/qio/ohai", EventTextError::NoColon),
            ("/a=1", EventTextError::NoColon),
            ("/a:", EventTextError::NoDigits),
            ("/a:=", EventTextError::NoDigits),
            ("/a:-1=", EventTextError::NoDigits),
            ("/a:+1=", EventTextError::NoDigits),
            ("/a: 1=", EventTextError::NoDigits),
            ("/a::1=", EventTextError::NoDigits),
            ("/a:\u{661}=", EventTextError::NoDigits), // a digit of Unicode, but not of the protocol
            ("/a:1", EventTextError::NoEquals),
            ("/a:1 =", EventTextError::NoEquals),
            ("/a:1\u{e9}=", EventTextError::NoEquals),
            ("/a:18446744073709551616=", EventTextError::CallbackTooLarge),
            ("/a:28446744073709551615=", EventTextError::CallbackTooLarge),
            ("/a:99999999999999999999999=", EventTextError::CallbackTooLarge),
        ];
        for (text, malformed) in cases {
            assert_eq!(parse(text), Err(malformed), "{text}");
        }
    }

    #[test]
    fn every_prefix_of_an_event_is_malformed_or_has_less_data() {
        let text = "/chat/say:42={\"text\":\"hi\"}";
        for end in 0..text.len() {
            match (end, parse(&text[..end])) {
                (0..=9, result) => assert_eq!(result, Err(EventTextError::NoColon)),
                (10, result) => assert_eq!(result, Err(EventTextError::NoDigits)),
                (11..=12, result) => assert_eq!(result, Err(EventTextError::NoEquals)),
                (13, result) => assert_eq!(result.unwrap().data, "null"),
                (_, result) => assert_eq!(result.unwrap().data, &text[13..end]),
            }
        }
    }

    #[test]
    fn events_are_written() {
        let cases = [
            ("/a", 0, "", "/a:0=null"),
            ("/a", 9, "1", "/a:9=1"),
            ("/a", 10, "{}", "/a:10={}"),
            ("", u64::MAX, "[]", ":18446744073709551615=[]"),
        ];
        for (path, callback, data, text) in cases {
            let mut out = Vec::new();
            write_event(&mut out, path, callback, data);
            assert_eq!(out, text.as_bytes());
            assert_eq!(event_len(path, callback, data), text.len());
        }
    }

    #[test]
    fn digits_are_counted() {
        let powers = (0..20).map(|power| 10_u64.pow(power));
        for number in powers.flat_map(|power| [power - 1, power, power + 1]).chain([u64::MAX]) {
            assert_eq!(digits(number), number.to_string().len());
        }
    }

    #[test]
    fn answers_are_written() {
        let ok = AnswerText { id: 1, server_callback: 2, code: 200, data: "[3]", message: None };
        let cases = [
            (ok, r#"/qio/callback/1:2={"code":200,"data":[3]}"#),
            (AnswerText { data: "", ..ok }, r#"/qio/callback/1:2={"code":200,"data":null}"#),
            (AnswerText { message: Some("x"), ..ok }, r#"/qio/callback/1:2={"code":200,"data":[3]}"#),
            (AnswerText { code: 404, ..ok }, r#"/qio/callback/1:0={"code":404,"data":[3],"err_msg":null}"#),
            (
                AnswerText { code: 400, data: "", message: Some("no \"path\"\\\n\u{1}\u{7f}\u{e9}/"), ..ok },
                "/qio/callback/1:0={\"code\":400,\"data\":null,\
                 \"err_msg\":\"no \\\"path\\\"\\\\\\n\\u0001\u{7f}\u{e9}/\"}",
            ),
            (AnswerText { code: 0, ..ok }, r#"/qio/callback/1:0={"code":0,"data":[3],"err_msg":null}"#),
        ];
        for (answer, text) in cases {
            let mut out = Vec::new();
            answer.write(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
            assert_eq!(answer.len(), text.len());
        }
    }

    #[test]
    fn hostile_numbers_and_paths() {
        let zeros = format!("/a:{}7=1", "0".repeat(1 << 16));
        assert_eq!(parse(&zeros).map(|event| event.callback), Ok(7));
        let nines = format!("/a:{}=1", "9".repeat(1 << 16));
        assert_eq!(parse(&nines), Err(EventTextError::CallbackTooLarge));
        let slashes = "/".repeat(1 << 16);
        assert_eq!(parse(&slashes), Err(EventTextError::NoColon));
        assert_eq!(parse(&format!("{slashes}:1=")).unwrap().path.len(), 1 << 16);
    }
}
