//! The messages of the control socket (docs/workers.md): one JSON object on each line, in both directions.

use super::manifest::Manifest;
use super::text::{AnyPath, AnyText, readable};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Bytes of a line that is not understood which are quoted in the error.
const QUOTED_BYTES_MAX: usize = 200;

/// A message from the server to a worker.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerMessage<'a> {
    Hello(Hello<'a>),
    Ping(u64),
}

/// The first message to a worker.
#[derive(Serialize)]
pub struct Hello<'a> {
    pub version: u32,
    pub app: &'a str,
    pub instance: usize,
    pub instances: usize,
    /// The worker's file descriptors of its links, one for each shard.
    pub links: Vec<i32>,
    pub script: &'a Path,
    pub settings: &'a BTreeMap<String, String>,
    pub test: bool,
}

impl ServerMessage<'_> {
    /// Returns the line that is sent.
    pub fn to_line(&self) -> Vec<u8> {
        // Serialization fails only for a path that is not UTF-8, and the server has rejected such a script.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// A message from a worker to the server.
#[derive(Debug, PartialEq)]
pub enum WorkerMessage {
    Ready(Manifest),
    Failed(StartFailure),
    Tested(bool),
    Pong(u64),
    Log(WorkerLogLevel, String),
}

/// A worker's description of the reason why it cannot run its application.
#[derive(Debug, PartialEq)]
pub struct StartFailure {
    pub why: String,
    /// The files to which a change may remove the reason. Some of them may not exist.
    pub files: Vec<PathBuf>,
}

/// The level of a line that a worker logs.
#[derive(Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum WorkerLogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The members of a worker's line. Other members are ignored.
#[derive(Deserialize)]
struct WorkerLine {
    ready: Option<Manifest>,
    failed: Option<AnyText>,
    #[serde(default)]
    files: Vec<AnyPath>,
    tested: Option<bool>,
    pong: Option<u64>,
    log: Option<WorkerLogLevel>,
    #[serde(default)]
    text: AnyText,
}

impl WorkerLine {
    fn into_message(self) -> Option<WorkerMessage> {
        let AnyText(text) = self.text;
        let files = self.files.into_iter().map(|AnyPath(file)| file).collect();
        let log = self.log.map(|level| WorkerMessage::Log(level, text));
        let others = [
            self.failed.map(|AnyText(why)| WorkerMessage::Failed(StartFailure { why, files })),
            self.tested.map(WorkerMessage::Tested),
            self.pong.map(WorkerMessage::Pong),
            log,
        ];
        self.ready.map(WorkerMessage::Ready).or_else(|| others.into_iter().flatten().next())
    }
}

/// Parses a line of a worker. Returns `None` if the line contains no message that the server knows.
///
/// # Errors
///
/// The line is not valid, or its manifest is not. The error describes the fault.
pub fn parse(line: &[u8]) -> Result<Option<WorkerMessage>, String> {
    let line: WorkerLine = serde_json::from_slice(line).map_err(|error| {
        let line = readable(&line[..line.len().min(QUOTED_BYTES_MAX)]);
        format!("it sent an invalid line on its control socket ({error}): {line}")
    })?;
    let message = line.into_message();
    if let Some(WorkerMessage::Ready(manifest)) = &message {
        manifest.check()?;
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::super::manifest::{EventDeclaration, SubscriptionMode};
    use super::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn a_manifest_has_defaults() {
        let parse = |line: &[u8]| parse(line).map(|message| message.expect("a known message"));
        let message =
            parse(br#"{"ready":{"version":1,"events":[{"path":"/a"}],"more":1},"more":1}"#).unwrap();
        let event = EventDeclaration {
            path: "/a".into(),
            children: false,
            handler: true,
            subscriptions: SubscriptionMode::Everyone,
            off: false,
            client_info: false,
            options: false,
        };
        let manifest = Manifest { version: 1, events: vec![event], ..Manifest::default() };
        assert_eq!(message, WorkerMessage::Ready(manifest));
        assert_eq!(
            parse(br#"{"ready":{"version":1}}"#),
            Ok(WorkerMessage::Ready(Manifest { version: 1, ..Manifest::default() }))
        );
    }

    #[test]
    fn texts_may_have_anything() {
        let failed = |why: &str| WorkerMessage::Failed(StartFailure { why: why.into(), files: vec![] });
        let lone = br#"{"log":"info","text":"a \ud800 b \udc00\u0000"}"#;
        let message = WorkerMessage::Log(WorkerLogLevel::Info, "a \\ud800 b \\udc00\0".into());
        assert_eq!(parse(lone), Ok(Some(message)));
        assert_eq!(parse(br#"{"failed":"\ud800"}"#), Ok(Some(failed("\\ud800"))));
        assert_eq!(parse(b"{\"failed\":\"\xff\"}"), Ok(Some(failed("\\xff"))));
        assert_eq!(parse(br#"{"more":"\ud800","pong":1}"#), Ok(Some(WorkerMessage::Pong(1))));
    }

    #[test]
    fn the_other_messages() {
        assert_eq!(parse(br#"{"more":[1]}"#), Ok(None));
        let parse = |line: &[u8]| parse(line).map(|message| message.expect("a known message"));
        let failed = |files| Ok(WorkerMessage::Failed(StartFailure { why: "why".into(), files }));
        assert_eq!(parse(br#"{"failed":"why"}"#), failed(vec![]));
        assert_eq!(parse(br#"{"failed":"why","files":["/a.py"]}"#), failed(vec!["/a.py".into()]));
        // The name of a file need not be UTF-8.
        let strange = PathBuf::from(OsString::from_vec(b"/\xff.py".to_vec()));
        assert_eq!(parse(br#"{"failed":"why","files":["/\udcff.py"]}"#), failed(vec![strange]));
        assert_eq!(parse(br#"{"tested":true}"#), Ok(WorkerMessage::Tested(true)));
        assert_eq!(parse(br#"{"pong":7}"#), Ok(WorkerMessage::Pong(7)));
        assert_eq!(
            parse(br#"{"log":"warn","text":"x"}"#),
            Ok(WorkerMessage::Log(WorkerLogLevel::Warn, "x".into()))
        );
        let hello = ServerMessage::Hello(Hello {
            version: 1,
            app: "a",
            instance: 0,
            instances: 2,
            links: vec![4],
            script: "/a.py".as_ref(),
            settings: &BTreeMap::new(),
            test: false,
        });
        assert_eq!(
            String::from_utf8(hello.to_line()).unwrap(),
            "{\"hello\":{\"version\":1,\"app\":\"a\",\"instance\":0,\"instances\":2,\"links\":[4],\
             \"script\":\"/a.py\",\"settings\":{},\"test\":false}}\n"
        );
        assert_eq!(ServerMessage::Ping(7).to_line(), b"{\"ping\":7}\n");
    }

    #[test]
    fn errors_describe_the_fault() {
        for (line, why) in [
            ("", "invalid line"),
            ("hello", "invalid line"),
            (r#"{"ready":{}}"#, "invalid line"),
            (r#"{"pong":-1}"#, "invalid line"),
            (r#"{"ready":{"version":2}}"#, "version 2 of the worker protocol"),
            (r#"{"ready":{"version":1,"events":[{"path":"/a"},{"path":"/a/"}]}}"#, "it registers /a twice"),
            (r#"{"ready":{"version":1,"events":[{"path":""}]}}"#, "cannot be registered"),
            (r#"{"ready":{"version":1,"events":[{"path":"/a","subscriptions":"some"}]}}"#, "invalid line"),
        ] {
            let error = parse(line.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
