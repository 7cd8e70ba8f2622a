//! Known rows: the part of one version in the store's table of rows found lately.
//!
//! Finding a number or a string in segments takes a filter of each, fences, and an id page. What
//! was found is kept in a table (`nephrite_pager::RowTable`) under the whole id, so that the next
//! lookup of the id is a look at one cache line. Versions whose segments all hold consecutive ids
//! have no part in it: there finding is a subtraction.
//!
//! Guarantee: an answer is what looking through the segments of this version gives. Each list of
//! segments has numbers of its own in the table, and versions never change; so a flush or a
//! compaction forgets, for its database, what was kept.
//! Does not: know of memtables, which hide what is in segments and are asked before.

use std::sync::Arc;

use nephrite_format::{IdRef, Row, filter::IdHash};
use nephrite_pager::{FoundRow, Places, RowTable};

use crate::segment::Segment;

/// See the module documentation.
#[derive(Clone, Debug)]
pub(crate) struct KnownRows {
    table: Arc<RowTable>,
    places: Places,
    /// Sets the databases of a store apart, which often have the same ids.
    salt: u64,
    /// What all byte ids here begin with; left out in the table, which has more room for short
    /// ids.
    prefix: Box<[u8]>,
}

impl KnownRows {
    /// Of a list of segments, all of whose byte ids begin with `prefix`; `None` when there is
    /// nothing to remember, or no table.
    pub(crate) fn of(segments: &[Arc<Segment>], prefix: &[u8]) -> Option<Self> {
        let table = segments.iter().find_map(|segment| segment.row_table())?;
        let database = u64::from(segments.first()?.database().get());
        let places = table.new_places(u32::try_from(segments.len()).ok()?);
        let salt = database.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Some(Self { table: Arc::clone(table), places, salt, prefix: prefix.into() })
    }

    /// Asks the processor for what [`Self::find`] needs.
    #[inline]
    pub(crate) fn prefetch(&self, id: IdRef<'_>, hash: IdHash) {
        match id {
            IdRef::U64(_) => self.table.prefetch_number(self.salted(hash)),
            IdRef::Bytes(_) => self.table.prefetch_bytes(self.salted(hash)),
        }
    }

    /// The position of the newest segment with the id, and the row there.
    #[inline]
    pub(crate) fn find(&self, id: IdRef<'_>, hash: IdHash) -> Option<(usize, Row)> {
        let hash = self.salted(hash);
        let found = match id {
            IdRef::U64(id) => self.table.find_number(hash, id, self.places),
            IdRef::Bytes(id) => {
                self.table.find_bytes(hash, id.strip_prefix(&*self.prefix)?, self.places)
            }
        }?;
        Some((found.position as usize, Row::new(found.row)))
    }

    /// Notes what was found in the segment at `position` after all newer ones had denied.
    pub(crate) fn keep(&self, id: IdRef<'_>, hash: IdHash, position: usize, row: Row) {
        let Ok(position) = u32::try_from(position) else { return };
        let (hash, found) = (self.salted(hash), FoundRow { position, row: row.get() });
        match id {
            IdRef::U64(id) => self.table.keep_number(hash, id, self.places, found),
            IdRef::Bytes(id) => {
                if let Some(id) = id.strip_prefix(&*self.prefix) {
                    self.table.keep_bytes(hash, id, self.places, found);
                }
            }
        }
    }

    #[inline]
    fn salted(&self, hash: IdHash) -> u64 {
        hash.get() ^ self.salt
    }
}
