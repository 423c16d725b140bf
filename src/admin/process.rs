//! Resident memory, CPU time and threads of this process, from `/proc/self`.

use std::fs;

use serde::Serialize;

/// The clock ticks per second in which `/proc` counts CPU time: `USER_HZ` is 100 on every architecture that Rust runs
/// on.
const TICKS_PER_SECOND: f64 = 100.0;

/// The process at this moment. A value that `/proc` does not have is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Process {
    pub(super) rss_bytes: Option<u64>,
    pub(super) cpu_user_seconds: Option<f64>,
    pub(super) cpu_system_seconds: Option<f64>,
    pub(super) threads: Option<u64>,
}

/// Reads the values of this process.
pub(super) fn read() -> Process {
    let text = |name| fs::read_to_string(name).unwrap_or_default();
    parse(&text("/proc/self/status"), &text("/proc/self/stat"))
}

fn parse(status: &str, stat: &str) -> Process {
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<u64> = kib.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok());
    // proc_pid_stat(5): the second field is the program's name in parentheses, and may contain anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |number: usize| -> Option<u64> { fields.get(number - 3)?.parse().ok() };
    let seconds = |ticks: u64| ticks as f64 / TICKS_PER_SECOND;
    Process {
        rss_bytes: kib.map(|kib| kib * 1024),
        cpu_user_seconds: field(14).map(seconds),
        cpu_system_seconds: field(15).map(seconds),
        threads: field(20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_parsed() {
        let status = "Name:\tquickio\nVmHWM:\t  200 kB\nVmRSS:\t  100 kB\nThreads:\t3\n";
        let stat = "123 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 1050 0 0 20 0 3 0 12345 1 2";
        let expected = Process {
            rss_bytes: Some(102_400),
            cpu_user_seconds: Some(2.5),
            cpu_system_seconds: Some(10.5),
            threads: Some(3),
        };
        assert_eq!(parse(status, stat), expected);
        assert_eq!(parse("", ""), Process::default());
        assert_eq!(parse("VmRSS: much", "1 (a) S x"), Process::default());
    }

    #[test]
    fn this_process_has_values() {
        let process = read();
        assert!(process.rss_bytes.is_some_and(|bytes| bytes > 100_000));
        assert!(process.cpu_user_seconds.is_some() && process.cpu_system_seconds.is_some());
        assert!(process.threads.is_some_and(|threads| threads >= 1));
    }
}
