//! Log files: one that is open, one that rests, and how a new one is made.
//!
//! Only the segment that is being written, and the one that is made ready to follow it, are open
//! for long. All others rest, so that a long log takes no more descriptors than a short one, in
//! recovery too.

use std::sync::Arc;

use nephrite_format::{FileDetail, FileHeader, FileId, Generation};
use nephrite_io::{Disk, FileHandle, OpenOptions};

use super::WalContext;
use crate::{error::Error, log_file, paths::StorePaths, planted::planted};

/// A log file.
#[derive(Clone, Debug)]
pub(crate) struct WalFile {
    pub(crate) id: FileId,
    pub(crate) file: FileHandle,
    pub(crate) bytes: u64,
}

/// A log file that is not being read or written: closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RestingFile {
    pub(crate) id: FileId,
    pub(crate) bytes: u64,
}

impl From<WalFile> for RestingFile {
    fn from(wal: WalFile) -> Self {
        Self { id: wal.id, bytes: wal.bytes }
    }
}

impl RestingFile {
    /// Opens it again.
    pub(crate) async fn open(
        &self,
        disk: &Arc<dyn Disk>,
        paths: &StorePaths,
    ) -> Result<WalFile, Error> {
        let file = disk.open(&paths.wal(self.id), OpenOptions::read_write()).await?;
        Ok(WalFile { id: self.id, file, bytes: self.bytes })
    }
}

/// A new log file full of zeros, with a header of its own, durable with its directory entry.
pub(crate) async fn create_wal_file(context: &WalContext) -> Result<WalFile, Error> {
    let id = context.allocate_file();
    let header = FileHeader {
        store: context.store,
        file: id,
        generation: Generation::new(0),
        detail: FileDetail::Wal { position: 0, segment_bytes: context.segment_bytes },
    };
    let path = context.paths.wal(id);
    let file = log_file::create(&*context.disk, &path, &header, context.segment_bytes).await?;
    if !planted("log_directory_unsynced") {
        context.disk.sync_dir(context.paths.wal_dir()).await?;
    }
    Ok(WalFile { id, file, bytes: context.segment_bytes })
}
