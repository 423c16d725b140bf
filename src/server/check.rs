//! The checks of `quickio check`: everything that would keep a server with these settings from starting, and that can be
//! found without starting one or running an application. They are safe beside a running server.

use super::admin_password;
use super::apps::{self, CheckedApplication};
use super::auth;
use super::error::ServerError;
use super::listen;
use super::open;
use super::resources::Needs;
use super::shards;
use super::tls;
use crate::config::{App, AuthMode, Config};
use crate::limits::WORKERS_MAX;
use crate::qev::probe::probe;
use std::collections::BTreeSet;
use std::io::{self, Write};

/// The results so far.
#[derive(Default)]
struct Report {
    failed: usize,
    /// The exit code: that of invalid settings, if one of the failures is one.
    exit_code: u8,
}

/// Runs all checks and prints a line for each.
pub(super) fn run(config: &Config) -> Result<(), ServerError> {
    let mut report = Report::default();
    // Invalid values were reported before.
    report.passed("settings: all values are valid");
    config.warnings.iter().for_each(|warning| report.warn(warning));
    open::warning(config).iter().for_each(|warning| report.warn(warning));
    match probe() {
        Ok(kernel) => report.passed(&format!("kernel: Linux {} has what shards need", kernel.release)),
        Err(error) => report.failed("kernel", &error.into()),
    }
    let (workers, is_asked) = check_apps(config, &mut report);
    let shards = shards::count(config);
    let needs = Needs::of(config, shards, workers);
    match needs.check() {
        Ok(()) => report.passed(&format!("limits: they suffice for {shards} shards")),
        Err(error) => report.failed("limits", &error.into()),
    }
    needs.locked_memory_warning().iter().for_each(|warning| report.warn(warning));
    check_certificates(config, &mut report);
    check_auth(config, is_asked, &mut report);
    check_addresses(config, &mut report);
    check_password(config, &mut report);
    if report.failed == 0 {
        Ok(())
    } else {
        Err(ServerError::Check { count: report.failed, exit_code: report.exit_code })
    }
}

/// Returns the number of workers, and if an application authenticates clients.
fn check_apps(config: &Config, report: &mut Report) -> (usize, bool) {
    let mut names = BTreeSet::new();
    let (mut workers, mut is_asked) = (0, false);
    for app in &config.app {
        match check_app(app, config, &mut names) {
            Ok(checked) => {
                workers += checked.workers;
                is_asked |= checked.authenticates;
                report.passed(&format!("application {app}"));
            }
            Err(error) => report.failed(&format!("application {app}"), &error),
        }
    }
    if workers > WORKERS_MAX {
        report.failed("applications", &ServerError::TooManyWorkers { wanted: workers });
    }
    if config.app.is_empty() {
        report.warn("no application runs: set app, such as app = [\"relay\"] in the settings file");
    }
    for name in config.app_settings.keys().filter(|name| !names.contains(*name)) {
        // The name of a shared object is inside the file, which is not loaded here.
        if !config.app.iter().any(|app| app.name.contains(name.as_str()) || app.name.ends_with(".so")) {
            report.warn(&format!("there are settings for an application that does not run: {name}"));
        }
    }
    (workers, is_asked)
}

fn check_app(
    app: &App,
    config: &Config,
    names: &mut BTreeSet<String>,
) -> Result<CheckedApplication, ServerError> {
    let checked = apps::check(app, config)?;
    if checked.name == apps::OWN_NAME || !names.insert(checked.name.clone()) {
        return Err(ServerError::SameName { name: checked.name });
    }
    Ok(checked)
}

fn check_certificates(config: &Config, report: &mut Report) {
    if config.tls_cert.is_empty() {
        return;
    }
    match tls::check(config) {
        Ok(warnings) => {
            let files = config.tls_cert.iter().map(|path| path.display().to_string());
            report.passed(&format!("tls-cert {}", files.collect::<Vec<_>>().join(", ")));
            warnings.iter().for_each(|warning| report.warn(warning));
        }
        Err(error) => report.failed("tls-cert", &error.into()),
    }
}

fn check_auth(config: &Config, is_asked: bool, report: &mut Report) {
    if config.auth_keys.is_empty() && (config.auth == AuthMode::Off || is_asked) {
        return;
    }
    match auth::check(config, is_asked) {
        Ok(warnings) => {
            let ids: Vec<&str> = config.auth_keys.iter().map(|key| key.id.as_str()).collect();
            report.passed(&format!("auth-keys {}", ids.join(", ")));
            warnings.iter().for_each(|warning| report.warn(warning));
        }
        Err(error) => report.failed("auth-keys", &error.into()),
    }
}

fn check_addresses(config: &Config, report: &mut Report) {
    for address in &config.listen {
        match listen::check(address, config) {
            Ok(()) => report.passed(&format!("listen {address}")),
            Err(error) => report.failed(&format!("listen {address}"), &error.into()),
        }
    }
    for address in &config.admin {
        match listen::check_tcp(*address) {
            Ok(()) => report.passed(&format!("admin {address}")),
            Err(source) => {
                let error = crate::admin::AdminError::Bind { address: *address, source };
                report.failed(&format!("admin {address}"), &error.into());
            }
        }
    }
    for address in &config.api {
        match listen::check_tcp(*address) {
            Ok(()) => report.passed(&format!("api {address}")),
            Err(source) => {
                let error = crate::api::ApiError::Bind { address: *address, source };
                report.failed(&format!("api {address}"), &error.into());
            }
        }
    }
}

fn check_password(config: &Config, report: &mut Report) {
    match admin_password::read(config) {
        Ok(password) => {
            if password.is_some() {
                report.passed("admin-password-file");
            }
            admin_password::warnings(config, password.as_ref())
                .iter()
                .for_each(|warning| report.warn(warning));
        }
        Err(error) => report.failed("admin-password-file", &error),
    }
}

impl Report {
    fn passed(&self, what: &str) {
        print_line(&format!("ok {what}"));
    }

    fn warn(&self, warning: &str) {
        print_line(&format!("WARNING {warning}"));
    }

    fn failed(&mut self, what: &str, error: &ServerError) {
        print_line(&format!("FAILED {what}: {error}"));
        self.failed += 1;
        self.exit_code = self.exit_code.max(error.exit_code());
    }
}

fn print_line(line: &str) {
    // If nobody reads it, the exit code has the result too.
    let _ = writeln!(io::stdout(), "{line}");
}
