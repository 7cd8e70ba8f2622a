//! Ids that flushes of a database have seen: one question in place of one for each segment.
//!
//! A flush has to know which of its ids are in segments. Where most are new, as in a load, each of
//! them would be denied by the filter of each segment, and of those that a filter lets through id
//! pages are read. So what flushes wrote since the database was opened is noted here as well, in
//! filters of growing size; only what may be here is looked for in the segments that it covers.
//!
//! A *generation* is what was noted without a gap. A segment is covered when all its ids were noted
//! in the generation of now: so says the number that it keeps ([`Segment::seen_in`]). Where
//! memory is refused the next generation begins, and no older segment is covered any more.
//!
//! Guarantee: an id that was noted in this generation is never called new.
//! Does not: tell what an earlier life of the store wrote. Those segments are asked themselves.
//! Tested in this file, and by the planted bug `seen_ids_incomplete`.

use std::{
    num::NonZeroU64,
    sync::{Arc, atomic::Ordering},
};

use nephrite_format::filter::{IdFilter, IdHash};
use nephrite_io::memory::prefetch_value;

use super::{
    filter_memory::{Filter, FilterBlocks},
    memory_index::MetadataMemory,
    reader::Segment,
};
use crate::planted::planted;

/// Hashes whose parts of the filters are on their way at a time.
const AHEAD: usize = 32;
/// Ids that the first filter is made for, at the least.
const IDS_MIN: u32 = 1 << 10;
/// How much of a database's ids the first filter is made for: so many times the first memtable's.
const FIRST_MEMTABLES: u32 = 4;

/// So many of our ids have the bits that eight ids have in the filter of a segment: one in a
/// thousand new ids is doubted where such a filter doubts one in a hundred. A doubt costs a read of
/// the disk.
const IDS_IN_BITS_OF_EIGHT: u32 = 5;

/// Number of a generation of one database.
pub(crate) type SeenGeneration = NonZeroU64;

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct SeenIds {
    memory: Arc<MetadataMemory>,
    generation: SeenGeneration,
    /// The largest and emptiest last.
    filters: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    filter: Filter,
    /// Taken of the memory.
    bytes: u64,
    ids: u32,
    ids_max: u32,
}

/// What is known of ids before any segment is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) generation: SeenGeneration,
    /// Of each id, whether it may have been noted.
    pub(crate) maybe: &'a [bool],
}

impl SeenIds {
    pub(crate) fn new(memory: &Arc<MetadataMemory>) -> Self {
        Self { memory: Arc::clone(memory), generation: NonZeroU64::MIN, filters: Vec::new() }
    }

    /// The generation that ids are noted in now.
    pub(crate) fn generation(&self) -> SeenGeneration {
        self.generation
    }

    /// Notes ids, of a memtable with `count`; `maybe` gets whether each may have been noted before.
    pub(crate) fn note(&mut self, hashes: &[IdHash], count: u32, maybe: &mut Vec<bool>) {
        maybe.clear();
        for hashes in hashes.chunks(AHEAD) {
            if !self.has_room(hashes.len(), count) {
                maybe.resize(maybe.len() + hashes.len(), true);
                continue;
            }
            for part in &self.filters {
                let words = hashes.iter().filter_map(|hash| part.filter.words_of(*hash));
                words.for_each(prefetch_value);
            }
            maybe.extend(hashes.iter().map(|hash| self.note_one(*hash)));
        }
    }

    fn note_one(&mut self, hash: IdHash) -> bool {
        let Some((last, full)) = self.filters.split_last_mut() else { return true };
        if full.iter().any(|part| part.filter.may_contain(hash)) {
            return true;
        }
        if planted("seen_ids_incomplete") && hash.get() % 7 == 3 {
            return false;
        }
        let known = last.filter.insert_hash(hash);
        last.ids += u32::from(!known);
        known
    }

