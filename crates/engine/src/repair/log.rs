//! Every readable frame of the log, and what is missing between them.
//!
//! A frame is believed when its checksum holds for the store, the file, the place and one life of
//! the file. Frames of earlier lives are kept apart: their records are in segments, and they serve
//! only to find again what a segment has lost.

mod lives;

use nephrite_format::{
    BLOCK_BYTES, DatabaseId, FileDetail, FileId, FileKind, Generation, Id, Lsn, PageIdentity,
    frame::{FRAME_HEADER_BYTES, FrameError, FrameKind, FrameView, decode_frame, peek_frame_bytes},
    wal::{WalRecord, WalRecords},
};

use super::{
    listing::{Found, Listing},
    raw::{Raw, header_of},
    report::RepairReport,
    state::Known,
    work::Reader,
};
use crate::{error::Error, manifest::NUMBER_MAX, recovery::log_start};

/// A file of the log directory.
#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) id: FileId,
    pub(super) found: Found,
    /// Position by the manifest: recovery needs it.
    pub(super) named: Option<u64>,
    /// Position and generation by its header.
    position: Option<u64>,
    /// Sequences of the first and last frame of the life that counts.
    sequences: Option<(u64, u64)>,
}

/// A file that recovery needs of which the end, or all, is missing or may be.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) file: String,
    /// The last record that can be read before the missing part.
    pub(super) last_lsn: Option<u64>,
}

/// What keeps a store with a log file from being opened.
struct Problem {
    offset: u64,
    what: String,
    extent: Extent,
}

/// What is known of the length of a damaged log file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    /// Its end is missing, or all of it.
    Missing,
    /// Its header cannot be read, so that nothing says how long it was.
    Unknown,
}

impl Problem {
    fn new(offset: u64, what: impl Into<String>, extent: Extent) -> Self {
        Self { offset, what: what.into(), extent }
    }
}

/// A frame with records that can be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogFrame {
    /// Which of the files.
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) first_lsn: u64,
    pub(super) records: u32,
    sequence: u64,
    generation: Generation,
}

impl LogFrame {
    /// The number behind its last record.
    pub(super) fn end_lsn(&self) -> u64 {
        self.first_lsn + u64::from(self.records)
    }
}

/// What looks like a frame and is none.
#[derive(Debug)]
pub(super) struct BrokenFrame {
    pub(super) file: String,
    pub(super) offset: u64,
    /// Ids that its records seem to name, as far as they can be read.
    pub(super) ids: Vec<(DatabaseId, Id)>,
}

/// The log.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) files: Vec<LogFile>,
    /// By number of the first record.
    pub(super) frames: Vec<LogFrame>,
    pub(super) broken: Vec<BrokenFrame>,
    /// The highest database that a record of a life that counts names.
    pub(super) last_database: Option<DatabaseId>,
    /// Highest position, sequence and record number behind anything seen.
    pub(super) end_position: u64,
    pub(super) end_sequence: u64,
    pub(super) end_lsn: u64,
    /// A file that recovery needs is not as it must be.
    pub(super) is_damaged: bool,
    pub(super) cut: Vec<Cut>,
    durable: u64,
    /// Files, by number, that end with a frame and whose length nothing tells.
    may_be_cut: Vec<usize>,
}

/// Reads all log files.
pub(super) async fn read(
    reader: &Reader,
    known: &Known,
    listing: &Listing,
    report: &mut RepairReport,
) -> Result<Log, Error> {
    let mut log = Log::default();
    for (id, found) in &listing.logs {
        let named = known.state.log.iter().find(|(_, file)| *file == id).map(|it| *it.0);
        let file =
            LogFile { id: *id, found: found.clone(), named, position: None, sequences: None };
        log.read_file(reader, known, file, report).await?;
    }
    for (position, file) in &known.state.log {
        if !listing.logs.contains_key(file) {
            let name = crate::paths::wal_name(*file);
            report.note(&name, 0, None, format!("log segment {position} is missing"));
            log.is_damaged = true;
            log.cut.push(Cut { file: name, last_lsn: None });
        }
    }
    log.find_cut_ends();
    lives::keep_latest(&mut log.frames);
    Ok(log)
}

