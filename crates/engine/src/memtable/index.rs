//! The memtable's index: id -> versions, newest first.
//!
//! Two parts. *Runs* hold consecutive u64 ids that arrived in order (bulk loads): 40 bytes for any
//! number of ids. The *table* holds everything else: a hash table of entry numbers (`id_table`),
//! the ids and their entries in columns beside it (`keys`, `column`), each entry linked to the
//! version before it.
//!
//! Guarantee: for every id and every log sequence number, [`MemIndex::find`] gives the newest
//! version at or below that number. Versions of one id are inserted in ascending order of their
//! sequence numbers (the caller holds the database's write lock).
//! Not here: visibility rules, locking (the memtable's `RwLock`), vectors.

use std::{cmp::Ordering, hash::BuildHasher};

use foldhash::fast::FixedState;
use nephrite_format::{Id, IdKind, IdRef, Lsn, Row};

use super::{
    column::Column,
    id_table::IdTable,
    keys::Keys,
    order::{Order, Place, Slot, beginning},
};

/// One version of one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) lsn: Lsn,
    /// `Row::TOMBSTONE` for a deletion.
    pub(crate) row: Row,
}

/// Consecutive ids in consecutive rows, written by one log record.
#[derive(Clone, Copy, Debug)]
struct Run {
    first_id: u64,
    count: u32,
    first_row: u32,
    lsn: Lsn,
}

impl Run {
    fn end_id(&self) -> u64 {
        // Runs are checked against overflow when they are made.
        self.first_id + u64::from(self.count)
    }

    fn version_of(&self, id: u64) -> Option<Version> {
        let offset = id.checked_sub(self.first_id)?;
        let offset = u32::try_from(offset).ok().filter(|offset| *offset < self.count)?;
        Some(Version { lsn: self.lsn, row: Row::new(self.first_row + offset) })
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    version: Version,
    /// Entry number of the version before, or `NO_ENTRY`.
    previous: u32,
}

const NO_ENTRY: u32 = u32::MAX;

/// Every version is at or below it.
pub(crate) const NEWEST: Lsn = Lsn::new(u64::MAX);

impl Entry {
    /// As two numbers, without padding.
    fn packed(self) -> [u64; 2] {
        let row = u64::from(self.version.row.get());
        [self.version.lsn.get(), row << 32 | u64::from(self.previous)]
    }

    fn unpacked([lsn, rest]: [u64; 2]) -> Self {
        let half = |bits: u64| u32::try_from(bits & 0xffff_ffff).expect("32 bits are left");
        let version = Version { lsn: Lsn::new(lsn), row: Row::new(half(rest >> 32)) };
        Self { version, previous: half(rest) }
    }
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct MemIndex {
    hasher: FixedState,
    table: IdTable,
    entries: Column<[u64; 2]>,
    keys: Keys,
    /// In order of insertion; ids ascend strictly from run to run (else they go to the table).
    runs: Vec<Run>,
}

impl MemIndex {
    pub(crate) fn new(kind: IdKind, seed: u64) -> Self {
        Self {
            hasher: FixedState::with_seed(seed),
            table: IdTable::new(),
            entries: Column::default(),
            keys: Keys::new(kind),
            runs: Vec::new(),
        }
    }

    /// Adds the newest version of an id.
    pub(crate) fn insert(&mut self, id: IdRef<'_>, version: Version) {
        let hash = hash_id(&self.hasher, id);
        let entry = u32::try_from(self.keys.len()).expect("a memtable holds fewer than 2^32 rows");
        let keys = &self.keys;
        let before = self.table.replace(hash, entry, |other| keys.get(other) == id);
        let previous = before.unwrap_or(NO_ENTRY);
        self.keys.push(id);
        self.entries.push(Entry { version, previous }.packed());
    }

    /// Adds consecutive ids in consecutive rows, all of one log record.
    pub(crate) fn insert_consecutive(&mut self, first: u64, count: u32, first_row: Row, lsn: Lsn) {
        let ascends = self.runs.last().is_none_or(|last| last.end_id() <= first);
        if ascends && first.checked_add(u64::from(count)).is_some() {
            self.runs.push(Run { first_id: first, count, first_row: first_row.get(), lsn });
            return;
        }
        for offset in 0..count {
            let row = Row::new(first_row.get() + offset);
            self.insert(IdRef::U64(first + u64::from(offset)), Version { lsn, row });
        }
    }

    /// The newest version of `id` at or below `at`.
    pub(crate) fn find(&self, id: IdRef<'_>, at: Lsn) -> Option<Version> {
        let in_run = self.find_in_runs(id).filter(|version| version.lsn <= at);
        let in_table = self.find_in_table(id, at);
        match (in_run, in_table) {
            (Some(run), Some(table)) => Some(if run.lsn > table.lsn { run } else { table }),
            (run, table) => run.or(table),
        }
    }

