//! Tests of every document, its headers, and the content policy of the page.

use super::*;

const PATHS: [&str; 7] =
    ["/", "/page.css", "/page.js", "/favicon.svg", "/quickio.js", "/quickio.mjs", "/quickio.d.ts"];

fn text(path: &str) -> &'static str {
    let response = respond(path, None);
    assert_eq!(response.status, 200, "{path}");
    std::str::from_utf8(response.body).expect("documents are UTF-8")
}

/// Returns the value of a header. Panics if the header occurs more than once.
fn header(path: &str, name: &str) -> Option<&'static str> {
    let mut values = respond(path, None).headers.lines().filter_map(|line| {
        let (key, value) = line.split_once(": ").expect("a header line has a name and a value");
        key.eq_ignore_ascii_case(name).then_some(value)
    });
    let value = values.next();
    assert_eq!(values.next(), None, "{path} has {name} twice");
    value
}

#[test]
fn serves_the_document_of_each_path() {
    let table: [(&str, u16, &str, &str); 16] = [
        ("/", 200, HTML, "<!doctype html>"),
        ("/?transport=poll", 200, HTML, "<!doctype html>"),
        ("/page.css", 200, CSS, ""),
        ("/page.js", 200, SCRIPT, ""),
        ("/favicon.svg", 200, SVG, "<svg "),
        ("/quickio.js", 200, SCRIPT, ""),
        ("/quickio.js?v=2", 200, SCRIPT, ""),
        ("/quickio.mjs", 200, SCRIPT, ""),
        ("/quickio.d.ts", 200, TEXT, ""),
        ("", 404, TEXT, "no such document"),
        ("//", 404, TEXT, "no such document"),
        ("/page.html", 404, TEXT, "no such document"),
        ("/Quickio.js", 404, TEXT, "no such document"),
        ("/quickio.js/", 404, TEXT, "no such document"),
        ("/../quickio.js", 404, TEXT, "no such document"),
        ("/mod.rs", 404, TEXT, "no such document"),
    ];
    for (path, status, content_type, begin) in table {
        let response = respond(path, None);
        assert_eq!(response.status, status, "{path}");
        assert_eq!(header(path, "Content-Type"), Some(content_type), "{path}");
        assert!(response.body.starts_with(begin.as_bytes()), "{path}");
        assert!(!response.body.is_empty(), "{path}");
    }
}

#[test]
fn the_module_is_the_script_with_exports() {
    let (script, module) = (text("/quickio.js"), text("/quickio.mjs"));
    let exports = module.strip_prefix(script).expect("the module begins with the script");
    for line in ["export const QuickIO = globalThis.QuickIO;", "export default QuickIO;"] {
        assert!(exports.lines().any(|found| found == line), "{line}");
        assert!(!script.contains(line), "a classic script must not export");
    }
}

#[test]
fn headers_are_complete_lines_without_those_that_the_caller_adds() {
    for path in PATHS.into_iter().chain(["/nothing"]) {
        let tag = header(path, "ETag");
        for response in [respond(path, None), respond(path, tag)] {
            assert!(response.headers.ends_with("\r\n"), "{path}");
            for line in response.headers.strip_suffix("\r\n").unwrap().split("\r\n") {
                assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{path}: {line:?}");
                let name = line.split(": ").next().unwrap().to_ascii_lowercase();
                assert!(!["content-length", "date", "connection"].contains(&name.as_str()), "{path}: {line}");
            }
        }
    }
}

