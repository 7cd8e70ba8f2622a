//! RocksDB, uncompressed, with direct reads and five eighths of the memory as its block cache.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, IteratorMode, Options, WriteBatch,
    WriteOptions,
};

use super::{
    byte_key::{key, number},
    rival::{Kind, Rival, Shape, Wait},
};
use crate::Outcome;

pub(super) const KIND: Kind = Kind { name: "RocksDB", persists: true, open: Some(open) };

/// Bits per key of its Bloom filters.
const FILTER_BITS: f64 = 10.0;

struct RocksDb {
    database: DB,
    shape: Shape,
}

fn open(path: &Path, shape: &Shape) -> Outcome<Box<dyn Rival>> {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(usize::try_from(shape.memory_bytes * 5 / 8)?));
    blocks.set_bloom_filter(FILTER_BITS, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_compression_type(DBCompressionType::None);
    options.set_use_direct_reads(true);
    options.set_block_based_table_factory(&blocks);
    options.increase_parallelism(2);
    Ok(Box::new(RocksDb { database: DB::open(&options, path)?, shape: *shape }))
}

impl Rival for RocksDb {
    fn put(&self, ids: &[u64], vectors: &[f32], wait: Wait) -> Outcome<()> {
        let mut batch = WriteBatch::default();
        for (id, vector) in ids.iter().zip(vectors.chunks_exact(self.shape.dimension)) {
            batch.put(key(*id), bytemuck::cast_slice::<f32, u8>(vector));
        }
        let mut options = WriteOptions::default();
        options.set_sync(wait == Wait::Durable);
        Ok(self.database.write_opt(batch, &options)?)
    }

    fn get(&self, id: u64) -> Outcome<()> {
        let vector = self.database.get_pinned(key(id))?.ok_or("a stored vector is missing")?;
        self.shape.touch(id, &vector)
    }

    fn get_many(&self, ids: &[u64]) -> Outcome<()> {
        let found = self.database.multi_get(ids.iter().map(|id| key(*id)));
        for (id, vector) in ids.iter().zip(found) {
            self.shape.touch(*id, &vector?.ok_or("a stored vector is missing")?)?;
        }
        Ok(())
    }

    fn scan(&self) -> Outcome<u64> {
        let mut count = 0;
        for row in self.database.iterator(IteratorMode::Start) {
            let (id, vector) = row?;
            self.shape.touch(number(&id)?, &vector)?;
            count += 1;
        }
        Ok(count)
    }

    fn sync(&self) -> Outcome<()> {
        Ok(self.database.flush_wal(true)?)
    }
}
