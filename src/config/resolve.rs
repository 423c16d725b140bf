//! Converts raw values into a [`Config`], and checks the relations between settings.

use super::auth;
use super::entries;
use super::error::ConfigError;
use super::sources::{RawSettings, RawValue};
use super::table::{DURATION_MAX, RELATIONS, Relation, Setting, ValueKind};
use super::value::{self, Problem};
use super::{Config, Listen, ListenAddress, ListenKind};
use crate::limits::{APP_HEADERS_MAX, ORIGINS_MAX, SHARDS_MAX};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Returns the defaults, overridden by the given settings.
pub(super) fn config(settings: &RawSettings) -> Result<Config, ConfigError> {
    let mut config = Config {
        app_settings: settings.app_settings.clone(),
        warnings: settings.warnings.clone(),
        ..Config::default()
    };
    for (setting, values) in settings.iter() {
        set(setting, values, &mut config)?;
    }
    for entry in &settings.entries {
        entries::add(entry, &mut config)?;
    }
    match RELATIONS.iter().find(|relation| !(relation.holds)(&config)) {
        Some(relation) => Err(violated(relation, settings)),
        None => {
            check_addresses(&config)?;
            check_tls(&config)?;
            auth::check(&mut config);
            Ok(config)
        }
    }
}

/// Sets one field from its values. There is at least one value.
pub(super) fn set(
    setting: &'static Setting,
    values: &[RawValue],
    config: &mut Config,
) -> Result<(), ConfigError> {
    match setting.kind {
        ValueKind::Addresses(field) => {
            *field(config) = many(setting, values, value::listen, is_same_listener)?;
        }
        ValueKind::Apps(field) if is_empty_list(values) => field(config).clear(),
        ValueKind::Apps(field) => *field(config) = list(setting, values, value::app)?,
        ValueKind::Hosts(field) if is_empty_list(values) => field(config).clear(),
        ValueKind::Hosts(field) => *field(config) = list(setting, values, value::host)?,
        ValueKind::Proxies(field) if is_empty_list(values) => field(config).clear(),
        ValueKind::Proxies(field) => *field(config) = list(setting, values, value::proxy)?,
        ValueKind::Texts(field) | ValueKind::Headers(field) if is_empty_list(values) => field(config).clear(),
        ValueKind::Texts(field) => *field(config) = list(setting, values, value::visible_text)?,
        ValueKind::Headers(field) => *field(config) = headers(setting, values)?,
        ValueKind::Origins(field) => *field(config) = origins(setting, values)?,
        ValueKind::Files(field) if is_empty_list(values) => field(config).clear(),
        ValueKind::Files(field) => {
            *field(config) = paths(setting, values)?;
        }
        kind => {
            let value = values.last().expect("a setting that was given has a value");
            set_scalar(kind, &value.text, config).map_err(|problem| bad_value(setting, value, problem))?;
        }
    }
    Ok(())
}

