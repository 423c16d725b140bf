//! Answers about workers.

use serde::Serialize;

/// A worker process, or a place for one that has none now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerStatus {
    /// The application.
    pub app: String,
    /// The number of the instance that the worker serves for.
    pub instance: usize,
    /// The process, or `None` if there is none.
    pub pid: Option<u32>,
    /// `starting`, `ready`, `serving`, `testing`, `draining`, `killed`, or `waiting` if there is no process.
    pub state: &'static str,
    /// The time for which the worker has been serving.
    pub serving_seconds: Option<f64>,
    /// The workers that were started for the instance after its first one, as replacements too.
    pub restarts: u64,
    /// The restarts that followed an unexpected end.
    pub crashes: u64,
    /// The time until the next worker of the instance is started, if there is no process.
    pub restart_in_seconds: Option<f64>,
}
