//! Reserve: a file of zeros whose space a full disk gives back when it is needed most.
//!
//! On a full disk deletes need log, and the log comes free only when memtables become segments: of
//! the vectors that were written before the deletes, then of the deletes. So the reserve has room
//! for the largest memtable, or a log segment and what another one holds, and for small things
//! beside. It gives way piece by piece, and only to deletes and compactions (a *relief*): vectors
//! have no claim to it, and are refused until it is whole again. So others on the same disk find
//! nothing to take before a delete needs it.
//!
//! Guarantees: it holds nothing; a store works without it, and an unfinished one is gone on with.
//! That it cannot be made fails nothing but writes of vectors on a full disk. Until the first log
//! segment is full it is small, so that a small store takes little space.
//! Ordering: `held` and `wanted` change under `busy`; others look at them without it.
//! Tested in `surroundings` of the workspace's tests, on disks without one free block.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use async_lock::Mutex as AsyncMutex;
use event_listener::Event;
use nephrite_io::{Disk, FileHandle, IoBuffer, IoError, IoOperation, OpenOptions, write};

use crate::{config::Config, core::Core, error::Error, log_file::aligned, paths::StorePaths};

/// The small one's share of the largest memtable.
const SHARE: u64 = 8;
/// Its least and most bytes.
const BYTES_MIN: u64 = 256 << 10;
const BYTES_MAX: u64 = 4 << 20;
/// It is made by writes of so many bytes.
const PIECE_BYTES: u64 = 256 << 10;
/// It gives way in so many pieces.
const PIECES: u64 = 4;

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    paths: StorePaths,
    /// Bytes of the one for a store that has filled a log segment.
    large: u64,
    /// Bytes that it should have.
    wanted: AtomicU64,
    /// Bytes that it has.
    held: AtomicU64,
    /// Writers of vectors are refused.
    is_short: AtomicBool,
    /// Why it is not whole.
    shortage: Mutex<Option<Error>>,
    /// Who makes room for deletes at present.
    reliefs: AtomicUsize,
    /// A relief has ended.
    relieved: Event,
    /// Held while the file changes.
    busy: AsyncMutex<()>,
}

impl Reserve {
    pub(crate) fn new(disk: Arc<dyn Disk>, paths: StorePaths, config: &Config) -> Self {
        let memtable = config.memtable_limit();
        let small = (memtable / SHARE).clamp(BYTES_MIN, BYTES_MAX).next_multiple_of(4096);
        let large = small + memtable.max(2 * config.wal_segment_bytes).next_multiple_of(4096);
        Self {
            disk,
            paths,
            large,
            wanted: AtomicU64::new(small),
            held: AtomicU64::new(0),
            is_short: AtomicBool::new(false),
            shortage: Mutex::default(),
            reliefs: AtomicUsize::new(0),
            relieved: Event::new(),
            busy: AsyncMutex::new(()),
        }
    }

