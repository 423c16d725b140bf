//! The bundled application `webhook`: a back end in any language decides about subscriptions, answers events and is told
//! which clients have disconnected, by HTTP requests that the server makes. docs/webhooks.md describes them.
//!
//! It uses what every application can use: promises (`later`), data of clients whose end is noticed by its `Drop`, and
//! threads. Requests are made by tasks on a control executor of its own.
//!
//! | file | content |
//! | --- | --- |
//! | `settings` | the settings, and the address |
//! | `request`, `sign` | the bodies of requests, and their signatures |
//! | `breaker` | the circuit breaker: when no requests are made |
//! | `client` | HTTP: connections that are kept, and their requests |
//! | `delivery` | the tasks: a request for each event, and batches of ends |

mod breaker;
mod client;
mod delivery;
mod request;
mod settings;
mod sign;
#[cfg(test)]
mod tests;

pub use settings::WebhookError;

use super::shares::admit;
use super::{Answer, Application, Context, Decision, Error, Event, Registrar, Server, Subscription};
use crate::client::ClientId;
use crate::limits::{WEBHOOK_GONE_MAX, WEBHOOK_REQUESTS_MAX};
use crate::log::throttle;
use crate::metrics::{Counter, SharedCounters};
use crate::qev::control::{ControlExecutor, Permit, Permits};
use delivery::{HookDelivery, Job};
use futures_channel::mpsc;
use request::About;
use settings::{HookEvent, WebhookSettings};
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

/// The way from the shards to the tasks. Permits bound the number of jobs.
#[derive(Clone)]
struct Way {
    jobs: mpsc::UnboundedSender<Job>,
    requests: Permits,
    gone: Permits,
    counters: Arc<SharedCounters>,
}

impl Webhook {
    /// Reads the section `[app-settings.webhook]`.
    ///
    /// # Errors
    ///
    /// A setting is missing or invalid, or the secret cannot be read.
    pub fn new(settings: &BTreeMap<String, String>) -> Result<Webhook, WebhookError> {
        let (sender, jobs) = mpsc::unbounded();
        let way = Way {
            jobs: sender,
            requests: Permits::new(WEBHOOK_REQUESTS_MAX),
            gone: Permits::new(WEBHOOK_GONE_MAX),
            counters: Arc::default(),
        };
        let settings = WebhookSettings::read(settings)?;
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
        let Some(permits) = self.permits(cx, client) else { return Decision::Fail(420) };
        let about = About::of(cx, client);
        let body = request::on(&about, subscription.path, subscription.extra, subscription.data);
        let (decision, promise) = subscription.later(cx);
        self.push(Job::On { promise, body, permits });
        self.watch(cx, client, tells);
        decision
    }

    /// Passes an event on to the back end.
    fn send(&self, cx: &mut Context<'_>, event: Event<'_>, tells: bool) -> Answer {
        let Some(data) = request::checked(event.data) else { return Answer::error(400, "invalid json") };
        let client = event.client;
        let Some(permits) = self.permits(cx, client) else {
            return Answer::error(420, "too many requests are under way");
        };
        let body = request::send(&About::of(cx, client), event.path, event.extra, data);
        let (answer, promise) = event.later(cx);
        self.push(Job::Send { promise, body, permits });
        self.watch(cx, client, tells);
        answer
    }

    /// Returns the permits for a request about a client: one of all, and one of the client's share of them.
    fn permits(&self, cx: &mut Context<'_>, client: ClientId) -> Option<[Permit; 2]> {
        let own = &self.known(cx, client).requests;
        let may_take = admit(WEBHOOK_REQUESTS_MAX, 0, self.requests.taken(), own.taken());
        let permits = may_take.ok().and_then(|()| Some([self.requests.try_acquire()?, own.try_acquire()?]));
        if permits.is_none() {
            self.counters.add(Counter::WebhookRefused, 1);
        }
        permits
    }

    /// Has the back end told when a client disconnects.
    fn watch(&self, cx: &mut Context<'_>, client: ClientId, tells: bool) {
        if tells {
            let way = self;
            self.known(cx, client).watched.get_or_insert_with(|| Watched { client, way: way.clone() });
        }
    }

    /// Returns what is kept of a client.
    fn known<'c>(&self, cx: &'c mut Context<'_>, client: ClientId) -> &'c mut KnownClient {
        if cx.client_data::<KnownClient>(client).is_none() {
            let requests = Permits::new(WEBHOOK_REQUESTS_MAX);
            cx.set_client_data(client, KnownClient { requests, watched: None });
        }
        cx.client_data(client).expect("the data was set")
    }

    fn push(&self, job: Job) {
        // This fails only after the application was stopped. Promises that are dropped are answered with 500.
        let _ = self.jobs.unbounded_send(job);
    }
}

/// What is kept of a client that has asked for something.
struct KnownClient {
    /// Bounds its requests that are under way, and counts them.
    requests: Permits,
    /// Present once the back end has heard of the client.
    watched: Option<Watched>,
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
