//! Replay: which share of the reads of a trace would have been hits, with how much memory.
//!
//! The policies that run here are the ones that ship: the same frame books, state words and queues
//! as in the cache, with a map in place of page tables and nothing in place of bytes. A read of a
//! page that is there counts a use; one of a page that is not there takes a frame.
//!
//! Beside the policies there are bounds: the best that any fixed choice of pages, or of records,
//! could do. Retention by record (`retention.rs`) runs as it ships, too, or is left out.
//!
//! Does not: know about time, pins, scans or failed loads. Reads are replayed one after another.
//! Tested below on popularity after Zipf.

use std::collections::HashMap;
use std::hash::Hash;

use crate::config::{FileParts, PagerConfig, Sizes};
use crate::error::PagerError;
use crate::extents::{Demand, Evicted, Extents};
use crate::frame::{Frame, FrameNo, Owner, UNIT_BYTES};
use crate::policy::{CachePolicy, Use};
use crate::retention::{Ground, Retention};
use crate::slots::Slots;
use crate::trace::{PageRead, TRACE_UNIT_BYTES};

/// The reads of a trace.
#[derive(Debug)]
pub struct Replay {
    reads: Vec<PageRead>,
}

/// What a trace reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Footprint {
    /// Reads.
    pub reads: u64,
    /// Different pages among them.
    pub pages: u64,
    /// The length of those together.
    pub page_bytes: u64,
    /// Different parts of pages among them.
    pub records: u64,
    /// The length of those together.
    pub record_bytes: u64,
}

/// How many reads were hits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replayed {
    /// Reads of pages that were there.
    pub page_hits: u64,
    /// Reads of retained records whose pages were not there.
    pub record_hits: u64,
    /// The rest.
    pub misses: u64,
    /// The share of the memory that is slots for records in the end, in percent.
    pub slot_percent: u8,
}

impl Replayed {
    /// The share of hits, from 0 to 1.
    pub fn hit_ratio(&self) -> f64 {
        let hits = self.page_hits + self.record_hits;
        ratio(hits, hits + self.misses)
    }
}

impl Replay {
    /// Reads in their order.
    pub fn new(reads: Vec<PageRead>) -> Self {
        Self { reads }
    }

    /// What there is to read.
    pub fn footprint(&self) -> Footprint {
        let pages = counts(self.reads.iter().map(|read| (page_of(read), page_bytes(read))));
        let records = counts(self.reads.iter().map(|read| (record_of(read), record_bytes(read))));
        Footprint {
            reads: self.reads.len() as u64,
            pages: pages.len() as u64,
            page_bytes: pages.values().map(|(_, bytes)| *bytes as u64).sum(),
            records: records.len() as u64,
            record_bytes: records.values().map(|(_, bytes)| *bytes as u64).sum(),
        }
    }

    /// The hits of a cache of so many bytes.
    ///
    /// # Errors
    ///
    /// [`PagerError::TooSmall`] when it holds no page of the largest size of the trace.
    pub fn by_page(
        &self,
        memory_bytes: usize,
        policy: CachePolicy,
    ) -> Result<Replayed, PagerError> {
        self.run(memory_bytes, policy, PagerConfig::within(memory_bytes))
    }

    /// The hits of a cache of so many bytes that retains records.
    ///
    /// # Errors
    ///
    /// As [`Replay::by_page`].
    pub fn retaining(
        &self,
        memory_bytes: usize,
        policy: CachePolicy,
    ) -> Result<Replayed, PagerError> {
        let config = PagerConfig::within(memory_bytes).retain_parts().bypass_limit_bytes(1);
        self.run(memory_bytes, policy, config)
    }

    fn run(
        &self,
        memory_bytes: usize,
        policy: CachePolicy,
        config: PagerConfig,
    ) -> Result<Replayed, PagerError> {
        let largest = self.reads.iter().map(|read| read.page_units).max().unwrap_or(1);
        let minimum_bytes = usize::from(largest) * UNIT_BYTES;
        let config = config.largest_page_bytes(u32::from(largest) * 4096).policy(policy);
        let sizes = config.validate()?;
        if (sizes.units as usize) < usize::from(largest) {
            return Err(PagerError::TooSmall { cache_bytes: memory_bytes, minimum_bytes });
        }
        let (mut cache, mut outcome) = (Books::new(&sizes), Replayed::default());
        for read in &self.reads {
            let place = cache.place(read);
            *(match cache.read(&place) {
                Found::Page => &mut outcome.page_hits,
                Found::Record => &mut outcome.record_hits,
                Found::Nothing => &mut outcome.misses,
            }) += 1;
        }
        outcome.slot_percent = cache.slot_percent();
        Ok(outcome)
    }

    /// Hits that no fixed choice of pages could have exceeded, as far as filling memory by reads
    /// for each byte tells: each page's reads all count, the first as well.
    pub fn best_pages(&self, memory_bytes: usize) -> u64 {
        best(self.reads.iter().map(|read| (page_of(read), page_bytes(read))), memory_bytes)
    }

    /// As [`Replay::best_pages`], for records that could be held without their pages.
    pub fn best_records(&self, memory_bytes: usize) -> u64 {
        best(self.reads.iter().map(|read| (record_of(read), record_bytes(read))), memory_bytes)
    }
}

/// The frame books of a cache without bytes.
struct Books {
    frames: Vec<Frame>,
    books: Extents,
    slots: Slots,
    retention: Option<Retention>,
    table: HashMap<Owner, FrameNo>,
    /// Files by their numbers in the trace.
    files: HashMap<u32, (u32, Option<FileParts>)>,
}

