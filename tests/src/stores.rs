//! Stores in temporary directories and the configurations tests use.

use nephrite::{BackendChoice, Config, blocking::Store};
use tempfile::TempDir;

/// A small configuration, so that flushes, log segments, evictions and stalls happen early.
#[must_use]
pub fn small() -> Config {
    Config::new()
        .memory_limit(8 << 20)
        .memtable_bytes(256 << 10)
        .wal_segment_bytes(256 << 10)
        .backend(backend())
}

/// A configuration with room: what tests of many or large vectors use.
#[must_use]
pub fn roomy() -> Config {
    Config::new().memory_limit(64 << 20).backend(backend())
}

/// The backend of these: NEPHRITE_TEST_BACKEND, or the default.
fn backend() -> BackendChoice {
    match std::env::var("NEPHRITE_TEST_BACKEND") {
        Ok(name) => name.parse().expect("NEPHRITE_TEST_BACKEND is a backend"),
        Err(_) => BackendChoice::Auto,
    }
}

/// A new store in a directory of its own: `<directory>/store`.
///
/// # Panics
/// When it cannot be made.
#[must_use]
#[track_caller]
pub fn new_store(config: Config) -> (TempDir, Store) {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let store = Store::create(directory.path().join("store"), config);
    (directory, store.unwrap_or_else(|error| panic!("a store can be made: {error}")))
}
