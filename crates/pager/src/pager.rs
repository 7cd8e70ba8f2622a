//! The page cache: opens files in it, and tells about itself.

use std::sync::Arc as StdArc;
use std::sync::atomic::Ordering::Relaxed;

use crate::config::{FileParts, PagerConfig, frame_units};
use crate::error::PagerError;
use crate::extents::UNITS_MAX;
use crate::file::{CachedFile, FileTrace, Pages};
use crate::frame::UNIT_BYTES;
use crate::frame_array::FrameArray;
use crate::frame_state::Word;
use crate::page_table::PageTable;
use crate::shared::Shared;
use crate::slots::BLOCK_BYTES;
use crate::stats::{ClassStats, PagerStats};
use crate::sync::{Arc, lock};
use crate::trace::TraceRecorder;

/// A page cache of fixed size, but for what it is lent.
///
/// Shared by any number of files with pages of different sizes. All its memory is reserved at the
/// start, but for page tables (4 bytes a page of an open file, made as pages are loaded).
#[derive(Debug)]
pub struct Pager {
    shared: Arc<Shared>,
    trace: Option<StdArc<TraceRecorder>>,
}

impl Pager {
    /// Reserves the memory of a cache.
    ///
    /// # Errors
    ///
    /// [`PagerError`] when the size cannot work, or when the system has no memory.
    pub fn new(mut config: PagerConfig) -> Result<StdArc<Self>, PagerError> {
        let (trace, shared) = (config.take_trace(), Shared::new(config.validate()?)?);
        Ok(StdArc::new(Self { shared: Arc::new(shared), trace }))
    }

    /// Adds a file of `page_count` pages of `page_bytes` bytes. Nothing of it is resident yet.
    ///
    /// The file must not change while it is open here. The cache may be dropped before its files.
    ///
    /// # Errors
    ///
    /// [`PagerError::PageBytes`] when `page_bytes` is no multiple of 4096 or above the largest page
    /// of this cache; [`PagerError::TableMemory`] when there is no memory for the page table.
    pub fn open_file(
        self: &StdArc<Self>,
        page_bytes: u32,
        page_count: u32,
    ) -> Result<StdArc<CachedFile>, PagerError> {
        self.open(page_bytes, page_count, None)
    }

    /// As [`Pager::open_file`], of pages that begin with `records` records of `record_bytes` each,
    /// which are read one by one. Where the cache retains parts ([`PagerConfig::retain_parts`]),
    /// records that were read may stay in memory without their page ([`CachedFile::part`]).
    ///
    /// # Errors
    ///
    /// As [`Pager::open_file`].
    pub fn open_file_of_records(
        self: &StdArc<Self>,
        page_bytes: u32,
        page_count: u32,
        (record_bytes, records): (u32, u32),
    ) -> Result<StdArc<CachedFile>, PagerError> {
        let fits = u64::from(record_bytes) * u64::from(records) <= page_bytes.into();
        let parts = FileParts::new(record_bytes, records, page_count);
        self.open(page_bytes, page_count, parts.filter(|_| fits))
    }

    fn open(
        self: &StdArc<Self>,
        page_bytes: u32,
        page_count: u32,
        parts: Option<FileParts>,
    ) -> Result<StdArc<CachedFile>, PagerError> {
        let parts = parts.filter(|_| self.shared.sizes.slot_blocks != 0);
        let largest_bytes = u32::from(self.shared.sizes.largest_units) * 4096;
        let units = frame_units(page_bytes, largest_bytes)?;
        let bytes = PageTable::directory_bytes(page_count);
        let table = PageTable::new(page_count, units).ok_or(PagerError::TableMemory { bytes })?;
        let key = lock(&self.shared.keys).take()?;
        let shared = Arc::clone(&self.shared);
        let trace = self.trace.as_ref().map(FileTrace::new);
        if let Some(parts) = parts {
            shared.register(key, parts);
        }
        let pages = Pages { count: page_count, bytes: page_bytes, units, parts };
        let file = CachedFile::new(shared, table, key, pages, trace);
        Ok(StdArc::new(file))
    }

    /// The memory that all frames are windows of, for a disk that registers it with the kernel.
    pub fn arena(&self) -> &StdArc<nephrite_io::memory::Arena> {
        self.shared.memory.arena()
    }

    /// Makes `bytes` of the loan ([`PagerConfig::loan_bytes`]) part of the cache, what it has of it
    /// included; rounded down to 2 MiB. Nothing if it has more.
    pub fn lend(&self, bytes: usize) {
        self.shared.lend(bytes);
    }

