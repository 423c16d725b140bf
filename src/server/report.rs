//! The summary of the statistics that SIGUSR1 logs: for a server whose admin endpoint is off or cannot be reached.

use super::mailboxes::{ANSWER_WAIT, Mailboxes};
use super::statistics::gather;
use crate::metrics::{Counter, Gauge, Snapshot};
use crate::qev::control::ControlExecutor;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The reporter, which logs one summary at a time.
pub(super) struct StatisticsReport {
    mailboxes: Arc<Mailboxes>,
    /// Set while a summary is being made. Signals that arrive meanwhile ask for the same one.
    is_busy: Arc<AtomicBool>,
}

impl StatisticsReport {
    pub fn new(mailboxes: Arc<Mailboxes>) -> StatisticsReport {
        StatisticsReport { mailboxes, is_busy: Arc::default() }
    }

    /// Logs the values of all shards, as soon as they have answered.
    pub fn log(&self, control: &ControlExecutor) {
        if self.is_busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let (mailboxes, is_busy) = (Arc::clone(&self.mailboxes), Arc::clone(&self.is_busy));
        control.spawn(move |_| async move {
            log_summary(&gather(&mailboxes, ANSWER_WAIT).await);
            is_busy.store(false, Ordering::Release);
        });
    }
}

fn log_summary(shards: &[Option<Snapshot>]) {
    let mut all = Snapshot::new();
    shards.iter().flatten().for_each(|snapshot| all.merge(snapshot));
    let gauge = |gauge| all.gauges.get(gauge);
    let counter = |counter| all.counters.get(counter);
    tracing::info!(
        shards = shards.len(),
        connections = gauge(Gauge::Connections),
        clients = gauge(Gauge::Clients),
        http_sessions = gauge(Gauge::HttpSessions),
        subscriptions = gauge(Gauge::Subscriptions),
        outbox_bytes = gauge(Gauge::OutboxBytes),
        worker_links = gauge(Gauge::WorkerLinks),
        accepted = counter(Counter::ConnectionsAccepted),
        mesh_refused = counter(Counter::MeshRefused),
        "statistics, as asked for by SIGUSR1"
    );
    let silent: Vec<usize> = (0..shards.len()).filter(|shard| shards[*shard].is_none()).collect();
    if !silent.is_empty() {
        tracing::warn!(
            shards = ?silent,
            "some shards did not answer within {ANSWER_WAIT:?}; their values are missing. A handler may block them"
        );
    }
}
