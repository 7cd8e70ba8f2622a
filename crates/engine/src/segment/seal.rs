//! Sealing: header and tail of a segment whose rows are known.
//!
//! The tail is id run, fences, filter, checksum table and footer, in one piece, so that it is one
//! sequential write. Nothing here does I/O.

use nephrite_format::{
    BLOCK_BYTES, DatabaseId, FileDetail, FileHeader, FileId, Generation, Id, IdKind, IdRef, Lsn,
    PageIdentity, Row, SegmentDetail, StoreId, VectorLayout,
    id_run::{FenceIndex, IdIndex, IdRunBuilder},
    manifest::SegmentMeta,
    page_checksum,
    segment::{RowOrder, SectionKind, SegmentFooter, SegmentSummary, encode_checksum_table},
};
use nephrite_io::memory::AlignedBuf;

use super::{
    filter_memory::{Filter, FilterBlocks},
    id_pages::Piece,
};
use crate::{error::Error, log_file::aligned, planted::planted};

/// What a segment is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) store: StoreId,
    pub(crate) file: FileId,
    pub(crate) database: DatabaseId,
    pub(crate) layout: VectorLayout,
    pub(crate) id_kind: IdKind,
}

impl Identity {
    /// Segments are written once: all are of generation 0.
    pub(crate) fn page(&self, offset: u64) -> PageIdentity {
        let (file, offset) =
            if planted("identity_left_out") { (FileId::new(0), 0) } else { (self.file, offset) };
        PageIdentity::new(self.store, file, Generation::new(0), offset)
    }

    pub(crate) fn header(&self) -> FileHeader {
        FileHeader {
            store: self.store,
            file: self.file,
            generation: Generation::new(0),
            detail: FileDetail::Segment(SegmentDetail {
                database: self.database,
                id_kind: self.id_kind,
                layout: self.layout,
            }),
        }
    }

    /// The header page.
    pub(crate) fn header_page(&self) -> Result<AlignedBuf, Error> {
        let mut page = aligned(BLOCK_BYTES)?;
        self.header().encode_into(&mut page);
        Ok(page)
    }

    /// Checksum of the vector page number `page`.
    pub(crate) fn vector_page_checksum(&self, page: u32, bytes: &[u8]) -> u64 {
        page_checksum(self.page(self.layout.page_offset(page)), bytes)
    }
}

/// What the ids of a segment come to.
#[derive(Debug)]
pub(crate) struct IdSummary {
    /// Tombstones included.
    count: u32,
    tombstones: u32,
    /// Smallest and largest id.
    range: Option<(Id, Id)>,
    /// First id and row of consecutive ids in consecutive rows.
    dense: Option<(u64, Row)>,
    row_order: RowOrder,
}

impl IdSummary {
    /// Consecutive ids in consecutive rows; at least one.
    pub(crate) fn dense(first: u64, first_row: Row, count: u32) -> Self {
        let range = Some((Id::U64(first), Id::U64(first + u64::from(count - 1))));
        let dense = Some((first, first_row));
        Self { count, tombstones: 0, range, dense, row_order: RowOrder::IdOrder }
    }

