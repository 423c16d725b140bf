//! The application that uses the whole API, with the address and undefined-behaviour sanitizers in the server's process.

use super::support::{Conversation, Server, server};
use super::{cc, data, object};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Returns the path of the address sanitizer's library, which must be loaded before all others, or `None` on machines
/// without it.
fn address_sanitizer() -> Option<String> {
    let output =
        Command::new("cc").arg("-print-file-name=libasan.so").output().expect("there is a C compiler");
    let file = String::from_utf8(output.stdout).expect("a path in UTF-8").trim().to_owned();
    Path::new(&file).is_absolute().then_some(file)
}

#[test]
fn sanitizers_find_nothing() {
    let Some(library) = address_sanitizer() else {
        eprintln!("**** SKIPPED: there is no libasan on this machine ****");
        return;
    };
    let flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"];
    let app = object(&cc::shared_object_with(&cc::in_tree("tests/capi/apps/all.c"), &flags));
    let mut command = server::command(server::BINARY, &["--clock", "manual", "--app", &app]);
    // The server does not free everything at exit. The application counts its own allocations.
    command.env("LD_PRELOAD", library).env("ASAN_OPTIONS", "detect_leaks=0,detect_stack_use_after_return=0");
    let mut server = Server::launch(command);
    for mut client in server.spread(4) {
        client.subscribe("/c/tick");
        assert_eq!(data(&mut client, "/c/misuse", ""), json!(""));
        assert_eq!(data(&mut client, "/c/statuses", ""), json!(""));
        assert_eq!(data(&mut client, "/c/late", ""), json!("late"));
        assert_eq!(data(&mut client, "/c/visits", ""), json!(1));
        client.request_code("/qio/on", r#"["/c/on/a","later"]"#, 200);
        for _ in 0..6 {
            client.request_code("/c/dialogue", "", 200);
        }
        client.request_code("/c/receipt", "", 200);
        client.request_code("/c/after", "", 200);
        client.request_code("/c/unasked", "", 200);
        client.request_code("/c/late-dialogue", "", 200);
    }
    server.advance(Duration::from_secs(1));
    server.signal("TERM");
    let status = server.exit();
    let log = server.log_with("stopped with");
    assert!(!log.contains("Sanitizer") && !log.contains("runtime error"), "{log}");
    assert_eq!(status.code(), Some(0), "{log}");
    super::assert_all_freed(&log);
}
