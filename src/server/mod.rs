//! Starts the shards, waits for signals, and shuts down in order.
//!
//! What can fail fails before the first connection: settings, applications, addresses, the kernel. Then shards run
//! until a signal comes, or one of them cannot go on.

mod apps;
mod listen;
mod post;
mod services;
mod statistics;

use crate::admin::{self, AdminError};
use crate::app::c::LoadError;
use crate::app::qio::Qio;
use crate::app::worker::{self, StartError};
use crate::app::worker_app::WorkerApplication;
use crate::app::{self, Application, Error, Server};
use crate::config::{self, ClockKind, Config};
use crate::limits::{SHARDS_MAX, WORKERS_MAX};
use crate::log;
use crate::qev::clock::{Clock, ClockHandle, nanos};
use crate::qev::mesh::{self, Port, mesh};
use crate::qev::probe::{KernelFeatures, UnsupportedKernel, probe};
use crate::qev::ring::{self, Ring};
use crate::qev::runtime::{self, Executor};
use crate::shard::{Apps, ControlMessage, Envelope, Inboxes, Shard, ShardParts, SharedState, Wakeup};
use listen::{ListenError, Listeners};
use post::Mailboxes;
pub use services::ControlService;
use services::Services;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use statistics::Statistics;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Descriptors of a ring beyond an even share of `clients-max`: the kernel spreads connections by a hash.
const DESCRIPTORS_SPARE: usize = 1024;

/// Places of each ring for the links of one worker: those that come and those that go while workers are replaced.
const LINK_PLACES: usize = 4;

/// The exit code where a second signal cuts the shutdown short.
const EXIT_CUT_SHORT: i32 = 130;

