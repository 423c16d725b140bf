//! The URL of a server, which selects the transport of a client.

use std::fmt;
use std::path::PathBuf;

/// The address of a server, and the transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct ServerUrl {
    /// The transport.
    pub(in crate::cli) scheme: Scheme,
    /// The host.
    pub(in crate::cli) host: ServerHost,
    /// The target of HTTP requests, which begins with `/`.
    pub(in crate::cli) target: String,
}

/// A transport to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Scheme {
    WebSocket,
    SecureWebSocket,
    Raw,
    SecureRaw,
    Http,
    Https,
}

/// The host of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum ServerHost {
    /// A name or an address, without brackets, and a port.
    Tcp { name: String, port: u16 },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// The words before `://`, with the scheme that each stands for.
const SCHEMES: &[(&str, Scheme)] = &[
    ("ws", Scheme::WebSocket),
    ("wss", Scheme::SecureWebSocket),
    ("tcp", Scheme::Raw),
    ("raw", Scheme::Raw),
    ("tls", Scheme::SecureRaw),
    ("http", Scheme::Http),
    ("https", Scheme::Https),
];

impl Scheme {
    /// Returns whether the connection is encrypted.
    pub(in crate::cli) fn is_tls(self) -> bool {
        matches!(self, Scheme::SecureWebSocket | Scheme::SecureRaw | Scheme::Https)
    }

    /// Returns whether events are WebSocket messages.
    pub(in crate::cli) fn is_websocket(self) -> bool {
        matches!(self, Scheme::WebSocket | Scheme::SecureWebSocket)
    }

    /// Returns the word before `://`.
    fn word(self) -> &'static str {
        SCHEMES.iter().find(|(_, scheme)| *scheme == self).map_or("", |(word, _)| word)
    }

    /// Returns the port of a URL without one, which only the schemes of the web have.
    fn default_port(self) -> Option<u16> {
        match self {
            Scheme::WebSocket | Scheme::Http => Some(80),
            Scheme::SecureWebSocket | Scheme::Https => Some(443),
            Scheme::Raw | Scheme::SecureRaw => None,
        }
    }
}

impl ServerUrl {
    /// Parses the URL of a server for clients: `ws://`, `wss://`, `tcp://` (or `raw://`) and `tls://`, each with
    /// `HOST:PORT`; `unix:/PATH`, a raw connection over a Unix socket; or `HOST:PORT`, which is `ws://`. `http` and
    /// `https` stand for the WebSocket of a page's origin.
    pub(in crate::cli) fn for_clients(text: &str) -> Result<ServerUrl, String> {
        let mut url = ServerUrl::parse(text, Scheme::WebSocket)?;
        url.scheme = match url.scheme {
            Scheme::Http => Scheme::WebSocket,
            Scheme::Https => Scheme::SecureWebSocket,
            scheme => scheme,
        };
        Ok(url)
    }

    /// Parses the URL of an admin endpoint: `http://` or `https://` with `HOST:PORT`, or `HOST:PORT`.
    pub(in crate::cli) fn for_admin(text: &str) -> Result<ServerUrl, String> {
        let url = ServerUrl::parse(text, Scheme::Http)?;
        match url.scheme {
            Scheme::Http | Scheme::Https => Ok(url),
            _ => Err("the admin endpoint is at an http:// or https:// URL".into()),
        }
    }

    /// Parses the address to which a server at this URL moves its clients. It never ends encryption.
    pub(in crate::cli) fn moved_to(&self, address: &str) -> Result<ServerUrl, String> {
        let mut url = match address.contains("://") {
            true => ServerUrl::for_clients(address)?,
            false => ServerUrl::parse(&format!("{}://{address}", self.scheme.word()), self.scheme)?,
        };
        if self.scheme.is_tls() && !url.scheme.is_tls() {
            url.scheme = self.scheme;
        }
        Ok(url)
    }

    fn parse(text: &str, default: Scheme) -> Result<ServerUrl, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            if !path.is_absolute() {
                return Err("the path after `unix:` must be absolute".into());
            }
            return Ok(ServerUrl { scheme: Scheme::Raw, host: ServerHost::Unix(path), target: "/".into() });
        }
        let (scheme, default_port, rest) = match text.split_once("://") {
            Some((word, rest)) => {
                let scheme = find_scheme(word)?;
                (scheme, scheme.default_port(), rest)
            }
            None => (default, None, text),
        };
        let (authority, target) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let target = if target.starts_with('?') { format!("/{target}") } else { target.to_owned() };
        if target.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
            return Err("a target has only printable ASCII characters, and no fragment".into());
        }
        let host = parse_host(authority, default_port)?;
        Ok(ServerUrl { scheme, host, target: if target.is_empty() { "/".into() } else { target } })
    }

    /// Returns the host and the port as the header `Host` has them.
    pub(in crate::cli) fn authority(&self) -> String {
        match &self.host {
            ServerHost::Unix(_) => "localhost".into(),
            ServerHost::Tcp { name, port } if name.contains(':') => format!("[{name}]:{port}"),
            ServerHost::Tcp { name, port } => format!("{name}:{port}"),
        }
    }
}

