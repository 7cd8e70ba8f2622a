//! What becomes of each database: which segments stay, which are made anew and of what.
//!
//! Parts of a database are ordered by age. A part that is made anew keeps its age; an id that it
//! has lost becomes a tombstone in it, so that no older vector shows through. What the log holds
//! and no segment does becomes the newest part when the log itself is damaged.
//! Tested in `tests/it/repair*`.

use std::collections::{BTreeSet, HashSet};

use nephrite_format::{
    DatabaseId, FileId, Id, Lsn,
    manifest::{DatabaseMeta, SegmentMeta},
};

use super::{
    listing::{Found, Listing},
    log::Log,
    part::{Part, Salvaged},
    report::{Loss, LossKind, RepairReport},
    salvage::{self, Span, Value},
    state::Known,
    survey::{self, Outcome},
    work::Reader,
};
use crate::{error::Error, manifest::DatabaseRecord, paths::segment_name, segment::seal::Identity};

/// A database after the repair.
#[derive(Debug)]
pub(super) struct DatabasePlan {
    pub(super) meta: DatabaseMeta,
    pub(super) flushed_lsn: Lsn,
    pub(super) live_records: u64,
    /// Oldest first.
    pub(super) parts: Vec<Part>,
}

/// What planning a database needs.
pub(super) struct Planner<'a> {
    pub(super) reader: &'a Reader,
    pub(super) known: &'a Known,
    pub(super) listing: &'a Listing,
    pub(super) log: &'a Log,
    /// Whether what the log holds is to become segments.
    pub(super) converts_log: bool,
}

/// A segment of a database before it was looked at.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) file: FileId,
    pub(super) meta: Option<SegmentMeta>,
}

