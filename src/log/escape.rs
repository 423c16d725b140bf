//! Text from outside, made fit for a log line.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter, Write};

use crate::limits::LOG_TEXT_BYTES_MAX;

/// Bytes from outside, displayed as text that cannot break a log line or change how a terminal shows it: characters that
/// are not printable are escaped, bytes that are not UTF-8 are shown as `\xNN`, and only the first
/// [`LOG_TEXT_BYTES_MAX`] bytes are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Escaped<'a>(pub &'a [u8]);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let shown = self.0.get(..LOG_TEXT_BYTES_MAX).unwrap_or(self.0);
        for chunk in shown.utf8_chunks() {
            chunk.valid().chars().try_for_each(|character| write_escaped(f, character))?;
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        if shown.len() < self.0.len() { write!(f, "... ({} bytes)", self.0.len()) } else { Ok(()) }
    }
}

/// Writes a character, escaped if it is not printable: control characters, marks of direction, line separators.
fn write_escaped(f: &mut Formatter<'_>, character: char) -> fmt::Result {
    match character {
        '"' | '\'' => f.write_char(character),
        _ => write!(f, "{}", character.escape_debug()),
    }
}

/// The beginning of the second and further lines of a record.
const CONTINUATION: &[u8] = b"\n    | ";

/// Returns a record of the log, which ends with a line end, such that nothing in it can be taken for another record: its
/// further lines are indented, and control characters are escaped. The formatter leaves those in the values of some
/// fields. If the log has colours, sequences that change only the colour remain.
pub(super) fn contained(record: &[u8], has_colours: bool) -> Cow<'_, [u8]> {
    let (text, end) = record.split_at(record.len().saturating_sub(usize::from(record.ends_with(b"\n"))));
    // 0xC2 begins U+0080 to U+009F, the control characters that are not ASCII, and a few others.
    let is_harmless = |byte: u8| (!byte.is_ascii_control() || byte == b'\t') && byte != 0xc2;
    if text.iter().copied().all(is_harmless) {
        return Cow::Borrowed(record);
    }
    let mut contained = Vec::with_capacity(record.len() * 2);
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = after;
        match (*byte, after) {
            (b'\n', _) => contained.extend_from_slice(CONTINUATION),
            (b'\x1b', _) if has_colours && is_colour(after) => contained.push(*byte),
            (0xc2, [control @ 0x80..=0x9f, after @ ..]) => {
                rest = after;
                contained.extend(format!("\\u{{{control:x}}}").bytes());
            }
            (0xc2, _) => contained.push(*byte),
            (byte, _) if is_harmless(byte) => contained.push(byte),
            (byte, _) => contained.extend(byte.escape_ascii()),
        }
    }
    contained.extend_from_slice(end);
    Cow::Owned(contained)
}

/// Returns whether these bytes after an escape character change only the colour: `[`, numbers, `m`.
fn is_colour(after: &[u8]) -> bool {
    let Some(numbers) = after.strip_prefix(b"[") else { return false };
    numbers.iter().find(|byte| !matches!(byte, b'0'..=b'9' | b';')) == Some(&b'm')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_cannot_be_taken_for_two() {
        let table: &[(&[u8], &[u8])] = &[
            (b"a record\n", b"a record\n"),
            (b"", b""),
            (b"\n", b"\n"),
            (b"a\tb \xff\xc3\xbc\xc2\xa9\xc3\x9b\xc2\n", b"a\tb \xff\xc3\xbc\xc2\xa9\xc3\x9b\xc2\n"),
            (b"\xc2\x9b2J\xc2\x80\xc2\x9f\n", b"\\u{9b}2J\\u{80}\\u{9f}\n"),
            (b"a\nb\r\n\nc\n", b"a\n    | b\\r\n    | \n    | c\n"),
            (b"a\0\x0b\x7f\n", b"a\\x00\\x0b\\x7f\n"),
        ];
        for (record, expected) in table {
            for has_colours in [false, true] {
                let contained = contained(record, has_colours);
                assert_eq!(contained.as_ref(), *expected, "{}", record.escape_ascii());
            }
        }
    }

    #[test]
    fn only_a_log_with_colours_has_them_and_no_other_sequences() {
        let record = b"\x1b[31ma\x1b[0;1m \x1b[2J \x1b]0;title\x07 \x1b[31";
        let colours = b"\x1b[31ma\x1b[0;1m \\x1b[2J \\x1b]0;title\\x07 \\x1b[31";
        assert_eq!(contained(record, true).as_ref(), colours);
        let none = br"\x1b[31ma\x1b[0;1m \x1b[2J \x1b]0;title\x07 \x1b[31";
        assert_eq!(contained(record, false).as_ref(), none);
    }

    #[test]
    fn only_printable_text_is_displayed_as_it_is() {
        let marks = "\u{85}\u{9b}\u{202e}\u{2066}\u{2028}\u{2029}\u{feff}";
        let table: &[(&[u8], &str)] = &[
            (b"", ""),
            (b"https://example.com:8080", "https://example.com:8080"),
            ("\"gr\u{fc}n\" 'x' \u{1f600}".as_bytes(), "\"gr\u{fc}n\" 'x' \u{1f600}"),
            (b"a\nb\r\tc\0\x1b[31m\x7f", r"a\nb\r\tc\0\u{1b}[31m\u{7f}"),
            (b"\\n", r"\\n"),
            (b"\xff\xfea\xc3", r"\xff\xfea\xc3"),
            (marks.as_bytes(), r"\u{85}\u{9b}\u{202e}\u{2066}\u{2028}\u{2029}\u{feff}"),
            // A surrogate in the form of UTF-8.
            (b"\xed\xa0\x80", r"\xed\xa0\x80"),
        ];
        for (bytes, expected) in table {
            assert_eq!(Escaped(bytes).to_string(), *expected, "{bytes:x?}");
        }
    }

    #[test]
    fn no_bytes_break_a_line() {
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                let text = Escaped(&[first, second]).to_string();
                assert!(!text.contains(char::is_control), "{first:02x} {second:02x}: {text:?}");
            }
        }
    }

    #[test]
    fn long_text_is_cut() {
        let fits = "x".repeat(LOG_TEXT_BYTES_MAX);
        assert_eq!(Escaped(fits.as_bytes()).to_string(), fits);
        let longer = format!("{fits}y");
        let expected = format!("{fits}... ({} bytes)", longer.len());
        assert_eq!(Escaped(longer.as_bytes()).to_string(), expected);
        // A character that is cut is shown as bytes.
        let cut = format!("{}\u{fc}", "x".repeat(LOG_TEXT_BYTES_MAX - 1));
        assert!(Escaped(cut.as_bytes()).to_string().ends_with(r"x\xc3... (257 bytes)"));
    }
}
