//! Decoding of log records: views that borrow the payload of a verified frame.
//!
//! A record is walked once, with every length checked, before it is handed out; the iterators of
//! a handed-out record therefore cannot fail. Nothing is allocated.

use super::{
    FORM_BYTES, FORM_CONSECUTIVE, FORM_U64, KIND_BULK, KIND_OPERATIONS, TAG_DELETE, TAG_PUT,
};
use crate::cursor::Cursor;
use crate::error::{FormatError, Result};
use crate::id::{IdKind, IdRef};
use crate::ids::{DatabaseId, FileId, Row};
use crate::layout::{ElementType, MAX_DIMENSION};

/// The records of one frame, in order. After an error there are no more.
#[derive(Clone, Debug)]
pub struct WalRecords<'a> {
    cursor: Cursor<'a>,
    file: &'a str,
    left: u32,
    done: bool,
}

impl<'a> WalRecords<'a> {
    /// Reads `record_count` records from the payload of a frame; `offset` is the file offset of
    /// the payload and `file` the file's name, both for errors.
    #[must_use]
    pub const fn new(payload: &'a [u8], record_count: u32, file: &'a str, offset: u64) -> Self {
        let cursor = Cursor::new(payload, offset, file);
        Self { cursor, file, left: record_count, done: false }
    }
}

impl<'a> Iterator for WalRecords<'a> {
    type Item = Result<WalRecord<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        if self.left == 0 {
            self.done = true;
            return self.cursor.finish("the last record").err().map(Err);
        }
        self.left -= 1;
        let record = decode_record(&mut self.cursor, self.file);
        self.done = record.is_err();
        Some(record)
    }
}

/// One atomic change of one database.
#[expect(clippy::exhaustive_enums, reason = "recovery must apply every kind")]
#[derive(Clone, Debug)]
pub enum WalRecord<'a> {
    /// Puts and deletes with their vectors.
    Operations(OperationsRecord<'a>),
    /// Rows that lie in a segment file.
    Bulk(BulkRecord<'a>),
}

/// A checked operations record.
#[derive(Clone, Debug)]
pub struct OperationsRecord<'a> {
    /// The database.
    pub database: DatabaseId,
    /// Kind of the ids.
    pub id_kind: IdKind,
    /// Elements of each vector.
    pub dimension: u32,
    /// Type of the elements.
    pub element: ElementType,
    /// File offset of the record's body, for messages.
    pub offset: u64,
    operations: Operations<'a>,
}

impl<'a> OperationsRecord<'a> {
    /// The operations, in the order in which they apply.
    #[must_use]
    pub fn operations(&self) -> Operations<'a> {
        self.operations.clone()
    }

    /// Number of operations; at least one.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.operations.left
    }
}

/// One operation.
#[expect(clippy::exhaustive_enums, reason = "recovery must apply every kind")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation<'a> {
    /// The id gets this vector.
    Put {
        /// The id.
        id: IdRef<'a>,
        /// The elements, little-endian, as in a segment row without padding;
        /// [`crate::vector::decode_f32`] reads them.
        vector: &'a [u8],
    },
    /// The id is gone.
    Delete {
        /// The id.
        id: IdRef<'a>,
    },
}

impl<'a> Operation<'a> {
    /// The id.
    #[must_use]
    pub const fn id(self) -> IdRef<'a> {
        match self {
            Self::Put { id, .. } | Self::Delete { id } => id,
        }
    }
}

/// Iterator over the operations of a record.
#[derive(Clone, Debug)]
pub struct Operations<'a> {
    cursor: Cursor<'a>,
    id_kind: IdKind,
    vector_bytes: usize,
    left: u32,
}

