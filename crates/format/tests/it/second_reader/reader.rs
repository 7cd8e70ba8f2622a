//! A reader of Nephrite's files that was written from `docs/format.md` alone.
//!
//! It shares nothing with the crate but the XXH3 function: no types, no constants, no decoders.
//! Each function cites the part of the page that it follows. It panics where the page says that
//! something must hold, because it reads only files that the tests wrote; finding damage is
//! the crate's business and tested elsewhere.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from(bytes[at]) + 256 * u16::from(bytes[at + 1])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    (0..4).rev().fold(0, |value, index| value * 256 + u32::from(bytes[at + index]))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    (0..8).rev().fold(0, |value, index| value * 256 + u64::from(bytes[at + index]))
}

fn index(value: u64) -> usize {
    usize::try_from(value).expect("test files are small")
}

fn assert_zero(bytes: &[u8], what: &str) {
    assert!(bytes.iter().all(|byte| *byte == 0), "{what} must be zero: {bytes:?}");
}

/// "Terms": an id of either kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AnyId {
    Number(u64),
    Bytes(Vec<u8>),
}

/// "The write-ahead log": an *id* in a body; returns the id and its length.
fn id_at(bytes: &[u8], at: usize, kind: u8) -> (AnyId, usize) {
    match kind {
        1 => (AnyId::Number(u64_at(bytes, at)), 8),
        2 => {
            let len = usize::from(bytes[at]);
            assert_ne!(len, 0, "ids have at least one byte");
            (AnyId::Bytes(bytes[at + 1..at + 1 + len].to_vec()), 1 + len)
        }
        _ => panic!("kind of id {kind}"),
    }
}

/// "The header page", with what the other parts need to know about the file.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) kind: u8,
    pub(crate) store: [u8; 16],
    pub(crate) file: u64,
    pub(crate) generation: u64,
    pub(crate) detail: Vec<u8>,
}

impl Header {
    pub(crate) fn read(file: &[u8]) -> Self {
        let page = &file[..4096];
        assert_eq!(page[0..8], [0x89, 0x4e, 0x50, 0x48, 0x0d, 0x0a, 0x1a, 0x0a], "magic");
        assert_eq!(u32_at(page, 8), 1, "format version");
        let mut store = [0; 16];
        store.copy_from_slice(&page[24..40]);
        let header = Self {
            kind: page[12],
            store,
            file: u64_at(page, 40),
            generation: u64_at(page, 48),
            detail: page[128..192].to_vec(),
        };
        assert_eq!(header.checksum(0, &page[..4088]), u64_at(page, 4088), "header checksum");
        assert_eq!(page[13], 0, "compression");
        assert_zero(&page[14..16], "14..16");
        assert_eq!(u32_at(page, 16), 192, "bytes in use");
        assert_eq!(u32_at(page, 20), 0, "key id");
        assert_zero(&page[56..128], "56..128");
        assert_zero(&page[192..4088], "192..4088");
        header
    }

    /// "Checksums".
    pub(crate) fn checksum(&self, offset: u64, bytes: &[u8]) -> u64 {
        let mut identity = self.store.to_vec();
        for number in [self.file, self.generation, offset] {
            identity.extend((0..8).map(|byte| (number >> (8 * byte) & 0xff) as u8));
        }
        xxh3_64_with_seed(bytes, xxh3_64(&identity))
    }
}

/// "Vector layout".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) dimension: u32,
    pub(crate) id_kind: u8,
    pub(crate) stride: u32,
    pub(crate) page: u32,
    pub(crate) rows_per_page: u32,
}

impl Layout {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let layout = Self {
            dimension: u32_at(bytes, 0),
            id_kind: bytes[5],
            stride: u32_at(bytes, 8),
            page: u32_at(bytes, 12),
            rows_per_page: u32_at(bytes, 16),
        };
        assert_eq!(bytes[4], 1, "element type");
        assert_zero(&bytes[6..8], "6..8 of a layout");
        assert_eq!(layout.stride, (layout.dimension * 4).div_ceil(64) * 64, "stride");
        assert_eq!(layout.rows_per_page, layout.page / layout.stride, "rows per page");
        layout
    }

    /// Bits of the elements of a row, from the bytes of the whole file.
    pub(crate) fn row(&self, file: &[u8], row: u32) -> Vec<u32> {
        let page = 4096 + u64::from(row / self.rows_per_page) * u64::from(self.page);
        let start = index(page) + (row % self.rows_per_page * self.stride) as usize;
        elements(&file[start..start + 4 * self.dimension as usize])
    }
}

