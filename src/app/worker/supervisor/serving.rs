//! The way of a worker into service: from its readiness to the shards.

use super::{ServedShards, Supervisor};
use crate::app::worker::process::WorkerProcess;
use crate::app::worker::supervised::{PingState, WorkerState};
use crate::app::worker::{JoinedWorker, Manifest, ShardsHandle, WorkerEvent};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// The pause before an event is sent again to a shard whose queue is full, and the number of attempts. After one second
/// the shard counts as ended.
const SEND_RETRY_WAIT: Duration = Duration::from_millis(2);
const SEND_TRIES_MAX: usize = 500;

impl Supervisor {
    /// Puts the workers that are ready into service: the server's shards are running.
    pub(super) fn serve(&mut self, app: u32, handle: Arc<dyn ShardsHandle>) {
        self.shards = Some(ServedShards { app, handle });
        let ready = self.workers.iter().filter(|worker| matches!(worker.state, WorkerState::Ready(_)));
        let ready: Vec<u32> = ready.map(|worker| worker.process.serial).collect();
        ready.into_iter().for_each(|serial| self.put_into_service(serial));
    }

    /// Handles a worker that has become ready.
    pub(super) fn handle_ready_worker(&mut self, serial: u32) {
        if self.is_shutting_down {
            let deadline = Instant::now() + self.config.stop_timeout;
            if let Some(worker) = self.worker(serial) {
                worker.process.links.clear();
                worker.state = WorkerState::Draining { deadline };
            }
        } else if self.shards.is_some() {
            self.put_into_service(serial);
        } else {
            self.report_start();
        }
    }

    /// Reports that the start succeeded, once all workers are ready.
    fn report_start(&mut self) {
        let ready = self.workers.iter().filter_map(|worker| match &worker.state {
            WorkerState::Ready(manifest) => Some(Arc::clone(manifest)),
            _ => None,
        });
        let manifests: Vec<Arc<Manifest>> = ready.collect();
        if let Some(ready_tx) = self.ready_tx.take_if(|_| manifests.len() == self.config.instances) {
            let _ = ready_tx.send(Ok(Arc::clone(&manifests[0]))); // the thread that starts the workers waits for it
        }
        if self.config.test {
            let deadline = Instant::now() + self.config.start_timeout;
            self.workers.iter_mut().for_each(|worker| worker.state = WorkerState::Testing { deadline });
        }
    }

    /// Gives the links of a worker to the shards, which send it the events of its instance from then on. The worker
    /// that received them before is drained.
    fn put_into_service(&mut self, serial: u32) {
        let now = self.now();
        let (Some(at), Some(shards)) = (self.position(serial), &self.shards) else { return };
        let worker = &mut self.workers[at];
        let WorkerState::Ready(manifest) = &worker.state else { return };
        let (manifest, instance) = (Arc::clone(manifest), worker.process.instance);
        let all_accepted = shards.send_joined(&mut worker.process, &manifest, now);
        worker.state = WorkerState::Serving(PingState { number: 0, answered: true, next: now });
        worker.serving_since = Some(now);
        // The manifest may name the file without symbolic links, and it is replaced when one of them changes.
        let file = std::iter::once(self.config.file.clone());
        self.file_watcher.set(file.chain(manifest.files.iter().cloned()));
        let deadline = Instant::now() + self.config.replace_timeout;
        let mut replaces = false;
        for before in &mut self.workers {
            let is_other = before.process.serial != serial && before.process.instance == instance;
            if is_other && matches!(before.state, WorkerState::Serving(_)) {
                before.state = WorkerState::Draining { deadline };
                before.is_replaced = true;
                replaces = true;
            }
        }
        if !all_accepted {
            // Some shards have the new worker and others the old one: neither can stay.
            let of_instance = self.workers.iter_mut().filter(|worker| worker.process.instance == instance);
            of_instance.for_each(|worker| worker.kill("a shard did not accept its link in time"));
        }
        // If the instance had no worker, there is no end to wait for.
        if !replaces && self.replacements.front() == Some(&instance) {
            self.replacements.pop_front();
            self.replace_next();
        }
    }
}

impl ServedShards {
    /// Gives the links of a worker to the shards. Returns whether all shards accepted theirs.
    fn send_joined(
        &self,
        process: &mut WorkerProcess,
        manifest: &Arc<Manifest>,
        joined_at: Duration,
    ) -> bool {
        let (app, instance, worker) = (self.app, process.instance as u32, process.serial);
        let sockets = std::mem::take(&mut process.links);
        sockets.into_iter().enumerate().all(|(shard, socket)| {
            let manifest = Arc::clone(manifest);
            let joined = JoinedWorker { app, instance, worker, manifest, joined_at, socket };
            self.send(shard, WorkerEvent::Joined(joined))
        })
    }

    /// Tells the shards that a worker's process has ended. They end its links even if another process still holds them.
    pub(super) fn send_left(&self, worker: u32, shards: usize) {
        for shard in 0..shards {
            // If the queue is full, the event is lost. A shard also notices the end of a link by itself.
            let _ = self.handle.send(shard, WorkerEvent::Left { app: self.app, worker });
        }
    }

    /// Sends an event to a shard, with retries. Returns `false` if the shard did not accept it.
    fn send(&self, shard: usize, mut event: WorkerEvent) -> bool {
        for _ in 0..SEND_TRIES_MAX {
            match self.handle.send(shard, event) {
                Ok(()) => return true,
                Err(refused) => event = refused,
            }
            thread::sleep(SEND_RETRY_WAIT);
        }
        false
    }
}
