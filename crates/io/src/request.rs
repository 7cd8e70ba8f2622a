//! What callers hand to a disk: owned buffers and the operations on them.
//!
//! A request owns all that the kernel will touch. Between submission and completion nobody else
//! has the buffer, so dropping the waiting side early is always safe.
//! A request is checked on the I/O thread before it is issued; a wrong one is an error value with
//! offset and length, never an errno puzzle.

use std::fmt;
use std::sync::Arc;

use crate::error::{IoError, IoErrorKind, IoOperation};
use crate::file::FileHandle;
use crate::memory::{AlignedBuf, Chunk, Region};

/// Memory that a transfer reads into or writes from.
#[derive(Debug)]
#[non_exhaustive]
pub enum IoBuffer {
    /// A buffer of its own.
    Owned(AlignedBuf),
    /// The beginning of a buffer that is larger than the transfer, as a log frame's often is.
    Part {
        /// The whole buffer.
        buffer: AlignedBuf,
        /// How many bytes of it; at most its length.
        len: usize,
    },
    /// A window of the frame arena.
    Region(Region),
    /// Committed bytes of a chunk: for writes only, with `start + len <= chunk.committed()`.
    Chunk {
        /// Where the bytes are.
        chunk: Arc<Chunk>,
        /// The first byte.
        start: usize,
        /// How many bytes.
        len: usize,
    },
}

impl IoBuffer {
    /// The bytes.
    ///
    /// # Panics
    ///
    /// When a `Chunk` names bytes that are not committed, or a `Part` more than its buffer.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Owned(buffer) => buffer,
            Self::Part { buffer, len } => &buffer[..*len],
            Self::Region(region) => region,
            Self::Chunk { chunk, start, len } => {
                let committed = chunk.bytes();
                let bytes = start.checked_add(*len).and_then(|end| committed.get(*start..end));
                bytes.expect("the range of an IoBuffer::Chunk is committed")
            }
        }
    }

    /// The bytes for writing; none for a chunk, whose bytes never change.
    pub fn as_mut_slice(&mut self) -> Option<&mut [u8]> {
        match self {
            Self::Owned(buffer) => Some(buffer),
            Self::Part { buffer, len } => Some(&mut buffer[..*len]),
            Self::Region(region) => Some(region),
            Self::Chunk { .. } => None,
        }
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Owned(buffer) => buffer.len(),
            Self::Region(region) => region.len(),
            Self::Part { len, .. } | Self::Chunk { len, .. } => *len,
        }
    }

    /// The whole buffer back from `Owned` or `Part`; none for what belongs to an arena or chunk.
    pub fn into_aligned(self) -> Option<AlignedBuf> {
        match self {
            Self::Owned(buffer) | Self::Part { buffer, .. } => Some(buffer),
            Self::Region(_) | Self::Chunk { .. } => None,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `as_slice` would not panic.
    pub(crate) fn is_in_range(&self) -> bool {
        match self {
            Self::Owned(_) | Self::Region(_) => true,
            Self::Part { buffer, len } => *len <= buffer.len(),
            Self::Chunk { chunk, start, len } => {
                start.checked_add(*len).is_some_and(|end| end <= chunk.committed())
            }
        }
    }
}

impl From<AlignedBuf> for IoBuffer {
    fn from(buffer: AlignedBuf) -> Self {
        Self::Owned(buffer)
    }
}

impl From<Region> for IoBuffer {
    fn from(region: Region) -> Self {
        Self::Region(region)
    }
}

/// What to do with a file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Operation {
    /// Fill the whole buffer from the file.
    Read {
        /// Where in the file, in bytes.
        offset: u64,
        /// What to fill.
        buffer: IoBuffer,
    },
    /// Write the whole buffer to the file.
    Write {
        /// Where in the file, in bytes.
        offset: u64,
        /// What to write.
        buffer: IoBuffer,
    },
    /// Make all completed writes of this file durable (`fdatasync`). Covers no write in flight.
    /// Of syncs that run at the same time none is told to have succeeded before all have ended,
    /// and none that runs beside one that fails succeeds.
    Sync,
    /// Write the whole buffer to the file, then make it and all writes of this file that had
    /// completed before durable: a `Write` and a `Sync` as one request, with one hand-off. It has
    /// the priority of a sync. A failure of either half poisons the file.
    WriteSynced {
        /// Where in the file, in bytes.
        offset: u64,
        /// What to write.
        buffer: IoBuffer,
    },
}

