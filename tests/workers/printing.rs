//! The output and the log lines of a worker appear in the server's log, line by line and limited.

use super::support::{Conversation, Server};
use super::{Folder, MS, ask, execute, pid, signal, start, tell, wait_for_log};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

/// Returns the lines of a log that contain a text.
fn lines<'a>(log: &'a str, text: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains(text)).collect()
}

#[test]
fn lines_are_logged_with_the_workers_name() {
    let server = start(json!({}), &["--app", &format!("{},instances=2", super::RAW)]);
    let mut clients = server.spread(8);
    for client in &mut clients {
        let instance = super::describe(client)["hello"]["instance"].clone();
        execute(
            client,
            json!([
                ["print", {"text": format!("out of {instance}")}],
                ["print", {"to": "stderr", "text": format!("err of {instance}")}],
            ]),
        );
    }
    for (words, level) in [("out of", " INFO "), ("err of", " WARN ")] {
        for instance in [0, 1] {
            let words = format!("{words} {instance}");
            let log = wait_for_log(&server, &words, 1);
            let found = lines(&log, &words)[0];
            assert!(
                found.contains(level) && found.contains(&format!("worker=\"raw#{instance}\"")),
                "{found}"
            );
        }
    }
}

#[test]
fn output_of_any_form_is_logged() {
    let server = start(json!({}), &[]);
    let mut client = server.websocket();
    execute(
        &mut client,
        json!([
            ["print", {"text": "in", "end": ""}],
            ["print", {"text": " two pieces"}],
            ["print", {"text": "with a return\r"}],
            ["print", {"bytes": "no \u{ff} UTF-8"}],
            ["print", {"text": "\u{1b}[31mred"}],
            ["print", {"text": "never ended", "end": ""}],
            ["print", {"to": "stderr", "text": "nor this", "end": ""}],
        ]),
    );
    let log = wait_for_log(&server, "[31mred", 1);
    for words in [": in two pieces worker=", ": with a return worker=", ": no \\xff UTF-8 worker="] {
        assert!(log.contains(words), "no {words:?} in {log}");
    }
    assert!(!log.contains("\u{1b}[31m"), "control characters are escaped");
    assert!(!log.contains("never ended"));
    signal(pid(&mut client), "KILL");
    let log = wait_for_log(&server, "again_in", 1);
    let crash = lines(&log, "again_in")[0];
    for words in ["never ended", "nor this", "in two pieces"] {
        assert!(log.contains(&format!(": {words} worker=")), "no {words:?} in {log}");
        assert!(crash.contains(words), "no {words:?} in {crash}");
    }
}

#[test]
fn a_line_of_a_megabyte_is_cut() {
    let server = start(json!({}), &[]);
    let mut client = server.websocket();
    execute(
        &mut client,
        json!([["print", {"text": "0123456789", "times": 100_000}], ["print", {"text": "the next"}]]),
    );
    let log = wait_for_log(&server, "the next", 1);
    let long = lines(&log, "0123456789");
    assert_eq!(long.len(), 1);
    assert!(long[0].len() > 8192 && long[0].len() < 8500, "{} bytes", long[0].len());
}

#[test]
fn a_flood_of_lines_is_limited_and_counted() {
    const LINES: u64 = 1_000_000;
    let server = start(json!({}), &[]);
    let mut client = server.websocket();
    let mut other = server.websocket();
    other.subscribe("/relay/room");
    let flood = ask(
        &mut client,
        &json!([["flood", {"lines": LINES}], ["print", {"text": "the end"}], ["answer", {}]]),
    );
    server.eventually_is("worker_requests", 1);
    let mut served = 0;
    while server.stats().value("worker_requests") > 0 {
        other.request_code("/relay/room", "1", 200);
        other.event();
        served += 1;
    }
    assert!(served > 0);
    assert_eq!(client.answer(flood).code(), 200);
    let passed =
        |log: &str| lines(log, &"x".repeat(99)).len() as u64 + lines(log, ": the end worker=").len() as u64;
    // The log accepts a thousand lines each second.
    super::eventually("all lines accounted for", || {
        let dropped = server.stats().value("worker_lines_dropped");
        (passed(&server.log_with("")) + dropped == LINES + 1).then_some(())
    });
    assert!(server.stats().value("worker_lines_dropped") > LINES / 2);
    // The last lines are kept for the message of a crash.
    signal(pid(&mut client), "KILL");
    let log = wait_for_log(&server, "again_in", 1);
    assert!(lines(&log, "again_in")[0].contains("xxx | the end"), "{:?}", lines(&log, "again_in"));
    server.advance(MS(100));
    super::wait_for_links(&server, 1);
    execute(&mut client, json!([]));
}

/// A worker must not block in a write because the server drops its lines. Each stream has a pipe of its own.
#[test]
fn floods_on_both_streams_do_not_block_the_worker() {
    let server = start(json!({}), &[]);
    let mut client = server.websocket();
    for to in ["stdout", "stderr"] {
        execute(&mut client, json!([["flood", {"to": to, "lines": 100_000}]]));
    }
    execute(&mut client, json!([["log", {"level": "info", "text": "by the socket", "times": 3000}]]));
    server.eventually("dropped lines", |stats| stats.value("worker_lines_dropped") > 30_000);
    super::eventually("a line of a later second", || {
        execute(&mut client, json!([["print", {"text": "much later"}]]));
        server.log_with("").contains("much later").then_some(())
    });
    wait_for_log(&server, "the worker printed too much", 1);
}

