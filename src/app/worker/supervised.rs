//! A worker as its supervisor sees it: its process, its state, and the deadline of that state.

use super::control::StartFailure;
use super::manifest::Manifest;
use super::process::WorkerProcess;
use crate::limits::WORKER_END_WAIT;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of a worker's last output, and of its own description of a failure, that are logged with its end.
const LAST_OUTPUT_BYTES_MAX: usize = 2000;

/// A worker.
pub struct SupervisedWorker {
    pub process: WorkerProcess,
    pub state: WorkerState,
    /// The time at which the worker began to serve, by the server's clock.
    pub serving_since: Option<Duration>,
    /// Another worker has taken its place.
    pub is_replaced: bool,
    /// The reason why the worker was killed, or its own description of its failure.
    fault: Option<String>,
    /// The worker described the fault itself.
    described_fault: bool,
    /// The files to which a change may remove the fault, as the worker has reported them.
    pub fault_files: Vec<PathBuf>,
    /// The worker has closed its connection to the server. It is killed at this time, for this reason, unless it ends.
    must_end: Option<(Instant, &'static str)>,
}

/// The state of a worker. A worker never returns to an earlier state of this list.
pub enum WorkerState {
    /// The worker is loading the application.
    Starting { deadline: Instant },
    /// The worker is ready, and the shards are not running yet.
    Ready(Arc<Manifest>),
    /// The worker receives events.
    Serving(PingState),
    /// The worker is running its self-test.
    Testing { deadline: Instant },
    /// The worker receives no more events, and finishes its requests.
    Draining { deadline: Instant },
    /// The worker was killed, and its process has not ended yet.
    Killed,
}

/// The last ping that was sent to a worker.
pub struct PingState {
    pub number: u64,
    pub answered: bool,
    /// The time of the next ping, by the server's clock. If this ping has not been answered by then, the worker hangs.
    pub next: Duration,
}

impl SupervisedWorker {
    /// Returns a worker whose process was started just now.
    pub fn new(process: WorkerProcess, start_timeout: Duration) -> SupervisedWorker {
        SupervisedWorker {
            process,
            state: WorkerState::Starting { deadline: Instant::now() + start_timeout },
            serving_since: None,
            is_replaced: false,
            fault: None,
            described_fault: false,
            fault_files: Vec::new(),
            must_end: None,
        }
    }

    /// Returns whether the worker serves for its instance, or will.
    pub fn holds_instance(&self) -> bool {
        matches!(self.state, WorkerState::Starting { .. } | WorkerState::Ready(_) | WorkerState::Serving(_))
    }

    /// Returns the time until which the worker may stay in its state, and the reason for which it is killed then.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        let of_state = match self.state {
            WorkerState::Starting { deadline } => {
                Some((deadline, "it was not ready within worker-start-timeout"))
            }
            WorkerState::Testing { deadline } => {
                Some((deadline, "its self-test did not end within worker-start-timeout"))
            }
            WorkerState::Draining { deadline } => {
                Some((deadline, "it did not finish in time (worker-stop-timeout)"))
            }
            WorkerState::Ready(_) | WorkerState::Serving(_) => None,
            WorkerState::Killed => return None,
        };
        of_state.into_iter().chain(self.must_end).min_by_key(|(at, _)| *at)
    }

    /// Postpones the deadline of the worker's state, because the supervisor did not run for this time.
    pub fn postpone(&mut self, by: Duration) {
        match &mut self.state {
            WorkerState::Starting { deadline }
            | WorkerState::Testing { deadline }
            | WorkerState::Draining { deadline } => *deadline += by,
            WorkerState::Ready(_) | WorkerState::Serving(_) | WorkerState::Killed => {}
        }
        if let Some((at, _)) = &mut self.must_end {
            *at += by;
        }
    }

    /// Records that the worker has closed its connection to the server, as a worker that is ending does. A worker that
    /// is still running after `WORKER_END_WAIT` is killed for this reason.
    pub fn expect_end(&mut self, why: &'static str) {
        self.must_end.get_or_insert_with(|| (Instant::now() + WORKER_END_WAIT, why));
    }

    /// Records a failure that the worker reported and described itself.
    pub fn record_failure(&mut self, failure: &StartFailure) {
        self.described_fault |= self.fault.is_none();
        self.fault.get_or_insert_with(|| shortened(&failure.why).to_owned());
        self.fault_files.clone_from(&failure.files);
        self.expect_end("it reported a failure and did not end");
    }

    /// Kills the worker, unless it was killed already.
    pub fn kill(&mut self, why: &str) {
        if !matches!(self.state, WorkerState::Killed) {
            self.fault.get_or_insert_with(|| why.to_owned());
            self.state = WorkerState::Killed;
            self.process.kill();
        }
    }

    /// Removes and returns the reason why the worker was killed or failed, if there is one.
    pub fn take_fault(&mut self) -> Option<String> {
        self.fault.take()
    }

    /// Returns the last output of the worker, for the log line about its end. Empty if the worker described its failure
    /// itself.
    pub fn last_output(&self) -> String {
        if self.described_fault {
            return String::new();
        }
        let printed = self.process.last_lines();
        let from = printed.len().saturating_sub(LAST_OUTPUT_BYTES_MAX);
        let from = (from..=printed.len()).find(|at| printed.is_char_boundary(*at)).unwrap_or(printed.len());
        if printed.is_empty() { String::new() } else { format!("; its last output: {}", &printed[from..]) }
    }
}

/// Returns the beginning of a description.
fn shortened(description: &str) -> &str {
    let len = description.len().min(LAST_OUTPUT_BYTES_MAX);
    let to = (0..=len).rev().find(|at| description.is_char_boundary(*at));
    &description[..to.unwrap_or_default()]
}
