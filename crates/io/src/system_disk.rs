//! The disk of a real machine: rings where they were chosen, positional threads else, and the
//! metadata threads that both share; and the mappings of the mmap backend.
//!
//! Guarantee: each request is counted once and ends once. After `shutdown` was called nothing is
//! taken in. Dropping the disk without a shutdown drains it for a bounded time.
//! A forked child has none of these threads, so there every request is refused.
//! Tested in `tests/it`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::batch::Batch;
use crate::caller::CallerRings;
use crate::disk::{DirectoryEntry, Disk, FileLock, IoFuture};
use crate::durable::WriteThrough;
use crate::error::{IoError, IoErrorKind, IoOperation};
use crate::file::{FileHandle, OpenOptions};
use crate::fork;
use crate::free_space;
use crate::mapping::{MAPPED_BYTES_MAX, Mappings};
use crate::memory::Arena;
use crate::metadata;
use crate::metadata_lane::MetadataLane;
use crate::options::DiskOptions;
use crate::positional::{Calls, Positional};
use crate::report::BackendReport;
use crate::request::{IoBuffer, Request};
use crate::stats::{Counters, IoStats};
use crate::ticket::Ticket;
use crate::uring::Rings;

pub(crate) struct SystemDisk {
    rings: Option<Arc<Rings>>,
    positional: Arc<Positional>,
    metadata: MetadataLane,
    /// For sealed files, where the mmap backend was chosen.
    mappings: Option<Arc<Mappings>>,
    counters: Arc<Counters>,
    /// Written once by the selection, before anyone else has the disk.
    report: OnceLock<BackendReport>,
    /// Cleared when a directory turns out not to take direct I/O although its files open with it.
    direct: AtomicBool,
    directory: PathBuf,
    write_through: WriteThrough,
    drain_timeout: Duration,
    registers: bool,
    process: u32,
}

impl SystemDisk {
    pub(crate) fn new(
        options: &DiskOptions,
        directory: &Path,
        calls: Box<dyn Calls>,
        rings: impl FnOnce(&Arc<Counters>, &Arc<Positional>) -> Option<Rings>,
    ) -> Self {
        let counters = Arc::new(Counters::default());
        let threads = usize::try_from(options.positional_threads_max()).unwrap_or(usize::MAX);
        let positional = Arc::new(Positional::new(threads, Arc::clone(&counters), calls));
        Self {
            rings: rings(&counters, &positional).map(Arc::new),
            positional,
            metadata: MetadataLane::new(),
            mappings: None,
            counters,
            report: OnceLock::new(),
            direct: AtomicBool::new(options.direct),
            directory: directory.to_owned(),
            write_through: WriteThrough::decide(options.durable_writes, directory),
            drain_timeout: options.drain_timeout,
            registers: options.registered_buffers,
            process: fork::generation(),
        }
    }

    pub(crate) fn set_report(&self, report: BackendReport) {
        assert!(self.report.set(report).is_ok(), "the report of a disk is set once");
    }

    /// The same, mapping sealed files; all others go through the system's cache then, so that what
    /// was written is there when the file is mapped.
    pub(crate) fn with_mappings(mut self) -> Self {
        self.mappings = Some(Mappings::new(MAPPED_BYTES_MAX, Arc::clone(&self.counters)));
        self.forbid_direct();
        self.write_through = WriteThrough::Never; // for direct files only
        self
    }

    /// What takes the mappings of a path away, on the thread that then changes the file.
    fn releaser(&self) -> impl Fn(&Path) + Send + 'static {
        let mappings = self.mappings.clone();
        move |path| mappings.iter().for_each(|mappings| mappings.release(path))
    }

    pub(crate) fn rings(&self) -> Option<&Rings> {
        self.rings.as_deref()
    }

    pub(crate) fn write_through(&self) -> WriteThrough {
        self.write_through
    }

    pub(crate) fn forbid_direct(&self) {
        // Relaxed: only the probe calls this, before the disk is shared.
        self.direct.store(false, Ordering::Relaxed);
    }

    fn take_in(&self, batch: Batch) {
        self.counters.submitted.add(batch.as_slice().len() as u64);
        if self.is_forked() {
            for request in batch {
                Ticket::reject(request, &self.counters, |operation, file| {
                    forked(operation, file.path())
                });
            }
            return;
        }
        match &self.rings {
            Some(rings) => rings.submit(batch),
            None => batch.into_iter().for_each(|request| self.positional.submit(request)),
        }
    }

    fn is_forked(&self) -> bool {
        self.process != fork::generation()
    }

    fn run<T: Send + 'static>(
        &self,
        operation: IoOperation,
        path: &Path,
        call: impl FnOnce(&Path) -> Result<T, IoError> + Send + 'static,
    ) -> IoFuture<T> {
        if self.is_forked() {
            let error = forked(operation, path);
            return Box::pin(async move { Err(error) });
        }
        self.metadata.run(operation, path, call)
    }
}

fn forked(operation: IoOperation, path: &Path) -> IoError {
    let reason = "this process was forked from the one that opened the disk, and has none of its \
                  I/O threads";
    IoError::refused(operation, path, IoErrorKind::Closed, reason)
}

impl Disk for SystemDisk {
    fn submit(&self, batch: Vec<Request>) {
        self.take_in(batch.into());
    }

    fn submit_one(&self, request: Request) {
        self.take_in(request.into());
    }

