//! The output of received events: their form, their number, and a reader that may end.

use super::connect::{self, ClientError};
use rustix::event::PollFlags;
use std::borrow::Cow;
use std::io::{self, ErrorKind, IsTerminal, Stdout, Write};
use std::os::fd::{AsFd, BorrowedFd};

/// The number of bytes that are gathered before they are written.
const GATHERED_BYTES: usize = 64 * 1024;

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineForm {
    /// A path, a space and the data.
    Plain,
    /// The data.
    Data,
    /// An object of JSON with the path and the data.
    Json,
}

impl LineForm {
    /// Returns the form that the switches select.
    pub(super) fn of(is_json: bool, is_data: bool) -> LineForm {
        match (is_json, is_data) {
            (true, _) => LineForm::Json,
            (false, true) => LineForm::Data,
            (false, false) => LineForm::Plain,
        }
    }

    /// Appends a line. A path has no characters that JSON escapes.
    fn write(self, out: &mut Vec<u8>, path: &str, data: &str) {
        let (before, after) = match self {
            LineForm::Plain => (format!("{path} "), ""),
            LineForm::Data => (String::new(), ""),
            LineForm::Json => (format!("{{\"path\":\"{path}\",\"data\":"), "}"),
        };
        for part in [&before, data, after, "\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

/// Standard output, and the number of events that are still wanted.
#[derive(Debug)]
pub(super) struct ReceivedOutput {
    form: LineForm,
    missing: Option<u64>,
    gathered: Vec<u8>,
    stdout: Stdout,
    is_terminal: bool,
}

impl ReceivedOutput {
    /// Prepares standard output for this number of events, or any number.
    pub(super) fn new(form: LineForm, count: Option<u64>) -> ReceivedOutput {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        ReceivedOutput { form, missing: count, gathered: Vec::new(), stdout, is_terminal }
    }

    /// Returns the number of events that are still wanted, if it was given.
    pub(super) fn missing(&self) -> Option<u64> {
        self.missing
    }

    /// Adds an event. Returns `false` if no further one is wanted.
    pub(super) fn add(&mut self, path: &str, data: &str) -> Result<bool, ClientError> {
        self.form.write(&mut self.gathered, path, &single_line(data, self.is_terminal));
        if let Some(missing) = &mut self.missing {
            *missing = missing.saturating_sub(1);
        }
        if self.missing == Some(0) {
            self.flush()?;
            return Ok(false);
        }
        if self.gathered.len() >= GATHERED_BYTES { self.flush() } else { Ok(true) }
    }

    /// Writes what was gathered. Returns `false` if nobody reads it.
    pub(super) fn flush(&mut self) -> Result<bool, ClientError> {
        let written = self.stdout.write_all(&self.gathered).and_then(|()| self.stdout.flush());
        self.gathered.clear();
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.missing = None;
                Ok(false)
            }
            Err(error) => Err(connect::output_failed(&error)),
        }
    }

    /// Returns the descriptor, which reports an error as soon as nobody reads it.
    pub(super) fn interest(&self) -> (Option<BorrowedFd<'_>>, PollFlags) {
        (Some(self.stdout.as_fd()), PollFlags::empty())
    }
}

/// Returns data on a single line. JSON has line ends only between its tokens, where a space means the same. On a terminal,
/// characters that change how it shows text are written as JSON escapes them.
fn single_line(data: &str, is_terminal: bool) -> Cow<'_, str> {
    let is_hidden = |character: char| {
        is_terminal
            && matches!(character, '\u{7f}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !data.chars().any(|character| character.is_ascii_control() || is_hidden(character)) {
        return Cow::Borrowed(data);
    }
    let mut line = String::with_capacity(data.len());
    for character in data.chars() {
        match character {
            _ if is_hidden(character) => line += &format!("\\u{:04x}", u32::from(character)),
            '\u{7f}' => line.push(character),
            _ if character.is_ascii_control() => line.push(' '),
            _ => line.push(character),
        }
    }
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (form, line) in [
            (LineForm::Plain, "/a/b {\"c\":1}\n"),
            (LineForm::Data, "{\"c\":1}\n"),
            (LineForm::Json, "{\"path\":\"/a/b\",\"data\":{\"c\":1}}\n"),
        ] {
            let mut out = Vec::new();
            form.write(&mut out, "/a/b", "{\"c\":1}");
            assert_eq!(String::from_utf8(out).unwrap(), line);
        }
    }

    #[test]
    fn data_is_a_single_line_that_a_terminal_shows_as_it_is() {
        for (data, plain, shown) in [
            ("{\"a\": 1}", "{\"a\": 1}", "{\"a\": 1}"),
            ("{\r\n\t\"a\":\n1}", "{   \"a\": 1}", "{   \"a\": 1}"),
            ("\"\u{9b}2J\u{7f}ü\u{202e}\"", "\"\u{9b}2J\u{7f}ü\u{202e}\"", "\"\\u009b2J\\u007fü\\u202e\""),
        ] {
            assert_eq!(single_line(data, false), plain);
            assert_eq!(single_line(data, true), shown);
        }
    }
}
