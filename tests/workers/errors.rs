//! Errors of applications: one record of the log for each, and statistics for each application.

use super::support::{Conversation, Server};
use super::{Folder, eventually, wait_for_log};
use serde_json::{Value, json};
use std::fs;

const PYTHON: &str = r#"
from quickio import Refusal, app

def inner():
    raise ValueError("two\nlines")

@app.event("/fail")
async def fail(event):
    inner()

@app.event("/fail-in-thread")
def fail_in_thread(event):
    inner()

@app.event("/busy")
async def busy(event):
    raise Refusal(420)
"#;

const NODE: &str = r#"
import { app, Refusal } from 'quickio'

const inner = () => { throw new Error('two\nlines') }
app.event('/fail', () => inner())
app.event('/fail-in-thread', async () => inner())
app.event('/busy', () => { throw new Refusal(420) })
"#;

fn start(folder: &Folder, name: &str, text: &str, format: &str) -> Server {
    let file = folder.file(name);
    fs::write(&file, text).unwrap();
    Server::start(&["--app", &file, "--log-format", format])
}

/// Returns the statistics of an application.
fn statistics(server: &Server, app: &str) -> Value {
    server.stats().0["apps"][app].clone()
}

#[test]
fn an_error_of_a_handler_is_one_record_and_counted() {
    for (name, text, function) in [("errors.py", PYTHON, "in inner"), ("errors.mjs", NODE, "at inner")] {
        let folder = Folder::new();
        let server = start(&folder, name, text, "json");
        let mut client = server.websocket();
        client.request_code("/fail", "", 500);
        client.request_code("/fail-in-thread", "", 500);
        client.tell("/fail", "");
        client.request_code("/busy", "", 420);
        client.request_code("/busy", "", 420);
        let log = wait_for_log(&server, "error in ", 3);
        let records: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let errors: Vec<&Value> = records.iter().filter(|record| record["level"] == "ERROR").collect();
        assert_eq!(errors.len(), 3, "{log}");
        for error in errors {
            assert_eq!(error["worker"], "errors#0");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("two\nlines") && message.contains(function), "{message}");
        }
        assert!(records.iter().all(|record| record["level"] != "WARN"), "{log}");
        server.eventually("counted", |stats| {
            let counters = &stats.0["apps"]["errors"]["counters"];
            *counters
                == json!({
                    "app_errors": 3,
                    "app_events": 5,
                    "app_failures": 3,
                    "app_promises_refused": 0,
                    "app_refusals": 2,
                })
        });
        let answers = &statistics(&server, "errors")["timers"]["app_answer"];
        assert_eq!(answers["count"], 5, "each request that the worker has ended");
        assert!(answers["max"].as_f64() > Some(0.0));
        assert_eq!(statistics(&server, "relay")["counters"]["app_events"], 0);
        let metrics = server.admin_request("GET", "/metrics").body;
        assert!(metrics.contains("quickio_app_failures_total{app=\"errors\",shard=\"0\"} "), "{metrics}");
    }
}

#[test]
fn an_error_cannot_be_taken_for_several_records_in_the_text_format() {
    for (name, text) in [("errors.py", PYTHON), ("errors.mjs", NODE)] {
        let folder = Folder::new();
        let server = start(&folder, name, text, "text");
        server.websocket().request_code("/fail", "", 500);
        let log = wait_for_log(&server, "error in ", 1);
        assert!(log.lines().any(|line| line.contains("error in ") && line.contains("ERROR")), "{log}");
        // The reader of the log gets it line by line.
        eventually("the whole record", || {
            let log = server.log_with("error in ");
            let lines = log.lines().skip_while(|line| !line.contains("error in ")).skip(1);
            let rest: Vec<&str> = lines.take_while(|line| line.starts_with("    | ")).collect();
            let is_whole = rest.iter().any(|line| line.starts_with("    | lines"));
            (is_whole && rest.iter().any(|line| line.contains("inner"))).then_some(())
        });
    }
}

/// Requests that no worker answers are failures of the application too.
#[test]
fn events_without_a_worker_are_failures() {
    let server = super::start(json!({}), &[]);
    let mut client = server.websocket();
    let worker = super::pid(&mut client);
    super::ask(&mut client, &json!([["hold", {"name": "a"}]]));
    client.ping();
    super::signal(worker, "KILL");
    wait_for_log(&server, "again_in=100ms", 1);
    client.request_code("/raw", "1", 500);
    assert_eq!(statistics(&server, "raw")["counters"]["app_failures"], 2);
}
