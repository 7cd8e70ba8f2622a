//! Decoding of manifest edits from the payload of a verified frame.
//!
//! Lists are allocated only as far as the bytes at hand can fill them.

use super::{
    Counters, DatabaseMeta, FlushEdit, KIND_COUNTERS, KIND_CREATE_DATABASE, KIND_DROP_DATABASE,
    KIND_FLUSH, KIND_LOG_SEGMENT, ManifestEdit, SegmentMeta,
};
use crate::BLOCK_BYTES_U64;
use crate::cursor::Cursor;
use crate::error::Result;
use crate::header::decode_layout;
use crate::id::{Id, IdKind};
use crate::ids::{DatabaseId, FileId, FrameSequence, Generation, Lsn};
use crate::wal::decode_id;

/// Bytes of the shortest segment entry: fixed fields and two byte ids of one byte.
const SEGMENT_BYTES_MIN: usize = 64 + 2 * 3;
const FILE_ID_BYTES: usize = 8;

/// The edits of one frame, in order. After an error there are no more.
#[derive(Clone, Debug)]
pub struct ManifestEdits<'a> {
    cursor: Cursor<'a>,
    file: &'a str,
    left: u32,
    done: bool,
}

impl<'a> ManifestEdits<'a> {
    /// Reads `edit_count` edits from the payload of a frame; `offset` is the file offset of the
    /// payload and `file` the file's name, both for errors.
    #[must_use]
    pub const fn new(payload: &'a [u8], edit_count: u32, file: &'a str, offset: u64) -> Self {
        Self { cursor: Cursor::new(payload, offset, file), file, left: edit_count, done: false }
    }
}

impl Iterator for ManifestEdits<'_> {
    type Item = Result<ManifestEdit>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        if self.left == 0 {
            self.done = true;
            return self.cursor.finish("the last edit").err().map(Err);
        }
        self.left -= 1;
        let edit = decode_edit(&mut self.cursor, self.file);
        self.done = edit.is_err();
        Some(edit)
    }
}

/// All edits of one frame.
///
/// # Errors
/// The first error of [`ManifestEdits`].
pub fn decode_edits(
    payload: &[u8],
    edit_count: u32,
    file: &str,
    offset: u64,
) -> Result<Vec<ManifestEdit>> {
    ManifestEdits::new(payload, edit_count, file, offset).collect()
}

fn decode_edit(cursor: &mut Cursor<'_>, file: &str) -> Result<ManifestEdit> {
    let start = *cursor;
    let kind = cursor.u8("kind of edit")?;
    cursor.zeros(3, "edit")?;
    let body_bytes = cursor.u32("length of edit")? as usize;
    let mut body = cursor.sub(body_bytes, "edit")?;
    let edit = match kind {
        KIND_CREATE_DATABASE => ManifestEdit::CreateDatabase(decode_database(&mut body, file)?),
        KIND_DROP_DATABASE => {
            ManifestEdit::DropDatabase { database: DatabaseId::new(body.u32("database")?) }
        }
        KIND_FLUSH => ManifestEdit::Flush(decode_flush(&mut body)?),
        KIND_COUNTERS => ManifestEdit::Counters(decode_counters(&mut body)?),
        KIND_LOG_SEGMENT => ManifestEdit::LogSegment {
            position: body.u64("position of log segment")?,
            file: FileId::new(body.u64("file of log segment")?),
        },
        _ => return Err(start.corrupt(format!("{kind} is no kind of edit"))),
    };
    body.finish("the edit")?;
    Ok(edit)
}

fn decode_database(body: &mut Cursor<'_>, file: &str) -> Result<DatabaseMeta> {
    let database = DatabaseId::new(body.u32("database")?);
    let (id_kind, layout) = decode_layout(body, file)?;
    let start = *body;
    let len = body.u8("length of name")?;
    let name = body.take(usize::from(len), "name")?;
    let name = match std::str::from_utf8(name) {
        Ok(name) if !name.is_empty() => name.to_owned(),
        Ok(_) => return Err(start.corrupt("the database has an empty name")),
        Err(error) => return Err(start.corrupt(format!("the name is not UTF-8: {error}"))),
    };
    Ok(DatabaseMeta { database, name, id_kind, layout })
}

