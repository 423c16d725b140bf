//! What was typed into what it means: words into a [`Config`], and the relations between settings.

use super::Config;
use super::error::ConfigError;
use super::sources::{Typed, Word};
use super::table::{DURATION_MAX, Kind, RELATIONS, Relation, Setting};
use super::value::{self, Why};
use crate::limits::SHARDS_MAX;

/// The defaults, overlaid with whatever was typed.
pub(super) fn config(typed: &Typed) -> Result<Config, ConfigError> {
    let mut config = Config { app_settings: typed.app_settings.clone(), ..Config::default() };
    for (setting, words) in typed.iter() {
        set(setting, words, &mut config)?;
    }
    match RELATIONS.iter().find(|relation| !(relation.holds)(&config)) {
        Some(relation) => Err(broken(relation, typed)),
        None => Ok(config),
    }
}

/// Sets one field from its words, of which there is at least one.
pub(super) fn set(setting: &'static Setting, words: &[Word], config: &mut Config) -> Result<(), ConfigError> {
    match setting.kind {
        Kind::Addresses(field) => *field(config) = list(setting, words, value::listen)?,
        Kind::Apps(field) if is_empty_list(words) => field(config).clear(),
        Kind::Apps(field) => *field(config) = list(setting, words, value::app)?,
        Kind::Origins(field) => *field(config) = origins(setting, words)?,
        kind => {
            let word = words.last().expect("a setting that was typed has a word");
            one(kind, &word.text, config).map_err(|why| bad_value(setting, word, why))?;
        }
    }
    Ok(())
}

/// Sets the field of a setting that is no list.
fn one(kind: Kind, text: &str, config: &mut Config) -> Result<(), Why> {
    match kind {
        Kind::Count { min, max, power_of_two, field, .. } => {
            *field(config) = bounded_count(text, min, max, power_of_two)?;
        }
        Kind::Percent(field) => {
            let percent = bounded_count(text.strip_suffix('%').unwrap_or(text), 1, 100, false)?;
            *field(config) = u8::try_from(percent).expect("at most 100");
        }
        Kind::Duration { min, field } => {
            let duration = value::duration(text)?;
            if duration < min || duration > DURATION_MAX {
                return Err("it is out of range".into());
            }
            *field(config) = duration;
        }
        Kind::Shards(field) if text == "auto" => *field(config) = None,
        Kind::Shards(field) => *field(config) = Some(bounded_count(text, 1, SHARDS_MAX, false)?),
        Kind::AddressOrOff(field) if text == "off" => *field(config) = None,
        Kind::AddressOrOff(field) => *field(config) = Some(value::socket_address(text)?),
        Kind::Text(field) if text.is_empty() => *field(config) = None,
        Kind::Text(field) => *field(config) = Some(value::visible_text(text)?),
        Kind::Switch(field) => match text {
            "on" | "true" => *field(config) = true,
            "off" | "false" => *field(config) = false,
            _ => return Err("it is neither on nor off".into()),
        },
        Kind::Program(_) if text.is_empty() => return Err("it is empty".into()),
        Kind::Program(field) => *field(config) = value::file(text)?.into(),
        Kind::Folder(field) if text.is_empty() => *field(config) = None,
        Kind::Folder(field) => *field(config) = Some(value::file(text)?.into()),
        Kind::Choice { words, put } => {
            let index = words.iter().position(|word| *word == text).ok_or("there is no such choice")?;
            put(config, index);
        }
        Kind::Addresses(_) | Kind::Apps(_) | Kind::Origins(_) => {
            unreachable!("lists have words, not one text")
        }
    }
    Ok(())
}

fn bounded_count(text: &str, min: usize, max: usize, power_of_two: bool) -> Result<usize, Why> {
    let count = value::count(text)?;
    let count = usize::try_from(count).ok().filter(|count| (min..=max).contains(count));
    let count = count.ok_or("it is out of range")?;
    if power_of_two && !count.is_power_of_two() {
        return Err("it is no power of two".into());
    }
    Ok(count)
}

/// An empty list is one word of nothing: `--app ""`, or `app = []`.
fn is_empty_list(words: &[Word]) -> bool {
    matches!(words, [word] if word.text.is_empty())
}

/// Everybody, or those of a list.
fn origins(setting: &'static Setting, words: &[Word]) -> Result<Vec<String>, ConfigError> {
    let origins = list(setting, words, value::origin)?;
    match words.iter().find(|word| word.text == "*") {
        Some(all) if words.len() > 1 => Err(bad_value(setting, all, "it is not alone in its list".into())),
        _ => Ok(origins),
    }
}

fn list<T: PartialEq>(
    setting: &'static Setting,
    words: &[Word],
    read: fn(&str) -> Result<T, Why>,
) -> Result<Vec<T>, ConfigError> {
    let mut values = Vec::with_capacity(words.len());
    for word in words {
        let value = read(&word.text).map_err(|why| bad_value(setting, word, why))?;
        if values.contains(&value) {
            return Err(bad_value(setting, word, "it is in the list twice".into()));
        }
        values.push(value);
    }
    Ok(values)
}

fn bad_value(setting: &'static Setting, word: &Word, why: Why) -> ConfigError {
    ConfigError::BadValue { setting, text: word.text.clone(), why, place: word.place.clone() }
}

fn broken(relation: &Relation, typed: &Typed) -> ConfigError {
    ConfigError::Relation {
        one: with_value(relation.lesser, typed),
        relation: if relation.or_equal { "at most" } else { "less than" },
        other: with_value(relation.greater, typed),
        why: relation.why,
    }
}

/// A setting with its value and the place where that stood: `timeout (10s, by default)`.
fn with_value(name: &str, typed: &Typed) -> String {
    match typed.words(name).last() {
        Some(word) => format!("{name} ({}, {})", word.text, word.place),
        None => {
            let default = Setting::find(name).map_or("", |setting| setting.default);
            format!("{name} ({default}, by default)")
        }
    }
}
