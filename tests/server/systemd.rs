//! The systemd unit under a real systemd: `tests/scripts/systemd.sh`.

use crate::support::server::BINARY;
use std::net::TcpListener;
use std::process::Command;

const SKIPPED: i32 = 77;

#[test]
fn the_unit_starts_reloads_restarts_and_stops_the_server() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/systemd.sh");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = Command::new("bash").args([script, BINARY, &port.to_string()]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    match output.status.code() {
        Some(SKIPPED) => eprintln!("**** SKIPPED: {text} ****"),
        code => assert_eq!(code, Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr)),
    }
}
