//! The first words of comments.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Words with which no comment should open. A comment that opens with one of them describes its item by a riddle; the
/// plain form is a noun phrase for a type and a verb for a function.
pub const AVOIDED: [&str; 7] = ["What", "Whether", "Who", "It", "So", "By", "Where"];

/// A comment: the line on which it begins, and its text.
#[derive(Debug, PartialEq, Eq)]
pub struct Comment {
    pub line: usize,
    pub text: String,
}

impl Comment {
    /// Returns whether the comment opens with one of the avoided words.
    pub fn opens_badly(&self) -> bool {
        let first = self.text.split(|c: char| !c.is_alphanumeric() && c != '_').find(|word| !word.is_empty());
        first.is_some_and(|word| AVOIDED.contains(&word))
    }
}

/// A kind of source text whose comments are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Language {
    RustDoc,
    Rust,
    Python,
    JavaScript,
    C,
    Shell,
}

impl Language {
    /// The languages of a file, by its extension. Rust has two: its doc comments are counted apart from its others.
    pub fn of(extension: &str) -> &'static [Language] {
        match extension {
            "rs" => &[Language::RustDoc, Language::Rust],
            "py" => &[Language::Python],
            "js" | "mjs" | "cjs" | "ts" => &[Language::JavaScript],
            "c" | "h" | "cpp" | "hpp" => &[Language::C],
            "sh" => &[Language::Shell],
            _ => &[],
        }
    }

    /// The comments of a text. Lines of comment that follow each other are one comment.
    ///
    /// In languages other than Rust, only comments that begin their line are found.
    pub fn comments(self, text: &str) -> Vec<Comment> {
        match self {
            Language::RustDoc => doc_comments(text.parse().expect("a Rust file has tokens")),
            Language::Rust => {
                lines_with(text, |line| line.strip_prefix("//").filter(|rest| !rest.starts_with(['/', '!'])))
            }
            Language::Python => {
                let mut found = lines_with(text, |line| line.strip_prefix('#'));
                found.extend(blocks(text, &["\"\"\"", "r\"\"\""], "\"\"\""));
                found
            }
            Language::JavaScript | Language::C => {
                let mut found = lines_with(text, |line| line.strip_prefix("//"));
                found.extend(blocks(text, &["/*"], "*/"));
                found
            }
            Language::Shell => {
                lines_with(text, |line| line.strip_prefix('#').filter(|rest| !rest.starts_with('!')))
            }
        }
    }
}

/// Runs of lines that are comments, by a function that returns the text behind a trimmed line's comment mark.
fn lines_with(text: &str, comment: impl Fn(&str) -> Option<&str>) -> Vec<Comment> {
    let mut found: Vec<Comment> = Vec::new();
    let mut is_within = false;
    for (line, number) in text.lines().zip(1..) {
        let content = comment(line.trim());
        match content {
            Some(content) if is_within => {
                let before = &mut found.last_mut().unwrap().text;
                *before += "\n";
                *before += content;
            }
            Some(content) => found.push(Comment { line: number, text: content.to_string() }),
            None => {}
        }
        is_within = content.is_some();
    }
    found
}

/// Blocks that begin a line with one of `starts` and go to `end`.
fn blocks(text: &str, starts: &[&str], end: &str) -> Vec<Comment> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut number = 1;
    while !rest.is_empty() {
        let line = rest.lines().next().unwrap();
        let start = starts.iter().find_map(|start| line.trim_start().strip_prefix(start));
        let mut len = line.len() + 1;
        if let Some(content) = start {
            let from = line.len() - content.len();
            let content_len = rest[from..].find(end).unwrap_or(rest.len() - from);
            found.push(Comment { line: number, text: rest[from..from + content_len].to_string() });
            let behind = from + content_len;
            len = behind + rest[behind..].find('\n').map_or(rest.len() - behind, |at| at + 1);
        }
        let len = len.min(rest.len());
        number += rest[..len].matches('\n').count();
        rest = &rest[len..];
    }
    found
}

