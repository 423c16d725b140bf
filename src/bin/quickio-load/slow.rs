//! Clients that subscribe and then never read. They show how the server treats them, and whether other clients suffer.

use crate::clock;
use crate::connect;
use crate::decoder::{Decoder, Message};
use crate::encoder::{Encoder, GREETING};
use crate::plan::{Plan, Protocol, Role, Room, Share};
use crate::request::{PostRequest, RequestBuilder, Sid};
use crate::results::SlowClientTotals;
use socket2::Socket;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

/// The first number of a slow client, which selects its source address: higher than the numbers of all other clients.
const NUMBERS_FROM: usize = 1_000_000;

/// The receive buffer with which the data in the kernel's buffers is read at the end of a run.
const END_BUFFER_BYTES: usize = 1 << 20;

/// How long a socket may be silent at the end of a run before it is considered open.
const END_SILENCE: Duration = Duration::from_millis(200);

/// The slow clients of a worker.
pub struct SlowClients {
    protocol: Protocol,
    /// The time limit for reading at the end.
    end_timeout: Duration,
    clients: Vec<(Socket, Decoder)>,
}

impl SlowClients {
    /// Opens and subscribes the slow clients of a share.
    pub fn open(plan: &Plan, share: Share) -> Result<SlowClients, String> {
        let one = |number| -> Result<(Socket, Decoder), String> {
            let buffer = Some(plan.slow_buffer_bytes);
            open_one(plan, number + NUMBERS_FROM, plan.room(Role::Subscriber, number), buffer)
        };
        let clients = share.numbers(plan.slow).map(one).collect::<Result<_, _>>();
        let clients = clients.map_err(|error| format!("slow client: {error}"))?;
        Ok(SlowClients { protocol: plan.protocol, end_timeout: plan.drain, clients })
    }

    /// Reads the remaining data of all clients and returns how the server treated them.
    pub fn finish(self) -> SlowClientTotals {
        let mut totals =
            SlowClientTotals { opened: self.clients.len() as u64, ..SlowClientTotals::default() };
        let deadline = Instant::now() + self.end_timeout;
        for (socket, decoder) in self.clients {
            if let Some(how) = end_cause(socket, decoder, self.protocol, deadline) {
                totals.closed += 1;
                *totals.how.entry(how).or_default() += 1;
            }
        }
        totals
    }
}

/// Opens and closes one connection to check that the server is running and supports the protocol.
pub fn check_server(plan: &Plan) -> Result<(), String> {
    if plan.protocol == Protocol::None {
        return Ok(());
    }
    open_one(plan, NUMBERS_FROM, None, None).map(|_| ())
}

/// Opens a connection, and subscribes to the room if there is one.
fn open_one(
    plan: &Plan,
    number: usize,
    room: Option<Room>,
    receive_buffer: Option<usize>,
) -> Result<(Socket, Decoder), String> {
    let failed = |what: &str, error: io::Error| format!("{what} {}: {error}", plan.server);
    let socket =
        connect::blocking(plan, number, receive_buffer).map_err(|error| failed("no connection to", error))?;
    let mut decoder = Decoder::new(plan.protocol);
    let encoder = Encoder(plan.protocol);
    let mut exchange = |request: Vec<u8>, until: fn(&Message<'_>) -> bool| {
        (&socket).write_all(&request).map_err(|error| failed("cannot write to", error))?;
        read_until(&socket, &mut decoder, until)
    };
    let is_greeting: fn(&Message<'_>) -> bool = |message| *message == Message::Greeted;
    if plan.protocol == Protocol::WebSocket {
        exchange(encoder.first_message(plan), |message| *message == Message::Upgraded)?;
        exchange(encoder.event(GREETING), is_greeting)?;
    } else if plan.protocol.is_http() {
        exchange(first_request(plan, number), is_greeting)?;
    } else {
        exchange(encoder.first_message(plan), is_greeting)?;
    }
    if let Some(room) = room {
        exchange(encoder.subscribe(room), |message| *message == Message::Subscribed)?;
    }
    Ok((socket, decoder))
}

/// Returns the request that creates a session.
fn first_request(plan: &Plan, number: usize) -> Vec<u8> {
    let sid = Sid { run: clock::now(), number: number as u64 };
    let requests = RequestBuilder::new(plan);
    match plan.protocol {
        Protocol::EventStream => requests.stream(sid),
        protocol => {
            requests.post(&PostRequest { sid, connect: true, seq: 1, events: Encoder(protocol).hostname() })
        }
    }
}

/// Reads until a message satisfies `until`.
fn read_until(
    mut socket: &Socket,
    decoder: &mut Decoder,
    until: fn(&Message<'_>) -> bool,
) -> Result<(), String> {
    let mut bytes = [0; 1024];
    let (mut found, mut bad) = (false, None);
    while !found {
        let len = match socket.read(&mut bytes) {
            Ok(0) => return Err("the server closed the connection during the handshake".into()),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err("the server did not finish the handshake within 10 s".into());
            }
            Err(error) => return Err(format!("during the handshake: {error}")),
        };
        let decoded = decoder.decode(&bytes[..len], |message| match message {
            message if until(&message) => found = true,
            Message::Close(..) | Message::Refused(_) => bad = Some(format!("unexpected message {message:?}")),
            _ => {}
        });
        decoded.map_err(|error| error.to_string())?;
        if let Some(bad) = bad.take() {
            return Err(bad);
        }
    }
    Ok(())
}

/// Returns how the server ended the connection, or `None` if the connection is still open.
fn end_cause(
    mut socket: Socket,
    mut decoder: Decoder,
    protocol: Protocol,
    deadline: Instant,
) -> Option<String> {
    let mut bytes = [0; 64 << 10];
    let mut cause = None;
    socket.set_recv_buffer_size(END_BUFFER_BYTES).ok()?;
    socket.set_read_timeout(Some(END_SILENCE)).ok()?;
    while Instant::now() < deadline {
        match socket.read(&mut bytes) {
            Ok(0) => return cause.or_else(|| Some(end_without_close(protocol).into())),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return cause,
            Err(error) => return cause.or_else(|| Some(error.to_string())),
            Ok(len) => {
                let decoded = decoder.decode(&bytes[..len], |message| {
                    if let Message::Close(code, _) = message {
                        cause = Some(code.map_or("no code".into(), |code| code.to_string()));
                    }
                });
                decoded.ok()?;
            }
        }
    }
    cause
}

fn end_without_close(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::WebSocket => "end of stream, no close frame",
        _ => "end of stream",
    }
}
