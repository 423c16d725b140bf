//! What was typed: words from flags, the environment and the file, each with the place where it stood.
//!
//! Nothing here knows what a word means; `meaning` does.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use lexopt::Arg;
use toml_edit::{Document, Item, Value};

use super::clienttest::{self, Own};
use super::error::{ConfigError, Place};
use super::table::{Kind, SETTINGS, Setting};
use super::value;
use super::{generate, suggest};
use crate::metrics;

/// Bytes of a settings file that are read, at most: the generated one has 8 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The table of the file that has a section for each application.
const APP_SETTINGS: &str = "app-settings";

/// Flags that are no settings.
const OTHER_FLAGS: [&str; 5] = ["config", "generate-config", "generate-docs", "help", "version"];

const VARIABLE_PREFIX: &str = "QUICKIO_";

/// The variable that names the settings file, without the prefix.
const CONFIG_VARIABLE: &str = "CONFIG";

/// Variables that begin with `QUICKIO_` but are others': the project's own tests, and what Kubernetes and Docker
/// set for a service of the name `quickio`. An unknown one that is none of these is an error.
const FOREIGN_VARIABLES: [&str; 4] = ["FUZZ_", "TEST_", "SERVICE_", "PORT"];

/// The variable that tells a worker how it is joined with its server: programs that it starts have it, too.
const WORKER_VARIABLE: &str = "WORKER";

/// One value as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) place: Place,
}

/// The words of each setting, by its row in the table; none where nobody typed it.
#[derive(Debug)]
pub(super) struct Typed {
    words: Vec<Vec<Word>>,
    /// Only a file has them: by application and key.
    pub(super) app_settings: BTreeMap<String, BTreeMap<String, String>>,
}

impl Default for Typed {
    fn default() -> Typed {
        Typed { words: SETTINGS.iter().map(|_| Vec::new()).collect(), app_settings: BTreeMap::new() }
    }
}

