//! Registration of an application's events and timers on a shard.

use super::Error;
use super::event::{Event, Subscription, Unsubscribed};
use super::types::{Answer, Context, Decision};
use super::worker::WorkerGroup;
use crate::event::path::Path;
use crate::event::router::Router;
use std::rc::Rc;
use std::time::Duration;

/// A function that handles an event.
pub type Handler = Box<dyn FnMut(&mut Context<'_>, Event<'_>) -> Answer>;

/// A function that decides whether a client may subscribe.
pub type OnHook = Box<dyn FnMut(&mut Context<'_>, Subscription<'_>) -> Decision>;

/// A function that is notified when a subscription has ended.
pub type OffHook = Box<dyn FnMut(&mut Context<'_>, Unsubscribed<'_>)>;

/// The rule by which clients may subscribe to an event.
pub enum SubscriptionRule {
    Everyone,
    Nobody,
    Ask(OnHook),
}

/// An event that is registered on a shard.
pub struct EventRegistration {
    /// The number of the application.
    pub app: usize,
    pub path: Path,
    /// Paths below `path` are handled too.
    pub children: bool,
    pub handler: Option<Handler>,
    pub on: SubscriptionRule,
    pub off: Option<OffHook>,
}

/// A function that runs periodically on a shard.
pub struct PeriodicTimer {
    /// The number of the application.
    pub app: usize,
    pub period: Duration,
    pub run: Box<dyn FnMut(&mut Context<'_>)>,
}

/// The namespace of the server's own events (docs/protocol.md, section 1).
const OWN_NAMESPACE: &str = "/qio";

/// The shortest period of a timer. Shorter periods are lengthened to it: the server's clock counts milliseconds.
const PERIOD_MIN: Duration = Duration::from_millis(1);

/// The events and timers of one shard, while the applications register them.
pub struct Registrar {
    shard: u16,
    /// The names of the applications, by number.
    names: Vec<String>,
    /// The number of the application that is registering.
    app: usize,
    pub(crate) router: Router<u32>,
    pub(crate) events: Vec<EventRegistration>,
    pub(crate) timers: Vec<PeriodicTimer>,
    /// The workers of those applications that run in workers, with the application's number.
    pub(crate) worker_groups: Vec<(usize, Rc<WorkerGroup>)>,
}

impl Registrar {
    pub(crate) fn new(shard: u16) -> Registrar {
        Registrar {
            shard,
            names: Vec::new(),
            app: 0,
            worker_groups: Vec::new(),
            router: Router::default(),
            events: Vec::new(),
            timers: Vec::new(),
        }
    }

    /// Begins the registration of the next application.
    pub(crate) fn begin_application(&mut self, name: &str) {
        self.app = self.names.len();
        self.names.push(name.to_owned());
    }

    /// Returns a registrar that contains these events without those of application number `app`, which is to register
    /// its events again.
    pub(crate) fn for_reload(
        shard: u16,
        names: Vec<String>,
        app: usize,
        events: Vec<EventRegistration>,
    ) -> Registrar {
        let mut registrar = Registrar { names, app, ..Registrar::new(shard) };
        events.into_iter().filter(|event| event.app != app).for_each(|event| registrar.add(event));
        registrar
    }

    /// Adds an event whose path is known to be free.
    fn add(&mut self, event: EventRegistration) {
        if self.router.register(&event.path, event.children, self.events.len() as u32).is_ok() {
            self.events.push(event);
        }
    }

    /// Adds the workers of the application that is registering.
    pub(crate) fn add_worker_group(&mut self, group: Rc<WorkerGroup>) {
        self.worker_groups.push((self.app, group));
    }

    /// Returns the number of the shard, from 0. Something that must exist once in the server, for example a timer that
    /// broadcasts, is registered on shard 0 only.
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// Begins the registration of an event at a path. [`EventBuilder::register`] completes it.
    pub fn event(&mut self, path: &str) -> EventBuilder<'_> {
        EventBuilder {
            registrar: self,
            path: path.to_owned(),
            children: false,
            handler: None,
            on: SubscriptionRule::Everyone,
            off: None,
        }
    }

    /// Runs a function on this shard every `period` (at least 1 ms), for the first time after one period.
    pub fn every(&mut self, period: Duration, run: impl FnMut(&mut Context<'_>) + 'static) {
        let app = self.app;
        let period = period.max(PERIOD_MIN);
        self.timers.push(PeriodicTimer { app, period, run: Box::new(run) });
    }
}

/// An event that is being registered.
#[must_use = "nothing is registered before `register`"]
pub struct EventBuilder<'a> {
    registrar: &'a mut Registrar,
    path: String,
    children: bool,
    handler: Option<Handler>,
    on: SubscriptionRule,
    off: Option<OffHook>,
}

impl EventBuilder<'_> {
    /// Handles the paths below this one too. [`Event::extra`] is the rest of such a path.
    pub fn children(mut self) -> Self {
        self.children = true;
        self
    }

    /// Sets the function that handles the event. Without a handler, the event is answered 500.
    pub fn handler(mut self, handler: impl FnMut(&mut Context<'_>, Event<'_>) -> Answer + 'static) -> Self {
        self.handler = Some(Box::new(handler));
        self
    }

    /// Sets the function that decides who may subscribe. Without one, every client may subscribe.
    pub fn on(mut self, hook: impl FnMut(&mut Context<'_>, Subscription<'_>) -> Decision + 'static) -> Self {
        self.on = SubscriptionRule::Ask(Box::new(hook));
        self
    }

    /// Sets the function that is notified when a subscription has ended, for any reason.
    pub fn off(mut self, hook: impl FnMut(&mut Context<'_>, Unsubscribed<'_>) + 'static) -> Self {
        self.off = Some(Box::new(hook));
        self
    }

    /// Forbids subscriptions to the event.
    pub fn no_subscriptions(mut self) -> Self {
        self.on = SubscriptionRule::Nobody;
        self
    }

    /// Registers the event.
    ///
    /// # Errors
    ///
    /// The path is empty, longer than 1024 bytes, without a leading slash, in the namespace `/qio`, or already taken.
    pub fn register(self) -> Result<(), Error> {
        let is_own =
            |path: &str| path.strip_prefix(OWN_NAMESPACE).is_some_and(|r| r.is_empty() || r.starts_with('/'));
        if Path::parse(&self.path).is_ok_and(|path| is_own(path.as_str())) {
            return Err(self.rejection("/qio is the server's own namespace"));
        }
        self.register_anywhere()
    }

    /// Registers the event, which may be in the server's own namespace.
    pub(crate) fn register_anywhere(self) -> Result<(), Error> {
        let path = match Path::parse(&self.path) {
            Ok(path) => path,
            Err(error) => return Err(self.rejection(&error.to_string())),
        };
        if !path.as_str().starts_with('/') {
            return Err(self.rejection("it must begin with a slash"));
        }
        let EventBuilder { registrar, children, handler, on, off, .. } = self;
        let taken = registrar.router.route(path.as_ref()).filter(|taken| taken.extra.is_empty());
        if let Some(taken) = taken {
            let owner = registrar.names[registrar.events[*taken.value as usize].app].clone();
            return Err(Error::Duplicate { path: path.to_string(), owner });
        }
        registrar.add(EventRegistration { app: registrar.app, path, children, handler, on, off });
        Ok(())
    }

    fn rejection(&self, reason: &str) -> Error {
        Error::Path { path: self.path.clone(), reason: reason.to_owned() }
    }
}
