//! The shape of the source tree: who may name whom, that only `qev` names the kernel's interface, and that `unsafe`
//! stands only where it may, with its reason.
//!
//! The sources are read as text, with comments and literals blanked; no macro is expanded.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Who may name whom; nothing else. A module may always name itself. `bin` is the load generator, whose clients stand
/// on the same ring.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("main", &["server", "config", "log"]),
    ("bin", &["qev"]),
    ("server", &["shard", "admin", "mangler", "app", "qev", "config", "log"]),
    ("shard", &["app", "protocol", "client", "event", "qev", "config", "web"]),
    ("app", &["client", "event"]),
    ("client", &["event"]),
    ("protocol", &["event"]),
    ("admin", &["qev"]),
    ("mangler", &["config"]),
    ("metrics", &["qev"]),
    ("log", &["config"]),
    ("config", &[]),
    ("event", &[]),
    ("qev", &[]),
    ("web", &[]),
    ("limits", &[]),
];

/// What everybody may name; `qev`, which shall be lifted out one day, only the first.
const ALL_MAY_NAME: &[&str] = &["limits", "metrics"];

/// The files in which `unsafe` may stand.
const UNSAFE_FILES: &[&str] = &["qev/ring.rs", "qev/buffers.rs"];

/// The crates by which the kernel is spoken to, and the folder that may name them.
const KERNEL_CRATES: &[&str] = &["glommio", "io_uring"];
const KERNEL_FOLDER: &str = "qev/";

#[test]
fn modules_name_only_those_below_them() {
    assert_clean(names_upwards);
}

#[test]
fn only_quick_event_names_the_kernel() {
    assert_clean(names_the_kernel);
}

#[test]
fn unsafe_stands_only_where_it_may_and_says_why() {
    assert_clean(unsafe_without_reason);
}

#[test]
fn the_allowed_names_have_no_cycle() {
    // Removing modules that name nobody, again and again, has to leave none.
    let mut left: Vec<(&str, BTreeSet<&str>)> =
        MAY_NAME.iter().map(|(module, names)| (*module, names.iter().copied().collect())).collect();
    while let Some(at) = left.iter().position(|(_, names)| names.is_empty()) {
        let (bottom, _) = left.remove(at);
        for (_, names) in &mut left {
            names.remove(bottom);
        }
    }
    assert_eq!(left, [], "these name each other");
}

