//! The wrong passwords of each address. An address may send a few at once, and one more after each pause.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use ahash::AHashMap;

use crate::limits::{ADMIN_FAILED_ADDRESSES_MAX, ADMIN_FAILURE_PAUSE, ADMIN_FAILURES_MAX};

/// The wrong passwords, by address. Invariant: at most `ADMIN_FAILED_ADDRESSES_MAX` addresses.
#[derive(Default)]
pub(super) struct Failures(AHashMap<IpAddr, Failed>);

struct Failed {
    /// The pauses that the address still owes at `at`.
    pauses: f64,
    at: Instant,
}

impl Failed {
    fn pauses(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.pauses - passed / ADMIN_FAILURE_PAUSE.as_secs_f64()).max(0.0)
    }
}

impl Failures {
    /// Returns whether an address has sent too many wrong passwords.
    pub fn must_wait(&self, address: Option<IpAddr>, now: Instant) -> bool {
        let failed = self.0.get(&network(address));
        failed.is_some_and(|failed| failed.pauses(now) > f64::from(ADMIN_FAILURES_MAX - 1))
    }

    /// Counts a wrong password.
    pub fn add(&mut self, address: Option<IpAddr>, now: Instant) {
        let network = network(address);
        if self.0.len() >= ADMIN_FAILED_ADDRESSES_MAX && !self.0.contains_key(&network) {
            self.forget(now);
        }
        let pauses = self.0.get(&network).map_or(0.0, |failed| failed.pauses(now)) + 1.0;
        self.0.insert(network, Failed { pauses, at: now });
    }

    /// Forgets the addresses that owe nothing, or else the one that failed longest ago.
    fn forget(&mut self, now: Instant) {
        self.0.retain(|_, failed| failed.pauses(now) > 0.0);
        if self.0.len() >= ADMIN_FAILED_ADDRESSES_MAX {
            let oldest = self.0.iter().min_by_key(|(_, failed)| failed.at).map(|(address, _)| *address);
            oldest.map(|oldest| self.0.remove(&oldest));
        }
    }
}

/// Returns the address, or the network of 64 bits of an IPv6 address: one host has all addresses of such a network. Peers
/// whose address is unknown share one.
fn network(address: Option<IpAddr>) -> IpAddr {
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V6(address)) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        Some(address) => address,
        None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// The time after which an address that has sent the most wrong passwords owes nothing.
    const FORGOTTEN_AFTER: Duration =
        Duration::from_secs(ADMIN_FAILURE_PAUSE.as_secs() * ADMIN_FAILURES_MAX as u64);

    fn address(number: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(number.into()))
    }

    #[test]
    fn one_more_is_allowed_after_each_pause() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        (0..ADMIN_FAILURES_MAX).for_each(|_| failures.add(address(1), start));
        assert!(failures.must_wait(address(1), start) && !failures.must_wait(address(2), start));
        let later = start + ADMIN_FAILURE_PAUSE;
        assert!(!failures.must_wait(address(1), later));
        failures.add(address(1), later);
        assert!(failures.must_wait(address(1), later));
        assert!(!failures.must_wait(address(1), start + 2 * FORGOTTEN_AFTER));
    }

    #[test]
    fn a_network_is_one_address() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        for host in 0..ADMIN_FAILURES_MAX {
            failures.add(format!("2001:db8:0:1::{host:x}").parse().ok(), now);
        }
        assert!(failures.must_wait("2001:db8:0:1:ffff::".parse().ok(), now));
        assert!(!failures.must_wait("2001:db8:0:2::".parse().ok(), now));
        assert!(!failures.must_wait(None, now));
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let max = ADMIN_FAILED_ADDRESSES_MAX as u32;
        for number in 0..=max {
            failures.add(address(number), start + Duration::from_millis(number.into()));
            assert!(failures.0.len() <= ADMIN_FAILED_ADDRESSES_MAX);
        }
        assert!(!failures.0.contains_key(&network(address(0))), "the oldest is forgotten");
        failures.add(address(max + 1), start + 2 * FORGOTTEN_AFTER);
        assert_eq!(failures.0.len(), 1, "those that owe nothing are forgotten");
    }
}
