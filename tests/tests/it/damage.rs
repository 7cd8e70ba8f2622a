//! Damaged files of each kind: never a panic, never a wrong byte, always a name.
//!
//! | what | must |
//! |---|---|
//! | manifest | the store does not open; the error names the manifest |
//! | log that is still needed | the store does not open; the error names the log file |
//! | segment | its database gives errors that name it, or right answers; all others are served |
//! | unused room (blank log blocks, blank manifest blocks) | everything is there |
//!
//! The stores are small enough that every region of every file is hit; at the full scale all bytes
//! of headers in use are, and the others more densely.

mod logs;
mod manifests;
pub(super) mod segments;
mod swapped;

use std::path::{Path, PathBuf};

use nephrite::{
    BackendChoice, Config, DatabaseOptions, Durability, Error, Id, IdKind, IdRef, Ids,
    blocking::{Database, Store},
};
use nephrite_tests::{
    assert_vector,
    directories::{Kind, StoreFile, crash_image, files_of, restore_image},
    log_frames::wait_for_mark,
    small, vector,
};
use tempfile::TempDir;

/// What a database must hold.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) name: &'static str,
    /// Ascending by id.
    pub(super) records: Vec<(Id, u64)>,
    pub(super) absent: Vec<Id>,
}

/// A store that is damaged again and again: each time a fresh copy of one image.
pub(super) struct Patient {
    directory: TempDir,
    pub(super) expected: Vec<Expected>,
}

/// Rings add nothing here but the time to set them up.
pub(super) fn config() -> Config {
    small().backend(BackendChoice::Positional)
}

impl Patient {
    /// A store that was closed: all its data is in segments.
    ///
    /// Databases by number: 1 `dense` (rows that do not fill their pages, one segment without an
    /// id run), 2 `sparse` (two segments, the second with tombstones), 3 `names` (byte ids).
    pub(super) fn closed() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(directory.path().join("image"), config()).unwrap();
        let expected = vec![dense(&store), sparse(&store), names(&store)];
        store.close().unwrap();
        Self { directory, expected }.fresh()
    }

    /// A store whose newest writes are only in the log, as a crash would leave it.
    pub(super) fn crashed() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let live = directory.path().join("live");
        let store = Store::create(&live, config()).unwrap();
        let mut expected = vec![dense(&store)];
        let logged = store.create_database("logged", DatabaseOptions::new(100)).unwrap();
        for id in 0..12 {
            logged.put_with(id, &vector(id, 100), Durability::Synced).unwrap();
        }
        expected.push(Expected {
            name: "logged",
            records: (0..12).map(|id| (Id::U64(id), id)).collect(),
            absent: vec![Id::U64(12)],
        });
        wait_for_mark(&live);
        crash_image(&live, &directory.path().join("image"));
        Self { directory, expected }.fresh()
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    /// Undoes all damage, and whatever an open of the damaged store did.
    fn fresh(self) -> Self {
        restore_image(&self.image(), &self.path());
        self
    }

    pub(super) fn restore(&self) {
        restore_image(&self.image(), &self.path());
    }

    pub(super) fn files(&self, kind: Kind) -> Vec<StoreFile> {
        files_of(&self.path(), kind)
    }

    /// The store does not open, and the error names the file.
    #[track_caller]
    fn assert_refused(&self, file: &StoreFile, what: &str) {
        match Store::open(self.path(), config()) {
            Ok(store) => {
                let lost = self.lost(&store);
                panic!("{what}: the store opens; lost without a word: {lost:?}");
            }
            Err(error) => assert_names(&error, file, what),
        }
    }

    /// Ids that are silently gone.
    fn lost(&self, store: &Store) -> Vec<String> {
        let mut lost = Vec::new();
        for expected in &self.expected {
            let Ok(database) = store.database(expected.name) else { continue };
            for (id, _) in &expected.records {
                if matches!(database.get(id), Ok(None)) {
                    lost.push(format!("{}/{id}", expected.name));
                }
            }
        }
        lost
    }

    /// The store opens and all of it is right.
    #[track_caller]
    fn assert_whole(&self, what: &str) {
        let store = Store::open(self.path(), config()).unwrap_or_else(|e| panic!("{what}: {e}"));
        let failures = self.read_everything(&store, what);
        assert!(failures.is_empty(), "{what}: {failures:?}");
        let report = store.verify(|_| ()).unwrap();
        assert!(report.is_clean(), "{what}: {report:?}");
    }

    /// Reads everything in every way. An answer must be right; errors are returned with their
    /// database.
    #[track_caller]
    fn read_everything(&self, store: &Store, what: &str) -> Vec<(&'static str, Error)> {
        let mut failures = Vec::new();
        for expected in &self.expected {
            let mut note = |error| failures.push((expected.name, error));
            match store.database(expected.name) {
                Ok(database) => expected.read(&database, what, &mut note),
                Err(error) => note(error),
            }
        }
        failures
    }
}

