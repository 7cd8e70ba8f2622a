//! Replay: which share of the reads of a trace would have been hits, with how much memory.
//!
//! The policies that run here are the ones that ship: the same frame books, state words and queues
//! as in the cache, with a map in place of page tables and nothing in place of bytes. A read of a
//! page that is there counts a use; one of a page that is not there takes a frame.
//!
//! Beside the policies there are bounds: the best that any fixed choice of pages, or of records,
//! could do. And there is *retention by record*, which the cache does not do: part of the memory is
//! cut into slots of record size, and when a page goes, those of its records that were read at
//! least so many times are copied to slots, where they are found when their page is not there.
//!
//! Does not: know about time, pins, scans or failed loads. Reads are replayed one after another.
//! Tested below on popularity after Zipf.

use std::collections::HashMap;
use std::hash::Hash;

use crate::config::PagerConfig;
use crate::error::PagerError;
use crate::extents::{Demand, Evicted, Extents};
use crate::frame::{Frame, FrameNo, Owner, UNIT_BYTES};
use crate::policy::{CachePolicy, Use};
use crate::trace::{PageRead, TRACE_UNIT_BYTES};

/// What describes a retained record, in bytes: its frame, and a place in a hash table.
const SLOT_OVERHEAD_BYTES: usize = 32;

/// A slot is so many units at most, as a frame is.
const SLOT_UNITS: usize = 16;

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
}

/// How records are retained.
#[expect(clippy::exhaustive_structs, reason = "the two numbers that there are to choose")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The share of the memory that is slots, in percent.
    pub slot_percent: u8,
    /// Reads of a record, while its page is there, from which it is retained.
    pub reads_to_stay: u8,
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
        self.retaining(memory_bytes, policy, Retention { slot_percent: 0, reads_to_stay: u8::MAX })
    }

    /// The hits of a cache of so many bytes that retains records.
    ///
    /// # Errors
    ///
    /// [`PagerError::TooSmall`] when what is left for pages holds none of the largest size.
    pub fn retaining(
        &self,
        memory_bytes: usize,
        policy: CachePolicy,
        retention: Retention,
    ) -> Result<Replayed, PagerError> {
        let slot_bytes = memory_bytes / 100 * usize::from(retention.slot_percent.min(100));
        let mut pages = self.page_cache(memory_bytes - slot_bytes, policy)?;
        let mut slots = self.slot_cache(slot_bytes, policy);
        let mut read_while_there: HashMap<Owner, Vec<(PageRead, u8)>> = HashMap::new();
        let mut names: HashMap<(u64, u16), u32> = HashMap::new();
        let mut outcome = Replayed::default();
        for read in &self.reads {
            let page = Owner::new(read.file, read.page);
            let Some(slots) = &mut slots else {
                let hit = pages.read(page, read.page_units).is_none();
                *(if hit { &mut outcome.page_hits } else { &mut outcome.misses }) += 1;
                continue;
            };
            let name = |read: &PageRead, names: &mut HashMap<_, u32>| {
                let next = u32::try_from(names.len()).unwrap_or(u32::MAX);
                Owner::new(0, *names.entry(record_of(read)).or_insert(next))
            };
            if !pages.touch(page) && slots.touch(name(read, &mut names)) {
                outcome.record_hits += 1;
                continue;
            }
            match pages.read_untouched(page, read.page_units) {
                None => outcome.page_hits += 1,
                Some(gone) => {
                    outcome.misses += 1;
                    let records = gone
                        .into_iter()
                        .filter_map(|gone| read_while_there.remove(&gone))
                        .flatten();
                    for (record, reads) in records {
                        if retention.reads_to_stay <= reads && is_small(&record) {
                            slots.read(name(&record, &mut names), slots.units_of(&record));
                        }
                    }
                }
            }
            let there = read_while_there.entry(page).or_default();
            match there.iter_mut().find(|(known, _)| known.start == read.start) {
                Some((_, reads)) => *reads = reads.saturating_add(1),
                None => there.push((*read, 1)),
            }
        }
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

    fn page_cache(&self, memory_bytes: usize, policy: CachePolicy) -> Result<Books, PagerError> {
        let largest = self.reads.iter().map(|read| read.page_units).max().unwrap_or(1);
        let largest_bytes = u32::from(largest) * 4096;
        let config = PagerConfig::within(memory_bytes).largest_page_bytes(largest_bytes);
        let sizes = config.validate()?;
        Ok(Books::new(sizes.units, largest, policy, UNIT_BYTES))
    }

    /// `None` when there is no memory for a slot, or nothing to retain.
    fn slot_cache(&self, slot_bytes: usize, policy: CachePolicy) -> Option<Books> {
        let small = self.reads.iter().filter(|read| is_small(read));
        let largest = small.map(record_bytes).max()?;
        let unit_bytes = largest.div_ceil(SLOT_UNITS);
        let units = slot_bytes / (largest + SLOT_OVERHEAD_BYTES) * SLOT_UNITS;
        let units = u32::try_from(units).ok().filter(|units| *units != 0)?;
        Some(Books::new(units, 16, policy, unit_bytes))
    }
}

/// The frame books of a cache without bytes.
struct Books {
    frames: Vec<Frame>,
    books: Extents,
    table: HashMap<Owner, FrameNo>,
    unit_bytes: usize,
}

impl Books {
    fn new(units: u32, largest: u8, policy: CachePolicy, unit_bytes: usize) -> Self {
        Self {
            frames: (0..units).map(|_| Frame::new()).collect(),
            books: Extents::new(units, largest, policy),
            table: HashMap::new(),
            unit_bytes,
        }
    }

    fn units_of(&self, record: &PageRead) -> u8 {
        let units = record_bytes(record).div_ceil(self.unit_bytes);
        u8::try_from(units).expect("the largest record is sixteen units")
    }

    /// A read: `None` for a hit, otherwise who was evicted.
    fn read(&mut self, page: Owner, units: u8) -> Option<Vec<Owner>> {
        self.touch(page);
        self.read_untouched(page, units)
    }

    /// Counts a use of a page, if it is there.
    fn touch(&self, page: Owner) -> bool {
        let Some(frame) = self.find(page) else { return false };
        let before = frame.state.pin();
        frame.state.count_use(before);
        frame.state.unpin().expect("nobody waits");
        true
    }

    fn read_untouched(&mut self, page: Owner, units: u8) -> Option<Vec<Owner>> {
        if self.find(page).is_some() {
            return None;
        }
        let mut evicted = Evicted::naming_pages();
        let demand = Demand { units, page, purpose: Use::Point };
        let found = self.books.allocate(&self.frames, demand, &mut evicted);
        let number = found.expect("nothing is pinned, and the largest page fits");
        let frame = &self.frames[number.index()];
        frame.state.begin_load(units);
        frame.assign(page);
        frame.state.finish_load(0);
        frame.state.unpin().expect("nobody waits");
        let gone = evicted.into_pages();
        for page in &gone {
            self.table.remove(page);
        }
        self.table.insert(page, number);
        Some(gone)
    }

    fn find(&self, page: Owner) -> Option<&Frame> {
        let frame = &self.frames[self.table.get(&page)?.index()];
        (frame.owner() == page && frame.state.peek().is_readable()).then_some(frame)
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

/// Whether a page has room for at least two such records.
fn is_small(read: &PageRead) -> bool {
    2 * record_bytes(read) <= page_bytes(read)
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
