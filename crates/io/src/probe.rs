//! Trying a backend out where it will be used: a real write, read and sync in the directory.
//!
//! Containers and sandboxes let rings be set up and then fail their operations, and file systems
//! open files for direct I/O that they then refuse; only doing it tells.
//!
//! On Linux the file has no name where the file system allows that, and the sync is one of the
//! directory: that of a file just written would wait for the file system's journal, with all that
//! others have written, and so would the next sync of a directory in which a name came and went.
//!
//! Guarantee: the probe file has no name, or is unlinked before its first use (unix) or after its
//! last (Windows).
//! Where the directory cannot be written (read-only, no permission, full), the ring is tried on a
//! file in memory instead, and the report says so.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::completion::block_on;
use crate::disk::{Disk, read, sync, write};
use crate::error::{IoError, IoErrorKind, IoOperation};
use crate::file::{FileHandle, OpenOptions};
use crate::mapping::{MAPPED_BYTES_MAX, Mappings};
use crate::memory::{AlignedBuf, BLOCK_BYTES};
use crate::positional::{Calls, SystemCalls};
use crate::request::IoBuffer;

/// Names of probe files begin with this. One is left behind only if the process dies within the
/// instant between its creation and its removal; it may be deleted at any time.
pub const PROBE_PREFIX: &str = ".nephrite-probe-";

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probed {
    pub(crate) alignment: Option<u32>,
    pub(crate) memory_alignment: u32,
    /// What was used in place of a file in the directory, as a clause.
    pub(crate) note: Option<String>,
}

/// Tries `disk` in `directory`; `direct` is whether direct I/O is wanted at all.
pub(crate) fn try_out(disk: &dyn Disk, directory: &Path, direct: bool) -> Result<Probed, IoError> {
    match in_directory(disk, directory, direct) {
        Err(error) if direct && is_refusal(&error) => {
            unless_unwritable(in_directory(disk, directory, false), |error| {
                in_memory(disk, directory, error)
            })
        }
        outcome => unless_unwritable(outcome, |error| in_memory(disk, directory, error)),
    }
}

/// A file system that opens files with direct I/O and then refuses the transfer.
fn is_refusal(error: &IoError) -> bool {
    #[cfg(unix)]
    let refusals = [libc::EINVAL, libc::EOPNOTSUPP];
    #[cfg(not(unix))]
    let refusals: [i32; 0] = [];
    error.raw_os_error().is_some_and(|number| refusals.contains(&number))
}

fn unless_unwritable<T>(
    outcome: Result<T, IoError>,
    otherwise: impl FnOnce(&IoError) -> Result<T, IoError>,
) -> Result<T, IoError> {
    use IoErrorKind::{Full, PermissionDenied, ReadOnly};
    match outcome {
        Err(error)
            if error.operation() != IoOperation::Read
                && matches!(error.kind(), Full | PermissionDenied | ReadOnly) =>
        {
            otherwise(&error)
        }
        outcome => outcome,
    }
}

fn in_directory(disk: &dyn Disk, directory: &Path, direct: bool) -> Result<Probed, IoError> {
    let file = ProbeFile::create(directory, direct)?;
    exercise(disk, &file.handle, file.directory.as_ref())?;
    let alignment = file.handle.is_direct().then(|| file.handle.alignment());
    let memory_alignment = u32::try_from(file.handle.memory_alignment()).unwrap_or(u32::MAX);
    Ok(Probed { alignment, memory_alignment, note: None })
}

/// Writes a block, syncs, and reads it back.
fn exercise(
    disk: &dyn Disk,
    file: &FileHandle,
    directory: Option<&FileHandle>,
) -> Result<(), IoError> {
    let fill = |byte: u8| -> Result<IoBuffer, IoError> {
        let mut block = AlignedBuf::zeroed(BLOCK_BYTES).map_err(|error| {
            let kind = IoErrorKind::OutOfMemory;
            IoError::refused(IoOperation::Probe, file.path(), kind, error.to_string())
        })?;
        block.fill(byte);
        Ok(IoBuffer::Owned(block))
    };
    block_on(write(disk, file, 0, fill(0xA5)?))?;
    // Not every file system syncs directories this way.
    if directory.is_none_or(|directory| block_on(sync(disk, directory)).is_err()) {
        block_on(sync(disk, file))?;
    }
    let back = block_on(read(disk, file, 0, fill(0)?))?;
    if back.as_slice().iter().all(|byte| *byte == 0xA5) {
        return Ok(());
    }
    let reason = "a block that was written came back with other bytes";
    Err(IoError::refused(IoOperation::Probe, file.path(), IoErrorKind::Other, reason))
}

