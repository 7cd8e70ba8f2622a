//! Where the parts of a segment lie: from its footer, or without one from what the manifest says.
//!
//! What both say must agree. A footer with one flipped bit is mended. Without a footer the sections
//! are found by their lengths, since they lie end to end; where a dense segment's ids begin is
//! believed only as far as its rows bear it out.
//! Tested in `tests/it/repair*`.

use nephrite_format::{
    BLOCK_BYTES_U64, FormatError, Id, Lsn, Row,
    id_run::IdIndex,
    manifest::SegmentMeta,
    mend::mend_sealed,
    segment::{CHECKSUMS_PER_PAGE, SectionKind, SegmentFooter},
};

use super::{super::salvage::Rows, Walk};
use crate::error::Error;

/// Where a footer says in which row a dense segment begins.
const FIRST_ROW_AT: std::ops::Range<usize> = 88..92;

/// Where the parts of a segment lie.
pub(super) struct Anatomy {
    pub(super) row_count: u32,
    pub(super) entry_count: u32,
    pub(super) tombstone_count: u32,
    pub(super) max_lsn: Lsn,
    /// First id and its row, of a dense segment.
    pub(super) dense: Option<(u64, Row)>,
    /// Blocks between vector pages and checksum table, and what they are if it is known.
    pub(super) index_offset: u64,
    pub(super) index_blocks: u64,
    pub(super) footer: Option<SegmentFooter>,
    pub(super) table_offset: u64,
    pub(super) table_blocks: u64,
    pub(super) file_bytes: u64,
}

impl Walk<'_> {
    pub(super) async fn anatomy(
        &mut self,
        meta: Option<&SegmentMeta>,
    ) -> Result<Option<Anatomy>, Error> {
        let bytes = self.raw().bytes;
        let expected = meta.map_or(bytes / BLOCK_BYTES_U64 * BLOCK_BYTES_U64, |it| it.file_bytes);
        if bytes != expected {
            let what = format!("the file has {bytes} bytes where {expected} belong");
            self.note(None, bytes.min(expected), what);
        }
        let Some(at) = expected.checked_sub(BLOCK_BYTES_U64) else {
            return Ok(None);
        };
        let page = self.raw().block(at).await?.unwrap_or_default();
        let (place, layout) = (self.identity.page(at), self.identity.layout);
        match SegmentFooter::decode(&page, place, &layout, &self.found.name) {
            Ok(footer) => Ok(self.by_footer(footer, meta)),
            Err(error @ FormatError::FeatureUnsupported { .. }) => Err(error.into()),
            Err(error) => {
                self.note(None, at, error.to_string());
                let mended = self.mended(&page, |page| mend_sealed(page, place));
                let footer = mended.and_then(|it| {
                    SegmentFooter::decode(&it, place, &layout, &self.found.name).ok()
                });
                if let Some(footer) = footer {
                    return Ok(self.by_footer(footer, meta));
                }
                match meta {
                    Some(meta) => self.by_manifest(meta, &page).await,
                    None => Ok(None),
                }
            }
        }
    }

    fn by_footer(&mut self, footer: SegmentFooter, meta: Option<&SegmentMeta>) -> Option<Anatomy> {
        let summary = *footer.summary();
        let same = |meta: &SegmentMeta| {
            (meta.row_count, meta.entry_count, meta.tombstone_count, meta.max_lsn)
                == (
                    summary.row_count,
                    summary.entry_count,
                    summary.tombstone_count,
                    summary.max_lsn,
                )
        };
        if summary.database != self.identity.database || meta.is_some_and(|meta| !same(meta)) {
            self.note(
                None,
                footer.footer_offset(),
                "it is not the segment that the manifest means",
            );
            return None;
        }
        let table = footer.section(SectionKind::ChecksumTable)?;
        let dense = match summary.id_index {
            IdIndex::Dense { first, first_row, .. } => Some((first, first_row)),
            IdIndex::Sorted => None,
        };
        let layout = self.identity.layout;
        let index_offset = layout.page_offset(layout.pages_for(summary.row_count));
        Some(Anatomy {
            row_count: summary.row_count,
            entry_count: summary.entry_count,
            tombstone_count: summary.tombstone_count,
            max_lsn: summary.max_lsn,
            dense,
            index_offset,
            index_blocks: (table.offset - index_offset) / BLOCK_BYTES_U64,
            table_offset: table.offset,
            table_blocks: table.page_count(),
            file_bytes: footer.file_bytes(),
            footer: Some(footer),
        })
    }

    /// Sections lie end to end, and the table has as many pages as the others need.
    async fn by_manifest(
        &self,
        meta: &SegmentMeta,
        footer: &[u8],
    ) -> Result<Option<Anatomy>, Error> {
        let layout = self.identity.layout;
        let vector_pages = layout.pages_for(meta.row_count);
        let index_offset = layout.page_offset(vector_pages);
        let Some(end) = meta.file_bytes.checked_sub(BLOCK_BYTES_U64) else { return Ok(None) };
        let Some(bytes) = end.checked_sub(index_offset) else { return Ok(None) };
        let blocks = bytes / BLOCK_BYTES_U64;
        let table_blocks = (1..=blocks).find(|table| {
            let others = u64::from(vector_pages) + blocks - table;
            others.div_ceil(u64::from(CHECKSUMS_PER_PAGE)) == *table
        });
        let Some(table_blocks) = table_blocks else { return Ok(None) };
        let dense = if blocks != table_blocks {
            None
        } else if let (Id::U64(first), Some(row)) =
            (&meta.min_id, self.first_row(meta, footer).await?)
        {
            Some((*first, row))
        } else {
            return Ok(None);
        };
        Ok(Some(Anatomy {
            row_count: meta.row_count,
            entry_count: meta.entry_count,
            tombstone_count: meta.tombstone_count,
            max_lsn: meta.max_lsn,
            dense,
            index_offset,
            index_blocks: blocks - table_blocks,
            footer: None,
            table_offset: end - table_blocks * BLOCK_BYTES_U64,
            table_blocks,
            file_bytes: meta.file_bytes,
        }))
    }

    /// The row of the smallest id of a dense segment without its footer. It is certain when the ids
    /// take all rows. Otherwise what the damaged footer says must agree with the rows: behind the
    /// last id's there is only padding.
    async fn first_row(&self, meta: &SegmentMeta, footer: &[u8]) -> Result<Option<Row>, Error> {
        let Some(spare) = meta.row_count.checked_sub(meta.entry_count) else { return Ok(None) };
        if spare == 0 {
            return Ok(Some(Row::new(0)));
        }
        let stored = footer.get(FIRST_ROW_AT).and_then(|bytes| bytes.first_chunk::<4>());
        let Some(first) = stored.map(|bytes| u32::from_le_bytes(*bytes)) else { return Ok(None) };
        if spare < first {
            return Ok(None);
        }
        let mut rows = Rows::default();
        for row in first + meta.entry_count - 1..meta.row_count {
            let bytes = rows.get(self.raw(), &self.identity.layout, row).await?;
            let Some(bytes) = bytes else { return Ok(None) };
            let is_last = row == first + meta.entry_count - 1;
            if bytes.iter().all(|byte| *byte == 0) == is_last {
                return Ok(None);
            }
        }
        Ok(Some(Row::new(first)))
    }
}
