//! `quickio help`.

use super::command::{self, Example, Invocation, Subcommand, no_details};
use super::{help, outcome, serve};
use crate::config;
use std::process::ExitCode;

pub(super) static COMMAND: Subcommand = Subcommand {
    name: "help",
    summary: "Prints the commands, or the help of one of them",
    usage: "[COMMAND]",
    about: "Prints the list of commands or, as quickio COMMAND --help does, the help of one command. The settings of the \
            server are in quickio --help.",
    flags: &[],
    takes_settings: false,
    examples: &[Example { line: "quickio help check", does: "Prints the help of quickio check." }],
    details: no_details,
    run,
};

fn run(invocation: Invocation) -> ExitCode {
    let Invocation { command, args, commands } = invocation;
    match args.first() {
        None => outcome::print(&format!(
            "{}\nquickio --help lists all settings of the server.\n",
            help::overview(&serve::COMMAND, commands)
        )),
        Some(word) if word == "-h" || word == "--help" => outcome::print_help(command, commands),
        Some(word) => match command::find(commands, word) {
            Ok(command) => outcome::print_help(command, commands),
            Err(error) => outcome::fail(&error, config::EXIT_CODE),
        },
    }
}
