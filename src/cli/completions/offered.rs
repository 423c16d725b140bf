//! The words that can stand at each place of a command line, from the tables of commands and settings.

use crate::cli::command::Subcommand;
use crate::cli::serve;
use crate::config::clienttest::Mode;
use crate::config::table::{SETTINGS, Setting, ValueKind};

/// The applications that are part of the server.
const BUNDLED_APPS: [&str; 2] = ["relay", "clienttest"];

/// A command, as a shell completes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OfferedCommand {
    /// The name; empty for the server.
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    pub(super) flags: Vec<OfferedFlag>,
    /// The arguments that are not flags.
    pub(super) arguments: Completion,
}

/// A flag, as a shell completes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OfferedFlag {
    pub(super) name: &'static str,
    /// The placeholder of the value; empty for a switch.
    pub(super) value: String,
    /// A description of one line.
    pub(super) doc: String,
    pub(super) completed: Completion,
}

/// The values that are completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Completion {
    /// None: only a person knows them.
    Nothing,
    Files,
    Directories,
    /// These words.
    Words(Vec<&'static str>),
    /// These words, and files.
    WordsAndFiles(Vec<&'static str>),
}

impl Completion {
    /// Returns the words.
    pub(super) fn words(&self) -> &[&'static str] {
        match self {
            Completion::Words(words) | Completion::WordsAndFiles(words) => words,
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
        completed: Completion::Nothing,
    });
    if command.takes_settings {
        flags.extend(SETTINGS.iter().map(setting));
    }
    flags
}

fn setting(setting: &Setting) -> OfferedFlag {
    let (value, completed) = match setting.kind {
        // A switch takes its value only behind `=`.
        ValueKind::Switch(_) => (String::new(), Completion::Nothing),
        ValueKind::Choice { choices, .. } => {
            (setting.kind.placeholder(), Completion::Words(choices.to_vec()))
        }
        ValueKind::Apps(_) => (setting.kind.placeholder(), Completion::WordsAndFiles(BUNDLED_APPS.to_vec())),
        ValueKind::Program(_) | ValueKind::Files(_) | ValueKind::File(_) => {
            (setting.kind.placeholder(), Completion::Files)
        }
        ValueKind::Directory(_) => (setting.kind.placeholder(), Completion::Directories),
        ValueKind::Shards(_) | ValueKind::AutoCount { .. } => {
            (setting.kind.placeholder(), Completion::Words(vec!["auto"]))
        }
        ValueKind::AddressOrOff { .. } => (setting.kind.placeholder(), Completion::Words(vec!["off"])),
        kind => (kind.placeholder(), Completion::Nothing),
    };
    OfferedFlag { name: setting.name, value, doc: first_sentence(setting.doc), completed }
}

/// Returns what a placeholder stands for: capitals for a value of that kind, and other words for themselves.
fn completed(placeholder: &'static str) -> Completion {
    match placeholder {
        "FILE" => return Completion::Files,
        "DIRECTORY" => return Completion::Directories,
        "MODE|rotate" => {
            return Completion::Words(Mode::ALL.iter().map(|mode| mode.name()).chain(["rotate"]).collect());
        }
        _ => {}
    }
    let is_word = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let words: Vec<&str> = placeholder.split('|').filter(is_word).collect();
    if words.is_empty() { Completion::Nothing } else { Completion::Words(words) }
}

/// Returns what the last word of a command's usage stands for.
fn arguments(command: &Subcommand, commands: &[&'static Subcommand]) -> Completion {
    match command.usage.rsplit(' ').next().unwrap_or_default() {
        "[COMMAND]" => Completion::Words(commands.iter().map(|command| command.name).collect()),
        "APP..." => Completion::WordsAndFiles(BUNDLED_APPS.to_vec()),
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
            ("FILE", Completion::Files),
            ("DURATION", Completion::Nothing),
            ("", Completion::Nothing),
            ("bash|zsh", Completion::Words(vec!["bash", "zsh"])),
            ("auto|COUNT", Completion::Words(vec!["auto"])),
            ("[=off]", Completion::Nothing),
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
