//! The applications of a shard: their events, the router that finds them, their timers, and the calls of their code. A
//! panic in an application fails the event, not the server.

use crate::app::worker::{Manifest, WorkerGroup};
use crate::app::worker_app;
use crate::app::{
    Answer, Application, Callback, ClientData, ClientDirectory, Context, Decision, Error, Event,
    EventRegistration, LocalCommand, PeriodicTimer, Registrar, Reply, Server, Subscription, SubscriptionRule,
    Unsubscribed,
};
use crate::client::ClientId;
use crate::event::path::PathRef;
use crate::event::router::Router;
use crate::log::throttle;
use crate::qev::slots::Slots;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The applications that run on one shard.
pub struct Apps {
    shard: u16,
    router: Router<u32>,
    events: Vec<EventRegistration>,
    timers: Vec<PeriodicTimer>,
    /// One-shot timers that have not fired yet.
    onces: Slots<Once>,
    /// The worker groups, by the numbers of their applications.
    worker_groups: Vec<(usize, Rc<WorkerGroup>)>,
    runner: Runner,
}

/// A function of an application that runs once.
struct Once {
    app: u32,
    run: Box<dyn FnOnce(&mut Context<'_>)>,
}

/// The context that the code of an application gets, with the commands that it queues.
struct Runner {
    shard: u16,
    /// The handles through which applications call the server, by application. `data` and `names` have the same order.
    servers: Vec<Server>,
    data: Vec<ClientData>,
    names: Vec<String>,
    /// The number of panics, by application.
    panics: Vec<u64>,
    /// The number of promises that were refused, by application.
    promises_refused: Vec<u64>,
    /// The generation of the client in each slot; 0 if the slot is free.
    clients: Vec<u32>,
    commands: Vec<LocalCommand>,
    now: Duration,
    /// The `Host` of the HTTP request whose events are dispatched; otherwise empty.
    host: String,
}

/// The error that the code of an application panicked. The panic has been logged.
pub(super) struct Panicked;

impl Apps {
    /// Registers all applications on this shard, in order.
    ///
    /// # Errors
    ///
    /// The name of the first application that cannot be registered, and the reason.
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
            panics: vec![0; apps.len()],
            promises_refused: vec![0; apps.len()],
            clients: Vec::new(),
            commands: Vec::new(),
            now: Duration::ZERO,
            host: String::new(),
        };
        let Registrar { router, events, timers, worker_groups, .. } = registrar;
        Ok(Apps { shard, router, events, timers, onces: Slots::new(), worker_groups, runner })
    }

    /// Returns the number of the event that a path is routed to, and the rest of the path.
    pub(super) fn route<'p>(&self, path: PathRef<'p>) -> Option<(u32, &'p str)> {
        self.router.route(path).map(|routed| (*routed.value, routed.extra))
    }

    /// The event with this number.
    pub(super) fn event(&self, event: u32) -> &EventRegistration {
        &self.events[event as usize]
    }

    /// The names of the applications, in the order of their numbers.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.runner.names.iter().map(String::as_str)
    }

    /// The number of panics of each application.
    pub(super) fn panics(&self) -> &[u64] {
        &self.runner.panics
    }

    /// The number of promises that each application was refused.
    pub(super) fn promises_refused(&self) -> &[u64] {
        &self.runner.promises_refused
    }

    /// Asserts the invariants of the worker groups. Linear in the number of workers.
    pub(super) fn check(&self) {
        self.worker_groups().for_each(|(_, group)| group.check());
    }

    // Workers.

    /// The worker groups of all applications that have workers, with the numbers of the applications.
    pub(super) fn worker_groups(&self) -> impl Iterator<Item = (usize, &WorkerGroup)> {
        self.worker_groups.iter().map(|(app, group)| (*app, &**group))
    }

    /// The worker group of an application.
    pub(super) fn worker_group(&self, app: u32) -> Option<Rc<WorkerGroup>> {
        self.worker_groups.iter().find(|(of, _)| *of == app as usize).map(|(_, group)| Rc::clone(group))
    }

    /// Replaces the events of an application by those that its workers have registered now.
    ///
    /// # Errors
    ///
    /// The first event that cannot be registered. It is left out.
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

    // Events and hooks.

    /// Runs the handler of an event.
    pub(super) fn handle(&mut self, clients: &dyn ClientDirectory, index: u32, event: Event<'_>) -> Answer {
        let registered = &mut self.events[index as usize];
        let Some(handler) = &mut registered.handler else { return Answer::refusal(500, None) };
        let event = Event { path: registered.path.as_str(), ..event };
        let handled = self.runner.run(clients, registered.app as u32, |cx| handler(cx, event));
        handled.unwrap_or_else(|Panicked| Answer::refusal(500, None))
    }

    /// Asks an event's rule whether a client may subscribe.
    pub(super) fn decide(
        &mut self,
        clients: &dyn ClientDirectory,
        index: u32,
        subscription: Subscription<'_>,
    ) -> Result<Decision, Panicked> {
        let registered = &mut self.events[index as usize];
        let subscription = Subscription { path: registered.path.as_str(), ..subscription };
        match &mut registered.on {
            SubscriptionRule::Everyone => Ok(Decision::Accept),
            SubscriptionRule::Nobody => Ok(Decision::Refuse),
            SubscriptionRule::Ask(hook) => {
                self.runner.run(clients, registered.app as u32, |cx| hook(cx, subscription))
            }
        }
    }

    /// Tells an event's off-hook, if it has one, that a subscription has ended.
    pub(super) fn ended(&mut self, clients: &dyn ClientDirectory, index: u32, client: ClientId, extra: &str) {
        let registered = &mut self.events[index as usize];
        let ended = Unsubscribed { client, path: registered.path.as_str(), extra };
        if let Some(hook) = &mut registered.off {
            let _ = self.runner.run(clients, registered.app as u32, |cx| hook(cx, ended));
        }
    }

    /// Runs a server callback.
    pub(super) fn call(
        &mut self,
        clients: &dyn ClientDirectory,
        app: u32,
        callback: Callback,
        reply: Reply<'_>,
    ) -> Answer {
        let answer = self.runner.run(clients, app, |cx| callback.run(cx, reply));
        answer.unwrap_or_else(|Panicked| Answer::refusal(500, None))
    }

    /// Runs code of an application. Its commands are queued, even if it panics.
    pub(super) fn run<T>(
        &mut self,
        clients: &dyn ClientDirectory,
        app: u32,
        code: impl FnOnce(&mut Context<'_>) -> T,
    ) -> Result<T, Panicked> {
        self.runner.run(clients, app, code)
    }

    // Timers.

    /// The numbers and periods of all periodic timers.
    pub(super) fn timers(&self) -> impl Iterator<Item = (u32, Duration)> {
        self.timers.iter().enumerate().map(|(index, every)| (index as u32, every.period))
    }

    /// Runs a periodic timer; returns its application and its period.
    pub(super) fn run_every(&mut self, clients: &dyn ClientDirectory, index: u32) -> (u32, Duration) {
        let every = &mut self.timers[index as usize];
        let _ = self.runner.run(clients, every.app as u32, &mut every.run);
        (every.app as u32, every.period)
    }

    /// Adds a one-shot timer; returns its number.
    pub(super) fn add_once(&mut self, app: u32, run: Box<dyn FnOnce(&mut Context<'_>)>) -> u32 {
        self.onces.insert(Once { app, run }) as u32
    }

    /// Runs and removes a one-shot timer; returns its application.
    pub(super) fn run_once(&mut self, clients: &dyn ClientDirectory, index: u32) -> u32 {
        let Once { app, run } = self.onces.remove(index as usize).expect("a one-shot timer fires once");
        let _ = self.runner.run(clients, app, run);
        app
    }

    // Commands, and the context of the running code.

    /// Returns whether commands are queued.
    #[inline]
    pub(super) fn has_commands(&self) -> bool {
        !self.runner.commands.is_empty()
    }

    /// Takes the queued commands.
    pub(super) fn take_commands(&mut self) -> Vec<LocalCommand> {
        std::mem::take(&mut self.runner.commands)
    }

    /// Sets the time that applications get.
    pub(super) fn set_now(&mut self, now: Duration) {
        self.runner.now = now;
    }

    /// Sets the `Host` of the HTTP request whose events are dispatched; empty if there is none.
    pub(super) fn set_host(&mut self, host: &str) {
        self.runner.host.clear();
        self.runner.host.push_str(host);
    }

    // Clients.

    /// Notes that a client has connected. Applications may keep data for it.
    pub(super) fn client_connected(&mut self, client: ClientId) {
        let slot = client.slot as usize;
        let clients = &mut self.runner.clients;
        if clients.len() <= slot {
            clients.resize(slot + 1, 0);
        }
        clients[slot] = client.generation;
    }

    /// Drops the data that applications keep for a client, which has disconnected.
    pub(super) fn client_disconnected(&mut self, client: ClientId) {
        let Runner { clients, data, names, panics, .. } = &mut self.runner;
        clients[client.slot as usize] = 0;
        for (app, data) in data.iter_mut().enumerate().filter(|(_, data)| !data.is_empty()) {
            let kept = data.remove(&client);
            if catch_unwind(AssertUnwindSafe(|| drop(kept))).is_err() {
                panics[app] += 1;
                throttle!(
                    error,
                    "an application panicked",
                    app = names[app],
                    "an application panicked while the data of a client was dropped"
                );
            }
        }
    }
}

impl Runner {
    fn run<T>(
        &mut self,
        directory: &dyn ClientDirectory,
        app: u32,
        code: impl FnOnce(&mut Context<'_>) -> T,
    ) -> Result<T, Panicked> {
        let Runner { shard, servers, data, names, panics, promises_refused, clients, commands, now, host } =
            self;
        let (server, data) = (&servers[app as usize], &mut data[app as usize]);
        let promises_refused = &mut promises_refused[app as usize];
        let mut cx = Context {
            shard: *shard,
            server,
            commands,
            clients: directory,
            client_data: data,
            promises_refused,
            generations: clients,
            now: *now,
            host,
        };
        // A panic may leave only the application's own state half changed.
        catch_unwind(AssertUnwindSafe(|| code(&mut cx))).map_err(|_| {
            panics[app as usize] += 1;
            throttle!(
                error,
                "an application panicked",
                app = names[app as usize],
                shard,
                "an application panicked"
            );
            Panicked
        })
    }
}
