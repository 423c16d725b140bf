//! The command line of `quickio`: the first word selects a command, and without one a server starts.
//!
//! Each command is a file with one public item, its row of the table: name, arguments, flags, examples, and the function
//! that runs it. The help is made from the rows.
//!
//! | file | contents |
//! | --- | --- |
//! | `command` | the type of a row |
//! | `help` | the help of the program and of each command, as text |
//! | `outcome` | ends a command: prints a text or an error, and selects the exit code |
//! | `args` | the arguments of commands that accept only their own flags |
//! | `peer` | a client of a server, which never blocks |
//! | `connect` | the flags and errors that commands with such a client share |
//! | `wait`, `lines`, `received`, `progress` | signals, standard input, standard output, progress on a terminal |
//! | `serve` | a server, which needs no command |
//! | `publish`, `subscribe` | `quickio pub` and `quickio sub` |
//! | `signing` | the signatures of `quickio token` |
//! | all others | the command of that name |

mod args;
mod check;
mod clienttest;
mod command;
mod completions;
mod connect;
mod explain;
mod help;
mod help_command;
mod lines;
mod man;
mod outcome;
mod peer;
mod progress;
mod publish;
mod received;
mod serve;
mod signing;
mod subscribe;
mod test_app;
mod token;
mod top;
mod wait;

use crate::config;
use crate::log;
use command::{Invocation, Subcommand};
use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

/// All commands, in the order in which they are shown.
static COMMANDS: &[&Subcommand] = &[
    &check::COMMAND,
    &explain::COMMAND,
    &publish::COMMAND,
    &subscribe::COMMAND,
    &token::COMMAND,
    &top::COMMAND,
    &test_app::COMMAND,
    &clienttest::COMMAND,
    &completions::COMMAND,
    &man::COMMAND,
    &help_command::COMMAND,
];

/// Runs the command that the arguments name (without the program's name), or a server.
#[must_use]
pub fn run(mut args: Vec<OsString>) -> ExitCode {
    // Errors in the arguments are reported in this format too.
    log::set_report_format(config::log_format_of(&args, env::vars_os()));
    let has_word = args.first().is_some_and(|word| !word.as_encoded_bytes().starts_with(b"-"));
    let command = if has_word {
        let word = args.remove(0);
        match command::find(COMMANDS, &word) {
            Ok(command) => command,
            Err(error) => return outcome::fail(&error, config::EXIT_CODE),
        }
    } else {
        &serve::COMMAND
    };
    (command.run)(Invocation { command, args, commands: COMMANDS })
}

#[cfg(test)]
mod tests;
