//! Write-ahead log: one for all databases of a store, so that one sync covers writers of any.
//!
//! ```text
//! writers --stage--> [staging frame] --swap--> committer --> log segment --> acknowledge
//!                        ^ fills while the frame before is written and synced: group commit
//! ```
//!
//! Guarantees: records are on disk in the order of their sequence numbers; a synced record is
//! acknowledged only after its frame, every frame before it and the bulk rows they name are on
//! disk; log segments are recycled only once a durable manifest no longer needs them.
//! A failed write or sync is never retried: the log takes no more records (poisoned).
//! The committer is run by a task of its own, or by a lone writer that blocks (`seat`).
//! Not here: reading the log back (`recovery`), what records mean.
//! Lock order: a database's write lock, staging, `live`.

mod buffer;
mod committer;
mod file;
mod group;
mod seat;
mod staging;
mod visibility;
mod wish;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use event_listener::Event;
use nephrite_format::{FileId, FrameSequence, Lsn, StoreId, frame::FRAME_HEADER_BYTES};
use nephrite_io::Disk;

pub use self::seat::led;
use self::{committer::Committer, group::CommitGroup, staging::Staging, wish::WishSlot};
pub(crate) use self::{
    file::{RestingFile, WalFile, create_wal_file},
    seat::{Seat, may_lead},
    staging::{Claim, LOG_BUFFERS_BYTES, Record, Refusal, Staged},
    visibility::Visibility,
    wish::SpaceWish,
};
use crate::{
    error::Error, manifest::Manifest, memtable::Memtable, paths::StorePaths, runtime::Runtime,
    segment::traffic::Traffic,
};

/// The part of the log that everyone shares; see the module documentation.
#[derive(Debug)]
pub(crate) struct Wal {
    staging: Mutex<Staging>,
    /// First sequence numbers of the memtables that are not flushed yet.
    live: Mutex<BTreeSet<Lsn>>,
    /// Wakes the committer.
    work: Event,
    /// Wakes writers that found no room.
    room: Event,
    /// The last number that is on disk for certain. Release after the sync pairs with Acquire in
    /// `reach_disk`.
    durable: AtomicU64,
    /// A sync has ended, or the log has failed.
    synced: Event,
    segments: Mutex<SegmentList>,
    /// Where the log would go on after a close, once the committer has ended.
    ended: OnceLock<LogPosition>,
    end: Event,
    /// Segments below this position are not needed by the manifest on disk: they may be recycled.
    released: AtomicU64,
    wish: WishSlot,
    pub(crate) counters: WalCounters,
    /// The largest record a segment can hold.
    record_bytes_max: usize,
}

/// Where a log segment begins: what recovery starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogPosition {
    /// Position of the segment among all segments the log ever had.
    pub(crate) segment: u64,
    /// Sequence of its first frame.
    pub(crate) sequence: FrameSequence,
}

/// The log segments that hold records.
#[derive(Debug)]
struct SegmentList {
    /// Full ones, oldest first.
    closed: VecDeque<Closed>,
    /// The one being written, or to be written next.
    current: LogPosition,
}

/// A full log segment.
#[derive(Clone, Copy, Debug)]
struct Closed {
    start: LogPosition,
    last_lsn: Lsn,
}

/// What the log has done; plain counters.
#[derive(Debug, Default)]
pub(crate) struct WalCounters {
    pub(crate) frames: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) segments_created: AtomicU64,
    pub(crate) segments_recycled: AtomicU64,
}

/// Where the log goes on after recovery.
#[derive(Debug)]
pub(crate) struct WalStart {
    pub(crate) next_lsn: Lsn,
    pub(crate) next_sequence: FrameSequence,
    pub(crate) next_position: u64,
    /// Segments with records that are not in vector segments yet, oldest first.
    pub(crate) recovered: Vec<RecoveredSegment>,
    /// Log files whose records are no longer needed.
    pub(crate) spares: Vec<RestingFile>,
}