/// Applies a check to each source file, and fails with everything that it found.
fn assert_clean(check: impl Fn(&str, &Source) -> Vec<String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for path in source_files(&root) {
        let file = path.strip_prefix(&root).unwrap().to_str().expect("names in UTF-8").to_string();
        let source = Source::new(&fs::read_to_string(&path).expect("a source file can be read"));
        found.extend(check(&file, &source).into_iter().map(|what| format!("src/{file}:{what}")));
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

fn source_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a source folder can be read") {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty());
    files
}

// The checks. Each returns lines of `LINE: what is wrong`.

fn names_upwards(file: &str, source: &Source) -> Vec<String> {
    let own = top_module(file);
    if own == "lib" {
        return Vec::new();
    }
    let allowed = MAY_NAME.iter().find(|(module, _)| *module == own).map(|(_, names)| *names);
    let Some(allowed) = allowed else { return vec![format!("1: `{own}` has no row in MAY_NAME")] };
    let common = if own == "qev" { &ALL_MAY_NAME[..1] } else { ALL_MAY_NAME };
    source
        .named_modules(file)
        .into_iter()
        .filter(|(_, name)| {
            name != own && !allowed.contains(&name.as_str()) && !common.contains(&name.as_str())
        })
        .map(|(line, name)| format!("{line}: `{own}` names `{name}`"))
        .collect()
}

fn names_the_kernel(file: &str, source: &Source) -> Vec<String> {
    if file.starts_with(KERNEL_FOLDER) {
        return Vec::new();
    }
    let tokens = source.tokens();
    let named = tokens.windows(2).filter(|pair| {
        // `glommio::`, `use glommio;`, `use glommio as x`.
        let (word, next) = (pair[0].text, pair[1].text);
        KERNEL_CRATES.contains(&word) && [":", ";", "as"].contains(&next)
    });
    named
        .map(|pair| format!("{}: `{}` is named outside {KERNEL_FOLDER}", pair[0].line, pair[0].text))
        .collect()
}

fn unsafe_without_reason(file: &str, source: &Source) -> Vec<String> {
    let tokens = source.tokens();
    let mut found = Vec::new();
    for token in tokens.iter().filter(|token| token.text == "unsafe") {
        if !UNSAFE_FILES.contains(&file) {
            found.push(format!("{}: `unsafe` may not stand in this file", token.line));
        } else if !source.has_reason(token.line) {
            found.push(format!("{}: `unsafe` without a `// SAFETY:` comment", token.line));
        }
    }
    found
}

/// The first module of a file's path: `client` for `client/callbacks.rs`, `limits` for `limits.rs`.
fn top_module(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

// Reading.

/// A source file: its lines as they are, and its code with comments and literals blanked, line for line.
struct Source {
    lines: Vec<String>,
    code: Vec<String>,
}

struct Token<'a> {
    line: usize,
    text: &'a str,
}

impl Source {
    fn new(text: &str) -> Source {
        let code = blank(text);
        Source {
            lines: text.lines().map(str::to_string).collect(),
            code: code.lines().map(str::to_string).collect(),
        }
    }

    /// Words, and every other character that is no space, with their line, counted from 1.
    fn tokens(&self) -> Vec<Token<'_>> {
        let mut tokens = Vec::new();
        for (code, line) in self.code.iter().zip(1..) {
            let mut rest = code.trim_start();
            while let Some(first) = rest.chars().next() {
                let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
                let len = if is_word(first) { word } else { first.len_utf8() };
                let (text, behind) = rest.split_at(len);
                tokens.push(Token { line, text });
                rest = behind.trim_start();
            }
        }
        tokens
    }

    /// The top modules of this crate that the code names, by `crate::`, `super::` or, in programs, `quickio::`.
    fn named_modules(&self, file: &str) -> Vec<(usize, String)> {
        let tokens = self.tokens();
        // What other programs call their crate is their own.
        let root = if file == "main.rs" || file.starts_with("bin/") { "quickio" } else { "crate" };
        let mut depth = Depth::new(file);
        let mut named = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            depth.pass(&tokens, at);
            let from_path = at >= 2 && tokens[at - 1].text == ":" && tokens[at - 2].text == ":";
            let behind = match tokens[at].text {
                word if word == root && !from_path && is_colons(&tokens, at + 1) => Some(at + 3),
                "super" if root == "crate" && !from_path => depth.climb(&tokens, at),
                _ => None,
            };
            if let Some(behind) = behind {
                named.extend(first_segments(&tokens, behind));
            }
            at += 1;
        }
        named
    }

    /// Whether the statement in which the line stands has a `SAFETY:` comment before it or in it, or, where it is an
    /// item that is unsafe to use, a `# Safety` section in its docs.
    fn has_reason(&self, line: usize) -> bool {
        let index = line - 1;
        if is_reason(&self.lines[index]) {
            return true;
        }
        for above in (0..index).rev() {
            let (text, code) = (self.lines[above].trim(), self.code[above].trim());
            if is_reason(text) {
                return true;
            }
            let ended = code.ends_with([';', '{', '}', ',']) || text.is_empty();
            if ended && !text.starts_with("//") && !text.starts_with("#[") {
                return false;
            }
        }
        false
    }
}

