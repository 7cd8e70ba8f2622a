//! The footer: the last 4096 bytes of a sealed segment.
//!
//! It repeats who the file is, counts what it holds and lists its sections. A decoded footer is
//! consistent: sections tile the file from header to footer, their sizes follow from the counts
//! and the layout, and exactly the sections that the id index needs are there.

use super::checksum_table_pages;
use super::section::{
    BLOCK_U32, SECTION_BYTES, Section, SectionKind, decode_section, encode_section,
};
use crate::checksum::{PageIdentity, page_checksum};
use crate::cursor::{Cursor, Writer, u64_at};
use crate::error::{FormatError, Result};
use crate::id_run::IdIndex;
use crate::ids::{DatabaseId, Lsn, Row};
use crate::layout::VectorLayout;
use crate::{BLOCK_BYTES, BLOCK_BYTES_U64};

/// The first eight bytes of a footer.
pub(crate) const FOOTER_MAGIC: [u8; 8] = *b"NPHFOOT\x1a";

/// The most sections a segment can have.
pub const MAX_SECTIONS: usize = 64;

const CHECKSUM_OFFSET: usize = BLOCK_BYTES - 8;
const SECTIONS_OFFSET: usize = 128;
const _: () = assert!(SECTIONS_OFFSET + MAX_SECTIONS * SECTION_BYTES <= CHECKSUM_OFFSET);

const FLAG_ROWS_IN_ID_ORDER: u8 = 1;

const FORM_DENSE: u8 = 1;
const FORM_SORTED: u8 = 2;

/// Whether scanning by id reads rows in order.
#[expect(clippy::exhaustive_enums, reason = "rows are in id order or they are not")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowOrder {
    /// Rows lie in the order in which they arrived.
    Arrival,
    /// Rows lie in ascending order of their ids.
    IdOrder,
}

/// The counts of a segment, without its sections.
#[expect(clippy::exhaustive_structs, reason = "the engine builds it; a new field is a new format")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentSummary {
    /// The database.
    pub database: DatabaseId,
    /// Rows written, garbage included; at most `u32::MAX - 1`.
    pub row_count: u32,
    /// Ids, tombstones included; at least one.
    pub entry_count: u32,
    /// Ids that are tombstones.
    pub tombstone_count: u32,
    /// How ids are found.
    pub id_index: IdIndex,
    /// Order of the rows.
    pub row_order: RowOrder,
    /// The highest log sequence number that went into this segment.
    pub max_lsn: Lsn,
}

/// The footer of a sealed segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentFooter {
    summary: SegmentSummary,
    sections: Vec<Section>,
}

impl SegmentFooter {
    /// Places the sections of a new segment without a filter. For a dense id index both page counts
    /// are 0.
    ///
    /// # Errors
    /// `InvalidLayout` when the counts contradict each other or there are too many pages.
    pub fn new(
        summary: SegmentSummary,
        layout: &VectorLayout,
        id_pages: u32,
        fence_pages: u32,
    ) -> Result<Self> {
        Self::with_filter(summary, layout, id_pages, fence_pages, 0)
    }

    /// As [`SegmentFooter::new`], with a filter behind the fences if `filter_pages` is not 0.
    ///
    /// # Errors
    /// As there; also for a filter of a dense id index, which needs none.
    pub fn with_filter(
        summary: SegmentSummary,
        layout: &VectorLayout,
        id_pages: u32,
        fence_pages: u32,
        filter_pages: u32,
    ) -> Result<Self> {
        let refuse = |reason| FormatError::InvalidLayout { field: "segment", reason };
        check_summary(&summary).map_err(refuse)?;
        let vector_pages = layout.pages_for(summary.row_count);
        let mut footer = Self { summary, sections: Vec::with_capacity(4) };
        footer.append(SectionKind::VectorPages, layout.page_bytes(), vector_pages);
        if summary.id_index == IdIndex::Sorted {
            footer.append(SectionKind::IdPages, BLOCK_U32, id_pages);
            footer.append(SectionKind::Fences, BLOCK_U32, fence_pages);
        }
        if filter_pages != 0 {
            footer.append(SectionKind::Filter, BLOCK_U32, filter_pages);
        }
        let checksums = footer.checksum_count().ok_or_else(|| refuse("too many pages".into()))?;
        footer.append(SectionKind::ChecksumTable, BLOCK_U32, checksum_table_pages(checksums));
        check_sections(&footer, layout, footer.footer_offset()).map_err(refuse)?;
        Ok(footer)
    }