impl<'a> Operations<'a> {
    fn parse_next(&mut self) -> Result<Operation<'a>> {
        self.left -= 1;
        let tag = self.cursor.u8("operation")?;
        let id = decode_id(&mut self.cursor, self.id_kind)?;
        match tag {
            TAG_PUT => {
                let vector = self.cursor.take(self.vector_bytes, "vector")?;
                Ok(Operation::Put { id, vector })
            }
            TAG_DELETE => Ok(Operation::Delete { id }),
            _ => Err(self.cursor.corrupt(format!("{tag} is no operation"))),
        }
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Operation<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        Some(self.parse_next().expect("all operations were read when the record was decoded"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Operations<'_> {}

/// A checked bulk record.
#[derive(Clone, Debug)]
pub struct BulkRecord<'a> {
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
    /// The id of each row, in row order.
    pub ids: IdColumn<'a>,
}

/// The ids of a bulk record.
#[expect(clippy::exhaustive_enums, reason = "recovery must read every form")]
#[derive(Clone, Debug)]
pub enum IdColumn<'a> {
    /// `first`, `first + 1`, ...
    Consecutive {
        /// Id of the first row.
        first: u64,
        /// Number of ids.
        count: u32,
    },
    /// One id per row.
    List(IdColumnIter<'a>),
}

impl<'a> IdColumn<'a> {
    /// Kind of the ids.
    #[must_use]
    pub const fn kind(&self) -> IdKind {
        match self {
            Self::Consecutive { .. } => IdKind::U64,
            Self::List(list) => list.kind(),
        }
    }

    /// The ids, in row order.
    #[must_use]
    pub fn iter(&self) -> IdColumnIter<'a> {
        match self {
            Self::Consecutive { first, count } => {
                IdColumnIter(Column::Consecutive { next: *first, left: *count })
            }
            Self::List(list) => list.clone(),
        }
    }
}

impl<'a> IntoIterator for &IdColumn<'a> {
    type Item = IdRef<'a>;
    type IntoIter = IdColumnIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Iterator over the ids of a bulk record.
#[derive(Clone, Debug)]
pub struct IdColumnIter<'a>(Column<'a>);

#[derive(Clone, Debug)]
enum Column<'a> {
    Consecutive { next: u64, left: u32 },
    List { cursor: Cursor<'a>, id_kind: IdKind, left: u32 },
}

impl IdColumnIter<'_> {
    const fn kind(&self) -> IdKind {
        match self.0 {
            Column::Consecutive { .. } => IdKind::U64,
            Column::List { id_kind, .. } => id_kind,
        }
    }

    const fn left(&self) -> u32 {
        match self.0 {
            Column::Consecutive { left, .. } | Column::List { left, .. } => left,
        }
    }
}

impl<'a> Iterator for IdColumnIter<'a> {
    type Item = IdRef<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Column::Consecutive { left: 0, .. } | Column::List { left: 0, .. } => None,
            Column::Consecutive { next, left } => {
                let id = *next;
                *left -= 1;
                // The id after the last may be one too large to exist; it is never handed out.
                *next = next.wrapping_add(1);
                Some(IdRef::U64(id))
            }
            Column::List { cursor, id_kind, left } => {
                *left -= 1;
                let id = decode_id(cursor, *id_kind);
                Some(id.expect("all ids were read when the record was decoded"))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left() as usize, Some(self.left() as usize))
    }
}

impl ExactSizeIterator for IdColumnIter<'_> {}

fn decode_record<'a>(cursor: &mut Cursor<'a>, file: &'a str) -> Result<WalRecord<'a>> {
    let start = *cursor;
    let kind = cursor.u8("record kind")?;
    let id_kind = cursor.u8("id kind")?;
    cursor.zeros(2, "record")?;
    let database = DatabaseId::new(cursor.u32("database")?);
    let body_bytes = cursor.u32("record length")?;
    let count = cursor.u32("record count")?;
    let Some(id_kind) = IdKind::from_code(id_kind) else {
        return Err(start.corrupt(format!("{id_kind} is no kind of id")));
    };
    if count == 0 {
        return Err(start.corrupt("the record is empty"));
    }
    let body = cursor.sub(body_bytes as usize, "record")?;
    match kind {
        KIND_OPERATIONS => decode_operations(body, file, database, id_kind, count),
        KIND_BULK => decode_bulk(body, database, id_kind, count),
        _ => Err(start.corrupt(format!("{kind} is no kind of log record"))),
    }
}

