//! The pause before a client connects again, which docs/client.md describes.

use super::client::ClientNumber;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The shortest pause after the first failure, and the limit up to which it doubles. The longest pause is twice as long.
const SHORTEST_NS: u64 = 50_000_000;
const SHORTEST_NS_MAX: u64 = 12_800_000_000;

/// A connection that has lasted this long counts as a success: the next pause is among the shortest.
pub const LASTING_NS: u64 = 10_000_000_000;

/// Returns the pause of a client after a number of failures in a row. Different clients have different pauses, which are
/// the same in every run.
pub fn pause(client: ClientNumber, failures: u32) -> u64 {
    let shortest = SHORTEST_NS.saturating_mul(1 << failures.min(10)).min(SHORTEST_NS_MAX);
    let mut hasher = DefaultHasher::new();
    (client, failures).hash(&mut hasher);
    shortest + hasher.finish() % shortest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_random_and_double_after_each_failure() {
        for (failures, shortest) in
            [(0, 50), (1, 100), (7, 6_400), (8, 12_800), (9, 12_800), (u32::MAX, 12_800)]
        {
            let pauses: Vec<u64> = (0..1000).map(|client| pause(client, failures) / 1_000_000).collect();
            assert!(pauses.iter().all(|pause| (shortest..2 * shortest).contains(pause)), "{failures}");
            let mean = pauses.iter().sum::<u64>() / 1000;
            assert!((shortest * 14 / 10..shortest * 16 / 10).contains(&mean), "{failures}: {mean}");
        }
    }
}
