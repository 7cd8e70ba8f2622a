//! Live rows: how many rows of a segment nothing newer hides, and which rows are hidden.
//!
//! A flush looks up what it hides anyway, so each row that it buries is noted here, in a bit per
//! row. A compaction then knows what is garbage without a look at the ids of newer segments.
//!
//! A flush buries rows while a compaction may be replacing the segment that they lie in. So count
//! and rows outlive their segment: they are forwarded to those of the segment that takes its place,
//! until the next flush of the database begins, which knows the new one.
//! Changed under the core's lock on swaps, but for the end of a forward, which a flush makes before
//! it takes a version; the count is read at any time as a gauge.
//!
//! Guarantee: a row that is noted is hidden by a segment that the manifest names. Not the other way
//! round: what was hidden before the segment was opened is not known, nor is what found no memory
//! for its bit (`MetadataMemory`); then [`LiveRows::buried`] says nothing.

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use nephrite_format::{FileId, Row, manifest::SegmentMeta};

use super::{memory_index::MetadataMemory, row_set::RowSet};
use crate::planted::planted;

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct LiveRows {
    file: FileId,
    row_count: u32,
    count: AtomicU32,
    buried: Mutex<Buried>,
    memory: Arc<MetadataMemory>,
}

#[derive(Debug)]
struct Buried {
    /// Rows that were hidden since the segment was made or opened.
    rows: Option<RowSet>,
    /// No others were, before.
    complete: bool,
    /// There was no memory for some of them.
    refused: bool,
    forward: Option<Forward>,
}

/// The segment that took the place of another.
#[derive(Debug)]
struct Forward {
    to: Arc<LiveRows>,
    /// The rows that it got from the other.
    moved: Arc<RowSet>,
    _counted: Counted,
}

/// Bytes of rows that moved, while somebody may ask where they went.
#[derive(Debug)]
struct Counted {
    bytes: u64,
    memory: Arc<MetadataMemory>,
}

