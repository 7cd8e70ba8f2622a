//! Latencies of many operations: percentiles, and the rate over the time inside them.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::clock::Stopwatch;
use crate::figures::{latency, nanoseconds, per_second, rate};

/// Longest latency that is told apart: one minute. Longer ones count as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Records the latency of each operation, and so the time inside them: checks between them do not
/// count.
pub(super) struct Latencies {
    histogram: Histogram<u64>,
    inside_ns: u64,
}

impl Latencies {
    pub(super) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)
            .expect("the bounds are constants and are used by a test");
        Self { histogram, inside_ns: 0 }
    }

    /// Runs and times one operation.
    pub(super) fn time<T>(&mut self, operation: impl FnOnce() -> T) -> T {
        let stopwatch = Stopwatch::start();
        let outcome = operation();
        let elapsed = nanoseconds(stopwatch.elapsed());
        self.histogram.saturating_record(elapsed);
        self.inside_ns = self.inside_ns.saturating_add(elapsed);
        outcome
    }

    pub(super) fn figures(&self) -> LatencyFigures {
        let operations = self.histogram.len();
        LatencyFigures {
            operations,
            per_second: per_second(operations, self.inside_ns as f64 / 1e9),
            p50_ns: self.histogram.value_at_quantile(0.50),
            p90_ns: self.histogram.value_at_quantile(0.90),
            p99_ns: self.histogram.value_at_quantile(0.99),
            p999_ns: self.histogram.value_at_quantile(0.999),
            max_ns: self.histogram.max(),
        }
    }
}

/// What is told about latencies. The rate is of one thread, one operation after the other.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct LatencyFigures {
    operations: u64,
    per_second: f64,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    max_ns: u64,
}

impl std::fmt::Display for LatencyFigures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>10}   p50 {:>9}  p90 {:>9}  p99 {:>9}  max {:>9}",
            rate(self.per_second),
            latency(self.p50_ns),
            latency(self.p90_ns),
            latency(self.p99_ns),
            latency(self.max_ns)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_counted_and_its_result_returned() {
        let mut latencies = Latencies::new();
        let sum: u64 = (0..100).map(|value| latencies.time(|| value)).sum();
        let figures = latencies.figures();
        assert_eq!((sum, figures.operations), (4950, 100));
        assert!(figures.p50_ns <= figures.p99_ns && figures.p99_ns <= figures.max_ns);
        assert!(0.0 < figures.per_second);
        assert_eq!(Latencies::new().figures().operations, 0);
    }
}
