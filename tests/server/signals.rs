//! Signals that do not stop the server: SIGUSR1 logs a summary, and others are ignored with a line in the log.

use crate::support::Server;

#[test]
fn sigusr1_logs_a_summary_of_the_statistics() {
    for arguments in [&[][..], &["--admin", "off"]] {
        let server = Server::start(arguments);
        let _clients = [server.websocket(), server.websocket()];
        server.signal("USR1");
        let log = server.log_with("as asked for by SIGUSR1");
        let line = log.lines().find(|line| line.contains("SIGUSR1")).unwrap();
        assert!(line.contains("shards=2") && line.contains(" clients=2 "), "{arguments:?}: {line}");
        server.assert_serves();
    }
}

#[test]
fn signals_without_a_meaning_do_not_end_the_server() {
    let mut server = Server::start(&[]);
    for name in ["USR2", "ALRM", "VTALRM", "PROF", "IO", "PWR"] {
        server.signal(name);
        server.log_with(&format!("SIG{name} ignored"));
    }
    server.signal("16"); // dash has no name for it
    server.log_with("SIGSTKFLT ignored");
    for name in ["XFSZ", "PIPE"] {
        server.signal(name);
    }
    server.signal("WINCH");
    server.signal("CONT");
    server.assert_serves();
    server.signal("TERM");
    assert_eq!(server.exit().code(), Some(0), "a stop signal still stops it");
}
