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
        Err(TryLockError::WouldBlock) => {
            let reason = "another process, or this one, has locked it";
            Err(IoError::refused(IoOperation::Lock, path, IoErrorKind::Locked, reason))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn failed(operation: IoOperation, path: &Path) -> impl Fn(io::Error) -> IoError {
    move |source| IoError::new(operation, path, source)
}
