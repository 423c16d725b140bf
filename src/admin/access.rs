//! The permission of requests: a password, or else, for what tells about single clients, a peer on this host.
//!
//! The password comes by HTTP Basic authentication (RFC 7617), which browsers, curl and Prometheus know; any user name is
//! accepted. It is compared in constant time. An address that has sent too many wrong ones has to wait.

mod failures;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::time::Instant;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Request, StatusCode};
use zeroize::Zeroizing;

use self::failures::Failures;
use super::reply::{self, AdminResponse};
use crate::limits::{ADMIN_CREDENTIALS_BYTES_MAX, ADMIN_FAILURE_PAUSE};
use crate::log::throttle;

/// The protection of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    /// Everybody who reaches the endpoint may see it.
    None,
    /// The password is needed, if there is one.
    Password,
    /// The password is needed. Without one, only peers on this host may see it.
    PasswordOrLoopback,
}

/// The attempts to log in, since the server started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoginCounts {
    /// Requests with a wrong password.
    pub failed: u64,
    /// Requests that were refused unseen, because their address had sent too many wrong passwords.
    pub throttled: u64,
}

/// The check of all requests.
pub(super) struct AccessCheck {
    /// The SHA-256 of the password, or `None` if there is none.
    password: Option<[u8; 32]>,
    failures: RefCell<Failures>,
    counts: Cell<LoginCounts>,
}

impl AccessCheck {
    /// Asks for this password, or for none.
    pub(super) fn new(password: Option<&[u8]>) -> AccessCheck {
        AccessCheck { password: password.map(hash), failures: RefCell::default(), counts: Cell::default() }
    }

    pub(super) fn counts(&self) -> LoginCounts {
        self.counts.get()
    }

    /// Returns the refusal of a request of this peer for a page, if it is refused.
    pub(super) fn refuse<B>(
        &self,
        request: &Request<B>,
        peer: Option<IpAddr>,
        protection: Protection,
    ) -> Option<AdminResponse> {
        match (protection, self.password) {
            (Protection::None, _) | (Protection::Password, None) => None,
            (Protection::PasswordOrLoopback, None) => {
                let is_local = peer.is_some_and(|peer| peer.to_canonical().is_loopback());
                (!is_local).then(|| {
                    let why = "this page is only for this host, because the server has no password: set \
                               admin-password-file, or use a tunnel (ssh -L 8081:127.0.0.1:8081 HOST)";
                    reply::text(StatusCode::FORBIDDEN, why)
                })
            }
            (_, Some(password)) => self.refuse_without(password, request, peer, Instant::now()),
        }
    }

    fn refuse_without<B>(
        &self,
        password: [u8; 32],
        request: &Request<B>,
        peer: Option<IpAddr>,
        now: Instant,
    ) -> Option<AdminResponse> {
        let Some(given) = request.headers().get(AUTHORIZATION) else {
            return Some(challenge("a password is needed: that of admin-password-file"));
        };
        let mut failures = self.failures.borrow_mut();
        if failures.must_wait(peer, now) {
            self.count(|counts| counts.throttled += 1);
            return Some(too_many());
        }
        let given = password_of(given);
        let is_right = given.is_some_and(|given| verify_slices_are_equal(&hash(&given), &password).is_ok());
        if is_right {
            return None;
        }
        failures.add(peer, now);
        self.count(|counts| counts.failed += 1);
        let peer = peer.map(|peer| peer.to_string());
        throttle!(
            warn,
            "password of the admin endpoint",
            peer,
            "request refused by the admin endpoint: its password is wrong"
        );
        Some(challenge("the password is wrong: it is that of admin-password-file"))
    }

    fn count(&self, add: impl FnOnce(&mut LoginCounts)) {
        let mut counts = self.counts.get();
        add(&mut counts);
        self.counts.set(counts);
    }
}

fn hash(password: &[u8]) -> [u8; 32] {
    let digest = digest(&SHA256, password);
    digest.as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

/// Returns the password in an `Authorization` header, or `None` if the header has none.
fn password_of(header: &HeaderValue) -> Option<Zeroizing<Vec<u8>>> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > ADMIN_CREDENTIALS_BYTES_MAX {
        return None;
    }
    let credentials = Zeroizing::new(STANDARD.decode(encoded.trim()).ok()?);
    // RFC 7617, section 2: "The user-id and password MUST NOT contain any control characters", and the user no colon.
    let colon = credentials.iter().position(|byte| *byte == b':')?;
    Some(Zeroizing::new(credentials[colon + 1..].to_vec()))
}

