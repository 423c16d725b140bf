//! The manifest of a worker: the events, timers and files that it declares when it is ready.

use super::text::AnyPath;
use crate::app::Error;
use crate::event::path::Path;
use crate::limits::{WORKER_EVENTS_MAX, WORKER_TIMERS_MAX};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// The version of the worker protocol that docs/workers.md specifies.
pub const PROTOCOL_VERSION: u32 = 1;

/// The declarations of a worker.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    /// The version of the worker protocol that the worker uses.
    pub version: u32,
    #[serde(default)]
    pub events: Vec<EventDeclaration>,
    #[serde(default)]
    pub timers: Vec<TimerDeclaration>,
    /// The files from which the worker was loaded. With the setting `reload`, a change to one of them replaces the
    /// workers.
    #[serde(default, deserialize_with = "paths")]
    pub files: Vec<PathBuf>,
}

fn paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    Ok(Vec::<AnyPath>::deserialize(deserializer)?.into_iter().map(|path| path.0).collect())
}

/// An event that a worker handles.
#[derive(Deserialize, Clone, Debug, PartialEq)]
pub struct EventDeclaration {
    pub path: String,
    /// Paths below `path` are handled too.
    #[serde(default)]
    pub children: bool,
    /// The event has a handler. Without one, it is answered 500.
    #[serde(default = "yes")]
    pub handler: bool,
    #[serde(default)]
    pub subscriptions: SubscriptionMode,
    /// The worker is notified when a subscription has ended.
    #[serde(default)]
    pub off: bool,
    /// The worker is told, with each event and subscription, what the server knows of the client.
    #[serde(default)]
    pub client_info: bool,
    /// The worker is told the options of subscriptions that it is asked about.
    #[serde(default)]
    pub options: bool,
}

fn yes() -> bool {
    true
}

/// The clients that may subscribe to an event.
#[derive(Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SubscriptionMode {
    #[default]
    Everyone,
    Nobody,
    /// The worker decides about each client.
    Ask,
}

/// A timer that starts when the worker begins to serve, and repeats.
#[derive(Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct TimerDeclaration {
    /// The number by which the worker identifies the timer.
    pub timer: u32,
    /// The period, in milliseconds.
    pub ms: u64,
}

impl TimerDeclaration {
    /// Returns the period, which is at least 1 ms.
    pub fn period(&self) -> Duration {
        Duration::from_millis(self.ms.max(1))
    }
}

impl Manifest {
    /// Checks the manifest by itself. The shards find out whether its paths are free.
    ///
    /// # Errors
    ///
    /// Describes the first fault.
    pub fn check(&self) -> Result<(), String> {
        if self.version != PROTOCOL_VERSION {
            return Err(format!(
                "it uses version {} of the worker protocol, and this server uses version {PROTOCOL_VERSION}",
                self.version
            ));
        }
        if self.events.len() > WORKER_EVENTS_MAX || self.timers.len() > WORKER_TIMERS_MAX {
            return Err(format!(
                "it declares more than {WORKER_EVENTS_MAX} events or {WORKER_TIMERS_MAX} timers"
            ));
        }
        let mut paths = BTreeSet::new();
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
