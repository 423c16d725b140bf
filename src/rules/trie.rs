//! The search for the first rule that matches a path.
//!
//! All patterns are in one tree, segment by segment, so that a path is compared with each text once and not with each rule.
//! A path can follow a text and a wildcard at the same time; the search follows both, but no branch whose rules all come
//! after the best one found so far.

use super::pattern::{Pattern, Segment};
use crate::event::find::find_byte;

/// The number of no rule, which is greater than all others.
const NONE: u32 = u32::MAX;

/// The root of the tree.
const ROOT: u32 = 0;

/// A set of patterns, each with its number.
///
/// Invariants: `first` of a node is the least number in it and below it; the texts of a node are sorted and differ; a node has
/// a greater index than the node above it. The depth is at most `PATTERN_SEGMENTS_MAX`, which bounds the recursion.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<TrieNode>,
}

#[derive(Debug)]
struct TrieNode {
    /// The least number of a pattern that ends here or below.
    first: u32,
    /// The number of the pattern that ends here.
    end: u32,
    /// The number of the pattern that ends here with `**`.
    rest: u32,
    /// The node behind any segment: `*` or `{user}`. `NONE` if there is none.
    any: u32,
    /// The nodes behind texts.
    texts: Vec<(Box<str>, u32)>,
}

impl Trie {
    /// Builds the tree. The number of a pattern is its position.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a Pattern>) -> Trie {
        let mut trie = Trie { nodes: vec![TrieNode::new()] };
        for (number, pattern) in patterns.into_iter().enumerate() {
            trie.insert(pattern, u32::try_from(number).expect("rules are bounded"));
        }
        trie
    }

    /// Returns the least number of a pattern that covers a clean path.
    pub fn find(&self, path: &str) -> Option<usize> {
        let mut best = NONE;
        self.visit(ROOT, Some(path.strip_prefix('/').unwrap_or(path)), &mut best);
        (best != NONE).then_some(best as usize)
    }

    /// Compares what is left of a path with the patterns from this node on.
    fn visit(&self, node: u32, path: Option<&str>, best: &mut u32) {
        let node = &self.nodes[node as usize];
        if node.first >= *best {
            return;
        }
        *best = node.rest.min(*best);
        let Some(path) = path else {
            *best = node.end.min(*best);
            return;
        };
        let (segment, rest) = match find_byte(path.as_bytes(), b'/') {
            Some(at) => (&path[..at], Some(&path[at + 1..])),
            None => (path, None),
        };
        if let Ok(at) = node.texts.binary_search_by(|(text, _)| (**text).cmp(segment)) {
            self.visit(node.texts[at].1, rest, best);
        }
        if node.any != NONE {
            self.visit(node.any, rest, best);
        }
    }

    fn insert(&mut self, pattern: &Pattern, number: u32) {
        let mut at = ROOT;
        for segment in pattern.segments() {
            let node = self.node_mut(at);
            node.first = node.first.min(number);
            at = match segment {
                Segment::Rest => {
                    node.rest = node.rest.min(number);
                    return;
                }
                Segment::Any | Segment::User if node.any != NONE => node.any,
                Segment::Any | Segment::User => {
                    let added = self.add();
                    self.node_mut(at).any = added;
                    added
                }
                Segment::Text(text) => self.behind_text(at, text),
            };
        }
        let node = self.node_mut(at);
        node.first = node.first.min(number);
        node.end = node.end.min(number);
    }

    /// Returns the node behind a text, which may be new.
    fn behind_text(&mut self, at: u32, text: &str) -> u32 {
        match self.node_mut(at).texts.binary_search_by(|(other, _)| (**other).cmp(text)) {
            Ok(place) => self.node_mut(at).texts[place].1,
            Err(place) => {
                let added = self.add();
                self.node_mut(at).texts.insert(place, (text.into(), added));
                added
            }
        }
    }

    fn add(&mut self) -> u32 {
        self.nodes.push(TrieNode::new());
        u32::try_from(self.nodes.len() - 1).expect("patterns are bounded")
    }

    fn node_mut(&mut self, node: u32) -> &mut TrieNode {
        &mut self.nodes[node as usize]
    }
}

impl TrieNode {
    fn new() -> TrieNode {
        TrieNode { first: NONE, end: NONE, rest: NONE, any: NONE, texts: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the first pattern that covers the path, by trying them in order.
    fn find_naively(patterns: &[Pattern], path: &str) -> Option<usize> {
        patterns.iter().position(|pattern| pattern.covers(path))
    }

    fn parse(patterns: &[&str]) -> Vec<Pattern> {
        patterns.iter().map(|pattern| pattern.parse().unwrap()).collect()
    }

    #[test]
    fn the_first_pattern_in_order_is_found() {
        let patterns = parse(&["/a/*/c", "/a/b/**", "/a/{user}", "/**", "/a/b/c"]);
        let trie = Trie::new(&patterns);
        for (path, expected) in
            [("/a/b/c", 0), ("/a/b", 1), ("a/b/x/y", 1), ("/a/x", 2), ("/a/x/y", 3), ("/b", 3), ("a", 3)]
        {
            assert_eq!(trie.find(path), Some(expected), "{path}");
        }
        assert_eq!(Trie::new([]).find("/a"), None);
        assert_eq!(Trie::new(&parse(&["/a", "/b/**"])).find("/c/a"), None);
    }

    fn segment(choices: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
        prop::sample::select(choices)
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        let segments = prop::collection::vec(segment(&["a", "b", "ab", "*", "*"]), 0..5);
        (segments, 0..3_usize, 0..8_usize).prop_map(|(mut segments, end, user)| {
            if user < segments.len() {
                segments[user] = "{user}";
            }
            if end == 0 || segments.is_empty() {
                segments.push("**");
            }
            format!("/{}", segments.join("/")).parse().unwrap()
        })
    }

    proptest! {
        #[test]
        fn the_search_agrees_with_its_naive_twin(
            patterns in prop::collection::vec(pattern(), 0..40),
            paths in prop::collection::vec(
                (any::<bool>(), prop::collection::vec(segment(&["a", "b", "ab", "abc"]), 1..7)), 1..20),
        ) {
            let trie = Trie::new(&patterns);
            for (is_rooted, segments) in paths {
                let path = format!("{}{}", if is_rooted { "/" } else { "" }, segments.join("/"));
                prop_assert_eq!(trie.find(&path), find_naively(&patterns, &path), "{}", path);
            }
        }
    }
}
