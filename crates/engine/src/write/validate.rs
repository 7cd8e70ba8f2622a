//! What a database can hold: ids of its kind and vectors of its dimension.
//!
//! Checked before a write reserves or waits for anything, so that a refused write has no effect.
//! Tested in `tests/it/basics`.

use nephrite_format::{IdError, IdRef};

use super::change::Change;
use crate::{
    batch::{BatchOperation, Ids},
    core::DatabaseCore,
    error::Error,
};

pub(super) fn validate(database: &DatabaseCore, change: Change<'_>) -> Result<(), Error> {
    match change {
        Change::Put(id, vector) => {
            validate_id(database, id)?;
            validate_dimension(database, vector.len())
        }
        Change::Delete(id) => validate_id(database, id),
        Change::Batch(batch) => batch.operations.iter().try_for_each(|operation| {
            validate_id(database, operation.id())?;
            match operation {
                BatchOperation::Put { len, .. } => validate_dimension(database, *len),
                BatchOperation::Delete { .. } => Ok(()),
            }
        }),
        Change::Rows(ids, vectors) => validate_rows(database, ids, vectors),
    }
}

fn validate_rows(database: &DatabaseCore, ids: Ids<'_>, vectors: &[f32]) -> Result<(), Error> {
    let dimension = database.layout.dimension() as usize;
    let rows = vectors.len() / dimension;
    if rows * dimension != vectors.len() {
        return validate_dimension(database, vectors.len() - rows * dimension);
    }
    if let Some(count) = ids.len().filter(|count| *count != rows) {
        let reason = format!("{count} ids were given for {rows} vectors");
        return Err(Error::InvalidId { reason });
    }
    match ids {
        Ids::Consecutive(first) => {
            validate_id(database, IdRef::U64(first))?;
            if first.checked_add((rows as u64).saturating_sub(1)).is_none() {
                let reason = format!("{rows} consecutive ids from {first} pass the largest u64");
                return Err(Error::InvalidId { reason });
            }
            Ok(())
        }
        Ids::U64(_) | Ids::Bytes(_) => {
            (0..rows).try_for_each(|row| validate_id(database, ids.get(row)))
        }
    }
}

/// Whether a database can hold an id.
#[inline]
pub(crate) fn validate_id(database: &DatabaseCore, id: IdRef<'_>) -> Result<(), Error> {
    id.validate(database.id_kind).map_err(id_error)
}

#[cold]
fn id_error(error: IdError) -> Error {
    match error {
        IdError::WrongKind { expected, .. } => Error::WrongIdKind { expected },
        other => Error::InvalidId { reason: other.to_string() },
    }
}

fn validate_dimension(database: &DatabaseCore, found: usize) -> Result<(), Error> {
    let expected = database.layout.dimension();
    if found == expected as usize { Ok(()) } else { Err(Error::Dimension { expected, found }) }
}
