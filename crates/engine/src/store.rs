//! `Store`: a directory of databases, opened by one process at a time.
//!
//! Opening: lock, manifest, log, orphans, tasks. A store that was closed is open after reading its
//! manifest; one that was killed replays its log first (`recovery`).
//! Closing: [`Store::close`] flushes, syncs, ends the engine's tasks and releases the lock.
//! Dropping the last handle does the same but waits for at most [`DROP_WAIT`].

use std::{
    collections::BTreeMap,
    future::Future,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use event_listener::Event;
use nephrite_format::{
    DatabaseId, FileId, IdKind, Lsn, StoreId, VectorLayout,
    manifest::{DatabaseMeta, MAX_NAME_BYTES},
};
use nephrite_io::{
    BackendReport, Disk, DiskOptions, FileLock, IoErrorKind, PROBE_PREFIX, open_disk,
};
use nephrite_pager::{Pager, PagerConfig};

use crate::{
    config::{Config, DatabaseOptions},
    core::{Core, Entry},
    database::Database,
    error::Error,
    files::OpenFiles,
    manifest::{self, Manifest, ManifestState},
    paths::{StorePaths, is_temporary, parse_manifest, parse_segment, parse_wal},
    recovery::{self, RecoveredLog},
    runtime::{OsRuntime, Runtime},
    segment::ReadContext,
    stats::StoreStats,
    verify::{VerifyProgress, VerifyReport},
    wal::{Wal, WalContext, WalStart, create_wal_file},
};

/// Longest time that dropping the last handle waits for the final flush.
pub const DROP_WAIT: Duration = Duration::from_secs(10);

/// Vectors that one call keeps pinned at the most, in a cache large enough for them.
const PINNED_MAX: usize = 256;
/// Bytes of cache for each of them: an eighth of the cache if each pins a page of 4 KiB.
const PINNED_SHARE_BYTES: usize = 32 << 10;

/// An open store; cheap to clone. Databases keep it open.
#[derive(Clone, Debug)]
pub struct Store {
    handle: Arc<Handle>,
}

/// Shared by all handles of a store; the last one to go closes it.
#[derive(Debug)]
pub(crate) struct Handle {
    core: Arc<Core>,
}

/// What `list` tells of a database.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DatabaseInfo {
    /// Its name.
    pub name: String,
    /// Elements per vector.
    pub dimension: u32,
    /// Kind of its ids.
    pub id_kind: IdKind,
    /// Type of the elements.
    pub element_type: nephrite_format::ElementType,
    /// Layout of its vectors in pages.
    pub layout: VectorLayout,
}

impl Store {
    /// Makes a new store in `path`, which is created if it does not exist.
    ///
    /// # Errors
    /// `StoreExists` when there is one (it is left as it is), `Locked`, `InvalidConfig`, `Io`.
    pub async fn create(path: impl AsRef<Path>, config: Config) -> Result<Self, Error> {
        let opening = Opening::prepare(path.as_ref(), config)?;
        opening.create_directories().await?;
        let lock = opening.lock().await?;
        if !opening.list().await?.manifests.is_empty() {
            return Err(Error::StoreExists { path: path.as_ref().to_owned() });
        }
        opening.create(lock).await
    }

    /// Opens the store in `path` and recovers it if it was not closed.
    ///
    /// # Errors
    /// `NotAStore`, `Locked`, `VersionUnsupported`, `InvalidConfig`, `Io`; `Corrupt` naming the
    /// file when manifest or log are damaged. Damage in the segments of a database does not keep
    /// the store from opening: it is reported by what reads the damaged page.
    pub async fn open(path: impl AsRef<Path>, config: Config) -> Result<Self, Error> {
        let opening = Opening::prepare_existing(path.as_ref(), config)?;
        let found = opening.list().await?;
        if found.manifests.is_empty() {
            return Err(Error::NotAStore {
                path: path.as_ref().to_owned(),
                reason: "it has no manifest; `create` makes a store".to_owned(),
            });
        }
        let lock = opening.lock().await?;
        // Listed again: the process that held the lock may have changed everything.
        let found = opening.list().await?;
        opening.open(lock, found).await
    }