/// Maps a file in `directory` and reads from the mapping what was written. Where the directory
/// cannot be written there is nothing to try: files that refuse are read positionally then.
pub(crate) fn try_out_mapping(directory: &Path) -> Result<(), IoError> {
    let created = ProbeFile::create(directory, false).map(Some);
    let Some(file) = unless_unwritable(created, |_| Ok(None))? else { return Ok(()) };
    let failed = |source| IoError::new(IoOperation::Probe, directory, source);
    let (os, mut back) = (file.handle.os(), [0; BLOCK_BYTES]);
    let written = SystemCalls.write_at(os, &[0xA5; BLOCK_BYTES], 0);
    let written = written.map(Some).map_err(failed);
    let Some(written) = unless_unwritable(written, |_| Ok(None))? else { return Ok(()) };
    let mappings = Mappings::new(MAPPED_BYTES_MAX, Arc::default());
    let mapped = mappings.try_map(os, file.handle.path()).map_err(failed)?;
    let copied = mapped.is_some_and(|mapped| mapped.copy_to(os, 0, &mut back[..written]));
    if copied && back[..written].iter().all(|byte| *byte == 0xA5) {
        return Ok(());
    }
    let reason = "a block that was written did not show in the mapping of its file";
    Err(IoError::refused(IoOperation::Probe, directory, IoErrorKind::Other, reason))
}

/// A file in the directory that goes away by itself.
struct ProbeFile {
    handle: FileHandle,
    /// The directory itself, if the file is nowhere to be found in it.
    directory: Option<FileHandle>,
    #[cfg_attr(unix, expect(dead_code, reason = "removed at once on unix"))]
    path: PathBuf,
}

impl ProbeFile {
    fn create(directory: &Path, direct: bool) -> Result<Self, IoError> {
        // On any error go on with a named file, whose error says more.
        #[cfg(target_os = "linux")]
        if let Ok(file) = Self::unnamed(directory, direct) {
            return Ok(file);
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Relaxed: the number only has to differ.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("{PROBE_PREFIX}{}-{count}", std::process::id()));
        let options = OpenOptions::read_write().create_new().direct(direct);
        let handle = FileHandle::open(&path, options)?;
        #[cfg(unix)]
        crate::metadata::remove_file(&path)?;
        Ok(Self { handle, directory: None, path })
    }

    #[cfg(target_os = "linux")]
    fn unnamed(directory: &Path, direct: bool) -> std::io::Result<Self> {
        let options = OpenOptions::read_write();
        let path = directory.join("(file without a name)");
        let (file, direct) = crate::direct::open_unnamed(directory, direct)?;
        let handle = FileHandle::from_os(file, &path, options, direct);
        let of_names = std::fs::File::open(directory)?;
        let of_names = FileHandle::from_os(of_names, directory, options, None);
        Ok(Self { handle, directory: Some(of_names), path })
    }
}

#[cfg(not(unix))]
impl Drop for ProbeFile {
    fn drop(&mut self) {
        // A probe file left behind is harmless (see PROBE_PREFIX), and a drop has nobody to tell.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The probe for a directory that cannot be written, which `cause` says why.
#[cfg(target_os = "linux")]
fn in_memory(disk: &dyn Disk, directory: &Path, cause: &IoError) -> Result<Probed, IoError> {
    use std::fs::File;
    use std::os::fd::FromRawFd;

    // SAFETY: the name is a terminated string; the call touches no other memory of ours.
    let descriptor = unsafe { libc::memfd_create(c"nephrite-probe".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        let source = std::io::Error::last_os_error();
        return Err(IoError::new(IoOperation::Probe, directory, source));
    }
    // SAFETY: the descriptor is new, open, and owned by nobody else.
    let file = unsafe { File::from_raw_fd(descriptor) };
    let path = directory.join("(file in memory)");
    let handle = FileHandle::from_os(file, &path, OpenOptions::read_write(), None);
    exercise(disk, &handle, None)?;
    Ok(unwritable(cause))
}

#[cfg(not(target_os = "linux"))]
fn in_memory(_disk: &dyn Disk, _directory: &Path, cause: &IoError) -> Result<Probed, IoError> {
    Ok(unwritable(cause))
}

fn unwritable(cause: &IoError) -> Probed {
    let note =
        format!("the directory could not be written ({cause}), so a file in memory was used");
    Probed { alignment: None, memory_alignment: 1, note: Some(note) }
}

#[cfg(all(test, target_os = "linux", not(any(loom, miri))))]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    // Coarse time stamps (before Linux 6.13) may hide a change within a tick.
    #[test]
    fn a_trial_with_a_file_without_a_name_leaves_the_directory_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        if ProbeFile::unnamed(directory.path(), true).is_err() {
            println!("SKIPPED: the file system has no files without names");
            return;
        }
        let changed = || {
            let metadata = std::fs::metadata(directory.path()).unwrap();
            (metadata.ctime(), metadata.ctime_nsec(), metadata.mtime(), metadata.mtime_nsec())
        };
        let before = changed();

        drop(crate::open_disk(crate::DiskOptions::new(), directory.path()).unwrap());

        assert_eq!(changed(), before);
    }
}
