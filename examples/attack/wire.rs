//! Handshakes and frames, as hostile peers send them.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// The mask of every frame.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Opcodes of WebSocket frames.
pub const TEXT: u8 = 0x1;
pub const PING: u8 = 0x9;

const UPGRADE: &str = "GET /qio HTTP/1.1\r\nHost: server\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Sec-WebSocket-Protocol: quickio\r\n\r\n";

/// Adds a final masked frame.
pub fn frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    frame_of(out, 0x80 | opcode, payload);
}

/// Adds a masked frame with the given first byte.
pub fn frame_of(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    out.push(first);
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Adds an event as a text frame.
pub fn event(out: &mut Vec<u8>, text: &str) {
    frame(out, TEXT, text.as_bytes());
}

/// Adds a POST to a session.
pub fn post(out: &mut Vec<u8>, sid: u128, body: &str) {
    let head = format!(
        "POST /?sid={sid:032x}&connect=true HTTP/1.1\r\nHost: server\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body.as_bytes());
}

/// Upgrades a connection to a WebSocket and exchanges the greeting.
pub fn upgrade(socket: &mut TcpStream) -> io::Result<()> {
    let mut request = UPGRADE.as_bytes().to_vec();
    frame(&mut request, TEXT, b"/qio/ohai");
    socket.write_all(&request)?;
    let mut received = Vec::new();
    while !received.ends_with(b"/qio/ohai") {
        let mut bytes = [0; 512];
        match socket.read(&mut bytes)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            len => received.extend_from_slice(&bytes[..len]),
        }
    }
    Ok(())
}
