//! Starts the real server and connects clients to it. Nothing here uses the library that is tested.
//!
//! Every wait has a deadline ([`DEADLINE`]), and no test sleeps until a time of the server's clock: a server that is
//! started with `--clock manual` goes by [`Server::advance`].

pub mod client;
pub mod conversation;
pub mod http;
pub mod http_client;
pub mod server;
#[allow(dead_code, reason = "not every test binary needs all of it")]
pub mod stream;
#[allow(dead_code, reason = "not every test binary uses TLS")]
pub mod tls;
pub mod wire;

pub use client::Client;
pub use conversation::{Answer, Conversation, Ended, Transport};
pub use http_client::HttpClient;
pub use server::Server;

use std::time::Duration;

/// The longest time that a test waits for anything. It is far more than is ever needed, also on a loaded machine: no
/// test asserts speed.
pub const DEADLINE: Duration = Duration::from_secs(60);
