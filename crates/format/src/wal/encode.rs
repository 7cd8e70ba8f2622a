//! Encoding of log records into a slice that the caller provides.
//!
//! This is on the path of every write: lengths are computed first, nothing is allocated, and a
//! vector is copied once, straight into the frame.

use super::{
    BULK_HEADER_BYTES, FORM_BYTES, FORM_CONSECUTIVE, FORM_U64, KIND_BULK, KIND_OPERATIONS,
    OPERATIONS_HEADER_BYTES, RECORD_HEADER_BYTES, TAG_DELETE, TAG_PUT,
};
use crate::cursor::Writer;
use crate::id::{IdKind, IdRef};
use crate::ids::{DatabaseId, FileId, Row};
use crate::layout::{ElementType, VectorLayout};
use crate::vector::encode_f32;

/// Bytes of an id in a record: 8 for a number, 1 more than its length for bytes.
#[must_use]
pub const fn id_len(id: IdRef<'_>) -> usize {
    match id {
        IdRef::U64(_) => 8,
        IdRef::Bytes(bytes) => 1 + bytes.len(),
    }
}

/// Bytes of a put in an operations record.
#[must_use]
pub const fn put_len(id: IdRef<'_>, layout: &VectorLayout) -> usize {
    1 + id_len(id) + layout.vector_bytes()
}

/// Bytes of a delete in an operations record.
#[must_use]
pub const fn delete_len(id: IdRef<'_>) -> usize {
    1 + id_len(id)
}

/// Bytes of an operations record whose operations take `body_bytes`, the sum of their
/// [`put_len`] and [`delete_len`].
#[must_use]
pub const fn operations_len(body_bytes: usize) -> usize {
    OPERATIONS_HEADER_BYTES + body_bytes
}

/// Bytes of a bulk record whose ids take `id_bytes`: 8 for consecutive ids, the sum of
/// [`id_len`] otherwise.
#[must_use]
pub const fn bulk_len(id_bytes: usize) -> usize {
    BULK_HEADER_BYTES + id_bytes
}

/// Writes one operations record.
///
/// ```
/// use nephrite_format::{DatabaseId, ElementType, IdKind, IdRef, VectorLayout, wal};
///
/// let layout = VectorLayout::for_dimension(2, ElementType::F32)?;
/// let (a, b) = (IdRef::from(7), IdRef::from(8));
/// let len = wal::operations_len(wal::put_len(a, &layout) + wal::delete_len(b));
/// let mut record = vec![0; len];
/// let mut encoder =
///     wal::OperationsEncoder::new(&mut record, DatabaseId::new(1), IdKind::U64, &layout, 2);
/// encoder.put(a, &[0.5, -1.0]);
/// encoder.delete(b);
/// assert_eq!(encoder.finish(), len);
/// # Ok::<(), nephrite_format::FormatError>(())
/// ```
#[derive(Debug)]
pub struct OperationsEncoder<'a> {
    writer: Writer<'a>,
    database: DatabaseId,
    id_kind: IdKind,
    dimension: usize,
    element: ElementType,
    count: u32,
    written: u32,
}

impl<'a> OperationsEncoder<'a> {
    /// Begins a record of `count` operations at the start of `record`.
    ///
    /// # Panics
    /// When `count` is 0, or later when `record` is too short: lengths are the caller's.
    #[must_use]
    pub fn new(
        record: &'a mut [u8],
        database: DatabaseId,
        id_kind: IdKind,
        layout: &VectorLayout,
        count: u32,
    ) -> Self {
        assert_ne!(count, 0, "a record without operations");
        let mut writer = Writer::new(record);
        // The body length is not known yet; `finish` fills the header.
        writer.zeros(RECORD_HEADER_BYTES);
        writer.u32(layout.dimension());
        writer.u8(layout.element().code());
        writer.zeros(3);
        let (dimension, element) = (layout.dimension() as usize, layout.element());
        Self { writer, database, id_kind, dimension, element, count, written: 0 }
    }

    /// Adds a put.
    ///
    /// # Panics
    /// When the id or the vector is not of the record's kind and dimension.
    pub fn put(&mut self, id: IdRef<'_>, vector: &[f32]) {
        assert_eq!(vector.len(), self.dimension, "elements of a vector");
        let ElementType::F32 = self.element;
        let bytes = self.put_header(id);
        encode_f32(vector, bytes);
    }

    /// Adds a put of a vector that is already in its disk form.
    ///
    /// # Panics
    /// When the id or the vector is not of the record's kind and dimension.
    pub fn put_encoded(&mut self, id: IdRef<'_>, vector: &[u8]) {
        self.put_header(id).copy_from_slice(vector);
    }

    /// Adds a delete.
    ///
    /// # Panics
    /// When the id is not of the record's kind.
    pub fn delete(&mut self, id: IdRef<'_>) {
        self.operation(TAG_DELETE, id);
    }

