//! The date of a response (RFC 9110, 6.6.1). A codec has no clock: its caller formats the date, once a second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A time as the header `Date` has it: `Sun, 06 Nov 1994 08:49:37 GMT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpDate([u8; HttpDate::LEN]);

impl HttpDate {
    /// The length of a date, which is the same for every date, in bytes.
    pub const LEN: usize = 29;

    /// The beginning of Unix time, for tests.
    pub const EPOCH: HttpDate = HttpDate(*b"Thu, 01 Jan 1970 00:00:00 GMT");

    /// The last second of the year 9999, in seconds since 1970: later dates do not have this form.
    const LAST_SECS: u64 = 253_402_300_799;

    /// Returns this time as a date. Its fraction of a second is dropped. A time that has no date, which the clock of a
    /// host may show if it is set wrong, becomes the nearest one that has.
    pub fn at(time: SystemTime) -> HttpDate {
        let secs =
            time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().min(HttpDate::LAST_SECS));
        let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(secs));
        HttpDate(text.as_bytes().try_into().expect("dates have the same length"))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn dates() {
        assert_eq!(HttpDate::at(UNIX_EPOCH), HttpDate::EPOCH);
        let example = UNIX_EPOCH + Duration::from_millis(784_111_777_999);
        assert_eq!(HttpDate::at(example).as_bytes(), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(HttpDate::at(UNIX_EPOCH - Duration::from_secs(1)), HttpDate::EPOCH);
        let last = UNIX_EPOCH + Duration::from_secs(HttpDate::LAST_SECS);
        assert_eq!(HttpDate::at(last).as_bytes(), b"Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(HttpDate::at(last + Duration::from_secs(1)), HttpDate::at(last));
    }
}
