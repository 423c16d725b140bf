//! Inboxes, through which threads that are not shards (of applications, or the signal handler) send messages to a
//! shard.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use crossbeam_queue::SegQueue;

use super::bell::Bell;

/// Creates an inbox of at most `messages_max` messages for the shard with this bell. Also returns the part that the
/// shard examines before it sleeps.
pub(super) fn inbox<M: Send>(
    messages_max: usize,
    bell: Arc<Bell>,
) -> (Mailbox<M>, Inbox<M>, Arc<InboxShared<M>>) {
    assert!(messages_max > 0, "an inbox must hold at least one message");
    let shared = Arc::new(InboxShared {
        queue: SegQueue::new(),
        messages: AtomicUsize::new(0),
        messages_max,
        open: AtomicBool::new(true),
        paused: AtomicBool::new(false),
    });
    (Mailbox { shared: Arc::clone(&shared), bell }, Inbox { shared: Arc::clone(&shared) }, shared)
}

/// A source of messages, which a shard examines before it sleeps.
pub(super) trait MessageSource: Send + Sync {
    fn has_messages(&self) -> bool;
}

/// The state that both ends of an inbox share. Its memory follows the number of messages that wait: an inbox is usually
/// empty, and `messages_max` of them would take most of the memory of an idle shard.
///
/// Invariant: `messages` is at least the number of messages in `queue`, and at most `messages_max`.
pub(super) struct InboxShared<M> {
    queue: SegQueue<M>,
    /// The number of messages in the queue, and of places that are reserved.
    messages: AtomicUsize,
    messages_max: usize,
    /// `false` after the inbox was dropped.
    open: AtomicBool,
    /// `true` while the shard does not receive. Only the shard reads and writes it.
    paused: AtomicBool,
}

impl<M: Send> MessageSource for InboxShared<M> {
    fn has_messages(&self) -> bool {
        if !self.has_any() {
            return false;
        }
        let is_received = self.open.load(Ordering::Relaxed) && !self.paused.load(Ordering::Relaxed);
        is_received && !self.queue.is_empty()
    }
}

/// The sending end of an inbox, which any thread may use. Messages of one thread arrive in order.
pub struct Mailbox<M> {
    shared: Arc<InboxShared<M>>,
    bell: Arc<Bell>,
}

impl<M> Mailbox<M> {
    /// Posts a message. Returns `true` if the shard sleeps: the caller must then wake it at once and in any case.
    ///
    /// # Errors
    ///
    /// Returns [`Full`] with the message if the inbox is full or the shard has ended.
    pub fn post(&self, message: M) -> Result<bool, Full<M>> {
        match self.reserve() {
            Some(place) => Ok(place.post(message)),
            None => Err(Full(message)),
        }
    }

    /// Reserves a place for a message, or returns `None` if the inbox is full or the shard has ended. With places in several
    /// inboxes, a thread posts to all of them or to none.
    pub fn reserve(&self) -> Option<ReservedPlace<'_, M>> {
        let is_reserved = self.shared.open.load(Ordering::Relaxed) && self.shared.reserve();
        is_reserved.then(|| ReservedPlace { mailbox: self })
    }

    /// Posts a message for which a place was reserved.
    fn post_reserved(&self, message: M) -> bool {
        self.shared.queue.push(message);
        // This fence is F1 in `qev/bell.rs`: it stands between the message and the check whether the shard sleeps. It
        // also stands between the message and the check whether the inbox was dropped in the meantime: either
        // `Inbox::drop` finds the message, or this function does.
        fence(Ordering::SeqCst);
        if !self.shared.open.load(Ordering::Relaxed) {
            self.shared.discard();
            return false;
        }
        self.bell.must_ring()
    }
}

/// A place for one message in an inbox. Dropping it gives the place back.
#[must_use = "the place is given back when it is dropped"]
pub struct ReservedPlace<'a, M> {
    mailbox: &'a Mailbox<M>,
}

impl<M> ReservedPlace<'_, M> {
    /// Posts a message. Returns `true` if the shard sleeps: the caller must then wake it at once and in any case.
    ///
    /// If the shard has ended meanwhile, the message is dropped.
    pub fn post(self, message: M) -> bool {
        let mailbox = self.mailbox;
        // The message takes the place.
        std::mem::forget(self);
        mailbox.post_reserved(message)
    }
}

impl<M> Drop for ReservedPlace<'_, M> {
    fn drop(&mut self) {
        self.mailbox.shared.messages.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<M> fmt::Debug for ReservedPlace<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReservedPlace")
    }
}

impl<M> InboxShared<M> {
    /// Counts one more message, if there is room for it.
    fn reserve(&self) -> bool {
        let add = |messages| (messages < self.messages_max).then_some(messages + 1);
        self.messages.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    /// Returns whether messages are in the queue, or about to be put there. This costs less than a look into the queue,
    /// which is usually empty.
    #[inline]
    fn has_any(&self) -> bool {
        self.messages.load(Ordering::Relaxed) > 0
    }

    fn pop(&self) -> Option<M> {
        if !self.has_any() {
            return None;
        }
        let message = self.queue.pop()?;
        self.messages.fetch_sub(1, Ordering::Relaxed);
        Some(message)
    }

    /// Drops the messages after the inbox was dropped. This is not left to the last mailbox, because a thread may wait
    /// until its message is received or dropped.
    fn discard(&self) {
        while let Some(message) = self.pop() {
            drop(message);
        }
    }
}

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), bell: Arc::clone(&self.bell) }
    }
}

