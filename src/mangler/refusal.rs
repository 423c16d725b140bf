//! The proxy's own responses, which do not come from the server.

use crate::config::clienttest::Mode;

/// A reason for the proxy to respond itself. The connection is closed after the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// `mangle=` has a name that no mode has.
    UnknownMode(String),
    /// The head of a request is over the limits.
    TooLarge,
    /// The server does not accept connections.
    Unreachable,
    /// The proxy has as many connections as it may have.
    Full,
}

impl Refusal {
    /// Returns the whole response.
    pub(super) fn response(&self) -> Vec<u8> {
        let text = self.text();
        let head = format!(
            "HTTP/1.1 {}\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            self.status(),
            text.len() + 1,
        );
        [head.as_bytes(), text.as_bytes(), b"\n"].concat()
    }

    fn status(&self) -> &'static str {
        match self {
            Refusal::UnknownMode(_) => "400 Bad Request",
            Refusal::TooLarge => "431 Request Header Fields Too Large",
            Refusal::Unreachable => "502 Bad Gateway",
            Refusal::Full => "503 Service Unavailable",
        }
    }

    fn text(&self) -> String {
        match self {
            Refusal::UnknownMode(name) => {
                let known: Vec<&str> = Mode::ALL.iter().map(|mode| mode.name()).collect();
                format!("there is no mode `{name}`; there are: {}", known.join(", "))
            }
            Refusal::TooLarge => "request head too large".into(),
            Refusal::Unreachable => "the server cannot be reached".into(),
            Refusal::Full => "the proxy has too many connections".into(),
        }
    }
}
