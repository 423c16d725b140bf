//! The applications that the settings name: bundled ones, shared objects, and scripts that run in workers.

use super::error::ServerError;
use crate::app::c::{self, CApplication};
use crate::app::webhook::Webhook;
use crate::app::worker::{self, LinkLimits, WorkerClock, WorkerConfig, WorkerKind, WorkingFolder};
use crate::app::worker_app::WorkerApplication;
use crate::app::{self, Application, Authenticate};
use crate::config::{self, App, Config};
use crate::limits::WORKERS_MAX;
use crate::metrics::SharedCounters;
use crate::qev::clock::Clock;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The extensions of the files in `app-dir` that are tried for a name, in this order.
const EXTENSIONS: [&str; 5] = ["so", "py", "mjs", "js", "cjs"];

/// The maximum of unread bytes of a worker that sends more requests, as a multiple of `worker-outbox-bytes-max`. A
/// worker over it does not read at all. (Input from clients does not get there: their events are refused and their
/// ends are delayed before.)
const UNREAD_TIMES: usize = 4;

/// The applications that the settings name, loaded.
pub(super) struct LoadedApplications {
    apps: Vec<Arc<dyn Application>>,
    objects: Vec<Arc<CApplication>>,
    workers: Vec<Arc<WorkerApplication>>,
    /// The counters of applications that belong to no shard.
    counters: Vec<Arc<SharedCounters>>,
}

impl LoadedApplications {
    /// Loads the applications in order, after those in `apps`. If one cannot be loaded, those before it are stopped.
    pub fn load(
        config: &Config,
        shards: usize,
        clock: &Clock,
        apps: Vec<Arc<dyn Application>>,
    ) -> Result<LoadedApplications, ServerError> {
        let mut loaded =
            LoadedApplications { apps, objects: Vec::new(), workers: Vec::new(), counters: Vec::new() };
        for app in &config.app {
            if let Err(error) = loaded.add(app, config, shards, clock) {
                loaded.finish();
                return Err(error);
            }
        }
        loaded.warn_about_unused_settings(config);
        Ok(loaded)
    }

    /// Returns all applications.
    pub fn apps(&self) -> Vec<Arc<dyn Application>> {
        self.apps.clone()
    }

    /// Returns the applications that run in workers.
    pub fn workers(&self) -> Vec<Arc<WorkerApplication>> {
        self.workers.clone()
    }

    /// Returns the counters of applications that belong to no shard.
    pub fn counters(&self) -> &[Arc<SharedCounters>] {
        &self.counters
    }

    /// Stops the applications that were loaded and are not stopped yet.
    pub fn finish(&self) {
        self.objects.iter().rev().for_each(|app| app.finish());
        self.workers.iter().rev().for_each(|app| app.finish());
    }

    fn add(&mut self, app: &App, config: &Config, shards: usize, clock: &Clock) -> Result<(), ServerError> {
        let source = find(&app.name, config)?;
        if app.instances.is_some() && !matches!(source, AppSource::Script(..)) {
            return Err(ServerError::NoWorkers { name: app.name.clone() });
        }
        let app: Arc<dyn Application> = match source {
            AppSource::Bundled(app) => app,
            AppSource::Webhook(app) => {
                self.counters.push(Arc::clone(app.counters()));
                app
            }
            AppSource::Object(file) => {
                let app = load(&app.name, &file, config)?;
                self.objects.push(Arc::clone(&app));
                app
            }
            AppSource::Script(file, kind) => {
                let worker = worker_config(app, file, kind, config, shards, clock)?;
                self.check_name(&worker.name)?;
                self.check_count(worker.instances)?;
                let app = start(worker)?;
                self.workers.push(Arc::clone(&app));
                app
            }
        };
        self.check_name(app.name())?;
        self.apps.push(app);
        Ok(())
    }

    fn check_name(&self, name: &str) -> Result<(), ServerError> {
        if name == OWN_NAME || self.apps.iter().any(|other| other.name() == name) {
            return Err(ServerError::SameName { name: name.to_owned() });
        }
        Ok(())
    }

    fn check_count(&self, more: usize) -> Result<(), ServerError> {
        let wanted = self.workers.iter().map(|app| app.instances()).sum::<usize>() + more;
        if wanted > WORKERS_MAX { Err(ServerError::TooManyWorkers { wanted }) } else { Ok(()) }
    }

