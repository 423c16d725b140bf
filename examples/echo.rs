//! A WebSocket echo server on the server's own codec and shards, for the Autobahn conformance suite.
//!
//!     cargo run --release --example echo -- 127.0.0.1:9001
//!
//! The endpoint is `/echo`. It sends every text and binary message back.

use quickio::config::Config;
use quickio::server;
use std::process::ExitCode;

/// Bytes of the longest message. The suite's longest one has 16 MiB.
const MESSAGE_BYTES_MAX: usize = 17 << 20;

fn main() -> ExitCode {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".into());
    let Ok(address) = address.parse::<std::net::SocketAddr>() else {
        eprintln!("usage: echo ADDRESS:PORT");
        return ExitCode::from(2);
    };
    let config = Config {
        listen: vec![address.into()],
        admin: vec![],
        message_bytes_max: MESSAGE_BYTES_MAX,
        outbox_bytes_max: 2 * MESSAGE_BYTES_MAX,
        echo: true,
        // The suite's cases about compression have messages from 16 bytes on. Other cases do not offer it.
        compression: true,
        compression_single_min_bytes: 1,
        ..Config::default()
    };
    match server::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}
