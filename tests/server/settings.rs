//! Settings: an error names the setting, its place and the allowed values. Flags override environment variables, which
//! override the file.

use crate::settings_file::SettingsFile;
use crate::support::server::{BINARY, command, run};
use crate::support::{Conversation, Server};
use std::process::Command;

fn quickio(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments);
    command
}

/// Expects that the command exits with code 2, does not serve, and that its message contains all of these words.
#[track_caller]
fn assert_refused(command: Command, words: &[&str]) {
    let name = format!("{command:?}");
    let (code, stdout, stderr) = run(command);
    assert_eq!(code, Some(2), "{name}: {stdout}{stderr}");
    assert!(!stdout.contains("ready"), "{name}: {stdout}");
    for word in words {
        assert!(stderr.contains(word), "{name}: no {word:?} in {stderr:?}");
    }
}

#[test]
fn bad_flags() {
    let table: [(&[&str], &[&str]); 16] = [
        (&["--clients-maxx", "5"], &["clients-maxx", "clients-max"]),
        (&["--nonsense"], &["nonsense"]),
        (&["nonsense"], &["nonsense"]),
        (&["--clients-max"], &["clients-max"]),
        (&["--clients-max", "many"], &["clients-max", "many"]),
        (&["--clients-max", "-1"], &["clients-max", "-1"]),
        (&["--clients-max", "0"], &["clients-max"]),
        (&["--clients-max", "99999999999999999999999"], &["clients-max"]),
        (&["--clients-subs-pressure", "101"], &["clients-subs-pressure", "100"]),
        (&["--shards", "129"], &["shards", "128"]),
        (&["--timeout", "soon"], &["timeout", "soon"]),
        (&["--timeout", "10"], &["timeout", "10"]),
        (&["--listen", "localhost"], &["listen", "localhost"]),
        (&["--clock", "broken"], &["clock", "manual"]),
        (&["--heartbeat-challenge", "1h"], &["heartbeat-challenge", "heartbeat-timeout"]),
        (&["--config", "/nonexistent/file.toml"], &["/nonexistent/file.toml"]),
    ];
    for (arguments, words) in table {
        assert_refused(quickio(arguments), words);
    }
    assert_refused(quickio(&["--app", "no-such-app"]), &["no-such-app", "relay", "clienttest"]);
}

#[test]
fn bad_files() {
    let table = [
        ("unknown", "shards = 2\nclient-max = 5\n", &["client-max", ":2", "clients-max"] as &[&str]),
        (
            "bad-value",
            "# a comment\n\nclients-subs-pressure = 200\n",
            &["clients-subs-pressure", "200", ":3"],
        ),
        ("wrong-type", "clients-max = true\n", &["clients-max", "true", ":1"]),
        ("no-toml", "shards = 2\nthis is not TOML\n", &["no-toml", ":2"]),
    ];
    for (name, text, words) in table {
        let file = SettingsFile::new(name, text);
        assert_refused(quickio(&["--config", file.path()]), &[words, &[file.path()]].concat());
    }
}

#[test]
fn bad_variables() {
    let mut command = quickio(&[]);
    command.env("QUICKIO_CLIENTS_MAX", "many");
    assert_refused(command, &["QUICKIO_CLIENTS_MAX", "many"]);
    let mut command = quickio(&[]);
    command.env("QUICKIO_CLIENT_MAX", "5");
    assert_refused(command, &["QUICKIO_CLIENT_MAX"]);
}

#[test]
fn flags_override_variables_and_variables_override_the_file() {
    let file = SettingsFile::new(
        "precedence",
        "public-address = \"file\"\nmessage-bytes-max = 1000\nclients-max = 7\n",
    );
    let hostname = |command: Command| {
        let server = Server::launch(command);
        server.websocket().request_code("/qio/hostname", "", 200).body["data"].clone()
    };
    let with_file = |arguments: &[&str]| command(BINARY, &[&["--config", file.path()], arguments].concat());
    assert_eq!(hostname(with_file(&[])), "file");
    let mut environment = with_file(&[]);
    environment.env("QUICKIO_PUBLIC_ADDRESS", "environment");
    assert_eq!(hostname(environment), "environment");
    let mut flag = with_file(&["--public-address", "flag"]);
    flag.env("QUICKIO_PUBLIC_ADDRESS", "environment");
    assert_eq!(hostname(flag), "flag");
}