/// Sets the field of a setting that is not a list.
fn set_scalar(kind: ValueKind, text: &str, config: &mut Config) -> Result<(), Problem> {
    match kind {
        ValueKind::Count { min, max, power_of_two, field, .. } => {
            *field(config) = bounded_count(text, min, max, power_of_two)?;
        }
        ValueKind::FileMode(field) => *field(config) = value::file_mode(text)?,
        ValueKind::Percent(field) => {
            let percent = bounded_count(text.strip_suffix('%').unwrap_or(text), 1, 100, false)?;
            *field(config) = u8::try_from(percent).expect("at most 100");
        }
        ValueKind::Duration { min, field } => {
            let duration = value::duration(text)?;
            if duration < min || duration > DURATION_MAX {
                return Err("it is out of range".into());
            }
            *field(config) = duration;
        }
        ValueKind::AutoCount { field, .. } if text == "auto" => *field(config) = None,
        ValueKind::AutoCount { max, field, .. } => {
            *field(config) = Some(bounded_count(text, 0, max, false)?);
        }
        ValueKind::Shards(field) if text == "auto" => *field(config) = None,
        ValueKind::Shards(field) => *field(config) = Some(bounded_count(text, 1, SHARDS_MAX, false)?),
        ValueKind::AddressOrOff { addresses, tls } if text == "off" => {
            addresses(config).clear();
            *tls(config) = false;
        }
        ValueKind::AddressOrOff { addresses, tls } => {
            (*addresses(config), *tls(config)) = value::service_addresses(text)?;
        }
        ValueKind::Text(field) if text.is_empty() => *field(config) = None,
        ValueKind::Text(field) => *field(config) = Some(value::visible_text(text)?),
        ValueKind::Switch(field) => *field(config) = value::switch(text)?,
        ValueKind::Program(_) if text.is_empty() => return Err("it must not be empty".into()),
        ValueKind::Program(field) => *field(config) = value::file(text)?.into(),
        ValueKind::File(field) | ValueKind::Directory(field) if text.is_empty() => *field(config) = None,
        ValueKind::File(field) | ValueKind::Directory(field) => {
            *field(config) = Some(value::file(text)?.into())
        }
        ValueKind::Choice { choices, set } => {
            let index =
                choices.iter().position(|choice| *choice == text).ok_or("it is not one of the choices")?;
            set(config, index);
        }
        ValueKind::Addresses(_)
        | ValueKind::Apps(_)
        | ValueKind::Files(_)
        | ValueKind::Hosts(_)
        | ValueKind::Proxies(_)
        | ValueKind::Texts(_)
        | ValueKind::Headers(_)
        | ValueKind::Origins(_) => {
            unreachable!("lists are set from all their values")
        }
    }
    Ok(())
}

fn bounded_count(text: &str, min: usize, max: usize, power_of_two: bool) -> Result<usize, Problem> {
    let count = value::count(text)?;
    let count = usize::try_from(count).ok().filter(|count| (min..=max).contains(count));
    let count = count.ok_or("it is out of range")?;
    if power_of_two && !count.is_power_of_two() {
        return Err("it is not a power of two".into());
    }
    Ok(count)
}

/// Returns whether the values are an empty list, which is one empty value: `--app ""`, or `app = []`.
fn is_empty_list(values: &[RawValue]) -> bool {
    matches!(values, [value] if value.text.is_empty())
}

/// Parses a list of origins, at most [`ORIGINS_MAX`]. `*` must be the only entry.
fn origins(setting: &'static Setting, values: &[RawValue]) -> Result<Vec<String>, ConfigError> {
    if let Some(further) = values.get(ORIGINS_MAX) {
        let problem = format!("there are more than {ORIGINS_MAX} origins");
        return Err(bad_value(setting, further, problem));
    }
    let origins = list(setting, values, value::origin)?;
    match values.iter().find(|value| value.text == "*") {
        Some(all) if values.len() > 1 => {
            Err(bad_value(setting, all, "it must be the only entry of the list".into()))
        }
        _ => Ok(origins),
    }
}

/// Parses a list of names of headers.
fn headers(setting: &'static Setting, values: &[RawValue]) -> Result<Vec<String>, ConfigError> {
    let headers = list(setting, values, value::header)?;
    match values.get(APP_HEADERS_MAX) {
        Some(value) => {
            Err(bad_value(setting, value, format!("the list has more than {APP_HEADERS_MAX} names")))
        }
        None => Ok(headers),
    }
}

/// Parses a list of paths. A path may appear twice: one file may have the keys of two certificates.
fn paths(setting: &'static Setting, values: &[RawValue]) -> Result<Vec<PathBuf>, ConfigError> {
    let path = |value: &RawValue| match value.text.as_str() {
        "" => Err(bad_value(setting, value, "a path must not be empty".into())),
        text => value::file(text).map(PathBuf::from).map_err(|problem| bad_value(setting, value, problem)),
    };
    values.iter().map(path).collect()
}

fn list<T: PartialEq>(
    setting: &'static Setting,
    values: &[RawValue],
    parse: fn(&str) -> Result<T, Problem>,
) -> Result<Vec<T>, ConfigError> {
    many(setting, values, |text| parse(text).map(|entry| vec![entry]), T::eq)
}

