//! The replacement of workers, one instance at a time: a new worker is started, takes over, and the old one finishes.

use super::Supervisor;
use crate::app::worker::commands::ReplaceOutcome;
use crate::app::worker::supervised::SupervisedWorker;

impl Supervisor {
    /// Begins to replace all workers. `why` is for the log.
    pub(super) fn replace(&mut self, why: &str) {
        if self.shards.is_none() || self.is_shutting_down {
            self.end_replacement(0);
            return;
        }
        tracing::info!(app = self.config.name, why, "replacing the workers");
        let is_replacing = !self.replacements.is_empty();
        // Workers that are still to be started will load the current files. The one that is being started may have
        // loaded older ones, and is replaced again.
        self.replacements.truncate(1);
        self.replacements.extend(0..self.config.instances);
        if !is_replacing {
            self.replace_next();
        }
    }

    /// Starts the worker that replaces the next one.
    pub(super) fn replace_next(&mut self) {
        let Some(instance) = self.replacements.front().copied() else {
            self.end_replacement(self.config.instances);
            return;
        };
        if let Err(error) = self.start_worker(instance) {
            self.give_up_replacing(&error.to_string());
        }
    }

    /// Gives up the replacement. The workers that were not replaced keep running.
    pub(super) fn give_up_replacing(&mut self, why: &str) {
        tracing::error!(
            app = self.config.name,
            why,
            "gave up replacing the workers; the others keep running"
        );
        let remaining = self.replacements.len().min(self.config.instances);
        self.replacements.clear();
        self.end_replacement(self.config.instances - remaining);
    }

    /// Reports the number of workers that were replaced.
    fn end_replacement(&mut self, replaced: usize) {
        let outcome = ReplaceOutcome { replaced, instances: self.config.instances };
        self.replaced.drain(..).for_each(|done| done(outcome));
    }

    /// Continues with the next instance if the worker that has ended was the one that is being replaced.
    pub(super) fn continue_replacing(&mut self, ended: &SupervisedWorker) {
        let instance = ended.process.instance;
        if self.is_shutting_down || self.replacements.front() != Some(&instance) {
            return;
        }
        if self.has_serving_worker(instance) {
            self.replacements.pop_front();
            self.replace_next();
        }
    }
}