impl Typed {
    /// The settings that were typed, with their words.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static Setting, &[Word])> {
        let rows = SETTINGS.iter().zip(self.words.iter().map(Vec::as_slice));
        rows.filter(|(_, words)| !words.is_empty())
    }

    /// The words of one setting.
    pub(super) fn words(&self, name: &str) -> &[Word] {
        let row = SETTINGS.iter().position(|setting| setting.name == name);
        row.map_or(&[], |row| &self.words[row])
    }

    /// Takes over whatever `stronger` has; a list replaces a list.
    pub(super) fn replace_with(&mut self, stronger: Typed) {
        for (mine, theirs) in self.words.iter_mut().zip(stronger.words) {
            if !theirs.is_empty() {
                *mine = theirs;
            }
        }
    }

    /// Adds a value: lists gather, in anything else the last one stays.
    fn add(&mut self, setting: &'static Setting, text: &str, place: &Place) {
        let row = SETTINGS.iter().position(|row| std::ptr::eq(row, setting));
        let words = &mut self.words[row.expect("every setting is a row of the table")];
        let word = |text: &str| Word { text: text.to_owned(), place: place.clone() };
        if setting.kind.is_list() {
            for part in text.split(',').map(str::trim) {
                match words.last_mut() {
                    // What is said of an application stands behind a comma, too.
                    Some(app) if matches!(setting.kind, Kind::Apps(_)) && value::is_app_option(part) => {
                        app.text += &format!(",{part}");
                    }
                    _ => words.push(word(part)),
                }
            }
        } else {
            *words = vec![word(text)];
        }
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub(super) enum Asked {
    Settings(Flags),
    Print(Print),
}

/// The settings of the command line, and the file that it names.
#[derive(Debug, Default)]
pub(super) struct Flags {
    pub(super) typed: Typed,
    pub(super) file: Option<PathBuf>,
}

/// What is printed in place of serving.
#[derive(Clone, Copy, Debug)]
pub(super) enum Print {
    Help,
    Version,
    SettingsFile,
    Docs,
}

impl Print {
    pub(super) fn text(self) -> String {
        match self {
            Print::Help => generate::help(),
            Print::Version => generate::version(),
            Print::SettingsFile => generate::settings_file(),
            Print::Docs => {
                format!("## Settings\n\n{}\n## Statistics\n\n{}", generate::docs(), metrics::docs())
            }
        }
    }

    /// The same, where `quickio clienttest` is asked.
    pub(super) fn client_test_text(self) -> String {
        match self {
            Print::Help => generate::client_test_help(),
            Print::Docs => clienttest::docs(),
            Print::Version | Print::SettingsFile => self.text(),
        }
    }
}

/// What a command line is for.
#[derive(Debug)]
pub(super) enum Command<'a> {
    Serve,
    /// `quickio clienttest`, whose own flags are kept here.
    ClientTest(&'a mut Own),
    /// `quickio test-app`: what is no flag is an application.
    TestApp,
}

/// Reads the command line, without the program's name.
pub(super) fn flags(
    args: impl IntoIterator<Item = OsString>,
    mut command: Command<'_>,
) -> Result<Asked, ConfigError> {
    let mut parser = lexopt::Parser::from_args(args);
    let mut flags = Flags::default();
    while let Some(arg) = parser.next().map_err(flag_error)? {
        let name = match arg {
            Arg::Short('h') => "help".to_owned(),
            Arg::Short('V') => "version".to_owned(),
            Arg::Long(name) => name.to_owned(),
            Arg::Short(letter) => return Err(unknown_flag(&format!("-{letter}"), None)),
            Arg::Value(text) if matches!(command, Command::TestApp) => {
                add_app(&text, &mut flags.typed)?;
                continue;
            }
            Arg::Value(text) => return Err(ConfigError::UnexpectedArgument { text: shown(&text) }),
        };
        match name.as_str() {
            "help" => return Ok(Asked::Print(Print::Help)),
            "version" => return Ok(Asked::Print(Print::Version)),
            "generate-config" => return Ok(Asked::Print(Print::SettingsFile)),
            "generate-docs" => return Ok(Asked::Print(Print::Docs)),
            "config" => flags.file = Some(config_path(&mut parser)?),
            name => match &mut command {
                Command::ClientTest(own) if Own::FLAGS.contains(&name) => {
                    own.set(name, parser.value().ok().as_deref())?;
                }
                command => {
                    let is_client_test = matches!(command, Command::ClientTest(_));
                    flag_value(&mut parser, name, &mut flags.typed, is_client_test)?;
                }
            },
        }
    }
    Ok(Asked::Settings(flags))
}

/// An application on the command line of `quickio test-app`.
fn add_app(text: &OsStr, typed: &mut Typed) -> Result<(), ConfigError> {
    let setting = Setting::find("app").expect("it is a row of the table");
    let place = Place::CommandLine;
    typed.add(setting, unicode(setting, text, &place)?, &place);
    Ok(())
}

fn config_path(parser: &mut lexopt::Parser) -> Result<PathBuf, ConfigError> {
    parser.value().map(PathBuf::from).map_err(|_| ConfigError::MissingFile)
}

fn flag_value(
    parser: &mut lexopt::Parser,
    name: &str,
    typed: &mut Typed,
    is_client_test: bool,
) -> Result<(), ConfigError> {
    let Some(setting) = Setting::find(name) else {
        let own = Own::FLAGS.into_iter().filter(|_| is_client_test);
        let names = SETTINGS.iter().map(|setting| setting.name).chain(OTHER_FLAGS).chain(own);
        return Err(unknown_flag(&format!("--{name}"), suggest::nearest(name, names)));
    };
    let value = match setting.kind {
        // A switch needs no value; one that it has stands behind `=`.
        Kind::Switch(_) => parser.optional_value().unwrap_or_else(|| "on".into()),
        _ => parser.value().map_err(|_| ConfigError::MissingValue { setting })?,
    };
    let place = Place::Flag(setting.name);
    typed.add(setting, unicode(setting, &value, &place)?, &place);
    Ok(())
}

fn unknown_flag(typed: &str, meant: Option<&str>) -> ConfigError {
    ConfigError::UnknownSetting {
        name: typed.to_owned(),
        place: Place::CommandLine,
        suggestion: meant.map(|name| format!("--{name}")),
    }
}

/// What lexopt itself finds wrong: only a value for a flag that takes none.
fn flag_error(error: lexopt::Error) -> ConfigError {
    match error {
        lexopt::Error::UnexpectedValue { option, value } => {
            ConfigError::UnexpectedValue { flag: option, text: shown(&value) }
        }
        other => ConfigError::UnexpectedArgument { text: other.to_string() },
    }
}

/// Reads the variables whose names begin with `QUICKIO_`. An empty one counts as not set.
pub(super) fn environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Flags, ConfigError> {
    let mut found = Flags::default();
    for (name, value) in variables {
        let name = name.to_string_lossy();
        let Some(rest) = name.strip_prefix(VARIABLE_PREFIX) else { continue };
        let is_foreign = FOREIGN_VARIABLES.iter().any(|foreign| rest.starts_with(foreign));
        if is_foreign || rest == WORKER_VARIABLE || value.is_empty() {
            continue;
        }
        if rest == CONFIG_VARIABLE {
            found.file = Some(PathBuf::from(value));
            continue;
        }
        let setting = SETTINGS.iter().find(|setting| setting.variable() == *name);
        let setting = setting.ok_or_else(|| unknown_variable(&name))?;
        let place = Place::Variable(name.into_owned());
        found.typed.add(setting, unicode(setting, &value, &place)?, &place);
    }
    Ok(found)
}

fn unknown_variable(name: &str) -> ConfigError {
    let variables: Vec<String> = SETTINGS.iter().map(Setting::variable).collect();
    let rest = |name: &str| name[VARIABLE_PREFIX.len()..].to_lowercase().replace('_', "-");
    let names: Vec<String> = variables.iter().map(|variable| rest(variable)).collect();
    let meant = suggest::nearest(&rest(name), names.iter().map(String::as_str));
    let meant = meant.and_then(Setting::find).map(Setting::variable);
    ConfigError::UnknownSetting { name: name.to_owned(), place: Place::Environment, suggestion: meant }
}

/// Reads a settings file: one flat table.
pub(super) fn file(path: &Path) -> Result<Typed, ConfigError> {
    text(&read(path)?, path)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::FileUnreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::FileTooLong { path: path.to_owned(), max: FILE_BYTES_MAX });
    }
    Ok(text)
}