/// Parses a list in which a value may stand for several entries. No two of them may be the same.
fn many<T>(
    setting: &'static Setting,
    values: &[RawValue],
    parse: impl Fn(&str) -> Result<Vec<T>, Problem>,
    is_same: impl Fn(&T, &T) -> bool,
) -> Result<Vec<T>, ConfigError> {
    let mut parsed = Vec::with_capacity(values.len());
    for value in values {
        for entry in parse(&value.text).map_err(|problem| bad_value(setting, value, problem))? {
            if parsed.iter().any(|other| is_same(other, &entry)) {
                return Err(bad_value(setting, value, "it appears twice in the list".into()));
            }
            parsed.push(entry);
        }
    }
    Ok(parsed)
}

/// Returns whether two listeners need the same address. The kernel chooses a port of its own for each that has port 0.
fn is_same_listener(one: &Listen, other: &Listen) -> bool {
    let is_any_port = matches!(one.address, ListenAddress::Tcp(address) if address.port() == 0);
    one.address == other.address && !is_any_port
}

/// Checks that the server does not need one address twice.
fn check_addresses(config: &Config) -> Result<(), ConfigError> {
    let listen = config.listen.iter().filter_map(|listen| match &listen.address {
        ListenAddress::Tcp(address) => Some(("listen", *address)),
        ListenAddress::Unix(_) => None,
    });
    let admin = config.admin.iter().map(|address| ("admin", *address));
    let api = config.api.iter().map(|address| ("api", *address));
    let used: Vec<(&'static str, SocketAddr)> = listen.chain(admin).chain(api).collect();
    for (number, other) in used.iter().enumerate() {
        if let Some(one) = used[..number].iter().find(|one| value::overlap(one.1, other.1)) {
            return Err(ConfigError::SameAddress { one: *one, other: *other });
        }
    }
    Ok(())
}

/// Checks that certificates and keys belong together, and that nothing needs certificates that there are none of.
fn check_tls(config: &Config) -> Result<(), ConfigError> {
    let (certificates, keys) = (config.tls_cert.len(), config.tls_key.len());
    if certificates > 0 {
        return match keys {
            0 => Ok(()),
            keys if keys == certificates => Ok(()),
            _ => Err(ConfigError::UnpairedKeys { certificates, keys }),
        };
    }
    let listener =
        config.listen.iter().find(|listen| listen.kind.is_some_and(|kind| kind != ListenKind::Plain));
    let needs = match listener {
        Some(listen) => format!("listen {listen}"),
        None if config.admin_tls => format!("admin tls://{}", config.admin[0]),
        None if config.api_tls => format!("api tls://{}", config.api[0]),
        None if keys > 0 => "tls-key".to_owned(),
        None if config.tls_client_ca.is_some() => "tls-client-ca".to_owned(),
        None if config.tls_ticket_key_file.is_some() => "tls-ticket-key-file".to_owned(),
        None => return Ok(()),
    };
    Err(ConfigError::NoCertificate { needs })
}

fn bad_value(setting: &'static Setting, value: &RawValue, problem: Problem) -> ConfigError {
    ConfigError::BadValue { setting, text: value.text.clone(), problem, location: value.location.clone() }
}

fn violated(relation: &Relation, settings: &RawSettings) -> ConfigError {
    ConfigError::Relation {
        one: with_value(relation.lesser, settings),
        relation: if relation.or_equal { "at most" } else { "less than" },
        other: with_value(relation.greater, settings),
        consequence: relation.consequence,
    }
}

/// Returns a setting with its value and the location of the value: `timeout (10s, the default)`.
fn with_value(name: &str, settings: &RawSettings) -> String {
    match settings.values(name).last() {
        Some(value) => format!("{name} ({}, {})", value.text, value.location),
        None => {
            let default = Setting::find(name).map_or("", |setting| setting.default);
            format!("{name} ({default}, the default)")
        }
    }
}
