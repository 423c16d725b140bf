//! The router: which of the registered events a path belongs to, found in one pass over the path.
//!
//! A radix tree: the paths that were registered share their beginnings, and a node is made only where they part.
//! So the cost of a look-up is bounded by the path's bytes and never by how many segments a peer makes of them,
//! and there is no hash to flood. What follows a `/` decides no more than any other byte, but for one rule: a path
//! belongs to an ancestor only where the rest of it begins with `/`.

use super::path::{Path, PathRef};

/// Events by their path.
///
/// ```
/// use quickio::event::{path::Path, router::Router};
///
/// let mut router = Router::new();
/// router.register(&Path::parse("/game").unwrap(), true, "the game").unwrap();
/// let path = Path::parse("/game/7/move").unwrap();
/// let routed = router.route(path.as_ref()).unwrap();
/// assert_eq!((*routed.value, routed.extra), ("the game", "/7/move"));
/// ```
#[derive(Debug)]
pub struct Router<T> {
    /// The first is the root: its label is empty.
    nodes: Vec<Node<T>>,
    events: usize,
}

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub struct Routed<'r, 'p, T> {
    /// What was registered.
    pub value: &'r T,
    /// The rest of the path, from the slash on, where an ancestor takes it; empty where it was registered itself.
    pub extra: &'p str,
}

/// Why an event was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    #[error("an event is registered at this path already")]
    Duplicate,
}

/// Invariants: the label of every node but the root has bytes; the labels of a node's children begin with different
/// bytes, in the order of `heads`; a node without an event has two children at least (the root excepted).
#[derive(Debug)]
struct Node<T> {
    label: Box<[u8]>,
    event: Option<Event<T>>,
    /// The first byte of each child's label: what is searched is dense.
    heads: Vec<u8>,
    children: Vec<usize>,
}

#[derive(Debug)]
struct Event<T> {
    handles_children: bool,
    value: T,
}

impl<T> Router<T> {
    /// A router without events.
    pub fn new() -> Router<T> {
        Router { nodes: vec![Node::leaf(b"")], events: 0 }
    }

    /// Registers an event at `path`; with `children`, the paths below lead to it too unless one nearer takes them.
    pub fn register(&mut self, path: &Path, children: bool, value: T) -> Result<(), RegisterError> {
        let node = self.node_at(path.as_str().as_bytes());
        let event = &mut self.nodes[node].event;
        if event.is_some() {
            return Err(RegisterError::Duplicate);
        }
        *event = Some(Event { handles_children: children, value });
        self.events += 1;
        Ok(())
    }

    /// The event registered at `path`, else the nearest ancestor's that handles its children.
    pub fn route<'a>(&self, path: PathRef<'a>) -> Option<Routed<'_, 'a, T>> {
        let mut node = &self.nodes[ROOT];
        let mut rest = path.as_str();
        let mut nearest = None;
        loop {
            if let Some(event) = &node.event {
                if rest.is_empty() {
                    return Some(Routed { value: &event.value, extra: rest });
                }
                if event.handles_children && rest.starts_with('/') {
                    nearest = Some(Routed { value: &event.value, extra: rest });
                }
            }
            let Some(child) = node.child(rest.as_bytes()) else { return nearest };
            node = &self.nodes[child];
            if !rest.as_bytes().starts_with(&node.label) {
                return nearest;
            }
            rest = &rest[node.label.len()..];
        }
    }

    /// Registered events.
    pub fn len(&self) -> usize {
        self.events
    }

    /// Whether no event is registered.
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// The node where `path` ends, made where it is not there yet.
    fn node_at(&mut self, path: &[u8]) -> usize {
        let mut node = ROOT;
        let mut rest = path;
        while !rest.is_empty() {
            let Some(child) = self.nodes[node].child(rest) else { return self.add_child(node, rest) };
            let shared = shared_len(&self.nodes[child].label, rest);
            if shared < self.nodes[child].label.len() {
                self.split(child, shared);
            }
            node = child;
            rest = &rest[shared..];
        }
        node
    }

    fn add_child(&mut self, parent: usize, label: &[u8]) -> usize {
        let child = self.nodes.len();
        self.nodes.push(Node::leaf(label));
        self.nodes[parent].adopt(label[0], child);
        child
    }

    /// Parts a node's label: the node keeps the first `at` bytes, a new only child takes the rest and all else.
    fn split(&mut self, node: usize, at: usize) {
        let lower_index = self.nodes.len();
        let upper = Node::leaf(&self.nodes[node].label[..at]);
        let mut lower = std::mem::replace(&mut self.nodes[node], upper);
        lower.label = lower.label[at..].into();
        self.nodes[node].adopt(lower.label[0], lower_index);
        self.nodes.push(lower);
    }
}

const ROOT: usize = 0;

impl<T> Node<T> {
    fn leaf(label: &[u8]) -> Node<T> {
        Node { label: label.into(), event: None, heads: Vec::new(), children: Vec::new() }
    }

