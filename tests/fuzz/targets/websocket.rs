//! Frames of a client behind a WebSocket handshake.

#![no_main]

mod connection;

const UPGRADE: &[u8] = b"GET /qio HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The same with an offer of compression.
const UPGRADE_DEFLATE: &[u8] = b"GET /qio HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

/// A masked text frame with `/qio/ohai` under the mask 0.
const GREETING: &[u8] = b"\x81\x89\0\0\0\0/qio/ohai";

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    connection::check(&[UPGRADE, GREETING].concat(), input);
    connection::check(&[UPGRADE_DEFLATE, GREETING].concat(), input);
    // The handshake too.
    connection::check(UPGRADE, input);
});