    /// Opens the store in `path`, or makes one if there is none.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Self::create`].
    pub async fn open_or_create(path: impl AsRef<Path>, config: Config) -> Result<Self, Error> {
        let opening = Opening::prepare(path.as_ref(), config)?;
        opening.create_directories().await?;
        let lock = opening.lock().await?;
        let found = opening.list().await?;
        if found.manifests.is_empty() {
            opening.create(lock).await
        } else {
            opening.open(lock, found).await
        }
    }

    fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }

    /// Makes a database; it is durable when this returns.
    ///
    /// # Errors
    /// `DatabaseExists` (it is left as it is), `InvalidName`, `InvalidConfig`, `Io`, `Closed`.
    ///
    /// # Cancel safety
    /// A dropped call may still make the database.
    pub async fn create_database(
        &self,
        name: &str,
        options: DatabaseOptions,
    ) -> Result<Database, Error> {
        self.core().check_open()?;
        validate_name(name)?;
        let layout = options.layout()?;
        let database = DatabaseId::new(0); // given by the task that makes it
        let meta =
            DatabaseMeta { database, name: name.to_owned(), id_kind: options.kind(), layout };
        let entry = self.core().ask_create(meta).await?;
        let core = self.core().database(&entry).await?;
        Ok(Database::new(Arc::clone(&self.handle), core))
    }

    /// A database by name; its files are opened on first use.
    ///
    /// # Errors
    /// `DatabaseNotFound`; `Corrupt` when its segments cannot be opened, which leaves the other
    /// databases as they are; `Io`, `Closed`.
    pub async fn database(&self, name: &str) -> Result<Database, Error> {
        self.core().check_open()?;
        let entry = self.core().catalog().get(name).cloned();
        let entry = entry.ok_or_else(|| Error::DatabaseNotFound { name: name.to_owned() })?;
        let core = self.core().database(&entry).await?;
        Ok(Database::new(Arc::clone(&self.handle), core))
    }

    /// Removes a database and everything in it. Snapshots of it stay readable until dropped.
    ///
    /// # Errors
    /// `DatabaseNotFound`, `Io`, `Closed`.
    ///
    /// # Cancel safety
    /// A dropped call may still drop the database.
    pub async fn drop_database(&self, name: &str) -> Result<(), Error> {
        self.core().check_open()?;
        self.core().ask_drop(name.to_owned()).await
    }

    /// All databases, by name.
    #[must_use]
    pub fn list(&self) -> Vec<DatabaseInfo> {
        let catalog = self.core().catalog();
        catalog.values().map(|entry| info(&entry.meta)).collect()
    }

    /// Makes everything written so far durable, in segments.
    ///
    /// # Errors
    /// The first failure; the other databases are flushed all the same. `Poisoned`, `Closed`.
    ///
    /// # Cancel safety
    /// The flush goes on.
    pub async fn flush(&self) -> Result<(), Error> {
        self.core().check_open()?;
        self.core().ask_flush_all().await
    }

    /// Flushes, ends the engine's tasks and releases the directory. All handles of the store
    /// answer `Closed` from now on. Closing twice is fine.
    ///
    /// # Errors
    /// The first failure. Even then everything acknowledged as `Synced` is safe in the log.
    ///
    /// # Cancel safety
    /// The close goes on.
    pub async fn close(&self) -> Result<(), Error> {
        self.handle.close().await
    }

    /// What the store holds and has done.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        StoreStats::of(self.core())
    }

    /// Which I/O path is in use, and why.
    #[must_use]
    pub fn backend_report(&self) -> BackendReport {
        self.core().read.disk.report()
    }

    /// Reads every page of every segment and the manifest, and checks them.
    ///
    /// # Errors
    /// `Io` for what cannot be read at all; damage is in the report.
    pub async fn verify(
        &self,
        progress: impl FnMut(VerifyProgress) + Send,
    ) -> Result<VerifyReport, Error> {
        self.core().check_open()?;
        self.core().verify(progress).await
    }
}

