//! Drivers of the fuzz targets: each takes arbitrary bytes and must return.
//!
//! The fuzz targets in `fuzz/` and the corpus replay test call the same functions, so that every
//! input that was ever kept stays in the ordinary test run. Where decoding succeeds, a driver
//! reads everything the result offers and asserts that encoding it again gives the same bytes:
//! there is one way to write each value.
//!
//! Checksums would stop a fuzzer at the door, so that drivers of sealed pages decode the input
//! twice: as it is, and again with the right checksum put in.

use crate::BLOCK_BYTES;
use crate::checksum::{PageIdentity, page_checksum};
use crate::filter::{IdFilter, IdHash};
use crate::frame::{FRAME_MAGIC, FrameView, build_frame, decode_frame, peek_frame_bytes};
use crate::header::{FileHeader, MAGIC};
use crate::id::{IdKind, IdRef};
use crate::id_run::{FenceIndex, IdPage, IdRunBuilder};
use crate::ids::{FileId, Generation, Row, StoreId};
use crate::layout::{ElementType, VectorLayout};
use crate::manifest::{ManifestEdit, decode_edits};
use crate::segment::{SectionKind, SegmentFooter};
use crate::wal::{
    BulkEncoder, BulkHeader, IdColumn, IdColumnForm, Operation, OperationsEncoder, WalRecord,
    WalRecords, bulk_len, id_len, operations_len,
};

const FILE: &str = "fuzzed";
const CHECKSUM_OFFSET: usize = BLOCK_BYTES - 8;

/// The identity under which the drivers read pages.
#[must_use]
pub const fn identity(offset: u64) -> PageIdentity {
    PageIdentity::new(StoreId::new([7; 16]), FileId::new(3), Generation::new(5), offset)
}

/// Header pages.
pub fn decode_header(data: &[u8]) {
    drop(FileHeader::decode(data, FILE));
    let mut page = padded(data);
    page[..8].copy_from_slice(&MAGIC);
    page[8..12].copy_from_slice(&crate::FORMAT_VERSION.to_le_bytes());
    let store = StoreId::new(*page[24..].first_chunk().expect("a whole page"));
    let file = FileId::new(crate::cursor::u64_at(&page, 40));
    let generation = Generation::new(crate::cursor::u64_at(&page, 48));
    seal(&mut page, PageIdentity::new(store, file, generation, 0));
    if let Ok(header) = FileHeader::decode(&page, FILE) {
        assert_eq!(header.encode().as_slice(), page, "{header:?}");
    }
}

/// Frames.
pub fn decode_frames(data: &[u8]) {
    let place = identity(8192);
    assert_ne!(peek_frame_bytes(data), Some(0), "a frame takes at least one block");
    if let Ok(frame) = decode_frame(data, place) {
        check_frame(&frame, place, data);
    }
    let mut sealed = data.to_vec();
    sealed.resize(data.len().next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES), 0);
    sealed[8..12].copy_from_slice(&FRAME_MAGIC);
    sealed[48..56].copy_from_slice(&place.generation.get().to_le_bytes());
    let Some(total) = peek_frame_bytes(&sealed).filter(|total| *total <= sealed.len()) else {
        return;
    };
    let checksum = page_checksum(place, &sealed[8..total]);
    sealed[..8].copy_from_slice(&checksum.to_le_bytes());
    if let Ok(frame) = decode_frame(&sealed, place) {
        check_frame(&frame, place, &sealed);
    }
}

fn check_frame(frame: &FrameView<'_>, place: PageIdentity, bytes: &[u8]) {
    let again = build_frame(place, &frame.header, frame.payload);
    assert_eq!(again, &bytes[..frame.total_bytes], "{:?}", frame.header);
}

