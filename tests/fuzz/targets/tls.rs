//! TLS with a client of rustls on the other end, and an attacker between them.
//!
//! The input is a script: first the changes of the handshake, then steps of client, server and attacker. The server must
//! never deliver data that the client has not sent, and must not fail unless bytes were changed. The client must accept
//! all that the server sends.

#![no_main]

#[path = "../../../src/tls/testing/peer.rs"]
#[allow(dead_code, reason = "the tests of the crate need the rest")]
mod peer;

use std::io::Write;
use std::sync::{Arc, LazyLock};

use peer::{client, client_config, deliver, server_config_for, suites, written};
use quickio::tls::{Opened, TlsContext, TlsReason, TlsSession};
use rustls::{ClientConfig, ClientConnection};

/// A client and a server for each suite.
static ENDS: LazyLock<Vec<(Arc<ClientConfig>, TlsContext)>> = LazyLock::new(|| {
    let ends = |suite| (Arc::new(client_config(suite)), TlsContext::new(server_config_for(suite)));
    suites().into_iter().map(|(suite, _)| ends(suite)).collect()
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let mut script = Script(input);
    let Some(mut connection) = shake_hands(&mut script) else { return };
    while !script.0.is_empty() {
        connection.step(&mut script);
    }
    connection.deliver(usize::MAX);
    if !connection.is_tampered {
        assert_eq!(connection.received, connection.sent, "data was lost");
    }
});

/// The input that has not been used. Zeros follow its end.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }
    fn number(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }
    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

/// The client, the server's session, and the bytes between them.
struct Connection {
    client: ClientConnection,
    session: TlsSession,
    /// Bytes of the client on their way.
    pending: Vec<u8>,
    /// Bytes that the server has, and has not opened.
    input: Vec<u8>,
    sent: Vec<u8>,
    received: Vec<u8>,
    is_tampered: bool,
    has_failed: bool,
    has_closed: bool,
}

/// Completes the handshake that the script asks for. Returns `None` if it has been disturbed.
fn shake_hands(script: &mut Script) -> Option<Connection> {
    let choice = usize::from(script.byte());
    let (config, context) = &ENDS[choice % ENDS.len()];
    let mut client = client(config);
    let mut handshake = context.accept();
    let changes = script.byte() % 4;
    let changes: Vec<(u8, usize, u8)> =
        (0..changes).map(|_| (script.byte() % 3, script.number(), script.byte())).collect();
    let size = 1 + script.number();
    let mut is_tampered = false;
    let mut input = Vec::new();
    for flight in 0..4 {
        let mut bytes = written(&mut client);
        for (_, at, change) in changes.iter().filter(|(of, ..)| *of == flight) {
            if let Some(byte) = bytes.get_mut(*at) {
                *byte ^= change;
                is_tampered |= *change != 0;
            }
        }
        let mut output = Vec::new();
        for piece in bytes.chunks(size) {
            input.extend_from_slice(piece);
            let result = handshake.receive(&input, &mut output);
            let (used, established) = match result {
                Ok(progress) => progress,
                Err(failure) => {
                    assert!(is_tampered, "{failure}");
                    assert_ne!(failure.reason, TlsReason::Internal, "{failure}");
                    return None;
                }
            };
            input.drain(..used);
            let Some(established) = established else { continue };
            if deliver(&mut client, &output).is_err() || !input.is_empty() {
                assert!(is_tampered, "the client does not accept the server's handshake");
                return None;
            }
            return Some(Connection {
                client,
                session: established.session,
                pending: Vec::new(),
                input,
                sent: Vec::new(),
                received: Vec::new(),
                is_tampered,
                has_failed: false,
                has_closed: false,
            });
        }
        if deliver(&mut client, &output).is_err() {
            assert!(is_tampered, "the client does not accept the server's handshake");
            return None;
        }
    }
    assert!(is_tampered, "the handshake does not end");
    None
}