    fn adopt(&mut self, head: u8, child: usize) {
        self.heads.push(head);
        self.children.push(child);
    }

    /// The only child that `rest` may go on with. A path has 64 different bytes: that bounds the search.
    fn child(&self, rest: &[u8]) -> Option<usize> {
        let head = rest.first()?;
        let at = self.heads.iter().position(|candidate| candidate == head)?;
        Some(self.children[at])
    }
}

fn shared_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl<T> Default for Router<T> {
    fn default() -> Router<T> {
        Router::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(events: &[(&'static str, bool)]) -> Router<&'static str> {
        let mut router = Router::new();
        for &(path, children) in events {
            router.register(&Path::parse(path).unwrap(), children, path).unwrap();
            router.assert_invariants();
        }
        assert_eq!(router.len(), events.len());
        router
    }

    impl<T> Router<T> {
        fn assert_invariants(&self) {
            for (index, node) in self.nodes.iter().enumerate() {
                assert_eq!(node.label.is_empty(), index == ROOT);
                assert!(index == ROOT || node.event.is_some() || node.children.len() > 1);
                let heads: Vec<u8> = node.children.iter().map(|child| self.nodes[*child].label[0]).collect();
                assert_eq!(heads, node.heads);
                let different: std::collections::BTreeSet<u8> = heads.into_iter().collect();
                assert_eq!(different.len(), node.heads.len());
            }
        }
    }

    #[test]
    fn the_nearest_takes_the_path() {
        let router = router(&[
            ("/a", true),
            ("/a/b", false),
            ("/a/b/c/d", true),
            ("/ev", true),
            ("/event", false),
            ("chat", true),
        ]);
        let cases = [
            ("/a", Some(("/a", ""))),
            ("/a/x", Some(("/a", "/x"))),
            ("/a/b", Some(("/a/b", ""))),
            ("/a/b/c", Some(("/a", "/b/c"))),
            ("/a/bb", Some(("/a", "/bb"))),
            ("/a/b/c/d", Some(("/a/b/c/d", ""))),
            ("/a/b/c/d/e/f", Some(("/a/b/c/d", "/e/f"))),
            ("/a/b/c/dd", Some(("/a", "/b/c/dd"))),
            ("/ev", Some(("/ev", ""))),
            ("/ev2", None),
            ("/ev/2", Some(("/ev", "/2"))),
            ("/even", None),
            ("/event", Some(("/event", ""))),
            ("/event/x", None),
            ("/events", None),
            ("chat", Some(("chat", ""))),
            ("chat/x", Some(("chat", "/x"))),
            ("/chat", None),
            ("/e", None),
            ("b", None),
        ];
        for (asked, expected) in cases {
            let path = Path::parse(asked).unwrap();
            let routed = router.route(path.as_ref()).map(|routed| (*routed.value, routed.extra));
            assert_eq!(routed, expected, "{asked}");
        }
    }

    #[test]
    fn nothing_leads_nowhere() {
        let router: Router<()> = Router::default();
        assert!(router.is_empty());
        assert_eq!(router.route(Path::parse("/a").unwrap().as_ref()), None);
    }

    #[test]
    fn a_path_is_registered_once() {
        let mut router = router(&[("/a/b", false), ("/a/c", false)]);
        let register =
            |router: &mut Router<_>, path: &str| router.register(&Path::parse(path).unwrap(), true, "again");
        assert_eq!(register(&mut router, "/a/b"), Err(RegisterError::Duplicate));
        assert_eq!(register(&mut router, "//a/b/"), Err(RegisterError::Duplicate));
        assert_eq!(register(&mut router, "/a"), Ok(()), "where paths part there is a node, but no event");
        assert_eq!(router.len(), 3);
    }

    /// Every order of registration makes the same tree, by what it answers.
    #[test]
    fn the_order_of_registration_does_not_matter() {
        const PATHS: [&str; 4] = ["/ab", "/a", "/abc/d", "/abd"];
        for order in 0..256 {
            let order: Vec<usize> = (0..4).map(|place| order >> (2 * place) & 3).collect();
            if PATHS.iter().enumerate().all(|(index, _)| order.contains(&index)) {
                let events: Vec<_> = order.iter().map(|index| (PATHS[*index], true)).collect();
                let router = router(&events);
                for path in PATHS {
                    let routed =
                        router.route(Path::parse(path).unwrap().as_ref()).map(|routed| *routed.value);
                    assert_eq!(routed, Some(path));
                }
            }
        }
    }

    #[test]
    fn many_segments() {
        let router = router(&[("/a", true), ("/a/a/a/a", true)]);
        let hostile = Path::parse(&"/a".repeat(crate::limits::PATH_BYTES_MAX / 2)).unwrap();
        let routed = router.route(hostile.as_ref()).unwrap();
        assert_eq!((*routed.value, routed.extra.len()), ("/a/a/a/a", hostile.as_str().len() - 8));
    }
}
