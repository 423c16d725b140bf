//! The form of settings that are arrays of tables, such as `[[rules]]`: a row for each of them and for each of their keys,
//! and reading an entry.
//!
//! An array has no flag and no variable. `arrays` lists the rows. Help, settings file and docs are made from them, as with
//! [`super::table`].

use std::path::PathBuf;
use std::time::Duration;

use super::Config;
use super::error::{ConfigError, Location};
use super::table::{DURATION_MAX, one_of};
use super::value::{self, Problem, duration_text};

/// The maximum number of texts in a list of an entry.
const LIST_MAX: usize = 256;

/// A setting that is an array of tables.
#[derive(Debug)]
pub struct EntrySetting {
    /// The name, which stands in double brackets in the file.
    pub name: &'static str,
    /// An entry in a word or two, with its article: `a rule`.
    pub entry: &'static str,
    /// The entries in a word or two: `rules`.
    pub plural: &'static str,
    /// The description, in whole sentences.
    pub doc: &'static str,
    /// The maximum number of entries.
    pub entries_max: usize,
    /// The keys of an entry.
    pub keys: &'static [EntryKey],
    /// An entry for the settings file and the docs.
    pub example: &'static str,
    /// Adds an entry whose values are valid by themselves to the configuration.
    pub add: fn(&ArrayEntry<'_>, &mut Config) -> Result<(), ConfigError>,
    /// Returns whether two configurations have different entries.
    pub differs: fn(&Config, &Config) -> bool,
}

/// A key of an entry.
#[derive(Debug)]
pub struct EntryKey {
    /// The name.
    pub name: &'static str,
    /// The type of its value, and the allowed values.
    pub kind: KeyKind,
    /// The value of an entry that does not have the key.
    pub default: KeyDefault,
    /// The description, in whole sentences.
    pub doc: &'static str,
}

/// The type of the value of a key, and the allowed values.
#[derive(Clone, Copy, Debug)]
pub enum KeyKind {
    /// A text, which the array interprets. It is not empty.
    Text {
        /// The allowed texts, as the end of a sentence.
        allowed: &'static str,
    },
    /// A list of such texts.
    Texts {
        /// The allowed texts, as the end of a sentence.
        allowed: &'static str,
    },
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// A list of some of these words.
    Choices(&'static [&'static str]),
    /// A whole number.
    Count {
        /// The minimum.
        min: usize,
        /// The maximum.
        max: usize,
        /// The unit: `events`.
        unit: &'static str,
    },
    /// A duration from `min` to [`DURATION_MAX`].
    Duration {
        /// The minimum.
        min: Duration,
    },
    /// On or off, as a boolean or a string.
    Switch,
    /// The path of a file.
    File,
}

/// The value of an entry that does not have a key.
#[derive(Clone, Copy, Debug)]
pub enum KeyDefault {
    /// The entry is invalid.
    Required,
    /// There is no value.
    None,
    /// This value, as the file accepts it.
    Text(&'static str),
}

impl EntrySetting {
    /// Returns the key with this name.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&'static EntryKey> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl KeyKind {
    /// Describes the allowed values, as the end of a sentence.
    #[must_use]
    pub fn allowed(&self) -> String {
        match self {
            KeyKind::Text { allowed } | KeyKind::Texts { allowed } => (*allowed).to_owned(),
            KeyKind::Choice(choices) => one_of(choices),
            KeyKind::Choices(choices) => format!("a list of some of {}", choices.join(", ")),
            KeyKind::Count { min, max, unit } => format!("{min} to {max} {unit}"),
            KeyKind::Duration { min } => {
                format!("{} to {}", duration_text(*min), duration_text(DURATION_MAX))
            }
            KeyKind::Switch => "on or off".into(),
            KeyKind::File => "the path of a file".into(),
        }
    }

    /// Returns whether the value is a list.
    #[must_use]
    pub fn is_list(&self) -> bool {
        matches!(self, KeyKind::Texts { .. } | KeyKind::Choices(_))
    }

    /// Checks one text of a value.
    fn check(&self, text: &str) -> Result<(), Problem> {
        match self {
            KeyKind::Text { .. } | KeyKind::Texts { .. } | KeyKind::File if text.is_empty() => {
                Err("it must not be empty".into())
            }
            KeyKind::Text { .. } | KeyKind::Texts { .. } => Ok(()),
            KeyKind::Choice(choices) | KeyKind::Choices(choices) if choices.contains(&text) => Ok(()),
            KeyKind::Choice(_) | KeyKind::Choices(_) => Err("it is not one of the choices".into()),
            KeyKind::Count { min, max, .. } => {
                let count = usize::try_from(value::count(text)?).ok();
                let is_allowed = count.is_some_and(|count| (*min..=*max).contains(&count));
                if is_allowed { Ok(()) } else { Err("it is out of range".into()) }
            }
            KeyKind::Duration { min } => {
                let is_allowed = (*min..=DURATION_MAX).contains(&value::duration(text)?);
                if is_allowed { Ok(()) } else { Err("it is out of range".into()) }
            }
            KeyKind::Switch => value::switch(text).map(|_| ()),
            KeyKind::File => value::file(text).map(|_| ()),
        }
    }
}

/// A text of a value, with its location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntryText {
    pub(super) text: String,
    pub(super) location: Location,
}

