//! redb, with half of the memory as its cache.

use std::{fs, path::Path};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::rival::{Kind, Rival, Shape, Wait};
use crate::Outcome;

pub(super) const KIND: Kind = Kind { name: "redb", persists: true, open: Some(open) };

const VECTORS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("vectors");

struct Redb {
    database: Database,
    shape: Shape,
}

fn open(path: &Path, shape: &Shape) -> Outcome<Box<dyn Rival>> {
    fs::create_dir_all(path)?;
    let cache = usize::try_from(shape.memory_bytes / 2)?;
    let database = Database::builder().set_cache_size(cache).create(path.join("data.redb"))?;
    let transaction = database.begin_write()?;
    transaction.open_table(VECTORS)?;
    transaction.commit()?;
    Ok(Box::new(Redb { database, shape: *shape }))
}

impl Rival for Redb {
    fn put(&self, ids: &[u64], vectors: &[f32], wait: Wait) -> Outcome<()> {
        let mut transaction = self.database.begin_write()?;
        if wait == Wait::Accepted {
            transaction.set_durability(Durability::None)?;
        }
        let mut table = transaction.open_table(VECTORS)?;
        for (id, vector) in ids.iter().zip(vectors.chunks_exact(self.shape.dimension)) {
            table.insert(id, bytemuck::cast_slice::<f32, u8>(vector))?;
        }
        drop(table);
        Ok(transaction.commit()?)
    }

    fn get(&self, id: u64) -> Outcome<()> {
        self.get_many(&[id])
    }

    fn get_many(&self, ids: &[u64]) -> Outcome<()> {
        let table = self.database.begin_read()?.open_table(VECTORS)?;
        for id in ids {
            let vector = table.get(id)?.ok_or("a stored vector is missing")?;
            self.shape.touch(*id, vector.value())?;
        }
        Ok(())
    }

    fn scan(&self) -> Outcome<u64> {
        let table = self.database.begin_read()?.open_table(VECTORS)?;
        let mut count = 0;
        for row in table.iter()? {
            let (id, vector) = row?;
            self.shape.touch(id.value(), vector.value())?;
            count += 1;
        }
        Ok(count)
    }

    /// An empty durable transaction makes the ones before it durable.
    fn sync(&self) -> Outcome<()> {
        Ok(self.database.begin_write()?.commit()?)
    }
}
