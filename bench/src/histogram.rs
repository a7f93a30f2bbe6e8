//! Latency histograms: three significant digits from 1 ns to a minute, no allocation while recording.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// A histogram of nanoseconds.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

/// What is left of a histogram when it travels between processes: every value recorded, and how often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded(Vec<(u64, u64)>);

/// Percentiles, in nanoseconds. Zero if nothing was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// The smallest.
    pub min: u64,
    /// The median.
    pub p50: u64,
    /// Nine in ten are not above.
    pub p90: u64,
    /// Ninety-nine in a hundred are not above.
    pub p99: u64,
    /// All but one in a thousand are not above.
    pub p99_9: u64,
    /// The greatest.
    pub max: u64,
}

impl Latencies {
    /// An empty histogram.
    pub fn new() -> Latencies {
        let histogram =
            Histogram::new_with_bounds(1, HIGHEST_NANOSECONDS, 3).expect("the bounds are in order");
        Latencies { histogram }
    }

    /// Records one latency; more than a minute counts as a minute.
    #[inline]
    pub fn record(&mut self, nanoseconds: u64) {
        self.histogram.saturating_record(nanoseconds.max(1));
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.histogram.reset();
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The median; zero if nothing was recorded.
    pub fn p50(&self) -> u64 {
        self.summary().p50
    }

    /// Takes in all of another.
    pub fn merge(&mut self, recorded: &Recorded) {
        for (value, count) in &recorded.0 {
            self.histogram.saturating_record_n(*value, *count);
        }
    }

    /// Takes in all of another.
    pub fn add(&mut self, other: &Latencies) {
        self.histogram.add(&other.histogram).expect("all have the same bounds");
    }

    /// To travel.
    pub fn recorded(&self) -> Recorded {
        Recorded(
            self.histogram
                .iter_recorded()
                .map(|step| (step.value_iterated_to(), step.count_at_value()))
                .collect(),
        )
    }

    /// The percentiles.
    pub fn summary(&self) -> LatencySummary {
        if self.histogram.is_empty() {
            return LatencySummary::default();
        }
        let at = |quantile: f64| self.histogram.value_at_quantile(quantile);
        LatencySummary {
            min: self.histogram.min(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: self.histogram.max(),
        }
    }
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies::new()
    }
}

/// The median of ratios or times; zero if there are none.
pub fn median(mut values: Vec<f64>) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

const HIGHEST_NANOSECONDS: u64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_keeps_its_percentiles_when_it_travels() {
        let mut latencies = Latencies::new();
        (1..=1000).for_each(|value| latencies.record(value * 10));
        let text = serde_json::to_string(&latencies.recorded()).unwrap();
        let mut other = Latencies::new();
        other.merge(&serde_json::from_str(&text).unwrap());
        assert_eq!(other.summary(), latencies.summary());
        let summary = other.summary();
        assert!((4_990..=5_010).contains(&summary.p50), "{summary:?}");
        assert!((9_890..=9_910).contains(&summary.p99), "{summary:?}");
    }

    #[test]
    fn a_latency_beyond_the_bounds_is_kept_as_the_highest() {
        let mut latencies = Latencies::new();
        latencies.record(u64::MAX);
        assert!(latencies.summary().max >= HIGHEST_NANOSECONDS);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(vec![5.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
