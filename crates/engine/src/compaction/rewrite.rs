//! Writing the output of a compaction: rows (`rows`), then id pages, then the tail.
//!
//! Three passes over the inputs, each in order: the ids tell which rows live on ([`survey`]), the
//! rows are copied, the ids are merged once more, now with their new rows. Consecutive ids need no
//! third pass. Memory: a bit per row, a checksum per page, a fence per id page, and a few buffers.

use std::sync::Arc;

use nephrite_format::{
    Id, IdKind, Lsn, Row,
    id_run::{IdIndex, IdRunBuilder},
    segment::RowOrder,
};

use super::{
    hidden::Hidden,
    merge::{Entry, Merge},
    pace::Pace,
    rows::copy_rows,
};
use crate::{
    core::{Core, DatabaseCore},
    error::Error,
    planted::planted,
    segment::{
        Segment,
        id_pages::IdPageWriter,
        row_set::RowSet,
        seal::{Identity, Outline, TailPages, seal_tail},
        sink::SegmentSink,
    },
};

/// What is merged.
pub(super) struct Plan {
    /// Newest first.
    pub(super) inputs: Vec<Arc<Segment>>,
    /// Rows of the inputs that newer segments hide, where they are known.
    pub(super) buried: Option<Vec<RowSet>>,
    /// Where they are not: newer segments that can hide ids of the inputs, newest first.
    pub(super) shadows: Vec<Arc<Segment>>,
    /// Older segments: a tombstone stays when one of them can have its id.
    pub(super) older: Vec<Arc<Segment>>,
    /// What memtables say of the inputs' ids, where rows that they hide go as well.
    pub(super) hidden: Option<Hidden>,
    /// Bytes of memory for pieces of id runs.
    pub(super) merge_bytes: usize,
}

impl Plan {
    fn merge<'a>(&self, core: &'a Core, kind: IdKind) -> Merge<'a> {
        Merge::new(&core.read, kind, &self.shadows, &self.inputs, self.merge_bytes)
    }

    /// Bytes that carrying it out holds, beside id pages and the pieces of rows.
    pub(super) fn work_bytes(&self) -> u64 {
        let rows: u64 = self.inputs.iter().map(|input| u64::from(input.row_count())).sum();
        // Two bits per row, lives and hidden.
        self.merge_bytes as u64 + rows / 4
    }

    /// Whether a newer segment is known to have the id of an entry.
    fn is_buried(&self, entry: Entry) -> bool {
        let buried = self.buried.as_ref().map(|buried| &buried[entry.input]);
        !entry.row.is_tombstone() && buried.is_some_and(|buried| buried.contains(entry.row))
    }

    /// Whether a memtable has something newer of the id that was merged last.
    fn is_hidden(&self, merge: &Merge<'_>) -> bool {
        self.hidden.as_ref().is_some_and(|hidden| hidden.hides(merge.id()))
    }

    fn keeps_tombstone(&self, merge: &Merge<'_>) -> bool {
        !planted("tombstone_dropped_in_compaction")
            && self.older.iter().any(|segment| segment.may_contain(merge.id()))
    }
}

/// What the first pass finds.
pub(super) struct Survey {
    /// Of the inputs, newest first.
    pub(super) live: Vec<Arc<RowSet>>,
    pub(super) rows: u32,
    entries: u32,
    tombstones: u32,
    /// Rows that only memtables hide: until now records of the segments.
    pub(super) hidden: u32,
    range: Option<(Id, Id)>,
    /// The ids are consecutive numbers, without tombstones.
    consecutive: bool,
    /// The rows ascend with the ids.
    ascending: bool,
}

impl Survey {
    /// Whether nothing is left of the inputs.
    pub(super) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    fn note(&mut self, id: &Merge<'_>, last: &mut Option<u64>) {
        let number = match id.id() {
            nephrite_format::IdRef::U64(number) => Some(number),
            nephrite_format::IdRef::Bytes(_) => None,
        };
        let follows = match (*last, number) {
            (_, None) => false,
            (None, Some(_)) => self.entries == 0,
            (Some(last), Some(number)) => last.checked_add(1) == Some(number),
        };
        self.consecutive &= follows;
        *last = number;
        self.entries += 1;
        let owned = id.owned_id();
        match &mut self.range {
            Some((_, max)) => *max = owned,
            None => self.range = Some((owned.clone(), owned)),
        }
    }
}

