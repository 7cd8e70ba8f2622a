//! The file of a segment while it is being written: made on first use, written behind the writers.
//!
//! Guarantees: after [`SegmentSink::drain`] returned `Ok`, every byte submitted before is in the
//! file (not yet synced). The first failed write or sync is kept and returned by every later call.
//! The file may be *parked* while nobody writes to it: synced, closed, and opened again when it is
//! needed, if it is still the same file. It is made longer ahead of large writes, and cut to what
//! was written in the end ([`SegmentSink::lengthen`], [`SegmentSink::cut`]).
//! Not here: what is written, syncing before a promise, the manifest.
//! Cancel safety: a dropped `drain` or `make_room` leaves the writes running and accounted for, a
//! dropped `lengthen` the change of length.
//! Lock rule: `open` is held while the file is opened or parked; nothing else is locked under it
//! but the table of open files. `growth` is held while the length changes, `open` inside it.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use async_lock::Mutex as AsyncMutex;
use event_listener::Event;
use nephrite_format::FileId;
use nephrite_io::{
    Completed, FileHandle, FileIdentity, IoBuffer, IoError, IoErrorKind, IoFuture, OpenOptions,
    Operation, Request,
};

use super::{
    ahead::AheadMemory,
    reader::ReadContext,
    traffic::{Pace, Traffic},
    work_memory::{Held, WorkMemory},
};
use crate::{error::Error, files::OpenFiles, paths::segment_name, planted::planted};

/// Writes that pass the end by no more than this part of a step may do so: making the file longer
/// would cost more.
const PASS_SHARE: u64 = 32;

/// A segment file under construction.
#[derive(Debug)]
pub(crate) struct SegmentSink {
    id: FileId,
    files: Arc<OpenFiles>,
    open: AsyncMutex<Option<FileHandle>>,
    /// What the file was made long to; written under `growth`.
    len: AtomicU64,
    growth: AsyncMutex<Growth>,
    /// Set, under `open`, before the file may exist.
    created: AtomicBool,
    identity: OnceLock<FileIdentity>,
    /// [`SinkFile`]s that exist. Grows under `open`.
    users: AtomicU32,
    entry_durable: AtomicBool,
    /// Syncs of names that had failed when the file was made.
    names_lost: AtomicU64,
    in_flight: Arc<InFlight>,
    in_flight_max: u64,
    /// What the file is made longer by, so that few writes wait for it.
    step: u64,
    work: Arc<WorkMemory>,
    traffic: Arc<Traffic>,
}

/// The file, kept open by whoever is about to write to it.
#[derive(Debug)]
pub(crate) struct SinkFile {
    handle: FileHandle,
    sink: Arc<SegmentSink>,
}

impl Deref for SinkFile {
    type Target = FileHandle;

    fn deref(&self) -> &FileHandle {
        &self.handle
    }
}

impl Drop for SinkFile {
    fn drop(&mut self) {
        // Release pairs with the Acquire in `park`: what this user claimed is counted there.
        if self.sink.users.fetch_sub(1, Ordering::Release) == 1 {
            self.sink.files.writer_rests();
        }
    }
}

/// A change of the file's length, and what it will be. It ends even if whoever asked for it is
/// gone, so the next one waits for it: a late one would cut off what was written meanwhile. For the
/// same reason nobody is told of a length that the file does not have yet.
#[derive(Default)]
struct Growth {
    running: Option<(IoFuture<()>, u64)>,
}

impl Growth {
    async fn settle(&mut self, len: &AtomicU64) {
        if let Some((running, wanted)) = &mut self.running {
            let _ = running.await; // see `SegmentSink::lengthen`
            len.store(*wanted, Ordering::Relaxed); // ordered by the lock for all but a first look
            self.running = None;
        }
    }
}

impl fmt::Debug for Growth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Growth").field("runs", &self.running.is_some()).finish()
    }
}

#[derive(Debug)]
struct InFlight {
    /// Bytes submitted and not completed. Release on completion pairs with Acquire in the waits,
    /// so that a waiter that sees zero also sees the error slot.
    bytes: AtomicU64,
    failed: Mutex<Option<IoError>>,
    changed: Event,
    files: Arc<OpenFiles>,
}

