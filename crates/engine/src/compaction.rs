//! Compaction: several neighbouring segments become one without their garbage.
//!
//! Rows are copied in the order in which they lie, so reads and writes are sequential; the id runs
//! are merged, newest first. Tombstones go when nothing older is left for them to hide.
//!
//! Which segments: from the newest on, as long as the next older one is at most
//! [`SIZE_RATIO`] times what was gathered (tiered by size), when at least [`MERGE_MIN`] come
//! together; or everything when more than half of the rows are garbage. Large segments whose ids
//! overlap no other are left alone: lookups skip them by range.
//!
//! Safe under a kill at any point: the output is an orphan until the manifest swaps it in with one
//! edit, and the inputs are removed only after that, when their last reader is gone.
//! Memory: 24 bytes or so per id of the inputs.

use std::sync::{Arc, atomic::Ordering};

use nephrite_format::{
    Id, Row,
    manifest::{FlushEdit, ManifestEdit},
};
use nephrite_io::{IoBuffer, memory::AlignedBuf};

use crate::{
    core::{Core, DatabaseCore},
    error::Error,
    log_file::aligned,
    segment::{
        Segment,
        seal::{Identity, Ids, seal},
        sink::SegmentSink,
    },
    version::Version,
};

/// Fewest segments worth merging.
const MERGE_MIN: usize = 4;
/// Most segments a database keeps before they are merged whatever their sizes.
const SEGMENTS_MAX: usize = 12;
/// How much larger the next older segment may be than those gathered so far.
const SIZE_RATIO: u64 = 2;
/// Segments below this many bytes are merged even when their ids overlap no other.
const SMALL_BYTES: u64 = 4 << 20;
/// Garbage rows per row from which a database is rewritten as a whole, in percent.
const GARBAGE_PERCENT: u64 = 50;
/// Garbage below this many rows is not worth a rewrite.
const GARBAGE_ROWS_MIN: u64 = 256;
/// Bytes read or written at once.
const TRANSFER_BYTES: usize = 1 << 20;

/// A live row: where it lies and where it goes.
struct LiveRow {
    id: Id,
    /// Position among the inputs, oldest first.
    input: usize,
    row: Row,
    new_row: Row,
}

impl Core {
    /// Compacts the first database that needs it; `false` when none does.
    pub(crate) async fn compact_once(&self) -> bool {
        for database in self.open_databases() {
            let version = database.version.load();
            let Some(inputs) = choose(&version) else { continue };
            if self.compact(&database, &version, &inputs).await.is_ok() {
                return true;
            }
        }
        false
    }

    async fn compact(
        &self,
        database: &DatabaseCore,
        version: &Version,
        inputs: &[Arc<Segment>],
    ) -> Result<(), Error> {
        database.check()?;
        let oldest = inputs.last().expect("a compaction has inputs");
        let is_bottom = version.segments.last().is_some_and(|segment| Arc::ptr_eq(segment, oldest));
        let (mut live, tombstones) = self.merge_ids(inputs).await?;
        let tombstones = if is_bottom { Vec::new() } else { tombstones };
        let output = if live.is_empty() && tombstones.is_empty() {
            None
        } else {
            let order = inputs.first().expect("a compaction has inputs").order();
            Some(self.rewrite(database, inputs, &mut live, tombstones, order).await?)
        };
        self.swap(database, inputs, output).await
    }

    /// The newest entry of every id of the inputs: live rows in the order in which they lie
    /// (oldest input first), and tombstones.
    async fn merge_ids(&self, inputs: &[Arc<Segment>]) -> Result<(Vec<LiveRow>, Vec<Id>), Error> {
        let mut entries: Vec<(Id, usize, Row)> = Vec::new();
        for (input, segment) in inputs.iter().rev().enumerate() {
            for (id, row) in segment.all_entries(&self.read).await? {
                entries.push((id, input, row));
            }
        }
        // Of one id the newest input comes first. The stable sort finds the sorted runs that the
        // inputs are and merges them.
        entries.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        entries.dedup_by(|later, first| later.0 == first.0);
        let mut live = Vec::with_capacity(entries.len());
        let mut tombstones = Vec::new();
        for (id, input, row) in entries {
            if row.is_tombstone() {
                tombstones.push(id);
            } else {
                live.push(LiveRow { id, input, row, new_row: row });
            }
        }
        live.sort_unstable_by_key(|row| (row.input, row.row));
        Ok((live, tombstones))
    }

