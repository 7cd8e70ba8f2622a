//! A reader of Nephrite's files that was written from `docs/format.md` alone.
//!
//! It shares nothing with the crate but the XXH3 function: no types, no constants, no decoders.
//! Each function cites the part of the page that it follows. It panics where the page says that
//! something must hold, because it reads only files that the tests wrote; finding damage is
//! the crate's business and tested elsewhere.

mod manifest;
mod segment;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub(crate) use self::{
    manifest::{Added, Edit, edits},
    segment::segment,
};

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
