//! The example of a vote in languages without a QuickIO library: `examples/votes.pas` uses only `quickio.h`, and
//! `examples/votes.pl` only docs/workers.md. Both pass the same test.

#[path = "support/cc.rs"]
#[allow(dead_code, reason = "other tests need the rest")]
mod cc;
#[allow(dead_code, unused_imports, reason = "other tests need the rest")]
mod support;

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Client, Conversation, Server, Transport};

fn in_pascal() -> Option<PathBuf> {
    if Command::new("fpc").arg("-iV").output().is_err() {
        eprintln!("**** SKIPPED: there is no Free Pascal (fp-compiler) on this machine ****");
        return None;
    }
    let folder = cc::temporary(&format!("pascal-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let shared = folder.join("votes.so");
    let mut command = Command::new("fpc");
    command.args(["-Cg", "-O2", "-Cr", "-Co", "-vew"]);
    command.arg(format!("-FU{}", folder.display())).arg(format!("-FE{}", folder.display())).arg("-ovotes.so");
    cc::run(command.arg(cc::in_tree("examples/votes.pas")));
    Some(shared)
}

#[test]
fn a_vote_in_pascal() {
    if let Some(votes) = in_pascal() {
        everybody_votes(&votes);
    }
}

#[test]
fn a_vote_in_perl() {
    everybody_votes(&cc::in_tree("examples/votes.pl"));
}

fn data(client: &mut Client, path: &str, data: &str) -> Value {
    client.request_code(path, data, 200).body["data"].clone()
}

fn everybody_votes(app: &Path) {
    let mut server = Server::start(&["--app", app.to_str().unwrap()]);
    let mut clients = server.spread(6);
    clients.push(server.client(Transport::Raw));
    clients.iter_mut().for_each(|client| client.subscribe("/votes/changed"));
    let count = clients.len();
    for (nth, client) in clients.iter_mut().enumerate() {
        client.request_code("/votes/cast", "\"perhaps\"", 400);
        let vote = if nth % 3 == 0 { "\"no\"" } else { "\"yes\"" };
        let tally = data(client, "/votes/cast", vote);
        assert_eq!(tally["yes"].as_u64().unwrap() + tally["no"].as_u64().unwrap(), nth as u64 + 1);
        let refused = client.request_code("/votes/cast", vote, 403);
        assert_eq!(refused.body["err_msg"], "one vote each");
    }
    let no = count.div_ceil(3);
    let tally = json!({"yes": count - no, "no": no});
    for client in &mut clients {
        assert_eq!(data(client, "/votes/tally", ""), tally);
        // The broadcasts of different shards can arrive in any order.
        let mut totals: Vec<u64> = (0..count)
            .map(|_| {
                let event = client.event();
                assert_eq!(event.path, "/votes/changed");
                let tally: Value = serde_json::from_str(&event.data).unwrap();
                tally["yes"].as_u64().unwrap() + tally["no"].as_u64().unwrap()
            })
            .collect();
        totals.sort_unstable();
        assert_eq!(totals, (1..=count as u64).collect::<Vec<_>>());
    }
    drop(clients);
    server.signal("TERM");
    assert_eq!(server.exit().code(), Some(0));
}
