//! `quickio check`.

use super::command::{Example, Invocation, Subcommand, no_details};
use super::outcome;
use crate::config;
use crate::server;
use std::env;
use std::process::ExitCode;

pub(super) static COMMAND: Subcommand = Subcommand {
    name: "check",
    summary: "Checks whether a server with these settings can start",
    usage: "[FLAG VALUE]...",
    about: "Checks the settings, the kernel, the limits of the process, the certificates, the addresses and the files of \
            the applications, without starting a server or running an application. It is safe beside a running server.\
            \n\n\
            The exit code is 0 if a server can start, 2 if a setting is wrong and 1 if something else is.",
    flags: &[],
    takes_settings: true,
    examples: &[
        Example {
            line: "quickio check --config /etc/quickio/quickio.toml",
            does: "Checks a settings file before a server is started or reloaded with it.",
        },
        Example {
            line: "quickio check --app chat.py --listen 0.0.0.0:80",
            does: "Checks an application's file, and that this process may listen on port 80.",
        },
    ],
    details: no_details,
    run,
};

fn run(invocation: Invocation) -> ExitCode {
    outcome::act(&invocation, config::from_args(invocation.args.clone(), env::vars_os()), server::check)
}
