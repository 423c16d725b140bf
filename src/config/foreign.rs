//! Variables with the prefix of the settings that other programs set.
//!
//! Kubernetes sets variables for every Service of a namespace, by its name, and Docker sets them for every link. For a
//! Service named `quickio-admin`, these are `QUICKIO_ADMIN_SERVICE_HOST`, `QUICKIO_ADMIN_PORT` and more. They must not
//! keep a server from starting. A misspelled setting still must: a variable is foreign only if its name and, where the
//! name alone might be a setting's, its value have the form that these programs use.

/// The beginnings of names: those of the project's own tests, and of a Service or link named `quickio`.
const PREFIXES: [&str; 5] = ["FUZZ_", "TEST_", "SERVICE_", "PORT_", "ENV_"];

/// The variable that tells a worker how to reach its server, which programs that the worker starts inherit, and those of the
/// commands that are clients.
const OTHERS: [&str; 3] = ["WORKER", "SERVER", "TOKEN"];

/// The protocols of Kubernetes and Docker.
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Returns whether another program has set this variable. `name` has no prefix `QUICKIO_`, and is not a setting.
pub(super) fn is_foreign(name: &str, value: &str) -> bool {
    OTHERS.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || is_service(name)
        || (ends_with_word(name, "PORT") && is_url(value))
        || is_port_detail(name)
        || name.contains("_ENV_")
        || (ends_with_word(name, "NAME") && is_link(value))
}

/// Returns whether a name is that of a Service's address: `ADMIN_SERVICE_HOST`, `ADMIN_SERVICE_PORT_HTTP`.
fn is_service(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_")
}

/// Returns whether a name is that of one port: `ADMIN_PORT_8081_TCP`, `ADMIN_PORT_8081_TCP_ADDR`.
fn is_port_detail(name: &str) -> bool {
    let Some((_, detail)) = name.split_once("_PORT_") else { return false };
    let mut words = detail.split('_');
    let is_number = words.next().is_some_and(|word| word.parse::<u16>().is_ok());
    is_number && words.next().is_some_and(|word| PROTOCOLS.contains(&word))
}

/// Returns whether a value is an address as Kubernetes and Docker write it: `tcp://10.0.0.1:8081`.
fn is_url(value: &str) -> bool {
    let protocol = value.split_once("://").map(|(protocol, _)| protocol.to_uppercase());
    protocol.is_some_and(|protocol| PROTOCOLS.contains(&protocol.as_str()))
}

/// Returns whether a value is the name of a link of Docker: `/web/quickio`.
fn is_link(value: &str) -> bool {
    value.strip_prefix('/').is_some_and(|names| names.contains('/'))
}

fn ends_with_word(name: &str, word: &str) -> bool {
    name.strip_suffix(word).is_some_and(|rest| rest.is_empty() || rest.ends_with('_'))
}