fn elements(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(4).map(|element| u32_at(element, 0)).collect()
}

/// "Frames".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) count: u32,
    pub(crate) sequence: u64,
    pub(crate) first_lsn: u64,
    pub(crate) durable_through: u64,
    pub(crate) payload: Vec<u8>,
}

/// All frames of a file up to the first place that is blank or does not verify.
pub(crate) fn frames(file: &[u8], header: &Header) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut start = 4096;
    while let Some((frame, len)) = frame_at(file, header, start) {
        frames.push(frame);
        start += len;
    }
    frames
}

fn frame_at(file: &[u8], header: &Header, start: usize) -> Option<(Frame, usize)> {
    let bytes = file.get(start..).filter(|bytes| 64 <= bytes.len())?;
    if bytes[8..12] != [0x4e, 0x46, 0x52, 0x4d] || u64_at(bytes, 48) != header.generation {
        return None;
    }
    let payload = u32_at(bytes, 16) as usize;
    let len = (64 + payload).div_ceil(4096) * 4096;
    let bytes = bytes.get(..len)?;
    if header.checksum(start as u64, &bytes[8..]) != u64_at(bytes, 0) {
        return None;
    }
    assert_zero(&bytes[13..16], "13..16 of a frame");
    assert_zero(&bytes[56..64], "56..64 of a frame");
    assert_zero(&bytes[64 + payload..], "padding of a frame");
    let frame = Frame {
        kind: bytes[12],
        count: u32_at(bytes, 20),
        sequence: u64_at(bytes, 24),
        first_lsn: u64_at(bytes, 32),
        durable_through: u64_at(bytes, 40),
        payload: bytes[64..64 + payload].to_vec(),
    };
    Some((frame, len))
}

/// "The write-ahead log": records of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Operations { database: u32, dimension: u32, operations: Vec<(AnyId, Option<Vec<u32>>)> },
    Bulk { database: u32, segment: u64, checksum: u64, first_row: u32, ids: Vec<AnyId> },
}

pub(crate) fn records(frame: &Frame) -> Vec<Record> {
    let payload = &frame.payload;
    let mut records = Vec::new();
    let mut at = 0;
    for _ in 0..frame.count {
        assert_zero(&payload[at + 2..at + 4], "2..4 of a record");
        let body = &payload[at + 16..at + 16 + u32_at(payload, at + 8) as usize];
        let (id_kind, database) = (payload[at + 1], u32_at(payload, at + 4));
        let count = u32_at(payload, at + 12);
        records.push(match payload[at] {
            1 => operations(body, id_kind, database, count),
            2 => bulk(body, id_kind, database, count),
            kind => panic!("kind of record {kind}"),
        });
        at += 16 + body.len();
    }
    assert_eq!(at, payload.len(), "records fill the payload");
    records
}

fn operations(body: &[u8], id_kind: u8, database: u32, count: u32) -> Record {
    let dimension = u32_at(body, 0);
    assert_eq!(body[4], 1, "element type");
    assert_zero(&body[5..8], "5..8 of operations");
    let mut operations = Vec::new();
    let mut at = 8;
    for _ in 0..count {
        let tag = body[at];
        let (id, len) = id_at(body, at + 1, id_kind);
        at += 1 + len;
        let vector = match tag {
            1 => {
                let bytes = &body[at..at + 4 * dimension as usize];
                at += bytes.len();
                Some(elements(bytes))
            }
            2 => None,
            _ => panic!("operation {tag}"),
        };
        operations.push((id, vector));
    }
    assert_eq!(at, body.len(), "operations fill the body");
    Record::Operations { database, dimension, operations }
}

fn bulk(body: &[u8], id_kind: u8, database: u32, count: u32) -> Record {
    assert_zero(&body[21..24], "21..24 of a bulk record");
    let mut at = 24;
    let mut ids = Vec::new();
    match (body[20], id_kind) {
        (1, 1) => {
            let first = u64_at(body, at);
            ids.extend((0..u64::from(count)).map(|index| AnyId::Number(first + index)));
            at += 8;
        }
        (2, 1) | (3, 2) => {
            for _ in 0..count {
                let (id, len) = id_at(body, at, id_kind);
                ids.push(id);
                at += len;
            }
        }
        (form, _) => panic!("form of ids {form}"),
    }
    assert_eq!(at, body.len(), "ids fill the body");
    Record::Bulk {
        database,
        segment: u64_at(body, 0),
        checksum: u64_at(body, 8),
        first_row: u32_at(body, 16),
        ids,
    }
}

