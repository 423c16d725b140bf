//! The thread that verifies tokens whose algorithm is slow, and those whose key has to be fetched first.

use super::fetch::{FetchGate, FetchRequests};
use super::store::KeyStore;
use crate::identity::{Flaw, KeySet, Seen, SeenTokens, TokenError};
use crate::limits::AUTH_PENDING_MAX;
use crate::server::mailboxes::Mailboxes;
use crate::shard::{ControlMessage, VerifyJob, VerifyTokens};
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

/// A message for the thread.
enum VerifierMessage {
    Token(VerifyJob),
    /// The keys may have changed, or a fetch has ended.
    Keys,
}

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
    /// Prepares a thread for this many shards. It remembers tokens within this many bytes.
    pub fn new(store: Arc<KeyStore>, shards: usize, seen_bytes_max: usize) -> Verifier {
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
            unsent: Vec::new(),
        };
        Verifier { messages, gate, work: Mutex::new(Some(work)), requests: Mutex::new(Some(requests)) }
    }

    /// Starts the thread. Results go to the shards of these mailboxes.
    pub fn start(&self, mailboxes: Arc<Mailboxes>) -> io::Result<()> {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner).take();
        let work = work.expect("the thread is started once");
        Builder::new().name(THREAD.into()).spawn(move || work.run(&mailboxes)).map(drop)
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
        let _ = self.messages.try_send(VerifierMessage::Keys);
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
                VerifierMessage::Keys => unreachable!("a message that was not sent is given back"),
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
    /// The results that the inbox of their shard had no room for: other messages fill it while a shard is stuck.
    unsent: Vec<(usize, ControlMessage)>,
}

impl Work {
    fn run(mut self, mailboxes: &Mailboxes) {
        loop {
            let message = match self.waiting.is_empty() && self.unsent.is_empty() {
                true => self.received.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => self.received.recv_timeout(LOOK_AGAIN),
            };
            let job = match message {
                Ok(VerifierMessage::Token(job)) => Some(job),
                Ok(VerifierMessage::Keys) | Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            for (shard, result) in std::mem::take(&mut self.unsent) {
                self.send(mailboxes, shard, result);
            }
            self.look_at_keys(mailboxes);
            if let Some(job) = job {
                self.handle(job, mailboxes);
            }
        }
    }

    /// Takes over keys that have changed, and handles the tokens that have waited for them.
    fn look_at_keys(&mut self, mailboxes: &Mailboxes) {
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
            let is_known = !matches!(self.keys.open(&job.token), Err(TokenError::Invalid(Flaw::UnknownKey)));
            if is_known || !is_fetching || until <= now {
                let result = self.verify(&job);
                self.reply(mailboxes, &job, result);
            } else {
                self.waiting.push((until, job));
            }
        }
    }

    fn handle(&mut self, job: VerifyJob, mailboxes: &Mailboxes) {
        match self.verify(&job) {
            Err(TokenError::Invalid(Flaw::UnknownKey)) if self.gate.request() => {
                self.waiting.push((Instant::now() + FETCH_WAIT, job));
            }
            result => self.reply(mailboxes, &job, result),
        }
    }

    fn verify(&mut self, job: &VerifyJob) -> Result<Seen, TokenError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let open = self.keys.open(&job.token)?;
        let key = open.key_mark();
        if let Some(identity) = self.seen.get(&job.digest, &self.keys) {
            let has_expired = identity.has_expired(now, self.keys.policy().leeway);
            return if has_expired { Err(TokenError::Expired) } else { Ok(Seen { identity, key }) };
        }
        let seen = Seen { identity: Arc::new(open.verify(&self.keys, now)?), key };
        self.seen.insert(job.digest, seen.clone());
        Ok(seen)
    }

    fn reply(&mut self, mailboxes: &Mailboxes, job: &VerifyJob, result: Result<Seen, TokenError>) {
        let verified = ControlMessage::TokenVerified(Box::new(job.verified(result)));
        self.send(mailboxes, usize::from(job.shard), verified);
    }

    fn send(&mut self, mailboxes: &Mailboxes, shard: usize, result: ControlMessage) {
        if let Err(result) = mailboxes.send_to(shard, result) {
            self.unsent.push((shard, result));
        }
    }
}
