//! The same API for threads: every call blocks the calling thread until it is done.
//!
//! Calls that read pages drive their reads on a ring of the calling thread, where it can have one
//! (see [`nephrite_io::drive`]): nothing is handed to another thread and back. Nor does a synced
//! write of one vector that finds nobody else at the log. The others wait for tasks of the engine,
//! which have threads of their own, and so does `verify`, whose callback is user code: loads that
//! others wait for must not lie with a thread that runs it.
//!
//! Must not be called on an async executor's thread: it would block the executor.

use std::{future::Future, path::Path};

use nephrite_io::drive;
use pollster::block_on;

use crate::{
    BackendReport, Batch, Config, DatabaseInfo, DatabaseOptions, DatabaseStats, Durability, Error,
    Id, IdKind, IdRef, Ids, StoreStats, VectorRef, VerifyProgress, VerifyReport, runtime::at_once,
    wal::led,
};

/// Blocking [`crate::Store`].
#[derive(Clone, Debug)]
pub struct Store(crate::Store);

/// Blocking [`crate::Database`].
#[derive(Clone, Debug)]
pub struct Database(crate::Database);

/// Blocking [`crate::Snapshot`].
#[derive(Clone, Debug)]
pub struct Snapshot(crate::Snapshot);

/// Blocking [`crate::Scan`]: an iterator.
#[derive(Debug)]
pub struct Scan {
    inner: crate::Scan,
    failed: bool,
}

impl Store {
    /// See [`crate::Store::create`].
    ///
    /// # Errors
    /// As there.
    pub fn create(path: impl AsRef<Path>, config: Config) -> Result<Self, Error> {
        block_on(crate::Store::create(path, config)).map(Self)
    }

    /// See [`crate::Store::open`].
    ///
    /// # Errors
    /// As there.
    pub fn open(path: impl AsRef<Path>, config: Config) -> Result<Self, Error> {
        block_on(crate::Store::open(path, config)).map(Self)
    }

    /// See [`crate::Store::open_or_create`].
    ///
    /// # Errors
    /// As there.
    pub fn open_or_create(path: impl AsRef<Path>, config: Config) -> Result<Self, Error> {
        block_on(crate::Store::open_or_create(path, config)).map(Self)
    }

    /// See [`crate::Store::create_database`].
    ///
    /// # Errors
    /// As there.
    pub fn create_database(&self, name: &str, options: DatabaseOptions) -> Result<Database, Error> {
        block_on(self.0.create_database(name, options)).map(Database)
    }

    /// See [`crate::Store::database`].
    ///
    /// # Errors
    /// As there.
    pub fn database(&self, name: &str) -> Result<Database, Error> {
        // Opens each file and reads a few pages: cheaper here than to wake another thread.
        drive(self.0.disk(), at_once(true, self.0.database(name))).map(Database)
    }

    /// See [`crate::Store::drop_database`].
    ///
    /// # Errors
    /// As there.
    pub fn drop_database(&self, name: &str) -> Result<(), Error> {
        block_on(self.0.drop_database(name))
    }

    /// See [`crate::Store::list`].
    #[must_use]
    pub fn list(&self) -> Vec<DatabaseInfo> {
        self.0.list()
    }

    /// See [`crate::Store::flush`].
    ///
    /// # Errors
    /// As there.
    pub fn flush(&self) -> Result<(), Error> {
        block_on(self.0.flush())
    }

    /// See [`crate::Store::compact`].
    ///
    /// # Errors
    /// As there.
    pub fn compact(&self) -> Result<(), Error> {
        block_on(self.0.compact())
    }

    /// See [`crate::Store::close`].
    ///
    /// # Errors
    /// As there.
    pub fn close(&self) -> Result<(), Error> {
        block_on(self.0.close())
    }

