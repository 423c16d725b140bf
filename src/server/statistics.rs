//! The statistics of the whole server, for the admin endpoint: gathers the snapshots of all shards.
//!
//! One task sends these requests and those of `inspections` to the shards, one at a time: the inbox of a shard never holds
//! more than one of them,
//! regardless of the number of connections. Requests that wait for the same snapshot share it.

use super::inspections::{InspectionRequest, Inspections};
use super::mailboxes::{ANSWER_WAIT, Mailboxes};
use crate::admin::{self, CertificateTable, Health, Info};
use crate::app::worker_app::WorkerApplication;
use crate::inspect::{BusiestPaths, ClientDetails, ClientId, SlowestClients, WorkerStatus};
use crate::log;
use crate::metrics::{SharedCounters, Snapshot};
use crate::qev::clock::ClockHandle;
use crate::qev::control::{Spawner, timeout};
use crate::shard::ControlMessage;
use futures_channel::{mpsc, oneshot};
use futures_lite::StreamExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// The sources of the statistics.
pub(super) struct StatisticsParts {
    pub mailboxes: Arc<Mailboxes>,
    /// The handle that moves the manual clock. `None` if the clock is the system's.
    pub clock: Option<ClockHandle>,
    pub workers: Vec<Arc<WorkerApplication>>,
    pub listen: Vec<String>,
    /// The certificates of the server.
    pub certificates: CertificateTable,
    /// The counters of services and applications that belong to no shard.
    pub services: Vec<Arc<SharedCounters>>,
    pub dropped_lines: log::LineCount,
    pub failed_lines: log::LineCount,
}

/// The admin endpoint's source.
pub(super) struct Statistics {
    parts: Rc<StatisticsParts>,
    started: Instant,
    started_at: SystemTime,
    /// The channel to the task that sends requests to the shards.
    requests: mpsc::Sender<StatisticsRequest>,
}

enum StatisticsRequest {
    Snapshot(oneshot::Sender<Option<Rc<[Snapshot]>>>),
    AdvanceClock(Duration, oneshot::Sender<bool>),
    Inspect(InspectionRequest),
}

impl Statistics {
    /// Starts the task that sends requests to the shards.
    pub fn start(parts: StatisticsParts, spawner: &Spawner) -> Statistics {
        let parts = Rc::new(parts);
        let (requests, received) = mpsc::channel(0);
        spawner.spawn(answer(Rc::clone(&parts), received));
        Statistics { parts, started: Instant::now(), started_at: SystemTime::now(), requests }
    }

    /// Sends a request to the task and returns the reply, or `None` if the task has ended.
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> StatisticsRequest) -> Option<T> {
        let (reply, replied) = oneshot::channel();
        // Each clone of the sender has a slot of its own in the channel. The connections of the endpoint bound their
        // number.
        self.requests.clone().try_send(request(reply)).ok()?;
        replied.await.ok()
    }

    /// Asks about clients, paths or workers. Returns `None` if a shard or supervisor does not answer in time.
    async fn inspect<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Option<T>>) -> InspectionRequest,
    ) -> Option<T> {
        timeout(ANSWER_WAIT, self.ask(|reply| StatisticsRequest::Inspect(request(reply)))).await??
    }
}

impl admin::Source for Statistics {
    async fn snapshot(&self) -> Option<Rc<[Snapshot]>> {
        timeout(ANSWER_WAIT, self.ask(StatisticsRequest::Snapshot)).await??
    }

    async fn health(&self) -> Health {
        match self.snapshot().await {
            Some(_) => Health::Healthy,
            None => Health::Unhealthy("a shard does not answer".into()),
        }
    }

    async fn advance_clock(&self, by: Duration) -> bool {
        self.ask(|reply| StatisticsRequest::AdvanceClock(by, reply)).await.unwrap_or(false)
    }

    async fn slowest_clients(&self) -> Option<Rc<SlowestClients>> {
        self.inspect(InspectionRequest::Slowest).await
    }

    async fn client(&self, id: ClientId) -> Option<Option<Box<ClientDetails>>> {
        self.inspect(|reply| InspectionRequest::Client(id, reply)).await
    }