/// Reads the text of a settings file; `path` is only for messages.
pub(super) fn text(text: &str, path: &Path) -> Result<Typed, ConfigError> {
    let source = Source { text, path };
    let document = Document::parse(text).map_err(|error| ConfigError::FileSyntax {
        place: source.place(error.span()),
        message: error.message().to_owned(),
    })?;
    let mut typed = Typed::default();
    for (key, item) in document.as_table() {
        if key == APP_SETTINGS {
            source.add_app_settings(item, &mut typed)?;
            continue;
        }
        let stands = document.as_table().key(key).and_then(toml_edit::Key::span).or(item.span());
        let setting = Setting::find(key).ok_or_else(|| source.unknown_key(key, stands))?;
        source.add_item(setting, item, &mut typed)?;
    }
    Ok(typed)
}

/// A settings file's text and name.
struct Source<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Source<'_> {
    fn add_item(&self, setting: &'static Setting, item: &Item, typed: &mut Typed) -> Result<(), ConfigError> {
        match item.as_value() {
            Some(Value::Array(array)) if setting.kind.is_list() && array.is_empty() => {
                typed.add(setting, "", &self.place(array.span()));
            }
            Some(Value::Array(array)) if setting.kind.is_list() => {
                for value in array {
                    typed.add(setting, &self.scalar(setting, value)?, &self.place(value.span()));
                }
            }
            Some(value) => typed.add(setting, &self.scalar(setting, value)?, &self.place(value.span())),
            None => return Err(self.bad_kind(setting, item.span(), item.type_name())),
        }
        Ok(())
    }

    /// `[app-settings.NAME]`, for all names. What the keys mean is the application's own business.
    fn add_app_settings(&self, item: &Item, typed: &mut Typed) -> Result<(), ConfigError> {
        let bad_section = |key: &str, item: &Item| ConfigError::BadAppSection {
            key: key.to_owned(),
            place: self.place(item.span()),
        };
        let sections = item.as_table_like().ok_or_else(|| bad_section(APP_SETTINGS, item))?;
        for (app, item) in sections.iter() {
            let section = item.as_table_like().ok_or_else(|| bad_section(app, item))?;
            let settings = typed.app_settings.entry(app.to_owned()).or_default();
            for (key, item) in section.iter() {
                settings.insert(key.to_owned(), self.app_setting(app, key, item)?);
            }
        }
        Ok(())
    }

    fn app_setting(&self, app: &str, key: &str, item: &Item) -> Result<String, ConfigError> {
        match item.as_value() {
            Some(Value::String(text)) => Ok(text.value().clone()),
            Some(value @ (Value::Integer(_) | Value::Float(_) | Value::Boolean(_))) => {
                // As it is written: what TOML makes of `1_000` or `0x10` is a number again.
                let written = value.span().and_then(|span| self.text.get(span));
                Ok(written.unwrap_or_default().trim().to_owned())
            }
            _ => Err(ConfigError::BadAppSetting {
                app: app.to_owned(),
                key: key.to_owned(),
                kind: item.type_name(),
                place: self.place(item.span()),
            }),
        }
    }

    /// The text of a string, or of a number where the setting takes numbers.
    fn scalar(&self, setting: &'static Setting, value: &Value) -> Result<String, ConfigError> {
        match value {
            Value::String(text) => Ok(text.value().clone()),
            Value::Integer(number) if setting.kind.takes_numbers() => Ok(number.value().to_string()),
            Value::Boolean(on) if matches!(setting.kind, Kind::Switch(_)) => Ok(on.value().to_string()),
            other => Err(self.bad_kind(setting, other.span(), other.type_name())),
        }
    }

    fn bad_kind(&self, setting: &'static Setting, span: Option<Range<usize>>, kind: &str) -> ConfigError {
        let text = span.clone().and_then(|span| self.text.get(span)).unwrap_or_default();
        let text = text.lines().next().unwrap_or_default();
        let wanted = if setting.kind.takes_numbers() { "a number or a string" } else { "a string in quotes" };
        ConfigError::BadValue {
            setting,
            text: text.to_owned(),
            why: format!("it must be {wanted}, and is TOML's {kind}"),
            place: self.place(span),
        }
    }

    fn unknown_key(&self, key: &str, span: Option<Range<usize>>) -> ConfigError {
        let meant = suggest::nearest(key, SETTINGS.iter().map(|setting| setting.name));
        ConfigError::UnknownSetting {
            name: key.to_owned(),
            place: self.place(span),
            suggestion: meant.map(str::to_owned),
        }
    }

    /// Line and column of the first byte of a span; the file's beginning where the parser knows none.
    fn place(&self, span: Option<Range<usize>>) -> Place {
        let start = span.map_or(0, |span| span.start.min(self.text.len()));
        let before = &self.text.as_bytes()[..start];
        let line_start = before.iter().rposition(|&b| b == b'\n').map_or(0, |newline| newline + 1);
        let line = 1 + before.iter().filter(|&&b| b == b'\n').count();
        // Characters, not bytes: continuation bytes (10xxxxxx) begin none.
        let column = 1 + before[line_start..].iter().filter(|&&b| b & 0xc0 != 0x80).count();
        Place::File { path: self.path.to_owned(), line, column }
    }
}

fn unicode<'a>(setting: &'static Setting, value: &'a OsStr, place: &Place) -> Result<&'a str, ConfigError> {
    value.to_str().ok_or_else(|| ConfigError::BadValue {
        setting,
        text: shown(value),
        why: "it is not valid UTF-8".into(),
        place: place.clone(),
    })
}

fn shown(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}
