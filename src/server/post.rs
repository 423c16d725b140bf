//! How threads that are no shards reach the shards.

use super::Wakeups;
use crate::app::worker::{ShardsHandle, WorkerEvent};
use crate::app::{Command, Post};
use crate::metrics::{Counter, Counters};
use crate::qev::inbox::{Full, Mailbox};
use crate::qev::mesh::Port;
use crate::shard::{AppCommand, ControlMessage, Envelope, Inboxes, Wakeup};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Notices of the server's own threads that wait for one shard: shutting down, statistics, tests' clock.
const NOTICES_MAX: usize = 64;

/// Mailboxes of each shard.
pub(super) struct Mailboxes {
    notices: Vec<Mailbox<ControlMessage>>,
    posted: Vec<Mailbox<AppCommand>>,
    refused: Vec<AtomicU64>,
    wakeups: Wakeups,
}

impl Mailboxes {
    pub fn new() -> Mailboxes {
        Mailboxes { notices: Vec::new(), posted: Vec::new(), refused: Vec::new(), wakeups: Wakeups::new() }
    }

    /// Makes the inboxes of the next shard.
    /// `links` is how many links to workers there may be: so many notices more fit.
    pub fn add(&mut self, port: &mut Port<Envelope>, messages_max: usize, links: usize) -> Inboxes {
        let (to_notices, notices) = port.inbox(NOTICES_MAX + 2 * links);
        let (to_posted, posted) = port.inbox(messages_max);
        self.notices.push(to_notices);
        self.posted.push(to_posted);
        self.refused.push(AtomicU64::new(0));
        Inboxes { control: notices, app_commands: posted }
    }

    /// From now on shards can be woken. Before, none sleeps.
    pub fn open(&self, wakeups: Arc<[Wakeup]>) {
        let _ = self.wakeups.set(wakeups);
    }

    pub fn wakeups(&self) -> Arc<[Wakeup]> {
        self.wakeups.get().map_or_else(|| Arc::new([]) as Arc<[Wakeup]>, Arc::clone)
    }

    pub fn len(&self) -> usize {
        self.notices.len()
    }

    /// Leaves a notice for every shard. A shard that has not looked at so many gets none: whoever waits for an
    /// answer must not wait for ever.
    pub fn notify_all(&self, mut notice: impl FnMut() -> ControlMessage) {
        for (shard, mailbox) in self.notices.iter().enumerate() {
            if let Ok(wake) = mailbox.post(notice()) {
                self.wake(shard, wake);
            }
        }
    }

    /// Adds what is counted on this side of the inbox.
    pub fn add_counters(&self, shard: usize, counters: &mut Counters) {
        counters.add(Counter::InboxRefused, self.refused[shard].load(Ordering::Relaxed));
    }

    fn wake(&self, shard: usize, sleeps: bool) {
        if let Some(wakeups) = self.wakeups.get().filter(|_| sleeps) {
            wakeups[shard].doorbell.ring();
        }
    }
}

impl ShardsHandle for Mailboxes {
    fn send(&self, shard: usize, event: WorkerEvent) -> Result<(), WorkerEvent> {
        match self.notices[shard].post(ControlMessage::Workers(event)) {
            Ok(sleeps) => {
                self.wake(shard, sleeps);
                Ok(())
            }
            Err(Full(ControlMessage::Workers(event))) => Err(event),
            Err(Full(_)) => Ok(()),
        }
    }
}

impl Post for Mailboxes {
    fn post(&self, app: u32, command: Command) -> Result<(), Command> {
        let shard = match &command {
            // Broadcasts of one thread to one path begin on one shard, and so keep their order.
            Command::Broadcast { path, .. } => {
                let mut hasher = DefaultHasher::new();
                path.hash(&mut hasher);
                hasher.finish() as usize % self.posted.len()
            }
            _ => command.client().map_or(0, |client| usize::from(client.shard)),
        };
        // A client of no shard is one that has gone: applications in C can make one up.
        let Some(mailbox) = self.posted.get(shard) else { return Ok(()) };
        match mailbox.post(AppCommand { app, command }) {
            Ok(sleeps) => {
                self.wake(shard, sleeps);
                Ok(())
            }
            Err(Full(AppCommand { command, .. })) => {
                self.refused[shard].fetch_add(1, Ordering::Relaxed);
                Err(command)
            }
        }
    }
}
