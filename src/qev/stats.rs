//! Latency histograms, each of which one shard writes without atomics.

use std::borrow::Cow;

use hdrhistogram::{Counter, Histogram};
use serde::Serialize;

/// The longest duration that is distinguished. Longer ones are recorded as this one.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// The precision of recorded durations: two digits. Durations differ by more than one percent between any two runs, and
/// a third digit would take eight times the memory, a quarter of a MiB for each shard that is used.
const SIGNIFICANT_DIGITS: u8 = 2;

const NS_PER_US: f64 = 1e3;

/// The precision of [`LatencyHistogram::intervals`] in bits: each interval is at most a sixteenth of its bounds.
const INTERVAL_BITS: u32 = 5;

/// A histogram of durations from 1 ns to an hour, with a precision of two digits. Other durations are recorded as the
/// nearest of these.
///
/// A run of equal durations is gathered before it is added to the histogram. The thousand sends of a fan-out, which
/// complete at the same time, therefore cost one addition each. An empty histogram has 24 bytes. Its memory grows with
/// the longest duration, by 512 bytes for each doubling: 10 KB for 10 ms, and at most 20 KB. After four billion durations it
/// has twice as much in addition.
#[derive(Clone, Debug, Default)]
pub struct LatencyHistogram {
    /// The current run: a duration, and how often it was recorded in a row.
    run_ns: u64,
    run_len: u64,
    recorded: Option<Box<Recorded>>,
}

/// Invariant: `recent` has at most [`RECENT_MAX`] durations, so that none of its counts overflows.
#[derive(Clone, Debug)]
struct Recorded {
    recent: Histogram<u32>,
    /// The durations that `recent` had when it was full.
    older: Option<Box<Histogram<u64>>>,
    /// The exact sum. The mean of the histograms is not exact.
    sum_ns: u128,
}

/// The number of durations of which the counts have four bytes instead of eight, which takes a server hours to record.
const RECENT_MAX: u64 = u32::MAX as u64;

impl LatencyHistogram {
    /// Returns an empty histogram.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records one duration of `ns` nanoseconds.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.record_n(ns, 1);
    }

    /// Records `n` durations of `ns` nanoseconds.
    #[inline]
    pub fn record_n(&mut self, ns: u64, n: u64) {
        if ns != self.run_ns {
            self.end_run();
            self.run_ns = ns;
        }
        self.run_len = self.run_len.saturating_add(n);
    }

    /// Adds all durations in `other`.
    pub fn merge(&mut self, other: &LatencyHistogram) {
        if let Some(theirs) = &other.recorded {
            self.recorded.get_or_insert_default().add(theirs);
        }
        self.record_n(other.run_ns, other.run_len);
    }

    /// Returns the figures for all recorded durations.
    pub fn summary(&self) -> Summary {
        self.ended().recorded.as_ref().map_or_else(Summary::default, |recorded| recorded.summary())
    }

    /// Returns the intervals that have durations, in ascending order: the longest duration of each in microseconds, and
    /// the number of durations. The bounds of intervals are always the same: the intervals of an earlier time can be
    /// subtracted.
    pub fn intervals(&self) -> Vec<(f64, u64)> {
        let mut intervals: Vec<(u64, u64)> = Vec::new();
        let all = self.ended().recorded.as_ref().map(|recorded| recorded.all());
        for step in all.iter().flat_map(|all| all.iter_recorded()) {
            let (bound, count) = (interval_bound(step.value_iterated_to()), step.count_at_value());
            match intervals.last_mut() {
                Some(last) if last.0 == bound => last.1 = last.1.saturating_add(count),
                _ => intervals.push((bound, count)),
            }
        }
        intervals.into_iter().map(|(ns, count)| (microseconds(ns), count)).collect()
    }

    /// Returns the number of recorded durations.
    pub fn count(&self) -> u64 {
        self.recorded.as_ref().map_or(0, |recorded| recorded.len()).saturating_add(self.run_len)
    }

    /// Returns this histogram without a current run.
    fn ended(&self) -> Cow<'_, Self> {
        if self.run_len == 0 {
            return Cow::Borrowed(self);
        }
        let mut ended = self.clone();
        ended.end_run();
        Cow::Owned(ended)
    }

    fn end_run(&mut self) {
        if self.run_len > 0 {
            self.recorded.get_or_insert_default().record(self.run_ns, self.run_len);
            self.run_len = 0;
        }
    }
}

