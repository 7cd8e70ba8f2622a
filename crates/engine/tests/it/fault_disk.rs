//! A disk that passes everything on to a real one, fails chosen operations and holds back others.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use nephrite::{
    BackendReport, Config, DatabaseOptions,
    blocking::{Database, Store},
};
use nephrite_format::BLOCK_BYTES;
use nephrite_io::{
    Completed, DirectoryEntry, Disk, DiskOptions, FileHandle, FileLock, IoError, IoFuture,
    IoOperation, IoStats, OpenOptions, Operation, Request, open_disk,
};

use crate::support::{backend, small};

/// Which operations fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fail {
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
    /// Removing such files, which are gone already.
    Removes(&'static str),
    /// Nothing fails, but opening files whose path contains this never ends.
    HoldsOpens(&'static str),
    /// Nothing fails, but syncs of files whose path contains this wait.
    HoldsSyncs(&'static str),
    /// Nothing fails, but reads of one block of segments wait.
    HoldsReadsOfBlocks,
}

pub(crate) struct FaultDisk {
    inner: Arc<dyn Disk>,
    fail: Mutex<Fail>,
    pub(crate) failed: AtomicU64,
    segments_made: AtomicU64,
    syncs: AtomicU64,
    largest_write: AtomicU64,
    largest_read: AtomicU64,
    opens_held: AtomicU64,
    directories_synced: Mutex<Vec<PathBuf>>,
    logs_open: Arc<OpenNow>,
    /// Names of the threads that submitted durable writes, one for each.
    durable_writers: Mutex<Vec<String>>,
    held: Mutex<Vec<Request>>,
}

impl fmt::Debug for FaultDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultDisk").finish_non_exhaustive()
    }
}

impl FaultDisk {
    pub(crate) fn new(directory: &Path) -> Arc<Self> {
        let options = DiskOptions::new().backend(backend());
        // Several such disks may live at a time, and little memory may be locked.
        let options = match std::env::var("NEPHRITE_TEST_RING_ENTRIES") {
            Ok(entries) => options.ring_entries(entries.parse().unwrap()),
            Err(_) => options,
        };
        let inner = open_disk(options, directory).unwrap();
        Arc::new(Self {
            inner,
            fail: Mutex::new(Fail::Nothing),
            failed: AtomicU64::new(0),
            segments_made: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            largest_write: AtomicU64::new(0),
            largest_read: AtomicU64::new(0),
            opens_held: AtomicU64::new(0),
            directories_synced: Mutex::default(),
            logs_open: Arc::default(),
            durable_writers: Mutex::default(),
            held: Mutex::default(),
        })
    }

    /// Bytes of the largest write since this was asked before.
    pub(crate) fn take_largest_write(&self) -> u64 {
        self.largest_write.swap(0, Ordering::Relaxed)
    }

    /// Bytes of the largest read since this was asked before.
    pub(crate) fn take_largest_read(&self) -> u64 {
        self.largest_read.swap(0, Ordering::Relaxed)
    }

    /// What was held back so far goes on.
    pub(crate) fn set(&self, fail: Fail) {
        *self.fail.lock().unwrap() = fail;
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        if !held.is_empty() {
            self.inner.submit(held);
        }
    }

