//! The router: which of the registered events a path belongs to.
//!
//! Every event is in one map, by its path. A path that is not there belongs to the nearest ancestor that
//! handles its children: its beginnings, each up to a `/`, are looked up from the longest to the shortest. A
//! peer may send a path of hundreds of segments, so only those beginnings are looked up that are as long as
//! an event that handles children: how many these are, and how much is hashed for them, is decided by the
//! applications.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use ahash::RandomState;

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
    events: HashMap<Path, Event<T>, RandomState>,
    /// By a path's length: whether an event of such a path handles its children. It ends with the longest of
    /// them.
    lengths: Vec<bool>,
}

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub struct Routed<'r, 'p, T> {
    /// What was registered.
    pub value: &'r T,
    /// The rest of the path, from the slash on, where an ancestor takes it; empty where it was registered
    /// itself.
    pub extra: &'p str,
}

/// Why an event was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    #[error("an event is registered at this path already")]
    Duplicate,
}

#[derive(Debug)]
struct Event<T> {
    handles_children: bool,
    value: T,
}

impl<T> Router<T> {
    /// A router without events.
    pub fn new() -> Router<T> {
        Router { events: HashMap::default(), lengths: Vec::new() }
    }

    /// Registers an event at `path`; with `children`, the paths below lead to it too unless one nearer takes
    /// them.
    pub fn register(&mut self, path: &Path, children: bool, value: T) -> Result<(), RegisterError> {
        let Entry::Vacant(vacant) = self.events.entry(path.clone()) else {
            return Err(RegisterError::Duplicate);
        };
        vacant.insert(Event { handles_children: children, value });
        if children {
            self.lengths.resize(self.lengths.len().max(path.as_str().len() + 1), false);
            self.lengths[path.as_str().len()] = true;
        }
        Ok(())
    }

    /// The event registered at `path`, else the nearest ancestor's that handles its children.
    pub fn route<'a>(&self, path: PathRef<'a>) -> Option<Routed<'_, 'a, T>> {
        match self.events.get(path.as_str()) {
            Some(event) => Some(Routed { value: &event.value, extra: "" }),
            None => self.route_to_ancestor(path.as_str()),
        }
    }

    /// Registered events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether no event is registered.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    fn route_to_ancestor<'a>(&self, path: &'a str) -> Option<Routed<'_, 'a, T>> {
        self.ends(path).find_map(|end| {
            let event = self.events.get(&path[..end]).filter(|event| event.handles_children)?;
            Some(Routed { value: &event.value, extra: &path[end..] })
        })
    }

    /// Where an ancestor of `path` that handles its children may end, the nearest first.
    fn ends(&self, path: &str) -> impl Iterator<Item = usize> {
        let ends = 0..path.len().min(self.lengths.len());
        ends.rev().filter(|end| self.lengths[*end] && path.as_bytes()[*end] == b'/')
    }
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
        }
        assert_eq!(router.len(), events.len());
        router
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
    fn applications_decide_how_much_is_looked_up() {
        let router = router(&[("/a", true), ("/b", true), ("/a/a/a/a", true), ("/a/b", false)]);
        let hostile = Path::parse(&"/a".repeat(crate::limits::PATH_BYTES_MAX / 2)).unwrap();
        assert!(router.ends(hostile.as_str()).eq([8, 2]));
        let routed = router.route(hostile.as_ref()).unwrap();
        assert_eq!((*routed.value, routed.extra.len()), ("/a/a/a/a", hostile.as_str().len() - 8));
    }
}