    /// The most that it ever has.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.large
    }

    /// Whether deletes are being helped, to whom it gives way.
    pub(crate) fn relieves(&self) -> bool {
        self.reliefs.load(Ordering::Acquire) != 0 // pairs with `begin_relief`
    }

    /// The store has filled a log segment: it is worth the whole of it.
    pub(crate) async fn grow(&self) {
        if self.wanted.fetch_max(self.large, Ordering::AcqRel) < self.large {
            self.restore().await;
        }
    }

    /// Why writes of vectors are refused, after another try to make it whole. Waits for a relief
    /// that goes on. Cancel safe.
    pub(crate) async fn shortage(&self) -> Option<Error> {
        if !self.is_short.load(Ordering::Acquire) {
            return None; // pairs with `set_shortage`
        }
        let listener = self.relieved.listen();
        if self.relieves() {
            listener.await; // what deletes give back may be enough
        }
        self.restore().await;
        self.shortage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_shortage(&self, error: Option<Error>) {
        let mut shortage = self.shortage.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_short.store(error.is_some(), Ordering::Release);
        *shortage = error;
    }

    fn is_whole(&self) -> bool {
        self.wanted.load(Ordering::Acquire) <= self.held.load(Ordering::Acquire)
    }

    /// Makes it whole if the disk has room for that, and nobody needs that room for deletes.
    pub(crate) async fn restore(&self) {
        if self.is_whole() || self.relieves() {
            return;
        }
        let _alone = self.busy.lock().await;
        if self.is_whole() || self.relieves() {
            return;
        }
        match self.fill().await {
            Ok(()) if self.is_whole() => self.set_shortage(None),
            Ok(()) => {} // it gave way at once
            Err(error) if error.is_disk_full() => self.set_shortage(Some(error)),
            // Whatever else is wrong is told by those who work with the files that matter.
            Err(_) => {}
        }
    }

    async fn fill(&self) -> Result<(), Error> {
        let options = OpenOptions::read_write().create();
        let file = self.disk.open(&self.paths.reserve(), options).await?;
        // Of an earlier life of the store, or what was left of it.
        let found = self.disk.file_len(&file).await? / 4096 * 4096;
        let small = self.wanted.load(Ordering::Acquire);
        let wanted = if small < found { self.large } else { small };
        self.wanted.store(wanted, Ordering::Release);
        if wanted < found {
            self.disk.set_len(&file, wanted).await?; // a configuration before had more
        }
        self.held.store(found.min(wanted), Ordering::Release);
        let filled = self.fill_from(&file, found, wanted).await;
        if filled.is_err() {
            self.disk.set_len(&file, found).await?;
            self.held.store(found, Ordering::Release);
        }
        filled
    }

    async fn fill_from(&self, file: &FileHandle, found: u64, wanted: u64) -> Result<(), Error> {
        let mut at = found;
        while at < wanted && !self.relieves() {
            let bytes = (wanted - at).min(PIECE_BYTES);
            let zeros = aligned(usize::try_from(bytes).expect("at most 256 KiB"))?;
            write(&*self.disk, file, at, IoBuffer::Owned(zeros)).await?;
            at += bytes;
            self.held.store(at, Ordering::Release);
        }
        Ok(())
    }

    /// Gives a part of its space back; `false` when nothing is left.
    pub(crate) async fn release(&self) -> bool {
        let _alone = self.busy.lock().await;
        let held = self.held.load(Ordering::Acquire);
        if held == 0 {
            return false;
        }
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let path = self.paths.reserve();
        self.set_shortage(Some(IoError::new(IoOperation::Write, &path, full).into()));
        let piece = (self.wanted.load(Ordering::Acquire) / PIECES).next_multiple_of(4096);
        let left = held.saturating_sub(piece);
        self.held.store(left, Ordering::Release);
        if left != 0 && self.shrink(left).await.is_ok() {
            return true;
        }
        self.held.store(0, Ordering::Release);
        self.disk.remove_file(&path).await.is_ok()
    }

    async fn shrink(&self, bytes: u64) -> Result<(), Error> {
        let file = self.disk.open(&self.paths.reserve(), OpenOptions::read_write()).await?;
        Ok(self.disk.set_len(&file, bytes).await?)
    }
}

/// The time in which deletes are helped on a full disk: the reserve gives way, vectors are refused,
/// and no new log file takes the room.
pub(crate) struct Relief<'a>(&'a Core);

impl Drop for Relief<'_> {
    fn drop(&mut self) {
        self.0.reserve.reliefs.fetch_sub(1, Ordering::AcqRel);
        self.0.reserve.relieved.notify(usize::MAX);
        self.0.wal.let_grow();
    }
}

impl Core {
    pub(crate) async fn begin_relief(&self) -> Relief<'_> {
        self.reserve.reliefs.fetch_add(1, Ordering::AcqRel);
        self.wal.keep_from_growing();
        let relief = Relief(self);
        // Who is making it whole stops at the next piece.
        drop(self.reserve.busy.lock().await);
        relief
    }

    /// Ends a relief; what is left of the room goes back to the reserve.
    pub(crate) async fn end_relief(&self, relief: Relief<'_>) {
        drop(relief);
        self.reserve.restore().await;
    }
}
