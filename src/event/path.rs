//! Event paths. A path is cleaned once, when it is received, and is valid from then on.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::limits::PATH_BYTES_MAX;

/// An owned event path, which is clean. Clones share the text.
///
/// A path consists of segments that are separated by `/`. The characters of a segment are `A-Z a-z 0-9 _ -`. A path is
/// never empty, has no `//` and no `/` at its end, and has at most [`PATH_BYTES_MAX`] bytes. A map with `Path` keys can
/// be queried with a `&str`.
///
/// ```
/// use quickio::event::path::Path;
///
/// let path = Path::parse("/app/@user/(new)>>>>").unwrap();
/// assert_eq!(path.as_str(), "/app/user/new");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(Arc<str>);

/// A borrowed event path, which is clean. It borrows the text in which it was received if that text was already clean.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathRef<'a>(&'a str);

/// The reason why a text is not a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No bytes are left after cleaning.
    #[error("the path is empty")]
    Empty,
    /// More than [`PATH_BYTES_MAX`] bytes are left after cleaning.
    #[error("the path is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
}

impl Path {
    /// Cleans `raw` and copies the result.
    pub fn parse(raw: &str) -> Result<Path, PathError> {
        let mut scratch = String::new();
        PathRef::clean(raw, &mut scratch).map(PathRef::to_path)
    }

    /// Returns the borrowed path.
    pub fn as_ref(&self) -> PathRef<'_> {
        PathRef(&self.0)
    }

    /// Returns the text of the path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'a> PathRef<'a> {
    /// Cleans a path that a peer has sent. If the path is not clean already, `scratch` is overwritten.
    ///
    /// Cleaning removes every byte that is not allowed in a path, replaces runs of `/` by a single one, and removes a
    /// `/` at the end. It never adds a slash: `chat` stays `chat`. The text is scanned once. `scratch` does not grow
    /// beyond [`PATH_BYTES_MAX`], no matter how long `raw` is.
    pub fn clean(raw: &'a str, scratch: &'a mut String) -> Result<PathRef<'a>, PathError> {
        // A text that is longer than a path may be is not clean, or is too long.
        let cleaned = if raw.len() <= PATH_BYTES_MAX && is_clean(raw.as_bytes()) {
            raw
        } else {
            copy_clean(raw.as_bytes(), scratch)?;
            scratch.as_str()
        };
        if cleaned.is_empty() { Err(PathError::Empty) } else { Ok(PathRef(cleaned)) }
    }

    /// Returns this text as a path, or `None` if it is not one: it is empty, too long or not clean.
    pub fn exact(text: &'a str) -> Option<PathRef<'a>> {
        let is_path = !text.is_empty() && text.len() <= PATH_BYTES_MAX && is_clean(text.as_bytes());
        is_path.then_some(PathRef(text))
    }

    /// Returns the text of the path.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Returns an owned path, with a copy of the text.
    pub fn to_path(self) -> Path {
        Path(Arc::from(self.0))
    }
}

/// The class of each byte in a path: [`WORD`], [`SLASH`] or [`OTHER`].
static CLASSES: [u8; 256] = classes();
const WORD: u8 = 0;
const SLASH: u8 = 1;
const OTHER: u8 = 2;

const fn classes() -> [u8; 256] {
    let mut classes = [OTHER; 256];
    let mut byte = 0;
    while byte < 256 {
        let as_u8 = byte as u8;
        if as_u8.is_ascii_alphanumeric() || as_u8 == b'_' || as_u8 == b'-' {
            classes[byte] = WORD;
        }
        byte += 1;
    }
    classes[b'/' as usize] = SLASH;
    classes
}

/// Returns whether a path is clean. There is no branch for each byte, because most paths are clean, and all of their
/// bytes must be examined.
fn is_clean(raw: &[u8]) -> bool {
    let mut before = WORD;
    let mut faults = 0;
    for &byte in raw {
        let class = CLASSES[usize::from(byte)];
        faults |= (class & OTHER) | (class & before);
        before = class;
    }
    faults == 0 && before != SLASH
}

/// Cleans `raw` into `cleaned`. The result is ASCII.
fn copy_clean(raw: &[u8], cleaned: &mut String) -> Result<(), PathError> {
    cleaned.clear();
    let mut before = WORD;
    for &byte in raw {
        match CLASSES[usize::from(byte)] {
            OTHER => continue,
            SLASH if before == SLASH => continue,
            // If there is no room for a slash, it must be the one at the end, or the path is too long.
            SLASH if cleaned.len() == PATH_BYTES_MAX => continue,
            _ if cleaned.len() == PATH_BYTES_MAX => return Err(PathError::TooLong),
            class => before = class,
        }
        cleaned.push(char::from(byte));
    }
    if before == SLASH {
        cleaned.pop();
    }
    Ok(())
}

