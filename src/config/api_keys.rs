//! The setting `[[api-keys]]`: the keys of back ends for the server API.

use super::Config;
use super::entries::{ArrayEntry, EntryKey, EntrySetting, KeyDefault, KeyKind};
use super::error::ConfigError;
use crate::limits::API_KEYS_MAX;
use std::path::PathBuf;

/// The row of the keys.
pub(super) static API_KEYS: EntrySetting = EntrySetting {
    name: "api-keys",
    entry: "an API key",
    plural: "API keys",
    doc: "The keys of back ends for the server API (api). SIGHUP reads them and their files again: to replace a key, add the \
          new one, let the back ends use it, and remove the old one.",
    entries_max: API_KEYS_MAX,
    keys: &[
        EntryKey {
            name: "name",
            kind: KeyKind::Text { allowed: "1 to 64 of A-Z a-z 0-9 . _ -" },
            default: KeyDefault::Required,
            doc: "The name of the back end, for the log. Idempotency keys belong to a name.",
        },
        EntryKey {
            name: "secret-file",
            kind: KeyKind::File,
            default: KeyDefault::Required,
            doc: "The file with the secret, on one line, which back ends send. It has 16 to 1024 visible ASCII characters.",
        },
        EntryKey {
            name: "scopes",
            kind: KeyKind::Choices(&Scope::NAMES),
            default: KeyDefault::Required,
            doc: "What the key permits: to broadcast events; to send events to clients and users; to close, subscribe and \
                  unsubscribe clients; to read about paths and clients.",
        },
    ],
    example: "name = \"shop\"\nsecret-file = \"/etc/quickio/shop.key\"\nscopes = [\"broadcast\", \"send\"]\n",
    add,
    differs: |one, other| one.api_keys != other.api_keys,
};

fn add(entry: &ArrayEntry<'_>, config: &mut Config) -> Result<(), ConfigError> {
    let name = entry.required("name");
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.len() > NAME_BYTES_MAX || !name.bytes().all(is_name_byte) {
        return Err(entry.problem("name", "it is too long, or has other characters".into()));
    }
    if config.api_keys.iter().any(|other| other.name == name) {
        return Err(entry.problem("name", "another API key has this name".into()));
    }
    let scopes = entry.list("scopes");
    if scopes.is_empty() {
        return Err(entry.problem("scopes", "a key without a scope permits nothing".into()));
    }
    config.api_keys.push(ApiKeySetting {
        name: name.to_owned(),
        secret_file: entry.file("secret-file").expect("it is required"),
        scopes: Scope::ALL.iter().copied().filter(|scope| scopes.contains(&scope.name())).collect(),
    });
    Ok(())
}

/// The maximum length of the name of a key in bytes.
const NAME_BYTES_MAX: usize = 64;

/// A key of a back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeySetting {
    /// The name, for the log.
    pub name: String,
    /// The file of the secret.
    pub secret_file: PathBuf,
    /// The requests that the key permits.
    pub scopes: Vec<Scope>,
}

/// A permission of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Scope {
    /// Broadcasts events.
    Broadcast = 1,
    /// Sends events to clients and users.
    Send = 2,
    /// Closes, subscribes and unsubscribes clients.
    Clients = 4,
    /// Reads paths, clients and information about the server.
    Read = 8,
}

impl Scope {
    /// All scopes, in the order in which they are documented.
    pub const ALL: &'static [Scope] = &[Scope::Broadcast, Scope::Send, Scope::Clients, Scope::Read];

    /// The names of all scopes, in the same order.
    pub const NAMES: [&'static str; 4] = ["broadcast", "send", "clients", "read"];

    /// Returns the scope's name in the settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Scope::Broadcast => "broadcast",
            Scope::Send => "send",
            Scope::Clients => "clients",
            Scope::Read => "read",
        }
    }
}