impl Planner<'_> {
    /// Plans one database; `None` when it stays as it is.
    pub(super) async fn database(
        &self,
        record: &DatabaseRecord,
        sources: Vec<Source>,
        report: &mut RepairReport,
    ) -> Result<Option<DatabasePlan>, Error> {
        let damaged_before = report.damage.len();
        let mut looked = Vec::new();
        for source in sources {
            let outcome = self.look(record, &source, report).await?;
            looked.push((source, outcome));
        }
        self.put_in_order(&mut looked);
        let is_damaged = damaged_before < report.damage.len();
        if !is_damaged && !self.converts_log && self.known.is_whole {
            return Ok(None);
        }
        let mut parts: Vec<Part> = Vec::new();
        for (source, outcome) in looked {
            let above = parts.last().map_or(0, |part| part.max_lsn.get());
            let part = self.part(record, source, outcome, above, report).await?;
            parts.extend(part);
        }
        if !self.known.is_whole {
            (0..).zip(&mut parts).for_each(|(order, part)| part.order = order);
        }
        let reached = parts.iter().map(|part| part.max_lsn).max().unwrap_or(Lsn::new(0));
        let mut plan = DatabasePlan {
            meta: record.meta.clone(),
            flushed_lsn: record.flushed_lsn.max(reached),
            live_records: 0,
            parts,
        };
        let logged = match self.converts_log {
            true => self.add_log(&mut plan, report).await?,
            false => false,
        };
        if !is_damaged && !logged && self.known.is_whole {
            return Ok(None);
        }
        plan.report_losses(report);
        plan.count();
        Ok(Some(plan))
    }

    async fn look(
        &self,
        record: &DatabaseRecord,
        source: &Source,
        report: &mut RepairReport,
    ) -> Result<Outcome, Error> {
        let identity = Identity {
            store: self.known.store,
            file: source.file,
            database: record.meta.database,
            layout: record.meta.layout,
            id_kind: record.meta.id_kind,
        };
        let home = self.reader.paths.segment(source.file);
        let name = segment_name(source.file);
        let missing = Found { name: name.clone(), path: home };
        let found = self.listing.segments.get(&source.file).unwrap_or(&missing);
        let (meta, database) = (source.meta.as_ref(), record.meta.name.as_str());
        let damage = &mut report.damage;
        let looked = survey::survey(self.reader, identity, found, meta, database, damage).await?;
        if matches!(looked, Outcome::Damaged(_) | Outcome::Useless) {
            report.aside(&name, "it is damaged");
        }
        Ok(looked)
    }

    /// Oldest first. With a whole manifest by age; else by the records that went into them, a
    /// compaction's output behind its inputs.
    fn put_in_order(&self, looked: &mut Vec<(Source, Outcome)>) {
        let lsn = |(source, outcome): &(Source, Outcome)| match (outcome, &source.meta) {
            (Outcome::Whole(survey) | Outcome::Damaged(survey), _) => survey.max_lsn,
            (_, Some(meta)) => meta.max_lsn,
            (_, None) => Lsn::new(0),
        };
        if self.known.is_whole {
            looked.sort_by_key(|(source, _)| source.meta.as_ref().map(|meta| meta.order));
            return;
        }
        looked.sort_by_key(|it| (lsn(it), it.0.file));
        // A file that was compacted away behind the last edit that can be read is not missed: a
        // later file covers its ids.
        let covering: Vec<(Lsn, FileId, Id, Id, u32)> = looked
            .iter()
            .filter_map(|it| match &it.1 {
                Outcome::Whole(survey) | Outcome::Damaged(survey) => {
                    let (first, last) = survey.entries.first().zip(survey.entries.last())?;
                    let ids = survey.entry_count;
                    Some((survey.max_lsn, it.0.file, first.0.clone(), last.0.clone(), ids))
                }
                Outcome::Useless | Outcome::Missing => None,
            })
            .collect();
        looked.retain(|(source, outcome)| {
            let (Outcome::Missing, Some(meta)) = (outcome, &source.meta) else { return true };
            !covering.iter().any(|(lsn, file, first, last, ids)| {
                meta.max_lsn <= *lsn
                    && source.file < *file
                    && *first <= meta.min_id
                    && meta.max_id <= *last
                    && meta.live_rows <= *ids
            })
        });
    }

    async fn part(
        &self,
        record: &DatabaseRecord,
        source: Source,
        outcome: Outcome,
        above: u64,
        report: &mut RepairReport,
    ) -> Result<Option<Part>, Error> {
        let name = segment_name(source.file);
        let meta = source.meta;
        match outcome {
            Outcome::Whole(survey) => Ok(Some(Part::kept(survey, meta, name))),
            Outcome::Damaged(survey) => {
                let salvaged = self.salvage(record, above, survey.max_lsn).await?;
                Ok(Some(Part::rebuilt(survey, meta.as_ref(), name, salvaged)))
            }
            Outcome::Useless | Outcome::Missing => match meta {
                Some(meta) => {
                    let salvaged = self.salvage(record, above, meta.max_lsn).await?;
                    Ok(Some(Part::gone(&meta, name, salvaged)))
                }
                None => {
                    report.losses.push(Loss {
                        kind: LossKind::Range,
                        database: Some(record.meta.name.clone()),
                        ids: Vec::new(),
                        range: None,
                        count: None,
                        file: name,
                        what: "its footer is lost, so what it holds cannot be told".to_owned(),
                    });
                    Ok(None)
                }
            },
        }
    }

    /// The writes of a segment that the log still has.
    async fn salvage(
        &self,
        record: &DatabaseRecord,
        above: u64,
        last: Lsn,
    ) -> Result<Salvaged, Error> {
        let Some(from) = self.log.whole_back_from(last) else { return Ok(Salvaged::default()) };
        let meta = &record.meta;
        let above_read = above.max(from.saturating_sub(1));
        let (database, layout) = (meta.database, meta.layout);
        let span = Span { database, layout, above: above_read, last: last.get() };
        let frames = self.log.frames.iter();
        let writes =
            salvage::writes(self.reader, self.known, self.listing, self.log, span, frames).await?;
        let mut values = writes.values;
        values.retain(|id, _| !writes.lost.contains(id));
        let is_complete = from <= above + 1 && writes.lost.is_empty();
        Ok(Salvaged { values, is_complete })
    }

    /// Makes the records that are in no segment the newest part. Says whether there are any.
    async fn add_log(
        &self,
        plan: &mut DatabasePlan,
        report: &mut RepairReport,
    ) -> Result<bool, Error> {
        let meta = &plan.meta;
        let span = Span {
            database: meta.database,
            layout: meta.layout,
            above: plan.flushed_lsn.get(),
            last: u64::MAX,
        };
        let (log, frames) = (self.log, self.log.needed(self.known));
        let writes =
            salvage::writes(self.reader, self.known, self.listing, log, span, frames).await?;
        if writes.last_lsn == 0 {
            return Ok(false);
        }
        let file = writes.damaged_file.map(segment_name);
        if let Some(file) = &file {
            let what = "rows of a bulk record do not have their checksum".to_owned();
            report.note(file, 0, Some(&meta.name), what);
            report.aside(file, "rows in it are damaged");
        }
        let order = plan.parts.iter().map(|part| part.order + 1).max().unwrap_or(0);
        plan.flushed_lsn = plan.flushed_lsn.max(Lsn::new(writes.last_lsn));
        plan.parts.push(Part {
            order,
            level: 0,
            max_lsn: plan.flushed_lsn,
            live_rows: 0,
            entries: writes.values,
            kept: None,
            source: None,
            file: "the log".to_owned(),
            lost: writes.lost.into_iter().collect(),
            lost_file: file.unwrap_or_default(),
            unknown: None,
        });
        Ok(true)
    }
}

