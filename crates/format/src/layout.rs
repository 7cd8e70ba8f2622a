//! How the rows of a database lie in vector pages.
//!
//! A row takes `stride_bytes`: its elements, then zeros up to a multiple of 64. A page holds
//! `rows_per_page` whole rows, then zeros; no row straddles a page. Vector pages begin right
//! after the header page of a segment.
//!
//! Guarantee: a [`VectorLayout`] is consistent whatever it was made from; the fields are private
//! and every constructor checks all of them.

use std::fmt;

use crate::error::{FormatError, Result};
use crate::ids::Row;
use crate::{BLOCK_BYTES, BLOCK_BYTES_U64};

/// The largest dimension; its rows fill the largest page.
pub const MAX_DIMENSION: u32 = 16_384;

/// The largest vector page, in bytes.
pub const MAX_PAGE_BYTES: u32 = 65_536;

/// Rows begin at multiples of this many bytes.
pub const ROW_ALIGNMENT: u32 = 64;

/// The default page is the smallest whose rows fill at least this percentage of it.
pub const PAGE_FILL_PERCENT: u32 = 74;

const BLOCK: u32 = 4096;
const _: () = assert!(BLOCK as usize == BLOCK_BYTES);

/// What the elements of a vector are.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ElementType {
    /// IEEE 754 single precision, 4 bytes little-endian.
    F32,
}

impl ElementType {
    /// Bytes of one element.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::F32 => 4,
        }
    }

    /// The byte that stands for this type on disk.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::F32 => 1,
        }
    }

    /// The type that a byte on disk stands for, if this build has it.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::F32),
            _ => None,
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
        })
    }
}

/// Where a row lies: its page, and the byte offset within that page.
#[expect(clippy::exhaustive_structs, reason = "a pair with names")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowPosition {
    /// Vector page, counted from 0.
    pub page: u32,
    /// Byte offset of the row within the page.
    pub offset: usize,
}

/// Dimension, element type, and how rows lie in pages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VectorLayout {
    dimension: u32,
    element: ElementType,
    stride_bytes: u32,
    page_bytes: u32,
    rows_per_page: u32,
}

impl VectorLayout {
    /// The default layout: the smallest page that rows fill to [`PAGE_FILL_PERCENT`].
    ///
    /// # Errors
    /// `InvalidLayout` when the dimension is 0 or above [`MAX_DIMENSION`].
    pub fn for_dimension(dimension: u32, element: ElementType) -> Result<Self> {
        let stride = stride_for(dimension, element)?;
        let page_bytes = (1..=MAX_PAGE_BYTES / BLOCK)
            .map(|blocks| blocks * BLOCK)
            .find(|page| page * PAGE_FILL_PERCENT <= (page / stride) * stride * 100)
            .unwrap_or(MAX_PAGE_BYTES);
        Self::with_page_bytes(dimension, element, page_bytes)
    }

    /// A layout with pages of a chosen size.
    ///
    /// # Errors
    /// `InvalidLayout` when the dimension is out of range, or the page is not a multiple of 4096,
    /// larger than [`MAX_PAGE_BYTES`] or smaller than one row.
    pub fn with_page_bytes(dimension: u32, element: ElementType, page_bytes: u32) -> Result<Self> {
        let stride_bytes = stride_for(dimension, element)?;
        if !page_bytes.is_multiple_of(BLOCK) || MAX_PAGE_BYTES < page_bytes {
            let reason =
                format!("{page_bytes} is not a multiple of {BLOCK} of at most {MAX_PAGE_BYTES}");
            return Err(FormatError::InvalidLayout { field: "page_bytes", reason });
        }
        let rows_per_page = page_bytes / stride_bytes;
        if rows_per_page == 0 {
            let reason = format!("{page_bytes} does not hold one row of {stride_bytes} bytes");
            return Err(FormatError::InvalidLayout { field: "page_bytes", reason });
        }
        Ok(Self { dimension, element, stride_bytes, page_bytes, rows_per_page })
    }

    /// Elements of a vector.
    #[must_use]
    pub const fn dimension(&self) -> u32 {
        self.dimension
    }

    /// Type of the elements.
    #[must_use]
    pub const fn element(&self) -> ElementType {
        self.element
    }

    /// Bytes of a vector's elements, without padding.
    #[must_use]
    pub const fn vector_bytes(&self) -> usize {
        (self.dimension * self.element.bytes()) as usize
    }

    /// Bytes from one row to the next.
    #[must_use]
    pub const fn stride_bytes(&self) -> u32 {
        self.stride_bytes
    }

