//! `Snapshot`: a database as it was at one moment, while writers go on.
//!
//! It holds a version and a log sequence number; memtables keep older entries of an id beside
//! newer ones, segments never change. It costs nothing to make and keeps the memory of the
//! memtables and the files of the segments of its moment until it is dropped.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nephrite_format::{IdRef, Lsn};
use nephrite_io::Disk;

use crate::{
    core::{Core, DatabaseCore},
    error::Error,
    lookup::View,
    planted::planted,
    scan::Scan,
    store::Handle,
    vector::VectorRef,
    version::Version,
    write::validate_id,
};

/// A consistent, read-only view of one database; cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshot(Arc<SnapshotInner>);

#[derive(Debug)]
pub(crate) struct SnapshotInner {
    pub(crate) handle: Arc<Handle>,
    pub(crate) database: Arc<DatabaseCore>,
    pub(crate) version: Arc<Version>,
    pub(crate) at: Lsn,
    /// Counted as long as it lives.
    _counted: CountedSnapshot,
}

/// The snapshots that exist, by the time at which they were made.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    made: Mutex<BTreeSet<(Duration, u64)>>,
    next: AtomicU64,
}

/// One of them.
#[derive(Debug)]
struct CountedSnapshot {
    core: Weak<Core>,
    key: (Duration, u64),
}

impl Snapshots {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<(Duration, u64)>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self) -> u64 {
        self.lock().len() as u64
    }

    /// When the oldest was made.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        self.lock().first().map(|(made, _)| *made)
    }
}

impl CountedSnapshot {
    fn new(core: &Arc<Core>) -> Self {
        let number = core.snapshots.next.fetch_add(1, Ordering::Relaxed); // only uniqueness matters
        let key = (core.runtime.now(), number);
        core.snapshots.lock().insert(key);
        Self { core: Arc::downgrade(core), key }
    }
}

impl Drop for CountedSnapshot {
    fn drop(&mut self) {
        if let Some(core) = self.core.upgrade() {
            core.snapshots.lock().remove(&self.key);
        }
    }
}

impl Snapshot {
    /// Of everything acknowledged so far.
    pub(crate) fn take(handle: &Arc<Handle>, database: &Arc<DatabaseCore>) -> Self {
        // Under the write lock nothing is acknowledged by writers, and segments hold nothing newer
        // than what is acknowledged: version and number belong together.
        let side = database.lock();
        let version = database.version.load();
        let at = database.visibility.visible();
        let at = if planted("snapshot_sees_later") { Lsn::new(u64::MAX) } else { at };
        drop(side);
        let _counted = CountedSnapshot::new(handle.shared_core());
        let (handle, database) = (Arc::clone(handle), Arc::clone(database));
        Self(Arc::new(SnapshotInner { handle, database, version, at, _counted }))
    }

    /// Where its pages are read from.
    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.0.handle.core().read.disk
    }

    fn view(&self) -> View<'_> {
        let context = &self.0.handle.core().read;
        View { context, version: &self.0.version, at: self.0.at }
    }

    fn check(&self, ids: &[IdRef<'_>]) -> Result<(), Error> {
        self.0.handle.core().check_open()?;
        ids.iter().try_for_each(|id| validate_id(&self.0.database, *id))
    }

    /// The vector of an id as it was when the snapshot was made.
    ///
    /// # Errors
    /// As [`crate::Database::get`].
    pub async fn get<'a>(&self, id: impl Into<IdRef<'a>>) -> Result<Option<VectorRef>, Error> {
        let id = id.into();
        self.check(&[id])?;
        self.view().get(id).await
    }

    /// The vectors of many ids, in the order of the ids.
    ///
    /// # Errors
    /// As [`crate::Database::get_many`].
    pub async fn get_many(&self, ids: &[IdRef<'_>]) -> Result<Vec<Option<VectorRef>>, Error> {
        self.check(ids)?;
        self.view().get_many(ids).await
    }

    /// Whether an id was stored when the snapshot was made.
    ///
    /// # Errors
    /// As [`crate::Database::contains`].
    pub async fn contains<'a>(&self, id: impl Into<IdRef<'a>>) -> Result<bool, Error> {
        let id = id.into();
        self.check(&[id])?;
        Ok(self.view().existence(id).await?.exists)
    }

    /// Number of ids that were stored when the snapshot was made.
    ///
    /// # Errors
    /// As [`crate::Database::count`].
    pub async fn count(&self) -> Result<u64, Error> {
        self.check(&[])?;
        self.view().count().await
    }

    /// All ids and vectors of the snapshot, ascending by id.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn scan(&self) -> Result<Scan, Error> {
        self.check(&[])?;
        Ok(Scan::new(Arc::clone(&self.0)))
    }
}
