//! The trusted proxies, and the address of the client that a request through them came from: `X-Forwarded-For`, or
//! `Forwarded` (RFC 7239).

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::http::head::Headers;

/// The peers that forward requests of others and tell their addresses. Headers of other peers mean nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// The networks of the proxies that connect over TCP.
    pub networks: Vec<IpNet>,
    /// The peers on Unix sockets are trusted proxies.
    pub unix: bool,
}

impl TrustedProxies {
    /// No proxies.
    pub const NONE: TrustedProxies = TrustedProxies { networks: Vec::new(), unix: false };

    /// Returns whether a peer with this address is trusted; `None` stands for a peer on a Unix socket.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        peer.map_or(self.unix, |ip| self.networks.iter().any(|network| network.contains(&ip)))
    }

    /// Returns the address of the client, according to the proxies: the last one in the header that is not a proxy's own.
    /// If all are, the first one. Returns `None` if the header is missing, or if an entry before the result is no address:
    /// then only the proxy is known. What a client has written itself is before that, and is never looked at.
    ///
    /// `Forwarded` counts only if there is no `X-Forwarded-For`, because few proxies set it and all pass it on.
    pub(super) fn client(&self, headers: Headers<'_, '_>) -> Option<IpAddr> {
        if *self == TrustedProxies::NONE {
            return None;
        }
        if headers.has("X-Forwarded-For") {
            let values: Vec<&[u8]> = headers.values("X-Forwarded-For").collect();
            let entries = values.iter().rev().flat_map(|value| value.rsplit(|byte| *byte == b','));
            return self.last_untrusted(entries.map(<[u8]>::trim_ascii));
        }
        let elements: Vec<&[u8]> =
            headers.values("Forwarded").flat_map(|value| unquoted(value, b',')).collect();
        self.last_untrusted(elements.into_iter().rev().map(|element| node(element).unwrap_or(b"unknown")))
    }

    /// Looks through entries from the last one to the first. Empty ones are skipped (RFC 9110, 5.6.1.2).
    fn last_untrusted<'a>(&self, entries: impl Iterator<Item = &'a [u8]>) -> Option<IpAddr> {
        let mut first = None;
        for entry in entries.filter(|entry| !entry.is_empty()) {
            let address = address(entry)?;
            if !self.trusts(Some(address)) {
                return Some(address);
            }
            first = Some(address);
        }
        first
    }
}

/// Parses `192.0.2.1`, `2001:db8::1` or `[2001:db8::1]`, each of the first and last with a port or without.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    let ip = text.parse().ok().or_else(with_port).or_else(in_brackets)?;
    Some(ip.to_canonical())
}

/// Returns the value of `for` in an element of `Forwarded`, without its quotes. `None` if there is none or several.
fn node(element: &[u8]) -> Option<&[u8]> {
    let mut nodes = unquoted(element, b';').filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii());
        name.eq_ignore_ascii_case(b"for").then_some(value)
    });
    let node = nodes.next().filter(|_| nodes.next().is_none())?;
    Some(node.strip_prefix(b"\"").and_then(|node| node.strip_suffix(b"\"")).unwrap_or(node))
}

