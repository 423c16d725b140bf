//! The settings, commands and requests in docs/: they do what the text says, with addresses and files of the test.

use crate::folder::{Folder, blocks, document};
use crate::support::tls::Authority;
use crate::support::{Conversation, Server};
use crate::{quickio, run};
use serde_json::Value;

/// Returns the part of a document that begins with this heading.
fn section<'t>(text: &'t str, heading: &str) -> &'t str {
    let rest = text.split(&format!("\n{heading}\n")).nth(1).unwrap_or_else(|| panic!("no section {heading}"));
    let level = heading.split(' ').next().unwrap();
    rest.split(&format!("\n{level} ")).next().unwrap()
}

/// Returns the code between backquotes in the first column of a row of a table, and the whole row.
fn rows<'t>(section: &'t str, first: &'t str) -> impl Iterator<Item = &'t str> {
    let prefix = format!("| `{first}");
    section.lines().filter(move |line| line.starts_with(&prefix))
}

/// Returns the texts between backquotes in a line.
fn quoted(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// Starts the server of docs/server-api.md, whose key has all scopes.
fn api_server(guide: &str, folder: &Folder) -> Server {
    let [secret, start, ..] = blocks(section(guide, "## Switching it on"), "sh")[..] else {
        panic!("the commands that make the secret and start the server")
    };
    assert!(start.starts_with("quickio --config quickio.toml\n"), "{start}");
    folder.printed(&secret.replace("/etc/quickio/", &folder.path("")));
    let [settings] = blocks(section(guide, "## Switching it on"), "toml")[..] else { panic!("the settings") };
    let all = r#"["broadcast", "send", "clients", "read"]"#;
    let settings = settings
        .replace("/etc/quickio/", &folder.path(""))
        .replace("127.0.0.1:8090", "127.0.0.1:0")
        .replace(r#"["broadcast"]"#, all);
    assert!(settings.contains(all));
    Server::start(&["--config", &folder.write("quickio.toml", settings)])
}

/// Runs `curl` with these arguments of a shell, and the key of docs/server-api.md. Returns the answer.
#[track_caller]
fn curl(folder: &Folder, arguments: &str) -> Value {
    let flags = "-sS --fail-with-body -H \"Authorization: Bearer $(cat shop.key)\"";
    let answer = folder.printed(&format!("curl {flags} {arguments}"));
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{arguments}: {answer}: {error}"))
}

#[test]
fn the_requests_of_the_server_api_work() {
    let (guide, folder) = (document("docs/server-api.md"), Folder::new());
    let server = api_server(&guide, &folder);
    let url = format!("http://{}", server.api());
    let mut client = server.websocket();
    client.subscribe("/relay/news");

    let switching_on = section(&guide, "## Switching it on");
    let request = blocks(switching_on, "sh")[1].split_once('\n').unwrap().1;
    let request = request.replace("http://127.0.0.1:8090", &url).replace("/etc/quickio/", &folder.path(""));
    assert_eq!(folder.printed(&request).trim(), blocks(switching_on, "json")[0].trim());
    assert_eq!(client.event().data, "{\"title\":\"It works\"}");

    let broadcasts = section(&guide, "## Broadcasts");
    for (kind, body) in
        [("text/plain", blocks(broadcasts, "text")[0]), ("application/json", blocks(broadcasts, "json")[0])]
    {
        folder.write("body", body);
        let answer = curl(&folder, &format!("{url}/broadcast -H 'Content-Type: {kind}' --data-binary @body"));
        assert_eq!(answer["accepted"], 2, "{kind}: {answer}");
    }

    for row in rows(section(&guide, "## Clients and users"), "POST ") {
        let [path, body, ..] = quoted(row)[..] else { panic!("a path and a body: {row}") };
        folder.write("body", body);
        let path = path.strip_prefix("POST ").unwrap();
        let answer = curl(&folder, &format!("{url}{path} -H 'Content-Type: application/json' -d @body"));
        assert_eq!(answer["clients"], 0, "nobody has the user or the id of the example: {row}");
    }
    for row in rows(section(&guide, "## Lists"), "GET ") {
        let [path, answer, ..] = quoted(row)[..] else { panic!("a path and an answer: {row}") };
        let path = path.strip_prefix("GET ").unwrap();
        let promised: Value = serde_json::from_str(answer).expect("the answer is JSON");
        let got = curl(&folder, &format!("'{url}{path}'"));
        assert_eq!(keys(&got), keys(&promised), "{path}");
        // Without the filter there is one: the client of this test, and its path.
        let got = curl(&folder, &format!("'{url}{}'", path.split('?').next().unwrap()));
        for list in ["paths", "clients"].iter().filter(|list| got[**list].is_array()) {
            assert_eq!(keys(&got[*list][0]), keys(&promised[*list][0]), "{path}");
        }
    }

    let [repeated] = blocks(section(&guide, "## Repeating a request"), "sh")[..] else { panic!("a request") };
    let arguments = repeated.trim().strip_prefix("curl ... ").expect("a request that is cut short");
    for _ in 0..2 {
        let answer = curl(&folder, &format!("{url}/broadcast -H 'Content-Type: text/plain' {arguments}"));
        assert_eq!(answer["accepted"], 1);
    }
    server.eventually_is("api_replayed", 1);
}

fn keys(value: &Value) -> Vec<&String> {
    value.as_object().map(|object| object.keys().collect()).unwrap_or_default()
}

#[test]
fn the_settings_of_the_documents_are_valid() {
    let (folder, files) = (Folder::new(), Authority::new());
    let [cert, key] = files.issue("server", &["example.com"]);
    let secret = folder.write("secret", "a secret of more than thirty-two bytes");
    let replaced = |settings: &str| {
        let mut settings = settings
            .replace("/etc/quickio/chain.pem", &cert)
            .replace("/etc/quickio/key.pem", &key)
            .replace("0.0.0.0:443", "127.0.0.1:0");
        for file in ["shop.key", "webhook.key", "auth.secret"] {
            settings = settings.replace(&format!("/etc/quickio/{file}"), &secret);
        }
        settings
    };
    let operations = document("docs/operations.md");
    let identity = blocks(section(&operations, "## Identity"), "toml");
    let rules = blocks(section(&operations, "## Who may do what"), "toml");
    let [own, provider] = identity[..] else { panic!("settings for an own back end and for a provider") };
    for settings in [
        blocks(&document("docs/security.md"), "toml")[0],
        blocks(&document("docs/webhooks.md"), "toml")[0],
        blocks(&document("docs/server-api.md"), "toml")[0],
        &format!("{own}{}", rules[0]),
        provider,
    ] {
        let file = folder.write("quickio.toml", replaced(settings));
        let mut check = quickio(&["check", "--config", &file, "--admin", "off", "--api", "off"]);
        if !settings.contains("listen") {
            check.args(["--listen", "127.0.0.1:0"]);
        }
        let end = run(check, "");
        assert_eq!(end.code, Some(0), "{settings}: {}{}", end.stdout, end.stderr);
    }
}

#[test]
fn explain_prints_what_the_document_shows() {
    let (operations, folder) = (document("docs/operations.md"), Folder::new());
    let section = section(&operations, "## Who may do what");
    let shown = blocks(section, "text").into_iter().find(|block| block.contains("quickio explain"));
    let (command, shown) = shown.expect("the output of explain").split_once('\n').unwrap();
    folder.write("quickio.toml", blocks(section, "toml")[0]);
    let command = command.strip_prefix("$ ").unwrap().replace("/etc/quickio/", "");
    // The lines of the rules depend on what else is in the file.
    let without_line = |text: &str| -> String {
        text.lines().map(|line| line.split(" (line ").next().unwrap().to_owned() + "\n").collect()
    };
    assert_eq!(without_line(&folder.printed(&command)), without_line(shown));
}
