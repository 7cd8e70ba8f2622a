//! Core: what all handles of one open store share, and the state of each open database.
//!
//! Lock order: `catalog` or `open` (never both), a database's write lock, then the log's locks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_lock::Mutex as AsyncMutex;
use event_listener::Event;
use nephrite_format::{
    BLOCK_BYTES, DatabaseId, FileId, IdKind, Lsn, StoreId, VectorLayout, manifest::DatabaseMeta,
};
use nephrite_pager::snapshot::Snapshot;

use crate::{
    compaction::{self, Compactions},
    config::Config,
    error::Error,
    jobs::{JobQueue, Reply},
    loan::Lending,
    manifest::Manifest,
    memtable::{Memtable, MemtableMemory},
    paths::StorePaths,
    reserve::Reserve,
    runtime::{BoxFuture, Runtime},
    segment::{
        Garbage, LiveRows, ReadContext, SeenIds, Segment, seal::Identity, sink::SegmentSink,
    },
    snapshot::Snapshots,
    stats::Latency,
    together::all,
    trace::Tracing,
    version::Version,
    wal::{Seat, Visibility, Wal},
};

/// Open databases that one search for cold ones looks at.
const CLOSE_STEPS: usize = 64;

/// An open store.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) paths: StorePaths,
    pub(crate) store: StoreId,
    pub(crate) read: ReadContext,
    pub(crate) wal: Arc<Wal>,
    /// Of the log's committer.
    pub(crate) seat: Arc<Seat>,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) next_file: Arc<AtomicU64>,
    pub(crate) next_database: AtomicU64,
    pub(crate) hash_seed: u64,
    /// Every database by name, open or not.
    catalog: RwLock<BTreeMap<String, Arc<Entry>>>,
    /// Open databases, in an order that does not depend on hashing.
    open: RwLock<BTreeMap<DatabaseId, Arc<DatabaseCore>>>,
    /// Databases that may be open while nobody uses them.
    databases_open_max: usize,
    /// What databases take by being there and by being open, as of the last that was opened.
    pub(crate) databases_bytes: AtomicU64,
    /// Where the search for cold databases goes on.
    closing_hand: AtomicU32,
    pub(crate) memory: MemtableMemory,
    /// What the cache has of the memtables' share.
    pub(crate) lending: Lending,
    pub(crate) jobs: JobQueue,
    /// Wakes the flush task: memtables or log have grown, or a database was frozen.
    pub(crate) flush_wanted: Arc<Event>,
    /// Wakes the compaction task.
    pub(crate) compaction_wanted: Event,
    pub(crate) garbage: Arc<Garbage>,
    pub(crate) compactions: Compactions,
    pub(crate) reserve: Reserve,
    pub(crate) snapshots: Snapshots,
    /// Held while the segments of databases change, from the manifest to the version: so who holds
    /// it sees both alike.
    pub(crate) swaps: AsyncMutex<()>,
    /// Held by a round of flushes from its look at the segments to the end of its swap, and by a
    /// compaction that looks at memtables. Taken before `swaps`.
    pub(crate) flushing: AsyncMutex<()>,
    pub(crate) counters: Counters,
    pub(crate) closing: AtomicBool,
    /// The outcome of the close, for everyone who asks for it.
    pub(crate) closed: Reply<()>,
    pub(crate) compaction_ended: Reply<()>,
    /// Resolve when the engine's tasks have ended; joined one after the other by who closes.
    pub(crate) tasks: AsyncMutex<Vec<BoxFuture<()>>>,
    /// Held as long as the store is open.
    pub(crate) lock: Mutex<Option<nephrite_io::FileLock>>,
    /// The recording of reads, when it was asked for.
    pub(crate) tracing: Option<Arc<Tracing>>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("store", &self.store).finish_non_exhaustive()
    }
}

/// What the engine has done; plain counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) flushes: AtomicU64,
    pub(crate) flushed_rows: AtomicU64,
    pub(crate) write_stalls: AtomicU64,
    pub(crate) flush_stalls: AtomicU64,
    pub(crate) databases_closed: AtomicU64,
    pub(crate) flush_time: Latency,
}