    /// Warns about settings of applications that do not run: most likely a name is misspelled.
    fn warn_about_unused_settings(&self, config: &Config) {
        let runs = |name: &str| self.apps.iter().any(|app| app.name() == name);
        for name in config.app_settings.keys().filter(|name| !runs(name)) {
            tracing::warn!("there are settings for an application that does not run: {name}");
        }
    }
}

/// Returns what authenticates clients, if one of the applications does.
pub(super) fn authenticator(
    apps: &[Arc<dyn Application>],
) -> Result<Option<Arc<dyn Authenticate>>, ServerError> {
    let mut found: Option<(&str, Arc<dyn Authenticate>)> = None;
    for app in apps {
        let Some(authenticator) = app.authenticator() else { continue };
        if let Some((first, _)) = found {
            return Err(ServerError::TwoAuthenticators { first: first.into(), second: app.name().into() });
        }
        found = Some((app.name(), authenticator));
    }
    Ok(found.map(|(_, authenticator)| authenticator))
}

/// The name of the bundled application that needs settings.
const WEBHOOK: &str = "webhook";

/// The name of the server's own application.
pub(super) const OWN_NAME: &str = "qio";

/// The place from which an application is loaded.
enum AppSource {
    Bundled(Arc<dyn Application>),
    Webhook(Arc<Webhook>),
    Object(PathBuf),
    Script(PathBuf, WorkerKind),
}

impl AppSource {
    fn of_file(file: PathBuf) -> AppSource {
        match WorkerKind::of(&file) {
            Some(kind) => AppSource::Script(file, kind),
            None => AppSource::Object(file),
        }
    }
}

fn find(name: &str, config: &Config) -> Result<AppSource, ServerError> {
    if config::is_file(name) {
        return Ok(AppSource::of_file(name.into()));
    }
    if let Some(app) = app::bundled(name) {
        return Ok(AppSource::Bundled(app));
    }
    if name == WEBHOOK {
        let settings = config.app_settings.get(WEBHOOK).cloned().unwrap_or_default();
        return Ok(AppSource::Webhook(Arc::new(Webhook::new(&settings, &config.app_headers)?)));
    }
    let mut known = app::BUNDLED.join(", ");
    if let Some(folder) = &config.app_dir {
        let mut files = EXTENSIONS.iter().map(|extension| folder.join(format!("{name}.{extension}")));
        if let Some(file) = files.find(|file| file.exists()) {
            return Ok(AppSource::of_file(file));
        }
        known += &format!(", and the files in {}", folder.display());
    }
    Err(ServerError::UnknownApp { name: name.to_owned(), known })
}

fn load(name: &str, file: &Path, config: &Config) -> Result<Arc<CApplication>, ServerError> {
    let failed = |error| ServerError::Load { name: name.to_owned(), file: file.to_owned(), error };
    c::load(file, &config.app_settings).map_err(failed)
}

fn start(config: WorkerConfig) -> Result<Arc<WorkerApplication>, ServerError> {
    let (name, file) = (config.name.clone(), config.file.clone());
    WorkerApplication::start(config).map_err(|error| ServerError::Workers { name, file, error })
}

/// Returns the configuration of an application's workers, by the settings.
fn worker_config(
    app: &App,
    file: PathBuf,
    kind: WorkerKind,
    config: &Config,
    shards: usize,
    clock: &Clock,
) -> Result<WorkerConfig, ServerError> {
    let bad = |file: &Path, why: String| ServerError::BadName { file: file.to_owned(), why };
    let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if !config::is_name(&name) {
        let why = format!(
            "{name:?} is not a valid application name: rename the file, using only letters, digits, - and _"
        );
        return Err(bad(&file, why));
    }
    // Symbolic links are not resolved here: at the next start of a worker they may lead to a new release.
    let folder = WorkingFolder::current();
    let limits = LinkLimits {
        requests_max: config.worker_requests_max,
        outbox_bytes_max: config.worker_outbox_bytes_max,
        unread_bytes_max: config.worker_outbox_bytes_max.max(config.message_bytes_max) * UNREAD_TIMES,
        request_timeout: config.worker_request_timeout,
    };
    let clock = clock.clone();
    let is_manual = clock.is_manual();
    let worker = WorkerConfig {
        settings: config.app_settings.get(&name).cloned().unwrap_or_default(),
        name,
        file: folder.absolute(&file),
        folder,
        kind,
        instances: app.instances.unwrap_or(1),
        shards,
        python: config.python.clone(),
        node: config.node.clone(),
        limits,
        start_timeout: config.worker_start_timeout,
        stop_timeout: config.worker_stop_timeout,
        replace_timeout: config.worker_request_timeout.max(config.clients_cb_max_age)
            + config.worker_stop_timeout,
        timeout: config.worker_timeout,
        reload: config.reload,
        test: false,
        clock: WorkerClock { now: Arc::new(move || Duration::from_millis(clock.now_ms())), is_manual },
    };
    worker.resolve().map_err(|error| bad(&file, error.to_string()))?;
    Ok(worker)
}

