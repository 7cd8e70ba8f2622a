//! Committer: writes staged frames, syncs them and acknowledges their writers.
//!
//! Who runs it, the log's task or a writer, is the matter of `seat`.
//!
//! One frame at a time: while it is written and synced the next one gathers. A sync first makes
//! the bulk rows durable that the frames up to it name. When the log has been quiet for a moment
//! after a sync, a *mark* frame (no records, not synced, overwritten by the next frame) records
//! what is on disk, so that later damage to the last frame is told from a torn write.
//!
//! The first failure poisons the log: the group fails, nothing is retried, nothing more is taken.
//! Refused before anything is promised instead: records for which a full disk has no log space.

mod space;

use std::{
    collections::VecDeque,
    sync::{Arc, Weak, atomic::Ordering},
};

use nephrite_format::{
    BLOCK_BYTES, FileHeader, FrameSequence, Lsn,
    frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, frame_bytes},
};
use nephrite_io::{FileHandle, write, write_synced};

use super::{
    Closed, LogPosition, RestingFile, Wal, WalContext, WalFile, WalStart, buffer::LogBuffer,
    finish, staging::Frame,
};
use crate::{
    config::Durability, error::Error, log_file, manifest::Manifest, memtable::Memtable,
    planted::planted,
};

/// Empty segments kept for reuse; further ones are deleted.
const SPARES_MAX: usize = 4;

/// The segment being written.
#[derive(Debug)]
struct Current {
    wal: WalFile,
    header: FileHeader,
    position: u64,
    offset: u64,
    /// Frames written since the last sync.
    unsynced: bool,
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Committer {
    wal: Arc<Wal>,
    context: WalContext,
    manifest: Arc<Manifest>,
    current: Option<Current>,
    closed: VecDeque<(u64, RestingFile)>,
    /// `closed` has segments that recovery found, of which nobody knows whether a sync has covered
    /// them: they were whole when they were read, which is all that was promised.
    recovered: bool,
    /// Full segments with frames that no sync has covered yet.
    unsynced: Vec<(u64, FileHandle)>,
    /// Segments whose headers and names in the manifest are on disk, in the order of positions.
    ready: VecDeque<Current>,
    /// Files that are free to become segments.
    spares: Vec<RestingFile>,
    next_position: u64,
    next_sequence: FrameSequence,
    /// Of the last frame written.
    last_lsn: Lsn,
    durable_through: FrameSequence,
    /// Memtables whose bulk rows a coming sync must make durable first. A memtable that is gone
    /// has become a durable segment, or its database was dropped.
    bulk: Vec<Weak<Memtable>>,
    mark_due: bool,
}

/// What the log's task does in one go.
pub(super) enum Work {
    Frame(Frame),
    /// What was written should be on disk.
    Sync,
    /// Log space should be made or given back.
    Space,
    Close,
}

impl Committer {
    pub(super) fn new(
        wal: Arc<Wal>,
        context: WalContext,
        manifest: Arc<Manifest>,
        start: WalStart,
    ) -> Self {
        let capacity = context.capacity();
        wal.staging().space.segment = capacity;
        let written = FrameSequence::new(start.next_sequence.get().saturating_sub(1));
        Self {
            wal,
            context,
            manifest,
            current: None,
            closed: start
                .recovered
                .into_iter()
                .map(|segment| (segment.start.segment, segment.wal))
                .collect(),
            recovered: true,
            unsynced: Vec::new(),
            ready: VecDeque::new(),
            spares: start.spares,
            next_position: start.next_position,
            next_sequence: start.next_sequence,
            last_lsn: Lsn::new(start.next_lsn.get() - 1),
            durable_through: written,
            bulk: Vec::new(),
            mark_due: false,
        }
    }

    /// What should be done now. A frame that is to be written is taken by this.
    pub(super) fn next_work(&self) -> Option<Work> {
        let mut staging = self.wal.staging();
        if staging.wants_commit()
            && let Some(frame) = staging.take()
        {
            return Some(Work::Frame(frame));
        }
        if staging.closing && staging.is_empty() {
            return Some(Work::Close);
        }
        if staging.wants_sync && staging.failed.is_none() {
            return Some(Work::Sync);
        }
        drop(staging);
        self.space_needs_work().then_some(Work::Space)
    }

    /// Whether [`Self::next_work`] would find anything.
    pub(super) fn has_work(&self) -> bool {
        let staging = self.wal.staging();
        let asked = staging.closing || staging.wants_sync && staging.failed.is_none();
        let wanted = staging.wants_commit() || asked;
        drop(staging);
        wanted || self.space_needs_work()
    }

    pub(super) async fn carry_out(&mut self, work: Work) {
        match work {
            Work::Frame(frame) => self.commit(frame).await,
            Work::Sync => self.sync_all().await,
            Work::Space => self.manage_space().await,
            Work::Close => self.end().await,
        }
    }

