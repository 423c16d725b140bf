//! Texts of events and their paths.

#![no_main]

use quickio::event::path::{Path, PathRef};
use quickio::event::text;
use quickio::limits::PATH_BYTES_MAX;

libfuzzer_sys::fuzz_target!(|input: &str| {
    if let Ok(event) = text::parse(input) {
        assert!(!event.data.is_empty(), "an event without data has the data null");
        let mut written = Vec::new();
        text::write_event(&mut written, event.path, event.callback, event.data);
        assert_eq!(written.len(), text::event_len(event.path, event.callback, event.data));
        let written = String::from_utf8(written).expect("its parts are UTF-8");
        assert_eq!(text::parse(&written), Ok(event), "a text that was written is parsed again");
        check_path(event.path);
    }
    check_path(input);
});

fn check_path(raw: &str) {
    let mut scratch = String::new();
    let cleaned = PathRef::clean(raw, &mut scratch).map(|path| path.as_str().to_owned());
    match (&cleaned, Path::parse(raw)) {
        (Ok(clean), Ok(path)) => assert_eq!(path.as_str(), clean),
        (Err(_), Err(_)) => return,
        (clean, path) => panic!("{raw:?} is cleaned to {clean:?}, and parsed as {path:?}"),
    }
    let clean = cleaned.expect("it was just matched");
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-".contains(&byte);
    assert!((1..=PATH_BYTES_MAX).contains(&clean.len()) && clean.bytes().all(is_allowed), "{clean:?}");
    assert!(!clean.contains("//") && !clean.ends_with('/'), "{clean:?}");
    let mut scratch = String::new();
    let again = PathRef::clean(&clean, &mut scratch).expect("a clean path is a path");
    assert_eq!(again.as_str(), clean, "a clean path stays as it is");
}
