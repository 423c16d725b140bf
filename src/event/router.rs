//! The router, which finds the registered event to which a path belongs.
//!
//! All events are in one map, by their paths. A path that is not in the map belongs to its nearest ancestor that
//! handles its children. The router looks up the prefixes of the path that end before a `/`, from the longest to the
//! shortest. A peer may send a path of hundreds of segments; the router therefore looks up only prefixes that are as
//! long as a registered event that handles children. Applications, and not peers, decide how many look-ups there are
//! and how many bytes are hashed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use ahash::RandomState;

use super::path::{Path, PathRef};

/// The registered events, by their paths.
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
    events: HashMap<Path, RouterEntry<T>, RandomState>,
    /// For each length of a path: `true` if an event with a path of this length handles its children. The last item
    /// belongs to the longest of these paths.
    parent_lengths: Vec<bool>,
}

/// The event to which a path belongs.
#[derive(Debug, PartialEq, Eq)]
pub struct Routed<'r, 'p, T> {
    /// The value that was registered.
    pub value: &'r T,
    /// The rest of the path from the slash on, if the event is an ancestor. Empty if the path itself was registered.
    pub extra: &'p str,
}

/// The reason why an event was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    #[error("an event is registered at this path already")]
    Duplicate,
}

#[derive(Debug)]
struct RouterEntry<T> {
    handles_children: bool,
    value: T,
}

impl<T> Router<T> {
    /// Returns a router without events.
    pub fn new() -> Router<T> {
        Router { events: HashMap::default(), parent_lengths: Vec::new() }
    }

    /// Registers an event at `path`. If `children` is set, the paths below it belong to the event too, unless a nearer
    /// event handles them.
    pub fn register(&mut self, path: &Path, children: bool, value: T) -> Result<(), RegisterError> {
        let Entry::Vacant(vacant) = self.events.entry(path.clone()) else {
            return Err(RegisterError::Duplicate);
        };
        vacant.insert(RouterEntry { handles_children: children, value });
        if children {
            self.parent_lengths.resize(self.parent_lengths.len().max(path.as_str().len() + 1), false);
            self.parent_lengths[path.as_str().len()] = true;
        }
        Ok(())
    }

    /// Returns the event at `path`, or else its nearest ancestor that handles its children.
    pub fn route<'a>(&self, path: PathRef<'a>) -> Option<Routed<'_, 'a, T>> {
        match self.events.get(path.as_str()) {
            Some(event) => Some(Routed { value: &event.value, extra: "" }),
            None => self.route_to_ancestor(path.as_str()),
        }
    }

    /// Returns the number of registered events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Returns `true` if no event is registered.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    fn route_to_ancestor<'a>(&self, path: &'a str) -> Option<Routed<'_, 'a, T>> {
        self.ends(path).find_map(|end| {
            let event = self.events.get(&path[..end]).filter(|event| event.handles_children)?;
            Some(Routed { value: &event.value, extra: &path[end..] })
        })
    }

    /// Returns the positions at which an ancestor of `path` that handles its children may end, the nearest first.
    fn ends(&self, path: &str) -> impl Iterator<Item = usize> {
        let ends = 0..path.len().min(self.parent_lengths.len());
        ends.rev().filter(|end| self.parent_lengths[*end] && path.as_bytes()[*end] == b'/')
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
    fn the_nearest_event_handles_the_path() {
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
    fn an_empty_router_has_no_routes() {
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
        assert_eq!(
            register(&mut router, "/a"),
            Ok(()),
            "an ancestor of registered paths is not registered itself"
        );
        assert_eq!(router.len(), 3);
    }

    /// Every order of registration gives the same routes.
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
    fn applications_decide_the_number_of_look_ups() {
        let router = router(&[("/a", true), ("/b", true), ("/a/a/a/a", true), ("/a/b", false)]);
        let hostile = Path::parse(&"/a".repeat(crate::limits::PATH_BYTES_MAX / 2)).unwrap();
        assert!(router.ends(hostile.as_str()).eq([8, 2]));
        let routed = router.route(hostile.as_ref()).unwrap();
        assert_eq!((*routed.value, routed.extra.len()), ("/a/a/a/a", hostile.as_str().len() - 8));
    }
}
