//! A clock that all processes of a run share, because times taken in different processes are compared.

use quickio::qev::clock::nanos;
use std::fs;
use std::sync::LazyLock;
use std::time::SystemTime;

/// The difference between the time since 1970 and [`nanos`], which starts at a different time in each process.
static OFFSET: LazyLock<u64> = LazyLock::new(|| {
    let before = nanos();
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let at = before.midpoint(nanos());
    (since_1970.as_nanos() as u64).saturating_sub(at)
});

/// Returns the nanoseconds since 1970. The clock never runs backwards.
#[inline]
pub fn now() -> u64 {
    *OFFSET + nanos()
}

/// Asks the kernel to wake threads at the requested time, instead of up to 50 us later. New threads inherit this.
pub fn request_precise_wakeups() {
    // If the kernel refuses, wake-ups are slightly late, which the latencies include.
    let _ = fs::write("/proc/self/timerslack_ns", "1");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_system_time_and_never_runs_backwards() {
        let system = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let (first, second) = (now(), now());
        assert!(first <= second);
        assert!(first.abs_diff(system) < 1_000_000_000);
    }
}