    async fn busiest_paths(&self) -> Option<Rc<BusiestPaths>> {
        self.inspect(InspectionRequest::Busiest).await
    }

    async fn workers(&self) -> Option<Rc<[WorkerStatus]>> {
        self.inspect(InspectionRequest::Workers).await
    }

    fn info(&self) -> Info {
        Info {
            version: env!("CARGO_PKG_VERSION"),
            started: self.started_at,
            uptime: self.started.elapsed(),
            listen: self.parts.listen.clone(),
            shards: self.parts.mailboxes.len(),
            certificates: self.parts.certificates.get(),
            manual_clock: self.parts.clock.is_some(),
            log_lines_dropped: self.parts.dropped_lines.count(),
            log_lines_failed: self.parts.failed_lines.count(),
            log_lines_suppressed: log::suppressed_lines(),
            logins: admin::LoginCounts::default(),
        }
    }
}

/// Requests the values of every shard. Those of a shard that does not answer in time are missing.
pub(super) async fn gather(mailboxes: &Mailboxes, within: Duration) -> Vec<Option<Snapshot>> {
    let mut snapshots: Vec<Option<Snapshot>> = vec![None; mailboxes.len()];
    let (reply, mut replies) = mpsc::channel(0);
    mailboxes.send_to_all(|| ControlMessage::Snapshot(reply.clone()));
    drop(reply);
    let gather = async {
        while let Some((shard, snapshot)) = replies.next().await {
            snapshots[usize::from(shard)] = Some(snapshot);
        }
    };
    timeout(within, gather).await;
    snapshots
}

/// Handles requests until all senders have been dropped.
async fn answer(parts: Rc<StatisticsParts>, mut requests: mpsc::Receiver<StatisticsRequest>) {
    let mut inspections = Inspections::default();
    while let Some(first) = requests.next().await {
        let mut waiting = Vec::new();
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                StatisticsRequest::Snapshot(reply) => waiting.push(reply),
                // This fails only if the receiver has given up.
                StatisticsRequest::AdvanceClock(by, reply) => drop(reply.send(parts.advance_clock(by).await)),
                StatisticsRequest::Inspect(request) => {
                    inspections.answer(&parts.mailboxes, &parts.workers, request).await;
                }
            }
            next = requests.try_recv().ok();
        }
        waiting.retain(|reply| !reply.is_canceled());
        if !waiting.is_empty() {
            let snapshots = parts.snapshot().await;
            waiting.into_iter().for_each(|reply| drop(reply.send(snapshots.clone())));
        }
    }
}

impl StatisticsParts {
    /// Requests the values of every shard. Returns `None` if a shard does not answer in time, or if its inbox is full.
    async fn snapshot(&self) -> Option<Rc<[Snapshot]>> {
        let snapshots = gather(&self.mailboxes, ANSWER_WAIT).await;
        let mut snapshots = snapshots.into_iter().collect::<Option<Vec<Snapshot>>>()?;
        for (shard, snapshot) in snapshots.iter_mut().enumerate() {
            self.mailboxes.add_counters(shard, &mut snapshot.counters);
        }
        // The counters of the supervisors and of other services belong to no shard. Added to any shard, they make the sums complete.
        if let Some(first) = snapshots.first_mut() {
            self.workers.iter().for_each(|app| app.add_counters(first));
            self.services.iter().for_each(|service| service.add_to(&mut first.counters));
        }
        Some(snapshots.into())
    }

    /// Advances the clock and waits until everything that is due has been done. Returns `false` if the clock is the
    /// system's, or if a shard does not answer in time.
    async fn advance_clock(&self, by: Duration) -> bool {
        let Some(clock) = &self.clock else { return false };
        clock.advance(by);
        let (reply, mut replies) = mpsc::channel(0);
        self.mailboxes.send_to_all(|| ControlMessage::ClockMoved(reply.clone()));
        drop(reply);
        let mut answered = 0;
        while let Some(Some(())) = timeout(ANSWER_WAIT, replies.next()).await {
            answered += 1;
        }
        for app in &self.workers {
            // If a supervisor does not answer in time, the response does not wait any longer.
            timeout(ANSWER_WAIT, app.clock_moved()).await;
        }
        answered == self.mailboxes.len()
    }
}
