//! The server: starts the shards, waits for signals, and shuts down in order.
//!
//! Everything that can fail fails before the first connection: settings, applications, addresses, the kernel. After
//! that the shards run until a signal arrives or one of them fails.
//!
//! | file | content |
//! | --- | --- |
//! | `lifecycle` | the order of start and shutdown |
//! | `signals` | all signals, from the first moment on |
//! | `shards` | the threads of the shards |
//! | `mailboxes` | messages from other threads to the shards |
//! | `listen` | the listening sockets |
//! | `unix_socket` | the files of Unix sockets, and who may connect to them |
//! | `tls` | certificates, their reloads, and session tickets |
//! | `api`, `api_keys` | the server API: its way to the shards, and its keys |
//! | `apps` | the applications that the settings name |
//! | `services` | the services on the control executor |
//! | `statistics` | the statistics of all shards, for the admin endpoint |
//! | `inspections` | the answers of all shards to questions about clients and paths, for the admin endpoint |
//! | `notify`, `watchdog` | messages to the service manager (systemd): ready, reloading, stopping, alive |
//! | `resources` | the descriptors and the locked memory that a server needs |
//! | `check` | the checks of `quickio check` |
//! | `reload` | reading the settings again after SIGHUP |
//! | `report` | the summary of the statistics that SIGUSR1 logs |
//! | `init` | the process with the number 1 of a container |
//! | `error` | the errors of all these |

mod admin_password;
mod api;
mod api_keys;
mod apps;
mod auth;
mod check;
mod error;
mod init;
mod inspections;
mod left_over;
mod lifecycle;
mod listen;
mod mailboxes;
mod memory;
mod notify;
mod open;
mod reload;
mod report;
mod resources;
mod services;
mod shards;
mod signals;
mod statistics;
mod tls;
mod unix_socket;
mod watchdog;

pub use api_keys::ApiKeyError;
pub use error::ServerError;
pub use init::run_as_init;
pub use reload::ReadSettings;
pub use services::ControlService;
pub use tls::TlsError;

use crate::app::Application;
use crate::config::Config;
use crate::identity::KeySet;
use crate::log;
use std::sync::Arc;

/// Runs a server with the applications that the settings name, until a signal stops it.
///
/// # Errors
///
/// If the server cannot start, with the reason in words for the operator; or if a shard fails.
pub fn run(config: Config) -> Result<(), ServerError> {
    lifecycle::run(config, Vec::new(), Vec::new(), None)
}

/// Runs a server with the applications that the settings name, until a signal stops it. SIGHUP reads the settings again
/// with this function.
///
/// # Errors
///
/// As [`run`].
pub fn run_reloadable(config: Config, read: ReadSettings) -> Result<(), ServerError> {
    lifecycle::run(config, Vec::new(), Vec::new(), Some(read))
}

/// Runs a server with these applications, and those that the settings name after them, until a signal stops it.
///
/// # Errors
///
/// As [`run`].
pub fn run_with(config: Config, apps: Vec<Arc<dyn Application>>) -> Result<(), ServerError> {
    lifecycle::run(config, apps, Vec::new(), None)
}

/// Runs a server with services beside it, until a signal stops them all.
///
/// # Errors
///
/// As [`run`], or if a service cannot start.
pub fn run_with_services(config: Config, services: Vec<ControlService>) -> Result<(), ServerError> {
    lifecycle::run(config, Vec::new(), services, None)
}

/// Checks everything that can be checked without starting a server or running an application, and reports the results
/// on standard output: settings, kernel, limits, addresses, and the files of applications.
///
/// # Errors
///
/// If a check fails. The report names it.
pub fn check(config: Config) -> Result<(), ServerError> {
    check::run(&config)
}

/// Returns the keys of tokens that files have, by the settings, for a program that examines tokens without a server. Those of
/// addresses (`jwks-url`) are not fetched: the set then [may grow](KeySet::may_grow).
///
/// # Errors
///
/// If a file cannot be used as a key. The error names the setting and the file.
pub fn keys_of_files(config: &Config) -> Result<Arc<KeySet>, ServerError> {
    Ok(auth::keys_of_files(config)?)
}

/// Runs the self-tests of the applications that the settings name, and reports the results on standard output.
///
/// # Errors
///
/// If an application cannot be loaded or fails its self-test. The report names it.
pub fn test_apps(config: Config) -> Result<(), ServerError> {
    let _log = log::start(config.log_level, config.log_format)?;
    if apps::test(&config) { Ok(()) } else { Err(ServerError::Unfit) }
}
