//! The number of shards follows the CPU quota of the control group. These tests need root; without it they are skipped.

use crate::support::Server;
use crate::support::server::BINARY;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The arguments of a server that chooses the number of its shards.
const ARGUMENTS: [&str; 6] = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--app", "relay"];

fn shards_and_greeting(command: Command) -> (usize, String) {
    let server = Server::launch(command);
    server.assert_serves();
    let line =
        server.greeting.iter().find(|line| line.contains(" shards on ")).expect("the line of the shards");
    (server.stats().shards().count(), line.clone())
}

/// Returns a server in a mount namespace with these groups, from the outer to the inner one, each with its `cpu.max`.
fn in_groups(quotas: &[&str]) -> Command {
    // A process finds its group in /proc, and the files of the group below /sys/fs/cgroup. The kernel undoes a mount on a
    // file of one process when the process executes a program, hence /proc is replaced by links to its files.
    let script = r#"set -e; quotas=$1; shift; path=
        mount -t tmpfs none /sys/fs/cgroup
        while read -r quota; do
            path=$path/group; mkdir "/sys/fs/cgroup$path"; : >"/sys/fs/cgroup$path/cgroup.controllers"
            echo "$quota" >"/sys/fs/cgroup$path/cpu.max"
        done <<END
$quotas
END
        mount -t tmpfs none /mnt; mkdir /mnt/proc; mount --rbind /proc /mnt/proc; mount -t tmpfs none /proc
        ln -s /mnt/proc/* /proc; rm /proc/self; mkdir /proc/self; ln -s /mnt/proc/self/* /proc/self
        rm /proc/self/cgroup; echo "0::$path" >/proc/self/cgroup
        exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh", &quotas.join("\n"), BINARY]).args(ARGUMENTS);
    command
}

fn can_mount() -> bool {
    let mounts =
        Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none", "/sys/fs/cgroup"]).output();
    mounts.is_ok_and(|output| output.status.success())
}

#[test]
fn the_quotas_of_all_parent_groups_limit_the_shards() {
    let cores = std::thread::available_parallelism().unwrap().get();
    if !can_mount() || cores < 2 {
        return eprintln!("**** SKIPPED: this needs the right to mount, and two cores ****");
    }
    for quotas in [&["100000 100000", "max 100000"][..], &["max 100000", "190000 100000"], &["20000 100000"]]
    {
        let (shards, line) = shards_and_greeting(in_groups(quotas));
        assert_eq!(shards, 1, "{quotas:?}");
        assert!(
            line.contains(&format!("CPU quota of the control group allows 1 of {cores} cores")),
            "{line}"
        );
    }
    for quotas in [&["max 100000"][..], &["800000000 100000"]] {
        let (shards, line) = shards_and_greeting(in_groups(quotas));
        assert_eq!(shards, cores, "{quotas:?}");
        assert!(line.contains("shards on cores 0, 1"), "{line}");
    }
}

/// A control group of version 1 with a quota. Dropping it removes it.
struct GroupV1(PathBuf);

impl GroupV1 {
    fn new(quota_us: &str) -> Option<GroupV1> {
        let parent = PathBuf::from("/sys/fs/cgroup/cpu");
        let group = GroupV1(parent.join(format!("quickio-test-{}", std::process::id())));
        fs::metadata(parent.join("cpu.cfs_quota_us")).ok()?;
        fs::create_dir(&group.0).ok()?;
        fs::write(group.0.join("cpu.cfs_quota_us"), quota_us).ok()?;
        Some(group)
    }
}

impl Drop for GroupV1 {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0); // it is empty once its server has ended
    }
}

#[test]
fn a_real_quota_limits_the_shards() {
    let cores = std::thread::available_parallelism().unwrap().get();
    let Some(group) = GroupV1::new("150000").filter(|_| cores >= 2) else {
        return eprintln!("**** SKIPPED: this needs root, control groups of version 1, and two cores ****");
    };
    let mut command = Command::new("sh");
    command
        .args(["-c", "echo $$ >\"$0/cgroup.procs\"; exec \"$@\""])
        .arg(&group.0)
        .arg(BINARY)
        .args(ARGUMENTS);
    let (shards, line) = shards_and_greeting(command);
    assert_eq!(shards, 1);
    assert!(line.contains("on any core"), "{line}");
}
