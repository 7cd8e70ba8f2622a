//! A segment after the repair: one that stays, one made anew from what its file and the log still
//! give, or one of which only the log knows.
//!
//! An id whose vector is lost becomes a tombstone, so that no older vector shows through; ids whose
//! very names are lost are kept as ranges with a count.
//! Tested in `tests/it/repair*`.

use std::collections::BTreeMap;

use nephrite_format::{Generation, Id, Lsn, Row, filter::IdHash, manifest::SegmentMeta};

use super::{salvage::Value, survey::Survey};

/// A segment after the repair.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) order: u64,
    pub(super) level: u32,
    pub(super) max_lsn: Lsn,
    pub(super) live_rows: u32,
    pub(super) entries: BTreeMap<Id, Value>,
    /// What the manifest says of it when it stays as it is.
    pub(super) kept: Option<SegmentMeta>,
    /// From what it is made anew.
    pub(super) source: Option<Survey>,
    pub(super) file: String,
    pub(super) lost: Vec<Id>,
    pub(super) lost_file: String,
    pub(super) unknown: Option<Unknown>,
}

/// Ids of a part whose names are not known.
#[derive(Debug)]
pub(super) struct Unknown {
    pub(super) ranges: Vec<(Id, Id)>,
    pub(super) count: u64,
}

/// What the log gives back of a segment.
#[derive(Debug, Default)]
pub(super) struct Salvaged {
    pub(super) values: BTreeMap<Id, Value>,
    /// Whether these are all writes that went into the segment.
    pub(super) is_complete: bool,
}

impl Part {
    pub(super) fn kept(survey: Survey, meta: Option<SegmentMeta>, file: String) -> Self {
        let range = survey.entries.first().zip(survey.entries.last());
        let made = range.map(|((min, _), (max, _))| SegmentMeta {
            file: survey.identity.file,
            generation: Generation::new(0),
            file_bytes: survey.file_bytes,
            row_count: survey.row_count,
            entry_count: survey.entry_count,
            tombstone_count: survey.tombstone_count,
            live_rows: 0,
            level: 0,
            order: 0,
            max_lsn: survey.max_lsn,
            min_id: min.clone(),
            max_id: max.clone(),
        });
        let kept = meta.or(made);
        let value = |row: Row| match row.is_tombstone() {
            true => Value::Tombstone,
            false => Value::Row(row.get()),
        };
        Self {
            order: kept.as_ref().map_or(0, |kept| kept.order),
            level: kept.as_ref().map_or(0, |kept| kept.level),
            max_lsn: survey.max_lsn,
            live_rows: 0,
            entries: survey.entries.into_iter().map(|(id, row)| (id, value(row))).collect(),
            kept,
            source: None,
            lost_file: file.clone(),
            file,
            lost: Vec::new(),
            unknown: None,
        }
    }

    pub(super) fn rebuilt(
        mut survey: Survey,
        meta: Option<&SegmentMeta>,
        file: String,
        mut salvaged: Salvaged,
    ) -> Self {
        let (layout, own) = (survey.identity.layout, survey.identity.file);
        let holds = |row: Row| {
            survey.whole_pages.get(layout.page_of(row).page as usize).copied().unwrap_or(false)
        };
        // Rows of a bulk record may lie in this very file.
        salvaged.values.values_mut().for_each(|value| {
            if let Value::Bulk { segment, row } = *value
                && segment == own
                && holds(Row::new(row))
            {
                *value = Value::Row(row);
            }
        });
        let (mut entries, mut lost) = (BTreeMap::new(), Vec::new());
        let known = survey.entries.len();
        for (id, row) in std::mem::take(&mut survey.entries) {
            let value = if row.is_tombstone() {
                Value::Tombstone
            } else if holds(row) {
                Value::Row(row.get())
            } else if let Some(value) = salvaged.values.get(&id) {
                *value
            } else {
                lost.push(id.clone());
                Value::Tombstone
            };
            entries.insert(id, value);
        }
        let mut count = (survey.entry_count as usize).saturating_sub(known) as u64;
        let mut ranges = std::mem::take(&mut survey.lost_ranges);
        if let (true, Some(meta)) = (ranges.is_empty() && 0 < count, meta) {
            ranges.push((meta.min_id.clone(), meta.max_id.clone()));
        }
        for (id, value) in salvaged.values {
            let within = ranges.iter().any(|(low, high)| *low <= id && id <= *high);
            if within && !entries.contains_key(&id) {
                entries.insert(id, value);
                count = count.saturating_sub(1);
            }
        }
        let unknown = (0 < count && !salvaged.is_complete).then_some(Unknown { ranges, count });
        Self {
            order: meta.map_or(0, |meta| meta.order),
            level: meta.map_or(0, |meta| meta.level),
            max_lsn: survey.max_lsn,
            live_rows: 0,
            entries,
            kept: None,
            source: Some(survey),
            lost_file: file.clone(),
            file,
            lost,
            unknown,
        }
    }

    /// A segment of which nothing is left but what the log still has.
    pub(super) fn gone(meta: &SegmentMeta, file: String, salvaged: Salvaged) -> Self {
        let count = u64::from(meta.entry_count).saturating_sub(salvaged.values.len() as u64);
        let ranges = vec![(meta.min_id.clone(), meta.max_id.clone())];
        let unknown = (!salvaged.is_complete).then_some(Unknown { ranges, count });
        Self {
            order: meta.order,
            level: meta.level,
            max_lsn: meta.max_lsn,
            live_rows: 0,
            entries: salvaged.values,
            kept: None,
            source: None,
            lost_file: file.clone(),
            file,
            lost: Vec::new(),
            unknown,
        }
    }

    /// Whether the segment may hold an id whose name is lost.
    pub(super) fn may_have_lost(&self, id: &Id) -> bool {
        let Some(unknown) = &self.unknown else { return false };
        let within = unknown.ranges.iter().any(|(low, high)| low <= id && id <= high);
        let filter = self.source.as_ref().and_then(|source| source.filter.as_ref());
        let hash = IdHash::of(id.as_id_ref());
        within && filter.is_none_or(|filter| filter.may_contain(hash))
    }

    /// How the report names the part.
    pub(super) fn file(&self) -> &str {
        &self.file
    }
}
