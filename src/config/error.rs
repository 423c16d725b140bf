//! What can be wrong with settings: each error names the setting, the value, what is allowed, and the place.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::table::Setting;

/// Why settings were refused. Its text is one line, made for the operator.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A flag, variable or key that is no setting.
    #[error("unknown setting `{name}` ({place}){}", Suggestion(.suggestion.as_deref()))]
    UnknownSetting {
        /// As it was typed.
        name: String,
        /// Where it stood.
        place: Place,
        /// The setting that was meant, perhaps, as it should be typed there.
        suggestion: Option<String>,
    },

    /// A value that its setting does not allow.
    #[error("{} cannot be `{text}`: {why}; allowed: {} ({place})", .setting.name, allowed(.setting))]
    BadValue {
        /// The setting, which knows what would be right.
        setting: &'static Setting,
        /// The value, as it was typed.
        text: String,
        /// What is wrong with it.
        why: String,
        /// Where it stood.
        place: Place,
    },

    /// A flag at the end of the command line whose value is missing.
    #[error("the flag --{} needs a value; allowed: {}", .setting.name, allowed(.setting))]
    MissingValue {
        /// The setting, which knows what would be right.
        setting: &'static Setting,
    },

    /// `--config` at the end of the command line.
    #[error("the flag --config needs the path of a TOML file")]
    MissingFile,

    /// A value that a flag of `quickio clienttest` does not allow.
    #[error("{flag} cannot be `{text}`: {why}; allowed: {allowed} (flag --{flag})")]
    BadFlagValue {
        /// The flag, without its dashes.
        flag: &'static str,
        /// The value, as it was typed.
        text: String,
        /// What is wrong with it.
        why: String,
        /// What would be right.
        allowed: String,
    },

    /// A flag of `quickio clienttest` at the end of the command line whose value is missing.
    #[error("the flag --{flag} needs a value; allowed: {allowed}")]
    MissingFlagValue {
        /// The flag, without its dashes.
        flag: &'static str,
        /// What would be right.
        allowed: String,
    },

    /// `quickio clienttest` with Unix sockets only.
    #[error("clienttest needs a TCP address in listen: its proxy connects to that")]
    ProxyWithoutTcp,

    /// A flag that takes no value was given one.
    #[error("the flag {flag} takes no value, and was given `{text}`")]
    UnexpectedValue {
        /// The flag, as it was typed.
        flag: String,
        /// The value, as it was typed.
        text: String,
    },

    /// A word on the command line that is no flag.
    #[error("unexpected argument `{text}`: every setting is a flag, --help lists them")]
    UnexpectedArgument {
        /// As it was typed.
        text: String,
    },

    /// Two settings whose values do not go together.
    #[error("{one} must be {relation} {other}: {why}")]
    Relation {
        /// The first setting, its value and place.
        one: String,
        /// `less than`, or `at most`.
        relation: &'static str,
        /// The second setting, its value and place.
        other: String,
        /// What would go wrong.
        why: &'static str,
    },

    /// A settings file that could not be read.
    #[error("cannot read the settings file {}: {source}", .path.display())]
    FileUnreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },

    /// A settings file too long to be one.
    #[error("the settings file {} is longer than {max} bytes", .path.display())]
    FileTooLong {
        /// The file.
        path: PathBuf,
        /// The most that is read.
        max: u64,
    },

    /// A settings file that is no TOML.
    #[error("{place} is not valid TOML: {message}")]
    FileSyntax {
        /// Where it stops being TOML.
        place: Place,
        /// What was found and expected there.
        message: String,
    },
}

/// Where a setting was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the command line, as something that is no flag.
    CommandLine,
    /// On the command line, after this flag (without its dashes).
    Flag(&'static str),
    /// In the environment, as a variable that is no setting.
    Environment,
    /// In the environment, in this variable.
    Variable(String),
    /// In a settings file; line and column (in characters) count from 1.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::CommandLine => f.write_str("on the command line"),
            Place::Environment => f.write_str("in the environment"),
            Place::Flag(flag) => write!(f, "flag --{flag}"),
            Place::Variable(name) => write!(f, "variable {name}"),
            Place::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
        }
    }
}

/// What would be right, and how it is written.
fn allowed(setting: &Setting) -> String {
    match setting.kind.form() {
        Some(form) => format!("{}, {form}", setting.kind.allowed()),
        None => setting.kind.allowed(),
    }
}

/// The end of a message about an unknown name.
struct Suggestion<'a>(Option<&'a str>);

impl fmt::Display for Suggestion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, ": did you mean `{name}`?"),
            None => f.write_str(": --help lists what there is"),
        }
    }
}