    fn open(&self, path: &Path, options: OpenOptions) -> IoFuture<FileHandle> {
        // Relaxed: see `forbid_direct`.
        let direct = options.prefers_direct() && self.direct.load(Ordering::Relaxed);
        let (write_through, options) = (self.write_through, options.direct(direct));
        let mappings = self.mappings.clone();
        self.run(IoOperation::Open, path, move |path| match &mappings {
            Some(mappings) => FileHandle::open_mapped(path, options, mappings),
            None => FileHandle::open_on(path, options, &write_through),
        })
    }

    fn file_len(&self, file: &FileHandle) -> IoFuture<u64> {
        let handle = file.clone();
        self.run(IoOperation::Length, file.path(), move |_| metadata::file_len(&handle))
    }

    fn set_len(&self, file: &FileHandle, len: u64) -> IoFuture<()> {
        let (handle, release) = (file.clone(), self.releaser());
        self.run(IoOperation::SetLength, file.path(), move |path| {
            release(path);
            metadata::set_len(&handle, len)
        })
    }

    fn list_dir(&self, path: &Path) -> IoFuture<Vec<DirectoryEntry>> {
        self.run(IoOperation::ListDirectory, path, metadata::list_dir)
    }

    fn create_dir(&self, path: &Path) -> IoFuture<()> {
        self.run(IoOperation::CreateDirectory, path, metadata::create_dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> IoFuture<()> {
        let (to, release) = (to.to_owned(), self.releaser());
        self.run(IoOperation::Rename, from, move |from| {
            // From here on the table would know the first one by a wrong name.
            release(from);
            release(&to);
            metadata::rename(from, &to)
        })
    }

    fn remove_file(&self, path: &Path) -> IoFuture<()> {
        let release = self.releaser();
        self.run(IoOperation::RemoveFile, path, move |path| {
            release(path);
            metadata::remove_file(path)
        })
    }

    fn sync_dir(&self, path: &Path) -> IoFuture<()> {
        self.run(IoOperation::SyncDirectory, path, metadata::sync_dir)
    }

    fn lock(&self, path: &Path) -> IoFuture<FileLock> {
        self.run(IoOperation::Lock, path, metadata::lock)
    }

    fn caller_rings(&self) -> Option<CallerRings> {
        let access = self.rings().filter(|_| !self.is_forked()).and_then(Rings::caller_access);
        if access.is_none() {
            self.counters.caller_parks.add(1);
        }
        access.map(CallerRings)
    }

    fn read_at_once(&self, file: &FileHandle, offset: u64, buffer: &mut IoBuffer) -> bool {
        self.rings.as_ref().is_some_and(|rings| rings.read_at_once(file, offset, buffer))
    }

    fn register_arena(&self, arena: &Arc<Arena>) {
        if let Some(rings) = self.rings().filter(|_| self.registers && !self.is_forked()) {
            rings.register(arena);
        }
    }

    fn registers_arenas(&self) -> bool {
        self.registers
    }

    fn free_bytes(&self, directory: &Path) -> IoFuture<Option<u64>> {
        self.run(IoOperation::Length, directory, |path| Ok(free_space::free_bytes(path)))
    }

    fn report(&self) -> BackendReport {
        let mut report = self.report.get().expect("the selection has set the report").clone();
        report.degraded = self.rings().and_then(Rings::degraded);
        report.mapping = self.mappings.as_ref().map(|mappings| mappings.report());
        report.registered_bytes = self.rings().map_or(0, Rings::registered_bytes);
        report.registration_refusal = self.rings().and_then(Rings::registration_refusal);
        report.completions_polled = self.rings().is_some_and(Rings::polls_completions);
        report.completion_refusal = self.rings().and_then(Rings::completion_refusal);
        report.caller_refusal = self.rings().and_then(Rings::caller_refusal);
        report
    }

    fn stats(&self) -> IoStats {
        self.counters.picture()
    }

    fn shutdown(&self) -> IoFuture<()> {
        // The rings first: until they have ended they may pass requests to the positional threads.
        let rings = self.rings.as_ref().map(|rings| rings.close());
        let (positional, metadata) = (Arc::clone(&self.positional), self.metadata.clone());
        drop(metadata.pool().close());
        if rings.is_none() {
            drop(positional.pool().close());
        }
        let directory = self.directory.clone();
        Box::pin(async move {
            let stuck = match rings {
                Some(end) => end.await,
                None => 0,
            };
            positional.pool().close().await;
            metadata.pool().close().await;
            positional.pool().join();
            metadata.pool().join();
            if stuck == 0 {
                return Ok(());
            }
            let reason = format!(
                "{stuck} operations did not come back within the drain timeout; their memory is \
                 leaked, and the device should be looked at"
            );
            Err(IoError::refused(IoOperation::Threads, &directory, IoErrorKind::Other, reason))
        })
    }
}

impl Drop for SystemDisk {
    fn drop(&mut self) {
        if self.is_forked() {
            return;
        }
        if let Some(rings) = &self.rings {
            rings.end_within(self.drain_timeout);
        }
        self.positional.pool().end_within(self.drain_timeout);
        self.metadata.pool().end_within(self.drain_timeout);
    }
}

impl fmt::Debug for SystemDisk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SystemDisk")
            .field("directory", &self.directory)
            .field("report", &self.report.get())
            .finish_non_exhaustive()
    }
}
