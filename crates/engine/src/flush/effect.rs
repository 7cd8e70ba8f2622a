//! What a flush does to the records in the segments: how many there are, and which rows of older
//! segments are garbage from now on. The ids are looked up in pieces of [`IDS_AT_ONCE`], and noted
//! for the next flush (`segment/seen_ids`).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nephrite_format::{
    FileId, Id, IdRef, Row,
    filter::IdHash,
    manifest::{FlushEdit, SegmentMeta},
};

use crate::{
    core::{Core, DatabaseCore},
    error::Error,
    lookup::find_in_segments,
    memtable::{Listing, Place},
    planted::planted,
    segment::{Seen, SeenGeneration, SeenIds, Segment, work_memory::Held},
    version::Version,
};

/// Ids looked up at a time.
const IDS_AT_ONCE: usize = 4096;

/// Rows of one list: short ones leave no holes in the allocator's memory.
const LIST_ROWS: usize = 2048;

/// How the ids of a memtable change what the segments hold.
#[derive(Debug, Default)]
pub(super) struct Effect {
    pub(super) live_records: u64,
    /// Segments with those of their rows that are garbage from now on, in lists of a few thousand.
    pub(super) buried: Vec<(Arc<Segment>, Vec<Row>)>,
    /// The generation in which all ids of the memtable were noted.
    pub(super) seen_in: Option<SeenGeneration>,
    /// Counts the rows as work.
    held: Option<Held>,
}

impl Core {
    /// What the ids of a memtable do to the records in the segments.
    pub(super) async fn effect(
        &self,
        database: &DatabaseCore,
        version: &Version,
        ids: &Listing,
    ) -> Result<Effect, Error> {
        let mut effect = Effect { live_records: version.live_records, ..Effect::default() };
        let Some((min, max)) = ids.summary().range() else { return Ok(effect) };
        let overlaps = version.segments.iter().any(|segment| segment.overlaps(min, max));
        if !overlaps && (!version.segments.is_empty() || ids.summary().is_dense()) {
            effect.live_records += u64::from(ids.summary().live());
            return Ok(effect);
        }
        let row_bytes = size_of::<Row>() as u64;
        effect.held = Some(self.read.work.hold(u64::from(ids.summary().count()) * row_bytes));
        let generation = lock(&database.seen).generation();
        let (mut place, mut more, mut is_whole) = (Place::default(), true, true);
        let (mut next, mut asked_ids) = (Listed::default(), Asked::new(generation));
        while more {
            more = next.take(ids, &mut place);
            let now = next.note(&mut lock(&database.seen), ids.summary().count());
            is_whole &= now == generation;
            let is_asked = |segment: &&Arc<Segment>| segment.overlaps(min, max);
            let mut asked = version.segments.iter().filter(is_asked);
            let asks_all = asked.any(|segment| segment.seen_in() != Some(now));
            effect.live_records += asked_ids.add(&mut next, now, asks_all);
            if !more || IDS_AT_ONCE <= asked_ids.listed.len() {
                self.add_effect(version, &asked_ids, &mut effect).await?;
                asked_ids = Asked::new(now);
            }
        }
        effect.seen_in = is_whole.then_some(generation);
        Ok(effect)
    }

    /// Of some of the ids, ascending.
    async fn add_effect(
        &self,
        version: &Version,
        asked_ids: &Asked,
        effect: &mut Effect,
    ) -> Result<(), Error> {
        let wanted: Vec<IdRef<'_>> =
            asked_ids.listed.iter().map(|(id, _)| id.as_id_ref()).collect();
        let (read, segments) = (&self.read, &version.segments);
        let seen = Some(Seen { generation: asked_ids.generation, maybe: &asked_ids.maybe });
        let before = find_in_segments(read, segments, &wanted, seen, |segment, row| {
            if !row.is_tombstone() {
                effect.bury(segment, row);
            }
        });
        let before = before.await?;
        for ((_, row), before) in asked_ids.listed.iter().zip(before) {
            let existed = before.is_some_and(|before| !before.is_tombstone());
            match (existed, row.is_tombstone()) {
                (true, true) if planted("count_keeps_deleted") => {}
                (true, true) => effect.live_records -= 1,
                (false, false) => effect.live_records += 1,
                (true, false) | (false, true) => {}
            }
        }
        Ok(())
    }
}

/// The next of the ids.
#[derive(Default)]
struct Listed {
    ids: Vec<(Id, Row)>,
    hashes: Vec<IdHash>,
    maybe: Vec<bool>,
}

impl Listed {
    /// Takes as many as are looked up at a time; false when there were no more.
    fn take(&mut self, ids: &Listing, place: &mut Place) -> bool {
        self.hashes.clear();
        ids.take(place, IDS_AT_ONCE, |id, row| {
            self.ids.push((id.to_id(), row));
            self.hashes.push(IdHash::of(id));
        })
    }

    /// Notes them and learns which were there before.
    fn note(&mut self, seen: &mut SeenIds, count: u32) -> SeenGeneration {
        seen.note(&self.hashes, count, &mut self.maybe);
        seen.generation()
    }
}

/// Ids that segments are asked about.
struct Asked {
    listed: Vec<(Id, Row)>,
    generation: SeenGeneration,
    /// Of each of them, whether it may have been noted in the generation before.
    maybe: Vec<bool>,
}

impl Asked {
    fn new(generation: SeenGeneration) -> Self {
        Self { listed: Vec::new(), generation, maybe: Vec::new() }
    }

    /// Adds those that may be in a segment, or all. The rest is new; gives how many records that
    /// is.
    fn add(&mut self, next: &mut Listed, now: SeenGeneration, asks_all: bool) -> u64 {
        if now != self.generation {
            self.maybe.fill(true); // what they were asked about is forgotten
            self.generation = now;
        }
        let mut new = 0;
        for (entry, maybe) in next.ids.drain(..).zip(&next.maybe) {
            if asks_all || *maybe {
                self.listed.push(entry);
                self.maybe.push(*maybe);
            } else {
                new += u64::from(!entry.1.is_tombstone());
            }
        }
        new
    }
}

impl Effect {
    fn bury(&mut self, segment: &Arc<Segment>, row: Row) {
        let has_room = |list: &&mut (Arc<Segment>, Vec<Row>)| {
            Arc::ptr_eq(&list.0, segment) && list.1.len() < LIST_ROWS
        };
        match self.buried.iter_mut().rev().find(has_room) {
            Some((_, rows)) => rows.push(row),
            None => self.buried.push((Arc::clone(segment), vec![row])),
        }
    }

    /// The manifest keeps the live rows of older segments up to date, so that garbage is known
    /// after a restart.
    pub(super) fn update_metas(&self, known: &[SegmentMeta], edit: &mut FlushEdit) {
        let mut rows_of: BTreeMap<FileId, u32> = BTreeMap::new();
        for (segment, rows) in &self.buried {
            // A compaction may have put another segment in its place meanwhile.
            let sum = rows_of.entry(segment.live().newest().file()).or_default();
            *sum = sum.saturating_add(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        }
        for meta in known {
            let Some(rows) = rows_of.get(&meta.file) else { continue };
            edit.removed.push(meta.file);
            let live_rows = meta.live_rows.saturating_sub(*rows);
            edit.added.push(SegmentMeta { live_rows, ..meta.clone() });
        }
    }
}

fn lock(seen: &Mutex<SeenIds>) -> MutexGuard<'_, SeenIds> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
