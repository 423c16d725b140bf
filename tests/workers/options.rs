//! On-hooks of Python and JavaScript see the options of a subscription.

use super::Folder;
use super::support::{Conversation, Server};
use serde_json::json;
use std::fs;

/// Applications that permit a client to ask for two events, and broadcast what their on-hook sees.
const PYTHON: &str = r#"
from quickio import app

@app.event("/room", children=True)
async def room(event):
    app.broadcast(event.full_path, event.json)

@room.on
def on(subscription):
    app.send(subscription.client, "/options", subscription.options)
    return (subscription.options or {}).get("history", 0) <= 2
"#;

const NODE: &str = r#"
import { app } from 'quickio'

app
  .event('/room', { children: true }, (event) => app.broadcast(event.fullPath, event.json))
  .on(({ client, options }) => {
    app.send(client, '/options', options)
    return (options?.history ?? 0) <= 2
  })
"#;

fn check(name: &str, text: &str) {
    let folder = Folder::new();
    let (file, settings) = (folder.file(name), folder.file("quickio.toml"));
    fs::write(&file, text).unwrap();
    fs::write(&settings, "[[rules]]\npath = '/room/*'\nhistory = 10\n").unwrap();

    let server = Server::start(&["--app", &file, "--config", &settings]);
    let mut client = server.websocket();
    client.subscribe("/room/a");
    assert_eq!(client.event().data, "null");
    for number in 1..=3 {
        client.request_code("/room/a", &number.to_string(), 200);
        assert_eq!(client.event().data, number.to_string());
    }

    let mut client = server.websocket();
    // A line end between the tokens does not harm.
    client.request_code("/qio/on", "[\"/room/a\",null,{\"history\":\n3}]", 404);
    assert_eq!(client.event().data, r#"{"history":3}"#);
    let answer = client.request_code("/qio/on", r#"["/room/a",null,{"history":2}]"#, 200);
    let at = answer.body["data"]["at"].as_str().unwrap().to_owned();
    assert_eq!(answer.body["data"], json!({"at": at, "events": 2, "complete": true}));
    assert_eq!(client.event().data, r#"{"history":2}"#);
    for number in 2..=3 {
        let event = client.event();
        assert_eq!((event.path, event.data), (format!("/qio/at/{number}/room/a"), number.to_string()));
    }
}

#[test]
fn on_hooks_in_python_see_the_options() {
    check("chat.py", PYTHON);
}

#[test]
fn on_hooks_in_javascript_see_the_options() {
    check("chat.mjs", NODE);
}
