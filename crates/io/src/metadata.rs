//! Operations on names and lengths, as plain blocking calls for the metadata threads.
//!
//! Both backends use them: a ring would hand them to kernel threads anyway, and the calls are rare.
//! Guarantee: each returns an [`IoError`] with its operation and path.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use crate::disk::{DirectoryEntry, FileLock};
use crate::error::{IoError, IoErrorKind, IoOperation};
use crate::file::FileHandle;

pub(crate) fn file_len(file: &FileHandle) -> Result<u64, IoError> {
    let metadata = file.os().metadata();
    Ok(metadata.map_err(failed(IoOperation::Length, file.path()))?.len())
}

pub(crate) fn set_len(file: &FileHandle, len: u64) -> Result<(), IoError> {
    file.check_writable(IoOperation::SetLength)?;
    file.os().set_len(len).map_err(failed(IoOperation::SetLength, file.path()))
}

pub(crate) fn list_dir(path: &Path) -> Result<Vec<DirectoryEntry>, IoError> {
    let failed = failed(IoOperation::ListDirectory, path);
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(&failed)? {
        let entry = entry.map_err(&failed)?;
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        entries.push(DirectoryEntry {
            name: entry.file_name().to_string_lossy().into_owned(),
            is_directory: metadata.is_dir(),
            bytes: metadata.len(),
        });
    }
    Ok(entries)
}

pub(crate) fn create_dir(path: &Path) -> Result<(), IoError> {
    fs::create_dir_all(path).map_err(failed(IoOperation::CreateDirectory, path))
}

pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), IoError> {
    fs::rename(from, to).map_err(failed(IoOperation::Rename, from))
}

pub(crate) fn remove_file(path: &Path) -> Result<(), IoError> {
    fs::remove_file(path).map_err(failed(IoOperation::RemoveFile, path))
}

#[cfg(unix)]
pub(crate) fn sync_dir(path: &Path) -> Result<(), IoError> {
    let failed = failed(IoOperation::SyncDirectory, path);
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Windows keeps directory entries durable with the file system's own log, and has no such call.
#[cfg(not(unix))]
pub(crate) fn sync_dir(_path: &Path) -> Result<(), IoError> {
    Ok(())
}

pub(crate) fn lock(path: &Path) -> Result<FileLock, IoError> {
    let failed = failed(IoOperation::Lock, path);
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(&failed)?;
    match file.try_lock() {
        Ok(()) => Ok(FileLock::of_file(path, file)),
        Err(TryLockError::WouldBlock) => Err(locked(path)),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Looks whether somebody has the lock of [`crate::Disk::lock`] on a file, without a disk and
/// without making the file: for who would build a disk in vain.
///
/// Whether the lock can be had is known only by taking it. Of several who look and then take it at
/// the same time one gets it; the others may find the look of another in their way.
///
/// # Errors
///
/// [`IoErrorKind::Locked`], and nothing else: what else is wrong with the file is for the lock to
/// tell.
pub fn look_at_lock(path: &Path) -> Result<(), IoError> {
    let Ok(file) = File::open(path) else { return Ok(()) };
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Err(locked(path)),
        // Given back at once, not when the last copy of the descriptor is closed: see `FileLock`.
        Ok(()) => {
            // What fails here is released when the last copy is closed.
            let _ = file.unlock();
            Ok(())
        }
        Err(TryLockError::Error(_)) => Ok(()),
    }
}

fn locked(path: &Path) -> IoError {
    let reason = "another process, or this one, has locked it";
    IoError::refused(IoOperation::Lock, path, IoErrorKind::Locked, reason)
}

fn failed(operation: IoOperation, path: &Path) -> impl Fn(io::Error) -> IoError {
    move |source| IoError::new(operation, path, source)
}
