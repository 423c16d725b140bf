use super::super::budget::ByteBudget;
use super::*;
use proptest::prelude::*;

/// The events of a list, as one shard would begin them.
fn events(list: EventList) -> Vec<(String, String)> {
    let batches = list.into_batches(ByteBudget::new(0).charge(), 1, |_| 0);
    let batch = batches.first().map(|(_, batch)| batch);
    let event = |at| batch.map(|batch| batch.event(at)).expect("there is a batch");
    let all = (0..batch.map_or(0, super::super::batch::Batch::len)).map(event);
    all.map(|(path, data)| (path.as_str().to_owned(), data.to_owned())).collect()
}

fn owned(events: &[(&str, &str)]) -> Vec<(String, String)> {
    events.iter().map(|(path, data)| ((*path).to_owned(), (*data).to_owned())).collect()
}

#[test]
fn lines_are_events() {
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("", &[]),
        ("\n\r\n\n", &[]),
        ("/a:0=1", &[("/a", "1")]),
        ("/a:0=1\n/b/c:0={\"x\": 2}\r\n\n/a:0=\n", &[("/a", "1"), ("/b/c", "{\"x\": 2}"), ("/a", "")]),
        ("/a:0=null\r\n", &[("/a", "null")]),
        ("/a:00=\":0=\"", &[("/a", "\":0=\"")]),
        ("/a:0=\"\u{e9}\"\n/A-Z_9:0=[1,\t2]", &[("/a", "\"\u{e9}\""), ("/A-Z_9", "[1,\t2]")]),
        ("/qiox:0=1", &[("/qiox", "1")]),
        ("/a:00=", &[("/a", "")]),
    ];
    for (body, expected) in cases {
        let list = parse_lines(body.as_bytes().to_vec()).expect(body);
        assert_eq!(list.len(), expected.len(), "{body:?}");
        assert_eq!(events(list), owned(expected), "{body:?}");
    }
}

#[test]
fn the_first_bad_line_is_named() {
    let long = format!("/{}:0=1", "a".repeat(PATH_BYTES_MAX));
    let cases: &[(&[u8], usize, &str)] = &[
        (b"/a:0=1\n\n/a\n/b", 3, "there is no `:` behind the event path; write /path:0=JSON"),
        (b"/a:=1", 1, "there is no digit behind the event path; write /path:0=JSON"),
        (b"/a:0\n", 1, "there is no `=` behind the callback id; write /path:0=JSON"),
        (b"/a:7=1", 1, "the callback id must be 0: nobody waits for an answer to a broadcast"),
        (b"a:0=1", 1, "the path must begin with a slash"),
        (b":0=1", 1, "the path is empty"),
        (long.as_bytes(), 1, "the path is longer than 1024 bytes"),
        (b"/qio:0=1", 1, "/qio is the server's own namespace"),
        (b"/qio/on:0=1", 1, "/qio is the server's own namespace"),
        (b"/a:0=1\n/a:0={", 2, "the data is not one JSON text"),
        (b"/a:0=1 2", 1, "the data is not one JSON text"),
        (b"/a:0=1\n/a:0=\"\xff\"", 2, "it is not UTF-8"),
    ];
    for (body, line, reason) in cases {
        let refusal = parse_lines(body.to_vec()).expect_err("the body is not valid");
        let error = format!("line {line}: {reason}");
        assert_eq!((refusal.status.as_u16(), refusal.line, refusal.error), (400, Some(*line), error));
    }
    for path in ["/a/", "//a", "/a//b", "/a b", "/\u{e9}", "/"] {
        let refusal = parse_lines(format!("{path}:0=1").into_bytes()).expect_err(path);
        assert!(refusal.error.contains("characters or slashes"), "{path}: {}", refusal.error);
    }
}