/// Why the server could not start, or could not go on.
#[derive(Debug, Error)]
pub enum ServerError {
    #[error("{0}")]
    Kernel(#[from] UnsupportedKernel),
    #[error("there is no application {name:?} (setting app); there are: {known}")]
    UnknownApp { name: String, known: String },
    #[error("the application {name} has no workers: instances are of applications in scripts (setting app)")]
    NoWorkers { name: String },
    #[error("there are {WORKERS_MAX} workers at most, and {wanted} are asked for (setting app)")]
    TooManyWorkers { wanted: usize },
    #[error("the application of {} cannot run: {why} (setting app)", .file.display())]
    BadName { file: PathBuf, why: String },
    #[error("the application {name} cannot start from {}: {error}", .file.display())]
    Workers { name: String, file: PathBuf, error: StartError },
    #[error("the application {name} cannot be loaded from {}: {error}", .file.display())]
    Load { name: String, file: PathBuf, error: LoadError },
    #[error("two applications have the name {name}")]
    SameName { name: String },
    #[error("not all applications are fit to run")]
    Unfit,
    #[error("the application {name} cannot start: {error}")]
    App { name: String, error: Error },
    #[error("{0}")]
    Listen(#[from] ListenError),
    #[error("{0}")]
    Admin(#[from] AdminError),
    #[error("the control executor cannot start: {0}")]
    Control(io::Error),
    #[error("{0}")]
    Service(Box<dyn std::error::Error + Send + Sync>),
    #[error("the log cannot be started: {0}")]
    Log(#[from] log::LogError),
    #[error("shard {shard} cannot start: {error}")]
    Start { shard: u16, error: io::Error },
    #[error("shard {shard} cannot go on: {error}")]
    Shard { shard: u16, error: io::Error },
    #[error("signals cannot be received: {0}")]
    Signals(io::Error),
}

impl ServerError {
    /// The exit code of a process that ends with this error: wrong settings have one of their own. An application that failed
    /// may do better when it is tried again.
    pub fn exit_code(&self) -> u8 {
        match self {
            ServerError::UnknownApp { .. }
            | ServerError::NoWorkers { .. }
            | ServerError::TooManyWorkers { .. }
            | ServerError::BadName { .. }
            | ServerError::Workers { error: StartError::Spawn { .. }, .. }
            | ServerError::Load { .. }
            | ServerError::SameName { .. } => config::EXIT_CODE,
            _ => 1,
        }
    }
}

/// Runs a server with the applications that the settings name, until a signal stops it.
///
/// # Errors
///
/// Whatever keeps it from starting, in words for the operator; or the shard that could not go on.
pub fn run(config: Config) -> Result<(), ServerError> {
    run_named(config, Vec::new(), Vec::new())
}

/// Runs a server with services beside it, until a signal stops them all.
///
/// # Errors
///
/// As [`run`]; or a service cannot start.
pub fn run_with_services(config: Config, services: Vec<ControlService>) -> Result<(), ServerError> {
    run_named(config, Vec::new(), services)
}

/// Runs a server with these applications, and those that the settings name behind them, until a signal stops it.
///
/// # Errors
///
/// As [`run`].
pub fn run_with(config: Config, apps: Vec<Arc<dyn Application>>) -> Result<(), ServerError> {
    run_named(config, apps, Vec::new())
}

/// Runs the self-tests of the applications that the settings name, and reports on standard output.
///
/// # Errors
///
/// An application cannot be loaded or is not fit to run; the report says which.
pub fn test_apps(config: Config) -> Result<(), ServerError> {
    let _log = log::start(config.log_level, config.log_format)?;
    if apps::test(&config) { Ok(()) } else { Err(ServerError::Unfit) }
}

fn run_named(
    config: Config,
    apps: Vec<Arc<dyn Application>>,
    services: Vec<ControlService>,
) -> Result<(), ServerError> {
    // Kept to the end: what is logged last is written when it is dropped.
    let log = log::start(config.log_level, config.log_format)?;
    let signals = watch_signals()?;
    let (clock, hand) = clock(config.clock);
    let named = apps::Named::load(&config, shards(&config), &clock, apps)?;
    let run = Run { config, apps: named.apps(), workers: named.workers(), clock, hand, signals };
    let served = serve(run, &log, services);
    // Those that were loaded and never started, since something else could not.
    named.finish();
    served
}

/// What is run.
struct Run {
    config: Config,
    apps: Vec<Arc<dyn Application>>,
    /// Those of the applications that run in processes of their own.
    workers: Vec<Arc<WorkerApplication>>,
    clock: Clock,
    hand: Option<ClockHandle>,
    signals: Signalled,
}

fn serve(run: Run, log: &log::Guard, added: Vec<ControlService>) -> Result<(), ServerError> {
    let Run { config, apps, workers, clock, hand, signals } = run;
    let kernel = probe()?;
    let config = Arc::new(config);
    let mut listeners = listen::bind(&config)?;
    let all_apps = with_own(&config, apps);
    let link_places = workers.iter().map(|app| app.instances()).sum::<usize>() * LINK_PLACES;

    let Signalled { events, taken, serves } = signals;
    let mut fleet = Fleet::start(&config, &kernel, &clock, &all_apps, link_places as u32, &events)?;
    for app in &workers {
        app.set_shards(Arc::clone(&fleet.mailboxes) as Arc<dyn worker::ShardsHandle>);
    }
    let server = Server::new(Arc::clone(&fleet.mailboxes) as Arc<dyn app::Post>);
    start_apps(&all_apps, &server)?;
    drop(events);
    serves.store(true, Ordering::SeqCst);
    let parts = statistics::Parts {
        mailboxes: Arc::clone(&fleet.mailboxes),
        hand,
        workers: workers.clone(),
        listen: listeners.names(),
        log: log.dropped_lines(),
    };
    let mut services = Services::default();
    if let Some(address) = config.admin {
        let hosts = config.admin_hosts.clone();
        services.start("admin", |control| {
            admin::serve(control, address, hosts, |spawner| Statistics::start(parts, spawner))
        })?;
    }
    services.start_added(added, listeners.tcp())?;
    listeners.listen()?;
    announce(&kernel, &fleet, &all_apps, &listeners, services.addresses());
    fleet.go(&mut listeners);

    let ended = wait_for_end(&taken, &fleet, &config, &workers);
    // All at once; each is waited for by its own `stop`.
    workers.iter().for_each(|app| app.shards_ended());
    for app in &all_apps {
        app.stop();
    }
    drop(services);
    drop(listeners);
    ended
}

/// Starts the applications in order. Where one cannot, those before it are stopped again.
fn start_apps(apps: &[Arc<dyn Application>], server: &Server) -> Result<(), ServerError> {
    for (number, app) in apps.iter().enumerate() {
        if let Err(error) = app.start(&server.of_app(number as u32)) {
            apps[..number].iter().rev().for_each(|app| app.stop());
            return Err(ServerError::App { name: app.name().to_owned(), error });
        }
    }
    Ok(())
}

/// What the main thread waits for.
enum Event {
    Signal(i32),
    ShardEnded(u16, io::Result<()>),
}

/// The shards, on their executors.
struct Fleet {
    mailboxes: Arc<Mailboxes>,
    cores: Vec<usize>,
    go: Vec<SyncSender<Go>>,
    /// Kept so that they are not detached before they end.
    _executors: Vec<Executor<()>>,
}

/// What a shard that is ready waits for.
struct Go {
    listeners: Vec<OwnedFd>,
    peers: Arc<[Wakeup]>,
}

/// What a shard's thread makes its shard of.
struct Crew {
    id: u16,
    config: Arc<Config>,
    shared: Arc<SharedState>,
    settings: ring::RingSettings,
    port: Port<Envelope>,
    inboxes: Inboxes,
    clock: Clock,
    server: Server,
    apps: Vec<Arc<dyn Application>>,
}

impl Fleet {
    /// Starts the shards: each makes its ring, registers the applications, and waits.
    fn start(
        config: &Arc<Config>,
        kernel: &KernelFeatures,
        clock: &Clock,
        apps: &[Arc<dyn Application>],
        link_places: u32,
        events: &Sender<Event>,
    ) -> Result<Fleet, ServerError> {
        let cores = runtime::cores();
        let shards = shards(config);
        let settings = mesh::MeshSettings {
            ring_messages: config.mesh_ring_messages,
            overflow_messages_max: config.mesh_overflow_messages_max,
        };
        let mut ports = mesh(shards, settings);
        let mut mailboxes = Mailboxes::new();
        let inboxes: Vec<Inboxes> = ports
            .iter_mut()
            .map(|port| mailboxes.add(port, config.inbox_messages_max, link_places as usize))
            .collect();
        let mailboxes = Arc::new(mailboxes);
        let shared = Arc::new(SharedState::new(config));
        let ring = ring_settings(config, kernel, shards, link_places);
        let mut fleet = Fleet { mailboxes, cores: Vec::new(), go: Vec::new(), _executors: Vec::new() };
        let mut wakeups = Vec::new();
        for (id, (port, inboxes)) in ports.into_iter().zip(inboxes).enumerate() {
            let core = cores[id % cores.len()];
            let crew = Crew {
                id: id as u16,
                config: Arc::clone(config),
                shared: Arc::clone(&shared),
                settings: ring,
                port,
                inboxes,
                clock: clock.clone(),
                server: Server::new(Arc::clone(&fleet.mailboxes) as Arc<dyn app::Post>),
                apps: apps.to_vec(),
            };
            wakeups.push(fleet.start_one(crew, core, events.clone())?);
        }
        fleet.mailboxes.open(wakeups.into());
        Ok(fleet)
    }

    fn start_one(&mut self, crew: Crew, core: usize, events: Sender<Event>) -> Result<Wakeup, ServerError> {
        let id = crew.id;
        let (ready, is_ready) = sync_channel(1);
        let (go, gone) = sync_channel(1);
        let executor =
            runtime::spawn(&format!("quickio-{id}"), core, move || crew.man(&ready, &gone, &events))
                .map_err(|error| ServerError::Start { shard: id, error })?;
        self.cores.push(core);
        self.go.push(go);
        match is_ready.recv() {
            Ok(started) => {
                self._executors.push(executor);
                started
            }
            // The executor itself could not be made, or it panicked.
            Err(_) => {
                let error = executor.join().err().unwrap_or_else(|| io::Error::other("it ended at once"));
                Err(ServerError::Start { shard: id, error })
            }
        }
    }

    /// Lets the shards accept.
    fn go(&mut self, listeners: &mut Listeners) {
        for (shard, go) in self.go.iter().enumerate() {
            let peers = self.mailboxes.wakeups();
            // A shard that is gone has said why, to the main thread's channel.
            let _ = go.send(Go { listeners: listeners.take(shard), peers });
        }
    }
}

impl Crew {
    /// The life of a shard's thread.
    fn man(self, ready: &SyncSender<Result<Wakeup, ServerError>>, go: &Receiver<Go>, events: &Sender<Event>) {
        let id = self.id;
        let (shard, wakeup) = match self.make_shard() {
            Ok(made) => made,
            // The main thread waits for just this message.
            Err(error) => return drop(ready.send(Err(error))),
        };
        let _ = ready.send(Ok(wakeup));
        // No message: another shard, or an application, could not start.
        let Ok(Go { listeners, peers }) = go.recv() else { return };
        let mut guard = EndGuard { id, events, result: Some(Err(io::Error::other("it panicked"))) };
        guard.result = Some(shard.run(listeners, peers));
    }

    fn make_shard(self) -> Result<(Shard, Wakeup), ServerError> {
        let id = self.id;
        let ring = Ring::new(self.settings).map_err(|error| ServerError::Start { shard: id, error })?;
        let wakeup = Wakeup { ring: ring.raw_fd(), doorbell: ring.doorbell() };
        let apps = Apps::register(id, self.server, &self.apps)
            .map_err(|(name, error)| ServerError::App { name, error })?;
        let Crew { config, shared, port, clock, .. } = self;
        let link_places = self.settings.reserved;
        let parts = ShardParts { id, config, shared, port, clock, apps, link_places };
        Ok((Shard::new(ring, self.inboxes, parts), wakeup))
    }
}

/// Tells the main thread that a shard has ended, however it did.
struct EndGuard<'a> {
    id: u16,
    events: &'a Sender<Event>,
    result: Option<io::Result<()>>,
}

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or(Ok(()));
        let _ = self.events.send(Event::ShardEnded(self.id, result));
    }
}

/// How many shards the settings ask for: one for each core that this process may use, unless they say.
fn shards(config: &Config) -> usize {
    config.shards.unwrap_or_else(|| runtime::cores().len()).min(SHARDS_MAX)
}

fn ring_settings(
    config: &Config,
    kernel: &KernelFeatures,
    shards: usize,
    link_places: u32,
) -> ring::RingSettings {
    // The kernel spreads connections by a hash: some shards get more than their share, none gets double.
    let wanted = config.clients_max.div_ceil(shards) * 2 + DESCRIPTORS_SPARE;
    let wanted = wanted.min(config.clients_max + DESCRIPTORS_SPARE);
    let descriptors = u32::try_from(wanted)
        .unwrap_or(u32::MAX)
        .min(kernel.descriptors_per_ring.saturating_sub(link_places));
    if descriptors as usize * shards < config.clients_max {
        let (holds, limit) = (descriptors as usize * shards, kernel.descriptors_per_ring);
        if config.clients_max == Config::default().clients_max {
            // Nobody has asked for so many.
            tracing::info!(
                "{shards} shards hold {holds} connections at most: the limit on open files is {limit} for each"
            );
        } else {
            tracing::warn!(
                "clients-max is {}, but {shards} shards hold {holds} connections at most: the limit on open files \
                 (ulimit -n) is {limit}, and holds for each shard",
                config.clients_max,
            );
        }
    }
    ring::RingSettings {
        descriptors,
        buffers: config.receive_buffers as u16,
        buffer_bytes: config.receive_buffer_bytes as u32,
        reserved: link_places,
    }
}

fn clock(kind: ClockKind) -> (Clock, Option<ClockHandle>) {
    match kind {
        ClockKind::System => (Clock::system(), None),
        ClockKind::Manual => {
            let (clock, hand) = Clock::manual();
            (clock, Some(hand))
        }
    }
}

/// The applications with the server's own before them.
fn with_own(config: &Config, apps: Vec<Arc<dyn Application>>) -> Vec<Arc<dyn Application>> {
    let own = Qio { public_address: config.public_address.clone(), hostname: runtime::hostname() };
    let own: Arc<dyn Application> = Arc::new(own);
    std::iter::once(own).chain(apps).collect()
}

/// Tells whoever started the server what runs, on standard output: for people, and for programs that wait for
/// `ready`.
fn announce(
    kernel: &KernelFeatures,
    fleet: &Fleet,
    apps: &[Arc<dyn Application>],
    listeners: &Listeners,
    services: &[(&str, SocketAddr)],
) {
    let mut text = format!("quickio {} on Linux {}\n", env!("CARGO_PKG_VERSION"), kernel.release);
    let cores: Vec<String> = fleet.cores.iter().map(usize::to_string).collect();
    text += &format!("{} shards on cores {}\n", cores.len(), cores.join(", "));
    text += &format!("kernel features in use: {}\n", kernel.features.join(", "));
    // The first is the server's own.
    let apps: Vec<&str> = apps.iter().skip(1).map(|app| app.name()).collect();
    let apps = if apps.is_empty() { "none".to_owned() } else { apps.join(", ") };
    text += &format!("applications: {apps}\n");
    listeners.names().iter().for_each(|name| text += &format!("listening on {name}\n"));
    services.iter().for_each(|(name, address)| text += &format!("{name} on {address}\n"));
    text += "ready\n";
    // Nobody may be reading; that is no reason not to serve.
    let _ = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
}

/// Signals, from the moment on at which they were first watched.
struct Signalled {
    /// Where shards tell of their ends, too.
    events: Sender<Event>,
    taken: Receiver<Event>,
    /// Whether somebody takes them.
    serves: Arc<AtomicBool>,
}

/// Watches signals, before anything is started that a signal should not leave behind.
fn watch_signals() -> Result<Signalled, ServerError> {
    // Who has started us may have it ignored, and then no process that ends could be waited for.
    signal_hook::flag::register(SIGCHLD, Arc::default()).map_err(ServerError::Signals)?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(ServerError::Signals)?;
    let (events, taken) = channel();
    let serves = Arc::new(AtomicBool::new(false));
    let (to, is_served) = (events.clone(), Arc::clone(&serves));
    let watch = move || {
        let mut is_ending = false;
        for signal in signals.forever() {
            let serves = is_served.load(Ordering::SeqCst);
            match signal {
                SIGHUP if !serves => {
                    tracing::info!("SIGHUP: nothing is loaded yet that could be replaced");
                    continue;
                }
                SIGHUP => {}
                _ if !serves => {
                    // The log's thread may not get to it.
                    eprintln!("quickio: stopped while it started");
                    worker::abandon_all();
                    std::process::exit(0);
                }
                _ if std::mem::replace(&mut is_ending, true) => {
                    worker::abandon_all();
                    std::process::exit(EXIT_CUT_SHORT);
                }
                _ => {}
            }
            let _ = to.send(Event::Signal(signal));
        }
    };
    thread::Builder::new().name("signals".into()).spawn(watch).map_err(ServerError::Signals)?;
    Ok(Signalled { events, taken, serves })
}

/// Waits for a signal, then for the shards; or for a shard that cannot go on.
fn wait_for_end(
    events: &Receiver<Event>,
    fleet: &Fleet,
    config: &Config,
    workers: &[Arc<WorkerApplication>],
) -> Result<(), ServerError> {
    let mut running = fleet.go.len();
    let mut deadline = None;
    while running > 0 {
        let wait = deadline.map_or(Duration::MAX, |at: Instant| at.saturating_duration_since(Instant::now()));
        let event = if wait == Duration::MAX {
            events.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            events.recv_timeout(wait)
        };
        match event {
            Ok(Event::Signal(SIGHUP)) => reload(workers),
            Ok(Event::Signal(signal)) => {
                tracing::info!(signal, "shutting down");
                workers.iter().for_each(|app| app.begin_shutdown());
                deadline = Some(Instant::now() + config.shutdown_timeout);
                let deadline_ns = nanos() + config.shutdown_timeout.as_nanos() as u64;
                fleet.mailboxes.notify_all(|| ControlMessage::Shutdown { deadline_ns });
            }
            Ok(Event::ShardEnded(shard, Err(error))) => {
                // The others close their clients and let their workers go, as far as they get until the process ends.
                workers.iter().for_each(|app| app.begin_shutdown());
                fleet.mailboxes.notify_all(|| ControlMessage::Shutdown { deadline_ns: nanos() });
                return Err(ServerError::Shard { shard, error });
            }
            Ok(Event::ShardEnded(_, Ok(()))) => running -= 1,
            Err(_) => {
                tracing::warn!(running, "shutdown-timeout is over: shards are left behind");
                break;
            }
        }
    }
    Ok(())
}

/// SIGHUP.
fn reload(workers: &[Arc<WorkerApplication>]) {
    if workers.is_empty() {
        tracing::info!("SIGHUP: no application has workers that could be replaced");
    }
    workers.iter().for_each(|app| app.replace());
}

/// Set once, when all shards have their rings.
type Wakeups = OnceLock<Arc<[Wakeup]>>;
