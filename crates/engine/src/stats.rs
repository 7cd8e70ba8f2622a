//! Statistics of stores and databases: plain numbers, read without stopping anybody.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use nephrite_format::IdKind;
use nephrite_io::IoStats;

use crate::{
    core::{Core, DatabaseCore},
    wal::LOG_BUFFERS_BYTES,
};

/// What a store holds and has done since it was opened. Sizes in bytes.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "every field is named for what it counts")]
pub struct StoreStats {
    pub databases: u64,
    pub databases_open: u64,
    /// Databases that were closed because nobody used them.
    pub databases_closed: u64,
    pub memory_limit_bytes: u64,
    pub memtable_bytes: u64,
    /// Memory of the page cache: its half of the limit, and what it used of the memtables' share
    /// and has not given back yet.
    pub cache_bytes: u64,
    /// The part of the cache in which vectors lie without their pages, of which the rest was not
    /// read.
    pub cache_record_bytes: u64,
    pub cache_metadata_bytes: u64,
    /// First ids of id pages, kept in memory for every open database.
    pub fence_bytes: u64,
    /// Filters of ids, kept in memory as far as they have room, one of what flushes saw for each
    /// database, and a bit for each row of segments with garbage, which says whether it is.
    pub filter_bytes: u64,
    /// Where rows of ids that were looked up lately are remembered; the system gives this memory
    /// as it is used.
    pub row_table_bytes: u64,
    /// What running flushes and compactions hold.
    pub work_bytes: u64,
    /// Names, versions and locks of the databases, open and closed, about.
    pub database_bytes: u64,
    /// Buffers of the log.
    pub log_buffer_bytes: u64,
    pub cache_hits: u64,
    /// Those of the hits that found a vector without its page.
    pub cache_record_hits: u64,
    pub cache_misses: u64,
    pub cache_evictions: u64,
    pub cache_loads_failed: u64,
    /// Pages read past the cache, as everything in it was pinned.
    pub cache_bypasses: u64,
    pub pages_pinned: u64,
    pub files_open: u64,
    pub files_opened: u64,
    pub files_evicted: u64,
    /// Files under construction that were synced and closed to keep the limit.
    pub files_parked: u64,
    pub flushes: u64,
    /// Rows that flushes made part of a segment: without those that were overwritten before.
    pub rows_flushed: u64,
    /// Time spent in rounds of flushes, and in the longest of them.
    pub flush_micros: u64,
    pub flush_micros_max: u64,
    pub compactions: u64,
    pub compactions_failed: u64,
    /// Bytes of the inputs and outputs of compactions.
    pub compaction_bytes_read: u64,
    pub compaction_bytes_written: u64,
    /// What compactions of the open databases would give back, about.
    pub garbage_bytes: u64,
    /// Snapshots (scans included) that exist, and the age of the oldest. They keep the files and
    /// memory of their moment; they stop no writer.
    pub snapshots: u64,
    pub snapshot_age_max_micros: u64,
    pub write_stalls: u64,
    /// Flushes that waited for compactions to catch up.
    pub flush_stalls: u64,
    /// Pieces of flushes and compactions that waited because readers needed the disk.
    pub writes_paced: u64,
    /// Calls that wait for the flush task; flushes of the same thing count once.
    pub jobs_waiting: u64,
    pub wal_frames: u64,
    pub wal_records: u64,
    pub wal_syncs: u64,
    pub wal_bytes_written: u64,
    pub wal_segments_full: u64,
    pub wal_segments_created: u64,
    pub wal_segments_recycled: u64,
    pub io: IoStats,
}

