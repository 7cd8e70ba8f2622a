//! Edits of the manifest: the list of databases and segments, as a history of changes.
//!
//! A manifest file is a header page, then frames: one or more `ManifestSnapshot` frames and one
//! `ManifestSnapshotEnd` frame whose edits build the whole state from nothing, then one
//! `ManifestEdits` frame per later change. A frame applies as a whole. Without the end of its
//! snapshot a manifest is not complete and an older one is the truth.
//!
//! This module owns lengths, enumerations, text and ranges. Whether an edit fits the state
//! (unknown databases, files added twice) is for the engine to judge.

mod decode;
mod encode;

pub use decode::{ManifestEdits, decode_edits};

use crate::id::{Id, IdKind};
use crate::ids::{DatabaseId, FileId, FrameSequence, Generation, Lsn};
use crate::layout::VectorLayout;

/// The longest name of a database, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 255;

const KIND_CREATE_DATABASE: u8 = 1;
const KIND_DROP_DATABASE: u8 = 2;
const KIND_FLUSH: u8 = 3;
const KIND_COUNTERS: u8 = 4;
const KIND_LOG_SEGMENT: u8 = 5;

/// Bytes of an edit before its body.
const EDIT_HEADER_BYTES: usize = 8;

/// One change of the state.
#[expect(clippy::exhaustive_enums, reason = "the engine must apply every kind")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ManifestEdit {
    /// A database appears.
    CreateDatabase(DatabaseMeta),
    /// A database and all its segments disappear.
    DropDatabase {
        /// The database.
        database: DatabaseId,
    },
    /// A database has other segments: after a flush, a compaction, or a bulk load.
    Flush(FlushEdit),
    /// The next free numbers. The newest edit of this kind holds.
    Counters(Counters),
    /// A file was made ready to be the log segment at a position: its header says so on disk, and
    /// only then frames go there. A segment that recovery needs and that is not whole is damage.
    LogSegment {
        /// Position in the log.
        position: u64,
        /// The log file.
        file: FileId,
    },
}

/// What a database is.
#[expect(clippy::exhaustive_structs, reason = "the engine builds it; a new field is a new format")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DatabaseMeta {
    /// The database.
    pub database: DatabaseId,
    /// Its name: 1 to [`MAX_NAME_BYTES`] bytes of UTF-8.
    pub name: String,
    /// Kind of its ids.
    pub id_kind: IdKind,
    /// Dimension, element type and page layout.
    pub layout: VectorLayout,
}

/// A change of a database's segments.
#[expect(clippy::exhaustive_structs, reason = "the engine builds it; a new field is a new format")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlushEdit {
    /// The database.
    pub database: DatabaseId,
    /// Log records of this database up to and including this number are in its segments.
    pub flushed_lsn: Lsn,
    /// Ids that the segments hold and that are not deleted.
    pub live_records: u64,
    /// New segments.
    pub added: Vec<SegmentMeta>,
    /// Segments that are no more part of the database.
    pub removed: Vec<FileId>,
}

/// What the manifest knows about a segment.
#[expect(clippy::exhaustive_structs, reason = "the engine builds it; a new field is a new format")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentMeta {
    /// The file.
    pub file: FileId,
    /// Which life of the file.
    pub generation: Generation,
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// Rows, garbage included.
    pub row_count: u32,
    /// Ids, tombstones included.
    pub entry_count: u32,
    /// Ids that are tombstones.
    pub tombstone_count: u32,
    /// Rows that were visible when the edit was written; a lower one is garbage.
    pub live_rows: u32,
    /// Compaction level; 0 for flushed memtables and bulk loads.
    pub level: u32,
    /// Age: a segment of higher order shadows those of lower order.
    pub order: u64,
    /// The highest log sequence number in the segment.
    pub max_lsn: Lsn,
    /// The smallest id.
    pub min_id: Id,
    /// The largest id; of the same kind.
    pub max_id: Id,
}

/// The next free numbers of a store, and where its log begins.
#[expect(clippy::exhaustive_structs, reason = "the engine builds it; a new field is a new format")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counters {
    /// No file has this id or a higher one.
    pub next_file: FileId,
    /// No database has this id or a higher one, dropped ones included.
    pub next_database: DatabaseId,
    /// No file has this generation or a higher one.
    pub next_generation: Generation,
    /// No flushed record has this number or a higher one.
    pub next_lsn: Lsn,
    /// Position in the log of the first segment that recovery needs.
    pub wal_position: u64,
    /// Sequence of the first frame of that segment.
    pub wal_sequence: FrameSequence,
}
