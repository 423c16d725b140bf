//! Black-box tests: they start the real binary and connect to it over real sockets, as protocol.md describes.
//!
//! All of them are one test binary, which is linked once.

mod api;
mod auth;
mod callbacks;
mod certificates;
mod check;
mod clienttest;
mod close;
mod compression;
mod events;
mod floods;
#[path = "../fuzz/mod.rs"]
mod fuzz;
mod handshake;
mod history;
mod hostile;
mod http;
mod http_hostile;
mod idle;
mod kernel;
mod limits;
mod listeners;
mod liveness;
mod mangler;
mod members;
mod notify;
mod operator;
mod polling;
#[path = "../support/ports.rs"]
mod ports;
mod quota;
mod reload;
mod rules;
mod settings;
mod settings_file;
mod shutdown;
mod signals;
mod slow;
mod stalls;
mod startup;
mod stats;
mod streams;
mod subscriptions;
#[path = "../support/mod.rs"]
mod support;
mod systemd;
mod tls;
mod webhooks;
