//! The steps, and the lines that request them.

use std::time::Duration;

/// The longest duration of a step: every step must end.
const SECONDS_MAX: f64 = 86_400.0;

/// A step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MillionStep {
    /// Opens all clients.
    Connect,
    /// Answers heartbeats.
    Hold { time: Duration },
    /// Waits until every client has been told to leave.
    Stop,
}

/// The forms of all lines, for the message about an invalid one.
const FORMS: &str = "connect; hold S; stop";

impl MillionStep {
    /// Parses a line.
    pub fn parse(line: &str) -> Result<MillionStep, String> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["connect"] => Ok(MillionStep::Connect),
            ["hold", time] => Ok(MillionStep::Hold { time: seconds(time)? }),
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
        assert_eq!(MillionStep::parse("stop"), Ok(MillionStep::Stop));
    }

    #[test]
    fn explains_invalid_lines() {
        for line in ["connect 5", "hold", "jump", "stop now"] {
            let error = MillionStep::parse(line).unwrap_err();
            assert!(error.contains(&format!("`{line}`")) && error.contains(FORMS), "{error}");
        }
        for word in ["x", "-1", "1e9", "NaN"] {
            assert!(
                MillionStep::parse(&format!("hold {word}")).unwrap_err().contains("number of seconds"),
                "{word}"
            );
        }
    }
}
