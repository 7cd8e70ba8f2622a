//! LMDB through heed: without read-ahead, as random reads of large data want it.
//!
//! Commits do not sync by themselves (a crash of the machine between two syncs may then harm the
//! file, which the others do not risk); a durable write syncs after its commit.

use std::{fs, path::Path};

use heed::{
    Database, Env, EnvFlags, EnvOpenOptions,
    byteorder::BigEndian,
    types::{Bytes, U64},
};

use super::rival::{Kind, Rival, Shape, Wait};
use crate::Outcome;

pub(super) const KIND: Kind = Kind { name: "LMDB (heed)", persists: true, open: Some(open) };

/// Times the bytes of the vectors that the map may grow to.
const ROOM: u64 = 4;
/// Threads that read at the same time.
const READERS: u32 = 512;

struct Lmdb {
    environment: Env,
    database: Database<U64<BigEndian>, Bytes>,
    shape: Shape,
}

fn open(path: &Path, shape: &Shape) -> Outcome<Box<dyn Rival>> {
    fs::create_dir_all(path)?;
    let room = usize::try_from((shape.bytes() * ROOM).next_multiple_of(1 << 20) + (64 << 20))?;
    let mut options = EnvOpenOptions::new();
    options.map_size(room).max_readers(READERS);
    // SAFETY: a crash of the machine, after which commits without a sync may have harmed the file,
    // ends the run anyway.
    unsafe { options.flags(EnvFlags::NO_READ_AHEAD | EnvFlags::NO_SYNC) };
    // SAFETY: the directory is this run's own: no other process opens or changes it.
    let environment = unsafe { options.open(path) }?;
    let mut transaction = environment.write_txn()?;
    let database = environment.create_database(&mut transaction, None)?;
    transaction.commit()?;
    Ok(Box::new(Lmdb { environment, database, shape: *shape }))
}

impl Rival for Lmdb {
    fn put(&self, ids: &[u64], vectors: &[f32], wait: Wait) -> Outcome<()> {
        let mut transaction = self.environment.write_txn()?;
        for (id, vector) in ids.iter().zip(vectors.chunks_exact(self.shape.dimension)) {
            self.database.put(&mut transaction, id, bytemuck::cast_slice(vector))?;
        }
        transaction.commit()?;
        match wait {
            Wait::Accepted => Ok(()),
            Wait::Durable => self.sync(),
        }
    }

    fn get(&self, id: u64) -> Outcome<()> {
        let transaction = self.environment.read_txn()?;
        let vector = self.database.get(&transaction, &id)?;
        self.shape.touch(id, vector.ok_or("a stored vector is missing")?)
    }

    fn get_many(&self, ids: &[u64]) -> Outcome<()> {
        let transaction = self.environment.read_txn()?;
        for id in ids {
            let vector = self.database.get(&transaction, id)?;
            self.shape.touch(*id, vector.ok_or("a stored vector is missing")?)?;
        }
        Ok(())
    }

    fn scan(&self) -> Outcome<u64> {
        let transaction = self.environment.read_txn()?;
        let mut count = 0;
        for row in self.database.iter(&transaction)? {
            let (id, vector) = row?;
            self.shape.touch(id, vector)?;
            count += 1;
        }
        Ok(count)
    }

    fn sync(&self) -> Outcome<()> {
        Ok(self.environment.force_sync()?)
    }
}