#[test]
fn the_generated_settings_file_is_complete_and_valid() {
    let (code, help, _) = run(quickio(&["--help"]));
    assert_eq!(code, Some(0));
    let (code, generated, _) = run(quickio(&["--generate-config"]));
    assert_eq!(code, Some(0));
    for name in ["listen", "admin", "shards", "timeout", "clients-subs-total", "outbox-bytes-max", "clock"] {
        assert!(help.contains(&format!("--{name}")), "--help has no {name}");
        assert!(generated.contains(&format!("{name} = ")), "--generate-config has no {name}");
    }
    let (code, version, _) = run(quickio(&["--version"]));
    assert_eq!((code, version.as_str()), (Some(0), concat!("quickio ", env!("CARGO_PKG_VERSION"))));
    // As generated, and with every default uncommented.
    let uncommented = generated.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if key.contains(" = ") && key.starts_with(|c: char| c.is_ascii_lowercase()) => key,
        _ => line,
    });
    let uncommented = uncommented.collect::<Vec<_>>().join("\n");
    assert!(uncommented.lines().any(|line| line.starts_with("clients-max = ")), "{uncommented}");
    for (name, text) in [("generated", &generated), ("uncommented", &uncommented)] {
        let file = SettingsFile::new(name, text);
        Server::start(&["--config", file.path()]).assert_serves();
    }
}

#[test]
fn settings_that_are_probably_mistakes_cause_warnings() {
    let file = SettingsFile::new("misplaced", "[app-settings.relay]\nlisten = \"127.0.0.1:1\"\n");
    let server = Server::start(&["--config", file.path()]);
    let log = server.log_with("above the first section");
    let line = log.lines().find(|line| line.contains("above the first section")).unwrap();
    assert!(line.contains("WARN") && line.contains("`listen`") && line.contains(".toml:2:1"), "{line}");
    assert!(!log.contains("no application runs"), "{log}");

    let mut nothing_served = Command::new(BINARY);
    nothing_served.args(["--listen", "127.0.0.1:0", "--admin", "off", "--shards", "1"]);
    let server = Server::launch(nothing_served);
    let log = server.log_with("no application runs");
    assert!(log.contains("app = [\"relay\"]"), "{log}");
}

#[test]
fn the_shipped_settings_serve_an_application() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/quickio.toml");
    let arguments = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "2"];
    let mut command = quickio(&["--config", shipped]);
    command.args(arguments);
    let server = Server::launch(command);
    let mut client = server.websocket();
    client.subscribe("/relay/x");
    client.request_code("/relay/x", "1", 200);
    assert_eq!(client.event().path, "/relay/x");
}

#[test]
fn an_error_names_the_address_that_is_in_use() {
    let server = Server::start(&[]);
    // The listener is not that of another QuickIO server, because such a server would share the port.
    let in_use = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = in_use.local_addr().unwrap().to_string();
    for flag in ["--listen", "--admin"] {
        let (code, stdout, stderr) = run(command(BINARY, &[flag, &address]));
        assert!(code.is_some_and(|code| code != 0), "{flag}: {stderr}");
        assert!(stderr.contains(&address), "{flag}: {stderr}");
        assert!(!stdout.contains("ready") && !stderr.contains("panicked"), "{flag}: {stderr}");
    }
    server.assert_serves();
}

#[test]
fn logs_are_text_or_json() {
    let mut server = Server::start(&["--log-format", "json", "--log-level", "debug"]);
    server.assert_serves();
    server.signal("TERM");
    assert_eq!(server.exit().code(), Some(0));
    let log = server.log_with("\n");
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("each line is one JSON object");
        assert!(line.is_object());
    }
}
