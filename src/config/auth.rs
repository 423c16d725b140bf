//! The settings of identity: the mode, and `[[auth-keys]]`, the keys that verify tokens.

use super::entries::{ArrayEntry, EntryKey, EntrySetting, KeyDefault, KeyKind};
use super::error::ConfigError;
use super::{AuthKeyEntry, AuthKeySource, AuthMode, Config};
use crate::identity::Algorithm;
use crate::limits::AUTH_KEYS_MAX;
use hyper::Uri;
use std::net::IpAddr;

/// The row of the keys.
pub(super) static AUTH_KEYS: EntrySetting = EntrySetting {
    name: "auth-keys",
    entry: "a key",
    plural: "keys",
    doc: "The keys that verify the tokens of clients (JSON Web Tokens). Each is for exactly one algorithm, which a token cannot \
          choose. Several may be valid at the same time, so that one can be replaced by the next. SIGHUP reads them and their \
          files again.",
    entries_max: AUTH_KEYS_MAX,
    keys: &[
        EntryKey {
            name: "id",
            kind: KeyKind::Text { allowed: "a name of up to 255 bytes" },
            default: KeyDefault::Required,
            doc: "The name that tokens give as their kid. A token without kid is verified with the only key of its algorithm. \
                  The keys of jwks-url have names of their own, and this one is for the log.",
        },
        EntryKey {
            name: "algorithm",
            kind: KeyKind::Choice(&Algorithm::NAMES),
            default: KeyDefault::Required,
            doc: "The algorithm of the signatures.",
        },
        EntryKey {
            name: "secret-file",
            kind: KeyKind::File,
            default: KeyDefault::None,
            doc: "The file of the secret, for HS256, HS384 and HS512. The end of its last line does not belong to the secret.",
        },
        EntryKey {
            name: "public-key-file",
            kind: KeyKind::File,
            default: KeyDefault::None,
            doc: "The file of the public key in PEM, for all other algorithms.",
        },
        EntryKey {
            name: "jwks-url",
            kind: KeyKind::Text { allowed: JWKS_URLS },
            default: KeyDefault::None,
            doc: "The address at which an identity provider publishes its public keys (a JSON Web Key Set). Those for the \
                  algorithm are used. They are fetched at the start, every 10 minutes, and when a token names an unknown key, \
                  but at most every 30 seconds. If they cannot be fetched, those that were fetched last stay in use.",
        },
    ],
    example: "id = \"2026\"\nalgorithm = \"HS256\"\nsecret-file = \"/etc/quickio/auth.secret\"\n",
    add,
    differs: |one, other| one.auth_keys != other.auth_keys,
};

const JWKS_URLS: &str =
    "an address that begins with https://, or with http:// for this host (127.0.0.1, [::1] or localhost)";

/// The maximum length of the name of a key, in bytes.
const ID_BYTES_MAX: usize = 255;

fn add(entry: &ArrayEntry<'_>, config: &mut Config) -> Result<(), ConfigError> {
    let id = entry.required("id").to_owned();
    if id.len() > ID_BYTES_MAX {
        return Err(entry.problem("id", format!("it has more than {ID_BYTES_MAX} bytes")));
    }
    if let Some(other) = config.auth_keys.iter().position(|other| other.id == id) {
        return Err(entry.problem("id", format!("key {} has the same name", other + 1)));
    }
    let algorithm = Algorithm::ALL[entry.choice("algorithm").expect("it is required")];
    let sources: Vec<&str> = ["secret-file", "public-key-file", "jwks-url"]
        .into_iter()
        .filter(|key| entry.text(key).is_some())
        .collect();
    let source = match (sources.as_slice(), algorithm.is_symmetric()) {
        (["secret-file"], true) => AuthKeySource::SecretFile(entry.file("secret-file").expect("it is there")),
        (["public-key-file"], false) => {
            AuthKeySource::PublicKeyFile(entry.file("public-key-file").expect("it is there"))
        }
        (["jwks-url"], false) => AuthKeySource::JwksUrl(jwks_url(entry)?),
        ([], true) => return Err(entry.problem("algorithm", format!("{algorithm} needs secret-file"))),
        ([], false) => {
            return Err(entry.problem("algorithm", format!("{algorithm} needs public-key-file or jwks-url")));
        }
        ([key], true) => return Err(entry.problem(key, format!("{algorithm} needs secret-file instead"))),
        ([key], false) => {
            return Err(entry.problem(key, format!("{algorithm} needs public-key-file or jwks-url instead")));
        }
        ([.., key], _) => {
            return Err(entry
                .problem(key, format!("the entry has {} too, but a key comes from one place", sources[0])));
        }
    };
    config.auth_keys.push(AuthKeyEntry { id, algorithm, source });
    Ok(())
}

fn jwks_url(entry: &ArrayEntry<'_>) -> Result<String, ConfigError> {
    let text = entry.required("jwks-url");
    let problem = |problem: &str| Err(entry.problem("jwks-url", problem.to_owned()));
    let Ok(uri) = text.parse::<Uri>() else { return problem("it is not the address of a document") };
    let Some(host) = uri.host().filter(|host| !host.is_empty()) else { return problem("it has no host") };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return problem("it has a name and a password, which are not sent");
    }
    match uri.scheme_str() {
        Some("https") => Ok(text.to_owned()),
        Some("http") if is_this_host(host) => Ok(text.to_owned()),
        Some("http") => problem("keys that come without TLS could be anybody's"),
        _ => problem("it does not begin with https://"),
    }
}

fn is_this_host(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Warns of keys that are not used. If nobody can authenticate clients, the server finds it: applications may.
pub(super) fn check(config: &mut Config) {
    if config.auth == AuthMode::Off && !config.auth_keys.is_empty() {
        config.warnings.push(
            "[[auth-keys]] has no effect, because auth is off; set auth to optional or required".into(),
        );
    }
}
