//! One id page: 4096 bytes, entries in ascending id order.
//!
//! Parsing looks at the header only, since it happens at every lookup and the page's checksum was
//! verified when it was loaded. Each entry is checked when it is touched. [`IdPage::check`] reads
//! everything, for `verify` and for merges.

use std::cmp::Ordering;
use std::ops::Range;

use super::{ENTRY_HEADER_BYTES, PAGE_HEADER_BYTES, ROWS_OFFSET, Share, U64_PAGE_ENTRIES};
use crate::BLOCK_BYTES;
use crate::cursor::{u32_at, u64_at};
use crate::error::{FormatError, Result};
use crate::id::{IdKind, IdRef};
use crate::ids::Row;

/// First step away from where an id was expected: a cache line of numbers, a few byte ids.
const U64_STEP: usize = 8;
const BYTES_STEP: usize = 3;
/// Bytes around the place where an id is expected that are worth asking for: two cache lines on
/// either side.
const LIKELY_BYTES: u32 = 256;
/// How much longer each further step is.
const STEP_GROWTH: usize = 4;

/// A view of an id page.
#[derive(Clone, Copy, Debug)]
pub struct IdPage<'a> {
    bytes: &'a [u8; BLOCK_BYTES],
    kind: IdKind,
    count: usize,
    file: &'a str,
    offset: u64,
}

impl<'a> IdPage<'a> {
    /// Reads the header of a page that holds ids of `kind`; `file` and `offset` say where the page
    /// lies, for errors.
    ///
    /// # Errors
    /// `Corrupt` when the length is not 4096, or kind or count cannot be.
    pub fn parse(bytes: &'a [u8], kind: IdKind, file: &'a str, offset: u64) -> Result<Self> {
        let corrupt = |what| Err(FormatError::corrupt(file, offset, what));
        let Ok(bytes) = <&[u8; BLOCK_BYTES]>::try_from(bytes) else {
            return corrupt(format!("the id page has {} bytes", bytes.len()));
        };
        let count = usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        if bytes[2] != kind.code() {
            return corrupt(format!("id page of kind {} where {kind} ids are", bytes[2]));
        }
        let limit = match kind {
            IdKind::U64 => U64_PAGE_ENTRIES,
            IdKind::Bytes => (BLOCK_BYTES - PAGE_HEADER_BYTES) / (2 + ENTRY_HEADER_BYTES + 1),
        };
        if count == 0 || limit < count {
            return corrupt(format!("the id page claims {count} entries, 1 to {limit} can be"));
        }
        Ok(Self { bytes, kind, count, file, offset })
    }

    /// The bytes of a full page that [`IdPage::find_near`] probably reads first.
    #[must_use]
    #[inline]
    pub fn likely_bytes(id: IdRef<'_>, share: Share) -> Range<u32> {
        let start = match id {
            IdRef::U64(_) => PAGE_HEADER_BYTES + 8 * share.of(U64_PAGE_ENTRIES),
            // If the ids of the page are about as long as this one.
            IdRef::Bytes(id) => {
                let entry = ENTRY_HEADER_BYTES + id.len();
                let count = (BLOCK_BYTES - PAGE_HEADER_BYTES) / (2 + entry);
                PAGE_HEADER_BYTES + 2 * count + entry * share.of(count)
            }
        };
        let start = u32::try_from(start).expect("within a page").saturating_sub(LIKELY_BYTES / 2);
        start..start + LIKELY_BYTES
    }

    /// Entries in the page; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a page is never empty")]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// The row of an id: `None` when the page does not have it, [`Row::TOMBSTONE`] when it says
    /// that the id was deleted. Does not allocate.
    ///
    /// # Errors
    /// `Corrupt` when an entry on the way lies outside of the page.
    #[inline]
    pub fn find(&self, id: IdRef<'_>) -> Result<Option<Row>> {
        self.find_near(id, Share::HALF)
    }

