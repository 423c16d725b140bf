//! Patterns of paths, of rules and of tokens: `/user/{user}/*/**`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::limits::{PATH_BYTES_MAX, PATTERN_SEGMENTS_MAX};

/// A pattern of paths.
///
/// It consists of segments, each behind a `/`. A segment is text, which stands for itself, or one of these:
///
/// | segment | matches |
/// | --- | --- |
/// | `{user}` | the segment that is the authenticated user; at most once |
/// | `*` | any one segment |
/// | `**` | the rest of the path, which may be empty; only at the end |
///
/// The slash at the beginning of a path makes no difference: `/chat/*` matches `/chat/rust` and `chat/rust`.
///
/// ```
/// use quickio::rules::Pattern;
///
/// let pattern: Pattern = "/user/{user}/**".parse().unwrap();
/// assert!(pattern.matches("/user/7/inbox", Some("7")) && pattern.matches("/user/7", Some("7")));
/// assert!(!pattern.matches("/user/7/inbox", Some("8")) && !pattern.matches("/user/7/inbox", None));
/// assert!("/user/**/inbox".parse::<Pattern>().is_err());
/// ```
// Invariant: the text was parsed, and has no slash at its end. Matching reads the text: tokens may have many patterns, one
// set for each client, and a text takes a sixth of what a vector of segments takes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Box<str>);

/// A segment of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    /// Text that stands for itself.
    Text(&'a str),
    /// `{user}`.
    User,
    /// `*`.
    Any,
    /// `**`.
    Rest,
}

/// The reason why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    /// The text does not begin with a slash.
    #[error("a path begins with a slash")]
    NoSlash,
    /// Nothing is left without slashes.
    #[error("it has no segment; /** is every path")]
    Empty,
    /// Two slashes, or one at the end.
    #[error("it has an empty segment: two slashes in a row, or a slash at its end")]
    EmptySegment,
    /// `**` before the last segment.
    #[error("** stands for the rest of the path, so nothing may follow it; * is any one segment")]
    RestNotLast,
    /// A second `{user}`.
    #[error("{{user}} appears twice")]
    TwoUsers,
    /// A segment with bytes that no path has.
    #[error(
        "the segment `{0}` matches no path: a segment is {{user}}, *, ** or text of the characters A-Z a-z 0-9 _ -"
    )]
    BadSegment(String),
    /// More than [`PATTERN_SEGMENTS_MAX`] segments.
    #[error("it has more than {PATTERN_SEGMENTS_MAX} segments")]
    TooManySegments,
    /// More than [`PATH_BYTES_MAX`] bytes.
    #[error("it has more than {PATH_BYTES_MAX} bytes")]
    TooLong,
}

impl Pattern {
    /// Returns the text of the pattern.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the segments.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        segments(&self.0).map(Segment::of)
    }

    /// Returns whether `{user}` is one of the segments.
    #[must_use]
    pub fn has_user(&self) -> bool {
        self.user_segment().is_some()
    }

    /// Returns the number of segments before `{user}`.
    #[must_use]
    pub fn user_segment(&self) -> Option<usize> {
        self.segments().position(|segment| segment == Segment::User)
    }

    /// Returns whether the pattern matches a clean path, for a client with this user. `{user}` matches nothing for a
    /// client that is not authenticated.
    #[must_use]
    pub fn matches(&self, path: &str, user: Option<&str>) -> bool {
        self.matches_with(path, |segment| Some(segment) == user)
    }

    /// Returns whether the pattern matches a clean path for some user: `{user}` matches any one segment.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        self.matches_with(path, |_| true)
    }

    fn matches_with(&self, path: &str, is_user: impl Fn(&str) -> bool) -> bool {
        let mut rest = segments(path);
        for segment in self.segments() {
            let matches = match (segment, rest.next()) {
                (Segment::Rest, _) => return true,
                (_, None) => false,
                (Segment::Any, Some(_)) => true,
                (Segment::User, Some(found)) => is_user(found),
                (Segment::Text(text), Some(found)) => text == found,
            };
            if !matches {
                return false;
            }
        }
        rest.next().is_none()
    }
}

/// Returns the segments of a path or pattern. It is not empty.
pub(super) fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

