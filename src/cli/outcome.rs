//! The end of a command: prints a text or an error, and selects the exit code.

use super::command::{Invocation, Subcommand};
use super::help;
use crate::config::{self, Action, ConfigError, GeneratedText};
use crate::log;
use crate::server::ServerError;
use std::process::ExitCode;

/// Runs a command that accepts the settings of the server, or prints the text that its command line asks for.
pub(super) fn act<Settings>(
    invocation: &Invocation,
    asked: Result<Action<Settings>, ConfigError>,
    run: impl FnOnce(Settings) -> Result<(), ServerError>,
) -> ExitCode {
    match asked {
        Ok(Action::Print(GeneratedText::Help)) => print_help(invocation.command, invocation.commands),
        Ok(Action::Print(text)) => print(&text.to_string()),
        Ok(Action::Run(settings)) => match run(settings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, error.exit_code()),
        },
        Err(error) => fail(&error, config::EXIT_CODE),
    }
}

/// Prints the help of a command; that of the server is the help of the program.
pub(super) fn print_help(command: &Subcommand, commands: &[&Subcommand]) -> ExitCode {
    if command.name.is_empty() {
        print(&format!("{}\n{}", help::overview(command, commands), config::help()))
    } else {
        print(&help::of(command))
    }
}

/// Prints a text on standard output.
pub(super) fn print(text: &str) -> ExitCode {
    match log::write_stdout(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::report(&format_args!("cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Reports an error on standard error.
pub(super) fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    log::report(&error);
    ExitCode::from(code)
}
