//! Nephrite itself: readers and writers are tasks on two threads, not threads, but for one alone.

use std::path::Path;

use hdrhistogram::Histogram;
use nephrite::{Config, DatabaseOptions, Durability, IdRef, Ids, blocking};
use nephrite_io::block_on;

use super::rival::{DIGITS, Kind, Rival, Shape, Wait};
use crate::{Outcome, clock::Stopwatch, tasks};

pub(super) const KIND: Kind = Kind { name: "nephrite", persists: true, open: Some(open) };

/// Quarters of the memory that the engine may use; the rest is the program's.
const MEMORY_QUARTERS: u64 = 3;
/// The least that the engine takes.
const MEMORY_MIN: u64 = 32 << 20;

struct Nephrite {
    store: blocking::Store,
    database: blocking::Database,
    shape: Shape,
}

fn open(path: &Path, shape: &Shape) -> Outcome<Box<dyn Rival>> {
    let memory = (shape.memory_bytes / 4 * MEMORY_QUARTERS).max(MEMORY_MIN);
    let store = blocking::Store::open_or_create(path, Config::new().memory_limit(memory))?;
    let database = if store.list().is_empty() {
        let options = DatabaseOptions::new(u32::try_from(shape.dimension)?);
        let options = match shape.page_bytes {
            Some(bytes) => options.page_bytes(bytes),
            None => options,
        };
        store.create_database("vectors", options)?
    } else {
        store.database("vectors")?
    };
    Ok(Box::new(Nephrite { store, database, shape: *shape }))
}

impl Rival for Nephrite {
    fn put(&self, ids: &[u64], vectors: &[f32], wait: Wait) -> Outcome<()> {
        Ok(self.database.put_many(Ids::U64(ids), vectors, durability(wait))?)
    }

    fn get(&self, id: u64) -> Outcome<()> {
        let vector = self.database.get(id)?.ok_or("a stored vector is missing")?;
        self.shape.touch(id, bytemuck::cast_slice(&vector))
    }

    fn get_many(&self, ids: &[u64]) -> Outcome<()> {
        let wanted: Vec<IdRef<'_>> = ids.iter().copied().map(IdRef::U64).collect();
        for (id, vector) in ids.iter().zip(self.database.get_many(&wanted)?) {
            let vector = vector.ok_or("a stored vector is missing")?;
            self.shape.touch(*id, bytemuck::cast_slice(&vector))?;
        }
        Ok(())
    }

    fn scan(&self) -> Outcome<u64> {
        let mut count = 0;
        for row in self.database.scan()? {
            let (id, vector) = row?;
            let IdRef::U64(id) = id.as_id_ref() else { return Err("ids are numbers".into()) };
            self.shape.touch(id, bytemuck::cast_slice(&vector))?;
            count += 1;
        }
        Ok(count)
    }

    fn sync(&self) -> Outcome<()> {
        Ok(self.store.flush()?)
    }

    fn get_by_workers(&self, plans: &[Vec<u64>]) -> Outcome<Histogram<u64>> {
        let database = self.database.as_async();
        let all = plans.iter().map(|plan| async move {
            let mut latencies = Histogram::new(DIGITS)?;
            for id in plan {
                let watch = Stopwatch::start();
                let vector = database.get(*id).await?.ok_or("a stored vector is missing")?;
                self.shape.touch(*id, bytemuck::cast_slice(&vector))?;
                latencies.record(watch.nanoseconds())?;
            }
            Outcome::Ok(latencies)
        });
        // A ring for each of the threads, as a host with a thread per core has it.
        merged(tasks::run_with(all.collect(), |share| self.store.drive(share))?)
    }

    fn put_by_workers(&self, plans: &[Vec<u64>], shape: &Shape) -> Outcome<Histogram<u64>> {
        if let [plan] = plans {
            return self.put_blocking(plan, shape);
        }
        let database = self.database.as_async();
        let all = plans.iter().map(|plan| async move {
            let mut latencies = Histogram::new(DIGITS)?;
            for id in plan {
                let mut vector = Vec::with_capacity(shape.dimension);
                shape.make(*id, &mut vector);
                let watch = Stopwatch::start();
                database.put_with(*id, &vector, Durability::Synced).await?;
                latencies.record(watch.nanoseconds())?;
            }
            Outcome::Ok(latencies)
        });
        merged(tasks::run(all.collect())?)
    }
}

impl Nephrite {
    /// One writer is a thread that blocks, as it is with the others.
    fn put_blocking(&self, plan: &[u64], shape: &Shape) -> Outcome<Histogram<u64>> {
        let mut latencies = Histogram::new(DIGITS)?;
        for id in plan {
            let mut vector = Vec::with_capacity(shape.dimension);
            shape.make(*id, &mut vector);
            let watch = Stopwatch::start();
            self.database.put_with(*id, &vector, Durability::Synced)?;
            latencies.record(watch.nanoseconds())?;
        }
        Ok(latencies)
    }
}

impl Drop for Nephrite {
    fn drop(&mut self) {
        if let Err(error) = block_on(self.store.as_async().close()) {
            eprintln!("rivals: closing nephrite failed: {error}");
        }
    }
}

fn durability(wait: Wait) -> Durability {
    match wait {
        Wait::Accepted => Durability::Buffered,
        Wait::Durable => Durability::Synced,
    }
}

fn merged(all: Vec<Histogram<u64>>) -> Outcome<Histogram<u64>> {
    let mut latencies = Histogram::new(DIGITS)?;
    for of_one in all {
        latencies.add(of_one)?;
    }
    Ok(latencies)
}
