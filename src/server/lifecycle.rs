//! The life cycle of a server: it starts in order, waits for a signal or a failure, and shuts down in order.

use super::admin_password;
use super::api::ApiService;
use super::apps::{self, LoadedApplications};
use super::auth::{AuthError, AuthService};
use super::error::ServerError;
use super::listen::{self, BoundListeners};
use super::notify::ServiceManager;
use super::open;
use super::reload::{ReadSettings, Reloads};
use super::report::StatisticsReport;
use super::resources::Needs;
use super::services::{ControlService, Services};
use super::shards::{self, ShardThreads, ShardsConfig};
use super::signals::{Signal, SignalWatch};
use super::statistics::{self, Statistics};
use super::tls::{Reloaded, TlsError, TlsService};
use super::watchdog;
use crate::admin::{self, AdminError, AdminProtection};
use crate::app::qio::Qio;
use crate::app::worker::{self, ReplaceOutcome};
use crate::app::worker_app::WorkerApplication;
use crate::app::{self, Application, Server};
use crate::config::{AuthMode, ClockKind, Config};
use crate::log;
use crate::metrics::SharedCounters;
use crate::qev::clock::{Clock, ClockHandle, nanos};
use crate::qev::control::{Spawner, TlsAcceptor};
use crate::qev::probe::{KernelFeatures, probe};
use crate::qev::runtime;
use crate::rules::RuleSet;
use crate::shard::ControlMessage;
use signal_hook::consts::{SIGHUP, SIGUSR1};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// The number of ring entries for the links of one worker: for the worker, and for its successor while it is replaced.
const LINK_PLACES: usize = 4;

/// Runs a server with these applications, those that the settings name after them, and these services.
pub(super) fn run(
    config: Config,
    apps: Vec<Arc<dyn Application>>,
    services: Vec<ControlService>,
    read: Option<ReadSettings>,
) -> Result<(), ServerError> {
    // Dropped at the end, which writes the last lines of the log.
    let log = log::start(config.log_level, config.log_format)?;
    let manager = ServiceManager::from_environment();
    let ended = run_logged(config, apps, services, &manager, &log, read);
    if let Err(error) = &ended {
        manager.status(&error.to_string());
    }
    ended
}

fn run_logged(
    config: Config,
    apps: Vec<Arc<dyn Application>>,
    services: Vec<ControlService>,
    manager: &ServiceManager,
    log: &log::Guard,
    read: Option<ReadSettings>,
) -> Result<(), ServerError> {
    let signals = SignalWatch::start()?;
    manager.status("starting");
    let (clock, clock_handle) = clock(config.clock);
    let loaded = LoadedApplications::load(&config, shards::count(&config), &clock, apps)
        .map_err(|error| signals.fail(error))?;
    log_warnings(&config, &loaded);
    let started =
        RunningServer::start(config, &loaded, (clock, clock_handle), &signals, services, manager, log);
    let ended = match started {
        Ok(server) => server.run_to_end(Reloads::new(read, log.level())),
        Err(error) => Err(signals.fail(error)),
    };
    // Stops the applications that were loaded but never started.
    loaded.finish();
    ended
}

/// Logs the settings that are probably mistakes.
fn log_warnings(config: &Config, loaded: &LoadedApplications) {
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    open::warning(config).iter().for_each(|warning| tracing::warn!("{warning}"));
    if loaded.apps().is_empty() {
        tracing::warn!(
            "no application runs: the server handles only its own events under /qio. Set app, such as --app relay or \
             app = [\"relay\"] in the settings file"
        );
    }
}

/// An event that the main thread waits for.
enum ServerEvent {
    Signal(Signal),
    /// The workers of an application were replaced, or the replacement was given up.
    WorkersReplaced(ReplaceOutcome),
    ShardEnded(u16, io::Result<()>),
    /// The files of the certificates may have changed.
    CertificatesChanged,
}

/// A server that has started.
struct RunningServer {
    config: Arc<Config>,
    apps: Vec<Arc<dyn Application>>,
    /// The applications that run in processes of their own.
    workers: Vec<Arc<WorkerApplication>>,
    threads: ShardThreads,
    events: Receiver<ServerEvent>,
    event_sender: Sender<ServerEvent>,
    services: Services,
    report: StatisticsReport,
    manager: ServiceManager,
    listeners: BoundListeners,
    /// `None` if nobody can authenticate.
    auth: Option<AuthService>,
    /// `None` if the server takes no TLS.
    tls: Option<TlsService>,
    /// The TLS of the admin endpoint.
    admin_tls: Option<TlsAcceptor>,
    /// `None` if the server API is off.
    api: Option<ApiService>,
}