fn challenge(why: &str) -> AdminResponse {
    let mut reply = reply::text(StatusCode::UNAUTHORIZED, why);
    let value = HeaderValue::from_static("Basic realm=\"QuickIO admin\", charset=\"UTF-8\"");
    reply.headers_mut().insert(WWW_AUTHENTICATE, value);
    reply
}

fn too_many() -> AdminResponse {
    let why = "too many wrong passwords from this address: wait some seconds";
    let mut reply = reply::text(StatusCode::TOO_MANY_REQUESTS, why);
    reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(ADMIN_FAILURE_PAUSE.as_secs()));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ADMIN_FAILURES_MAX;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn request(authorization: Option<&str>) -> Request<()> {
        let mut request = Request::new(());
        if let Some(value) = authorization {
            request.headers_mut().insert(AUTHORIZATION, value.parse().unwrap());
        }
        request
    }

    fn basic(credentials: &str) -> String {
        format!("Basic {}", STANDARD.encode(credentials))
    }

    #[test]
    fn only_the_password_opens_a_protected_page() {
        let secret = "correct: horse \u{e9}";
        let access = AccessCheck::new(Some(secret.as_bytes()));
        let status = |value: Option<&str>| {
            let refused = access.refuse(&request(value), HERE, Protection::Password);
            refused.map_or(200, |reply| reply.status().as_u16())
        };
        for right in [basic(&format!("admin:{secret}")), basic(&format!(":{secret}"))] {
            assert_eq!(status(Some(&right)), 200);
            assert_eq!(status(Some(&right.replace("Basic", "bASIC"))), 200);
        }
        assert_eq!(status(None), 401);
        assert_eq!(access.counts(), LoginCounts::default(), "no password is no wrong password");
        let long = basic(&format!(":{}", "x".repeat(2000)));
        let wrong = [
            basic("admin:wrong"),
            basic("admin:"),
            basic(secret),
            basic(""),
            "Basic".to_owned(),
            "Basic %%%".to_owned(),
            format!("Bearer {secret}"),
            long,
        ];
        for (index, wrong) in wrong.iter().enumerate() {
            assert_eq!(status(Some(wrong)), 401, "{wrong:.40}");
            assert_eq!(access.counts().failed, index as u64 + 1);
        }
    }

    #[test]
    fn an_address_that_guesses_has_to_wait() {
        let access = AccessCheck::new(Some(b"0123456789abcdef"));
        let right = basic("admin:0123456789abcdef");
        let status = |value: &str, peer: &str| {
            let refused = access.refuse(&request(Some(value)), peer.parse().ok(), Protection::Password);
            refused.map_or(200, |reply| reply.status().as_u16())
        };
        for _ in 0..ADMIN_FAILURES_MAX {
            assert_eq!(status(&basic("admin:no"), "10.0.0.1"), 401);
        }
        assert_eq!(status(&basic("admin:no"), "10.0.0.1"), 429);
        assert_eq!(status(&right, "10.0.0.1"), 429, "a right guess is not told from a wrong one");
        assert_eq!(status(&right, "10.0.0.2"), 200);
        assert_eq!(access.counts(), LoginCounts { failed: ADMIN_FAILURES_MAX.into(), throttled: 2 });
    }

    #[test]
    fn without_a_password_the_details_are_for_this_host() {
        let access = AccessCheck::new(None);
        let is_refused =
            |peer: &str, protection| access.refuse(&request(None), peer.parse().ok(), protection).is_some();
        for (peer, is_local) in
            [("127.0.0.1", true), ("127.9.9.9", true), ("::1", true), ("::ffff:127.0.0.1", true)]
                .into_iter()
                .chain([
                    ("10.0.0.1", false),
                    ("2001:db8::1", false),
                    ("::ffff:10.0.0.1", false),
                    ("?", false),
                ])
        {
            assert_eq!(is_refused(peer, Protection::PasswordOrLoopback), !is_local, "{peer}");
            assert!(!is_refused(peer, Protection::Password) && !is_refused(peer, Protection::None));
        }
    }

    #[test]
    fn an_open_page_needs_no_password() {
        let access = AccessCheck::new(Some(b"0123456789abcdef"));
        assert!(access.refuse(&request(None), HERE, Protection::None).is_none());
        assert!(access.refuse(&request(None), HERE, Protection::PasswordOrLoopback).is_some());
    }
}
