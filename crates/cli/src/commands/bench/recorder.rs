//! What the operations of a workload took: histograms, and how many ended in which moment.
//!
//! Each thread has a recorder of its own; they are added up at the end. Hits, misses and writes are
//! kept apart, since a median over a mixture says nothing about either.
//!
//! Checked by: the tests below.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::clock::Stopwatch;
use crate::figures::nanoseconds;

/// Longest latency that is told apart; longer ones count as this.
const LATENCY_NS_MAX: u64 = 600_000_000_000;
/// One point of the throughput over time.
pub(super) const INTERVAL: Duration = Duration::from_millis(50);
/// Intervals that are kept: a run of more than an hour has its rest in the last.
const INTERVALS_MAX: usize = 1 << 16;

/// What kind of operation a latency is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A read of what was in memory.
    Hit,
    /// A read that went to the device, at least in part.
    Miss,
    /// Anything that changes the database.
    Write,
    /// A step of a scan.
    Scan,
}

/// Latencies and counts of one thread.
#[derive(Debug)]
pub(super) struct Recorder {
    started: Stopwatch,
    /// Since then, at the end of the last call.
    pub(super) elapsed: Duration,
    /// By [`Kind`]; made when first needed.
    histograms: [Option<Histogram<u32>>; 4],
    /// Vectors moved, by interval.
    timeline: Vec<u64>,
    pub(super) operations: u64,
    /// Vectors that were found where one was looked for, and ids that were not.
    pub(super) found: u64,
    pub(super) missing: u64,
    pub(super) vectors_read: u64,
    pub(super) vectors_written: u64,
}

impl Recorder {
    /// For a workload that starts now.
    pub(super) fn new(started: Stopwatch) -> Self {
        Self {
            started,
            elapsed: Duration::ZERO,
            histograms: [None, None, None, None],
            timeline: Vec::new(),
            operations: 0,
            found: 0,
            missing: 0,
            vectors_read: 0,
            vectors_written: 0,
        }
    }

    /// A call that began then, ends now, and moved so many vectors.
    pub(super) fn record(&mut self, kind: Kind, began: Stopwatch, vectors: u64) {
        let now = Stopwatch::start();
        self.elapsed = now.since(self.started);
        self.took(kind, now.since(began), vectors);
    }

    fn took(&mut self, kind: Kind, latency: Duration, vectors: u64) {
        let histogram = self.histograms[kind as usize].get_or_insert_with(histogram);
        histogram.saturating_record(nanoseconds(latency).clamp(1, LATENCY_NS_MAX));
        let interval = self.elapsed.as_millis() / INTERVAL.as_millis();
        let interval = usize::try_from(interval).unwrap_or(usize::MAX).min(INTERVALS_MAX - 1);
        if self.timeline.len() <= interval {
            self.timeline.resize(interval + 1, 0);
        }
        self.timeline[interval] += vectors;
        self.operations += vectors;
    }

    /// Adds another thread's.
    pub(super) fn add(&mut self, other: &Self) {
        for (own, of_other) in self.histograms.iter_mut().zip(&other.histograms) {
            if let Some(of_other) = of_other {
                let own = own.get_or_insert_with(histogram);
                own.add(of_other).expect("all histograms have the same bounds");
            }
        }
        let intervals = self.timeline.len().max(other.timeline.len());
        self.timeline.resize(intervals, 0);
        for (own, of_other) in self.timeline.iter_mut().zip(&other.timeline) {
            *own += of_other;
        }
        self.operations += other.operations;
        self.found += other.found;
        self.missing += other.missing;
        self.vectors_read += other.vectors_read;
        self.vectors_written += other.vectors_written;
    }

    /// The latencies of one kind, if there were any.
    pub(super) fn latencies(&self, kind: Kind) -> Option<Latencies> {
        self.histograms[kind as usize].as_ref().map(Latencies::of)
    }

    /// The latencies of all kinds together, and as a curve for a plot.
    pub(super) fn all(&self) -> (Latencies, Vec<(f64, u64)>) {
        let mut all = histogram();
        for of_kind in self.histograms.iter().flatten() {
            all.add(of_kind).expect("all histograms have the same bounds");
        }
        (Latencies::of(&all), curve(&all))
    }

    pub(super) fn timeline(&self) -> &[u64] {
        &self.timeline
    }
}

fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)
        .expect("the bounds are constants and are used by a test")
}

/// What is told about latencies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Latencies {
    pub(super) count: u64,
    pub(super) mean: f64,
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) p999: u64,
    pub(super) p9999: u64,
    pub(super) max: u64,
}

impl Latencies {
    pub(super) fn of(histogram: &Histogram<u32>) -> Self {
        let at = |share: f64| histogram.value_at_quantile(share);
        Self {
            count: histogram.len(),
            mean: histogram.mean(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max(),
        }
    }
}

/// Shares of the operations and the latency that they stay within, finer towards the tail, up to
/// the last operation.
fn curve(histogram: &Histogram<u32>) -> Vec<(f64, u64)> {
    let mut points = Vec::new();
    let mut left = 1.0;
    while 1.0 < left * histogram.len() as f64 {
        points.push((1.0 - left, histogram.value_at_quantile(1.0 - left)));
        left *= 0.8;
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_kept_apart_and_added_up() {
        let watch = Stopwatch::start();
        let mut first = Recorder::new(watch);
        let mut second = Recorder::new(watch);
        for micros in 1..=1000 {
            first.took(Kind::Hit, Duration::from_micros(micros), 1);
            second.took(Kind::Write, Duration::from_millis(micros), 10);
        }
        first.add(&second);
        let (all, curve) = first.all();
        assert_eq!((all.count, first.operations), (2000, 11_000));
        assert_eq!(first.timeline().iter().sum::<u64>(), 11_000);
        assert!(first.latencies(Kind::Miss).is_none());
        let hits = first.latencies(Kind::Hit).unwrap();
        assert_eq!(hits.count, 1000);
        assert!((499_000..502_000).contains(&hits.p50) && hits.p50 < hits.p99, "{hits:?}");
        assert!(all.p9999 <= all.max && 900_000_000 < all.max);
        assert!(curve.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1), "{curve:?}");
    }

    #[test]
    fn a_latency_beyond_the_bounds_counts_as_the_longest() {
        let mut recorder = Recorder::new(Stopwatch::start());
        recorder.took(Kind::Miss, Duration::from_secs(100_000), 1);
        recorder.took(Kind::Miss, Duration::ZERO, 1);
        assert_eq!(recorder.all().0.count, 2);
    }
}
