//! Queries of requests that read: `?prefix=/chat&limit=10&next=0.4096`, `?path=/chat/rust&before=e7f3.1000`.

use super::refusal::ApiRefusal;
use crate::history::Position;
use crate::limits::API_PAGE_MAX;
use std::borrow::Cow;

/// The place at which a list goes on: a shard, and a place there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ListPlace {
    pub shard: usize,
    pub place: u32,
}

impl ListPlace {
    /// Returns the place behind a part of a list.
    pub fn behind(self, next: Option<u32>) -> ListPlace {
        match next {
            Some(place) => ListPlace { place, ..self },
            None => ListPlace { shard: self.shard + 1, place: 0 },
        }
    }

    /// Returns the text of the place, or `None` behind the last shard.
    pub fn text(self, shards: usize) -> Option<String> {
        (self.shard < shards).then(|| format!("{}.{}", self.shard, self.place))
    }
}

/// The part of a list that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// The place to begin at.
    pub from: ListPlace,
    /// The maximum number of entries.
    pub limit: usize,
}

/// The number of entries if the query has no `limit`.
const LIMIT: usize = 100;

/// The parameters of a query.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query<'a> {
    /// The value of the parameter that the list has.
    pub filter: Option<Cow<'a, str>>,
    pub page: Page,
}

impl<'a> Query<'a> {
    /// Parses a query, in which the list's own parameter has the name `filter`.
    ///
    /// # Errors
    ///
    /// A parameter is unknown, occurs twice, or has no valid value.
    pub fn parse(query: &'a str, filter: &str) -> Result<Query<'a>, ApiRefusal> {
        let mut parsed = Query { filter: None, page: Page { from: ListPlace::default(), limit: LIMIT } };
        for_each_parameter(query, |name, value| {
            match name {
                "limit" => parsed.page.limit = limit(&value)?,
                "next" => parsed.page.from = place(&value)?,
                name if name == filter => parsed.filter = Some(value),
                _ => return Err(unknown(&format!("{filter}, limit and next"))),
            }
            Ok(())
        })?;
        Ok(parsed)
    }
}

/// The parameters of a query for events of a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HistoryQuery<'a> {
    /// The path, which is not checked yet.
    pub path: Cow<'a, str>,
    /// The position before which the events are.
    pub before: Option<Position>,
    /// The maximum number of events.
    pub limit: usize,
}

impl<'a> HistoryQuery<'a> {
    /// Parses a query.
    ///
    /// # Errors
    ///
    /// There is no path, or a parameter is unknown, occurs twice, or has no valid value.
    pub fn parse(query: &'a str) -> Result<HistoryQuery<'a>, ApiRefusal> {
        let (mut path, mut before, mut limit) = (None, None, LIMIT);
        for_each_parameter(query, |name, value| {
            match name {
                "path" => path = Some(value),
                "before" => before = Some(position(&value)?),
                "limit" => limit = self::limit(&value)?,
                _ => return Err(unknown("path, before and limit")),
            }
            Ok(())
        })?;
        let path = path.ok_or_else(|| ApiRefusal::invalid("the parameter path is needed"))?;
        Ok(HistoryQuery { path, before, limit })
    }
}

/// Calls `each` with the names and decoded values of the parameters of a query.
fn for_each_parameter<'a>(
    query: &'a str,
    mut each: impl FnMut(&'a str, Cow<'a, str>) -> Result<(), ApiRefusal>,
) -> Result<(), ApiRefusal> {
    let mut seen = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if seen.contains(&name) {
            return Err(ApiRefusal::invalid(&format!("the parameter {name} occurs twice")));
        }
        seen.push(name);
        let value = decoded(value)
            .ok_or_else(|| ApiRefusal::invalid(&format!("the parameter {name} is not encoded as a URL")))?;
        each(name, value)?;
    }
    Ok(())
}

fn unknown(names: &str) -> ApiRefusal {
    ApiRefusal::invalid(&format!("there is no parameter of this name; there are {names}"))
}

fn position(value: &str) -> Result<Position, ApiRefusal> {
    value.parse().map_err(|error| ApiRefusal::invalid(&format!("before: {error}")))
}

fn limit(value: &str) -> Result<usize, ApiRefusal> {
    let limit = number(value).filter(|limit| (1..=API_PAGE_MAX as u32).contains(limit));
    let error = || ApiRefusal::invalid(&format!("limit must be 1 to {API_PAGE_MAX}"));
    limit.map(|limit| limit as usize).ok_or_else(error)
}

fn place(value: &str) -> Result<ListPlace, ApiRefusal> {
    let place = value.split_once('.').and_then(|(shard, place)| Some((number(shard)?, number(place)?)));
    let error = || ApiRefusal::invalid("next must be the `next` of the answer before");
    place.map(|(shard, place)| ListPlace { shard: shard as usize, place }).ok_or_else(error)
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Returns the text of a value in which `%XX` stands for a byte, and `+` for a space.
fn decoded(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains(['%', '+']) {
        return Some(value.into());
    }
    let (mut bytes, mut rest) = (Vec::new(), value.as_bytes());
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'%' => {
                let (hex, behind) = rest.split_first_chunk::<2>()?;
                let digit = |byte: u8| char::from(byte).to_digit(16);
                bytes.push((digit(hex[0])? * 16 + digit(hex[1])?) as u8);
                rest = behind;
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok().map(Cow::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_parsed() {
        let query = |query| Query::parse(query, "prefix").unwrap();
        let all = Query { filter: None, page: Page { from: ListPlace::default(), limit: 100 } };
        assert_eq!(query(""), all);
        let from = ListPlace { shard: 1, place: 4096 };
        let page = Page { from, limit: 7 };
        assert_eq!(
            query("prefix=%2Fa+b%C3%A9&limit=7&next=1.4096"),
            Query { filter: Some("/a b\u{e9}".into()), page }
        );
        assert_eq!(query("prefix=/a").filter.as_deref(), Some("/a"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for wrong in [
            "limit=0",
            "limit=1001",
            "limit=",
            "limit=+1",
            "limit=x",
            "next=1",
            "next=1.x",
            "next=1.2.3",
            "next=.",
            "next=1.4294967296",
            "user=7",
            "prefix=a&prefix=b",
            "prefix=%2",
            "prefix=%zz",
            "prefix=%ff",
            "limit=1&limit=1",
        ] {
            assert_eq!(Query::parse(wrong, "prefix").unwrap_err().status, 400, "{wrong}");
        }
    }

    #[test]
    fn queries_for_events_are_parsed() {
        let path = || "/chat/rust".into();
        let parsed = HistoryQuery::parse("path=%2Fchat/rust").unwrap();
        assert_eq!(parsed, HistoryQuery { path: path(), before: None, limit: 100 });
        let parsed = HistoryQuery::parse("limit=7&before=e7f3.1000&path=/chat/rust").unwrap();
        let before = Some("e7f3.1000".parse().unwrap());
        assert_eq!(parsed, HistoryQuery { path: path(), before, limit: 7 });
        for (wrong, error) in [
            ("", "the parameter path is needed"),
            ("path=/a&before=7", "before: it is not a position such as e7f3.1044"),
            ("path=/a&limit=0", "limit must be 1 to 1000"),
            ("path=/a&next=0.1", "there is no parameter of this name; there are path, before and limit"),
            ("path=/a&path=/b", "the parameter path occurs twice"),
        ] {
            let refusal = HistoryQuery::parse(wrong).unwrap_err();
            assert!(refusal.status == 400 && refusal.error.starts_with(error), "{wrong}: {}", refusal.error);
        }
    }
}
