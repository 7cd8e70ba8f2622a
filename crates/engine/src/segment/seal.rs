//! Sealing: header and tail of a segment whose rows are known.
//!
//! The tail is id run, fences, filter, checksum table and footer, in one piece, so that it is one
//! sequential write. Nothing here does I/O.

use nephrite_format::{
    BLOCK_BYTES, DatabaseId, FileDetail, FileHeader, FileId, Generation, Id, IdKind, IdRef, Lsn,
    PageIdentity, Row, SegmentDetail, StoreId, VectorLayout,
    filter::IdFilter,
    id_run::{FenceIndex, IdIndex, IdRunBuilder},
    manifest::SegmentMeta,
    page_checksum,
    segment::{RowOrder, SectionKind, SegmentFooter, SegmentSummary, encode_checksum_table},
};
use nephrite_io::memory::AlignedBuf;

use crate::{error::Error, log_file::aligned};

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
        PageIdentity::new(self.store, self.file, Generation::new(0), offset)
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

/// The ids of a segment.
#[derive(Debug)]
pub(crate) enum Ids {
    /// Consecutive ids in consecutive rows.
    Dense { first: u64, first_row: Row, count: u32 },
    /// Ascending ids with their rows or tombstones.
    Sorted(Vec<(Id, Row)>),
}

