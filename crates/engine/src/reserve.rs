//! Reserve: a file of zeros whose space a full disk gives back when it is needed most.
//!
//! On a full disk deletes cannot become segments, and without them a compaction finds nothing to
//! give back. So the first flush or compaction that finds the disk full removes the reserve and
//! tries once more. The reserve is made again when a compaction has succeeded.
//!
//! Guarantees: it holds nothing; a store works without it, and an unfinished one is removed. Making
//! it never fails anything else.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_lock::Mutex as AsyncMutex;
use nephrite_io::{Disk, IoBuffer, OpenOptions, write};

use crate::{config::Config, error::Error, log_file::aligned, paths::StorePaths};

/// Share of the largest memtable.
const SHARE: u64 = 8;
/// Least and most bytes.
const BYTES_MIN: u64 = 256 << 10;
const BYTES_MAX: u64 = 4 << 20;

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    paths: StorePaths,
    bytes: u64,
    held: AtomicBool,
    /// Held while the file is made or removed.
    busy: AsyncMutex<()>,
}

impl Reserve {
    pub(crate) fn new(disk: Arc<dyn Disk>, paths: StorePaths, config: &Config) -> Self {
        let bytes = (config.memtable_limit() / SHARE).clamp(BYTES_MIN, BYTES_MAX);
        let bytes = bytes.next_multiple_of(4096);
        Self { disk, paths, bytes, held: AtomicBool::new(false), busy: AsyncMutex::new(()) }
    }

    /// Makes the reserve if it is not there and the disk has room for it.
    pub(crate) async fn restore(&self) {
        if self.held.load(Ordering::Acquire) {
            return;
        }
        let alone = self.busy.lock().await;
        match self.fill().await {
            Ok(()) => self.held.store(true, Ordering::Release),
            // No room: the next success tries again.
            Err(_) => drop(self.disk.remove_file(&self.paths.reserve()).await),
        }
        drop(alone);
    }

    async fn fill(&self) -> Result<(), Error> {
        let options = OpenOptions::read_write().create();
        let file = self.disk.open(&self.paths.reserve(), options).await?;
        if self.disk.file_len(&file).await? == self.bytes {
            return Ok(()); // of an earlier life of the store
        }
        let bytes = usize::try_from(self.bytes).expect("at most 4 MiB");
        write(&*self.disk, &file, 0, IoBuffer::Owned(aligned(bytes)?)).await?;
        self.disk.set_len(&file, self.bytes).await?; // a configuration before may have had more
        Ok(())
    }

    /// Gives its space back; `false` when there was none.
    pub(crate) async fn release(&self) -> bool {
        let _alone = self.busy.lock().await;
        if !self.held.swap(false, Ordering::AcqRel) {
            return false;
        }
        self.disk.remove_file(&self.paths.reserve()).await.is_ok()
    }
}
