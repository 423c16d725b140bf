//! Texts of workers, which may have any bytes: what a program prints need not be UTF-8, and strings of JavaScript and Python
//! may have half of a surrogate pair, which JSON can express and UTF-8 cannot.

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use std::ffi::OsString;
use std::fmt::{self, Formatter, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::str;

/// Returns bytes as text: half of a surrogate pair is written as `\ud800`, and other bytes that are not UTF-8 as `\xff`.
pub fn readable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let valid = match str::from_utf8(rest) {
            Ok(valid) => valid.len(),
            Err(error) => error.valid_up_to(),
        };
        text.push_str(str::from_utf8(&rest[..valid]).expect("from_utf8 has found it valid"));
        rest = &rest[valid..];
        if let Some(half) = surrogate(rest) {
            // Writing to a String never fails.
            let _ = write!(text, "\\u{half:04x}");
            rest = &rest[3..];
        } else if let [byte, after @ ..] = rest {
            let _ = write!(text, "\\x{byte:02x}");
            rest = after;
        }
    }
    text
}

/// Returns the half of a surrogate pair with which the bytes begin, in the form of UTF-8 (WTF-8).
fn surrogate(bytes: &[u8]) -> Option<u16> {
    match *bytes {
        [0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf, ..] => {
            Some(0xd000 | u16::from(second & 0x3f) << 6 | u16::from(third & 0x3f))
        }
        _ => None,
    }
}

/// A string of a JSON text that may have any bytes, made [`readable`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnyText(pub String);

impl<'de> Deserialize<'de> for AnyText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AnyText, D::Error> {
        deserializer.deserialize_bytes(StringBytes).map(|bytes| AnyText(readable(&bytes)))
    }
}

/// The path of a file in a JSON text. Python writes a byte of a path that is not UTF-8 as half of a surrogate pair, U+DC80
/// to U+DCFF (PEP 383).
#[derive(Clone, Debug, PartialEq)]
pub struct AnyPath(pub PathBuf);

impl<'de> Deserialize<'de> for AnyPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AnyPath, D::Error> {
        let wtf8 = deserializer.deserialize_bytes(StringBytes)?;
        let (mut path, mut rest) = (Vec::with_capacity(wtf8.len()), &wtf8[..]);
        while let [byte, after @ ..] = rest {
            match surrogate(rest) {
                Some(half @ 0xdc80..=0xdcff) => {
                    path.push(half as u8);
                    rest = &rest[3..];
                }
                _ => {
                    path.push(*byte);
                    rest = after;
                }
            }
        }
        Ok(AnyPath(OsString::from_vec(path).into()))
    }
}

/// The bytes of a string. For bytes, the parser accepts half of a surrogate pair.
struct StringBytes;

impl Visitor<'_> for StringBytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
        Ok(text.into())
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_utf8_are_escaped() {
        let table: &[(&[u8], &str)] = &[
            (b"", ""),
            ("a\u{fc}\u{1f600}\0\n".as_bytes(), "a\u{fc}\u{1f600}\0\n"),
            (b"\xff", r"\xff"),
            (b"a\xc3b\xed\xa0", r"a\xc3b\xed\xa0"),
            (b"a\xed\xa0\x80b\xed\xbf\xbf", r"a\ud800b\udfff"),
            (b"\xed\x9f\xbf", "\u{d7ff}"),
        ];
        for (bytes, expected) in table {
            assert_eq!(readable(bytes), *expected, "{bytes:x?}");
        }
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                let bytes = [first, second, 0x80];
                let is_valid = str::from_utf8(&bytes).is_ok();
                assert_eq!(readable(&bytes) == String::from_utf8_lossy(&bytes), is_valid, "{bytes:x?}");
            }
        }
    }

    #[test]
    fn strings_of_json_may_have_anything() {
        let read = |json: &[u8]| serde_json::from_slice::<AnyText>(json).map(|text| text.0).map_err(|_| ());
        let table: &[(&[u8], Result<&str, ()>)] = &[
            (br#""a\n\u00fc""#, Ok("a\n\u{fc}")),
            (br#""\ud83d\ude00""#, Ok("\u{1f600}")),
            (br#""\ud800""#, Ok(r"\ud800")),
            (br#""\udc00\ud800x""#, Ok(r"\udc00\ud800x")),
            (br#""\ud800\n""#, Ok("\\ud800\n")),
            (br#""\u0000""#, Ok("\0")),
            (b"\"\xff\"", Ok(r"\xff")),
            (br#""\u12""#, Err(())),
            (b"1", Err(())),
            (b"[1]", Err(())),
        ];
        for (json, expected) in table {
            assert_eq!(read(json), expected.map(str::to_owned), "{}", json.escape_ascii());
        }
    }

    #[test]
    fn paths_may_have_any_bytes() {
        let read = |json: &str| serde_json::from_str::<AnyPath>(json).unwrap().0.into_os_string().into_vec();
        assert_eq!(read(r#""/a/\u00fc.py""#), "/a/\u{fc}.py".as_bytes());
        assert_eq!(read(r#""/a/\udcff\udc80.py""#), b"/a/\xff\x80.py");
        assert_eq!(read(r#""/a/\ud800""#), b"/a/\xed\xa0\x80");
    }
}