impl RunningServer {
    fn start(
        config: Config,
        loaded: &LoadedApplications,
        (clock, clock_handle): (Clock, Option<ClockHandle>),
        signals: &SignalWatch,
        added: Vec<ControlService>,
        manager: &ServiceManager,
        log: &log::Guard,
    ) -> Result<RunningServer, ServerError> {
        let kernel = probe()?;
        let config = Arc::new(config);
        let workers = loaded.workers();
        let instances = workers.iter().map(|app| app.instances()).sum::<usize>();
        let needs = Needs::of(&config, shards::count(&config), instances);
        needs.check()?;
        let mut tls = TlsService::load(&config)?;
        let auth = AuthService::load(&config, shards::count(&config), apps::authenticator(&loaded.apps())?)?;
        let password = admin_password::read(&config)?;
        for warning in admin_password::warnings(&config, password.as_ref()) {
            tracing::warn!("{warning}");
        }
        let mut listeners = listen::bind(&config, shards::count(&config))?;
        let apps = with_own(&config, loaded.apps());
        let link_places = instances * LINK_PLACES;
        let (event_sender, events) = channel();
        let ends = event_sender.clone();
        let threads = ShardThreads::start(ShardsConfig {
            config: &config,
            kernel: &kernel,
            clock: &clock,
            apps: &apps,
            link_places: link_places as u32,
            needs: &needs,
            tls: tls.as_ref().map(TlsService::context),
            auth: auth.as_ref().map(AuthService::parts),
            on_end: Arc::new(move |shard, result| {
                // This fails only if the main thread has stopped waiting.
                let _ = ends.send(ServerEvent::ShardEnded(shard, result));
            }),
        })?;
        for app in &workers {
            app.set_shards(Arc::clone(threads.mailboxes()) as Arc<dyn worker::ShardsHandle>);
        }
        start_apps(&apps, &Server::new(Arc::clone(threads.mailboxes()) as Arc<dyn app::Post>))?;
        let service_counters = Arc::new(SharedCounters::new());
        let parts = statistics::StatisticsParts {
            services: [&[Arc::clone(&service_counters)], loaded.counters()].concat(),
            mailboxes: Arc::clone(threads.mailboxes()),
            clock: clock_handle,
            workers: workers.clone(),
            listen: listeners.names(),
            certificates: tls.as_ref().map(TlsService::certificates).unwrap_or_default(),
            dropped_lines: log.dropped_lines(),
            failed_lines: log.failed_lines(),
        };
        let mut services = Services::new(needs);
        let admin_tls = tls.as_ref().filter(|_| config.admin_tls).map(|tls| TlsAcceptor::new(tls.config()));
        if !config.admin.is_empty() {
            let protection = AdminProtection {
                hosts: config.admin_hosts.clone(),
                tls: admin_tls.clone(),
                password: password.map(|secret| secret.bytes),
            };
            let prefix = if config.admin_tls { "tls://" } else { "" };
            services.start("admin", |control| {
                let start = |spawner: &Spawner| Statistics::start(parts, spawner);
                let addresses = admin::serve(control, &config.admin, protection, start)?;
                Ok::<_, AdminError>(addresses.iter().map(|address| format!("{prefix}{address}")).collect())
            })?;
        }
        let api_tls = tls.as_ref().map(|tls| TlsAcceptor::new(tls.config()));
        let api = ApiService::start(&config, api_tls, &service_counters, threads.mailboxes(), &mut services)?;
        if let Some(tls) = &mut tls {
            let events = event_sender.clone();
            let watch = tls.watch(move || {
                // This fails only if the main thread has stopped waiting.
                let _ = events.send(ServerEvent::CertificatesChanged);
            });
            services.control()?.spawn(watch);
        }
        if let Some(auth) = &auth {
            auth.start(threads.mailboxes()).map_err(ServerError::AuthThread)?;
            auth.fetch(services.control()?, threads.mailboxes());
        }
        services.start_added(added, listeners.plain_tcp())?;
        if let Some(period) = manager.watchdog() {
            let (manager, mailboxes) = (manager.clone(), Arc::clone(threads.mailboxes()));
            services.control()?.spawn(move |_| watchdog::report(manager, mailboxes, period));
        }
        listeners.listen()?;
        // No step after this can fail.
        let signal_sender = event_sender.clone();
        signals.serve(move |signal| {
            // This fails only if the main thread has stopped waiting.
            let _ = signal_sender.send(ServerEvent::Signal(signal));
        });
        announce(&kernel, &threads.placement(), &apps, &listeners, services.addresses());
        threads.accept(&mut listeners);
        let manager = manager.clone();
        manager.ready(&serving_status(&listeners));
        let report = StatisticsReport::new(Arc::clone(threads.mailboxes()));
        Ok(RunningServer {
            config,
            apps,
            workers,
            threads,
            events,
            event_sender,
            services,
            report,
            manager,
            listeners,
            auth,
            tls,
            admin_tls,
            api,
        })
    }