impl Borrow<str> for Path {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<PathRef<'_>> for Path {
    fn from(path: PathRef<'_>) -> Path {
        path.to_path()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for PathRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for PathRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(raw: &str) -> Result<String, PathError> {
        Path::parse(raw).map(|path| path.to_string())
    }

    #[test]
    fn paths_are_cleaned() {
        let cases = [
            ("/app/user/new", "/app/user/new"),
            ("/app/@user/(new)>>>>", "/app/user/new"),
            ("chat", "chat"),
            ("chat/", "chat"),
            ("chat//", "chat"),
            ("//chat///say//", "/chat/say"),
            ("/@/@/chat", "/chat"),
            ("/chat/@", "/chat"),
            ("@/chat", "/chat"),
            ("@", ""),
            ("/", ""),
            ("/@/", ""),
            ("", ""),
            ("/A-Z_09", "/A-Z_09"),
            ("/caf\u{e9}/\u{1f980}", "/caf"),
            ("/a\0b c\nd", "/abcd"),
            ("/a:1=b", "/a1b"),
        ];
        for (raw, clean) in cases {
            let expected = if clean.is_empty() { Err(PathError::Empty) } else { Ok(clean.to_owned()) };
            assert_eq!(cleaned(raw), expected, "{raw:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_allowed_are_removed() {
        for byte in 0..=127_u8 {
            let raw = format!("/a{}b", char::from(byte));
            let kept = byte.is_ascii_alphanumeric() || b"/_-".contains(&byte);
            assert_eq!(cleaned(&raw).unwrap(), if kept { raw.as_str() } else { "/ab" });
        }
    }

    /// The scan must find a fault at every position.
    #[test]
    fn one_fault_anywhere_is_found() {
        for length in 1..70 {
            for at in 0..length {
                let mut raw = "a".repeat(length);
                raw.replace_range(at..=at, "@");
                assert_eq!(cleaned(&raw).ok(), (length > 1).then(|| "a".repeat(length - 1)));
                raw.replace_range(at..=at, "//");
                let expected = format!("{}/{}", "a".repeat(at), "a".repeat(length - at - 1));
                let expected = if at == length - 1 { &expected[..at] } else { &expected };
                assert_eq!(cleaned(&raw).ok(), (length > 1).then(|| expected.to_owned()));
            }
        }
    }

    #[test]
    fn only_clean_texts_are_paths_as_they_are() {
        let longest = "a".repeat(PATH_BYTES_MAX);
        for path in ["/a", "a/b", "/A-Z_09/x", &longest] {
            assert_eq!(PathRef::exact(path).map(PathRef::as_str), Some(path));
        }
        let too_long = format!("/{longest}");
        for text in ["", "/", "/a/", "//a", "/a//b", "/a b", "/a:0=1", "/\u{e9}", &too_long] {
            assert_eq!(PathRef::exact(text), None, "{text:?}");
        }
    }

    #[test]
    fn clean_paths_are_borrowed() {
        let (raw, mut scratch) = ("/chat/say", String::new());
        let path = PathRef::clean(raw, &mut scratch).unwrap();
        assert_eq!(path.as_str().as_ptr(), raw.as_ptr());
        assert_eq!(scratch.capacity(), 0);
    }

    #[test]
    fn the_limit_applies_after_cleaning() {
        let longest = "a".repeat(PATH_BYTES_MAX);
        for raw in [longest.clone(), format!("{longest}/"), format!("{longest}//@/"), format!("{longest}@")] {
            assert_eq!(cleaned(&raw).as_deref(), Ok(longest.as_str()));
        }
        for raw in
            [format!("{longest}a"), format!("{longest}/a"), format!("{longest}@a"), format!("/{longest}")]
        {
            assert_eq!(cleaned(&raw), Err(PathError::TooLong));
        }
    }

    #[test]
    fn hostile_paths_need_no_memory() {
        let mut scratch = String::new();
        let raws = ["/".repeat(1 << 16), "/@".repeat(1 << 15), "@".repeat(1 << 16), "/a//".repeat(1 << 14)];
        for (raw, error) in
            raws.iter().zip([PathError::Empty, PathError::Empty, PathError::Empty, PathError::TooLong])
        {
            assert_eq!(PathRef::clean(raw, &mut scratch), Err(error));
            assert!(scratch.capacity() <= 2 * PATH_BYTES_MAX, "the scratch must not grow with the input");
        }
    }

    #[test]
    fn maps_can_be_queried_with_text() {
        let path = Path::parse("/a").unwrap();
        let hashed = std::collections::HashMap::from([(path.clone(), 1)]);
        let ordered = std::collections::BTreeMap::from([(path, 2)]);
        assert_eq!((hashed.get("/a"), ordered.get("/a")), (Some(&1), Some(&2)));
    }

    #[test]
    fn paths_are_small() {
        assert_eq!(size_of::<Path>(), 16);
        assert_eq!(size_of::<Option<Path>>(), 16);
    }
}
