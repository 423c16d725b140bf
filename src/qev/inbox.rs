//! The inbox of a shard: how threads that are no shard (an application's, the signal handler's) send to it.

use std::fmt;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::bell::Waker;

/// An inbox of at most `messages_max` messages for the shard that `waker` wakes ([`Port::waker`]).
///
/// Memory: all of it at once, `messages_max` times the size of a message and a word.
///
/// # Panics
///
/// If `messages_max` is 0.
///
/// [`Port::waker`]: super::mesh::Port::waker
pub fn inbox<M: Send>(messages_max: usize, waker: Waker) -> (Mailbox<M>, Inbox<M>) {
    let queue = Arc::new(ArrayQueue::new(messages_max));
    (Mailbox { queue: Arc::clone(&queue), waker: waker.clone() }, Inbox { queue, waker })
}

/// Where any thread posts messages to one shard. Messages of one thread arrive in order.
pub struct Mailbox<M> {
    queue: Arc<ArrayQueue<M>>,
    waker: Waker,
}

impl<M> Mailbox<M> {
    /// Posts a message. `true`: the shard sleeps, and the caller must wake it, now and always.
    ///
    /// # Errors
    ///
    /// [`Full`], with the message, where the shard does not keep up. It is awake then, or being woken.
    pub fn post(&self, message: M) -> Result<bool, Full<M>> {
        self.queue.push(message).map_err(Full)?;
        Ok(self.waker.needs_wake())
    }
}

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self { queue: Arc::clone(&self.queue), waker: self.waker.clone() }
    }
}

/// The shard's end of its inbox.
pub struct Inbox<M> {
    queue: Arc<ArrayQueue<M>>,
    waker: Waker,
}

impl<M> Inbox<M> {
    /// Takes up to `max` messages; returns how many. Where that leaves some, the shard's next attempt to
    /// sleep fails.
    ///
    /// To be called in every turn, by the shard while it is awake. Nothing here takes a lock, but a thread
    /// that is preempted in the middle of posting (a few instructions) holds up those who take, until it goes
    /// on.
    pub fn receive(&mut self, max: usize, mut take: impl FnMut(M)) -> usize {
        let mut taken = 0;
        while taken < max {
            let Some(message) = self.queue.pop() else { return taken };
            taken += 1;
            take(message);
        }
        if !self.queue.is_empty() {
            let asleep = self.waker.needs_wake();
            debug_assert!(!asleep, "an inbox is emptied by a shard that is awake");
        }
        taken
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl<M> fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("waiting", &self.queue.len()).finish_non_exhaustive()
    }
}

impl<M> fmt::Debug for Inbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("waiting", &self.queue.len()).finish_non_exhaustive()
    }
}

/// The message that an inbox had no room for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Full<M>(pub M);

impl<M> fmt::Debug for Full<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full(_)")
    }
}

impl<M> fmt::Display for Full<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the shard's inbox is full")
    }
}

impl<M> std::error::Error for Full<M> {}

#[cfg(test)]
mod tests {
    use super::super::bell::Bell;
    use super::*;

    fn taken(inbox: &mut Inbox<u32>, max: usize) -> Vec<u32> {
        let mut messages = Vec::new();
        let count = inbox.receive(max, |message| messages.push(message));
        assert_eq!(count, messages.len());
        messages
    }

    #[test]
    fn messages_arrive_in_order_and_one_post_wakes() {
        let bell = Arc::new(Bell::default());
        let (mailbox, mut inbox) = inbox(4, Waker::new(Arc::clone(&bell)));
        assert_eq!(mailbox.post(1), Ok(false), "awake");
        assert!(!bell.announce(false), "something was posted");
        assert_eq!(taken(&mut inbox, 9), [1]);
        assert!(bell.announce(false));
        assert_eq!(mailbox.clone().post(2), Ok(true), "asleep");
        assert_eq!(mailbox.post(3), Ok(false), "being woken");
        bell.awake();
        assert_eq!(taken(&mut inbox, 9), [2, 3]);
        assert!(inbox.is_empty());
    }

    #[test]
    fn a_full_inbox_gives_the_message_back() {
        let (mailbox, mut inbox) = inbox(2, Waker::new(Arc::default()));
        assert!(mailbox.post(1).is_ok() && mailbox.post(2).is_ok());
        assert_eq!(mailbox.post(3), Err(Full(3)));
        assert_eq!(taken(&mut inbox, 1), [1]);
        assert!(mailbox.post(3).is_ok());
        assert_eq!(inbox.len(), 2);
    }

    #[test]
    fn what_is_left_keeps_the_shard_awake() {
        let bell = Arc::new(Bell::default());
        let (mailbox, mut inbox) = inbox(4, Waker::new(Arc::clone(&bell)));
        assert!(mailbox.post(1).is_ok() && mailbox.post(2).is_ok());
        assert!(!bell.announce(false), "takes the note of both");
        assert_eq!(taken(&mut inbox, 1), [1]);
        assert!(!bell.announce(false), "one is left");
        assert_eq!(taken(&mut inbox, 1), [2]);
        assert!(bell.announce(false));
    }
}
