//! fjall, uncompressed, with half of the memory as its cache.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{
    byte_key::{key, number},
    rival::{Kind, Rival, Shape, Wait},
};
use crate::Outcome;

pub(super) const KIND: Kind = Kind { name: "fjall", persists: true, open: Some(open) };

struct Fjall {
    database: Database,
    vectors: Keyspace,
    shape: Shape,
}

fn open(path: &Path, shape: &Shape) -> Outcome<Box<dyn Rival>> {
    let database = Database::builder(path).cache_size(shape.memory_bytes / 2).open()?;
    let vectors = database.keyspace("vectors", KeyspaceCreateOptions::default)?;
    Ok(Box::new(Fjall { database, vectors, shape: *shape }))
}

impl Rival for Fjall {
    fn put(&self, ids: &[u64], vectors: &[f32], wait: Wait) -> Outcome<()> {
        let mut batch = self.database.batch();
        if wait == Wait::Durable {
            batch = batch.durability(Some(PersistMode::SyncData));
        }
        for (id, vector) in ids.iter().zip(vectors.chunks_exact(self.shape.dimension)) {
            // Keys are ordered as their numbers are.
            let value: &[u8] = bytemuck::cast_slice(vector);
            batch.insert(&self.vectors, key(*id), value);
        }
        Ok(batch.commit()?)
    }

    fn get(&self, id: u64) -> Outcome<()> {
        let vector = self.vectors.get(key(id))?.ok_or("a stored vector is missing")?;
        self.shape.touch(id, &vector)
    }

    fn scan(&self) -> Outcome<u64> {
        let mut count = 0;
        for row in self.vectors.iter() {
            let (id, vector) = row.into_inner()?;
            self.shape.touch(number(&id)?, &vector)?;
            count += 1;
        }
        Ok(count)
    }

    fn sync(&self) -> Outcome<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}
