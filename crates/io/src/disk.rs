//! The seam between the engine and the machine: one trait, and helpers that make futures of it.
//!
//! Transfers are submitted when the function is called, not when its future is first polled. A
//! dropped future detaches its operation: it still runs to its end, and its buffer is freed then.
//! Order of completion is free. Who needs an order (data, then sync, then publish) awaits.
//! Tested in `tests/it`, over both backends with the same sequences.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use crate::caller::CallerRings;
use crate::completion::{Receiver, Sender, note_orphaned, oneshot};
use crate::error::{IoError, IoOperation};
use crate::file::{FileHandle, OpenOptions};
use crate::memory::Arena;
use crate::report::BackendReport;
use crate::request::{Completed, IoBuffer, Operation, Request};
use crate::stats::IoStats;

/// A boxed future of an I/O operation: `Send`, for any executor, safe to drop at any point.
pub type IoFuture<T> = Pin<Box<dyn Future<Output = Result<T, IoError>> + Send>>;

/// A file system with asynchronous transfers.
///
/// # Cancel safety
///
/// Every operation runs to its end even if its future is dropped; only the outcome is lost.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Takes in requests; each one's `on_complete` is called exactly once.
    ///
    /// Returns without waiting for the device. When the queue is full the caller waits until there
    /// is room (not so on an I/O thread, which may therefore submit from an `on_complete`).
    fn submit(&self, batch: Vec<Request>);

    /// [`Disk::submit`] of one request, for which a disk may save itself the batch.
    fn submit_one(&self, request: Request) {
        self.submit(vec![request]);
    }

    /// Opens or creates a file.
    fn open(&self, path: &Path, options: OpenOptions) -> IoFuture<FileHandle>;

    /// The file's length in bytes.
    fn file_len(&self, file: &FileHandle) -> IoFuture<u64>;

    /// Cuts or extends the file (with zeros) to `len` bytes. Durable after the next sync.
    fn set_len(&self, file: &FileHandle, len: u64) -> IoFuture<()>;

    /// What is in a directory, in no order. Entries that vanish meanwhile are left out.
    fn list_dir(&self, path: &Path) -> IoFuture<Vec<DirectoryEntry>>;

    /// Creates a directory and its missing parents; success if it exists.
    fn create_dir(&self, path: &Path) -> IoFuture<()>;

    /// Renames a file, replacing the target. Durable after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> IoFuture<()>;

    /// Removes a file. Durable after [`Disk::sync_dir`]. Handles go on working; Windows keeps the
    /// name until the last one is closed.
    fn remove_file(&self, path: &Path) -> IoFuture<()>;

    /// Makes creations, renames and removals in a directory durable. Windows needs no such call;
    /// there it succeeds at once.
    fn sync_dir(&self, path: &Path) -> IoFuture<()>;

    /// Takes an exclusive lock on a file, creating it if needed, without waiting.
    ///
    /// # Errors
    ///
    /// [`crate::IoErrorKind::Locked`] when another process, or this one, holds it.
    fn lock(&self, path: &Path) -> IoFuture<FileLock>;

    /// Leave for the calling thread to drive its transfers on a ring of its own, as
    /// [`crate::drive`] does. None where that is not to be had; a disk around another may pass
    /// the other's on.
    fn caller_rings(&self) -> Option<CallerRings> {
        None
    }

    /// Fills `buffer` from `offset` on, if the calling thread drives a ring of this disk (see
    /// [`crate::drive`]) that has nothing else to do, and the system has all these bytes of a file
    /// that is not direct in its cache. It then counts like any other read. [`read()`] asks this
    /// first, since a request costs as much as such a read. Where it is false the buffer's bytes
    /// mean nothing. A disk around another may pass it on, or say false like this one.
    fn read_at_once(&self, file: &FileHandle, offset: u64, buffer: &mut IoBuffer) -> bool {
        let _ = (file, offset, buffer);
        false
    }

    /// Tells that many direct transfers will have windows of this arena as their buffers, so that
    /// the disk may register it with the kernel (see [`crate::DiskOptions::registered_buffers`]).
    /// It then keeps the arena until a later call finds that nobody else does, or to its own end.
    /// Changes no result; does nothing unless a disk says otherwise.
    fn register_arena(&self, arena: &Arc<Arena>) {
        let _ = arena;
    }

    /// Whether [`Disk::register_arena`] does anything: then memory of such an arena cannot be given
    /// back. A disk around another that passes `register_arena` on must pass this on too.
    fn registers_arenas(&self) -> bool {
        false
    }

    /// Bytes that may still be written below a directory, where the system says so; others on the
    /// same file system may be faster. A disk around another may pass it on, or say nothing like
    /// this one.
    fn free_bytes(&self, directory: &Path) -> IoFuture<Option<u64>> {
        let _ = directory;
        Box::pin(std::future::ready(Ok(None)))
    }

    /// What this disk runs on, and why.
    fn report(&self) -> BackendReport;

    /// What it has done so far.
    fn stats(&self) -> IoStats;

    /// Refuses new requests, lets those taken in finish, and ends all threads. The refusal starts
    /// with the call, before the future is polled. Calling it again waits for the same end.
    ///
    /// # Errors
    ///
    /// When operations did not come back within the drain timeout; their memory is leaked.
    fn shutdown(&self) -> IoFuture<()>;
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectoryEntry {
    /// Its name. Bytes that are not Unicode show as U+FFFD.
    pub name: String,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Its length in bytes as a file; system dependent for directories.
    pub bytes: u64,
}

