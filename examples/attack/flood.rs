//! Peers that stay connected, and send and read at rates of their own.

use super::target::Target;
use super::wire;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

/// The most that a peer sends before the next one is visited, in bytes.
const BYTES_A_VISIT: usize = 256 << 10;

/// How long the attack rests if no peer can send or read.
const REST: Duration = Duration::from_micros(500);

/// The way in which peers read.
#[derive(Clone, Copy)]
pub enum Reading {
    All,
    Never,
    /// At most so many bytes each time, with a pause after it.
    Slowly(usize, Duration),
}

/// The first thing that peers do.
#[derive(Clone, Copy, PartialEq)]
pub enum Opening {
    /// They only connect.
    Nothing,
    /// They upgrade to a WebSocket and greet.
    WebSocket,
}

/// Peers that stay connected.
pub struct Flood<Next> {
    pub connections: usize,
    pub opening: Opening,
    pub reading: Reading,
    /// The pause after each chunk that a peer has sent.
    pub pause: Duration,
    /// Opens another connection for each that the server ends.
    pub reopens: bool,
    /// Adds the next chunk of the peer with the given number.
    pub next: Next,
}

struct Peer {
    socket: TcpStream,
    chunk: Vec<u8>,
    /// The bytes of the chunk that have been sent.
    sent: usize,
    next_write: Instant,
    next_read: Instant,
}

/// The outcome of a visit to a peer.
enum Visit {
    Progress,
    Blocked,
    Ended,
}

impl<Next: FnMut(usize, &mut Vec<u8>)> Flood<Next> {
    /// Opens the peers and lets them send and read until the attack is over.
    pub fn run(mut self, target: &mut Target) {
        let mut peers: Vec<Option<Peer>> = Vec::new();
        for _ in 0..self.connections {
            if target.is_over() {
                break;
            }
            peers.push(self.open(target));
        }
        while !target.is_over() {
            let mut progress = false;
            for (number, place) in peers.iter_mut().enumerate() {
                let Some(peer) = place else {
                    if self.reopens {
                        *place = self.open(target);
                    }
                    continue;
                };
                match self.visit(target, number, peer) {
                    Visit::Progress => progress = true,
                    Visit::Blocked => {}
                    Visit::Ended => {
                        target.ended += 1;
                        *place = None;
                    }
                }
            }
            if !progress {
                thread::sleep(REST);
            }
        }
    }

    fn open(&self, target: &mut Target) -> Option<Peer> {
        // A small buffer makes the server wait soon.
        let buffer = (!matches!(self.reading, Reading::All)).then_some(4096);
        let mut socket = target.connect(buffer)?;
        if self.opening == Opening::WebSocket && wire::upgrade(&mut socket).is_err() {
            target.refused += 1;
            return None;
        }
        socket.set_nonblocking(true).ok()?;
        let now = Instant::now();
        Some(Peer { socket, chunk: Vec::new(), sent: 0, next_write: now, next_read: now })
    }

    fn visit(&mut self, target: &mut Target, number: usize, peer: &mut Peer) -> Visit {
        let now = Instant::now();
        let read = if now >= peer.next_read { self.read(target, peer) } else { Visit::Blocked };
        let wrote = match read {
            Visit::Ended => return Visit::Ended,
            _ if now >= peer.next_write => self.write(target, number, peer),
            _ => Visit::Blocked,
        };
        match (read, wrote) {
            (_, Visit::Ended) => Visit::Ended,
            (Visit::Blocked, Visit::Blocked) => Visit::Blocked,
            _ => Visit::Progress,
        }
    }

    fn write(&mut self, target: &mut Target, number: usize, peer: &mut Peer) -> Visit {
        let mut budget = BYTES_A_VISIT;
        loop {
            if peer.sent == peer.chunk.len() {
                peer.chunk.clear();
                peer.sent = 0;
                (self.next)(number, &mut peer.chunk);
                if peer.chunk.is_empty() {
                    return Visit::Blocked;
                }
            }
            match peer.socket.write(&peer.chunk[peer.sent..]) {
                Ok(len) => {
                    peer.sent += len;
                    target.bytes_sent += len as u64;
                    budget = budget.saturating_sub(len);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Visit::Blocked,
                Err(_) => return Visit::Ended,
            }
            let is_done = peer.sent == peer.chunk.len() && !self.pause.is_zero();
            if is_done {
                peer.next_write = Instant::now() + self.pause;
            }
            if is_done || budget == 0 {
                return Visit::Progress;
            }
        }
    }

    fn read(&self, target: &mut Target, peer: &mut Peer) -> Visit {
        let mut bytes = [0; 16 << 10];
        let len = match self.reading {
            Reading::All => bytes.len(),
            Reading::Never => return Visit::Blocked,
            Reading::Slowly(len, pause) => {
                peer.next_read = Instant::now() + pause;
                len.min(bytes.len())
            }
        };
        match peer.socket.read(&mut bytes[..len]) {
            Ok(0) => Visit::Ended,
            Ok(len) => {
                target.bytes_received += len as u64;
                Visit::Progress
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Visit::Blocked,
            Err(_) => Visit::Ended,
        }
    }
}
