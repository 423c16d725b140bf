//! The arguments of `quickio explain`: paths, and the client that is asked about.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::error::ConfigError;
use super::sources::{self, OwnArgs, ParsedArgs};
use super::{Action, Config, from_sources};

/// The names of the flags with the client.
const USER: &str = "user";
const TOKEN_FILE: &str = "token-file";

/// The allowed users, and files with a token.
const USERS: &str = "a text in UTF-8 that is not empty";
const TOKEN_FILES: &str = "the path of a file";

/// The question of `quickio explain`.
#[derive(Clone, Debug, PartialEq)]
pub struct ExplainConfig {
    /// The settings of the server.
    pub server: Config,
    /// The authenticated user, or `None` for a client that has not authenticated.
    pub user: Option<String>,
    /// The file with the token of the client, which names its user.
    pub token_file: Option<PathBuf>,
    /// The paths, as they were typed; at least one.
    pub paths: Vec<String>,
}

/// Reads the arguments of `quickio explain`: the settings of [`super::from_args`], the flags `--user` and
/// `--token-file`, and paths.
///
/// # Errors
///
/// Returns the errors of [`super::from_args`], and an error if no path is given, or if both flags are.
///
/// # Examples
///
/// ```
/// use quickio::config::{self, Action};
///
/// let args = ["--user", "7", "/chat/rust"].map(Into::into);
/// let Ok(Action::Run(asked)) = config::explain_from_args(args, []) else { panic!("these settings are valid") };
/// assert_eq!((asked.user.as_deref(), &asked.paths[..]), (Some("7"), &["/chat/rust".to_owned()][..]));
/// ```
pub fn explain_from_args(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Action<ExplainConfig>, ConfigError> {
    let mut own = OwnArgs { flags: &[USER, TOKEN_FILE], takes_words: true, ..OwnArgs::default() };
    let flags = match sources::flags(args, &mut own)? {
        ParsedArgs::Settings(flags) => flags,
        ParsedArgs::Print(text) => return Ok(Action::Print(text)),
    };
    let last =
        |flag| own.values.iter().rev().find(|(name, _)| *name == flag).map(|(_, value)| value.as_deref());
    let user = last(USER).map(user).transpose()?;
    let token_file = last(TOKEN_FILE).map(token_file).transpose()?;
    if user.is_some() && token_file.is_some() {
        return Err(ConfigError::UserAndToken);
    }
    let paths: Vec<String> = own.words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if paths.is_empty() {
        return Err(ConfigError::MissingPath);
    }
    Ok(Action::Run(ExplainConfig { server: from_sources(flags, env)?, user, token_file, paths }))
}

fn token_file(value: Option<&OsStr>) -> Result<PathBuf, ConfigError> {
    let missing = || ConfigError::MissingFlagValue { flag: TOKEN_FILE, allowed: TOKEN_FILES.into() };
    value.map(PathBuf::from).ok_or_else(missing)
}

fn user(value: Option<&OsStr>) -> Result<String, ConfigError> {
    let value = value.ok_or_else(|| ConfigError::MissingFlagValue { flag: USER, allowed: USERS.into() })?;
    match value.to_str() {
        Some(user) if !user.is_empty() => Ok(user.to_owned()),
        _ => Err(ConfigError::BadFlagValue {
            flag: USER,
            text: value.to_string_lossy().into_owned(),
            problem: "a token cannot have such a user".into(),
            allowed: USERS.into(),
        }),
    }
}
