//! The kernel's counters that explain slow and failed connections.

use serde_json::{Map, Value, json};
use std::fs;

/// The counters of /proc/net/netstat, with their names in reports.
const COUNTERS: [(&str, &str); 5] = [
    // Connections that found the backlog of a listener full.
    ("ListenOverflows", "listen_overflows"),
    // Requests to connect that were dropped for any reason.
    ("ListenDrops", "listen_drops"),
    // Requests to connect that found too many unfinished ones.
    ("TCPReqQFullDrop", "request_queue_drops"),
    // Requests to connect, and answers to them, that were sent again after a second or more.
    ("TCPSynRetrans", "syn_retransmits"),
    ("TCPTimeouts", "timeouts"),
];

/// The values of the counters, of the whole network namespace: both ends of connections over loopback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounters([u64; COUNTERS.len()]);

impl NetworkCounters {
    /// Returns the current values. If the kernel does not show a counter, its value is 0.
    pub fn read() -> NetworkCounters {
        NetworkCounters::parse(&fs::read_to_string("/proc/net/netstat").unwrap_or_default())
    }

    /// Parses pairs of lines: the first has the names, the second the values.
    fn parse(text: &str) -> NetworkCounters {
        let lines: Vec<&str> = text.lines().collect();
        let pairs = lines
            .chunks_exact(2)
            .flat_map(|pair| pair[0].split_ascii_whitespace().zip(pair[1].split_ascii_whitespace()));
        let all: Vec<(&str, &str)> = pairs.collect();
        let value = |name| {
            let found = all.iter().find(|(known, _)| *known == name);
            found.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
        };
        NetworkCounters(COUNTERS.map(|(name, _)| value(name)))
    }

    /// Returns the increase until now.
    pub fn increase_json(&self) -> Value {
        self.increase_until(NetworkCounters::read())
    }

    fn increase_until(&self, later: NetworkCounters) -> Value {
        let increase = |i: usize| later.0[i].saturating_sub(self.0[i]);
        let members =
            COUNTERS.iter().enumerate().map(|(i, (_, name))| ((*name).to_owned(), json!(increase(i))));
        members.collect::<Map<_, _>>().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_counters_by_their_names() {
        let text = |overflows| {
            format!(
                "TcpExt: SyncookiesSent ListenOverflows TCPTimeouts\nTcpExt: 7 {overflows} 3\nIpExt: A\nIpExt: 1\n"
            )
        };
        let (before, after) = (NetworkCounters::parse(&text(5)), NetworkCounters::parse(&text(9)));
        let increase = before.increase_until(after);
        assert_eq!((&increase["listen_overflows"], &increase["timeouts"]), (&json!(4), &json!(0)));
        assert_eq!(NetworkCounters::parse(""), NetworkCounters::default());
    }

    #[test]
    fn this_kernel_has_all_of_them() {
        let text = fs::read_to_string("/proc/net/netstat").unwrap();
        for (name, _) in COUNTERS {
            assert!(text.contains(&format!(" {name} ")), "{name}");
        }
    }
}
