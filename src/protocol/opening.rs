//! The headers of the request that opens a WebSocket or an HTTP session, as far as the server keeps them: a token, and those
//! that applications can read.

use crate::limits::APP_HEADERS_BYTES_MAX;
use smallvec::SmallVec;

/// The values of all headers with a name, in order.
pub(super) type HeaderValues<'a> = SmallVec<[&'a [u8]; 2]>;

/// The headers that are kept.
#[derive(Clone, Debug, Default)]
pub struct WantedHeaders {
    /// A token: `Authorization: Bearer`.
    pub bearer: bool,
    /// Others, by their names in lower case.
    pub names: Vec<Box<str>>,
}

/// The error of a request with two `Authorization` headers: it is not known which one counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TwoTokens;

/// The headers of a request that were kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpeningHeaders {
    /// The token.
    pub bearer: Option<Box<str>>,
    /// The values of others, each with the place of its name in [`WantedHeaders::names`].
    pub values: Vec<(u8, Box<str>)>,
    /// The number of headers that were left out, because they are too long.
    pub left_out: u8,
}

impl WantedHeaders {
    /// No header is kept.
    pub const NONE: WantedHeaders = WantedHeaders { bearer: false, names: Vec::new() };

    /// Returns the headers of a request that are kept, or `None` if there are none. `values` returns the values of the
    /// headers with a name.
    ///
    /// # Errors
    ///
    /// There are two tokens.
    pub(super) fn of<'a>(
        &self,
        values: impl Fn(&str) -> HeaderValues<'a>,
    ) -> Result<Option<Box<OpeningHeaders>>, TwoTokens> {
        if !self.bearer && self.names.is_empty() {
            return Ok(None);
        }
        let bearer = if self.bearer { bearer(values("Authorization"))? } else { None };
        let mut opening = OpeningHeaders { bearer, ..OpeningHeaders::default() };
        let mut bytes = 0;
        for (place, name) in self.names.iter().enumerate() {
            let Some(value) = joined(values(name), name) else { continue };
            if bytes + value.len() > APP_HEADERS_BYTES_MAX {
                opening.left_out += 1;
                continue;
            }
            bytes += value.len();
            opening.values.push((place as u8, value.into()));
        }
        let has_any = opening != OpeningHeaders::default();
        Ok(has_any.then(|| Box::new(opening)))
    }
}

impl OpeningHeaders {
    /// Returns the memory of the headers in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let values = self.values.iter().map(|(_, value)| value.len()).sum::<usize>();
        let entries = self.values.capacity() * size_of::<(u8, Box<str>)>();
        size_of::<OpeningHeaders>() + self.bearer.as_deref().map_or(0, str::len) + entries + values
    }
}

/// Returns the token of `Authorization: Bearer` (RFC 6750, 2.1). Other schemes are for somebody else.
fn bearer(values: HeaderValues<'_>) -> Result<Option<Box<str>>, TwoTokens> {
    const SCHEME: &[u8] = b"bearer ";
    let value = match values.as_slice() {
        [] => return Ok(None),
        [value] => value.trim_ascii(),
        _ => return Err(TwoTokens),
    };
    let Some((scheme, token)) = value.split_at_checked(SCHEME.len()) else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Ok(None);
    }
    // A token is text of a few characters: anything else is refused as a token.
    Ok(Some(String::from_utf8_lossy(token.trim_ascii()).into()))
}

/// Returns the value of a header. Several lines are joined, as one line would have them (RFC 9110, 5.3; RFC 6265, 5.4).
fn joined(values: HeaderValues<'_>, name: &str) -> Option<String> {
    let separator = if name == "cookie" { "; " } else { ", " };
    let mut values = values.into_iter().map(String::from_utf8_lossy);
    let mut joined = values.next()?.into_owned();
    for value in values {
        joined.push_str(separator);
        joined.push_str(&value);
    }
    Some(joined)
}
