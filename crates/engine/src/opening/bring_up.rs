//! Bringing a store up: from a directory to an open store.
//!
//! Everything from the lock on runs on what becomes the flush task, not on the caller's future: so
//! a caller that is dropped half-way cancels nothing half-way. What was begun is brought to its
//! end, then the store is closed again, and only then is its directory free for others.
//! Tested in `tests/it/lifecycle.rs` and `tests/it/upkeep.rs`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
};

use event_listener::Event;
use nephrite_format::{FileId, StoreId};
use nephrite_io::{
    Disk, DiskOptions, FileLock, IoErrorKind, PROBE_PREFIX, look_at_lock, memory::Arena, open_disk,
};
use nephrite_pager::{Pager, PagerConfig};

use tracing::{Instrument, info_span};

use super::outcome::{Outcome, Waiting};
use crate::{
    config::Config,
    core::{Core, Entry},
    error::Error,
    files::OpenFiles,
    manifest::{self, Manifest, ManifestState},
    paths::{StorePaths, is_temporary, parse_manifest, parse_segment, parse_wal},
    planted::planted,
    recovery::{self, RecoveredLog},
    runtime::{OsRuntime, Runtime, at_once},
    segment::{AheadRoom, MetadataMemory, PIECE_BYTES, ReadContext},
    trace::Tracing,
    wal::{Wal, WalContext, WalStart, create_wal_file},
};

/// Vectors that one call keeps pinned at the most, in a cache large enough for them.
const PINNED_MAX: usize = 256;
/// Bytes of cache for each of them: an eighth of the cache if each pins a page of 4 KiB.
const PINNED_SHARE_BYTES: usize = 32 << 10;
/// Reads past the cache, when no frame can be had, take up to this part of its size on top.
const BYPASS_SHARE: usize = 128;

/// What is to become of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Create,
    Open,
    OpenOrCreate,
}

/// A store on its way to being open.
pub(crate) struct Opening {
    config: Config,
    runtime: Arc<dyn Runtime>,
    disk: Arc<dyn Disk>,
    paths: StorePaths,
}

/// Files in a store directory.
#[derive(Debug, Default)]
struct Listing {
    manifests: Vec<FileId>,
    temporaries: Vec<String>,
}

impl Opening {
    pub(crate) fn prepare(path: &Path, config: Config) -> Result<Self, Error> {
        config.validate()?;
        if config.disk.is_none() {
            // The probe of the I/O backend needs the directory.
            std::fs::create_dir_all(path).map_err(|source| {
                nephrite_io::IoError::new(nephrite_io::IoOperation::CreateDirectory, path, source)
            })?;
        }
        Self::with_disk(path, config)
    }

    pub(crate) fn prepare_existing(path: &Path, config: Config) -> Result<Self, Error> {
        config.validate()?;
        if config.disk.is_none() && !path.is_dir() {
            let reason = if path.exists() { "it is not a directory" } else { "it does not exist" };
            return Err(Error::NotAStore { path: path.to_owned(), reason: reason.to_owned() });
        }
        Self::with_disk(path, config)
    }

    /// What a repair works with instead of opening.
    pub(crate) fn into_parts(self) -> (Arc<dyn Disk>, StorePaths) {
        (self.disk, self.paths)
    }

    fn with_disk(path: &Path, config: Config) -> Result<Self, Error> {
        let paths = StorePaths::new(path);
        let disk = match &config.disk {
            Some(disk) => Arc::clone(disk),
            None => {
                // A store that is open elsewhere must not cost rings, whose memory the system
                // counts for a while after they are gone.
                look_at_lock(&paths.lock()).map_err(|error| Self::not_locked(path, error))?;
                open_disk(DiskOptions::new().backend(config.backend), path)?
            }
        };
        let runtime = match &config.runtime {
            Some(runtime) => Arc::clone(runtime),
            None => Arc::new(OsRuntime::default()),
        };
        Ok(Self { config, runtime, disk, paths })
    }

