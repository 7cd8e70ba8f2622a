//! What an open segment keeps in memory to find ids: the fences and, where there is room, the
//! filter. And the table of rows found lately, which all segments of a store share.
//!
//! Guarantee: every byte is verified before it is used, and counted in [`MetadataMemory`] for as
//! long as the segment is open. Filters together take no more than their share of the memory limit:
//! one that would not fit is left out, which costs lookups and changes no answer. Fences are always
//! there; a database with more of them than the limit allows needs a larger limit.
//! Dense segments have neither.

use std::{
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use nephrite_format::{
    BLOCK_BYTES, IdRef,
    filter::{IdFilter, IdHash},
    id_run::FenceIndex,
    segment::{ChecksumTablePage, Section, SectionKind, SegmentFooter, checksum_position},
};
use nephrite_io::{FileHandle, IoBuffer, memory::prefetch_value};
use nephrite_pager::RowTable;

use super::{
    filter_memory::{Filter, FilterBlocks},
    pages::{Check, verify},
    reader::ReadContext,
    seal::Identity,
};
use crate::{error::Error, log_file::aligned};

/// Ids whose parts of a filter are on their way at a time.
const FILTER_AHEAD: usize = 32;
/// Bits of hidden rows may take one in so many bytes of the filters' limit, on top of it.
const BURIED_SHARE: u64 = 4;
/// So may the filters of what flushes have seen.
const SEEN_SHARE: u64 = 4;

/// Bytes that the open segments of a store keep in memory beside their pages.
#[derive(Debug)]
pub(crate) struct MetadataMemory {
    fence_bytes: AtomicU64,
    filter_bytes: AtomicU64,
    /// Which rows are hidden, by a bit for each.
    buried_bytes: AtomicU64,
    /// Which ids flushes have seen.
    seen_bytes: AtomicU64,
    filter_limit: u64,
    rows_limit: u64,
    /// Made with the first index that is no subtraction.
    rows: OnceLock<Option<Arc<RowTable>>>,
}

impl MetadataMemory {
    /// With at most so many bytes of filters and of the table of rows.
    pub(crate) fn new(filter_limit: u64, rows_limit: u64) -> Self {
        Self {
            fence_bytes: AtomicU64::new(0),
            filter_bytes: AtomicU64::new(0),
            buried_bytes: AtomicU64::new(0),
            seen_bytes: AtomicU64::new(0),
            filter_limit,
            rows_limit,
            rows: OnceLock::new(),
        }
    }

    /// Bytes of fences now.
    pub(crate) fn fence_bytes(&self) -> u64 {
        self.fence_bytes.load(Ordering::Relaxed) // a gauge
    }

    /// Bytes of filters now, those of what flushes have seen among them, and of the bits of hidden
    /// rows.
    pub(crate) fn filter_bytes(&self) -> u64 {
        // Gauges.
        let filters = self.filter_bytes.load(Ordering::Relaxed);
        let seen = self.seen_bytes.load(Ordering::Relaxed);
        filters + seen + self.buried_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the table of rows found lately, used yet or not.
    pub(crate) fn rows_bytes(&self) -> u64 {
        self.rows.get().and_then(Option::as_ref).map_or(0, |rows| rows.bytes() as u64)
    }

    /// Bytes of all of them.
    pub(crate) fn bytes(&self) -> u64 {
        self.fence_bytes() + self.filter_bytes() + self.rows_bytes()
    }

    /// The table of rows found lately; `None` when there is no room for it.
    fn rows(&self) -> Option<&Arc<RowTable>> {
        let limit = || usize::try_from(self.rows_limit).unwrap_or(usize::MAX);
        self.rows.get_or_init(|| RowTable::new(limit()).map(Arc::new)).as_ref()
    }

    /// An empty filter for the ids of a new segment; none where it could never be kept in memory.
    pub(crate) fn new_filter(&self, id_count: u32) -> Option<Filter> {
        (0 < self.new_filter_bytes(id_count))
            .then(|| Filter::in_memory(FilterBlocks::for_ids(id_count)))
    }

    /// Bytes of that filter; zero for none.
    pub(crate) fn new_filter_bytes(&self, id_count: u32) -> u64 {
        let bytes = IdFilter::memory_bytes_for(id_count) as u64;
        if bytes <= self.filter_limit { bytes } else { 0 }
    }

    /// Takes room for a filter; false when there is none.
    fn take_filter(&self, bytes: u64) -> bool {
        take(&self.filter_bytes, bytes, self.filter_limit)
    }

    fn give_filter(&self, bytes: u64) {
        self.filter_bytes.fetch_sub(bytes, Ordering::Relaxed); // as in `take`
    }

    /// Takes room for the bits of hidden rows; false when there is none.
    pub(super) fn take_buried(&self, bytes: u64) -> bool {
        take(&self.buried_bytes, bytes, self.filter_limit / BURIED_SHARE)
    }

    /// The same for what has to be there, whether there is room or not.
    pub(super) fn add_buried(&self, bytes: u64) {
        self.buried_bytes.fetch_add(bytes, Ordering::Relaxed); // as in `take`
    }

    pub(super) fn give_buried(&self, bytes: u64) {
        self.buried_bytes.fetch_sub(bytes, Ordering::Relaxed); // as in `take`
    }

    /// Takes room for what flushes have seen; false when there is none.
    pub(super) fn take_seen(&self, bytes: u64) -> bool {
        take(&self.seen_bytes, bytes, self.filter_limit / SEEN_SHARE)
    }

    pub(super) fn give_seen(&self, bytes: u64) {
        self.seen_bytes.fetch_sub(bytes, Ordering::Relaxed); // as in `take`
    }
}

fn take(bytes: &AtomicU64, more: u64, limit: u64) -> bool {
    // Relaxed: a number that guards no memory.
    let taken = bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
        Some(used + more).filter(|used| *used <= limit)
    });
    taken.is_ok()
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct MemoryIndex {
    fences: Option<FenceIndex>,
    filter: Option<Filter>,
    memory: Arc<MetadataMemory>,
}

impl MemoryIndex {
    /// Of a segment that was just written.
    pub(super) fn new(
        context: &ReadContext,
        fences: Option<FenceIndex>,
        filter: Option<Filter>,
    ) -> Self {
        let memory = Arc::clone(&context.metadata);
        let filter = filter.filter(|filter| memory.take_filter(filter.memory_bytes() as u64));
        Self::counted(memory, fences, filter)
    }

    /// With a filter whose room is taken.
    fn counted(
        memory: Arc<MetadataMemory>,
        fences: Option<FenceIndex>,
        filter: Option<Filter>,
    ) -> Self {
        let bytes = fences.as_ref().map_or(0, FenceIndex::memory_bytes) as u64;
        memory.fence_bytes.fetch_add(bytes, Ordering::Relaxed); // a gauge
        Self { fences, filter, memory }
    }

    /// `None`: the segment is dense.
    #[inline]
    pub(super) fn fences(&self) -> Option<&FenceIndex> {
        self.fences.as_ref()
    }

    /// Where rows of this segment may be remembered; `None` when finding them is a subtraction.
    pub(super) fn rows(&self) -> Option<&Arc<RowTable>> {
        self.fences.as_ref().and_then(|_| self.memory.rows())
    }

    /// `None`: dense, written without one, or there was no room.
    #[inline]
    pub(super) fn filter(&self) -> Option<&Filter> {
        self.filter.as_ref()
    }

    /// Which of the ids at some positions may be in the segment. Their parts of the filter are
    /// asked for before they are looked at, since each of them is far away in memory.
    pub(super) fn possible(&self, ids: &[IdRef<'_>], positions: Range<usize>) -> Vec<usize> {
        let Some(filter) = &self.filter else { return positions.collect() };
        let mut possible = Vec::new();
        let mut hashes = Vec::with_capacity(FILTER_AHEAD);
        for start in positions.clone().step_by(FILTER_AHEAD) {
            let end = positions.end.min(start + FILTER_AHEAD);
            hashes.clear();
            hashes.extend(ids[start..end].iter().map(|id| IdHash::of(*id)));
            hashes.iter().filter_map(|hash| filter.words_of(*hash)).for_each(prefetch_value);
            let found = (start..end).zip(&hashes).filter(|(_, hash)| filter.may_contain(**hash));
            possible.extend(found.map(|(position, _)| position));
        }
        possible
    }
}

impl Drop for MemoryIndex {
    fn drop(&mut self) {
        let bytes = self.fences.as_ref().map_or(0, FenceIndex::memory_bytes) as u64;
        self.memory.fence_bytes.fetch_sub(bytes, Ordering::Relaxed); // a gauge
        if let Some(filter) = &self.filter {
            self.memory.give_filter(filter.memory_bytes() as u64);
        }
    }
}

/// Where the index of a segment lies on disk.
#[derive(Clone, Copy)]
pub(super) struct IndexPlace<'a> {
    pub(super) identity: &'a Identity,
    pub(super) footer: &'a SegmentFooter,
    pub(super) name: &'a str,
}

impl IndexPlace<'_> {
    /// Reads fences and filter with the checksum pages that cover them, as one submission, and
    /// verifies them.
    pub(super) async fn read(
        self,
        context: &ReadContext,
        file: &FileHandle,
    ) -> Result<MemoryIndex, Error> {
        let memory = Arc::clone(&context.metadata);
        let Some(fences) = self.footer.section(SectionKind::Fences) else {
            return Ok(MemoryIndex::counted(memory, None, None));
        };
        let filter = self.footer.section(SectionKind::Filter);
        let filter_bytes = filter.map_or(0, |section| section.bytes);
        let filter = filter.filter(|_| memory.take_filter(filter_bytes));
        let read = self.read_sections(context, file, fences, filter).await;
        memory.give_filter(filter.map_or(0, |_| filter_bytes));
        let (fences, filter) = read?;
        Ok(MemoryIndex::new(context, Some(fences), filter))
    }

    async fn read_sections(
        self,
        context: &ReadContext,
        file: &FileHandle,
        fences: &Section,
        filter: Option<&Section>,
    ) -> Result<(FenceIndex, Option<Filter>), Error> {
        let sections: Vec<&Section> = std::iter::once(fences).chain(filter).collect();
        let table = self.table_part(&sections)?;
        let ranges = sections.iter().map(|section| (section.offset, section.bytes));
        let mut wanted = Vec::new();
        for (offset, bytes) in ranges.chain([table]) {
            let bytes = usize::try_from(bytes).map_err(|_| self.no_checksums(fences))?;
            wanted.push((offset, IoBuffer::Owned(aligned(bytes)?)));
        }
        let mut read = nephrite_io::read_many(&*context.disk, file, wanted).await?;
        let table_bytes = read.pop().ok_or_else(|| self.no_checksums(fences))?;
        for (section, bytes) in sections.iter().zip(&read) {
            self.verify(section, bytes.as_slice(), table.0, table_bytes.as_slice())?;
        }
        let kind = self.identity.id_kind;
        let index = FenceIndex::decode(read[0].as_slice(), kind, self.name, fences.offset)?;
        let filter = match (filter, read.get(1)) {
            (Some(section), Some(bytes)) => {
                let (bytes, offset) = (bytes.as_slice(), section.offset);
                Filter::decode_into(bytes, self.name, offset, FilterBlocks::zeroed)?
            }
            _ => None,
        };
        Ok((index, filter))
    }

    /// Offset and bytes of the checksum pages of sections that follow each other.
    fn table_part(self, sections: &[&Section]) -> Result<(u64, u64), Error> {
        let (first, last) = (sections[0], sections[sections.len() - 1]);
        let missing = || self.no_checksums(first);
        let table = self.footer.section(SectionKind::ChecksumTable).ok_or_else(missing)?;
        let last_page = last.page_count().checked_sub(1).ok_or_else(missing)?;
        let start = self.table_page(first, 0)?.0;
        let end = self.table_page(last, last_page)?.0 + 1;
        Ok((table.page_offset(start), u64::from(end - start) * BLOCK_BYTES as u64))
    }

    /// Checksum page and position in it of a page of a section.
    fn table_page(self, section: &Section, page: u64) -> Result<(u32, u32), Error> {
        let page = u32::try_from(page).ok();
        let index = page.and_then(|page| self.footer.checksum_index(section.kind, page));
        Ok(checksum_position(index.ok_or_else(|| self.no_checksums(section))?))
    }

    /// Checks the pages of a section against the part of the checksum table that begins at
    /// `table_start`.
    fn verify(
        self,
        section: &Section,
        bytes: &[u8],
        table_start: u64,
        table: &[u8],
    ) -> Result<(), Error> {
        let section_of_table = self.footer.section(SectionKind::ChecksumTable);
        let section_of_table = section_of_table.ok_or_else(|| self.no_checksums(section))?;
        for (page, bytes) in (0..).zip(bytes.chunks_exact(BLOCK_BYTES)) {
            let (table_page, position) = self.table_page(section, u64::from(page))?;
            let offset = section_of_table.page_offset(table_page);
            let at = usize::try_from(offset - table_start).expect("within the part that was read");
            let place = self.identity.page(offset);
            let checked = &table[at..at + BLOCK_BYTES];
            let stored = ChecksumTablePage::verify(checked, place, self.name)?.entry(position);
            let place = self.identity.page(section.page_offset(page));
            verify(bytes, place, Check::Checksum(stored), page, self.name)?;
        }
        Ok(())
    }

    fn no_checksums(self, section: &Section) -> Error {
        let what = format!("section {:?} has no checksums", section.kind);
        Error::corrupt(self.name, section.offset, what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_take_no_more_than_their_share() {
        let memory = MetadataMemory::new(100, 0);
        assert!(memory.take_filter(60));
        assert!(!memory.take_filter(41));
        assert!(memory.take_filter(40));
        memory.give_filter(60);
        assert!(memory.take_filter(60));
        assert_eq!((memory.filter_bytes(), memory.fence_bytes()), (100, 0));
    }

    #[test]
    fn a_filter_that_could_never_be_kept_is_not_made() {
        let bytes = IdFilter::memory_bytes_for(1000) as u64;
        assert_eq!(MetadataMemory::new(bytes, 0).new_filter_bytes(1000), bytes);
        assert!(MetadataMemory::new(bytes, 0).new_filter(1000).is_some());
        assert!(MetadataMemory::new(bytes - 1, 0).new_filter(1000).is_none());
    }
}