    /// Takes back `bytes` of the loan, or as much as can be had without waiting for pages that are
    /// pinned or being loaded; those are given up as soon as a later call finds them at rest.
    /// Returns how many bytes went back to the system.
    pub fn recall(&self, bytes: usize) -> usize {
        self.shared.recall(bytes)
    }

    /// Bytes of the loan that are the cache's. One load.
    pub fn loan_bytes(&self) -> u64 {
        self.shared.counters.loan_bytes.load(Relaxed)
    }

    /// Bytes of the page tables of all files, which come on top of the frames. One load.
    pub fn table_bytes(&self) -> u64 {
        self.shared.counters.table_bytes.load(Relaxed)
    }

    /// Counters and sizes now. Looks at every frame.
    pub fn stats(&self) -> PagerStats {
        let (shared, mut stats) = (&self.shared, PagerStats::default());
        let counters = &shared.counters;
        stats.hits = shared.hits.sum();
        stats.misses = counters.misses.load(Relaxed);
        stats.joins = counters.joins.load(Relaxed);
        stats.refusals = counters.refusals.load(Relaxed);
        stats.evictions = counters.evictions.load(Relaxed);
        stats.loads_failed = counters.loads_failed.load(Relaxed);
        stats.frames_lost = counters.frames_lost.load(Relaxed);
        stats.bypasses = counters.bypasses.load(Relaxed);
        stats.slot_hits = shared.slot_hits.sum();
        stats.bytes_tables = usize::try_from(self.table_bytes())
            .expect("bytes that are allocated fit the address space");
        stats.bytes_pin_limit = shared.pin_limit_bytes();
        let untouched = shared.with_books(|extents, _| extents.untouched_bytes());
        stats.bytes_arena = shared.memory.frame_bytes() - untouched;
        stats.huge_pages = shared.memory.huge_pages();
        stats.files = lock(&shared.keys).in_use();
        self.count_frames(&mut stats);
        self.count_slots(&mut stats);
        self.count_classes(&mut stats);
        stats
    }

    /// Whether part of the cache never held a page so far, or was given back as a whole.
    pub fn has_unused_memory(&self) -> bool {
        self.shared.with_books(|extents, _| extents.unassigned() != 0)
    }

    /// See [`Shared::lend_slots`].
    #[cfg(all(test, not(loom)))]
    pub(crate) fn lend_slots(&self, bytes: usize, units: u8) {
        self.shared.lend_slots(bytes, units);
    }

    /// As in the statistics, without a look at every frame.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn slot_hits(&self) -> u64 {
        self.shared.slot_hits.sum()
    }

    fn count_frames(&self, stats: &mut PagerStats) {
        for frame in self.shared.frames.iter() {
            let word = frame.state.peek();
            // A loading frame has a pin of its loader, and those of getters in passing.
            stats.frames_loading += u64::from(word.is_loading());
            stats.frames_resident += u64::from(word.is_resident());
            if word.is_resident() {
                stats.pins += word.pins();
                stats.frames_pinned += u64::from(word.pins() != 0);
            }
        }
    }

    fn count_slots(&self, stats: &mut PagerStats) {
        let resident = self.shared.slots.all().map(|(_, slot)| slot.state.peek());
        stats.pins += resident.filter(|word| word.is_resident()).map(Word::pins).sum::<u64>();
    }

    fn count_classes(&self, stats: &mut PagerStats) {
        self.shared.with_books(|extents, retention| {
            for units in 1..=UNITS_MAX {
                let counts = extents.counts(units);
                if counts.extents == 0 {
                    continue;
                }
                stats.classes.push(ClassStats {
                    page_bytes: u32::from(units) * 4096,
                    frames: counts.frames,
                    frames_free: counts.free,
                    extents: counts.extents,
                });
            }
            stats.extents_unassigned = extents.unassigned();
            stats.bytes_extent = extents.extent_bytes();
            stats.bytes_metadata = extents.bytes();
            let Some(retention) = retention else { return };
            stats.bytes_metadata += retention.bytes() + self.shared.slots.bytes();
            stats.bytes_slots = retention.blocks() * BLOCK_BYTES;
        });
        stats.bytes_metadata += FrameArray::bytes(self.shared.frames.len());
        stats.bytes_metadata += 2 * self.shared.hits.bytes() + size_of::<Shared>();
    }
}

const _: () = assert!(UNIT_BYTES == 4096);

#[cfg(test)]
#[cfg(not(loom))]
mod limits;
#[cfg(test)]
#[cfg(not(loom))]
mod stress;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