/// First pass: which rows and tombstones live on.
pub(super) async fn survey(
    core: &Core,
    kind: IdKind,
    plan: &Plan,
    pace: &mut Pace<'_>,
) -> Result<Survey, Error> {
    let of_input = |input: &Arc<Segment>| RowSet::new(input.row_count());
    let mut live: Vec<RowSet> = plan.inputs.iter().map(of_input).collect();
    let mut survey = Survey {
        live: Vec::new(),
        rows: 0,
        entries: 0,
        tombstones: 0,
        hidden: 0,
        range: None,
        consecutive: true,
        ascending: true,
    };
    let mut merge = plan.merge(core, kind);
    let (mut last_number, mut last_place) = (None, None);
    while let Some(entry) = merge.next(pace).await? {
        if plan.is_buried(entry) {
            continue;
        }
        let is_hidden = !entry.row.is_tombstone() && plan.is_hidden(&merge);
        survey.hidden += u32::from(is_hidden);
        if entry.row.is_tombstone() || is_hidden {
            if plan.keeps_tombstone(&merge) {
                survey.note(&merge, &mut last_number);
                survey.tombstones += 1;
                survey.consecutive = false;
            }
            continue;
        }
        survey.note(&merge, &mut last_number);
        live[entry.input].insert(entry.row);
        let place = Some((std::cmp::Reverse(entry.input), entry.row));
        survey.ascending &= last_place < place;
        last_place = place;
    }
    // Oldest input first: its rows come first.
    for live in live.iter_mut().rev() {
        survey.rows += live.close(survey.rows);
    }
    survey.live = live.into_iter().map(Arc::new).collect();
    Ok(survey)
}

/// Second and third pass: writes the output.
pub(super) async fn write_output(
    core: &Core,
    database: &DatabaseCore,
    plan: &Plan,
    survey: &Survey,
    pace: &mut Pace<'_>,
) -> Result<Arc<Segment>, Error> {
    let sink = core.new_sink();
    let identity = core.identity(database, sink.id());
    let written = write_segment(core, &sink, identity, plan, survey, pace).await;
    if written.is_err() {
        let _ = sink.drain().await;
        if sink.remove().await.is_err() {
            core.garbage.add(sink.id());
        }
    }
    written
}

async fn write_segment(
    core: &Core,
    sink: &Arc<SegmentSink>,
    identity: Identity,
    plan: &Plan,
    survey: &Survey,
    pace: &mut Pace<'_>,
) -> Result<Arc<Segment>, Error> {
    let checksums = copy_rows(core, sink, identity, plan, survey, pace).await?;
    let pages = if survey.consecutive && survey.ascending {
        TailPages::of_dense(checksums)
    } else {
        write_ids(core, sink, &identity, plan, survey, checksums, pace).await?
    };
    let tail = seal_tail(&identity, outline(plan, survey), pages)?;
    core.finish_segment(sink, identity, tail).await
}

fn outline(plan: &Plan, survey: &Survey) -> Outline {
    let newest = plan.inputs.first().expect("a compaction has inputs");
    let max_lsn = plan.inputs.iter().map(|input| input.meta().max_lsn).max();
    let range = survey.range.clone().expect("the output has ids");
    let id_index = match &range {
        (Id::U64(first), _) if survey.consecutive && survey.ascending => {
            IdIndex::Dense { first: *first, count: survey.entries, first_row: Row::new(0) }
        }
        _ => IdIndex::Sorted,
    };
    Outline {
        row_count: survey.rows,
        entry_count: survey.entries,
        tombstone_count: survey.tombstones,
        id_index,
        row_order: if survey.ascending { RowOrder::IdOrder } else { RowOrder::Arrival },
        max_lsn: max_lsn.unwrap_or(Lsn::new(0)),
        order: newest.order(),
        range,
    }
}

/// Third pass: the ids with their new rows, written as pages fill up.
async fn write_ids(
    core: &Core,
    sink: &Arc<SegmentSink>,
    identity: &Identity,
    plan: &Plan,
    survey: &Survey,
    checksums: Vec<u64>,
    pace: &mut Pace<'_>,
) -> Result<TailPages, Error> {
    let mut pages = IdPageWriter::new(sink, identity, survey.rows, checksums);
    let mut builder = IdRunBuilder::new(identity.id_kind);
    let metadata = &core.read.metadata;
    let _held = core.read.work.hold(metadata.new_filter_bytes(survey.entries));
    let mut filter = metadata.new_filter(survey.entries);
    let mut merge = plan.merge(core, identity.id_kind);
    while let Some(entry) = merge.next(pace).await? {
        if plan.is_buried(entry) {
            continue;
        }
        let live = &survey.live[entry.input];
        // What the first pass found hidden is; a memtable may hide more by now.
        let is_hidden = || plan.hidden.is_some() && !live.contains(entry.row);
        let row = if entry.row.is_tombstone() || is_hidden() {
            if !plan.keeps_tombstone(&merge) {
                continue;
            }
            Row::TOMBSTONE
        } else {
            assert!(live.contains(entry.row), "both passes see the same files");
            live.new_row(entry.row)
        };
        builder.push(merge.id(), row);
        filter.iter_mut().for_each(|filter| filter.insert(merge.id()));
        let begun = pages.take(&mut builder).await?;
        if 0 < begun {
            pace.pay(begun).await?;
        }
    }
    Ok(pages.finish(builder.finish(), filter))
}
