//! `Batch`: several puts and deletes of one database that apply together or not at all.

use nephrite_format::{Id, IdRef};

/// Puts and deletes that [`crate::Database::batch`] applies atomically: after a crash either all
/// of them are there or none. A later operation on the same id wins.
///
/// All vectors of a batch must have the database's dimension; that is checked when it is applied.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(crate) operations: Vec<BatchOperation>,
    /// The vectors of all puts, one after the other.
    pub(crate) vectors: Vec<f32>,
}

#[derive(Clone, Debug)]
pub(crate) enum BatchOperation {
    Put { id: Id, start: usize, len: usize },
    Delete { id: Id },
}

impl BatchOperation {
    pub(crate) fn id(&self) -> IdRef<'_> {
        match self {
            Self::Put { id, .. } | Self::Delete { id } => id.as_id_ref(),
        }
    }
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put; replaces the vector when the id is stored.
    pub fn put<'a>(&mut self, id: impl Into<IdRef<'a>>, vector: &[f32]) {
        let start = self.vectors.len();
        self.vectors.extend_from_slice(vector);
        let id = id.into().to_id();
        self.operations.push(BatchOperation::Put { id, start, len: vector.len() });
    }

    /// Adds a delete; deleting an id that is not stored does nothing.
    pub fn delete<'a>(&mut self, id: impl Into<IdRef<'a>>) {
        self.operations.push(BatchOperation::Delete { id: id.into().to_id() });
    }

    /// Number of operations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there are no operations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }
}

/// The ids of the rows given to [`crate::Database::put_many`].
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "each form is a shape of input that callers choose")]
pub enum Ids<'a> {
    /// `first`, `first + 1`, ...: one id per row. The cheapest form.
    Consecutive(u64),
    /// One number per row.
    U64(&'a [u64]),
    /// One byte string per row.
    Bytes(&'a [&'a [u8]]),
}

impl<'a> Ids<'a> {
    /// The id of row `row`. The caller has checked lengths.
    pub(crate) fn get(self, row: usize) -> IdRef<'a> {
        match self {
            Self::Consecutive(first) => IdRef::U64(first + row as u64),
            Self::U64(ids) => IdRef::U64(ids[row]),
            Self::Bytes(ids) => IdRef::Bytes(ids[row]),
        }
    }

    /// Number of ids; `None` when there are as many as rows.
    pub(crate) fn len(self) -> Option<usize> {
        match self {
            Self::Consecutive(_) => None,
            Self::U64(ids) => Some(ids.len()),
            Self::Bytes(ids) => Some(ids.len()),
        }
    }
}
