//! The arguments of `quickio explain`: paths, and the client that is asked about.

use std::ffi::{OsStr, OsString};

use super::error::ConfigError;
use super::sources::{self, OwnArgs, ParsedArgs};
use super::{Action, Config, from_sources};

/// The name of the flag with the user.
const USER: &str = "user";

/// The allowed users.
const USERS: &str = "a text in UTF-8 that is not empty";

/// The question of `quickio explain`.
#[derive(Clone, Debug, PartialEq)]
pub struct ExplainConfig {
    /// The settings of the server.
    pub server: Config,
    /// The authenticated user, or `None` for a client that has not authenticated.
    pub user: Option<String>,
    /// The paths, as they were typed; at least one.
    pub paths: Vec<String>,
}

/// Reads the arguments of `quickio explain`: the settings of [`super::from_args`], the flag `--user`, and paths.
///
/// # Errors
///
/// Returns the errors of [`super::from_args`], and an error if no path is given.
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
    let mut own = OwnArgs { flags: &[USER], takes_words: true, ..OwnArgs::default() };
    let flags = match sources::flags(args, &mut own)? {
        ParsedArgs::Settings(flags) => flags,
        ParsedArgs::Print(text) => return Ok(Action::Print(text)),
    };
    let last = own.values.last();
    let user = last.map(|(_, value)| user(value.as_deref())).transpose()?;
    let paths: Vec<String> = own.words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if paths.is_empty() {
        return Err(ConfigError::MissingPath);
    }
    Ok(Action::Run(ExplainConfig { server: from_sources(flags, env)?, user, paths }))
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
