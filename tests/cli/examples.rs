//! The examples in the help of each command: all of them run, with addresses and files of the test.

use crate::folder::{Folder, document};
use crate::support::{Conversation, Server};
use crate::{Running, quickio, run};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// What prints a help, in an order in which the examples find the files that others have made.
const HELPS: &[&[&str]] = &[
    &["help", "token"],
    &["help", "check"],
    &["help", "explain"],
    &["help", "pub"],
    &["help", "sub"],
    &["help", "top"],
    &["help", "test-app"],
    &["help", "completions"],
    &["help", "man"],
    &["help", "clienttest"],
    &["help", "help"],
    &["help"],
];

/// Settings with which users have tokens.
const SETTINGS: &str = r#"
app = ["relay"]
auth = "optional"
[[auth-keys]]
id = "mine"
algorithm = "HS256"
secret-file = "HERE/secret"
[[rules]]
path = "/user/{user}/**"
on = "owner"
"#;

/// An application with a self-test.
const APPLICATION: &str = "examples/chat.py";

/// Paths to which an event is sent again and again, while the examples wait for one.
const PATHS: &[&str] = &["/relay/room", "/relay/jobs", "/relay/a", "/relay/log"];

/// Returns the examples of a help: the lines that are indented by two below `Examples:`.
fn examples(help: &str) -> Vec<String> {
    let section = help.split("\nExamples:\n\n").nth(1).expect("the help has examples");
    let section = section.split("\n\n").next().unwrap();
    let indented =
        |line: &str| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')).map(str::to_owned);
    section.lines().filter_map(indented).collect()
}

/// Returns an example that ends by itself, with the names of this test.
fn adapted(example: &str, server: &Server, here: &str) -> String {
    let url = format!("ws://{}", server.address());
    let admin = format!("http://{}", server.admin());
    let mut line = example.to_owned();
    for (text, replacement) in [
        ("--config /etc/quickio/quickio.toml", &*format!("--config {here}/quickio.toml")),
        // The server has read its secret already.
        ("> secret)", "> another-secret)"),
        ("--token-file token.jwt", "--token-file jwt"),
        ("wss://example.com", &url),
        ("ws://other:8080", &url),
        ("https://10.0.0.5:8081 --tls-ca ca.pem --interval 5s", &format!("{admin} --interval 1s --once")),
        ("--listen 0.0.0.0:80", "--listen 127.0.0.1:0 --admin off"),
        ("/srv/apps", "."),
        ("./chat.so", "./chat.py"),
        ("/usr/local/share", here),
        ("~/.config", &format!("{here}/.config")),
        ("tail -f", "tail"),
        ("| jq .data", "| grep -c data"),
        ("| man -l -", "| mandoc -T lint -W error"),
        (" /a ", " /relay/a "),
    ] {
        line = line.replace(text, replacement);
    }
    if line.starts_with("quickio check --config") {
        line += " --listen 127.0.0.1:0 --admin off";
    }
    if line.starts_with("quickio sub") && !line.contains("--count") {
        line = line.replacen("quickio sub", "quickio sub --count 1", 1);
    }
    if line == "quickio top" || line == "quickio top --once" {
        line = format!("quickio top --once --admin {admin}");
    }
    line
}

/// Runs an example that is a server, until it is ready.
fn run_server(line: &str, folder: &Folder) {
    let addresses = "--listen 127.0.0.1:0 --admin 127.0.0.1:0";
    let proxy = if line.contains("clienttest") { "--proxy 127.0.0.1:0" } else { "" };
    let mut server = Running::start(folder.shell(&format!("exec {line} {addresses} {proxy}")));
    while server.line() != "ready" {}
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{line}");
}

/// Ends the thread that sends, also if an example fails.
struct SetOnDrop<'f>(&'f AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn run_example(example: &str, server: &Server, folder: &Folder) {
    let line = adapted(example, server, &folder.path(""));
    if line.starts_with("quickio clienttest") || line.starts_with("quickio --app") {
        return run_server(&line, folder);
    }
    let mut shell = folder.shell(&format!("set -o pipefail; {line}"));
    shell.env("QUICKIO_SERVER", format!("ws://{}", server.address()));
    let output = shell.output().expect("bash runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{example}: {line}: {errors}{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn the_examples_of_all_commands_work() {
    let folder = Folder::new();
    folder.printed(
        "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem; chmod 600 key.pem",
    );
    folder.printed(
        "mkdir -p zsh/site-functions man/man1 .config/fish/completions; openssl rand -hex 32 > secret",
    );
    folder.printed("chmod 600 secret");
    let settings = folder.write("quickio.toml", SETTINGS.replace("HERE/", &folder.path("")));
    for name in ["chat.py", "votes.py"] {
        folder.write(name, document(APPLICATION));
    }
    folder.write("access.log", "a \"line\"\n");
    folder.write("events.txt", "/relay/say {\"text\":\"hi\"}\n");

    let server = Server::start(&["--config", &settings]);
    let mut sender = server.websocket();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for path in PATHS {
                    sender.request_code(path, "{\"x\":1}", 200);
                }
                thread::sleep(Duration::from_millis(5)); // leaves the core to the examples
            }
        });
        let _end = SetOnDrop(&done);
        for arguments in HELPS {
            let help = run(quickio(arguments), "").stdout;
            let examples = examples(&help);
            assert!(!examples.is_empty(), "{arguments:?}: {help}");
            for example in examples {
                run_example(&example, &server, &folder);
            }
        }
    });
}
