//! What went wrong, where, and what to do about it.
//!
//! Guarantee: an [`IoError`] names the operation, the path, and for transfers offset and length;
//! the operating system's error is kept as the source, never turned into text only. It is cheap to
//! clone, since one failure may be told to many waiters.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A failed operation on a file or directory.
#[derive(Clone)]
pub struct IoError {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    operation: IoOperation,
    path: PathBuf,
    range: Option<(u64, u64)>,
    kind: IoErrorKind,
    cause: Cause,
}

/// What the operating system, an earlier failure, or this crate had against it.
#[derive(Clone)]
enum Cause {
    System(Arc<io::Error>),
    Earlier(IoError),
    Refused(Cow<'static, str>),
}

/// What was being done when an [`IoError`] arose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IoOperation {
    /// Opening or creating a file.
    Open,
    /// Reading a range of a file.
    Read,
    /// Writing a range of a file.
    Write,
    /// Making written data durable.
    Sync,
    /// Asking for a file's length.
    Length,
    /// Changing a file's length.
    SetLength,
    /// Listing a directory.
    ListDirectory,
    /// Creating a directory.
    CreateDirectory,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    RemoveFile,
    /// Making directory entries durable.
    SyncDirectory,
    /// Taking the lock file.
    Lock,
    /// Trying out a backend in a directory.
    Probe,
    /// Starting or stopping I/O threads.
    Threads,
}

impl fmt::Display for IoOperation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Length => "length query",
            Self::SetLength => "length change",
            Self::ListDirectory => "listing",
            Self::CreateDirectory => "directory creation",
            Self::Rename => "rename",
            Self::RemoveFile => "removal",
            Self::SyncDirectory => "directory sync",
            Self::Lock => "lock",
            Self::Probe => "I/O probe",
            Self::Threads => "I/O thread control",
        })
    }
}

/// The kinds of failure that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IoErrorKind {
    /// Somebody else, or this process itself, holds the lock.
    Locked,
    /// The path does not exist.
    NotFound,
    /// The path exists already.
    AlreadyExists,
    /// The operating system denied access.
    PermissionDenied,
    /// The file system is mounted read-only.
    ReadOnly,
    /// No space or quota is left.
    Full,
    /// The file ends before the range that was asked for.
    UnexpectedEof,
    /// An earlier write or sync of this file failed, so nothing more is written to it.
    Poisoned,
    /// The disk was shut down, or belongs to the parent of this forked process.
    Closed,
    /// The request itself is wrong: unaligned, out of range, a write to a read-only handle.
    InvalidRequest,
    /// What was asked for is not available here (a forced backend, file locks).
    Unsupported,
    /// There was not enough memory.
    OutOfMemory,
    /// Anything else: see the source.
    Other,
}

impl IoError {
    /// An error that the operating system reported; the kind follows from it.
    pub fn new(operation: IoOperation, path: &Path, source: io::Error) -> Self {
        let kind = kind_of(&source);
        Self::build(operation, path, kind, Cause::System(Arc::new(source)))
    }

    /// A refusal of this crate's own, with the reason as a clause ("the offset is not aligned").
    pub fn refused(
        operation: IoOperation,
        path: &Path,
        kind: IoErrorKind,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::build(operation, path, kind, Cause::Refused(reason.into()))
    }

    /// The refusal of an operation on a file where `first` went wrong before.
    pub(crate) fn poisoned(operation: IoOperation, first: &Self) -> Self {
        let path = first.path().to_owned();
        Self::build(operation, &path, IoErrorKind::Poisoned, Cause::Earlier(first.clone()))
    }

    /// The refusal of an operation on a disk that was shut down.
    pub(crate) fn closed(operation: IoOperation, path: &Path) -> Self {
        Self::refused(operation, path, IoErrorKind::Closed, "the disk was shut down")
    }

    /// The same error with the byte range that was to be transferred.
    #[must_use]
    pub fn at(mut self, offset: u64, len: u64) -> Self {
        Arc::make_mut(&mut self.inner).range = Some((offset, len));
        self
    }

    fn build(operation: IoOperation, path: &Path, kind: IoErrorKind, cause: Cause) -> Self {
        let path = path.to_owned();
        Self { inner: Arc::new(Inner { operation, path, range: None, kind, cause }) }
    }

