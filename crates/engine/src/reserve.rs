//! Reserve: a file of zeros whose space a full disk gives back when it is needed most.
//!
//! On a full disk a delete needs log, and the log comes free only when memtables become segments:
//! of the vectors that were written before the delete, then of the delete. So the reserve has room
//! for the largest memtable, or two log segments, and an eighth of a memtable beside, up to
//! [`LARGE_BYTES_MAX`]. It gives way
//! in quarters, and only to a *relief*: the job that makes room for deletes (`relief`), and
//! compactions of which more comes back than they take. From the first quarter on vectors are
//! refused, until it is whole again: else they, or others on the disk, would have the room that the
//! next delete needs.
//!
//! Small stores need less: until a log segment has been full it has that eighth only, and a clean
//! close, which leaves no memtable, cuts it to a 64th of the segments, or that eighth.
//!
//! Guarantees: it holds nothing, and a store works without it; making it fails nothing. It is made,
//! made whole and given away by the engine's own tasks only, so nothing is left half done by a
//! caller who goes. Where the disk says what room it has, it is made whole, or larger, only when
//! there is room for all of that; where it does not, or was wrong, it is tried now and then. It
//! never grows beyond the least where the disk does not say. If it cannot be made whole for another
//! reason than room, less of it is enough: vectors do not wait for ever.
//! It is forgotten with the process that it gave way to anything: the next takes what it finds.
//! Ordering: `held`, `wanted` and `reliefs` change under `busy`, and with them whether the log is
//! kept for deletes; others look at them without it.
//! Tested in `surroundings` of the workspace's tests and in `tests/it/reserve.rs` of this crate.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_lock::Mutex as AsyncMutex;
use nephrite_io::{Disk, FileHandle, IoBuffer, OpenOptions, write};

use crate::{
    config::Config, core::Core, error::Error, log_file::aligned, manifest::ManifestState,
    paths::StorePaths,
};

/// Share of the largest memtable in the least that it has.
const SHARE: u64 = 8;
/// Bounds of that.
const SMALL_BYTES_MIN: u64 = 256 << 10;
const SMALL_BYTES_MAX: u64 = 4 << 20;
/// Share of the segments' bytes that it may have in a store that is closed.
const SEGMENTS_SHARE: u64 = 64;
/// The most that it ever has.
const LARGE_BYTES_MAX: u64 = 64 << 20;
/// It is written in pieces of so many bytes.
const PIECE_BYTES: u64 = 1 << 20;
/// It grows by so many bytes between two looks at the flush task's jobs.
const STEP_BYTES: u64 = 4 << 20;
/// What the disk must have beside what is asked for: files take blocks of their own.
const MARGIN_BYTES: u64 = 256 << 10;
/// After a try for which the disk had no room after all, or did not say, the next waits so long,
/// unless a compaction has given room back.
const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// It gives way in so many parts.
const PARTS: u64 = 4;

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    paths: StorePaths,
    small: u64,
    large: u64,
    /// Bytes that it has.
    held: AtomicU64,
    /// Bytes that it had before it gave way.
    wanted: AtomicU64,
    /// No try to fill it before this time of the runtime's clock, in nanoseconds.
    next_try: AtomicU64,
    /// No look whether there is room for it to grow before this time.
    next_look: AtomicU64,
    /// Tasks that make room at present: of two, each at most once.
    reliefs: AtomicU64,
    /// Held while any of that changes.
    busy: AsyncMutex<()>,
}