fn decode_operations<'a>(
    mut body: Cursor<'a>,
    file: &str,
    database: DatabaseId,
    id_kind: IdKind,
    count: u32,
) -> Result<WalRecord<'a>> {
    let offset = body.offset();
    let dimension = body.u32("dimension")?;
    let code = body.u8("element type")?;
    body.zeros(3, "operations")?;
    let Some(element) = ElementType::from_code(code) else {
        let (file, offset) = (file.to_owned(), offset + 4);
        let what = format!("element type {code}");
        return Err(FormatError::FeatureUnsupported { file, offset, what });
    };
    if dimension == 0 || MAX_DIMENSION < dimension {
        return Err(body.corrupt(format!("dimension {dimension} is out of range")));
    }
    let vector_bytes = (dimension * element.bytes()) as usize;
    let operations = Operations { cursor: body, id_kind, vector_bytes, left: count };
    let mut walk = operations.clone();
    while walk.left != 0 {
        walk.parse_next()?;
    }
    walk.cursor.finish("the operations")?;
    let record = OperationsRecord { database, id_kind, dimension, element, offset, operations };
    Ok(WalRecord::Operations(record))
}

fn decode_bulk(
    mut body: Cursor<'_>,
    database: DatabaseId,
    id_kind: IdKind,
    row_count: u32,
) -> Result<WalRecord<'_>> {
    let start = body;
    let segment = FileId::new(body.u64("segment")?);
    let rows_checksum = body.u64("checksum of rows")?;
    let first_row = body.u32("first row")?;
    let form = body.u8("form of ids")?;
    body.zeros(3, "bulk record")?;
    if first_row.checked_add(row_count).is_none() {
        return Err(start.corrupt(format!("{row_count} rows from {first_row} are out of range")));
    }
    let ids = match (form, id_kind) {
        (FORM_CONSECUTIVE, IdKind::U64) => decode_consecutive(&mut body, row_count)?,
        (FORM_U64, IdKind::U64) | (FORM_BYTES, IdKind::Bytes) => {
            decode_list(&mut body, id_kind, row_count)?
        }
        _ => return Err(start.corrupt(format!("{form} is no form of {id_kind} ids"))),
    };
    body.finish("the bulk record")?;
    let first_row = Row::new(first_row);
    Ok(WalRecord::Bulk(BulkRecord { database, segment, first_row, row_count, rows_checksum, ids }))
}

fn decode_consecutive<'a>(body: &mut Cursor<'a>, count: u32) -> Result<IdColumn<'a>> {
    let first = body.u64("first id")?;
    if first.checked_add(u64::from(count) - 1).is_none() {
        return Err(body.corrupt(format!("{count} ids from {first} are out of range")));
    }
    Ok(IdColumn::Consecutive { first, count })
}

/// Walks `count` ids, so that reading them again cannot fail, and leaves `body` behind them.
fn decode_list<'a>(body: &mut Cursor<'a>, id_kind: IdKind, count: u32) -> Result<IdColumn<'a>> {
    let cursor = *body;
    for _ in 0..count {
        decode_id(body, id_kind)?;
    }
    Ok(IdColumn::List(IdColumnIter(Column::List { cursor, id_kind, left: count })))
}

pub(crate) fn decode_id<'a>(cursor: &mut Cursor<'a>, kind: IdKind) -> Result<IdRef<'a>> {
    match kind {
        IdKind::U64 => Ok(IdRef::U64(cursor.u64("id")?)),
        IdKind::Bytes => {
            let len = cursor.u8("length of id")?;
            if len == 0 {
                return Err(cursor.corrupt("an id of no bytes"));
            }
            Ok(IdRef::Bytes(cursor.take(usize::from(len), "id")?))
        }
    }
}
