//! Applications by name: bundled ones, shared objects, and those that run in workers.

use super::ServerError;
use crate::app::c::{self, CApplication};
use crate::app::worker::{LinkLimits, WorkerClock, WorkerConfig, WorkerKind};
use crate::app::worker_app::WorkerApplication;
use crate::app::{self, Application};
use crate::config::{self, App, Config};
use crate::limits::WORKERS_MAX;
use crate::qev::clock::Clock;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The endings under which a name is looked for in `app-dir`, in this order.
const ENDINGS: [&str; 5] = ["so", "py", "mjs", "js", "cjs"];

/// A worker that says more while it lets so many times `worker-outbox-bytes-max` gather does not read at all. (What clients
/// cause waits instead: their events are refused, and their ends put off.)
const UNREAD_TIMES: usize = 4;

/// The applications that the settings name.
pub(super) struct Named {
    apps: Vec<Arc<dyn Application>>,
    loaded: Vec<Arc<CApplication>>,
    workers: Vec<Arc<WorkerApplication>>,
}

impl Named {
    /// Loads them, in order, behind those that are there already. The first that cannot be loaded stops those before it.
    pub fn load(
        config: &Config,
        shards: usize,
        clock: &Clock,
        apps: Vec<Arc<dyn Application>>,
    ) -> Result<Named, ServerError> {
        let mut named = Named { apps, loaded: Vec::new(), workers: Vec::new() };
        for app in &config.app {
            if let Err(error) = named.add(app, config, shards, clock) {
                named.finish();
                return Err(error);
            }
        }
        named.warn_of_strangers(config);
        Ok(named)
    }

    pub fn apps(&self) -> Vec<Arc<dyn Application>> {
        self.apps.clone()
    }

    /// Those that run in workers.
    pub fn workers(&self) -> Vec<Arc<WorkerApplication>> {
        self.workers.clone()
    }

    /// Stops those that were loaded and not stopped yet.
    pub fn finish(&self) {
        self.loaded.iter().rev().for_each(|app| app.finish());
        self.workers.iter().rev().for_each(|app| app.finish());
    }

    fn add(&mut self, app: &App, config: &Config, shards: usize, clock: &Clock) -> Result<(), ServerError> {
        let found = find(&app.name, config)?;
        if app.instances.is_some() && !matches!(found, Found::Script(..)) {
            return Err(ServerError::NoWorkers { name: app.name.clone() });
        }
        let app: Arc<dyn Application> = match found {
            Found::Bundled(app) => app,
            Found::Object(file) => {
                let app = load(&app.name, &file, config)?;
                self.loaded.push(Arc::clone(&app));
                app
            }
            Found::Script(file, kind) => {
                let plan = plan(app, file, kind, config, shards, clock)?;
                self.check_name(&plan.name)?;
                self.check_count(plan.instances)?;
                let app = start(plan)?;
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

    /// Settings that nobody reads are most likely a name that is written wrong.
    fn warn_of_strangers(&self, config: &Config) {
        let runs = |name: &str| self.apps.iter().any(|app| app.name() == name);
        for name in config.app_settings.keys().filter(|name| !runs(name)) {
            tracing::warn!("there are settings for an application that does not run: {name}");
        }
    }
}

/// The name of the server's own application.
const OWN_NAME: &str = "qio";

enum Found {
    Bundled(Arc<dyn Application>),
    Object(PathBuf),
    Script(PathBuf, WorkerKind),
}

impl Found {
    fn file(file: PathBuf) -> Found {
        match WorkerKind::of(&file) {
            Some(kind) => Found::Script(file, kind),
            None => Found::Object(file),
        }
    }
}

fn find(name: &str, config: &Config) -> Result<Found, ServerError> {
    if config::is_file(name) {
        return Ok(Found::file(name.into()));
    }
    if let Some(app) = app::bundled(name) {
        return Ok(Found::Bundled(app));
    }
    let mut known = app::BUNDLED.join(", ");
    if let Some(folder) = &config.app_dir {
        let mut files = ENDINGS.iter().map(|ending| folder.join(format!("{name}.{ending}")));
        if let Some(file) = files.find(|file| file.exists()) {
            return Ok(Found::file(file));
        }
        known += &format!(", and what is in {}", folder.display());
    }
    Err(ServerError::UnknownApp { name: name.to_owned(), known })
}

fn load(name: &str, file: &Path, config: &Config) -> Result<Arc<CApplication>, ServerError> {
    let failed = |error| ServerError::Load { name: name.to_owned(), file: file.to_owned(), error };
    c::load(file, &config.app_settings).map_err(failed)
}

fn start(plan: WorkerConfig) -> Result<Arc<WorkerApplication>, ServerError> {
    let (name, file) = (plan.name.clone(), plan.file.clone());
    WorkerApplication::start(plan).map_err(|error| ServerError::Workers { name, file, error })
}

/// How an application's workers are run, by the settings.
fn plan(
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
        let why =
            format!("{name:?} is no name for an application: rename the file to letters, digits, - and _");
        return Err(bad(&file, why));
    }
    let absolute = std::fs::canonicalize(&file).map_err(|error| bad(&file, error.to_string()))?;
    if absolute.to_str().is_none() {
        return Err(bad(&file, "its path is not UTF-8".into()));
    }
    let limits = LinkLimits {
        requests_max: config.worker_requests_max,
        outbox_bytes_max: config.worker_outbox_bytes_max,
        unread_bytes_max: config.worker_outbox_bytes_max.max(config.message_bytes_max) * UNREAD_TIMES,
        request_timeout: config.worker_request_timeout,
    };
    let clock = clock.clone();
    let is_manual = clock.is_manual();
    Ok(WorkerConfig {
        settings: config.app_settings.get(&name).cloned().unwrap_or_default(),
        name,
        file: absolute,
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
    })
}

/// Tests each application that the settings name, and prints a line for each; whether all are fit to run.
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
        Found::Bundled(app) => app::self_test(&*app).map_err(|error| error.to_string()),
        Found::Object(file) => {
            let app = c::load(&file, &config.app_settings).map_err(|error| error.to_string())?;
            let tested = app::self_test(&*app).map_err(|error| error.to_string());
            app.finish();
            tested
        }
        Found::Script(file, kind) => {
            let one = App { instances: None, ..app.clone() };
            let plan =
                plan(&one, file, kind, config, 0, &Clock::system()).map_err(|error| error.to_string())?;
            let app = WorkerApplication::start(WorkerConfig { test: true, ..plan })
                .map_err(|error| error.to_string())?;
            let tested = app::self_test(&*app).map_err(|error| error.to_string());
            app.finish();
            tested
        }
    }
}

fn print_line(line: &str) {
    // Nobody may be reading; the exit code says it, too.
    let _ = writeln!(io::stdout(), "{line}");
}
