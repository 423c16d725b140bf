//! The documents that the server serves itself: the page at `/`, and the client library.
//!
//! The documents are compiled into the program. They depend on no setting, and no file is read at run time.

use std::sync::LazyLock;

use sha1_smol::Sha1;

#[cfg(test)]
mod tests;

/// A response to a GET or HEAD request.
///
/// The caller adds `Content-Length`, `Date` and `Connection`, and omits the body for HEAD. A 304 has no body and no
/// `Content-Length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticResponse {
    /// 200, 304 or 404.
    pub status: u16,
    /// Complete header lines, each terminated by CR LF, without the empty line at the end of the head.
    pub headers: &'static str,
    /// Empty for a 304.
    pub body: &'static [u8],
}

/// Returns the response to a GET or HEAD request for a path. A query in the path is ignored. `if_none_match` is the
/// value of the `If-None-Match` header; several headers are joined with commas.
///
/// ```
/// let page = quickio::web::respond("/", None);
/// assert_eq!(page.status, 200);
/// assert!(page.headers.contains("Content-Type: text/html; charset=utf-8\r\n"));
/// ```
pub fn respond(path: &str, if_none_match: Option<&str>) -> StaticResponse {
    let path = path.split('?').next().unwrap_or_default();
    let Some(served) = SITE.documents.iter().find(|served| served.document.path == path) else {
        return StaticResponse { status: 404, headers: &SITE.not_found_headers, body: NOT_FOUND };
    };
    if if_none_match.is_some_and(|tags| matches(tags, &served.tag)) {
        return StaticResponse { status: 304, headers: &served.not_modified_headers, body: b"" };
    }
    StaticResponse { status: 200, headers: &served.headers, body: served.document.body }
}

// The documents.

/// A document that is compiled into the program.
struct Document {
    path: &'static str,
    content_type: &'static str,
    /// Complete lines of all other headers except the entity tag.
    headers: &'static [&'static str],
    body: &'static [u8],
}

static DOCUMENTS: [Document; 7] = [
    Document { path: "/", content_type: HTML, headers: PAGE, body: include_bytes!("page.html") },
    Document { path: "/page.css", content_type: CSS, headers: PART, body: STYLE.as_bytes() },
    Document { path: "/page.js", content_type: SCRIPT, headers: PART, body: include_bytes!("page.js") },
    Document { path: "/favicon.svg", content_type: SVG, headers: PART, body: include_bytes!("favicon.svg") },
    Document {
        path: "/quickio.js",
        content_type: SCRIPT,
        headers: LIBRARY,
        body: include_bytes!("quickio.js"),
    },
    Document { path: "/quickio.mjs", content_type: SCRIPT, headers: LIBRARY, body: MODULE.as_bytes() },
    // Browsers display plain text. Tools that need the types recognize the file name.
    Document {
        path: "/quickio.d.ts",
        content_type: TEXT,
        headers: LIBRARY,
        body: include_bytes!("quickio.d.ts"),
    },
];

/// The style of the page, which begins as that of the operator's page does.
const STYLE: &str = concat!(include_str!("common.css"), include_str!("page.css"));

/// The library as an ES module. A module reads its own address from `import.meta.url`. Unless the module was bundled,
/// the server at that address is the default server.
const MODULE: &str = concat!(
    include_str!("quickio.js"),
    "\nexport const QuickIO = globalThis.QuickIO;\nexport default QuickIO;\n",
    "if (/^https?:/.test(import.meta.url)) QuickIO.source ??= import.meta.url;\n",
);

const NOT_FOUND: &[u8] = b"no such document: there are /, /quickio.js, /quickio.mjs and /quickio.d.ts\n";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

// The headers of the documents.

/// The headers of the page. COOP and COEP isolate it from the page that opened it. This is safer, and browsers give an
/// isolated page the precise clock that it needs to measure latencies.
const PAGE: &[&str] = &[
    PAGE_POLICY,
    "Cross-Origin-Opener-Policy: same-origin\r\n",
    "Cross-Origin-Embedder-Policy: require-corp\r\n",
    "Cross-Origin-Resource-Policy: same-origin\r\n",
    PERMISSIONS,
    REVALIDATE,
    COMMON,
];