impl Reserve {
    pub(crate) fn new(disk: Arc<dyn Disk>, paths: StorePaths, config: &Config) -> Self {
        let memtable = config.memtable_limit();
        let small = (memtable / SHARE).clamp(SMALL_BYTES_MIN, SMALL_BYTES_MAX);
        let large = small + memtable.max(2 * config.wal_segment_bytes);
        let large = large.min(LARGE_BYTES_MAX);
        Self {
            disk,
            paths,
            small: small.next_multiple_of(4096),
            large: large.next_multiple_of(4096),
            held: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            next_try: AtomicU64::new(0),
            next_look: AtomicU64::new(0),
            reliefs: AtomicU64::new(0),
            busy: AsyncMutex::new(()),
        }
    }

    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire) // pairs with the stores under `busy`
    }

    fn wanted(&self) -> u64 {
        self.wanted.load(Ordering::Acquire) // as `held`
    }

    /// Whether the room of the disk is for a relief at present.
    pub(crate) fn is_in_relief(&self) -> bool {
        self.reliefs.load(Ordering::Acquire) != 0 // pairs with `begin_relief`
    }

    /// What a closed store with so many bytes in segments should have.
    fn at_rest(&self, segment_bytes: u64) -> u64 {
        let share = (segment_bytes / SEGMENTS_SHARE).next_multiple_of(4096);
        share.clamp(self.small, self.large)
    }

    /// Whether the disk has room for so many bytes and some more; none when it does not tell.
    async fn has_room(&self, bytes: u64) -> Option<bool> {
        let free = self.disk.free_bytes(self.paths.root()).await.ok().flatten()?;
        Some(bytes.saturating_add(MARGIN_BYTES) <= free)
    }

    /// A compaction has given room back: it may be tried again.
    pub(crate) fn room_came_back(&self) {
        self.next_try.store(0, Ordering::Relaxed); // a hint
        self.next_look.store(0, Ordering::Relaxed); // a hint
    }

    fn may_try(&self, now: Duration) -> bool {
        has_come(&self.next_try, now)
    }

    async fn open(&self) -> Result<FileHandle, Error> {
        let options = OpenOptions::read_write().create();
        Ok(self.disk.open(&self.paths.reserve(), options).await?)
    }

    /// Takes over what an earlier life of the store left. Under `busy`.
    async fn find(&self) -> Result<(), Error> {
        let file = self.open().await?;
        let found = self.disk.file_len(&file).await?;
        let kept = (found / 4096 * 4096).min(self.large);
        if kept != found {
            self.disk.set_len(&file, kept).await?;
        }
        self.held.store(kept, Ordering::Release);
        self.wanted.store(kept, Ordering::Release);
        Ok(())
    }

    /// Makes it so large, or leaves it as it was. Under `busy`.
    async fn fill(&self, bytes: u64) -> Result<(), Error> {
        let held = self.held();
        if bytes <= held {
            return Ok(());
        }
        let file = self.open().await?;
        let filled = self.fill_from(&file, held, bytes).await;
        match filled {
            Ok(()) => self.held.store(bytes, Ordering::Release),
            Err(_) => {
                // A handle whose write has failed takes no more changes.
                drop(file);
                let file = self.open().await?;
                self.disk.set_len(&file, held).await?;
            }
        }
        filled
    }

    async fn fill_from(&self, file: &FileHandle, from: u64, to: u64) -> Result<(), Error> {
        let mut at = from;
        while at < to {
            let bytes = (to - at).min(PIECE_BYTES);
            let zeros = aligned(usize::try_from(bytes).expect("at most 1 MiB"))?;
            write(&*self.disk, file, at, IoBuffer::Owned(zeros)).await?;
            at += bytes;
        }
        Ok(())
    }

    /// Gives a part of its space back; `false` when there is nothing left. Under `busy`.
    async fn shrink(&self) -> bool {
        let held = self.held();
        if held == 0 {
            return false;
        }
        let part = (self.wanted() / PARTS).next_multiple_of(4096).max(4096);
        let left = held.saturating_sub(part);
        // Less than is there, should the rest fail.
        self.held.store(left, Ordering::Release);
        if left == 0 {
            return self.disk.remove_file(&self.paths.reserve()).await.is_ok();
        }
        match self.open().await {
            Ok(file) => self.disk.set_len(&file, left).await.is_ok(),
            Err(_) => false,
        }
    }
}

fn has_come(then: &AtomicU64, now: Duration) -> bool {
    u128::from(then.load(Ordering::Relaxed)) <= now.as_nanos() // a hint
}

fn put_off(then: &AtomicU64, now: Duration) {
    let nanos = u64::try_from((now + RETRY_PAUSE).as_nanos()).unwrap_or(u64::MAX);
    then.store(nanos, Ordering::Relaxed); // a hint
}

/// For the engine's own tasks.
impl Core {
    /// Finds the reserve, or makes it.
    pub(crate) async fn begin_reserve(&self) {
        {
            let _alone = self.reserve.busy.lock().await;
            // What is wrong is told by those who work with the files that matter.
            let _ = self.reserve.find().await;
        }
        let _ = self.grow_reserve(self.reserve.small).await;
    }

    /// Makes the reserve as large as the store is worth by now, a step at a time; whether the next
    /// step is to follow.
    pub(crate) async fn tend_reserve(&self) -> bool {
        let (wanted, large) = (self.reserve.wanted(), self.reserve.large);
        let is_worth = wanted < large && self.wal.closed_segments() != 0;
        if !is_worth || self.closing.load(Ordering::Acquire) {
            return false;
        }
        self.grow_reserve((wanted + STEP_BYTES).min(large)).await && self.reserve.wanted() < large
    }