fn is_reason(text: &str) -> bool {
    text.contains("// SAFETY:") || text.trim_start().starts_with("/// # Safety")
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_colons(tokens: &[Token<'_>], at: usize) -> bool {
    tokens.get(at).is_some_and(|token| token.text == ":")
        && tokens.get(at + 1).is_some_and(|token| token.text == ":")
}

/// How many modules deep the code stands: by its file, and by the `mod x {` around it.
struct Depth {
    file: usize,
    braces: usize,
    inline: Vec<usize>,
}

impl Depth {
    fn new(file: &str) -> Depth {
        let parts = file.split('/').count();
        let is_root = file == "lib.rs" || file == "main.rs";
        let is_folder = file.ends_with("/mod.rs");
        Depth { file: parts - usize::from(is_folder) - usize::from(is_root), braces: 0, inline: Vec::new() }
    }

    fn pass(&mut self, tokens: &[Token<'_>], at: usize) {
        match tokens[at].text {
            "{" => {
                if at >= 2 && tokens[at - 2].text == "mod" {
                    self.inline.push(self.braces);
                }
                self.braces += 1;
            }
            "}" => {
                self.braces = self.braces.saturating_sub(1);
                if self.inline.last() == Some(&self.braces) {
                    self.inline.pop();
                }
            }
            _ => {}
        }
    }

    /// Where `super::super::` climbs to the crate's root: the place behind it.
    fn climb(&self, tokens: &[Token<'_>], mut at: usize) -> Option<usize> {
        let mut climbed = 0;
        while tokens.get(at).is_some_and(|token| token.text == "super") && is_colons(tokens, at + 1) {
            climbed += 1;
            at += 3;
        }
        (climbed == self.file + self.inline.len()).then_some(at)
    }
}

/// The first segment of each path at `at`: of `a::b` it is `a`, of `{a::b, c::{d, e}}` they are `a` and `c`.
fn first_segments(tokens: &[Token<'_>], at: usize) -> Vec<(usize, String)> {
    let mut segments = Vec::new();
    let Some(first) = tokens.get(at) else { return segments };
    if first.text != "{" {
        if first.text.starts_with(is_module_name) {
            segments.push((first.line, first.text.to_string()));
        }
        return segments;
    }
    let mut depth = 0;
    let mut is_first = true;
    for token in &tokens[at..] {
        match token.text {
            "{" => depth += 1,
            "}" if depth == 1 => break,
            "}" => depth -= 1,
            "," if depth == 1 => is_first = true,
            word if depth == 1 && is_first && word.starts_with(is_module_name) => {
                segments.push((token.line, word.to_string()));
                is_first = false;
            }
            _ => {}
        }
    }
    segments
}

/// Modules are lower case; what else stands at the crate's root (a type, a macro) is nobody's part.
fn is_module_name(c: char) -> bool {
    c.is_ascii_lowercase()
}

/// The text with comments, strings and characters replaced by spaces; its lines stay where they are.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let blanked = literal_len(rest, out.chars().next_back());
        let len = blanked.unwrap_or_else(|| rest.chars().next().unwrap().len_utf8());
        let (piece, behind) = rest.split_at(len);
        match blanked {
            None => out.push_str(piece),
            Some(_) => out.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
        }
        rest = behind;
    }
    out
}

/// Where `rest` begins with a comment or literal: its length in bytes.
fn literal_len(rest: &str, before: Option<char>) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment_len(rest));
    }
    if rest.starts_with('"') {
        return Some(quoted_len(rest, '"'));
    }
    if rest.starts_with('r') && !before.is_some_and(is_word) {
        return raw_string_len(rest);
    }
    // `br"..."` and `b"..."`: the `b` stays as a word of its own, which harms nobody.
    if rest.starts_with("br") && !before.is_some_and(is_word) {
        return raw_string_len(&rest[1..]).map(|len| len + 1);
    }
    if rest.starts_with('\'') {
        return char_len(rest);
    }
    None
}

fn block_comment_len(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().unwrap().len_utf8();
        }
    }
    rest.len()
}

fn quoted_len(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_string_len(rest: &str) -> Option<usize> {
    let hashes = rest[1..].bytes().take_while(|&byte| byte == b'#').count();
    if !rest[1 + hashes..].starts_with('"') {
        return None; // a raw identifier, or a word that begins with r
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = 2 + hashes;
    Some(rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len()))
}

/// A character; not a lifetime.
fn char_len(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        return Some(quoted_len(rest, '\''));
    }
    chars.next().and_then(|(at, second)| (second == '\'').then_some(at + 1))
}

// The checker's own tests.

fn named(file: &str, text: &str) -> Vec<String> {
    Source::new(text).named_modules(file).into_iter().map(|(_, name)| name).collect()
}

