//! The type of a command, and the search for one by its name.

use crate::config;
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;
use thiserror::Error;

/// A command of the program: a row of the table of commands.
pub(super) struct Subcommand {
    /// The first word of the command line; empty for the server, which needs none.
    pub(super) name: &'static str,
    /// The action, as a verb in the third person with its object: one line without a full stop.
    pub(super) summary: &'static str,
    /// The arguments after the name, as the usage shows them.
    pub(super) usage: &'static str,
    /// The description: paragraphs of whole sentences, separated by empty lines.
    pub(super) about: &'static str,
    /// The flags that only this command has.
    pub(super) flags: &'static [Flag],
    /// The command accepts every setting of the server too.
    pub(super) takes_settings: bool,
    /// Command lines that work as they are, each with its effect.
    pub(super) examples: &'static [Example],
    /// A section of the help that is made from another table, or an empty text.
    pub(super) details: fn() -> String,
    /// Runs the command until it ends.
    pub(super) run: fn(Invocation) -> ExitCode,
}

/// A flag of a command.
pub(super) struct Flag {
    /// The name, without the dashes.
    pub(super) name: &'static str,
    /// The placeholder of its value, in capitals; empty for a switch.
    pub(super) value: &'static str,
    /// The description, in whole sentences.
    pub(super) doc: &'static str,
}

/// A command line, and its effect as a phrase.
pub(super) struct Example {
    /// The command line.
    pub(super) line: &'static str,
    /// The effect, as a whole sentence.
    pub(super) does: &'static str,
}

/// The details of a command whose help has no such section.
pub(super) fn no_details() -> String {
    String::new()
}

/// A command with its arguments.
pub(super) struct Invocation {
    /// The command.
    pub(super) command: &'static Subcommand,
    /// The arguments after the command's name.
    pub(super) args: Vec<OsString>,
    /// All commands.
    pub(super) commands: &'static [&'static Subcommand],
}

/// A word that is not a command.
#[derive(Debug, Error)]
#[error("there is no command `{word}`{}", suggestion(*.nearest))]
pub(super) struct UnknownCommand {
    word: String,
    nearest: Option<&'static str>,
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(
        || "; quickio help lists all commands, and settings are given as flags".to_owned(),
        |name| format!(": did you mean `{name}`?"),
    )
}

/// Returns the command with this name.
pub(super) fn find(
    commands: &'static [&'static Subcommand],
    word: &OsStr,
) -> Result<&'static Subcommand, UnknownCommand> {
    let found = commands.iter().find(|command| word == command.name);
    found.copied().ok_or_else(|| {
        let word = word.to_string_lossy().into_owned();
        let nearest = config::nearest(&word, commands.iter().map(|command| command.name));
        UnknownCommand { word, nearest }
    })
}
