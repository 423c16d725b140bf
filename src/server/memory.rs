//! The memory that the process may use.

use std::fs;
use std::path::Path;

/// The folder in which version 2 of control groups is mounted.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// Returns the memory that this process may use, in bytes: that of the machine, or less if a control group limits it. The
/// result is `usize::MAX` if the kernel does not tell.
pub fn available() -> usize {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| machine(&text));
    let group = fs::read_to_string("/proc/self/cgroup").ok();
    let group = group.and_then(|text| group_limit(&text, Path::new(CONTROL_GROUPS)));
    machine.unwrap_or(usize::MAX).min(group.unwrap_or(usize::MAX))
}

/// Parses the memory of the machine from `/proc/meminfo`.
fn machine(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

/// Returns the smallest limit of a control group and of the groups above it. `membership` is `/proc/self/cgroup`.
fn group_limit(membership: &str, root: &Path) -> Option<usize> {
    let group = membership.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let limit = |folder: &Path| {
        let text = fs::read_to_string(folder.join("memory.max")).ok()?;
        text.trim().parse::<usize>().ok()
    };
    root.join(group).ancestors().take_while(|folder| folder.starts_with(root)).filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_memory() {
        assert_eq!(machine("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert_eq!(machine("MemFree: 1 kB\n"), None);
        assert!(available() > 64 << 20);
    }

    #[test]
    fn the_smallest_limit_of_all_groups_above_counts() {
        let root = std::env::temp_dir().join(format!("quickio-memory-{}", std::process::id()));
        let groups = root.join("a/b");
        fs::create_dir_all(&groups).unwrap();
        let limit = |membership: &str| group_limit(membership, &root);
        assert_eq!(limit("0::/a/b\n"), None);
        fs::write(root.join("a/memory.max"), "5000\n").unwrap();
        fs::write(groups.join("memory.max"), "max\n").unwrap();
        assert_eq!(limit("1:cpu:/x\n0::/a/b\n"), Some(5000));
        fs::write(groups.join("memory.max"), "4000\n").unwrap();
        assert_eq!((limit("0::/a/b\n"), limit("0::/\n"), limit("")), (Some(4000), None, None));
        fs::remove_dir_all(&root).unwrap();
    }
}
