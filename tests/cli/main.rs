//! Tests of the commands of `quickio` that are not servers: the real binary, in real shells and terminals.

mod clients;
mod documents;
mod examples;
mod folder;
mod packages;
mod peer;
mod readme;
mod shells;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the server's tests need the rest")]
mod support;
mod token;
mod top;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;
use support::DEADLINE;
use support::server::BINARY;

/// Returns the command `quickio` with these arguments, without the variables of the environment that it would read.
pub fn quickio(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments);
    for (name, _) in std::env::vars() {
        if name.starts_with("QUICKIO_") {
            command.env_remove(name);
        }
    }
    command
}

/// The end of a command.
pub struct CommandEnd {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command with this text as its standard input.
pub fn run(mut command: Command, input: &str) -> CommandEnd {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A command that ends early does not read all.
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("the command ends");
    let _ = writer.join().unwrap();
    CommandEnd {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A command that runs while the test does something. Dropping it kills it.
pub struct Running {
    child: Child,
    pub stdout: Receiver<String>,
    pub stderr: Receiver<String>,
}

impl Running {
    /// Starts a command.
    pub fn start(mut command: Command) -> Running {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Running { child, stdout, stderr }
    }

    /// Waits for a line of standard error that contains these words.
    #[track_caller]
    pub fn expect_report(&self, words: &str) -> String {
        let mut seen = Vec::new();
        while let Ok(line) = self.stderr.recv_timeout(DEADLINE) {
            if line.contains(words) {
                return line;
            }
            seen.push(line);
        }
        panic!("no line of standard error contains {words:?}: {seen:?}")
    }

    /// Returns the next line of standard output.
    #[track_caller]
    pub fn line(&self) -> String {
        self.stdout.recv_timeout(DEADLINE).expect("a line of standard output")
    }

    /// Sends a signal, such as `INT`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits until the command has ended.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the command does not end");
            thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let _ = sender.send(line); // fails after the test has ended
        }
    });
    receiver
}
