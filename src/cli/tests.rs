//! Tests of the table of commands and of the texts that are made from it.

use super::command::{Subcommand, find};
use super::{COMMANDS, help, serve};
use crate::config::clienttest::Mode;
use crate::config::{self, ConfigError};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

fn texts() -> Vec<String> {
    let commands = COMMANDS.iter().map(|command| help::of(command));
    commands.chain([help::overview(&serve::COMMAND, COMMANDS)]).collect()
}

#[test]
fn names_are_words_and_differ() {
    let names = BTreeSet::from_iter(COMMANDS.iter().map(|command| command.name));
    assert_eq!(names.len(), COMMANDS.len());
    for name in names {
        assert!(
            name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && !name.starts_with('-'),
            "{name}"
        );
        assert!(std::ptr::eq(
            find(COMMANDS, OsStr::new(name)).ok().unwrap(),
            find(COMMANDS, name.as_ref()).ok().unwrap()
        ));
    }
}

#[test]
fn help_fits_a_terminal_and_has_examples() {
    for text in texts() {
        for line in text.lines() {
            assert!(line.chars().count() <= 80 && line == line.trim_end(), "{line:?}");
        }
        assert!(!text.contains("\n\n\n") && text.ends_with('\n'), "{text}");
        assert!(text.contains("\nExamples:\n\n  "), "{text}");
    }
    for command in COMMANDS {
        let overview = help::overview(&serve::COMMAND, COMMANDS);
        assert!(overview.contains(&format!("\n  {} ", command.name)), "{}", command.name);
        assert!(command.examples.iter().any(|example| example.line.contains("quickio ")), "{}", command.name);
        assert!(!command.summary.ends_with('.') && command.about.ends_with('.'), "{}", command.name);
    }
}

#[test]
fn help_of_client_tests_has_the_modes() {
    let command = find(COMMANDS, OsStr::new("clienttest")).ok().unwrap();
    for mode in Mode::ALL {
        assert!(help::of(command).contains(&format!("\n  {}\n", mode.name())), "{}", mode.name());
    }
    for flag in command.flags.iter().filter(|flag| !flag.value.is_empty()) {
        let args = [OsString::from(format!("--{}", flag.name))];
        let error = config::client_test_from_args(args, []).unwrap_err();
        assert!(matches!(error, ConfigError::MissingFlagValue { .. }), "{error}");
    }
}

#[test]
fn unknown_commands_get_the_nearest_name() {
    let message = |word: &str| find(COMMANDS, OsStr::new(word)).err().map(|error| error.to_string());
    assert_eq!(message("chekc").unwrap(), "there is no command `chekc`: did you mean `check`?");
    assert_eq!(
        message("serve").unwrap(),
        "there is no command `serve`; quickio help lists all commands, and settings are given as flags"
    );
    assert_eq!(message("check"), None);
}

#[test]
fn flags_of_the_server_are_those_of_its_help() {
    for flag in serve::COMMAND.flags {
        assert!(config::help().contains(&format!("--{}", flag.name)), "{}", flag.name);
    }
}

#[test]
fn every_flag_is_described() {
    for Subcommand { name, flags, .. } in COMMANDS {
        for flag in *flags {
            assert!(flag.doc.ends_with(['.', ']']), "{name} --{}", flag.name);
        }
    }
}
