//! The check of the host that a request names, which prevents DNS rebinding.
//!
//! The owner of a site can make its name resolve to this machine. A script on a page of the site may then read the
//! responses of the endpoint, because the browser considers it the page's own host. The browser still sends the name
//! of the site in the `Host` header. IP addresses and `localhost` cannot be rebound; other names must be allowed by
//! the setting `admin-hosts`.
//!
//! HTTP/1.0 requests without a `Host` header are accepted: browsers do not send HTTP/1.0.

use std::net::{IpAddr, Ipv6Addr};

use hyper::header::HOST;
use hyper::{Request, StatusCode, Version};

use super::reply::{self, AdminResponse};
use crate::log::{Escaped, throttle};

/// The names that requests may use for this host, in addition to `localhost` and IP addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    names: Vec<String>,
}

impl Hosts {
    /// Allows these names, in lower case.
    pub(super) fn new(names: Vec<String>) -> Hosts {
        Hosts { names }
    }

    /// Returns the refusal of a request that names a host that is not allowed, or does not name exactly one.
    pub(super) fn refuse<B>(&self, request: &Request<B>) -> Option<AdminResponse> {
        let mut hosts = request.headers().get_all(HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => Some(host.to_str().unwrap_or_default()),
            (None, _) if request.version() < Version::HTTP_11 => None,
            // RFC 9112, section 3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1
            // request message that lacks a Host header field and to any request message that contains more than one".
            _ => return Some(reply::text(StatusCode::BAD_REQUEST, "one Host header is needed")),
        };
        // RFC 9112, section 3.2.2: a host in the target overrides the header. Browsers never send one.
        let named = request.uri().authority().map(|authority| authority.as_str()).or(host);
        match named {
            Some(named) if !self.allow(named) => {
                throttle!(info, "host of the admin endpoint", host = %Escaped(named.as_bytes()),
                    "request refused by the admin endpoint: its Host is no IP address, not localhost and not among \
                     admin-hosts");
                let why = "the Host header names a host that is not allowed here: use an IP address or localhost, or \
                           allow the name with the setting admin-hosts";
                Some(reply::text(StatusCode::MISDIRECTED_REQUEST, why))
            }
            _ => None,
        }
    }

    /// Returns whether a request may name this host. Any port may follow: a tunnel uses another port than the endpoint.
    fn allow(&self, named: &str) -> bool {
        let Some(host) = without_port(named) else { return false };
        if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            return address.parse::<Ipv6Addr>().is_ok();
        }
        // A name may end with the dot of the DNS root.
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        matches!(host.parse(), Ok(IpAddr::V4(_))) || name == "localhost" || self.names.contains(&name)
    }
}

/// Returns the host without the port, or `None` if the text after the colon is not a port.
fn without_port(named: &str) -> Option<&str> {
    match named.rsplit_once(':') {
        // A colon in brackets is part of an IPv6 address.
        Some((host, port)) if !port.ends_with(']') => {
            port.bytes().all(|byte| byte.is_ascii_digit()).then_some(host)
        }
        _ => Some(named),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_cannot_be_rebound_and_those_of_the_setting_are_allowed() {
        let hosts = Hosts::new(vec!["admin.example".into(), "quickio".into()]);
        for named in [
            "127.0.0.1",
            "127.0.0.1:8081",
            "10.1.2.3:1",
            "0.0.0.0",
            "[::1]",
            "[::1]:8081",
            "localhost",
            "LocalHost:9",
            "localhost.",
            "localhost:",
            "admin.example",
            "ADMIN.example.:80",
            "quickio:8081",
        ] {
            assert!(hosts.allow(named), "{named}");
        }
        for named in [
            "",
            ":8081",
            ".",
            "evil.example",
            "evil.example:8081",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evil-localhost",
            "sub.admin.example",
            "admin.example..",
            "127.0.0.1@evil.example",
            "evil.example@127.0.0.1",
            "localhost:8081:x",
            "localhost:x",
            "::1",
            "[localhost]",
            "[127.0.0.1]",
            "[::1",
            "127.1",
            "0x7f000001",
            " localhost",
        ] {
            assert!(!hosts.allow(named), "{named}");
        }
    }

    #[test]
    fn what_a_request_names_is_in_its_target_or_its_header() {
        let hosts = Hosts::new(vec!["admin.example".into()]);
        for (version, target, named, expected) in [
            (Version::HTTP_11, "/", &["localhost"][..], None),
            (Version::HTTP_11, "/", &["evil.example"], Some(421)),
            (Version::HTTP_11, "/", &[""], Some(421)),
            (Version::HTTP_11, "/", &["\u{e9}"], Some(421)),
            (Version::HTTP_11, "/", &[], Some(400)),
            (Version::HTTP_11, "/", &["localhost", "localhost"], Some(400)),
            (Version::HTTP_10, "/", &[], None),
            (Version::HTTP_10, "/", &["evil.example"], Some(421)),
            (Version::HTTP_10, "/", &["localhost", "localhost"], Some(400)),
            (Version::HTTP_11, "http://admin.example/", &["evil.example"], None),
            (Version::HTTP_11, "http://evil.example/", &["localhost"], Some(421)),
            (Version::HTTP_11, "http://localhost/", &[], Some(400)),
        ] {
            let mut request = Request::builder().version(version).uri(target);
            for host in named {
                request = request.header(HOST, *host);
            }
            let refused = hosts.refuse(&request.body(()).unwrap()).map(|reply| reply.status().as_u16());
            assert_eq!(refused, expected, "{version:?} {target} {named:?}");
        }
    }
}