impl Log {
    async fn read_file(
        &mut self,
        reader: &Reader,
        known: &Known,
        mut file: LogFile,
        report: &mut RepairReport,
    ) -> Result<(), Error> {
        let Some(raw) = Raw::open(&reader.disk, &file.found.path).await? else { return Ok(()) };
        let content = raw.content().await?;
        let problem = file.check(known, &content, raw.bytes)?;
        if let Some(problem) = &problem {
            report.note(&file.found.name, problem.offset, None, problem.what.clone());
            report.aside(&file.found.name, "it is damaged");
            self.is_damaged |= file.counts(known);
        }
        // A header that cannot be read is no obstacle: frames say of which life they are.
        let place = PageIdentity::new(known.store, file.id, Generation::new(0), 0);
        let life = file.named.or(file.position).or_else(|| newest_life(&content, place));
        let place = PageIdentity { generation: Generation::new(life.unwrap_or(0)), ..place };
        let number = self.files.len();
        let mut at = BLOCK_BYTES;
        let mut current_end = at;
        while at < content.len() {
            at += match frame_at(&content, at, place) {
                Some((frame, generation)) => {
                    let is_current = generation == place.generation;
                    self.note_frame(&frame, number, at as u64, generation, is_current);
                    if is_current {
                        self.note_databases(&frame);
                        file.note_sequence(frame.header.sequence.get());
                        current_end = at + frame.total_bytes;
                    }
                    frame.total_bytes
                }
                None => {
                    self.note_broken(&file, &content, at);
                    BLOCK_BYTES
                }
            };
        }
        if let Some(problem) = problem.filter(|_| file.counts(known)) {
            let behind = &content[current_end.min(content.len())..];
            let is_unknown = problem.extent == Extent::Unknown;
            let begins_broken = file.sequences.is_none() && !is_unused(behind, place);
            if problem.extent == Extent::Missing || (is_unknown && begins_broken) {
                self.note_cut(number, file.found.name.clone());
            } else if is_unknown && !has_unused_room(behind, place) {
                self.may_be_cut.push(number);
            }
        }
        self.end_position = self.end_position.max(file.named.or(file.position).unwrap_or(0));
        self.files.push(file);
        Ok(())
    }

    fn note_databases(&mut self, frame: &FrameView<'_>) {
        let records = WalRecords::new(frame.payload, frame.header.record_count, "", 0);
        for record in records.map_while(Result::ok) {
            let database = match record {
                WalRecord::Operations(record) => record.database,
                WalRecord::Bulk(record) => record.database,
            };
            self.last_database = self.last_database.max(Some(database));
        }
    }

    fn note_cut(&mut self, number: usize, file: String) {
        let own = self.frames.iter().filter(|frame| frame.file == number);
        let last_lsn = own.map(|frame| frame.end_lsn() - 1).max();
        self.cut.push(Cut { file, last_lsn });
    }

    /// A file that ends with a frame was full, or it was cut: it was full if the log goes on.
    fn find_cut_ends(&mut self) {
        for number in std::mem::take(&mut self.may_be_cut) {
            let file = &self.files[number];
            let next = file.sequences.map(|(_, last)| last + 1);
            let goes_on =
                self.files.iter().enumerate().any(|(at, other)| {
                    at != number && other.sequences.map(|(first, _)| first) == next
                });
            if !goes_on {
                self.note_cut(number, file.found.name.clone());
            }
        }
    }

    fn note_frame(
        &mut self,
        frame: &FrameView<'_>,
        file: usize,
        offset: u64,
        generation: Generation,
        is_current: bool,
    ) {
        let header = &frame.header;
        let (first_lsn, records) = (header.first_lsn.get(), header.record_count);
        if NUMBER_MAX < first_lsn || NUMBER_MAX < header.sequence.get() {
            return;
        }
        self.end_sequence = self.end_sequence.max(header.sequence.get());
        if is_current {
            self.durable = self.durable.max(header.durable_through.get().min(NUMBER_MAX));
        }
        if records == 0 {
            return; // a mark
        }
        let sequence = header.sequence.get();
        let frame = LogFrame { file, offset, first_lsn, records, sequence, generation };
        self.end_lsn = self.end_lsn.max(frame.end_lsn());
        self.frames.push(frame);
    }

