//! A file that appears under its name only when it is whole.
//!
//! Bytes go to a temporary file in the same directory; `commit` syncs it and renames it over the
//! target. Dropped without `commit`, the temporary file is removed and the target is untouched.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::VectorFileError;

/// Bytes collected before each write to the file.
const BUFFER_BYTES: usize = 1 << 20;

/// A replacement in the making.
pub(crate) struct Replacement {
    target: PathBuf,
    writer: BufWriter<NamedTempFile>,
}

impl Replacement {
    pub(crate) fn create(target: &Path) -> Result<Self, VectorFileError> {
        let file = temporary(target).map_err(|e| VectorFileError::io("creating", target, e))?;
        let writer = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(Self { target: target.to_path_buf(), writer })
    }

    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), VectorFileError> {
        self.writer.write_all(bytes).map_err(|e| VectorFileError::io("writing", &self.target, e))
    }

    /// Makes the file durable and gives it its name, replacing what was there.
    pub(crate) fn commit(self) -> Result<(), VectorFileError> {
        let target = self.target;
        let file = self
            .writer
            .into_inner()
            .map_err(|e| VectorFileError::io("writing", &target, e.into_error()))?;
        file.as_file().sync_all().map_err(|e| VectorFileError::io("syncing", &target, e))?;
        file.persist(&target).map_err(|e| VectorFileError::io("renaming to", &target, e.error))?;
        sync_directory(directory_of(&target))
            .map_err(|e| VectorFileError::io("syncing the directory of", &target, e))
    }
}

fn directory_of(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn temporary(target: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".nephrite-export-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // What `open` would ask for; the process's mask applies as usual.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(directory_of(target))
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Directories cannot be opened for syncing here; the rename itself is journalled.
#[cfg(not(unix))]
fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn nothing_is_left_of_a_dropped_replacement() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("a.txt");
        fs::write(&target, "old").unwrap();
        let mut replacement = Replacement::create(&target).unwrap();
        replacement.write(b"new").unwrap();
        drop(replacement);
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn commit_replaces_the_target() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("a.txt");
        fs::write(&target, "old").unwrap();
        let mut replacement = Replacement::create(&target).unwrap();
        replacement.write(b"new").unwrap();
        replacement.commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_directory_names_the_target() {
        let error = Replacement::create(Path::new("/no/such/a.npy")).err().unwrap().to_string();
        assert!(error.contains("/no/such/a.npy"), "{error}");
    }
}
