//! Messages from threads that are not shards to the shards.

use crate::api::{ApiMessage, ShardsBusy};
use crate::app::worker::{ShardsHandle, WorkerEvent};
use crate::app::{Command, Post};
use crate::limits::{API_MESSAGES_MAX, AUTH_PENDING_MAX};
use crate::metrics::{Counter, Counters};
use crate::qev::inbox::{Full, Mailbox};
use crate::qev::mesh::Port;
use crate::shard::{AppCommand, ControlMessage, Envelope, Inboxes, Wakeup};
use ahash::RandomState;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The longest time that the admin endpoint waits for the shards, and for the supervisor of an application.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// The maximum number of messages from the server's own threads that wait for one shard: shutdown, statistics, the
/// manual clock. There is additional room for messages about workers, and for the results of verifications.
const CONTROL_MESSAGES_MAX: usize = 64;

/// The mailboxes of all shards.
pub(super) struct Mailboxes {
    control: Vec<Mailbox<ControlMessage>>,
    app_commands: Vec<Mailbox<AppCommand>>,
    api: Vec<Mailbox<ApiMessage>>,
    /// The number of commands that the inbox of each shard had no room for.
    refused: Vec<AtomicU64>,
    /// Set once, when all shards have their rings.
    wakeups: OnceLock<Arc<[Wakeup]>>,
    /// Chooses the shard of a path.
    paths: RandomState,
}

impl Mailboxes {
    /// `paths` chooses the shard of a path, as it does on the shards.
    pub fn new(paths: RandomState) -> Mailboxes {
        Mailboxes {
            paths,
            control: Vec::new(),
            app_commands: Vec::new(),
            api: Vec::new(),
            refused: Vec::new(),
            wakeups: OnceLock::new(),
        }
    }

    /// Creates the inboxes of the next shard. `links` is the maximum number of links to workers.
    pub fn add(&mut self, port: &mut Port<Envelope>, messages_max: usize, links: usize) -> Inboxes {
        let (to_control, control) = port.inbox(CONTROL_MESSAGES_MAX + AUTH_PENDING_MAX + 2 * links);
        let (to_app_commands, app_commands) = port.inbox(messages_max);
        let (to_api, api) = port.inbox(API_MESSAGES_MAX);
        self.control.push(to_control);
        self.api.push(to_api);
        self.app_commands.push(to_app_commands);
        self.refused.push(AtomicU64::new(0));
        Inboxes { control, app_commands, api }
    }

    /// Sets the means to wake the shards. No shard sleeps before this.
    pub fn set_wakeups(&self, wakeups: Arc<[Wakeup]>) {
        assert_eq!(wakeups.len(), self.len(), "each shard can be woken");
        let is_first = self.wakeups.set(wakeups).is_ok();
        assert!(is_first, "the wakeups are set once");
    }

    pub fn wakeups(&self) -> Arc<[Wakeup]> {
        self.wakeups.get().map_or_else(|| Arc::new([]) as Arc<[Wakeup]>, Arc::clone)
    }

    /// Returns the number of shards.
    pub fn len(&self) -> usize {
        self.control.len()
    }

    /// Sends a message to every shard whose inbox has room. Returns the number of these shards. Callers that wait for
    /// replies must limit the time, because a shard that is stuck does not reply.
    pub fn send_to_all(&self, mut message: impl FnMut() -> ControlMessage) -> usize {
        let mut sent = 0;
        for (shard, mailbox) in self.control.iter().enumerate() {
            if let Ok(must_wake) = mailbox.post(message()) {
                self.wake_if(must_wake, shard);
                sent += 1;
            }
        }
        sent
    }

    /// Sends a message to one shard.
    ///
    /// # Errors
    ///
    /// Returns the message if the inbox of the shard is full, or the shard has ended.
    pub fn send_to(&self, shard: usize, message: ControlMessage) -> Result<(), ControlMessage> {
        match self.control[shard].post(message) {
            Ok(must_wake) => {
                self.wake_if(must_wake, shard);
                Ok(())
            }
            Err(Full(message)) => Err(message),
        }
    }

    /// Adds the counters that are kept on this side of a shard's inbox.
    pub fn add_counters(&self, shard: usize, counters: &mut Counters) {
        counters.add(Counter::InboxRefused, self.refused[shard].load(Ordering::Relaxed));
    }

    /// Returns the shard that begins the broadcasts of threads to a path. It is always the same one, so that those of one
    /// thread stay in order.
    pub fn of_path(&self, path: &str) -> usize {
        (self.paths.hash_one(path) % self.len() as u64) as usize
    }

    /// Posts each message of the server API to the shard with its number, or none of them.
    ///
    /// # Errors
    ///
    /// The inbox of one of these shards is full, or the shard has ended.
    pub fn post_api(&self, messages: Vec<(usize, ApiMessage)>) -> Result<(), ShardsBusy> {
        let reserve =
            |(shard, message): (usize, _)| self.api[shard].reserve().map(|place| (shard, place, message));
        let places: Option<Vec<_>> = messages.into_iter().map(reserve).collect();
        for (shard, place, message) in places.ok_or(ShardsBusy)? {
            self.wake_if(place.post(message), shard);
        }
        Ok(())
    }

    fn wake_if(&self, must_wake: bool, shard: usize) {
        if let Some(wakeups) = self.wakeups.get().filter(|_| must_wake) {
            wakeups[shard].doorbell.ring();
        }
    }
}

impl ShardsHandle for Mailboxes {
    fn send(&self, shard: usize, event: WorkerEvent) -> Result<(), WorkerEvent> {
        match self.control[shard].post(ControlMessage::Workers(event)) {
            Ok(must_wake) => {
                self.wake_if(must_wake, shard);
                Ok(())
            }
            Err(Full(ControlMessage::Workers(event))) => Err(event),
            Err(Full(_)) => unreachable!("a full inbox gives back the message"),
        }
    }
}

impl Post for Mailboxes {
    fn post(&self, app: u32, command: Command) -> Result<(), Command> {
        let shard = match &command {
            Command::Broadcast { path, .. } => self.of_path(path.as_str()),
            _ => command.client().map_or(0, |client| usize::from(client.shard)),
        };
        // An application in C can pass a client of a shard that does not exist. It is treated as disconnected.
        let Some(mailbox) = self.app_commands.get(shard) else { return Ok(()) };
        match mailbox.post(AppCommand { app, command }) {
            Ok(must_wake) => {
                self.wake_if(must_wake, shard);
                Ok(())
            }
            Err(Full(AppCommand { command, .. })) => {
                self.refused[shard].fetch_add(1, Ordering::Relaxed);
                Err(command)
            }
        }
    }
}
