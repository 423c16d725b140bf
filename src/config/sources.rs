//! Reads raw values from flags, the environment and the settings file, each with its location.
//!
//! This module does not interpret the values; `resolve` does.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use lexopt::Arg;
use toml_edit::{Document, Item, TableLike, Value};

use super::arrays::{self, ENTRY_SETTINGS};
use super::entries::{EntryKey, EntrySetting, EntryText, KeyKind, RawEntry};
use super::error::{ConfigError, Location};
use super::generate::GeneratedText;
use super::table::{SETTINGS, Setting, ValueKind};
use super::value;
use super::{foreign, suggest};

/// The maximum size of a settings file, in bytes. The generated one has 40 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The table of the file that has a section for each application.
const APP_SETTINGS: &str = "app-settings";

/// The flags that are not settings.
const OTHER_FLAGS: [&str; 5] = ["config", "generate-config", "generate-docs", "help", "version"];

/// The prefix of all variables.
const VARIABLE_PREFIX: &str = "QUICKIO_";

/// The variable that names the settings file, without the prefix.
const CONFIG_VARIABLE: &str = "CONFIG";

/// A value as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RawValue {
    pub(super) text: String,
    pub(super) location: Location,
}

/// The raw values of each setting, by the setting's row in the table. A setting that was not given has no values.
#[derive(Debug)]
pub(super) struct RawSettings {
    values: Vec<Vec<RawValue>>,
    /// The settings of applications, by application and key. Only a file has them.
    pub(super) app_settings: BTreeMap<String, BTreeMap<String, String>>,
    /// The entries of arrays of tables. Only a file has them.
    pub(super) entries: Vec<RawEntry>,
    /// Sentences about what is valid and probably a mistake.
    pub(super) warnings: Vec<String>,
}