    /// Everything staged is written: what is left is to sync it and to say where the log ends.
    async fn end(&mut self) {
        self.sync_written().await;
        let position = LogPosition { segment: self.next_position, sequence: self.next_sequence };
        let first = self.wal.ended.set(position).is_ok();
        assert!(first, "the committer ends once");
        self.wal.end.notify(usize::MAX);
        self.wal.synced.notify(usize::MAX);
        self.wal.wish.end();
    }

    /// Whether nothing is to be done until somebody asks, however long that takes.
    pub(super) fn may_rest(&self) -> bool {
        !self.mark_due && self.wal.staging().is_empty()
    }

    /// The sequence of the next frame: while it stays the same the log is quiet.
    pub(super) fn next_sequence(&self) -> FrameSequence {
        self.next_sequence
    }

    /// The log has been quiet for a moment.
    pub(super) async fn end_quiet(&mut self) {
        let frame = self.wal.staging().take();
        match frame {
            Some(frame) => self.commit(frame).await,
            None => self.mark().await,
        }
    }

    /// Writes a frame, syncs it if asked to, and tells its writers.
    pub(super) async fn commit(&mut self, frame: Frame) {
        let last_lsn = frame.last_lsn();
        let Frame { buffer, used, records, first_lsn, wants_sync, group, touched, bulk } = frame;
        self.bulk.retain(|memtable| 0 < memtable.strong_count());
        for memtable in bulk {
            if !self.bulk.iter().any(|known| known.ptr_eq(&memtable)) {
                self.bulk.push(memtable);
            }
        }
        self.wal.room.notify(usize::MAX);
        let outcome = match self.wal.check() {
            Ok(()) => self.write(buffer, used, records, first_lsn, wants_sync).await,
            Err(error) => Err(error),
        };
        match &outcome {
            Ok(()) => {
                self.last_lsn = last_lsn;
                if wants_sync {
                    self.note_durable();
                }
            }
            Err(error) => self.poison(error),
        }
        for (visibility, lsn) in touched {
            match &outcome {
                Ok(()) => visibility.acknowledge(lsn),
                Err(_) => visibility.reject(),
            }
        }
        finish(&group, &outcome);
        self.wal.counters.records.fetch_add(u64::from(records), Ordering::Relaxed); // a counter
    }

    fn poison(&self, error: &Error) {
        if planted("poison_forgotten") {
            return;
        }
        let mut staging = self.wal.staging();
        if staging.failed.is_none() {
            staging.failed = Some(match error {
                Error::Poisoned { .. } | Error::Closed => error.clone(),
                other => Error::poisoned_by(other),
            });
        }
        drop(staging);
        self.wal.room.notify(usize::MAX);
        self.wal.synced.notify(usize::MAX);
        self.context.flush_wanted.notify(usize::MAX);
    }

    /// Every record up to the last one written is on disk.
    fn note_durable(&self) {
        if self.recovered {
            return;
        }
        self.wal.durable.store(self.last_lsn.get(), Ordering::Release);
        self.wal.staging().wants_sync = false;
        self.wal.synced.notify(usize::MAX);
    }

    /// As [`Self::sync_written`], with what recovery found.
    async fn sync_all(&mut self) {
        if std::mem::take(&mut self.recovered) {
            for (_, found) in &self.closed {
                if let Err(error) = self.sync_resting(*found).await {
                    return self.poison(&error);
                }
            }
        }
        self.sync_written().await;
    }

    async fn sync_resting(&self, file: RestingFile) -> Result<(), Error> {
        let wal = file.open(&self.context.disk, &self.context.paths).await?;
        Ok(nephrite_io::sync(&*self.context.disk, &wal.file).await?)
    }

    /// Syncs what was written, for those who wait for it, or at the end.
    async fn sync_written(&mut self) {
        let synced = match self.make_bulk_rows_durable().await {
            Ok(()) => self.sync().await,
            Err(error) => Err(error),
        };
        match synced {
            Ok(()) => self.note_durable(),
            Err(error) => self.poison(&error),
        }
    }

    async fn write(
        &mut self,
        buffer: LogBuffer,
        used: usize,
        records: u32,
        first_lsn: Lsn,
        wants_sync: bool,
    ) -> Result<(), Error> {
        if wants_sync {
            self.make_bulk_rows_durable().await?;
        }
        let payload_bytes = u32::try_from(used - FRAME_HEADER_BYTES)
            .expect("a frame fits a log segment of at most 1 GiB");
        let header = FrameHeader {
            kind: FrameKind::WalRecords,
            payload_bytes,
            record_count: records,
            sequence: self.next_sequence,
            first_lsn,
            durable_through: self.durable_through,
        };
        let bytes = frame_bytes(payload_bytes as usize) as u64;
        let durability = if wants_sync { Durability::Synced } else { Durability::Buffered };
        let buffer = self.write_frame(buffer, header, bytes, durability).await?;
        self.wal.staging().recycle(buffer);
        self.next_sequence = self.next_sequence.next();
        self.wal.counters.frames.fetch_add(1, Ordering::Relaxed); // a counter
        self.wal.counters.bytes.fetch_add(bytes, Ordering::Relaxed); // a counter
        if wants_sync {
            self.durable_through = header.sequence;
            self.mark_due = true;
        }
        Ok(())
    }