fn decode_flush(body: &mut Cursor<'_>) -> Result<FlushEdit> {
    let database = DatabaseId::new(body.u32("database")?);
    body.zeros(4, "flush")?;
    let flushed_lsn = Lsn::new(body.u64("flushed sequence number")?);
    let live_records = body.u64("count of records")?;
    let added_count = body.u32("count of added segments")? as usize;
    let removed_count = body.u32("count of removed segments")? as usize;
    let mut added = Vec::with_capacity(added_count.min(body.remaining() / SEGMENT_BYTES_MIN));
    for _ in 0..added_count {
        added.push(decode_segment(body)?);
    }
    let mut removed = Vec::with_capacity(removed_count.min(body.remaining() / FILE_ID_BYTES));
    for _ in 0..removed_count {
        removed.push(FileId::new(body.u64("removed file")?));
    }
    Ok(FlushEdit { database, flushed_lsn, live_records, added, removed })
}

fn decode_segment(body: &mut Cursor<'_>) -> Result<SegmentMeta> {
    let start = *body;
    let segment = decode_segment_fields(body)?;
    let corrupt = |what: &str| Err(start.corrupt(format!("segment {}: {what}", segment.file)));
    if !segment.file_bytes.is_multiple_of(BLOCK_BYTES_U64) {
        return corrupt("its length is not a multiple of 4096");
    }
    let puts = segment.entry_count.checked_sub(segment.tombstone_count);
    if segment.entry_count == 0 || puts.is_none_or(|puts| segment.row_count < puts) {
        return corrupt("its counts contradict each other");
    }
    if segment.row_count < segment.live_rows {
        return corrupt("it has more live rows than rows");
    }
    if segment.min_id.kind() != segment.max_id.kind() || segment.max_id < segment.min_id {
        return corrupt("its smallest and largest id contradict each other");
    }
    Ok(segment)
}

fn decode_segment_fields(body: &mut Cursor<'_>) -> Result<SegmentMeta> {
    let file = FileId::new(body.u64("segment file")?);
    let generation = Generation::new(body.u64("segment generation")?);
    let file_bytes = body.u64("segment length")?;
    let row_count = body.u32("count of rows")?;
    let entry_count = body.u32("count of ids")?;
    let tombstone_count = body.u32("count of tombstones")?;
    let live_rows = body.u32("count of live rows")?;
    let level = body.u32("level")?;
    body.zeros(4, "segment")?;
    Ok(SegmentMeta {
        file,
        generation,
        file_bytes,
        row_count,
        entry_count,
        tombstone_count,
        live_rows,
        level,
        order: body.u64("order")?,
        max_lsn: Lsn::new(body.u64("highest sequence number")?),
        min_id: decode_tagged_id(body)?,
        max_id: decode_tagged_id(body)?,
    })
}

fn decode_counters(body: &mut Cursor<'_>) -> Result<Counters> {
    Ok(Counters {
        next_file: FileId::new(body.u64("next file")?),
        next_generation: Generation::new(body.u64("next generation")?),
        next_lsn: Lsn::new(body.u64("next sequence number")?),
        wal_position: body.u64("log position")?,
        wal_sequence: FrameSequence::new(body.u64("log sequence")?),
        next_database: DatabaseId::new(body.u32("next database")?),
    })
}

fn decode_tagged_id(body: &mut Cursor<'_>) -> Result<Id> {
    let start = *body;
    let code = body.u8("id kind")?;
    let Some(kind) = IdKind::from_code(code) else {
        return Err(start.corrupt(format!("{code} is no kind of id")));
    };
    Ok(decode_id(body, kind)?.to_id())
}
