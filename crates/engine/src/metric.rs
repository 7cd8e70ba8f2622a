//! The figures of a store with names, kinds and units, for whatever collects them.
//!
//! Pull, not push: nothing is recorded while the store works beyond its own counters. Whoever wants
//! figures calls [`Store::record_metrics`](crate::Store::record_metrics) when they are wanted, such
//! as when Prometheus scrapes (`examples/prometheus.rs`). With the feature `metrics`, `Facade`
//! passes them to the recorder of the [`metrics`](https://docs.rs/metrics) crate.
//!
//! Every field of [`StoreStats`] is in the list: the function that makes it takes the struct apart
//! by name, so a new field does not compile until it has its line.
//! Tested in: `tests/prometheus.rs` (scraped over HTTP), and below.

use nephrite_io::IoStats;

use crate::stats::StoreStats;

/// Whether a figure only grows.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Grows from zero since the store was opened.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// What a figure counts.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Millionths of a second.
    Microseconds,
}

/// One figure.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Without prefix, such as `cache_hits`; names of one store are unique and do not change.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// What is counted.
    pub unit: Unit,
    /// The figure now.
    pub value: u64,
}

/// Takes figures, one call each.
pub trait MetricsRecorder {
    /// Records one figure. Called in the order of the list, from the thread that asked for it.
    fn record(&self, metric: &Metric);
}

const fn metric(name: &'static str, kind: Kind, value: u64) -> Metric {
    Metric { name, kind, unit: unit_of(name), value }
}

/// Names say their unit, as fields do.
const fn unit_of(name: &str) -> Unit {
    if contains(name.as_bytes(), b"bytes") {
        Unit::Bytes
    } else if contains(name.as_bytes(), b"micros") {
        Unit::Microseconds
    } else {
        Unit::Count
    }
}

const fn contains(name: &[u8], word: &[u8]) -> bool {
    let mut start = 0;
    while start + word.len() <= name.len() {
        let mut at = 0;
        while at < word.len() && name[start + at] == word[at] {
            at += 1;
        }
        if at == word.len() {
            return true;
        }
        start += 1;
    }
    false
}

/// `[kind name, ...]` of variables that hold their values.
macro_rules! list {
    ($($kind:ident $name:ident),* $(,)?) => {
        [$(metric(stringify!($name), Kind::$kind, $name)),*]
    };
}

impl StoreStats {
    /// All figures under their names.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let Self {
            databases,
            databases_open,
            databases_closed,
            memory_limit_bytes,
            memtable_bytes,
            cache_bytes,
            cache_record_bytes,
            cache_metadata_bytes,
            fence_bytes,
            filter_bytes,
            row_table_bytes,
            work_bytes,
            database_bytes,
            log_buffer_bytes,
            cache_hits,
            cache_record_hits,
            cache_misses,
            cache_evictions,
            cache_loads_failed,
            cache_bypasses,
            pages_pinned,
            files_open,
            files_opened,
            files_evicted,
            files_parked,
            flushes,
            rows_flushed,
            flush_micros,
            flush_micros_max,
            compactions,
            compactions_failed,
            compaction_bytes_read,
            compaction_bytes_written,
            garbage_bytes,
            snapshots,
            snapshot_age_max_micros,
            write_stalls,
            flush_stalls,
            writes_paced,
            jobs_waiting,
            wal_frames,
            wal_records,
            wal_syncs,
            wal_bytes_written,
            wal_segments_full,
            wal_segments_created,
            wal_segments_recycled,
            io,
        } = *self;
        let own = list![
            Gauge databases,
            Gauge databases_open,
            Counter databases_closed,
            Gauge memory_limit_bytes,
            Gauge memtable_bytes,
            Gauge cache_bytes,
            Gauge cache_record_bytes,
            Gauge cache_metadata_bytes,
            Gauge fence_bytes,
            Gauge filter_bytes,
            Gauge row_table_bytes,
            Gauge work_bytes,
            Gauge database_bytes,
            Gauge log_buffer_bytes,
            Counter cache_hits,
            Counter cache_record_hits,
            Counter cache_misses,
            Counter cache_evictions,
            Counter cache_loads_failed,
            Counter cache_bypasses,
            Gauge pages_pinned,
            Gauge files_open,
            Counter files_opened,
            Counter files_evicted,
            Counter files_parked,
            Counter flushes,
            Counter rows_flushed,
            Counter flush_micros,
            Gauge flush_micros_max,
            Counter compactions,
            Counter compactions_failed,
            Counter compaction_bytes_read,
            Counter compaction_bytes_written,
            Gauge garbage_bytes,
            Gauge snapshots,
            Gauge snapshot_age_max_micros,
            Counter write_stalls,
            Counter flush_stalls,
            Counter writes_paced,
            Gauge jobs_waiting,
            Counter wal_frames,
            Counter wal_records,
            Counter wal_syncs,
            Counter wal_bytes_written,
            Gauge wal_segments_full,
            Counter wal_segments_created,
            Counter wal_segments_recycled,
        ];
        own.into_iter().chain(io_metrics(&io)).collect()
    }
}

fn io_metrics(io: &IoStats) -> impl Iterator<Item = Metric> + use<> {
    io.figures().map(|(name, value)| {
        let kind = if name == "io_maps_open" { Kind::Gauge } else { Kind::Counter };
        metric(name, kind, value)
    })
}

/// Hands figures to the recorder of the `metrics` crate that the process has installed.
#[cfg(feature = "metrics")]
#[derive(Clone, Debug)]
pub struct Facade {
    labels: Vec<metrics::Label>,
}

/// What every name begins with, so that they stand together among those of others.
#[cfg(feature = "metrics")]
pub const PREFIX: &str = "nephrite_";

#[cfg(feature = "metrics")]
impl Facade {
    /// `store` becomes the label `store` of every figure, so that several stores of a process are
    /// told apart.
    #[must_use]
    pub fn new(store: impl Into<String>) -> Self {
        Self { labels: vec![metrics::Label::new("store", store.into())] }
    }
}

#[cfg(feature = "metrics")]
impl MetricsRecorder for Facade {
    fn record(&self, metric: &Metric) {
        let (name, labels) = (format!("{PREFIX}{}", metric.name), self.labels.clone());
        match metric.kind {
            Kind::Counter => metrics::counter!(name, labels).absolute(metric.value),
            Kind::Gauge => {
                #[expect(clippy::cast_precision_loss, reason = "the facade's gauges are f64")]
                metrics::gauge!(name, labels).set(metric.value as f64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_their_unit() {
        let units = [
            ("cache_bytes", Unit::Bytes),
            ("io_bytes_read", Unit::Bytes),
            ("flush_micros_max", Unit::Microseconds),
            ("flushes", Unit::Count),
            ("byte", Unit::Count),
        ];
        for (name, unit) in units {
            assert_eq!(unit_of(name), unit, "{name}");
        }
    }
}