/// Log records. The first two bytes are the count of records.
pub fn decode_wal_records(data: &[u8]) {
    let Some((count, payload)) = data.split_first_chunk::<2>() else {
        return;
    };
    let count = u32::from(u16::from_le_bytes(*count));
    let mut again = Vec::new();
    for record in WalRecords::new(payload, count, FILE, 64) {
        match record {
            Ok(WalRecord::Operations(record)) => {
                let layout = VectorLayout::for_dimension(record.dimension, record.element)
                    .expect("the decoder checks the dimension");
                let body: usize = record.operations().map(operation_len).sum();
                let start = again.len();
                again.resize(start + operations_len(body), 0);
                let mut encoder = OperationsEncoder::new(
                    &mut again[start..],
                    record.database,
                    record.id_kind,
                    &layout,
                    record.count(),
                );
                for operation in record.operations() {
                    match operation {
                        Operation::Put { id, vector } => encoder.put_encoded(id, vector),
                        Operation::Delete { id } => encoder.delete(id),
                    }
                }
                assert_eq!(encoder.finish(), again.len() - start, "length of operations");
            }
            Ok(WalRecord::Bulk(record)) => {
                let header = BulkHeader {
                    database: record.database,
                    segment: record.segment,
                    first_row: record.first_row,
                    row_count: record.row_count,
                    rows_checksum: record.rows_checksum,
                };
                encode_bulk(&mut again, &header, &record.ids);
            }
            Err(_) => return,
        }
    }
    assert_eq!(again, payload, "records encoded again");
}

fn operation_len(operation: Operation<'_>) -> usize {
    match operation {
        Operation::Put { id, vector } => 1 + id_len(id) + vector.len(),
        Operation::Delete { id } => 1 + id_len(id),
    }
}

fn encode_bulk(out: &mut Vec<u8>, header: &BulkHeader, ids: &IdColumn<'_>) {
    let (form, id_bytes) = match ids {
        IdColumn::Consecutive { first, .. } => (IdColumnForm::Consecutive { first: *first }, 8),
        IdColumn::List(_) if ids.kind() == IdKind::U64 => {
            (IdColumnForm::U64, ids.iter().map(id_len).sum())
        }
        IdColumn::List(_) => (IdColumnForm::Bytes, ids.iter().map(id_len).sum()),
    };
    let start = out.len();
    out.resize(start + bulk_len(id_bytes), 0);
    let mut encoder = BulkEncoder::new(&mut out[start..], header, form);
    if !matches!(form, IdColumnForm::Consecutive { .. }) {
        ids.iter().for_each(|id| encoder.id(id));
    }
    assert_eq!(encoder.finish(), out.len() - start, "length of a bulk record");
}

/// Id pages. The first byte chooses the kind of ids.
pub fn decode_id_page(data: &[u8]) {
    let Some((kind, data)) = split_kind(data) else {
        return;
    };
    drop(IdPage::parse(data, kind, FILE, 4096));
    let bytes = padded(data);
    let Ok(page) = IdPage::parse(&bytes, kind, FILE, 4096) else {
        return;
    };
    let probes = [IdRef::U64(0), IdRef::U64(u64::MAX), IdRef::Bytes(b"m"), IdRef::Bytes(data)];
    for probe in probes {
        drop(page.find(probe));
        drop(page.lower_bound(probe));
    }
    if page.check().is_err() {
        page.iter().for_each(drop);
        return;
    }
    let mut builder = IdRunBuilder::new(kind);
    for (index, entry) in page.iter().enumerate() {
        let (id, row) = entry.expect("a checked page");
        assert_eq!(page.find(id).ok(), Some(Some(row)), "{id}");
        assert_eq!(page.lower_bound(id).ok(), Some(index), "{id}");
        builder.push(id, row);
    }
    assert_eq!(builder.finish().pages, bytes, "id page built again");
}

