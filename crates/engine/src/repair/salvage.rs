//! What the log still says of records: where each id was written last.
//!
//! Serves twice: for records that are in no segment yet, and for those that a damaged segment has
//! lost, since the log is overwritten only some time after a flush.

use std::collections::{BTreeMap, BTreeSet};

use nephrite_format::{
    DatabaseId, FileId, Generation, Id, Lsn, PageIdentity, Row, RowsChecksum, VectorLayout,
    wal::{BulkRecord, Operation, WalRecord},
};

use super::{
    listing::Listing,
    log::{Log, LogFrame},
    raw::Raw,
    state::Known,
    work::Reader,
};
use crate::error::Error;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Tombstone,
    /// A row of the damaged segment that is being made anew.
    Row(u32),
    /// The vector's bytes in a log file.
    Log {
        file: usize,
        offset: u64,
    },
    /// A row of a file that a bulk record names; its checksum held.
    Bulk {
        segment: FileId,
        row: u32,
    },
}

/// The newest write of each id in some frames.
#[derive(Debug, Default)]
pub(super) struct Writes {
    pub(super) values: BTreeMap<Id, Value>,
    /// Ids whose newest write is a row of a bulk record that does not have its checksum.
    pub(super) lost: BTreeSet<Id>,
    pub(super) last_lsn: Lsn0,
    /// The file whose rows are lost.
    pub(super) damaged_file: Option<FileId>,
}

/// Number of the last record; 0 when there is none.
pub(super) type Lsn0 = u64;

/// Which records.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) database: DatabaseId,
    pub(super) layout: VectorLayout,
    /// Above this one.
    pub(super) above: u64,
    /// Up to this one.
    pub(super) last: u64,
}

/// One write, before it is known whether its rows hold.
enum Write {
    Plain(Vec<(Id, Value)>),
    Bulk { rows: Bulk, ids: Vec<Id>, is_durable: bool },
}

/// What checking the rows of a bulk record needs.
struct Bulk {
    segment: FileId,
    first_row: u32,
    row_count: u32,
    checksum: u64,
}

/// The records of a span in these frames, in order; the newest of an id counts.
pub(super) async fn writes(
    reader: &Reader,
    known: &Known,
    listing: &Listing,
    log: &Log,
    span: Span,
    frames: impl Iterator<Item = &LogFrame>,
) -> Result<Writes, Error> {
    let mut found: Vec<(u64, Write)> = Vec::new();
    let within = |frame: &&LogFrame| span.above < frame.end_lsn() && frame.first_lsn <= span.last;
    let visit = |frame: &LogFrame, content: &[u8], lsn: Lsn, record: &WalRecord<'_>| {
        if span.above < lsn.get() && lsn.get() <= span.last {
            let write = write_of(record, span, frame, content, log.is_durable(frame));
            found.extend(write.map(|write| (lsn.get(), write)));
        }
    };
    log.visit(reader, known, frames.filter(within), visit).await?;
    let mut writes = Writes::default();
    for (lsn, write) in found {
        match write {
            Write::Plain(values) => {
                for (id, value) in values {
                    writes.lost.remove(&id);
                    writes.values.insert(id, value);
                }
            }
            Write::Bulk { rows, ids, is_durable } => {
                let holds = rows.holds(reader, known, listing, &span.layout).await?;
                if !holds && !is_durable {
                    continue; // never acknowledged, as a torn frame
                }
                writes.damaged_file = writes.damaged_file.or((!holds).then_some(rows.segment));
                for (id, row) in ids.into_iter().zip(rows.first_row..) {
                    if holds {
                        writes.lost.remove(&id);
                        writes.values.insert(id, Value::Bulk { segment: rows.segment, row });
                    } else {
                        writes.values.insert(id.clone(), Value::Tombstone);
                        writes.lost.insert(id);
                    }
                }
            }
        }
        writes.last_lsn = lsn;
    }
    Ok(writes)
}