    /// The counts.
    #[must_use]
    pub const fn summary(&self) -> &SegmentSummary {
        &self.summary
    }

    /// All sections, in file order.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The section of a kind, if the segment has it.
    #[must_use]
    pub fn section(&self, kind: SectionKind) -> Option<&Section> {
        self.sections.iter().find(|section| section.kind == kind)
    }

    /// Number in the checksum table of page `page` of a section; `None` for the checksum table
    /// itself, missing sections and pages past the end.
    #[must_use]
    pub fn checksum_index(&self, kind: SectionKind, page: u32) -> Option<u32> {
        if kind == SectionKind::ChecksumTable {
            return None;
        }
        let mut before = 0;
        for section in self.sections.iter().filter(|it| it.kind != SectionKind::ChecksumTable) {
            if section.kind == kind {
                let index = u32::try_from(before).ok()?.checked_add(page);
                return index.filter(|_| u64::from(page) < section.page_count());
            }
            before += section.page_count();
        }
        None
    }

    /// Checksums in the table: pages of all sections but the table; `None` when they are more
    /// than 2^32, which no constructed footer has.
    #[must_use]
    pub fn checksum_count(&self) -> Option<u32> {
        let pages = self
            .sections
            .iter()
            .filter(|section| section.kind != SectionKind::ChecksumTable)
            .try_fold(0_u64, |sum, section| sum.checked_add(section.page_count()))?;
        u32::try_from(pages).ok()
    }

    /// Byte offset of the footer page: the end of the last section.
    #[must_use]
    pub fn footer_offset(&self) -> u64 {
        self.sections.last().map_or(BLOCK_BYTES_U64, |section| section.offset + section.bytes)
    }

    /// Length of the whole file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.footer_offset() + BLOCK_BYTES_U64
    }

    /// Bytes of memory that this value takes.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.sections.capacity() * size_of::<Section>()
    }

    /// The footer page. Only store, file and generation of `identity` are used; the offset
    /// follows from the sections.
    #[must_use]
    pub fn encode(&self, identity: PageIdentity) -> Box<[u8; BLOCK_BYTES]> {
        let mut page = Box::new([0; BLOCK_BYTES]);
        let mut writer = Writer::new(page.as_mut_slice());
        writer.bytes(&FOOTER_MAGIC);
        writer.bytes(&identity.store.get());
        writer.u64(identity.file.get());
        writer.u64(identity.generation.get());
        writer.u64(self.file_bytes());
        self.encode_summary(&mut writer);
        let count = u32::try_from(self.sections.len()).expect("at most 64 sections");
        writer.u32(count);
        writer.zeros(SECTIONS_OFFSET - writer.position());
        self.sections.iter().for_each(|section| encode_section(&mut writer, section));
        writer.zeros(CHECKSUM_OFFSET - writer.position());
        let place = identity.at(self.footer_offset());
        let checksum = page_checksum(place, &page[..CHECKSUM_OFFSET]);
        page[CHECKSUM_OFFSET..].copy_from_slice(&checksum.to_le_bytes());
        page
    }

    fn encode_summary(&self, writer: &mut Writer<'_>) {
        let summary = &self.summary;
        writer.u64(summary.max_lsn.get());
        writer.u32(summary.database.get());
        writer.u32(summary.row_count);
        writer.u32(summary.entry_count);
        writer.u32(summary.tombstone_count);
        let (form, first, count, first_row) = match summary.id_index {
            IdIndex::Dense { first, count, first_row } => (FORM_DENSE, first, count, first_row),
            IdIndex::Sorted => (FORM_SORTED, 0, 0, Row::new(0)),
        };
        writer.u8(form);
        writer.u8(match summary.row_order {
            RowOrder::Arrival => 0,
            RowOrder::IdOrder => FLAG_ROWS_IN_ID_ORDER,
        });
        writer.zeros(2);
        writer.u32(count);
        writer.u64(first);
        writer.u32(first_row.get());
    }

    /// Reads a footer page; `identity` is that of the page: store, file and generation from the
    /// header, the offset 4096 before the end of the file. `layout` comes from the header.
    ///
    /// # Errors
    /// `Corrupt`, or `FeatureUnsupported` for a required section of unknown kind.
    pub fn decode(
        page: &[u8],
        identity: PageIdentity,
        layout: &VectorLayout,
        file: &str,
    ) -> Result<Self> {
        let mut cursor = Cursor::new(page, identity.offset, file);
        let start = cursor;
        if page.len() != BLOCK_BYTES {
            return Err(start.corrupt(format!("the footer page has {} bytes", page.len())));
        }
        if cursor.array("footer magic")? != FOOTER_MAGIC {
            return Err(start.corrupt("no footer is here: the segment was never completed or cut"));
        }
        let stored = u64_at(page, CHECKSUM_OFFSET);
        let computed = page_checksum(identity, &page[..CHECKSUM_OFFSET]);
        if stored != computed {
            let thing = "the footer page";
            return Err(FormatError::checksum(file, identity.offset, thing, stored, computed));
        }
        check_identity(&mut cursor, identity)?;
        let footer = decode_fields(&mut cursor, file)?;
        check_summary(&footer.summary).map_err(|what| start.corrupt(what))?;
        check_sections(&footer, layout, identity.offset).map_err(|what| start.corrupt(what))?;
        Ok(footer)
    }

    fn append(&mut self, kind: SectionKind, page_bytes: u32, pages: u32) {
        let offset = self.footer_offset();
        let bytes = u64::from(pages) * u64::from(page_bytes);
        self.sections.push(Section { kind, offset, bytes, page_bytes });
    }
}

