//! The CPU time and resident memory of a process, from `/proc`.

use serde::Serialize;
use std::fs;

/// The CPU time that a process has used since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuTime {
    /// The time of all threads, in nanoseconds.
    total_ns: u64,
    /// User and system time in ticks. The sum is exact; the division depends on where the timer tick found the process.
    user_ticks: u64,
    system_ticks: u64,
}

/// The CPU time of a period, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    pub user: f64,
    pub system: f64,
    pub total: f64,
}

/// The resident memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryUsage {
    /// All resident memory.
    pub resident: u64,
    /// The part that does not belong to a file: heap, stacks, buffers.
    pub anonymous: u64,
}

impl CpuTime {
    /// Returns the CPU time that a process has used until now.
    pub fn of(pid: u32) -> Result<CpuTime, String> {
        let (user_ticks, system_ticks) = ticks(&read(pid, "stat")?)?;
        Ok(CpuTime { total_ns: run_ns(pid)?, user_ticks, system_ticks })
    }

    /// Returns the CPU time used since `earlier`.
    pub fn since(self, earlier: CpuTime) -> CpuUsage {
        let total = self.total_ns.saturating_sub(earlier.total_ns) as f64 / 1000.0;
        let user = self.user_ticks.saturating_sub(earlier.user_ticks) as f64;
        let system = self.system_ticks.saturating_sub(earlier.system_ticks) as f64;
        let user_fraction = if user + system > 0.0 { user / (user + system) } else { 0.0 };
        CpuUsage { user: total * user_fraction, system: total * (1.0 - user_fraction), total }
    }
}

impl CpuUsage {
    /// Divides the time by `n`. Returns `None` if `n` is 0.
    pub fn per(self, n: u64) -> Option<CpuUsage> {
        let n = n as f64;
        (n > 0.0).then(|| CpuUsage { user: self.user / n, system: self.system / n, total: self.total / n })
    }
}

impl MemoryUsage {
    /// Returns the current resident memory of a process.
    pub fn of(pid: u32) -> Result<MemoryUsage, String> {
        let rollup = read(pid, "smaps_rollup")?;
        let field = |name| {
            kilobytes(&rollup, name).ok_or_else(|| format!("/proc/{pid}/smaps_rollup has no line {name}"))
        };
        Ok(MemoryUsage { resident: field("Rss:")? * 1024, anonymous: field("Anonymous:")? * 1024 })
    }
}

fn read(pid: u32, file: &str) -> Result<String, String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).map_err(|error| format!("{path}: {error} (is the process still running?)"))
}

/// Parses user and system time, the fields 14 and 15 of a stat file. The second field may contain spaces, and ends at
/// the last parenthesis.
fn ticks(stat: &str) -> Result<(u64, u64), String> {
    let after_name = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut fields = after_name.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    match (fields.next(), fields.next()) {
        (Some(Ok(user)), Some(Ok(system))) => Ok((user, system)),
        _ => Err("the stat file of the process has no CPU times".into()),
    }
}

/// Returns the time that all threads were running, as counted by the scheduler.
fn run_ns(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/task");
    let tasks = fs::read_dir(&path).map_err(|error| format!("{path}: {error}"))?;
    // A thread that has just ended is not counted.
    let stats = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
    Ok(stats.filter_map(|stat| stat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok())).sum())
}

fn kilobytes(rollup: &str, name: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_a_stat_file_after_the_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 123 45 0 0 20 0 1 0 5 1 1";
        assert_eq!(ticks(stat), Ok((123, 45)));
        assert!(ticks("7 (a) S").is_err());
    }

    #[test]
    fn parses_memory_in_kilobytes() {
        let rollup = "5581-7ffd ---p [rollup]\nRss:    884 kB\nPss: 1 kB\nAnonymous:   92 kB\n";
        assert_eq!(kilobytes(rollup, "Rss:"), Some(884));
        assert_eq!(kilobytes(rollup, "Anonymous:"), Some(92));
    }

    #[test]
    fn our_own_process_uses_time_and_memory() {
        let before = CpuTime::of(std::process::id()).unwrap();
        let usage = CpuTime::of(std::process::id()).unwrap().since(before);
        assert!(usage.total >= 0.0 && usage.user + usage.system <= usage.total + 1e-6);
        let memory = MemoryUsage::of(std::process::id()).unwrap();
        assert!(memory.resident >= memory.anonymous && memory.anonymous > 0);
    }

    #[test]
    fn user_and_system_time_divide_the_total() {
        let at = |total_ns, user_ticks, system_ticks| CpuTime { total_ns, user_ticks, system_ticks };
        let usage = at(9_000_000, 13, 47).since(at(1_000_000, 10, 41));
        assert_eq!(
            (usage.user, usage.system, usage.total),
            (8000.0 / 3.0, 8000.0 * (1.0 - 1.0 / 3.0), 8000.0)
        );
        assert_eq!(usage.per(0), None);
        assert_eq!(usage.per(4).map(|usage| usage.total), Some(2000.0));
    }
}
