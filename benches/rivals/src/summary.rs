//! Order statistics of a series of measurements.

use serde_json::{Value, json};

/// The middle of a series and how far it scatters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) p10: f64,
    pub(crate) median: f64,
    pub(crate) p90: f64,
}

impl Spread {
    pub(crate) fn of(series: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = series.into_iter().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        Self { p10: percentile(&sorted, 10.0), median: percentile(&sorted, 50.0), p90: percentile(&sorted, 90.0) }
    }

    /// The spread of `series / yardstick`, each value divided by that of the same round: what slows a whole round
    /// down cancels out.
    pub(crate) fn of_ratio(series: &[f64], yardstick: &[f64]) -> Self {
        assert_eq!(series.len(), yardstick.len(), "a ratio needs both sides of every round");
        Self::of(series.iter().zip(yardstick).map(|(value, unit)| value / unit))
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "p10": self.p10, "median": self.median, "p90": self.p90 })
    }
}

/// The nearest-rank percentile: the least value that at least `percent` per cent of the series do not exceed.
pub(crate) fn percentile<T: Copy>(sorted: &[T], percent: f64) -> T {
    assert!(!sorted.is_empty(), "an empty series has no percentiles");
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let sorted: Vec<u32> = (1..=100).collect();
        assert_eq!(percentile(&sorted, 0.0), 1);
        assert_eq!(percentile(&sorted, 50.0), 50);
        assert_eq!(percentile(&sorted, 99.0), 99);
        assert_eq!(percentile(&sorted, 99.9), 100);
        assert_eq!(percentile(&[7], 50.0), 7);
    }

    #[test]
    fn order_does_not_matter() {
        let spread = Spread::of([9.0, 1.0, 5.0, 3.0, 7.0]);
        assert_eq!(spread, Spread { p10: 1.0, median: 5.0, p90: 9.0 });
    }

    #[test]
    fn ratios_pair_rounds() {
        let ratio = Spread::of_ratio(&[2.0, 40.0, 6.0], &[1.0, 20.0, 3.0]);
        assert_eq!(ratio, Spread { p10: 2.0, median: 2.0, p90: 2.0 });
    }
}
