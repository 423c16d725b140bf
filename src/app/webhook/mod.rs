//! The bundled application `webhook`: a back end in any language authenticates clients, decides about subscriptions, answers events
//! and is told which clients have disconnected, by HTTP requests that the server makes. docs/webhooks.md describes them.
//!
//! This application uses nothing but what every application can use: an authenticator, promises (`later`), data of clients whose
//! end is noticed by its `Drop`, and threads. Requests are made by tasks on a control executor of its own.
//!
//! | file | content |
//! | --- | --- |
//! | `settings` | the settings, and the address |
//! | `request`, `sign` | the bodies of requests, and their signatures |
//! | `shares`, `fair_queue` | the share of each address of what is bounded |
//! | `breaker` | the circuit breaker: when no requests are made |
//! | `client` | HTTP: connections that are kept, and their requests |
//! | `delivery` | the tasks: a request for each event, and batches of ends |

mod breaker;
mod client;
mod delivery;
mod fair_queue;
mod request;
mod settings;
mod shares;
mod sign;
#[cfg(test)]
mod tests;

pub use settings::WebhookError;

use super::{
    Answer, Application, AuthAttempt, Authenticate, Context, Decision, Error, Event, Registrar, Server,
    Subscription,
};
use crate::client::ClientId;
use crate::limits::{WEBHOOK_GONE_MAX, WEBHOOK_REQUESTS_MAX};
use crate::log::throttle;
use crate::metrics::{Counter, SharedCounters};
use crate::qev::control::{ControlExecutor, Permits};
use delivery::{HookDelivery, Job};
use futures_channel::mpsc;
use request::About;
use settings::{HookEvent, WebhookSettings};
use shares::{RequestShare, RequestShares};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The name of the thread of the control executor.
const THREAD: &str = "quickio-webhook";

/// The bundled application `webhook`.
pub struct Webhook {
    settings: WebhookSettings,
    way: Way,
    /// Taken at the start.
    jobs: Mutex<Option<mpsc::UnboundedReceiver<Job>>>,
    /// The executor, while the application runs.
    executor: Mutex<Option<ControlExecutor>>,
}

/// The way from the shards to the tasks. Shares and permits bound the number of jobs; the shards bound that of connects.
#[derive(Clone)]
struct Way {
    jobs: mpsc::UnboundedSender<Job>,
    requests: RequestShares,
    gone: Permits,
    counters: Arc<SharedCounters>,
}

impl Webhook {
    /// Reads the section `[app-settings.webhook]`. `app_headers` is the setting `app-headers`.
    ///
    /// # Errors
    ///
    /// A setting is missing or invalid, or the secret cannot be read.
    pub fn new(settings: &BTreeMap<String, String>, app_headers: &[String]) -> Result<Webhook, WebhookError> {
        let (sender, jobs) = mpsc::unbounded();
        let way = Way {
            jobs: sender,
            requests: RequestShares::new(WEBHOOK_REQUESTS_MAX),
            gone: Permits::new(WEBHOOK_GONE_MAX),
            counters: Arc::default(),
        };
        let settings = WebhookSettings::read(settings, app_headers)?;
        Ok(Webhook { settings, way, jobs: Mutex::new(Some(jobs)), executor: Mutex::default() })
    }

    /// Returns the counters of the application.
    pub fn counters(&self) -> &Arc<SharedCounters> {
        &self.way.counters
    }
}

impl Application for Webhook {
    fn name(&self) -> &str {
        "webhook"
    }

    fn register(&self, registrar: &mut Registrar) -> Result<(), Error> {
        for path in &self.settings.paths {
            let mut event = registrar.event(path).children();
            if self.settings.has(HookEvent::On) {
                let (way, tells) = (self.way.clone(), self.settings.has(HookEvent::Gone));
                event = event.on(move |cx, subscription| way.on(cx, subscription, tells));
            }
            if self.settings.has(HookEvent::Send) {
                let (way, tells) = (self.way.clone(), self.settings.has(HookEvent::Gone));
                event = event.handler(move |cx, event| way.send(cx, event, tells));
            }
            event.register()?;
        }
        Ok(())
    }

