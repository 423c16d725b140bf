//! The file of the secret from which the keys of session tickets are derived.

use super::error::TlsError;
use super::files::{Content, FilesRead};
use super::tickets::{SECRET_BYTES, new_secret};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The setting that names the file.
const SETTING: &str = "tls-ticket-key-file";

/// The permissions that the file must not give: any to others, and writing to its group. Its group may read it, because
/// systemd shows the user of a credential in this way.
const REFUSED_MODE: u32 = 0o027;

/// Creates the file with a new secret, unless it exists. It gets its name when it is complete: several servers may start
/// at once.
pub(super) fn create_if_missing(path: &Path) -> Result<(), TlsError> {
    if path.exists() {
        return Ok(());
    }
    match create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(TlsError::SecretNotCreated { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Checks that the directory exists in which the file would be created.
pub(super) fn check_directory(path: &Path) -> Result<(), TlsError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
            Err(TlsError::SecretNotCreated { path: path.to_owned(), source: io::ErrorKind::NotFound.into() })
        }
        _ => Ok(()),
    }
}

/// Reads the secret.
pub(super) fn read(path: &Path, files: &mut FilesRead) -> Result<Content, TlsError> {
    let secret = files.read(SETTING, path)?;
    let mode = fs::metadata(path)
        .map_err(|source| TlsError::Read { setting: SETTING, path: path.to_owned(), source })?
        .permissions()
        .mode()
        & 0o777;
    if mode & REFUSED_MODE != 0 {
        return Err(TlsError::SecretExposed { path: path.to_owned(), mode });
    }
    if secret.len() < SECRET_BYTES {
        return Err(TlsError::SecretTooShort { path: path.to_owned(), len: secret.len(), min: SECRET_BYTES });
    }
    Ok(secret)
}

fn create(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let unfinished = PathBuf::from(name);
    let written = write_new(&unfinished).and_then(|()| fs::hard_link(&unfinished, path));
    // It may not have been created.
    let _ = fs::remove_file(&unfinished);
    written
}

fn write_new(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&*new_secret())?;
    file.sync_all()
}
