//! The way back to the shards: results of verifications, from any thread.

use crate::identity::TokenError;
use crate::server::mailboxes::Mailboxes;
use crate::shard::{ControlMessage, VerifiedAs, VerifyJob};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};

/// A message for the thread of the verifier.
pub(super) enum VerifierMessage {
    Token(VerifyJob),
    /// The keys may have changed, a fetch may have ended, or results wait.
    Look,
}

/// The way of results to the shards.
pub(super) struct Results {
    mailboxes: Arc<Mailboxes>,
    /// Wakes the thread of the verifier.
    wake: SyncSender<VerifierMessage>,
    /// The results that the inbox of their shard had no room for: other messages fill it while a shard is stuck. Shards bound
    /// their number.
    unsent: Mutex<Vec<(usize, ControlMessage)>>,
}

impl Results {
    pub fn new(mailboxes: Arc<Mailboxes>, wake: SyncSender<VerifierMessage>) -> Results {
        Results { mailboxes, wake, unsent: Mutex::default() }
    }

    /// Sends the result of a job, now or once the shard has room.
    pub fn send(&self, job: &VerifyJob, result: Result<VerifiedAs, TokenError>) {
        let verified = ControlMessage::TokenVerified(Box::new(job.verified(result)));
        self.send_to(usize::from(job.shard), verified);
    }

    fn send_to(&self, shard: usize, result: ControlMessage) {
        if let Err(result) = self.mailboxes.send_to(shard, result) {
            self.unsent.lock().unwrap_or_else(PoisonError::into_inner).push((shard, result));
            // If the thread is busy, it looks at them anyway.
            let _ = self.wake.try_send(VerifierMessage::Look);
        }
    }

    /// Sends what could not be sent before.
    pub fn send_again(&self) {
        let unsent = std::mem::take(&mut *self.unsent.lock().unwrap_or_else(PoisonError::into_inner));
        for (shard, result) in unsent {
            self.send_to(shard, result);
        }
    }

    /// Returns whether all results were sent.
    pub fn are_sent(&self) -> bool {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}