fn check_identity(cursor: &mut Cursor<'_>, identity: PageIdentity) -> Result<()> {
    let start = *cursor;
    let same = cursor.array("store id")? == identity.store.get()
        && cursor.u64("file id")? == identity.file.get()
        && cursor.u64("generation")? == identity.generation.get();
    if !same {
        return Err(start.corrupt("the footer names another file than the header"));
    }
    let file_bytes = cursor.u64("file length")?;
    if identity.offset.checked_add(BLOCK_BYTES_U64) != Some(file_bytes) {
        return Err(start.corrupt(format!("the footer says the file has {file_bytes} bytes")));
    }
    Ok(())
}

fn decode_fields(cursor: &mut Cursor<'_>, file: &str) -> Result<SegmentFooter> {
    let summary = decode_summary(cursor)?;
    let count = cursor.u32("count of sections")? as usize;
    if MAX_SECTIONS < count {
        return Err(cursor.corrupt(format!("{count} sections where {MAX_SECTIONS} can be")));
    }
    cursor.zeros(SECTIONS_OFFSET - (BLOCK_BYTES - cursor.remaining()), "footer")?;
    let mut sections = Vec::with_capacity(count);
    for _ in 0..count {
        sections.push(decode_section(cursor, file)?);
    }
    cursor.zeros(cursor.remaining() - 8, "footer")?;
    Ok(SegmentFooter { summary, sections })
}

fn decode_summary(cursor: &mut Cursor<'_>) -> Result<SegmentSummary> {
    let max_lsn = Lsn::new(cursor.u64("highest sequence number")?);
    let database = DatabaseId::new(cursor.u32("database")?);
    let row_count = cursor.u32("count of rows")?;
    let entry_count = cursor.u32("count of ids")?;
    let tombstone_count = cursor.u32("count of tombstones")?;
    let form = cursor.u8("form of the id index")?;
    let flags = cursor.u8("flags")?;
    cursor.zeros(2, "footer")?;
    let dense_count = cursor.u32("dense count")?;
    let first = cursor.u64("dense first id")?;
    let first_row = cursor.u32("dense first row")?;
    let id_index = match (form, first, dense_count, first_row) {
        (FORM_DENSE, first, count, row) => {
            IdIndex::Dense { first, count, first_row: Row::new(row) }
        }
        (FORM_SORTED, 0, 0, 0) => IdIndex::Sorted,
        _ => return Err(cursor.corrupt(format!("{form} is no form of id index, or has a range"))),
    };
    let row_order = match flags {
        0 => RowOrder::Arrival,
        FLAG_ROWS_IN_ID_ORDER => RowOrder::IdOrder,
        _ => return Err(cursor.corrupt(format!("unknown footer flags {flags:#04x}"))),
    };
    Ok(SegmentSummary {
        database,
        row_count,
        entry_count,
        tombstone_count,
        id_index,
        row_order,
        max_lsn,
    })
}

