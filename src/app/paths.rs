//! A cache of parsed paths. Applications in C and workers name the same few paths again and again, as text. Each thread
//! keeps the paths that it parsed last.

use crate::event::path::{Path, PathError};
use crate::limits::PATHS_KEPT;
use std::cell::RefCell;

const _: () = assert!(PATHS_KEPT.is_power_of_two());

thread_local! {
    static CACHE: RefCell<PathCache> = const { RefCell::new(PathCache::new()) };
}

/// Parses a path. The path replaces another one in the thread's cache if their slots coincide.
///
/// # Errors
///
/// The path is empty or too long.
pub fn parse(text: &str) -> Result<Path, PathError> {
    // The cache of a thread that is ending may already have been destroyed. Nothing in the cache calls back, so a
    // borrow never fails.
    let cached = CACHE.try_with(|cache| cache.try_borrow_mut().map(|mut cache| cache.parse(text)));
    cached.ok().and_then(Result::ok).unwrap_or_else(|| Path::parse(text))
}

/// Returns the path of the event that sends a client to another server (docs/protocol.md, section 4).
pub fn of_move() -> Path {
    parse("/qio/move").expect("a path that is part of the program is clean")
}

/// A direct-mapped cache of parsed paths.
struct PathCache {
    paths: [Option<Path>; PATHS_KEPT],
}

/// Returns the slot of a path. Only the end of the path is hashed, because paths differ there. If two paths have the
/// same slot, each costs the other one a parse, and nothing else.
fn slot_of(text: &str) -> usize {
    let end = text.as_bytes().last_chunk::<8>().map_or(0, |end| u64::from_le_bytes(*end));
    let mixed = (end ^ text.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize % PATHS_KEPT
}

impl PathCache {
    const fn new() -> PathCache {
        PathCache { paths: [const { None }; PATHS_KEPT] }
    }

    fn parse(&mut self, text: &str) -> Result<Path, PathError> {
        let slot = &mut self.paths[slot_of(text)];
        if let Some(path) = slot.as_ref().filter(|path| path.as_str() == text) {
            return Ok(path.clone());
        }
        let path = Path::parse(text)?;
        *slot = Some(path.clone());
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_paths_equal_parsed_paths() {
        for round in 0..3 {
            for nth in 0..4 * PATHS_KEPT {
                let text = format!("/a//b{}@{nth}/", round % 2);
                assert_eq!(parse(&text), Path::parse(&text), "{text}");
                let clean = format!("/a/{nth}");
                assert_eq!(parse(&clean).unwrap().as_str(), clean);
            }
        }
        assert!(parse("").is_err());
        assert!(parse(&"/a".repeat(1000)).is_err());
    }
}