    async fn write_frame(
        &mut self,
        mut buffer: LogBuffer,
        frame: FrameHeader,
        bytes: u64,
        durability: Durability,
    ) -> Result<LogBuffer, Error> {
        let fits = |current: &Current| current.offset + bytes <= self.context.segment_bytes;
        if !self.current.as_ref().is_some_and(fits) {
            self.next_segment();
        }
        if durability == Durability::Synced {
            self.sync_full_segments().await?;
        }
        let disk = Arc::clone(&self.context.disk);
        let current = self.current.as_mut().expect("next_segment set it or failed");
        let offset = current.offset;
        let len = log_file::seal(&mut buffer, &current.header, offset, &frame);
        current.offset += bytes;
        let part = buffer.lend(len);
        let file = &current.wal.file;
        let written = match durability {
            Durability::Buffered => {
                current.unsynced = true;
                write(&*disk, file, offset, part).await?
            }
            // One request; it makes the frames before it in this segment durable as well.
            Durability::Synced if planted("acknowledged_before_sync") => {
                write(&*disk, file, offset, part).await?
            }
            Durability::Synced => {
                let _waits = self.context.traffic.load();
                let written = write_synced(&*disk, file, offset, part).await?;
                current.unsynced = false;
                self.wal.counters.syncs.fetch_add(1, Ordering::Relaxed); // a counter
                written
            }
        };
        Ok(LogBuffer::returned(written).expect("the buffer that was handed in comes back"))
    }

    /// Syncs full segments with frames that no sync has covered.
    async fn sync_full_segments(&mut self) -> Result<(), Error> {
        for (_, full) in std::mem::take(&mut self.unsynced) {
            if planted("full_segment_unsynced") {
                continue;
            }
            nephrite_io::sync(&*self.context.disk, &full).await?;
        }
        Ok(())
    }

    async fn sync(&mut self) -> Result<(), Error> {
        self.sync_full_segments().await?;
        if let Some(current) = self.current.as_mut().filter(|current| current.unsynced) {
            nephrite_io::sync(&*self.context.disk, &current.wal.file).await?;
            current.unsynced = false;
            self.wal.counters.syncs.fetch_add(1, Ordering::Relaxed); // a counter
        }
        Ok(())
    }

    async fn make_bulk_rows_durable(&mut self) -> Result<(), Error> {
        for memtable in std::mem::take(&mut self.bulk) {
            if let Some(memtable) = memtable.upgrade() {
                memtable.make_rows_durable().await?;
            }
        }
        Ok(())
    }

    /// Closes the current segment and makes an empty one current. Staging has made sure that
    /// there is one. What the full segment holds stays unsynced until a later frame wants a sync:
    /// until then no frame says that it is on disk.
    fn next_segment(&mut self) {
        let next = self.ready.pop_front();
        let next = next.expect("staging accepts records only for segments that are ready");
        let position = next.position;
        let start = LogPosition { segment: position, sequence: self.next_sequence };
        let full = self.current.replace(next);
        let mut segments = self.wal.segments();
        let before = std::mem::replace(&mut segments.current, start);
        if full.is_some() {
            segments.closed.push_back(Closed { start: before, last_lsn: self.last_lsn });
        }
        drop(segments);
        if let Some(full) = full {
            if full.unsynced {
                self.unsynced.push((full.position, full.wal.file.clone()));
            }
            self.closed.push_back((full.position, full.wal.into()));
            self.context.flush_wanted.notify(usize::MAX);
        }
    }

    /// Writes a frame without records that says what is on disk; the next frame overwrites it.
    async fn mark(&mut self) {
        if !std::mem::take(&mut self.mark_due) {
            return;
        }
        let Some(current) = &self.current else { return };
        if self.context.segment_bytes < current.offset + BLOCK_BYTES as u64 {
            return;
        }
        let frame = FrameHeader {
            kind: FrameKind::WalRecords,
            payload_bytes: 0,
            record_count: 0,
            sequence: self.next_sequence,
            first_lsn: Lsn::new(self.last_lsn.get() + 1),
            durable_through: self.durable_through,
        };
        let written = match log_file::aligned(BLOCK_BYTES) {
            Ok(buffer) => {
                let (disk, file) = (&*self.context.disk, &current.wal.file);
                log_file::write_frame(disk, file, &current.header, current.offset, buffer, &frame)
                    .await
                    .map(drop)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            self.poison(&error);
        }
    }
}
