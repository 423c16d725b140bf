//! Applications by name: bundled ones, and shared objects.

use super::ServerError;
use crate::app::c::{self, Loaded};
use crate::app::{self, Application};
use crate::config::{self, Config};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The applications that the settings name.
pub(super) struct Named {
    apps: Vec<Arc<dyn Application>>,
    loaded: Vec<Arc<Loaded>>,
}

impl Named {
    /// Loads them, in order. The first that cannot be loaded stops those before it.
    pub fn load(config: &Config) -> Result<Named, ServerError> {
        let mut named = Named { apps: Vec::new(), loaded: Vec::new() };
        for name in &config.app {
            if let Err(error) = named.add(name, config) {
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

    /// Stops those that were loaded and not stopped yet.
    pub fn finish(&self) {
        self.loaded.iter().rev().for_each(|app| app.finish());
    }

    fn add(&mut self, name: &str, config: &Config) -> Result<(), ServerError> {
        let app: Arc<dyn Application> = match find(name, config)? {
            Found::Bundled(app) => app,
            Found::File(file) => {
                let app = load(name, &file, config)?;
                self.loaded.push(Arc::clone(&app));
                app
            }
        };
        if app.name() == OWN_NAME || self.apps.iter().any(|other| other.name() == app.name()) {
            return Err(ServerError::SameName { name: app.name().to_owned() });
        }
        self.apps.push(app);
        Ok(())
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
    File(PathBuf),
}

fn find(name: &str, config: &Config) -> Result<Found, ServerError> {
    if config::is_file(name) {
        return Ok(Found::File(name.into()));
    }
    if let Some(app) = app::bundled(name) {
        return Ok(Found::Bundled(app));
    }
    let mut known = app::BUNDLED.join(", ");
    if let Some(folder) = &config.app_dir {
        let file = folder.join(format!("{name}.so"));
        if file.exists() {
            return Ok(Found::File(file));
        }
        known += &format!(", and what is in {}", folder.display());
    }
    Err(ServerError::UnknownApp { name: name.to_owned(), known })
}

fn load(name: &str, file: &Path, config: &Config) -> Result<Arc<Loaded>, ServerError> {
    let failed = |error| ServerError::Load { name: name.to_owned(), file: file.to_owned(), error };
    c::load(file, &config.app_settings).map_err(failed)
}

/// Tests each application that the settings name, and prints a line for each; whether all are fit to run.
pub(super) fn test(config: &Config) -> bool {
    let mut failed = 0;
    for name in &config.app {
        let tested = test_one(name, config);
        failed += usize::from(tested.is_err());
        let line = tested.map_or_else(|why| format!("FAILED {name}: {why}"), |()| format!("ok {name}"));
        print_line(&line);
    }
    print_line(&format!("{} passed, {failed} failed", config.app.len() - failed));
    failed == 0
}

fn test_one(name: &str, config: &Config) -> Result<(), String> {
    match find(name, config).map_err(|error| error.to_string())? {
        Found::Bundled(app) => app::self_test(&*app).map_err(|error| error.to_string()),
        Found::File(file) => {
            let app = c::load(&file, &config.app_settings).map_err(|error| error.to_string())?;
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
