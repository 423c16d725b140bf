//! QuickIO: a real-time event server for Linux.
//!
//! A map of the crate. `docs/architecture.md` explains why it has this structure.
//!
//! | module | contents |
//! | --- | --- |
//! | [`cli`] | the commands of the program `quickio`, and their help |
//! | [`config`] | the settings: flags, environment variables, file keys, defaults, descriptions |
//! | [`server`] | starts the shards, waits for signals, shuts down in order |
//! | [`shard`] | one shard: the turn, with a file for each of its steps. The module that combines all others |
//! | [`app`] | the application API, applications in C, workers for all other languages, the bundled applications |
//! | [`protocol`] | codecs from bytes to events and back, without I/O: WebSocket, raw TCP, HTTP |
//! | [`tls`] | TLS with clients, without I/O: the handshake by rustls, the record layer after it |
//! | [`client`] | the subscriptions and server callbacks of a client |
//! | [`rules`] | who may subscribe and send to which paths, and how often |
//! | [`event`] | events, their paths, their text form, the router |
//! | [`qev`] | "quick-event": ring, buffers, mesh, timers, clock, shared limits, histograms. Does not know events |
//! | [`admin`] | the statistics endpoint |
//! | [`inspect`] | what operators ask about clients and paths, and the answers |
//! | [`mangler`] | the proxy of `quickio clienttest`, which mangles WebSocket upgrades |
//! | [`metrics`] | the counters, gauges and latencies: names, units, descriptions |
//! | [`web`] | the documents that the server contains: a demonstration page and the client library |
//! | [`log`] | structured logs, written by a thread of their own |
//! | [`limits`] | limits that are not settings: names, units, reasons |

pub mod admin;
pub mod api;
pub mod app;
pub mod cli;
pub mod client;
pub mod config;
pub mod event;
pub mod history;
pub mod identity;
pub mod inspect;
pub mod limits;
pub mod log;
pub mod mangler;
pub mod members;
pub mod metrics;
pub mod protocol;
pub mod qev;
pub mod rules;
pub mod server;
pub mod shard;
pub mod tls;
pub mod web;

/// Runs the examples of the guide together with those of the code.
#[cfg(doctest)]
#[doc = include_str!("../docs/applications.md")]
mod guide {}
