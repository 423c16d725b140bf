//! Rates of events: `10/s`.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

/// A maximum rate of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
// Invariants: neither number is 0; the burst is at most `BURST_MAX`; the interval between events is at least
// `INTERVAL_MIN`; an empty bucket is full again after at most `FULL_MAX`.
pub struct Rate {
    /// The number of events in each `unit`.
    events: u32,
    unit: Unit,
    /// The number of events that may come at once.
    burst: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Unit {
    Second,
    Minute,
    Hour,
}

/// The reason why a text is not a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RateError {
    /// There is no slash.
    #[error("it has no slash between the number of events and the unit of time")]
    NoSlash,
    /// The part before the slash.
    #[error("the part before the slash is not a number from 1 to {max}", max = Rate::BURST_MAX)]
    BadNumber,
    /// The part behind the slash.
    #[error("the unit of time must be s, m or h")]
    BadUnit,
    /// More events than the times of buckets can tell apart.
    #[error("it is more than 10000 events a second")]
    TooFast,
    /// A bucket that fills for longer than [`Rate::FULL_MAX`].
    #[error("with this burst, a client that has sent all at once would have to wait for more than a day")]
    TooSlow,
}

impl Rate {
    /// The maximum number of events in a unit of time, and at once.
    pub const BURST_MAX: u32 = 1_000_000;

    /// The minimum of the time between two events. Times are counted in microseconds, so that rounding one stays below a
    /// hundredth.
    const INTERVAL_MIN: Duration = Duration::from_micros(100);

    /// The maximum time until an empty bucket is full again.
    pub const FULL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

    /// Parses `10/s`, `600/m` or `5/h`. Without a `burst`, a client that has paused may send the whole number at once.
    ///
    /// # Panics
    ///
    /// Panics if `burst` is 0 or greater than [`Rate::BURST_MAX`].
    pub fn parse(text: &str, burst: Option<u32>) -> Result<Rate, RateError> {
        let (number, unit) = text.split_once('/').ok_or(RateError::NoSlash)?;
        let is_number = number.bytes().all(|b| b.is_ascii_digit());
        let events = number.parse().ok().filter(|events| is_number && (1..=Rate::BURST_MAX).contains(events));
        let events = events.ok_or(RateError::BadNumber)?;
        let unit = Unit::ALL.into_iter().find(|one| one.letter() == unit).ok_or(RateError::BadUnit)?;
        let burst = burst.unwrap_or(events);
        assert!((1..=Rate::BURST_MAX).contains(&burst), "a burst is 1 to {}", Rate::BURST_MAX);
        let rate = Rate { events, unit, burst };
        match rate.interval() {
            interval if interval < Rate::INTERVAL_MIN => Err(RateError::TooFast),
            interval if interval * burst > Rate::FULL_MAX => Err(RateError::TooSlow),
            _ => Ok(rate),
        }
    }

    /// Returns the time between two events of a client that sends as often as it may.
    #[must_use]
    pub fn interval(self) -> Duration {
        self.unit.duration() / self.events
    }

    /// Returns the interval, and the time that a bucket may lack to being full if it has a token, in microseconds.
    #[inline]
    pub(super) fn as_micros(self) -> (u64, u64) {
        let interval = self.unit.duration().as_micros() as u64 / u64::from(self.events);
        (interval, interval * u64::from(self.burst - 1))
    }

    /// Returns the number of events that may come at once.
    #[must_use]
    pub fn burst(self) -> u32 {
        self.burst
    }
}

impl Unit {
    const ALL: [Unit; 3] = [Unit::Second, Unit::Minute, Unit::Hour];

    fn letter(self) -> &'static str {
        match self {
            Unit::Second => "s",
            Unit::Minute => "m",
            Unit::Hour => "h",
        }
    }

    fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Unit::Second => 1,
            Unit::Minute => 60,
            Unit::Hour => 3600,
        })
    }
}

/// Writes the rate as a setting accepts it, and its burst if it is not the default.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.events, self.unit.letter())?;
        if self.burst == self.events { Ok(()) } else { write!(f, ", burst {}", self.burst) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, interval_us) in [
            ("1/s", 1_000_000),
            ("10/s", 100_000),
            ("600/m", 100_000),
            ("5/h", 720_000_000),
            ("10000/s", 100),
        ] {
            let rate = Rate::parse(text, None).unwrap();
            assert_eq!(rate.interval(), Duration::from_micros(interval_us), "{text}");
            assert_eq!(rate.to_string(), text);
        }
        assert_eq!(Rate::parse("10/s", Some(50)).unwrap().to_string(), "10/s, burst 50");
        assert_eq!(Rate::parse("1/h", Some(24)).unwrap().to_string(), "1/h, burst 24");
        assert_eq!(Rate::parse("1/h", Some(25)), Err(RateError::TooSlow));
        for (text, error) in [
            ("", RateError::NoSlash),
            ("10", RateError::NoSlash),
            ("/s", RateError::BadNumber),
            ("0/s", RateError::BadNumber),
            ("+1/s", RateError::BadNumber),
            ("1.5/s", RateError::BadNumber),
            ("1000001/s", RateError::BadNumber),
            ("10/", RateError::BadUnit),
            ("10/d", RateError::BadUnit),
            ("10001/s", RateError::TooFast),
            ("600001/m", RateError::TooFast),
            ("10/s ", RateError::BadUnit),
            ("10/sec", RateError::BadUnit),
        ] {
            assert_eq!(Rate::parse(text, None).unwrap_err(), error, "{text:?}");
        }
    }
}