/// Bytes of a database that is closed, and of one that is open, without what other figures count
/// (measured: `tests/tests/idle_memory.rs` prints both).
const DATABASE_BYTES: u64 = 800;
const OPEN_DATABASE_BYTES: u64 = 11 << 10;

/// In how many steps the file of a full memtable is made longer ahead of its rows.
const FILE_STEPS: u64 = 2;

fn databases_bytes(known: usize, open: usize) -> u64 {
    known as u64 * DATABASE_BYTES + open as u64 * OPEN_DATABASE_BYTES
}

/// A database in the catalog.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) meta: DatabaseMeta,
    /// Held by who opens it.
    opening: AsyncMutex<()>,
    /// Set by a drop before it lets go of the open database.
    pub(crate) dropped: AtomicBool,
    /// Why recovery could not apply its log records: it cannot be opened in this life of the store.
    pub(crate) damage: OnceLock<Error>,
}

impl Entry {
    pub(crate) fn new(meta: DatabaseMeta) -> Arc<Self> {
        Arc::new(Self {
            meta,
            opening: AsyncMutex::new(()),
            dropped: AtomicBool::new(false),
            damage: OnceLock::new(),
        })
    }
}

/// What only the holder of a database's write lock may touch.
#[derive(Debug, Default)]
pub(crate) struct WriteSide {
    /// The database was dropped: nothing more is written.
    pub(crate) dropped: bool,
    /// Order of the next segment (its age).
    pub(crate) next_order: u64,
    /// Files of failed flushes that log records may name until the next flush succeeds.
    pub(crate) abandoned: Vec<FileId>,
    /// Of segments that were replaced since the last flush began.
    pub(crate) replaced: Vec<Weak<LiveRows>>,
}

/// Since when a database has something to flush; a hint for the flush task.
#[derive(Debug, Default)]
pub(crate) struct DirtySince(AtomicU64);

impl DirtySince {
    pub(crate) fn set(&self, now: Duration) {
        let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        self.0.store(micros, Ordering::Relaxed); // a hint
    }

    pub(crate) fn get(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed)) // a hint
    }
}

/// An open database.
#[derive(Debug)]
pub(crate) struct DatabaseCore {
    pub(crate) id: DatabaseId,
    pub(crate) name: String,
    pub(crate) layout: VectorLayout,
    pub(crate) id_kind: IdKind,
    pub(crate) visibility: Arc<Visibility>,
    pub(crate) version: Snapshot<Version>,
    write: Mutex<WriteSide>,
    pub(crate) dropped: AtomicBool,
    pub(crate) dirty_since: DirtySince,
    /// What flushes wrote; only they touch it.
    pub(crate) seen: Mutex<SeenIds>,
    /// Asked for since the search for cold databases last passed.
    used: AtomicBool,
}

impl DatabaseCore {
    pub(crate) fn lock(&self) -> MutexGuard<'_, WriteSide> {
        self.write.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails when the database was dropped.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.dropped.load(Ordering::Acquire) { Err(self.dropped_error()) } else { Ok(()) }
    }

    #[cold]
    fn dropped_error(&self) -> Error {
        Error::DatabaseNotFound { name: self.name.clone() }
    }

    /// Replaces the version. The caller holds the write lock.
    pub(crate) fn publish(&self, _lock: &mut WriteSide, version: Version) {
        self.version.store(Arc::new(version));
    }
}

