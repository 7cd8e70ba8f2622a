//! Open files: how they were opened, what direct I/O asks of them, and their poison latch.
//!
//! Guarantee: a file stays open while any handle or operation holds it. After the first failed
//! write or sync every later write and sync of that file fails with that first error: the kernel
//! may have dropped the data and marked it clean, so a later success would be a lie.
//! Does not: run operations (see `positional` and `uring`) or cache open files (the engine's work).

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::direct::{self, DirectIo};
use crate::durable::WriteThrough;
use crate::error::{IoError, IoErrorKind, IoOperation};
use crate::mapping::{MappedFile, Mappings};
use crate::sim::SimFile;
use crate::syncs::Syncs;

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    write: bool,
    creation: Creation,
    direct: bool,
    sealed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Creation {
    MustExist,
    OpenOrCreate,
    MustNotExist,
}

impl OpenOptions {
    /// Reads an existing file.
    #[must_use]
    pub fn read_only() -> Self {
        Self { write: false, creation: Creation::MustExist, direct: true, sealed: false }
    }

    /// Reads and writes an existing file.
    #[must_use]
    pub fn read_write() -> Self {
        Self { write: true, ..Self::read_only() }
    }

    /// Creates the file and fails if it exists. Implies writing.
    #[must_use]
    pub fn create_new(self) -> Self {
        Self { write: true, creation: Creation::MustNotExist, ..self }
    }

    /// Creates the file if it does not exist. Implies writing.
    #[must_use]
    pub fn create(self) -> Self {
        Self { write: true, creation: Creation::OpenOrCreate, ..self }
    }

    /// Whether to bypass the operating system's cache where the file allows it. Default: yes.
    #[must_use]
    pub fn direct(self, prefer: bool) -> Self {
        Self { direct: prefer, ..self }
    }

    /// Promises that nobody changes the file while it is open, so that the mmap backend may map it;
    /// other backends take no notice. Has no effect on a file that is opened for writing.
    #[must_use]
    pub fn sealed(self) -> Self {
        Self { sealed: true, ..self }
    }

    /// Whether the file may be mapped.
    pub(crate) fn is_mappable(self) -> bool {
        self.sealed && !self.write
    }

    pub(crate) fn prefers_direct(self) -> bool {
        self.direct
    }

    pub(crate) fn writes(self) -> bool {
        self.write
    }

    pub(crate) fn creates(self) -> bool {
        self.creation != Creation::MustExist
    }

    pub(crate) fn must_be_new(self) -> bool {
        self.creation == Creation::MustNotExist
    }

    /// The same for a file that the first open may just have created.
    #[cfg(target_os = "linux")]
    pub(crate) fn reopen(self) -> Self {
        Self { creation: Creation::MustExist, ..self }
    }

    pub(crate) fn to_std(self) -> std::fs::OpenOptions {
        let mut options = File::options();
        options.read(true).write(self.write);
        match self.creation {
            Creation::MustExist => {}
            Creation::OpenOrCreate => {
                options.create(true);
            }
            Creation::MustNotExist => {
                options.create_new(true);
            }
        }
        options
    }
}

/// An open file; clones share it.
#[derive(Clone)]
pub struct FileHandle {
    inner: Arc<Inner>,
}

struct Inner {
    kind: FileKind,
    path: PathBuf,
    writable: bool,
    direct: Option<DirectIo>,
    writes_through: bool,
    mapped: Option<Arc<MappedFile>>,
    poison: OnceLock<IoError>,
    syncs: Syncs,
    /// Fields are dropped in their order: this one after the file was closed.
    held: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// Which file of the machine a handle is of: the same for every handle of one file, another for a
/// file that has taken its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    device: u64,
    number: u64,
}

/// What stands behind a handle.
enum FileKind {
    Os(File),
    Simulated(SimFile),
}

impl FileHandle {
    /// Opens a file on the calling thread.
    pub(crate) fn open(path: &Path, options: OpenOptions) -> Result<Self, IoError> {
        Self::open_on(path, options, &WriteThrough::Never)
    }

    /// Opens a file on the calling thread, with what is known of the device.
    pub(crate) fn open_on(
        path: &Path,
        options: OpenOptions,
        write_through: &WriteThrough,
    ) -> Result<Self, IoError> {
        let (file, direct) = direct::open(path, options)
            .map_err(|source| IoError::new(IoOperation::Open, path, source))?;
        let writes_through = direct.is_some() && write_through.applies_to(&file);
        Ok(Self::build(FileKind::Os(file), path, options, direct, writes_through))
    }

