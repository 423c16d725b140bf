//! The inbox of a shard: how threads that are no shard (an application's, the signal handler's) send to it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_queue::ArrayQueue;

use super::bell::Bell;

/// An inbox of at most `messages_max` messages for the shard of this bell, and what that has to look at
/// before it sleeps.
pub(super) fn inbox<M: Send>(messages_max: usize, bell: Arc<Bell>) -> (Mailbox<M>, Inbox<M>, Arc<Shared<M>>) {
    let shared = Arc::new(Shared { queue: ArrayQueue::new(messages_max), open: AtomicBool::new(true) });
    (Mailbox { shared: Arc::clone(&shared), bell }, Inbox { shared: Arc::clone(&shared) }, shared)
}

/// What a shard has to look at before it sleeps.
pub(super) trait Waiting: Send + Sync {
    fn is_waiting(&self) -> bool;
}

pub(super) struct Shared<M> {
    queue: ArrayQueue<M>,
    /// The inbox was not dropped yet.
    open: AtomicBool,
}

impl<M: Send> Waiting for Shared<M> {
    fn is_waiting(&self) -> bool {
        self.open.load(Ordering::Relaxed) && !self.queue.is_empty()
    }
}

/// Where any thread posts messages to one shard. Messages of one thread arrive in order.
pub struct Mailbox<M> {
    shared: Arc<Shared<M>>,
    bell: Arc<Bell>,
}

impl<M> Mailbox<M> {
    /// Posts a message. `true`: the shard sleeps, and the caller must wake it, now and always.
    ///
    /// # Errors
    ///
    /// [`Full`], with the message, where the shard does not keep up, or has gone.
    pub fn post(&self, message: M) -> Result<bool, Full<M>> {
        if !self.shared.open.load(Ordering::Relaxed) {
            return Err(Full(message));
        }
        self.shared.queue.push(message).map_err(Full)?;
        // Between the message, and the look at whether its shard sleeps: F1 in `qev/bell.rs`. Also between the message,
        // and the look at whether its shard has gone meanwhile: either that one finds the message, or this does.
        fence(Ordering::SeqCst);
        if !self.shared.open.load(Ordering::Relaxed) {
            self.shared.discard();
            return Ok(false);
        }
        Ok(self.bell.must_ring())
    }
}

impl<M> Shared<M> {
    /// Drops what nobody will take any more. Not left to the last mailbox: what is dropped may belong to somebody who
    /// waits for it.
    fn discard(&self) {
        while let Some(message) = self.queue.pop() {
            drop(message);
        }
    }
}

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), bell: Arc::clone(&self.bell) }
    }
}

/// The shard's end of its inbox.
pub struct Inbox<M> {
    shared: Arc<Shared<M>>,
}

impl<M> Inbox<M> {
    /// Takes up to `max` messages; returns how many.
    ///
    /// Nothing here takes a lock, but a thread that is preempted in the middle of posting (a few
    /// instructions) holds up the shard that receives, until it goes on.
    pub fn receive(&mut self, max: usize, mut take: impl FnMut(M)) -> usize {
        let mut received = 0;
        while received < max {
            let Some(message) = self.shared.queue.pop() else { break };
            received += 1;
            take(message);
        }
        received
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.shared.queue.len()
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.shared.queue.is_empty()
    }
}

impl<M> Drop for Inbox<M> {
    fn drop(&mut self) {
        self.shared.open.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.shared.discard();
    }
}

impl<M> fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("waiting", &self.shared.queue.len()).finish_non_exhaustive()
    }
}

impl<M> fmt::Debug for Inbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("waiting", &self.shared.queue.len()).finish_non_exhaustive()
    }
}

/// The message that an inbox had no room for, or no shard any more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Full<M>(pub M);

impl<M> fmt::Debug for Full<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full(_)")
    }
}

impl<M> fmt::Display for Full<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the shard's inbox is full, or the shard has gone")
    }
}

impl<M> std::error::Error for Full<M> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(inbox: &mut Inbox<u32>, max: usize) -> Vec<u32> {
        let mut messages = Vec::new();
        let count = inbox.receive(max, |message| messages.push(message));
        assert_eq!(count, messages.len());
        messages
    }

    #[test]
    fn messages_arrive_in_order_and_one_post_wakes() {
        let bell = Arc::new(Bell::default());
        let (mailbox, mut inbox, waiting) = inbox(4, Arc::clone(&bell));
        assert_eq!(mailbox.post(1), Ok(false), "awake");
        assert!(waiting.is_waiting());
        assert_eq!(received(&mut inbox, 9), [1]);
        assert!(bell.announce(false) && !waiting.is_waiting());
        assert_eq!(mailbox.clone().post(2), Ok(true), "asleep");
        assert_eq!(mailbox.post(3), Ok(false), "being woken");
        bell.awake();
        assert_eq!(received(&mut inbox, 1), [2]);
        assert!(waiting.is_waiting(), "one is left");
        assert_eq!(received(&mut inbox, 9), [3]);
        assert!(inbox.is_empty() && !waiting.is_waiting());
    }

    #[test]
    fn a_full_inbox_gives_the_message_back() {
        let (mailbox, mut inbox, _) = inbox(2, Arc::default());
        assert!(mailbox.post(1).is_ok() && mailbox.post(2).is_ok());
        assert_eq!(mailbox.post(3), Err(Full(3)));
        assert_eq!(received(&mut inbox, 1), [1]);
        assert!(mailbox.post(3).is_ok());
        assert_eq!(inbox.len(), 2);
    }

    #[test]
    fn an_inbox_that_was_dropped_keeps_nobody_awake() {
        let (mailbox, inbox, waiting) = inbox(2, Arc::default());
        assert_eq!(mailbox.post(1), Ok(false));
        drop(inbox);
        assert!(!waiting.is_waiting());
        assert_eq!(mailbox.post(2), Err(Full(2)));
    }
}
