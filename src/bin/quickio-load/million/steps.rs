//! The steps, and the lines that request them.

use std::time::Duration;

/// The longest duration of a step: every step must end.
const SECONDS_MAX: f64 = 86_400.0;

/// The highest rate: faster ones only measure how late the load generator is.
const PER_SECOND_MAX: f64 = 1e6;

/// A step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MillionStep {
    /// Opens all clients.
    Connect,
    /// Answers heartbeats.
    Hold { time: Duration },
    /// Publishes one event to all clients.
    Broadcast,
    /// Publishes to every room `rate` times a second. `churn` clients a second leave and come back meanwhile.
    Rooms { time: Duration, rate: f64, churn: f64 },
    /// Waits until the server has ended, and connects all clients again.
    Return,
    /// Waits until every client has been told to leave.
    Stop,
}

/// The forms of all lines, for the message about an invalid one.
const FORMS: &str = "connect; hold S; broadcast; rooms S RATE; rooms S RATE CHURN; return; stop";

impl MillionStep {
    /// Parses a line.
    pub fn parse(line: &str) -> Result<MillionStep, String> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["connect"] => Ok(MillionStep::Connect),
            ["hold", time] => Ok(MillionStep::Hold { time: seconds(time)? }),
            ["broadcast"] => Ok(MillionStep::Broadcast),
            ["rooms", time, rate] => {
                Ok(MillionStep::Rooms { time: seconds(time)?, rate: per_second(rate)?, churn: 0.0 })
            }
            ["rooms", time, rate, churn] => Ok(MillionStep::Rooms {
                time: seconds(time)?,
                rate: per_second(rate)?,
                churn: per_second(churn)?,
            }),
            ["return"] => Ok(MillionStep::Return),
            ["stop"] => Ok(MillionStep::Stop),
            _ => Err(format!("there is no step `{line}`; the steps are: {FORMS}")),
        }
    }
}

fn seconds(word: &str) -> Result<Duration, String> {
    match word.parse() {
        Ok(seconds) if (0.0..=SECONDS_MAX).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("`{word}` is not a number of seconds, such as 5 or 0.5, up to a day")),
    }
}

fn per_second(word: &str) -> Result<f64, String> {
    match word.parse() {
        Ok(rate) if (0.0..=PER_SECOND_MAX).contains(&rate) => Ok(rate),
        _ => Err(format!("`{word}` is not a number per second, up to a million")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_every_step() {
        assert_eq!(MillionStep::parse("connect"), Ok(MillionStep::Connect));
        assert_eq!(
            MillionStep::parse(" hold  0.5 "),
            Ok(MillionStep::Hold { time: Duration::from_millis(500) })
        );
        for (line, step) in [
            ("stop", MillionStep::Stop),
            ("return", MillionStep::Return),
            ("broadcast", MillionStep::Broadcast),
        ] {
            assert_eq!(MillionStep::parse(line), Ok(step));
        }
        let rooms = |churn| MillionStep::Rooms { time: Duration::from_secs(60), rate: 0.5, churn };
        assert_eq!(MillionStep::parse("rooms 60 0.5"), Ok(rooms(0.0)));
        assert_eq!(MillionStep::parse("rooms 60 0.5 1000"), Ok(rooms(1000.0)));
    }

    #[test]
    fn explains_invalid_lines() {
        for line in ["connect 5", "hold", "jump", "rooms 5", "stop now"] {
            let error = MillionStep::parse(line).unwrap_err();
            assert!(error.contains(&format!("`{line}`")) && error.contains(FORMS), "{error}");
        }
        assert!(MillionStep::parse("rooms 5 2e6").unwrap_err().contains("`2e6` is not a number per second"));
        for word in ["x", "-1", "1e9", "NaN"] {
            assert!(
                MillionStep::parse(&format!("hold {word}")).unwrap_err().contains("number of seconds"),
                "{word}"
            );
        }
    }
}