impl Default for Recorded {
    fn default() -> Self {
        Self { recent: empty(), older: None, sum_ns: 0 }
    }
}

/// Returns an empty histogram with counts of this type.
fn empty<C: Counter>() -> Histogram<C> {
    Histogram::new(SIGNIFICANT_DIGITS).expect("two digits are within one to five")
}

/// Adds all durations in one histogram to another one, whose counts do not overflow.
fn add<C: Counter>(to: &mut Histogram<u64>, from: &Histogram<C>) {
    for step in from.iter_recorded() {
        to.record_n(step.value_iterated_to(), step.count_at_value().as_u64()).expect(GROWS);
    }
}

const GROWS: &str = "the histogram grows up to an hour";

impl Recorded {
    #[inline]
    fn record(&mut self, ns: u64, n: u64) {
        let ns = ns.clamp(1, LONGEST_NS);
        self.sum_ns = self.sum_ns.saturating_add(u128::from(ns) * u128::from(n));
        if self.recent.len().saturating_add(n) > RECENT_MAX {
            return self.record_older(ns, n);
        }
        self.recent.record_n(ns, n as u32).expect(GROWS);
    }

    /// Records durations for which `recent` has no room, with all that it has.
    #[cold]
    fn record_older(&mut self, ns: u64, n: u64) {
        let older = self.older.get_or_insert_with(|| Box::new(empty()));
        add(older, &self.recent);
        self.recent.reset();
        older.record_n(ns, n).expect(GROWS);
    }