    /// Remembers what a place seems to hold whose checksum does not.
    fn note_broken(&mut self, file: &LogFile, content: &[u8], at: usize) {
        let Some(bytes) = peek_frame_bytes(&content[at..]) else { return };
        let end = content.len().min(at + bytes);
        let payload = content.get(at + FRAME_HEADER_BYTES..end).unwrap_or_default();
        let mut ids = Vec::new();
        for record in WalRecords::new(payload, u32::MAX, "", 0).map_while(Result::ok) {
            match record {
                WalRecord::Operations(record) => {
                    let named = record.operations().map(|it| (record.database, it.id().to_id()));
                    ids.extend(named);
                }
                WalRecord::Bulk(record) => {
                    ids.extend(record.ids.iter().map(|id| (record.database, id.to_id())));
                }
            }
        }
        let (file, offset) = (file.found.name.clone(), at as u64);
        self.broken.push(BrokenFrame { file, offset, ids });
    }

    /// Whether the records that recovery needs are all there; otherwise where the first are not,
    /// and how many frames are missing at the end.
    pub(super) fn missing(&self, known: &Known) -> Option<Missing> {
        let start = log_start(&known.state).sequence.get();
        let mut current: Vec<&LogFrame> = self.needed(known).collect();
        current.sort_by_key(|frame| frame.sequence);
        let mut next = start;
        for frame in current {
            if frame.sequence < next {
                continue;
            }
            if next < frame.sequence && next <= self.durable {
                return Some(Missing { sequence: next });
            }
            if next < frame.sequence {
                return None; // never acknowledged
            }
            next = frame.sequence + 1;
        }
        (next <= self.durable).then_some(Missing { sequence: next })
    }

    /// Frames of the lives that count now: with a whole manifest those of the files that it names.
    pub(super) fn needed<'a>(&'a self, known: &'a Known) -> impl Iterator<Item = &'a LogFrame> {
        self.frames.iter().filter(move |frame| {
            let named = self.files[frame.file].named;
            !known.is_whole || named.is_some_and(|position| frame.generation.get() == position)
        })
    }

    /// Whether a frame is known to have been on disk.
    pub(super) fn is_durable(&self, frame: &LogFrame) -> bool {
        frame.sequence <= self.durable
    }

    /// The lowest number from which on every record up to `last` can be read.
    pub(super) fn whole_back_from(&self, last: Lsn) -> Option<u64> {
        let mut from = None;
        for frame in self.frames.iter().rev() {
            match from {
                None if frame.first_lsn <= last.get() && last.get() < frame.end_lsn() => {
                    from = Some(frame.first_lsn);
                }
                Some(start) if frame.end_lsn() == start => from = Some(frame.first_lsn),
                Some(start) if frame.end_lsn() < start => break,
                _ => {}
            }
        }
        from
    }

    /// Gives the records of some frames in order, with the file's content.
    pub(super) async fn visit<'a>(
        &self,
        reader: &Reader,
        known: &Known,
        frames: impl Iterator<Item = &'a LogFrame>,
        mut visit: impl FnMut(&LogFrame, &[u8], Lsn, &WalRecord<'_>),
    ) -> Result<(), Error> {
        let mut open: Option<(usize, Vec<u8>)> = None;
        for frame in frames {
            if open.as_ref().is_none_or(|(file, _)| *file != frame.file) {
                open = Some((frame.file, self.content(reader, frame.file).await?));
            }
            let Some((_, content)) = &open else { continue };
            let file = &self.files[frame.file];
            let place = PageIdentity::new(known.store, file.id, frame.generation, frame.offset);
            let start = usize::try_from(frame.offset).unwrap_or(usize::MAX);
            let Some(rest) = content.get(start..) else { continue };
            let Ok(view) = decode_frame(rest, place) else { continue };
            let records = WalRecords::new(view.payload, view.header.record_count, "", frame.offset);
            for (record, lsn) in records.map_while(Result::ok).zip(frame.first_lsn..) {
                visit(frame, content, Lsn::new(lsn), &record);
            }
        }
        Ok(())
    }

    /// The bytes of a log file.
    pub(super) async fn content(&self, reader: &Reader, file: usize) -> Result<Vec<u8>, Error> {
        match Raw::open(&reader.disk, &self.files[file].found.path).await? {
            Some(raw) => raw.content().await,
            None => Ok(Vec::new()),
        }
    }
}

/// Records that recovery needs and that are not there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    /// The first missing frame.
    pub(super) sequence: u64,
}