/// Checksum of the rows of a bulk record, from the bytes of the segment file.
pub(crate) fn rows_checksum(file: &[u8], header: &Header, first_row: u32, count: u32) -> u64 {
    let layout = Layout::read(&header.detail[4..24]);
    let place = |row: u32| {
        let page = u64::from(row / layout.rows_per_page) * u64::from(layout.page);
        4096 + page + u64::from(row % layout.rows_per_page * layout.stride)
    };
    let mut rows = Vec::new();
    for row in first_row..first_row + count {
        let start = index(place(row));
        rows.extend_from_slice(&file[start..start + 4 * layout.dimension as usize]);
    }
    header.checksum(place(first_row), &rows)
}

/// "Segments": what a sealed segment says about each id; tombstones have no vector.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) database: u32,
    pub(crate) rows: u32,
    pub(crate) tombstones: u32,
    pub(crate) highest_lsn: u64,
    pub(crate) in_id_order: bool,
    pub(crate) dense: bool,
    pub(crate) content: BTreeMap<AnyId, Option<Vec<u32>>>,
}

struct Section {
    kind: u16,
    page: u32,
    offset: u64,
    length: u64,
}

pub(crate) fn segment(file: &[u8]) -> Segment {
    let header = Header::read(file);
    assert_eq!(header.kind, 2, "kind of file");
    let layout = Layout::read(&header.detail[4..24]);
    assert_zero(&header.detail[24..], "rest of the detail");
    let start = file.len() - 4096;
    let footer = &file[start..];
    assert_eq!(&footer[0..8], b"NPHFOOT\x1a", "footer magic");
    assert_eq!(header.checksum(start as u64, &footer[..4088]), u64_at(footer, 4088), "footer");
    assert_eq!(footer[8..24], header.store, "store in the footer");
    assert_eq!(u64_at(footer, 24), header.file, "file in the footer");
    assert_eq!(u64_at(footer, 32), header.generation, "generation in the footer");
    assert_eq!(u64_at(footer, 40), file.len() as u64, "length in the footer");
    assert_eq!(u32_at(footer, 56), u32_at(&header.detail, 0), "database in the footer");
    assert_zero(&footer[74..76], "74..76 of the footer");
    assert_zero(&footer[96..128], "96..128 of the footer");
    let sections = sections(footer);
    check_pages(file, &header, &sections);
    let dense = footer[72] == 1;
    let rows =
        if dense { dense_rows(footer) } else { sorted_rows(file, &sections, layout.id_kind) };
    assert_eq!(rows.len(), u32_at(footer, 64) as usize, "count of ids");
    let content =
        rows.into_iter().map(|(id, row)| (id, (row != 0xffff_ffff).then(|| layout.row(file, row))));
    Segment {
        database: u32_at(footer, 56),
        rows: u32_at(footer, 60),
        tombstones: u32_at(footer, 68),
        highest_lsn: u64_at(footer, 48),
        in_id_order: footer[73] & 1 == 1,
        dense,
        content: content.collect(),
    }
}

/// "Footer page": the section table; sections lie back to back up to the footer.
fn sections(footer: &[u8]) -> Vec<Section> {
    let count = u32_at(footer, 92) as usize;
    let sections: Vec<Section> = (0..count)
        .map(|number| &footer[128 + 32 * number..][..32])
        .map(|entry| {
            let required = u16_at(entry, 0) != 17;
            assert_eq!(u16_at(entry, 2), u16::from(required), "only the filter is optional");
            assert_zero(&entry[24..], "24..32 of a section");
            Section {
                kind: u16_at(entry, 0),
                page: u32_at(entry, 4),
                offset: u64_at(entry, 8),
                length: u64_at(entry, 16),
            }
        })
        .collect();
    assert_zero(&footer[128 + 32 * count..4088], "rest of the footer");
    let mut next = 4096;
    for section in &sections {
        assert_eq!(section.offset, next, "section {}", section.kind);
        next += section.length;
    }
    assert_eq!(next + 4096, u64_at(footer, 40), "sections end at the footer");
    sections
}