#[test]
fn the_checker_blanks_comments_and_literals() {
    let table = [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */\n d */ e", "a             \n      e"),
        (r#"x("crate::a \" b") y"#, "x(               ) y"),
        ("r\"a\\\" b", "      b"),
        ("r#\"a\"b\"# c", "         c"),
        ("'a' 'b", "    'b"),
        ("'\\'' x", "     x"),
        ("'\"' x", "    x"),
        ("'static str", "'static str"),
        ("&'a str + 'x'", "&'a str +    "),
        ("for r in x", "for r in x"),
        ("\"é\" z", "    z"),
    ];
    for (text, expected) in table {
        assert_eq!(blank(text), expected, "{text}");
    }
}

#[test]
fn the_checker_finds_every_way_to_name_a_module() {
    let table: [(&str, &str, &[&str]); 16] = [
        ("a.rs", "use crate::qev::ring;", &["qev"]),
        ("a.rs", "use crate::{event::path, qev::{ring, mesh}, limits};", &["event", "qev", "limits"]),
        ("a.rs", "pub(crate) use crate::event;", &["event"]),
        ("a.rs", "fn f(x: crate::shard::Shard) {}", &["shard"]),
        ("a.rs", "use ::std::mem; crate::limits::X", &["limits"]),
        ("a.rs", "// use crate::shard;\n/* crate::shard */ \"crate::shard\"", &[]),
        ("a.rs", "use super::shard;", &["shard"]),
        ("a/mod.rs", "use super::shard;", &["shard"]),
        ("a/b.rs", "use super::shard;", &[]),
        ("a/b.rs", "use super::super::{shard, event::x};", &["shard", "event"]),
        ("a/b/mod.rs", "use super::super::shard;", &["shard"]),
        ("a.rs", "mod tests { use super::x; } use super::shard;", &["shard"]),
        ("a.rs", "mod tests { fn f() { {} } use super::super::shard; }", &["shard"]),
        ("main.rs", "quickio::server::run(quickio::config::x())", &["server", "config"]),
        (
            "bin/load/a.rs",
            "use crate::plan; use super::plan; use quickio::{qev::ring, limits};",
            &["qev", "limits"],
        ),
        ("a.rs", "use crate::Type; crate::macro_name!()", &["macro_name"]),
    ];
    for (file, text, expected) in table {
        assert_eq!(named(file, text), expected, "{file}: {text}");
    }
}

#[test]
fn the_checker_refuses_what_is_not_allowed() {
    let check = |file: &str, text: &str| names_upwards(file, &Source::new(text));
    assert_eq!(check("event/path.rs", "\nuse crate::qev::clock;"), ["2: `event` names `qev`"]);
    assert_eq!(check("protocol/raw.rs", "use crate::client::Client;"), ["1: `protocol` names `client`"]);
    assert_eq!(check("qev/mesh.rs", "use crate::metrics::Counter;"), ["1: `qev` names `metrics`"]);
    assert_eq!(check("unheard_of.rs", ""), ["1: `unheard_of` has no row in MAY_NAME"]);
    assert!(check("qev/mesh.rs", "use crate::limits; use crate::qev::ring;").is_empty());
    assert!(check("client/mod.rs", "use crate::{event, limits, metrics};").is_empty());

    let check = |file: &str, text: &str| names_the_kernel(file, &Source::new(text));
    for text in ["use glommio::x;", "use glommio;", "let x = io_uring::opcode();", "use io_uring as ring;"] {
        assert_eq!(check("shard/mod.rs", text).len(), 1, "{text}");
        assert!(check("qev/ring.rs", text).is_empty());
    }
    assert!(check("shard/mod.rs", "// glommio::x\nlet io_uring = \"io_uring::\";").is_empty());
}

#[test]
fn the_checker_wants_a_reason_for_unsafe() {
    let check = |file: &str, text: &str| unsafe_without_reason(file, &Source::new(text)).len();
    let good = [
        "// SAFETY: it holds.\nunsafe { x() }",
        "// SAFETY: it holds,\n// and how.\nlet x =\n    unsafe { x() };",
        "f(); // SAFETY: it holds.\nunsafe { x() }",
        "// SAFETY: it holds.\n#[allow(x)]\nunsafe impl Send for X {}",
        "/// Does.\n///\n/// # Safety\n///\n/// The pointer holds.\npub unsafe fn f() {}",
        "let x = unsafe { x() }; // SAFETY: it holds.",
        "// nothing unsafe here: \"unsafe\"",
    ];
    for text in good {
        assert_eq!(check("qev/ring.rs", text), 0, "{text}");
    }
    let bad = [
        "unsafe { x() }",
        "// SAFETY: of another.\nunsafe { x() };\nunsafe { y() }",
        "// SAFETY: of something else.\n\nunsafe { x() }",
        "// a comment\nunsafe impl Send for X {}",
        "pub unsafe fn f() {}",
    ];
    for text in bad {
        assert_eq!(check("qev/ring.rs", text), 1, "{text}");
    }
    assert_eq!(check("shard/mod.rs", good[0]), 1, "not in this file");
}
