//! What a write changes: its lengths, its rows, its entries of the index and its log record.
//!
//! All forms of a change (one put or delete, a batch, rows with ids) meet here and nowhere else;
//! the path of a write is the same for all. Lengths are known before anything is appended, and a
//! record has the length that was reserved for it.
//! Tested in `tests/it/basics`, `tests/it/recovery`, and against the model.

use nephrite_format::{
    IdRef, Lsn, Row, RowsChecksum, VectorLayout,
    vector::{F32_BYTES, encode_f32},
    wal::{OperationsEncoder, bulk_len, delete_len, id_len, operations_len, put_len},
};

use crate::{
    batch::{Batch, BatchOperation, Ids},
    config::Durability,
    core::DatabaseCore,
    error::Error,
    memtable::{MemIndex, Memtable, Version},
    wal::Claim,
};

/// Vectors of a buffered write from which they bypass the log.
const BULK_BYTES_BUFFERED: usize = 64 << 10;
/// The same for a synced write, which pays a second sync for the segment file.
const BULK_BYTES_SYNCED: usize = 2 << 20;

/// Rows from which ids that happen to be consecutive are treated as [`Ids::Consecutive`]: a run of
/// the memtable takes 40 bytes, however short.
const RUN_ROWS_MIN: usize = 16;

/// What is written, all at once or not at all.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change<'a> {
    Put(IdRef<'a>, &'a [f32]),
    Delete(IdRef<'a>),
    Batch(&'a Batch),
    Rows(Ids<'a>, &'a [f32]),
}

impl Change<'_> {
    /// The same change in its cheapest form: listed ids that are consecutive need no entries in the
    /// memtable's table, in the record or in the segment.
    pub(super) fn in_cheapest_form(self, layout: &VectorLayout) -> Self {
        let Change::Rows(Ids::U64(ids @ [first, ..]), vectors) = self else { return self };
        let one_id_per_row = ids.len() * layout.dimension() as usize == vectors.len();
        let consecutive = || ids.windows(2).all(|pair| pair[0].checked_add(1) == Some(pair[1]));
        if RUN_ROWS_MIN <= ids.len() && one_id_per_row && consecutive() {
            return Change::Rows(Ids::Consecutive(*first), vectors);
        }
        self
    }

    /// Which room the change may take.
    pub(super) fn claim(self) -> Claim {
        match self {
            Change::Delete(_) => Claim::Kept,
            Change::Batch(batch) if batch.vectors.is_empty() => Claim::Kept,
            Change::Put(..) | Change::Batch(_) | Change::Rows(..) => Claim::Common,
        }
    }
}

/// Whether the vectors bypass the log.
pub(crate) fn is_bulk(layout: &VectorLayout, change: Change<'_>, durability: Durability) -> bool {
    let threshold = match durability {
        Durability::Buffered => BULK_BYTES_BUFFERED,
        Durability::Synced => BULK_BYTES_SYNCED,
    };
    matches!(change, Change::Rows(..)) && threshold <= vector_bytes(layout, change)
}

pub(super) fn vector_bytes(layout: &VectorLayout, change: Change<'_>) -> usize {
    match change {
        Change::Put(..) => layout.vector_bytes(),
        Change::Delete(_) => 0,
        Change::Batch(batch) => batch.vectors.len() * F32_BYTES,
        Change::Rows(_, vectors) => vectors.len() * F32_BYTES,
    }
}

pub(super) fn record_bytes(
    layout: &VectorLayout,
    change: Change<'_>,
    durability: Durability,
) -> usize {
    match change {
        Change::Put(id, _) => operations_len(put_len(id, layout)),
        Change::Delete(id) => operations_len(delete_len(id)),
        Change::Batch(batch) => {
            let lengths = batch.operations.iter().map(|operation| match operation {
                BatchOperation::Put { id, .. } => put_len(id.as_id_ref(), layout),
                BatchOperation::Delete { id } => delete_len(id.as_id_ref()),
            });
            operations_len(lengths.sum())
        }
        Change::Rows(ids, vectors) => {
            let rows = vectors.len() / layout.dimension() as usize;
            let bulk = is_bulk(layout, change, durability);
            match (ids, bulk) {
                (Ids::Consecutive(_), true) => bulk_len(8),
                (_, true) => bulk_len((0..rows).map(|row| id_len(ids.get(row))).sum()),
                (_, false) => {
                    operations_len((0..rows).map(|row| put_len(ids.get(row), layout)).sum())
                }
            }
        }
    }
}

/// Appends the change's vectors; returns the first row.
pub(super) fn append(memtable: &Memtable, change: Change<'_>) -> Result<Row, Error> {
    match change {
        Change::Put(_, vector) => memtable.append_rows(vector),
        Change::Delete(_) => memtable.append_rows(&[]),
        Change::Batch(batch) => memtable.append_rows(&batch.vectors),
        Change::Rows(_, vectors) => memtable.append_rows(vectors),
    }
}