impl Handle {
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    async fn close(&self) -> Result<(), Error> {
        let core = &self.core;
        core.closing.store(true, Ordering::Release);
        core.memory.freed.notify(usize::MAX);
        let outcome = core.ask_close().await;
        core.join().await;
        core.runtime.settle();
        outcome
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.core.closing.load(Ordering::Acquire) {
            return;
        }
        let timeout = self.core.runtime.sleep(DROP_WAIT);
        // What was acknowledged as synced is safe whatever happens here; there is nobody left to
        // tell about a failure.
        pollster::block_on(crate::service::either(
            async {
                let _ = self.close().await;
            },
            timeout,
        ));
        self.core.runtime.settle();
    }
}

/// A store on its way to being open.
struct Opening {
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
    fn prepare(path: &Path, config: Config) -> Result<Self, Error> {
        config.validate()?;
        if config.disk.is_none() {
            // The probe of the I/O backend needs the directory.
            std::fs::create_dir_all(path).map_err(|source| {
                nephrite_io::IoError::new(nephrite_io::IoOperation::CreateDirectory, path, source)
            })?;
        }
        Self::with_disk(path, config)
    }

    fn prepare_existing(path: &Path, config: Config) -> Result<Self, Error> {
        config.validate()?;
        if config.disk.is_none() && !path.is_dir() {
            let reason = if path.exists() { "it is not a directory" } else { "it does not exist" };
            return Err(Error::NotAStore { path: path.to_owned(), reason: reason.to_owned() });
        }
        Self::with_disk(path, config)
    }

    fn with_disk(path: &Path, config: Config) -> Result<Self, Error> {
        let disk = match &config.disk {
            Some(disk) => Arc::clone(disk),
            None => open_disk(DiskOptions::new().backend(config.backend), path)?,
        };
        let runtime = match &config.runtime {
            Some(runtime) => Arc::clone(runtime),
            None => Arc::new(OsRuntime::default()),
        };
        Ok(Self { config, runtime, disk, paths: StorePaths::new(path) })
    }

    async fn create_directories(&self) -> Result<(), Error> {
        self.disk.create_dir(self.paths.root()).await?;
        self.disk.create_dir(self.paths.wal_dir()).await?;
        self.disk.create_dir(self.paths.segments_dir()).await?;
        self.disk.sync_dir(self.paths.root()).await?;
        if let Some(parent) = self.paths.root().parent().filter(|path| !path.as_os_str().is_empty())
        {
            self.disk.sync_dir(parent).await?;
        }
        Ok(())
    }

    async fn lock(&self) -> Result<FileLock, Error> {
        self.disk.lock(&self.paths.lock()).await.map_err(|error| match error.kind() {
            IoErrorKind::Locked => Error::Locked { path: self.paths.root().to_owned() },
            _ => error.into(),
        })
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

    async fn create(self, lock: FileLock) -> Result<Store, Error> {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.runtime.random_u64().to_le_bytes());
        id[8..].copy_from_slice(&self.runtime.random_u64().to_le_bytes());
        let store = StoreId::new(id);
        self.remove_earlier_attempt().await?;
        let next_file = Arc::new(AtomicU64::new(1));
        let context = self.wal_context(store, &next_file);
        let spare = create_wal_file(&context).await?;
        // The manifest comes last: a directory without one is not a store yet.
        let (disk, paths) = (Arc::clone(&self.disk), self.paths.clone());
        let state = ManifestState::default();
        let manifest = Manifest::create(disk, paths, store, Arc::clone(&next_file), state).await?;
        let log = RecoveredLog::fresh(vec![spare]);
        self.start(lock, store, manifest, next_file, context, log, BTreeMap::new(), 1).await
    }