/// A segment file whose rows a durable bulk record names and does not have, if there is one.
pub(super) async fn first_lost_rows(
    reader: &Reader,
    known: &Known,
    listing: &Listing,
    log: &Log,
) -> Result<Option<FileId>, Error> {
    let mut wanted: Vec<(VectorLayout, Bulk)> = Vec::new();
    log.visit(reader, known, log.needed(known), |frame, _, lsn, record| {
        let WalRecord::Bulk(bulk) = record else { return };
        let Some(database) = known.state.databases.get(&bulk.database) else { return };
        if database.flushed_lsn < lsn && log.is_durable(frame) {
            wanted.push((database.meta.layout, Bulk::of(bulk)));
        }
    })
    .await?;
    for (layout, bulk) in wanted {
        if !bulk.holds(reader, known, listing, &layout).await? {
            return Ok(Some(bulk.segment));
        }
    }
    Ok(None)
}

fn write_of(
    record: &WalRecord<'_>,
    span: Span,
    frame: &LogFrame,
    content: &[u8],
    is_durable: bool,
) -> Option<Write> {
    match record {
        WalRecord::Operations(record) if record.database == span.database => {
            if record.dimension != span.layout.dimension() {
                return None;
            }
            let values = record.operations().map(|operation| match operation {
                Operation::Put { id, vector } => {
                    // Both slices are of the same file's content.
                    let offset = vector.as_ptr().addr().saturating_sub(content.as_ptr().addr());
                    (id.to_id(), Value::Log { file: frame.file, offset: offset as u64 })
                }
                Operation::Delete { id } => (id.to_id(), Value::Tombstone),
            });
            Some(Write::Plain(values.collect()))
        }
        WalRecord::Bulk(record) if record.database == span.database => {
            let ids = record.ids.iter().map(|id| id.to_id()).collect();
            Some(Write::Bulk { rows: Bulk::of(record), ids, is_durable })
        }
        _ => None,
    }
}

impl Bulk {
    fn of(record: &BulkRecord<'_>) -> Self {
        Self {
            segment: record.segment,
            first_row: record.first_row.get(),
            row_count: record.row_count,
            checksum: record.rows_checksum,
        }
    }

    /// Whether the rows are in their file with their checksum.
    async fn holds(
        &self,
        reader: &Reader,
        known: &Known,
        listing: &Listing,
        layout: &VectorLayout,
    ) -> Result<bool, Error> {
        let Some(found) = listing.segments.get(&self.segment) else { return Ok(false) };
        let Some(raw) = Raw::open(&reader.disk, &found.path).await? else { return Ok(false) };
        let place = PageIdentity::new(
            known.store,
            self.segment,
            Generation::new(0),
            layout.row_offset(Row::new(self.first_row)),
        );
        let mut checksum = RowsChecksum::new(place);
        let mut rows = Rows::default();
        for row in self.first_row..self.first_row.saturating_add(self.row_count) {
            match rows.get(&raw, layout, row).await? {
                Some(bytes) => checksum.update(bytes),
                None => return Ok(false),
            }
        }
        Ok(checksum.finish() == self.checksum)
    }
}

/// Rows of a file, read page by page.
#[derive(Default)]
pub(super) struct Rows {
    open: Option<(u32, Option<Vec<u8>>)>,
}

impl Rows {
    /// The elements of a row; `None` when its page cannot be read.
    pub(super) async fn get(
        &mut self,
        raw: &Raw,
        layout: &VectorLayout,
        row: u32,
    ) -> Result<Option<&[u8]>, Error> {
        let place = layout.page_of(Row::new(row));
        if self.open.as_ref().is_none_or(|(page, _)| *page != place.page) {
            let page_bytes = layout.page_bytes() as usize;
            let pages = raw.pages(layout.page_offset(place.page), page_bytes, 1).await?;
            self.open = Some((place.page, pages.get(0).map(<[u8]>::to_vec)));
        }
        let page = self.open.as_ref().and_then(|(_, page)| page.as_deref());
        Ok(page.and_then(|page| page.get(place.offset..place.offset + layout.vector_bytes())))
    }
}
