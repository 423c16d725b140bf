//! The lines of the control socket (docs/workers.md): what the server tells a worker, and what that says of itself.

use crate::app::Error;
use crate::event::path::Path;
use crate::limits::{WORKER_EVENTS_MAX, WORKER_TIMERS_MAX};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The version of docs/workers.md.
pub const VERSION: u32 = 1;

/// What the server tells a worker.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Line<'a> {
    Hello(Hello<'a>),
    Ping(u64),
}

#[derive(Serialize)]
pub struct Hello<'a> {
    pub version: u32,
    pub app: &'a str,
    pub instance: usize,
    pub instances: usize,
    /// Descriptors of the worker's.
    pub links: Vec<i32>,
    pub script: &'a std::path::Path,
    pub settings: &'a BTreeMap<String, String>,
    pub test: bool,
}

impl Line<'_> {
    /// As it is sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Only a path that is no UTF-8 cannot be written, and settings are texts.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

/// What a worker says.
#[derive(Debug, PartialEq)]
pub enum Said {
    Ready(Manifest),
    Failed(String),
    Tested(bool),
    Pong(u64),
    Log(Level, String),
}

/// A line of a worker's: what it has beyond these the server does not know.
#[derive(Deserialize)]
struct SaidLine {
    ready: Option<Manifest>,
    failed: Option<String>,
    tested: Option<bool>,
    pong: Option<u64>,
    log: Option<Level>,
    #[serde(default)]
    text: String,
}

impl SaidLine {
    fn said(self) -> Option<Said> {
        let text = self.text;
        let log = self.log.map(|level| Said::Log(level, text));
        let others =
            [self.failed.map(Said::Failed), self.tested.map(Said::Tested), self.pong.map(Said::Pong), log];
        self.ready.map(Said::Ready).or_else(|| others.into_iter().flatten().next())
    }
}

/// How important a line is that a worker logs.
#[derive(Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// What a worker handles.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    pub version: u32,
    #[serde(default)]
    pub events: Vec<EventSpec>,
    #[serde(default)]
    pub timers: Vec<TimerSpec>,
    #[serde(default)]
    pub files: Vec<PathBuf>,
}

#[derive(Deserialize, Clone, Debug, PartialEq)]
pub struct EventSpec {
    pub path: String,
    #[serde(default)]
    pub children: bool,
    #[serde(default = "yes")]
    pub handler: bool,
    #[serde(default)]
    pub subscriptions: Subscriptions,
    #[serde(default)]
    pub off: bool,
}

fn yes() -> bool {
    true
}

/// Who may subscribe.
#[derive(Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Subscriptions {
    #[default]
    Everyone,
    Nobody,
    Ask,
}

#[derive(Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct TimerSpec {
    pub timer: u32,
    pub ms: u64,
}

impl TimerSpec {
    pub fn period(&self) -> Duration {
        Duration::from_millis(self.ms.max(1))
    }
}

/// Reads a line of a worker's: `None` where the server knows nothing of what it has. The error says what is wrong with it.
pub fn read(line: &[u8]) -> Result<Option<Said>, String> {
    let line: SaidLine = serde_json::from_slice(line).map_err(|error| {
        let line = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
        format!("a line on its control socket is not understood ({error}): {line}")
    })?;
    let said = line.said();
    if let Some(Said::Ready(manifest)) = &said {
        manifest.check()?;
    }
    Ok(said)
}

impl Manifest {
    /// What is wrong with it in itself. Whether its paths are free, the shards find out.
    fn check(&self) -> Result<(), String> {
        if self.version != VERSION {
            return Err(format!("it speaks version {}, and this server {VERSION}", self.version));
        }
        if self.events.len() > WORKER_EVENTS_MAX || self.timers.len() > WORKER_TIMERS_MAX {
            return Err(format!("it has more than {WORKER_EVENTS_MAX} events or {WORKER_TIMERS_MAX} timers"));
        }
        let mut paths = std::collections::BTreeSet::new();
        for event in &self.events {
            let path = Path::parse(&event.path).map_err(|error| {
                Error::Path { path: event.path.clone(), reason: error.to_string() }.to_string()
            })?;
            if !paths.insert(path.as_str().to_owned()) {
                return Err(format!("it registers {path} twice"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_what_most_want() {
        let read = |line: &[u8]| read(line).map(|said| said.expect("it is understood"));
        let said = read(br#"{"ready":{"version":1,"events":[{"path":"/a"}],"more":1},"more":1}"#).unwrap();
        let event = EventSpec {
            path: "/a".into(),
            children: false,
            handler: true,
            subscriptions: Subscriptions::Everyone,
            off: false,
        };
        let manifest = Manifest { version: 1, events: vec![event], ..Manifest::default() };
        assert_eq!(said, Said::Ready(manifest));
        assert_eq!(
            read(br#"{"ready":{"version":1}}"#),
            Ok(Said::Ready(Manifest { version: 1, ..Manifest::default() }))
        );
    }

    #[test]
    fn the_other_lines() {
        assert_eq!(read(br#"{"more":[1]}"#), Ok(None));
        let read = |line: &[u8]| read(line).map(|said| said.expect("it is understood"));
        assert_eq!(read(br#"{"failed":"why"}"#), Ok(Said::Failed("why".into())));
        assert_eq!(read(br#"{"tested":true}"#), Ok(Said::Tested(true)));
        assert_eq!(read(br#"{"pong":7}"#), Ok(Said::Pong(7)));
        assert_eq!(read(br#"{"log":"warn","text":"x"}"#), Ok(Said::Log(Level::Warn, "x".into())));
        let hello = Line::Hello(Hello {
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
            String::from_utf8(hello.to_bytes()).unwrap(),
            "{\"hello\":{\"version\":1,\"app\":\"a\",\"instance\":0,\"instances\":2,\"links\":[4],\
             \"script\":\"/a.py\",\"settings\":{},\"test\":false}}\n"
        );
        assert_eq!(Line::Ping(7).to_bytes(), b"{\"ping\":7}\n");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, why) in [
            ("", "not understood"),
            ("hello", "not understood"),
            (r#"{"ready":{}}"#, "not understood"),
            (r#"{"pong":-1}"#, "not understood"),
            (r#"{"ready":{"version":2}}"#, "it speaks version 2"),
            (r#"{"ready":{"version":1,"events":[{"path":"/a"},{"path":"/a/"}]}}"#, "it registers /a twice"),
            (r#"{"ready":{"version":1,"events":[{"path":""}]}}"#, "cannot be registered"),
            (r#"{"ready":{"version":1,"events":[{"path":"/a","subscriptions":"some"}]}}"#, "not understood"),
        ] {
            let error = read(line.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
