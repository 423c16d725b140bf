//! `quickio pub`.

use super::args::{ArgumentError, Arguments};
use super::command::{Example, Flag, Invocation, Subcommand, no_details};
use super::connect::{self, ClientError, ServerTarget};
use super::lines::Lines;
use super::peer::{Peer, PeerAnswer, PeerError, PeerEvent};
use super::progress::ProgressLine;
use super::wait::EndSignals;
use crate::config;
use crate::event::path::Path;
use crate::log;
use rustix::event::PollFlags;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

pub(super) static COMMAND: Subcommand = Subcommand {
    name: "pub",
    summary: "Sends events to a server, and waits for the answers",
    usage: "[FLAG VALUE]... [PATH [DATA]]",
    about: "Sends the event PATH with DATA, which is JSON. Without DATA, each line of standard input is the data of an event. \
            Without PATH too, each line is a path, a space and data. Data that is missing is null.\n\n\
            The data of each answer is printed, unless it is null. An event that is refused or not answered is reported with \
            its line on standard error; the events after it are sent. The command does not connect again, and sends no event \
            twice.\n\n\
            The exit code is 0 if every event was answered with the code 200, 1 if one was not or the connection failed, and 2 \
            if the command line is wrong.",
    flags: &[
        connect::SERVER,
        connect::TOKEN_FILE,
        Flag { name: "text", value: "", doc: "Sends data as a JSON string: it is a text, not JSON." },
        Flag {
            name: "json",
            value: "",
            doc: "Prints each answer as a line of JSON, with the members line, path, code, data and err_msg.",
        },
        Flag {
            name: "timeout",
            value: "DURATION",
            doc: "The maximum time of the connection's handshakes, and of each answer. [default: 10s]",
        },
        connect::TLS_CA,
        connect::TLS_CERT,
        connect::TLS_KEY,
    ],
    takes_settings: false,
    examples: &[
        Example {
            line: "quickio pub /relay/room '{\"text\":\"hello\"}'",
            does: "Sends an event to the server on this host, whose application relay broadcasts it.",
        },
        Example {
            line: "tail -f access.log | quickio pub --text /relay/log",
            does: "Sends each new line of a file as a text.",
        },
        Example {
            line: "quickio pub --server wss://example.com --token-file token.jwt < events.txt",
            does: "Sends events such as /chat/say {\"text\":\"hi\"} from a file, as an authenticated client.",
        },
        Example { line: "quickio pub /relay/counter -- -5", does: "Sends data that begins with a dash." },
    ],
    details: no_details,
    run: |invocation: Invocation| connect::act(invocation, run),
};

/// The default of `--timeout`.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum number of events that wait for their answers: enough for a distant server, and few enough that a server
/// which is busy is not flooded.
const UNANSWERED_MAX: usize = 256;