/// A full segment that recovery found and still needs.
#[derive(Debug)]
pub(crate) struct RecoveredSegment {
    pub(crate) start: LogPosition,
    pub(crate) last_lsn: Lsn,
    pub(crate) wal: RestingFile,
}

/// What the log works on.
#[derive(Clone, Debug)]
pub(crate) struct WalContext {
    pub(crate) store: StoreId,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) paths: StorePaths,
    pub(crate) next_file: Arc<AtomicU64>,
    pub(crate) segment_bytes: u64,
    /// Woken when the log has grown so long that memtables should be flushed.
    pub(crate) flush_wanted: Arc<Event>,
    /// What background writes may have in flight while somebody waits for a sync.
    pub(crate) traffic: Arc<Traffic>,
}

impl WalContext {
    /// Bytes for frames in one segment.
    pub(crate) fn capacity(&self) -> usize {
        let bytes = usize::try_from(self.segment_bytes);
        bytes.expect("at most 1 GiB, checked with the configuration") - nephrite_format::BLOCK_BYTES
    }

    pub(crate) fn allocate_file(&self) -> FileId {
        FileId::new(self.next_file.fetch_add(1, Ordering::Relaxed)) // only uniqueness matters
    }
}

impl Wal {
    /// The log and the seat of its committer, whose task the caller runs.
    pub(crate) fn start(
        context: WalContext,
        manifest: Arc<Manifest>,
        start: WalStart,
    ) -> Result<(Arc<Self>, Arc<Seat>), Error> {
        let payload_max = context.capacity();
        let wal = Arc::new(Self {
            staging: Mutex::new(Staging::new(start.next_lsn)?),
            live: Mutex::default(),
            work: Event::new(),
            room: Event::new(),
            durable: AtomicU64::new(0),
            synced: Event::new(),
            segments: Mutex::new(SegmentList {
                closed: start
                    .recovered
                    .iter()
                    .map(|segment| Closed { start: segment.start, last_lsn: segment.last_lsn })
                    .collect(),
                current: LogPosition {
                    segment: start.next_position,
                    sequence: start.next_sequence,
                },
            }),
            released: AtomicU64::new(0),
            wish: WishSlot::default(),
            ended: OnceLock::new(),
            end: Event::new(),
            counters: WalCounters::default(),
            record_bytes_max: payload_max - FRAME_HEADER_BYTES,
        });
        let committer = Committer::new(Arc::clone(&wal), context.clone(), manifest, start);
        let seat = Seat::new(Arc::clone(&wal), &context, committer);
        Ok((wal, seat))
    }

    fn staging(&self) -> MutexGuard<'_, Staging> {
        self.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the largest record.
    pub(crate) fn record_bytes_max(&self) -> usize {
        self.record_bytes_max
    }

