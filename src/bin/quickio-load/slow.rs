//! Clients that subscribe and then never read. They show how the server treats them, and whether other clients suffer.

use crate::blocking::{self, NUMBERS_FROM};
use crate::decoder::{Decoder, Message};
use crate::plan::{Plan, Protocol, Role, Share};
use crate::results::SlowClientTotals;
use socket2::Socket;
use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

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
            blocking::open(plan, number + NUMBERS_FROM, plan.room(Role::Subscriber, number), buffer)
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