    /// Runs the server until its shards have ended, then stops everything else.
    fn run_to_end(mut self, reloads: Reloads) -> Result<(), ServerError> {
        let ended = self.wait_for_shards(reloads);
        // All supervisors are told first. Then the `stop` of each application waits for its workers.
        self.workers.iter().for_each(|app| app.shards_ended());
        self.apps.iter().for_each(|app| app.stop());
        drop(self.services);
        drop(self.listeners);
        ended
    }

    /// Waits for a signal and then for the shards, or for a shard that fails.
    fn wait_for_shards(&mut self, mut reloads: Reloads) -> Result<(), ServerError> {
        let mut running = self.threads.len();
        let mut deadline: Option<Instant> = None;
        while running > 0 {
            let event = match deadline {
                None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self.events.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match event {
                Ok(ServerEvent::Signal(SIGHUP)) if deadline.is_some() => {
                    tracing::info!("SIGHUP ignored: the server is shutting down");
                }
                Ok(ServerEvent::Signal(SIGHUP)) => self.reload(&mut reloads),
                Ok(ServerEvent::WorkersReplaced(outcome)) => {
                    // During the shutdown the service manager expects no other status.
                    if reloads.count(outcome) && deadline.is_none() {
                        self.manager.ready(&serving_status(&self.listeners));
                    }
                }
                Ok(ServerEvent::CertificatesChanged) => _ = self.reload_certificates(false),
                Ok(ServerEvent::Signal(SIGUSR1)) => self.report_statistics(),
                Ok(ServerEvent::Signal(signal)) => {
                    tracing::info!(signal, "shutting down");
                    self.manager.stopping();
                    deadline = Some(Instant::now() + self.config.shutdown_timeout);
                    let told = self.shut_down_shards(self.config.shutdown_timeout);
                    if told < running {
                        tracing::error!(
                            told,
                            running,
                            "some shards are stuck and could not be told to shut down"
                        );
                    }
                }
                Ok(ServerEvent::ShardEnded(shard, Err(error))) => {
                    // The other shards close their clients and release their workers until the process ends.
                    self.shut_down_shards(Duration::ZERO);
                    return Err(ServerError::Shard { shard, error });
                }
                Ok(ServerEvent::ShardEnded(_, Ok(()))) => running -= 1,
                Err(_) => {
                    tracing::warn!(
                        running,
                        "shutdown-timeout has passed: the server exits while shards are still running"
                    );
                    break;
                }
            }
        }
        Ok(())
    }

    /// Tells the shards to end within this time, and the supervisors to start no more workers. Returns the number of
    /// shards that were told.
    fn shut_down_shards(&self, time: Duration) -> usize {
        self.workers.iter().for_each(|app| app.begin_shutdown());
        let deadline_ns = nanos() + time.as_nanos() as u64;
        self.threads.mailboxes().send_to_all(|| ControlMessage::Shutdown { deadline_ns })
    }

    /// Loads the certificates again, and passes them on if they have changed. If they cannot be used, those that were
    /// loaded before stay in use. `is_requested` tells that an operator asked for it.
    fn reload_certificates(&mut self, is_requested: bool) -> Result<(), TlsError> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        match tls.reload(&self.config, is_requested) {
            Reloaded::Unchanged => {}
            Reloaded::Failed(error) => return Err(error),
            Reloaded::Changed => {
                if let Some(admin) = &self.admin_tls {
                    admin.set(tls.config());
                }
                if let Some(api) = &self.api {
                    api.set_tls(&tls.config());
                }
                let told = self.threads.mailboxes().send_to_all(|| ControlMessage::Tls(tls.context()));
                if told < self.threads.len() {
                    tracing::error!(
                        told,
                        shards = self.threads.len(),
                        "some shards are stuck and keep the old certificates; restart the server"
                    );
                }
                tls.log_reloaded();
            }
        }
        Ok(())
    }

    /// Reads the keys of the server API again. If one of them cannot be used, those that were read before stay in use.
    fn reload_api_keys(&self) {
        let Some(api) = &self.api else { return };
        if let Err(error) = api.reload(&self.config.api_keys) {
            tracing::error!("the keys of the server API stay as they were: {error}");
        }
    }

    /// Loads the keys of tokens again. If one cannot be used, those that were loaded before stay in use.
    fn reload_keys(&self) -> Result<(), AuthError> {
        match &self.auth {
            Some(auth) => auth.reload(&self.config, self.threads.mailboxes()),
            None => Ok(()),
        }
    }

