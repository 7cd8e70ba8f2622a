//! `Database`: the handle to one database of a store.

use std::sync::Arc;

use nephrite_format::{IdKind, IdRef, Lsn};
use nephrite_io::Disk;

use crate::{
    batch::{Batch, Ids},
    config::Durability,
    core::DatabaseCore,
    error::Error,
    lookup::{Existence, View},
    resident::Resident,
    scan::Scan,
    snapshot::Snapshot,
    stats::DatabaseStats,
    store::Handle,
    vector::VectorRef,
    write::{Change, Condition, Refusals, validate_id},
};

/// One database; cheap to clone, may be used from any thread and any executor.
///
/// Reads see everything acknowledged before they began. Writes to one database are acknowledged
/// and become visible in one order, which is also the order in which they survive a crash: what
/// is there afterwards is a prefix of it that ends at or behind the last `Synced` write or flush.
#[derive(Clone, Debug)]
pub struct Database {
    handle: Arc<Handle>,
    core: Arc<DatabaseCore>,
}

impl Database {
    pub(crate) fn new(handle: Arc<Handle>, core: Arc<DatabaseCore>) -> Self {
        Self { handle, core }
    }

    /// Where its pages are read from.
    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.handle.core().read.disk
    }

    /// Whether a thread that blocks may commit on a ring of its own.
    pub(crate) fn drives_commits(&self) -> bool {
        self.handle.core().seat.drives
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Elements per vector.
    #[must_use]
    pub fn dimension(&self) -> u32 {
        self.core.layout.dimension()
    }

    /// Kind of its ids.
    #[must_use]
    pub fn id_kind(&self) -> IdKind {
        self.core.id_kind
    }

    pub(crate) fn default_durability(&self) -> Durability {
        self.handle.core().config.default_durability
    }

    /// Stores a vector, replacing the one under the same id, with the store's default durability.
    ///
    /// NaNs are stored bit for bit.
    ///
    /// # Errors
    /// `Dimension`, `InvalidId`, `WrongIdKind`; `Io` with kind `Full` when the disk is full (what
    /// was acknowledged stays, reads go on, later writes work once there is space);
    /// `Poisoned`, `Closed`, `DatabaseNotFound` after a drop.
    ///
    /// # Cancel safety
    /// A dropped call has stored the vector or not; it never stores part of it.
    pub async fn put<'a>(&self, id: impl Into<IdRef<'a>>, vector: &[f32]) -> Result<(), Error> {
        self.put_with(id, vector, self.default_durability()).await
    }

    /// [`Self::put`] with a durability of its own.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn put_with<'a>(
        &self,
        id: impl Into<IdRef<'a>>,
        vector: &[f32],
        durability: Durability,
    ) -> Result<(), Error> {
        self.write(Change::Put(id.into(), vector), durability).await
    }

    async fn write(&self, change: Change<'_>, durability: Durability) -> Result<(), Error> {
        let core = self.handle.core();
        core.write(&self.core, change, durability, Condition::None).await?;
        Ok(())
    }

    /// Replaces the vector of an id that is stored.
    ///
    /// # Errors
    /// `NotFound` when it is not; else as [`Self::put`].
    pub async fn update<'a>(&self, id: impl Into<IdRef<'a>>, vector: &[f32]) -> Result<(), Error> {
        self.update_with(id, vector, self.default_durability()).await
    }

    /// [`Self::update`] with a durability of its own.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub async fn update_with<'a>(
        &self,
        id: impl Into<IdRef<'a>>,
        vector: &[f32],
        durability: Durability,
    ) -> Result<(), Error> {
        let id = id.into();
        let found = vector.len();
        let expected = self.dimension();
        if found != expected as usize {
            return Err(Error::Dimension { expected, found });
        }
        if self.write_if_stored(Change::Put(id, vector), id, durability).await? {
            return Ok(());
        }
        Err(Error::NotFound { id: id.to_id() })
    }

    /// Deletes an id; tells whether it was stored.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn delete<'a>(&self, id: impl Into<IdRef<'a>>) -> Result<bool, Error> {
        self.delete_with(id, self.default_durability()).await
    }

    /// [`Self::delete`] with a durability of its own.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn delete_with<'a>(
        &self,
        id: impl Into<IdRef<'a>>,
        durability: Durability,
    ) -> Result<bool, Error> {
        let id = id.into();
        self.write_if_stored(Change::Delete(id), id, durability).await
    }

    /// Applies a change of an id if the id is stored at that moment. Looks first, then writes if
    /// nothing was written to the id meanwhile, else looks again.
    async fn write_if_stored(
        &self,
        change: Change<'_>,
        id: IdRef<'_>,
        durability: Durability,
    ) -> Result<bool, Error> {
        let core = self.handle.core();
        self.check(&[id])?;
        let mut refusals = Refusals::default();
        loop {
            // The version goes before the write: what waits for room must not hold any.
            let condition = {
                let version = self.core.version.load();
                let seen = Lsn::new(u64::MAX);
                let view = View { context: &core.read, version: &version, at: seen };
                let Existence { exists, memory_lsn } = view.existence(id).await?;
                if !exists {
                    return Ok(false);
                }
                Condition::Unchanged { memory_lsn, flushes: version.flushes }
            };
            let done = core.write_after(&self.core, change, durability, condition, &mut refusals);
            if done.await? {
                return Ok(true);
            }
        }
    }

    /// Applies the operations of a batch together or not at all.
    ///
    /// # Errors
    /// `BatchTooLarge` when its vectors exceed the memtable or its log record a log segment; else
    /// as [`Self::put`]. On an error nothing of the batch is applied.
    pub async fn batch(&self, batch: Batch) -> Result<(), Error> {
        self.batch_with(batch, self.default_durability()).await
    }

    /// [`Self::batch`] with a durability of its own.
    ///
    /// # Errors
    /// As [`Self::batch`].
    pub async fn batch_with(&self, batch: Batch, durability: Durability) -> Result<(), Error> {
        if batch.is_empty() {
            return self.check(&[]);
        }
        self.write(Change::Batch(&batch), durability).await
    }

    /// Stores many vectors at once, atomically like a batch and without copying them first:
    /// `vectors` holds them one after the other, `ids` names each. Of equal ids the last wins.
    /// From some tens of KiB on the vectors bypass the log: each is written once.
    ///
    /// # Errors
    /// As [`Self::batch`]; `InvalidId` when the numbers of ids and vectors differ.
    pub async fn put_many(
        &self,
        ids: Ids<'_>,
        vectors: &[f32],
        durability: Durability,
    ) -> Result<(), Error> {
        if vectors.is_empty() && ids.len().unwrap_or(0) == 0 {
            return self.check(&[]);
        }
        self.write(Change::Rows(ids, vectors), durability).await
    }

    /// Everything acknowledged so far.
    fn check(&self, ids: &[IdRef<'_>]) -> Result<(), Error> {
        self.handle.core().check_open()?;
        self.core.check()?;
        ids.iter().try_for_each(|id| validate_id(&self.core, *id))
    }

    /// The vector of an id; `None` when it is not stored. A vector in memory is lent without a
    /// copy and the future is ready at its first poll.
    ///
    /// # Errors
    /// `InvalidId`, `WrongIdKind`; `Io`; `Corrupt` naming the damaged page; `Closed`.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn get<'a>(&self, id: impl Into<IdRef<'a>>) -> Result<Option<VectorRef>, Error> {
        let id = id.into();
        match self.resident(id)? {
            Resident::Found(vector) => Ok(Some(vector)),
            Resident::Absent => Ok(None),
            Resident::Unknown => {
                let version = self.core.version.load();
                self.view(&version).get(id).await
            }
        }
    }

    /// The vector of an id if that can be told without waiting: `None` when a page would have to
    /// be read, else what [`Self::get`] gives. Needs no executor.
    ///
    /// # Errors
    /// As [`Self::get`].
    #[inline]
    pub fn try_get<'a>(
        &self,
        id: impl Into<IdRef<'a>>,
    ) -> Result<Option<Option<VectorRef>>, Error> {
        Ok(match self.resident(id.into())? {
            Resident::Found(vector) => Some(Some(vector)),
            Resident::Absent => Some(None),
            Resident::Unknown => None,
        })
    }

    #[inline]
    fn resident(&self, id: IdRef<'_>) -> Result<Resident, Error> {
        self.handle.core().check_open()?;
        self.core.check()?;
        validate_id(&self.core, id)?;
        // The version first: what is in its segments is visible.
        let version = self.core.version.peek();
        version.resident(id, self.core.visibility.visible())
    }

    fn view<'a>(&'a self, version: &'a crate::version::Version) -> View<'a> {
        let context = &self.handle.core().read;
        View { context, version, at: self.core.visibility.visible() }
    }

    /// The vectors of many ids, in the order of the ids; what is not in memory is read in few deep
    /// submissions.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn get_many(&self, ids: &[IdRef<'_>]) -> Result<Vec<Option<VectorRef>>, Error> {
        if let Some(vectors) = self.try_get_many(ids)? {
            return Ok(vectors);
        }
        let version = self.core.version.load();
        self.view(&version).get_many(ids).await
    }

    /// The vectors of many ids if all can be told without waiting, as [`Self::try_get`] does.
    /// `None` also for more ids than may be pinned at a time.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn try_get_many(&self, ids: &[IdRef<'_>]) -> Result<Option<Vec<Option<VectorRef>>>, Error> {
        self.check(ids)?;
        if self.handle.core().read.pinned_max < ids.len() {
            return Ok(None);
        }
        let version = self.core.version.peek();
        version.resident_many(ids, self.core.visibility.visible())
    }

    /// Whether an id is stored. Does not read the vector.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn contains<'a>(&self, id: impl Into<IdRef<'a>>) -> Result<bool, Error> {
        let id = id.into();
        self.check(&[id])?;
        let version = self.core.version.load();
        Ok(self.view(&version).existence(id).await?.exists)
    }

    /// Number of ids stored. Looks up every id that is not flushed yet.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn count(&self) -> Result<u64, Error> {
        self.snapshot().await?.count().await
    }

    /// The database as it is now, for reads that must agree with each other.
    ///
    /// # Errors
    /// `Closed`, `DatabaseNotFound` after a drop.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        self.check(&[])?;
        Ok(Snapshot::take(&self.handle, &self.core))
    }

    /// All ids and vectors of a snapshot made now, ascending by id.
    ///
    /// # Errors
    /// As [`Self::snapshot`].
    pub async fn scan(&self) -> Result<Scan, Error> {
        self.snapshot().await?.scan().await
    }

    /// Makes everything written to this database so far durable, in segments.
    ///
    /// # Errors
    /// `Io`, kind `Full` when the disk is full (try again later); `Poisoned`, `Closed`.
    ///
    /// # Cancel safety
    /// The flush goes on.
    pub async fn flush(&self) -> Result<(), Error> {
        self.check(&[])?;
        self.handle.core().ask_flush(&self.core).await
    }

    /// Flushes this database, then merges its segments into one without garbage. On a disk without
    /// room for that it does what it can piece by piece. Readers and snapshots are not disturbed;
    /// space that a snapshot needs comes back when it is dropped.
    ///
    /// # Errors
    /// `Io`, kind `Full` when garbage is left for want of space; `Corrupt` naming the
    /// damaged page; `Poisoned`, `Closed`, `DatabaseNotFound` after a drop.
    ///
    /// # Cancel safety
    /// The compaction goes on.
    pub async fn compact(&self) -> Result<(), Error> {
        self.check(&[])?;
        self.handle.core().ask_compact(&self.core).await
    }

    /// What this database holds.
    ///
    /// # Errors
    /// As [`Self::count`].
    pub async fn stats(&self) -> Result<DatabaseStats, Error> {
        let records = self.count().await?;
        Ok(DatabaseStats::of(&self.core, records))
    }
}