/// Fence sections. The first byte chooses the kind of ids.
pub fn decode_fences(data: &[u8]) {
    let Some((kind, data)) = split_kind(data) else {
        return;
    };
    let mut blob = data.to_vec();
    blob.resize(data.len().next_multiple_of(BLOCK_BYTES), 0);
    for blob in [data, &blob] {
        let Ok(fences) = FenceIndex::decode(blob, kind, FILE, 4096) else {
            continue;
        };
        for page in 0..fences.page_count() {
            let first = fences.first_of(page).expect("a page of the index");
            assert_eq!(fences.page_for(first), Some(page), "fence {first}");
        }
        let last = fences.last().expect("a decoded index has pages");
        assert_eq!(fences.page_for(last), fences.page_count().checked_sub(1));
        assert_eq!(fences.encode(), blob, "fences encoded again");
    }
}

/// Filters.
pub fn decode_filter(data: &[u8]) {
    for blob in [data.to_vec(), padded_to_blocks(data)] {
        let Ok(Some(filter)) = IdFilter::decode(&blob, FILE, 4096) else { continue };
        assert_eq!(filter.encode(), blob, "filter encoded again");
        let mut filter = filter;
        let id = IdRef::Bytes(data.get(..8).unwrap_or(b"x"));
        filter.insert(id);
        assert!(filter.may_contain(IdHash::of(id)), "{id} was added");
    }
}

/// Footers. The first two bytes are the dimension.
pub fn decode_footer(data: &[u8]) {
    let Some((dimension, data)) = data.split_first_chunk::<2>() else {
        return;
    };
    let dimension = u32::from(u16::from_le_bytes(*dimension));
    let Ok(layout) = VectorLayout::for_dimension(dimension, ElementType::F32) else {
        return;
    };
    drop(SegmentFooter::decode(data, identity(0), &layout, FILE));
    let mut page = padded(data);
    let file_bytes = crate::cursor::u64_at(&page, 40);
    let place = identity(file_bytes.wrapping_sub(4096));
    page[..8].copy_from_slice(&crate::segment::FOOTER_MAGIC);
    page[8..24].copy_from_slice(&place.store.get());
    page[24..32].copy_from_slice(&place.file.get().to_le_bytes());
    page[32..40].copy_from_slice(&place.generation.get().to_le_bytes());
    seal(&mut page, place);
    let Ok(footer) = SegmentFooter::decode(&page, place, &layout, FILE) else {
        return;
    };
    assert_eq!(footer.encode(place).as_slice(), page, "{footer:?}");
    for section in footer.sections() {
        let covered = section.kind != SectionKind::ChecksumTable && section.bytes != 0;
        assert_eq!(footer.checksum_index(section.kind, 0).is_some(), covered, "{section:?}");
        assert_eq!(footer.checksum_index(section.kind, u32::MAX), None, "{section:?}");
    }
    let row = footer.summary().id_index.find_dense(IdRef::U64(u64::MAX));
    assert_ne!(row, Some(Row::TOMBSTONE), "{footer:?}");
}

/// Manifest edits. The first two bytes are their count.
pub fn decode_manifest_edits(data: &[u8]) {
    let Some((count, payload)) = data.split_first_chunk::<2>() else {
        return;
    };
    let count = u32::from(u16::from_le_bytes(*count));
    if let Ok(edits) = decode_edits(payload, count, FILE, 64) {
        assert_eq!(ManifestEdit::encode_all(&edits), (payload.to_vec(), count), "{edits:?}");
    }
}

fn split_kind(data: &[u8]) -> Option<(IdKind, &[u8])> {
    let (code, data) = data.split_first()?;
    Some((if code & 1 == 0 { IdKind::U64 } else { IdKind::Bytes }, data))
}

fn padded_to_blocks(data: &[u8]) -> Vec<u8> {
    let mut blob = data.to_vec();
    blob.resize(data.len().next_multiple_of(BLOCK_BYTES), 0);
    blob
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut page = data[..data.len().min(BLOCK_BYTES)].to_vec();
    page.resize(BLOCK_BYTES, 0);
    page
}

fn seal(page: &mut [u8], identity: PageIdentity) {
    let checksum = page_checksum(identity, &page[..CHECKSUM_OFFSET]);
    page[CHECKSUM_OFFSET..].copy_from_slice(&checksum.to_le_bytes());
}
