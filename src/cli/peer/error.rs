//! The errors of a connection to a server.

use std::io;
use thiserror::Error;

/// The reason why a connection could not be made, or has ended. Its text is one line for the person at the terminal.
#[derive(Debug, Error)]
pub(in crate::cli) enum PeerError {
    /// A host whose name has no address.
    #[error("the name `{name}` cannot be looked up: {source}")]
    Lookup { name: String, source: io::Error },

    /// A connection that was not made.
    #[error("no connection to {server}: {source}{}", connect_advice(.server, .source))]
    Connect { server: String, source: io::Error },

    /// Certificates that cannot be used.
    #[error("{0}")]
    Certificates(String),

    /// A TLS handshake or record that failed.
    #[error("TLS with {server} has failed: {problem}")]
    Tls { server: String, problem: String },

    /// An upgrade to a WebSocket that was refused.
    #[error("the server refused the WebSocket with HTTP {status}: {reason}")]
    Refused { status: u16, reason: String },

    /// A page that the server does not have.
    #[error("the server answered HTTP {status}: {reason}")]
    Status { status: u16, reason: String },

    /// Bytes that no QuickIO server sends.
    #[error("{server} is no QuickIO server: {problem}")]
    Protocol { server: String, problem: String },

    /// A WebSocket that the server closed.
    #[error("the server closed the connection: {code} {reason}")]
    Closed { code: u16, reason: String },

    /// A connection that ended without a reason.
    #[error("the connection was lost: {0}")]
    Lost(io::Error),

    /// A server that did not answer in time.
    #[error("the server did not {action} in time")]
    Late { action: &'static str },

    /// A token that was refused.
    #[error("the server refused the token: {code}{}", message_of(.message.as_deref()))]
    Token { code: u16, message: Option<String> },

    /// A subscription that was refused.
    #[error("the server refused the subscription to {path}: {code}{}{}", message_of(.message.as_deref()), subscription_advice(*.code))]
    Subscription { path: String, code: u16, message: Option<String> },

    /// A signal that ends the program.
    #[error("ended by the signal {0}")]
    Signal(i32),
}

impl PeerError {
    /// Returns whether another connection may succeed: the server or the network failed, and nobody refused the client.
    pub(in crate::cli) fn is_passing(&self) -> bool {
        match self {
            PeerError::Connect { .. }
            | PeerError::Lookup { .. }
            | PeerError::Lost(_)
            | PeerError::Late { .. }
            | PeerError::Closed { code: 1000 | 1001 | 1006 | 1011..=1013, .. }
            | PeerError::Refused { status: 429 | 500..=599, .. } => true,
            PeerError::Closed { reason, .. } => reason == "client timeout" || reason == "token expired",
            _ => false,
        }
    }
}

fn connect_advice(server: &str, error: &io::Error) -> String {
    let flag = if server.starts_with("http") { "--admin" } else { "--server" };
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!(". Nothing listens there: start the server, or give its address with {flag}")
        }
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            format!(". Check the address ({flag}) and the network")
        }
        _ => String::new(),
    }
}

fn subscription_advice(code: u16) -> &'static str {
    match code {
        404 => ". No application handles this path; the application relay handles those under /relay",
        401 => {
            ". A token may be needed, or another one (--token-file); quickio explain shows what the rules allow"
        }
        _ => "",
    }
}

fn message_of(message: Option<&str>) -> String {
    message.map(|message| format!(" {message}")).unwrap_or_default()
}
