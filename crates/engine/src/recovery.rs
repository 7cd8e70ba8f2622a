//! Recovery: reads the log back after the store was not closed.
//!
//! Two passes over the log segments from the manifest's position on, one segment in memory at a
//! time. The first finds where the log ends: at the first frame that is missing or does not
//! verify, or whose bulk rows do not. That end is legal if nothing says that the missing frame was
//! on disk: then it was never acknowledged. Otherwise it is damage, and the open fails naming file
//! and offset. The second pass applies the records to memtables.
//!
//! Nothing on disk changes until the memtables are flushed, so a crash during recovery starts it
//! over from the same state.
//! A database whose own segments are damaged does not stop the others: its records stay in the
//! log until it can be opened.

use std::{collections::BTreeMap, sync::Arc};

use nephrite_format::{
    BLOCK_BYTES, DatabaseId, FileDetail, FileHeader, FileId, FileKind, FrameSequence, Generation,
    IdRef, Lsn, PageIdentity, Row, RowsChecksum, StoreId, VectorLayout,
    frame::FrameView,
    vector::decode_f32_vec,
    wal::{BulkRecord, Operation, OperationsRecord, WalRecord, WalRecords},
};
use nephrite_io::{Disk, FileHandle, IoBuffer};

use crate::{
    core::{Core, DatabaseCore, Entry},
    error::Error,
    log_file::{self, Stop},
    manifest::ManifestState,
    memtable::Version as RowVersion,
    paths::{StorePaths, parse_wal, segment_name, wal_name},
    wal::{LogPosition, RecoveredSegment, WalFile},
};

/// A log file found on disk.
#[derive(Debug)]
struct Found {
    id: FileId,
    file: FileHandle,
    bytes: u64,
    header: Result<FileHeader, Error>,
}

/// The log as recovery found it.
#[derive(Debug)]
pub(crate) struct RecoveredLog {
    /// Segments with records, in order, and how many of their frames count.
    chain: Vec<ChainSegment>,
    spares: Vec<WalFile>,
    pub(crate) next_lsn: Lsn,
    pub(crate) next_sequence: FrameSequence,
    pub(crate) next_position: u64,
    /// Where it ended, if not in blank blocks of its last segment.
    end: Option<End>,
}

/// A place where the log ends.
#[derive(Clone, Debug)]
struct End {
    name: String,
    offset: u64,
}

#[derive(Debug)]
struct ChainSegment {
    id: FileId,
    file: FileHandle,
    header: FileHeader,
    bytes: u64,
    start: LogPosition,
    /// Sequence of the first frame that does not count.
    end: FrameSequence,
    last_lsn: Lsn,
}

/// What recovery reads from.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) disk: &'a Arc<dyn Disk>,
    pub(crate) paths: &'a StorePaths,
    pub(crate) store: StoreId,
    pub(crate) manifest: &'a ManifestState,
}

/// The first pass.
pub(crate) async fn scan_log(source: Source<'_>) -> Result<RecoveredLog, Error> {
    let found = find_log_files(source).await?;
    let start = source
        .manifest
        .counters
        .map_or(LogPosition { segment: 1, sequence: FrameSequence::new(1) }, |counters| {
            LogPosition { segment: counters.wal_position, sequence: counters.wal_sequence }
        });
    let (mut by_position, unreadable, spares) = sort_out(found, start.segment)?;
    let positions: Vec<u64> = by_position.keys().copied().collect();
    if let Some(gap) = (start.segment..).zip(&positions).find(|(wanted, found)| wanted != *found) {
        let found = &by_position[gap.1];
        let what = format!("log segment {} is missing, {} is here", gap.0, gap.1);
        return Err(Error::corrupt(wal_name(found.0.id), 0, what));
    }
    let flushed = source.manifest.databases.values().map(|record| record.flushed_lsn).max();
    let known = source.manifest.counters.map_or(1, |counters| counters.next_lsn.get());
    let mut log = RecoveredLog {
        chain: Vec::new(),
        spares,
        next_lsn: Lsn::new(known.max(flushed.map_or(1, |lsn| lsn.get() + 1))),
        next_sequence: start.sequence,
        next_position: start.segment + positions.len() as u64,
        end: None,
    };
    for position in positions {
        let (found, header) = by_position.remove(&position).expect("a key of the map");
        let name = wal_name(found.id);
        let stop = scan_segment(source, &mut log, found, header).await?;
        if let Some(end) = judge(stop, log.next_sequence, &name)? {
            // A full segment may end in frames of its former life, which look like a torn tail:
            // the log goes on if the next segment begins with the frame that is expected.
            let next = by_position.get(&(position + 1));
            if !begins_with(source, next, log.next_sequence).await? {
                log.end = Some(end);
                break;
            }
        }
    }
    // What follows a legal end was never acknowledged.
    for (_, (found, _)) in by_position {
        refuse_frames_behind(source, &found, &log).await?;
        log.spares.push(WalFile { id: found.id, file: found.file, bytes: found.bytes });
    }
    for found in unreadable {
        refuse_lost_header(source, &found, log.next_position).await?;
        log.spares.push(WalFile { id: found.id, file: found.file, bytes: found.bytes });
    }
    Ok(log)
}

