//! Starts the real server and speaks to it: nothing here uses the library that is tested.
//!
//! Everything waits with a deadline ([`DEADLINE`]) and nothing sleeps for what the server's clock can do: a server
//! started with `--clock manual` goes by [`Server::advance`].

pub mod client;
pub mod http;
pub mod http_client;
pub mod server;
pub mod wire;

pub use client::{Client, Wire};
pub use server::Server;

use std::time::Duration;

/// How long anything is waited for. Far more than is ever needed: no test asserts speed.
pub const DEADLINE: Duration = Duration::from_secs(20);
