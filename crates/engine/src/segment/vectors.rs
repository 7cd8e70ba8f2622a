//! From rows to vectors: which page a row lies in, and the vector as the caller gets it.
//!
//! Guarantees: a vector that is lent out pins its page; one whose page found no frame is a copy.
//! [`Segment::resident_vector`] takes no lock and makes no allocation.
//! Cancel safety: a dropped read leaves its loads to finish for others.

use std::{ops::Range, sync::Arc};

use nephrite_format::{FileId, Row, VectorLayout, segment::SectionKind};
use nephrite_pager::PageGuard;

use super::{
    bypass::Page,
    pages::{Purpose, near},
    reader::{ReadContext, Segment, page_count},
    work_memory::Held,
};
use crate::{error::Error, vector::VectorRef};

/// The last page that a call with many rows had to read past the cache: whole, for the rows of it
/// that come next.
#[derive(Debug, Default)]
pub(crate) struct LastCopied(Option<CopiedPage>);

#[derive(Debug)]
struct CopiedPage {
    file: FileId,
    page: u32,
    bytes: Arc<[u8]>,
    _held: Held,
}

impl LastCopied {
    fn find(&self, segment: &Segment, page: u32) -> Option<&[u8]> {
        let copied = self.0.as_ref()?;
        ((copied.file, copied.page) == (segment.file(), page)).then_some(&*copied.bytes)
    }
}

impl Segment {
    /// The vector page of a row.
    pub(crate) fn page_of(&self, row: Row) -> u32 {
        self.identity.layout.page_of(row).page
    }

    /// The vector page of a row, and where in it the row begins.
    pub(crate) fn start_of(&self, row: Row) -> (u32, u32) {
        (self.page_of(row), near(self.bytes_of(row).start, 0).start)
    }

    /// The vector page of a row, and the bytes of the row in it.
    pub(super) fn place_of(&self, row: Row) -> (u32, Range<usize>) {
        let layout = &self.identity.layout;
        let place = layout.page_of(row);
        (place.page, place.offset..place.offset + layout.vector_bytes())
    }

    /// The bytes of a row in its page.
    pub(super) fn bytes_of(&self, row: Row) -> Range<usize> {
        self.place_of(row).1
    }

    /// The vector of a row.
    pub(crate) async fn vector(&self, context: &ReadContext, row: Row) -> Result<VectorRef, Error> {
        if let Some(vector) = self.kept_traced(row) {
            return Ok(vector);
        }
        let part = self.bytes_of(row);
        let kind = Purpose::Point.kind();
        let page = self.part_of_page(context, kind, self.page_of(row), part).await?;
        self.trace_vector(row);
        Ok(match page {
            Page::Pinned(guard) => self.vector_in(guard, row, Purpose::Point),
            Page::Copied(bytes) => VectorRef::copied(&bytes),
        })
    }

    /// The vector of one of many rows, which are best asked for in order.
    pub(crate) async fn vector_of_many(
        &self,
        context: &ReadContext,
        row: Row,
        purpose: Purpose,
        last: &mut LastCopied,
    ) -> Result<VectorRef, Error> {
        let page = self.page_of(row);
        if purpose == Purpose::Point {
            self.trace_vector(row);
        }
        if let Some(bytes) = last.find(self, page) {
            return Ok(VectorRef::copied(&bytes[self.bytes_of(row)]));
        }
        last.0 = None;
        // Looked at before the page is asked for: else a page would be read that is not needed.
        if let Some(vector) = self.kept_vector(row) {
            return Ok(vector);
        }
        let (_, start) = self.start_of(row);
        match self.page_for(context, purpose.kind(), page, start).await? {
            Page::Pinned(guard) => Ok(self.vector_in(guard, row, purpose)),
            Page::Copied(bytes) => {
                let vector = VectorRef::copied(&bytes[self.bytes_of(row)]);
                let _held = context.work.hold(bytes.len() as u64);
                last.0 = Some(CopiedPage { file: self.file(), page, bytes, _held });
                Ok(vector)
            }
        }
    }

    /// The vector of a row in its pinned page.
    fn vector_in(&self, page: PageGuard, row: Row, purpose: Purpose) -> VectorRef {
        let part = self.bytes_of(row);
        if purpose == Purpose::Point {
            self.vectors.note_read(&page, near(part.start, part.len()).start);
        }
        VectorRef::in_page(page, part.start, part.len())
    }

    /// Tells the trace, if there is one, that the vector of a row is being read.
    fn trace_vector(&self, row: Row) {
        let part = self.bytes_of(row);
        self.vectors.trace_read(self.page_of(row), near(part.start, part.len()));
    }

    /// The vector of a row, if its page is in memory.
    #[inline]
    pub(crate) fn resident_vector(&self, row: Row) -> Option<VectorRef> {
        let layout = &self.identity.layout;
        let place = layout.page_of(row);
        let near = near(place.offset, layout.vector_bytes());
        let Some(guard) = self.vectors.try_hit(place.page, near.clone()) else {
            return self.kept_traced(row);
        };
        self.vectors.trace_read(place.page, near);
        Some(VectorRef::in_page(guard, place.offset, layout.vector_bytes()))
    }

    #[cold]
    #[inline(never)]
    fn kept_traced(&self, row: Row) -> Option<VectorRef> {
        let vector = self.kept_vector(row)?;
        self.trace_vector(row);
        Some(vector)
    }

    /// The vector of a row that stayed in memory when its page went.
    fn kept_vector(&self, row: Row) -> Option<VectorRef> {
        let Range { start, end } = self.bytes_of(row);
        let (part, first) = self.vectors.part(self.page_of(row), near(start, 0).start)?;
        Some(VectorRef::in_page(part, start - first as usize, end - start))
    }

    /// Whether the vector of a row is in memory without its page: a hint.
    pub(crate) fn is_kept(&self, row: Row) -> bool {
        let start = near(self.bytes_of(row).start, 0).start;
        self.vectors.has_part(self.page_of(row), start)
    }

    /// Asks the processor for what [`Self::resident_vector`] needs first.
    #[inline]
    pub(crate) fn prefetch_vector_entry(&self, row: Row) {
        self.vectors.prefetch_entry(self.page_of(row));
    }

    /// The second step after [`Self::prefetch_vector_entry`].
    #[inline]
    pub(crate) fn prefetch_vector(&self, row: Row) {
        let layout = &self.identity.layout;
        let place = layout.page_of(row);
        self.vectors.prefetch_frame(place.page, near(place.offset, layout.vector_bytes()));
    }

    /// How the vectors lie in pages.
    pub(crate) fn layout(&self) -> &VectorLayout {
        &self.identity.layout
    }

    /// Number of vector pages.
    pub(crate) fn vector_pages(&self) -> u32 {
        page_count(&self.footer, SectionKind::VectorPages)
    }
}