impl Ids {
    /// Number of ids, tombstones included.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Dense { count, .. } => *count as usize,
            Self::Sorted(ids) => ids.len(),
        }
    }

    /// Bytes that a flush holds for them: listed, looked up in older segments, and encoded.
    pub(crate) fn work_bytes(&self) -> u64 {
        let Self::Sorted(ids) = self else { return 0 };
        let each = size_of::<(Id, Row)>() + 2 * size_of::<(IdRef<'_>, Row)>();
        let of = |id: &Id| match id {
            Id::U64(_) => size_of::<u64>(),
            Id::Bytes(bytes) => 2 * bytes.len(), // once more in a block of its own
        };
        let bytes: usize = ids.iter().map(|(id, _)| of(id)).sum();
        (ids.len() * each + bytes) as u64
    }

    /// Number of ids that are deleted.
    pub(crate) fn tombstones(&self) -> usize {
        match self {
            Self::Dense { .. } => 0,
            Self::Sorted(ids) => ids.iter().filter(|(_, row)| row.is_tombstone()).count(),
        }
    }

    /// Smallest and largest id.
    pub(crate) fn range(&self) -> Option<(Id, Id)> {
        match self {
            Self::Dense { first, count, .. } => {
                Some((Id::U64(*first), Id::U64(first + u64::from(*count) - 1)))
            }
            Self::Sorted(ids) => Some((ids.first()?.0.clone(), ids.last()?.0.clone())),
        }
    }

    /// Makes it dense when the ids and rows happen to be consecutive.
    pub(crate) fn densify(self) -> Self {
        let Self::Sorted(ids) = &self else { return self };
        let Some((Id::U64(first), first_row)) = ids.first() else { return self };
        let consecutive = ids.iter().enumerate().all(|(position, (id, row))| {
            let Id::U64(id) = id else { return false };
            let position = position as u64;
            *id == first.wrapping_add(position)
                && u64::from(row.get()) == u64::from(first_row.get()) + position
                && !row.is_tombstone()
        });
        match u32::try_from(ids.len()) {
            Ok(count) if consecutive => Self::Dense { first: *first, first_row: *first_row, count },
            _ => self,
        }
    }

    fn row_order(&self) -> RowOrder {
        let Self::Sorted(ids) = self else { return RowOrder::IdOrder };
        let mut last = None;
        for (_, row) in ids.iter().filter(|(_, row)| !row.is_tombstone()) {
            if last.is_some_and(|last| *row < last) {
                return RowOrder::Arrival;
            }
            last = Some(*row);
        }
        RowOrder::IdOrder
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
    pub(crate) filter: Option<IdFilter>,
    pub(crate) meta: SegmentMeta,
}

/// Builds the tail. `row_checksums` holds one checksum per vector page; `order` is the age.
///
/// # Errors
/// Out of memory; a segment too large for the format.
pub(crate) fn seal(
    identity: &Identity,
    ids: &Ids,
    row_count: u32,
    checksums: Vec<u64>,
    max_lsn: Lsn,
    order: u64,
) -> Result<Tail, Error> {
    let (id_pages, fences, filter) = id_pages(identity.id_kind, ids);
    let id_page_count = page_count(&id_pages);
    let pages = TailPages { id_pages, id_page_count, fences, filter, checksums };
    seal_tail(identity, outline(ids, row_count, max_lsn, order), pages)
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
    /// Those of the id run that are not in the file yet: the last ones.
    pub(crate) id_pages: Vec<u8>,
    /// All id pages.
    pub(crate) id_page_count: u32,
    pub(crate) fences: Option<FenceIndex>,
    pub(crate) filter: Option<IdFilter>,
    /// Of all pages that are in the file: rows, then ids.
    pub(crate) checksums: Vec<u64>,
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
    let TailPages { id_pages, id_page_count, fences, filter, mut checksums } = pages;
    let fence_pages = fences.as_ref().map_or_else(Vec::new, FenceIndex::encode);
    let filter_pages = filter.as_ref().map_or_else(Vec::new, IdFilter::encode);
    let footer = SegmentFooter::with_filter(
        summary(identity, &outline),
        &identity.layout,
        id_page_count,
        page_count(&fence_pages),
        page_count(&filter_pages),
    )?;
    let rows_end = footer
        .section(SectionKind::VectorPages)
        .map_or(BLOCK_BYTES as u64, |section| section.offset + section.bytes);
    let written = id_page_count - page_count(&id_pages);
    let tail_offset = rows_end + u64::from(written) * BLOCK_BYTES as u64;
    let mut place = tail_offset;
    let index = [&id_pages, &fence_pages, &filter_pages];
    for page in index.into_iter().flat_map(|part| part.chunks_exact(BLOCK_BYTES)) {
        checksums.push(page_checksum(identity.page(place), page));
        place += BLOCK_BYTES as u64;
    }
    let table = encode_checksum_table(&checksums, identity.page(place));
    let footer_page = footer.encode(identity.page(0));
    let parts: [&[u8]; 5] =
        [&id_pages, &fence_pages, &filter_pages, &table, footer_page.as_slice()];
    let mut bytes = aligned(parts.iter().map(|part| part.len()).sum())?;
    let mut at = 0;
    for part in parts {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    debug_assert_eq!(footer.file_bytes(), tail_offset + at as u64, "sections lie end to end");
    let meta = meta(identity, &footer, outline);
    Ok(Tail { offset: tail_offset, bytes, footer, fences, filter, meta })
}

fn id_pages(kind: IdKind, ids: &Ids) -> (Vec<u8>, Option<FenceIndex>, Option<IdFilter>) {
    let Ids::Sorted(ids) = ids else { return (Vec::new(), None, None) };
    let mut builder = IdRunBuilder::new(kind);
    let mut filter = IdFilter::for_ids(count(ids.len()));
    for (id, row) in ids {
        builder.push(IdRef::from(id), *row);
        filter.insert(IdRef::from(id));
    }
    let run = builder.finish();
    (run.pages, Some(run.fences), Some(filter))
}

fn page_count(pages: &[u8]) -> u32 {
    u32::try_from(pages.len() / BLOCK_BYTES).expect("fewer pages than rows")
}

fn count(value: usize) -> u32 {
    u32::try_from(value).expect("a segment holds fewer than 2^32 ids")
}

fn outline(ids: &Ids, row_count: u32, max_lsn: Lsn, order: u64) -> Outline {
    let id_index = match ids {
        Ids::Dense { first, first_row, count } => {
            IdIndex::Dense { first: *first, count: *count, first_row: *first_row }
        }
        Ids::Sorted(_) => IdIndex::Sorted,
    };
    Outline {
        row_count,
        entry_count: count(ids.len()),
        tombstone_count: count(ids.tombstones()),
        id_index,
        row_order: ids.row_order(),
        max_lsn,
        order,
        range: ids.range().expect("a segment without ids is never sealed"),
    }
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
