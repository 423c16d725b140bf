//! An application whose code runs in workers: it starts their supervisor, and registers on every shard the events that
//! the workers declare.

use super::worker::{
    EventDeclaration, Manifest, ReplaceDone, ShardsHandle, StartError, SubscriptionMode, Supervisor,
    SupervisorCommand, SupervisorSender, WorkerConfig, WorkerGroup, supervisor_channel,
};
use super::{Application, Error, Registrar, Server};
use crate::inspect::WorkerStatus;
use crate::metrics::Snapshot;
use futures_channel::oneshot;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

/// An application whose workers are running.
pub struct WorkerApplication {
    name: Arc<str>,
    config: WorkerConfig,
    /// The manifest of the first workers.
    manifest: Arc<Manifest>,
    supervisor: SupervisorSender,
    /// Set before [`Application::start`].
    shards: OnceLock<Arc<dyn ShardsHandle>>,
    /// The supervisor's thread, until it has been waited for.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl WorkerApplication {
    /// Starts an application's workers, and waits until all of them are ready.
    ///
    /// # Errors
    ///
    /// A worker cannot be started, or ends or reports a failure before it is ready.
    pub fn start(config: WorkerConfig) -> Result<Arc<WorkerApplication>, StartError> {
        let name: Arc<str> = config.name.as_str().into();
        let (supervisor, commands) = supervisor_channel().map_err(StartError::Resources)?;
        let (ready_tx, ready_rx) = sync_channel(1);
        let run = {
            let counters = Arc::clone(supervisor.counters());
            let supervisor = Supervisor::new(config.clone(), commands, counters, ready_tx);
            move || supervisor.run()
        };
        let thread = thread::Builder::new().name(format!("workers-{name}")).spawn(run);
        let thread = thread.map_err(StartError::Resources)?;
        match ready_rx.recv() {
            Ok(Ok(manifest)) => Ok(Arc::new(WorkerApplication {
                name,
                config,
                manifest,
                supervisor,
                shards: OnceLock::new(),
                thread: Mutex::new(Some(thread)),
            })),
            Ok(Err(error)) => {
                let _ = thread.join();
                Err(error)
            }
            Err(_) => Err(StartError::Failed(SUPERVISOR_ENDED.into())),
        }
    }

    /// Returns the number of workers.
    pub fn instances(&self) -> usize {
        self.config.instances
    }

    /// Sets the handle to the shards. Called once, before [`Application::start`].
    pub fn set_shards(&self, shards: Arc<dyn ShardsHandle>) {
        let _ = self.shards.set(shards);
    }

    /// Replaces the workers one by one, in the background. The new ones get these settings, if there are any. `done` is
    /// called at the end.
    pub fn replace(&self, settings: Option<BTreeMap<String, String>>, done: ReplaceDone) {
        self.supervisor.send(SupervisorCommand::Replace { settings, done });
    }

    /// Tells the supervisor that a test has moved the server's clock. The receiver resolves when everything that was
    /// due has been done.
    pub fn clock_moved(&self) -> oneshot::Receiver<()> {
        let (done_tx, done_rx) = oneshot::channel();
        self.supervisor.send(SupervisorCommand::ClockMoved(done_tx));
        done_rx
    }

    /// Asks the supervisor for the state of its workers.
    pub fn status(&self) -> oneshot::Receiver<Vec<WorkerStatus>> {
        let (reply, status) = oneshot::channel();
        self.supervisor.send(SupervisorCommand::Describe(reply));
        status
    }

    /// Adds the supervisor's counters to those of a shard.
    pub fn add_counters(&self, snapshot: &mut Snapshot) {
        let Snapshot { counters, apps, .. } = snapshot;
        let app = apps.iter_mut().find(|app| *app.name == *self.name);
        let app = app.expect("each application has statistics");
        self.supervisor.counters().add_to(counters, &mut app.statistics);
    }