/// "Checksum table": every page of every other section, in order.
fn check_pages(file: &[u8], header: &Header, sections: &[Section]) {
    let table = sections.iter().find(|section| section.kind == 4).expect("a checksum table");
    let mut checksums = Vec::new();
    for start in (table.offset..table.offset + table.length).step_by(4096) {
        let page = &file[index(start)..][..4096];
        assert_eq!(header.checksum(start, &page[..4088]), u64_at(page, 4088), "table page");
        checksums.extend((0..511).map(|number| u64_at(page, 8 * number)));
    }
    let mut checksums = checksums.into_iter();
    for section in sections.iter().filter(|section| section.kind != 4) {
        for start in
            (section.offset..section.offset + section.length).step_by(section.page as usize)
        {
            let page = &file[index(start)..][..section.page as usize];
            let stored = checksums.next().expect("a checksum for every page");
            assert_eq!(header.checksum(start, page), stored, "page at {start}");
        }
    }
    assert!(checksums.all(|checksum| checksum == 0), "zero after the last checksum");
}

fn dense_rows(footer: &[u8]) -> Vec<(AnyId, u32)> {
    let (count, first, row) = (u32_at(footer, 76), u64_at(footer, 80), u32_at(footer, 88));
    (0..count).map(|number| (AnyId::Number(first + u64::from(number)), row + number)).collect()
}

/// "Id pages" and "Fences": all entries, and the fences must agree with them.
fn sorted_rows(file: &[u8], sections: &[Section], kind: u8) -> Vec<(AnyId, u32)> {
    let find = |kind| sections.iter().find(|section| section.kind == kind).expect("a section");
    let (ids, fences) = (find(2), find(3));
    let mut rows = Vec::new();
    let mut firsts = Vec::new();
    for page in file[index(ids.offset)..][..index(ids.length)].chunks(4096) {
        let entries = id_page(page, kind);
        firsts.push(entries[0].0.clone());
        rows.extend(entries);
    }
    assert!(rows.is_sorted_by(|left, right| left.0 < right.0), "ids ascend");
    firsts.push(rows[rows.len() - 1].0.clone());
    let blob = &file[index(fences.offset)..][..index(fences.length)];
    assert_eq!(read_fences(blob, kind), firsts, "fences");
    if let Some(filter) = sections.iter().find(|section| section.kind == 17) {
        let blob = &file[index(filter.offset)..][..index(filter.length)];
        rows.iter().for_each(|(id, _)| assert!(is_in_filter(blob, id), "{id:?} is denied"));
    }
    rows
}

/// "Filter": whether an id may be in the run.
fn is_in_filter(blob: &[u8], id: &AnyId) -> bool {
    const FACTORS: [u32; 8] = [
        0x47b6_137b,
        0x4497_4d91,
        0x8824_ad5b,
        0xa2b7_289d,
        0x7054_95c7,
        0x2df1_424b,
        0x9efc_4947,
        0x5c6b_fb31,
    ];
    assert_eq!(blob[0], 1, "form of the filter");
    let count = u64_at(blob, 8);
    assert_zero(&blob[1..8], "1..8 of the filter");
    assert_zero(&blob[16..32], "16..32 of the filter");
    assert_zero(&blob[32 + 32 * index(count)..], "rest of the filter");
    let hash = match id {
        AnyId::Number(number) => xxh3_64(&number.to_le_bytes()),
        AnyId::Bytes(bytes) => xxh3_64(bytes),
    };
    let block =
        index(u64::try_from((u128::from(hash) * u128::from(count)) >> 64).expect("a block"));
    let low = u32::try_from(hash % (1 << 32)).expect("the lower half");
    (0..8).all(|word| {
        let bit = low.wrapping_mul(FACTORS[word]) / (1 << 27);
        u32_at(blob, 32 + 32 * block + 4 * word) / (1 << bit) % 2 == 1
    })
}

fn id_page(page: &[u8], kind: u8) -> Vec<(AnyId, u32)> {
    let count = usize::from(u16_at(page, 0));
    assert_eq!(page[2], kind, "kind of an id page");
    assert_zero(&page[3..8], "3..8 of an id page");
    if kind == 1 {
        assert_zero(&page[8 + 8 * count..2728], "ids not in use");
        assert_zero(&page[2728 + 4 * count..], "rows not in use");
        let entry =
            |number| (AnyId::Number(u64_at(page, 8 + 8 * number)), u32_at(page, 2728 + 4 * number));
        return (0..count).map(entry).collect();
    }
    let mut end = 8 + 2 * count;
    let mut entries = Vec::new();
    for number in 0..count {
        let at = usize::from(u16_at(page, 8 + 2 * number));
        assert_eq!(at, end, "entries have no gaps");
        let (id, len) = id_at(page, at + 4, kind);
        entries.push((id, u32_at(page, at)));
        end = at + 4 + len;
    }
    assert_zero(&page[end..], "rest of an id page");
    entries
}