    /// What was being done.
    pub fn operation(&self) -> IoOperation {
        self.inner.operation
    }

    /// The file or directory.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Where in the file the transfer was to begin, in bytes; none for other operations.
    pub fn offset(&self) -> Option<u64> {
        self.inner.range.map(|(offset, _)| offset)
    }

    /// How many bytes were to be transferred; none for other operations.
    #[expect(clippy::len_without_is_empty, reason = "the length of a request, not of a collection")]
    pub fn len(&self) -> Option<u64> {
        self.inner.range.map(|(_, len)| len)
    }

    /// Which kind of failure this is.
    pub fn kind(&self) -> IoErrorKind {
        self.inner.kind
    }

    /// The operating system's error number, where it reported one.
    pub fn raw_os_error(&self) -> Option<i32> {
        match &self.inner.cause {
            Cause::System(source) => source.raw_os_error(),
            Cause::Earlier(first) => first.raw_os_error(),
            Cause::Refused(_) => None,
        }
    }

    fn way_out(&self) -> Option<&'static str> {
        Some(match self.kind() {
            IoErrorKind::Locked => "close the other user of this store first",
            IoErrorKind::PermissionDenied => "check the owner and mode of the path",
            IoErrorKind::ReadOnly => "remount the file system writable",
            IoErrorKind::Full => "free space or raise the quota of this file system",
            IoErrorKind::Poisoned => {
                "what was written since the last successful sync may be lost: close and open the \
                 store again to recover"
            }
            IoErrorKind::Closed => "open the store again",
            IoErrorKind::OutOfMemory => "lower the memory limit or free memory on this machine",
            _ => return None,
        })
    }
}

fn kind_of(source: &io::Error) -> IoErrorKind {
    match source.kind() {
        io::ErrorKind::NotFound => IoErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => IoErrorKind::AlreadyExists,
        io::ErrorKind::PermissionDenied => IoErrorKind::PermissionDenied,
        io::ErrorKind::ReadOnlyFilesystem => IoErrorKind::ReadOnly,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => IoErrorKind::Full,
        io::ErrorKind::UnexpectedEof => IoErrorKind::UnexpectedEof,
        io::ErrorKind::Unsupported => IoErrorKind::Unsupported,
        io::ErrorKind::OutOfMemory => IoErrorKind::OutOfMemory,
        _ => IoErrorKind::Other,
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of ", self.inner.operation)?;
        if let Some((offset, len)) = self.inner.range {
            write!(formatter, "{len} bytes at offset {offset} in ")?;
        }
        write!(formatter, "`{}` failed: ", self.inner.path.display())?;
        match &self.inner.cause {
            Cause::System(source) => write!(formatter, "{source}")?,
            Cause::Earlier(first) => {
                write!(
                    formatter,
                    "this file is closed to writes since an earlier failure ({first})"
                )?;
            }
            Cause::Refused(reason) => write!(formatter, "{reason}")?,
        }
        match self.way_out() {
            Some(way_out) => write!(formatter, "; {way_out}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for IoError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "IoError({:?}: {self})", self.kind())
    }
}

impl std::error::Error for IoError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.inner.cause {
            Cause::System(source) => Some(source.as_ref()),
            Cause::Earlier(first) => Some(first),
            Cause::Refused(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn a_message_names_place_cause_and_way_out() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = IoError::new(IoOperation::Write, Path::new("a.seg"), full).at(8192, 4096);

        let text = error.to_string();

        assert!(
            text.starts_with("write of 4096 bytes at offset 8192 in `a.seg` failed: "),
            "{text}"
        );
        assert!(text.ends_with("; free space or raise the quota of this file system"), "{text}");
        assert_eq!((error.kind(), error.offset()), (IoErrorKind::Full, Some(8192)));
        assert!(error.source().is_some());
    }

    #[test]
    fn a_poisoned_file_tells_its_first_failure() {
        let cause = io::Error::other("the disk is on fire");
        let first = IoError::new(IoOperation::Sync, Path::new("a.wal"), cause);

        let later = IoError::poisoned(IoOperation::Write, &first).at(0, 1);

        assert_eq!((later.kind(), later.path()), (IoErrorKind::Poisoned, Path::new("a.wal")));
        assert!(later.to_string().contains("the disk is on fire"));
        assert_eq!(later.source().unwrap().to_string(), first.to_string());
    }
}