    /// Fails when the log takes no more records.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.staging().failed.clone().map_or(Ok(()), Err)
    }

    /// Whether a record of this size would be staged now; otherwise the committer is told.
    pub(crate) fn has_room(&self, bytes: usize, claim: Claim) -> Result<(), Refusal> {
        let outcome = self.staging().has_room(bytes, claim);
        if outcome.is_err() {
            self.work.notify(1);
        }
        outcome
    }

    /// Waits until a record of this size may find room. Cancel safe.
    pub(crate) async fn wait_for_room(&self, bytes: usize, claim: Claim) -> Result<(), Error> {
        loop {
            let listener = self.room.listen();
            match self.has_room(bytes, claim) {
                Ok(()) => return Ok(()),
                Err(Refusal::Failed(error)) => return Err(error),
                Err(Refusal::NoRoom) => listener.await,
            }
        }
    }

    /// Puts a record into the log's next frame. `first_of_memtable` keeps the log from recycling
    /// it until [`Self::forget`] is called with its number.
    pub(crate) fn stage(
        &self,
        record: &Record<'_>,
        first_of_memtable: bool,
        encode: impl FnOnce(&mut [u8]),
    ) -> Result<Staged, Refusal> {
        let mut staging = self.staging();
        let staged = staging.stage(record, encode);
        if let (Ok(staged), true) = (&staged, first_of_memtable) {
            self.live().insert(staged.lsn);
        }
        drop(staging);
        if staged.as_ref().map_or(true, |staged| staged.wake && !staged.leads) {
            self.work.notify(1);
        }
        staged
    }

    /// Memtables whose bulk rows a sync would have to make durable.
    pub(crate) fn bulk_unsynced(&self) -> Vec<Arc<Memtable>> {
        self.staging().bulk_unsynced()
    }

    /// Asks for everything staged to be written soon, without a sync.
    pub(crate) fn nudge(&self) {
        self.staging().wants_write = true;
        self.work.notify(1);
    }

    /// Waits until every record up to `last` is on disk; asks for the sync that it takes. The
    /// caller has seen to the bulk rows that those records name. Cancel safe.
    pub(crate) async fn reach_disk(&self, last: Lsn) -> Result<(), Error> {
        loop {
            let listener = self.synced.listen();
            if last.get() <= self.durable.load(Ordering::Acquire) {
                return Ok(());
            }
            self.check()?;
            if self.ended.get().is_some() {
                return Err(Error::Closed);
            }
            self.staging().wants_sync = true;
            self.work.notify(1);
            listener.await;
        }
    }

    fn live(&self) -> MutexGuard<'_, BTreeSet<Lsn>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the log from recycling records from this number on until it is forgotten.
    pub(crate) fn keep_from(&self, first: Lsn) {
        self.live().insert(first);
    }

    /// The memtable whose first record had this number is in a durable segment, or its database
    /// was dropped.
    pub(crate) fn forget(&self, first: Lsn) {
        self.live().remove(&first);
    }

    /// Where recovery would start if the memtables whose first numbers are `flushed` were in
    /// segments. To be written to the manifest together with them.
    pub(crate) fn start_without(&self, flushed: &[Lsn]) -> LogPosition {
        let next = self.staging().next_lsn();
        let needed = self.live().iter().copied().find(|lsn| !flushed.contains(lsn)).unwrap_or(next);
        let segments = self.segments();
        let holds = segments.closed.iter().find(|segment| needed <= segment.last_lsn);
        holds.map_or(segments.current, |segment| segment.start)
    }

    /// The number that the next record gets.
    pub(crate) fn next_lsn(&self) -> Lsn {
        self.staging().next_lsn()
    }

    /// A manifest that starts recovery at `position` is on disk.
    pub(crate) fn release_below(&self, position: u64) {
        self.released.fetch_max(position, Ordering::Release);
        self.work.notify(1);
    }

    fn segments(&self) -> MutexGuard<'_, SegmentList> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Full log segments that recovery would read.
    pub(crate) fn closed_segments(&self) -> u64 {
        self.segments().closed.len() as u64
    }

    /// The last sequence number of the oldest full segment: memtables up to it hold the log back.
    pub(crate) fn oldest_closed(&self) -> Option<Lsn> {
        self.segments().closed.front().map(|segment| segment.last_lsn)
    }

    /// Waits for the committer to end; where the log would go on if nothing in it were needed.
    pub(crate) async fn ended(&self) -> LogPosition {
        loop {
            let listener = self.end.listen();
            if let Some(position) = self.ended.get() {
                return *position;
            }
            listener.await;
        }
    }

    /// Whether some memtable still needs its records.
    pub(crate) fn is_needed(&self) -> bool {
        !self.live().is_empty()
    }

    /// Tells the writers and the committer that no more records come; what is staged is written.
    pub(crate) fn close(&self) {
        self.staging().closing = true;
        self.work.notify(usize::MAX);
        self.room.notify(usize::MAX);
    }
}

impl Staged {
    /// Waits until the record is acknowledged. Cancel safe: the write goes on.
    pub(crate) async fn wait(self) -> Result<(), Error> {
        self.group.wait().await
    }
}

/// Used by the committer to tell a whole group at once.
fn finish(group: &CommitGroup, outcome: &Result<(), Error>) {
    group.finish(outcome.clone());
}