    /// As [`IdPage::find`], looking first where the id probably lies: a good guess reads few of the
    /// page's cache lines, a bad one takes a few steps more.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn find_near(&self, id: IdRef<'_>, share: Share) -> Result<Option<Row>> {
        let start = share.of(self.count);
        match (self.kind, id) {
            (IdKind::U64, IdRef::U64(id)) => Ok(self.find_u64(id, start)),
            (IdKind::Bytes, IdRef::Bytes(id)) => self.find_bytes(id, start),
            _ => Ok(None),
        }
    }

    /// Entry number `index`.
    ///
    /// # Errors
    /// `Corrupt` when the entry lies outside of the page.
    ///
    /// # Panics
    /// When `index` is not below [`IdPage::len`].
    pub fn get(&self, index: usize) -> Result<(IdRef<'a>, Row)> {
        assert!(index < self.count, "entry {index} of {}", self.count);
        match self.kind {
            IdKind::U64 => Ok((IdRef::U64(self.u64_id(index)), self.u64_row(index))),
            IdKind::Bytes => {
                let (id, row) = self.bytes_entry(index)?;
                Ok((IdRef::Bytes(id), row))
            }
        }
    }

    /// Position of the first entry whose id is not below `id`; [`IdPage::len`] when there is none.
    ///
    /// # Errors
    /// `Corrupt` when an entry on the way lies outside of the page.
    pub fn lower_bound(&self, id: IdRef<'_>) -> Result<usize> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.get(middle)?.0 < id {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The entries in ascending order.
    #[must_use]
    pub const fn iter(&self) -> IdPageIter<'a> {
        IdPageIter { page: *self, index: 0 }
    }

    /// Reads every entry: ids strictly ascend, entries lie within the page, and what is not used
    /// is zero.
    ///
    /// # Errors
    /// `Corrupt` with the first thing that is wrong.
    pub fn check(&self) -> Result<()> {
        let mut previous = None;
        for entry in self.iter() {
            let (id, _) = entry?;
            if previous.is_some_and(|previous| id <= previous) {
                return Err(self.corrupt(format!("id {id} of the id page is out of order")));
            }
            previous = Some(id);
        }
        if !self.unused_is_zero()? {
            return Err(self.corrupt("unused bytes of the id page are not zero".to_owned()));
        }
        Ok(())
    }

    #[inline]
    fn find_u64(&self, id: u64, start: usize) -> Option<Row> {
        let (ids, _) = self.bytes[PAGE_HEADER_BYTES..ROWS_OFFSET].as_chunks::<8>();
        let ids = &ids[..self.count];
        let at = |index: usize| u64::from_le_bytes(ids[index]);
        let (mut low, mut high) = (0, self.count);
        let mut step = U64_STEP;
        if at(start) <= id {
            low = start;
            while low + step < high {
                if id < at(low + step) {
                    high = low + step;
                    break;
                }
                low += step;
                step *= STEP_GROWTH;
            }
        } else {
            high = start;
            while low + step < high {
                if at(high - step) <= id {
                    low = high - step;
                    break;
                }
                high -= step;
                step *= STEP_GROWTH;
            }
        }
        let offset = ids[low..high].binary_search_by(|stored| u64::from_le_bytes(*stored).cmp(&id));
        Some(self.u64_row(low + offset.ok()?))
    }

    fn find_bytes(&self, id: &[u8], start: usize) -> Result<Option<Row>> {
        let (mut low, mut high) = (0, self.count);
        // Away from the start in growing steps, then halving what is left.
        let mut step = BYTES_STEP;
        let mut next = start;
        while low < high {
            let (stored, row) = self.bytes_entry(next)?;
            match stored.cmp(id) {
                Ordering::Less => {
                    low = next + 1;
                    next += step;
                }
                Ordering::Equal => return Ok(Some(row)),
                Ordering::Greater => {
                    high = next;
                    next = next.saturating_sub(step);
                }
            }
            if next < low || high <= next || high - low <= step {
                next = usize::midpoint(low, high);
            } else {
                step *= STEP_GROWTH;
            }
        }
        Ok(None)
    }

    fn u64_id(&self, index: usize) -> u64 {
        u64_at(self.bytes, PAGE_HEADER_BYTES + 8 * index)
    }

    fn u64_row(&self, index: usize) -> Row {
        Row::new(u32_at(self.bytes, ROWS_OFFSET + 4 * index))
    }

    fn bytes_entry(&self, index: usize) -> Result<(&'a [u8], Row)> {
        let start = self.entry_offset(index);
        let entry = self.bytes.get(start..).and_then(|entry| {
            let (header, rest) = entry.split_first_chunk::<ENTRY_HEADER_BYTES>()?;
            let id = rest.get(..usize::from(header[4]))?;
            Some((id, Row::new(u32_at(header, 0))))
        });
        match entry {
            Some((id, row)) if !id.is_empty() => Ok((id, row)),
            _ => Err(self.corrupt(format!("entry {index} of the id page cannot lie at {start}"))),
        }
    }

    fn entry_offset(&self, index: usize) -> usize {
        let field = PAGE_HEADER_BYTES + 2 * index;
        usize::from(u16::from_le_bytes([self.bytes[field], self.bytes[field + 1]]))
    }

    fn unused_is_zero(&self) -> Result<bool> {
        let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        let header = &self.bytes[3..PAGE_HEADER_BYTES];
        Ok(match self.kind {
            IdKind::U64 => {
                zero(header)
                    && zero(&self.bytes[PAGE_HEADER_BYTES + 8 * self.count..ROWS_OFFSET])
                    && zero(&self.bytes[ROWS_OFFSET + 4 * self.count..])
            }
            IdKind::Bytes => {
                // The entries follow each other without gaps right behind the offsets.
                let mut end = PAGE_HEADER_BYTES + 2 * self.count;
                for index in 0..self.count {
                    if self.entry_offset(index) != end {
                        let what = format!("entry {index} of the id page does not begin at {end}");
                        return Err(self.corrupt(what));
                    }
                    end += ENTRY_HEADER_BYTES + self.bytes_entry(index)?.0.len();
                }
                zero(header) && zero(&self.bytes[end..])
            }
        })
    }

    #[cold]
    fn corrupt(&self, what: String) -> FormatError {
        FormatError::corrupt(self.file, self.offset, what)
    }
}

/// Iterator over the entries of an id page.
#[derive(Clone, Debug)]
pub struct IdPageIter<'a> {
    page: IdPage<'a>,
    index: usize,
}

impl<'a> Iterator for IdPageIter<'a> {
    type Item = Result<(IdRef<'a>, Row)>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.index;
        if self.page.count <= index {
            return None;
        }
        self.index += 1;
        Some(self.page.get(index))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.page.count - self.index;
        (left, Some(left))
    }
}

impl ExactSizeIterator for IdPageIter<'_> {}