#[test]
fn every_response_has_security_headers() {
    for path in PATHS.into_iter().chain(["/nothing"]) {
        assert_eq!(header(path, "X-Content-Type-Options"), Some("nosniff"), "{path}");
        assert_eq!(header(path, "Referrer-Policy"), Some("no-referrer"), "{path}");
        let policy = header(path, "Content-Security-Policy").expect("every document has a policy");
        assert!(policy.starts_with("default-src 'none'; "), "{path}");
        for directive in ["frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"] {
            assert!(policy.split("; ").any(|found| found == directive), "{path}: {directive}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{path}: {policy}");
    }
    assert_eq!(header("/", "Cross-Origin-Opener-Policy"), Some("same-origin"));
    assert_eq!(header("/", "Cross-Origin-Embedder-Policy"), Some("require-corp"));
    assert!(header("/", "Permissions-Policy").is_some());
}

#[test]
fn only_the_library_may_be_used_by_other_origins_and_cached() {
    for path in PATHS {
        let library = path.starts_with("/quickio.");
        let (resource, origin, cache) = match library {
            true => ("cross-origin", Some("*"), "public, max-age=3600, must-revalidate"),
            false => ("same-origin", None, "no-cache"),
        };
        assert_eq!(header(path, "Cross-Origin-Resource-Policy"), Some(resource), "{path}");
        assert_eq!(header(path, "Access-Control-Allow-Origin"), origin, "{path}");
        assert_eq!(header(path, "Cache-Control"), Some(cache), "{path}");
    }
    assert_eq!(header("/nothing", "Cache-Control"), Some("no-cache"));
    assert_eq!(header("/nothing", "ETag"), None);
}

#[test]
fn the_tag_is_a_hash_of_the_content_and_yields_a_304() {
    assert_eq!(entity_tag(b"abc"), "\"a9993e364706816aba3e25717850c26c9cd0d89d\"");
    for path in PATHS {
        let whole = respond(path, None);
        let tag = header(path, "ETag").expect("documents have tags");
        assert_eq!(tag, entity_tag(whole.body), "{path}");

        let unchanged = respond(path, Some(tag));
        assert_eq!((unchanged.status, unchanged.body), (304, &b""[..]), "{path}");
        let (_, without_type) = whole.headers.split_once("\r\n").unwrap();
        assert_eq!(unchanged.headers, without_type, "{path}");

        for other in PATHS.into_iter().filter(|other| *other != path) {
            assert_eq!(respond(other, Some(tag)).status, 200, "{other} is not {path}");
        }
    }
    assert_eq!(respond("/nothing", Some("*")).status, 404);
}

#[test]
fn compares_tags_as_the_rfc_says() {
    let table = [
        ("\"a\"", true),
        ("W/\"a\"", true),
        ("*", true),
        (" \t* ", true),
        ("\"b\", \"a\"", true),
        ("\"b\",W/\"a\"", true),
        ("W/\"b\" ,\t\"a\" , \"c\"", true),
        (", ,\"a\",", true),
        ("\"b,\", \"a\"", true),
        ("\"\", \"a\"", true),
        ("\"ü\", \"a\"", true),
        ("", false),
        (",", false),
        ("\"b\"", false),
        ("a", false),
        ("\"A\"", false),
        ("\"a", false),
        ("a\"", false),
        ("\"a \"", false),
        ("w/\"a\"", false),
        ("W/W/\"a\"", false),
        ("W/ \"a\"", false),
        ("\"b,\"a\",\"", false),
        ("\"b\" \"a\"", false),
        ("\"a\"x", false),
        ("b, \"a\"", false),
        ("\"b\", *", false),
        ("**", false),
    ];
    for (tags, expected) in table {
        assert_eq!(matches(tags, "\"a\""), expected, "{tags}");
    }
}

#[test]
fn the_page_refers_only_to_documents_of_this_server() {
    let page = text("/");
    let mut references = 0;
    for attribute in [" src=\"", " href=\""] {
        for (at, _) in page.match_indices(attribute) {
            let address = page[at + attribute.len()..].split('"').next().unwrap();
            references += 1;
            assert!(address.starts_with('#') || respond(address, None).status == 200, "{address}");
        }
    }
    assert!(references >= 4, "the script, the style, the icon and the library at least: {references}");
}

/// The policy forbids all of these constructs: a browser would ignore them and the page would be broken.
#[test]
fn the_page_contains_nothing_that_its_policy_forbids() {
    let page = text("/");
    for script in page.match_indices("<script") {
        assert!(page[script.0..].starts_with("<script src=\"/"), "an inline script");
    }
    for tag in page.split('<').skip(1).filter_map(|tag| tag.split('>').next()) {
        for attribute in tag.split_ascii_whitespace().skip(1) {
            assert!(!attribute.starts_with("style="), "<{tag}>");
            assert!(!(attribute.starts_with("on") && attribute.contains('=')), "<{tag}>");
        }
        let name = tag.split([' ', '\n']).next().unwrap();
        assert!(!["style", "base", "iframe", "object", "embed"].contains(&name), "<{tag}>");
    }
    for forbidden in ["url(", "@import", "@font-face"] {
        assert!(!text("/page.css").contains(forbidden), "{forbidden} in the style");
    }
    for forbidden in
        ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"]
    {
        assert!(!text("/page.js").contains(forbidden), "{forbidden} in the script");
    }
}
