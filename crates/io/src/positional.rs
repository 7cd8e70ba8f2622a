//! The portable backend: a bounded pool of threads that block in positional reads and writes.
//!
//! It is the reference for what a request means on every system, and the path that a ring's
//! requests take where rings are blocked. With the mmap backend, reads of sealed files are copies
//! out of mappings, made on the same threads (see `mapping`).
//!
//! Guarantee: short counts and interruptions are handled (see `transfer`), reads have at least half
//! of the threads for themselves (see `pool`), a sync is one `fdatasync` (`F_FULLFSYNC` on macOS,
//! `FlushFileBuffers` on Windows).
//! Tested in `tests/it` and below, through injected [`Calls`].

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::error::{IoError, IoErrorKind};
use crate::file::FileHandle;
use crate::pool::{Job, Pool, PoolLimits, Refusal};
use crate::request::{Class, IoBuffer, Request};
use crate::stats::Counters;
use crate::ticket::{Accepted, Ticket};
use crate::transfer::{Action, Step, Transfer};

/// How many requests of a kind may wait for a thread before submitters wait.
const QUEUE_MAX: usize = 1024;

/// The system calls of this backend, so that tests can make them misbehave.
pub(crate) trait Calls: Send + Sync + 'static {
    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// A write whose bytes are durable when it returns.
    fn write_through_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Repeats a call that a signal interrupted, as `std` does: it has reported nothing then.
    fn sync(&self, file: &File) -> io::Result<()>;
}

/// What the operating system does.
#[derive(Debug)]
pub(crate) struct SystemCalls;

#[cfg(unix)]
impl Calls for SystemCalls {
    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(file, bytes, offset)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(file, bytes, offset)
    }

    #[cfg(target_os = "linux")]
    fn write_through_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        crate::flagged::write_through_at(file, bytes, offset)
    }

    /// Never asked for here, since no file writes through (see `durable`); right all the same.
    #[cfg(not(target_os = "linux"))]
    fn write_through_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let written = self.write_at(file, bytes, offset)?;
        self.sync(file).map(|()| written)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

#[cfg(windows)]
impl Calls for SystemCalls {
    /// Windows reports the end of the file as an error in some cases; here it is zero bytes.
    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        const ERROR_HANDLE_EOF: i32 = 38;
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset) {
            Err(error) if error.raw_os_error() == Some(ERROR_HANDLE_EOF) => Ok(0),
            other => other,
        }
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_write(file, bytes, offset)
    }

    /// Never asked for here, since no file writes through (see `durable`); right all the same.
    fn write_through_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let written = self.write_at(file, bytes, offset)?;
        self.sync(file).map(|()| written)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// The pool and what its jobs share.
pub(crate) struct Positional {
    pool: Pool<DataJob>,
    context: Arc<Context>,
}

struct Context {
    counters: Arc<Counters>,
    calls: Box<dyn Calls>,
}

pub(crate) struct DataJob {
    request: Request,
    context: Arc<Context>,
}

impl Positional {
    pub(crate) fn new(threads_max: usize, counters: Arc<Counters>, calls: Box<dyn Calls>) -> Self {
        let limits = PoolLimits { name: "nephrite-io", threads_max, queue_max: QUEUE_MAX };
        Self { pool: Pool::new(limits), context: Arc::new(Context { counters, calls }) }
    }

    /// Takes in a request that is counted as submitted already.
    pub(crate) fn submit(&self, request: Request) {
        let counters = &self.context.counters;
        let job = DataJob { request, context: Arc::clone(&self.context) };
        match self.pool.submit(job) {
            Ok(waited) => counters.submit_waits.add(u64::from(waited)),
            Err((job, refusal)) => Ticket::reject(job.request, counters, |operation, file| {
                let path = file.path();
                match refusal {
                    Refusal::Closed => IoError::closed(operation, path),
                    Refusal::NoThread(error) => IoError::refused(
                        operation,
                        path,
                        IoErrorKind::Other,
                        format!("no I/O thread could be started: {error}"),
                    ),
                }
            }),
        }
    }