/// The receiving end of an inbox, which belongs to the shard.
pub struct Inbox<M> {
    shared: Arc<InboxShared<M>>,
}

impl<M> Inbox<M> {
    /// Receives up to `max` messages and passes each to `handle`. Returns their number.
    ///
    /// There are no locks, but if a thread is preempted while it posts (within a few instructions), the shard that
    /// receives waits until this thread continues.
    pub fn receive(&mut self, max: usize, mut handle: impl FnMut(M)) -> usize {
        let mut received = 0;
        while received < max {
            let Some(message) = self.shared.pop() else { break };
            received += 1;
            handle(message);
        }
        received
    }

    /// Sets whether messages keep the shard awake. While they do not, the inbox gets full and refuses more.
    pub fn set_paused(&mut self, paused: bool) {
        self.shared.paused.store(paused, Ordering::Relaxed);
    }

    /// Returns whether messages wait that keep the shard awake.
    pub fn has_work(&self) -> bool {
        !self.shared.paused.load(Ordering::Relaxed) && !self.is_empty()
    }

    /// Returns the number of waiting messages.
    pub fn len(&self) -> usize {
        self.shared.queue.len()
    }

    /// Returns `true` if no message waits.
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

/// A message that was not posted because the inbox was full or its shard had ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Full<M>(pub M);

impl<M> fmt::Debug for Full<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full(_)")
    }
}

impl<M> fmt::Display for Full<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the shard's inbox is full, or the shard has ended")
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
    fn messages_arrive_in_order_and_one_post_wakes_the_shard() {
        let bell = Arc::new(Bell::default());
        let (mailbox, mut inbox, waiting) = inbox(4, Arc::clone(&bell));
        assert_eq!(mailbox.post(1), Ok(false), "awake");
        assert!(waiting.has_messages());
        assert_eq!(received(&mut inbox, 9), [1]);
        assert!(bell.announce_sleep(false) && !waiting.has_messages());
        assert_eq!(mailbox.clone().post(2), Ok(true), "asleep");
        assert_eq!(mailbox.post(3), Ok(false), "being woken");
        bell.end_sleep();
        assert_eq!(received(&mut inbox, 1), [2]);
        assert!(waiting.has_messages(), "one message is left");
        assert_eq!(received(&mut inbox, 9), [3]);
        assert!(inbox.is_empty() && !waiting.has_messages());
    }

    #[test]
    fn a_full_inbox_returns_the_message() {
        let (mailbox, mut inbox, _) = inbox(2, Arc::default());
        assert!(mailbox.post(1).is_ok() && mailbox.post(2).is_ok());
        assert_eq!(mailbox.post(3), Err(Full(3)));
        assert_eq!(received(&mut inbox, 1), [1]);
        assert!(mailbox.post(3).is_ok());
        assert_eq!(inbox.len(), 2);
    }

    #[test]
    fn a_reserved_place_is_used_or_given_back() {
        let bell = Arc::new(Bell::default());
        let (mailbox, mut inbox, waiting) = inbox(2, Arc::clone(&bell));
        let first = mailbox.reserve().expect("there is room");
        let second = mailbox.reserve().expect("there is room");
        assert!(mailbox.reserve().is_none());
        assert_eq!(mailbox.post(1), Err(Full(1)));
        assert!(!waiting.has_messages(), "a place is no message");
        drop(first);
        assert_eq!(mailbox.post(1), Ok(false));
        assert!(bell.announce_sleep(false));
        assert!(second.post(2), "the shard sleeps");
        assert_eq!(received(&mut inbox, 9), [1, 2]);
        let late = mailbox.reserve().expect("there is room");
        drop(inbox);
        assert!(!late.post(3), "the message is dropped with the inbox");
        assert!(mailbox.reserve().is_none() && !waiting.has_messages());
    }

    /// Each poster counts what it was allowed to post. The messages must never be more than the inbox holds.
    #[test]
    fn many_threads_never_post_more_than_the_inbox_holds() {
        const MAX: usize = 100;
        let (mailbox, mut inbox, _) = inbox(MAX, Arc::default());
        let posted: usize = std::thread::scope(|scope| {
            let post = || (0..10_000).filter(|number| mailbox.post(*number).is_ok()).count();
            let posters: Vec<_> = (0..4).map(|_| scope.spawn(post)).collect();
            posters.into_iter().map(|poster| poster.join().expect("the poster does not panic")).sum()
        });
        assert_eq!((posted, inbox.len()), (MAX, MAX));
        assert_eq!(received(&mut inbox, 2 * MAX).len(), MAX);
        assert!(inbox.is_empty() && mailbox.post(1).is_ok());
    }

    #[test]
    fn a_dropped_inbox_keeps_no_shard_awake() {
        let (mailbox, inbox, waiting) = inbox(2, Arc::default());
        assert_eq!(mailbox.post(1), Ok(false));
        drop(inbox);
        assert!(!waiting.has_messages());
        assert_eq!(mailbox.post(2), Err(Full(2)));
    }
}