impl<'a> Segment<'a> {
    fn of(text: &'a str) -> Segment<'a> {
        match text {
            "{user}" => Segment::User,
            "*" => Segment::Any,
            "**" => Segment::Rest,
            text => Segment::Text(text),
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Pattern, PatternError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        let Some(body) = text.strip_prefix('/') else { return Err(PatternError::NoSlash) };
        if body.is_empty() {
            return Err(PatternError::Empty);
        }
        let (mut users, mut has_ended) = (0, false);
        for (number, segment) in body.split('/').enumerate() {
            if number == PATTERN_SEGMENTS_MAX {
                return Err(PatternError::TooManySegments);
            }
            if has_ended {
                return Err(PatternError::RestNotLast);
            }
            match Segment::of(segment) {
                Segment::Text("") => return Err(PatternError::EmptySegment),
                Segment::Text(text) if !text.bytes().all(is_of_path) => {
                    return Err(PatternError::BadSegment(text.to_owned()));
                }
                Segment::User => users += 1,
                Segment::Rest => has_ended = true,
                Segment::Any | Segment::Text(_) => {}
            }
        }
        if users > 1 { Err(PatternError::TwoUsers) } else { Ok(Pattern(text.into())) }
    }
}

/// Returns whether a segment of a path may have this byte.
fn is_of_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn patterns_match_paths() {
        for (text, user, matching, other) in [
            (
                "/chat/*",
                None,
                &["/chat/rust", "chat/rust"][..],
                &["/chat", "/chat/a/b", "/chats/a", "/a"][..],
            ),
            ("/chat/**", None, &["/chat", "chat", "/chat/a", "/chat/a/b/c"], &["/chats", "/cha", "/a/chat"]),
            ("/**", None, &["/a", "a", "/a/b/c"], &[]),
            ("/*/**", None, &["/a", "/a/b/c"], &[]),
            ("/a/*/b/**", None, &["/a/x/b", "/a/x/b/c"], &["/a/b", "/a/x/c", "/a/x"]),
            ("/a", None, &["/a", "a"], &["/A", "/a/b", "/b", "/aa"]),
            ("/u/{user}", Some("7"), &["/u/7"], &["/u/8", "/u", "/u/7/x", "/u/77"]),
            ("/u/{user}/**", Some("7"), &["/u/7", "/u/7/x/y"], &["/u/8/x", "/u"]),
            ("/u/{user}", None, &[], &["/u/7", "/u"]),
            ("/u/{user}", Some("a@b"), &[], &["/u/ab"]),
            ("/u/{user}", Some(""), &[], &["/u", "/u/7"]),
        ] {
            let pattern = pattern(text);
            for path in matching {
                assert!(pattern.matches(path, user) && pattern.covers(path), "{text} {user:?} {path}");
            }
            for path in other {
                assert!(!pattern.matches(path, user), "{text} {user:?} {path}");
                let is_of_another = pattern.covers(path);
                assert!(!is_of_another || pattern.has_user(), "{text} {path}");
            }
        }
    }

    #[test]
    fn wrong_patterns_are_explained() {
        let deep = "/a".repeat(PATTERN_SEGMENTS_MAX + 1);
        let long = format!("/{}", "a".repeat(PATH_BYTES_MAX));
        for (text, error) in [
            ("", PatternError::NoSlash),
            ("chat", PatternError::NoSlash),
            ("/", PatternError::Empty),
            ("//", PatternError::EmptySegment),
            ("/a/", PatternError::EmptySegment),
            ("/a//b", PatternError::EmptySegment),
            ("/**/a", PatternError::RestNotLast),
            ("/**/", PatternError::RestNotLast),
            ("/{user}/{user}", PatternError::TwoUsers),
            ("/a/{users}", PatternError::BadSegment("{users}".into())),
            ("/a*", PatternError::BadSegment("a*".into())),
            ("/***", PatternError::BadSegment("***".into())),
            ("/a b", PatternError::BadSegment("a b".into())),
            ("/caf\u{e9}", PatternError::BadSegment("caf\u{e9}".into())),
            (&deep, PatternError::TooManySegments),
            (&long, PatternError::TooLong),
        ] {
            assert_eq!(text.parse::<Pattern>().unwrap_err(), error, "{text:?}");
        }
        assert_eq!(pattern("/a/{user}/*/**").user_segment(), Some(1));
        assert_eq!(size_of::<Pattern>(), 16);
    }
}
