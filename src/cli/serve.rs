//! A server: `quickio` without a command.

use super::command::{Example, Flag, Invocation, Subcommand, no_details};
use super::outcome;
use crate::config;
use crate::server;
use std::env;
use std::process::ExitCode;

pub(super) static COMMAND: Subcommand = Subcommand {
    name: "",
    summary: "Starts a server",
    usage: "[FLAG VALUE]...",
    about: "Without a command, quickio starts a server, which runs until SIGTERM or SIGINT.",
    flags: &[
        Flag { name: "config", value: "FILE", doc: "Reads settings from this TOML file." },
        Flag {
            name: "generate-config",
            value: "",
            doc: "Prints a settings file with every setting and its default.",
        },
        Flag {
            name: "generate-docs",
            value: "",
            doc: "Prints the tables of settings and statistics for the docs.",
        },
        Flag { name: "version", value: "", doc: "Prints the version." },
    ],
    takes_settings: true,
    examples: &[
        Example {
            line: "quickio --app relay",
            does: "Starts a server on port 8080 that broadcasts each event it receives to the clients that have \
                   subscribed to its path.",
        },
        Example {
            line: "quickio --generate-config > quickio.toml",
            does: "Writes a settings file with every setting and its default, for quickio --config quickio.toml.",
        },
    ],
    details: no_details,
    run,
};

fn run(invocation: Invocation) -> ExitCode {
    let args = invocation.args.clone();
    outcome::act(&invocation, config::from_args(invocation.args.clone(), env::vars_os()), |config| {
        server::run_reloadable(config, Box::new(move || config::read_again(args.clone(), env::vars_os())))
    })
}
