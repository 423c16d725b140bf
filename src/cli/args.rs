//! Reads the arguments of a command that accepts only its own flags, which its row of the table lists.

use super::command::{Flag, Subcommand};
use crate::config;
use lexopt::{Arg, Parser};
use std::ffi::{OsStr, OsString};
use thiserror::Error;

/// The arguments of a command.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    /// The flags in their order, each with its value; that of a switch is empty.
    flags: Vec<(&'static str, String)>,
    /// The arguments that are not flags.
    pub(super) words: Vec<String>,
}

/// The reason why arguments were rejected. Its text is one line for the person who typed them.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum ArgumentError {
    /// A flag that the command does not have.
    #[error("quickio {command} has no flag `{flag}`{}", suggestion(.nearest, command))]
    UnknownFlag { command: &'static str, flag: String, nearest: Option<&'static str> },

    /// A flag whose value is missing.
    #[error("the flag --{flag} needs a value: --{flag} {placeholder}")]
    MissingValue { flag: &'static str, placeholder: &'static str },

    /// A value for a switch.
    #[error("the flag {flag} takes no value, but `{text}` was given")]
    UnexpectedValue { flag: String, text: String },

    /// A value that its flag does not allow.
    #[error("--{flag} cannot be `{text}`: {problem}")]
    BadValue { flag: &'static str, text: String, problem: String },

    /// An argument that is not UTF-8.
    #[error("the argument `{text}` is not valid UTF-8")]
    NotUnicode { text: String },

    /// Arguments that do not fit the usage.
    #[error("{problem}; quickio {command} --help has the usage and examples")]
    Usage { command: &'static str, problem: String },
}

fn suggestion(nearest: &Option<&str>, command: &str) -> String {
    match nearest {
        Some(name) => format!(": did you mean `--{name}`?"),
        None => format!("; quickio {command} --help lists its flags"),
    }
}

/// Reads the arguments after the command's name. Returns `None` if they ask for help.
pub(super) fn read(command: &Subcommand, args: Vec<OsString>) -> Result<Option<Arguments>, ArgumentError> {
    let mut parser = Parser::from_args(args);
    let mut arguments = Arguments::default();
    while let Some(arg) = parser.next().map_err(parse_error)? {
        let name = match arg {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Value(word) => {
                arguments.words.push(unicode(&word)?);
                continue;
            }
            Arg::Long(name) => name.to_owned(),
            Arg::Short(letter) => {
                return Err(ArgumentError::UnknownFlag {
                    command: command.name,
                    flag: format!("-{letter}"),
                    nearest: None,
                });
            }
        };
        let flag = find(command, &name)?;
        let value = if flag.value.is_empty() {
            String::new()
        } else {
            let missing = |_| ArgumentError::MissingValue { flag: flag.name, placeholder: flag.value };
            unicode(&parser.value().map_err(missing)?)?
        };
        arguments.flags.push((flag.name, value));
    }
    Ok(Some(arguments))
}

fn find(command: &Subcommand, name: &str) -> Result<&'static Flag, ArgumentError> {
    let names = || command.flags.iter().map(|flag| flag.name).chain(["help"]);
    command.flags.iter().find(|flag| flag.name == name).ok_or_else(|| ArgumentError::UnknownFlag {
        command: command.name,
        flag: format!("--{name}"),
        nearest: config::nearest(name, names()).or_else(|| names().find(|flag| flag.starts_with(name))),
    })
}

fn parse_error(error: lexopt::Error) -> ArgumentError {
    match error {
        lexopt::Error::UnexpectedValue { option, value } => {
            ArgumentError::UnexpectedValue { flag: option, text: value.to_string_lossy().into_owned() }
        }
        other => ArgumentError::NotUnicode { text: other.to_string() },
    }
}

fn unicode(text: &OsStr) -> Result<String, ArgumentError> {
    let text =
        text.to_str().ok_or_else(|| ArgumentError::NotUnicode { text: text.to_string_lossy().into() })?;
    Ok(text.to_owned())
}

impl Arguments {
    /// Returns the value of a flag: the last one, if it was given several times.
    pub(super) fn value(&self, flag: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(name, _)| *name == flag).map(|(_, value)| value.as_str())
    }

    /// Returns all values of a flag that may be repeated.
    pub(super) fn values(&self, flag: &'static str) -> impl Iterator<Item = &str> {
        self.flags.iter().filter(move |(name, _)| *name == flag).map(|(_, value)| value.as_str())
    }

    /// Returns whether a switch was given.
    pub(super) fn has(&self, flag: &str) -> bool {
        self.value(flag).is_some()
    }

    /// Parses the value of a flag. An error is a phrase that states the problem.
    pub(super) fn parsed<T>(
        &self,
        flag: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ArgumentError> {
        let Some(text) = self.value(flag) else { return Ok(None) };
        let value = parse(text);
        value.map(Some).map_err(|problem| ArgumentError::BadValue { flag, text: text.to_owned(), problem })
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::no_details;
    use super::*;
    use std::process::ExitCode;

    static COMMAND: Subcommand = Subcommand {
        name: "try",
        summary: "Tries",
        usage: "",
        about: "Tries.",
        flags: &[
            Flag { name: "count", value: "N", doc: "The count." },
            Flag { name: "json", value: "", doc: "JSON." },
        ],
        takes_settings: false,
        examples: &[],
        details: no_details,
        run: |_| ExitCode::SUCCESS,
    };

    fn read_all(args: &[&str]) -> Result<Option<Arguments>, String> {
        read(&COMMAND, args.iter().map(OsString::from).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_and_words() {
        let read = read_all(&["/a", "--count", "1", "--json", "--count=2", "--", "-5"]).unwrap().unwrap();
        assert_eq!(read.words, ["/a", "-5"]);
        assert_eq!((read.value("count"), read.has("json"), read.value("x")), (Some("2"), true, None));
        assert_eq!(read.parsed("count", |text| text.parse().map_err(|_| String::new())), Ok(Some(2)));
        let error = read.parsed("count", |_| Err::<(), _>("no".into())).unwrap_err();
        assert_eq!(error.to_string(), "--count cannot be `2`: no");
        for help in [&["-h"][..], &["--help"], &["/a", "--json", "-h", "--nonsense"]] {
            assert_eq!(read_all(help), Ok(None));
        }
    }

    #[test]
    fn errors_say_what_to_do() {
        for (args, message) in [
            (&["--cuont", "3"][..], "quickio try has no flag `--cuont`: did you mean `--count`?"),
            (&["--nonsense"], "quickio try has no flag `--nonsense`; quickio try --help lists its flags"),
            (&["-5"], "quickio try has no flag `-5`; quickio try --help lists its flags"),
            (&["--count"], "the flag --count needs a value: --count N"),
            (&["--json=x"], "the flag --json takes no value, but `x` was given"),
        ] {
            assert_eq!(read_all(args).unwrap_err(), message);
        }
    }
}
