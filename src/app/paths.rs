//! Paths by their text. Applications in C, and workers, name the same few again and again: each thread keeps those that it
//! parsed last.

use crate::event::path::{Path, PathError};
use crate::limits::PATHS_KEPT;
use std::cell::RefCell;

const _: () = assert!(PATHS_KEPT.is_power_of_two());

thread_local! {
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept::new()) };
}

/// The path of a text. One that the thread has no place for takes the place of another.
pub fn parse(text: &str) -> Result<Path, PathError> {
    // A thread that ends has no memory left; and nothing in there calls back.
    let kept = KEPT.try_with(|kept| kept.try_borrow_mut().map(|mut kept| kept.parse(text)));
    kept.ok().and_then(Result::ok).unwrap_or_else(|| Path::parse(text))
}

/// The event that sends a client to another server (protocol.md, section 4).
pub fn of_move() -> Path {
    parse("/qio/move").expect("a path of the program's own is clean")
}

struct Kept {
    paths: [Option<Path>; PATHS_KEPT],
}

/// Paths differ at their ends. No more is hashed: two that meet cost each other a parse, and nothing else.
fn place_of(text: &str) -> usize {
    let end = text.as_bytes().last_chunk::<8>().map_or(0, |end| u64::from_le_bytes(*end));
    let mixed = (end ^ text.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize % PATHS_KEPT
}

impl Kept {
    const fn new() -> Kept {
        Kept { paths: [const { None }; PATHS_KEPT] }
    }

    fn parse(&mut self, text: &str) -> Result<Path, PathError> {
        let place = &mut self.paths[place_of(text)];
        if let Some(path) = place.as_ref().filter(|path| path.as_str() == text) {
            return Ok(path.clone());
        }
        let path = Path::parse(text)?;
        *place = Some(path.clone());
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_would_be_parsed() {
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
