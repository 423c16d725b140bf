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
