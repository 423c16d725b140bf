//! The applications of one shard: their events, the router that finds them, and the running of what they
//! registered. An application that panics fails its event, not the server.

use crate::app::worker::{Manifest, WorkerGroup};
use crate::app::worker_app;
use crate::app::{
    Answer, Application, Callback, ClientData, Context, Decision, Error, Event, LocalCommand, PeriodicTimer,
    RegisteredEvent, Registrar, Reply, Server, Subscription, SubscriptionRule, Unsubscribed,
};
use crate::client::ClientId;
use crate::event::path::PathRef;
use crate::event::router::Router;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// What runs on one shard.
pub struct Apps {
    shard: u16,
    router: Router<u32>,
    events: Vec<RegisteredEvent>,
    timers: Vec<PeriodicTimer>,
    worker_groups: Vec<(usize, Rc<WorkerGroup>)>,
    runner: Runner,
}

/// What a running piece of an application is given, and where its commands are put.
pub(super) struct Runner {
    shard: u16,
    /// By application, as are `data` and `names`.
    servers: Vec<Server>,
    data: Vec<ClientData>,
    names: Vec<String>,
    /// The generation of the client in each slot; 0 where there is none.
    clients: Vec<u32>,
    pub commands: Vec<LocalCommand>,
    pub now: Duration,
    /// The `Host` of the HTTP request whose events are handled; otherwise empty.
    pub host: String,
}

impl Apps {
    /// Registers all applications on this shard, in order.
    ///
    /// # Errors
    ///
    /// The first application that cannot be registered, by name, and why.
    pub fn register(
        shard: u16,
        server: Server,
        apps: &[Arc<dyn Application>],
    ) -> Result<Apps, (String, Error)> {
        let mut registrar = Registrar::new(shard);
        for app in apps {
            registrar.begin_application(app.name());
            app.register(&mut registrar).map_err(|error| (app.name().to_owned(), error))?;
        }
        let runner = Runner {
            shard,
            servers: (0..apps.len() as u32).map(|app| server.of_app(app)).collect(),
            data: apps.iter().map(|_| ClientData::default()).collect(),
            names: apps.iter().map(|app| app.name().to_owned()).collect(),
            clients: Vec::new(),
            commands: Vec::new(),
            now: Duration::ZERO,
            host: String::new(),
        };
        let Registrar { router, events, timers, worker_groups, .. } = registrar;
        Ok(Apps { shard, router, events, timers, worker_groups, runner })
    }