/// An entry as it was written: keys that the array has, each with its texts.
#[derive(Debug)]
pub(super) struct RawEntry {
    pub(super) setting: &'static EntrySetting,
    /// The number of the entry in the file, from 1.
    pub(super) number: usize,
    pub(super) location: Location,
    pub(super) values: Vec<(&'static EntryKey, Vec<EntryText>)>,
}

impl RawEntry {
    /// Returns an error about a value, or about the entry if it does not have the key.
    pub(super) fn problem(
        &self,
        key: &'static EntryKey,
        text: Option<&EntryText>,
        problem: String,
    ) -> ConfigError {
        ConfigError::BadEntry {
            array: self.setting.name,
            number: self.number,
            key: key.name,
            text: text.map_or_else(String::new, |text| text.text.clone()),
            problem,
            allowed: key.kind.allowed(),
            location: Box::new(text.map_or(&self.location, |text| &text.location).clone()),
        }
    }
}

/// An entry whose values are valid by themselves: the [`EntrySetting::add`] of its array converts it.
#[derive(Debug)]
pub struct ArrayEntry<'a>(&'a RawEntry);

/// Checks an entry, and adds it to the configuration.
pub(super) fn add(raw: &RawEntry, config: &mut Config) -> Result<(), ConfigError> {
    if raw.number > raw.setting.entries_max {
        return Err(ConfigError::TooManyEntries {
            array: raw.setting.name,
            max: raw.setting.entries_max,
            location: raw.location.clone(),
        });
    }
    let entry = ArrayEntry(raw);
    for (key, texts) in &raw.values {
        if texts.len() > LIST_MAX {
            return Err(entry.problem(key.name, format!("it has more than {LIST_MAX} texts")));
        }
        for text in texts {
            key.kind.check(&text.text).map_err(|problem| raw.problem(key, Some(text), problem))?;
        }
    }
    let required = |key: &&EntryKey| matches!(key.default, KeyDefault::Required);
    match raw.setting.keys.iter().filter(required).find(|key| entry.texts(key.name).is_none()) {
        Some(key) => Err(ConfigError::MissingKey {
            array: raw.setting.name,
            number: raw.number,
            key: key.name,
            allowed: key.kind.allowed(),
            location: raw.location.clone(),
        }),
        None => (raw.setting.add)(&entry, config),
    }
}

impl ArrayEntry<'_> {
    /// Returns the location of the entry.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.0.location
    }

    /// Returns the number of the entry among those of its array, from 1.
    #[must_use]
    pub fn number(&self) -> usize {
        self.0.number
    }

    /// Returns the text of a key, or its default, or `None` if it has neither.
    ///
    /// # Panics
    ///
    /// This and the following methods panic if the array has no such key, or one of another type.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match (self.texts(name), self.key(name).default) {
            (Some(texts), _) => Some(&texts[0].text),
            (None, KeyDefault::Text(default)) => Some(default),
            (None, _) => None,
        }
    }

    /// Returns the text of a key that is required or has a default.
    #[must_use]
    pub fn required(&self, name: &str) -> &str {
        self.text(name).expect("a key that is required or has a default has a value")
    }

    /// Returns the texts of a list; none if the entry does not have the key.
    #[must_use]
    pub fn list(&self, name: &str) -> Vec<&str> {
        assert!(self.key(name).kind.is_list(), "{name} is not a list");
        self.texts(name).unwrap_or_default().iter().map(|text| text.text.as_str()).collect()
    }

    /// Returns the index of the choice that a key has.
    #[must_use]
    pub fn choice(&self, name: &str) -> Option<usize> {
        let KeyKind::Choice(choices) = self.key(name).kind else { panic!("{name} is not a choice") };
        let text = self.text(name)?;
        choices.iter().position(|choice| *choice == text)
    }

    /// Returns the number of a key.
    #[must_use]
    pub fn count(&self, name: &str) -> Option<usize> {
        let count = value::count(self.text(name)?).expect("counts were checked");
        Some(usize::try_from(count).expect("counts were checked"))
    }

    /// Returns the duration of a key.
    #[must_use]
    pub fn duration(&self, name: &str) -> Option<Duration> {
        self.text(name).map(|text| value::duration(text).expect("durations were checked"))
    }

    /// Returns whether a switch is on. A switch without a value is off.
    #[must_use]
    pub fn switch(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| value::switch(text).expect("switches were checked"))
    }

    /// Returns the path of a file.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    /// Returns an error about the value of a key: `problem` is a phrase for the middle of a sentence.
    #[must_use]
    pub fn problem(&self, name: &str, problem: String) -> ConfigError {
        let text = self.texts(name).and_then(<[EntryText]>::first);
        self.0.problem(self.key(name), text, problem)
    }

    /// Returns an error about one text of a list.
    #[must_use]
    pub fn problem_in(&self, name: &str, index: usize, problem: String) -> ConfigError {
        let text = self.texts(name).and_then(|texts| texts.get(index));
        self.0.problem(self.key(name), text, problem)
    }

    fn key(&self, name: &str) -> &'static EntryKey {
        let key = self.0.setting.key(name);
        key.unwrap_or_else(|| panic!("[[{}]] has no key `{name}`", self.0.setting.name))
    }

    /// Returns the texts of a key that the entry has. A list may have none.
    fn texts(&self, name: &str) -> Option<&[EntryText]> {
        self.0.values.iter().find(|(key, _)| key.name == name).map(|(_, texts)| texts.as_slice())
    }
}
