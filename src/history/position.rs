//! Epochs and positions.

use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// The name of one lifetime of the numbering of a path's events. Two lifetimes have the same name with a probability of
/// about 2^-51.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

/// The digits of an epoch.
const RADIX: u64 = 36;

/// The maximum number of digits.
const DIGITS_MAX: usize = 10;

/// The number of epochs.
const EPOCHS: u64 = RADIX.pow(DIGITS_MAX as u32);

impl Epoch {
    /// Returns the epoch of a random number.
    #[must_use]
    pub fn from_random(random: u64) -> Epoch {
        Epoch(random % EPOCHS)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut digits, mut at, mut left) = ([0; DIGITS_MAX], DIGITS_MAX, self.0);
        while at == DIGITS_MAX || left > 0 {
            at -= 1;
            digits[at] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(left % RADIX) as usize];
            left /= RADIX;
        }
        f.write_str(std::str::from_utf8(&digits[at..]).expect("the digits are ASCII"))
    }
}

/// A place in the events of a path: behind the event with this number, or before the first one if it is 0. Its text is, for
/// example, `e7f3.1044`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The lifetime of the numbering.
    pub epoch: Epoch,
    /// The number of the event.
    pub number: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

/// The error of a text that is not a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it is not a position such as e7f3.1044")]
pub struct PositionError;

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Position, PositionError> {
        let (epoch, number) = text.split_once('.').ok_or(PositionError)?;
        let is_canonical = |text: &str| !text.is_empty() && (text == "0" || !text.starts_with('0'));
        let is_digit = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
        if epoch.len() > DIGITS_MAX || !is_canonical(epoch) || !epoch.bytes().all(is_digit) {
            return Err(PositionError);
        }
        if !is_canonical(number) || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(PositionError);
        }
        let epoch = u64::from_str_radix(epoch, RADIX as u32).map_err(|_| PositionError)?;
        let number = number.parse().map_err(|_| PositionError)?;
        Ok(Position { epoch: Epoch(epoch), number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts() {
        for (random, number, text) in [
            (0, 0, "0.0"),
            (35, 1, "z.1"),
            (36, 1044, "10.1044"),
            (EPOCHS - 1, u64::MAX, "zzzzzzzzzz.18446744073709551615"),
            (EPOCHS, 7, "0.7"),
        ] {
            let position = Position { epoch: Epoch::from_random(random), number };
            assert_eq!((position.to_string().as_str(), text.parse()), (text, Ok(position)));
        }
    }

    #[test]
    fn other_texts_are_no_positions() {
        for text in [
            "",
            ".",
            "1",
            "1.",
            ".1",
            "1.1.1",
            "A.1",
            "e7f3.01",
            "0e.1",
            "+1.1",
            "1.+1",
            "1.-1",
            " 1.1",
            "1.1 ",
            "zzzzzzzzzzz.1",
            "1.18446744073709551616",
            "é.1",
            "1.1e",
            "1.\u{661}",
        ] {
            assert_eq!(text.parse::<Position>(), Err(PositionError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_text_has_one_position(random: u64, number: u64) {
            let position = Position { epoch: Epoch::from_random(random), number };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }

        #[test]
        fn what_is_parsed_is_canonical(text in "[0-9a-z.]{0,24}") {
            if let Ok(position) = text.parse::<Position>() {
                prop_assert_eq!(position.to_string(), text);
            }
        }
    }
}
