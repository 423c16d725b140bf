//! The ends of workers: expected ones, crashes and restarts, and the shutdown.

use super::Supervisor;
use crate::app::worker::StartError;
use crate::app::worker::supervised::{SupervisedWorker, WorkerState};
use std::process::ExitStatus;
use std::time::Instant;

impl Supervisor {
    /// Handles the end of a worker's process. `status` is `None` if the exit status is unknown.
    pub(super) fn handle_end(&mut self, mut worker: SupervisedWorker, status: Option<ExitStatus>) {
        self.counters.lines_dropped.add(worker.process.take_dropped());
        if let (Some(shards), Some(_)) = (&self.shards, worker.serving_since) {
            shards.send_left(worker.process.serial, self.config.shards);
        }
        let fault = worker.take_fault();
        let may_end =
            matches!(worker.state, WorkerState::Draining { .. }) || self.is_shutting_down || self.config.test;
        if fault.is_none() && may_end && status.is_some_and(|status| status.success()) {
            tracing::debug!(worker = worker.process.name(), "worker ended");
        } else {
            let status = status.map_or_else(|| "status unknown".to_owned(), |status| status.to_string());
            self.handle_failure(&worker, &status, &fault.unwrap_or_else(|| "it ended unexpectedly".into()));
        }
        self.set_self_test(Err("it ended before its self-test did".into()));
        self.continue_replacing(&worker);
    }

    /// Handles the end of a worker that should not have ended, or not in this way.
    fn handle_failure(&mut self, worker: &SupervisedWorker, status: &str, why: &str) {
        let name = worker.process.name();
        let output = worker.last_output();
        if self.ready_tx.is_some() {
            let failed = format!("a worker failed: {why} ({status}){output}");
            return self.fail_start(StartError::Failed(failed));
        }
        self.set_self_test(Err(format!("{why}{output}")));
        if self.is_shutting_down || self.config.test || worker.is_replaced {
            return tracing::warn!(worker = name, status, why, "a worker did not end cleanly{output}");
        }
        if worker.serving_since.is_none() {
            // The fault may be in a file that the workers which are running have not loaded.
            self.file_watcher.add([self.config.file.clone()]);
            self.file_watcher.add(worker.fault_files.iter().cloned());
        }
        let instance = worker.process.instance;
        let is_of_instance = |other: &&SupervisedWorker| other.process.instance == instance;
        let has_worker = self.workers.iter().filter(is_of_instance).any(SupervisedWorker::holds_instance);
        if worker.serving_since.is_none() && self.replacements.front() == Some(&instance) {
            self.give_up_replacing(&format!("{name}: {why} ({status}){output}"));
            if has_worker {
                return;
            }
        }
        self.counters.crashed.add(1);
        self.instances[instance].crashed += 1;
        if has_worker {
            return tracing::error!(worker = name, status, why, "a worker crashed{output}");
        }
        let now = self.now();
        let state = &mut self.instances[instance];
        let wait = state.backoff.next(worker.serving_since.map(|since| now.saturating_sub(since)));
        state.restart_at = Some(now + wait);
        tracing::error!(worker = name, status, why, again_in = ?wait, "a worker crashed{output}");
    }

    /// Starts a worker for an instance that has none.
    pub(super) fn restart(&mut self, instance: usize) {
        if let Err(error) = self.start_worker(instance) {
            let wait = self.instances[instance].backoff.next(None);
            self.instances[instance].restart_at = Some(self.now() + wait);
            tracing::error!(app = self.config.name, instance, %error, again_in = ?wait, "a worker cannot be started");
        }
    }

    /// Reports that the workers cannot be started, and ends those that were.
    pub(super) fn fail_start(&mut self, error: StartError) {
        if let Some(ready_tx) = self.ready_tx.take() {
            let _ = ready_tx.send(Err(error)); // the thread that starts the workers waits for it
        }
        self.end_all();
        let workers = self.workers.iter_mut();
        workers.for_each(|worker| worker.kill("another worker of the application failed to start"));
    }

    /// Starts no more workers. From now on a worker may end.
    pub(super) fn begin_shutdown(&mut self) {
        self.is_shutting_down = true;
        self.replacements.clear();
        self.instances.iter_mut().for_each(|instance| instance.restart_at = None);
    }

    /// Ends all workers. Those that serve notice that the shards have ended their links.
    pub(super) fn end_all(&mut self) {
        self.begin_shutdown();
        self.shards_ended = true;
        let deadline = Instant::now() + self.config.stop_timeout;
        for worker in &mut self.workers {
            worker.process.links.clear();
            match worker.state {
                WorkerState::Starting { .. } => worker.kill("the server is shutting down"),
                WorkerState::Testing { .. } => worker.expect_end("it did not end after its self-test"),
                WorkerState::Draining { deadline: earlier } if earlier < deadline => {}
                WorkerState::Ready(_) => {
                    worker.expect_end("it did not end although the server did not start");
                }
                WorkerState::Serving(_) | WorkerState::Draining { .. } => {
                    worker.state = WorkerState::Draining { deadline };
                }
                WorkerState::Killed => {}
            }
        }
    }
}
