//! The plan of a million: the parts that other scenarios do not have.

use crate::plan::Plan;
use rustix::process::{Resource, getrlimit};
use std::net::IpAddr;

/// The number of clients of each source address. An address has 28,232 ports by default; with many more than a quarter of
/// them in use, the kernel has to search for a free one.
const CLIENTS_PER_SOURCE: usize = 7_000;

/// The maximum number of source addresses: those of 127.0.0.0/16 after the first.
const SOURCES_MAX: usize = 65_000;

/// The maximum number of clients of a ring. Rings with more sockets have no advantage.
const CLIENTS_PER_RING_MAX: usize = 32_768;

/// The maximum number of clients: a ring names them with 32 bits, and each has a record.
const CLIENTS_MAX: usize = 16_000_000;

/// The plan of a million.
#[derive(Clone, Debug)]
pub struct MillionPlan {
    pub clients: usize,
    /// The number of rooms. Client `k` subscribes to room `k % rooms`.
    pub rooms: usize,
    /// The number of clients that ping during a broadcast.
    pub pingers: usize,
    /// Connections per second; 0: as fast as the server accepts them.
    pub connect_rate: f64,
    /// The number of clients of a ring, if it was given.
    pub clients_per_ring: Option<usize>,
}

impl Default for MillionPlan {
    fn default() -> MillionPlan {
        MillionPlan {
            clients: 1_000_000,
            rooms: 1000,
            pingers: 1000,
            connect_rate: 0.0,
            clients_per_ring: None,
        }
    }
}

impl MillionPlan {
    /// The number of connections that are opened at a time. It is smaller than the usual backlog of a listener (4096),
    /// because connections that do not fit into a backlog are delayed by the kernel, which sends them again after a
    /// second or more.
    pub const CONNECT_WINDOW: usize = 1000;

    /// Returns the number of source addresses that the clients need.
    pub fn sources(&self) -> usize {
        self.clients.div_ceil(CLIENTS_PER_SOURCE).clamp(1, SOURCES_MAX)
    }

    /// Returns the number of clients of a ring. The kernel applies the limit on open files to each ring.
    pub fn clients_per_ring(&self) -> usize {
        let limit = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize);
        let per_ring = self.clients_per_ring.unwrap_or(CLIENTS_PER_RING_MAX);
        per_ring.min(limit).min(self.clients).max(1)
    }

    /// Returns the problem with the plan, if it has one.
    pub fn validate(&self, plan: &Plan) -> Result<(), String> {
        let problem = if self.clients == 0 || self.clients > CLIENTS_MAX {
            format!("--connections must be between 1 and {CLIENTS_MAX}")
        } else if self.rooms == 0 || self.rooms > 1_000_000 {
            "--rooms must be between 1 and 1000000".into()
        } else if self.clients_per_ring == Some(0) {
            "--clients-per-ring must be at least 1".into()
        } else if plan.connect_window == 0 {
            "--connect-window must be at least 1: it is the number of connections that are opened at a time"
                .into()
        } else if plan.sources == 0 || plan.sources > SOURCES_MAX {
            format!("--sources must be between 1 and {SOURCES_MAX}")
        } else if !matches!(plan.server.ip(), IpAddr::V4(ip) if ip.is_loopback()) && self.clients > 28_000 {
            format!(
                "{} is not an address of this machine's loopback network (127.0.0.0/8), and one source address has \
                 ports for about 28,000 clients: use fewer --connections",
                plan.server
            )
        } else {
            return Ok(());
        };
        Err(problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Scenario;

    #[test]
    fn sources_suffice_for_the_ports() {
        let sources = |clients| MillionPlan { clients, ..MillionPlan::default() }.sources();
        assert_eq!([1, 7_000, 7_001, 1_000_000].map(sources), [1, 1, 2, 143]);
    }

    #[test]
    fn a_ring_has_at_most_the_clients_that_exist() {
        let plan = MillionPlan { clients: 10, clients_per_ring: Some(4), ..MillionPlan::default() };
        assert_eq!(plan.clients_per_ring(), 4);
        assert_eq!(MillionPlan { clients_per_ring: None, ..plan }.clients_per_ring(), 10);
    }

    #[test]
    fn invalid_plans_are_explained() {
        let plan = Plan::new(Scenario::Million);
        let problem = |million: MillionPlan| million.validate(&plan).unwrap_err();
        let default = MillionPlan::default;
        assert!(problem(MillionPlan { clients: 0, ..default() }).contains("--connections"));
        assert!(problem(MillionPlan { rooms: 0, ..default() }).contains("--rooms"));
        assert!(
            problem(MillionPlan { clients_per_ring: Some(0), ..default() }).contains("--clients-per-ring")
        );
        let elsewhere = Plan { server: "192.0.2.1:80".parse().unwrap(), ..plan.clone() };
        assert!(default().validate(&elsewhere).unwrap_err().contains("28,000"));
        assert_eq!(default().validate(&plan), Ok(()));
    }
}