pub(super) fn insert(
    index: &mut MemIndex,
    layout: &VectorLayout,
    change: Change<'_>,
    first_row: Row,
    lsn: Lsn,
) {
    let version = |offset: usize| {
        let offset = u32::try_from(offset).expect("a memtable holds fewer rows");
        Version { lsn, row: Row::new(first_row.get() + offset) }
    };
    let tombstone = Version { lsn, row: Row::TOMBSTONE };
    match change {
        Change::Put(id, _) => index.insert(id, version(0)),
        Change::Delete(id) => index.insert(id, tombstone),
        Change::Batch(batch) => {
            let mut puts = 0;
            for operation in &batch.operations {
                match operation {
                    BatchOperation::Put { id, .. } => {
                        index.insert(id.as_id_ref(), version(puts));
                        puts += 1;
                    }
                    BatchOperation::Delete { id } => index.insert(id.as_id_ref(), tombstone),
                }
            }
        }
        Change::Rows(ids, vectors) => {
            let rows = vectors.len() / layout.dimension() as usize;
            if let Ids::Consecutive(first) = ids {
                let count = u32::try_from(rows).expect("a memtable holds fewer rows");
                index.insert_consecutive(first, count, first_row, lsn);
            } else {
                (0..rows).for_each(|row| index.insert(ids.get(row), version(row)));
            }
        }
    }
}

pub(super) fn encode_operations(target: &mut [u8], database: &DatabaseCore, change: Change<'_>) {
    let (layout, kind) = (&database.layout, database.id_kind);
    let count = match change {
        Change::Put(..) | Change::Delete(_) => 1,
        Change::Batch(batch) => batch.len(),
        Change::Rows(_, vectors) => vectors.len() / layout.dimension() as usize,
    };
    let count = u32::try_from(count).expect("a record is below 1 GiB");
    let len = target.len();
    let mut encoder = OperationsEncoder::new(target, database.id, kind, layout, count);
    match change {
        Change::Put(id, vector) => encoder.put(id, vector),
        Change::Delete(id) => encoder.delete(id),
        Change::Batch(batch) => {
            for operation in &batch.operations {
                match operation {
                    BatchOperation::Put { id, start, len } => {
                        encoder.put(id.as_id_ref(), &batch.vectors[*start..*start + *len]);
                    }
                    BatchOperation::Delete { id } => encoder.delete(id.as_id_ref()),
                }
            }
        }
        Change::Rows(ids, vectors) => {
            let rows = vectors.chunks_exact(layout.dimension() as usize);
            rows.enumerate().for_each(|(row, vector)| encoder.put(ids.get(row), vector));
        }
    }
    assert_eq!(encoder.finish(), len, "the record has the length that was reserved");
}

/// Feeds vectors in their disk form.
pub(super) fn update_checksum(checksum: &mut RowsChecksum, vectors: &[f32]) {
    if cfg!(target_endian = "little") {
        checksum.update(bytemuck::cast_slice(vectors));
        return;
    }
    let mut bytes = [0; 1024 * F32_BYTES];
    for part in vectors.chunks(1024) {
        let bytes = &mut bytes[..part.len() * F32_BYTES];
        encode_f32(part, bytes);
        checksum.update(bytes);
    }
}

pub(super) fn only_id<'a>(change: Change<'a>) -> IdRef<'a> {
    match change {
        Change::Put(id, _) | Change::Delete(id) => id,
        Change::Batch(_) | Change::Rows(..) => {
            unreachable!("conditions are only set for changes of one id")
        }
    }
}

#[cfg(test)]
mod tests {
    use nephrite_format::ElementType;

    use super::*;

    /// What [`Change::in_cheapest_form`] makes of rows of two values with these ids.
    fn cheapest<'a>(ids: &'a [u64], vectors: &'a [f32]) -> Ids<'a> {
        let layout = VectorLayout::for_dimension(2, ElementType::F32).unwrap();
        match Change::Rows(Ids::U64(ids), vectors).in_cheapest_form(&layout) {
            Change::Rows(ids, _) => ids,
            other => panic!("rows became {other:?}"),
        }
    }

    #[test]
    fn listed_ids_that_are_consecutive_become_a_run() {
        let ids: Vec<u64> = (7..27).collect();

        assert!(matches!(cheapest(&ids, &[0.0; 40]), Ids::Consecutive(7)));
    }

    #[test]
    fn other_ids_stay_as_they_are() {
        let ascending: Vec<u64> = (7..27).collect();
        let mut swapped = ascending.clone();
        swapped.swap(3, 4);
        let mut gap = ascending.clone();
        gap[19] += 1;
        let mut wrapped: Vec<u64> = (u64::MAX - 18..=u64::MAX).collect();
        wrapped.push(0);

        for ids in [&swapped, &gap, &wrapped] {
            assert!(matches!(cheapest(ids, &[0.0; 40]), Ids::U64(_)), "{ids:?}");
        }
        assert!(matches!(cheapest(&ascending[..3], &[0.0; 6]), Ids::U64(_)), "too short");
        assert!(matches!(cheapest(&ascending, &[0.0; 38]), Ids::U64(_)), "an id without a row");
        assert!(matches!(cheapest(&[], &[]), Ids::U64(_)));
    }
}
