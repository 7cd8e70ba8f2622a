//! Reads from memory alone: what the read path tries before it builds anything that can wait.
//!
//! Guarantee: no lock (unless a memtable holds something: then its own, shared), no allocation but
//! for the list that many ids are answered in, no system call, no task switch. What cannot be told
//! from memory is left to `lookup`, which then starts from the beginning.
//! Does not: load pages, or wait for frames.

use std::sync::Arc;

use nephrite_format::{IdRef, Lsn, Row, filter::IdHash};

use crate::{
    error::Error, lookup::in_memory, memtable::Memtable, segment::Segment, vector::VectorRef,
    version::Version,
};

/// What memory alone tells of an id.
#[derive(Debug)]
pub(crate) enum Resident {
    Found(VectorRef),
    /// Deleted, or never stored.
    Absent,
    /// A page that is needed is not in memory.
    Unknown,
}

/// Ids whose cache misses run side by side.
const WINDOW: usize = 32;

/// Where an id of a window lies, as far as it is known.
#[derive(Clone, Copy, Debug)]
enum Spot<'a> {
    Absent,
    Memory(&'a Arc<Memtable>, Row),
    Segment(&'a Arc<Segment>, Row),
    /// Its id page in this segment, the candidate of this number, is next.
    Next(&'a Arc<Segment>, usize),
}

impl Version {
    /// The vector of an id as of `at`, if it can be told from memory.
    #[inline]
    pub(crate) fn resident(&self, id: IdRef<'_>, at: Lsn) -> Result<Resident, Error> {
        if cfg!(planted_bug = "hash_of_every_read") {
            std::hint::black_box(IdHash::of(id)); // what `crates/instructions/planted.sh` finds
        }
        if (!self.frozen.is_empty() || !self.active.is_empty())
            && let Some(spot) = self.find_in_memtables(id, at)
        {
            return Ok(spot.resident());
        }
        // Written out rather than by `Spot::resident`: the fewer copies of the pin between here and
        // its first use the better, as no copy is read back before the pin is through.
        match self.resident_in_segments(id)? {
            Some(Spot::Segment(segment, row)) => {
                let vector = segment.resident_vector(row);
                Ok(vector.map_or(Resident::Unknown, Resident::Found))
            }
            Some(Spot::Absent) => Ok(Resident::Absent),
            _ => Ok(Resident::Unknown),
        }
    }

    #[inline(never)]
    fn find_in_memtables(&self, id: IdRef<'_>, at: Lsn) -> Option<Spot<'_>> {
        self.memtables().filter(|memtable| !memtable.is_empty()).find_map(|memtable| {
            let found = memtable.find(id, at)?;
            Some(memory_spot(memtable, found.row))
        })
    }

    /// Where an id lies; `None` when an id page is not in memory.
    #[inline]
    fn resident_in_segments(&self, id: IdRef<'_>) -> Result<Option<Spot<'_>>, Error> {
        let Some(known) = self.known() else { return self.search_dense(id) };
        let hash = IdHash::of(id);
        match known.find(id, hash) {
            Some((position, row)) => Ok(Some(segment_spot(&self.segments[position], row))),
            None => self.search_resident(id, 0, Some(hash)),
        }
    }

    /// As [`Self::resident_in_segments`], in a version of consecutive ids, mostly one run.
    #[inline]
    fn search_dense(&self, id: IdRef<'_>) -> Result<Option<Spot<'_>>, Error> {
        let Some(position) = self.sole_candidate(id) else {
            return self.search_resident(id, 0, None);
        };
        let segment = &self.segments[position];
        let row = segment.find_resident(id)?;
        Ok(row.map(|row| row.map_or(Spot::Absent, |row| segment_spot(segment, row))))
    }

    /// As [`Self::resident_in_segments`], of an id that is not known, from its candidate number
    /// `first` on.
    #[inline]
    fn search_resident(
        &self,
        id: IdRef<'_>,
        first: usize,
        mut hash: Option<IdHash>,
    ) -> Result<Option<Spot<'_>>, Error> {
        for (position, segment) in self.candidates(id).skip(first) {
            // Of several segments most do not have the id; of a single one it is asked directly.
            if self.has_overlaps() && segment.denies(|| *hash.get_or_insert_with(|| IdHash::of(id)))
            {
                continue;
            }
            match segment.find_resident(id)? {
                None => return Ok(None),
                Some(None) => {}
                Some(Some(row)) => {
                    if let (Some(known), Some(hash)) = (self.known(), hash) {
                        known.keep(id, hash, position, row);
                    }
                    return Ok(Some(segment_spot(segment, row)));
                }
            }
        }
        Ok(Some(Spot::Absent))
    }

    /// The vectors of many ids as of `at`, in the order of the ids, if all can be told from memory.
    /// The caller asks for no more than may be pinned at a time.
    pub(crate) fn resident_many(
        &self,
        ids: &[IdRef<'_>],
        at: Lsn,
    ) -> Result<Option<Vec<Option<VectorRef>>>, Error> {
        let mut vectors = Vec::with_capacity(ids.len());
        for ids in ids.chunks(WINDOW) {
            let mut spots = [Spot::Absent; WINDOW];
            let spots = &mut spots[..ids.len()];
            if !self.locate_resident(ids, at, spots)? {
                return Ok(None);
            }
            prefetch_vectors(spots);
            for spot in spots {
                match spot.resident() {
                    Resident::Found(vector) => vectors.push(Some(vector)),
                    Resident::Absent => vectors.push(None),
                    Resident::Unknown => return Ok(None),
                }
            }
        }
        Ok(Some(vectors))
    }

    /// Finds where the ids of a window lie; false when an id page is not in memory.
    fn locate_resident<'a>(
        &'a self,
        ids: &[IdRef<'_>],
        at: Lsn,
        spots: &mut [Spot<'a>],
    ) -> Result<bool, Error> {
        let hashes = self.hashes(ids);
        for ((spot, id), hash) in spots.iter_mut().zip(ids).zip(hashes) {
            *spot = self.first_step(*id, hash);
        }
        // Oldest first: what is newer hides it, and all of them what is in segments.
        for memtable in self.memtables().rev() {
            memtable.find_many(ids, at, |position, found| {
                spots[position] = memory_spot(memtable, found.row);
            });
        }
        let next = |spots: &[Spot<'a>]| spots.iter().any(|spot| matches!(spot, Spot::Next(..)));
        if !next(spots) {
            return Ok(true);
        }
        for (spot, id) in spots.iter().zip(ids) {
            if let Spot::Next(segment, _) = spot {
                segment.prefetch_id_page(*id);
            }
        }
        for ((spot, id), hash) in spots.iter_mut().zip(ids).zip(hashes) {
            if let Spot::Next(_, candidate) = *spot {
                match self.search_resident(*id, candidate, hash)? {
                    Some(found) => *spot = found,
                    None => return Ok(false),
                }
            }
        }
        Ok(true)
    }

    /// The hashes of a window of ids, where rows may be known; asks the processor for what is
    /// known.
    fn hashes(&self, ids: &[IdRef<'_>]) -> [Option<IdHash>; WINDOW] {
        let mut hashes = [None; WINDOW];
        if let Some(known) = self.known() {
            for (hash, id) in hashes.iter_mut().zip(ids) {
                known.prefetch(*id, *hash.insert(IdHash::of(*id)));
            }
        }
        hashes
    }

    /// Where an id lies, if no id page is needed to tell; else asks the processor for the first.
    #[inline]
    fn first_step(&self, id: IdRef<'_>, mut hash: Option<IdHash>) -> Spot<'_> {
        if let (Some(known), Some(hash)) = (self.known(), hash)
            && let Some((position, row)) = known.find(id, hash)
        {
            return segment_spot(&self.segments[position], row);
        }
        for (candidate, (_, segment)) in self.candidates(id).enumerate() {
            if self.has_overlaps() && segment.denies(|| *hash.get_or_insert_with(|| IdHash::of(id)))
            {
                continue;
            }
            match segment.prefetch_id_entry(id) {
                None => return Spot::Next(segment, candidate),
                Some(None) => {}
                Some(Some(row)) => return segment_spot(segment, row),
            }
        }
        Spot::Absent
    }
}

impl Spot<'_> {
    #[inline]
    fn resident(&self) -> Resident {
        match self {
            Spot::Absent => Resident::Absent,
            Spot::Memory(memtable, row) => Resident::Found(in_memory(memtable, *row)),
            Spot::Segment(segment, row) => {
                segment.resident_vector(*row).map_or(Resident::Unknown, Resident::Found)
            }
            Spot::Next(..) => Resident::Unknown,
        }
    }
}

fn prefetch_vectors(spots: &[Spot<'_>]) {
    for spot in spots {
        if let Spot::Segment(segment, row) = spot {
            segment.prefetch_vector_entry(*row);
        }
    }
    for spot in spots {
        if let Spot::Segment(segment, row) = spot {
            segment.prefetch_vector(*row);
        }
    }
}

#[inline]
fn memory_spot(memtable: &Arc<Memtable>, row: Row) -> Spot<'_> {
    if row.is_tombstone() { Spot::Absent } else { Spot::Memory(memtable, row) }
}

#[inline]
fn segment_spot(segment: &Arc<Segment>, row: Row) -> Spot<'_> {
    if row.is_tombstone() { Spot::Absent } else { Spot::Segment(segment, row) }
}
