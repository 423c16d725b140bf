//! A server of raw TCP that does what a test wants, on a socket of its own.

use crate::support::DEADLINE;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// A listener for the commands.
pub struct FakeServer {
    listener: TcpListener,
}

/// A connection of a command.
pub struct FakeConnection {
    stream: TcpStream,
}

impl FakeServer {
    pub fn start() -> FakeServer {
        FakeServer { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    /// Returns the URL for `--server`.
    pub fn url(&self) -> String {
        format!("tcp://{}", self.address())
    }

    pub fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    /// Accepts a connection, and greets.
    pub fn accept(&self) -> FakeConnection {
        let (mut stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut greeting = [0; 9];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"/qio/ohai");
        stream.write_all(&greeting).unwrap();
        FakeConnection { stream }
    }
}

impl FakeConnection {
    /// Returns the next event from the command, or `None` at the end of its stream.
    pub fn event(&mut self) -> Option<String> {
        let mut len = [0; 8];
        self.stream.read_exact(&mut len).ok()?;
        let mut text = vec![0; u64::from_be_bytes(len) as usize];
        self.stream.read_exact(&mut text).unwrap();
        Some(String::from_utf8(text).unwrap())
    }

    #[track_caller]
    pub fn expect(&mut self, event: &str) {
        assert_eq!(self.event().as_deref(), Some(event));
    }

    pub fn send(&mut self, event: &str) {
        self.stream.write_all(&(event.len() as u64).to_be_bytes()).unwrap();
        self.stream.write_all(event.as_bytes()).unwrap();
    }

    /// Answers a callback with the code 200.
    pub fn accept(&mut self, callback: u64) {
        self.send(&format!("/qio/callback/{callback}:0={{\"code\":200,\"data\":null}}"));
    }
}