impl InFlight {
    fn failure(&self) -> Option<IoError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fail(&self, error: IoError) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get_or_insert(error);
    }

    fn complete(&self, bytes: u64, result: Result<(), IoError>) {
        if let Err(error) = result {
            self.fail(error);
        }
        if self.bytes.fetch_sub(bytes, Ordering::Release) == bytes {
            self.files.writer_rests();
        }
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
    /// Writers wait while more than `in_flight_max` bytes would be in flight, or fewer (`traffic`).
    /// Files of rows are made longer in steps of `step` bytes.
    pub(crate) fn new(id: FileId, context: &ReadContext, in_flight_max: u64, step: u64) -> Self {
        let files = &context.files;
        Self {
            id,
            files: Arc::clone(files),
            open: AsyncMutex::new(None),
            len: AtomicU64::new(0),
            growth: AsyncMutex::default(),
            created: AtomicBool::new(false),
            identity: OnceLock::new(),
            users: AtomicU32::new(0),
            entry_durable: AtomicBool::new(false),
            names_lost: AtomicU64::new(0),
            in_flight: Arc::new(InFlight {
                bytes: AtomicU64::new(0),
                failed: Mutex::default(),
                changed: Event::new(),
                files: Arc::clone(files),
            }),
            in_flight_max,
            step,
            work: Arc::clone(&context.work),
            traffic: Arc::clone(&context.traffic),
        }
    }

    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// Where what is about to be written is counted.
    pub(crate) fn work(&self) -> &Arc<WorkMemory> {
        &self.work
    }

    /// The file, created on first use and opened again when it was parked. Ids are never used
    /// twice: a file that exists was made by an earlier call whose future was dropped.
    /// The caller holds no file.
    pub(crate) async fn file(self: &Arc<Self>) -> Result<SinkFile, Error> {
        let mut open = self.open.lock().await;
        if let Some(handle) = &*open {
            return Ok(self.used(handle));
        }
        if let Some(error) = self.failure() {
            return Err(error);
        }
        let permit = self.files.permit().await;
        let known = self.identity.get().is_some();
        let options = OpenOptions::read_write();
        let options = if known { options } else { options.create() };
        if !self.is_created() {
            // Release pairs with the Acquire in `check_name`.
            self.names_lost.store(self.files.names_lost(), Ordering::Release);
        }
        // Acquire/Release: whoever sees the flag also sees that the file may exist.
        self.created.store(true, Ordering::Release);
        let handle = self.files.open_with(self.id, options, permit).await?;
        self.check_same(&handle)?;
        let file = self.used(&handle);
        *open = Some(handle);
        drop(open);
        self.files.add_writer(self);
        Ok(file)
    }

    fn check_same(&self, handle: &FileHandle) -> Result<(), Error> {
        let Some(found) = handle.identity() else { return Ok(()) };
        if *self.identity.get_or_init(|| found) == found {
            return Ok(());
        }
        let what = "another file has taken its name while it was being written";
        Err(Error::corrupt(segment_name(self.id), 0, what))
    }

    /// Under `open`.
    fn used(self: &Arc<Self>, handle: &FileHandle) -> SinkFile {
        self.users.fetch_add(1, Ordering::Relaxed); // ordered by the lock for `park`
        SinkFile { handle: handle.clone(), sink: Arc::clone(self) }
    }

    /// Makes the file long enough for rows up to `end`, ahead of the writes that bring them: a file
    /// system lets writes within a file run side by side, where each that makes it longer waits for
    /// the one before. No more than a hint: where it is refused, the writes will tell why.
    ///
    /// Whoever hands in rows has asked for their end before.
    pub(crate) async fn lengthen(&self, file: &SinkFile, end: u64) {
        let pass = self.step / PASS_SHARE;
        let suffices = || end <= self.len.load(Ordering::Relaxed) + pass;
        if suffices() {
            return;
        }
        let mut growth = self.growth.lock().await;
        growth.settle(&self.len).await;
        if suffices() {
            return;
        }
        let len = end.next_multiple_of(self.step);
        growth.running = Some((self.files.disk.set_len(&file.handle, len), len));
        growth.settle(&self.len).await;
    }

    /// Ends the file at `end`, behind the last byte written. After [`Self::drain`], before a sync.
    pub(crate) async fn cut(self: &Arc<Self>, end: u64) -> Result<(), Error> {
        let mut growth = self.growth.lock().await;
        growth.settle(&self.len).await;
        if self.len.load(Ordering::Relaxed) <= end {
            return Ok(()); // it ends with the last write
        }
        let file = self.file().await?;
        Ok(self.files.disk.set_len(&file.handle, end).await?)
    }

    /// Whether the file may exist.
    pub(crate) fn is_created(&self) -> bool {
        self.created.load(Ordering::Acquire)
    }

    /// Syncs and closes the file if nobody writes to it; `false` when it stays open. A failed sync
    /// is the failure of this sink.
    pub(crate) async fn park(&self) -> bool {
        let Some(mut open) = self.open.try_lock() else { return false };
        let Some(handle) = &*open else { return false };
        // Nobody else gets the file while the lock is held.
        let rests = self.users.load(Ordering::Acquire) == 0
            && self.in_flight.bytes.load(Ordering::Acquire) == 0;
        if !rests {
            return false;
        }
        if let Err(error) = nephrite_io::sync(&*self.files.disk, handle).await {
            self.in_flight.fail(error);
        }
        *open = None;
        true
    }

    /// Closes the finished file; from now on it is opened for reading, if it is still the same.
    pub(crate) async fn finish(&self) {
        self.close().await;
        if let Some(identity) = self.identity.get() {
            self.files.remember(self.id, *identity);
        }
    }

    /// Closes the file, which was synced, or is of no use any more.
    pub(crate) async fn close(&self) {
        *self.open.lock().await = None;
    }

    /// Counts writes as in flight before they are submitted, so that nobody who waits for the file
    /// overlooks them.
    pub(crate) fn claim(&self, writes: &[(u64, IoBuffer)]) {
        let bytes = writes.iter().map(|(_, buffer)| buffer.len() as u64).sum();
        self.in_flight.bytes.fetch_add(bytes, Ordering::Relaxed); // paired by complete
    }

    /// Starts writes; they complete in any order.
    pub(crate) fn submit(&self, file: &SinkFile, writes: Vec<(u64, IoBuffer)>) {
        self.claim(&writes);
        self.submit_claimed(file, writes);
    }

    /// Starts writes that were claimed.
    pub(crate) fn submit_claimed(&self, file: &SinkFile, writes: Vec<(u64, IoBuffer)>) {
        let requests: Vec<Request> = writes
            .into_iter()
            .map(|(offset, buffer)| {
                let bytes = buffer.len() as u64;
                let in_flight = Arc::clone(&self.in_flight);
                let held = self.hold(&buffer);
                Request {
                    file: file.handle.clone(),
                    operation: Operation::Write { offset, buffer },
                    on_complete: Box::new(move |done| {
                        drop(done.buffer);
                        drop(held);
                        in_flight.complete(bytes, done.result);
                    }),
                }
            })
            .collect();
        self.files.disk.submit(requests);
    }

    /// Starts a write of the first `len` bytes of memory that is counted, and keeps it so long.
    pub(crate) fn submit_piece(
        &self,
        file: &SinkFile,
        offset: u64,
        mut memory: AheadMemory,
        len: usize,
    ) {
        let buffer = memory.lend_part(len);
        let bytes = len as u64;
        self.in_flight.bytes.fetch_add(bytes, Ordering::Relaxed); // paired by complete
        let in_flight = Arc::clone(&self.in_flight);
        let on_complete = Box::new(move |done: Completed| {
            // The ring keeps buffers of operations that a shutdown overtook.
            if let Some(buffer) = done.buffer {
                memory.put_back(buffer);
            }
            drop(memory);
            in_flight.complete(bytes, done.result);
        });
        let operation = Operation::Write { offset, buffer };
        self.files.disk.submit_one(Request { file: file.handle.clone(), operation, on_complete });
    }

    /// A chunk is its memtable's memory; other buffers live until they are written.
    fn hold(&self, buffer: &IoBuffer) -> Option<Held> {
        match buffer {
            IoBuffer::Chunk { .. } => None,
            _ => Some(self.work.hold(buffer.len() as u64)),
        }
    }

    /// Waits until a piece of these bytes may be submitted: while the device has enough to do, or
    /// readers wait for it.
    pub(crate) async fn make_room(&self, bytes: usize) -> Result<(), Error> {
        self.make_room_at(Pace::Background, bytes).await
    }

    /// As [`Self::make_room`]; what somebody waits for does not give way to readers.
    pub(crate) async fn make_room_at(&self, pace: Pace, bytes: usize) -> Result<(), Error> {
        let window = match pace {
            Pace::Background => self.traffic.window(self.in_flight_max),
            Pace::Awaited => self.in_flight_max,
        };
        let at_most = window.saturating_sub(bytes as u64);
        if window < self.in_flight_max && at_most < self.in_flight.bytes.load(Ordering::Relaxed) {
            self.traffic.paced.fetch_add(1, Ordering::Relaxed); // a counter
        }
        self.in_flight.wait_until(at_most).await
    }

    /// Waits for everything submitted so far.
    pub(crate) async fn drain(&self) -> Result<(), Error> {
        self.in_flight.wait_until(0).await
    }

    /// Makes everything drained durable; the directory entry too if the caller wants it now.
    pub(crate) async fn sync_file(self: &Arc<Self>) -> Result<(), Error> {
        let file = self.file().await?;
        if let Err(error) = nephrite_io::sync(&*self.files.disk, &file).await {
            self.in_flight.fail(error.clone());
            return Err(error.into());
        }
        self.failure().map_or(Ok(()), Err)
    }

    /// Makes everything drained durable, the directory entry included.
    pub(crate) async fn sync(self: &Arc<Self>) -> Result<(), Error> {
        self.sync_file().await?;
        // Acquire/Release: whoever sees the flag also sees the synced directory.
        if !self.entry_durable.load(Ordering::Acquire) {
            let synced = self.files.sync_names().await;
            self.check_name()?;
            synced?;
            self.entry_durable.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// A sync of names that failed since the file was made: one that succeeds later says nothing
    /// about this file's, so it is given up, and its rows go to another one.
    pub(crate) fn check_name(&self) -> Result<(), Error> {
        let before = self.names_lost.load(Ordering::Acquire);
        let Some(error) = self.files.names_lost_since(before) else { return Ok(()) };
        if planted("directory_sync_repeated") || self.entry_durable.load(Ordering::Acquire) {
            return Ok(());
        }
        self.in_flight.fail(error.clone());
        Err(error.into())
    }

    /// Removes the file, which nothing names.
    pub(crate) async fn remove(&self) -> Result<(), IoError> {
        self.close().await;
        match self.files.disk.remove_file(&self.files.paths.segment(self.id)).await {
            Err(error) if error.kind() == IoErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// The first failed write or sync: the file takes no more.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.in_flight.failure().map(Error::from)
    }
}