impl Default for RawSettings {
    fn default() -> RawSettings {
        RawSettings {
            values: SETTINGS.iter().map(|_| Vec::new()).collect(),
            app_settings: BTreeMap::new(),
            entries: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

impl RawSettings {
    /// Iterates over the settings that were given, with their values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static Setting, &[RawValue])> {
        let rows = SETTINGS.iter().zip(self.values.iter().map(Vec::as_slice));
        rows.filter(|(_, values)| !values.is_empty())
    }

    /// Returns the values of one setting.
    pub(super) fn values(&self, name: &str) -> &[RawValue] {
        let row = SETTINGS.iter().position(|setting| setting.name == name);
        row.map_or(&[], |row| &self.values[row])
    }

    /// Replaces the values of every setting that `stronger` has. A list replaces the whole list.
    pub(super) fn override_with(&mut self, stronger: RawSettings) {
        for (ours, theirs) in self.values.iter_mut().zip(stronger.values) {
            if !theirs.is_empty() {
                *ours = theirs;
            }
        }
    }

    /// Adds a value. The values of a list accumulate; for any other setting the last value wins.
    fn add(&mut self, setting: &'static Setting, text: &str, location: &Location) {
        let row = SETTINGS.iter().position(|row| std::ptr::eq(row, setting));
        let values = &mut self.values[row.expect("every setting is a row of the table")];
        let value = |text: &str| RawValue { text: text.to_owned(), location: location.clone() };
        if setting.kind.is_list() {
            for part in text.split(',').map(str::trim) {
                match values.last_mut() {
                    // The options of an application also follow a comma.
                    Some(app) if matches!(setting.kind, ValueKind::Apps(_)) && value::is_app_option(part) => {
                        app.text += &format!(",{part}");
                    }
                    _ => values.push(value(part)),
                }
            }
        } else {
            *values = vec![value(text)];
        }
    }
}

/// A command line that was read.
#[derive(Debug)]
pub(super) enum ParsedArgs {
    Settings(Flags),
    Print(GeneratedText),
}

/// The settings of the command line or of the environment, and the file that it names.
#[derive(Debug, Default)]
pub(super) struct Flags {
    pub(super) settings: RawSettings,
    pub(super) file: Option<PathBuf>,
}

/// The arguments of a command that are not settings.
#[derive(Debug, Default)]
pub(super) struct OwnArgs<'a> {
    /// The names of the command's own flags. Each takes a value.
    pub(super) flags: &'a [&'static str],
    /// The command takes arguments that are not flags.
    pub(super) takes_words: bool,
    /// The flags that were given, with their values; `None` if the value is missing.
    pub(super) values: Vec<(&'static str, Option<OsString>)>,
    /// The arguments that are not flags.
    pub(super) words: Vec<OsString>,
}

/// Reads the command line, without the program's name.
pub(super) fn flags(
    args: impl IntoIterator<Item = OsString>,
    own: &mut OwnArgs<'_>,
) -> Result<ParsedArgs, ConfigError> {
    let mut parser = lexopt::Parser::from_args(args);
    let mut flags = Flags::default();
    while let Some(arg) = parser.next().map_err(flag_error)? {
        let name = match arg {
            Arg::Short('h') => "help".to_owned(),
            Arg::Short('V') => "version".to_owned(),
            Arg::Long(name) => name.to_owned(),
            Arg::Short(letter) => return Err(unknown_flag(&format!("-{letter}"), None)),
            Arg::Value(text) if own.takes_words => {
                own.words.push(text);
                continue;
            }
            Arg::Value(text) => return Err(ConfigError::UnexpectedArgument { text: lossy(&text) }),
        };
        match name.as_str() {
            "help" => return Ok(ParsedArgs::Print(GeneratedText::Help)),
            "version" => return Ok(ParsedArgs::Print(GeneratedText::Version)),
            "generate-config" => return Ok(ParsedArgs::Print(GeneratedText::SettingsFile)),
            "generate-docs" => return Ok(ParsedArgs::Print(GeneratedText::Docs)),
            "config" => flags.file = Some(config_path(&mut parser)?),
            name => match own.flags.iter().find(|flag| **flag == name) {
                Some(flag) => own.values.push((flag, parser.value().ok())),
                None => flag_value(&mut parser, name, &mut flags.settings, own.flags)?,
            },
        }
    }
    Ok(ParsedArgs::Settings(flags))
}

/// Adds an application that is an argument of the command line.
pub(super) fn add_app(text: &OsStr, settings: &mut RawSettings) -> Result<(), ConfigError> {
    let setting = Setting::find("app").expect("it is a row of the table");
    let location = Location::CommandLine;
    settings.add(setting, unicode(setting, text, &location)?, &location);
    Ok(())
}

fn config_path(parser: &mut lexopt::Parser) -> Result<PathBuf, ConfigError> {
    parser.value().map(PathBuf::from).map_err(|_| ConfigError::MissingFile)
}

fn flag_value(
    parser: &mut lexopt::Parser,
    name: &str,
    settings: &mut RawSettings,
    own_flags: &[&'static str],
) -> Result<(), ConfigError> {
    let Some(setting) = Setting::find(name) else {
        if let Some(setting) = arrays::find(name) {
            return Err(only_in_file(setting, &format!("--{name}"), Location::CommandLine));
        }
        let names =
            SETTINGS.iter().map(|setting| setting.name).chain(OTHER_FLAGS).chain(own_flags.iter().copied());
        return Err(unknown_flag(&format!("--{name}"), suggest::nearest(name, names)));
    };
    let value = match setting.kind {
        // A switch needs no value. If it has one, the value follows `=`.
        ValueKind::Switch(_) => parser.optional_value().unwrap_or_else(|| "on".into()),
        _ => parser.value().map_err(|_| ConfigError::MissingValue { setting })?,
    };
    let location = Location::Flag(setting.name);
    settings.add(setting, unicode(setting, &value, &location)?, &location);
    Ok(())
}

fn only_in_file(setting: &'static EntrySetting, name: &str, location: Location) -> ConfigError {
    ConfigError::OnlyInFile { array: setting.name, plural: setting.plural, name: name.to_owned(), location }
}

fn unknown_flag(flag: &str, nearest: Option<&str>) -> ConfigError {
    ConfigError::UnknownSetting {
        name: flag.to_owned(),
        location: Location::CommandLine,
        suggestion: nearest.map(|name| format!("--{name}")),
    }
}

/// Converts an error of lexopt. The only one that it finds is a value for a flag that takes none.
fn flag_error(error: lexopt::Error) -> ConfigError {
    match error {
        lexopt::Error::UnexpectedValue { option, value } => {
            ConfigError::UnexpectedValue { flag: option, text: lossy(&value) }
        }
        other => ConfigError::UnexpectedArgument { text: other.to_string() },
    }
}

/// Reads the variables whose names begin with `QUICKIO_`. An empty variable counts as not set.
pub(super) fn environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Flags, ConfigError> {
    let mut found = Flags::default();
    for (name, value) in variables {
        let name = name.to_string_lossy();
        let Some(rest) = name.strip_prefix(VARIABLE_PREFIX) else { continue };
        if value.is_empty() {
            continue;
        }
        if rest == CONFIG_VARIABLE {
            found.file = Some(PathBuf::from(value));
            continue;
        }
        let setting = match SETTINGS.iter().find(|setting| setting.variable() == *name) {
            Some(setting) => setting,
            None if foreign::is_foreign(rest, &value.to_string_lossy()) => continue,
            None => return Err(unknown_variable(&name)),
        };
        let location = Location::Variable(name.into_owned());
        found.settings.add(setting, unicode(setting, &value, &location)?, &location);
    }
    Ok(found)
}

fn unknown_variable(name: &str) -> ConfigError {
    let variables: Vec<String> = SETTINGS.iter().map(Setting::variable).collect();
    let rest = |name: &str| name[VARIABLE_PREFIX.len()..].to_lowercase().replace('_', "-");
    let names: Vec<String> = variables.iter().map(|variable| rest(variable)).collect();
    if let Some(setting) = arrays::find(&rest(name)) {
        return only_in_file(setting, name, Location::Environment);
    }
    let nearest = suggest::nearest(&rest(name), names.iter().map(String::as_str));
    let suggestion = nearest.and_then(Setting::find).map(Setting::variable);
    ConfigError::UnknownSetting { name: name.to_owned(), location: Location::Environment, suggestion }
}

/// Reads a settings file: a flat table, arrays of tables, and a section for each application.
pub(super) fn file(path: &Path) -> Result<RawSettings, ConfigError> {
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

/// Parses the text of a settings file. `path` is only used in messages.
pub(super) fn text(text: &str, path: &Path) -> Result<RawSettings, ConfigError> {
    let source = FileSource { text, path };
    let document = Document::parse(text).map_err(|error| ConfigError::FileSyntax {
        location: source.location(error.span()),
        message: error.message().to_owned(),
    })?;
    let mut settings = RawSettings::default();
    for (key, item) in document.as_table() {
        if key == APP_SETTINGS {
            source.add_app_settings(item, &mut settings)?;
            continue;
        }
        if let Some(setting) = arrays::find(key) {
            source.add_entries(setting, item, &mut settings)?;
            continue;
        }
        let span = document.as_table().key(key).and_then(toml_edit::Key::span).or(item.span());
        let setting = Setting::find(key).ok_or_else(|| source.unknown_key(key, span))?;
        source.add_item(setting, item, &mut settings)?;
    }
    Ok(settings)
}

/// The text and the name of a settings file.
struct FileSource<'a> {
    text: &'a str,
    path: &'a Path,
}

impl FileSource<'_> {
    fn add_item(
        &self,
        setting: &'static Setting,
        item: &Item,
        settings: &mut RawSettings,
    ) -> Result<(), ConfigError> {
        match item.as_value() {
            Some(Value::Array(array)) if setting.kind.is_list() && array.is_empty() => {
                settings.add(setting, "", &self.location(array.span()));
            }
            Some(Value::Array(array)) if setting.kind.is_list() => {
                for value in array {
                    settings.add(setting, &self.scalar(setting, value)?, &self.location(value.span()));
                }
            }
            Some(value) => settings.add(setting, &self.scalar(setting, value)?, &self.location(value.span())),
            None => return Err(self.wrong_type(setting, item.span(), item.type_name())),
        }
        Ok(())
    }

    /// Adds the sections `[[NAME]]` of an array of tables, which may also be written as an array of inline tables.
    fn add_entries(
        &self,
        setting: &'static EntrySetting,
        item: &Item,
        settings: &mut RawSettings,
    ) -> Result<(), ConfigError> {
        let not_entries = |toml_type, span| {
            let EntrySetting { name, plural, .. } = setting;
            Err(ConfigError::NotEntries { array: name, plural, toml_type, location: self.location(span) })
        };
        let mut tables: Vec<(&dyn TableLike, Option<Range<usize>>)> = Vec::new();
        match item {
            Item::ArrayOfTables(array) => tables.extend(array.iter().map(|table| (table as _, table.span()))),
            Item::Value(Value::Array(array)) => {
                for value in array {
                    match value.as_inline_table() {
                        Some(table) => tables.push((table, value.span())),
                        None => return not_entries(value.type_name(), value.span()),
                    }
                }
            }
            other => return not_entries(other.type_name(), other.span()),
        }
        for (index, (table, span)) in tables.into_iter().enumerate() {
            let location = self.location(span);
            let mut entry = RawEntry { setting, number: index + 1, location, values: Vec::new() };
            for (key, item) in table.iter() {
                let span = table.key(key).and_then(toml_edit::Key::span).or(item.span());
                let key = setting.key(key).ok_or_else(|| self.unknown_entry_key(&entry, key, span))?;
                let texts = self.entry_texts(&entry, key, item)?;
                entry.values.push((key, texts));
            }
            settings.entries.push(entry);
        }
        Ok(())
    }

    fn entry_texts(
        &self,
        entry: &RawEntry,
        key: &'static EntryKey,
        item: &Item,
    ) -> Result<Vec<EntryText>, ConfigError> {
        let text = |value: &Value| {
            let text = match value {
                Value::String(text) => Some(text.value().clone()),
                Value::Integer(number) if matches!(key.kind, KeyKind::Count { .. }) => {
                    Some(number.value().to_string())
                }
                Value::Boolean(on) if matches!(key.kind, KeyKind::Switch) => Some(on.value().to_string()),
                _ => None,
            };
            let text = text.map(|text| EntryText { text, location: self.location(value.span()) });
            text.ok_or_else(|| self.wrong_entry_type(entry, key, value.span(), value.type_name()))
        };
        match item.as_value() {
            Some(Value::Array(array)) if key.kind.is_list() => array.iter().map(text).collect(),
            // A list of one text needs no brackets.
            Some(value) => Ok(vec![text(value)?]),
            None => Err(self.wrong_entry_type(entry, key, item.span(), item.type_name())),
        }
    }

    fn wrong_entry_type(
        &self,
        entry: &RawEntry,
        key: &'static EntryKey,
        span: Option<Range<usize>>,
        toml_type: &str,
    ) -> ConfigError {
        let expected = match key.kind {
            KeyKind::Count { .. } => "a number or a string",
            KeyKind::Switch => "true or false",
            kind if kind.is_list() => "a list of strings in quotes",
            _ => "a string in quotes",
        };
        let text = EntryText { text: self.first_line(span.clone()), location: self.location(span) };
        entry.problem(key, Some(&text), format!("it must be {expected}, but it is a TOML {toml_type}"))
    }

    fn unknown_entry_key(&self, entry: &RawEntry, key: &str, span: Option<Range<usize>>) -> ConfigError {
        let names = || entry.setting.keys.iter().map(|key| key.name);
        let hint = match suggest::nearest(key, names()) {
            _ if Setting::find(key).is_some() || arrays::find(key).is_some() => {
                "it is a setting of the server; move it above the first section".to_owned()
            }
            Some(name) => format!("did you mean `{name}`?"),
            None => {
                format!("{} has the keys {}", entry.setting.entry, names().collect::<Vec<_>>().join(", "))
            }
        };
        ConfigError::UnknownKey {
            array: entry.setting.name,
            number: entry.number,
            key: key.to_owned(),
            location: self.location(span),
            hint,
        }
    }

    /// Adds the sections `[app-settings.NAME]`. Only the application knows what the keys in them mean.
    fn add_app_settings(&self, item: &Item, settings: &mut RawSettings) -> Result<(), ConfigError> {
        let bad_section = |key: &str, item: &Item| ConfigError::BadAppSection {
            key: key.to_owned(),
            location: self.location(item.span()),
        };
        let sections = item.as_table_like().ok_or_else(|| bad_section(APP_SETTINGS, item))?;
        for (app, item) in sections.iter() {
            let section = item.as_table_like().ok_or_else(|| bad_section(app, item))?;
            settings.warnings.extend(self.misplaced_settings(app, item));
            let section_settings = settings.app_settings.entry(app.to_owned()).or_default();
            for (key, item) in section.iter() {
                section_settings.insert(key.to_owned(), self.app_setting(app, key, item)?);
            }
        }
        Ok(())
    }

    /// Returns a warning for each key of a section that has the name of a setting of the server: all lines below the
    /// head of a section belong to the section, although they may have been meant for the server. Sections without a
    /// head of their own, such as inline tables, have no such lines.
    fn misplaced_settings(&self, app: &str, item: &Item) -> Vec<String> {
        let Some(section) = item.as_table().filter(|table| !table.is_dotted() && !table.is_implicit()) else {
            return Vec::new();
        };
        let keys = section.iter().map(|(key, _)| key).filter(|key| Setting::find(key).is_some());
        let warning = |key: &str| {
            let location = self.location(section.key(key).and_then(toml_edit::Key::span));
            format!(
                "`{key}` is a setting of the server, but at {location} it is a setting of the application {app}, because \
                 it is below [app-settings.{app}]; move it above the first section. If it is meant for the application, \
                 write the section as `{app} = {{ ... }}` in [app-settings]"
            )
        };
        keys.map(warning).collect()
    }

    fn app_setting(&self, app: &str, key: &str, item: &Item) -> Result<String, ConfigError> {
        match item.as_value() {
            Some(Value::String(text)) => Ok(text.value().clone()),
            Some(value @ (Value::Integer(_) | Value::Float(_) | Value::Boolean(_))) => {
                // The text as written: TOML would convert `1_000` or `0x10` to another notation.
                let written = value.span().and_then(|span| self.text.get(span));
                Ok(written.unwrap_or_default().trim().to_owned())
            }
            _ => Err(ConfigError::BadAppSetting {
                app: app.to_owned(),
                key: key.to_owned(),
                toml_type: item.type_name(),
                location: self.location(item.span()),
            }),
        }
    }

    /// Returns the text of a string, of a number if the setting takes numbers, or of a boolean if it is a switch.
    fn scalar(&self, setting: &'static Setting, value: &Value) -> Result<String, ConfigError> {
        match value {
            Value::String(text) => Ok(text.value().clone()),
            Value::Integer(number) if setting.kind.takes_numbers() => Ok(number.value().to_string()),
            Value::Boolean(on) if matches!(setting.kind, ValueKind::Switch(_)) => Ok(on.value().to_string()),
            other => Err(self.wrong_type(setting, other.span(), other.type_name())),
        }
    }

    fn wrong_type(
        &self,
        setting: &'static Setting,
        span: Option<Range<usize>>,
        toml_type: &str,
    ) -> ConfigError {
        let text = self.first_line(span.clone());
        let expected =
            if setting.kind.takes_numbers() { "a number or a string" } else { "a string in quotes" };
        ConfigError::BadValue {
            setting,
            text,
            problem: format!("it must be {expected}, but it is a TOML {toml_type}"),
            location: self.location(span),
        }
    }

    /// Returns the first line of a span, for a message.
    fn first_line(&self, span: Option<Range<usize>>) -> String {
        let text = span.and_then(|span| self.text.get(span)).unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    }

    fn unknown_key(&self, key: &str, span: Option<Range<usize>>) -> ConfigError {
        let arrays = ENTRY_SETTINGS.iter().map(|setting| setting.name);
        let nearest = suggest::nearest(key, SETTINGS.iter().map(|setting| setting.name).chain(arrays));
        ConfigError::UnknownSetting {
            name: key.to_owned(),
            location: self.location(span),
            suggestion: nearest.map(str::to_owned),
        }
    }

    /// Returns the line and column of the first byte of a span, or the start of the file if the parser has no span.
    fn location(&self, span: Option<Range<usize>>) -> Location {
        let start = span.map_or(0, |span| span.start.min(self.text.len()));
        let before = &self.text.as_bytes()[..start];
        let line_start = before.iter().rposition(|&b| b == b'\n').map_or(0, |newline| newline + 1);
        let line = 1 + before.iter().filter(|&&b| b == b'\n').count();
        // Counts characters, not bytes: a continuation byte (10xxxxxx) does not begin a character.
        let column = 1 + before[line_start..].iter().filter(|&&b| b & 0xc0 != 0x80).count();
        Location::File { path: self.path.to_owned(), line, column }
    }
}

/// Returns the value as text, or an error if it is not valid UTF-8.
fn unicode<'a>(
    setting: &'static Setting,
    value: &'a OsStr,
    location: &Location,
) -> Result<&'a str, ConfigError> {
    value.to_str().ok_or_else(|| ConfigError::BadValue {
        setting,
        text: lossy(value),
        problem: "it is not valid UTF-8".into(),
        location: location.clone(),
    })
}

/// Returns the text for a message, with replacement characters for bytes that are not valid UTF-8.
fn lossy(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}
