//! The server's process as the kernel tells of it: CPU time and resident memory.

use serde::Serialize;
use std::fs;

/// CPU time that a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    /// All of its threads, in nanoseconds.
    total_ns: u64,
    /// User and system time in ticks: exact together, and parted by where the timer tick found the process.
    user_ticks: u64,
    system_ticks: u64,
}

/// CPU time over a while, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spent {
    pub user: f64,
    pub system: f64,
    pub total: f64,
}

/// Resident memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All that is resident.
    pub resident: u64,
    /// Of that, what belongs to no file: heap, stacks, buffers.
    pub anonymous: u64,
}

impl Cpu {
    /// What the process has used so far.
    pub fn of(pid: u32) -> Result<Cpu, String> {
        let (user_ticks, system_ticks) = ticks(&read(pid, "stat")?)?;
        Ok(Cpu { total_ns: run_ns(pid)?, user_ticks, system_ticks })
    }

    /// What was used since `earlier`.
    pub fn since(self, earlier: Cpu) -> Spent {
        let total = self.total_ns.saturating_sub(earlier.total_ns) as f64 / 1000.0;
        let user = self.user_ticks.saturating_sub(earlier.user_ticks) as f64;
        let system = self.system_ticks.saturating_sub(earlier.system_ticks) as f64;
        let user_part = if user + system > 0.0 { user / (user + system) } else { 0.0 };
        Spent { user: total * user_part, system: total * (1.0 - user_part), total }
    }
}

impl Spent {
    /// For each of `n`; nothing where there is none.
    pub fn each(self, n: u64) -> Option<Spent> {
        let n = n as f64;
        (n > 0.0).then(|| Spent { user: self.user / n, system: self.system / n, total: self.total / n })
    }
}

impl Memory {
    /// What is resident now.
    pub fn of(pid: u32) -> Result<Memory, String> {
        let rollup = read(pid, "smaps_rollup")?;
        let field = |name| {
            kilobytes(&rollup, name).ok_or_else(|| format!("/proc/{pid}/smaps_rollup has no line {name}"))
        };
        Ok(Memory { resident: field("Rss:")? * 1024, anonymous: field("Anonymous:")? * 1024 })
    }
}

fn read(pid: u32, file: &str) -> Result<String, String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).map_err(|error| format!("{path}: {error} (is that process there?)"))
}

/// User and system time, fields 14 and 15; the second field may have spaces, and ends at the last parenthesis.
fn ticks(stat: &str) -> Result<(u64, u64), String> {
    let behind_name = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut fields = behind_name.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    match (fields.next(), fields.next()) {
        (Some(Ok(user)), Some(Ok(system))) => Ok((user, system)),
        _ => Err("a stat file without CPU times".into()),
    }
}

/// Time that all threads were running, by the scheduler's own count.
fn run_ns(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/task");
    let tasks = fs::read_dir(&path).map_err(|error| format!("{path}: {error}"))?;
    // A thread may end while we look: it then counts no more.
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
    fn a_stat_file_is_read_behind_the_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 123 45 0 0 20 0 1 0 5 1 1";
        assert_eq!(ticks(stat), Ok((123, 45)));
        assert!(ticks("7 (a) S").is_err());
    }

    #[test]
    fn memory_is_read_in_kilobytes() {
        let rollup = "5581-7ffd ---p [rollup]\nRss:    884 kB\nPss: 1 kB\nAnonymous:   92 kB\n";
        assert_eq!(kilobytes(rollup, "Rss:"), Some(884));
        assert_eq!(kilobytes(rollup, "Anonymous:"), Some(92));
    }

    #[test]
    fn our_own_process_uses_time_and_memory() {
        let before = Cpu::of(std::process::id()).unwrap();
        let spent = Cpu::of(std::process::id()).unwrap().since(before);
        assert!(spent.total >= 0.0 && spent.user + spent.system <= spent.total + 1e-6);
        let memory = Memory::of(std::process::id()).unwrap();
        assert!(memory.resident >= memory.anonymous && memory.anonymous > 0);
    }

    #[test]
    fn user_and_system_time_part_the_total() {
        let at = |total_ns, user_ticks, system_ticks| Cpu { total_ns, user_ticks, system_ticks };
        let spent = at(9_000_000, 13, 47).since(at(1_000_000, 10, 41));
        assert_eq!(
            (spent.user, spent.system, spent.total),
            (8000.0 / 3.0, 8000.0 * (1.0 - 1.0 / 3.0), 8000.0)
        );
        assert_eq!(spent.each(0), None);
        assert_eq!(spent.each(4).map(|each| each.total), Some(2000.0));
    }
}
