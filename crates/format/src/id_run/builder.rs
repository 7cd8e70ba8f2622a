//! Building an id run from entries in ascending order.
//!
//! Finished pages can be taken away while building, so that merging large runs does not hold the
//! whole run in memory.

use super::{ENTRY_HEADER_BYTES, FenceIndex, PAGE_HEADER_BYTES, ROWS_OFFSET, U64_PAGE_ENTRIES};
use crate::BLOCK_BYTES;
use crate::cursor::Writer;
use crate::id::{Id, IdKind, IdRef, MAX_ID_BYTES};
use crate::ids::Row;

/// A finished run.
#[expect(clippy::exhaustive_structs, reason = "the parts of a run, for the engine to place")]
#[derive(Clone, Debug)]
pub struct IdRun {
    /// Id pages, 4096 bytes each, that were not taken by [`IdRunBuilder::drain_pages`].
    pub pages: Vec<u8>,
    /// The fences of all pages.
    pub fences: FenceIndex,
    /// Entries, tombstones included.
    pub entry_count: u32,
    /// Entries that are tombstones.
    pub tombstone_count: u32,
}

/// Builds a run.
#[derive(Debug)]
pub struct IdRunBuilder {
    pages: Vec<u8>,
    open: OpenPage,
    fences: FenceIndex,
    entry_count: u32,
    tombstone_count: u32,
}

impl IdRunBuilder {
    /// An empty run of ids of `kind`.
    #[must_use]
    pub fn new(kind: IdKind) -> Self {
        let open = match kind {
            IdKind::U64 => OpenPage::U64 { ids: Vec::new(), rows: Vec::new() },
            IdKind::Bytes => OpenPage::Bytes { ends: Vec::new(), entries: Vec::new() },
        };
        let fences = FenceIndex::empty(kind);
        Self { pages: Vec::new(), open, fences, entry_count: 0, tombstone_count: 0 }
    }

    /// Adds an entry.
    ///
    /// # Panics
    /// When the id is not above the one before, not of the run's kind, or empty or too long; and
    /// after `u32::MAX` entries.
    pub fn push(&mut self, id: IdRef<'_>, row: Row) {
        assert_eq!(id.kind(), self.fences.kind(), "kind of id {id}");
        if let Some(last) = self.fences.last() {
            assert!(last < id, "id {id} after id {last}");
        }
        if !self.open.fits(id) {
            self.close_page();
        }
        let is_first = self.open.len() == 0;
        self.open.push(id, row);
        self.fences.note(id, is_first);
        self.entry_count = self.entry_count.checked_add(1).expect("a run has below 2^32 entries");
        self.tombstone_count += u32::from(row.is_tombstone());
    }

    /// Takes the pages finished so far, 4096 bytes each, in order. Their memory stays for the next.
    pub fn drain_pages(&mut self) -> std::vec::Drain<'_, u8> {
        self.pages.drain(..)
    }

    /// Bytes of finished pages that [`IdRunBuilder::drain_pages`] would return.
    #[must_use]
    pub const fn finished_bytes(&self) -> usize {
        self.pages.len()
    }

    /// Entries so far.
    #[must_use]
    pub const fn entry_count(&self) -> u32 {
        self.entry_count
    }

    /// Completes the run.
    ///
    /// # Panics
    /// When it has no entries: a segment without ids is not written.
    #[must_use]
    pub fn finish(mut self) -> IdRun {
        assert_ne!(self.entry_count, 0, "a run without entries");
        self.close_page();
        self.fences.complete();
        let Self { pages, fences, entry_count, tombstone_count, .. } = self;
        IdRun { pages, fences, entry_count, tombstone_count }
    }

    /// Writes the open page, which has entries.
    fn close_page(&mut self) {
        let start = self.pages.len();
        self.pages.resize(start + BLOCK_BYTES, 0);
        self.open.write(&mut self.pages[start..]);
    }
}

impl Extend<(Id, Row)> for IdRunBuilder {
    fn extend<T: IntoIterator<Item = (Id, Row)>>(&mut self, entries: T) {
        entries.into_iter().for_each(|(id, row)| self.push(id.as_id_ref(), row));
    }
}

/// Entries of the page that is being filled.
#[derive(Debug)]
enum OpenPage {
    U64 {
        ids: Vec<u64>,
        rows: Vec<u32>,
    },
    /// `entries` is row, length and bytes of each id; `ends` where each entry ends in it.
    Bytes {
        ends: Vec<usize>,
        entries: Vec<u8>,
    },
}

impl OpenPage {
    const fn len(&self) -> usize {
        match self {
            Self::U64 { ids, .. } => ids.len(),
            Self::Bytes { ends, .. } => ends.len(),
        }
    }

    const fn fits(&self, id: IdRef<'_>) -> bool {
        match (self, id) {
            (Self::Bytes { ends, entries }, IdRef::Bytes(id)) => {
                let used = PAGE_HEADER_BYTES + 2 * ends.len() + entries.len();
                used + 2 + ENTRY_HEADER_BYTES + id.len() <= BLOCK_BYTES
            }
            _ => self.len() < U64_PAGE_ENTRIES,
        }
    }

    fn push(&mut self, id: IdRef<'_>, row: Row) {
        match (self, id) {
            (Self::U64 { ids, rows }, IdRef::U64(id)) => {
                ids.push(id);
                rows.push(row.get());
            }
            (Self::Bytes { ends, entries }, IdRef::Bytes(id)) => {
                assert!(!id.is_empty() && id.len() <= MAX_ID_BYTES, "id of {} bytes", id.len());
                entries.extend_from_slice(&row.get().to_le_bytes());
                entries.push(u8::try_from(id.len()).expect("length was checked above"));
                entries.extend_from_slice(id);
                ends.push(entries.len());
            }
            (_, id) => panic!("id {id} is of another kind than the run"),
        }
    }

    /// Writes the page into 4096 zero bytes and empties it.
    fn write(&mut self, page: &mut [u8]) {
        let count = u16::try_from(self.len()).expect("a page has at most 511 entries");
        let mut writer = Writer::new(page);
        writer.u16(count);
        match self {
            Self::U64 { ids, rows } => {
                writer.u8(IdKind::U64.code());
                writer.zeros(PAGE_HEADER_BYTES - 3);
                ids.drain(..).for_each(|id| writer.u64(id));
                writer.zeros(ROWS_OFFSET - writer.position());
                rows.drain(..).for_each(|row| writer.u32(row));
            }
            Self::Bytes { ends, entries } => {
                writer.u8(IdKind::Bytes.code());
                writer.zeros(PAGE_HEADER_BYTES - 3);
                let first = PAGE_HEADER_BYTES + 2 * ends.len();
                let starts = std::iter::once(0).chain(ends.iter().copied()).take(ends.len());
                for start in starts {
                    let offset = u16::try_from(first + start).expect("offsets are below 4096");
                    writer.u16(offset);
                }
                writer.bytes(entries);
                ends.clear();
                entries.clear();
            }
        }
    }
}
