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
    segment::Segment,
    version::Version,
};

/// Ids looked up at a time.
const IDS_AT_ONCE: usize = 4096;

/// How the ids of a memtable change what the segments hold.
#[derive(Debug, Default)]
pub(super) struct Effect {
    pub(super) live_records: u64,
    /// Segments with the number of their rows that are garbage from now on.
    pub(super) buried: Vec<(Arc<Segment>, u32)>,
}

impl Core {
    /// What the ids of a memtable do to the records in the segments.
    pub(super) async fn effect(&self, version: &Version, ids: &Listing) -> Result<Effect, Error> {
        let mut effect = Effect { live_records: version.live_records, buried: Vec::new() };
        let Some((min, max)) = ids.summary().range() else { return Ok(effect) };
        if !version.segments.iter().any(|segment| segment.overlaps(min, max)) {
            effect.live_records += u64::from(ids.summary().live());
            return Ok(effect);
        }
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
                effect.bury(segment);
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
    fn bury(&mut self, segment: &Arc<Segment>) {
        match self.buried.iter_mut().find(|(known, _)| Arc::ptr_eq(known, segment)) {
            Some((_, rows)) => *rows += 1,
            None => self.buried.push((Arc::clone(segment), 1)),
        }
    }

    /// The manifest keeps the live rows of older segments up to date, so that garbage is known
    /// after a restart.
    pub(super) fn update_metas(&self, known: &[SegmentMeta], edit: &mut FlushEdit) {
        let mut rows_of: BTreeMap<FileId, u32> = BTreeMap::new();
        for (segment, rows) in &self.buried {
            // A compaction may have put another segment in its place meanwhile.
            let sum = rows_of.entry(segment.live().newest().file()).or_default();
            *sum = sum.saturating_add(*rows);
        }
        for meta in known {
            let Some(rows) = rows_of.get(&meta.file) else { continue };
            edit.removed.push(meta.file);
            let live_rows = meta.live_rows.saturating_sub(*rows);
            edit.added.push(SegmentMeta { live_rows, ..meta.clone() });
        }
    }
}
