//! Kernels that do not allow io_uring: the server prints the reason and the remedy, and exits. With the remedy, the
//! seccomp profile for containers, it serves.

use crate::support::server::{BINARY, Server, command, run};
use std::fs;
use std::process::Command;

/// Starts the server under a seccomp filter that answers `io_uring_setup` with an error.
fn filtered(error: &str) -> Command {
    let launcher = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/without_io_uring.py");
    let mut python = Command::new("python3");
    python.args([launcher, error]).arg(BINARY);
    python.args(command(BINARY, &[]).get_args());
    python
}

#[test]
fn a_container_that_filters_io_uring() {
    let (code, stdout, log) = run(filtered("EPERM"));
    assert_ne!(code, Some(0));
    assert!(code.is_some(), "it ended by a signal: {log}");
    assert!(!stdout.contains("ready"), "{stdout}");
    assert!(log.contains("io_uring"), "what is missing: {log}");
    assert!(log.contains("seccomp"), "what does it, and so the remedy: {log}");
    assert!(log.contains("io_uring_disabled"), "the other thing that may do it: {log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_kernel_without_io_uring() {
    let (code, stdout, log) = run(filtered("ENOSYS"));
    assert_ne!(code, Some(0));
    assert!(code.is_some(), "it ended by a signal: {log}");
    assert!(!stdout.contains("ready"), "{stdout}");
    assert!(log.contains("io_uring") && log.contains("6.1"), "what is missing, and the oldest kernel: {log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn under_the_profile_for_containers_it_serves() {
    const NO_LIBSECCOMP: i32 = 77;
    let under_profile = || {
        let in_tree = |path: &str| format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
        let mut python = Command::new("python3");
        python.arg(in_tree("tests/scripts/under_seccomp.py")).arg(in_tree("scripts/seccomp.json"));
        python
    };
    if under_profile().arg("true").status().expect("python3 runs").code() == Some(NO_LIBSECCOMP) {
        return eprintln!("**** SKIPPED: there is no libseccomp.so.2 here ****");
    }
    let mut python = under_profile();
    python.arg(BINARY).args(command(BINARY, &[]).get_args());
    let server = Server::launch(python);
    server.assert_serves();
    assert_eq!(server.stats().shards().count(), 2, "the statistics endpoint serves too");
}

/// The accounting of delays, which is off by default. Dropping it restores the setting.
struct DelayAccounting(String);

const DELAY_ACCOUNTING: &str = "/proc/sys/kernel/task_delayacct";

impl DelayAccounting {
    /// Turns the accounting on, or returns `None` if that is not possible.
    fn start() -> Option<DelayAccounting> {
        let before = fs::read_to_string(DELAY_ACCOUNTING).ok()?;
        fs::write(DELAY_ACCOUNTING, "1").ok()?;
        Some(DelayAccounting(before))
    }
}

impl Drop for DelayAccounting {
    fn drop(&mut self) {
        let _ = fs::write(DELAY_ACCOUNTING, &self.0); // it could be written before
    }
}

#[test]
fn the_shards_of_an_idle_server_do_not_wait_for_a_disk() {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map_while(|number| number.parse().ok());
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let accounting = DelayAccounting::start();
    if version < (6, 15) || accounting.is_none() {
        return eprintln!(
            "**** SKIPPED: Linux {release} cannot tell how long a thread waited for a disk ****"
        );
    }
    let server = Server::start(&[]);
    // Not only the first wait after the start: an idle shard waits again and again.
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_millis(300));
        server.wait_for_shards(); // a wait is accounted when it ends
    }
    let mut shards = 0;
    for thread in fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap() {
        let stat = fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
        let (head, fields) = stat.rsplit_once(") ").unwrap();
        let name = head.split_once('(').unwrap().1;
        if !name.starts_with("quickio-") || name.starts_with("quickio-control") {
            continue;
        }
        // Field 42 of the whole line, in hundredths of a second. The line continues with field 3.
        let waited: u64 = fields.split(' ').nth(42 - 3).unwrap().parse().unwrap();
        assert!(waited < 10, "{name} waited {waited} hundredths of a second for a disk");
        shards += 1;
    }
    assert!(shards >= 2, "the threads of the shards were found");
}
