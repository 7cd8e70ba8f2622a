//! Encoding of manifest edits.

use super::{
    Counters, DatabaseMeta, EDIT_HEADER_BYTES, FlushEdit, KIND_COUNTERS, KIND_CREATE_DATABASE,
    KIND_DROP_DATABASE, KIND_FLUSH, KIND_LOG_SEGMENT, MAX_NAME_BYTES, ManifestEdit, SegmentMeta,
};
use crate::cursor::Writer;
use crate::header::{LAYOUT_BYTES, encode_layout};
use crate::id::{IdRef, MAX_ID_BYTES};

impl ManifestEdit {
    /// Appends this edit to the payload of a frame.
    ///
    /// # Panics
    /// When a name or an id is empty or longer than its limit, or the lists have 2^32 entries:
    /// the engine refuses those before.
    pub fn encode_into(&self, payload: &mut Vec<u8>) {
        let start = payload.len();
        payload.resize(start + EDIT_HEADER_BYTES, 0);
        match self {
            Self::CreateDatabase(meta) => encode_database(payload, meta),
            Self::DropDatabase { database } => push_u32(payload, database.get()),
            Self::Flush(flush) => encode_flush(payload, flush),
            Self::Counters(counters) => encode_counters(payload, counters),
            Self::LogSegment { position, file } => {
                push_u64(payload, *position);
                push_u64(payload, file.get());
            }
        }
        let body = payload.len() - start - EDIT_HEADER_BYTES;
        let body = u32::try_from(body).expect("an edit has below 4 GiB");
        payload[start] = self.kind_code();
        payload[start + 4..start + 8].copy_from_slice(&body.to_le_bytes());
    }

    /// The payload of a frame with these edits, and their count.
    ///
    /// # Panics
    /// As [`ManifestEdit::encode_into`].
    #[must_use]
    pub fn encode_all(edits: &[Self]) -> (Vec<u8>, u32) {
        let mut payload = Vec::new();
        edits.iter().for_each(|edit| edit.encode_into(&mut payload));
        (payload, u32::try_from(edits.len()).expect("below 2^32 edits in a frame"))
    }

    const fn kind_code(&self) -> u8 {
        match self {
            Self::CreateDatabase(_) => KIND_CREATE_DATABASE,
            Self::DropDatabase { .. } => KIND_DROP_DATABASE,
            Self::Flush(_) => KIND_FLUSH,
            Self::Counters(_) => KIND_COUNTERS,
            Self::LogSegment { .. } => KIND_LOG_SEGMENT,
        }
    }
}

fn encode_database(payload: &mut Vec<u8>, meta: &DatabaseMeta) {
    let name_bytes = meta.name.len();
    assert!(0 < name_bytes && name_bytes <= MAX_NAME_BYTES, "name of {name_bytes} bytes");
    push_u32(payload, meta.database.get());
    let start = payload.len();
    payload.resize(start + LAYOUT_BYTES, 0);
    encode_layout(&mut Writer::new(&mut payload[start..]), meta.id_kind, &meta.layout);
    payload.push(u8::try_from(name_bytes).expect("length was checked above"));
    payload.extend_from_slice(meta.name.as_bytes());
}

fn encode_flush(payload: &mut Vec<u8>, flush: &FlushEdit) {
    let count = |len| u32::try_from(len).expect("below 2^32 segments");
    push_u32(payload, flush.database.get());
    push_u32(payload, 0);
    push_u64(payload, flush.flushed_lsn.get());
    push_u64(payload, flush.live_records);
    push_u32(payload, count(flush.added.len()));
    push_u32(payload, count(flush.removed.len()));
    flush.added.iter().for_each(|segment| encode_segment(payload, segment));
    flush.removed.iter().for_each(|file| push_u64(payload, file.get()));
}

fn encode_segment(payload: &mut Vec<u8>, segment: &SegmentMeta) {
    push_u64(payload, segment.file.get());
    push_u64(payload, segment.generation.get());
    push_u64(payload, segment.file_bytes);
    push_u32(payload, segment.row_count);
    push_u32(payload, segment.entry_count);
    push_u32(payload, segment.tombstone_count);
    push_u32(payload, segment.live_rows);
    push_u32(payload, segment.level);
    push_u32(payload, 0);
    push_u64(payload, segment.order);
    push_u64(payload, segment.max_lsn.get());
    encode_id(payload, segment.min_id.as_id_ref());
    encode_id(payload, segment.max_id.as_id_ref());
}

fn encode_counters(payload: &mut Vec<u8>, counters: &Counters) {
    push_u64(payload, counters.next_file.get());
    push_u64(payload, counters.next_generation.get());
    push_u64(payload, counters.next_lsn.get());
    push_u64(payload, counters.wal_position);
    push_u64(payload, counters.wal_sequence.get());
    push_u32(payload, counters.next_database.get());
}

fn encode_id(payload: &mut Vec<u8>, id: IdRef<'_>) {
    payload.push(id.kind().code());
    match id {
        IdRef::U64(number) => push_u64(payload, number),
        IdRef::Bytes(bytes) => {
            assert!(!bytes.is_empty(), "an id of no bytes");
            assert!(bytes.len() <= MAX_ID_BYTES, "id of {} bytes", bytes.len());
            payload.push(u8::try_from(bytes.len()).expect("length was checked above"));
            payload.extend_from_slice(bytes);
        }
    }
}

fn push_u32(payload: &mut Vec<u8>, value: u32) {
    payload.extend_from_slice(&value.to_le_bytes());
}

fn push_u64(payload: &mut Vec<u8>, value: u64) {
    payload.extend_from_slice(&value.to_le_bytes());
}