#[test]
fn a_worker_logs_at_every_level() {
    let levels = ["error", "warn", "info", "debug", "trace"];
    for least in ["trace", "info"] {
        let server = start(json!({}), &["--log-level", least]);
        let mut client = server.websocket();
        let mut steps: Vec<Value> = levels
            .iter()
            .map(|level| json!(["log", {"level": level, "text": format!("of level {level}")}]))
            .collect();
        steps.push(json!(["log", {"level": "error", "text": "the last"}]));
        execute(&mut client, Value::Array(steps));
        let log = wait_for_log(&server, "the last", 1);
        for (nth, level) in levels.iter().enumerate() {
            let found = lines(&log, &format!("of level {level}"));
            assert_eq!(found.len(), usize::from(least == "trace" || nth < 3), "{level} of {least}");
            for line in found {
                let level = level.to_uppercase();
                assert!(line.contains(&level) && line.contains("worker=\"raw#0\""), "{line}");
            }
        }
    }
}

#[test]
fn a_log_in_json_names_the_worker() {
    let server = start(json!({}), &["--log-format", "json"]);
    let mut client = server.websocket();
    execute(
        &mut client,
        json!([["print", {"text": "printed \"so\""}], ["log", {"level": "warn", "text": "logged so"}]]),
    );
    for (words, level, message) in [("printed", "INFO", "printed \"so\""), ("logged", "WARN", "logged so")] {
        let log = wait_for_log(&server, words, 1);
        let line: Value = serde_json::from_str(lines(&log, words)[0]).unwrap();
        assert_eq!((&line["worker"], &line["level"]), (&json!("raw#0"), &json!(level)));
        assert_eq!(line["message"], message);
    }
}

#[test]
fn output_before_a_crash_is_logged() {
    let server = start(json!({}), &[]);
    let mut client = server.websocket();
    // As many lines as a pipe holds, immediately before the exit.
    tell(
        &mut client,
        json!([["print", {"text": "0123456789".repeat(10), "times": 1}], ["flood", {"lines": 500}],
        ["print", {"to": "stderr", "text": "Traceback: the last line"}], ["exit", {"code": 1}]]),
    );
    let log = wait_for_log(&server, "again_in", 1);
    assert!(log.contains(": Traceback: the last line worker="), "{log}");
    assert!(lines(&log, "again_in")[0].contains("Traceback: the last line"), "{log}");
    assert_eq!(lines(&log, "process: xxxxxxxxxx").len(), 500);
}

/// The end of a worker does not overtake its control lines.
#[test]
fn control_lines_before_an_exit_are_logged() {
    let server = start(json!({}), &[]);
    let mut client = server.websocket();
    let worker = pid(&mut client);
    let text = format!("the last line{}", "x".repeat(150_000));
    let text = json!({"log": "info", "text": text}).to_string();
    let folder = super::Folder::new();
    std::fs::write(folder.file("line"), text).unwrap();
    tell(
        &mut client,
        json!([["sleep", {"ms": 300}], ["control_file", {"file": folder.file("line")}], ["exit", {}]]),
    );
    client.ping();
    // The server is stopped until both the line and the end have arrived.
    signal(server.pid(), "STOP");
    super::wait_for_end(worker);
    signal(server.pid(), "CONT");
    let log = wait_for_log(&server, "again_in", 1);
    assert!(log.contains("the last line"), "the line is missing");
}

/// Halves of surrogate pairs, NUL and control characters arrive from clients, are printed and logged, and are sent on.
#[test]
fn no_text_of_a_client_ends_a_worker() {
    const PYTHON: &str = r#"
import json, logging
from quickio import app

@app.event("/say")
def say(event):
    text = json.loads(event.json.text)
    print(text)
    logging.error("%s", text)
    app.log("info", "logged " + text)
    app.broadcast("/other", text)
    return text

@app.event("/ok")
def ok(event):
    return "ok"
"#;
    const JAVASCRIPT: &str = r#"
import { app } from 'quickio'
app.event('/say', ({ data }) => {
  console.log(data)
  console.error('%s', data)
  app.log('info', `logged ${data}`)
  app.broadcast('/other', data)
  return data
})
app.event('/ok', () => 'ok')
"#;
    for (file, text, program) in [("say.py", PYTHON, "python3"), ("say.mjs", JAVASCRIPT, "node")] {
        if Command::new(program).arg("--version").output().is_err() {
            eprintln!("**** SKIPPED: there is no {program} here ****");
            continue;
        }
        let folder = Folder::new();
        fs::write(folder.file(file), text).expect("a file can be written");
        let server = Server::start_with_clock(&["--app", &folder.file(file), "--worker-timeout", "24h"]);
        let mut client = server.websocket();
        for (text, logged) in [
            (r#""\ud800""#, r"logged \ud800"),
            (r#""a\udfff""#, r"logged a\udfff"),
            (r#""\u0000\u001b[2Jx""#, r"[2Jx"),
        ] {
            client.tell("/say", text);
            client.request_code("/ok", "1", 200);
            let log = wait_for_log(&server, logged, 1);
            assert!(!log.contains(['\0', '\u{1b}']), "{program}: {log:?}");
        }
        assert_eq!(server.stats().value("workers_crashed"), 0, "{program}");
        assert_eq!(server.stats().value("worker_frames_refused"), 0, "{program}");
    }
}