#[test]
fn json_is_one_event_or_many() {
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("[]", &[]),
        (r#"{"path":"/a","data":1}"#, &[("/a", "1")]),
        (r#" {"data": {"x": [1, 2]}, "path": "\/a\/b"} "#, &[("/a/b", r#"{"x": [1, 2]}"#)]),
        (r#"{"path":"/a"}"#, &[("/a", "")]),
        (r#"{"path":"/a","data":null}"#, &[("/a", "")]),
        (
            r#" [{"path":"/a","data":"x\n"}, {"path":"/b","data":1e400}]"#,
            &[("/a", r#""x\n""#), ("/b", "1e400")],
        ),
    ];
    for (body, expected) in cases {
        let list = parse_json(body.as_bytes()).unwrap_or_else(|refusal| panic!("{body}: {refusal:?}"));
        assert_eq!(events(list), owned(expected), "{body}");
    }
    let deep = format!(r#"{{"path":"/a","data":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(parse_json(deep.as_bytes()).map(|list| list.len()), Ok(1), "depth has no limit");
}

#[test]
fn the_first_bad_event_is_named() {
    let cases = [
        (
            r#"[{"path":"/a"},{"path":"a"},{"path":"b"}]"#,
            Some(2),
            "event 2: the path must begin with a slash",
        ),
        (r#"[{"path":"/a"},{"data":1}]"#, Some(2), "event 2: missing field `path`"),
        (r#"[{"path":"/a"},7]"#, Some(2), "event 2: invalid type: integer `7`"),
        (r#"[{"path":"/a","x":1}]"#, Some(1), "event 1: unknown field `x`"),
        (r#"[{"path":"/a","data":{]}]"#, Some(1), "event 1: key must be a string"),
        (r#"[{"path":"/a"}"#, Some(2), "event 2: EOF while parsing a list"),
        (r#"{"path":"/qio/on"}"#, None, "/qio is the server's own namespace"),
        (r#"{"path":1}"#, None, "the body is not JSON as expected: invalid type: integer `1`"),
        (r#"{"path":"/a"} x"#, None, "the body is not JSON as expected: trailing characters"),
        ("", None, "the body is not JSON as expected: EOF while parsing a value"),
        ("null", None, "the body is not JSON as expected: invalid type: null"),
        (r#"{"path":"/a","path":"/b"}"#, None, "the body is not JSON as expected: duplicate field `path`"),
    ];
    for (body, event, error) in cases {
        let refusal = parse_json(body.as_bytes()).expect_err(body);
        assert!(refusal.error.starts_with(error), "{body}: {}", refusal.error);
        assert_eq!((refusal.status.as_u16(), refusal.event, refusal.line), (400, event, None), "{body}");
    }
    assert!(parse_json(b"{\"path\":\"/a\",\"data\":\"\xff\"}").is_err(), "texts are UTF-8");
}

proptest! {
    /// Any bytes are refused or parsed into events that are valid, and both forms of a body say the same.
    #[test]
    fn both_forms_agree(
        events_in in prop::collection::vec(("(/[a-zA-Z0-9_-]{1,8}){1,3}", "[0-9]{1,3}|\"[a-z ]*\"|\\[1, 2\\]"), 0..20),
    ) {
        let events_in: Vec<_> = events_in
            .into_iter()
            .map(|(path, data)| (path, if data.starts_with('0') { "0".to_owned() } else { data }))
            .filter(|(path, _)| checked_path(path).is_ok())
            .collect();
        let lines: String = events_in.iter().map(|(path, data)| format!("{path}:0={data}\n")).collect();
        let json: Vec<_> =
            events_in.iter().map(|(path, data)| format!(r#"{{"path":"{path}","data":{data}}}"#)).collect();
        let json = format!("[{}]", json.join(","));
        let of_lines = parse_lines(lines.into_bytes()).expect("the lines are valid");
        let of_json = parse_json(json.as_bytes()).expect("the JSON is valid");
        prop_assert_eq!(events(of_lines), events_in.clone());
        prop_assert_eq!(events(of_json), events_in);
    }

    #[test]
    fn any_bytes_are_handled(body in prop::collection::vec(any::<u8>(), 0..200)) {
        for list in [parse_lines(body.clone()), parse_json(&body)].into_iter().flatten() {
            for (path, data) in events(list) {
                prop_assert!(checked_path(&path).is_ok() && is_json(&data));
            }
        }
    }
}