    /// Opens the store on a task of its own, which goes on as the flush task.
    ///
    /// Cancel safety: dropped early, what was begun is finished and closed in the background.
    pub(crate) async fn run(self, mode: Mode) -> Result<Arc<Core>, Error> {
        let (runtime, root) = (Arc::clone(&self.runtime), self.paths.root().to_owned());
        let outcome = Arc::new(Outcome::default());
        let offer = Arc::clone(&outcome);
        let opened = info_span!("open", store = %root.display());
        let may_block = runtime.threads_may_block();
        let task = async move {
            // One step after the other: nothing to do meanwhile for another thread.
            match at_once(may_block, self.bring_up(mode).instrument(opened)).await {
                Ok(core) => {
                    if !offer.offer(Ok(Arc::clone(&core))) {
                        core.abandon();
                    }
                    core.run_flushes().await;
                }
                Err(error) => drop(offer.offer(Err(error))),
            }
        };
        let joined = runtime.spawn("nephrite-flush", Box::pin(task));
        let joined = joined.map_err(|source| {
            nephrite_io::IoError::new(nephrite_io::IoOperation::Threads, &root, source)
        })?;
        let waiting = Waiting(outcome);
        match waiting.take().await {
            Ok(core) => {
                let mut tasks = core.tasks.try_lock().expect("nobody else has the store yet");
                tasks.push(joined);
                drop(tasks);
                Ok(core)
            }
            Err(error) => {
                joined.await;
                runtime.settle();
                Err(error)
            }
        }
    }

    async fn bring_up(self, mode: Mode) -> Result<Arc<Core>, Error> {
        let not_a_store = |path: &Path| {
            let reason = "it has no manifest; `create` makes a store".to_owned();
            Error::NotAStore { path: path.to_owned(), reason }
        };
        if mode == Mode::Open {
            // Nothing is made in a directory that is no store.
            if self.list().await?.manifests.is_empty() {
                return Err(not_a_store(self.paths.root()));
            }
        } else {
            self.create_directories().await?;
        }
        let lock = self.lock().await?;
        // Listed under the lock: whoever held it before may have changed everything.
        let found = self.list().await?;
        match (found.manifests.is_empty(), mode) {
            (false, Mode::Create) => Err(Error::StoreExists { path: self.paths.root().to_owned() }),
            (true, Mode::Open) => Err(not_a_store(self.paths.root())),
            (true, Mode::Create | Mode::OpenOrCreate) => self.create(lock, &found).await,
            (false, Mode::Open) => {
                self.create_directories().await?;
                self.open(lock, found).await
            }
            (false, Mode::OpenOrCreate) => self.open(lock, found).await,
        }
    }

    /// The store's directories, whose names [`Self::create`] and [`Self::open`] make durable.
    async fn create_directories(&self) -> Result<(), Error> {
        self.disk.create_dir(self.paths.root()).await?;
        self.disk.create_dir(self.paths.wal_dir()).await?;
        Ok(self.disk.create_dir(self.paths.segments_dir()).await?)
    }

    /// Makes the names in the store's directory durable, and its own in the one above.
    async fn sync_own_names(&self) -> Result<(), Error> {
        self.disk.sync_dir(self.paths.root()).await?;
        for above in directories_above(self.paths.root()).take(1) {
            self.disk.sync_dir(&above).await?;
        }
        Ok(())
    }