impl Connection {
    fn step(&mut self, script: &mut Script) {
        match script.byte() % 8 {
            0 if !self.has_closed => {
                let data = vec![script.byte(); script.number()];
                self.client.set_buffer_limit(None);
                self.client.writer().write_all(&data).unwrap();
                self.sent.extend_from_slice(&data);
            }
            1 if !self.has_closed && self.client.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3) => {
                self.client.refresh_traffic_keys().unwrap();
            }
            2 => {
                let size = 1 + script.number();
                self.deliver(size);
            }
            3 => self.answer(1 + script.number()),
            // The attacker.
            4 => {
                let at = script.number();
                let change = script.byte();
                if let Some(byte) = self.pending.get_mut(at) {
                    *byte ^= change;
                    self.is_tampered |= change != 0;
                }
            }
            5 => {
                let at = script.number().min(self.pending.len());
                let len = usize::from(script.byte());
                let bytes = script.bytes(len);
                self.is_tampered |= !bytes.is_empty();
                self.pending.splice(at..at, bytes.iter().copied());
            }
            6 => {
                let at = script.number().min(self.pending.len());
                let end = (at + script.number()).min(self.pending.len());
                self.is_tampered |= at < end;
                let cut: Vec<u8> = self.pending.drain(at..end).collect();
                if script.byte() % 2 == 0 {
                    // Later, or twice.
                    self.pending.extend_from_slice(&cut);
                    self.pending.extend_from_slice(&cut);
                }
            }
            7 if !self.has_closed => {
                self.client.send_close_notify();
                self.has_closed = true;
            }
            _ => {}
        }
        self.pending.extend(written(&mut self.client));
    }

    /// Gives the server what is on its way, in pieces of this size.
    fn deliver(&mut self, size: usize) {
        self.pending.extend(written(&mut self.client));
        let pending = std::mem::take(&mut self.pending);
        for piece in pending.chunks(size) {
            self.input.extend_from_slice(piece);
            while !self.has_failed && self.open() {}
        }
    }

    /// Opens a record. Returns false if there is none.
    fn open(&mut self) -> bool {
        let result = self.session.open(&mut self.input);
        self.session.check();
        match result {
            Ok(Opened::Incomplete { needed }) => {
                assert!(needed > self.input.len());
                return false;
            }
            Ok(Opened::Data { used, plain }) => {
                self.received.extend_from_slice(&self.input[plain]);
                assert!(self.sent.starts_with(&self.received), "the client has not sent this data");
                self.input.drain(..used);
            }
            Ok(Opened::Handled { used }) => drop(self.input.drain(..used)),
            Ok(Opened::CloseNotify { used }) => {
                assert!(self.has_closed, "the client has not closed");
                assert_eq!(used, self.input.len());
                self.input.clear();
                return false;
            }
            Err(failure) => {
                let is_flood = failure.reason == TlsReason::Flood;
                assert!(self.is_tampered || is_flood, "{failure}");
                assert_ne!(failure.reason, TlsReason::Internal, "{failure}");
                self.is_tampered = true;
                self.has_failed = true;
                let mut output = Vec::new();
                self.session.alert(failure.alert_to_send().expect("the client has sent no alert"), &mut output);
                deliver(&mut self.client, &output).expect_err("an alert for the client");
                // The client sends nothing more.
                self.has_closed = true;
            }
        }
        true
    }

    /// Sends data to the client.
    fn answer(&mut self, len: usize) {
        if self.has_failed {
            return;
        }
        let data: Vec<u8> = (0..len).map(|nth| nth as u8).collect();
        let (head, tail) = data.split_at(len / 2);
        let announced = self.session.sealed_len(len);
        let mut output = Vec::new();
        self.session.seal([head, tail], &mut output);
        assert_eq!(output.len(), announced);
        let received = deliver(&mut self.client, &output).expect("the client accepts what the server sends");
        assert_eq!(received, data);
    }
}