    /// Opens a file on the calling thread, and maps it if it may be mapped and can be.
    pub(crate) fn open_mapped(
        path: &Path,
        options: OpenOptions,
        mappings: &Arc<Mappings>,
    ) -> Result<Self, IoError> {
        let mut handle = Self::open(path, options)?;
        if options.is_mappable() {
            let inner = Arc::get_mut(&mut handle.inner).expect("nobody else has the handle yet");
            if let FileKind::Os(file) = &inner.kind {
                inner.mapped = mappings.map(file, path);
            }
        }
        Ok(handle)
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn from_os(
        file: File,
        path: &Path,
        options: OpenOptions,
        direct: Option<DirectIo>,
    ) -> Self {
        Self::build(FileKind::Os(file), path, options, direct, false)
    }

    pub(crate) fn simulated(
        file: SimFile,
        path: &Path,
        options: OpenOptions,
        direct: Option<DirectIo>,
        writes_through: bool,
    ) -> Self {
        Self::build(FileKind::Simulated(file), path, options, direct, writes_through)
    }

    fn build(
        kind: FileKind,
        path: &Path,
        options: OpenOptions,
        direct: Option<DirectIo>,
        writes_through: bool,
    ) -> Self {
        let (writable, path) = (options.writes(), path.to_owned());
        let (mapped, poison, held) = (None, OnceLock::new(), OnceLock::new());
        let syncs = Syncs::default();
        let inner =
            Inner { kind, path, writable, direct, writes_through, mapped, poison, syncs, held };
        Self { inner: Arc::new(inner) }
    }

    /// The path it was opened by. A later rename does not change it.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Whether transfers bypass the operating system's cache.
    pub fn is_direct(&self) -> bool {
        self.inner.direct.is_some()
    }

    /// What offsets and lengths must be multiples of, in bytes; 1 when not direct.
    pub fn alignment(&self) -> u32 {
        self.inner.direct.map_or(1, |direct| direct.offset_alignment)
    }

    /// Which file it is, where the operating system tells (Unix).
    pub fn identity(&self) -> Option<FileIdentity> {
        let file = match &self.inner.kind {
            FileKind::Os(file) => file,
            FileKind::Simulated(file) => {
                let (device, number) = file.identity();
                return Some(FileIdentity { device, number });
            }
        };
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let metadata = file.metadata().ok()?;
            Some(FileIdentity { device: metadata.dev(), number: metadata.ino() })
        }
        #[cfg(not(unix))]
        {
            let _ = file;
            None
        }
    }

    /// Whether other handles or operations in flight hold the file open as well.
    pub fn is_shared(&self) -> bool {
        1 < Arc::strong_count(&self.inner)
    }

    /// Drops `guard` once the file has been closed: for who counts open files. The first guard
    /// stays; a second one is dropped at once.
    pub fn hold_until_closed(&self, guard: Box<dyn Any + Send + Sync>) {
        let _ = self.inner.held.set(guard);
    }

    /// The first failed write or sync of this file, if there was one.
    pub fn poisoned(&self) -> Option<IoError> {
        self.inner.poison.get().cloned()
    }

    pub(crate) fn memory_alignment(&self) -> usize {
        self.inner.direct.map_or(1, |direct| direct.memory_alignment as usize)
    }

    /// Whether a durable write of this file is one write with `RWF_DSYNC`.
    pub(crate) fn writes_through(&self) -> bool {
        self.inner.writes_through
    }

    /// The operating system's file; only files that a real disk opened have one.
    pub(crate) fn os(&self) -> &File {
        match &self.inner.kind {
            FileKind::Os(file) => file,
            FileKind::Simulated(_) => panic!("a simulated file was given to a real disk"),
        }
    }

    /// The simulated file; only files that a simulated disk opened have one.
    pub(crate) fn sim(&self) -> &SimFile {
        match &self.inner.kind {
            FileKind::Simulated(file) => file,
            FileKind::Os(_) => panic!("a real file was given to a simulated disk"),
        }
    }

    /// Fills `bytes` from the file's mapping; false when there is none or it cannot.
    pub(crate) fn copy_mapped(&self, offset: u64, bytes: &mut [u8]) -> bool {
        let mapped = self.inner.mapped.as_ref();
        mapped.is_some_and(|mapped| mapped.copy_to(self.os(), offset, bytes))
    }

    /// Remembers the first failure; later ones change nothing.
    pub(crate) fn poison(&self, error: &IoError) {
        self.inner.poison.get_or_init(|| error.clone());
    }

    /// The syncs of this file that are running.
    pub(crate) fn syncs(&self) -> &Syncs {
        &self.inner.syncs
    }

    pub(crate) fn check_writable(&self, operation: IoOperation) -> Result<(), IoError> {
        if let Some(first) = self.inner.poison.get() {
            return Err(IoError::poisoned(operation, first));
        }
        if self.inner.writable {
            return Ok(());
        }
        let reason = "the file was opened for reading only";
        Err(IoError::refused(operation, self.path(), IoErrorKind::InvalidRequest, reason))
    }
}

impl fmt::Debug for FileHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FileHandle")
            .field("path", &self.inner.path)
            .field("writable", &self.inner.writable)
            .field("direct", &self.inner.direct)
            .field("mapped", &self.inner.mapped)
            .field("poison", &self.inner.poison.get())
            .finish_non_exhaustive()
    }
}
