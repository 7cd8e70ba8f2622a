//! `Store`: a directory of databases, opened by one process at a time.
//!
//! How a store comes to be open: `opening`. Closing: [`Store::close`] flushes, syncs, ends the
//! engine's tasks and releases the lock. Dropping the last handle does the same but waits for at
//! most [`DROP_WAIT`].

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use nephrite_format::{
    DatabaseId, IdKind, VectorLayout,
    manifest::{DatabaseMeta, MAX_NAME_BYTES},
};
use nephrite_io::{BackendReport, Disk};

use tracing::{Instrument, info_span};

use crate::{
    config::{Config, DatabaseOptions},
    core::Core,
    database::Database,
    error::Error,
    opening::{Mode, Opening},
    stats::StoreStats,
    verify::{VerifyOptions, VerifyProgress, VerifyReport},
};

/// Longest time that dropping the last handle waits for the final flush.
pub const DROP_WAIT: Duration = Duration::from_secs(10);

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
    ///
    /// # Cancel safety
    /// A dropped call is brought to its end and the store closed again in the background; until
    /// then its directory is locked.
    pub async fn create(path: impl AsRef<Path>, config: Config) -> Result<Self, Error> {
        Self::run(Opening::prepare(path.as_ref(), config)?, Mode::Create).await
    }

    /// Opens the store in `path` and recovers it if it was not closed.
    ///
    /// # Errors
    /// `NotAStore`, `Locked`, `VersionUnsupported`, `InvalidConfig`, `Io`; `Corrupt` naming the
    /// file when manifest or log are damaged. Damage in the segments of a database does not keep
    /// the store from opening: it is reported by what reads the damaged page.
    ///
    /// # Cancel safety
    /// A dropped call is brought to its end and the store closed again in the background; until
    /// then its directory is locked.
    pub async fn open(path: impl AsRef<Path>, config: Config) -> Result<Self, Error> {
        Self::run(Opening::prepare_existing(path.as_ref(), config)?, Mode::Open).await
    }

    /// Opens the store in `path`, or makes one if there is none.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Self::create`].
    ///
    /// # Cancel safety
    /// A dropped call is brought to its end and the store closed again in the background; until
    /// then its directory is locked.
    pub async fn open_or_create(path: impl AsRef<Path>, config: Config) -> Result<Self, Error> {
        Self::run(Opening::prepare(path.as_ref(), config)?, Mode::OpenOrCreate).await
    }

    async fn run(opening: Opening, mode: Mode) -> Result<Self, Error> {
        Ok(Self { handle: Arc::new(Handle { core: opening.run(mode).await? }) })
    }

    /// Where pages of its databases are read from.
    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.core().read.disk
    }

    fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }

    /// A reference that does not keep the store open.
    #[cfg(feature = "signals")]
    pub(crate) fn downgrade(&self) -> std::sync::Weak<Handle> {
        Arc::downgrade(&self.handle)
    }

    #[cfg(feature = "signals")]
    pub(crate) fn from_handle(handle: Arc<Handle>) -> Self {
        Self { handle }
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

    /// Flushes every database, then merges its segments into one without garbage, one database
    /// after the other. On a disk without room for that it does what it can piece by piece.
    ///
    /// # Errors
    /// The first failure; the other databases are compacted all the same. `Io`, kind `Full`;
    /// `Corrupt`; `Poisoned`, `Closed`.
    ///
    /// # Cancel safety
    /// What was begun goes on.
    pub async fn compact(&self) -> Result<(), Error> {
        self.core().check_open()?;
        let mut outcome = Ok(());
        let entries: Vec<_> = self.core().catalog().values().cloned().collect();
        for entry in entries {
            let compacted = match self.core().database(&entry).await {
                Ok(database) => self.core().ask_compact(&database).await,
                Err(Error::DatabaseNotFound { .. }) => Ok(()),
                Err(error) => Err(error),
            };
            outcome = outcome.and(compacted);
            self.core().check_open()?;
        }
        outcome
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

    /// Hands every figure of [`Self::stats`] to `recorder`, one after the other.
    pub fn record_metrics(&self, recorder: &dyn crate::metric::MetricsRecorder) {
        self.stats().metrics().iter().for_each(|metric| recorder.record(metric));
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
        self.verify_with(VerifyOptions::new(), progress).await
    }

    /// As [`Store::verify`], within a bandwidth. Writes, flushes and compactions go on meanwhile.
    ///
    /// # Errors
    /// As there.
    pub async fn verify_with(
        &self,
        options: VerifyOptions,
        progress: impl FnMut(VerifyProgress) + Send,
    ) -> Result<VerifyReport, Error> {
        self.core().check_open()?;
        self.core().verify(options, progress).await
    }
}

impl Handle {
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn shared_core(&self) -> &Arc<Core> {
        &self.core
    }

    async fn close(&self) -> Result<(), Error> {
        Self::close_core(&self.core).await
    }

    async fn close_core(core: &Core) -> Result<(), Error> {
        core.closing.store(true, Ordering::Release);
        core.memory.freed.notify(usize::MAX);
        let close = info_span!("close", store = %core.paths.root().display());
        let outcome = core.ask_close().instrument(close).await;
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
        let core = Arc::clone(&self.core);
        let timeout = core.runtime.sleep(DROP_WAIT);
        // What was acknowledged as synced is safe whatever happens here; there is nobody left to
        // tell about a failure.
        let close = async move {
            let _ = Self::close_core(&core).await;
        };
        self.core.runtime.finish(Box::pin(crate::together::either(close, timeout)));
        self.core.runtime.settle();
    }
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