    /// The newest version of `id`, whether acknowledged or not.
    pub(crate) fn find_newest(&self, id: IdRef<'_>) -> Option<Version> {
        self.find(id, NEWEST)
    }

    fn find_in_runs(&self, id: IdRef<'_>) -> Option<Version> {
        let IdRef::U64(id) = id else { return None };
        let after = self.runs.partition_point(|run| run.first_id <= id);
        self.runs[..after].last()?.version_of(id)
    }

    fn find_in_table(&self, id: IdRef<'_>, at: Lsn) -> Option<Version> {
        if self.table.len() == 0 {
            return None;
        }
        let hash = hash_id(&self.hasher, id);
        let entry = self.table.find(hash, |candidate| self.keys.get(candidate) == id)?;
        self.version_at(entry, at)
    }

    /// The newest version at or below `at` of an entry and those before it.
    fn version_at(&self, mut entry: u32, at: Lsn) -> Option<Version> {
        while entry != NO_ENTRY {
            let found = Entry::unpacked(self.entries.get(entry as usize));
            if found.version.lsn <= at {
                return Some(found.version);
            }
            entry = found.previous;
        }
        None
    }

    /// The ids of the table in ascending order.
    pub(crate) fn order(&self) -> Order {
        let slot = |entry: u32| {
            let row = Entry::unpacked(self.entries.get(entry as usize)).version.row;
            let beginning = match self.keys.get(entry) {
                IdRef::U64(id) => id,
                IdRef::Bytes(id) => beginning(id),
            };
            Slot { beginning, entry, row }
        };
        let count = self.table.len();
        let tie = matches!(self.keys, Keys::Bytes { .. })
            .then_some(|left, right| self.keys.get(left).cmp(&self.keys.get(right)));
        let all = u32::try_from(self.entries.len()).expect("a memtable holds fewer than 2^32 rows");
        if count == all as usize {
            // Each id has one version: in the order of arrival, which is that of the memory.
            Order::new(count, (0..all).map(slot), tie)
        } else {
            Order::new(count, self.table.entries().map(slot), tie)
        }
    }

    /// Bytes that [`Self::order`] takes.
    pub(crate) fn order_bytes(&self) -> u64 {
        Order::bytes_for(self.table.len())
    }

    /// The next id in ascending order and the row of its newest version at or below `at`: from
    /// `place` on, which moves behind it. `order` is [`Self::order`], with nothing inserted since.
    pub(crate) fn next_in(
        &self,
        order: &Order,
        place: &mut Place,
        at: Lsn,
    ) -> Option<(IdRef<'_>, Row)> {
        loop {
            let run = self.run_at(place, at);
            let slot = order.slot(place.slot).map(|slot| (self.id_of(slot), slot));
            let (id, in_table, in_run) = match (slot, run) {
                (None, None) => return None,
                (Some((id, slot)), None) => (id, Some(slot), None),
                (None, Some((id, version))) => (id, None, Some(version)),
                (Some((id, slot)), Some((run, version))) => match id.cmp(&run) {
                    Ordering::Less => (id, Some(slot), None),
                    Ordering::Equal => (id, Some(slot), Some(version)),
                    Ordering::Greater => (run, None, Some(version)),
                },
            };
            place.slot += usize::from(in_table.is_some());
            place.offset += u32::from(in_run.is_some());
            if let (Some(slot), None, NEWEST) = (in_table, in_run, at) {
                return Some((id, slot.row));
            }
            let in_table = in_table.and_then(|slot| self.version_at(slot.entry, at));
            let newest = in_table.into_iter().chain(in_run).max_by_key(|version| version.lsn);
            if let Some(version) = newest {
                return Some((id, version.row));
            }
        }
    }

    fn id_of(&self, slot: Slot) -> IdRef<'_> {
        match self.keys {
            Keys::U64(_) => IdRef::U64(slot.beginning),
            Keys::Bytes { .. } => self.keys.get(slot.entry),
        }
    }

    /// The id of the runs that `place` is at, which may move to a later run.
    fn run_at(&self, place: &mut Place, at: Lsn) -> Option<(IdRef<'static>, Version)> {
        loop {
            let run = self.runs.get(place.run)?;
            if run.lsn <= at && place.offset < run.count {
                let id = run.first_id + u64::from(place.offset);
                let row = Row::new(run.first_row + place.offset);
                return Some((IdRef::U64(id), Version { lsn: run.lsn, row }));
            }
            place.run += 1;
            place.offset = 0;
        }
    }

    /// The newest version at or below `at` of every id, in ascending order of the ids.
    pub(crate) fn sorted(&self, at: Lsn) -> Vec<(Id, Row)> {
        let (order, mut place) = (self.order(), Place::default());
        let next = || self.next_in(&order, &mut place, at).map(|(id, row)| (id.to_id(), row));
        std::iter::from_fn(next).collect()
    }

