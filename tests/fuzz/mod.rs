//! The base of the seeded fuzz tests: a small random number generator, and a loop that prints the seed of a failing case.
//!
//! `QUICKIO_FUZZ_MILLIS` is the duration of each test (default 200), and `QUICKIO_FUZZ_SEED` its first seed. With the seed
//! of a failure, a test begins with the failing case.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Runs one or more cases, each with a generator of its own.
pub fn run(mut case: impl FnMut(&mut Random)) {
    let millis = from_env("QUICKIO_FUZZ_MILLIS").unwrap_or(200);
    let first = from_env("QUICKIO_FUZZ_SEED").unwrap_or_else(now);
    let end = Instant::now() + Duration::from_millis(millis);
    let mut seed = first;
    loop {
        let printer = SeedPrinter(seed);
        case(&mut Random(seed));
        std::mem::forget(printer);
        seed = seed.wrapping_add(1);
        if Instant::now() >= end {
            break;
        }
    }
    println!("{} cases from QUICKIO_FUZZ_SEED={first}", seed.wrapping_sub(first));
}

/// A generator of pseudo-random numbers (SplitMix64).
pub struct Random(u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    #[allow(dead_code, reason = "not every program that has this module needs it")]
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Prints the seed when a case panics.
struct SeedPrinter(u64);

impl Drop for SeedPrinter {
    fn drop(&mut self) {
        eprintln!("repeat with QUICKIO_FUZZ_SEED={}", self.0);
    }
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos() as u64
}