impl LogFile {
    /// What keeps a store with this file from being opened.
    fn check(
        &mut self,
        known: &Known,
        content: &[u8],
        bytes: u64,
    ) -> Result<Option<Problem>, Error> {
        let page = content.get(..BLOCK_BYTES);
        let is_unfinished = match page {
            // Without the manifest nobody can tell it from one that was cut.
            None => !self.counts(known),
            Some(page) => self.named.is_none() && page.iter().all(|byte| *byte == 0),
        };
        if is_unfinished {
            return Ok(None);
        }
        let (header, problem) = header_of(page, &self.found.name)?;
        let Some(header) = header else {
            // Torn while it was made or recycled, if nobody counts on it.
            let extent = if page.is_none() { Extent::Missing } else { Extent::Unknown };
            let problem = problem.filter(|_| self.counts(known));
            return Ok(problem.map(|what| Problem::new(0, what, extent)));
        };
        if header.kind() != FileKind::Wal || header.store != known.store || header.file != self.id {
            let what = "it is another file, or of another store";
            return Ok(Some(Problem::new(0, what, Extent::Missing)));
        }
        let FileDetail::Wal { position, segment_bytes } = header.detail else {
            return Ok(problem.map(|what| Problem::new(0, what, Extent::Unknown)));
        };
        self.position = Some(position);
        match self.named {
            // Position 0 is that of a file which was made and never was a segment of the log.
            None if position == 0 => Ok(problem.map(|what| Problem::new(0, what, Extent::Whole))),
            _ if bytes != segment_bytes && self.counts(known) => {
                let what = format!("it has {bytes} bytes where its header says {segment_bytes}");
                Ok(Some(Problem::new(bytes.min(segment_bytes), what, Extent::Missing)))
            }
            Some(named) if named != position => {
                let what = format!("it is log segment {position} where the manifest says {named}");
                Ok(Some(Problem::new(0, what, Extent::Whole)))
            }
            _ => Ok(problem.map(|what| Problem::new(0, what, Extent::Whole))),
        }
    }

    /// Whether what it holds matters: the manifest names it, or nobody can tell.
    fn counts(&self, known: &Known) -> bool {
        self.named.is_some() || !known.is_whole
    }

    fn note_sequence(&mut self, sequence: u64) {
        let (first, last) = self.sequences.unwrap_or((sequence, sequence));
        self.sequences = Some((first.min(sequence), last.max(sequence)));
    }
}

/// The last life of a file of which there are frames.
fn newest_life(content: &[u8], place: PageIdentity) -> Option<u64> {
    let places = (BLOCK_BYTES..content.len()).step_by(BLOCK_BYTES);
    places.filter_map(|at| Some(frame_at(content, at, place)?.1.get())).max()
}

/// Whether room that the present life of a file has not written follows the last of its frames:
/// then the file goes on behind them, and nothing of the log is missing at its end.
fn has_unused_room(behind: &[u8], place: PageIdentity) -> bool {
    let mut at = 0;
    while let Some(rest) = behind.get(at..).filter(|rest| !rest.is_empty()) {
        if is_unused(rest, place) {
            return true;
        }
        // Not into the payload of a damaged frame, which may hold anything.
        at += peek_frame_bytes(rest).unwrap_or(BLOCK_BYTES);
    }
    false
}

/// Whether the present life of a file has not written here.
fn is_unused(bytes: &[u8], place: PageIdentity) -> bool {
    matches!(decode_frame(bytes, place), Err(FrameError::Blank | FrameError::Stale { .. }))
}

/// A valid frame with whole records, of whatever life of the file.
fn frame_at(content: &[u8], at: usize, place: PageIdentity) -> Option<(FrameView<'_>, Generation)> {
    let (rest, place) = (&content[at..], place.at(at as u64));
    let (frame, generation) = match decode_frame(rest, place) {
        Ok(frame) => (frame, place.generation),
        Err(FrameError::Stale { generation }) => {
            let place = PageIdentity { generation, ..place };
            (decode_frame(rest, place).ok()?, generation)
        }
        Err(_) => return None,
    };
    let mut records = WalRecords::new(frame.payload, frame.header.record_count, "", 0);
    let is_log = frame.header.kind == FrameKind::WalRecords;
    (is_log && records.all(|record| record.is_ok())).then_some((frame, generation))
}
