//! What the demo found, with stable field names for `--json`.

use std::path::PathBuf;

use serde::Serialize;

use super::checks::Checks;
use super::latency::LatencyFigures;
use super::place::Place;

/// All figures of one run.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) vectors: u64,
    pub(super) dimension: u32,
    pub(super) store: PathBuf,
    pub(super) kept: bool,
    pub(super) backend: String,
    pub(super) direct_io: bool,
    pub(super) backend_reason: String,
    pub(super) cold_means: &'static str,
    pub(super) load: LoadFigures,
    pub(super) hot_reads: LatencyFigures,
    pub(super) cold_reads: LatencyFigures,
    pub(super) get_many_100: LatencyFigures,
    pub(super) updates: LatencyFigures,
    pub(super) deletes: LatencyFigures,
    pub(super) open_to_first_vector_seconds: f64,
    pub(super) synced: SyncedFigures,
    pub(super) kill: KillFigures,
    pub(super) verify: VerifyFigures,
    pub(super) bytes_on_disk: u64,
    pub(super) bytes_of_vectors: u64,
    checks: u64,
    checks_failed: u64,
    failures: Vec<String>,
    pub(super) seconds: f64,
}

/// The load of the main database.
#[derive(Debug, Default, Serialize)]
pub(super) struct LoadFigures {
    /// Over load and flush, without the time spent waiting for generated vectors.
    pub(super) vectors_per_second: f64,
    pub(super) megabytes_per_second: f64,
    /// Inside the engine.
    pub(super) load_seconds: f64,
    pub(super) flush_seconds: f64,
    /// Spent waiting for the generator.
    pub(super) generator_wait_seconds: f64,
}

/// Durable writes, one vector each.
#[derive(Debug, Default, Serialize)]
pub(super) struct SyncedFigures {
    pub(super) one_writer_per_second: f64,
    pub(super) writers: u64,
    pub(super) many_writers_per_second: f64,
    pub(super) ratio: f64,
}

/// The rounds in which a writing child was killed.
#[derive(Debug, Default, Serialize)]
pub(super) struct KillFigures {
    pub(super) rounds: u64,
    pub(super) acknowledged_writes: u64,
    pub(super) vectors_checked: u64,
    /// Writes that were not acknowledged and turned out to be wholly there.
    pub(super) in_flight_whole: u64,
    /// Writers whose next write was wholly absent.
    pub(super) in_flight_absent: u64,
    pub(super) reopen_seconds_max: f64,
}

/// The last `verify`.
#[derive(Debug, Default, Serialize)]
pub(super) struct VerifyFigures {
    pub(super) files: u64,
    pub(super) pages: u64,
    pub(super) bytes: u64,
    pub(super) clean: bool,
}

impl Report {
    pub(super) fn new(vectors: u64, dimension: u32, place: &Place) -> Self {
        Self { vectors, dimension, store: place.store(), kept: place.is_kept(), ..Self::default() }
    }

    pub(super) fn record_checks(&mut self, checks: &Checks) {
        self.checks = checks.made;
        self.checks_failed = checks.failed;
        self.failures.clone_from(&checks.failures);
    }
}