    /// Carries out a read of a buffered file whose bytes the system has in its cache, on the
    /// calling thread and without a wait. Gives back what that is not the way for.
    #[cfg(target_os = "linux")]
    pub(crate) fn read_cached_here(&self, mut request: Request) -> Option<Request> {
        use crate::request::Operation;

        let Operation::Read { offset, buffer } = &mut request.operation else {
            return Some(request);
        };
        if !is_cached_and_read(&request.file, *offset, buffer) {
            return Some(request);
        }
        let counters = &self.context.counters;
        if let Some(Accepted { ticket, buffer, transfer }) = Ticket::accept(request, counters) {
            ticket.finish(counters, transfer.action(), Ok(()), buffer);
        }
        None
    }

    /// The same for a read that is no request; it counts as one that succeeded.
    #[cfg(target_os = "linux")]
    pub(crate) fn read_at_once(&self, file: &FileHandle, at: u64, buffer: &mut IoBuffer) -> bool {
        let is_read = is_cached_and_read(file, at, buffer);
        if is_read {
            self.context.counters.reads.add(1);
            self.context.counters.bytes_read.add(buffer.len() as u64);
        }
        is_read
    }

    /// Carries a request out on the calling thread.
    #[cfg(target_os = "linux")]
    pub(crate) fn run_here(&self, request: Request) {
        DataJob { request, context: Arc::clone(&self.context) }.run();
    }

    pub(crate) fn pool(&self) -> &Pool<DataJob> {
        &self.pool
    }
}

impl Job for DataJob {
    fn is_limited(&self) -> bool {
        self.request.operation.class() != Class::Read
    }

    fn run(self) {
        let Context { counters, calls } = &*self.context;
        if let Some(accepted) = Ticket::accept(self.request, counters) {
            let Accepted { ticket, mut buffer, mut transfer } = accepted;
            let file = &ticket.file;
            let result = perform(calls.as_ref(), file, &mut transfer, buffer.as_mut(), counters);
            ticket.finish(counters, transfer.action(), result, buffer);
        }
    }
}

/// Fills the buffer if the system has all its bytes in its cache and nothing is wrong with asking.
#[cfg(target_os = "linux")]
fn is_cached_and_read(file: &FileHandle, offset: u64, buffer: &mut IoBuffer) -> bool {
    use crate::transfer::TRANSFER_BYTES_MAX;

    if file.is_direct() || !buffer.is_in_range() {
        return false;
    }
    let Some(bytes) = buffer.as_mut_slice() else { return false };
    if bytes.is_empty() || TRANSFER_BYTES_MAX < bytes.len() {
        return false;
    }
    let asked = bytes.len();
    let count = crate::flagged::read_cached_at(file.os(), bytes, offset);
    count.is_ok_and(|count| count == asked)
}

/// Carries one operation to its end.
fn perform(
    calls: &dyn Calls,
    file: &FileHandle,
    transfer: &mut Transfer,
    mut buffer: Option<&mut IoBuffer>,
    counters: &Counters,
) -> io::Result<()> {
    loop {
        let result = call(calls, file, transfer, buffer.as_deref_mut());
        match transfer.advance(result, counters) {
            Step::Done => return Ok(()),
            Step::Failed(error) => return Err(error),
            Step::Again if transfer.is_retry() => std::thread::yield_now(),
            Step::Again => {}
        }
    }
}

fn call(
    calls: &dyn Calls,
    file: &FileHandle,
    transfer: &Transfer,
    buffer: Option<&mut IoBuffer>,
) -> io::Result<usize> {
    let piece = transfer.next();
    let range = piece.start..piece.start + piece.len;
    match (transfer.action(), buffer) {
        (Action::Read, Some(buffer)) => {
            let bytes = buffer.as_mut_slice().expect("a checked read has a writable buffer");
            let bytes = &mut bytes[range];
            if file.copy_mapped(piece.offset, bytes) {
                return Ok(bytes.len());
            }
            calls.read_at(file.os(), bytes, piece.offset)
        }
        (Action::Write, Some(buffer)) => {
            calls.write_at(file.os(), &buffer.as_slice()[range], piece.offset)
        }
        (Action::WriteThrough, Some(buffer)) => {
            calls.write_through_at(file.os(), &buffer.as_slice()[range], piece.offset)
        }
        (Action::Sync, _) => calls.sync(file.os()).map(|()| 0),
        (Action::Read | Action::Write | Action::WriteThrough, None) => {
            unreachable!("a transfer has a buffer")
        }
    }
}

#[cfg(test)]
mod tests;