impl Core {
    pub(crate) fn catalog(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Arc<Entry>>> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn catalog_mut(
        &self,
    ) -> std::sync::RwLockWriteGuard<'_, BTreeMap<String, Arc<Entry>>> {
        self.catalog.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Databases that are open now.
    pub(crate) fn open_databases(&self) -> Vec<Arc<DatabaseCore>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Bytes that compactions of the open databases would give back, about.
    pub(crate) fn garbage_bytes(&self) -> u64 {
        let databases = self.open_databases();
        databases.iter().map(|it| compaction::garbage_bytes(&it.version.load())).sum()
    }

    pub(crate) fn open_count(&self) -> usize {
        self.open.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn forget_open(&self, database: DatabaseId) -> Option<Arc<DatabaseCore>> {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&database)
    }

    pub(crate) fn allocate_file(&self) -> FileId {
        FileId::new(self.next_file.fetch_add(1, Ordering::Relaxed)) // only uniqueness matters
    }

    /// Fails when the store was closed.
    #[inline]
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.closing.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Tells those who write in the background how urgent it is.
    pub(crate) fn note_fill(&self) {
        self.read.traffic.note_room(self.memtable_room());
    }

    pub(crate) fn identity(&self, database: &DatabaseCore, file: FileId) -> Identity {
        Identity {
            store: self.store,
            file,
            database: database.id,
            layout: database.layout,
            id_kind: database.id_kind,
        }
    }

    pub(crate) fn new_sink(&self) -> Arc<SegmentSink> {
        let in_flight_max = self.config.in_flight_limit();
        let step = (self.config.memtable_limit() / FILE_STEPS).next_multiple_of(BLOCK_BYTES as u64);
        Arc::new(SegmentSink::new(self.allocate_file(), &self.read, in_flight_max, step))
    }

    /// An empty memtable.
    pub(crate) fn new_memtable(&self, layout: VectorLayout, kind: IdKind) -> Arc<Memtable> {
        let pool = Arc::clone(&self.memory.pool);
        Arc::new(Memtable::new(layout, kind, self.new_sink(), pool, self.hash_seed))
    }

    /// The open database of an entry; opens it (headers, footers and fences of its segments are
    /// read) on first use and when it was closed for being cold. Cancel safe: the next caller
    /// starts over.
    pub(crate) async fn database(&self, entry: &Arc<Entry>) -> Result<Arc<DatabaseCore>, Error> {
        if let Some(error) = entry.damage.get() {
            return Err(error.clone());
        }
        if let Some(open) = self.find_open(entry.meta.database) {
            open.check()?;
            return Ok(open);
        }
        let alone = entry.opening.lock().await;
        let database = match self.find_open(entry.meta.database) {
            Some(open) => open,
            None => self.open_database(entry).await?,
        };
        drop(alone);
        self.close_cold_databases();
        self.take_loan_back();
        database.check()?;
        Ok(database)
    }

    /// The database, if it is open.
    fn find_open(&self, database: DatabaseId) -> Option<Arc<DatabaseCore>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let found = Arc::clone(open.get(&database)?);
        found.used.store(true, Ordering::Relaxed); // a hint
        Some(found)
    }