    fn authenticator(&self) -> Option<Arc<dyn Authenticate>> {
        let headers = self.settings.connect_headers.clone();
        let connects = self.settings.has(HookEvent::Connect);
        connects.then(|| Arc::new(Authenticator { headers, way: self.way.clone() }) as Arc<dyn Authenticate>)
    }

    fn start(&self, _: &Server) -> Result<(), Error> {
        let failed = |error| Error::Failed(format!("the thread for requests cannot be started: {error}"));
        let executor = ControlExecutor::start(THREAD).map_err(failed)?;
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        let jobs = jobs.ok_or_else(|| Error::Failed("it was started twice".into()))?;
        let (settings, counters) = (self.settings.clone(), Arc::clone(&self.way.counters));
        executor.spawn(move |spawner| HookDelivery::new(settings, counters, spawner).run(jobs));
        *self.executor.lock().unwrap_or_else(PoisonError::into_inner) = Some(executor);
        Ok(())
    }

    fn stop(&self) {
        // Waits for its thread, which gives up the requests that are under way.
        self.executor.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Way {
    /// Asks the back end about a subscription.
    fn on(&self, cx: &mut Context<'_>, subscription: Subscription<'_>, tells: bool) -> Decision {
        let client = subscription.client;
        let about = About::of(cx, client);
        let Some(share) = self.share(&about) else { return Decision::Fail(420) };
        let body = request::on(&about, subscription.path, subscription.extra, subscription.data);
        let (decision, promise) = subscription.later(cx);
        self.push(Job::On { promise, body, share });
        self.watch(cx, client, tells);
        decision
    }

    /// Passes an event on to the back end.
    fn send(&self, cx: &mut Context<'_>, event: Event<'_>, tells: bool) -> Answer {
        let Some(data) = request::checked(event.data) else { return Answer::error(400, "invalid json") };
        let client = event.client;
        let about = About::of(cx, client);
        let Some(share) = self.share(&about) else {
            return Answer::error(420, "too many requests are under way");
        };
        let body = request::send(&about, event.path, event.extra, data);
        let (answer, promise) = event.later(cx);
        self.push(Job::Send { promise, body, share });
        self.watch(cx, client, tells);
        answer
    }

    /// Returns a place for a request about a client, if its address has not used up its share of them.
    fn share(&self, about: &About) -> Option<RequestShare> {
        let share = self.requests.acquire(about.requester()).ok();
        if share.is_none() {
            self.counters.add(Counter::WebhookRefused, 1);
        }
        share
    }

    /// Has the back end told when a client disconnects.
    fn watch(&self, cx: &mut Context<'_>, client: ClientId, tells: bool) {
        if tells && cx.client_data::<Watched>(client).is_none() {
            cx.set_client_data(client, Watched { client, way: self.clone() });
        }
    }

    fn push(&self, job: Job) {
        // This fails only after the application was stopped. Promises that are dropped are answered with 500.
        let _ = self.jobs.unbounded_send(job);
    }
}

/// Asks the back end who clients are.
struct Authenticator {
    /// The headers that say who a client is.
    headers: Vec<String>,
    way: Way,
}

impl Authenticate for Authenticator {
    fn credential_headers(&self) -> Vec<String> {
        self.headers.clone()
    }

    fn authenticate(&self, attempt: AuthAttempt) {
        self.way.push(Job::Connect(attempt));
    }
}

/// A client of which the back end has heard. It is dropped when the client disconnects.
struct Watched {
    client: ClientId,
    way: Way,
}

impl Drop for Watched {
    fn drop(&mut self) {
        match self.way.gone.try_acquire() {
            Some(permit) => self.way.push(Job::Gone { client: self.client, permit }),
            None => {
                self.way.counters.add(Counter::WebhookGoneDropped, 1);
                throttle!(
                    warn,
                    "ends of webhook clients",
                    waiting = WEBHOOK_GONE_MAX,
                    "the back end of webhook does not take the ends of clients fast enough: it is not told some of them"
                );
            }
        }
    }
}
