//! A worker as its supervisor sees it: its process, how far it is, and when it is out of patience with it.

use super::manifest::Manifest;
use super::process::Process;
use crate::limits::WORKER_END_WAIT;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of what a worker printed that are told again with its end.
const LAST_BYTES: usize = 2000;

/// A worker.
pub struct Worker {
    pub process: Process,
    pub stage: Stage,
    /// When it began to serve, by the server's clock.
    pub since: Option<Duration>,
    /// Another one took its place.
    pub is_replaced: bool,
    /// Why it was killed, or what it says of itself.
    fault: Option<String>,
    /// The fault is in its own words.
    says_why: bool,
    /// It has let go of the server, and has to end by then.
    must_end: Option<(Instant, &'static str)>,
}

/// How far a worker is. It only ever moves down this list.
pub enum Stage {
    /// It loads the application.
    Starting {
        deadline: Instant,
    },
    /// The shards are not there yet.
    Ready(Arc<Manifest>),
    Serving(Ping),
    /// It tests itself.
    Testing {
        deadline: Instant,
    },
    /// It finishes what it has.
    Leaving {
        deadline: Instant,
    },
    /// It was killed; its end is awaited.
    Killed,
}

/// Whether a worker still answers.
pub struct Ping {
    pub number: u64,
    pub answered: bool,
    pub next: Duration,
}

impl Worker {
    /// One that was started just now.
    pub fn new(process: Process, start_timeout: Duration) -> Worker {
        Worker {
            process,
            stage: Stage::Starting { deadline: Instant::now() + start_timeout },
            since: None,
            is_replaced: false,
            fault: None,
            says_why: false,
            must_end: None,
        }
    }

    /// Whether the instance's place is its, or will be.
    pub fn holds_place(&self) -> bool {
        matches!(self.stage, Stage::Starting { .. } | Stage::Ready(_) | Stage::Serving(_))
    }

    /// Until when it has time, for what it is at; and what is wrong when that is over.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        let of_stage = match self.stage {
            Stage::Starting { deadline } => Some((deadline, "it was not ready within worker-start-timeout")),
            Stage::Testing { deadline } => {
                Some((deadline, "its self-test did not end within worker-start-timeout"))
            }
            Stage::Leaving { deadline } => {
                Some((deadline, "it did not finish in time (worker-stop-timeout)"))
            }
            Stage::Ready(_) | Stage::Serving(_) => None,
            Stage::Killed => return None,
        };
        of_stage.into_iter().chain(self.must_end).min_by_key(|(at, _)| *at)
    }

    /// It has let go of what joins it with the server, as one that ends does. One that goes on is killed.
    pub fn has_to_end(&mut self, why: &'static str) {
        self.must_end.get_or_insert_with(|| (Instant::now() + WORKER_END_WAIT, why));
    }

    /// It says that it cannot go on, and why.
    pub fn says_failed(&mut self, why: &str) {
        self.says_why |= self.fault.is_none();
        self.fault.get_or_insert_with(|| shortened(why).to_owned());
        self.has_to_end("it said that it failed");
    }

    pub fn kill(&mut self, why: &str) {
        if !matches!(self.stage, Stage::Killed) {
            self.fault.get_or_insert_with(|| why.to_owned());
            self.stage = Stage::Killed;
            self.process.kill();
        }
    }

    /// Why it ended, if it was no wish of its own.
    pub fn take_fault(&mut self) -> Option<String> {
        self.fault.take()
    }

    /// What it printed last, for the line that tells its end. Nothing, where it has said why itself.
    pub fn last_words(&self) -> String {
        if self.says_why {
            return String::new();
        }
        let printed = self.process.last_lines();
        let from = printed.len().saturating_sub(LAST_BYTES);
        let from = (from..=printed.len()).find(|at| printed.is_char_boundary(*at)).unwrap_or(printed.len());
        if printed.is_empty() { String::new() } else { format!("; it printed last: {}", &printed[from..]) }
    }
}

/// The beginning of what it says of itself.
fn shortened(why: &str) -> &str {
    let to = (0..=why.len().min(LAST_BYTES)).rev().find(|at| why.is_char_boundary(*at));
    &why[..to.unwrap_or_default()]
}