/// The doc comments in a Rust file's tokens, in which each line of one is an attribute `doc = "..."`.
fn doc_comments(tokens: TokenStream) -> Vec<Comment> {
    let mut found: Vec<Comment> = Vec::new();
    // The marks of the doc comment that the tokens before continue, and those of this attribute: `#` or `#!`.
    let (mut continued, mut marks) = (String::new(), String::new());
    for token in tokens {
        match token {
            TokenTree::Punct(punct) if ['#', '!'].contains(&punct.as_char()) => marks.push(punct.as_char()),
            TokenTree::Group(group) => {
                let Some(text) = doc_text(&group) else {
                    found.extend(doc_comments(group.stream()));
                    continued.clear();
                    marks.clear();
                    continue;
                };
                if marks == continued {
                    let before = &mut found.last_mut().unwrap().text;
                    *before += "\n";
                    *before += &text;
                } else {
                    found.push(Comment { line: group.span().start().line, text });
                }
                continued = std::mem::take(&mut marks);
            }
            _ => {
                continued.clear();
                marks.clear();
            }
        }
    }
    found
}

/// The text of `[doc = "..."]`.
fn doc_text(group: &proc_macro2::Group) -> Option<String> {
    if group.delimiter() != Delimiter::Bracket {
        return None;
    }
    let mut tokens = group.stream().into_iter();
    match (tokens.next()?, tokens.next()?, tokens.next()?) {
        (TokenTree::Ident(doc), TokenTree::Punct(_), TokenTree::Literal(literal)) if doc == "doc" => {
            syn::parse_str::<syn::LitStr>(&literal.to_string()).ok().map(|text| text.value())
        }
        _ => None,
    }
}

#[test]
fn comments_are_found() {
    type Expected = &'static [(usize, &'static str)];
    let table: [(Language, &str, Expected); 12] = [
        (
            Language::RustDoc,
            "//! A file.\n\n/// One,\n/// two.\nfn f() {}",
            &[(1, "A file."), (3, "One,\ntwo.")],
        ),
        (
            Language::RustDoc,
            "struct X {\n    /// A field.\n    x: u8,\n    /** Another. */ y: u8,\n}",
            &[(2, "A field."), (4, "Another.")],
        ),
        (Language::RustDoc, "m! {\n    /// In a macro.\n    x,\n}", &[(2, "In a macro.")]),
        (Language::RustDoc, "// none\nconst X: &str = \"\n/// none\n\";", &[]),
        (
            Language::Rust,
            "// One,\n// two.\nx(); // none\n/// none\n//! none\n    // three",
            &[(1, "One,\ntwo."), (6, "three")],
        ),
        (Language::Shell, "#!/bin/sh\n# One,\n# two.\nx # none", &[(2, "One,\ntwo.")]),
        (
            Language::Python,
            "# One.\ndef f():\n    \"\"\"Two,\n\n    three.\"\"\"\n    x()",
            &[(1, "One."), (3, "Two,\n\n    three.")],
        ),
        (Language::Python, "\"\"\"One.\"\"\"\n\"\"\"Two.\"\"\"", &[(1, "One."), (2, "Two.")]),
        (
            Language::JavaScript,
            "/** One.\n * Two. */ x()\n// Three.",
            &[(3, "Three."), (1, "* One.\n * Two.")],
        ),
        (Language::JavaScript, "x() // none", &[]),
        (Language::C, "/*\n * One.\n */\nint x; /* none */", &[(1, "* One.")]),
        (Language::C, "/* no end", &[(1, "no end")]),
    ];
    for (language, text, expected) in table {
        let found = language.comments(text);
        let trimmed = |text: &str| Vec::from_iter(text.lines().map(str::trim)).join("\n").trim().to_string();
        let found = Vec::from_iter(found.iter().map(|comment| (comment.line, trimmed(&comment.text))));
        let expected = Vec::from_iter(expected.iter().map(|(line, text)| (*line, trimmed(text))));
        assert_eq!(found, expected, "{language:?}: {text}");
    }
}

#[test]
fn openings_are_judged() {
    let comment = |text: &str| Comment { line: 1, text: text.into() };
    for text in ["What it is.", " * Whether it is.", "It is.", "By which", "\n\n Where?", "`So`"] {
        assert!(comment(text).opens_badly(), "{text}");
    }
    for text in ["", "Whatever", "The what.", "Its name.", "Returns whether it is so.", "it", "IT"] {
        assert!(!comment(text).opens_badly(), "{text}");
    }
}
