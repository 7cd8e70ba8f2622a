//! Configuration of a store: one plain struct, each default a public constant, checked at open.

use std::{path::PathBuf, sync::Arc, time::Duration};

use nephrite_format::{ElementType, IdKind, VectorLayout, layout::MAX_DIMENSION};
use nephrite_io::{BackendChoice, Disk, memory::HUGE_PAGE_BYTES};
use nephrite_pager::CachePolicy;

use crate::{error::Error, runtime::Runtime, segment::PIECE_BYTES};

mod profile;

pub use profile::{Profile, UnknownProfile};

/// Default of [`Config::memory_limit`].
pub const MEMORY_LIMIT_BYTES: u64 = 256 << 20;
/// Smallest accepted [`Config::memory_limit`].
pub const MEMORY_LIMIT_BYTES_MIN: u64 = 4 << 20;
/// Default of [`Config::wal_segment_bytes`].
pub const WAL_SEGMENT_BYTES: u64 = 16 << 20;
/// Smallest accepted [`Config::wal_segment_bytes`].
pub const WAL_SEGMENT_BYTES_MIN: u64 = 256 << 10;
/// Largest accepted [`Config::wal_segment_bytes`].
pub const WAL_SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Default of [`Config::flush_interval`].
pub const FLUSH_INTERVAL: Duration = Duration::from_secs(300);
/// Default of [`Config::max_open_files`].
pub const MAX_OPEN_FILES: u32 = 100;
/// Default of [`Config::garbage_percent`].
pub const GARBAGE_PERCENT: u32 = 28;
/// Default of [`Config::compaction_bytes_per_second`].
pub const COMPACTION_BYTES_PER_SECOND: u64 = 256 << 20;
/// Smallest accepted [`Config::compaction_bytes_per_second`].
pub const COMPACTION_BYTES_PER_SECOND_MIN: u64 = 1 << 20;
/// Smallest accepted [`Config::max_open_files`].
pub const MAX_OPEN_FILES_MIN: u32 = 5;
/// Most files a store has open besides those with vectors: lock, manifest, log, and what the I/O
/// backend needs.
pub const OTHER_FILES_MAX: u32 = 16;
/// Fewest files with vectors that may be open.
const SEGMENT_FILES_MIN: u32 = 5;
/// One unused database may stay open per this many bytes of the memory limit.
const DATABASE_SHARE_BYTES: u64 = 256 << 10;
/// Fewest unused databases that may stay open.
const DATABASES_OPEN_MIN: usize = 16;
/// Log segments that may hold unflushed records before a flush is forced.
pub const WAL_SEGMENTS_LIVE_MAX: u64 = 8;
/// Largest share of the memory limit one memtable takes before it is flushed.
const MEMTABLE_SHARE: u64 = 8;
/// Largest share of the memory limit that filters take.
const FILTER_SHARE: u64 = 16;
/// Share of the memory limit that the table of rows found lately takes: a line of 64 bytes for
/// each 2048 bytes of the limit, and so one for each vector of 128 values that fits.
const ROW_TABLE_SHARE: u64 = 32;
/// The most of the memory limit, in eighths, that the cache has of what memtables do not use.
const LOAN_EIGHTHS: u64 = 3;
/// Flushes and compactions: this part of the memory limit, before writers wait for them.
const WORK_SHARE: u64 = 16;
/// Part of the memory limit that all scans together may read ahead.
const AHEAD_SHARE: u64 = 32;
/// A tenth of it, up to this much: what keeps a device busy that reads 3 GB/s.
const AHEAD_BYTES_BUSY: u64 = 4 << 20;
const AHEAD_SHARE_BUSY: u64 = 10;
/// From this memory limit on a huge page at least: its windows bring more than as many buffers.
const AHEAD_MEMORY_MIN: u64 = 32 << 20;
/// The part of the memory limit for what compactions move.
const MOVES_SHARE: u64 = 32;
const IN_FLIGHT_BYTES_MIN: u64 = 1 << 20;
const IN_FLIGHT_BYTES_MAX: u64 = 8 << 20;
/// Largest default for one memtable: beyond it a flush gains no more bandwidth.
const MEMTABLE_BYTES_DEFAULT_MAX: u64 = 32 << 20;
/// Largest accepted [`Config::memtable_bytes`].
pub const MEMTABLE_BYTES_MAX: u64 = 1 << 30;
/// Smallest accepted [`Config::memtable_bytes`].
pub const MEMTABLE_BYTES_MIN: u64 = 64 << 10;

