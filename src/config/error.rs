//! The errors of settings. Each names the setting, the value, the allowed values, and the location of the value.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use super::table::Setting;

/// The reason why settings were rejected. Its text is one line for the operator.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A flag, variable or key that is not a setting.
    #[error("unknown setting `{name}` ({location}){}", Suggestion(.suggestion.as_deref()))]
    UnknownSetting {
        /// The name, as it was typed.
        name: String,
        /// The location of the name.
        location: Location,
        /// The setting that was probably meant, as it is typed in that location.
        suggestion: Option<String>,
    },

    /// A value that its setting does not allow.
    #[error("{} cannot be `{text}`: {problem}; allowed: {} ({location})", .setting.name, allowed(.setting))]
    BadValue {
        /// The setting, which knows the allowed values.
        setting: &'static Setting,
        /// The value, as it was typed.
        text: String,
        /// The reason why it is not allowed.
        problem: String,
        /// The location of the value.
        location: Location,
    },

    /// An array of tables on the command line or in the environment.
    #[error(
        "`{name}` is not a flag and not a variable ({location}): write {} into the settings file, a section [[{}]] for each",
        .plural, .array
    )]
    OnlyInFile {
        /// The name of the array.
        array: &'static str,
        /// The entries in a word or two.
        plural: &'static str,
        /// The name, as it was typed.
        name: String,
        /// The location of the name.
        location: Location,
    },

    /// A value where an array of tables is expected.
    #[error(
        "`{}` is a TOML {toml_type}; write {} as sections [[{}]] ({location})",
        .array, .plural, .array
    )]
    NotEntries {
        /// The name of the array.
        array: &'static str,
        /// The entries in a word or two.
        plural: &'static str,
        /// The type, as TOML names it.
        toml_type: &'static str,
        /// The location of the value.
        location: Location,
    },

    /// More entries than an array may have.
    #[error("there are more than {max} sections [[{array}]] ({location})")]
    TooManyEntries {
        /// The name of the array.
        array: &'static str,
        /// The maximum.
        max: usize,
        /// The location of the first entry too many.
        location: Location,
    },

    /// A key that the entries of an array do not have.
    #[error("unknown key `{key}` in [[{array}]] number {number} ({location}): {hint}")]
    UnknownKey {
        /// The name of the array.
        array: &'static str,
        /// The number of the entry, from 1.
        number: usize,
        /// The key, as it was typed.
        key: String,
        /// The location of the key.
        location: Location,
        /// The key that was probably meant, or all keys.
        hint: String,
    },

    /// An entry without a key that each needs.
    #[error(
        "[[{array}]] number {number} has no {key}: add a line `{key} = ...`; allowed: {allowed} ({location})"
    )]
    MissingKey {
        /// The name of the array.
        array: &'static str,
        /// The number of the entry, from 1.
        number: usize,
        /// The key.
        key: &'static str,
        /// The allowed values.
        allowed: String,
        /// The location of the entry.
        location: Location,
    },

    /// A value of an entry that its key does not allow.
    #[error(
        "{key} of [[{array}]] number {number} cannot be `{text}`: {problem}; allowed: {allowed} ({location})"
    )]
    BadEntry {
        /// The name of the array.
        array: &'static str,
        /// The number of the entry, from 1.
        number: usize,
        /// The key.
        key: &'static str,
        /// The value, as it was typed.
        text: String,
        /// The reason why it is not allowed.
        problem: String,
        /// The allowed values.
        allowed: String,
        /// The location of the value, or of the entry if it does not have the key.
        location: Box<Location>,
    },

    /// A flag at the end of the command line whose value is missing.
    #[error("the flag --{} needs a value; allowed: {}", .setting.name, allowed(.setting))]
    MissingValue {
        /// The setting, which knows the allowed values.
        setting: &'static Setting,
    },

    /// The flag `--config` at the end of the command line.
    #[error("the flag --config needs the path of a TOML file")]
    MissingFile,

    /// A value that a flag of `quickio clienttest` does not allow.
    #[error("{flag} cannot be `{text}`: {problem}; allowed: {allowed} (flag --{flag})")]
    BadFlagValue {
        /// The flag, without its dashes.
        flag: &'static str,
        /// The value, as it was typed.
        text: String,
        /// The reason why it is not allowed.
        problem: String,
        /// The allowed values.
        allowed: String,
    },

    /// A flag of `quickio clienttest` at the end of the command line whose value is missing.
    #[error("the flag --{flag} needs a value; allowed: {allowed}")]
    MissingFlagValue {
        /// The flag, without its dashes.
        flag: &'static str,
        /// The allowed values.
        allowed: String,
    },

    /// A `quickio clienttest` whose proxy could not connect to it.
    #[error(
        "clienttest needs a TCP address in listen that is not only for TLS, because its proxy connects to it; add one \
         such as plain://127.0.0.1:8080"
    )]
    ProxyWithoutTcp,

    /// A `quickio test-app` without an application.
    #[error("test-app needs the name or the file of an application")]
    MissingApp,

    /// A `quickio explain` without a path.
    #[error("explain needs a path, such as /chat/rust")]
    MissingPath,

    /// A `quickio explain` with two clients.
    #[error("explain needs --user or --token-file, not both: a token names its user")]
    UserAndToken,

    /// A setting of an application whose type is not allowed.
    #[error(
        "the setting `{key}` of the application {app} is a TOML {toml_type}; it must be a string, a number or a boolean ({location})"
    )]
    BadAppSetting {
        /// The name of the application.
        app: String,
        /// The key of the setting.
        key: String,
        /// The type, as TOML names it.
        toml_type: &'static str,
        /// The location of the value.
        location: Location,
    },

    /// A value where a table with the settings of an application is expected.
    #[error(
        "`{key}` is not a table: settings of an application belong in [app-settings.NAME], and those of the server above \
         the first section ({location})"
    )]
    BadAppSection {
        /// The key, as it was typed.
        key: String,
        /// The location of the value.
        location: Location,
    },

    /// A value for a flag that takes none.
    #[error("the flag {flag} takes no value, but `{text}` was given")]
    UnexpectedValue {
        /// The flag, as it was typed.
        flag: String,
        /// The value, as it was typed.
        text: String,
    },

    /// A word on the command line that is not a flag.
    #[error("unexpected argument `{text}`: settings are given as flags (see --help)")]
    UnexpectedArgument {
        /// The word, as it was typed.
        text: String,
    },

    /// Two settings whose values contradict each other.
    #[error("{one} must be {relation} {other}; otherwise {consequence}")]
    Relation {
        /// The first setting with its value and location.
        one: String,
        /// The relation: `less than` or `at most`.
        relation: &'static str,
        /// The second setting with its value and location.
        other: String,
        /// The consequence of a violation.
        consequence: &'static str,
    },

    /// Two settings that need the same address.
    #[error(
        "{} {} and {} {} are one address, and only one of them can use it; choose another port for {}",
        .one.0, .one.1, .other.0, .other.1, .other.0
    )]
    SameAddress {
        /// The first setting and its address.
        one: (&'static str, SocketAddr),
        /// The second setting and its address.
        other: (&'static str, SocketAddr),
    },

    /// Certificates and keys that are not pairs.
    #[error(
        "tls-cert names {certificates} files and tls-key names {keys}: give one key for each certificate, in the same \
         order, or no tls-key if the files of the certificates have their keys"
    )]
    UnpairedKeys {
        /// The number of files with certificates.
        certificates: usize,
        /// The number of files with keys.
        keys: usize,
    },

    /// A setting that needs a certificate, although there is none.
    #[error(
        "{needs} needs a certificate: set tls-cert and tls-key to the files of the certificate and its private key"
    )]
    NoCertificate {
        /// The setting, with its value if that is the reason.
        needs: String,
    },

    /// A settings file that could not be read.
    #[error("cannot read the settings file {}: {source}", .path.display())]
    FileUnreadable {
        /// The path of the file.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },

    /// A settings file that is too long.
    #[error("the settings file {} is longer than {max} bytes", .path.display())]
    FileTooLong {
        /// The path of the file.
        path: PathBuf,
        /// The maximum length.
        max: u64,
    },

    /// A settings file that is not TOML.
    #[error("{location} is not valid TOML: {message}")]
    FileSyntax {
        /// The location of the syntax error.
        location: Location,
        /// The parser's description of the error.
        message: String,
    },
}

/// The location of a setting or of its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// The command line, for a word that is not the value of a flag.
    CommandLine,
    /// The value of this flag (without its dashes).
    Flag(&'static str),
    /// The environment, for a variable that is not a setting.
    Environment,
    /// The value of this variable.
    Variable(String),
    /// A position in a settings file. Line and column (in characters) count from 1.
    File {
        /// The path of the file, as it was given.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::CommandLine => f.write_str("on the command line"),
            Location::Environment => f.write_str("in the environment"),
            Location::Flag(flag) => write!(f, "flag --{flag}"),
            Location::Variable(name) => write!(f, "variable {name}"),
            Location::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
        }
    }
}

/// Returns the allowed values of a setting, and the format in which they are written.
fn allowed(setting: &Setting) -> String {
    match setting.kind.format() {
        Some(format) => format!("{}, {format}", setting.kind.allowed()),
        None => setting.kind.allowed(),
    }
}

/// The end of a message about an unknown name.
struct Suggestion<'a>(Option<&'a str>);

impl fmt::Display for Suggestion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, ": did you mean `{name}`?"),
            None => f.write_str(": --help lists all settings"),
        }
    }
}
