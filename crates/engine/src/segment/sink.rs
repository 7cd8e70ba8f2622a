//! The file of a segment while it is being written: made on first use, written behind the writers.
//!
//! Guarantee: after [`SegmentSink::drain`] returned `Ok`, every byte submitted before is in the
//! file (not yet synced). The first failed write is kept and returned by every later call.
//! Not here: what is written, syncing, the manifest.
//! Cancel safety: a dropped `drain` or `make_room` leaves the writes running and accounted for.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_lock::OnceCell;
use event_listener::Event;
use nephrite_format::FileId;
use nephrite_io::{Disk, FileHandle, IoBuffer, IoError, OpenOptions, Operation, Request};

use crate::{error::Error, paths::StorePaths};

/// Bytes in flight to one segment file before its writers wait: deep enough for the device (eight
/// writes of 1 MiB reach the sequential bandwidth), small enough to bound memory.
const IN_FLIGHT_BYTES_MAX: u64 = 8 << 20;

/// A segment file under construction.
#[derive(Debug)]
pub(crate) struct SegmentSink {
    id: FileId,
    path: PathBuf,
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    file: OnceCell<FileHandle>,
    entry_durable: AtomicBool,
    in_flight: Arc<InFlight>,
}

#[derive(Debug, Default)]
struct InFlight {
    /// Bytes submitted and not completed. Release on completion pairs with Acquire in the waits,
    /// so that a waiter that sees zero also sees the error slot.
    bytes: AtomicU64,
    failed: Mutex<Option<IoError>>,
    changed: Event,
}

impl InFlight {
    fn failure(&self) -> Option<IoError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn complete(&self, bytes: u64, result: Result<(), IoError>) {
        if let Err(error) = result {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert(error);
        }
        self.bytes.fetch_sub(bytes, Ordering::Release);
        self.changed.notify(usize::MAX);
    }

    async fn wait_until(&self, at_most: u64) -> Result<(), Error> {
        loop {
            let listener = self.changed.listen();
            if self.bytes.load(Ordering::Acquire) <= at_most {
                break;
            }
            listener.await;
        }
        self.failure().map_or(Ok(()), |error| Err(error.into()))
    }
}

impl SegmentSink {
    pub(crate) fn new(id: FileId, paths: &StorePaths, disk: Arc<dyn Disk>) -> Self {
        Self {
            id,
            path: paths.segment(id),
            directory: paths.segments_dir().to_owned(),
            disk,
            file: OnceCell::new(),
            entry_durable: AtomicBool::new(false),
            in_flight: Arc::default(),
        }
    }

    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// The file, created on first use. Ids are never used twice: a file that exists was made by an
    /// earlier call whose future was dropped.
    pub(crate) async fn file(&self) -> Result<&FileHandle, Error> {
        let create = || self.disk.open(&self.path, OpenOptions::read_write().create());
        Ok(self.file.get_or_try_init(create).await?)
    }

    /// Whether the file exists.
    pub(crate) fn is_created(&self) -> bool {
        self.file.get().is_some()
    }

    /// Counts writes as in flight before they are submitted, so that nobody who waits for the file
    /// overlooks them.
    pub(crate) fn claim(&self, writes: &[(u64, IoBuffer)]) {
        let bytes = writes.iter().map(|(_, buffer)| buffer.len() as u64).sum();
        self.in_flight.bytes.fetch_add(bytes, Ordering::Relaxed); // paired by complete
    }

    /// Starts writes; they complete in any order.
    pub(crate) fn submit(&self, file: &FileHandle, writes: Vec<(u64, IoBuffer)>) {
        self.claim(&writes);
        self.submit_claimed(file, writes);
    }

    /// Starts writes that were claimed.
    pub(crate) fn submit_claimed(&self, file: &FileHandle, writes: Vec<(u64, IoBuffer)>) {
        let requests: Vec<Request> = writes
            .into_iter()
            .map(|(offset, buffer)| {
                let bytes = buffer.len() as u64;
                let in_flight = Arc::clone(&self.in_flight);
                Request {
                    file: file.clone(),
                    operation: Operation::Write { offset, buffer },
                    on_complete: Box::new(move |done| in_flight.complete(bytes, done.result)),
                }
            })
            .collect();
        self.disk.submit(requests);
    }

    /// Waits until more may be submitted.
    pub(crate) async fn make_room(&self) -> Result<(), Error> {
        self.in_flight.wait_until(IN_FLIGHT_BYTES_MAX).await
    }

    /// Waits for everything submitted so far.
    pub(crate) async fn drain(&self) -> Result<(), Error> {
        self.in_flight.wait_until(0).await
    }

    /// Makes everything drained durable, the directory entry included.
    pub(crate) async fn sync(&self) -> Result<(), Error> {
        let file = self.file().await?;
        nephrite_io::sync(&*self.disk, file).await?;
        // Acquire/Release: whoever sees the flag also sees the synced directory.
        if !self.entry_durable.load(Ordering::Acquire) {
            self.disk.sync_dir(&self.directory).await?;
            self.entry_durable.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// The first failed write: the file takes no more.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.in_flight.failure().map(Error::from)
    }
}
