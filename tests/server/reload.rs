//! SIGHUP reads the settings again: what can change while the server runs is applied, the rest is named, and an invalid file
//! changes nothing.

use crate::support::server::{BINARY, command};
use crate::support::{Conversation, Server};
use std::fs;
use std::path::PathBuf;

/// An application that answers with its setting `greeting`.
const GREETER: &str = "from quickio import app

@app.event('/greet')
async def greet(event):
    return app.settings.get('greeting', 'nothing')
";

/// The files of a server. Dropping them removes them.
struct Files {
    settings: PathBuf,
    script: PathBuf,
}

impl Files {
    fn new(name: &str, settings: &str) -> Files {
        let path = |ending: &str| {
            std::env::temp_dir().join(format!("quickio_reload_{}_{name}{ending}", std::process::id()))
        };
        let files = Files { settings: path(".toml"), script: path("_greeter.py") };
        fs::write(&files.script, GREETER).unwrap();
        files.write(settings);
        files
    }

    /// Writes the settings, with the section of the application at their end.
    fn write(&self, settings: &str) {
        let name = self.script.file_stem().unwrap().to_str().unwrap();
        fs::write(&self.settings, settings.replace("[app]", &format!("[app-settings.{name}]"))).unwrap();
    }

    fn start(&self, arguments: &[&str]) -> Server {
        let app = format!("{},instances=2", self.script.display());
        let config = ["--config", self.settings.to_str().unwrap()];
        Server::launch(command(BINARY, &[&config[..], arguments, &["--app", &app]].concat()))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.settings);
        let _ = fs::remove_file(&self.script);
    }
}

fn greeting(server: &Server) -> String {
    server.websocket().request_code("/greet", "", 200).body["data"].as_str().unwrap().to_owned()
}

#[test]
fn changed_settings_are_applied_or_named() {
    let files = Files::new("changed", "log-level = 'info'\n[app]\ngreeting = 'hello'\n");
    let server = files.start(&[]);
    assert_eq!(greeting(&server), "hello");
    files.write(
        "log-level = 'debug'\nclients-max = 77\norigin = 'http://a.example'\n[app]\ngreeting = 'hi'\n",
    );
    server.signal("HUP");
    let log = server.log_with("the reload is complete: 2 of 2 workers were replaced");
    assert!(log.contains("changed settings that take effect without a restart: log-level"), "{log}");
    assert!(log.contains("changed settings take effect only after a restart: origin, clients-max"), "{log}");
    assert_eq!(greeting(&server), "hi", "the new workers have the new settings");
    // Lines of the level debug are logged from now on: each connection that ends has one.
    server.log_with("DEBUG");

    // Settings that wait for a restart are named again, and those that were applied are not.
    server.eventually_is("workers_started", 4);
    server.signal("HUP");
    server.eventually_is("workers_started", 6);
    let log = server.log_with("the reload is complete: 2 of 2 workers were replaced");
    assert_eq!(log.matches("without a restart: log-level").count(), 1, "{log}");

    // The section of the application is removed: this is one change.
    files.write("log-level = 'debug'\n");
    for started in [8, 10] {
        server.signal("HUP");
        server.eventually_is("workers_started", started);
    }
    let log = server.log_with("the reload is complete");
    assert_eq!(log.matches("the new workers get changed settings").count(), 2, "{log}");
    assert_eq!(greeting(&server), "nothing");
    server.assert_serves();
}

#[test]
fn an_invalid_file_changes_nothing() {
    let files = Files::new("invalid", "log-level = 'info'\n[app]\ngreeting = 'hello'\n");
    let server = files.start(&[]);
    files.write("log-level = 'debug'\nclients-max = 'many'\n[app]\ngreeting = 'hi'\n");
    server.signal("HUP");
    let log = server.log_with("the reload failed");
    let line = log.lines().find(|line| line.contains("the reload failed")).unwrap();
    assert!(line.contains("clients-max cannot be `many`") && line.contains(".toml:2:15"), "{line}");
    assert!(!log.contains("replacing the workers"), "{log}");
    assert_eq!(greeting(&server), "hello");
    // The next valid file is used.
    files.write("[app]\ngreeting = 'hi'\n");
    server.signal("HUP");
    server.log_with("the reload is complete: 2 of 2");
    assert_eq!(greeting(&server), "hi");
}

#[test]
fn workers_that_cannot_be_replaced_are_counted() {
    let files = Files::new("broken", "[app]\ngreeting = 'hello'\n");
    let server = files.start(&[]);
    fs::write(&files.script, "this is not Python").unwrap();
    server.signal("HUP");
    server.log_with("the reload has ended: 0 of 2 workers were replaced");
    assert_eq!(greeting(&server), "hello");
}

#[test]
fn a_server_without_workers_reloads_too() {
    let settings = std::env::temp_dir().join(format!("quickio_reload_{}_none.toml", std::process::id()));
    fs::write(&settings, "shutdown-timeout = '9s'\n").unwrap();
    let mut server = Server::start(&["--config", settings.to_str().unwrap()]);
    fs::write(&settings, "shutdown-timeout = '8s'\nshards = 7\n[app-settings.relay]\nx = 1\n").unwrap();
    server.signal("HUP");
    let log = server.log_with("the reload is complete: 0 of 0");
    assert!(log.contains("without a restart: shutdown-timeout"), "{log}");
    // The flag --shards overrides the file, as it did at the start.
    assert!(log.contains("only after a restart: app-settings.relay"), "{log}");
    server.signal("TERM");
    assert_eq!(server.exit().code(), Some(0));
    fs::remove_file(settings).unwrap();
}
