//! `quickio top` in a terminal: tmux, which scripts/test.sh installs.

use crate::support::server::BINARY;
use crate::support::tls::Authority;
use crate::support::{DEADLINE, Server};
use crate::{quickio, run};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

/// A terminal with a shell. Dropping it ends both.
struct Terminal(String);

impl Terminal {
    fn open(name: &str) -> Terminal {
        let terminal = Terminal(format!("quickio-{}-{name}", std::process::id()));
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "100",
            "-y",
            "40",
            "env PS1= bash --norc",
        ]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output: Output =
            Command::new("tmux").args(["-L", &self.0]).args(arguments).output().expect("install tmux");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Waits until the screen has this text, and returns the screen.
    #[track_caller]
    fn expect(&self, text: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let screen = self.tmux(&["capture-pane", "-p"]);
            if screen.contains(text) {
                return screen;
            }
            assert!(Instant::now() < deadline, "the screen has no {text:?}: {screen}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Expects that a program has left the terminal as it was: its screen, its cursor, and its echo.
    #[track_caller]
    fn assert_restored(&self) {
        self.keys(&["echo $(stty -a | grep -oE '.(echo|icanon)\\b' | tr -d '\\n')restored", "Enter"]);
        let screen = self.expect("icanon echorestored");
        assert!(!screen.contains("quickio 0."), "{screen}");
        let state = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        assert_eq!(state.trim(), "0 1");
        self.keys(&["clear", "Enter"]);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-L", &self.0, "kill-server"]).output();
    }
}

#[test]
fn it_refreshes_resizes_and_restores_the_terminal() {
    let mut server = Server::start(&[]);
    let terminal = Terminal::open("top");
    let top = format!("{BINARY} top --interval 100ms --admin {}; echo \"ended=$?.\"", server.admin());
    terminal.keys(&[&top, "Enter"]);
    terminal.expect("connections        0");
    let client = server.websocket();
    terminal.expect("connections        1");
    terminal.tmux(&["resize-window", "-x", "50", "-y", "8"]);
    let deadline = Instant::now() + DEADLINE;
    while terminal.tmux(&["capture-pane", "-p"]).contains("latency") {
        assert!(Instant::now() < deadline, "the smaller screen is not drawn");
        thread::sleep(Duration::from_millis(20));
    }
    terminal.expect("connections        1   clients        1");
    terminal.tmux(&["resize-window", "-x", "100", "-y", "40"]);
    terminal.expect("latency");
    terminal.keys(&["q"]);
    terminal.expect("ended=0.");
    terminal.assert_restored();

    for (keys, ended) in [("Escape", "ended=0."), ("C-c", "ended=0.")] {
        terminal.keys(&[&top, "Enter"]);
        terminal.expect("latency");
        terminal.keys(&[keys]);
        terminal.expect(ended);
        terminal.assert_restored();
    }
    // A signal ends it as it ends every program.
    terminal.keys(&[&top, "Enter"]);
    terminal.expect("latency");
    let pid = terminal.tmux(&["display-message", "-p", "#{pane_pid}"]);
    let child = Command::new("pgrep").args(["-P", pid.trim(), "-x", "quickio"]).output().unwrap();
    let child = String::from_utf8(child.stdout).unwrap();
    assert!(Command::new("kill").args(["-TERM", child.trim()]).status().unwrap().success(), "{child:?}");
    terminal.expect("ended=143.");
    terminal.assert_restored();

    // A server that ends is reported, and top goes on.
    terminal.keys(&[&top, "Enter"]);
    terminal.expect("latency");
    drop(client);
    server.signal("TERM");
    server.exit();
    terminal.expect("no connection to http://");
    terminal.keys(&["q"]);
    terminal.expect("ended=0.");
    terminal.assert_restored();
}

#[test]
fn once_prints_an_interval_without_a_terminal() {
    let authority = Authority::new();
    let [cert, key] = authority.issue("server", &["127.0.0.1"]);
    let server = Server::start(&[
        "--listen",
        "plain://127.0.0.1:0",
        "--admin",
        "tls://127.0.0.1:0",
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
    ]);
    let _client = server.websocket();
    let url = format!("https://{}", server.admin().trim_start_matches("tls://"));
    let with = |arguments: &[&str]| run(quickio(&[&["top"], arguments].concat()), "");
    let end =
        with(&["--once", "--interval", "100ms", "--admin", &url, "--tls-ca", &authority.path("ca.pem")]);
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    for words in ["quickio 0.", "connections        1", "delivery", "\nshard "] {
        assert!(end.stdout.contains(words), "{words}: {}", end.stdout);
    }
    for (arguments, code, message) in [
        (&[][..], 1, "--once"),
        (&["--once", "--admin", "127.0.0.1:1"], 1, "no connection to http://127.0.0.1:1"),
        (&["--once", "--admin", "ws://127.0.0.1:1"], 2, "http:// or https://"),
        (&["--interval", "1ms"], 2, "at least 100ms"),
    ] {
        let end = with(arguments);
        assert_eq!(end.code, Some(code), "{arguments:?}: {}", end.stderr);
        assert!(end.stderr.contains(message), "{arguments:?}: {}", end.stderr);
    }
    let password = authority.path("password");
    std::fs::write(&password, "correct horse battery\n").unwrap();
    let guarded = Server::start(&["--admin-password-file", &password]);
    let admin = ["--once", "--interval", "100ms", "--admin", guarded.admin()];
    let end = with(&admin);
    assert!(end.code == Some(1) && end.stderr.contains("a password is needed"), "{}", end.stderr);
    let end = with(&[&admin[..], &["--admin-password-file", &password]].concat());
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    let end = with(&["--once", "--admin", server.address()]);
    assert!(end.code == Some(1) && end.stderr.contains("HTTP 404"), "{}", end.stderr);
}
