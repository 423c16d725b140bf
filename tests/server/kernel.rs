//! Kernels that do not allow io_uring: the server prints the reason and the remedy, and exits. With the remedy, the
//! seccomp profile for containers, it serves.

use crate::support::server::{BINARY, Server, command, run};
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
