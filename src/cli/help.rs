//! The help of the program and of each command, made from the table of commands.

use super::command::{Example, Flag, Subcommand};
use crate::config;
use std::fmt::Write;

/// The indent of a description below its flag or its example.
const INDENT: &str = "      ";

/// Returns the first part of the program's help: the commands.
pub(super) fn overview(server: &Subcommand, commands: &[&Subcommand]) -> String {
    let mut out = String::from("QuickIO: a real-time event server for Linux.\n\n");
    let _ = writeln!(out, "Usage: quickio {}\n       quickio COMMAND [ARGUMENT]...\n", server.usage);
    paragraphs(&mut out, server.about);
    out.push_str("\nCommands:\n\n");
    let width = commands.iter().map(|command| command.name.len()).max().unwrap_or(0);
    for command in commands {
        let _ = writeln!(out, "  {:width$}  {}", command.name, command.summary);
    }
    out.push_str("\nquickio COMMAND --help describes a command, with examples.\n");
    examples(&mut out, server.examples);
    out
}

/// Returns the help of a command.
pub(super) fn of(command: &Subcommand) -> String {
    let mut out = String::new();
    let heading = format!("quickio {}: {}.", command.name, lower_first(command.summary));
    config::wrap(&mut out, "", &heading);
    let _ = writeln!(out, "\nUsage: {}\n", usage(command));
    paragraphs(&mut out, command.about);
    out.push_str("\nFlags:\n\n");
    for Flag { name, value, doc } in command.flags {
        let _ = writeln!(out, "{}", format!("  --{name} {value}").trim_end());
        config::wrap(&mut out, INDENT, doc);
    }
    out.push_str("  -h, --help\n");
    config::wrap(&mut out, INDENT, "Prints this help.");
    if command.takes_settings {
        out.push('\n');
        config::wrap(&mut out, "", "All settings of the server are accepted too; quickio --help lists them.");
    }
    let details = (command.details)();
    if !details.is_empty() {
        let _ = write!(out, "\n{details}");
    }
    examples(&mut out, command.examples);
    out
}

/// Returns the usage of a command, without the word `Usage`.
pub(super) fn usage(command: &Subcommand) -> String {
    let words = ["quickio", command.name, command.usage];
    Vec::from_iter(words.into_iter().filter(|word| !word.is_empty())).join(" ")
}

fn examples(out: &mut String, examples: &[Example]) {
    if !examples.is_empty() {
        out.push_str("\nExamples:\n\n");
    }
    for Example { line, does } in examples {
        let _ = writeln!(out, "  {line}");
        config::wrap(out, INDENT, does);
    }
}

fn paragraphs(out: &mut String, text: &str) {
    for (at, paragraph) in text.split("\n\n").enumerate() {
        if at > 0 {
            out.push('\n');
        }
        config::wrap(out, "", paragraph);
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
