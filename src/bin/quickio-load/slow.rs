//! Clients that subscribe and then never read: what becomes of them, and of the others.

use crate::clock;
use crate::connect;
use crate::cut::{Cutter, Said};
use crate::outcome::SlowTally;
use crate::plan::{Plan, Protocol, Role, Room, Share};
use crate::request::{Post, Requests, Sid};
use crate::wire::{GREETING, Writer};
use socket2::Socket;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

/// Numbers of slow clients, for their source addresses: above those of all others.
const NUMBERS_FROM: usize = 1_000_000;

/// At the end what waits in the kernel's buffers is read: into a receive buffer of so many bytes, and until
/// nothing came for so long.
const END_BUFFER_BYTES: usize = 1 << 20;
const END_SILENCE: Duration = Duration::from_millis(200);

/// The slow clients of a worker.
pub struct Slow {
    protocol: Protocol,
    /// For reading, at the end.
    patience: Duration,
    clients: Vec<(Socket, Cutter)>,
}

impl Slow {
    /// Opens and subscribes this worker's share of them.
    pub fn open(plan: &Plan, share: Share) -> Result<Slow, String> {
        let one = |number| -> Result<(Socket, Cutter), String> {
            let buffer = Some(plan.slow_buffer_bytes);
            open_one(plan, number + NUMBERS_FROM, plan.room(Role::Subscriber, number), buffer)
        };
        let clients = share.numbers(plan.slow).map(one).collect::<Result<_, _>>();
        let clients = clients.map_err(|error| format!("slow client: {error}"))?;
        Ok(Slow { protocol: plan.protocol, patience: plan.drain, clients })
    }

    /// What became of them: whatever is left to read is read.
    pub fn end(self) -> SlowTally {
        let mut tally = SlowTally { opened: self.clients.len() as u64, ..SlowTally::default() };
        let deadline = Instant::now() + self.patience;
        for (socket, cutter) in self.clients {
            if let Some(how) = ended_how(socket, cutter, self.protocol, deadline) {
                tally.closed += 1;
                *tally.how.entry(how).or_default() += 1;
            }
        }
        tally
    }
}

/// Opens one connection to see whether the server is there and speaks the protocol; closes it again.
pub fn try_one(plan: &Plan) -> Result<(), String> {
    if plan.protocol == Protocol::None {
        return Ok(());
    }
    open_one(plan, NUMBERS_FROM, None, None).map(|_| ())
}

/// Opens a connection, and subscribes where there is a room.
fn open_one(
    plan: &Plan,
    number: usize,
    room: Option<Room>,
    receive_buffer: Option<usize>,
) -> Result<(Socket, Cutter), String> {
    let at = |what: &str, error: io::Error| format!("{what} {}: {error}", plan.server);
    let socket =
        connect::blocking(plan, number, receive_buffer).map_err(|error| at("no connection to", error))?;
    let mut cutter = Cutter::new(plan.protocol);
    let writer = Writer(plan.protocol);
    let mut talk = |say: Vec<u8>, until: fn(&Said<'_>) -> bool| {
        (&socket).write_all(&say).map_err(|error| at("cannot write to", error))?;
        listen(&socket, &mut cutter, until)
    };
    let is_greeting: fn(&Said<'_>) -> bool = |said| *said == Said::Greeted;
    if plan.protocol == Protocol::WebSocket {
        talk(writer.hello(plan), |said| *said == Said::Upgraded)?;
        talk(writer.text(GREETING), is_greeting)?;
    } else if plan.protocol.is_http() {
        talk(first_request(plan, number), is_greeting)?;
    } else {
        talk(writer.hello(plan), is_greeting)?;
    }
    if let Some(room) = room {
        talk(writer.subscribe(room), |said| *said == Said::Subscribed)?;
    }
    Ok((socket, cutter))
}

/// The request by which a session begins.
fn first_request(plan: &Plan, number: usize) -> Vec<u8> {
    let sid = Sid { run: clock::now(), number: number as u64 };
    let requests = Requests::new(plan);
    match plan.protocol {
        Protocol::EventStream => requests.stream(sid),
        protocol => requests.post(&Post { sid, connect: true, seq: 1, events: Writer(protocol).hostname() }),
    }
}

/// Reads until something is said.
fn listen(mut socket: &Socket, cutter: &mut Cutter, until: fn(&Said<'_>) -> bool) -> Result<(), String> {
    let mut bytes = [0; 1024];
    let (mut heard, mut bad) = (false, None);
    while !heard {
        let len = match socket.read(&mut bytes) {
            Ok(0) => return Err("the server closed the connection during the handshake".into()),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err("the server did not finish the handshake within 10 s".into());
            }
            Err(error) => return Err(format!("during the handshake: {error}")),
        };
        let cut = cutter.cut(&bytes[..len], |said| match said {
            said if until(&said) => heard = true,
            Said::Close(..) | Said::Refused(_) => bad = Some(format!("the server said {said:?}")),
            _ => {}
        });
        cut.map_err(|broken| broken.to_string())?;
        if let Some(bad) = bad.take() {
            return Err(bad);
        }
    }
    Ok(())
}

/// How the server ended the connection; none where it is still open.
fn ended_how(
    mut socket: Socket,
    mut cutter: Cutter,
    protocol: Protocol,
    deadline: Instant,
) -> Option<String> {
    let mut bytes = [0; 64 << 10];
    let mut how = None;
    socket.set_recv_buffer_size(END_BUFFER_BYTES).ok()?;
    socket.set_read_timeout(Some(END_SILENCE)).ok()?;
    while Instant::now() < deadline {
        match socket.read(&mut bytes) {
            Ok(0) => return how.or_else(|| Some(end_without_close(protocol).into())),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return how,
            Err(error) => return how.or_else(|| Some(error.to_string())),
            Ok(len) => {
                let cut = cutter.cut(&bytes[..len], |said| {
                    if let Said::Close(code, _) = said {
                        how = Some(code.map_or("no code".into(), |code| code.to_string()));
                    }
                });
                cut.ok()?;
            }
        }
    }
    how
}

fn end_without_close(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::WebSocket => "end of stream, no close frame",
        _ => "end of stream",
    }
}
