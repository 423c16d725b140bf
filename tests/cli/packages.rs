//! What is installed beside the server: the Debian package, and the dashboard.

use crate::support::server::BINARY;
use crate::support::{Conversation, Server};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Command;

const SKIPPED: i32 = 77;

#[test]
fn the_debian_package_is_installed_started_upgraded_and_removed() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/deb.sh");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = Command::new("bash").args([script, BINARY, &port.to_string()]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    match output.status.code() {
        Some(SKIPPED) => eprintln!("**** SKIPPED: {text} ****"),
        code => assert_eq!(code, Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Returns the queries below a value.
fn queries<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| match value {
            Value::String(query) if name == "expr" || name == "query" => found.push(query),
            value => queries(value, found),
        }),
        Value::Array(values) => values.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

#[test]
fn every_metric_and_label_of_the_dashboard_exists() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/grafana.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    queries(&dashboard, &mut found);
    assert!(found.len() > 40, "{found:?}");
    let server = Server::start(&[]);
    // Latencies have percentiles as soon as there are any.
    let mut client = server.websocket();
    client.subscribe("/relay/a");
    client.request_code("/relay/a", "1", 200);
    server.eventually("a delivery was measured", |stats| stats.timer("delivery")["count"] != 0);
    let page = server.admin_request("GET", "/metrics").body;
    let samples: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
    let names: BTreeSet<&str> = samples.iter().map(|line| line.split(['{', ' ']).next().unwrap()).collect();
    for query in found {
        for word in query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            assert!(!word.starts_with("quickio_") || names.contains(word), "{word} in {query}");
        }
        // The labels beside `instance`, which Prometheus adds.
        if let Some((_, quantile)) = query.split_once("quantile=\"") {
            let name = query.split(['(', '{']).find(|word| word.starts_with("quickio_")).unwrap();
            let label = format!("quantile=\"{}\"", quantile.split('"').next().unwrap());
            let has = samples.iter().any(|line| line.starts_with(name) && line.contains(&label));
            assert!(has, "no sample of {name} has {label}");
        }
    }
    for label in ["shard=\"", "mode=\""] {
        assert!(samples.iter().any(|line| line.contains(label)), "{label}");
    }
}