    /// A crash while a store was made leaves a log file that was never used. Anything else is of
    /// a store that has lost its manifest, and stays.
    async fn remove_earlier_attempt(&self) -> Result<(), Error> {
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
        Ok(())
    }

    async fn open(self, lock: FileLock, found: Listing) -> Result<Store, Error> {
        let Some(newest) = found.manifests.last().copied() else {
            let reason = "it has no manifest; `create` makes a store".to_owned();
            return Err(Error::NotAStore { path: self.paths.root().to_owned(), reason });
        };
        self.create_directories().await?;
        let loaded = manifest::load(&self.disk, &self.paths, newest).await?;
        let store = loaded.store;
        let highest = self.highest_file(&loaded.state, newest).await?;
        let next_file = Arc::new(AtomicU64::new(highest.saturating_add(1)));
        let source = recovery::Source {
            disk: &self.disk,
            paths: &self.paths,
            store,
            manifest: &loaded.state,
        };
        let log = recovery::scan_log(source).await?;
        let catalog = loaded
            .state
            .databases
            .values()
            .map(|record| (record.meta.name.clone(), Entry::new(record.meta.clone())));
        let catalog: BTreeMap<_, _> = catalog.collect();
        let next_database = next_database(&loaded.state);
        for old in &found.manifests[..found.manifests.len() - 1] {
            self.disk.remove_file(&self.paths.manifest(*old)).await?;
        }
        for name in &found.temporaries {
            self.disk.remove_file(&self.paths.root().join(name)).await?;
        }
        let context = self.wal_context(store, &next_file);
        let (disk, paths) = (Arc::clone(&self.disk), self.paths.clone());
        let manifest = Manifest::resume(disk, paths, Arc::clone(&next_file), loaded);
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
            highest = highest.max(parse_segment(&entry.name).map_or(0, FileId::get));
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
    ) -> Result<Store, Error> {
        let cache_bytes = usize::try_from(self.config.cache_bytes()).map_err(|_| {
            let reason = "it is larger than the address space".to_owned();
            Error::InvalidConfig { field: "memory_limit", reason }
        })?;
        let pager = Pager::new(PagerConfig::new(cache_bytes))?;
        let (disk, paths) = (Arc::clone(&self.disk), self.paths.clone());
        let files = OpenFiles::new(Arc::clone(&disk), paths, self.config.max_open_files);
        let pinned_max = (cache_bytes / PINNED_SHARE_BYTES).clamp(1, PINNED_MAX);
        let read = ReadContext { store, disk, files, pager, pinned_max };
        let (recovered, spares) = log.hand_over();
        // Files of another size come from a former configuration.
        let (spares, others): (Vec<_>, Vec<_>) =
            spares.into_iter().partition(|spare| spare.bytes == self.config.wal_segment_bytes);
        for other in others {
            self.disk.remove_file(&self.paths.wal(other.id)).await?;
        }
        let start = WalStart {
            next_lsn: log.next_lsn,
            next_sequence: log.next_sequence,
            next_position: log.next_position,
            recovered,
            spares,
        };
        let flush_wanted = Arc::clone(&context.flush_wanted);
        let manifest = Arc::new(manifest);
        let (wal, committer) = Wal::start(context, Arc::clone(&manifest), start)?;
        let core = Arc::new(Core::assemble(
            self.config,
            Arc::clone(&self.runtime),
            self.paths,
            store,
            read,
            wal,
            manifest,
            next_file,
            next_database,
            catalog,
            flush_wanted,
            lock,
        ));
        core.spawn("nephrite-wal", committer.run()).await?;
        if let Err(error) = core.recover(log).await {
            core.give_up().await;
            return Err(error);
        }
        core.spawn("nephrite-compact", Arc::clone(&core).run_compactions()).await?;
        core.spawn("nephrite-flush", Arc::clone(&core).run_flushes()).await?;
        Ok(Store { handle: Arc::new(Handle { core }) })
    }
}

