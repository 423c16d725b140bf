//! The proxy's own responses, which do not come from the server.

use crate::config::clienttest::Mode;

/// A reason for the proxy to respond itself. The connection is closed after the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ProxyRefusal {
    /// `mangle=` has a name that no mode has.
    UnknownMode(String),
    /// The head of a request is over the limits.
    TooLarge,
    /// The server does not accept connections.
    Unreachable,
    /// The proxy has as many connections as it may have.
    Full,
}

impl ProxyRefusal {
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
            ProxyRefusal::UnknownMode(_) => "400 Bad Request",
            ProxyRefusal::TooLarge => "431 Request Header Fields Too Large",
            ProxyRefusal::Unreachable => "502 Bad Gateway",
            ProxyRefusal::Full => "503 Service Unavailable",
        }
    }

    fn text(&self) -> String {
        match self {
            ProxyRefusal::UnknownMode(name) => {
                let known: Vec<&str> = Mode::ALL.iter().map(|mode| mode.name()).collect();
                format!("there is no mode `{name}`; there are: {}", known.join(", "))
            }
            ProxyRefusal::TooLarge => "request head too large".into(),
            ProxyRefusal::Unreachable => "the server cannot be reached".into(),
            ProxyRefusal::Full => "the proxy has too many connections".into(),
        }
    }
}