    /// Completes the record and returns its length.
    ///
    /// # Panics
    /// When not exactly `count` operations were added.
    #[must_use]
    pub fn finish(self) -> usize {
        assert_eq!(self.written, self.count, "operations of the record");
        finish_record(self.writer, KIND_OPERATIONS, self.id_kind, self.database, self.count)
    }

    fn put_header(&mut self, id: IdRef<'_>) -> &mut [u8] {
        self.operation(TAG_PUT, id);
        self.writer.reserve(self.dimension * self.element.bytes() as usize)
    }

    fn operation(&mut self, tag: u8, id: IdRef<'_>) {
        assert_eq!(id.kind(), self.id_kind, "kind of an id");
        self.writer.u8(tag);
        write_id(&mut self.writer, id);
        self.written += 1;
    }
}

/// How the ids of a bulk record are stored.
#[expect(clippy::exhaustive_enums, reason = "the engine chooses among all of them")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdColumnForm {
    /// `first`, `first + 1`, ...: eight bytes in all.
    Consecutive {
        /// Id of the first row.
        first: u64,
    },
    /// One number per row.
    U64,
    /// One byte string per row.
    Bytes,
}

impl IdColumnForm {
    const fn kind(self) -> IdKind {
        match self {
            Self::Consecutive { .. } | Self::U64 => IdKind::U64,
            Self::Bytes => IdKind::Bytes,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Consecutive { .. } => FORM_CONSECUTIVE,
            Self::U64 => FORM_U64,
            Self::Bytes => FORM_BYTES,
        }
    }
}

/// What a bulk record says besides the ids.
#[expect(clippy::exhaustive_structs, reason = "the engine builds it; a new field is a new format")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BulkHeader {
    /// The database.
    pub database: DatabaseId,
    /// The segment file that holds the rows.
    pub segment: FileId,
    /// The first row.
    pub first_row: Row,
    /// Rows, at least one; `first_row + row_count` is at most `u32::MAX`.
    pub row_count: u32,
    /// [`crate::RowsChecksum`] of the rows.
    pub rows_checksum: u64,
}

/// Writes one bulk record.
#[derive(Debug)]
pub struct BulkEncoder<'a> {
    writer: Writer<'a>,
    database: DatabaseId,
    form: IdColumnForm,
    count: u32,
    written: u32,
}

impl<'a> BulkEncoder<'a> {
    /// Begins a bulk record at the start of `record`.
    ///
    /// # Panics
    /// When the rows or the consecutive ids leave their range, or later when `record` is too
    /// short: lengths are the caller's.
    #[must_use]
    pub fn new(record: &'a mut [u8], header: &BulkHeader, form: IdColumnForm) -> Self {
        assert_ne!(header.row_count, 0, "a bulk record without rows");
        let end = header.first_row.get().checked_add(header.row_count);
        assert!(end.is_some(), "rows of {header:?}");
        let mut writer = Writer::new(record);
        writer.zeros(RECORD_HEADER_BYTES);
        writer.u64(header.segment.get());
        writer.u64(header.rows_checksum);
        writer.u32(header.first_row.get());
        writer.u8(form.code());
        writer.zeros(3);
        let mut written = 0;
        if let IdColumnForm::Consecutive { first } = form {
            let last = first.checked_add(u64::from(header.row_count) - 1);
            assert!(last.is_some(), "consecutive ids from {first} of {header:?}");
            writer.u64(first);
            written = header.row_count;
        }
        Self { writer, database: header.database, form, count: header.row_count, written }
    }

    /// Adds the id of the next row; not for consecutive ids.
    ///
    /// # Panics
    /// When the id is not of the form's kind, or all ids are there already.
    pub fn id(&mut self, id: IdRef<'_>) {
        assert_eq!(id.kind(), self.form.kind(), "kind of an id");
        assert!(self.written < self.count, "more ids than the {} rows", self.count);
        write_id(&mut self.writer, id);
        self.written += 1;
    }

    /// Completes the record and returns its length.
    ///
    /// # Panics
    /// When ids are missing.
    #[must_use]
    pub fn finish(self) -> usize {
        assert_eq!(self.written, self.count, "ids of the record");
        finish_record(self.writer, KIND_BULK, self.form.kind(), self.database, self.count)
    }
}

fn write_id(writer: &mut Writer<'_>, id: IdRef<'_>) {
    match id {
        IdRef::U64(number) => writer.u64(number),
        IdRef::Bytes(bytes) => {
            assert!(!bytes.is_empty(), "an id of no bytes");
            let len = u8::try_from(bytes.len()).expect("byte ids have at most 255 bytes");
            writer.u8(len);
            writer.bytes(bytes);
        }
    }
}

fn finish_record(
    writer: Writer<'_>,
    kind: u8,
    id_kind: IdKind,
    database: DatabaseId,
    count: u32,
) -> usize {
    let (record, len) = writer.into_written();
    let body = u32::try_from(len - RECORD_HEADER_BYTES).expect("record longer than 4 GiB");
    let mut header = Writer::new(record);
    header.u8(kind);
    header.u8(id_kind.code());
    header.zeros(2);
    header.u32(database.get());
    header.u32(body);
    header.u32(count);
    len
}
