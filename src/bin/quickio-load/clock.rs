//! One clock for all processes of a run: a time taken in one is compared with a time taken in another.

use quickio::qev::clock::nanos;
use std::sync::LazyLock;
use std::time::SystemTime;

/// What [`nanos`], which counts from a time of its own in each process, lacks of the time since 1970.
static OFFSET: LazyLock<u64> = LazyLock::new(|| {
    let before = nanos();
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let at = before.midpoint(nanos());
    (since_1970.as_nanos() as u64).saturating_sub(at)
});

/// Nanoseconds since 1970. It never runs backwards.
#[inline]
pub fn now() -> u64 {
    *OFFSET + nanos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_systems_time_and_never_runs_backwards() {
        let system = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let (first, second) = (now(), now());
        assert!(first <= second);
        assert!(first.abs_diff(system) < 1_000_000_000);
    }
}