    /// When all there is are runs that continue each other in ids and rows: (first id, first row,
    /// count). Then nothing needs sorting and the segment needs no id entries.
    pub(crate) fn as_dense(&self, at: Lsn) -> Option<(u64, Row, u32)> {
        if self.table.len() != 0 {
            return None;
        }
        let first = self.runs.first()?;
        let mut count = 0_u32;
        for run in &self.runs {
            let continues = run.first_id == first.first_id + u64::from(count)
                && run.first_row == first.first_row + count;
            if !continues || at < run.lsn {
                return None;
            }
            count = count.checked_add(run.count)?;
        }
        Some((first.first_id, Row::new(first.first_row), count))
    }

    /// Bytes of memory held.
    pub(crate) fn bytes(&self) -> usize {
        self.table.bytes()
            + self.entries.bytes()
            + self.runs.capacity() * size_of::<Run>()
            + self.keys.bytes()
    }
}

fn hash_id(hasher: &FixedState, id: IdRef<'_>) -> u64 {
    match id {
        IdRef::U64(id) => hasher.hash_one(id),
        IdRef::Bytes(id) => hasher.hash_one(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(lsn: u64, row: u32) -> Version {
        Version { lsn: Lsn::new(lsn), row: Row::new(row) }
    }

    #[test]
    fn older_readers_see_older_versions() {
        let mut index = MemIndex::new(IdKind::Bytes, 7);
        index.insert(IdRef::from("a"), version(1, 10));
        index.insert(IdRef::from("a"), version(5, 11));
        index.insert(IdRef::from("a"), Version { lsn: Lsn::new(9), row: Row::TOMBSTONE });
        assert_eq!(index.find(IdRef::from("a"), Lsn::new(0)), None);
        assert_eq!(index.find(IdRef::from("a"), Lsn::new(4)), Some(version(1, 10)));
        assert_eq!(index.find(IdRef::from("a"), Lsn::new(8)), Some(version(5, 11)));
        assert_eq!(index.find_newest(IdRef::from("a")).unwrap().row, Row::TOMBSTONE);
        assert_eq!(index.find_newest(IdRef::from("b")), None);
    }

    #[test]
    fn runs_and_single_entries_shadow_each_other_by_sequence_number() {
        let mut index = MemIndex::new(IdKind::U64, 7);
        index.insert(IdRef::U64(3), version(1, 0));
        index.insert_consecutive(0, 10, Row::new(1), Lsn::new(2));
        index.insert(IdRef::U64(4), version(3, 11));
        assert_eq!(index.find_newest(IdRef::U64(3)), Some(version(2, 4)));
        assert_eq!(index.find(IdRef::U64(3), Lsn::new(1)), Some(version(1, 0)));
        assert_eq!(index.find_newest(IdRef::U64(4)), Some(version(3, 11)));
        let sorted = index.sorted(Lsn::new(9));
        assert_eq!(sorted.len(), 10);
        assert_eq!(sorted[3], (Id::U64(3), Row::new(4)));
        assert_eq!(sorted[4], (Id::U64(4), Row::new(11)));
    }

    #[test]
    fn continuing_runs_are_dense_and_others_are_not() {
        let mut index = MemIndex::new(IdKind::U64, 7);
        index.insert_consecutive(100, 10, Row::new(0), Lsn::new(1));
        index.insert_consecutive(110, 5, Row::new(10), Lsn::new(2));
        assert_eq!(index.as_dense(Lsn::new(2)), Some((100, Row::new(0), 15)));
        index.insert_consecutive(116, 5, Row::new(15), Lsn::new(3));
        assert_eq!(index.as_dense(Lsn::new(3)), None);
        index.insert_consecutive(110, 2, Row::new(20), Lsn::new(4));
        assert_eq!(index.find_newest(IdRef::U64(111)), Some(version(4, 21)));
        assert_eq!(index.sorted(Lsn::new(9)).len(), 20);
    }

    #[test]
    fn lists_name_the_newest_rows_however_often_an_id_was_written() {
        let id = |number: u64| IdRef::U64(number * 7 % 101);
        let mut index = MemIndex::new(IdKind::U64, 7);
        (0..100).for_each(|row| index.insert(id(u64::from(row)), version(1, row)));
        let once = index.sorted(NEWEST);
        (40..60).for_each(|row| index.insert(id(u64::from(row)), version(2, 100 + row)));
        let twice = index.sorted(NEWEST);

        assert!(once.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!((once.len(), index.sorted(Lsn::new(1))), (100, once));
        for (found, row) in twice {
            let version = index.find_newest(found.as_id_ref()).unwrap();
            assert_eq!(row, version.row, "{found:?}");
        }
    }

    #[test]
    fn the_last_id_of_all_can_be_stored() {
        let mut index = MemIndex::new(IdKind::U64, 7);
        index.insert_consecutive(u64::MAX, 1, Row::new(0), Lsn::new(1));
        assert_eq!(index.find_newest(IdRef::U64(u64::MAX)), Some(version(1, 0)));
    }
}
