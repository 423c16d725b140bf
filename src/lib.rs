//! QuickIO: a real-time event server for Linux.
//!
//! A map of the crate; `docs/architecture.md` says why it has this shape.
//!
//! | part | is |
//! | --- | --- |
//! | [`config`] | every setting once: flag, environment, file key, default, doc |
//! | [`server`] | starts the shards, waits for signals, shuts down in order |
//! | [`shard`] | one shard: the turn, and each of its steps in a file; the only part that sees everything |
//! | [`app`] | what runs inside: the application API, applications in C, workers for all other languages, the bundled ones |
//! | [`protocol`] | bytes to events and back, without I/O: WebSocket, raw TCP, HTTP |
//! | [`client`] | a client: its subscriptions and server callbacks |
//! | [`event`] | the event, its path, its text form, the router |
//! | [`qev`] | quick-event: ring, buffers, mesh, timers, clock, shared limits, statistics. Knows no events |
//! | [`admin`] | the statistics endpoint |
//! | [`mangler`] | the proxy of `quickio clienttest`, which mangles WebSocket upgrades |
//! | [`metrics`] | every counter, gauge and latency: its name, unit and help |
//! | [`web`] | the documents that the server has itself: a page to look at, and the client library |
//! | [`log`] | structured logs, written by a thread of their own |
//! | [`limits`] | every bound that is no setting: name, unit, reason |

pub mod admin;
pub mod app;
pub mod client;
pub mod config;
pub mod event;
pub mod limits;
pub mod log;
pub mod mangler;
pub mod metrics;
pub mod protocol;
pub mod qev;
pub mod server;
pub mod shard;
pub mod web;

/// The guide's examples, tested with those of the code.
#[cfg(doctest)]
#[doc = include_str!("../docs/applications.md")]
mod guide {}
