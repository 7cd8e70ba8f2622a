//! `hot`: random reads of vectors that are in memory, beside what people write themselves.
//!
//! Rivals: a flat array of all vectors (ids are positions) and `RwLock<HashMap<u64, Box<[f32]>>>`.
//! One value of every cache line of a vector is loaded, so that a lookup which does not touch the
//! data cannot look fast.

use std::{collections::HashMap, hint::black_box, sync::RwLock};

use clap::Args;
use nephrite::{Database, DatabaseOptions, IdRef, blocking};
use nephrite_io::block_on;

use crate::{
    Outcome,
    clock::Stopwatch,
    place::Place,
    report::Figure,
    rows::{IdForm, Random, Rows},
};

/// f32 values in a cache line.
const LINE: usize = 16;
/// Times that everything is read before it must be in the cache.
const PASSES_MAX: usize = 20;
/// Ids per `get_many`.
const MANY: usize = 100;

#[derive(Debug, Args)]
pub(crate) struct HotArguments {
    /// Vectors in the store
    #[arg(long, default_value_t = 500_000)]
    vectors: usize,
    /// Values per vector
    #[arg(long, default_value_t = 128)]
    dim: u32,
    /// Ids of the vectors
    #[arg(long, value_enum, default_value_t = IdForm::Dense)]
    ids_form: IdForm,
    /// Reads per measurement
    #[arg(long, default_value_t = 1_000_000)]
    reads: usize,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

pub(crate) fn run(place: &Place, arguments: &HotArguments) -> Outcome<Vec<Figure>> {
    let rows = Rows::generate(arguments.vectors, arguments.dim, arguments.ids_form);
    let store = place.fresh_store("store", rows.bytes() * 4 + (64 << 20))?;
    let blocking = fill(&store, &rows)?;
    let database = blocking.as_async().clone();
    let map = as_map(&rows);
    let order = order(&rows, arguments.reads);

    let figure = |name: &str| Figure::new(name, "ns/vector");
    let mut flat = figure("flat array");
    let mut locked = figure("RwLock<HashMap>");
    let mut get = figure("get, async, one executor");
    let mut get_blocking = figure("get, blocking");
    let mut get_many = figure("get_many(100)");
    let reads = arguments.reads as f64;
    for _ in 0..arguments.rounds {
        flat.push(timed(|| read_flat(&rows, &order))? / reads * 1e9);
        locked.push(timed(|| read_map(&map, &order))? / reads * 1e9);
        get.push(timed(|| block_on(read_each(&database, &rows, &order)))? / reads * 1e9);
        get_blocking.push(timed(|| read_blocking(&blocking, &rows, &order))? / reads * 1e9);
        get_many.push(timed(|| block_on(read_many(&database, &rows, &order)))? / reads * 1e9);
    }
    drop((database, blocking));
    store.close()?;
    let ratios = [
        get.ratio_to(&flat, "get / flat array"),
        get.ratio_to(&locked, "get / RwLock<HashMap>"),
        get_many.ratio_to(&flat, "get_many(100) / flat array"),
    ];
    Ok([flat, locked, get, get_blocking, get_many].into_iter().chain(ratios).collect())
}

/// Stores the rows and reads them until all are in the cache.
fn fill(store: &blocking::Store, rows: &Rows) -> Outcome<blocking::Database> {
    let options = DatabaseOptions::new(rows.dimension).id_kind(rows.ids.kind());
    let database = store.create_database("vectors", options)?;
    rows.put_into(&database, 1000)?;
    store.flush()?;
    let everything: Vec<usize> = (0..rows.len()).collect();
    // A compaction that still runs brings new pages; it ends.
    for _ in 0..PASSES_MAX {
        let before = store.stats().io.reads;
        block_on(read_many(database.as_async(), rows, &everything))?;
        if store.stats().io.reads == before {
            return Ok(database);
        }
    }
    Err(format!("pages are still being read after {PASSES_MAX} passes: this is not hot").into())
}

fn as_map(rows: &Rows) -> RwLock<HashMap<u64, Box<[f32]>>> {
    let vectors = rows.vectors.chunks_exact(rows.dimension as usize);
    RwLock::new((0..).zip(vectors.map(Into::into)).collect())
}

/// Rows to read.
fn order(rows: &Rows, reads: usize) -> Vec<usize> {
    let mut random = Random::new(5);
    (0..reads).map(|_| random.below(rows.len())).collect()
}

/// Seconds that `read` takes.
fn timed(read: impl FnOnce() -> Outcome<f32>) -> Outcome<f64> {
    let watch = Stopwatch::start();
    black_box(read()?);
    Ok(watch.seconds())
}

/// Loads every cache line of a vector.
fn touch(vector: &[f32]) -> f32 {
    vector.iter().step_by(LINE).sum()
}

fn read_flat(rows: &Rows, order: &[usize]) -> Outcome<f32> {
    Ok(order.iter().map(|row| touch(rows.vector(*row))).sum())
}

fn read_map(map: &RwLock<HashMap<u64, Box<[f32]>>>, order: &[usize]) -> Outcome<f32> {
    let mut sum = 0.0;
    for row in order {
        let map = map.read().map_err(|_| "a writer panicked")?;
        sum += map.get(&(*row as u64)).map_or(0.0, |vector| touch(vector));
    }
    Ok(sum)
}

async fn read_each(database: &Database, rows: &Rows, order: &[usize]) -> Outcome<f32> {
    let mut sum = 0.0;
    for row in order {
        let vector = database.get(rows.ids.get(*row)).await?.ok_or("a stored vector is missing")?;
        sum += touch(&vector);
    }
    Ok(sum)
}

fn read_blocking(database: &blocking::Database, rows: &Rows, order: &[usize]) -> Outcome<f32> {
    let mut sum = 0.0;
    for row in order {
        let vector = database.get(rows.ids.get(*row))?.ok_or("a stored vector is missing")?;
        sum += touch(&vector);
    }
    Ok(sum)
}

async fn read_many(database: &Database, rows: &Rows, order: &[usize]) -> Outcome<f32> {
    let mut sum = 0.0;
    for batch in order.chunks(MANY) {
        let ids: Vec<IdRef<'_>> = batch.iter().map(|row| rows.ids.get(*row)).collect();
        for vector in database.get_many(&ids).await? {
            sum += touch(&vector.ok_or("a stored vector is missing")?);
        }
    }
    Ok(sum)
}
