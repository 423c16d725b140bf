//! The documents that the server itself has: the page at `/`, and the client library.
//!
//! They are part of the program. Nothing here depends on a setting, and nothing is read from a disk.

use std::sync::LazyLock;

use sha1_smol::Sha1;

#[cfg(test)]
mod tests;

/// The answer to a GET or HEAD. `Content-Length`, `Date` and `Connection` are for the caller to add, and so is that
/// HEAD gets no body. A 304 has none, and goes without `Content-Length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticResponse {
    /// 200, 304 or 404.
    pub status: u16,
    /// Whole lines, each ended by CR LF; without the empty line that ends the head.
    pub headers: &'static str,
    /// Empty for a 304.
    pub body: &'static [u8],
}

/// Answers a GET or HEAD for this path; a query behind it changes nothing. `if_none_match` is what that header says;
/// where there are several, their values joined by commas.
///
/// ```
/// let page = quickio::web::answer("/", None);
/// assert_eq!(page.status, 200);
/// assert!(page.headers.contains("Content-Type: text/html; charset=utf-8\r\n"));
/// ```
pub fn answer(path: &str, if_none_match: Option<&str>) -> StaticResponse {
    let path = path.split('?').next().unwrap_or_default();
    let Some(served) = SITE.documents.iter().find(|served| served.document.path == path) else {
        return StaticResponse { status: 404, headers: &SITE.not_found, body: NOT_FOUND };
    };
    if if_none_match.is_some_and(|tags| matches(tags, &served.tag)) {
        return StaticResponse { status: 304, headers: &served.headers_unchanged, body: b"" };
    }
    StaticResponse { status: 200, headers: &served.headers, body: served.document.body }
}

// The documents.

/// A document as it is built in.
struct Document {
    path: &'static str,
    content_type: &'static str,
    /// Every other header but the tag: whole lines.
    rules: &'static [&'static str],
    body: &'static [u8],
}

static DOCUMENTS: [Document; 7] = [
    Document { path: "/", content_type: HTML, rules: PAGE, body: include_bytes!("page.html") },
    Document { path: "/page.css", content_type: CSS, rules: PART, body: include_bytes!("page.css") },
    Document { path: "/page.js", content_type: SCRIPT, rules: PART, body: include_bytes!("page.js") },
    Document { path: "/favicon.svg", content_type: SVG, rules: PART, body: include_bytes!("favicon.svg") },
    Document {
        path: "/quickio.js",
        content_type: SCRIPT,
        rules: LIBRARY,
        body: include_bytes!("quickio.js"),
    },
    Document { path: "/quickio.mjs", content_type: SCRIPT, rules: LIBRARY, body: MODULE.as_bytes() },
    // As text browsers show it; tools that want types go by the name.
    Document {
        path: "/quickio.d.ts",
        content_type: TEXT,
        rules: LIBRARY,
        body: include_bytes!("quickio.d.ts"),
    },
];

/// The library as an ES module. A module knows where it came from by other means than a script: unless it was bundled,
/// its server is the one to connect to.
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

// Their headers.

/// The page. Isolated from whoever opened it (COOP, COEP): besides being safer, browsers give an isolated page the
/// precise clock that its latencies need.
const PAGE: &[&str] = &[
    PAGE_POLICY,
    "Cross-Origin-Opener-Policy: same-origin\r\n",
    "Cross-Origin-Embedder-Policy: require-corp\r\n",
    "Cross-Origin-Resource-Policy: same-origin\r\n",
    PERMISSIONS,
    ALWAYS_ASK,
    COMMON,
];

/// What the page is made of: nobody else's business.
const PART: &[&str] = &[NO_PAGE_POLICY, "Cross-Origin-Resource-Policy: same-origin\r\n", ALWAYS_ASK, COMMON];

/// What other sites include.
const LIBRARY: &[&str] = &[
    NO_PAGE_POLICY,
    "Cross-Origin-Resource-Policy: cross-origin\r\n",
    "Access-Control-Allow-Origin: *\r\n",
    AN_HOUR,
    COMMON,
];

const MISSING: &[&str] = &[NO_PAGE_POLICY, ALWAYS_ASK, COMMON];

/// Everything comes from this server, and nothing is said to another one; 'self' is the WebSocket of the same host
/// and port too (CSP 3, 6.7.2.8). No text ever becomes markup (trusted types).
const PAGE_POLICY: &str = "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'\r\n";

/// For what is no page: should a browser be made to take it for one, that page can do nothing.
const NO_PAGE_POLICY: &str = "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'; \
    base-uri 'none'; form-action 'none'; sandbox\r\n";

/// The page copies its examples into the clipboard, and needs nothing else that a browser guards.
const PERMISSIONS: &str = "Permissions-Policy: accelerometer=(), camera=(), clipboard-read=(), \
    clipboard-write=(self), display-capture=(), geolocation=(), gyroscope=(), hid=(), local-fonts=(), \
    magnetometer=(), microphone=(), midi=(), payment=(), serial=(), usb=()\r\n";

/// The page and its parts fit each other: they are kept, but used only when the server says that they are unchanged.
const ALWAYS_ASK: &str = "Cache-Control: no-cache\r\n";

/// The library is on the way of every page that includes it: for an hour nobody asks for it. Its address never
/// changes, so an hour is also how long a new one takes to reach everybody; after it, a copy is asked about.
const AN_HOUR: &str = "Cache-Control: public, max-age=3600, must-revalidate\r\n";

const COMMON: &str = "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n";

// As they are served.

struct Site {
    documents: Vec<Served>,
    /// The headers of a 404.
    not_found: String,
}

struct Served {
    document: &'static Document,
    /// A strong entity tag, in its quotes.
    tag: String,
    headers: String,
    /// Those of a 304, which has no body for a type to describe.
    headers_unchanged: String,
}

/// Made for the first request, a matter of microseconds; from then on it is only read, without a lock.
static SITE: LazyLock<Site> = LazyLock::new(|| Site {
    documents: DOCUMENTS.iter().map(serve).collect(),
    not_found: format!("Content-Type: {TEXT}\r\n{}", MISSING.concat()),
});

fn serve(document: &'static Document) -> Served {
    let tag = entity_tag(document.body);
    let headers_unchanged = format!("ETag: {tag}\r\n{}", document.rules.concat());
    let headers = format!("Content-Type: {}\r\n{headers_unchanged}", document.content_type);
    Served { document, tag, headers, headers_unchanged }
}

fn entity_tag(body: &[u8]) -> String {
    format!("\"{}\"", Sha1::from(body).digest())
}

/// Whether an `If-None-Match` names the tag (RFC 9110, 13.1.2): `*`, or a list in which it is, weak or strong. What
/// is no list names nothing from there on, so the document is sent: too much never harms.
fn matches(tags: &str, tag: &str) -> bool {
    if tags.trim_matches([' ', '\t']) == "*" {
        return true;
    }
    let mut rest = tags;
    while let Some((named, behind)) = next_tag(rest) {
        if named == tag {
            return true;
        }
        rest = behind;
    }
    false
}

/// The first tag of a list, in its quotes but without `W/`, and what is behind it. Commas may stand in a tag.
fn next_tag(list: &str) -> Option<(&str, &str)> {
    let list = list.trim_start_matches([' ', '\t', ',']);
    let list = list.strip_prefix("W/").unwrap_or(list);
    let len = list.strip_prefix('"')?.find('"')? + 2;
    let (tag, behind) = list.split_at(len);
    let ended = behind.trim_start_matches([' ', '\t']);
    (ended.is_empty() || ended.starts_with(',')).then_some((tag, ended))
}
