//! Presence over real sockets, on all transports: protocol.md, "Presence".

use crate::settings_file::SettingsFile;
use crate::support::{Conversation, Server, Transport};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

const RULES: &str = "
[[rules]]
path = '/relay/room/*'
members = true
history = 10
";

/// A client that watches the members of a path, as its application knows them.
struct Watcher {
    client: Box<dyn Conversation>,
    path: String,
    members: BTreeSet<String>,
}

impl Watcher {
    fn begin(server: &Server, transport: Transport, path: &str) -> Watcher {
        let mut client = server.conversation(transport);
        client.request_code("/qio/on", &format!("[\"{path}\",null,{{\"members\":true}}]"), 200);
        // The list is told with the news of others, which are gathered.
        server.advance(Duration::from_millis(250));
        let mut watcher = Watcher { client, path: path.to_owned(), members: BTreeSet::new() };
        let list = watcher.news();
        assert!(list["here"].is_array(), "the list comes first: {list}");
        watcher
    }

    /// Returns the next news of the path, after applying them.
    fn news(&mut self) -> Value {
        loop {
            let event = self.client.event();
            if event.path != "/qio/members" {
                continue;
            }
            let (path, news): (String, Value) = serde_json::from_str(&event.data).unwrap();
            assert_eq!(path, self.path);
            let entries = |key: &str| news[key].as_array().cloned().unwrap_or_default();
            if news["here"].is_array() {
                self.members.clear();
            }
            for id in entries("leave") {
                assert!(self.members.remove(id.as_str().unwrap()), "{news}");
            }
            for member in entries("here").into_iter().chain(entries("join")) {
                assert_eq!((&member[1], &member[2]), (&Value::Null, &Value::Null), "nobody has a token");
                self.members.insert(member[0].as_str().unwrap().to_owned());
            }
            assert_eq!(news["count"], json!(self.members.len()), "{news}");
            return news;
        }
    }

    /// Waits until the path has this many members. The clock is moved, because news are gathered.
    fn wait_for(&mut self, server: &Server, count: usize) {
        while self.members.len() != count {
            server.advance(Duration::from_millis(250));
            self.news();
        }
    }
}

#[test]
fn clients_see_who_joins_and_leaves_on_all_transports() {
    let settings = SettingsFile::new("members-transports", RULES);
    let server = settings.start(&["--shards", "2"]);
    for (transport, name) in Transport::ALL.into_iter().zip(["a", "b", "c", "d"]) {
        let path = format!("/relay/room/{name}");
        let mut watcher = Watcher::begin(&server, transport, &path);
        assert_eq!(watcher.members.len(), 1, "the client itself");
        // Whoever subscribes is a member, and gets nothing of this without asking.
        let mut plain = server.conversation(Transport::Raw);
        plain.subscribe(&path);
        watcher.wait_for(&server, 2);
        let other = Watcher::begin(&server, transport, &path);
        watcher.wait_for(&server, 3);
        assert_eq!(other.members, watcher.members, "all agree");

        let asked = plain.request_code("/qio/members", &format!("\"{path}\""), 200);
        assert_eq!(asked.body["data"]["count"], 3);
        assert_eq!(asked.body["data"]["here"].as_array().unwrap().len(), 3);
        plain.unsubscribe(&path);
        watcher.wait_for(&server, 2);
        assert!(plain.events().is_empty());
        drop(other);
        if matches!(transport, Transport::Poll | Transport::Stream) {
            // A session ends when no request has come for a while.
            for _ in 0..4 {
                server.advance(Duration::from_secs(5));
                watcher.client.ping();
            }
        }
        watcher.wait_for(&server, 1);
    }
}

#[test]
fn what_has_no_members_is_refused() {
    let settings = SettingsFile::new("members-refused", RULES);
    let server = settings.start(&[]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        for (path, data, message) in [
            ("/qio/on", r#"["/relay/other",null,{"members":true}]"#, "no members"),
            ("/qio/on", r#"["/relay/room/a",null,{"members":1}]"#, "invalid options"),
            ("/qio/members", r#""/relay/other""#, "no members"),
        ] {
            let answer = client.request_code(path, data, 400);
            assert_eq!(answer.body["err_msg"], message, "{data}");
        }
    }
}

#[test]
fn members_and_history_go_together() {
    let settings = SettingsFile::new("members-history", RULES);
    let server = settings.start(&["--shards", "2"]);
    let path = "/relay/room/a";
    let mut client = server.conversation(Transport::WebSocket);
    client.request_code(path, "1", 200);
    let options = format!("[\"{path}\",null,{{\"history\":1,\"members\":true}}]");
    let answer = client.request_code("/qio/on", &options, 200);
    assert_eq!((&answer.body["data"]["events"], &answer.body["data"]["complete"]), (&json!(1), &json!(true)));
    let replayed = client.event();
    assert_eq!((replayed.path, replayed.data), (format!("/qio/at/1{path}"), "1".to_owned()));
    let list = client.event();
    assert!(list.path == "/qio/members" && list.data.contains("\"here\":[["), "{list:?}");
}