impl Core {
    async fn spawn(
        &self,
        name: &str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error> {
        match self.runtime.spawn(name, Box::pin(task)) {
            Ok(joined) => {
                self.tasks.lock().await.push(joined);
                Ok(())
            }
            Err(source) => {
                self.give_up().await;
                let operation = nephrite_io::IoOperation::Threads;
                Err(nephrite_io::IoError::new(operation, self.paths.root(), source).into())
            }
        }
    }

    /// Waits until the engine's tasks have ended. Cancel safe: the next caller goes on.
    async fn join(&self) {
        let mut tasks = self.tasks.lock().await;
        while let Some(task) = tasks.last_mut() {
            task.await;
            tasks.pop();
        }
    }

    /// Ends the tasks of a store that could not be opened. Its directory stays as it is; the error
    /// that kept it from opening is what the caller needs to know.
    async fn give_up(&self) {
        self.closing.store(true, Ordering::Release);
        self.wal.close();
        self.compaction_wanted.notify(usize::MAX);
        self.join().await;
        self.runtime.settle();
        let _ = self.release().await;
    }

    /// Applies the log and tidies the directory.
    async fn recover(&self, log: RecoveredLog) -> Result<(), Error> {
        if !log.is_empty() {
            // Number 0 is no record's: as long as it is kept, no flush releases log that is still
            // to be replayed.
            self.wal.keep_from(Lsn::new(0));
            let replayed = self.replay(&log).await;
            self.wal.forget(Lsn::new(0));
            replayed?;
            drop(log);
            self.flush_recovered().await?;
            self.commit_log_start().await?;
        }
        self.remove_orphans().await
    }

    /// Flushes what was replayed. A full disk or a damaged database does not keep the store from
    /// being read: the records stay in the log and in memory.
    async fn flush_recovered(&self) -> Result<(), Error> {
        for database in self.open_databases() {
            match self.flush_database(&database).await {
                Err(error) if error.is_disk_full() => return Ok(()),
                Err(error) if recovery::is_damage(&error) => {}
                flushed => flushed?,
            }
        }
        Ok(())
    }

    /// Removes segment files that neither the manifest nor a record in the log needs.
    async fn remove_orphans(&self) -> Result<(), Error> {
        let dirty = self.open_databases().iter().any(|database| database.version.load().is_dirty());
        let damaged = self.catalog().values().any(|entry| entry.damage.get().is_some());
        if dirty || damaged {
            return Ok(()); // the log may name rows in them
        }
        let known: std::collections::HashSet<FileId> = self
            .manifest
            .read(|state| {
                let records = state.databases.values();
                records.flat_map(|record| &record.segments).map(|segment| segment.file).collect()
            })
            .await;
        for entry in self.read.disk.list_dir(self.paths.segments_dir()).await? {
            if let Some(file) = parse_segment(&entry.name).filter(|file| !known.contains(file)) {
                self.read.disk.remove_file(&self.paths.segment(file)).await?;
            }
        }
        Ok(())
    }
}

fn next_database(state: &ManifestState) -> u64 {
    let counted = state.counters.map_or(1, |counters| u64::from(counters.next_database.get()));
    let used = state.databases.keys().last().map_or(0, |id| u64::from(id.get()));
    counted.max(used + 1)
}

fn info(meta: &DatabaseMeta) -> DatabaseInfo {
    DatabaseInfo {
        name: meta.name.clone(),
        dimension: meta.layout.dimension(),
        id_kind: meta.id_kind,
        element_type: meta.layout.element(),
        layout: meta.layout,
    }
}

fn validate_name(name: &str) -> Result<(), Error> {
    let refuse = |reason| Err(Error::InvalidName { name: name.to_owned(), reason });
    if name.is_empty() {
        return refuse("it is empty");
    }
    if MAX_NAME_BYTES < name.len() {
        return refuse("it is longer than 255 bytes");
    }
    if name.chars().any(char::is_control) {
        return refuse("it contains control characters");
    }
    Ok(())
}
