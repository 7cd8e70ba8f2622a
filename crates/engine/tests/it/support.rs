//! Helpers that speak the domain: stores in temporary directories, vectors that tell who they are,
//! and crash images.

use std::{fs, path::Path, time::Duration};

use nephrite::{BackendChoice, Config, blocking::Store};
use tempfile::TempDir;

/// The lock file says nothing, and Windows lets nobody read it while it is held.
const LOCK: &str = "LOCK";

/// A small configuration, so that flushes, log segments and evictions happen early.
pub(crate) fn small() -> Config {
    Config::new()
        .memory_limit(8 << 20)
        .memtable_bytes(256 << 10)
        .wal_segment_bytes(256 << 10)
        .backend(backend())
}

/// The backend of all stores in these tests: NEPHRITE_TEST_BACKEND, or the default.
pub(crate) fn backend() -> BackendChoice {
    match std::env::var("NEPHRITE_TEST_BACKEND") {
        Ok(name) => name.parse().unwrap(),
        Err(_) => BackendChoice::Auto,
    }
}

pub(crate) fn new_store(config: Config) -> (TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(directory.path().join("store"), config).unwrap();
    (directory, store)
}

/// Lengths of the segment files of a store.
pub(crate) fn segment_files(store: &Path) -> Vec<u64> {
    let listed = std::fs::read_dir(store.join("segments")).unwrap();
    listed.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).collect()
}

/// Runs `work` on a thread of its own, so that a hang is a failure.
pub(crate) fn ends(work: impl FnOnce() + Send + 'static) {
    let (end, ended) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("work".to_owned()).spawn(move || {
        work();
        let _ = end.send(());
    });
    let hang = ended.recv_timeout(Duration::from_secs(120));
    assert_ne!(hang, Err(std::sync::mpsc::RecvTimeoutError::Timeout), "it hangs");
    thread.unwrap().join().unwrap();
}

/// A vector whose every element depends on seed and position.
pub(crate) fn vector(seed: u64, dimension: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..dimension)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let mantissa = u32::try_from(state >> 41).unwrap();
            f32::from_bits(mantissa | 0x3F00_0000)
        })
        .collect()
}

/// The directory as a crash would leave it now, in a directory of its own. The engine's tasks go
/// on while files are copied, one after the other: an image counts only if nothing has changed by
/// the time its last file is there.
pub(crate) fn crash_image(store: &Path, into: &Path) {
    loop {
        copy(store, into);
        if is_same(store, into) {
            return;
        }
        fs::remove_dir_all(into).unwrap();
    }
}

fn copy(store: &Path, into: &Path) {
    fs::create_dir_all(into).unwrap();
    for entry in fs::read_dir(store).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() == LOCK {
            continue;
        }
        let target = into.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if fs::copy(entry.path(), &target).is_err() {
            // The engine removed or renamed it between the listing and now; `is_same` finds out.
        }
    }
}

/// Whether both directories have the same files with the same bytes.
fn is_same(left: &Path, right: &Path) -> bool {
    let names = |path: &Path| {
        let entries = fs::read_dir(path).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.retain(|name| name != LOCK);
        names.sort();
        names
    };
    names(left) == names(right)
        && names(left).iter().all(|name| {
            let (left, right) = (left.join(name), right.join(name));
            if left.is_dir() {
                return is_same(&left, &right);
            }
            matches!((fs::read(left), fs::read(right)), (Ok(left), Ok(right)) if left == right)
        })
}
