//! The errors of certificates, keys and the secret of tickets. Each names the setting and the file.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// The reason why the files that the settings name cannot be used for TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("cannot read {} (setting {setting}): {source}{}", .path.display(), read_hint(.source))]
    Read { setting: &'static str, path: PathBuf, source: io::Error },
    #[error("{} (setting {setting}) has more than {max} bytes: it is not such a file", .path.display())]
    TooLong { setting: &'static str, path: PathBuf, max: u64 },
    #[error("{} (setting {setting}) is not a valid PEM file: {problem}", .path.display())]
    Pem { setting: &'static str, path: PathBuf, problem: String },
    #[error(
        "{path} (setting {setting}) has no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----{hint}",
        path = .path.display()
    )]
    NoCertificate { setting: &'static str, path: PathBuf, hint: &'static str },
    #[error("certificate {number} in {} (setting {setting}) is malformed: {problem}", .path.display())]
    BadCertificate { setting: &'static str, path: PathBuf, number: usize, problem: String },
    #[error(
        "{} (setting {setting}) has no private key in PEM, which begins with -----BEGIN PRIVATE KEY-----, \
         -----BEGIN EC PRIVATE KEY----- or -----BEGIN RSA PRIVATE KEY-----", .path.display()
    )]
    NoKey { setting: &'static str, path: PathBuf },
    #[error(
        "the private key in {path} (setting {setting}) has a passphrase, which the server cannot ask for; write the key \
         without it: (umask 077; openssl pkey -in {path} -out NEW)", path = .path.display()
    )]
    EncryptedKey { setting: &'static str, path: PathBuf },
    #[error(
        "the private key in {} (setting {setting}) cannot be used: {problem}; use an ECDSA key (P-256 or P-384), an \
         Ed25519 key, or an RSA key of at least 2048 bits", .path.display()
    )]
    BadKey { setting: &'static str, path: PathBuf, problem: String },
    #[error(
        "the private key in {} does not belong to the certificate in {cert} (settings tls-key and tls-cert): they come \
         from different requests, or the order of the two settings differs. `openssl x509 -noout -pubkey -in {cert}` \
         shows the public key of the certificate", .key.display(), cert = .certificate.display()
    )]
    OtherKey { certificate: PathBuf, key: PathBuf },
    #[error(
        "the certificates in {path} (setting tls-cert) are in the wrong order: the private key belongs to number \
         {number}. The server's own certificate must be the first, and each issuer must follow the certificate that it \
         has signed", path = .path.display()
    )]
    WrongOrder { path: PathBuf, number: usize },
    #[error("{} (setting tls-client-ca) cannot be used: {problem}", .path.display())]
    BadAuthority { path: PathBuf, problem: String },
    #[error(
        "{path} (setting tls-ticket-key-file) has the mode {mode:04o}: others than its owner could decrypt connections; \
         run `chmod 0600 {path}`", path = .path.display()
    )]
    SecretExposed { path: PathBuf, mode: u32 },
    #[error(
        "{} (setting tls-ticket-key-file) has {len} bytes, but a secret has at least {min}; remove the file, and the \
         server creates a new one", .path.display()
    )]
    SecretTooShort { path: PathBuf, len: usize, min: usize },
    #[error("cannot create {} (setting tls-ticket-key-file): {source}{}", .path.display(), create_hint(.source))]
    SecretNotCreated { path: PathBuf, source: io::Error },
    #[error("the configuration of TLS is refused: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Returns the advice that follows an error of reading a file.
fn read_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            ". The server's user must be able to read it: give a copy to that user, or use LoadCredential= in a systemd unit"
        }
        io::ErrorKind::NotFound => {
            ". The path is relative to the working directory of the server unless it begins with a slash"
        }
        _ => "",
    }
}

/// Returns the advice that follows an error of creating the file of the secret.
fn create_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ". The server's user must be able to write to the directory, such as StateDirectory= of a systemd unit"
        }
        io::ErrorKind::NotFound => ". Its directory does not exist; create it",
        _ => "",
    }
}