    /// The event that a path is routed to, and the rest of the path.
    pub(super) fn route<'p>(&self, path: PathRef<'p>) -> Option<(u32, &'p str)> {
        self.router.route(path).map(|routed| (*routed.value, routed.extra))
    }

    pub(super) fn event(&self, event: u32) -> &RegisteredEvent {
        &self.events[event as usize]
    }

    pub(super) fn timers(&self) -> impl Iterator<Item = (u32, Duration)> {
        self.timers.iter().enumerate().map(|(index, every)| (index as u32, every.period))
    }

    /// The workers of applications that have some.
    pub(super) fn worker_groups(&self) -> impl Iterator<Item = &WorkerGroup> {
        self.worker_groups.iter().map(|(_, group)| &**group)
    }

    /// The workers of an application.
    pub(super) fn worker_group(&self, app: u32) -> Option<Rc<WorkerGroup>> {
        self.worker_groups.iter().find(|(of, _)| *of == app as usize).map(|(_, group)| Rc::clone(group))
    }

    /// An application's workers register these events in place of those that they had.
    ///
    /// # Errors
    ///
    /// The first that cannot be registered, and so is left out.
    pub(super) fn register_again(
        &mut self,
        app: u32,
        group: &Rc<WorkerGroup>,
        manifest: &Arc<Manifest>,
    ) -> Result<(), Error> {
        let events = std::mem::take(&mut self.events);
        let mut registrar =
            Registrar::for_reload(self.shard, self.runner.names.clone(), app as usize, events);
        let registered = worker_app::register_events(group, &mut registrar, manifest);
        (self.router, self.events) = (registrar.router, registrar.events);
        registered
    }

    pub(super) fn runner(&mut self) -> &mut Runner {
        &mut self.runner
    }

    /// Runs the handler of an event.
    pub(super) fn handle(&mut self, index: u32, event: Event<'_>) -> Answer {
        let registered = &mut self.events[index as usize];
        let Some(handler) = &mut registered.handler else { return Answer::refusal(500, None) };
        let event = Event { path: registered.path.as_str(), ..event };
        let handled = self.runner.run(registered.app as u32, |cx| handler(cx, event));
        handled.unwrap_or_else(|Panicked| Answer::refusal(500, None))
    }

    /// Asks the event's rule whether somebody may subscribe.
    pub(super) fn decide(
        &mut self,
        index: u32,
        subscription: Subscription<'_>,
    ) -> Result<Decision, Panicked> {
        let registered = &mut self.events[index as usize];
        let subscription = Subscription { path: registered.path.as_str(), ..subscription };
        match &mut registered.on {
            SubscriptionRule::Everyone => Ok(Decision::Accept),
            SubscriptionRule::Nobody => Ok(Decision::Refuse),
            SubscriptionRule::Ask(hook) => {
                self.runner.run(registered.app as u32, |cx| hook(cx, subscription))
            }
        }
    }

    /// Tells the event's off-hook, if it has one, that a subscription has ended.
    pub(super) fn ended(&mut self, index: u32, client: ClientId, extra: &str) {
        let registered = &mut self.events[index as usize];
        let ended = Unsubscribed { client, path: registered.path.as_str(), extra };
        if let Some(hook) = &mut registered.off {
            let _ = self.runner.run(registered.app as u32, |cx| hook(cx, ended));
        }
    }

    /// Runs a timer that its application registered; answers the application and the timer's period.
    pub(super) fn every(&mut self, index: u32) -> (u32, Duration) {
        let every = &mut self.timers[index as usize];
        let _ = self.runner.run(every.app as u32, &mut every.run);
        (every.app as u32, every.period)
    }
}

/// An application panicked; the log has it.
pub(super) struct Panicked;

impl Runner {
    /// Runs a piece of an application. Its commands are in `commands` afterwards, also where it panicked.
    pub fn run<T>(&mut self, app: u32, piece: impl FnOnce(&mut Context<'_>) -> T) -> Result<T, Panicked> {
        let Runner { shard, servers, data, names, clients, commands, now, host } = self;
        let (server, data) = (&servers[app as usize], &mut data[app as usize]);
        let mut cx = Context {
            shard: *shard,
            server,
            commands,
            client_data: data,
            generations: clients,
            now: *now,
            host,
        };
        // What a panic may leave half done is the application's own.
        catch_unwind(AssertUnwindSafe(|| piece(&mut cx))).map_err(|_| {
            tracing::error!(app = names[app as usize], shard, "an application panicked");
            Panicked
        })
    }

    /// Runs a server callback.
    pub fn call(&mut self, app: u32, callback: Callback, reply: Reply<'_>) -> Answer {
        self.run(app, |cx| callback.run(cx, reply)).unwrap_or_else(|Panicked| Answer::refusal(500, None))
    }

    /// A client has come: applications may keep something for it.
    pub fn came(&mut self, client: ClientId) {
        let slot = client.slot as usize;
        if self.clients.len() <= slot {
            self.clients.resize(slot + 1, 0);
        }
        self.clients[slot] = client.generation;
    }

    /// A client has gone: what applications keep for it is dropped.
    pub fn forget(&mut self, client: ClientId) {
        self.clients[client.slot as usize] = 0;
        let Runner { data, names, .. } = self;
        for (app, data) in data.iter_mut().enumerate().filter(|(_, data)| !data.is_empty()) {
            let kept = data.remove(&client);
            if catch_unwind(AssertUnwindSafe(|| drop(kept))).is_err() {
                tracing::error!(app = names[app], "an application panicked as its data was dropped");
            }
        }
    }
}
