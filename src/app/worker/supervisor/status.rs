//! The state of the workers, for operators.

use super::super::supervised::{SupervisedWorker, WorkerState};
use super::Supervisor;
use crate::inspect::WorkerStatus;

impl Supervisor {
    /// Returns every worker, and every instance that has none, in the order of the instances.
    pub(super) fn status(&self) -> Vec<WorkerStatus> {
        (0..self.instances.len()).flat_map(|instance| self.status_of(instance)).collect()
    }

    fn status_of(&self, instance: usize) -> Vec<WorkerStatus> {
        let state = &self.instances[instance];
        let now = self.now();
        let waiting = WorkerStatus {
            app: self.config.name.clone(),
            instance,
            pid: None,
            state: "waiting",
            serving_seconds: None,
            restarts: state.started.saturating_sub(1),
            crashes: state.crashed,
            restart_in_seconds: state.restart_at.map(|at| at.saturating_sub(now).as_secs_f64()),
        };
        let workers = self.workers.iter().filter(|worker| worker.process.instance == instance);
        let mut workers: Vec<WorkerStatus> = workers
            .map(|worker| WorkerStatus {
                pid: u32::try_from(worker.process.pid()).ok(),
                state: name(worker),
                serving_seconds: worker.serving_since.map(|since| now.saturating_sub(since).as_secs_f64()),
                ..waiting.clone()
            })
            .collect();
        if workers.is_empty() {
            workers.push(waiting);
        }
        workers
    }
}

/// Returns the name of a worker's state, as operators see it.
fn name(worker: &SupervisedWorker) -> &'static str {
    match worker.state {
        WorkerState::Starting { .. } => "starting",
        WorkerState::Ready(_) => "ready",
        WorkerState::Serving(_) => "serving",
        WorkerState::Testing { .. } => "testing",
        WorkerState::Draining { .. } => "draining",
        WorkerState::Killed => "killed",
    }
}