    async fn rewrite(
        &self,
        database: &DatabaseCore,
        inputs: &[Arc<Segment>],
        live: &mut [LiveRow],
        tombstones: Vec<Id>,
        order: u64,
    ) -> Result<Arc<Segment>, Error> {
        let sink = self.new_sink();
        let identity = self.identity(database, sink.id());
        let written = self.write_output(&sink, identity, inputs, live, tombstones, order).await;
        if written.is_err() {
            // The error is what counts; a file that stays is an orphan for the next open.
            let _ = self.read.disk.remove_file(&self.paths.segment(sink.id())).await;
        }
        written
    }

    async fn write_output(
        &self,
        sink: &Arc<SegmentSink>,
        identity: Identity,
        inputs: &[Arc<Segment>],
        live: &mut [LiveRow],
        tombstones: Vec<Id>,
        order: u64,
    ) -> Result<Arc<Segment>, Error> {
        let mut writer = RowWriter::new(sink, identity);
        let mut reader = RowReader::default();
        for row in live.iter_mut() {
            let segment = &inputs[inputs.len() - 1 - row.input];
            let bytes = reader.row(self, segment, &identity, row).await?;
            row.new_row = writer.push(bytes).await?;
        }
        let row_count = u32::try_from(live.len()).expect("fewer rows than the inputs have");
        let checksums = writer.finish().await?;
        let mut ids: Vec<(Id, Row)> =
            live.iter().map(|row| (row.id.clone(), row.new_row)).collect();
        ids.extend(tombstones.into_iter().map(|id| (id, Row::TOMBSTONE)));
        ids.sort_by(|left, right| left.0.cmp(&right.0)); // few sorted runs
        let max_lsn = inputs.iter().map(|segment| segment.meta().max_lsn).max();
        let max_lsn = max_lsn.expect("a compaction has inputs");
        let ids = Ids::Sorted(ids).densify();
        let tail = seal(&identity, &ids, row_count, checksums, max_lsn, order)?;
        self.finish_segment(sink, identity, tail).await
    }

    /// Puts the output in the place of the inputs, on disk and then for readers.
    async fn swap(
        &self,
        database: &DatabaseCore,
        inputs: &[Arc<Segment>],
        output: Option<Arc<Segment>>,
    ) -> Result<(), Error> {
        if output.is_some() {
            self.read.disk.sync_dir(self.paths.segments_dir()).await?;
        }
        let swap = self.swaps.lock().await;
        // No flush counts rows of the inputs between here and the end of the swap.
        let live: u32 = inputs.iter().map(|input| input.live_rows()).sum();
        if let Some(output) = &output {
            output.live().set(live.min(output.row_count()));
        }
        let commit = self.manifest.commit(|state| {
            let Some(record) = state.databases.get(&database.id) else {
                return Err(Error::DatabaseNotFound { name: database.name.clone() });
            };
            let edit = FlushEdit {
                database: database.id,
                flushed_lsn: record.flushed_lsn,
                live_records: record.live_records,
                added: output.iter().map(|segment| segment.meta()).collect(),
                removed: inputs.iter().map(|segment| segment.file()).collect(),
            };
            Ok((vec![ManifestEdit::Flush(edit)], ()))
        });
        if let Err(error) = commit.await {
            // After any other failure the manifest on disk may name the output.
            let refused = matches!(error, Error::DatabaseNotFound { .. });
            if let Some(output) = output.filter(|_| refused) {
                output.set_obsolete(&self.garbage);
            }
            return Err(error);
        }
        let mut side = database.lock();
        if side.dropped {
            drop(side);
            output.iter().for_each(|output| output.set_obsolete(&self.garbage));
            return Ok(());
        }
        let version = database.version.load();
        database.publish(&mut side, version.compacted(inputs, output.clone()));
        drop(side);
        if let Some(output) = &output {
            inputs.iter().for_each(|input| input.live().forward_to(output.live()));
        }
        drop(swap);
        inputs.iter().for_each(|input| input.set_obsolete(&self.garbage));
        self.garbage.added.notify(1);
        self.counters.compactions.fetch_add(1, Ordering::Relaxed); // a counter
        Ok(())
    }
}

