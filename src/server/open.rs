//! The warning of a server that is open to everyone: strangers could use it to exchange messages with each other.

use crate::config::{AuthMode, Config, Listen, ListenAddress};

/// The bundled application that broadcasts whatever clients send.
const RELAY: &str = "relay";

/// Returns a warning if everyone who reaches the server may send to everyone else: it has no rules, takes all pages, listens
/// beyond this host, and relays events. With `auth`, at least somebody is known.
pub(super) fn warning(config: &Config) -> Option<String> {
    let takes_all_pages = config.origin.iter().any(|origin| origin == "*");
    let relays = config.app.iter().any(|app| app.name == RELAY);
    let knows_nobody = config.auth == AuthMode::Off && config.rules.is_empty();
    let is_open = knows_nobody && takes_all_pages && relays;
    let listen = config.listen.iter().find(|listen| is_reached_from_elsewhere(listen)).filter(|_| is_open)?;
    Some(format!(
        "the server is open: the application {RELAY} broadcasts what every client sends, from every web page (origin = \"*\"), \
         auth is off, there are no [[rules]], and listen {listen} can be reached from other hosts. Add rules or set origin, see \
         docs/operations.md, \"Who may do what\"; or listen on 127.0.0.1 only"
    ))
}

fn is_reached_from_elsewhere(listen: &Listen) -> bool {
    match &listen.address {
        ListenAddress::Tcp(address) => !address.ip().is_loopback(),
        ListenAddress::Unix(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Config {
        Config { app: vec!["chat".into(), "relay".into()], ..Config::default() }
    }

    #[test]
    fn a_server_that_is_open_in_every_way_is_named() {
        let text = warning(&open()).expect("a warning");
        assert!(text.contains("listen 0.0.0.0:8080") && text.contains("[[rules]]"), "{text}");
        let rule = crate::rules::Rule {
            on: crate::rules::Access::User,
            send: crate::rules::Access::User,
            ..crate::rules::Rule::open("/**".parse().unwrap())
        };
        let listen = |addresses: &[&str]| Config {
            listen: addresses
                .iter()
                .map(|address| address.parse::<std::net::SocketAddr>().unwrap().into())
                .collect(),
            ..open()
        };
        for config in [
            Config { app: vec!["chat".into()], ..open() },
            Config { origin: vec!["https://a.example".into()], ..open() },
            Config { rules: vec![rule], ..open() },
            Config { auth: AuthMode::Optional, ..open() },
            listen(&["127.0.0.1:8080", "[::1]:8080"]),
        ] {
            assert_eq!(warning(&config), None, "{config:?}");
        }
        assert!(
            warning(&listen(&["127.0.0.1:8080", "[::]:8080"])).is_some_and(|text| text.contains("[::]:8080"))
        );
    }
}
