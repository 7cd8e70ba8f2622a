//! What the engine does when the disk fails: a disk that passes everything on to a real one and
//! fails chosen operations.

use std::{
    fmt, io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use nephrite::{BackendReport, Config, DatabaseOptions, Durability, Error, Ids, blocking::Store};
use nephrite_io::{
    Completed, DirectoryEntry, Disk, DiskOptions, FileHandle, FileLock, IoError, IoErrorKind,
    IoFuture, IoOperation, IoStats, OpenOptions, Operation, Request, open_disk,
};

use crate::support::{crash_image, small, vector};

/// Which operations fail.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fail {
    Nothing,
    /// Syncs of files whose path contains this.
    Syncs(&'static str),
    /// Writes to such files, with this kind of error.
    Writes(&'static str, io::ErrorKind),
    /// Reads of such files.
    Reads(&'static str),
    /// Creating such files, with this kind of error.
    Creates(&'static str, io::ErrorKind),
    /// Creating more than this many segment files: a disk that gets full.
    SegmentsBeyond(u64),
}

struct FaultDisk {
    inner: Arc<dyn Disk>,
    fail: Mutex<Fail>,
    failed: AtomicU64,
    segments_made: AtomicU64,
}

impl fmt::Debug for FaultDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultDisk").finish_non_exhaustive()
    }
}

impl FaultDisk {
    fn new(directory: &Path) -> Arc<Self> {
        let inner = open_disk(DiskOptions::new(), directory).unwrap();
        Arc::new(Self {
            inner,
            fail: Mutex::new(Fail::Nothing),
            failed: AtomicU64::new(0),
            segments_made: AtomicU64::new(0),
        })
    }

    fn set(&self, fail: Fail) {
        *self.fail.lock().unwrap() = fail;
    }

    fn fault(&self, request: &Request) -> Option<IoError> {
        let path = request.file.path();
        let matches = |part: &str| path.to_string_lossy().contains(part);
        let (operation, kind) = match (*self.fail.lock().unwrap(), &request.operation) {
            (Fail::Syncs(part), Operation::Sync | Operation::WriteSynced { .. })
                if matches(part) =>
            {
                (IoOperation::Sync, io::ErrorKind::Other)
            }
            (Fail::Writes(part, kind), Operation::Write { .. } | Operation::WriteSynced { .. })
                if matches(part) =>
            {
                (IoOperation::Write, kind)
            }
            (Fail::Reads(part), Operation::Read { .. }) if matches(part) => {
                (IoOperation::Read, io::ErrorKind::Other)
            }
            _ => return None,
        };
        self.failed.fetch_add(1, Ordering::Relaxed); // a counter
        Some(IoError::new(operation, path, io::Error::from(kind)))
    }
}

impl Disk for FaultDisk {
    fn submit(&self, batch: Vec<Request>) {
        let mut passed = Vec::new();
        for request in batch {
            let Some(error) = self.fault(&request) else {
                passed.push(request);
                continue;
            };
            let buffer = match request.operation {
                Operation::Read { buffer, .. }
                | Operation::Write { buffer, .. }
                | Operation::WriteSynced { buffer, .. } => Some(buffer),
                _ => None,
            };
            (request.on_complete)(Completed { result: Err(error), buffer });
        }
        if !passed.is_empty() {
            self.inner.submit(passed);
        }
    }

    fn open(&self, path: &Path, options: OpenOptions) -> IoFuture<FileHandle> {
        let is = |part: &str| path.to_string_lossy().contains(part) && !path.exists();
        let kind = match *self.fail.lock().unwrap() {
            Fail::Creates(part, kind) if is(part) => Some(kind),
            Fail::SegmentsBeyond(most) if is(".seg") => {
                let made = self.segments_made.fetch_add(1, Ordering::Relaxed); // a counter
                (most <= made).then_some(io::ErrorKind::StorageFull)
            }
            _ => None,
        };
        let Some(kind) = kind else { return self.inner.open(path, options) };
        self.failed.fetch_add(1, Ordering::Relaxed); // a counter
        let error = IoError::new(IoOperation::Open, path, io::Error::from(kind));
        Box::pin(async { Err(error) })
    }

    fn file_len(&self, file: &FileHandle) -> IoFuture<u64> {
        self.inner.file_len(file)
    }

    fn set_len(&self, file: &FileHandle, len: u64) -> IoFuture<()> {
        self.inner.set_len(file, len)
    }

    fn list_dir(&self, path: &Path) -> IoFuture<Vec<DirectoryEntry>> {
        self.inner.list_dir(path)
    }

    fn create_dir(&self, path: &Path) -> IoFuture<()> {
        self.inner.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> IoFuture<()> {
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> IoFuture<()> {
        self.inner.remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> IoFuture<()> {
        self.inner.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> IoFuture<FileLock> {
        self.inner.lock(path)
    }

    fn report(&self) -> BackendReport {
        self.inner.report()
    }

    fn stats(&self) -> IoStats {
        self.inner.stats()
    }

    fn shutdown(&self) -> IoFuture<()> {
        self.inner.shutdown()
    }
}

fn faulty() -> (tempfile::TempDir, Arc<FaultDisk>, Config) {
    let directory = tempfile::tempdir().unwrap();
    let disk = FaultDisk::new(directory.path());
    let config = small().disk(Arc::clone(&disk) as Arc<dyn Disk>);
    (directory, disk, config)
}

#[test]
fn a_failed_log_sync_poisons_and_is_never_acknowledged() {
    let (directory, disk, config) = faulty();
    let path = directory.path().join("store");
    let store = Store::create(&path, config).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(8)).unwrap();
    database.put_with(1, &vector(1, 8), Durability::Synced).unwrap();
    disk.set(Fail::Syncs(".wal"));
    let failed = database.put_with(2, &vector(2, 8), Durability::Synced);
    assert!(matches!(failed, Err(Error::Io(_))), "{failed:?}");
    disk.set(Fail::Nothing);
    // The sync is not tried again, and what was not acknowledged is not shown.
    let after = database.put_with(3, &vector(3, 8), Durability::Synced);
    assert!(matches!(after, Err(Error::Poisoned { .. })), "{after:?}");
    let buffered = database.put(4, &vector(4, 8));
    assert!(matches!(buffered, Err(Error::Poisoned { .. })), "{buffered:?}");
    assert!(database.get(2).unwrap().is_none());
    assert!(database.get(1).unwrap().is_some());
    assert!(matches!(store.close(), Err(Error::Poisoned { .. })));
    let store = Store::open(&path, small()).unwrap();
    let database = store.database("a").unwrap();
    assert_eq!(&database.get(1).unwrap().unwrap()[..], &vector(1, 8)[..]);
    database.put_with(3, &vector(3, 8), Durability::Synced).unwrap();
}

#[test]
fn a_failed_manifest_sync_keeps_the_old_state_and_poisons_the_manifest() {
    let (directory, disk, config) = faulty();
    let path = directory.path().join("store");
    let store = Store::create(&path, config).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(8)).unwrap();
    database.put_with(1, &vector(1, 8), Durability::Synced).unwrap();
    disk.set(Fail::Syncs("manifest"));
    assert!(matches!(store.flush(), Err(Error::Io(_))));
    disk.set(Fail::Nothing);
    let again = store.create_database("b", DatabaseOptions::new(8));
    assert!(matches!(again, Err(Error::Poisoned { .. })), "{again:?}");
    assert!(database.get(1).unwrap().is_some());
    drop(database);
    assert!(store.close().is_err());
    let store = Store::open(&path, small()).unwrap();
    let database = store.database("a").unwrap();
    assert_eq!(&database.get(1).unwrap().unwrap()[..], &vector(1, 8)[..]);
    assert!(store.verify(|_| ()).unwrap().is_clean());
}

#[test]
fn a_full_disk_refuses_clearly_and_writing_resumes_when_space_returns() {
    let (directory, disk, config) = faulty();
    let path = directory.path().join("store");
    let store = Store::create(&path, config).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    for id in 0..100_u64 {
        database.put_with(id, &vector(id, 128), Durability::Synced).unwrap();
    }
    for fail in [
        Fail::Creates(".seg", io::ErrorKind::StorageFull),
        Fail::Writes(".seg", io::ErrorKind::StorageFull),
    ] {
        disk.set(fail);
        let flushed = store.flush();
        assert!(matches!(&flushed, Err(error) if error.is_disk_full()), "{flushed:?}");
        let synced = database.put_with(1000, &vector(1, 128), Durability::Synced);
        assert!(matches!(&synced, Err(error) if error.is_disk_full()), "{synced:?}");
        assert!(database.get(1000).unwrap().is_none());
        assert_eq!(&database.get(7).unwrap().unwrap()[..], &vector(7, 128)[..]);
        disk.set(Fail::Nothing);
        store.flush().unwrap();
        database.put_with(2000, &vector(1, 128), Durability::Synced).unwrap();
    }
    assert!(disk.failed.load(Ordering::Relaxed) > 1);
    store.close().unwrap();
    let store = Store::open(&path, small()).unwrap();
    assert_eq!(store.database("a").unwrap().count().unwrap(), 101);
    assert!(store.verify(|_| ()).unwrap().is_clean());
}

#[test]
fn a_full_disk_while_bulk_rows_are_written_loses_nothing_acknowledged() {
    let (directory, disk, config) = faulty();
    let path = directory.path().join("store");
    let store = Store::create(&path, config.memory_limit(32 << 20)).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    let rows: Vec<f32> = (0..400_u64).flat_map(|id| vector(id, 128)).collect();
    disk.set(Fail::Writes(".seg", io::ErrorKind::StorageFull));
    let mut stored = 0;
    let error = loop {
        match database.put_many(Ids::Consecutive(stored), &rows, Durability::Buffered) {
            Ok(()) => stored += 400,
            Err(error) => break error,
        }
    };
    assert!(error.is_disk_full(), "{error}");
    assert_eq!(database.count().unwrap(), stored);
    assert_eq!(&database.get(stored - 1).unwrap().unwrap()[..], &vector(399, 128)[..]);
    disk.set(Fail::Nothing);
    store.flush().unwrap();
    database.put_many(Ids::Consecutive(stored), &rows, Durability::Buffered).unwrap();
    store.close().unwrap();
    let store = Store::open(&path, small()).unwrap();
    let database = store.database("a").unwrap();
    assert_eq!(database.count().unwrap(), stored + 400);
    for id in (0..stored).step_by(97) {
        assert_eq!(&database.get(id).unwrap().unwrap()[..], &vector(id % 400, 128)[..]);
    }
}

#[test]
fn a_failed_read_is_reported_and_not_cached() {
    let (directory, disk, config) = faulty();
    let path = directory.path().join("store");
    let store = Store::create(&path, config.clone()).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    for id in 0..100_u64 {
        database.put(id, &vector(id, 128)).unwrap();
    }
    store.flush().unwrap();
    disk.set(Fail::Reads(".seg"));
    let failed = database.get(3);
    assert!(
        matches!(&failed, Err(Error::Io(error)) if error.kind() == IoErrorKind::Other),
        "{failed:?}"
    );
    disk.set(Fail::Nothing);
    assert_eq!(&database.get(3).unwrap().unwrap()[..], &vector(3, 128)[..]);
    assert_eq!(store.stats().pages_pinned, 0);
}

/// The log held three memtables; recovery flushed the first, and its manifest edit said that the
/// log was no longer needed: the second kill lost what had not been replayed yet.
#[test]
fn a_crash_in_a_recovery_that_flushed_a_part_loses_nothing() {
    let (directory, disk, config) = faulty();
    let path = directory.path().join("store");
    let store = Store::create(&path, config).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    disk.set(Fail::Creates(".seg", io::ErrorKind::StorageFull));
    let mut acknowledged = 0;
    while acknowledged < 1500 && database.put(acknowledged, &vector(acknowledged, 128)).is_ok() {
        acknowledged += 1;
    }
    let image = directory.path().join("image");
    crash_image(&path, &image);
    // What the image holds, as a recovery that is not disturbed sees it.
    let copy = directory.path().join("copy");
    crash_image(&image, &copy);
    let expected = Store::open(&copy, small()).unwrap().database("a").unwrap().count().unwrap();
    assert!(expected > 1000, "{expected} of {acknowledged}: the log must hold several memtables");
    for allowed in 0..4 {
        let image_of = |name: &str| directory.path().join(format!("{name}-{allowed}"));
        let (first, second) = (image_of("first"), image_of("second"));
        crash_image(&image, &first);
        let disk = FaultDisk::new(directory.path());
        disk.set(Fail::SegmentsBeyond(allowed));
        let full = Store::open(&first, small().disk(disk as Arc<dyn Disk>)).unwrap();
        assert_eq!(full.database("a").unwrap().count().unwrap(), expected);
        crash_image(&first, &second);
        let store = Store::open(&second, small()).unwrap();
        let database = store.database("a").unwrap();
        assert_eq!(database.count().unwrap(), expected, "{allowed} segments could be made");
        for id in (0..expected).step_by(97) {
            assert_eq!(&database.get(id).unwrap().unwrap()[..], &vector(id, 128)[..]);
        }
    }
}
