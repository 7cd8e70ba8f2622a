//! Writing the output of a compaction: rows, then id pages, then the tail.
//!
//! Three passes over the inputs, each in order: the ids tell which rows live on ([`survey`]), the
//! rows are copied, the ids are merged once more, now with their new rows. Consecutive ids need no
//! third pass. Memory: a bit per row, a checksum per page, a fence per id page, and a few buffers.

use std::sync::Arc;

use nephrite_format::{
    Id, IdKind, Lsn, Row, VectorLayout,
    id_run::{IdIndex, IdRunBuilder},
    segment::RowOrder,
};
use nephrite_io::{IoBuffer, memory::AlignedBuf};

use super::{
    hidden::Hidden,
    merge::{Entry, Merge},
    pace::Pace,
};
use crate::{
    core::{Core, DatabaseCore},
    error::Error,
    log_file::aligned,
    planted::planted,
    segment::{
        Segment,
        id_pages::IdPageWriter,
        row_set::RowSet,
        seal::{Identity, Outline, TailPages, seal_tail},
        sink::SegmentSink,
        traffic::PIECE_BYTES,
    },
    together::Beside,
};

/// Pages read or written at once: a piece, or the one page that is larger.
fn pages_at_once(layout: &VectorLayout) -> u32 {
    (PIECE_BYTES / layout.page_bytes() as usize).max(1).try_into().expect("at most 64 pages")
}

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

    /// Bytes that carrying it out holds, beside id pages and what is in flight.
    pub(super) fn work_bytes(&self, layout: &VectorLayout) -> u64 {
        let page_bytes = layout.page_bytes() as usize;
        let rows: u64 = self.inputs.iter().map(|input| u64::from(input.row_count())).sum();
        // Two pieces being read, one copied, one gathered; two bits per row, lives and hidden.
        (self.merge_bytes + 4 * PIECE_BYTES.max(page_bytes)) as u64 + rows / 4
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

/// Second pass: copies the rows that live on. While one piece is copied and written the next two
/// are read: one of them is here when it is wanted. Gives the checksums of the output's pages.
async fn copy_rows(
    core: &Core,
    sink: &Arc<SegmentSink>,
    identity: Identity,
    plan: &Plan,
    survey: &Survey,
    pace: &mut Pace<'_>,
) -> Result<Vec<u64>, Error> {
    let layout = identity.layout;
    let mut writer = RowWriter::new(sink, identity);
    let mut last = None;
    let mut read_next = || {
        let piece: Piece = match last {
            None => Piece::first(plan, survey, &layout),
            Some(last) => Piece::next(last, plan, survey, &layout),
        }?;
        last = Some(piece);
        let segment = &plan.inputs[piece.input];
        let pages = segment.read_vector_pages(&core.read, piece.first_page, piece.page_count);
        Some((piece, Beside::new(pages)))
    };
    let (mut first, mut second) = (read_next(), read_next());
    while let Some((piece, reading)) = first.take() {
        let buffer = match &mut second {
            Some((_, other)) => other.while_waiting_for(reading.finish()).await?,
            None => reading.finish().await?,
        };
        let mut third = read_next();
        let copied = async {
            pace.pay(buffer.len() as u64).await?;
            let bytes = buffer.as_slice();
            for start in piece.row_starts(&survey.live[piece.input], &layout) {
                writer.push(&bytes[start..start + layout.vector_bytes()], pace).await?;
            }
            Ok::<(), Error>(())
        };
        match (&mut second, &mut third) {
            (Some((_, second)), Some((_, third))) => {
                second.while_waiting_for(third.while_waiting_for(copied)).await?;
            }
            (Some((_, second)), None) => second.while_waiting_for(copied).await?,
            (None, _) => copied.await?,
        }
        (first, second) = (second, third);
    }
    writer.finish(pace).await
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

async fn write(
    sink: &Arc<SegmentSink>,
    offset: u64,
    buffer: IoBuffer,
    pace: &mut Pace<'_>,
) -> Result<(), Error> {
    let bytes = buffer.len() as u64;
    let file = sink.file().await?;
    sink.make_room(buffer.len()).await?;
    sink.submit(&file, vec![(offset, buffer)]);
    drop(file); // nobody waits while holding a file
    pace.pay(bytes).await
}

/// Pages of an input that are read at once.
#[derive(Clone, Copy, Debug)]
struct Piece {
    input: usize,
    first_page: u32,
    page_count: u32,
}

impl Piece {
    /// The first one with rows to keep; the oldest input comes first.
    fn first(plan: &Plan, survey: &Survey, layout: &VectorLayout) -> Option<Self> {
        Self::find(plan, survey, layout, plan.inputs.len().checked_sub(1)?, 0)
    }

    fn next(self, plan: &Plan, survey: &Survey, layout: &VectorLayout) -> Option<Self> {
        Self::find(plan, survey, layout, self.input, self.first_page + self.page_count)
    }

    fn find(
        plan: &Plan,
        survey: &Survey,
        layout: &VectorLayout,
        input: usize,
        mut from: u32,
    ) -> Option<Self> {
        for input in (0..=input).rev() {
            let (pages, live) = (plan.inputs[input].vector_pages(), &survey.live[input]);
            let start = from * layout.rows_per_page();
            if let Some(row) = live.rows_within(start, u32::MAX).next() {
                let first_page = layout.page_of(row).page;
                let page_count = pages_at_once(layout).min(pages - first_page);
                return Some(Self { input, first_page, page_count });
            }
            from = 0;
        }
        None
    }

    /// Where the rows to keep begin in the bytes of the piece.
    fn row_starts(self, live: &RowSet, layout: &VectorLayout) -> impl Iterator<Item = usize> {
        let start = self.first_page * layout.rows_per_page();
        let end = start.saturating_add(self.page_count * layout.rows_per_page());
        live.rows_within(start, end).map(move |row| {
            let place = layout.page_of(row);
            (place.page - self.first_page) as usize * layout.page_bytes() as usize + place.offset
        })
    }
}

/// Lays rows out in pages and writes them in large pieces.
struct RowWriter<'a> {
    sink: &'a Arc<SegmentSink>,
    identity: Identity,
    buffer: Option<AlignedBuf>,
    /// First page of the buffer.
    first_page: u32,
    rows: u32,
    checksums: Vec<u64>,
}

impl<'a> RowWriter<'a> {
    fn new(sink: &'a Arc<SegmentSink>, identity: Identity) -> Self {
        Self { sink, identity, buffer: None, first_page: 0, rows: 0, checksums: Vec::new() }
    }

    fn pages_per_buffer(&self) -> u32 {
        pages_at_once(&self.identity.layout)
    }

    async fn push(&mut self, row: &[u8], pace: &mut Pace<'_>) -> Result<(), Error> {
        let place = self.identity.layout.page_of(Row::new(self.rows));
        if self.first_page + self.pages_per_buffer() <= place.page {
            self.write(self.pages_per_buffer(), pace).await?;
            self.first_page = place.page;
        }
        let page_bytes = self.identity.layout.page_bytes() as usize;
        let buffer = match &mut self.buffer {
            Some(buffer) => buffer,
            None => {
                let bytes = self.pages_per_buffer() as usize * page_bytes;
                self.buffer.insert(aligned(bytes)?)
            }
        };
        let start = (place.page - self.first_page) as usize * page_bytes + place.offset;
        buffer[start..start + row.len()].copy_from_slice(row);
        self.rows += 1;
        Ok(())
    }

    async fn write(&mut self, pages: u32, pace: &mut Pace<'_>) -> Result<(), Error> {
        let Some(buffer) = self.buffer.take() else { return Ok(()) };
        let layout = &self.identity.layout;
        let len = pages as usize * layout.page_bytes() as usize;
        let bytes = buffer[..len].chunks_exact(layout.page_bytes() as usize);
        for (page, number) in bytes.zip(self.first_page..) {
            self.checksums.push(self.identity.vector_page_checksum(number, page));
        }
        let offset = layout.page_offset(self.first_page);
        write(self.sink, offset, IoBuffer::Part { buffer, len }, pace).await
    }

    /// Writes what is left; gives the checksums of all pages.
    async fn finish(mut self, pace: &mut Pace<'_>) -> Result<Vec<u64>, Error> {
        let pages = self.identity.layout.pages_for(self.rows);
        self.write(pages - self.first_page.min(pages), pace).await?;
        Ok(self.checksums)
    }
}