    /// Tells the supervisor that the server is shutting down: it starts no more workers.
    pub fn begin_shutdown(&self) {
        self.supervisor.send(SupervisorCommand::BeginShutdown);
    }

    /// Tells the supervisor that the shards have ended: it ends the workers that are still running.
    pub fn shards_ended(&self) {
        self.supervisor.send(SupervisorCommand::ShardsEnded);
    }

    /// Ends the workers, and waits until they and their supervisor have ended.
    pub fn finish(&self) {
        self.shards_ended();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // If the supervisor panicked, the log contains the panic.
        thread.map(|thread| thread.join());
    }
}

const SUPERVISOR_ENDED: &str = "the supervisor of its workers has ended";

impl Application for WorkerApplication {
    fn name(&self) -> &str {
        &self.name
    }

    fn register(&self, registrar: &mut Registrar) -> Result<(), Error> {
        let supervisor = Arc::new(self.supervisor.clone());
        let WorkerConfig { instances, limits, .. } = self.config;
        let group =
            WorkerGroup::new(Arc::clone(&self.name), registrar.shard(), instances, limits, supervisor);
        register_events(&group, registrar, &self.manifest)?;
        registrar.add_worker_group(group);
        Ok(())
    }

    fn start(&self, server: &Server) -> Result<(), Error> {
        let shards =
            self.shards.get().ok_or_else(|| Error::Failed("it has no handle to the shards".into()))?;
        let (done_tx, done_rx) = sync_channel(1);
        let shards = Arc::clone(shards);
        self.supervisor.send(SupervisorCommand::Serve { app: server.app(), shards, done: done_tx });
        // The first clients to connect must find the workers in service.
        done_rx.recv().map_err(|_| Error::Failed(SUPERVISOR_ENDED.into()))
    }

    fn stop(&self) {
        self.finish();
    }

    fn self_test(&self) -> Result<(), Error> {
        if !self.config.test {
            return Ok(());
        }
        let (result_tx, result_rx) = sync_channel(1);
        self.supervisor.send(SupervisorCommand::ReportSelfTest(result_tx));
        result_rx.recv().unwrap_or_else(|_| Err(SUPERVISOR_ENDED.into())).map_err(Error::Failed)
    }
}

/// Registers the events of a manifest on a shard. Their handlers and hooks send them to the workers of the group.
///
/// # Errors
///
/// The error of the first event that cannot be registered. All other events are registered.
pub fn register_events(
    group: &Rc<WorkerGroup>,
    registrar: &mut Registrar,
    manifest: &Arc<Manifest>,
) -> Result<(), Error> {
    let mut result = Ok(());
    for event in &manifest.events {
        let registered = register_event(group, registrar, event);
        result = result.and(registered);
    }
    group.set_registered(result.is_ok().then_some(manifest));
    result
}

fn register_event(
    group: &Rc<WorkerGroup>,
    registrar: &mut Registrar,
    event: &EventDeclaration,
) -> Result<(), Error> {
    let number = group.number_event(&event.path)?;
    let mut builder = registrar.event(&event.path);
    if event.children {
        builder = builder.children();
    }
    if event.handler {
        let group = Rc::clone(group);
        builder = builder.handler(move |cx, event| group.handle(cx, number, event));
    }
    if event.off {
        let group = Rc::clone(group);
        builder = builder.off(move |cx, unsubscribed| group.unsubscribed(cx, number, unsubscribed));
    }
    match event.subscriptions {
        SubscriptionMode::Everyone if event.off => {
            let group = Rc::clone(group);
            builder = builder.on(move |cx, subscription| group.accept(cx, number, subscription));
        }
        SubscriptionMode::Everyone => {}
        SubscriptionMode::Nobody => builder = builder.no_subscriptions(),
        SubscriptionMode::Ask => {
            let group = Rc::clone(group);
            builder = builder.on(move |cx, subscription| group.decide(cx, number, subscription));
        }
    }
    builder.register()
}