    /// See [`crate::Store::stats`].
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        self.0.stats()
    }

    /// See [`crate::Store::backend_report`].
    #[must_use]
    pub fn backend_report(&self) -> BackendReport {
        self.0.backend_report()
    }

    /// See [`crate::Store::verify`].
    ///
    /// # Errors
    /// As there.
    pub fn verify(
        &self,
        progress: impl FnMut(VerifyProgress) + Send,
    ) -> Result<VerifyReport, Error> {
        block_on(self.0.verify(progress))
    }

    /// See [`crate::Store::verify_with`].
    ///
    /// # Errors
    /// As there.
    pub fn verify_with(
        &self,
        options: crate::VerifyOptions,
        progress: impl FnMut(VerifyProgress) + Send,
    ) -> Result<VerifyReport, Error> {
        block_on(self.0.verify_with(options, progress))
    }

    /// Runs a future to its end on the calling thread; the page reads that it starts are driven
    /// there too, on a ring of this thread where it can have one (see [`nephrite_io::drive`]). For
    /// hosts with a thread per core: a future that joins many reads has them all in flight, and
    /// none is handed to another thread and back.
    ///
    /// Not for writes that wait for disk, flushes and the like: other threads carry them out, and
    /// this one would do nothing meanwhile.
    pub fn drive<T>(&self, future: impl Future<Output = T>) -> T {
        drive(self.0.disk(), future)
    }

    /// The async store behind this one.
    #[must_use]
    pub fn as_async(&self) -> &crate::Store {
        &self.0
    }
}

/// See [`crate::repair::repair`].
///
/// # Errors
/// As there.
pub fn repair(
    path: impl AsRef<std::path::Path>,
    config: Config,
    mode: crate::repair::RepairMode,
) -> Result<crate::repair::RepairReport, Error> {
    block_on(crate::repair::repair(path, config, mode))
}

impl Database {
    /// Runs a write. A synced one that finds nobody at the log commits itself, on this thread.
    fn write<T>(&self, durability: Durability, call: impl Future<Output = T>) -> T {
        match durability {
            Durability::Synced if self.0.drives_commits() => drive(self.0.disk(), led(call)),
            Durability::Synced => block_on(led(call)),
            Durability::Buffered => block_on(call),
        }
    }

    /// See [`crate::Database::name`].
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// See [`crate::Database::dimension`].
    #[must_use]
    pub fn dimension(&self) -> u32 {
        self.0.dimension()
    }

    /// See [`crate::Database::id_kind`].
    #[must_use]
    pub fn id_kind(&self) -> IdKind {
        self.0.id_kind()
    }