/// Splits a text at the separators that are not in quotes (RFC 9110, 5.6.4).
fn unquoted(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |byte| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match byte {
            b'\\' if is_quoted && !was_escaped => is_escaped = true,
            b'"' if !was_escaped => is_quoted = !is_quoted,
            _ => {}
        }
        *byte == separator && !is_quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http::head::{RequestHead, header_space};
    use crate::protocol::testing;

    fn proxies() -> TrustedProxies {
        let networks = ["127.0.0.0/8", "10.1.0.0/16", "2001:db8:1::/48"];
        TrustedProxies { networks: networks.map(|network| network.parse().unwrap()).into(), unix: false }
    }

    fn client_of(lines: &str) -> Option<String> {
        let head = format!("GET / HTTP/1.1\r\n{lines}\r\n");
        let mut space = header_space();
        let head = RequestHead::parse(head.as_bytes(), &mut space).expect("a head");
        proxies().client(head.headers).map(|ip| ip.to_string())
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_proxy() {
        for (header, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.1, 127.0.0.1", Some("192.0.2.1")),
            ("192.0.2.1,10.1.2.3 ,\t127.0.0.1", Some("192.0.2.1")),
            // The client has written the first one itself.
            ("192.0.2.9, 192.0.2.1", Some("192.0.2.1")),
            ("rubbish, 192.0.2.1, 127.0.0.1", Some("192.0.2.1")),
            ("\"127.0.0.1, 192.0.2.1", Some("192.0.2.1")),
            // Ports, brackets, and IPv4 in IPv6.
            ("192.0.2.1:4711", Some("192.0.2.1")),
            ("2001:db8:2::1", Some("2001:db8:2::1")),
            ("[2001:db8:2::1]:4711, 2001:db8:1::7", Some("2001:db8:2::1")),
            ("[2001:db8:2::1]", Some("2001:db8:2::1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("::ffff:10.1.0.1", Some("10.1.0.1")),
            ("192.0.2.1, , ", Some("192.0.2.1")),
            // Nobody but proxies: the first one.
            ("127.0.0.1", Some("127.0.0.1")),
            ("10.1.0.1, 127.0.0.1", Some("10.1.0.1")),
            // Only the proxy is known.
            ("", None),
            (" , ", None),
            ("unknown", None),
            ("192.0.2.1, unknown", None),
            ("192.0.2.1, unknown, 127.0.0.1", None),
            ("192.0.2.1 127.0.0.1", None),
            ("256.0.0.1", None),
            ("example.org", None),
        ] {
            let line = format!("X-Forwarded-For: {header}\r\n");
            assert_eq!(client_of(&line).as_deref(), expected, "{header}");
        }
        let lines = "X-Forwarded-For: 192.0.2.1\r\nHost: a\r\nx-forwarded-for: 192.0.2.2, 127.0.0.1\r\n";
        assert_eq!(client_of(lines).as_deref(), Some("192.0.2.2"), "lines are one list");
        let lines = "X-Forwarded-For: 192.0.2.1\r\nx-forwarded-for: 127.0.0.1\r\n";
        assert_eq!(client_of(lines).as_deref(), Some("192.0.2.1"));
    }

    #[test]
    fn forwarded_counts_if_it_is_alone() {
        for (header, expected) in [
            ("for=192.0.2.1", Some("192.0.2.1")),
            ("For=192.0.2.1;proto=http;by=10.1.0.1, for=127.0.0.1", Some("192.0.2.1")),
            ("for=\"[2001:db8:2::1]:4711\"", Some("2001:db8:2::1")),
            ("for=192.0.2.9, by=\"a,b\\\";c\";for=\"192.0.2.1:1\"", Some("192.0.2.1")),
            ("for=unknown", None),
            ("for=_hidden, for=127.0.0.1", None),
            ("for=192.0.2.1, proto=http", None),
            ("for=192.0.2.1;for=192.0.2.2", None),
            ("192.0.2.1", None),
            ("for=\"192.0.2.1", None),
        ] {
            assert_eq!(client_of(&format!("Forwarded: {header}\r\n")).as_deref(), expected, "{header}");
        }
        let both = "Forwarded: for=192.0.2.9\r\nX-Forwarded-For: 192.0.2.1\r\n";
        assert_eq!(client_of(both).as_deref(), Some("192.0.2.1"));
        let both = "Forwarded: for=192.0.2.9\r\nX-Forwarded-For: rubbish\r\n";
        assert_eq!(client_of(both), None);
    }

    #[test]
    fn proxies_are_trusted_by_their_network() {
        let ip = |text: &str| Some(text.parse().unwrap());
        assert!(proxies().trusts(ip("127.8.0.1")) && proxies().trusts(ip("2001:db8:1::1")));
        assert!(!proxies().trusts(ip("10.2.0.1")) && !proxies().trusts(None));
        assert!(TrustedProxies { unix: true, ..TrustedProxies::NONE }.trusts(None));
    }

    /// Whatever is before the entry of the first untrusted proxy, the result is the same.
    #[test]
    fn fuzz_what_a_client_writes_does_not_matter() {
        testing::fuzz(|random| {
            let words =
                ["127.0.0.1", "192.0.2.7", ",", " ", "\"", "unknown", "[::1]", ";", "for=", "\\", "10.1.0.1"];
            let own: String = (0..random.below(8)).map(|_| random.pick(&words)).collect();
            let line = format!("X-Forwarded-For: {own},192.0.2.1, 10.1.0.1\r\n");
            assert_eq!(client_of(&line).as_deref(), Some("192.0.2.1"), "{line}");
            client_of(&format!("Forwarded: {own}\r\n"));
        });
    }
}
