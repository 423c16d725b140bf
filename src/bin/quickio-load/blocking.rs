//! A single client with a blocking socket: it checks the server, does not read, or publishes.

use crate::clock;
use crate::connect;
use crate::decoder::{Decoder, Message};
use crate::encoder::{Encoder, GREETING};
use crate::plan::{Plan, Protocol, Room};
use crate::request::{PostRequest, RequestBuilder, Sid};
use crate::tls::TlsClients;
use socket2::Socket;
use std::io::{self, ErrorKind, Read, Write};

/// The first number of these clients, which selects their source address: higher than the numbers of other clients.
pub const NUMBERS_FROM: usize = 1_000_000;

/// Opens and closes one connection to check that the server is running and supports the protocol, or TLS.
pub fn check_server(plan: &Plan) -> Result<(), String> {
    if plan.protocol == Protocol::None {
        return Ok(());
    }
    if let Some(tls) = &plan.tls {
        let socket =
            connect::blocking(plan, NUMBERS_FROM, None).map_err(|error| not_connected(plan, &error))?;
        return TlsClients::new(plan, tls)?.check(&socket);
    }
    open(plan, NUMBERS_FROM, None, None).map(|_| ())
}

/// Opens a connection, and subscribes to the room if there is one.
pub fn open(
    plan: &Plan,
    number: usize,
    room: Option<Room>,
    receive_buffer: Option<usize>,
) -> Result<(Socket, Decoder), String> {
    let failed = |what: &str, error: io::Error| format!("{what} {}: {error}", plan.server);
    let socket =
        connect::blocking(plan, number, receive_buffer).map_err(|error| not_connected(plan, &error))?;
    let mut decoder = Decoder::new(plan.protocol);
    let encoder = Encoder(plan.protocol);
    let mut exchange = |request: Vec<u8>, until: fn(&Message<'_>) -> bool| {
        (&socket).write_all(&request).map_err(|error| failed("cannot write to", error))?;
        read_until(&socket, &mut decoder, until)
    };
    let is_greeting: fn(&Message<'_>) -> bool = |message| *message == Message::Greeted;
    if plan.protocol == Protocol::WebSocket {
        exchange(encoder.first_message(plan, 0), |message| *message == Message::Upgraded)?;
        exchange(encoder.event(GREETING), is_greeting)?;
    } else if plan.protocol.is_http() {
        exchange(first_request(plan, number), is_greeting)?;
    } else {
        exchange(encoder.first_message(plan, 0), is_greeting)?;
    }
    if let Some(room) = room {
        exchange(encoder.subscribe(room), |message| *message == Message::Subscribed)?;
    }
    Ok((socket, decoder))
}

/// Describes the error of a connection that could not be made, and what to do about it.
fn not_connected(plan: &Plan, error: &io::Error) -> String {
    let advice = match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => {
            ". Nothing listens there: start the server, or give its address with --server"
        }
        Some(libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH) => {
            ". Check the address (--server) and the network"
        }
        Some(libc::EADDRNOTAVAIL) => {
            ". All ports of the source addresses are in use: use more --sources, or a larger \
             net.ipv4.ip_local_port_range"
        }
        Some(libc::EMFILE | libc::ENFILE) => {
            ". Too many files are open: raise the limit (ulimit -n), or use more --processes"
        }
        _ if error.kind() == ErrorKind::TimedOut => {
            ". The server does not accept connections: check that it is running and not overloaded"
        }
        _ => "",
    };
    format!("no connection to {}: {error}{advice}", plan.server)
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
            Ok(0) => {
                return Err(
                    "the server closed the connection during the handshake. Its log may say why".into()
                );
            }
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err("the server did not finish the handshake within 10 s. Check that it is a QuickIO server, \
                            and that it is not overloaded"
                    .into());
            }
            Err(error) => return Err(format!("during the handshake: {error}")),
        };
        let decoded = decoder.decode(&bytes[..len], |message| match message {
            message if until(&message) => found = true,
            message => bad = refusal(&message).or(bad.take()),
        });
        decoded.map_err(|error| error.to_string())?;
        if let Some(bad) = bad.take() {
            return Err(bad);
        }
    }
    Ok(())
}

/// Describes a message by which the server refuses the client, or returns `None` for all others.
fn refusal(message: &Message<'_>) -> Option<String> {
    match message {
        Message::Close(code, reason) => {
            let code = code.map_or("no code".into(), |code| code.to_string());
            let reason = String::from_utf8_lossy(reason);
            Some(format!("the server closed the connection: {code} {reason}"))
        }
        Message::Refused(answer) => {
            let answer = String::from_utf8_lossy(answer);
            Some(format!("the server refused the subscription: {answer}. Start it with --app relay"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Scenario;
    use crate::test_server::{self, Fault};

    #[test]
    fn refusals_say_what_to_do() {
        let server = test_server::start(Protocol::WebSocket, Fault::RefusesSubscriptions);
        let plan = Plan { server, ..Plan::new(Scenario::Million) };
        assert!(open(&plan, NUMBERS_FROM, None, None).is_ok());
        let error = open(&plan, NUMBERS_FROM, Some(Room::Everyone), None).unwrap_err();
        let (answer, advice) = ("{\"code\":420,\"data\":null}", "Start it with --app relay");
        assert!(error.contains(answer) && error.ends_with(advice), "{error}");
    }

    #[test]
    fn connections_that_fail_say_what_to_do() {
        let plan = Plan::new(Scenario::Million);
        for (code, advice) in [
            (libc::ECONNREFUSED, "--server"),
            (libc::EADDRNOTAVAIL, "--sources"),
            (libc::EMFILE, "ulimit -n"),
            (libc::ENETUNREACH, "the network"),
        ] {
            let text = not_connected(&plan, &io::Error::from_raw_os_error(code));
            assert!(text.starts_with("no connection to 127.0.0.1:8080: ") && text.contains(advice), "{text}");
        }
    }
}
