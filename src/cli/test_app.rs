//! `quickio test-app`.

use super::command::{Example, Invocation, Subcommand, no_details};
use super::outcome;
use crate::config;
use crate::server;
use std::env;
use std::process::ExitCode;

pub(super) static COMMAND: Subcommand = Subcommand {
    name: "test-app",
    summary: "Runs the self-tests of applications",
    usage: "[FLAG VALUE]... APP...",
    about: "Runs the self-tests of applications, which are given as for --app, without starting a server.\n\n\
            The exit code is 0 if all of them can run.",
    flags: &[],
    takes_settings: true,
    examples: &[
        Example {
            line: "quickio test-app ./chat.so",
            does: "Loads an application in C and runs its self-test.",
        },
        Example {
            line: "quickio test-app --app-dir /srv/apps chat votes",
            does: "Tests two applications by their names.",
        },
    ],
    details: no_details,
    run,
};

fn run(invocation: Invocation) -> ExitCode {
    let asked = config::test_app_from_args(invocation.args.clone(), env::vars_os());
    outcome::act(&invocation, asked, server::test_apps)
}