    /// Gives back what a closed store does not need. Behind a flush of everything.
    pub(crate) async fn rest_reserve(&self) {
        let bytes = |state: &ManifestState| -> u64 {
            let segments = state.databases.values().flat_map(|it| &it.segments);
            segments.map(|segment| segment.file_bytes).sum()
        };
        let rest = self.reserve.at_rest(self.manifest.read(bytes).await);
        let _alone = self.reserve.busy.lock().await;
        if rest < self.reserve.held()
            && let Ok(file) = self.reserve.open().await
            && self.reserve.disk.set_len(&file, rest).await.is_ok()
        {
            self.reserve.held.store(rest, Ordering::Release);
            self.reserve.wanted.store(rest, Ordering::Release);
        }
    }

    /// Not while it gives way to somebody, and beyond the least only where the disk says that it
    /// has the room. Whether it has so many bytes.
    async fn grow_reserve(&self, target: u64) -> bool {
        let (reserve, now) = (&self.reserve, self.runtime.now());
        let _alone = reserve.busy.lock().await;
        let (held, wanted) = (reserve.held(), reserve.wanted());
        if target <= held {
            return true;
        }
        let gives_way = held < wanted || reserve.is_in_relief();
        if gives_way || !reserve.may_try(now) || !has_come(&reserve.next_look, now) {
            return false;
        }
        let is_least = target <= reserve.small;
        if !reserve.has_room(target - held).await.unwrap_or(is_least) {
            if !is_least {
                // It is asked for again with each job. To make it whole is another matter.
                put_off(&reserve.next_look, now);
            }
            return false;
        }
        if reserve.fill(target).await.is_err() {
            put_off(&reserve.next_try, now);
            return false;
        }
        reserve.wanted.store(target, Ordering::Release);
        true
    }

    /// Makes the reserve whole if the disk has room for that and nobody needs it for a relief;
    /// then vectors are taken again.
    pub(crate) async fn restore_reserve(&self) -> Result<(), Error> {
        let (reserve, now) = (&self.reserve, self.runtime.now());
        let _alone = reserve.busy.lock().await;
        if reserve.is_in_relief() {
            return Err(Error::disk_full(&self.paths.reserve()));
        }
        let (held, wanted) = (reserve.held(), reserve.wanted());
        if held < wanted {
            let says = reserve.has_room(wanted - held).await;
            // What it says may be wrong, where quotas or others decide.
            if says == Some(false) || !reserve.may_try(now) {
                return Err(Error::disk_full(&self.paths.reserve()));
            }
            match reserve.fill(wanted).await {
                Ok(()) => {}
                Err(error) if error.is_disk_full() => {
                    put_off(&reserve.next_try, now);
                    return Err(error);
                }
                // The store works with less of it, and vectors must not wait for ever.
                Err(_) => reserve.wanted.store(reserve.held(), Ordering::Release),
            }
        }
        self.wal.open_to_all();
        Ok(())
    }

    /// Whether there is room to make the reserve whole, when the disk tells.
    pub(crate) async fn reserve_could_be_whole(&self) -> bool {
        let missing = self.reserve.wanted().saturating_sub(self.reserve.held());
        self.reserve.has_room(missing).await == Some(true)
    }

    /// From now on room may be taken from the reserve, and nobody makes it whole.
    pub(crate) async fn begin_relief(&self) {
        let _alone = self.reserve.busy.lock().await;
        self.reserve.reliefs.fetch_add(1, Ordering::AcqRel);
    }

    /// What is left of the room goes back to the reserve.
    pub(crate) async fn end_relief(&self) {
        {
            let _alone = self.reserve.busy.lock().await;
            self.reserve.reliefs.fetch_sub(1, Ordering::AcqRel);
        }
        // Else the next put or compaction tries again.
        let _ = self.restore_reserve().await;
        self.compaction_wanted.notify(usize::MAX); // what is due has given way
    }

    /// Gives a part of the reserve away, in a relief; `false` when nothing is left of it. The part
    /// is for deletes and compactions: vectors are refused from here on.
    pub(crate) async fn give_reserve(&self) -> bool {
        let _alone = self.reserve.busy.lock().await;
        assert!(self.reserve.is_in_relief(), "only in a relief");
        self.wal.keep_for_deletes(Error::disk_full(&self.paths.reserve()));
        self.reserve.shrink().await
    }

    /// Whether reserve and disk together may have room for so many bytes.
    pub(crate) async fn could_have_room(&self, bytes: u64) -> bool {
        let free = self.reserve.disk.free_bytes(self.paths.root()).await.ok().flatten();
        free.is_none_or(|free| bytes <= free.saturating_add(self.reserve.held()))
    }
}
