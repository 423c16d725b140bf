//! Rules over real sockets, on all transports: protocol.md, section 4, and operations.md, "Who may do what".

use crate::settings_file::SettingsFile;
use crate::support::server::BINARY;
use crate::support::{Conversation, Transport};
use std::process::Command;
use std::time::Duration;

const RULES: &str = "
[[rules]]
path = '/relay/news/**'
send = 'nobody'
[[rules]]
path = '/relay/user/{user}'
on = 'owner'
send = 'owner'
[[rules]]
path = '/relay/chat/*'
rate = '3/s'
[[rules]]
path = '/relay/shared'
address-rate = '10/m'
";

/// Runs the program, and returns its exit code, its output and its errors.
fn quickio(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(BINARY).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn refused(client: &mut dyn Conversation, path: &str, data: &str, code: u64, message: &str) {
    let answer = client.request_code(path, data, code);
    let expected = format!("{{\"code\":{code},\"data\":null,\"err_msg\":\"{message}\"}}");
    assert!(answer.text.ends_with(&expected), "{}", answer.text);
}

#[test]
fn rules_apply_on_all_transports() {
    let settings = SettingsFile::new("rules-transports", RULES);
    let server = settings.start(&[]);
    for (transport, times) in Transport::ALL.into_iter().zip(1..) {
        let mut client = server.conversation(transport);
        client.subscribe("/relay/news/today");
        refused(&mut *client, "/relay/news/today", "1", 401, "not allowed");
        refused(&mut *client, "/relay//news@/", "1", 401, "not allowed");
        refused(&mut *client, "/relay/user/7", "1", 401, "authenticate first");
        refused(&mut *client, "/qio/on", "\"/relay/user/7\"", 401, "authenticate first");
        refused(&mut *client, "/qio/on", "[\"/relay/user/7\",{}]", 401, "authenticate first");
        client.request_code("/relay/open", "1", 200);
        for _ in 0..3 {
            client.request_code("/relay/chat/rust", "1", 200);
        }
        refused(&mut *client, "/relay/chat/other", "1", 420, "rate limit");
        client.request_code("/qio/ping", "null", 200);
        server.advance(Duration::from_secs(1));
        client.request_code("/relay/chat/rust", "1", 200);
        let stats = server.stats();
        let rule = |path: &str, name: &str| stats.0["rules"][path][name].as_u64().unwrap();
        assert_eq!(rule("/relay/news/**", "rule_events_refused"), 2 * times);
        assert_eq!(rule("/relay/user/{user}", "rule_events_refused"), times);
        assert_eq!(rule("/relay/user/{user}", "rule_subscriptions_refused"), 2 * times);
        assert_eq!(rule("/relay/chat/*", "rule_events_limited"), times);
        assert_eq!(rule("/relay/chat/*", "rule_events_refused"), 0);
    }
    let metrics = server.admin_request("GET", "/metrics").body;
    assert!(
        metrics.contains("quickio_rule_events_limited_total{rule=\"/relay/chat/*\",shard=\"0\"}"),
        "{metrics}"
    );
    let stats = server.stats();
    assert!(stats.value("rate_bucket_bytes") >= 4096, "buckets exist once they are used");
}

#[test]
fn the_clients_of_an_address_share_a_rate_on_all_shards_and_transports() {
    let settings = SettingsFile::new("rules-address", RULES);
    let server = settings.start(&["--shards", "2"]);
    let mut passed = 0;
    for transport in [Transport::ALL, Transport::ALL].concat() {
        let mut client = server.conversation(transport);
        for _ in 0..3 {
            match client.request("/relay/shared", "1") {
                answer if answer.code() == 200 => passed += 1,
                answer => assert_eq!(answer.body["err_msg"], "rate limit"),
            }
        }
    }
    assert_eq!(passed, 10);
}

#[test]
fn a_reload_applies_rules_and_ends_subscriptions() {
    let settings = SettingsFile::new("rules-reload", "");
    let server = settings.start(&["--shards", "2"]);
    let mut clients: Vec<_> = Transport::ALL.map(|transport| server.conversation(transport)).into();
    for client in &mut clients {
        client.subscribe("/relay/secret/1");
        client.subscribe("/relay/open");
    }
    settings.write("[[rules]]\npath = '/relay/secret/*'\non = 'user'\n");
    server.signal("HUP");
    server.log_with("the reload is complete");
    let log = server.log_with("changed settings that take effect without a restart: rules");
    assert!(!log.contains("only after a restart"), "{log}");
    for client in &mut clients {
        let event = client.event();
        assert_eq!((&*event.path, &*event.data), ("/qio/off", "\"/relay/secret/1\""));
        refused(&mut **client, "/qio/on", "\"/relay/secret/1\"", 401, "authenticate first");
    }
    server.eventually_is("subscriptions", 4);
    // The rules say nothing about sending, but nobody receives it any more.
    clients[0].request_code("/relay/secret/1", "1", 200);
    clients[0].request_code("/relay/open", "2", 200);
    for client in &mut clients {
        assert_eq!(client.event().path, "/relay/open");
    }
    // A wrong rule changes nothing.
    settings.write("[[rules]]\npath = '/relay/open'\non = 'nobdy'\n");
    server.signal("HUP");
    let log = server.log_with("the reload failed");
    assert!(log.contains(":3:6)") && log.contains("on of [[rules]] number 1 cannot be `nobdy`"), "{log}");
    clients[0].request_code("/relay/open", "3", 200);
    assert_eq!(clients[3].event().data, "3");
}

#[test]
fn a_wrong_rule_keeps_the_server_from_starting() {
    let settings = SettingsFile::new("rules-wrong", "app = 'relay'\n[[rules]]\npath = 'chat'\n");
    let file = settings.path();
    for arguments in [&["--config", file][..], &["check", "--config", file]] {
        let (code, _, error) = quickio(arguments);
        assert_eq!(code, Some(2), "{error}");
        let expected = "path of [[rules]] number 1 cannot be `chat`: a path begins with a slash";
        assert!(error.contains(expected) && error.contains(".toml:3:8)"), "{error}");
    }
}

#[test]
fn explain_shows_the_rule_that_decides() {
    let settings = SettingsFile::new("rules-explain", RULES);
    let file = settings.path();
    let explain = |arguments: &[&str]| quickio(&[&["explain", "--config", file], arguments].concat());
    let (code, text, _) = explain(&["--user", "7", "/relay/user/7", "/relay/other"]);
    assert_eq!(code, Some(0));
    assert_eq!(
        text.trim_end(),
        "/relay/user/7\n  rule 2 of 4 decides: /relay/user/{user} (line 5)\n  on = owner: user 7 may subscribe\n  \
         send = owner: user 7 may send\n\n/relay/other\n  no rule matches: every client may subscribe and send"
    );
    for (arguments, message) in [
        (&[][..], "explain needs a path, such as /chat/rust"),
        (&["/a", "--user", ""], "user cannot be ``"),
        (&["/a", "--user"], "the flag --user needs a value"),
        (&["/a", "--usr", "7"], "did you mean `--user`?"),
        (&["/a", "--token-file"], "the flag --token-file needs a value"),
        (&["/a", "--token-file", "x", "--user", "7"], "--user or --token-file, not both"),
        (&["/a", "--token-file", "/nowhere"], "--token-file /nowhere: No such file"),
        (&["/a", "--token-file", file], "auth is off"),
    ] {
        let (code, _, error) = explain(arguments);
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains(message), "{error}");
    }
}
