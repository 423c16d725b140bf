//! `quickio clienttest`.

use super::command::{Example, Flag, Invocation, Subcommand};
use super::outcome;
use crate::config::clienttest::{self, Mode};
use crate::config::{self, Action, ClientTestConfig, GeneratedText};
use crate::mangler;
use crate::server::{self, ControlService, ServerError};
use std::env;
use std::fmt::Write;
use std::process::ExitCode;

pub(super) static COMMAND: Subcommand = Subcommand {
    name: "clienttest",
    summary: "Starts a server and a proxy that mangles WebSocket upgrades",
    usage: "[FLAG VALUE]...",
    about: "For authors of client libraries. Starts a server with the applications relay and clienttest and, on a port of \
            its own, a proxy in front of it that mangles WebSocket upgrades. The proxy passes everything else on \
            unchanged. docs/client-tests.md describes how a client should react.",
    flags: &[
        Flag {
            name: "proxy",
            value: "ADDRESS",
            doc: "The address that the proxy listens on. [ip:port, [ip6]:port or name:port; default: 127.0.0.1:8082]",
        },
        Flag {
            name: "mangle",
            value: "MODE|rotate",
            doc: "The mode for upgrades whose target does not have mangle=MODE in its query. rotate uses the next mode \
                  for each upgrade, in the order below, without none. [default: rotate]",
        },
        Flag { name: "generate-docs", value: "", doc: "Prints the table of modes for the docs." },
    ],
    takes_settings: true,
    examples: &[
        Example {
            line: "quickio clienttest",
            does: "Mangles each upgrade on port 8082 in another way, and none on port 8080.",
        },
        Example {
            line: "quickio clienttest --mangle swallow",
            does: "Drops everything that follows the handshake of a WebSocket on port 8082.",
        },
    ],
    details: modes,
    run,
};

fn modes() -> String {
    let mut out = String::from("Modes:\n\n");
    for mode in Mode::ALL {
        let _ = writeln!(out, "  {}", mode.name());
        config::wrap(&mut out, "      ", &format!("{}: the client receives {}.", mode.does(), mode.seen()));
    }
    out
}

fn run(invocation: Invocation) -> ExitCode {
    match config::client_test_from_args(invocation.args.clone(), env::vars_os()) {
        Ok(Action::Print(GeneratedText::Docs)) => outcome::print(&clienttest::docs()),
        asked => outcome::act(&invocation, asked, run_tests),
    }
}

/// Runs a server with a proxy in front of it that mangles upgrades.
fn run_tests(tests: ClientTestConfig) -> Result<(), ServerError> {
    let ClientTestConfig { server, proxy, mangle } = tests;
    let proxy = ControlService::new("proxy", move |control, server| {
        Ok(mangler::serve(control, proxy, server, mangle)?)
    });
    server::run_with_services(server, vec![proxy])
}
