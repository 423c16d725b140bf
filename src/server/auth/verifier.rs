//! The thread that verifies tokens whose algorithm is slow, and those whose key has to be fetched first. It asks an application
//! about those that no key is for.

use super::asked::AskedClients;
use super::fetch::{FetchGate, FetchRequests};
use super::results::{Results, VerifierMessage};
use super::store::KeyStore;
use crate::identity::{Flaw, KeySet, Seen, SeenTokens, TokenError};
use crate::limits::AUTH_PENDING_MAX;
use crate::server::mailboxes::Mailboxes;
use crate::shard::{VerifiedAs, VerifyJob, VerifyTokens};
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The name of the thread.
const THREAD: &str = "quickio-auth";

/// How long a token waits for its key to be fetched.
const FETCH_WAIT: Duration = Duration::from_secs(10);

/// How often tokens that wait for a key are looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The handle of the thread. The thread ends with the process.
pub(super) struct Verifier {
    messages: SyncSender<VerifierMessage>,
    gate: Arc<FetchGate>,
    /// Taken by [`Verifier::start`].
    work: Mutex<Option<Work>>,
    /// Taken by [`Verifier::take_requests`].
    requests: Mutex<Option<FetchRequests>>,
}

impl Verifier {
    /// Prepares a thread for this many shards. It remembers tokens within this many bytes. `asked`: the application that is
    /// asked about what no key verifies.
    pub fn new(
        store: Arc<KeyStore>,
        shards: usize,
        seen_bytes_max: usize,
        asked: Option<AskedClients>,
    ) -> Verifier {
        // Each shard bounds its own tokens. One message more tells of keys.
        let (messages, received) = sync_channel(AUTH_PENDING_MAX * shards + 1);
        let (gate, requests) = FetchGate::new();
        let gate = Arc::new(gate);
        let keys = store.keys();
        let work = Work {
            received,
            store,
            keys,
            gate: Arc::clone(&gate),
            seen: SeenTokens::new(seen_bytes_max),
            waiting: Vec::new(),
            asked,
        };
        Verifier { messages, gate, work: Mutex::new(Some(work)), requests: Mutex::new(Some(requests)) }
    }

    /// Starts the thread. Results go to the shards of these mailboxes.
    pub fn start(&self, mailboxes: Arc<Mailboxes>) -> io::Result<()> {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner).take();
        let work = work.expect("the thread is started once");
        let results = Arc::new(Results::new(mailboxes, self.messages.clone()));
        Builder::new().name(THREAD.into()).spawn(move || work.run(&results)).map(drop)
    }

    /// Takes the receiver of requests for a fetch.
    pub fn take_requests(&self) -> FetchRequests {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).take();
        requests.expect("fetching is started once")
    }

    /// Tells the thread that the keys may have changed.
    pub fn keys_changed(&self) {
        self.gate.ended();
        // If the thread is busy, it looks at the keys anyway.
        let _ = self.messages.try_send(VerifierMessage::Look);
    }

    /// Has the key sets fetched, unless they were fetched just now.
    pub fn request_fetch(&self) {
        self.gate.request();
    }
}

impl VerifyTokens for Verifier {
    fn verify(&self, job: VerifyJob) -> Result<(), VerifyJob> {
        self.messages.try_send(VerifierMessage::Token(job)).map_err(|refused| {
            let (std::sync::mpsc::TrySendError::Full(message)
            | std::sync::mpsc::TrySendError::Disconnected(message)) = refused;
            match message {
                VerifierMessage::Token(job) => job,
                VerifierMessage::Look => unreachable!("a message that was not sent is given back"),
            }
        })
    }
}

/// The state of the thread.
struct Work {
    received: Receiver<VerifierMessage>,
    store: Arc<KeyStore>,
    keys: Arc<KeySet>,
    gate: Arc<FetchGate>,
    seen: SeenTokens,
    /// The tokens whose keys are being fetched, each with the time until which it waits.
    waiting: Vec<(Instant, VerifyJob)>,
    /// The clients that an application was asked about, if one is.
    asked: Option<AskedClients>,
}

impl Work {
    fn run(mut self, results: &Arc<Results>) {
        loop {
            let message = match self.is_idle() && results.are_sent() {
                true => self.received.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => self.received.recv_timeout(LOOK_AGAIN),
            };
            let job = match message {
                Ok(VerifierMessage::Token(job)) => Some(job),
                Ok(VerifierMessage::Look) | Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            results.send_again();
            self.look_at_keys(results);
            if let Some(asked) = &mut self.asked {
                asked.give_up_late();
            }
            if let Some(job) = job {
                self.handle(job, results);
            }
        }
    }

    /// Returns whether nothing is due at some time.
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.asked.as_ref().is_none_or(AskedClients::is_empty)
    }

    /// Takes over keys that have changed, and handles the tokens that have waited for them.
    fn look_at_keys(&mut self, results: &Arc<Results>) {
        let keys = self.store.keys();
        let have_changed = !Arc::ptr_eq(&keys, &self.keys);
        if have_changed {
            if keys.policy() != self.keys.policy() {
                self.seen.clear();
            }
            self.keys = keys;
        }
        let is_fetching = self.gate.is_fetching();
        let now = Instant::now();
        // Thousands may wait, and others must not wait for each look at all of them. They wait in the order of their times.
        if !have_changed && is_fetching && self.waiting.first().is_none_or(|(until, _)| *until > now) {
            return;
        }
        for (until, job) in std::mem::take(&mut self.waiting) {
            let is_unknown = |error| matches!(error, TokenError::Invalid(Flaw::UnknownKey));
            let is_known =
                !job.token.as_ref().is_some_and(|(_, token)| self.keys.open(token).is_err_and(is_unknown));
            if is_known || !is_fetching || until <= now {
                let result = self.verify(&job);
                self.reply(results, job, result);
            } else {
                self.waiting.push((until, job));
            }
        }
    }

    fn handle(&mut self, job: VerifyJob, results: &Arc<Results>) {
        match self.verify(&job) {
            Err(TokenError::Invalid(Flaw::UnknownKey)) if job.token.is_some() && self.gate.request() => {
                self.waiting.push((Instant::now() + FETCH_WAIT, job));
            }
            result => self.reply(results, job, result),
        }
    }

    fn verify(&mut self, job: &VerifyJob) -> Result<Seen, TokenError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (digest, token) = job.token.as_ref().ok_or(TokenError::Invalid(Flaw::UnknownKey))?;
        let open = self.keys.open(token)?;
        let key = open.key_mark();
        if let Some(identity) = self.seen.get(digest, &self.keys) {
            let has_expired = identity.has_expired(now, self.keys.policy().leeway);
            return if has_expired { Err(TokenError::Expired) } else { Ok(Seen { identity, key }) };
        }
        let seen = Seen { identity: Arc::new(open.verify(&self.keys, now)?), key };
        self.seen.insert(*digest, seen.clone());
        Ok(seen)
    }

    /// Sends a result, or asks the application if no key is for the token.
    fn reply(&mut self, results: &Arc<Results>, mut job: VerifyJob, result: Result<Seen, TokenError>) {
        let is_of_no_key = result.as_ref().is_err_and(|error| error.is_of_no_key());
        match (&mut self.asked, job.client.take()) {
            (Some(asked), Some(client)) if is_of_no_key => asked.ask(*client, job, results),
            _ => results.send(&job, result.map(VerifiedAs::Token)),
        }
    }
}