/// What a read asks for.
struct Place {
    page: Owner,
    units: u8,
    parts: Option<FileParts>,
    part: u32,
}

enum Found {
    Page,
    Record,
    Nothing,
}

impl Books {
    fn new(sizes: &Sizes) -> Self {
        let slots = Slots::new(sizes.slot_blocks);
        Self {
            frames: (0..sizes.units).map(|_| Frame::new()).collect(),
            books: Extents::new(sizes.units, sizes.largest_units, sizes.policy),
            retention: Retention::new(sizes.units, &slots),
            slots,
            table: HashMap::new(),
            files: HashMap::new(),
        }
    }

    /// The records of a file are as long as the first that is read of it.
    fn place(&mut self, read: &PageRead) -> Place {
        let key = u32::try_from(self.files.len()).expect("a file of a trace has 32 bits");
        let retention = &mut self.retention;
        let (key, parts) = *self.files.entry(read.file).or_insert_with(|| {
            let bytes = u32::try_from(record_bytes(read)).expect("at most 4 MiB");
            let records = u32::from(read.page_units) * 4096 / bytes;
            let parts = FileParts::new(bytes, records, 1).filter(|_| retention.is_some());
            if let (Some(retention), Some(parts)) = (retention, parts) {
                retention.register(key, parts);
            }
            (key, parts)
        });
        let part = parts.map_or(0, |parts| parts.part_of(u32::from(read.start) * TRACE_UNIT_BYTES));
        Place { page: Owner::new(key, read.page), units: read.page_units, parts, part }
    }

    fn read(&mut self, place: &Place) -> Found {
        if self.touch(place) {
            return Found::Page;
        }
        if self.touch_slot(place) {
            return Found::Record;
        }
        self.load(place);
        Found::Nothing
    }

    /// Counts a use of a page, if it is there.
    fn touch(&self, place: &Place) -> bool {
        let Some(frame) = self.find(place.page) else { return false };
        let before = frame.state.pin();
        frame.state.count_use(before, place.part);
        frame.state.unpin().expect("nobody waits");
        true
    }

    /// As [`Self::touch`], of a record.
    fn touch_slot(&self, place: &Place) -> bool {
        let Some(parts) = place.parts else { return false };
        let record = parts.record(place.page, place.part);
        let Some(pinned) = self.slots.pin(parts.size(), record) else { return false };
        let (Ok(slot) | Err(slot)) = pinned;
        self.slots.entry(slot).state.unpin().expect("nobody waits");
        pinned.is_ok()
    }

    fn load(&mut self, place: &Place) {
        let mut evicted = Evicted { named: Some(Vec::new()), ..Evicted::default() };
        let Place { page, units, part, .. } = *place;
        let demand = Demand { units, page, part, purpose: Use::Point };
        let mut found = self.books.allocate(&self.frames, demand, &mut evicted);
        if let Some(retention) = &mut self.retention {
            retention.missed(page, part);
            while found.is_none() && retention.yield_one(&self.slots, &mut self.books) {
                found = self.books.allocate(&self.frames, demand, &mut evicted);
            }
            let ground = Ground { frames: &self.frames, slots: &self.slots, memory: None };
            retention.settle(ground, &mut self.books, units, &mut evicted);
        }
        let number = found.expect("nothing is pinned, and the largest page fits");
        let frame = &self.frames[number.index()];
        frame.state.begin_load(units);
        frame.assign(page);
        frame.state.finish_load(0);
        frame.state.note_part(part);
        frame.state.unpin().expect("nobody waits");
        self.table.insert(page, number);
    }

    fn find(&self, page: Owner) -> Option<&Frame> {
        let frame = &self.frames[self.table.get(&page)?.index()];
        (frame.owner() == page && frame.state.peek().is_readable()).then_some(frame)
    }

    fn slot_percent(&self) -> u8 {
        let blocks = self.retention.as_ref().map_or(0, Retention::blocks);
        let percent = blocks * 100 / self.slots.block_count().max(1);
        u8::try_from(percent).expect("at most a hundred")
    }
}

fn page_of(read: &PageRead) -> u64 {
    (u64::from(read.file) << 32) | u64::from(read.page)
}

fn record_of(read: &PageRead) -> (u64, u16) {
    (page_of(read), read.start)
}

fn page_bytes(read: &PageRead) -> usize {
    usize::from(read.page_units) * UNIT_BYTES
}

fn record_bytes(read: &PageRead) -> usize {
    usize::from(read.length.max(1)) * TRACE_UNIT_BYTES as usize
}

/// The reads and the length of each thing.
fn counts<K: Eq + Hash>(things: impl Iterator<Item = (K, usize)>) -> HashMap<K, (u64, usize)> {
    let mut counts: HashMap<K, (u64, usize)> = HashMap::new();
    for (thing, bytes) in things {
        let (reads, longest) = counts.entry(thing).or_default();
        *reads += 1;
        *longest = bytes.max(*longest);
    }
    counts
}

/// Fills memory with what has the most reads for each byte.
fn best<K: Eq + Hash>(things: impl Iterator<Item = (K, usize)>, memory_bytes: usize) -> u64 {
    let mut all: Vec<(u64, usize)> = counts(things).into_values().collect();
    // Both products are far below 2^64: a read is an entry in memory, a page at most 64 KiB.
    all.sort_unstable_by(|a, b| (b.0 * a.1 as u64).cmp(&(a.0 * b.1 as u64)));
    let mut room = memory_bytes;
    let held = all.iter().filter(|(_, bytes)| {
        let fits = *bytes <= room;
        room -= if fits { *bytes } else { 0 };
        fits
    });
    held.map(|(reads, _)| reads).sum()
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
