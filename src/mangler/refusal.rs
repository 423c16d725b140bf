//! The answers that are the proxy's own, and not the server's.

use crate::config::clienttest::Mode;

/// Why the proxy answers itself. The connection is to be closed behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// `mangle=` with a name that is no mode's.
    UnknownMode(String),
    /// A request head over the limits.
    TooLarge,
    /// The server does not accept connections.
    Unreachable,
    /// As many connections as there may be.
    Full,
}

impl Refusal {
    /// The response, whole.
    pub(super) fn answer(&self) -> Vec<u8> {
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