    /// Bytes of a vector page.
    #[must_use]
    pub const fn page_bytes(&self) -> u32 {
        self.page_bytes
    }

    /// Rows in a full page.
    #[must_use]
    pub const fn rows_per_page(&self) -> u32 {
        self.rows_per_page
    }

    /// Where a row lies.
    #[must_use]
    pub const fn page_of(&self, row: Row) -> RowPosition {
        let within = row.get() % self.rows_per_page;
        RowPosition {
            page: row.get() / self.rows_per_page,
            offset: (within * self.stride_bytes) as usize,
        }
    }

    /// Pages that hold the first `row_count` rows.
    #[must_use]
    pub const fn pages_for(&self, row_count: u32) -> u32 {
        row_count.div_ceil(self.rows_per_page)
    }

    /// Byte offset in the segment file of a vector page.
    #[must_use]
    pub const fn page_offset(&self, page: u32) -> u64 {
        BLOCK_BYTES_U64 + page as u64 * self.page_bytes as u64
    }

    /// Byte offset in the segment file of a row.
    #[must_use]
    pub const fn row_offset(&self, row: Row) -> u64 {
        let position = self.page_of(row);
        self.page_offset(position.page) + position.offset as u64
    }
}

impl fmt::Display for VectorLayout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} x {}, rows of {} bytes, {} in a page of {}",
            self.dimension, self.element, self.stride_bytes, self.rows_per_page, self.page_bytes
        )
    }
}

fn stride_for(dimension: u32, element: ElementType) -> Result<u32> {
    if dimension == 0 || MAX_DIMENSION < dimension {
        let reason = format!("{dimension} is not between 1 and {MAX_DIMENSION}");
        return Err(FormatError::InvalidLayout { field: "dimension", reason });
    }
    Ok((dimension * element.bytes()).next_multiple_of(ROW_ALIGNMENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(dimension: u32) -> VectorLayout {
        VectorLayout::for_dimension(dimension, ElementType::F32).unwrap()
    }

    #[test]
    fn every_dimension_has_a_page_filled_to_the_limit() {
        // Miri is some hundred times slower.
        let step = if cfg!(miri) { 997 } else { 1 };
        for dimension in (1..=MAX_DIMENSION).step_by(step) {
            let layout = layout(dimension);
            let used = layout.rows_per_page * layout.stride_bytes;
            assert!(layout.page_bytes * PAGE_FILL_PERCENT <= used * 100, "{layout}");
            assert!(used <= layout.page_bytes, "{layout}");
            assert!(layout.vector_bytes() <= layout.stride_bytes as usize, "{layout}");
        }
    }

    #[test]
    fn known_dimensions_get_known_pages() {
        let pages =
            [(3, 4096, 64), (128, 4096, 8), (768, 4096, 1), (1000, 4096, 1), (1536, 8192, 1)];
        for (dimension, page_bytes, rows) in pages {
            let layout = layout(dimension);
            assert_eq!((layout.page_bytes, layout.rows_per_page), (page_bytes, rows), "{layout}");
        }
    }

    #[test]
    fn out_of_range_values_are_refused() {
        assert!(VectorLayout::for_dimension(0, ElementType::F32).is_err());
        assert!(VectorLayout::for_dimension(MAX_DIMENSION + 1, ElementType::F32).is_err());
        for page_bytes in [0, 4095, 4096, 8000, 65_536 + 4096] {
            let layout = VectorLayout::with_page_bytes(2000, ElementType::F32, page_bytes);
            assert!(layout.is_err(), "{page_bytes}");
        }
    }

    #[test]
    fn rows_follow_each_other_and_never_straddle() {
        let layout = VectorLayout::with_page_bytes(768, ElementType::F32, 12_288).unwrap();
        assert_eq!(layout.page_of(Row::new(0)), RowPosition { page: 0, offset: 0 });
        assert_eq!(layout.page_of(Row::new(3)), RowPosition { page: 0, offset: 9216 });
        assert_eq!(layout.page_of(Row::new(4)), RowPosition { page: 1, offset: 0 });
        assert_eq!(layout.row_offset(Row::new(5)), 4096 + 12_288 + 3072);
        assert_eq!(layout.pages_for(0), 0);
        assert_eq!(layout.pages_for(4), 1);
        assert_eq!(layout.pages_for(5), 2);
        assert_eq!(layout.pages_for(u32::MAX), u32::MAX.div_ceil(4));
    }
}
