//! The server API of the real program: events of back ends reach clients on every transport, keys are read again, and what
//! is wrong is named.

use crate::support::server::{BINARY, command, run};
use crate::support::tls::{Authority, connect};
use crate::support::{Conversation, Ended, Server, Transport, http};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const WRITER: &str = "0123456789abcdef-writer";
const READER: &str = "0123456789abcdef-reader";

/// The files of a server with an API. Dropping them removes them.
pub struct ApiFiles {
    folder: PathBuf,
}

impl ApiFiles {
    pub fn new(name: &str) -> ApiFiles {
        let folder = std::env::temp_dir().join(format!("quickio_api_{}_{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let files = ApiFiles { folder };
        files.write("writer", WRITER);
        files.write("reader", READER);
        files.write_settings(&[
            ("shop", "writer", "'broadcast', 'send', 'clients'"),
            ("page", "reader", "'read'"),
        ]);
        files
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), format!("{content}\n")).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn write_settings(&self, keys: &[(&str, &str, &str)]) {
        let key = |(name, file, scopes): &(&str, &str, &str)| {
            let file = self.path(file);
            format!(
                "[[api-keys]]\nname = '{name}'\nsecret-file = '{}'\nscopes = [{scopes}]\n",
                file.display()
            )
        };
        let keys: Vec<String> = keys.iter().map(key).collect();
        self.write("quickio.toml", &keys.concat());
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Appends sections to the settings.
    pub fn append_settings(&self, sections: &str) {
        let settings = fs::read_to_string(self.path("quickio.toml")).unwrap();
        self.write("quickio.toml", &(settings + sections));
    }

    pub fn start(self, arguments: &[&str]) -> (Server, ApiFiles) {
        (Server::launch(self.command(arguments)), self)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let settings = self.path("quickio.toml");
        let config = ["--config", settings.to_str().unwrap()];
        let api: &[&str] = if arguments.contains(&"--api") { &[] } else { &["--api", "127.0.0.1:0"] };
        command(BINARY, &[&config[..], api, arguments].concat())
    }
}

impl Drop for ApiFiles {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn request(server: &Server, key: &str, method: &str, target: &str, kind: &str, body: &str) -> http::Response {
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {key}\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    http::exchange(server.api(), request)
}

fn broadcast(server: &Server, body: &str) -> http::Response {
    request(server, WRITER, "POST", "/broadcast", "text/plain", body)
}

#[test]
fn broadcasts_reach_clients_of_every_transport_and_shard() {
    let (server, _files) = ApiFiles::new("broadcasts").start(&[]);
    let mut clients: Vec<Box<dyn Conversation>> = Transport::SOCKETS
        .iter()
        .chain(&Transport::HTTP)
        .map(|transport| server.conversation(*transport))
        .collect();
    clients.extend(server.spread(4).into_iter().map(|client| Box::new(client) as Box<dyn Conversation>));
    for client in &mut clients {
        client.subscribe("/relay/a");
        client.subscribe("/relay/b");
    }
    let response =
        broadcast(&server, "/relay/a:0={\"x\":1}\n/relay/nobody:0=0\n/relay/b:0=\"\u{e9}\"\n/relay/a:0=\n");
    assert_eq!((response.head.status, response.body.as_str()), (200, "{\"accepted\":4}\n"));
    let json = r#"[{"path":"/relay/b","data":[1, 2]}]"#;
    let response = request(&server, WRITER, "POST", "/broadcast", "application/json", json);
    assert_eq!(response.head.status, 200, "{response:?}");
    for client in &mut clients {
        // Events to one path are in order.
        let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let event = client.event();
            let of_path = if event.path == "/relay/a" { &mut of_a } else { &mut of_b };
            of_path.push(event.data);
        }
        assert_eq!(of_a, ["{\"x\":1}", "null"]);
        assert_eq!(of_b, ["\"\u{e9}\"", "[1, 2]"]);
    }
    let stats = server.eventually_is("api_events", 5);
    assert_eq!(stats.value("api_requests"), 2);
}

#[test]
fn a_bad_line_or_key_is_refused_and_logged() {
    let (server, _files) = ApiFiles::new("refused").start(&[]);
    let mut client = server.websocket();
    client.subscribe("/relay/a");
    let response = broadcast(&server, "/relay/a:0=1\n/relay/a:1=2\n");
    assert_eq!(response.head.status, 400);
    assert!(response.body.contains("line 2: the callback id must be 0"), "{}", response.body);
    assert_eq!(request(&server, READER, "POST", "/broadcast", "text/plain", "/relay/a:0=3").head.status, 403);
    let response =
        request(&server, "0123456789abcdef-nobody", "POST", "/broadcast", "text/plain", "/relay/a:0=4");
    assert_eq!(response.head.status, 401);
    server.log_with("request to the server API refused: the key is unknown");
    let log = server.log_with("the key does not have the scope broadcast");
    assert!(log.contains("peer=127.0.0.1:"), "{log}");
    assert!(!log.contains(READER) && !log.contains("0123456789abcdef-nobody"), "{log}");
    assert_eq!(broadcast(&server, "/relay/a:0=5").head.status, 200);
    assert_eq!(client.event().data, "5");
}

#[test]
fn keys_are_read_again_after_sighup() {
    let (server, files) = ApiFiles::new("reload").start(&[]);
    assert_eq!(broadcast(&server, "").head.status, 200);
    files.write("writer", "0123456789abcdef-another");
    server.signal("HUP");
    server.log_with("the reload is complete");
    assert_eq!(broadcast(&server, "").head.status, 401);
    // A key that cannot be used changes nothing.
    files.write("writer", "short");
    server.signal("HUP");
    server.log_with("the keys of the server API stay as they were");
    let another =
        || request(&server, "0123456789abcdef-another", "POST", "/broadcast", "text/plain", "").head.status;
    assert_eq!(another(), 200);
    files.write_settings(&[("page", "reader", "'read', 'broadcast'")]);
    server.signal("HUP");
    server.log_with("changed settings that take effect without a restart: api-keys");
    while another() != 401 {}
    assert_eq!(request(&server, READER, "POST", "/broadcast", "text/plain", "").head.status, 200);
}

#[test]
fn an_api_without_a_usable_key_does_not_start() {
    let files = ApiFiles::new("start");
    files.write_settings(&[]);
    let (code, _, log) = run(files.command(&[]));
    assert!(code != Some(0) && log.contains("the server API needs a key"), "{log}");
    files.write_settings(&[("shop", "missing", "'read'")]);
    let (code, _, log) = run(files.command(&[]));
    assert!(code != Some(0) && log.contains("cannot read") && log.contains("missing"), "{log}");
    files.write_settings(&[("shop", "writer", "'read'"), ("blog", "writer", "'read'")]);
    let (code, _, log) = run(files.command(&[]));
    assert!(code != Some(0) && log.contains("the API keys shop and blog have the same secret"), "{log}");
    files.write("weak", "12345");
    files.write_settings(&[("shop", "weak", "'read'")]);
    let (code, _, log) = run(files.command(&[]));
    assert!(code != Some(0) && log.contains("has 5 bytes"), "{log}");
}

fn json(server: &Server, key: &str, method: &str, target: &str, body: &str) -> Value {
    let response = request(server, key, method, target, "application/json", body);
    assert_eq!(response.head.status, 200, "{response:?}");
    serde_json::from_str(&response.body).unwrap()
}

#[test]
fn clients_are_listed_sent_to_subscribed_and_closed() {
    let (server, _files) = ApiFiles::new("clients").start(&[]);
    let mut clients = server.spread(4);
    let info = json(&server, READER, "GET", "/info", "");
    assert_eq!((&info["clients"], &info["shards"]), (&clients.len().into(), &2.into()));
    let mut ids = Vec::new();
    let mut next = String::from("0.0");
    loop {
        let page = json(&server, READER, "GET", &format!("/clients?limit=3&next={next}"), "");
        ids.extend(
            page["clients"].as_array().unwrap().iter().map(|row| row["client"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(place) => next = place.to_owned(),
            None => break,
        }
    }
    assert_eq!(ids.len(), clients.len());
    for (number, id) in ids.iter().enumerate() {
        let body = format!(r#"{{"client":"{id}","path":"/note","data":{number}}}"#);
        assert_eq!(json(&server, WRITER, "POST", "/send", &body)["clients"], 1);
        let body = format!(r#"{{"client":"{id}","path":"/relay/of-back-end"}}"#);
        assert_eq!(json(&server, WRITER, "POST", "/on", &body), json!({"clients": 1, "refused": 0}));
    }
    let listed = json(&server, READER, "GET", "/paths?prefix=/relay/of", "");
    assert_eq!(listed["paths"], json!([{"path": "/relay/of-back-end", "subscribers": ids.len()}]));
    assert_eq!(broadcast(&server, "/relay/of-back-end:0=true").head.status, 200);
    let mut notes = BTreeSet::new();
    for client in &mut clients {
        let note = client.event();
        assert_eq!(note.path, "/note");
        notes.insert(note.data.parse::<usize>().unwrap());
        assert_eq!(client.event().data, "true");
    }
    assert_eq!(notes, (0..ids.len()).collect());
    for id in &ids {
        let off = format!(r#"{{"client":"{id}","path":"/relay/of-back-end"}}"#);
        assert_eq!(json(&server, WRITER, "POST", "/off", &off)["clients"], 1);
        let close = format!(r#"{{"client":"{id}","reason":"maintenance at 3"}}"#);
        assert_eq!(json(&server, WRITER, "POST", "/close", &close)["clients"], 1);
    }
    for client in &mut clients {
        assert_eq!(client.ended(), Ended::Close(1000, "maintenance at 3".into()));
    }
    assert_eq!(json(&server, READER, "GET", "/paths", "")["paths"], json!([]));
    let nobody = r#"{"user":"nobody","path":"/note"}"#;
    assert_eq!(json(&server, WRITER, "POST", "/send", nobody), json!({"clients": 0}));
}

#[test]
fn kept_events_are_read() {
    let files = ApiFiles::new("history");
    files.append_settings("[[rules]]\npath = '/relay/kept/*'\nhistory = 3\n");
    let (server, _files) = files.start(&[]);
    // Paths of all shards.
    for path in ["a", "b", "c", "d"].map(|name| format!("/relay/kept/{name}")) {
        let lines: Vec<String> = (1..=4).map(|number| format!("{path}:0={{\"n\": {number}}}")).collect();
        assert_eq!(broadcast(&server, &lines.join("\n")).head.status, 200);
        let page = json(&server, READER, "GET", &format!("/history?path={path}&limit=2"), "");
        assert_eq!(page["events"], json!([[3, {"n": 3}], [4, {"n": 4}]]));
        let (epoch, _) = page["at"].as_str().unwrap().split_once('.').unwrap();
        assert_eq!(page["at"], format!("{epoch}.4"));
        let earlier = json(&server, READER, "GET", &format!("/history?path={path}&before={epoch}.3"), "");
        assert_eq!(earlier["events"], json!([[2, {"n": 2}]]), "the first event is kept no more");
        // A client goes on behind the page.
        let mut client = server.websocket();
        let on = format!(r#"["{path}",null,{{"since":"{epoch}.3"}}]"#);
        let answer = client.request_code("/qio/on", &on, 200);
        assert_eq!(answer.body["data"], json!({"at": format!("{epoch}.4"), "events": 1, "complete": true}));
        assert_eq!(client.event().path, format!("/qio/at/4{path}"));
    }
    let stats = server.stats();
    let of_rule = |name: &str| stats.0["rules"]["/relay/kept/*"][name].as_u64().unwrap();
    assert_eq!(of_rule("rule_history_events"), 12, "three of each path");
    assert_eq!(of_rule("rule_history_bytes"), stats.value("history_bytes"));
    let metrics = server.admin_request("GET", "/metrics").body;
    assert!(metrics.contains("quickio_rule_history_events{rule=\"/relay/kept/*\",shard=\"0\"}"), "{metrics}");
    let response = request(&server, READER, "GET", "/history?path=/relay/other", "text/plain", "");
    assert_eq!(response.head.status, 404, "{response:?}");
    let response = request(&server, WRITER, "GET", "/history?path=/relay/kept/a", "text/plain", "");
    assert_eq!(response.head.status, 403, "{response:?}");
}

/// Runs an example of a back end, which broadcasts one event to `/relay/news`. scripts/test.sh installs the interpreters.
#[track_caller]
fn example(program: &[&str], file: &str, from: &str) {
    let (server, files) = ApiFiles::new(file).start(&[]);
    let mut client = server.websocket();
    client.subscribe("/relay/news");
    let example = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/back-ends").join(file);
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).arg(example).stderr(Stdio::inherit());
    command.env("API", format!("http://{}", server.api())).env("KEY_FILE", files.path("writer"));
    // What Go compiles.
    command.env("GOCACHE", files.path("cache")).env("GOFLAGS", "-mod=mod");
    let output = command.output().unwrap_or_else(|error| panic!("{} does not run: {error}", program[0]));
    assert!(output.status.success(), "{file}: {output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "{\"accepted\":1}\n");
    let data: Value = serde_json::from_str(&client.event().data).unwrap();
    assert_eq!(data, json!({"from": from}));
}

#[test]
fn a_back_end_in_curl() {
    example(&["sh"], "broadcast.sh", "curl");
}

#[test]
fn a_back_end_in_python() {
    example(&["python3"], "broadcast.py", "Python");
}

#[test]
fn a_back_end_in_php() {
    example(&["php"], "broadcast.php", "PHP");
}

#[test]
fn a_back_end_in_ruby() {
    example(&["ruby"], "broadcast.rb", "Ruby");
}

#[test]
fn a_back_end_in_go() {
    example(&["go", "run"], "broadcast.go", "Go");
}

#[test]
fn a_back_end_in_node() {
    example(&["node"], "broadcast.mjs", "Node");
}

/// The request may be repeated while its memory is taken, and nothing of it is done before.
#[test]
fn memory_that_requests_take_is_given_back() {
    let (server, _files) =
        ApiFiles::new("memory").start(&["--api-bytes-max", "64Ki", "--api-body-bytes-max", "16Ki"]);
    let body = format!("/relay/a:0=\"{}\"\n", "x".repeat(1000)).repeat(15);
    for _ in 0..50 {
        assert!([200, 503].contains(&broadcast(&server, &body).head.status));
        // The events of a request that was accepted are handled sooner or later.
        while broadcast(&server, &body).head.status == 503 {}
    }
    assert_eq!(broadcast(&server, &body.repeat(2)).head.status, 413);
}

#[test]
fn the_api_takes_tls() {
    let authority = Authority::new();
    let [certificate, key] = authority.issue("server", &["localhost"]);
    let tls = ["--api", "tls://127.0.0.1:0", "--tls-cert", &certificate, "--tls-key", &key];
    let (server, _files) = ApiFiles::new("tls").start(&tls);
    let mut stream = connect(server.api(), &authority.client(), "localhost").unwrap();
    let head = format!("POST /broadcast HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {WRITER}\r\n");
    write!(
        stream,
        "{head}Content-Type: text/plain\r\nContent-Length: 12\r\nConnection: close\r\n\r\n/relay/a:0=1"
    )
    .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.ends_with("\r\n\r\n{\"accepted\":1}\n"), "{response}");
    let plain = http::exchange(server.api().strip_prefix("tls://").unwrap(), format!("{head}\r\n"));
    assert_eq!(plain.head.status, 400);
    assert!(plain.body.contains("this port speaks TLS: use https://"), "{plain:?}");
}