/// The segments to merge, newest first.
fn choose(version: &Version) -> Option<Vec<Arc<Segment>>> {
    let segments = &version.segments;
    let rows: u64 = segments.iter().map(|segment| u64::from(segment.row_count())).sum();
    let live: u64 = segments.iter().map(|segment| u64::from(segment.live_rows())).sum();
    let garbage = rows.saturating_sub(live);
    if GARBAGE_ROWS_MIN <= garbage && rows * GARBAGE_PERCENT <= garbage * 100 {
        return Some(segments.clone());
    }
    let mut gathered = 0;
    let mut count = 0;
    for segment in segments {
        let bytes = segment.file_bytes();
        let fits = count == 0 || bytes <= gathered * SIZE_RATIO || SEGMENTS_MAX < segments.len();
        if !fits || !is_eligible(segment, segments) {
            break;
        }
        gathered += bytes;
        count += 1;
        if SEGMENTS_MAX < segments.len() && segments.len() - count < SEGMENTS_MAX / 2 {
            break;
        }
    }
    (MERGE_MIN <= count).then(|| segments[..count].to_vec())
}

fn is_eligible(segment: &Arc<Segment>, all: &[Arc<Segment>]) -> bool {
    let meta = segment.meta();
    segment.file_bytes() < SMALL_BYTES
        || all.iter().any(|other| {
            !Arc::ptr_eq(other, segment)
                && other.overlaps(meta.min_id.as_id_ref(), meta.max_id.as_id_ref())
        })
}

/// Reads rows in order, a large piece of a segment at a time.
#[derive(Default)]
struct RowReader {
    /// Input, first page and pages of what is in the buffer.
    loaded: Option<(usize, u32, u32)>,
    buffer: Option<IoBuffer>,
}

impl RowReader {
    async fn row<'a>(
        &'a mut self,
        core: &Core,
        segment: &Segment,
        identity: &Identity,
        row: &LiveRow,
    ) -> Result<&'a [u8], Error> {
        let layout = &identity.layout;
        let place = layout.page_of(row.row);
        let holds = self.loaded.is_some_and(|(input, first, count)| {
            input == row.input && (first..first + count).contains(&place.page)
        });
        if !holds {
            let pages = u32::try_from(TRANSFER_BYTES).expect("1 MiB") / layout.page_bytes();
            let count = pages.min(segment.vector_pages() - place.page);
            self.buffer = Some(segment.read_vector_pages(&core.read, place.page, count).await?);
            self.loaded = Some((row.input, place.page, count));
        }
        let (_, first, _) = self.loaded.expect("loaded just now or before");
        let start = (place.page - first) as usize * layout.page_bytes() as usize + place.offset;
        let bytes = self.buffer.as_ref().map_or(&[][..], IoBuffer::as_slice);
        Ok(&bytes[start..start + layout.vector_bytes()])
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
        u32::try_from(TRANSFER_BYTES).expect("1 MiB") / self.identity.layout.page_bytes()
    }

    async fn push(&mut self, row: &[u8]) -> Result<Row, Error> {
        let place = self.identity.layout.page_of(Row::new(self.rows));
        if self.first_page + self.pages_per_buffer() <= place.page {
            self.write(self.pages_per_buffer()).await?;
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
        Ok(Row::new(self.rows - 1))
    }

    async fn write(&mut self, pages: u32) -> Result<(), Error> {
        let Some(buffer) = self.buffer.take() else { return Ok(()) };
        let layout = &self.identity.layout;
        let len = pages as usize * layout.page_bytes() as usize;
        let bytes = buffer[..len].chunks_exact(layout.page_bytes() as usize);
        for (page, number) in bytes.zip(self.first_page..) {
            self.checksums.push(self.identity.vector_page_checksum(number, page));
        }
        let file = self.sink.file().await?;
        self.sink.make_room().await?;
        let offset = layout.page_offset(self.first_page);
        self.sink.submit(&file, vec![(offset, IoBuffer::Part { buffer, len })]);
        Ok(())
    }

    /// Writes what is left; gives the checksums of all pages.
    async fn finish(mut self) -> Result<Vec<u64>, Error> {
        let pages = self.identity.layout.pages_for(self.rows);
        self.write(pages - self.first_page.min(pages)).await?;
        Ok(self.checksums)
    }
}