type Check = std::result::Result<(), String>;

fn check_summary(summary: &SegmentSummary) -> Check {
    let SegmentSummary { row_count, entry_count, tombstone_count, id_index, .. } = *summary;
    let fail = |what: &str| {
        let counts = format!("{row_count} rows, {entry_count} ids, {tombstone_count} tombstones");
        Err(format!("{what}: {counts}"))
    };
    if entry_count == 0 {
        return fail("a segment without ids");
    }
    if row_count == u32::MAX {
        return fail("too many rows");
    }
    if entry_count < tombstone_count || row_count < entry_count - tombstone_count {
        return fail("counts contradict each other");
    }
    let IdIndex::Dense { first, count, first_row } = id_index else {
        return Ok(());
    };
    if count != entry_count || tombstone_count != 0 {
        return fail("a dense index does not cover all ids");
    }
    if first_row.get().checked_add(count).is_none_or(|end| row_count < end) {
        return fail("the rows of the dense index leave the segment");
    }
    if first.checked_add(u64::from(count) - 1).is_none() {
        return fail("the ids of the dense index leave their range");
    }
    Ok(())
}

fn check_sections(footer: &SegmentFooter, layout: &VectorLayout, footer_offset: u64) -> Check {
    let mut next = BLOCK_BYTES_U64;
    for (index, section) in footer.sections.iter().enumerate() {
        let kind = section.kind;
        if section.offset != next {
            return Err(format!("section {kind:?} begins at {} and not {next}", section.offset));
        }
        if footer.sections[..index].iter().any(|earlier| earlier.kind == kind) {
            return Err(format!("section {kind:?} comes twice"));
        }
        next = next.checked_add(section.bytes).ok_or("sections leave the file")?;
    }
    if next != footer_offset {
        return Err(format!("sections end at {next} and the footer is at {footer_offset}"));
    }
    check_section_sizes(footer, layout)
}

fn check_section_sizes(footer: &SegmentFooter, layout: &VectorLayout) -> Check {
    let expect = |kind: SectionKind, page_bytes: u32, pages: u64| match footer.section(kind) {
        Some(section) if (section.page_bytes, section.page_count()) == (page_bytes, pages) => {
            Ok(())
        }
        found => Err(format!("{pages} pages of {kind:?} do not fit section {found:?}")),
    };
    let rows = footer.summary.row_count;
    expect(SectionKind::VectorPages, layout.page_bytes(), u64::from(layout.pages_for(rows)))?;
    for kind in [SectionKind::IdPages, SectionKind::Fences] {
        match (footer.summary.id_index, footer.section(kind)) {
            (IdIndex::Dense { .. }, None) => {}
            (IdIndex::Sorted, Some(section)) => {
                let pages = section.page_count();
                if pages == 0 || u64::from(footer.summary.entry_count) < pages {
                    return Err(format!("{pages} pages of {kind:?} for the ids of the segment"));
                }
                expect(kind, BLOCK_U32, pages)?;
            }
            (_, found) => return Err(format!("the id index does not fit section {found:?}")),
        }
    }
    check_filter(footer)?;
    let checksums = footer.checksum_count().ok_or("too many pages")?;
    expect(SectionKind::ChecksumTable, BLOCK_U32, u64::from(checksum_table_pages(checksums)))
}

/// A filter takes fewer bits than its ids have in their pages, so its length is bounded by them.
fn check_filter(footer: &SegmentFooter) -> Check {
    let Some(filter) = footer.section(SectionKind::Filter) else { return Ok(()) };
    let sorted = footer.summary.id_index == IdIndex::Sorted;
    let most = 1 + u64::from(footer.summary.entry_count);
    let fits = filter.page_bytes == BLOCK_U32 && (1..=most).contains(&filter.page_count());
    if sorted && fits { Ok(()) } else { Err(format!("the ids do not fit section {filter:?}")) }
}