    /// Closes databases that nobody uses while too many are open: those not asked for since the
    /// hand last passed, without handles, snapshots or jobs, and with everything in segments.
    pub(crate) fn close_cold_databases(&self) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let mut hand = self.closing_hand.load(Ordering::Relaxed); // guarded by `open`
        let mut closed = Vec::new();
        for _ in 0..CLOSE_STEPS {
            if open.len() <= self.databases_open_max {
                break;
            }
            let from = DatabaseId::new(hand);
            let next = open.range(from..).next().or_else(|| open.iter().next());
            let Some((id, database)) = next.map(|(id, database)| (*id, database)) else { break };
            hand = id.get().wrapping_add(1);
            // The table's is the only reference, and others are only made under its lock.
            let idle = Arc::strong_count(database) == 1 && !database.version.load().is_dirty();
            if idle && !database.used.swap(false, Ordering::Relaxed) {
                closed.extend(open.remove(&id));
            }
        }
        self.closing_hand.store(hand, Ordering::Relaxed);
        let open_count = open.len();
        drop(open);
        let bytes = databases_bytes(self.catalog().len(), open_count);
        self.databases_bytes.store(bytes, Ordering::Relaxed); // a gauge
        let count = closed.len() as u64;
        self.counters.databases_closed.fetch_add(count, Ordering::Relaxed); // a counter
        self.note_closed(&closed);
        drop(closed); // frees pages of the cache: not under the lock
    }

    async fn open_database(&self, entry: &Entry) -> Result<Arc<DatabaseCore>, Error> {
        let meta = &entry.meta;
        let record = self.manifest.read(|state| state.databases.get(&meta.database).cloned()).await;
        let Some(record) = record else {
            return Err(Error::DatabaseNotFound { name: meta.name.clone() });
        };
        // All at once: a cold database waits for the disk a few times, not a few times per segment.
        let (layout, kind) = (meta.layout, meta.id_kind);
        let opening =
            record.segments.iter().rev().map(|segment| {
                Segment::open(&self.read, meta.database, layout, kind, segment.clone())
            });
        let opened: Result<Vec<_>, Error> = all(opening).await.into_iter().collect();
        let segments: Vec<_> = opened?.into_iter().map(Arc::new).collect();
        let newest = record.segments.last();
        let next_order = newest.map_or(Some(0), |newest| newest.order.checked_add(1));
        let next_order = next_order.ok_or_else(|| {
            let name = crate::paths::segment_name(newest.map_or(FileId::new(0), |it| it.file));
            Error::corrupt(name, 0, "its age in the manifest is the largest there can be")
        })?;
        let active = self.new_memtable(meta.layout, meta.id_kind);
        let version = Version::new(active, segments, record.live_records);
        let database = Arc::new(DatabaseCore {
            id: meta.database,
            name: meta.name.clone(),
            layout: meta.layout,
            id_kind: meta.id_kind,
            visibility: Arc::new(Visibility::new(record.flushed_lsn)),
            version: Snapshot::new(Arc::new(version)),
            write: Mutex::new(WriteSide { next_order, ..WriteSide::default() }),
            dropped: AtomicBool::new(false),
            dirty_since: DirtySince::default(),
            seen: Mutex::new(SeenIds::new(&self.read.metadata)),
            used: AtomicBool::new(true),
        });
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        // A drop sets the flag before it looks here.
        if entry.dropped.load(Ordering::Acquire) {
            return Err(Error::DatabaseNotFound { name: meta.name.clone() });
        }
        open.insert(meta.database, Arc::clone(&database));
        Ok(database)
    }

    /// The parts of a core that start empty.
    #[expect(clippy::too_many_arguments, reason = "called once, by open")]
    pub(crate) fn assemble(
        config: Config,
        runtime: Arc<dyn Runtime>,
        paths: StorePaths,
        store: StoreId,
        read: ReadContext,
        wal: Arc<Wal>,
        seat: Arc<Seat>,
        manifest: Arc<Manifest>,
        next_file: Arc<AtomicU64>,
        next_database: u64,
        catalog: BTreeMap<String, Arc<Entry>>,
        flush_wanted: Arc<Event>,
        lock: nephrite_io::FileLock,
        tracing: Option<Arc<Tracing>>,
    ) -> Self {
        let hash_seed = runtime.random_u64();
        let databases_open_max = config.databases_open_max();
        let reserve = Reserve::new(Arc::clone(&read.disk), paths.clone(), &config);
        let memory = MemtableMemory::new(&config, read.traffic.memtable_bytes());
        Self {
            config,
            runtime,
            paths,
            store,
            read,
            wal,
            seat,
            manifest,
            next_file,
            next_database: AtomicU64::new(next_database),
            hash_seed,
            databases_bytes: AtomicU64::new(databases_bytes(catalog.len(), 0)),
            catalog: RwLock::new(catalog),
            open: RwLock::default(),
            databases_open_max,
            closing_hand: AtomicU32::new(0),
            memory,
            lending: Lending::default(),
            jobs: JobQueue::default(),
            flush_wanted,
            compaction_wanted: Event::new(),
            garbage: Arc::default(),
            compactions: Compactions::default(),
            reserve,
            snapshots: Snapshots::default(),
            swaps: AsyncMutex::new(()),
            flushing: AsyncMutex::new(()),
            counters: Counters::default(),
            closing: AtomicBool::new(false),
            closed: Reply::default(),
            compaction_ended: Reply::default(),
            tasks: AsyncMutex::default(),
            lock: Mutex::new(Some(lock)),
            tracing,
        }
    }
}

/// The last number before `lsn`.
pub(crate) fn before(lsn: Lsn) -> Lsn {
    Lsn::new(lsn.get().saturating_sub(1))
}
