//! The password of the admin endpoint, which a file has.

use super::error::ServerError;
use crate::config::{Config, FileSecret};
use crate::limits::{ADMIN_PASSWORD_BYTES_MAX, ADMIN_PASSWORD_BYTES_MIN};
use std::net::SocketAddr;

/// Reads the password, if there is one.
///
/// # Errors
///
/// If the file cannot be read, or if its content cannot be a password.
pub(super) fn read(config: &Config) -> Result<Option<FileSecret>, ServerError> {
    let Some(path) = config.admin_password_file.as_ref().filter(|_| !config.admin.is_empty()) else {
        return Ok(None);
    };
    let secret = FileSecret::read(path, ADMIN_PASSWORD_BYTES_MIN, "admin-password-file")?;
    if secret.bytes.len() > ADMIN_PASSWORD_BYTES_MAX {
        return Err(ServerError::LongPassword { path: path.clone() });
    }
    Ok(Some(secret))
}

/// Returns the warnings about the protection of the endpoint.
pub(super) fn warnings(config: &Config, password: Option<&FileSecret>) -> Vec<String> {
    let mut warnings: Vec<String> = password.and_then(|secret| secret.warning.clone()).into_iter().collect();
    let is_beyond = |address: &&SocketAddr| !address.ip().to_canonical().is_loopback();
    let Some(beyond) = config.admin.iter().find(is_beyond) else { return warnings };
    if password.is_none() {
        warnings.push(format!(
            "everybody who can reach admin {beyond} can read the statistics: set admin-password-file, or let a firewall \
             protect the address"
        ));
    } else if !config.admin_tls {
        warnings.push(format!(
            "the password of admin {beyond} is sent unencrypted: use admin = \"tls://{beyond}\", or listen on 127.0.0.1 \
             and reach it through a tunnel"
        ));
    }
    warnings
}