    /// Makes room for so many ids; false where there is none, and then nothing is covered.
    fn has_room(&mut self, more: usize, count: u32) -> bool {
        let last = self.filters.last();
        if last.is_some_and(|last| more <= (last.ids_max - last.ids) as usize) {
            return true;
        }
        let first = count.saturating_mul(FIRST_MEMTABLES).max(IDS_MIN);
        let ids_max = last.map_or(first, |last| last.ids_max.saturating_mul(2));
        if self.add(ids_max) {
            return true;
        }
        self.forget();
        self.add(first)
    }

    fn add(&mut self, ids_max: u32) -> bool {
        let room = (ids_max / IDS_IN_BITS_OF_EIGHT).saturating_mul(8);
        let bytes = IdFilter::memory_bytes_for(room) as u64;
        if !self.memory.take_seen(bytes) {
            return false;
        }
        let filter = Filter::in_memory(FilterBlocks::for_ids(room));
        self.filters.push(Part { filter, bytes, ids: 0, ids_max });
        true
    }

    fn forget(&mut self) {
        for part in self.filters.drain(..) {
            self.memory.give_seen(part.bytes);
        }
        self.generation = self.generation.saturating_add(1);
    }
}

impl Segment {
    /// The generation in which all ids of this segment were noted.
    pub(crate) fn seen_in(&self) -> Option<SeenGeneration> {
        // Relaxed: set before the segment is part of a version.
        SeenGeneration::new(self.seen_in.load(Ordering::Relaxed))
    }

    /// Before the segment is part of a version.
    pub(crate) fn set_seen_in(&self, generation: Option<SeenGeneration>) {
        let number = generation.map_or(0, SeenGeneration::get);
        self.seen_in.store(number, Ordering::Relaxed); // see `seen_in`
    }

    /// Its ids are from these segments.
    pub(crate) fn inherit_seen(&self, inputs: &[Arc<Self>]) {
        let first = inputs.first().and_then(|input| input.seen_in());
        self.set_seen_in(first.filter(|_| inputs.iter().all(|input| input.seen_in() == first)));
    }
}

impl Drop for SeenIds {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use nephrite_format::IdRef;

    use super::*;

    fn hashes(ids: std::ops::Range<u64>) -> Vec<IdHash> {
        ids.map(|id| IdHash::of(IdRef::U64(id))).collect()
    }

    #[test]
    fn noted_ids_are_never_called_new_however_many_there_are() {
        let memory = Arc::new(MetadataMemory::new(64 << 20, 0));
        let (mut seen, mut maybe) = (SeenIds::new(&memory), Vec::new());
        let mut doubtful = 0;
        for start in (0..200_000).step_by(1000) {
            seen.note(&hashes(start..start + 1000), 1000, &mut maybe);
            assert_eq!(maybe.len(), 1000);
            doubtful += maybe.iter().filter(|maybe| **maybe).count();
        }

        assert!(doubtful < 2_000, "{doubtful} of 200000 new ids may have been noted");
        assert!(1 < seen.filters.len(), "it has grown");
        seen.note(&hashes(0..200_000), 1000, &mut maybe);
        assert!(maybe.iter().all(|maybe| *maybe));
        assert_eq!(seen.generation(), NonZeroU64::MIN);
        assert!(0 < memory.filter_bytes());
        drop(seen);
        assert_eq!(memory.filter_bytes(), 0);
    }

    #[test]
    fn a_generation_ends_where_memory_does() {
        // For the first filter and not for another that is twice as large.
        let room = 4 * 4 * IdFilter::memory_bytes_for(IDS_MIN) as u64;
        let memory = Arc::new(MetadataMemory::new(room, 0));
        let (mut seen, mut maybe) = (SeenIds::new(&memory), Vec::new());
        seen.note(&hashes(0..700), 1, &mut maybe);
        let before = seen.generation();
        seen.note(&hashes(700..1400), 1, &mut maybe);
        assert_ne!(seen.generation(), before);
        seen.note(&hashes(1300..1400), 1, &mut maybe);
        assert!(maybe.iter().all(|maybe| *maybe), "the newest are still there");

        let none = Arc::new(MetadataMemory::new(0, 0));
        let mut seen = SeenIds::new(&none);
        seen.note(&hashes(0..10), 10, &mut maybe);
        assert_eq!(maybe, [true; 10]);
    }
}