    /// Syncs of files so far.
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed) // a counter
    }

    /// Files whose opening was begun and does not end.
    pub(crate) fn opens_held(&self) -> u64 {
        self.opens_held.load(Ordering::Relaxed) // a counter
    }

    /// Most log files that were open at a time.
    pub(crate) fn logs_open_max(&self) -> u64 {
        self.logs_open.most.load(Ordering::Relaxed) // a counter
    }

    /// Durable writes that a thread of this name submitted.
    pub(crate) fn durable_writes_of(&self, thread: &str) -> usize {
        let writers = self.durable_writers.lock().unwrap();
        writers.iter().filter(|name| *name == thread).count()
    }

    /// Directories that were synced so far.
    pub(crate) fn directories_synced(&self) -> Vec<PathBuf> {
        self.directories_synced.lock().unwrap().clone()
    }

    /// Whether something is being held back.
    pub(crate) fn holds(&self) -> bool {
        !self.held.lock().unwrap().is_empty()
    }

    fn is_held(&self, request: &Request) -> bool {
        let is = |part: &str| request.file.path().to_string_lossy().contains(part);
        match (*self.fail.lock().unwrap(), &request.operation) {
            (Fail::HoldsSyncs(part), operation) => syncs(operation) && is(part),
            (Fail::HoldsReadsOfBlocks, Operation::Read { buffer, .. }) => {
                is(".seg") && buffer.len() <= BLOCK_BYTES
            }
            _ => false,
        }
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
            if syncs(&request.operation) {
                self.syncs.fetch_add(1, Ordering::Relaxed); // a counter
            }
            if matches!(request.operation, Operation::WriteSynced { .. }) {
                let name = std::thread::current().name().unwrap_or_default().to_owned();
                self.durable_writers.lock().unwrap().push(name);
            }
            match &request.operation {
                Operation::Write { buffer, .. } => {
                    self.largest_write.fetch_max(buffer.len() as u64, Ordering::Relaxed); // a gauge
                }
                Operation::Read { buffer, .. } => {
                    self.largest_read.fetch_max(buffer.len() as u64, Ordering::Relaxed); // a gauge
                }
                _ => {}
            }
            if self.is_held(&request) {
                self.held.lock().unwrap().push(request);
                continue;
            }
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
        let fail = *self.fail.lock().unwrap();
        if matches!(fail, Fail::HoldsOpens(part) if path.to_string_lossy().contains(part)) {
            self.opens_held.fetch_add(1, Ordering::Relaxed); // a counter
            return Box::pin(std::future::pending());
        }
        let kind = match fail {
            Fail::Creates(part, kind) if is(part) => Some(kind),
            Fail::SegmentsBeyond(most) if is(".seg") => {
                let made = self.segments_made.fetch_add(1, Ordering::Relaxed); // a counter
                (most <= made).then_some(io::ErrorKind::StorageFull)
            }
            _ => None,
        };
        let Some(kind) = kind else {
            let opened = self.inner.open(path, options);
            return if path.extension().is_some_and(|it| it == "wal") {
                Box::pin(counted(opened, Arc::clone(&self.logs_open)))
            } else {
                opened
            };
        };
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
        let fail = *self.fail.lock().unwrap();
        if !matches!(fail, Fail::Removes(part) if path.to_string_lossy().contains(part)) {
            return self.inner.remove_file(path);
        }
        let (inner, path) = (Arc::clone(&self.inner), path.to_owned());
        Box::pin(async move {
            inner.remove_file(&path).await?;
            inner.remove_file(&path).await
        })
    }

    fn sync_dir(&self, path: &Path) -> IoFuture<()> {
        self.directories_synced.lock().unwrap().push(path.to_owned());
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

/// How many files are open.
#[derive(Default)]
struct OpenNow {
    now: AtomicU64,
    most: AtomicU64,
}

/// Held by a file as long as it is open.
struct CountedOpen(Arc<OpenNow>);

impl Drop for CountedOpen {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed); // a counter
    }
}

async fn counted(opening: IoFuture<FileHandle>, open: Arc<OpenNow>) -> Result<FileHandle, IoError> {
    let file = opening.await?;
    let now = open.now.fetch_add(1, Ordering::Relaxed) + 1; // a counter
    open.most.fetch_max(now, Ordering::Relaxed); // a counter
    file.hold_until_closed(Box::new(CountedOpen(open)));
    Ok(file)
}

fn syncs(operation: &Operation) -> bool {
    matches!(operation, Operation::Sync | Operation::WriteSynced { .. })
}

pub(crate) fn faulty() -> (tempfile::TempDir, Arc<FaultDisk>, Config) {
    let directory = tempfile::tempdir().unwrap();
    let disk = FaultDisk::new(directory.path());
    let config = small().disk(Arc::clone(&disk) as Arc<dyn Disk>);
    (directory, disk, config)
}

/// A store on such a disk, at `store` in the directory, with a database of 128 values.
pub(crate) fn faulty_store(
    configure: impl FnOnce(Config) -> Config,
) -> (tempfile::TempDir, Arc<FaultDisk>, Store, Database) {
    let (directory, disk, config) = faulty();
    let store = Store::create(directory.path().join("store"), configure(config)).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    (directory, disk, store, database)
}
