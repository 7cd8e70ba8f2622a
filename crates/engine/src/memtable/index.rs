//! The memtable's index: id -> versions, newest first.
//!
//! Two parts. *Runs* hold consecutive u64 ids that arrived in order (bulk loads): 40 bytes for any
//! number of ids. The *table* holds everything else: a hash table of entry numbers, the keys in a
//! column beside it, each entry linked to the version before it.
//!
//! Guarantee: for every id and every log sequence number, [`MemIndex::find`] gives the newest
//! version at or below that number. Versions of one id are inserted in ascending order of their
//! sequence numbers (the caller holds the database's write lock).
//! Not here: visibility rules, locking (the memtable's `RwLock`), vectors.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use nephrite_format::{Id, IdKind, IdRef, Lsn, Row};

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

/// The ids of the entries, column-wise.
#[derive(Debug)]
enum Keys {
    U64(Vec<u64>),
    Bytes { ends: Vec<u32>, bytes: Vec<u8> },
}

impl Keys {
    fn len(&self) -> usize {
        match self {
            Self::U64(keys) => keys.len(),
            Self::Bytes { ends, .. } => ends.len(),
        }
    }

    fn get(&self, entry: u32) -> IdRef<'_> {
        let entry = entry as usize;
        match self {
            Self::U64(keys) => IdRef::U64(keys[entry]),
            Self::Bytes { ends, bytes } => {
                let start = if entry == 0 { 0 } else { ends[entry - 1] as usize };
                IdRef::Bytes(&bytes[start..ends[entry] as usize])
            }
        }
    }

    fn push(&mut self, id: IdRef<'_>) {
        match (self, id) {
            (Self::U64(keys), IdRef::U64(id)) => keys.push(id),
            (Self::Bytes { ends, bytes }, IdRef::Bytes(id)) => {
                bytes.extend_from_slice(id);
                let end = u32::try_from(bytes.len());
                ends.push(end.expect("the memtable limit is far below 4 GiB of ids"));
            }
            _ => panic!("an id of the wrong kind passed validation"),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::U64(keys) => keys.capacity() * 8,
            Self::Bytes { ends, bytes } => ends.capacity() * 4 + bytes.capacity(),
        }
    }
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct MemIndex {
    hasher: FixedState,
    table: HashTable<u32>,
    entries: Vec<Entry>,
    keys: Keys,
    /// In order of insertion; ids ascend strictly from run to run (else they go to the table).
    runs: Vec<Run>,
}

impl MemIndex {
    pub(crate) fn new(kind: IdKind, seed: u64) -> Self {
        let keys = match kind {
            IdKind::U64 => Keys::U64(Vec::new()),
            IdKind::Bytes => Keys::Bytes { ends: Vec::new(), bytes: Vec::new() },
        };
        Self {
            hasher: FixedState::with_seed(seed),
            table: HashTable::new(),
            entries: Vec::new(),
            keys,
            runs: Vec::new(),
        }
    }

    /// Adds the newest version of an id.
    pub(crate) fn insert(&mut self, id: IdRef<'_>, version: Version) {
        let hash = hash_id(&self.hasher, id);
        let entry = u32::try_from(self.keys.len()).expect("a memtable holds fewer than 2^32 rows");
        let keys = &self.keys;
        let slot = self.table.find_mut(hash, |candidate| keys.get(*candidate) == id);
        let previous = match slot {
            Some(newest) => std::mem::replace(newest, entry),
            None => NO_ENTRY,
        };
        self.keys.push(id);
        self.entries.push(Entry { version, previous });
        if previous == NO_ENTRY {
            let (hasher, keys) = (&self.hasher, &self.keys);
            self.table.insert_unique(hash, entry, |other| hash_id(hasher, keys.get(*other)));
        }
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
        self.find(id, Lsn::new(u64::MAX))
    }

    fn find_in_runs(&self, id: IdRef<'_>) -> Option<Version> {
        let IdRef::U64(id) = id else { return None };
        let after = self.runs.partition_point(|run| run.first_id <= id);
        self.runs[..after].last()?.version_of(id)
    }

    fn find_in_table(&self, id: IdRef<'_>, at: Lsn) -> Option<Version> {
        if self.table.is_empty() {
            return None;
        }
        let hash = hash_id(&self.hasher, id);
        let mut entry = *self.table.find(hash, |candidate| self.keys.get(*candidate) == id)?;
        while entry != NO_ENTRY {
            let found = self.entries[entry as usize];
            if found.version.lsn <= at {
                return Some(found.version);
            }
            entry = found.previous;
        }
        None
    }

    /// The newest version at or below `at` of every id, in ascending order of the ids.
    pub(crate) fn sorted(&self, at: Lsn) -> Vec<(Id, Row)> {
        let mut found: Vec<(Id, Row)> = Vec::with_capacity(self.table.len());
        for entry in &self.table {
            let id = self.keys.get(*entry);
            if let Some(version) = self.find(id, at) {
                found.push((id.to_id(), version.row));
            }
        }
        found.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        if self.runs.is_empty() {
            return found;
        }
        self.merge_runs(found, at)
    }

    /// Merges the ids of the runs into the sorted ids of the table, which already hold the newest
    /// of both.
    fn merge_runs(&self, table: Vec<(Id, Row)>, at: Lsn) -> Vec<(Id, Row)> {
        let in_runs: usize = self.runs.iter().map(|run| run.count as usize).sum();
        let mut merged = Vec::with_capacity(table.len() + in_runs);
        let mut table = table.into_iter().peekable();
        for run in self.runs.iter().filter(|run| run.lsn <= at) {
            for offset in 0..run.count {
                let id = Id::U64(run.first_id + u64::from(offset));
                while table.peek().is_some_and(|next| next.0 < id) {
                    merged.extend(table.next());
                }
                if table.peek().is_some_and(|next| next.0 == id) {
                    merged.extend(table.next());
                } else {
                    merged.push((id, Row::new(run.first_row + offset)));
                }
            }
        }
        merged.extend(table);
        merged
    }

    /// When all there is are runs that continue each other in ids and rows: (first id, first row,
    /// count). Then nothing needs sorting and the segment needs no id entries.
    pub(crate) fn as_dense(&self, at: Lsn) -> Option<(u64, Row, u32)> {
        if !self.table.is_empty() {
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
        self.table.capacity() * 5
            + self.entries.capacity() * size_of::<Entry>()
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
    fn the_last_id_of_all_can_be_stored() {
        let mut index = MemIndex::new(IdKind::U64, 7);
        index.insert_consecutive(u64::MAX, 1, Row::new(0), Lsn::new(1));
        assert_eq!(index.find_newest(IdRef::U64(u64::MAX)), Some(version(1, 0)));
    }
}
