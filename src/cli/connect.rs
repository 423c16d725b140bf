//! The flags that commands with a connection share, and the errors and the end of such commands.

use super::args::{self, ArgumentError, Arguments};
use super::command::{Flag, Invocation};
use super::outcome;
use super::peer::{Peer, PeerError, PeerOptions, ServerUrl, TlsFiles};
use super::wait::{self, EndSignals};
use crate::config;
use std::env;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use thiserror::Error;

pub(super) const SERVER: Flag = Flag {
    name: "server",
    value: "URL",
    doc: "The server: ws://, wss://, tcp:// (raw TCP) or tls:// (raw TCP with TLS) with HOST:PORT, HOST:PORT alone for ws://, \
          or unix:/PATH for raw TCP's protocol on a Unix socket. The variable QUICKIO_SERVER does the same. [default: \
          ws://127.0.0.1:8080]",
};
pub(super) const TOKEN_FILE: Flag = Flag {
    name: "token-file",
    value: "FILE",
    doc: "Authenticates with the token in this file, or in the variable QUICKIO_TOKEN. There is no flag for the token itself, \
          because every user of the host can read command lines.",
};
pub(super) const TLS_CA: Flag = Flag {
    name: "tls-ca",
    value: "FILE",
    doc: "Trusts the authorities whose certificates are in this PEM file, instead of those of the system.",
};
pub(super) const TLS_CERT: Flag = Flag {
    name: "tls-cert",
    value: "FILE",
    doc: "Shows the certificate in this PEM file to servers with tls-client-ca.",
};
pub(super) const TLS_KEY: Flag = Flag {
    name: "tls-key",
    value: "FILE",
    doc: "The private key of that certificate, if it is not in the same file.",
};

/// The variables of the flags.
const SERVER_VARIABLE: &str = "QUICKIO_SERVER";
const TOKEN_VARIABLE: &str = "QUICKIO_TOKEN";

/// The server of a command without a URL.
const DEFAULT_SERVER: &str = "ws://127.0.0.1:8080";

/// The maximum size of a file with a token, in bytes: servers take no longer ones.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// The reason why a command with a connection has failed.
#[derive(Debug, Error)]
pub(super) enum ClientError {
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// A variable that has no valid value.
    #[error("the variable {variable} cannot be `{text}`: {problem}")]
    Variable { variable: &'static str, text: String, problem: String },
    /// A file with a token that cannot be used.
    #[error("--token-file {}: {problem}", .path.display())]
    TokenFile { path: PathBuf, problem: String },
    /// A file with a key that cannot be used.
    #[error("--key-file {}: {problem}", .path.display())]
    KeyFile { path: PathBuf, problem: String },
    /// Standard input or output that failed.
    #[error("{0}")]
    Stream(String),
    /// A command that did not do what it should, as its message says.
    #[error("{0}")]
    Failed(String),
}

impl ClientError {
    /// Ends the command with this error.
    pub(super) fn end(&self) -> ExitCode {
        match self {
            ClientError::Peer(PeerError::Signal(signal)) => wait::end_by(*signal),
            ClientError::Argument(_)
            | ClientError::Variable { .. }
            | ClientError::TokenFile { .. }
            | ClientError::KeyFile { .. } => outcome::fail(self, config::EXIT_CODE),
            _ => outcome::fail(self, 1),
        }
    }
}

/// Runs a command that accepts only its own flags, or prints its help.
pub(super) fn act(
    invocation: Invocation,
    run: impl FnOnce(&Arguments) -> Result<ExitCode, ClientError>,
) -> ExitCode {
    match args::read(invocation.command, invocation.args) {
        Ok(None) => outcome::print_help(invocation.command, invocation.commands),
        Ok(Some(arguments)) => run(&arguments).unwrap_or_else(|error| error.end()),
        Err(error) => outcome::fail(&error, config::EXIT_CODE),
    }
}

/// The source of a token. A file is read again for each connection, because its token may be renewed.
#[derive(Clone, Debug)]
pub(super) enum TokenPlace {
    File(PathBuf),
    Variable(String),
}

impl TokenPlace {
    /// Returns the token.
    pub(super) fn read(&self) -> Result<String, ClientError> {
        let path = match self {
            TokenPlace::Variable(token) => return Ok(token.clone()),
            TokenPlace::File(path) => path,
        };
        let failed = |problem: String| ClientError::TokenFile { path: path.clone(), problem };
        let len = fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
        if len > TOKEN_BYTES_MAX {
            return Err(failed(format!("it has more than {TOKEN_BYTES_MAX} bytes")));
        }
        let token = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let token = token.trim();
        if token.is_empty() { Err(failed("it is empty".into())) } else { Ok(token.to_owned()) }
    }
}

/// The server of a command, and the token for it.
#[derive(Clone, Debug)]
pub(super) struct ServerTarget {
    pub(super) options: PeerOptions,
    pub(super) token: Option<TokenPlace>,
}

impl ServerTarget {
    /// Reads the flags and the variables.
    pub(super) fn new(arguments: &Arguments, timeout: Duration) -> Result<ServerTarget, ClientError> {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let url =
            match (arguments.parsed("server", ServerUrl::for_clients)?, variable(SERVER_VARIABLE)) {
                (Some(url), _) => url,
                (None, Some(text)) => ServerUrl::for_clients(&text)
                    .map_err(|problem| ClientError::Variable { variable: SERVER_VARIABLE, text, problem })?,
                (None, None) => ServerUrl::for_clients(DEFAULT_SERVER).expect("it is valid"),
            };
        let file = |flag| arguments.value(flag).map(PathBuf::from);
        let tls = TlsFiles { ca: file("tls-ca"), cert: file("tls-cert"), key: file("tls-key") };
        let token = file("token-file").map(TokenPlace::File);
        let token = token.or_else(|| variable(TOKEN_VARIABLE).map(TokenPlace::Variable));
        Ok(ServerTarget { options: PeerOptions { url, tls, timeout }, token })
    }

    /// Connects, and authenticates if there is a token. Returns the Unix time at which the token expires, if it does.
    pub(super) fn open(&self, signals: &EndSignals) -> Result<(Peer, Option<u64>), ClientError> {
        let token = self.token.as_ref().map(TokenPlace::read).transpose()?;
        let mut peer = Peer::open(&self.options, signals)?;
        let expires = match token {
            Some(token) => peer.authenticate(&token, self.options.timeout, signals)?,
            None => None,
        };
        Ok((peer, expires))
    }
}

/// Begins to catch signals.
pub(super) fn catch_signals() -> Result<EndSignals, ClientError> {
    EndSignals::catch().map_err(|error| ClientError::Stream(format!("cannot catch signals: {error}")))
}

/// Returns the error of standard output.
pub(super) fn output_failed(error: &io::Error) -> ClientError {
    ClientError::Stream(format!("cannot write to standard output: {error}"))
}