    /// Of ascending ids with their rows or tombstones.
    pub(crate) fn of<'a>(entries: impl Iterator<Item = (IdRef<'a>, Row)>) -> Self {
        let (mut count, mut tombstones) = (0_u32, 0);
        let (mut first, mut last, mut last_row) = (None, None, None);
        let (mut is_dense, mut ascends) = (true, true);
        for (id, row) in entries {
            let (first_id, first_row) = *first.get_or_insert((id, row));
            is_dense &= !row.is_tombstone() && follows(first_id, id, count);
            is_dense &= u64::from(row.get()) == u64::from(first_row.get()) + u64::from(count);
            if row.is_tombstone() {
                tombstones += 1;
            } else {
                ascends &= last_row.is_none_or(|last| last <= row);
                last_row = Some(row);
            }
            count = count.checked_add(1).expect("a segment holds fewer than 2^32 ids");
            last = Some(id);
        }
        let dense = match first {
            Some((IdRef::U64(id), row)) if is_dense => Some((id, row)),
            _ => None,
        };
        let range = first.zip(last).map(|((first, _), last)| (first.to_id(), last.to_id()));
        let row_order = if ascends { RowOrder::IdOrder } else { RowOrder::Arrival };
        Self { count, tombstones, range, dense, row_order }
    }

    /// Number of ids, tombstones included.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Number of ids that are not deleted.
    pub(crate) fn live(&self) -> u32 {
        self.count - self.tombstones
    }

    /// Smallest and largest id.
    pub(crate) fn range(&self) -> Option<(IdRef<'_>, IdRef<'_>)> {
        self.range.as_ref().map(|(min, max)| (min.as_id_ref(), max.as_id_ref()))
    }

    /// Whether the segment needs no id pages.
    pub(crate) fn is_dense(&self) -> bool {
        self.dense.is_some()
    }

    /// With what else there is to say of the segment.
    pub(crate) fn outline(&self, row_count: u32, max_lsn: Lsn, order: u64) -> Outline {
        let id_index = match self.dense {
            Some((first, first_row)) => IdIndex::Dense { first, count: self.count, first_row },
            None => IdIndex::Sorted,
        };
        Outline {
            row_count,
            entry_count: self.count,
            tombstone_count: self.tombstones,
            id_index,
            row_order: self.row_order,
            max_lsn,
            order,
            range: self.range.clone().expect("a segment without ids is never sealed"),
        }
    }
}

/// Whether `id` is the number `count` after `first`.
fn follows(first: IdRef<'_>, id: IdRef<'_>, count: u32) -> bool {
    match (first, id) {
        (IdRef::U64(first), IdRef::U64(id)) => first.checked_add(u64::from(count)) == Some(id),
        _ => false,
    }
}

/// What is written behind the rows, and what the manifest says of the segment.
#[derive(Debug)]
pub(crate) struct Tail {
    /// Byte offset in the file.
    pub(crate) offset: u64,
    pub(crate) bytes: AlignedBuf,
    pub(crate) footer: SegmentFooter,
    pub(crate) fences: Option<FenceIndex>,
    pub(crate) filter: Option<Filter>,
    pub(crate) meta: SegmentMeta,
}

/// Builds the tail of a segment whose ids, ascending, are all in memory. `checksums` holds one per
/// vector page; `order` is the age.
///
/// # Errors
/// Out of memory; a segment too large for the format.
pub(crate) fn seal(
    identity: &Identity,
    ids: &[(Id, Row)],
    row_count: u32,
    checksums: Vec<u64>,
    max_lsn: Lsn,
    order: u64,
) -> Result<Tail, Error> {
    let summary = IdSummary::of(ids.iter().map(|(id, row)| (id.as_id_ref(), *row)));
    let outline = summary.outline(row_count, max_lsn, order);
    if summary.is_dense() {
        return seal_tail(identity, outline, TailPages::of_dense(checksums));
    }
    let mut builder = IdRunBuilder::new(identity.id_kind);
    let mut filter = Filter::in_memory(FilterBlocks::for_ids(summary.count()));
    for (id, row) in ids {
        builder.push(IdRef::from(id), *row);
        filter.insert(IdRef::from(id));
    }
    let run = builder.finish();
    let id_page_count = page_count(run.pages.len());
    let (fences, filter) = (Some(run.fences), Some(filter));
    let id_pages = run.pages;
    let pages = TailPages { id_piece: None, id_pages, id_page_count, fences, filter, checksums };
    seal_tail(identity, outline, pages)
}

/// What a segment holds.
#[derive(Debug)]
pub(crate) struct Outline {
    pub(crate) row_count: u32,
    /// Tombstones included.
    pub(crate) entry_count: u32,
    pub(crate) tombstone_count: u32,
    pub(crate) id_index: IdIndex,
    pub(crate) row_order: RowOrder,
    pub(crate) max_lsn: Lsn,
    /// The age.
    pub(crate) order: u64,
    /// Smallest and largest id.
    pub(crate) range: (Id, Id),
}

