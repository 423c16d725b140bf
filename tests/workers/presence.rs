//! News for a new worker of clients that it has never seen: a list of those present, which an application keeps in a
//! store, must not keep clients that left while their worker was replaced or down.

use super::support::{Conversation, Server};
use super::{Client, Folder, MS, signal, wait_for_end, wait_for_links, wait_for_log};
use std::fs;

/// Applications that log who arrives and who leaves, with the process that was told. The path is read again after each
/// reload.
const PYTHON: &str = r#"
import os
from quickio import app

def log(what, client):
    app.log("info", f"{what} {client.id} of {os.getpid()} with {client.data.get('seen')}")

@app.event("/room", children=True)
async def room(event):
    return os.getpid()

@room.on
async def on(subscription):
    subscription.client.data["seen"] = True
    log("on", subscription.client)
    return True

@room.off
async def off(unsubscribed):
    app.log("info", f"off {unsubscribed.client.id} of {os.getpid()}")

@app.gone
async def gone(client):
    log("gone", client)
"#;

const NODE: &str = r#"
import { app } from 'quickio'

const log = (what, client) => app.log('info', `${what} ${client.id} of ${process.pid} with ${client.data.seen}`)

app
  .event('/room', { children: true }, () => process.pid)
  .on(({ client }) => {
    client.data.seen = true
    log('on', client)
    return true
  })
  .off(({ client }) => app.log('info', `off ${client.id} of ${process.pid}`))

app.gone((client) => log('gone', client))
"#;

fn pid(client: &mut Client) -> u32 {
    client.request_code("/room", "", 200).body["data"].as_u64().unwrap() as u32
}

/// Subscribes, and returns the client's name in the log.
fn join(server: &Server, client: &mut Client, nth: usize) -> String {
    client.request_code("/qio/on", r#""/room/a""#, 200);
    let log = wait_for_log(server, ": on ", nth);
    let of_on = log.lines().filter_map(|line| line.split_once(": on ")).next_back();
    of_on.unwrap().1.split_once(' ').unwrap().0.to_owned()
}

/// A client that leaves while its worker is down, and one that leaves after a reload, are reported to the next worker:
/// the end of the subscription and the end of the client, once each and in this order.
fn check(name: &str, text: &str) {
    let folder = Folder::new();
    let file = folder.file(name);
    fs::write(&file, text).unwrap();
    let server =
        Server::start_with_clock(&["--app", &file, "--worker-timeout", "24h", "--log-level", "info"]);
    let (mut after_reload, mut while_down, mut stays) =
        (server.websocket(), server.websocket(), server.websocket());
    let before = pid(&mut stays);
    let first = join(&server, &mut after_reload, 1);
    server.signal("HUP");
    wait_for_end(before);
    let second = join(&server, &mut while_down, 2);
    let replaced = pid(&mut stays);
    after_reload.reset();
    wait_for_log(&server, &format!("gone {first}"), 1);
    signal(replaced, "KILL");
    wait_for_log(&server, "again_in=100ms", 1);
    while_down.reset();
    server.eventually_is("clients", 1);
    server.advance(MS(100));
    wait_for_links(&server, 1);
    let last = pid(&mut stays);
    let log = wait_for_log(&server, &format!("gone {second}"), 1);
    let nothing = if name.ends_with(".py") { "None" } else { "undefined" };
    for (client, process) in [(&first, replaced), (&second, last)] {
        let told: Vec<&str> = log
            .lines()
            .filter_map(|line| line.split_once(": off ").or_else(|| line.split_once(": gone ")))
            .map(|(_, rest)| rest.split(" worker=").next().unwrap())
            .filter(|rest| rest.starts_with(&format!("{client} ")))
            .collect();
        let gone = format!("{client} of {process} with {nothing}");
        assert_eq!(told, [format!("{client} of {process}"), gone], "{log}");
    }
    assert_eq!(server.stats().value("worker_ends_dropped"), 0);
}

#[test]
fn a_new_worker_in_python_is_told_who_has_left() {
    check("present.py", PYTHON);
}

#[test]
fn a_new_worker_in_javascript_is_told_who_has_left() {
    check("present.mjs", NODE);
}
