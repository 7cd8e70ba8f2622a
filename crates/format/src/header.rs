//! The header page: the first 4096 bytes of every file.
//!
//! Decoding goes in a fixed order so that each failure gets the answer that helps: magic (not our
//! file), version (a newer Nephrite is needed), checksum (damage), then every field. Reserved
//! bytes must be zero, so that a later version can give them a meaning.
//!
//! The header states who the file is; whether that is who the caller looked for is asked with
//! [`FileHeader::expect_identity`] and [`FileHeader::kind`].
//!
//! Tested here (round trip, every bit flip, every truncation) and by the second reader.

use std::fmt;

use crate::checksum::{PageIdentity, page_checksum};
use crate::cursor::{Cursor, Writer, u32_at, u64_at};
use crate::error::{FormatError, Result};
use crate::id::IdKind;
use crate::ids::{DatabaseId, FileId, Generation, StoreId};
use crate::layout::{ElementType, VectorLayout};
use crate::{BLOCK_BYTES, FORMAT_VERSION};

/// The first eight bytes of every file. A byte above 127, both line ends and a stop character, so
/// that a text-mode copy is found out.
pub const MAGIC: [u8; 8] = *b"\x89NPH\r\n\x1a\n";

const CHECKSUM_OFFSET: usize = BLOCK_BYTES - 8;
const DETAIL_OFFSET: usize = 128;
const DETAIL_BYTES: usize = 64;
const USED_BYTES: u32 = 192;
const NONCE_BYTES: usize = 24;
const _: () = assert!(DETAIL_OFFSET + DETAIL_BYTES == USED_BYTES as usize);

/// What a file is.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FileKind {
    /// One segment of the write-ahead log.
    Wal,
    /// Vectors of one database.
    Segment,
    /// The list of databases and segments.
    Manifest,
}

impl fmt::Display for FileKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Wal => "write-ahead log",
            Self::Segment => "segment",
            Self::Manifest => "manifest",
        })
    }
}

/// What the header of a segment says about its content.
#[expect(clippy::exhaustive_structs, reason = "the engine builds it; a new field is a new format")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentDetail {
    /// The database the vectors belong to.
    pub database: DatabaseId,
    /// Kind of its ids.
    pub id_kind: IdKind,
    /// How rows lie in pages.
    pub layout: VectorLayout,
}

/// The part of the header that depends on the kind of file.
#[expect(clippy::exhaustive_enums, reason = "the engine must handle every kind")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileDetail {
    /// One segment of the write-ahead log.
    Wal {
        /// Position of this segment in the log, counted from 1 over the life of the store; 0 for
        /// a spare that was never used.
        position: u64,
        /// Length of the file in bytes, header page included.
        segment_bytes: u64,
    },
    /// Vectors of one database.
    Segment(SegmentDetail),
    /// The list of databases and segments.
    Manifest {
        /// Bytes set aside for the file, header page included.
        capacity_bytes: u64,
    },
}

/// The decoded header page.
#[expect(clippy::exhaustive_structs, reason = "the engine builds it; a new field is a new format")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileHeader {
    /// The store the file belongs to.
    pub store: StoreId,
    /// The file within the store.
    pub file: FileId,
    /// Which life of the file this is.
    pub generation: Generation,
    /// Kind and kind-specific fields.
    pub detail: FileDetail,
}

impl FileHeader {
    /// Kind of the file.
    #[must_use]
    pub const fn kind(&self) -> FileKind {
        match self.detail {
            FileDetail::Wal { .. } => FileKind::Wal,
            FileDetail::Segment(_) => FileKind::Segment,
            FileDetail::Manifest { .. } => FileKind::Manifest,
        }
    }

    /// Identity of the bytes at `offset` of this file.
    #[must_use]
    pub const fn identity(&self, offset: u64) -> PageIdentity {
        PageIdentity::new(self.store, self.file, self.generation, offset)
    }

    /// The header page.
    #[must_use]
    pub fn encode(&self) -> Box<[u8; BLOCK_BYTES]> {
        let mut page = Box::new([0; BLOCK_BYTES]);
        self.encode_into(page.as_mut_slice());
        page
    }

