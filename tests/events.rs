//! Tests of event paths, texts and routers against their naive twins: properties and seeded fuzz tests.

mod fuzz;
mod naive;

use proptest::prelude::*;
use quickio::event::path::{Path, PathRef};
use quickio::event::router::Router;
use quickio::event::text::{self, AnswerText};
use quickio::limits::PATH_BYTES_MAX;

/// Asserts that a path is cleaned as by the twin, with a scratch that had other contents, and that cleaning a clean
/// path changes nothing.
fn check_clean(raw: &str) {
    let mut scratch = String::from("/left/over/");
    let cleaned = PathRef::clean(raw, &mut scratch).map(|path| path.as_str().to_owned());
    assert_eq!(cleaned, naive::clean(raw));
    assert!(scratch.capacity() <= 2 * PATH_BYTES_MAX, "the scratch must not grow with the input");
    if let Ok(cleaned) = cleaned {
        let mut unused = String::new();
        let again = PathRef::clean(&cleaned, &mut unused).unwrap();
        assert_eq!(again.as_str().as_ptr(), cleaned.as_ptr(), "a clean path must not be copied");
    }
}

/// Asserts that an event is parsed as it was written, and that its length is as announced.
fn check_event(path: &str, callback: u64, data: &str) {
    let mut out = b"before".to_vec();
    text::write_event(&mut out, path, callback, data);
    assert_eq!(out.len() - 6, text::event_len(path, callback, data));
    let text = std::str::from_utf8(&out[6..]).unwrap();
    let event = text::parse(text).unwrap();
    let data = if data.is_empty() { "null" } else { data };
    assert_eq!((event.path, event.callback, event.data), (path, callback, data));
}

fn check_answer(answer: AnswerText<'_>) {
    let mut out = Vec::new();
    answer.write(&mut out);
    assert_eq!(out.len(), answer.len());
    let ok = answer.code == 200;
    let message =
        if ok { String::new() } else { format!(r#","err_msg":{}"#, serde_json::json!(answer.message)) };
    let data = if answer.data.is_empty() { "null" } else { answer.data };
    let callback = if ok { answer.server_callback } else { 0 };
    let expected = format!(
        r#"/qio/callback/{}:{callback}={{"code":{},"data":{data}{message}}}"#,
        answer.id, answer.code
    );
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

/// Registers the same events in both routers and asserts that they have the same routes.
fn check_routes(registered: &[(Path, bool)], asked: &[Path]) {
    let (mut router, mut twin) = (Router::new(), naive::Router::default());
    for (value, (path, children)) in registered.iter().enumerate() {
        let fresh = twin.register(path.as_str(), *children, value);
        assert_eq!(router.register(path, *children, value).is_ok(), fresh, "{path}");
    }
    for path in asked.iter().chain(registered.iter().map(|(path, _)| path)) {
        let routed = router.route(path.as_ref()).map(|routed| (routed.value, routed.extra));
        assert_eq!(routed, twin.route(path.as_str()), "{path} among {registered:?}");
    }
}

/// Paths of few different bytes, many of which share prefixes.
fn paths() -> impl Strategy<Value = Path> {
    "/?[ab]{1,3}(/[ab]{1,2}){0,4}".prop_map(|raw| Path::parse(&raw).unwrap())
}

proptest! {
    #[test]
    fn any_text_is_cleaned_as_by_the_twin(raw in any::<String>()) {
        check_clean(&raw);
    }

    #[test]
    fn any_path_is_cleaned_as_by_the_twin(raw in "[a-zZ0-9_/é.-]{0,40}") {
        check_clean(&raw);
    }

    #[test]
    fn paths_near_the_limit(length in PATH_BYTES_MAX - 3..PATH_BYTES_MAX + 3, before in "[/.a]{0,3}", after in "[/.a]{0,3}") {
        check_clean(&format!("{before}{}{after}", "x".repeat(length)));
    }

    #[test]
    fn any_text_is_parsed_as_by_the_twin(text in any::<String>()) {
        prop_assert_eq!(text::parse(&text), naive::parse(&text));
    }

    #[test]
    fn near_events_are_parsed_as_by_the_twin(text in "[/a:é]{0,4}:?[0-9]{0,22}[=:x]{0,2}[é{}=]{0,3}") {
        prop_assert_eq!(text::parse(&text), naive::parse(&text));
    }

    #[test]
    fn written_events_are_parsed(path in "[^:]{0,20}", callback: u64, data in any::<String>()) {
        check_event(&path, callback, &data);
    }

    #[test]
    fn answers_have_the_announced_length(
        id: u64, server_callback: u64, code in prop_oneof![Just(200), any::<u16>()],
        data in "[^\u{0}]{0,9}", message: Option<String>,
    ) {
        check_answer(AnswerText { id, server_callback, code, data: &data, message: message.as_deref() });
    }

    #[test]
    fn paths_are_routed_as_by_the_twin(
        registered in prop::collection::vec((paths(), any::<bool>()), 0..30),
        asked in prop::collection::vec(paths(), 0..30),
    ) {
        check_routes(&registered, &asked);
    }
}

#[test]
fn fuzz_texts() {
    const PIECES: [&str; 16] = [
        "/",
        "//",
        "chat",
        ":",
        "=",
        "0",
        "7",
        "18446744073709551615",
        "18446744073709551616",
        "null",
        "{\"a\":1}",
        "é",
        "\0",
        "@",
        "-_",
        " ",
    ];
    fuzz::run(|random| {
        let pieces = random.below(12);
        let mut text: String = (0..pieces).map(|_| *random.pick(&PIECES)).collect();
        if random.one_in(8) {
            text = text.repeat(random.below(200));
        }
        check_clean(&text);
        let parsed = text::parse(&text);
        assert_eq!(parsed, naive::parse(&text), "{text:?}");
        if let Ok(event) = parsed {
            check_event(event.path, event.callback, event.data);
        }
    });
}

#[test]
fn fuzz_routes() {
    const SEGMENTS: [&str; 8] = ["a", "b", "ab", "aa", "abc", "-", "_", "a-very-long-segment-of-a-path"];
    fuzz::run(|random| {
        let mut path = |segments_max: usize| {
            let absolute = if random.one_in(4) { "" } else { "/" };
            let segments: Vec<&str> =
                (0..=random.below(segments_max)).map(|_| *random.pick(&SEGMENTS)).collect();
            (Path::parse(&format!("{absolute}{}", segments.join("/"))).unwrap(), random.one_in(2))
        };
        let registered: Vec<_> = (0..40).map(|_| path(5)).collect();
        let asked: Vec<_> = (0..40).map(|_| path(20).0).collect();
        check_routes(&registered, &asked);
    });
}