    fn add(&mut self, other: &Self) {
        if self.recent.len() + other.recent.len() > RECENT_MAX {
            add(self.older.get_or_insert_with(|| Box::new(empty())), &other.recent);
        } else {
            self.recent.add(&other.recent).expect(GROWS);
        }
        if let Some(theirs) = &other.older {
            self.older.get_or_insert_with(|| Box::new(empty())).add(&**theirs).expect(GROWS);
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    /// Returns the number of durations.
    fn len(&self) -> u64 {
        self.older.as_ref().map_or(0, |older| older.len()).saturating_add(self.recent.len())
    }

    /// Returns all durations as one histogram.
    fn all(&self) -> Histogram<u64> {
        let mut all = self.older.as_deref().cloned().unwrap_or_else(empty);
        add(&mut all, &self.recent);
        all
    }

    fn summary(&self) -> Summary {
        let histogram = self.all();
        let quantile = |q| microseconds(histogram.value_at_quantile(q));
        Summary {
            count: histogram.len(),
            sum: self.sum_ns as f64 / NS_PER_US,
            min: microseconds(histogram.min()),
            mean: self.sum_ns as f64 / histogram.len() as f64 / NS_PER_US,
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            p9999: quantile(0.9999),
            max: microseconds(histogram.max()),
        }
    }
}

/// Returns the longest duration of the interval that has this one.
fn interval_bound(ns: u64) -> u64 {
    let shift = (u64::BITS - ns.leading_zeros()).saturating_sub(INTERVAL_BITS);
    ns | ((1 << shift) - 1)
}

fn microseconds(ns: u64) -> f64 {
    ns as f64 / NS_PER_US
}

/// The figures of a [`LatencyHistogram`] in microseconds. All are 0 if nothing was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// The number of durations.
    pub count: u64,
    /// The exact sum of all durations.
    pub sum: f64,
    /// The shortest duration, rounded down to two digits.
    pub min: f64,
    /// The exact mean.
    pub mean: f64,
    /// Half of the durations are at most this long.
    pub p50: f64,
    /// Nine in ten durations are at most this long.
    pub p90: f64,
    /// 99 in 100 durations are at most this long.
    pub p99: f64,
    /// 999 in 1,000 durations are at most this long.
    pub p999: f64,
    /// 9,999 in 10,000 durations are at most this long.
    pub p9999: f64,
    /// The longest duration, rounded up to two digits.
    pub max: f64,
}

impl Summary {
    /// Returns pairs of a quantile and its duration in microseconds: the lines of a Prometheus summary.
    pub fn quantiles(&self) -> [(f64, f64); 5] {
        [(0.5, self.p50), (0.9, self.p90), (0.99, self.p99), (0.999, self.p999), (0.9999, self.p9999)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The naive twin: keeps and sorts all durations.
    fn exact_quantile(times: &[u64], q: f64) -> f64 {
        let mut sorted: Vec<u64> = times.iter().map(|ns| (*ns).clamp(1, LONGEST_NS)).collect();
        sorted.sort_unstable();
        let rank = (q * sorted.len() as f64).ceil().max(1.0) as usize;
        sorted[rank - 1] as f64 / NS_PER_US
    }

    fn histogram_of(times: &[u64]) -> LatencyHistogram {
        let mut histogram = LatencyHistogram::new();
        times.iter().for_each(|ns| histogram.record(*ns));
        histogram
    }

    fn close(measured: f64, exact: f64) -> bool {
        (measured - exact).abs() <= exact / 100.0 + 1e-9
    }

    /// Returns whether two summaries are equal apart from the rounding of the last bit.
    fn same(a: &Summary, b: &Summary) -> bool {
        a.count == b.count && a.quantiles() == b.quantiles() && close(a.sum, b.sum) && a.max == b.max
    }

    #[test]
    fn an_empty_histogram_has_24_bytes_and_no_heap() {
        assert_eq!(size_of::<LatencyHistogram>(), 24);
        let histogram = LatencyHistogram::new();
        assert!(histogram.recorded.is_none());
        assert_eq!(histogram.summary(), Summary::default());
        assert_eq!(histogram.count(), 0);
    }

    #[test]
    fn a_run_of_equal_times_does_not_touch_the_histogram() {
        let mut histogram = LatencyHistogram::new();
        for _ in 0..1000 {
            histogram.record(5_000);
        }
        assert!(histogram.recorded.is_none());
        assert_eq!(histogram.count(), 1000);
        assert_eq!(histogram.summary().count, 1000);
        assert!(close(histogram.summary().p50, 5.0));
        assert!(histogram.recorded.is_none(), "a summary changes nothing");
    }

    #[test]
    fn durations_out_of_range_count_as_the_nearest() {
        for (ns, us) in [(0, 0.001), (1, 0.001), (LONGEST_NS, 3.6e9), (u64::MAX, 3.6e9)] {
            let summary = histogram_of(&[ns]).summary();
            assert!(close(summary.min, us) && close(summary.max, us), "{ns} ns: {summary:?}");
            assert_eq!(summary.mean, us);
        }
    }

    #[test]
    fn intervals_have_all_durations_and_fixed_bounds() {
        let mut histogram = histogram_of(&[1, 31, 32, 33, 1_000, 1_010, 2_000_000]);
        histogram.record_n(40_000, 5);
        let before = histogram.intervals();
        let expected = [(0.001, 1), (0.031, 1), (0.033, 2), (1.023, 2), (40.959, 5), (2_031.615, 1)];
        assert_eq!(before, expected);
        histogram.record(40_500);
        histogram.record(9_000_000);
        let after = histogram.intervals();
        assert!(
            before.iter().all(|old| after.iter().any(|new| new.0 == old.0 && new.1 >= old.1)),
            "{after:?}"
        );
        assert_eq!(after.iter().map(|interval| interval.1).sum::<u64>(), histogram.count());
    }

    #[test]
    fn recording_nothing_changes_nothing() {
        let mut histogram = histogram_of(&[10, 20]);
        let before = histogram.summary();
        histogram.record_n(30, 0);
        histogram.merge(&LatencyHistogram::new());
        assert_eq!(histogram.summary(), before);
        let mut empty = LatencyHistogram::new();
        empty.record_n(30, 0);
        empty.record(0);
        assert_eq!(empty.summary().count, 1);
    }

    #[test]
    fn counts_saturate() {
        let mut histogram = LatencyHistogram::new();
        for _ in 0..3 {
            histogram.record_n(7, u64::MAX);
            histogram.record_n(8, u64::MAX);
        }
        assert_eq!(histogram.count(), u64::MAX);
        assert_eq!(histogram.summary().count, u64::MAX);
    }

    #[test]
    fn memory_grows_with_the_longest_time() {
        let bytes = |ns| {
            let mut histogram = histogram_of(&[ns]);
            histogram.end_run();
            let recorded = histogram.recorded.expect("a duration was recorded");
            assert!(recorded.older.is_none());
            recorded.recent.distinct_values() * size_of::<u32>()
        };
        assert!(bytes(1_000) <= 3 << 10);
        assert!(bytes(10_000_000) <= 10 << 10);
        assert!(bytes(u64::MAX) <= 20 << 10);
    }

    #[test]
    fn more_durations_than_four_bytes_count_are_counted() {
        let many = RECENT_MAX - 10;
        let mut histogram = histogram_of(&[500]);
        for (ns, n) in [(1000, many), (2000, 5), (1000, 20), (3000, 2 * RECENT_MAX), (1000, 7)] {
            histogram.record_n(ns, n);
        }
        let mut merged = histogram.clone();
        merged.merge(&histogram_of(&[2000, 4000]));
        merged.merge(&histogram);
        for (histogram, times, others) in [(&histogram, 1, 0), (&merged, 2, 2)] {
            let counts: Vec<u64> = histogram.intervals().iter().map(|interval| interval.1).collect();
            let expected =
                [times, times * (many + 27), times * 5 + others / 2, times * 2 * RECENT_MAX, others / 2];
            assert!(counts.iter().eq(expected.iter().filter(|count| **count > 0)), "{counts:?}");
            assert_eq!(histogram.count(), expected.iter().sum::<u64>());
            assert_eq!(histogram.summary().count, histogram.count());
            let sum_us = [0.5, 1.0, 2.0, 3.0, 4.0].iter().zip(expected).map(|(us, n)| us * n as f64);
            assert!(close(histogram.summary().sum, sum_us.sum()));
            assert!(close(histogram.summary().p50, 3.0) && close(histogram.summary().min, 0.5));
        }
    }

    fn some_times() -> impl Strategy<Value = Vec<u64>> {
        let time = prop_oneof![0..5_000_u64, 0..100_000_000_u64, any::<u64>()];
        let run = (time, 1..4_usize).prop_map(|(ns, n)| vec![ns; n]);
        prop::collection::vec(run, 1..100).prop_map(|runs| runs.concat())
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_sorted_times(times in some_times()) {
            let summary = histogram_of(&times).summary();
            prop_assert_eq!(summary.count, times.len() as u64);
            for (q, us) in summary.quantiles() {
                let exact = exact_quantile(&times, q);
                prop_assert!(close(us, exact), "quantile {}: {} instead of {}", q, us, exact);
            }
            prop_assert!(close(summary.min, exact_quantile(&times, 0.0)));
            prop_assert!(close(summary.max, exact_quantile(&times, 1.0)));
            prop_assert!(close(summary.mean * times.len() as f64, summary.sum));
        }

        #[test]
        fn merging_equals_recording_into_one_histogram(left in some_times(), right in some_times()) {
            let mut merged = histogram_of(&left);
            merged.merge(&histogram_of(&right));
            prop_assert!(same(&merged.summary(), &histogram_of(&[left, right].concat()).summary()));
        }

        #[test]
        fn runs_equal_single_durations(runs in prop::collection::vec((0..100_u64, 0..5_u64), 0..50)) {
            let (mut at_once, mut singly) = (LatencyHistogram::new(), LatencyHistogram::new());
            for (ns, n) in runs {
                at_once.record_n(ns, n);
                (0..n).for_each(|_| singly.record(ns));
            }
            prop_assert!(same(&at_once.summary(), &singly.summary()));
        }
    }
}