fn read_fences(blob: &[u8], kind: u8) -> Vec<AnyId> {
    assert_eq!(blob[0], kind, "kind of fences");
    assert_zero(&blob[1..4], "1..4 of fences");
    let mut ids = Vec::new();
    let mut at = 16;
    for _ in 0..=u32_at(blob, 4) {
        let (id, len) = id_at(blob, at, kind);
        ids.push(id);
        at += len;
    }
    assert_eq!(at as u64, u64_at(blob, 8), "length of fences");
    assert_zero(&blob[at..], "padding of fences");
    assert_eq!(blob.len(), at.div_ceil(4096) * 4096, "whole blocks of fences");
    ids
}

/// "The manifest": edits of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    Create { database: u32, layout: Layout, name: String },
    Drop { database: u32 },
    Flush { database: u32, lsn: u64, live: u64, added: Vec<Added>, removed: Vec<u64> },
    LogSegment { position: u64, file: u64 },
    Counters { file: u64, generation: u64, lsn: u64, position: u64, sequence: u64, database: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Added {
    pub(crate) numbers64: [u64; 5],
    pub(crate) numbers32: [u32; 5],
    pub(crate) smallest: AnyId,
    pub(crate) largest: AnyId,
}

pub(crate) fn edits(frame: &Frame) -> Vec<Edit> {
    let payload = &frame.payload;
    let mut edits = Vec::new();
    let mut at = 0;
    for _ in 0..frame.count {
        assert_zero(&payload[at + 1..at + 4], "1..4 of an edit");
        let body = &payload[at + 8..at + 8 + u32_at(payload, at + 4) as usize];
        edits.push(edit(payload[at], body));
        at += 8 + body.len();
    }
    assert_eq!(at, payload.len(), "edits fill the payload");
    edits
}

fn edit(kind: u8, body: &[u8]) -> Edit {
    let database = u32_at(body, 0);
    match kind {
        1 => {
            let len = usize::from(body[24]);
            assert_eq!(body.len(), 25 + len, "length of a database's name");
            let name = String::from_utf8(body[25..].to_vec()).expect("UTF-8");
            Edit::Create { database, layout: Layout::read(&body[4..24]), name }
        }
        2 => Edit::Drop { database },
        3 => flush(body),
        4 => Edit::Counters {
            file: u64_at(body, 0),
            generation: u64_at(body, 8),
            lsn: u64_at(body, 16),
            position: u64_at(body, 24),
            sequence: u64_at(body, 32),
            database: u32_at(body, 40),
        },
        5 => Edit::LogSegment { position: u64_at(body, 0), file: u64_at(body, 8) },
        _ => panic!("kind of edit {kind}"),
    }
}

fn flush(body: &[u8]) -> Edit {
    assert_zero(&body[4..8], "4..8 of a flush");
    let mut at = 32;
    let mut added = Vec::new();
    for _ in 0..u32_at(body, 24) {
        let fixed = &body[at..];
        assert_zero(&fixed[44..48], "44..48 of a segment");
        let (smallest, small_len) = id_at(fixed, 65, fixed[64]);
        let (largest, large_len) = id_at(fixed, 66 + small_len, fixed[65 + small_len]);
        added.push(Added {
            numbers64: [0, 8, 16, 48, 56].map(|offset| u64_at(fixed, offset)),
            numbers32: [24, 28, 32, 36, 40].map(|offset| u32_at(fixed, offset)),
            smallest,
            largest,
        });
        at += 66 + small_len + large_len;
    }
    let count = u32_at(body, 28) as usize;
    let removed = (0..count).map(|number| u64_at(body, at + 8 * number)).collect();
    assert_eq!(at + 8 * count, body.len(), "a flush fills its body");
    Edit::Flush {
        database: u32_at(body, 0),
        lsn: u64_at(body, 8),
        live: u64_at(body, 16),
        added,
        removed,
    }
}
