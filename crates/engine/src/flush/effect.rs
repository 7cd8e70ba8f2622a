//! What a flush does to the records in the segments: how many there are, and which rows of older
//! segments are garbage from now on. The ids are looked up in pieces of [`IDS_AT_ONCE`].

use std::{collections::BTreeMap, sync::Arc};

use nephrite_format::{
    FileId, Id, IdRef, Row,
    manifest::{FlushEdit, SegmentMeta},
};

use crate::{
    core::Core,
    error::Error,
    lookup::find_in_segments,
    memtable::{Listing, Place},
    planted::planted,
    segment::{Segment, work_memory::Held},
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
    /// Counts the rows as work.
    held: Option<Held>,
}

impl Core {
    /// What the ids of a memtable do to the records in the segments.
    pub(super) async fn effect(&self, version: &Version, ids: &Listing) -> Result<Effect, Error> {
        let mut effect = Effect { live_records: version.live_records, ..Effect::default() };
        let Some((min, max)) = ids.summary().range() else { return Ok(effect) };
        if !version.segments.iter().any(|segment| segment.overlaps(min, max)) {
            effect.live_records += u64::from(ids.summary().live());
            return Ok(effect);
        }
        let row_bytes = size_of::<Row>() as u64;
        effect.held = Some(self.read.work.hold(u64::from(ids.summary().count()) * row_bytes));
        let mut place = Place::default();
        let mut more = true;
        while more {
            let mut listed: Vec<(Id, Row)> = Vec::with_capacity(IDS_AT_ONCE);
            more = ids.take(&mut place, IDS_AT_ONCE, |id, row| listed.push((id.to_id(), row)));
            self.add_effect(version, &listed, &mut effect).await?;
        }
        Ok(effect)
    }

    /// Of some of the ids, ascending.
    async fn add_effect(
        &self,
        version: &Version,
        listed: &[(Id, Row)],
        effect: &mut Effect,
    ) -> Result<(), Error> {
        let wanted: Vec<IdRef<'_>> = listed.iter().map(|(id, _)| id.as_id_ref()).collect();
        let before = find_in_segments(&self.read, &version.segments, &wanted, |segment, row| {
            if !row.is_tombstone() {
                effect.bury(segment, row);
            }
        });
        let before = before.await?;
        for ((_, row), before) in listed.iter().zip(before) {
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