impl Counted {
    fn new(moved: &RowSet, memory: &Arc<MetadataMemory>) -> Self {
        let bytes = moved.bytes();
        memory.add_buried(bytes);
        Self { bytes, memory: Arc::clone(memory) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.memory.give_buried(self.bytes);
    }
}

impl LiveRows {
    pub(crate) fn new(meta: &SegmentMeta, memory: &Arc<MetadataMemory>) -> Arc<Self> {
        let own = meta.entry_count.checked_sub(meta.tombstone_count);
        let complete = own == Some(meta.live_rows);
        Arc::new(Self {
            file: meta.file,
            row_count: meta.row_count,
            count: AtomicU32::new(meta.live_rows),
            buried: Mutex::new(Buried { rows: None, complete, refused: false, forward: None }),
            memory: Arc::clone(memory),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Buried> {
        self.buried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment that this is the count of.
    pub(crate) fn file(&self) -> FileId {
        self.file
    }

    pub(crate) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed) // a gauge
    }

    /// All rows that are hidden; `None` when they are not known.
    pub(crate) fn buried(&self) -> Option<RowSet> {
        let buried = self.lock();
        let none = || RowSet::new(self.row_count);
        let known = buried.complete && !buried.refused;
        known.then(|| buried.rows.clone().unwrap_or_else(none))
    }

    /// Those of the segment that holds these rows now.
    pub(crate) fn newest(self: &Arc<Self>) -> Arc<Self> {
        let mut newest = Arc::clone(self);
        loop {
            let next = newest.lock().forward.as_ref().map(|forward| Arc::clone(&forward.to));
            match next {
                Some(next) => newest = next,
                None => return newest,
            }
        }
    }

    /// These rows are hidden from now on, wherever they lie now.
    pub(crate) fn bury(self: &Arc<Self>, rows: &[Row]) {
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let mut place = Arc::clone(self);
        let mut rows = Cow::Borrowed(rows);
        loop {
            let buried = place.lock();
            let Some(forward) = &buried.forward else { break };
            let moved = rows.to_mut();
            moved.retain(|row| forward.moved.contains(*row));
            moved.iter_mut().for_each(|row| *row = forward.moved.new_row(*row));
            let next = Arc::clone(&forward.to);
            drop(buried);
            place = next;
        }
        place.note(rows.iter().copied());
        place.set(place.count().saturating_sub(count));
    }

    pub(crate) fn set(&self, count: u32) {
        self.count.store(count, Ordering::Relaxed); // a gauge
    }

    fn note(&self, rows: impl Iterator<Item = Row>) {
        let mut rows = rows.peekable();
        if rows.peek().is_none() {
            return;
        }
        let mut buried = self.lock();
        let bytes = RowSet::bytes_for(self.row_count);
        if buried.rows.is_none() && self.memory.take_buried(bytes) {
            buried.rows = Some(RowSet::new(self.row_count));
        }
        match &mut buried.rows {
            Some(known) if planted("neighbour_buried") => {
                rows.for_each(|row| known.insert(Row::new(row.get() ^ 1)));
            }
            Some(known) => rows.for_each(|row| known.insert(row)),
            None => buried.refused = true,
        }
    }

    /// Takes over what was buried in an input since a compaction chose the rows to keep, of which
    /// these are the input's. The count is the caller's to set.
    pub(crate) fn inherit(&self, input: &Self, kept: &RowSet) {
        let buried = input.lock();
        let refused = buried.refused;
        if let Some(rows) = &buried.rows {
            self.note(kept.rows_in(rows).map(|row| kept.new_row(row)));
        }
        drop(buried);
        self.lock().refused |= refused;
    }

    /// The rows lie in another segment from now on.
    pub(crate) fn forward_to(&self, output: &Arc<Self>, moved: Arc<RowSet>) {
        let mut buried = self.lock();
        assert!(buried.forward.is_none(), "a segment is compacted once");
        let _counted = Counted::new(&moved, &self.memory);
        buried.forward = Some(Forward { to: Arc::clone(output), moved, _counted });
        self.release(&mut buried);
    }

    /// No flush that knew the segment runs any more: nobody asks where its rows went. Otherwise
    /// whoever keeps it, a snapshot, would keep what is known of all that follow it.
    pub(crate) fn end_forward(&self) {
        let forward = self.lock().forward.take();
        drop(forward); // which may drop others, not under the lock
    }

    fn release(&self, buried: &mut Buried) {
        if buried.rows.take().is_some() {
            self.memory.give_buried(RowSet::bytes_for(self.row_count));
            buried.refused = true;
        }
    }

    fn take_forward(&mut self) -> Option<Forward> {
        self.buried.get_mut().unwrap_or_else(PoisonError::into_inner).forward.take()
    }
}

impl Drop for LiveRows {
    /// A snapshot may keep the first of a long chain: taken apart without recursion.
    fn drop(&mut self) {
        self.release(&mut self.lock());
        let mut next = self.take_forward();
        while let Some(forward) = next {
            let Some(mut last) = Arc::into_inner(forward.to) else { return };
            next = last.take_forward();
        }
    }
}

#[cfg(test)]
mod tests {
    use nephrite_format::{Generation, Id, Lsn};

    use super::*;

    fn live_rows(file: u64, rows: u32, memory: &Arc<MetadataMemory>) -> Arc<LiveRows> {
        let meta = SegmentMeta {
            file: FileId::new(file),
            generation: Generation::new(0),
            file_bytes: 0,
            row_count: rows,
            entry_count: rows,
            tombstone_count: 0,
            live_rows: rows,
            level: 0,
            order: 0,
            max_lsn: Lsn::new(0),
            min_id: Id::U64(0),
            max_id: Id::U64(0),
        };
        LiveRows::new(&meta, memory)
    }

    fn memory() -> Arc<MetadataMemory> {
        Arc::new(MetadataMemory::new(1 << 20, 0))
    }

    fn rows(rows: impl IntoIterator<Item = u32>) -> Vec<Row> {
        rows.into_iter().map(Row::new).collect()
    }

    /// The rows without those that are left out, closed.
    fn without(count: u32, left_out: &[u32]) -> Arc<RowSet> {
        let mut kept = RowSet::new(count);
        let rows = (0..count).filter(|row| !left_out.contains(row));
        rows.for_each(|row| kept.insert(Row::new(row)));
        kept.close(0);
        Arc::new(kept)
    }

    fn buried(live: &LiveRows) -> Vec<Row> {
        live.buried().unwrap().rows_within(0, u32::MAX).collect()
    }

    #[test]
    fn rows_buried_in_a_segment_count_in_the_one_that_replaced_it() {
        let memory = memory();
        let counts = [10, 8, 7].map(|count| live_rows(0, count, &memory));
        counts[0].forward_to(&counts[1], without(10, &[0, 4]));
        counts[1].forward_to(&counts[2], without(8, &[1]));
        // Row 5 became row 3, and then row 2.
        counts[0].bury(&rows([5, 9]));
        assert_eq!((counts[0].count(), counts[2].count()), (10, 5));
        assert_eq!(buried(&counts[2]), rows([2, 6]));
        counts[2].bury(&rows(0..7));
        assert_eq!(counts[2].count(), 0);
    }

    #[test]
    fn what_is_buried_while_a_compaction_runs_is_buried_in_its_output() {
        let memory = memory();
        let (input, output) = (live_rows(0, 10, &memory), live_rows(1, 9, &memory));
        input.bury(&rows([3]));
        let kept = without(10, &[3]);
        input.bury(&rows([2, 7]));
        output.inherit(&input, &kept);
        assert_eq!(buried(&output), rows([2, 6]));
    }

    #[test]
    fn rows_that_found_no_memory_are_not_claimed_to_be_known() {
        let memory = Arc::new(MetadataMemory::new(0, 0));
        let (input, output) = (live_rows(0, 10, &memory), live_rows(1, 10, &memory));
        assert!(input.buried().is_some(), "nothing is buried yet");
        input.bury(&rows([3]));
        assert_eq!(input.count(), 9);
        assert!(input.buried().is_none());
        output.inherit(&input, &without(10, &[]));
        assert!(output.buried().is_none(), "nor in the segment that takes its place");
    }

    #[test]
    fn memory_is_given_back() {
        let memory = memory();
        let (one, other) = (live_rows(0, 1000, &memory), live_rows(1, 1000, &memory));
        one.bury(&rows([3]));
        other.bury(&rows([3]));
        let both = memory.bytes();
        let moved = without(1000, &[]);
        let moved_bytes = moved.bytes();
        one.forward_to(&other, moved);
        assert_eq!((memory.bytes() - moved_bytes) * 2, both);
        one.end_forward();
        assert_eq!(memory.bytes() * 2, both);
        assert_eq!(Arc::strong_count(&other), 1);
        drop((one, other));
        assert_eq!(memory.bytes(), 0);
    }

    #[test]
    fn a_chain_of_any_length_is_dropped_without_recursion() {
        let memory = memory();
        let first = live_rows(0, 0, &memory);
        let mut last = Arc::clone(&first);
        for file in 1..200_000 {
            let next = live_rows(file, 0, &memory);
            last.forward_to(&next, without(0, &[]));
            last = next;
        }
        drop(last);
        drop(first);
    }
}