/// The pages behind the rows.
#[derive(Debug)]
pub(crate) struct TailPages {
    /// Those of the id run that are not in the file yet: first these, then the last ones.
    pub(crate) id_piece: Option<Piece>,
    pub(crate) id_pages: Vec<u8>,
    /// All id pages.
    pub(crate) id_page_count: u32,
    pub(crate) fences: Option<FenceIndex>,
    pub(crate) filter: Option<Filter>,
    /// Of all pages that are in the file: rows, then ids.
    pub(crate) checksums: Vec<u64>,
}

impl TailPages {
    /// Of a segment that needs no id pages.
    pub(crate) fn of_dense(checksums: Vec<u64>) -> Self {
        Self {
            id_piece: None,
            id_pages: Vec::new(),
            id_page_count: 0,
            fences: None,
            filter: None,
            checksums,
        }
    }
}

/// Builds the tail of a segment whose id pages may be in its file already.
///
/// # Errors
/// Out of memory; a segment too large for the format.
pub(crate) fn seal_tail(
    identity: &Identity,
    outline: Outline,
    pages: TailPages,
) -> Result<Tail, Error> {
    let TailPages { id_piece, id_pages, id_page_count, fences, filter, mut checksums } = pages;
    let first_ids = id_piece.as_ref().map_or(&[][..], Piece::pages);
    let id_bytes = first_ids.len() + id_pages.len();
    let fence_pages = fences.as_ref().map_or_else(Vec::new, FenceIndex::encode);
    let filter_bytes = filter.as_ref().map_or(0, Filter::encoded_bytes);
    let footer = SegmentFooter::with_filter(
        summary(identity, &outline),
        &identity.layout,
        id_page_count,
        page_count(fence_pages.len()),
        page_count(filter_bytes),
    )?;
    let rows_end = footer
        .section(SectionKind::VectorPages)
        .map_or(BLOCK_BYTES as u64, |section| section.offset + section.bytes);
    let written = id_page_count - page_count(id_bytes);
    let tail_offset = rows_end + u64::from(written) * BLOCK_BYTES as u64;
    let len = footer.file_bytes().checked_sub(tail_offset).map(usize::try_from);
    let mut bytes = aligned(len.and_then(Result::ok).expect("the tail ends the file"))?;
    let (index, rest) = bytes.split_at_mut(id_bytes + fence_pages.len() + filter_bytes);
    let (ids, filters) = index.split_at_mut(id_bytes);
    let (fence_part, filter_part) = filters.split_at_mut(fence_pages.len());
    ids[..first_ids.len()].copy_from_slice(first_ids);
    ids[first_ids.len()..].copy_from_slice(&id_pages);
    fence_part.copy_from_slice(&fence_pages);
    filter.iter().for_each(|filter| filter.encode_into(filter_part));
    let mut place = tail_offset;
    for page in index.chunks_exact(BLOCK_BYTES) {
        checksums.push(page_checksum(identity.page(place), page));
        place += BLOCK_BYTES as u64;
    }
    let table = encode_checksum_table(&checksums, identity.page(place));
    rest[..table.len()].copy_from_slice(&table);
    rest[table.len()..].copy_from_slice(footer.encode(identity.page(0)).as_slice());
    let meta = meta(identity, &footer, outline);
    Ok(Tail { offset: tail_offset, bytes, footer, fences, filter, meta })
}

fn page_count(bytes: usize) -> u32 {
    u32::try_from(bytes / BLOCK_BYTES).expect("fewer pages than rows")
}

fn summary(identity: &Identity, outline: &Outline) -> SegmentSummary {
    SegmentSummary {
        database: identity.database,
        row_count: outline.row_count,
        entry_count: outline.entry_count,
        tombstone_count: outline.tombstone_count,
        id_index: outline.id_index,
        row_order: outline.row_order,
        max_lsn: outline.max_lsn,
    }
}

fn meta(identity: &Identity, footer: &SegmentFooter, outline: Outline) -> SegmentMeta {
    let (min_id, max_id) = outline.range;
    SegmentMeta {
        file: identity.file,
        generation: Generation::new(0),
        file_bytes: footer.file_bytes(),
        row_count: outline.row_count,
        entry_count: outline.entry_count,
        tombstone_count: outline.tombstone_count,
        live_rows: outline.entry_count - outline.tombstone_count,
        level: 0,
        order: outline.order,
        max_lsn: outline.max_lsn,
        min_id,
        max_id,
    }
}