    /// See [`crate::Database::put`].
    ///
    /// # Errors
    /// As there.
    pub fn put<'a>(&self, id: impl Into<IdRef<'a>>, vector: &[f32]) -> Result<(), Error> {
        self.write(self.0.default_durability(), self.0.put(id, vector))
    }

    /// See [`crate::Database::put_with`].
    ///
    /// # Errors
    /// As there.
    pub fn put_with<'a>(
        &self,
        id: impl Into<IdRef<'a>>,
        vector: &[f32],
        durability: Durability,
    ) -> Result<(), Error> {
        self.write(durability, self.0.put_with(id, vector, durability))
    }

    /// See [`crate::Database::update`].
    ///
    /// # Errors
    /// As there.
    pub fn update<'a>(&self, id: impl Into<IdRef<'a>>, vector: &[f32]) -> Result<(), Error> {
        self.write(self.0.default_durability(), self.0.update(id, vector))
    }

    /// See [`crate::Database::update_with`].
    ///
    /// # Errors
    /// As there.
    pub fn update_with<'a>(
        &self,
        id: impl Into<IdRef<'a>>,
        vector: &[f32],
        durability: Durability,
    ) -> Result<(), Error> {
        self.write(durability, self.0.update_with(id, vector, durability))
    }

    /// See [`crate::Database::delete`].
    ///
    /// # Errors
    /// As there.
    pub fn delete<'a>(&self, id: impl Into<IdRef<'a>>) -> Result<bool, Error> {
        self.write(self.0.default_durability(), self.0.delete(id))
    }

    /// See [`crate::Database::delete_with`].
    ///
    /// # Errors
    /// As there.
    pub fn delete_with<'a>(
        &self,
        id: impl Into<IdRef<'a>>,
        durability: Durability,
    ) -> Result<bool, Error> {
        self.write(durability, self.0.delete_with(id, durability))
    }

    /// See [`crate::Database::batch`].
    ///
    /// # Errors
    /// As there.
    pub fn batch(&self, batch: Batch) -> Result<(), Error> {
        block_on(led(self.0.batch(batch)))
    }

    /// See [`crate::Database::batch_with`].
    ///
    /// # Errors
    /// As there.
    pub fn batch_with(&self, batch: Batch, durability: Durability) -> Result<(), Error> {
        block_on(led(self.0.batch_with(batch, durability)))
    }

    /// See [`crate::Database::put_many`].
    ///
    /// # Errors
    /// As there.
    pub fn put_many(
        &self,
        ids: Ids<'_>,
        vectors: &[f32],
        durability: Durability,
    ) -> Result<(), Error> {
        block_on(led(self.0.put_many(ids, vectors, durability)))
    }

    /// See [`crate::Database::get`].
    ///
    /// # Errors
    /// As there.
    pub fn get<'a>(&self, id: impl Into<IdRef<'a>>) -> Result<Option<VectorRef>, Error> {
        let id = id.into();
        match self.0.try_get(id)? {
            Some(found) => Ok(found),
            None => drive(self.0.disk(), self.0.get(id)),
        }
    }

    /// See [`crate::Database::get_many`].
    ///
    /// # Errors
    /// As there.
    pub fn get_many(&self, ids: &[IdRef<'_>]) -> Result<Vec<Option<VectorRef>>, Error> {
        match self.0.try_get_many(ids)? {
            Some(vectors) => Ok(vectors),
            None => drive(self.0.disk(), self.0.get_many(ids)),
        }
    }

    /// See [`crate::Database::contains`].
    ///
    /// # Errors
    /// As there.
    pub fn contains<'a>(&self, id: impl Into<IdRef<'a>>) -> Result<bool, Error> {
        drive(self.0.disk(), self.0.contains(id))
    }

    /// See [`crate::Database::count`].
    ///
    /// # Errors
    /// As there.
    pub fn count(&self) -> Result<u64, Error> {
        drive(self.0.disk(), self.0.count())
    }

    /// See [`crate::Database::snapshot`].
    ///
    /// # Errors
    /// As there.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        block_on(self.0.snapshot()).map(Snapshot)
    }

    /// See [`crate::Database::scan`].
    ///
    /// # Errors
    /// As there.
    pub fn scan(&self) -> Result<Scan, Error> {
        block_on(self.0.scan()).map(Scan::new)
    }

    /// See [`crate::Database::flush`].
    ///
    /// # Errors
    /// As there.
    pub fn flush(&self) -> Result<(), Error> {
        block_on(self.0.flush())
    }

    /// See [`crate::Database::compact`].
    ///
    /// # Errors
    /// As there.
    pub fn compact(&self) -> Result<(), Error> {
        block_on(self.0.compact())
    }

    /// See [`crate::Database::stats`].
    ///
    /// # Errors
    /// As there.
    pub fn stats(&self) -> Result<DatabaseStats, Error> {
        block_on(self.0.stats())
    }

    /// The async database behind this one.
    #[must_use]
    pub fn as_async(&self) -> &crate::Database {
        &self.0
    }
}

impl Snapshot {
    /// See [`crate::Snapshot::get`].
    ///
    /// # Errors
    /// As there.
    pub fn get<'a>(&self, id: impl Into<IdRef<'a>>) -> Result<Option<VectorRef>, Error> {
        drive(self.0.disk(), self.0.get(id))
    }

    /// See [`crate::Snapshot::get_many`].
    ///
    /// # Errors
    /// As there.
    pub fn get_many(&self, ids: &[IdRef<'_>]) -> Result<Vec<Option<VectorRef>>, Error> {
        drive(self.0.disk(), self.0.get_many(ids))
    }

    /// See [`crate::Snapshot::contains`].
    ///
    /// # Errors
    /// As there.
    pub fn contains<'a>(&self, id: impl Into<IdRef<'a>>) -> Result<bool, Error> {
        drive(self.0.disk(), self.0.contains(id))
    }

    /// See [`crate::Snapshot::count`].
    ///
    /// # Errors
    /// As there.
    pub fn count(&self) -> Result<u64, Error> {
        drive(self.0.disk(), self.0.count())
    }

    /// See [`crate::Snapshot::scan`].
    ///
    /// # Errors
    /// As there.
    pub fn scan(&self) -> Result<Scan, Error> {
        block_on(self.0.scan()).map(Scan::new)
    }
}

impl Scan {
    fn new(inner: crate::Scan) -> Self {
        Self { inner, failed: false }
    }
}

impl Iterator for Scan {
    type Item = Result<(Id, VectorRef), Error>;

    /// After an error the iterator is at its end.
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if let Some(ready) = self.inner.next_ready() {
            return Some(Ok(ready));
        }
        // Not on a ring of this thread: that would wait for what is read ahead.
        let next = block_on(self.inner.next()).transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}