/// An exclusive lock on a file, released when dropped or when the process ends.
#[derive(Debug)]
pub struct FileLock {
    path: PathBuf,
    keeper: LockKeeper,
}

impl Drop for FileLock {
    /// Closing the file would not do: a child that another thread is just starting has a copy of
    /// the descriptor until it runs its own program, and with it the lock.
    fn drop(&mut self) {
        if let LockKeeper::Os { file } = &self.keeper {
            // What fails here is released when the last copy is closed.
            let _ = file.unlock();
        }
    }
}

/// What releases the lock when it is dropped.
#[derive(Debug)]
enum LockKeeper {
    Os { file: std::fs::File },
    Simulated { _token: Arc<()> },
}

impl FileLock {
    pub(crate) fn of_file(path: &Path, file: std::fs::File) -> Self {
        Self { path: path.to_owned(), keeper: LockKeeper::Os { file } }
    }

    pub(crate) fn simulated(path: &Path, token: Arc<()>) -> Self {
        Self { path: path.to_owned(), keeper: LockKeeper::Simulated { _token: token } }
    }

    /// The locked file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Fills `buffer` from `offset` on and gives it back.
///
/// # Errors
///
/// [`IoError`]; of kind `UnexpectedEof` when the file ends before the buffer is full. The buffer
/// is freed then; use [`Disk::submit`] to keep it.
pub fn read(
    disk: &dyn Disk,
    file: &FileHandle,
    offset: u64,
    mut buffer: IoBuffer,
) -> IoFuture<IoBuffer> {
    if !file.is_direct() && disk.read_at_once(file, offset, &mut buffer) {
        return Box::pin(std::future::ready(Ok(buffer)));
    }
    transfer(disk, file, Operation::Read { offset, buffer })
}

/// Writes all of `buffer` at `offset` and gives it back. Durable after the next [`sync`].
///
/// # Errors
///
/// [`IoError`]; the file is poisoned then.
pub fn write(
    disk: &dyn Disk,
    file: &FileHandle,
    offset: u64,
    buffer: IoBuffer,
) -> IoFuture<IoBuffer> {
    transfer(disk, file, Operation::Write { offset, buffer })
}

/// Writes all of `buffer` at `offset` and gives it back once it is durable, together with all
/// writes of the file that had completed before: a [`write()`] and a [`sync`] as one request,
/// carried out in that order, or as one write where the device has no volatile cache (see
/// [`crate::DurableWrites`]).
///
/// # Errors
///
/// [`IoError`], which says which half failed; the file is poisoned then.
pub fn write_synced(
    disk: &dyn Disk,
    file: &FileHandle,
    offset: u64,
    buffer: IoBuffer,
) -> IoFuture<IoBuffer> {
    transfer(disk, file, Operation::WriteSynced { offset, buffer })
}

/// Makes all completed writes of the file durable (`fdatasync`; on macOS a full flush of the
/// device's cache).
///
/// # Errors
///
/// [`IoError`]; the file is poisoned then, and later syncs fail too.
pub fn sync(disk: &dyn Disk, file: &FileHandle) -> IoFuture<()> {
    let (sender, receiver) = oneshot();
    disk.submit_one(request(file, Operation::Sync, sender));
    let file = file.clone();
    Box::pin(async move { outcome(receiver, &file, IoOperation::Sync).await.result })
}

/// Reads many ranges of one file in one submission; buffers come back in the same order.
///
/// # Errors
///
/// The first failure in the order of the ranges, once all have ended.
pub fn read_many(
    disk: &dyn Disk,
    file: &FileHandle,
    ranges: Vec<(u64, IoBuffer)>,
) -> IoFuture<Vec<IoBuffer>> {
    let read = |(offset, buffer)| Operation::Read { offset, buffer };
    transfer_many(disk, file, IoOperation::Read, ranges.into_iter().map(read).collect())
}

/// Writes many ranges of one file in one submission; buffers come back in the same order.
///
/// # Errors
///
/// The first failure in the order of the ranges, once all have ended. The file is poisoned then.
pub fn write_many(
    disk: &dyn Disk,
    file: &FileHandle,
    ranges: Vec<(u64, IoBuffer)>,
) -> IoFuture<Vec<IoBuffer>> {
    let write = |(offset, buffer)| Operation::Write { offset, buffer };
    transfer_many(disk, file, IoOperation::Write, ranges.into_iter().map(write).collect())
}

fn transfer(disk: &dyn Disk, file: &FileHandle, operation: Operation) -> IoFuture<IoBuffer> {
    let name = operation.name();
    let (sender, receiver) = oneshot();
    disk.submit_one(request(file, operation, sender));
    let file = file.clone();
    Box::pin(async move { buffer_of(outcome(receiver, &file, name).await, &file, name) })
}

fn request(file: &FileHandle, operation: Operation, sender: Sender<Completed>) -> Request {
    let on_complete = Box::new(move |completed| {
        if sender.send(completed).is_err() {
            note_orphaned();
        }
    });
    Request { file: file.clone(), operation, on_complete }
}

/// A disk that drops a request without completing it is broken; that is an error here, not a hang.
async fn outcome(
    receiver: Receiver<Completed>,
    file: &FileHandle,
    operation: IoOperation,
) -> Completed {
    match receiver.await {
        Some(completed) => completed,
        None => Completed { result: Err(IoError::closed(operation, file.path())), buffer: None },
    }
}

fn buffer_of(
    completed: Completed,
    file: &FileHandle,
    operation: IoOperation,
) -> Result<IoBuffer, IoError> {
    completed.result?;
    completed.buffer.ok_or_else(|| IoError::closed(operation, file.path()))
}

/// Collects the outcomes of one submission.
struct Gathering {
    state: Mutex<GatheringState>,
}

struct GatheringState {
    completed: Vec<Option<Completed>>,
    missing: usize,
    sender: Option<Sender<Vec<Option<Completed>>>>,
}

impl Gathering {
    /// Files one outcome; the last one sends them all.
    fn add(&self, index: usize, completed: Completed) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.completed[index] = Some(completed);
        state.missing -= 1;
        if state.missing > 0 {
            if state.sender.as_ref().is_some_and(Sender::is_abandoned) {
                note_orphaned();
            }
            return;
        }
        let (all, sender) = (std::mem::take(&mut state.completed), state.sender.take());
        drop(state);
        if sender.is_some_and(|sender| sender.send(all).is_err()) {
            note_orphaned();
        }
    }
}

fn transfer_many(
    disk: &dyn Disk,
    file: &FileHandle,
    name: IoOperation,
    operations: Vec<Operation>,
) -> IoFuture<Vec<IoBuffer>> {
    if operations.is_empty() {
        return Box::pin(async { Ok(Vec::new()) });
    }
    let (sender, receiver) = oneshot();
    let missing = operations.len();
    let completed = std::iter::repeat_with(|| None).take(missing).collect();
    let state = Mutex::new(GatheringState { completed, missing, sender: Some(sender) });
    let gathering = Arc::new(Gathering { state });
    let batch = operations.into_iter().enumerate().map(|(index, operation)| {
        let gathering = Arc::clone(&gathering);
        let on_complete = Box::new(move |completed| gathering.add(index, completed));
        Request { file: file.clone(), operation, on_complete }
    });
    disk.submit(batch.collect());
    let file = file.clone();
    Box::pin(async move {
        let lost = || IoError::closed(name, file.path());
        let all = receiver.await.ok_or_else(lost)?;
        let one =
            |completed: Option<Completed>| buffer_of(completed.ok_or_else(lost)?, &file, name);
        all.into_iter().map(one).collect()
    })
}