    /// Writes the header page.
    ///
    /// # Panics
    /// When `page` does not have [`BLOCK_BYTES`] bytes.
    pub fn encode_into(&self, page: &mut [u8]) {
        assert_eq!(page.len(), BLOCK_BYTES, "a header page");
        let mut writer = Writer::new(page);
        writer.bytes(&MAGIC);
        writer.u32(FORMAT_VERSION);
        writer.u8(kind_code(self.kind()));
        writer.zeros(3);
        writer.u32(USED_BYTES);
        writer.u32(0);
        writer.bytes(&self.store.get());
        writer.u64(self.file.get());
        writer.u64(self.generation.get());
        writer.zeros(NONCE_BYTES);
        writer.zeros(DETAIL_OFFSET - writer.position());
        encode_detail(&mut writer, &self.detail);
        writer.zeros(CHECKSUM_OFFSET - writer.position());
        let checksum = page_checksum(self.identity(0), &page[..CHECKSUM_OFFSET]);
        page[CHECKSUM_OFFSET..].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Reads a header page from the first [`BLOCK_BYTES`] of `page`; `file` is used in errors.
    ///
    /// # Errors
    /// `NotNephrite`, `VersionUnsupported`, `FeatureUnsupported` or `Corrupt`.
    pub fn decode(page: &[u8], file: &str) -> Result<Self> {
        if page.first_chunk() != Some(&MAGIC) {
            return Err(FormatError::NotNephrite { file: file.to_owned() });
        }
        let Some(page) = page.first_chunk::<BLOCK_BYTES>() else {
            let what = format!("the header page has {} of {BLOCK_BYTES} bytes", page.len());
            return Err(FormatError::corrupt(file, page.len() as u64, what));
        };
        check_version(page, file)?;
        let header = Self::decode_fields(page, file)?;
        Ok(header)
    }

    fn decode_fields(page: &[u8; BLOCK_BYTES], file: &str) -> Result<Self> {
        let mut cursor = Cursor::new(page, 0, file);
        cursor.take(MAGIC.len() + 4, "magic and version")?;
        let kind = cursor.u8("file kind")?;
        let compression = cursor.u8("compression")?;
        cursor.zeros(2, "header")?;
        let used = cursor.u32("header bytes used")?;
        let key = cursor.u32("encryption key id")?;
        let store = StoreId::new(cursor.array("store id")?);
        let file_id = FileId::new(cursor.u64("file id")?);
        let generation = Generation::new(cursor.u64("generation")?);
        let identity = PageIdentity::new(store, file_id, generation, 0);
        check_checksum(page, identity, file)?;
        refuse_features(compression, key, file)?;
        if used != USED_BYTES {
            return Err(FormatError::corrupt(file, 16, format!("header uses {used} bytes")));
        }
        cursor.zeros(NONCE_BYTES, "encryption nonce")?;
        let gap = DETAIL_OFFSET - (BLOCK_BYTES - cursor.remaining());
        cursor.zeros(gap, "header")?;
        let detail = decode_detail(&mut cursor.sub(DETAIL_BYTES, "header detail")?, kind, file)?;
        cursor.zeros(CHECKSUM_OFFSET - USED_BYTES as usize, "header")?;
        Ok(Self { store, file: file_id, generation, detail })
    }

    /// Checks that this is the file that was looked for.
    ///
    /// # Errors
    /// `WrongIdentity` with both values.
    pub fn expect_identity(&self, store: StoreId, file_id: FileId, file: &str) -> Result<()> {
        let what = if self.store != store {
            format!("it belongs to store {} and this is store {store}", self.store)
        } else if self.file != file_id {
            format!("it is file {} and file {file_id} was looked for", self.file)
        } else {
            return Ok(());
        };
        Err(FormatError::WrongIdentity { file: file.to_owned(), what })
    }

    /// Checks the kind of the file.
    ///
    /// # Errors
    /// `WrongKind` with both kinds.
    pub fn expect_kind(&self, expected: FileKind, file: &str) -> Result<()> {
        if self.kind() == expected {
            return Ok(());
        }
        Err(FormatError::WrongKind { file: file.to_owned(), expected, found: self.kind() })
    }

    /// The segment detail of a segment file.
    ///
    /// # Errors
    /// `WrongKind` when the file is not a segment.
    pub fn segment(&self, file: &str) -> Result<SegmentDetail> {
        self.expect_kind(FileKind::Segment, file)?;
        match self.detail {
            FileDetail::Segment(detail) => Ok(detail),
            FileDetail::Wal { .. } | FileDetail::Manifest { .. } => {
                unreachable!("the kind was checked above")
            }
        }
    }
}

fn check_version(page: &[u8; BLOCK_BYTES], file: &str) -> Result<()> {
    let found = u32_at(page, MAGIC.len());
    if FORMAT_VERSION < found {
        let file = file.to_owned();
        return Err(FormatError::VersionUnsupported { file, found, newest: FORMAT_VERSION });
    }
    if found == 0 {
        return Err(FormatError::corrupt(file, 8, "the format version is 0"));
    }
    Ok(())
}

fn check_checksum(page: &[u8; BLOCK_BYTES], identity: PageIdentity, file: &str) -> Result<()> {
    let stored = u64_at(page, CHECKSUM_OFFSET);
    let computed = page_checksum(identity, &page[..CHECKSUM_OFFSET]);
    if stored != computed {
        return Err(FormatError::checksum(file, 0, "the header page", stored, computed));
    }
    Ok(())
}

fn refuse_features(compression: u8, key: u32, file: &str) -> Result<()> {
    let refuse = |offset, what: String| {
        Err(FormatError::FeatureUnsupported { file: file.to_owned(), offset, what })
    };
    if compression != 0 {
        return refuse(13, format!("compression method {compression}"));
    }
    if key != 0 {
        return refuse(20, format!("encryption with key {key}"));
    }
    Ok(())
}

const fn kind_code(kind: FileKind) -> u8 {
    match kind {
        FileKind::Wal => 1,
        FileKind::Segment => 2,
        FileKind::Manifest => 3,
    }
}

fn encode_detail(writer: &mut Writer<'_>, detail: &FileDetail) {
    let start = writer.position();
    match detail {
        FileDetail::Wal { position, segment_bytes } => {
            writer.u64(*position);
            writer.u64(*segment_bytes);
        }
        FileDetail::Segment(detail) => {
            writer.u32(detail.database.get());
            encode_layout(writer, detail.id_kind, &detail.layout);
        }
        FileDetail::Manifest { capacity_bytes } => writer.u64(*capacity_bytes),
    }
    writer.zeros(DETAIL_BYTES - (writer.position() - start));
}

fn decode_detail(cursor: &mut Cursor<'_>, kind: u8, file: &str) -> Result<FileDetail> {
    let detail = match kind {
        1 => FileDetail::Wal {
            position: cursor.u64("log position")?,
            segment_bytes: cursor.u64("log segment length")?,
        },
        2 => {
            let database = DatabaseId::new(cursor.u32("database")?);
            let (id_kind, layout) = decode_layout(cursor, file)?;
            FileDetail::Segment(SegmentDetail { database, id_kind, layout })
        }
        3 => FileDetail::Manifest { capacity_bytes: cursor.u64("manifest capacity")? },
        _ => return Err(FormatError::corrupt(file, 12, format!("{kind} is no kind of file"))),
    };
    cursor.zeros(cursor.remaining(), "header detail")?;
    Ok(detail)
}

/// Bytes that [`encode_layout`] writes.
pub(crate) const LAYOUT_BYTES: usize = 20;

/// Id kind and layout: 20 bytes, in headers and in the manifest.
pub(crate) fn encode_layout(writer: &mut Writer<'_>, id_kind: IdKind, layout: &VectorLayout) {
    writer.u32(layout.dimension());
    writer.u8(layout.element().code());
    writer.u8(id_kind.code());
    writer.zeros(2);
    writer.u32(layout.stride_bytes());
    writer.u32(layout.page_bytes());
    writer.u32(layout.rows_per_page());
}

/// Reads what [`encode_layout`] wrote and checks it against the rules of [`VectorLayout`].
pub(crate) fn decode_layout(cursor: &mut Cursor<'_>, file: &str) -> Result<(IdKind, VectorLayout)> {
    let start = *cursor;
    let dimension = cursor.u32("dimension")?;
    let element = cursor.u8("element type")?;
    let id_kind = cursor.u8("id kind")?;
    cursor.zeros(2, "layout")?;
    let (stride, page) = (cursor.u32("row stride")?, cursor.u32("page size")?);
    let rows = cursor.u32("rows per page")?;
    let Some(element) = ElementType::from_code(element) else {
        let (file, offset) = (file.to_owned(), start.offset() + 4);
        let what = format!("element type {element}");
        return Err(FormatError::FeatureUnsupported { file, offset, what });
    };
    let Some(id_kind) = IdKind::from_code(id_kind) else {
        return Err(start.corrupt(format!("{id_kind} is no kind of id")));
    };
    let layout = VectorLayout::with_page_bytes(dimension, element, page)
        .map_err(|error| start.corrupt(error.to_string()))?;
    if (layout.stride_bytes(), layout.rows_per_page()) != (stride, rows) {
        let what = format!("stride {stride} and {rows} rows per page do not fit {layout}");
        return Err(start.corrupt(what));
    }
    Ok((id_kind, layout))
}
