//! How threads that are no shards reach the shards.

use super::Wakeups;
use crate::app::{Busy, Command, Post};
use crate::metrics::{Counter, Counters};
use crate::qev::inbox::Mailbox;
use crate::shard::{Notice, Wakeup};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A mailbox for each shard.
pub(super) struct Mailboxes {
    mailboxes: Vec<Mailbox<Notice>>,
    refused: Vec<AtomicU64>,
    wakeups: Wakeups,
}

impl Mailboxes {
    pub fn new(mailboxes: Vec<Mailbox<Notice>>) -> Mailboxes {
        let refused = mailboxes.iter().map(|_| AtomicU64::new(0)).collect();
        Mailboxes { mailboxes, refused, wakeups: Wakeups::new() }
    }

    /// From now on shards can be woken. Before, none sleeps.
    pub fn open(&self, wakeups: Arc<[Wakeup]>) {
        let _ = self.wakeups.set(wakeups);
    }

    pub fn wakeups(&self) -> Arc<[Wakeup]> {
        self.wakeups.get().map_or_else(|| Arc::new([]) as Arc<[Wakeup]>, Arc::clone)
    }

    pub fn len(&self) -> usize {
        self.mailboxes.len()
    }

    /// Leaves a notice for every shard. An inbox that is full gets none: whoever waits for an answer must not wait
    /// for ever.
    pub fn notify_all(&self, mut notice: impl FnMut() -> Notice) {
        for shard in 0..self.mailboxes.len() {
            let _ = self.notify(shard, notice());
        }
    }

    /// Adds what is counted on this side of the inbox.
    pub fn add_counters(&self, shard: usize, counters: &mut Counters) {
        counters.add(Counter::InboxRefused, self.refused[shard].load(Ordering::Relaxed));
    }

    fn notify(&self, shard: usize, notice: Notice) -> Result<(), Busy> {
        match self.mailboxes[shard].post(notice) {
            Ok(wake) => {
                if let Some(wakeups) = self.wakeups.get().filter(|_| wake) {
                    wakeups[shard].doorbell.ring();
                }
                Ok(())
            }
            Err(_) => {
                self.refused[shard].fetch_add(1, Ordering::Relaxed);
                Err(Busy)
            }
        }
    }
}

impl Post for Mailboxes {
    fn post(&self, command: Command) -> Result<(), Busy> {
        let shard = match &command {
            // Broadcasts of one thread to one path begin on one shard, and so keep their order.
            Command::Broadcast { path, .. } => {
                let mut hasher = DefaultHasher::new();
                path.hash(&mut hasher);
                hasher.finish() as usize % self.mailboxes.len()
            }
            _ => command.client().map_or(0, |client| usize::from(client.shard)),
        };
        self.notify(shard, Notice::Command(command))
    }
}