/// When a write is acknowledged.
#[expect(clippy::exhaustive_enums, reason = "callers choose one; a third would be a new promise")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// After it is in memory and queued for the log: it survives a crash from the next flush (or
    /// the next `Synced` write to any database of the store) on, and usually much earlier.
    #[default]
    Buffered,
    /// After the log is on disk. Writers that wait at the same time share one sync.
    Synced,
}

/// Options of a store. `Config::default()` is a balanced start.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) memory_limit: u64,
    pub(crate) memtable_bytes: Option<u64>,
    pub(crate) wal_segment_bytes: u64,
    pub(crate) flush_interval: Duration,
    pub(crate) max_open_files: u32,
    pub(crate) garbage_percent: u32,
    pub(crate) compaction_bytes_per_second: Option<u64>,
    pub(crate) default_durability: Durability,
    pub(crate) backend: BackendChoice,
    pub(crate) cache_policy: CachePolicy,
    pub(crate) record_trace: Option<PathBuf>,
    pub(crate) disk: Option<Arc<dyn Disk>>,
    pub(crate) runtime: Option<Arc<dyn Runtime>>,
    /// A cache of so many frames of 4096 bytes, whatever the memory limit says.
    #[cfg(test)]
    pub(crate) cache_frames: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            memory_limit: MEMORY_LIMIT_BYTES,
            memtable_bytes: None,
            wal_segment_bytes: WAL_SEGMENT_BYTES,
            flush_interval: FLUSH_INTERVAL,
            max_open_files: MAX_OPEN_FILES,
            garbage_percent: GARBAGE_PERCENT,
            compaction_bytes_per_second: Some(COMPACTION_BYTES_PER_SECOND),
            default_durability: Durability::default(),
            backend: BackendChoice::Auto,
            cache_policy: CachePolicy::default(),
            record_trace: None,
            disk: None,
            runtime: None,
            #[cfg(test)]
            cache_frames: None,
        }
    }

    /// The values of a profile, to start from.
    #[must_use]
    pub fn profile(profile: Profile) -> Self {
        profile.config()
    }

    /// The values in force, with what was derived from others filled in.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            memory_limit_bytes: self.memory_limit,
            memtable_bytes: self.memtable_limit(),
            wal_segment_bytes: self.wal_segment_bytes,
            flush_interval: self.flush_interval,
            max_open_files: self.max_open_files,
            garbage_percent: self.garbage_percent,
            compaction_bytes_per_second: self.compaction_bytes_per_second,
            default_durability: self.default_durability,
            backend: self.backend,
            cache_policy: self.cache_policy,
            record_trace: self.record_trace.clone(),
        }
    }

    /// Bytes of memory for cache and memtables of the whole store. Default
    /// [`MEMORY_LIMIT_BYTES`], at least [`MEMORY_LIMIT_BYTES_MIN`].
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = bytes;
        self
    }

    /// Bytes of vectors and ids that one database gathers in memory before they become a segment.
    /// Default: an eighth of the memory limit, at most 32 MiB; at least [`MEMTABLE_BYTES_MIN`] and
    /// at most a quarter of the memory limit and [`MEMTABLE_BYTES_MAX`].
    #[must_use]
    pub fn memtable_bytes(mut self, bytes: u64) -> Self {
        self.memtable_bytes = Some(bytes);
        self
    }

    /// Size of one write-ahead log file. Default [`WAL_SEGMENT_BYTES`], from
    /// [`WAL_SEGMENT_BYTES_MIN`] to [`WAL_SEGMENT_BYTES_MAX`], a multiple of 4096. Bounds the
    /// largest atomic batch whose vectors go through the log.
    #[must_use]
    pub fn wal_segment_bytes(mut self, bytes: u64) -> Self {
        self.wal_segment_bytes = bytes;
        self
    }

    /// Longest time a buffered write stays out of a segment. Default [`FLUSH_INTERVAL`]; zero
    /// flushes only on demand and when memory or log run full.
    #[must_use]
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.flush_interval = interval;
        self
    }

    /// Files open at a time, over all databases: a hard limit. Default [`MAX_OPEN_FILES`], at
    /// least [`MAX_OPEN_FILES_MIN`] and at most what the process may open (RLIMIT_NOFILE).
    ///
    /// Lock, manifest and log take up to [`OTHER_FILES_MAX`] of them, vectors get the rest, but
    /// never less than half: below twice that number only the files with vectors are within the
    /// limit.
    #[must_use]
    pub fn max_open_files(mut self, files: u32) -> Self {
        self.max_open_files = files;
        self
    }

    /// Share of garbage (deleted and overwritten vectors) in the segments of a database, in
    /// percent, from which it is compacted in the background. Default [`GARBAGE_PERCENT`], from 1
    /// to 90. Less garbage takes more writing. From three percentage points more on flushes of
    /// full memtables, and so in the end writers, wait for compactions.
    #[must_use]
    pub fn garbage_percent(mut self, percent: u32) -> Self {
        self.garbage_percent = percent;
        self
    }

    /// Bytes that compactions in the background may read and write per second; `None` lets them
    /// go as fast as they can. Default [`COMPACTION_BYTES_PER_SECOND`], at least
    /// [`COMPACTION_BYTES_PER_SECOND_MIN`]. Where garbage has grown three percentage
    /// points beyond [`Self::garbage_percent`], or many segments meet, there is no limit.
    #[must_use]
    pub fn compaction_bytes_per_second(mut self, bytes: Option<u64>) -> Self {
        self.compaction_bytes_per_second = bytes;
        self
    }

    /// Durability of writes that do not name one. Default [`Durability::Buffered`].
    #[must_use]
    pub fn default_durability(mut self, durability: Durability) -> Self {
        self.default_durability = durability;
        self
    }

    /// The I/O backend. Default [`BackendChoice::Auto`], which never fails for want of io_uring;
    /// a named one fails at open when it cannot be had.
    #[must_use]
    pub fn backend(mut self, choice: BackendChoice) -> Self {
        self.backend = choice;
        self
    }

    /// How the cache decides which page goes. Default [`CachePolicy::Clock`].
    #[must_use]
    pub fn cache_policy(mut self, policy: CachePolicy) -> Self {
        self.cache_policy = policy;
        self
    }

    /// Records what is read of which page into this file, for [`crate::replay`], until the store is
    /// closed. A trace that the file held before is lost; a file that holds something else is
    /// refused. Off by default. Reads that come faster than they are written are dropped, and
    /// counted; the store holds up to 262,144 of them in memory, outside the memory limit. When
    /// the file cannot be written the trace ends, and closing the store says why.
    #[must_use]
    pub fn record_trace(mut self, path: impl Into<Option<PathBuf>>) -> Self {
        self.record_trace = path.into();
        self
    }

    /// Replaces the disk, for simulation and fault tests. `backend` is ignored then.
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = Some(disk);
        self
    }

    /// Replaces clock, tasks and randomness, for simulation.
    #[must_use]
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    pub(crate) fn memtable_limit(&self) -> u64 {
        self.memtable_bytes.unwrap_or_else(|| {
            (self.memory_limit / MEMTABLE_SHARE)
                .clamp(MEMTABLE_BYTES_MIN, MEMTABLE_BYTES_DEFAULT_MAX)
        })
    }

    /// Bytes that all memtables together may hold before writers wait.
    pub(crate) fn memtables_total_limit(&self) -> u64 {
        self.memory_limit / 2
    }

    /// Bytes that the filters of all open segments together may take; they and the fences are
    /// charged to the share of the memtables.
    pub(crate) fn filter_limit(&self) -> u64 {
        self.memory_limit / FILTER_SHARE
    }

    /// Bytes of the table of rows found lately; charged to the share of the memtables as well.
    pub(crate) fn row_table_limit(&self) -> u64 {
        self.memory_limit / ROW_TABLE_SHARE
    }

    /// Bytes that all scans together may read ahead; charged to the share of the memtables as well.
    pub(crate) fn ahead_limit(&self) -> u64 {
        let huge_page = HUGE_PAGE_BYTES as u64;
        let busy = (self.memory_limit / AHEAD_SHARE_BUSY).min(AHEAD_BYTES_BUSY);
        let least = match AHEAD_MEMORY_MIN <= self.memory_limit {
            true => busy / huge_page * huge_page,
            false => PIECE_BYTES as u64,
        };
        (self.memory_limit / AHEAD_SHARE).max(least)
    }

    /// Bytes of a transfer of a scan that goes on: twice the usual piece if eight of those fit.
    pub(crate) fn ahead_piece(&self) -> usize {
        let large = 2 * PIECE_BYTES;
        if 8 * large as u64 <= self.ahead_limit() { large } else { PIECE_BYTES }
    }

    /// Bytes of the pieces that a compaction has in hand and in flight, as far as it need not have
    /// more; charged to the share of the memtables as well.
    pub(crate) fn moves_limit(&self) -> u64 {
        self.memory_limit / MOVES_SHARE
    }

    /// Bytes of the memtables' share that are kept free for flushes and compactions.
    pub(crate) fn work_reserve(&self) -> u64 {
        self.memory_limit / WORK_SHARE
    }

    /// Bytes in flight to one segment file before its writers wait: deep enough for the device
    /// (eight writes of 1 MiB reach the sequential bandwidth) where the limit allows it.
    pub(crate) fn in_flight_limit(&self) -> u64 {
        (self.work_reserve() / 2).clamp(IN_FLIGHT_BYTES_MIN, IN_FLIGHT_BYTES_MAX)
    }

    /// Bytes of the page cache: what the memtables leave, without the loan.
    pub(crate) fn cache_bytes(&self) -> u64 {
        #[cfg(test)]
        if let Some(frames) = self.cache_frames {
            return frames * (4096 + 16); // a frame and what describes it
        }
        self.memory_limit - self.memtables_total_limit()
    }

    /// Bytes of the memtables' share that the cache may have meanwhile.
    pub(crate) fn loan_limit(&self) -> u64 {
        #[cfg(test)]
        if self.cache_frames.is_some() {
            return 0;
        }
        self.memory_limit / 8 * LOAN_EIGHTHS
    }

    /// Segment files that may be open: what the store's other files leave of the limit.
    pub(crate) fn segment_files_max(&self) -> usize {
        let most = self.max_open_files.saturating_sub(OTHER_FILES_MAX).max(self.max_open_files / 2);
        most.max(SEGMENT_FILES_MIN) as usize
    }

    /// Databases that stay open while nobody uses them.
    pub(crate) fn databases_open_max(&self) -> usize {
        let most = self.memory_limit / DATABASE_SHARE_BYTES;
        usize::try_from(most).unwrap_or(usize::MAX).max(DATABASES_OPEN_MIN)
    }

    fn check_open_files(&self) -> Result<(), Error> {
        let refuse = |reason| Err(Error::InvalidConfig { field: "max_open_files", reason });
        if self.max_open_files < MAX_OPEN_FILES_MIN {
            return refuse(format!("{} is below {MAX_OPEN_FILES_MIN}", self.max_open_files));
        }
        // A disk that is not the machine's has no such limit.
        let allowed = nephrite_io::open_files_max().filter(|_| self.disk.is_none());
        match allowed {
            Some(allowed) if allowed < u64::from(self.max_open_files) => refuse(format!(
                "{} is above {allowed}, the limit of this process (RLIMIT_NOFILE, `ulimit -n`)",
                self.max_open_files
            )),
            _ => Ok(()),
        }
    }

    /// Checks every value and every combination, as opening a store does.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] with the name of the first field that cannot be.
    pub fn validate(&self) -> Result<(), Error> {
        let refuse = |field, reason: String| Err(Error::InvalidConfig { field, reason });
        if self.memory_limit < MEMORY_LIMIT_BYTES_MIN {
            return refuse(
                "memory_limit",
                format!("{} bytes is below {MEMORY_LIMIT_BYTES_MIN}", self.memory_limit),
            );
        }
        let wal = self.wal_segment_bytes;
        if !(WAL_SEGMENT_BYTES_MIN..=WAL_SEGMENT_BYTES_MAX).contains(&wal)
            || !wal.is_multiple_of(4096)
        {
            return refuse(
                "wal_segment_bytes",
                format!(
                    "{wal} is not a multiple of 4096 between {WAL_SEGMENT_BYTES_MIN} and \
                     {WAL_SEGMENT_BYTES_MAX}"
                ),
            );
        }
        let memtable = self.memtable_limit();
        let most = MEMTABLE_BYTES_MAX.min(self.memory_limit / 4);
        if !(MEMTABLE_BYTES_MIN..=most).contains(&memtable) {
            return refuse(
                "memtable_bytes",
                format!(
                    "{memtable} is not between {MEMTABLE_BYTES_MIN} and {most} (a quarter of \
                     memory_limit, at most {MEMTABLE_BYTES_MAX})"
                ),
            );
        }
        if !(1..=90).contains(&self.garbage_percent) {
            let reason = format!("{} is not between 1 and 90", self.garbage_percent);
            return refuse("garbage_percent", reason);
        }
        if let Some(bytes) = self.compaction_bytes_per_second
            && bytes < COMPACTION_BYTES_PER_SECOND_MIN
        {
            let reason = format!("{bytes} is below {COMPACTION_BYTES_PER_SECOND_MIN}");
            return refuse("compaction_bytes_per_second", reason);
        }
        self.check_open_files()
    }
}