fn find_scheme(word: &str) -> Result<Scheme, String> {
    let found = SCHEMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    found
        .map(|(_, scheme)| *scheme)
        .ok_or_else(|| "the word before :// must be ws, wss, tcp, raw, tls, http or https".into())
}

fn parse_host(authority: &str, default_port: Option<u16>) -> Result<ServerHost, String> {
    if authority.contains('@') {
        return Err("it has a user, which servers do not know; tokens belong in --token-file".into());
    }
    let (name, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']').ok_or("the bracket of the IPv6 address does not end")?;
            (name, port.strip_prefix(':'))
        }
        None => match authority.rsplit_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (authority, None),
        },
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_name) {
        return Err("it has no valid host".into());
    }
    if name.contains(':') && !authority.starts_with('[') {
        return Err("an IPv6 address stands in brackets".into());
    }
    let port = match port {
        Some(digits) => digits.parse().ok().filter(|port| *port != 0).ok_or("its port is not 1 to 65535")?,
        None => default_port.ok_or("it has no port; write it behind a colon")?,
    };
    Ok(ServerHost::Tcp { name: name.into(), port })
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let ServerHost::Unix(path) = &self.host {
            return write!(f, "unix:{}", path.display());
        }
        write!(f, "{}://{}", self.scheme.word(), self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_clients() {
        for (text, shown, target) in [
            ("127.0.0.1:8080", "ws://127.0.0.1:8080", "/"),
            ("example.com:80", "ws://example.com:80", "/"),
            ("ws://example.com", "ws://example.com:80", "/"),
            ("WSS://example.com/events?x=1", "wss://example.com:443", "/events?x=1"),
            ("https://example.com?x=1", "wss://example.com:443", "/?x=1"),
            ("http://[::1]:8080/", "ws://[::1]:8080", "/"),
            ("raw://localhost:8080", "tcp://localhost:8080", "/"),
            ("tls://localhost:8443", "tls://localhost:8443", "/"),
            ("unix:/run/quickio/socket", "unix:/run/quickio/socket", "/"),
        ] {
            let url = ServerUrl::for_clients(text).unwrap();
            assert_eq!((url.to_string().as_str(), url.target.as_str()), (shown, target), "{text}");
        }
    }

    #[test]
    fn moves_never_end_encryption() {
        for (from, to, expected) in [
            ("ws://a:1", "b:2", "ws://b:2"),
            ("ws://a:1", "b", "ws://b:80"),
            ("wss://a:1", "b:2", "wss://b:2"),
            ("wss://a:1", "ws://b:2", "wss://b:2"),
            ("ws://a:1", "wss://b", "wss://b:443"),
            ("tcp://a:1", "b:2", "tcp://b:2"),
        ] {
            let url = ServerUrl::for_clients(from).unwrap();
            assert_eq!(url.moved_to(to).unwrap().to_string(), expected, "{from} {to}");
        }
        assert!(ServerUrl::for_clients("tcp://a:1").unwrap().moved_to("b").is_err());
    }

    #[test]
    fn wrong_urls_are_explained() {
        for (text, words) in [
            ("ftp://a:1", "ws, wss"),
            ("localhost", "no port"),
            ("tcp://localhost", "no port"),
            ("ws://", "no valid host"),
            ("ws://a b:1", "no valid host"),
            ("ws://::1:8080", "brackets"),
            ("ws://[::1", "bracket"),
            ("ws://a:0", "1 to 65535"),
            ("ws://a:x", "1 to 65535"),
            ("ws://a:1/x y", "printable"),
            ("ws://secret@a:1", "--token-file"),
            ("unix:socket", "absolute"),
        ] {
            let result = ServerUrl::for_clients(text).map(|url| url.to_string());
            assert!(result.clone().is_err_and(|problem| problem.contains(words)), "{text}: {result:?}");
        }
        assert_eq!(ServerUrl::for_admin("127.0.0.1:8081").unwrap().to_string(), "http://127.0.0.1:8081");
        assert!(ServerUrl::for_admin("ws://127.0.0.1:8081").is_err());
    }
}
