//! The errors that prevent the server from starting, or end it.

use super::api_keys::ApiKeyError;
use super::auth::AuthError;
use super::listen::ListenError;
use super::resources::ResourceError;
use super::tls::TlsError;
use crate::admin::AdminError;
use crate::api::ApiError;
use crate::app::c::LoadError;
use crate::app::webhook::WebhookError;
use crate::app::worker::StartError;
use crate::app::{self};
use crate::config::{self, SecretError};
use crate::limits::{ADMIN_PASSWORD_BYTES_MAX, WORKERS_MAX};
use crate::log::LogError;
use crate::qev::probe::UnsupportedKernel;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// An error that prevents the server from starting, or ends it.
#[derive(Debug, Error)]
pub enum ServerError {
    #[error("{0}")]
    Kernel(#[from] UnsupportedKernel),
    #[error("there is no application {name:?} (setting app); available: {known}")]
    UnknownApp { name: String, known: String },
    #[error(
        "the application {name} has no workers: only applications in scripts may have instances (setting app)"
    )]
    NoWorkers { name: String },
    #[error("{wanted} workers are configured, but at most {WORKERS_MAX} are allowed (setting app)")]
    TooManyWorkers { wanted: usize },
    #[error("the application {} cannot run: {why} (setting app)", .file.display())]
    BadName { file: PathBuf, why: String },
    #[error("the application {name} cannot start from {}: {error}", .file.display())]
    Workers { name: String, file: PathBuf, error: StartError },
    #[error("the application {name} cannot be loaded from {}: {error}", .file.display())]
    Load { name: String, file: PathBuf, error: LoadError },
    #[error("{0}")]
    Webhook(#[from] WebhookError),
    #[error("two applications have the name {name}")]
    SameName { name: String },
    #[error("an application failed its self-test")]
    Unfit,
    #[error("the application {name} cannot start: {error}")]
    App { name: String, error: app::Error },
    #[error(
        "the applications {first} and {second} both authenticate clients; only one of a server can, so that it is clear which \
         one decides"
    )]
    TwoAuthenticators { first: String, second: String },
    #[error("{0}")]
    Auth(#[from] AuthError),
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("{0}")]
    Listen(#[from] ListenError),
    #[error("{0}")]
    Admin(#[from] AdminError),
    #[error("{0}")]
    Api(#[from] ApiError),
    #[error("{0}")]
    ApiKey(#[from] ApiKeyError),
    #[error("{0}")]
    Secret(#[from] SecretError),
    #[error(
        "the password in {} (admin-password-file) has more than {ADMIN_PASSWORD_BYTES_MAX} bytes", .path.display()
    )]
    LongPassword { path: PathBuf },
    #[error("the control executor cannot start: {error}{hint}")]
    Control { error: io::Error, hint: String },
    #[error("{0}")]
    Service(Box<dyn std::error::Error + Send + Sync>),
    #[error("the log cannot be started: {0}")]
    Log(#[from] LogError),
    #[error("shard {shard} cannot start: {error}{hint}")]
    Start { shard: u16, error: io::Error, hint: String },
    #[error("{0}")]
    Resources(#[from] ResourceError),
    #[error("{count} of the checks failed")]
    Check { count: usize, exit_code: u8 },
    #[error("shard {shard} failed: {error}")]
    Shard { shard: u16, error: io::Error },
    #[error("the thread that verifies tokens cannot start: {0}")]
    AuthThread(io::Error),
    #[error("signals cannot be received: {0}")]
    Signals(io::Error),
}

impl ServerError {
    /// Returns the exit code of a process that ends with this error. Wrong settings have a code of their own. An
    /// application that failed may succeed if it is started again.
    pub fn exit_code(&self) -> u8 {
        match self {
            ServerError::Listen(error) => error.exit_code(),
            ServerError::Check { exit_code, .. } => *exit_code,
            ServerError::UnknownApp { .. }
            | ServerError::NoWorkers { .. }
            | ServerError::TooManyWorkers { .. }
            | ServerError::BadName { .. }
            | ServerError::Workers { error: StartError::Spawn { .. }, .. }
            | ServerError::Load { .. }
            | ServerError::Auth(_)
            | ServerError::Webhook(_)
            | ServerError::TwoAuthenticators { .. }
            | ServerError::Tls(_)
            | ServerError::Secret(_)
            | ServerError::LongPassword { .. }
            | ServerError::SameName { .. } => config::EXIT_CODE,
            _ => 1,
        }
    }
}