/// The values of a [`Config`], for people and programs to read.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "every field is named for the setter that documents it")]
pub struct Settings {
    pub memory_limit_bytes: u64,
    pub memtable_bytes: u64,
    pub wal_segment_bytes: u64,
    pub flush_interval: Duration,
    pub max_open_files: u32,
    pub garbage_percent: u32,
    pub compaction_bytes_per_second: Option<u64>,
    pub default_durability: Durability,
    pub backend: BackendChoice,
    pub cache_policy: CachePolicy,
    pub record_trace: Option<PathBuf>,
}

/// Options of a new database.
#[derive(Clone, Debug)]
pub struct DatabaseOptions {
    dimension: u32,
    id_kind: IdKind,
    page_bytes: Option<u32>,
}

impl DatabaseOptions {
    /// Vectors of `dimension` f32 elements (1 to [`MAX_DIMENSION`]) under u64 ids.
    #[must_use]
    pub fn new(dimension: u32) -> Self {
        Self { dimension, id_kind: IdKind::U64, page_bytes: None }
    }

    /// The kind of ids. Default [`IdKind::U64`].
    #[must_use]
    pub fn id_kind(mut self, kind: IdKind) -> Self {
        self.id_kind = kind;
        self
    }

    /// Bytes of a vector page: a multiple of 4096 up to 65536 that holds at least one vector.
    /// Small pages read faster, larger ones waste less. Default: the smallest that wastes at most
    /// 26 %.
    #[must_use]
    pub fn page_bytes(mut self, bytes: u32) -> Self {
        self.page_bytes = Some(bytes);
        self
    }

    pub(crate) fn kind(&self) -> IdKind {
        self.id_kind
    }

    pub(crate) fn layout(&self) -> Result<VectorLayout, Error> {
        if !(1..=MAX_DIMENSION).contains(&self.dimension) {
            return Err(Error::InvalidConfig {
                field: "dimension",
                reason: format!("{} is not between 1 and {MAX_DIMENSION}", self.dimension),
            });
        }
        let layout = match self.page_bytes {
            None => VectorLayout::for_dimension(self.dimension, ElementType::F32),
            Some(bytes) => VectorLayout::with_page_bytes(self.dimension, ElementType::F32, bytes),
        };
        layout.map_err(|error| Error::InvalidConfig {
            field: "page_bytes",
            reason: error.to_string(),
        })
    }
}
