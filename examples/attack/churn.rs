//! Peers that connect, send and disconnect again and again.

use super::flood::Opening;
use super::target::Target;
use super::wire;
use socket2::SockRef;
use std::collections::VecDeque;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

/// Peers that disconnect once `connections` of them are open, the oldest first.
pub struct Churn<First> {
    pub connections: usize,
    pub opening: Opening,
    /// Disconnects with a reset, as a peer whose machine has restarted.
    pub resets: bool,
    /// Adds what a new peer sends.
    pub first: First,
}

impl<First: FnMut(&mut Vec<u8>)> Churn<First> {
    /// Connects and disconnects until the attack is over.
    pub fn run(mut self, target: &mut Target) {
        let mut open = VecDeque::new();
        while !target.is_over() {
            if open.len() >= self.connections.max(1) {
                open.pop_front();
            }
            open.extend(self.open(target));
        }
    }

    fn open(&mut self, target: &mut Target) -> Option<TcpStream> {
        let mut socket = target.connect(None)?;
        if self.resets {
            SockRef::from(&socket).set_linger(Some(Duration::ZERO)).ok()?;
        }
        if self.opening == Opening::WebSocket && wire::upgrade(&mut socket).is_err() {
            target.refused += 1;
            return None;
        }
        let mut first = Vec::new();
        (self.first)(&mut first);
        if socket.write_all(&first).is_ok() {
            target.bytes_sent += first.len() as u64;
        }
        Some(socket)
    }
}