impl Operation {
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Read { .. } => Class::Read,
            Self::Write { .. } => Class::Write,
            Self::Sync | Self::WriteSynced { .. } => Class::Sync,
        }
    }

    /// What errors call it before it was issued.
    pub(crate) fn name(&self) -> IoOperation {
        match self {
            Self::Read { .. } => IoOperation::Read,
            Self::Write { .. } | Self::WriteSynced { .. } => IoOperation::Write,
            Self::Sync => IoOperation::Sync,
        }
    }

    /// Offset and length of the transfer; zeros for a sync.
    pub(crate) fn range(&self) -> (u64, u64) {
        match self {
            Self::Read { offset, buffer }
            | Self::Write { offset, buffer }
            | Self::WriteSynced { offset, buffer } => (*offset, buffer.len() as u64),
            Self::Sync => (0, 0),
        }
    }

    pub(crate) fn into_buffer(self) -> Option<IoBuffer> {
        match self {
            Self::Read { buffer, .. }
            | Self::Write { buffer, .. }
            | Self::WriteSynced { buffer, .. } => Some(buffer),
            Self::Sync => None,
        }
    }
}

/// The classes of requests that have budgets of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Read = 0,
    Write = 1,
    Sync = 2,
}

impl Class {
    #[cfg(target_os = "linux")]
    pub(crate) const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Sync];
}

/// One operation, and whom to tell.
pub struct Request {
    /// The file; kept open until the operation has ended, and let go before `on_complete` is
    /// called.
    pub file: FileHandle,
    /// What to do.
    pub operation: Operation,
    /// Called exactly once, with the outcome and the buffer.
    pub on_complete: OnComplete,
}

impl fmt::Debug for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Request")
            .field("file", &self.file)
            .field("operation", &self.operation)
            .finish_non_exhaustive()
    }
}

/// Runs on an I/O thread, which serves nobody meanwhile: short, and neither blocking nor panicking
/// (a panic ends the process, since operations of others are in flight on that thread). It may
/// submit further requests. After [`crate::Disk::shutdown`] it runs on the submitting thread.
///
/// When nobody is left to take the outcome, call [`crate::note_orphaned`] in it.
pub type OnComplete = Box<dyn FnOnce(Completed) + Send>;

/// The outcome of a request.
#[derive(Debug)]
pub struct Completed {
    /// Success means that all bytes were transferred. Reading past the end of the file is an error
    /// of kind [`IoErrorKind::UnexpectedEof`].
    pub result: Result<(), IoError>,
    /// The request's buffer; none for a sync, and none when the kernel kept it (see
    /// [`crate::IoStats::leaked`]). After a failed read its bytes mean nothing.
    pub buffer: Option<IoBuffer>,
}

impl Request {
    /// What is wrong with this request before any system call, as an error value.
    pub(crate) fn check(&self) -> Result<(), IoError> {
        if self.operation.class() != Class::Read {
            self.file.check_writable(self.operation.name())?;
        }
        match &self.operation {
            Operation::Read { buffer: IoBuffer::Chunk { .. }, .. } => {
                Err(self.invalid("a chunk cannot be read into".to_owned()))
            }
            Operation::Read { offset, buffer }
            | Operation::Write { offset, buffer }
            | Operation::WriteSynced { offset, buffer } => self.check_range(*offset, buffer),
            Operation::Sync => Ok(()),
        }
    }

    fn check_range(&self, offset: u64, buffer: &IoBuffer) -> Result<(), IoError> {
        if !buffer.is_in_range() {
            return Err(self.invalid("the chunk has not committed these bytes".to_owned()));
        }
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(self.invalid("the range ends beyond the largest file".to_owned()));
        }
        let (alignment, memory_alignment) =
            (u64::from(self.file.alignment()), self.file.memory_alignment());
        let aligned = offset.is_multiple_of(alignment)
            && (buffer.len() as u64).is_multiple_of(alignment)
            && buffer.as_slice().as_ptr().addr().is_multiple_of(memory_alignment);
        if aligned {
            return Ok(());
        }
        Err(self.invalid(format!(
            "direct I/O on this file needs offset and length in multiples of {alignment} and \
             memory aligned to {memory_alignment}"
        )))
    }

    fn invalid(&self, reason: String) -> IoError {
        let (offset, len) = self.operation.range();
        IoError::refused(
            self.operation.name(),
            self.file.path(),
            IoErrorKind::InvalidRequest,
            reason,
        )
        .at(offset, len)
    }
}