impl StoreStats {
    /// Memory that the store holds at present, in bytes: all that
    /// [`Config::memory_limit`](crate::Config::memory_limit) covers, of which each part is a field
    /// of its own. A change and the work beside it may take it above the limit for a moment.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.cache_bytes
            + self.cache_metadata_bytes
            + self.memtable_bytes
            + self.fence_bytes
            + self.filter_bytes
            + self.row_table_bytes
            + self.work_bytes
            + self.database_bytes
            + self.log_buffer_bytes
    }

    pub(crate) fn of(core: &Core) -> Self {
        // Relaxed: counters that are read one by one, for people.
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let pager = core.read.pager.stats();
        let wal = &core.wal.counters;
        Self {
            databases: core.catalog().len() as u64,
            databases_open: core.open_count() as u64,
            databases_closed: get(&core.counters.databases_closed),
            memory_limit_bytes: core.config.memory_limit,
            memtable_bytes: core.memory.bytes() + core.memory.pooled_bytes(),
            cache_bytes: pager.bytes_arena as u64,
            cache_record_bytes: pager.bytes_slots as u64,
            cache_metadata_bytes: (pager.bytes_tables + pager.bytes_metadata) as u64,
            fence_bytes: core.read.metadata.fence_bytes(),
            filter_bytes: core.read.metadata.filter_bytes(),
            row_table_bytes: core.read.metadata.rows_bytes(),
            work_bytes: core.read.work.bytes(),
            database_bytes: get(&core.databases_bytes),
            log_buffer_bytes: LOG_BUFFERS_BYTES,
            cache_hits: pager.hits,
            cache_record_hits: pager.slot_hits,
            cache_misses: pager.misses,
            cache_evictions: pager.evictions,
            cache_loads_failed: pager.loads_failed,
            cache_bypasses: pager.bypasses,
            pages_pinned: pager.frames_pinned,
            files_open: core.read.files.open_count(),
            files_opened: get(&core.read.files.opens),
            files_evicted: get(&core.read.files.evictions),
            files_parked: get(&core.read.files.parked),
            flushes: get(&core.counters.flushes),
            rows_flushed: get(&core.counters.flushed_rows),
            flush_micros: core.counters.flush_time.total_micros(),
            flush_micros_max: core.counters.flush_time.max_micros(),
            compactions: get(&core.compactions.done),
            compactions_failed: get(&core.compactions.failed),
            compaction_bytes_read: get(&core.compactions.bytes_read),
            compaction_bytes_written: get(&core.compactions.bytes_written),
            garbage_bytes: core.garbage_bytes(),
            snapshots: core.snapshots.count(),
            snapshot_age_max_micros: oldest_snapshot_micros(core),
            write_stalls: get(&core.counters.write_stalls),
            flush_stalls: get(&core.counters.flush_stalls),
            writes_paced: get(&core.read.traffic.paced),
            jobs_waiting: core.jobs.len() as u64,
            wal_frames: get(&wal.frames),
            wal_records: get(&wal.records),
            wal_syncs: get(&wal.syncs),
            wal_bytes_written: get(&wal.bytes),
            wal_segments_full: core.wal.closed_segments(),
            wal_segments_created: get(&wal.segments_created),
            wal_segments_recycled: get(&wal.segments_recycled),
            io: core.read.disk.stats(),
        }
    }
}

fn oldest_snapshot_micros(core: &Core) -> u64 {
    let age = core.snapshots.oldest().map(|made| core.runtime.now().saturating_sub(made));
    age.map_or(0, |age| u64::try_from(age.as_micros()).unwrap_or(u64::MAX))
}

/// What a database holds. Sizes in bytes.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "every field is named for what it counts")]
pub struct DatabaseStats {
    pub name: String,
    pub dimension: u32,
    pub id_kind: IdKind,
    pub page_bytes: u32,
    pub rows_per_page: u32,
    /// Ids stored.
    pub records: u64,
    pub segments: u64,
    pub segment_bytes: u64,
    /// Rows in segments, garbage included.
    pub segment_rows: u64,
    /// Rows in segments that no newer write hides.
    pub segment_rows_live: u64,
    pub tombstones: u64,
    /// What a compaction would give back, about.
    pub garbage_bytes: u64,
    pub memtables: u64,
    pub memtable_bytes: u64,
}

impl DatabaseStats {
    pub(crate) fn of(core: &DatabaseCore, records: u64) -> Self {
        let version = core.version.load();
        let sum = |of: fn(&crate::segment::Segment) -> u64| {
            version.segments.iter().map(|segment| of(segment)).sum()
        };
        Self {
            name: core.name.clone(),
            dimension: core.layout.dimension(),
            id_kind: core.id_kind,
            page_bytes: core.layout.page_bytes(),
            rows_per_page: core.layout.rows_per_page(),
            records,
            segments: version.segments.len() as u64,
            segment_bytes: sum(|segment| segment.file_bytes()),
            segment_rows: sum(|segment| u64::from(segment.row_count())),
            segment_rows_live: sum(|segment| u64::from(segment.live_rows())),
            garbage_bytes: crate::compaction::garbage_bytes(&version),
            tombstones: sum(|segment| u64::from(segment.tombstones())),
            memtables: version.memtables().filter(|memtable| !memtable.is_empty()).count() as u64,
            memtable_bytes: version.memtables().map(|memtable| memtable.bytes()).sum(),
        }
    }
}

/// Durations of something, for people.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    micros: AtomicU64,
    micros_max: AtomicU64,
}

impl Latency {
    pub(crate) fn note(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed); // a counter
        self.micros_max.fetch_max(micros, Ordering::Relaxed); // a counter
    }

    pub(crate) fn total_micros(&self) -> u64 {
        self.micros.load(Ordering::Relaxed) // a counter
    }

    pub(crate) fn max_micros(&self) -> u64 {
        self.micros_max.load(Ordering::Relaxed) // a counter
    }
}
