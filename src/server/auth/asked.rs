//! What an application is asked about: clients whose tokens no key verifies, or that are known by a header.

use super::results::Results;
use crate::app::{AttemptEnd, AuthAttempt, Authenticate, UnknownClient};
use crate::identity::{Identity, TokenError};
use crate::shard::{VerifiedAs, VerifyJob};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A client that the application has been asked about. The job is taken with the decision.
struct AskedClient {
    job: Mutex<Option<VerifyJob>>,
    results: Arc<Results>,
}

impl AskedClient {
    fn take(&self) -> Option<VerifyJob> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_open(&self) -> bool {
        self.job.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn end(&self, decision: Result<Option<Identity>, TokenError>) {
        let Some(job) = self.take() else { return };
        let vouched = |identity| VerifiedAs::Vouched(Arc::new(identity));
        let result = decision.map(|identity| identity.map_or(VerifiedAs::Nobody, vouched));
        self.results.send(&job, result);
    }
}

/// The end of an attempt, for the application.
struct AskedEnd(Arc<AskedClient>);

impl AttemptEnd for AskedEnd {
    fn decide(&self, decision: Result<Option<Identity>, TokenError>) {
        self.0.end(decision);
    }

    fn is_late(&self) -> bool {
        !self.0.is_open()
    }
}

/// The clients that the application has been asked about.
///
/// Shards bound the number of those that are not decided. `waiting` has at most twice as many entries: those that were decided
/// are removed when they are first, and when there are too many.
pub(super) struct AskedClients {
    authenticator: Arc<dyn Authenticate>,
    /// The time that the application has.
    timeout: Duration,
    /// In the order of their deadlines.
    waiting: VecDeque<(Instant, Arc<AskedClient>)>,
    /// The maximum number of clients that are not decided.
    max: usize,
}

impl AskedClients {
    pub fn new(authenticator: Arc<dyn Authenticate>, timeout: Duration, max: usize) -> AskedClients {
        AskedClients { authenticator, timeout, waiting: VecDeque::new(), max }
    }

    /// Asks the application about a client.
    pub fn ask(&mut self, mut client: UnknownClient, job: VerifyJob, results: &Arc<Results>) {
        client.token = job.token.as_ref().map(|(_, token)| token.clone());
        let asked = AskedClient { job: Mutex::new(Some(job)), results: Arc::clone(results) };
        let asked = Arc::new(asked);
        if self.waiting.len() >= 2 * self.max {
            self.waiting.retain(|(_, asked)| asked.is_open());
        }
        self.waiting.push_back((Instant::now() + self.timeout, Arc::clone(&asked)));
        let attempt = AuthAttempt::new(client, Box::new(AskedEnd(asked)));
        // The panic hook has reported the message and the place. The attempt was dropped, and its client is told.
        let _ = catch_unwind(AssertUnwindSafe(|| self.authenticator.authenticate(attempt)));
    }

    /// Gives up those that the application has not decided in time.
    pub fn give_up_late(&mut self) {
        let now = Instant::now();
        while let Some((deadline, asked)) = self.waiting.front() {
            if *deadline > now && asked.is_open() {
                return;
            }
            asked.end(Err(TokenError::Unavailable));
            self.waiting.pop_front();
        }
    }

    /// Returns whether none is waited for.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
