//! Workers: processes that run applications in Python, JavaScript, or any other language with the protocol of
//! docs/workers.md.
//!
//! ```text
//!   supervisor (a thread)  --- starts, stops, replaces --->  worker processes
//!        |                 <-- control socket, output, exit ---     |
//!        | WorkerEvent                                              |
//!        v                                                          |
//!   group, link (on each shard)  <------------ links --------------+
//! ```
//!
//! | file | contents |
//! | --- | --- |
//! | `config` | the configuration of an application's workers |
//! | `supervisor` | the thread that keeps an application's workers running |
//! | `commands` | the channel on which the supervisor receives commands |
//! | `supervised` | a worker as the supervisor sees it |
//! | `backoff` | the delay before a crashed worker is started again |
//! | `process` | a worker's process, its control socket and its output |
//! | `control`, `manifest` | the messages of the control socket; the manifest in one of them |
//! | `lines` | limits on a worker's output |
//! | `text` | texts of workers, which may have any bytes |
//! | `file_watcher` | detection of changes in the files that workers were loaded from |
//! | `libraries` | the libraries for Python and Node, which are part of the executable |
//! | `group` | the links of an application's workers on a shard |
//! | `link` | a shard's end of a link |
//! | `requests`, `timers` | the pending requests and the timers of a link |
//! | `ends` | ends of subscriptions and clients that wait for a worker |
//! | `wire` | the frames of a link |
//! | `counters` | statistics |
//! | `python/`, `node/` | the libraries themselves |
//!
//! [`super::worker_app`] makes an application of them.

mod backoff;
mod commands;
mod config;
mod control;
mod counters;
mod ends;
mod file_watcher;
mod group;
mod libraries;
mod lines;
mod link;
mod manifest;
mod process;
mod requests;
mod supervised;
mod supervisor;
mod text;
mod timers;
mod wire;

pub use commands::{ReplaceDone, ReplaceOutcome};
pub(super) use commands::{SupervisorCommand, SupervisorSender, supervisor_channel};
pub use config::{LinkLimits, WorkerClock, WorkerConfig, WorkerKind, WorkingFolder};
pub use group::WorkerGroup;
pub use link::{Instance, WorkerLink};
pub use manifest::Manifest;
pub(super) use manifest::{EventDeclaration, SubscriptionMode};
pub use requests::REQUESTS_MAX;
pub(super) use supervisor::Supervisor;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error as ThisError;

/// The shards' handle to a supervisor.
pub trait SupervisorHandle: Send + Sync {
    /// Reports that the link to a worker failed, and why. The supervisor kills the worker.
    fn report_broken(&self, worker: u32, why: &str);

    /// Reports that a worker has ended a link that was in use. The supervisor expects the worker to end.
    fn report_link_end(&self, worker: u32);
}

/// A supervisor's handle to the shards. The server implements it.
pub trait ShardsHandle: Send + Sync {
    /// Queues an event for a shard. Never waits.
    ///
    /// # Errors
    ///
    /// Returns the event if the shard's queue is full.
    fn send(&self, shard: usize, event: WorkerEvent) -> Result<(), WorkerEvent>;
}

/// An event that a supervisor sends to a shard.
pub enum WorkerEvent {
    /// A worker is ready. It receives the application's events from now on.
    Joined(JoinedWorker),
    /// The process of a worker has ended.
    Left { app: u32, worker: u32 },
}

/// A worker that is ready, with the shard's end of its link.
pub struct JoinedWorker {
    /// The number of the application.
    pub app: u32,
    /// The instance that the worker runs for, from 0.
    pub instance: u32,
    /// The serial number of the worker, unique among the workers of the application.
    pub worker: u32,
    pub manifest: Arc<Manifest>,
    /// The time since the server started at which the worker became ready. Its timers count from this time, even if the
    /// shard handles the event later.
    pub joined_at: Duration,
    pub socket: OwnedFd,
}

/// The reason why an application's workers cannot run.
#[derive(Debug, ThisError)]
pub enum StartError {
    #[error("the worker libraries cannot be written to the folder for temporary files (TMPDIR): {0}")]
    Libraries(io::Error),
    #[error("the kernel refused a socket, thread or descriptor: {0}")]
    Resources(io::Error),
    #[error("its file cannot be read: {}: {error}", .file.display())]
    Missing { file: PathBuf, error: io::Error },
    #[error("{} cannot be started{}: {error}", .program.display(), setting_hint(*.kind))]
    Spawn { program: PathBuf, kind: WorkerKind, error: io::Error },
    #[error("{0}")]
    Failed(String),
}

/// Returns the part of a message that names the setting of an interpreter.
fn setting_hint(kind: WorkerKind) -> &'static str {
    match kind {
        WorkerKind::Python => " (set by the setting python)",
        WorkerKind::Node => " (set by the setting node)",
        WorkerKind::Program => "",
    }
}

/// Checks that the file of an application can be read and that its interpreter runs, without running the application.
///
/// # Errors
///
/// The file cannot be read, or the interpreter cannot be started.
pub fn check_program(config: &WorkerConfig) -> Result<(), StartError> {
    std::fs::File::open(&config.file)
        .map_err(|error| StartError::Failed(format!("it cannot be read: {error}")))?;
    let program = match config.kind {
        WorkerKind::Python => &config.python,
        WorkerKind::Node => &config.node,
        WorkerKind::Program => return Ok(()),
    };
    let version = std::process::Command::new(program).arg("--version").output();
    let spawn = |error| StartError::Spawn { program: program.clone(), kind: config.kind, error };
    let output = version.map_err(spawn)?;
    if output.status.success() {
        Ok(())
    } else {
        Err(StartError::Failed(format!("`{} --version` failed: {}", program.display(), output.status)))
    }
}

/// Kills all workers and removes the folders with their libraries. For a server that ends without waiting for anything.
pub fn abandon_all() {
    process::kill_all();
    libraries::remove_all();
}

/// Internals for fuzz targets.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use super::control::{WorkerMessage, parse as parse_control_line};
    pub use super::lines::LineSplitter;
    pub use super::wire::{HEADER_BYTES, decode};
}
