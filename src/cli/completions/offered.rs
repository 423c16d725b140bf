//! The words that can stand at each place of a command line, from the tables of commands and settings.

use crate::cli::command::Subcommand;
use crate::cli::serve;
use crate::config::clienttest::Mode;
use crate::config::table::{SETTINGS, Setting, ValueKind};
use crate::identity::Algorithm;

/// The applications that are part of the server.
const BUNDLED_APPS: [&str; 3] = ["relay", "clienttest", "webhook"];

/// A command, as a shell completes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OfferedCommand {
    /// The name; empty for the server.
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    pub(super) flags: Vec<OfferedFlag>,
    /// The arguments that are not flags.
    pub(super) arguments: OfferedValues,
}

/// A flag, as a shell completes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OfferedFlag {
    pub(super) name: &'static str,
    /// The placeholder of the value; empty for a switch.
    pub(super) value: String,
    /// A description of one line.
    pub(super) doc: String,
    pub(super) completed: OfferedValues,
}

/// The values that are completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OfferedValues {
    /// None: only a person knows them.
    Nothing,
    Files,
    Directories,
    /// These words.
    Words(Vec<&'static str>),
    /// These words, and files.
    WordsAndFiles(Vec<&'static str>),
}

impl OfferedValues {
    /// Returns the words.
    pub(super) fn words(&self) -> &[&'static str] {
        match self {
            OfferedValues::Words(words) | OfferedValues::WordsAndFiles(words) => words,
            _ => &[],
        }
    }
}

/// Returns the server and all commands.
pub(super) fn commands(commands: &[&'static Subcommand]) -> Vec<OfferedCommand> {
    let all = [&serve::COMMAND].into_iter().chain(commands.iter().copied());
    all.map(|command| OfferedCommand {
        name: command.name,
        summary: command.summary,
        flags: flags(command),
        arguments: arguments(command, commands),
    })
    .collect()
}

fn flags(command: &Subcommand) -> Vec<OfferedFlag> {
    let mut flags: Vec<OfferedFlag> = Vec::new();
    let of_server = if command.takes_settings { serve::COMMAND.flags } else { &[] };
    for flag in command.flags.iter().chain(of_server) {
        // A command may have a flag of the server with a meaning of its own.
        if !flags.iter().any(|other| other.name == flag.name) {
            flags.push(OfferedFlag {
                name: flag.name,
                value: flag.value.to_owned(),
                doc: first_sentence(flag.doc),
                completed: completed(flag.value),
            });
        }
    }
    flags.push(OfferedFlag {
        name: "help",
        value: String::new(),
        doc: "Prints the help".into(),
        completed: OfferedValues::Nothing,
    });
    if command.takes_settings {
        flags.extend(SETTINGS.iter().map(setting));
    }
    flags
}

fn setting(setting: &Setting) -> OfferedFlag {
    let (value, completed) = match setting.kind {
        // A switch takes its value only behind `=`.
        ValueKind::Switch(_) => (String::new(), OfferedValues::Nothing),
        ValueKind::Choice { choices, .. } => {
            (setting.kind.placeholder(), OfferedValues::Words(choices.to_vec()))
        }
        ValueKind::Apps(_) => {
            (setting.kind.placeholder(), OfferedValues::WordsAndFiles(BUNDLED_APPS.to_vec()))
        }
        ValueKind::Program(_) | ValueKind::Files(_) | ValueKind::File(_) => {
            (setting.kind.placeholder(), OfferedValues::Files)
        }
        ValueKind::Directory(_) => (setting.kind.placeholder(), OfferedValues::Directories),
        ValueKind::Shards(_) | ValueKind::AutoCount { .. } => {
            (setting.kind.placeholder(), OfferedValues::Words(vec!["auto"]))
        }
        ValueKind::AddressOrOff { .. } => (setting.kind.placeholder(), OfferedValues::Words(vec!["off"])),
        kind => (kind.placeholder(), OfferedValues::Nothing),
    };
    OfferedFlag { name: setting.name, value, doc: first_sentence(setting.doc), completed }
}

/// Returns what a placeholder stands for: capitals for a value of that kind, and other words for themselves.
fn completed(placeholder: &'static str) -> OfferedValues {
    match placeholder {
        "FILE" => return OfferedValues::Files,
        "DIRECTORY" => return OfferedValues::Directories,
        "ALGORITHM" => return OfferedValues::Words(Algorithm::NAMES.to_vec()),
        "MODE|rotate" => {
            return OfferedValues::Words(
                Mode::ALL.iter().map(|mode| mode.name()).chain(["rotate"]).collect(),
            );
        }
        _ => {}
    }
    let is_word = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let words: Vec<&str> = placeholder.split('|').filter(is_word).collect();
    if words.is_empty() { OfferedValues::Nothing } else { OfferedValues::Words(words) }
}

/// Returns what the last word of a command's usage stands for.
fn arguments(command: &Subcommand, commands: &[&'static Subcommand]) -> OfferedValues {
    match command.usage.rsplit(' ').next().unwrap_or_default() {
        "[COMMAND]" => OfferedValues::Words(commands.iter().map(|command| command.name).collect()),
        "APP..." => OfferedValues::WordsAndFiles(BUNDLED_APPS.to_vec()),
        word => completed(word),
    }
}

fn first_sentence(doc: &str) -> String {
    doc.split_once(". ").map_or(doc, |(first, _)| first).trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders() {
        for (placeholder, expected) in [
            ("FILE", OfferedValues::Files),
            ("DURATION", OfferedValues::Nothing),
            ("", OfferedValues::Nothing),
            ("bash|zsh", OfferedValues::Words(vec!["bash", "zsh"])),
            ("auto|COUNT", OfferedValues::Words(vec!["auto"])),
            ("[=off]", OfferedValues::Nothing),
        ] {
            assert_eq!(completed(placeholder), expected, "{placeholder}");
        }
        assert!(completed("MODE|rotate").words().contains(&"swallow"));
    }

    #[test]
    fn descriptions_are_one_sentence() {
        assert_eq!(first_sentence("Ends after 1.5 s. Or later."), "Ends after 1.5 s");
        for command in commands(crate::cli::COMMANDS) {
            for flag in command.flags {
                assert!(!flag.doc.is_empty() && !flag.doc.contains('\n'), "{flag:?}");
            }
        }
    }
}
