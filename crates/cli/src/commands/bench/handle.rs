//! The database as a worker calls it: from tasks of an executor, or from a thread that blocks.
//!
//! Both are the public interface, and both are measured because both are what people use. The
//! blocking calls run inside futures that are ready at their first poll, so that a workload is
//! written once.

use nephrite::{Durability, Error, Id, IdRef, Ids, VectorRef, blocking};

/// How the calls are made.
#[derive(Debug)]
pub(super) enum Handle {
    /// Async calls, for many in flight on one thread.
    Tasks(nephrite::Database),
    /// Blocking calls, for one in flight on each thread.
    Thread(blocking::Database),
}

/// A vector, and whether it was in memory.
pub(super) struct Read<T> {
    pub(super) found: T,
    pub(super) in_memory: bool,
}

impl Handle {
    /// `database` for so many calls in flight on each thread.
    pub(super) fn new(database: &blocking::Database, in_flight: u64) -> Self {
        if 1 < in_flight {
            Self::Tasks(database.as_async().clone())
        } else {
            Self::Thread(database.clone())
        }
    }

    fn database(&self) -> &nephrite::Database {
        match self {
            Self::Tasks(database) => database,
            Self::Thread(database) => database.as_async(),
        }
    }

    pub(super) async fn get(&self, id: u64) -> Result<Read<Option<VectorRef>>, Error> {
        if let Some(found) = self.database().try_get(id)? {
            return Ok(Read { found, in_memory: true });
        }
        let found = match self {
            Self::Tasks(database) => database.get(id).await?,
            Self::Thread(database) => database.get(id)?,
        };
        Ok(Read { found, in_memory: false })
    }

    pub(super) async fn get_many(
        &self,
        ids: &[IdRef<'_>],
    ) -> Result<Read<Vec<Option<VectorRef>>>, Error> {
        if let Some(found) = self.database().try_get_many(ids)? {
            return Ok(Read { found, in_memory: true });
        }
        let found = match self {
            Self::Tasks(database) => database.get_many(ids).await?,
            Self::Thread(database) => database.get_many(ids)?,
        };
        Ok(Read { found, in_memory: false })
    }

    /// Stores one vector by `put`, several by `put_many`.
    pub(super) async fn put(
        &self,
        ids: &[u64],
        vectors: &[f32],
        durability: Durability,
    ) -> Result<(), Error> {
        match (self, ids) {
            (Self::Tasks(database), [id]) => database.put_with(*id, vectors, durability).await,
            (Self::Thread(database), [id]) => database.put_with(*id, vectors, durability),
            (Self::Tasks(database), _) => {
                database.put_many(Ids::U64(ids), vectors, durability).await
            }
            (Self::Thread(database), _) => database.put_many(Ids::U64(ids), vectors, durability),
        }
    }

    pub(super) async fn update(&self, id: u64, vector: &[f32]) -> Result<(), Error> {
        match self {
            Self::Tasks(database) => database.update_with(id, vector, Durability::Buffered).await,
            Self::Thread(database) => database.update_with(id, vector, Durability::Buffered),
        }
    }

    pub(super) async fn delete(&self, id: u64) -> Result<bool, Error> {
        match self {
            Self::Tasks(database) => database.delete_with(id, Durability::Buffered).await,
            Self::Thread(database) => database.delete_with(id, Durability::Buffered),
        }
    }

    pub(super) async fn scan(&self) -> Result<Rows, Error> {
        Ok(match self {
            Self::Tasks(database) => Rows::Tasks(database.scan().await?),
            Self::Thread(database) => Rows::Thread(database.scan()?),
        })
    }
}

/// A scan of either kind.
pub(super) enum Rows {
    Tasks(nephrite::Scan),
    Thread(blocking::Scan),
}

impl Rows {
    pub(super) async fn next(&mut self) -> Result<Option<(Id, VectorRef)>, Error> {
        match self {
            Self::Tasks(scan) => scan.next().await,
            Self::Thread(scan) => scan.next().transpose(),
        }
    }
}