    /// Makes the names of the directories farther above a new store durable, also of those that are
    /// there already: an earlier attempt that failed or was killed may have made them and not
    /// synced them. One that may not be read was made by somebody else.
    async fn sync_farther_above(&self) -> Result<(), Error> {
        if planted("parents_unsynced") {
            return Ok(());
        }
        for above in directories_above(self.paths.root()).skip(1) {
            match self.disk.sync_dir(&above).await {
                Err(error) if error.kind() != IoErrorKind::PermissionDenied => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn lock(&self) -> Result<FileLock, Error> {
        let taken = self.disk.lock(&self.paths.lock()).await;
        taken.map_err(|error| Self::not_locked(self.paths.root(), error))
    }

    /// Why the store in `path` cannot be locked.
    fn not_locked(path: &Path, error: nephrite_io::IoError) -> Error {
        match error.kind() {
            IoErrorKind::Locked => Error::Locked { path: path.to_owned() },
            _ => error.into(),
        }
    }

    async fn list(&self) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        for entry in self.disk.list_dir(self.paths.root()).await? {
            if let Some(file) = parse_manifest(&entry.name) {
                listing.manifests.push(file);
            } else if is_temporary(&entry.name) || entry.name.starts_with(PROBE_PREFIX) {
                listing.temporaries.push(entry.name);
            }
        }
        listing.manifests.sort_unstable();
        Ok(listing)
    }

    async fn create(self, lock: FileLock, found: &Listing) -> Result<Arc<Core>, Error> {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.runtime.random_u64().to_le_bytes());
        id[8..].copy_from_slice(&self.runtime.random_u64().to_le_bytes());
        let store = StoreId::new(id);
        self.remove_earlier_attempt(found).await?;
        self.sync_own_names().await?;
        self.sync_farther_above().await?;
        let next_file = Arc::new(AtomicU64::new(1));
        let context = self.wal_context(store, &next_file);
        let spare = create_wal_file(&context).await?;
        // The manifest comes last: a directory without one is not a store yet.
        let (disk, paths) = (Arc::clone(&self.disk), self.paths.clone());
        let state = ManifestState::default();
        let manifest = Manifest::create(disk, paths, store, Arc::clone(&next_file), state).await?;
        let log = RecoveredLog::fresh(vec![spare.into()]);
        self.start(lock, store, manifest, next_file, context, log, BTreeMap::new(), 1).await
    }

    /// A crash while a store was made leaves a log file that was never used, and a manifest that
    /// was not finished. Anything else is of a store that has lost its manifest, and stays.
    async fn remove_earlier_attempt(&self, found: &Listing) -> Result<(), Error> {
        let refuse = |name: &str| {
            let reason = format!(
                "it has no manifest, but {name} of a store that had one; put the manifest back or \
                 choose another directory"
            );
            Err(Error::NotAStore { path: self.paths.root().to_owned(), reason })
        };
        for entry in self.disk.list_dir(self.paths.segments_dir()).await? {
            if parse_segment(&entry.name).is_some() {
                return refuse(&entry.name);
            }
        }
        for entry in self.disk.list_dir(self.paths.wal_dir()).await? {
            let Some(file) = parse_wal(&entry.name) else { continue };
            if !recovery::is_unused(&self.disk, &self.paths, file).await? {
                return refuse(&entry.name);
            }
            self.disk.remove_file(&self.paths.wal(file)).await?;
        }
        self.remove_temporaries(found).await
    }

    async fn remove_temporaries(&self, found: &Listing) -> Result<(), Error> {
        for name in &found.temporaries {
            match self.disk.remove_file(&self.paths.root().join(name)).await {
                // A probe file goes by itself once its process has closed it.
                Err(error) if error.kind() == IoErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        Ok(())
    }

    async fn open(self, lock: FileLock, found: Listing) -> Result<Arc<Core>, Error> {
        let (newest, older) = found.manifests.split_last().expect("`bring_up` found one");
        let newest = *newest;
        self.sync_own_names().await?;
        let loaded = manifest::load(&self.disk, &self.paths, newest).await?;
        let store = loaded.store;
        let highest = self.highest_file(&loaded.state, newest).await?;
        let next_file = highest.checked_add(1).ok_or_else(|| {
            let what = "a file id is the largest there can be".to_owned();
            Error::corrupt(crate::paths::manifest_name(newest), 0, what)
        })?;
        let next_file = Arc::new(AtomicU64::new(next_file));
        self.remove_temporaries(&found).await?;
        let state = &loaded.state;
        let source =
            recovery::Source { disk: &self.disk, paths: &self.paths, store, manifest: state };
        let log = recovery::scan_log(source).await?;
        let catalog = state
            .databases
            .values()
            .map(|record| (record.meta.name.clone(), Entry::new(record.meta.clone())));
        let catalog: BTreeMap<_, _> = catalog.collect();
        let next_database = next_database(state);
        let (disk, paths) = (Arc::clone(&self.disk), self.paths.clone());
        let manifest = Manifest::resume(disk, paths, Arc::clone(&next_file), loaded);
        for old in older {
            self.disk.remove_file(&self.paths.manifest(*old)).await?;
        }
        let context = self.wal_context(store, &next_file);
        self.start(lock, store, manifest, next_file, context, log, catalog, next_database).await
    }

    /// The highest file id in use, by the manifest or by a file that a crash left.
    async fn highest_file(&self, state: &ManifestState, manifest: FileId) -> Result<u64, Error> {
        let counted = state.counters.map_or(0, |counters| counters.next_file.get());
        let mut highest = counted.max(manifest.get());
        for entry in self.disk.list_dir(self.paths.wal_dir()).await? {
            highest = highest.max(parse_wal(&entry.name).map_or(0, FileId::get));
        }
        for entry in self.disk.list_dir(self.paths.segments_dir()).await? {
            if !planted("file_number_reused") {
                highest = highest.max(parse_segment(&entry.name).map_or(0, FileId::get));
            }
        }
        Ok(highest)
    }

    fn wal_context(&self, store: StoreId, next_file: &Arc<AtomicU64>) -> WalContext {
        WalContext {
            store,
            disk: Arc::clone(&self.disk),
            runtime: Arc::clone(&self.runtime),
            paths: self.paths.clone(),
            next_file: Arc::clone(next_file),
            segment_bytes: self.config.wal_segment_bytes,
            flush_wanted: Arc::new(Event::new()),
            traffic: Arc::default(),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a store come together here")]
    async fn start(
        self,
        lock: FileLock,
        store: StoreId,
        manifest: Manifest,
        next_file: Arc<AtomicU64>,
        context: WalContext,
        mut log: RecoveredLog,
        catalog: BTreeMap<String, Arc<Entry>>,
        next_database: u64,
    ) -> Result<Arc<Core>, Error> {
        let cache_bytes = usize::try_from(self.config.cache_bytes()).map_err(|_| {
            let reason = "it is larger than the address space".to_owned();
            Error::InvalidConfig { field: "memory_limit", reason }
        })?;
        let tracing = match &self.config.record_trace {
            Some(path) => Some(Arc::new(Tracing::create(&self.disk, path, store).await?)),
            None => None,
        };
        let can_lend = !self.disk.registers_arenas() && Arena::can_give_back();
        let lent = if can_lend { self.config.loan_limit() } else { 0 };
        let with_loan = usize::try_from(lent).ok().and_then(|lent| cache_bytes.checked_add(lent));
        let with_loan = with_loan.unwrap_or(cache_bytes); // no address space for more
        let loan_bytes = with_loan - cache_bytes;
        let mut cache = PagerConfig::within(with_loan)
            .loan_bytes(loan_bytes)
            .bypass_limit_bytes((cache_bytes / BYPASS_SHARE).max(1))
            .retain_parts()
            .policy(self.config.cache_policy);
        if let Some(tracing) = &tracing {
            cache = cache.trace(Arc::clone(&tracing.recorder));
        }
        let pager = Pager::new(cache)?;
        self.disk.register_arena(pager.arena());
        let (disk, paths) = (Arc::clone(&self.disk), self.paths.clone());
        let files = OpenFiles::new(Arc::clone(&disk), paths, self.config.segment_files_max());
        let files = Arc::new(files);
        let pinned_max = (cache_bytes / PINNED_SHARE_BYTES).clamp(1, PINNED_MAX);
        let rows_limit = self.config.row_table_limit();
        let metadata = Arc::new(MetadataMemory::new(self.config.filter_limit(), rows_limit));
        let work = Arc::default();
        let ahead =
            Arc::new(AheadRoom::new(&work, self.config.ahead_limit(), self.config.ahead_piece()));
        let moves = Arc::new(AheadRoom::new(&work, self.config.moves_limit(), PIECE_BYTES));
        let read = ReadContext {
            store,
            disk,
            files,
            pager,
            pinned_max,
            metadata,
            work,
            ahead,
            moves,
            traffic: Arc::clone(&context.traffic),
        };
        let (recovered, spares) = log.hand_over();
        // Files of another size come from a former configuration.
        let (spares, others): (Vec<_>, Vec<_>) =
            spares.into_iter().partition(|spare| spare.bytes == self.config.wal_segment_bytes);
        let start = WalStart {
            next_lsn: log.next_lsn,
            next_sequence: log.next_sequence,
            next_position: log.next_position,
            recovered,
            spares,
        };
        let flush_wanted = Arc::clone(&context.flush_wanted);
        let manifest = Arc::new(manifest);
        let (wal, seat) = Wal::start(context, Arc::clone(&manifest), start)?;
        let core = Arc::new(Core::assemble(
            self.config,
            Arc::clone(&self.runtime),
            self.paths,
            store,
            read,
            wal,
            Arc::clone(&seat),
            manifest,
            next_file,
            next_database,
            catalog,
            flush_wanted,
            lock,
            tracing.clone(),
        ));
        core.spawn_beside("nephrite-wal", seat.run()).await?;
        if let Err(error) = core.recover(log).await {
            core.give_up().await;
            return Err(error);
        }
        core.remove_spares(&others).await;
        core.begin_lending();
        if let Some(tracing) = tracing {
            core.spawn("nephrite-trace", tracing.run(Arc::clone(&core))).await?;
        }
        core.spawn_behind("nephrite-compact", Arc::clone(&core).run_compactions()).await?;
        Ok(core)
    }
}

/// The directories above one, innermost first; above a relative one comes the current directory.
fn directories_above(path: &Path) -> impl Iterator<Item = PathBuf> {
    let named = |above: &Path| {
        let is_here = above.as_os_str().is_empty();
        if is_here { PathBuf::from(".") } else { above.to_owned() }
    };
    path.ancestors().skip(1).map(named)
}

/// A number above that of every database that was ever made.
pub(crate) fn next_database(state: &ManifestState) -> u64 {
    let counted = state.counters.map_or(1, |counters| u64::from(counters.next_database.get()));
    let used = state.databases.keys().last().map_or(0, |id| u64::from(id.get()));
    counted.max(used.saturating_add(1))
}
