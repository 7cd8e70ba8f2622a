//! Id runs: where each id of a segment lies.
//!
//! A run maps ids to rows in strictly ascending id order; a row may be [`Row::TOMBSTONE`], which
//! says that the id was deleted. Its entries fill id pages of 4096 bytes; the fence index, small
//! enough to stay in memory, says which page can hold an id. A lookup is one binary search over
//! the fences and one in the page.
//!
//! A run of consecutive number ids whose rows are consecutive too stores nothing: see
//! [`IdIndex::Dense`].
//!
//! Pages and fences are protected by the segment's checksum table. Reading them never panics on
//! any bytes; what a lookup cannot read is an error with its place.

mod builder;
mod fences;
mod page;

pub use builder::{IdRun, IdRunBuilder};
pub use fences::{FenceIndex, Share};
pub use page::{IdPage, IdPageIter};

use crate::BLOCK_BYTES;
use crate::id::IdRef;
use crate::ids::Row;

/// Entries of a full page of number ids.
pub const U64_PAGE_ENTRIES: usize = 340;

/// Bytes of an id page before its entries.
const PAGE_HEADER_BYTES: usize = 8;

/// Where the rows of a page of number ids begin.
const ROWS_OFFSET: usize = PAGE_HEADER_BYTES + 8 * U64_PAGE_ENTRIES;
const _: () = assert!(ROWS_OFFSET + 4 * U64_PAGE_ENTRIES <= BLOCK_BYTES);

/// Row and length before the bytes of a byte id.
const ENTRY_HEADER_BYTES: usize = 5;

/// How the ids of a segment are found.
#[expect(clippy::exhaustive_enums, reason = "a lookup must handle every form")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdIndex {
    /// Ids `first .. first + count` lie in rows `first_row ..`, all present. No pages.
    Dense {
        /// The smallest id.
        first: u64,
        /// Number of ids, at least one.
        count: u32,
        /// Row of the smallest id.
        first_row: Row,
    },
    /// Id pages and fences.
    Sorted,
}

impl IdIndex {
    /// The row of an id in a dense index; `None` when it is outside or the index is sorted.
    #[inline]
    #[must_use]
    pub fn find_dense(&self, id: IdRef<'_>) -> Option<Row> {
        let (Self::Dense { first, count, first_row }, IdRef::U64(id)) = (*self, id) else {
            return None;
        };
        let distance = u32::try_from(id.checked_sub(first)?).ok()?;
        let row = first_row.get().checked_add(distance)?;
        (distance < count).then_some(Row::new(row))
    }
}