impl Expected {
    #[track_caller]
    fn read(&self, database: &Database, what: &str, failed: &mut impl FnMut(Error)) {
        for (id, stamp) in &self.records {
            let asked = format!("{what}: id {id} of {}", self.name);
            match database.get(id) {
                Ok(Some(found)) => assert_vector(&found, *stamp, asked),
                Ok(None) => panic!("{asked} is silently gone"),
                Err(error) => failed(error),
            }
        }
        for id in &self.absent {
            match database.get(id) {
                Ok(found) => assert!(found.is_none(), "{what}: id {id} appeared"),
                Err(error) => failed(error),
            }
        }
        match database.count() {
            Ok(count) => assert_eq!(count, self.records.len() as u64, "{what}: {}", self.name),
            Err(error) => failed(error),
        }
        self.read_many(database, what, failed);
        self.scan(database, what, failed);
    }

    #[track_caller]
    fn read_many(&self, database: &Database, what: &str, failed: &mut impl FnMut(Error)) {
        let ids: Vec<IdRef<'_>> = self.records.iter().map(|(id, _)| id.as_id_ref()).collect();
        match database.get_many(&ids) {
            Ok(found) => {
                for ((id, stamp), found) in self.records.iter().zip(found) {
                    let found = found.unwrap_or_else(|| panic!("{what}: id {id} is gone"));
                    assert_vector(&found, *stamp, format_args!("{what}: id {id}"));
                }
            }
            Err(error) => failed(error),
        }
    }

    #[track_caller]
    fn scan(&self, database: &Database, what: &str, failed: &mut impl FnMut(Error)) {
        let rows = match database.scan() {
            Ok(rows) => rows,
            Err(error) => return failed(error),
        };
        let mut expected = self.records.iter();
        for row in rows {
            match row {
                Ok((id, found)) => {
                    let (wanted, stamp) = expected.next().expect("not more than was stored");
                    assert_eq!(id, *wanted, "{what}: scan of {}", self.name);
                    assert_vector(&found, *stamp, format_args!("{what}: scan, id {id}"));
                }
                Err(error) => return failed(error),
            }
        }
        assert_eq!(expected.next(), None, "{what}: the scan of {} ends early", self.name);
    }
}

#[track_caller]
fn assert_names(error: &Error, file: &StoreFile, what: &str) {
    let text = error.to_string();
    assert!(text.contains(&file.name), "{what}: the error does not name {}: {text}", file.name);
}

fn dense(store: &Store) -> Expected {
    let database = store.create_database("dense", DatabaseOptions::new(100)).unwrap();
    let rows: Vec<f32> = (0..60).flat_map(|stamp| vector(stamp, 100)).collect();
    database.put_many(Ids::Consecutive(10), &rows, Durability::Buffered).unwrap();
    database.flush().unwrap();
    let records = (0..60).map(|stamp| (Id::U64(10 + stamp), stamp)).collect();
    let absent = [0, 9, 70, u64::MAX].map(Id::U64).to_vec();
    Expected { name: "dense", records, absent }
}

fn sparse(store: &Store) -> Expected {
    let database = store.create_database("sparse", DatabaseOptions::new(24)).unwrap();
    // More than one id page and one checksum page each hold something.
    for id in 0..400_u64 {
        database.put(id * 3, &vector(id, 24)).unwrap();
    }
    database.flush().unwrap();
    for id in 0..40_u64 {
        database.put(id * 30, &vector(1000 + id, 24)).unwrap();
        database.delete(id * 30 + 3).unwrap();
    }
    database.flush().unwrap();
    let stamp = |id: u64| if id.is_multiple_of(10) { 1000 + id / 10 } else { id };
    let records = (0..400).filter(|id| id % 10 != 1).map(|id| (Id::U64(id * 3), stamp(id)));
    let absent = [1, 3, 33, 1200].map(Id::U64).to_vec();
    Expected { name: "sparse", records: records.collect(), absent }
}

fn names(store: &Store) -> Expected {
    let options = DatabaseOptions::new(33).id_kind(IdKind::Bytes);
    let database = store.create_database("names", options).unwrap();
    for stamp in 0..150_u64 {
        database.put(&name(stamp), &vector(stamp, 33)).unwrap();
    }
    database.flush().unwrap();
    let records = (0..150).map(|stamp| (name(stamp), stamp)).collect();
    let absent = vec![Id::Bytes((*b"absent").into()), Id::Bytes([0xff; 255].into())];
    Expected { name: "names", records, absent }
}

fn name(stamp: u64) -> Id {
    let text = format!("{stamp:05} {}", "long name ".repeat(usize::try_from(stamp % 20).unwrap()));
    Id::Bytes(text.into_bytes().into())
}

/// Offsets worth flipping in a block that begins at `start`: all of its first bytes, its last,
/// and some between.
fn offsets_of_block(start: u64, dense: u64, step: usize) -> Vec<u64> {
    let sampled = (dense..4088).step_by(step);
    (0..dense).chain(sampled).chain(4088..4096).map(|offset| start + offset).collect()
}

/// A bit of each byte; which one depends on the place.
pub(super) fn bit_at(offset: u64) -> u8 {
    u8::try_from((offset ^ offset >> 3 ^ offset >> 12) % 8).unwrap()
}

/// Lengths to cut a file to.
pub(super) fn cuts(bytes: u64) -> Vec<u64> {
    let mut cuts =
        vec![0, 1, 191, 4095, 4096, 4097, 8192, bytes / 2, bytes - 4096, bytes - 512, bytes - 1];
    cuts.retain(|cut| *cut < bytes);
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

pub(super) fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}