/// An application whose files can be used: its name and its number of workers.
pub(super) struct CheckedApplication {
    pub name: String,
    pub workers: usize,
    /// The application authenticates clients.
    pub authenticates: bool,
}

/// Checks an application without running its code: its file can be read and is of the right kind, and its interpreter
/// runs.
pub(super) fn check(app: &App, config: &Config) -> Result<CheckedApplication, ServerError> {
    let source = find(&app.name, config)?;
    if app.instances.is_some() && !matches!(source, AppSource::Script(..)) {
        return Err(ServerError::NoWorkers { name: app.name.clone() });
    }
    match source {
        AppSource::Bundled(app) => {
            Ok(CheckedApplication { name: app.name().to_owned(), workers: 0, authenticates: false })
        }
        AppSource::Webhook(app) => {
            let authenticates = app.authenticator().is_some();
            Ok(CheckedApplication { name: WEBHOOK.to_owned(), workers: 0, authenticates })
        }
        AppSource::Object(file) => {
            let name = app.name.clone();
            let unusable = |error| ServerError::Load { name: name.clone(), file: file.clone(), error };
            c::inspect(&file).map_err(unusable)?;
            Ok(CheckedApplication { name, workers: 0, authenticates: false })
        }
        AppSource::Script(file, kind) => {
            let worker = worker_config(app, file, kind, config, 0, &Clock::system())?;
            let (name, file) = (worker.name.clone(), worker.file.clone());
            let unusable = |error| ServerError::Workers { name: name.clone(), file: file.clone(), error };
            worker::check_program(&worker).map_err(unusable)?;
            Ok(CheckedApplication { name, workers: worker.instances, authenticates: false })
        }
    }
}

/// Tests each application that the settings name, and prints a line for each. Returns whether all passed.
pub(super) fn test(config: &Config) -> bool {
    let mut failed = 0;
    for app in &config.app {
        let tested = test_one(app, config);
        failed += usize::from(tested.is_err());
        let name = &app.name;
        let line = tested.map_or_else(|why| format!("FAILED {name}: {why}"), |()| format!("ok {name}"));
        print_line(&line);
    }
    print_line(&format!("{} passed, {failed} failed", config.app.len() - failed));
    failed == 0
}

fn test_one(app: &App, config: &Config) -> Result<(), String> {
    match find(&app.name, config).map_err(|error| error.to_string())? {
        AppSource::Bundled(app) => app::self_test(&*app).map_err(|error| error.to_string()),
        AppSource::Webhook(app) => app::self_test(&*app).map_err(|error| error.to_string()),
        AppSource::Object(file) => {
            let app = c::load(&file, &config.app_settings).map_err(|error| error.to_string())?;
            let tested = app::self_test(&*app).map_err(|error| error.to_string());
            app.finish();
            tested
        }
        AppSource::Script(file, kind) => {
            let one = App { instances: None, ..app.clone() };
            let worker = worker_config(&one, file, kind, config, 0, &Clock::system())
                .map_err(|error| error.to_string())?;
            let app = WorkerApplication::start(WorkerConfig { test: true, ..worker })
                .map_err(|error| error.to_string())?;
            let tested = app::self_test(&*app).map_err(|error| error.to_string());
            app.finish();
            tested
        }
    }
}

fn print_line(line: &str) {
    // If nobody reads it, the exit code has the result too.
    let _ = writeln!(io::stdout(), "{line}");
}
