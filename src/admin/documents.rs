//! The operator's page: its documents, which are compiled into the program, and their headers.

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};

use super::reply::{self, AdminResponse};

/// A document of the page.
struct AdminDocument {
    path: &'static str,
    media_type: &'static str,
    body: &'static [u8],
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The style of the page, which begins as that of the page for clients does.
const STYLE: &str = concat!(include_str!("../web/common.css"), include_str!("page/page.css"));

static DOCUMENTS: [AdminDocument; 7] = [
    AdminDocument {
        path: "/",
        media_type: "text/html; charset=utf-8",
        body: include_bytes!("page/page.html"),
    },
    AdminDocument { path: "/page.css", media_type: "text/css; charset=utf-8", body: STYLE.as_bytes() },
    AdminDocument { path: "/page.js", media_type: SCRIPT, body: include_bytes!("page/page.js") },
    AdminDocument { path: "/charts.js", media_type: SCRIPT, body: include_bytes!("page/charts.js") },
    AdminDocument { path: "/source.js", media_type: SCRIPT, body: include_bytes!("page/source.js") },
    AdminDocument { path: "/tables.js", media_type: SCRIPT, body: include_bytes!("page/tables.js") },
    AdminDocument {
        path: "/favicon.svg",
        media_type: "image/svg+xml",
        body: include_bytes!("../web/favicon.svg"),
    },
];

/// The headers of every document. The page loads everything from this endpoint, and may do nothing else; Trusted Types
/// keep texts from becoming markup. Pages of other sites can neither embed nor open the page.
const HEADERS: [(&str, &str); 4] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'",
    ),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-embedder-policy", "require-corp"),
    ("referrer-policy", "no-referrer"),
];

/// Returns whether there is a document at a path.
pub(super) fn exists(path: &str) -> bool {
    DOCUMENTS.iter().any(|document| document.path == path)
}

/// Returns the document at a path.
pub(super) fn document(path: &str) -> Option<AdminResponse> {
    let document = DOCUMENTS.iter().find(|document| document.path == path)?;
    let mut reply = reply::page(StatusCode::OK, document.media_type, document.body.to_vec());
    for (name, value) in HEADERS {
        reply.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str) -> &'static str {
        let document = DOCUMENTS.iter().find(|document| document.path == path).unwrap();
        std::str::from_utf8(document.body).unwrap()
    }

    #[test]
    fn every_document_has_a_strict_policy() {
        for AdminDocument { path, media_type, .. } in &DOCUMENTS {
            let reply = document(path).unwrap();
            let header = |name: &str| reply.headers()[name].to_str().unwrap();
            assert_eq!(header("content-type"), *media_type, "{path}");
            let policy = header("content-security-policy");
            assert!(policy.starts_with("default-src 'none'; "), "{policy}");
            assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
            assert_eq!(header("cache-control"), "no-store", "{path}");
            assert_eq!(header("cross-origin-resource-policy"), "same-origin", "{path}");
            assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        }
        assert!(document("/page.html").is_none() && document("").is_none());
    }

    #[test]
    fn the_page_refers_only_to_its_documents() {
        for path in ["/", "/page.js", "/tables.js", "/charts.js", "/source.js"] {
            for attribute in [" src=\"", " href=\"", " from './"] {
                for (at, _) in text(path).match_indices(attribute) {
                    let named = text(path)[at + attribute.len()..].split(['"', '\'']).next().unwrap();
                    let named = format!("/{}", named.trim_start_matches('/'));
                    assert!(named.starts_with("/#") || document(&named).is_some(), "{path} names {named}");
                }
            }
        }
    }

    /// The policy forbids all of these constructs: a browser would ignore them and the page would be broken.
    #[test]
    fn the_page_contains_nothing_that_its_policy_forbids() {
        for tag in text("/").split('<').skip(1).filter_map(|tag| tag.split('>').next()) {
            for attribute in tag.split_ascii_whitespace().skip(1) {
                assert!(!attribute.starts_with("style="), "<{tag}>");
                assert!(!(attribute.starts_with("on") && attribute.contains('=')), "<{tag}>");
            }
            let name = tag.split([' ', '\n']).next().unwrap();
            assert!(!["style", "base", "iframe", "object", "embed"].contains(&name), "<{tag}>");
            assert!(name != "script" || tag.contains(" src=\"/"), "<{tag}>");
        }
        for path in ["/page.js", "/tables.js", "/charts.js", "/source.js"] {
            for forbidden in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", ".style"]
            {
                assert!(!text(path).contains(forbidden), "{forbidden} in {path}");
            }
        }
        for forbidden in ["url(", "@import", "@font-face"] {
            assert!(!text("/page.css").contains(forbidden), "{forbidden} in the style");
        }
    }
}
