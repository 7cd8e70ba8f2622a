//! The byte layout of everything Nephrite writes: encode, decode, checksums.
//!
//! This crate is pure: bytes in, values out. It does no I/O, starts no threads, holds no locks and
//! has no unsafe code. Every integer on disk is little-endian on every host. `docs/format.md` in
//! the repository specifies the same layout in tables; a test reads encoded files with nothing
//! but that page.
//!
//! # What it guarantees
//!
//! - Decoding arbitrary bytes returns a value or an error that names file and offset. It never
//!   panics, and it never allocates more than a small multiple of its input.
//! - Checksums cover the identity of what they protect (store, file, generation, byte offset),
//!   so that a page written to the wrong place or left over from an earlier life is found.
//!
//! # Map
//!
//! | module | what it holds |
//! |---|---|
//! | [`ids`] | typed numbers: file, database, row, log sequence number |
//! | [`id`] | record ids: `IdRef`, `Id`, `IdKind` |
//! | [`checksum`] | XXH3 seeded by identity |
//! | [`layout`] | how rows of a dimension lie in pages |
//! | [`header`] | first page of every file |
//! | [`frame`] | groups of records in the log and the manifest |
//! | [`wal`] | records inside a log frame |
//! | [`id_run`] | sorted id pages, fences, the dense form |
//! | [`segment`] | footer and checksum table of a sealed segment |
//! | [`trace`] | recorded reads of pages |
//! | [`inspect`] | what any file holds, for people |
//! | [`manifest`] | edits inside a manifest frame |
//! | [`mend`] | pages with one flipped bit |
#![forbid(unsafe_code)]

pub mod checksum;
mod cursor;
pub mod error;
pub mod filter;
pub mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod header;
pub mod id;
pub mod id_run;
pub mod ids;
pub mod inspect;
pub mod layout;
pub mod manifest;
pub mod mend;
pub mod segment;
pub mod trace;
pub mod vector;
pub mod wal;

pub use checksum::{PageIdentity, RowsChecksum, page_checksum};
pub use error::{FormatError, Result};
pub use header::{FileDetail, FileHeader, FileKind, SegmentDetail};
pub use id::{Id, IdError, IdKind, IdRef, MAX_ID_BYTES};
pub use ids::{DatabaseId, FileId, FrameSequence, Generation, Lsn, PageNo, Row, StoreId};
pub use layout::{ElementType, VectorLayout};

/// The newest format version this crate writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes of a block: header, footer, id, fence and checksum pages have this size, and every
/// frame and vector page is a multiple of it.
pub const BLOCK_BYTES: usize = 4096;

/// [`BLOCK_BYTES`] as a file offset.
pub const BLOCK_BYTES_U64: u64 = 4096;