impl DatabasePlan {
    /// Names what is lost: ids whose newest write it was, ranges, and what may be too old.
    fn report_losses(&self, report: &mut RepairReport) {
        let name = &self.meta.name;
        let mut losses = Vec::new();
        for (age, part) in self.parts.iter().enumerate() {
            let newer = &self.parts[age + 1..];
            let is_newest = |id: &&Id| newer.iter().all(|part| !part.entries.contains_key(*id));
            let ids: Vec<Id> = part.lost.iter().filter(is_newest).cloned().collect();
            let loss = |kind, ids: Vec<Id>, range, count, what: &str| Loss {
                kind,
                database: Some(name.clone()),
                ids,
                range,
                count: Some(count),
                file: part.lost_file.clone(),
                what: what.to_owned(),
            };
            if !ids.is_empty() {
                let count = ids.len() as u64;
                losses.push(loss(LossKind::Ids, ids, None, count, "their vectors are damaged"));
            }
            let Some(unknown) = &part.unknown else { continue };
            for range in &unknown.ranges {
                let what = "ids are not known any more, nor whether they were deleted";
                let count = unknown.count;
                losses.push(loss(LossKind::Range, Vec::new(), Some(range.clone()), count, what));
            }
            let ids: Vec<Id> = self.older_that_may_be_stale(age).into_iter().collect();
            if !ids.is_empty() {
                let (count, what) = (ids.len() as u64, "an older vector is served");
                losses.push(loss(LossKind::Doubtful, ids, None, count, what));
            }
        }
        report.losses.extend(losses);
    }

    fn older_that_may_be_stale(&self, age: usize) -> BTreeSet<Id> {
        let (older, newer) = self.parts.split_at(age);
        let mut doubtful = BTreeSet::new();
        let mut seen: HashSet<&Id> = newer.iter().flat_map(|part| part.entries.keys()).collect();
        for part in older.iter().rev() {
            for (id, value) in &part.entries {
                let is_newest = seen.insert(id);
                if is_newest && *value != Value::Tombstone && newer[0].may_have_lost(id) {
                    doubtful.insert(id.clone());
                }
            }
        }
        doubtful
    }

    /// Drops what is of no use and counts what is live.
    fn count(&mut self) {
        // Below the oldest there is nothing to hide.
        let mut is_bottom = true;
        for part in &mut self.parts {
            if is_bottom && part.kept.is_none() {
                part.entries.retain(|_, value| *value != Value::Tombstone);
            }
            is_bottom &= part.entries.is_empty();
        }
        self.parts.retain(|part| !part.entries.is_empty());
        let mut seen: HashSet<&Id> = HashSet::new();
        let mut counts = Vec::new();
        for part in self.parts.iter().rev() {
            let mut live = 0_u32;
            for (id, value) in &part.entries {
                live += u32::from(seen.insert(id) && *value != Value::Tombstone);
            }
            counts.push(live);
        }
        self.live_records = counts.iter().copied().map(u64::from).sum();
        for (part, live) in self.parts.iter_mut().rev().zip(counts) {
            part.live_rows = live;
        }
    }
}

/// Databases by their number, for whoever reports ids of broken frames.
pub(super) fn name_of(known: &Known, database: DatabaseId) -> Option<String> {
    known.state.databases.get(&database).map(|record| record.meta.name.clone())
}