fn run(arguments: &Arguments) -> Result<ExitCode, ClientError> {
    let timeout = arguments.parsed("timeout", config::parse_duration)?.unwrap_or(TIMEOUT);
    let is_text = arguments.has("text");
    let source = source(arguments, is_text)?;
    let target = ServerTarget::new(arguments, timeout)?;
    let signals = connect::catch_signals()?;
    let (peer, _) = target.open(&signals)?;
    let mut publisher = EventSender {
        peer,
        source,
        is_text,
        is_json: arguments.has("json"),
        timeout,
        line: 0,
        unanswered: BTreeMap::new(),
        accepted: 0,
        failed: 0,
        progress: ProgressLine::begin(),
    };
    publisher.run(&signals).map_err(|error| publisher.lost(error))?;
    let EventSender { peer, failed, .. } = publisher;
    peer.close(&signals);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The events that are sent.
enum EventSource {
    /// One event, until it is taken.
    One(Option<EventLine>),
    /// The lines of standard input: data for this path, or paths with data.
    Input { path: Option<String>, lines: Lines },
}

/// An event to send.
#[derive(Debug, PartialEq, Eq)]
struct EventLine {
    path: String,
    data: String,
}

fn source(arguments: &Arguments, is_text: bool) -> Result<EventSource, ClientError> {
    let usage = |problem| ArgumentError::Usage { command: COMMAND.name, problem };
    match arguments.words.as_slice() {
        [] => Ok(EventSource::Input { path: None, lines: Lines::default() }),
        [path] => {
            let path = checked_path(path).map_err(usage)?;
            Ok(EventSource::Input { path: Some(path), lines: Lines::default() })
        }
        [path, data] => {
            let (path, data) =
                (checked_path(path).map_err(usage)?, checked_data(data, is_text).map_err(usage)?);
            Ok(EventSource::One(Some(EventLine { path, data })))
        }
        _ => Err(usage("there are more arguments than PATH and DATA; quote data with spaces".into()).into()),
    }
}

/// Returns a path that the server understands as it is written.
pub(super) fn checked_path(path: &str) -> Result<String, String> {
    match Path::parse(path) {
        Ok(clean) if clean.as_str() == path && path.starts_with('/') => Ok(path.to_owned()),
        Ok(clean) if path.starts_with('/') => {
            Err(format!("`{path}` is not a path: the server would read it as `{}`", clean.as_str()))
        }
        Ok(_) => Err(format!("`{path}` is not a path: it does not begin with /")),
        Err(error) => Err(format!("`{path}` is not a path: {error}")),
    }
}

fn checked_data(data: &str, is_text: bool) -> Result<String, String> {
    if is_text {
        return Ok(serde_json::to_string(data).expect("a text becomes JSON"));
    }
    if data.is_empty() {
        return Ok("null".into());
    }
    match serde_json::from_str::<&RawValue>(data) {
        Ok(_) => Ok(data.to_owned()),
        Err(error) => Err(format!("the data is not JSON ({error}); give a text with --text")),
    }
}

/// Parses a line of standard input. Returns `None` if it is blank.
fn parse_line(line: &[u8], path: Option<&str>, is_text: bool) -> Result<Option<EventLine>, String> {
    let line = std::str::from_utf8(line).map_err(|_| "it is not UTF-8")?;
    if let Some(path) = path {
        let is_blank = !is_text && line.trim().is_empty();
        let data = if is_blank { return Ok(None) } else { checked_data(line, is_text)? };
        return Ok(Some(EventLine { path: path.to_owned(), data }));
    }
    let line = line.trim_start();
    if line.is_empty() {
        return Ok(None);
    }
    let (path, data) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let data = if is_text { data } else { data.trim() };
    Ok(Some(EventLine { path: checked_path(path)?, data: checked_data(data, is_text)? }))
}

/// An event that waits for its answer.
struct WaitingEvent {
    line: u64,
    path: String,
    until: Instant,
}

/// A run of the command.
struct EventSender {
    peer: Peer,
    source: EventSource,
    is_text: bool,
    is_json: bool,
    timeout: Duration,
    /// The number of the last line that was read.
    line: u64,
    /// The events that wait for their answers, by the numbers of their callbacks.
    unanswered: BTreeMap<u64, WaitingEvent>,
    accepted: u64,
    failed: u64,
    progress: ProgressLine,
}

impl EventSender {
    /// Sends all events, and waits for their answers.
    fn run(&mut self, signals: &EndSignals) -> Result<(), ClientError> {
        loop {
            self.send_lines();
            self.peer.turn(PollFlags::empty())?;
            if self.has_ended() && self.unanswered.is_empty() {
                return Ok(());
            }
            let input = io::stdin();
            let wants_input = self.has_room() && !self.has_ended();
            let until = self.unanswered.values().next().map(|oldest| oldest.until);
            let fds = [self.peer.interest(), (wants_input.then(|| input.as_fd()), PollFlags::IN)];
            let ready = signals.wait(fds, until.into_iter().chain(self.progress.next()).min());
            let [from_server, from_input] = ready.map_err(PeerError::Lost)?.map_err(PeerError::Signal)?;
            self.peer.turn(from_server)?;
            self.receive()?;
            self.expire();
            match &mut self.source {
                EventSource::Input { lines, .. } if !from_input.is_empty() => {
                    let read = lines.read(input.lock());
                    read.map_err(|error| {
                        ClientError::Stream(format!("cannot read standard input: {error}"))
                    })?;
                }
                _ => {}
            }
            let (accepted, failed) = (self.accepted, self.failed);
            self.progress.update(|time| {
                let rate = accepted as f64 / time.as_secs_f64();
                format!("{accepted} events accepted, {failed} failed, {rate:.0} a second")
            });
        }
    }

    /// Returns whether no further event will be sent. Complete lines were taken before.
    fn has_ended(&self) -> bool {
        match &self.source {
            EventSource::One(event) => event.is_none(),
            EventSource::Input { lines, .. } => lines.has_ended() && self.has_room(),
        }
    }

    fn has_room(&self) -> bool {
        self.unanswered.len() < UNANSWERED_MAX && !self.peer.has_output()
    }

    /// Sends the events that have been read, while there is room.
    fn send_lines(&mut self) {
        while self.unanswered.len() < UNANSWERED_MAX {
            let event = match &mut self.source {
                EventSource::One(event) => Ok(event.take()),
                EventSource::Input { path, lines } => {
                    let Some(line) = lines.next() else { return };
                    self.line += 1;
                    parse_line(line, path.as_deref(), self.is_text)
                }
            };
            match event {
                Ok(Some(EventLine { path, data })) => {
                    let callback = self.peer.send(&path, &data);
                    let until = Instant::now() + self.timeout;
                    self.unanswered.insert(callback, WaitingEvent { line: self.line, path, until });
                }
                Ok(None) if matches!(self.source, EventSource::One(_)) => return,
                Ok(None) => {}
                Err(problem) => self.fail(self.line, &problem),
            }
        }
    }

    /// Handles the answers that have come.
    fn receive(&mut self) -> Result<(), ClientError> {
        let mut output = Vec::new();
        while let Some(event) = self.peer.next_event()? {
            let PeerEvent::Answer(answer) = event else { continue };
            let Some(event) = self.unanswered.remove(&answer.callback) else { continue };
            if self.is_json {
                write_json(&mut output, &event, &answer);
            } else if answer.code == 200 && answer.data != "null" {
                output.extend(answer.data.replace(['\n', '\r'], " ").bytes());
                output.push(b'\n');
            }
            match (answer.code, answer.message) {
                (200, _) => self.accepted += 1,
                (code, None) => self.fail(event.line, &format!("{}: {code}", event.path)),
                (code, Some(message)) => self.fail(event.line, &format!("{}: {code} {message}", event.path)),
            }
        }
        if !output.is_empty() {
            self.progress.clear();
            let mut stdout = io::stdout().lock();
            match stdout.write_all(&output).and_then(|()| stdout.flush()) {
                // Nobody reads the answers; the events are still sent.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                written => written.map_err(|error| connect::output_failed(&error))?,
            }
        }
        Ok(())
    }

    /// Counts the events that were not answered in time.
    fn expire(&mut self) {
        let now = Instant::now();
        while let Some(oldest) = self.unanswered.first_entry().filter(|oldest| oldest.get().until <= now) {
            let event = oldest.remove();
            self.fail(event.line, &format!("{}: no answer within {:?}", event.path, self.timeout));
        }
    }

    fn fail(&mut self, line: u64, problem: &str) {
        self.failed += 1;
        self.progress.clear();
        match line {
            0 => log::report(&problem),
            line => log::report(&format_args!("line {line}: {problem}")),
        }
    }

    /// Describes an error that has ended the run, and what happened until then.
    fn lost(&self, error: ClientError) -> ClientError {
        match error {
            ClientError::Peer(PeerError::Signal(_)) => error,
            error if self.line == 0 => error,
            error => ClientError::Failed(format!(
                "{error}; {} events were accepted, {} failed and {} were not answered: the server may have handled them",
                self.accepted,
                self.failed,
                self.unanswered.len()
            )),
        }
    }
}

fn write_json(out: &mut Vec<u8>, event: &WaitingEvent, answer: &PeerAnswer) {
    #[derive(Serialize)]
    struct Line<'a> {
        #[serde(skip_serializing_if = "is_zero")]
        line: u64,
        path: &'a str,
        code: u16,
        data: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        err_msg: Option<&'a str>,
    }
    let data = answer.data.replace(['\n', '\r'], " ");
    let line = Line {
        line: event.line,
        path: &event.path,
        code: answer.code,
        data: serde_json::from_str(&data).expect("the answer was parsed"),
        err_msg: answer.message.as_deref(),
    };
    serde_json::to_writer(&mut *out, &line).expect("an answer becomes JSON");
    out.push(b'\n');
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(line: &u64) -> bool {
    *line == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_standard_input() {
        let parse = |line: &str, path, is_text| {
            parse_line(line.as_bytes(), path, is_text)
                .map(|event| event.map(|event| (event.path, event.data)))
        };
        for (line, path, is_text, expected) in [
            ("/a {\"b\": 1}", None, false, Some(("/a", "{\"b\": 1}"))),
            ("  /a\t1  ", None, false, Some(("/a", "1"))),
            ("/a", None, false, Some(("/a", "null"))),
            ("/a b c ", None, true, Some(("/a", "\"b c \""))),
            ("", None, false, None),
            ("  ", Some("/a"), false, None),
            ("[1]", Some("/a"), false, Some(("/a", "[1]"))),
            ("", Some("/a"), true, Some(("/a", "\"\""))),
            ("say \"x\"", Some("/a"), true, Some(("/a", r#""say \"x\"""#))),
        ] {
            let expected = expected.map(|(path, data)| (path.to_owned(), data.to_owned()));
            assert_eq!(parse(line, path, is_text), Ok(expected), "{line:?}");
        }
        for (line, path, problem) in [
            ("a 1", None, "does not begin with /"),
            ("/a/@b 1", None, "would read it as `/a/b`"),
            ("/ 1", None, "the path is empty"),
            ("/a b", None, "not JSON"),
            ("/a 1 2", None, "not JSON"),
            ("x", Some("/a"), "--text"),
        ] {
            let error = parse(line, path, false).unwrap_err();
            assert!(error.contains(problem), "{line:?}: {error}");
        }
        assert!(parse_line(b"/a \xff", None, true).unwrap_err().contains("UTF-8"));
    }
}