/// The headers of the files that only the page includes. Other origins must not use them.
const PART: &[&str] = &[NO_PAGE_POLICY, "Cross-Origin-Resource-Policy: same-origin\r\n", REVALIDATE, COMMON];

/// The headers of the library, which pages of other origins include.
const LIBRARY: &[&str] = &[
    NO_PAGE_POLICY,
    "Cross-Origin-Resource-Policy: cross-origin\r\n",
    "Access-Control-Allow-Origin: *\r\n",
    CACHE_ONE_HOUR,
    COMMON,
];

/// The headers of a 404.
const MISSING: &[&str] = &[NO_PAGE_POLICY, REVALIDATE, COMMON];

/// The page loads everything from this server and connects only to this server. `'self'` includes the WebSocket of the
/// same host and port (CSP 3, 6.7.2.8). Trusted Types prevent text from becoming markup.
const PAGE_POLICY: &str = "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'\r\n";

/// The policy of documents that are not pages: if a browser is tricked into showing one as a page, that page can do
/// nothing.
const NO_PAGE_POLICY: &str = "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'; \
    base-uri 'none'; form-action 'none'; sandbox\r\n";

/// The page copies its examples to the clipboard, and needs no other permission.
const PERMISSIONS: &str = "Permissions-Policy: accelerometer=(), camera=(), clipboard-read=(), \
    clipboard-write=(self), display-capture=(), geolocation=(), gyroscope=(), hid=(), local-fonts=(), \
    magnetometer=(), microphone=(), midi=(), payment=(), serial=(), usb=()\r\n";

/// The page and its parts must be of the same version: browsers cache them, but revalidate them before each use.
const REVALIDATE: &str = "Cache-Control: no-cache\r\n";

/// The library delays every page that includes it, so browsers use their copy for an hour without a request. The address
/// of the library never changes: a new version therefore takes up to an hour to reach all users. After an hour, the copy
/// is revalidated.
const CACHE_ONE_HOUR: &str = "Cache-Control: public, max-age=3600, must-revalidate\r\n";

const COMMON: &str = "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n";

// The documents with their final headers.

struct Site {
    documents: Vec<Served>,
    not_found_headers: String,
}

struct Served {
    document: &'static Document,
    /// The strong entity tag, including its quotes.
    tag: String,
    headers: String,
    /// The headers of a 304, without `Content-Type`, because a 304 has no body.
    not_modified_headers: String,
}

/// Built in microseconds for the first request, then only read, without a lock.
static SITE: LazyLock<Site> = LazyLock::new(|| Site {
    documents: DOCUMENTS.iter().map(serve).collect(),
    not_found_headers: format!("Content-Type: {TEXT}\r\n{}", MISSING.concat()),
});

fn serve(document: &'static Document) -> Served {
    let tag = entity_tag(document.body);
    let not_modified_headers = format!("ETag: {tag}\r\n{}", document.headers.concat());
    let headers = format!("Content-Type: {}\r\n{not_modified_headers}", document.content_type);
    Served { document, tag, headers, not_modified_headers }
}

fn entity_tag(body: &[u8]) -> String {
    format!("\"{}\"", Sha1::from(body).digest())
}

/// Returns whether an `If-None-Match` value matches the tag (RFC 9110, 13.1.2): `*`, or a list that contains the tag,
/// weak or strong. Parsing stops at the first syntax error, and the rest of the value matches nothing. The document is
/// then sent in full, which is always correct.
fn matches(tags: &str, tag: &str) -> bool {
    if tags.trim_matches([' ', '\t']) == "*" {
        return true;
    }
    let mut rest = tags;
    while let Some((candidate, remaining)) = next_tag(rest) {
        if candidate == tag {
            return true;
        }
        rest = remaining;
    }
    false
}

/// Splits off the first tag of a list. Returns the tag, including its quotes but without `W/`, and the rest of the list.
/// A tag may contain commas.
fn next_tag(list: &str) -> Option<(&str, &str)> {
    let list = list.trim_start_matches([' ', '\t', ',']);
    let list = list.strip_prefix("W/").unwrap_or(list);
    let len = list.strip_prefix('"')?.find('"')? + 2;
    let (tag, rest) = list.split_at(len);
    let rest = rest.trim_start_matches([' ', '\t']);
    (rest.is_empty() || rest.starts_with(',')).then_some((tag, rest))
}
