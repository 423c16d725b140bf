//! The clients that an application is asked about: those whose tokens no key verifies, or that are known by a header.

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ClientId;
    use crate::qev::mesh::{MeshSettings, mesh};
    use crate::server::mailboxes::Mailboxes;
    use crate::shard::{ControlMessage, Inboxes, VerifiedToken};
    use std::sync::mpsc::sync_channel;

    /// Keeps, drops or forgets how to handle attempts, by the slots of their clients.
    #[derive(Default)]
    struct Unreliable(Mutex<Vec<AuthAttempt>>);

    impl Authenticate for Unreliable {
        fn authenticate(&self, attempt: AuthAttempt) {
            match attempt.client().client.slot {
                0 => self.0.lock().unwrap().push(attempt),
                1 => drop(attempt),
                2 => panic!("a fault of the application"),
                _ => attempt.accept_nobody(),
            }
        }
    }

    fn results() -> (Arc<Results>, Inboxes) {
        let mut port = mesh(1, MeshSettings { ring_messages: 4, overflow_bytes_max: 4096 }).pop().unwrap();
        let mut mailboxes = Mailboxes::new(ahash::RandomState::new());
        let inboxes = mailboxes.add(&mut port, 4, 0);
        let (wake, _) = sync_channel(1);
        (Arc::new(Results::new(Arc::new(mailboxes), wake)), inboxes)
    }

    fn take(inboxes: &mut Inboxes) -> Vec<VerifiedToken> {
        let mut taken = Vec::new();
        inboxes.control.receive(100, |message| match message {
            ControlMessage::TokenVerified(verified) => taken.push(*verified),
            _ => panic!("another message"),
        });
        taken
    }

    fn ask(clients: &mut AskedClients, slot: u32, results: &Arc<Results>) {
        let client = ClientId { shard: 0, slot, generation: 1 };
        let unknown =
            UnknownClient { client, token: None, address: None, transport: "raw", headers: Vec::new() };
        clients.ask(unknown, VerifyJob::of_test(slot), results);
    }

    #[test]
    fn a_client_gets_one_answer_whatever_the_application_does() {
        let (results, mut inboxes) = results();
        let app = Arc::new(Unreliable::default());
        let mut clients =
            AskedClients::new(Arc::clone(&app) as Arc<dyn Authenticate>, Duration::from_millis(1), 4);
        (0..4).for_each(|slot| ask(&mut clients, slot, &results));
        let unavailable = |verified: &VerifiedToken| matches!(verified.result, Err(TokenError::Unavailable));
        // Those that were dropped are told at once.
        let told = take(&mut inboxes);
        assert_eq!(told.iter().map(|verified| verified.slot).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(unavailable(&told[0]) && unavailable(&told[1]));
        assert!(matches!(told[2].result, Ok(VerifiedAs::Nobody)));
        // The one that is kept is told when the time is over, and the late decision has no effect.
        std::thread::sleep(Duration::from_millis(2));
        clients.give_up_late();
        assert!(clients.is_empty());
        let told = take(&mut inboxes);
        assert!(told.len() == 1 && told[0].slot == 0 && unavailable(&told[0]));
        let late = app.0.lock().unwrap().pop().unwrap();
        assert!(late.is_late());
        late.refuse();
        assert!(take(&mut inboxes).is_empty());
    }
}
