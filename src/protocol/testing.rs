//! Shared parts of tests: seeded random numbers, and the loop of a fuzz test.
//!
//! `QUICKIO_FUZZ_SEED` sets the first seed of a fuzz test, `QUICKIO_FUZZ_MILLIS` its duration.

use std::time::{Duration, Instant};
use std::{env, panic};

/// A small generator of random numbers (splitmix64). The same seed gives the same numbers on every machine.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 up to, but not including, the bound.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Returns `true` once in this many times, on average.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Returns valid UTF-8 of about this many bytes, with characters of every width.
    pub fn text(&mut self, len: usize) -> Vec<u8> {
        let mut text = String::new();
        while text.len() < len {
            text.push(self.pick(&[
                'a',
                '/',
                '\0',
                '\x7F',
                'ü',
                '߿',
                '€',
                '\u{D7FF}',
                '\u{E000}',
                '😀',
                '\u{10FFFF}',
            ]));
        }
        text.into_bytes()
    }

    /// Splits the bytes into pieces. Most of them are short, and some are empty.
    pub fn pieces<'a>(&mut self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let longest = self.pick(&[1, 2, 5, 20, 200, 5000]);
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(self.below(longest + 1).min(bytes.len()));
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }

    /// Changes, removes, doubles or inserts a few bytes.
    pub fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len() + 1);
            match self.below(4) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 if at < bytes.len() => bytes.insert(at, bytes[at]),
                _ => bytes.insert(at, self.next() as u8),
            }
        }
    }
}

/// Runs cases, each with its own seed, until the time is over. If a case fails, its seed is printed.
pub fn fuzz(case: impl Fn(&mut Random)) {
    let number = |name| env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let first = number("QUICKIO_FUZZ_SEED").unwrap_or(6455);
    let until = Instant::now() + Duration::from_millis(number("QUICKIO_FUZZ_MILLIS").unwrap_or(300));
    let mut seed = first;
    loop {
        let run = panic::AssertUnwindSafe(|| case(&mut Random::new(seed)));
        if let Err(panic) = panic::catch_unwind(run) {
            eprintln!("to reproduce: QUICKIO_FUZZ_SEED={seed} QUICKIO_FUZZ_MILLIS=0");
            panic::resume_unwind(panic);
        }
        seed = seed.wrapping_add(1);
        if Instant::now() >= until {
            break;
        }
    }
    println!("seeds from {first}, {} cases", seed.wrapping_sub(first));
}
