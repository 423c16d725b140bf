//! A server for tests with the part of the protocol that the load generator needs, and a thread for each connection.

use crate::encoder::{ACCEPT, GREETING};
use crate::plan::Protocol;
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A way in which the server misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Every upgrade is answered 503.
    RefusesUpgrades,
    /// Every subscription is answered 420.
    RefusesSubscriptions,
    /// Every ping closes its connection with 1013.
    ClosesPingers,
    /// The greeting is not answered.
    IgnoresGreetings,
    /// When 70 clients have subscribed to the path that all share, and for half a second nobody else, all connections
    /// end.
    EndsAllOnce,
    /// A client is told to leave with 1001 after its subscription to the path that all share.
    DismissesSubscribers,
}

type Rooms = Arc<Mutex<HashMap<String, Vec<TcpStream>>>>;

/// Starts a server, which runs until the test ends.
pub fn start(protocol: Protocol, fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let rooms = Rooms::default();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let rooms = Arc::clone(&rooms);
            // The thread ends when its client disconnects, which is not an error.
            thread::spawn(move || {
                ServerConnection::new(socket, protocol, fault, rooms).and_then(ServerConnection::serve)
            });
        }
    });
    address
}

struct ServerConnection {
    protocol: Protocol,
    fault: Fault,
    rooms: Rooms,
    socket: TcpStream,
    input: BufReader<TcpStream>,
}

impl ServerConnection {
    fn new(
        socket: TcpStream,
        protocol: Protocol,
        fault: Fault,
        rooms: Rooms,
    ) -> io::Result<ServerConnection> {
        socket.set_nodelay(true)?;
        let input = BufReader::new(socket.try_clone()?);
        Ok(ServerConnection { protocol, fault, rooms, socket, input })
    }

    fn serve(mut self) -> io::Result<()> {
        match self.protocol {
            Protocol::WebSocket => self.upgrade()?,
            _ => {
                self.input.read_exact(&mut [0; GREETING.len()])?;
                self.socket.write_all(GREETING)?;
            }
        }
        while let Some(text) = self.read()? {
            self.answer(&text)?;
        }
        self.socket.shutdown(Shutdown::Both)
    }

    fn upgrade(&mut self) -> io::Result<()> {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            self.input.read_line(&mut line)?;
        }
        if self.fault == Fault::RefusesUpgrades {
            self.socket.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")?;
        }
        write!(
            self.socket,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
        )
    }

    fn answer(&mut self, text: &str) -> io::Result<()> {
        if text == "/qio/ohai" {
            return if self.fault == Fault::IgnoresGreetings { Ok(()) } else { self.send(text) };
        }
        let (path, rest) = text.split_once(':').unwrap();
        let (callback, data) = rest.split_once('=').unwrap();
        match path {
            "/qio/ping" if self.fault == Fault::ClosesPingers => {
                self.socket.write_all(&[0x88, 6, 3, 0xf5, b's', b'l', b'o', b'w'])?;
                return self.socket.shutdown(Shutdown::Both);
            }
            "/qio/on" if self.fault == Fault::RefusesSubscriptions => {
                return self.send(&format!("/qio/callback/{callback}:0={{\"code\":420,\"data\":null}}"));
            }
            "/qio/on" => {
                let room = data.trim_matches('"').to_owned();
                self.rooms.lock().unwrap().entry(room).or_default().push(self.socket.try_clone()?);
            }
            room => {
                let message = framed(self.protocol, &format!("{room}:0={data}"));
                let mut rooms = self.rooms.lock().unwrap();
                let subscribers = rooms.entry(room.to_owned()).or_default();
                subscribers.retain_mut(|subscriber| subscriber.write_all(&message).is_ok());
            }
        }
        if callback != "0" {
            self.send(&format!("/qio/callback/{callback}:0={{\"code\":200,\"data\":null}}"))?;
        }
        if self.fault == Fault::EndsAllOnce && data.contains("everyone") {
            self.end_all_once();
        }
        if self.fault == Fault::DismissesSubscribers && data.contains("everyone") {
            self.socket.write_all(&[0x88, 2, 3, 0xe9])?;
        }
        Ok(())
    }

    /// Ends all connections half a second after the 70th subscription to the path that all share.
    fn end_all_once(&self) {
        let rooms = Arc::clone(&self.rooms);
        let subscribers = |rooms: &HashMap<String, Vec<TcpStream>>| {
            rooms
                .iter()
                .filter(|(room, _)| room.contains("everyone"))
                .map(|(_, all)| all.len())
                .sum::<usize>()
        };
        if subscribers(&rooms.lock().unwrap()) == 70 {
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(500));
                let ended = std::mem::take(&mut *rooms.lock().unwrap());
                ended.values().flatten().for_each(|socket| drop(socket.shutdown(Shutdown::Both)));
                // The second time there are more, and nothing ends.
                rooms
                    .lock()
                    .unwrap()
                    .entry("/everyone".into())
                    .or_default()
                    .extend(ended.into_values().flatten());
            });
        }
    }

    /// Sends a text in two writes, which makes clients receive frames in pieces.
    fn send(&mut self, text: &str) -> io::Result<()> {
        let frame = framed(self.protocol, text);
        let (head, tail) = frame.split_at(frame.len() / 2);
        self.socket.write_all(head)?;
        self.socket.write_all(tail)
    }

    /// Reads the next text. Returns `None` after a close frame.
    fn read(&mut self) -> io::Result<Option<String>> {
        let (mut key, mut close) = ([0; 4], false);
        let len = match self.protocol {
            Protocol::WebSocket => {
                let mut head = [0; 2];
                self.input.read_exact(&mut head)?;
                close = head[0] == 0x88;
                let mut len = u16::from(head[1] & 0x7f);
                if len == 126 {
                    let mut long = [0; 2];
                    self.input.read_exact(&mut long)?;
                    len = u16::from_be_bytes(long);
                }
                self.input.read_exact(&mut key)?;
                usize::from(len)
            }
            _ => {
                let mut len = [0; 8];
                self.input.read_exact(&mut len)?;
                u64::from_be_bytes(len) as usize
            }
        };
        let mut payload = vec![0; len];
        self.input.read_exact(&mut payload)?;
        payload.iter_mut().enumerate().for_each(|(i, byte)| *byte ^= key[i % 4]);
        if close {
            self.socket.write_all(&[&[0x88, len as u8], &payload[..]].concat())?;
            return Ok(None);
        }
        Ok(Some(String::from_utf8(payload).unwrap()))
    }
}

fn framed(protocol: Protocol, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    match (protocol, text.len()) {
        (Protocol::Raw, len) => out.extend_from_slice(&(len as u64).to_be_bytes()),
        (_, len @ 0..=125) => out.extend_from_slice(&[0x81, len as u8]),
        (_, len) => out.extend_from_slice(&[0x81, 126, (len >> 8) as u8, len as u8]),
    }
    out.extend_from_slice(text.as_bytes());
    out
}
