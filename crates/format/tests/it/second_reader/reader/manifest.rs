//! The manifest of a second reader: edits of a payload.
//! Each function cites the part of `docs/format.md` that it follows.

use super::{AnyId, Frame, Layout, assert_zero, id_at, u32_at, u64_at};

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
