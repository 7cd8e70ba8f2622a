//! The ids of a frozen memtable in ascending order, for its flush.
//!
//! Every version counts: all writes of a frozen memtable are acknowledged.
//! Guarantees: memory is 16 bytes for each id that is not in a run, counted as work for as long as
//! the listing lives; the ids themselves stay where they are. Taken in pieces, so that no lock is
//! held while something is written.

use std::sync::Arc;

use nephrite_format::{IdRef, Row};

pub(crate) use super::order::Place;
use super::{Memtable, index::NEWEST, order::Order};
use crate::planted::planted;
use crate::segment::{IdSummary, WorkMemory, work_memory::Held};

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Listing {
    memtable: Arc<Memtable>,
    order: Order,
    skips_tombstones: bool,
    summary: IdSummary,
    _held: Held,
}

impl Listing {
    /// Of a memtable that takes no more writes. Tombstones are left out where `is_bottom`: below
    /// the oldest segment there is nothing to hide.
    pub(crate) fn new(memtable: &Arc<Memtable>, is_bottom: bool, work: &Arc<WorkMemory>) -> Self {
        let is_bottom = is_bottom || planted("tombstone_dropped_in_flush");
        let index = memtable.index();
        let held = work.hold(index.order_bytes());
        let order = index.order();
        let summary = match index.as_dense(NEWEST) {
            Some((first, first_row, count)) => IdSummary::dense(first, first_row, count),
            None => {
                let mut place = Place::default();
                let entries = std::iter::from_fn(|| index.next_in(&order, &mut place, NEWEST));
                IdSummary::of(entries.filter(|(_, row)| !is_bottom || !row.is_tombstone()))
            }
        };
        drop(index);
        let memtable = Arc::clone(memtable);
        Self { memtable, order, skips_tombstones: is_bottom, summary, _held: held }
    }

    /// What the ids come to.
    pub(crate) fn summary(&self) -> &IdSummary {
        &self.summary
    }

    /// Hands at most `most` entries from `place` on to `visit`; `false` when there were none left.
    pub(crate) fn take(
        &self,
        place: &mut Place,
        most: usize,
        mut visit: impl FnMut(IdRef<'_>, Row),
    ) -> bool {
        let index = self.memtable.index();
        for _ in 0..most {
            let Some((id, row)) = index.next_in(&self.order, place, NEWEST) else { return false };
            if !(self.skips_tombstones && row.is_tombstone()) {
                visit(id, row);
            }
        }
        true
    }
}
