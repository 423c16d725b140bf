//! The query of a session's requests: `sid=<32 hex digits>&connect=true&seq=<n>&close=true&linger=true`. The parameters may
//! be in any order and among other parameters.

use super::{HttpRefusal, Sid};

/// The parameters of a query. The values are not unescaped, because no valid value needs an escape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters<'a> {
    pub sid: Option<&'a str>,
    pub connect: bool,
    pub close: bool,
    pub linger: bool,
    pub seq: Option<&'a str>,
}

impl<'a> Parameters<'a> {
    /// Parses a query. A second `sid` or `seq` is an error, because another reader might use the other one.
    pub fn parse(query: &'a str) -> Result<Parameters<'a>, HttpRefusal> {
        let mut parameters = Parameters::default();
        for parameter in query.split('&') {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let before = match name {
                "sid" => parameters.sid.replace(value),
                "seq" => parameters.seq.replace(value),
                "connect" => {
                    parameters.connect |= value == "true";
                    None
                }
                "close" => {
                    parameters.close |= value == "true";
                    None
                }
                "linger" => {
                    parameters.linger |= value == "true";
                    None
                }
                _ => None,
            };
            if before.is_some() {
                return Err(HttpRefusal::Parameters);
            }
        }
        Ok(parameters)
    }

    /// Returns the session that the query names.
    pub fn sid(&self) -> Result<Sid, HttpRefusal> {
        let digits = self.sid.filter(|sid| sid.len() == 32 && sid.bytes().all(|b| b.is_ascii_hexdigit()));
        digits.and_then(|digits| u128::from_str_radix(digits, 16).ok()).map(Sid::from).ok_or(HttpRefusal::Sid)
    }

    /// Returns the position of the request in the order of the session's requests.
    pub fn seq(&self) -> Result<Option<u64>, HttpRefusal> {
        let Some(text) = self.seq else { return Ok(None) };
        match number(text.as_bytes()) {
            Some(0) | None => Err(HttpRefusal::Parameters),
            seq => Ok(seq),
        }
    }
}

/// Parses a number below 2^64 that consists of digits alone.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::testing;

    /// The naive twin: searches for each name separately.
    fn naive(query: &str) -> Result<(Option<&str>, bool, Option<&str>), HttpRefusal> {
        let values = |name: &str| -> Vec<&str> {
            let own = query.split('&').filter(|it| *it == name || it.starts_with(&format!("{name}=")));
            own.map(|it| it.strip_prefix(&format!("{name}=")).unwrap_or("")).collect()
        };
        let one = |values: Vec<_>| {
            if values.len() > 1 { Err(HttpRefusal::Parameters) } else { Ok(values.first().copied()) }
        };
        Ok((one(values("sid"))?, values("connect").contains(&"true"), one(values("seq"))?))
    }

    #[test]
    fn fuzz_queries() {
        testing::fuzz(|random| {
            let words = [
                "sid",
                "seq",
                "connect",
                "=",
                "&",
                "true",
                "1",
                "=1",
                "&sid=x",
                "&seq=2",
                "&connect=true",
                "é",
            ];
            let query: String = (0..random.below(9)).map(|_| random.pick(&words)).collect();
            let parsed = Parameters::parse(&query).map(|it| (it.sid, it.connect, it.seq));
            assert_eq!(parsed, naive(&query), "{query}");
        });
    }

    #[test]
    fn fuzz_numbers() {
        testing::fuzz(|random| {
            let digits =
                ["0", "1", "9", "18446744073709551615", "1844674407370955161", "5", "6", "+", " ", "٣"];
            let text: String = (0..random.below(4)).map(|_| random.pick(&digits)).collect();
            let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let expected = text.parse().ok().filter(|_| is_digits);
            assert_eq!(number(text.as_bytes()), expected, "{text}");
        });
    }
}
