//! Latencies, gathered so that those of many threads and processes add up.

use std::ops::AddAssign;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// How long answers took, to 1 %.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn record(&mut self, took: Duration) {
        // The histogram grows to whatever a u64 can say.
        self.0 += u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(quantile))
    }
}

impl AddAssign for Latencies {
    fn add_assign(&mut self, other: Latencies) {
        self.0 += other.0;
    }
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies(Histogram::new(2).expect("2 digits are within the histogram's 0 to 5"))
    }
}

impl From<Vec<(u64, u64)>> for Latencies {
    fn from(counts: Vec<(u64, u64)>) -> Latencies {
        let mut latencies = Latencies::default();
        counts
            .into_iter()
            .for_each(|(nanos, count)| latencies.0.record_n(nanos, count).expect("it grows to what it needs"));
        latencies
    }
}

impl From<Latencies> for Vec<(u64, u64)> {
    fn from(latencies: Latencies) -> Vec<(u64, u64)> {
        latencies.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }
}