    /// Passes the rules of the settings on.
    fn change_rules(&self) {
        let rules = Arc::new(RuleSet::new(self.config.rules.clone()));
        let told = self.threads.mailboxes().send_to_all(|| ControlMessage::Rules(Arc::clone(&rules)));
        if told < self.threads.len() {
            tracing::error!(
                told,
                shards = self.threads.len(),
                "some shards are stuck and keep the old rules; restart the server"
            );
        }
    }

    /// Handles SIGUSR1.
    fn report_statistics(&mut self) {
        match self.services.control() {
            Ok(control) => self.report.log(control),
            Err(error) => tracing::warn!(%error, "the statistics cannot be logged"),
        }
    }

    /// Handles SIGHUP. If the settings are invalid, nothing changes.
    fn reload(&mut self, reloads: &mut Reloads) {
        self.manager.reloading();
        let has_workers = |name: &str| self.workers.iter().any(|app| app.name() == name);
        match reloads.read(&self.config, has_workers) {
            Ok(config) => {
                let before = std::mem::replace(&mut self.config, config);
                if self.config.rules != before.rules {
                    self.change_rules();
                }
            }
            Err(error) => {
                tracing::error!("the reload failed; the server keeps its settings and its workers: {error}");
                let status = serving_status(&self.listeners);
                self.manager.ready(&format!("{status}; the last reload failed: {error}"));
                return;
            }
        }
        let certificates = self.reload_certificates(true);
        self.reload_api_keys();
        let keys = self.reload_keys();
        for app in &self.workers {
            let events = self.event_sender.clone();
            let settings = self.config.app_settings.get(app.name()).cloned().unwrap_or_default();
            let done = Box::new(move |outcome| {
                // This fails only if the main thread has stopped waiting.
                let _ = events.send(ServerEvent::WorkersReplaced(outcome));
            });
            app.replace(Some(settings), done);
        }
        if reloads.begin(self.workers.len()) {
            let status = serving_status(&self.listeners);
            match (certificates, keys) {
                (Ok(()), Ok(())) => self.manager.ready(&status),
                (Err(error), _) => {
                    self.manager.ready(&format!("{status}; the certificates were not reloaded: {error}"))
                }
                (_, Err(error)) => {
                    self.manager.ready(&format!("{status}; the keys of tokens were not reloaded: {error}"))
                }
            }
        }
    }
}

/// Returns the status for the service manager while the server runs.
fn serving_status(listeners: &BoundListeners) -> String {
    format!("listening on {}", listeners.names().join(", "))
}

/// Starts the applications in order. If one cannot start, those before it are stopped again.
fn start_apps(apps: &[Arc<dyn Application>], server: &Server) -> Result<(), ServerError> {
    for (number, app) in apps.iter().enumerate() {
        if let Err(error) = app.start(&server.of_app(number as u32)) {
            apps[..number].iter().rev().for_each(|app| app.stop());
            return Err(ServerError::App { name: app.name().to_owned(), error });
        }
    }
    Ok(())
}

fn clock(kind: ClockKind) -> (Clock, Option<ClockHandle>) {
    match kind {
        ClockKind::System => (Clock::system(), None),
        ClockKind::Manual => {
            let (clock, handle) = Clock::manual();
            (clock, Some(handle))
        }
    }
}

/// Returns the applications, after the server's own.
fn with_own(config: &Config, apps: Vec<Arc<dyn Application>>) -> Vec<Arc<dyn Application>> {
    let own = Qio {
        public_address: config.public_address.clone(),
        hostname: runtime::hostname(),
        has_auth: config.auth != AuthMode::Off,
        message_bytes_max: config.message_bytes_max,
    };
    let own: Arc<dyn Application> = Arc::new(own);
    std::iter::once(own).chain(apps).collect()
}

/// Prints the features, applications and addresses of the server on standard output: for people, and for programs
/// that wait for `ready`.
fn announce(
    kernel: &KernelFeatures,
    placement: &str,
    apps: &[Arc<dyn Application>],
    listeners: &BoundListeners,
    services: &[(&str, String)],
) {
    let mut text = format!("quickio {} on Linux {}\n", env!("CARGO_PKG_VERSION"), kernel.release);
    text += &format!("{placement}\n");
    text += &format!("kernel features in use: {}\n", kernel.features.join(", "));
    // The first application is the server's own.
    let apps: Vec<&str> = apps.iter().skip(1).map(|app| app.name()).collect();
    let apps = if apps.is_empty() { "none".to_owned() } else { apps.join(", ") };
    text += &format!("applications: {apps}\n");
    listeners.names().iter().for_each(|name| text += &format!("listening on {name}\n"));
    services.iter().for_each(|(name, address)| text += &format!("{name} on {address}\n"));
    text += "ready\n";
    // The server also runs if its output is not read.
    let _ = log::write_stdout_in_time(text);
}
