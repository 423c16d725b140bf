//! The tasks of the application: a request for each event, and batches of ends.

use super::breaker::Breaker;
use super::client::{HookAnswer, HookClient};
use super::fair_queue::FairQueue;
use super::request::{self, Connected};
use super::settings::WebhookSettings;
use super::shares::{RequestShare, Requester};
use crate::app::{Answer, AuthAttempt, Later, LaterDecision, SendCallback};
use crate::client::ClientId;
use crate::limits::{
    WEBHOOK_CONNECTS_MAX, WEBHOOK_GONE_BATCH, WEBHOOK_GONE_LINGER, WEBHOOK_RETRY_WAIT, WEBHOOK_RETRY_WAIT_MAX,
};
use crate::log::throttle;
use crate::metrics::{Counter, SharedCounters};
use crate::qev::control::{Permit, Permits, Spawner, sleep};
use futures_channel::mpsc;
use futures_lite::StreamExt;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Something that the back end is asked or told. Shares and permits belong to it until it is done.
pub(super) enum Job {
    Connect(AuthAttempt),
    On { promise: LaterDecision, body: Vec<u8>, share: RequestShare },
    Send { promise: Later, body: Vec<u8>, share: RequestShare },
    Gone { client: ClientId, permit: Permit },
}

/// The state that all tasks share.
pub(super) struct HookDelivery {
    client: HookClient,
    breaker: RefCell<Breaker>,
    /// Clients whose authentication waits for its turn.
    connects: RefCell<FairQueue<Requester, AuthAttempt>>,
    /// Those that the back end is being asked about.
    connecting: Permits,
    counters: Arc<SharedCounters>,
    began: Instant,
    spawner: Spawner,
}

impl HookDelivery {
    pub fn new(settings: WebhookSettings, counters: Arc<SharedCounters>, spawner: Spawner) -> HookDelivery {
        HookDelivery {
            client: HookClient::new(settings, spawner.clone()),
            breaker: RefCell::default(),
            connects: RefCell::new(FairQueue::new()),
            connecting: Permits::new(WEBHOOK_CONNECTS_MAX),
            counters,
            began: Instant::now(),
            spawner,
        }
    }

    /// Begins jobs until the application stops.
    pub async fn run(self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        let delivery = Rc::new(self);
        let (ends, of_gone) = mpsc::unbounded();
        delivery.spawner.spawn(Rc::clone(&delivery).tell_ends(of_gone));
        while let Some(job) = jobs.next().await {
            match job {
                // This never fails: the task that receives them never ends.
                Job::Gone { client, permit } => drop(ends.unbounded_send((client, permit))),
                Job::Connect(attempt) => {
                    let client = attempt.client();
                    let requester = Requester::new(client.address, client.client);
                    delivery.connects.borrow_mut().push(requester, attempt);
                    delivery.connect_next();
                }
                job => delivery.spawner.spawn(Rc::clone(&delivery).ask(job)),
            }
        }
    }

    /// Asks about clients whose turn it is, as many at a time as may be.
    fn connect_next(self: &Rc<Self>) {
        while let Some(permit) = self.connecting.try_acquire() {
            let Some(attempt) = self.connects.borrow_mut().pop() else { return };
            if !attempt.is_late() {
                self.spawner.spawn(Rc::clone(self).connect(attempt, permit));
            }
        }
    }

    /// Asks who a client is.
    async fn connect(self: Rc<Self>, attempt: AuthAttempt, permit: Permit) {
        let answered = self.post("connect", request::connect(attempt.client())).await;
        match answered.map(|answer| request::connected(answer.status, &answer.body)) {
            Some(Ok(Connected::Accepted(identity))) => attempt.accept(identity),
            Some(Ok(Connected::Nobody)) => attempt.accept_nobody(),
            Some(Ok(Connected::Expired)) => attempt.refuse_expired(),
            Some(Ok(Connected::Refused(reason))) => {
                let peer = attempt.client().address;
                throttle!(
                    info,
                    "refused webhook clients",
                    ?peer,
                    reason,
                    "the back end of webhook refuses a client"
                );
                attempt.refuse();
            }
            Some(Err(problem)) => {
                self.counters.add(Counter::WebhookUnusable, 1);
                throttle!(
                    error,
                    "unusable webhook answers",
                    "an answer of the back end of webhook to the event connect cannot be used: {problem}"
                );
                attempt.fail();
            }
            None => attempt.fail(),
        }
        drop(permit);
        self.connect_next();
    }