async fn find_log_files(source: Source<'_>) -> Result<Vec<Found>, Error> {
    let mut found = Vec::new();
    for entry in source.disk.list_dir(source.paths.wal_dir()).await? {
        let Some(id) = parse_wal(&entry.name) else { continue };
        let (path, name) = (source.paths.wal(id), wal_name(id));
        let (file, bytes) = match log_file::open_existing(source.disk, &path, &name, true).await {
            Ok(opened) => opened,
            // A file that a crash left unfinished: its directory entry was not durable before all
            // of it was, so nothing acknowledged is in it. Anything longer is damage.
            Err(Error::Corrupt { .. }) if entry.bytes < BLOCK_BYTES as u64 => {
                source.disk.remove_file(&path).await?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let page = IoBuffer::Owned(log_file::aligned(BLOCK_BYTES)?);
        let page = nephrite_io::read(&**source.disk, &file, 0, page).await?;
        let header = FileHeader::decode(page.as_slice(), &name)
            .and_then(|header| {
                header.expect_kind(FileKind::Wal, &name)?;
                header.expect_identity(source.store, id, &name)?;
                Ok(header)
            })
            .map_err(Error::from);
        found.push(Found { id, file, bytes, header });
    }
    Ok(found)
}

type ByPosition = BTreeMap<u64, (Found, FileHeader)>;

/// Segments that recovery needs by position, files whose header does not verify, and files that
/// are free.
fn sort_out(
    found: Vec<Found>,
    start: u64,
) -> Result<(ByPosition, Vec<Found>, Vec<WalFile>), Error> {
    let (mut needed, mut unreadable, mut spares) = (BTreeMap::new(), Vec::new(), Vec::new());
    for file in found {
        let header = match &file.header {
            Ok(header) => *header,
            Err(error @ Error::VersionUnsupported { .. }) => return Err(error.clone()),
            Err(_) => {
                unreadable.push(file);
                continue;
            }
        };
        let FileDetail::Wal { position, segment_bytes } = header.detail else {
            unreadable.push(file);
            continue;
        };
        let fresh = position == 0;
        if segment_bytes != file.bytes {
            if fresh {
                continue; // never used and not complete
            }
            let what =
                format!("the file has {} bytes where its header says {segment_bytes}", file.bytes);
            return Err(Error::corrupt(wal_name(file.id), file.bytes, what));
        }
        if fresh || position < start {
            spares.push(WalFile { id: file.id, file: file.file, bytes: file.bytes });
        } else {
            needed.insert(position, (file, header));
        }
    }
    Ok((needed, unreadable, spares))
}

/// Scans one segment: adds it to the chain and tells why its frames ended.
async fn scan_segment(
    source: Source<'_>,
    log: &mut RecoveredLog,
    found: Found,
    header: FileHeader,
) -> Result<Stop, Error> {
    let name = wal_name(found.id);
    // As with the manifest: durable before anything is built on it.
    nephrite_io::sync(&**source.disk, &found.file).await?;
    let content = log_file::read_file(&**source.disk, &found.file, found.bytes).await?;
    let FileDetail::Wal { position, .. } = header.detail else {
        return Err(Error::corrupt(name, 0, "the header is not a log segment's"));
    };
    let start = LogPosition { segment: position, sequence: log.next_sequence };
    let mut bulks: Vec<(u64, FrameSequence, Lsn, Bulk)> = Vec::new();
    let mut ends: Vec<(FrameSequence, u32, Lsn)> = Vec::new();
    let stop = log_file::read_frames(&content, &header, Some(log.next_sequence), |at, frame| {
        let sequence = frame.header.sequence;
        for (record, lsn) in records(&frame, &name, at).zip(frame.header.first_lsn.get()..) {
            if let WalRecord::Bulk(bulk) = record? {
                bulks.push((at, sequence, Lsn::new(lsn), Bulk::of(&bulk)));
            }
        }
        ends.push((sequence, frame.header.record_count, frame.header.first_lsn));
        Ok(())
    })?;
    let mut stop = stop;
    for (at, sequence, lsn, bulk) in bulks {
        if let Err(what) = check_bulk(source, lsn, &bulk).await? {
            ends.retain(|(other, ..)| *other < sequence);
            let behind = evidence_behind(&content, &header, at);
            stop = Stop::Hole { offset: at, what, durable_behind: behind };
            break;
        }
    }
    let mut last_lsn = crate::core::before(log.next_lsn);
    // A frame without records is a mark: the next frame takes its place and its sequence.
    for (sequence, count, first_lsn) in ends.iter().filter(|(_, count, _)| 0 < *count) {
        log.next_sequence = sequence.next();
        last_lsn = Lsn::new(first_lsn.get() + u64::from(*count) - 1);
        log.next_lsn = log.next_lsn.max(Lsn::new(last_lsn.get() + 1));
    }
    let end = log.next_sequence;
    let Found { id, file, bytes, .. } = found;
    log.chain.push(ChainSegment { id, file, header, bytes, start, end, last_lsn });
    Ok(stop)
}

/// Where the log may legally end, if a segment does not end in blank blocks.
///
/// # Errors
/// `Corrupt` when later frames of the segment say that the missing one was on disk.
fn judge(stop: Stop, missing: FrameSequence, name: &str) -> Result<Option<End>, Error> {
    let Stop::Hole { offset, what, durable_behind } = stop else { return Ok(None) };
    if durable_behind.is_some_and(|durable| missing <= durable) {
        let what = format!("{what}; later frames say that it was on disk");
        return Err(Error::corrupt(name, offset, what));
    }
    Ok(Some(End { name: name.to_owned(), offset }))
}

/// Whether the first frame of a segment has this sequence.
async fn begins_with(
    source: Source<'_>,
    segment: Option<&(Found, FileHeader)>,
    sequence: FrameSequence,
) -> Result<bool, Error> {
    let Some((found, header)) = segment else { return Ok(false) };
    let content = log_file::read_file(&**source.disk, &found.file, found.bytes).await?;
    let place = header.identity(BLOCK_BYTES as u64);
    let first = nephrite_format::frame::decode_frame(&content[BLOCK_BYTES..], place);
    Ok(first.is_ok_and(|frame| frame.header.sequence == sequence))
}

/// The highest sequence that frames behind `at` say is on disk.
fn evidence_behind(content: &[u8], header: &FileHeader, at: u64) -> Option<FrameSequence> {
    let mut found = None;
    let start = usize::try_from(at).unwrap_or(usize::MAX).saturating_add(BLOCK_BYTES);
    for offset in (start..content.len()).step_by(BLOCK_BYTES) {
        let place = header.identity(offset as u64);
        if let Ok(frame) = nephrite_format::frame::decode_frame(&content[offset..], place) {
            found = found.max(Some(frame.header.durable_through));
        }
    }
    found
}

/// A segment behind the end of the log must hold nothing that was acknowledged.
async fn refuse_frames_behind(
    source: Source<'_>,
    found: &Found,
    log: &RecoveredLog,
) -> Result<(), Error> {
    let Ok(header) = &found.header else { return Ok(()) };
    let content = log_file::read_file(&**source.disk, &found.file, found.bytes).await?;
    let durable = evidence_behind(&content, header, 0);
    if durable.is_some_and(|durable| log.next_sequence <= durable) {
        let end = log.end.clone();
        let end = end.unwrap_or(End { name: wal_name(found.id), offset: BLOCK_BYTES as u64 });
        let what = format!(
            "frame {} is missing, though the next log segment says that it was on disk",
            log.next_sequence
        );
        return Err(Error::corrupt(end.name, end.offset, what));
    }
    Ok(())
}

/// A file whose header does not verify is free only if it holds no frame of the segment that
/// would follow the log's end: then the header was torn when the file was recycled.
async fn refuse_lost_header(
    source: Source<'_>,
    found: &Found,
    next_position: u64,
) -> Result<(), Error> {
    let content = log_file::read_file(&**source.disk, &found.file, found.bytes).await?;
    for position in next_position.saturating_sub(1)..=next_position + 1 {
        let generation = Generation::new(position);
        for offset in (BLOCK_BYTES..content.len()).step_by(BLOCK_BYTES) {
            let place = PageIdentity::new(source.store, found.id, generation, offset as u64);
            if nephrite_format::frame::decode_frame(&content[offset..], place).is_ok() {
                return match &found.header {
                    Err(error) => Err(error.clone()),
                    Ok(_) => Err(Error::corrupt(wal_name(found.id), 0, "the header is damaged")),
                };
            }
        }
    }
    Ok(())
}

fn records<'a>(frame: &FrameView<'a>, name: &'a str, at: u64) -> WalRecords<'a> {
    let payload_at = at + nephrite_format::frame::FRAME_HEADER_BYTES as u64;
    WalRecords::new(frame.payload, frame.header.record_count, name, payload_at)
}

fn database_of(record: &WalRecord<'_>) -> DatabaseId {
    match record {
        WalRecord::Operations(operations) => operations.database,
        WalRecord::Bulk(bulk) => bulk.database,
    }
}

/// The part of a bulk record that checking its rows needs.
#[derive(Clone, Copy, Debug)]
struct Bulk {
    database: DatabaseId,
    segment: FileId,
    first_row: Row,
    row_count: u32,
    rows_checksum: u64,
}

impl Bulk {
    fn of(record: &BulkRecord<'_>) -> Self {
        Self {
            database: record.database,
            segment: record.segment,
            first_row: record.first_row,
            row_count: record.row_count,
            rows_checksum: record.rows_checksum,
        }
    }
}

/// Whether the rows of a bulk record are all in their segment file; the inner error says what is
/// missing.
async fn check_bulk(
    source: Source<'_>,
    lsn: Lsn,
    bulk: &Bulk,
) -> Result<Result<(), String>, Error> {
    let Some(record) = source.manifest.databases.get(&bulk.database) else { return Ok(Ok(())) };
    if lsn <= record.flushed_lsn {
        return Ok(Ok(()));
    }
    let layout = record.meta.layout;
    let mut checksum = RowsChecksum::new(PageIdentity::new(
        source.store,
        bulk.segment,
        Generation::new(0),
        layout.row_offset(bulk.first_row),
    ));
    let read = read_rows(source.disk, source.paths, &layout, bulk, |row| checksum.update(row));
    match read.await? {
        Err(what) => Ok(Err(what)),
        Ok(()) if checksum.finish() == bulk.rows_checksum => Ok(Ok(())),
        Ok(()) => {
            let name = segment_name(bulk.segment);
            Ok(Err(format!("the rows of a bulk record in {name} do not match their checksum")))
        }
    }
}

/// Gives the rows of a bulk record in order; the inner error says why they cannot be read.
async fn read_rows(
    disk: &Arc<dyn Disk>,
    paths: &StorePaths,
    layout: &VectorLayout,
    bulk: &Bulk,
    mut visit: impl FnMut(&[u8]),
) -> Result<Result<(), String>, Error> {
    let name = segment_name(bulk.segment);
    let file = match disk
        .open(&paths.segment(bulk.segment), nephrite_io::OpenOptions::read_only())
        .await
    {
        Ok(file) => file,
        Err(error) if error.kind() == nephrite_io::IoErrorKind::NotFound => {
            return Ok(Err(format!("{name}, which a bulk record names, does not exist")));
        }
        Err(error) => return Err(error.into()),
    };
    let bytes = disk.file_len(&file).await?;
    let last_row = Row::new(bulk.first_row.get() + bulk.row_count - 1);
    let (first_page, last_page) =
        (layout.page_of(bulk.first_row).page, layout.page_of(last_row).page);
    if bytes < layout.page_offset(last_page + 1) {
        return Ok(Err(format!("{name} ends before the rows of a bulk record")));
    }
    let pages_at_once = ((1 << 20) / layout.page_bytes()).max(1);
    let mut row = bulk.first_row.get();
    let mut page = first_page;
    while page <= last_page {
        let count = pages_at_once.min(last_page - page + 1);
        let len = count as usize * layout.page_bytes() as usize;
        let buffer = IoBuffer::Owned(log_file::aligned(len)?);
        let buffer = nephrite_io::read(&**disk, &file, layout.page_offset(page), buffer).await?;
        while row <= last_row.get() && layout.page_of(Row::new(row)).page < page + count {
            let place = layout.page_of(Row::new(row));
            let start = (place.page - page) as usize * layout.page_bytes() as usize + place.offset;
            visit(&buffer.as_slice()[start..start + layout.vector_bytes()]);
            row += 1;
        }
        page += count;
    }
    Ok(Ok(()))
}

impl RecoveredLog {
    /// The log of a new store.
    pub(crate) fn fresh(spares: Vec<WalFile>) -> Self {
        Self {
            chain: Vec::new(),
            spares,
            next_lsn: Lsn::new(1),
            next_sequence: FrameSequence::new(1),
            next_position: 1, // 0 is what a file that was never used says
            end: None,
        }
    }

    /// Splits off what the log goes on with: segments that recovery still needs, and free files.
    pub(crate) fn hand_over(&mut self) -> (Vec<RecoveredSegment>, Vec<WalFile>) {
        let closed = self.chain.iter().map(|segment| RecoveredSegment {
            start: segment.start,
            last_lsn: segment.last_lsn,
            wal: WalFile { id: segment.id, file: segment.file.clone(), bytes: segment.bytes },
        });
        (closed.collect(), std::mem::take(&mut self.spares))
    }

    /// Whether there are no records at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.chain.is_empty()
    }
}

impl Core {
    /// The second pass: applies the records to memtables, flushing when they are full.
    pub(crate) async fn replay(&self, log: &RecoveredLog) -> Result<(), Error> {
        let entries: BTreeMap<DatabaseId, Arc<Entry>> =
            self.catalog().values().map(|entry| (entry.meta.database, Arc::clone(entry))).collect();
        let flushed: BTreeMap<DatabaseId, Lsn> = self
            .manifest
            .read(|state| {
                let records = state.databases.iter();
                records.map(|(database, record)| (*database, record.flushed_lsn)).collect()
            })
            .await;
        for segment in &log.chain {
            let name = wal_name(segment.id);
            let content =
                log_file::read_file(&*self.read.disk, &segment.file, segment.bytes).await?;
            let mut frames: Vec<(u64, FrameView<'_>)> = Vec::new();
            let first = Some(segment.start.sequence);
            log_file::read_frames(&content, &segment.header, first, |at, frame| {
                if frame.header.sequence < segment.end {
                    frames.push((at, frame));
                }
                Ok(())
            })?;
            for (at, frame) in frames {
                for (record, lsn) in records(&frame, &name, at).zip(frame.header.first_lsn.get()..)
                {
                    let (lsn, record) = (Lsn::new(lsn), record?);
                    let id = database_of(&record);
                    // Dropped, or in a segment already: its files are not even opened.
                    let needed = flushed.get(&id).is_some_and(|flushed| *flushed < lsn);
                    if let Some(entry) = entries.get(&id).filter(|_| needed) {
                        self.apply(entry, lsn, record, &name, at).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn apply(
        &self,
        entry: &Arc<Entry>,
        lsn: Lsn,
        record: WalRecord<'_>,
        name: &str,
        at: u64,
    ) -> Result<(), Error> {
        if entry.damage.get().is_some() {
            return Ok(());
        }
        let database = match self.database(entry).await {
            Ok(database) => database,
            Err(error) if error.is_corrupt() => {
                // Its records stay in the log; whoever opens the database gets the error.
                let _ = entry.damage.set(error);
                self.wal.keep_from(lsn);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if lsn <= database.visibility.visible() {
            return Ok(());
        }
        match record {
            WalRecord::Operations(operations) => {
                self.apply_operations(&database, lsn, &operations, name, at)?;
            }
            WalRecord::Bulk(bulk) => self.apply_bulk(&database, lsn, &bulk, name, at).await?,
        }
        database.visibility.publish(lsn);
        if self.config.memtable_limit() <= database.version.load().active.bytes() {
            self.flush_database(&database).await?;
        } else if self.config.memtables_total_limit() <= self.memory.bytes() {
            for database in self.open_databases() {
                self.flush_database(&database).await?;
            }
        }
        Ok(())
    }

    fn apply_operations(
        &self,
        database: &DatabaseCore,
        lsn: Lsn,
        record: &OperationsRecord<'_>,
        name: &str,
        at: u64,
    ) -> Result<(), Error> {
        if record.dimension != database.layout.dimension() || record.id_kind != database.id_kind {
            return Err(Error::corrupt(name, at, "a record does not fit its database"));
        }
        let memtable = Arc::clone(&database.version.load().active);
        let before = memtable.bytes();
        let mut versions: Vec<(IdRef<'_>, RowVersion)> = Vec::new();
        for operation in record.operations() {
            let row = match operation {
                Operation::Put { vector, .. } => memtable.append_rows(&decode_f32_vec(vector))?,
                Operation::Delete { .. } => Row::TOMBSTONE,
            };
            versions.push((operation.id(), RowVersion { lsn, row }));
        }
        self.index_recovered(&memtable, lsn, before, |index| {
            versions.into_iter().for_each(|(id, version)| index.insert(id, version));
        });
        Ok(())
    }

    async fn apply_bulk(
        &self,
        database: &DatabaseCore,
        lsn: Lsn,
        record: &BulkRecord<'_>,
        name: &str,
        at: u64,
    ) -> Result<(), Error> {
        if record.ids.kind() != database.id_kind {
            return Err(Error::corrupt(name, at, "a bulk record does not fit its database"));
        }
        let memtable = Arc::clone(&database.version.load().active);
        let before = memtable.bytes();
        let mut first_row = None;
        let mut failed = None;
        let bulk = Bulk::of(record);
        let (disk, paths) = (&self.read.disk, &self.paths);
        let read = read_rows(disk, paths, &database.layout, &bulk, |row| {
            match memtable.append_rows(&decode_f32_vec(row)) {
                Ok(row) => {
                    first_row.get_or_insert(row);
                }
                Err(error) => failed = Some(error),
            }
        });
        let read = read.await?;
        if let Some(error) = failed {
            return Err(error);
        }
        if let Err(what) = read {
            return Err(Error::corrupt(name, at, what)); // it was whole in the first pass
        }
        let first = first_row.expect("a bulk record has rows").get();
        self.index_recovered(&memtable, lsn, before, |index| {
            for (id, row) in record.ids.iter().zip(first..) {
                index.insert(id, RowVersion { lsn, row: Row::new(row) });
            }
        });
        Ok(())
    }

    fn index_recovered(
        &self,
        memtable: &crate::memtable::Memtable,
        lsn: Lsn,
        bytes_before: u64,
        fill: impl FnOnce(&mut crate::memtable::MemIndex),
    ) {
        if memtable.is_empty() {
            self.wal.keep_from(lsn);
        }
        memtable.insert(lsn, fill);
        self.memory.grow(memtable.bytes() - bytes_before);
    }
}
