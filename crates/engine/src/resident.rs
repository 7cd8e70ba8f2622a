//! Reads from memory alone: what the read path tries before it builds anything that can wait.
//!
//! Guarantee: no lock (unless a memtable holds something: then its own, shared), no allocation but
//! for the list that many ids are answered in, no system call, no task switch. What cannot be told
//! from memory is left to `lookup`, which then starts from the beginning.
//! Does not: load pages, or wait for frames.

use nephrite_format::{IdRef, Lsn, Row, filter::IdHash};

use crate::{error::Error, lookup::in_memory, memtable, vector::VectorRef, version::Version};

/// What memory alone tells of an id.
#[derive(Debug)]
pub(crate) enum Resident {
    Found(VectorRef),
    /// Deleted, or never stored.
    Absent,
    /// A page that is needed is not in memory.
    Unknown,
}

impl Version {
    /// The vector of an id as of `at`, if it can be told from memory.
    #[inline]
    pub(crate) fn resident(&self, id: IdRef<'_>, at: Lsn) -> Result<Resident, Error> {
        if let Some(found) = self.resident_in_memtables(id, at) {
            return Ok(found);
        }
        let mut hash = None;
        for segment in self.candidates(id) {
            // Of several segments most do not have the id; of a single one it is asked directly.
            if self.has_overlaps() && segment.denies(|| *hash.get_or_insert_with(|| IdHash::of(id)))
            {
                continue;
            }
            match segment.find_resident(id)? {
                None => return Ok(Resident::Unknown),
                Some(None) => {}
                Some(Some(Row::TOMBSTONE)) => return Ok(Resident::Absent),
                Some(Some(row)) => {
                    let vector = segment.resident_vector(row);
                    return Ok(vector.map_or(Resident::Unknown, Resident::Found));
                }
            }
        }
        Ok(Resident::Absent)
    }

    #[inline]
    fn resident_in_memtables(&self, id: IdRef<'_>, at: Lsn) -> Option<Resident> {
        let find = |memtable| {
            let found: memtable::Version = memtable::Memtable::find(memtable, id, at)?;
            Some(if found.row.is_tombstone() {
                Resident::Absent
            } else {
                Resident::Found(in_memory(memtable, found.row))
            })
        };
        self.memtables().filter(|memtable| !memtable.is_empty()).find_map(|memtable| find(memtable))
    }
}