    /// Makes one request, and keeps its promise.
    async fn ask(self: Rc<Self>, job: Job) {
        match job {
            Job::On { promise, body, share } => {
                let is_accepted = match self.post("on", body).await {
                    Some(answer) => (200..=299).contains(&answer.status),
                    None => false,
                };
                decide(promise, is_accepted).await;
                drop(share);
            }
            Job::Send { promise, body, share } => {
                let answered = self.post("send", body).await;
                let answer = answered.and_then(|answer| request::answer(answer.status, &answer.body));
                let failed = || Answer::error(500, "the back end does not answer");
                keep(promise, answer.unwrap_or_else(failed)).await;
                drop(share);
            }
            Job::Connect(_) | Job::Gone { .. } => unreachable!("they have queues of their own"),
        }
    }

    /// Makes a request, unless the breaker is open. Returns `None` if there is no answer, or one of 500 and above.
    async fn post(&self, event: &'static str, body: Vec<u8>) -> Option<HookAnswer> {
        if !self.breaker.borrow_mut().admit(self.began.elapsed()) {
            self.counters.add(Counter::WebhookSkipped, 1);
            return None;
        }
        self.counters.add(Counter::WebhookRequests, 1);
        let (answer, problem) = match self.client.post(event, body).await {
            Ok(answer) if answer.status < 500 => (Some(answer), String::new()),
            Ok(answer) => (None, format!("it answered with {}", answer.status)),
            Err(problem) => (None, problem),
        };
        if answer.is_none() {
            self.counters.add(Counter::WebhookFailures, 1);
            throttle!(
                warn,
                "failed webhook requests",
                event,
                "a request to the back end of webhook has failed: {problem}"
            );
        }
        if self.breaker.borrow_mut().record(answer.is_some(), self.began.elapsed()) {
            self.counters.add(Counter::WebhookBreakerOpened, 1);
            throttle!(
                warn,
                "the breaker of webhook",
                "the back end of webhook has failed several times in a row: it is left alone for some seconds, and events \
                 are answered with 500 meanwhile"
            );
        }
        answer
    }

    /// Tells the back end which clients have disconnected, at least once each, while the application runs.
    async fn tell_ends(self: Rc<Self>, mut ends: mpsc::UnboundedReceiver<(ClientId, Permit)>) {
        while let Some(first) = ends.next().await {
            // Others follow, if many disconnect.
            sleep(WEBHOOK_GONE_LINGER).await;
            let mut batch = vec![first];
            while batch.len() < WEBHOOK_GONE_BATCH {
                let Ok(next) = ends.try_recv() else { break };
                batch.push(next);
            }
            let clients: Vec<ClientId> = batch.iter().map(|(client, _)| *client).collect();
            self.tell(&clients).await;
        }
    }

    async fn tell(&self, clients: &[ClientId]) {
        let mut wait = WEBHOOK_RETRY_WAIT;
        loop {
            let answer = self.post("gone", request::gone(clients)).await;
            match answer {
                Some(answer) if (200..=299).contains(&answer.status) => return,
                Some(answer) if answer.status != 429 => {
                    // It would refuse the same request again.
                    self.counters.add(Counter::WebhookGoneDropped, clients.len() as u64);
                    throttle!(
                        error,
                        "refused ends of webhook clients",
                        status = answer.status,
                        "the back end of webhook refuses to be told which clients have disconnected"
                    );
                    return;
                }
                _ => {}
            }
            self.counters.add(Counter::WebhookGoneRetries, 1);
            sleep(wait).await;
            wait = (wait * 2).min(WEBHOOK_RETRY_WAIT_MAX);
        }
    }
}

/// The pause before a promise is tried again whose shard had no room for it.
const BUSY_WAIT: Duration = Duration::from_millis(10);

async fn decide(mut promise: LaterDecision, is_accepted: bool) {
    while let Err(again) = promise.decide(is_accepted) {
        promise = again;
        sleep(BUSY_WAIT).await;
    }
}

async fn keep(promise: Later, answer: Answer<SendCallback>) {
    let mut next = Some((promise, answer));
    while let Some((promise, answer)) = next.take() {
        if let Err(unanswered) = promise.answer(answer) {
            next = Some((unanswered.later, unanswered.answer));
            sleep(BUSY_WAIT).await;
        }
    }
}
