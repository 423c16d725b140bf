//! How an application registers its events on a shard.

use super::Error;
use super::answer::{Answer, Decision};
use super::context::{Context, Event, Subscription, Unsubscribed};
use super::worker::WorkerGroup;
use crate::event::path::Path;
use crate::event::router::Router;
use std::rc::Rc;
use std::time::Duration;

/// What handles an event.
pub type Handler = Box<dyn FnMut(&mut Context<'_>, Event<'_>) -> Answer>;

/// What decides about a subscription.
pub type OnHook = Box<dyn FnMut(&mut Context<'_>, Subscription<'_>) -> Decision>;

/// What is told when a subscription has ended.
pub type OffHook = Box<dyn FnMut(&mut Context<'_>, Unsubscribed<'_>)>;

/// Who may subscribe to an event.
pub enum SubscriptionRule {
    Everyone,
    Nobody,
    Ask(OnHook),
}

/// An event of one shard.
pub struct RegisteredEvent {
    /// The number of the application.
    pub app: usize,
    pub path: Path,
    pub children: bool,
    pub handler: Option<Handler>,
    pub on: SubscriptionRule,
    pub off: Option<OffHook>,
}

/// Something to run again and again on one shard.
pub struct PeriodicTimer {
    /// The number of the application.
    pub app: usize,
    pub period: Duration,
    pub run: Box<dyn FnMut(&mut Context<'_>)>,
}

/// The namespace of the server itself (protocol.md, section 1).
const OWN_NAMESPACE: &str = "/qio";

/// The events of one shard, while the applications register them.
pub struct Registrar {
    shard: u16,
    names: Vec<String>,
    /// The number of the application that registers now.
    app: usize,
    pub(crate) router: Router<u32>,
    pub(crate) events: Vec<RegisteredEvent>,
    pub(crate) timers: Vec<PeriodicTimer>,
    /// The workers of applications that have some, by the application's number.
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

    /// What is registered next belongs to this application.
    pub(crate) fn begin_application(&mut self, name: &str) {
        self.app = self.names.len();
        self.names.push(name.to_owned());
    }

    /// A registrar in which all these events are but those of one application, whose turn it is to register them anew.
    pub(crate) fn for_reload(
        shard: u16,
        names: Vec<String>,
        app: usize,
        events: Vec<RegisteredEvent>,
    ) -> Registrar {
        let mut registrar = Registrar { names, app, ..Registrar::new(shard) };
        events.into_iter().filter(|event| event.app != app).for_each(|event| registrar.add(event));
        registrar
    }

    /// Adds an event whose path is free.
    fn add(&mut self, event: RegisteredEvent) {
        if self.router.register(&event.path, event.children, self.events.len() as u32).is_ok() {
            self.events.push(event);
        }
    }

    /// The application that registers has workers.
    pub(crate) fn add_worker_group(&mut self, group: Rc<WorkerGroup>) {
        self.worker_groups.push((self.app, group));
    }

    /// The shard that is being registered on, from 0: what must happen once for the server (a timer that
    /// broadcasts, say) is registered on shard 0 only.
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// Begins an event at a path. It is there once [`EventBuilder::register`] was called.
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

    /// Runs something on this shard every `period` (1 ms at least), first after one period.
    pub fn every(&mut self, period: Duration, run: impl FnMut(&mut Context<'_>) + 'static) {
        let app = self.app;
        let period = period.max(Duration::from_millis(1));
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
    /// Handles paths below this one too; the rest of their path is `extra`.
    pub fn children(mut self) -> Self {
        self.children = true;
        self
    }

    /// What handles the event. Without one, events here are answered 500.
    pub fn handler(mut self, handler: impl FnMut(&mut Context<'_>, Event<'_>) -> Answer + 'static) -> Self {
        self.handler = Some(Box::new(handler));
        self
    }

    /// What decides who may subscribe. Without it everyone may.
    pub fn on(mut self, hook: impl FnMut(&mut Context<'_>, Subscription<'_>) -> Decision + 'static) -> Self {
        self.on = SubscriptionRule::Ask(Box::new(hook));
        self
    }

    /// What is told when a subscription has ended, for whatever reason.
    pub fn off(mut self, hook: impl FnMut(&mut Context<'_>, Unsubscribed<'_>) + 'static) -> Self {
        self.off = Some(Box::new(hook));
        self
    }

    /// Nobody may subscribe.
    pub fn no_subscriptions(mut self) -> Self {
        self.on = SubscriptionRule::Nobody;
        self
    }

    /// Registers the event. Errors: a path that is empty, too long, without a leading slash, inside `/qio`, or
    /// taken.
    pub fn register(self) -> Result<(), Error> {
        let inside =
            |path: &str| path.strip_prefix(OWN_NAMESPACE).is_some_and(|r| r.is_empty() || r.starts_with('/'));
        if Path::parse(&self.path).is_ok_and(|path| inside(path.as_str())) {
            return Err(self.refused("/qio is the server's own namespace"));
        }
        self.register_anywhere()
    }

    /// As [`EventBuilder::register`], for the server's own events.
    pub(crate) fn register_anywhere(self) -> Result<(), Error> {
        let path = match Path::parse(&self.path) {
            Ok(path) => path,
            Err(error) => return Err(self.refused(&error.to_string())),
        };
        if !path.as_str().starts_with('/') {
            return Err(self.refused("it has to begin with a slash"));
        }
        let EventBuilder { registrar, children, handler, on, off, .. } = self;
        let taken = registrar.router.route(path.as_ref()).filter(|taken| taken.extra.is_empty());
        if let Some(taken) = taken {
            let owner = registrar.names[registrar.events[*taken.value as usize].app].clone();
            return Err(Error::Duplicate { path: path.to_string(), owner });
        }
        registrar.add(RegisteredEvent { app: registrar.app, path, children, handler, on, off });
        Ok(())
    }

    fn refused(&self, reason: &str) -> Error {
        Error::Path { path: self.path.clone(), reason: reason.to_owned() }
    }
}
