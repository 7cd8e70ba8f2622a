//! `cold`: random reads of more data than the cache holds, beside raw reads at the same depth.
//!
//! Both sides keep the same number of reads in flight: the engine as that many tasks on two
//! threads that each `get` one vector after the other, the device through the I/O trait alone,
//! one page at a time. The order alternates. `get_many` is one task that asks for as many ids.

use clap::Args;
use nephrite::{Database, DatabaseOptions, IdRef};
use nephrite_io::{OpenOptions, block_on};

use crate::{
    Outcome,
    clock::Stopwatch,
    device,
    place::Place,
    report::Figure,
    rows::{IdForm, Random, RowIds, Rows},
    tasks,
};

#[derive(Debug, Args)]
pub(crate) struct ColdArguments {
    /// Vectors in the store
    #[arg(long, default_value_t = 2_000_000)]
    vectors: usize,
    /// Values per vector
    #[arg(long, default_value_t = 128)]
    dim: u32,
    /// Ids of the vectors
    #[arg(long, value_enum, default_value_t = IdForm::Dense)]
    ids_form: IdForm,
    /// Memory limit of the store, MiB; half of it is cache
    #[arg(long, default_value_t = 64)]
    memory: u64,
    /// Reads in flight
    #[arg(long, default_value_t = 64)]
    depth: usize,
    /// Reads per measurement
    #[arg(long, default_value_t = 200_000)]
    reads: usize,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

pub(crate) fn run(place: &Place, arguments: &ColdArguments) -> Outcome<Vec<Figure>> {
    let ids = build(place, arguments)?;
    let store =
        nephrite::blocking::Store::open(place.join("store"), place.config(arguments.memory << 20))?;
    let blocking = store.database("vectors")?;
    let page_bytes = blocking.stats()?.page_bytes as usize;
    let database = blocking.as_async().clone();
    let raw = place.join("raw");
    let bytes = arguments.vectors as u64 * u64::from(arguments.dim) * 4;
    device::sequential_write(&place.disk, &raw, bytes)?;
    let raw = block_on(place.disk.open(&raw, OpenOptions::read_only()))?;

    let mut limit = Figure::new(format!("raw reads of {page_bytes} bytes"), "reads/s");
    let mut get = Figure::new(format!("get, {} tasks", arguments.depth), "vectors/s");
    let mut get_many = Figure::new(format!("get_many({})", arguments.depth), "vectors/s");
    let mut misses = Figure::new("reads from disk per get", "reads");
    let reads = arguments.reads as f64;
    for round in 0..arguments.rounds as u64 {
        let mut measure_limit = || -> Outcome<()> {
            let (count, depth) = (arguments.reads as u64, arguments.depth);
            let seconds =
                device::random_read(&place.disk, &raw, page_bytes, depth, count, round << 32)?;
            limit.push(reads / seconds);
            Ok(())
        };
        if round % 2 == 0 {
            measure_limit()?;
        }
        let before = store.stats().io.reads;
        get.push(reads / read_each(&database, &ids, arguments, round)?);
        misses.push((store.stats().io.reads - before) as f64 / reads);
        get_many.push(reads / block_on(read_many(&database, &ids, arguments, round))?);
        if round % 2 == 1 {
            measure_limit()?;
        }
    }
    drop((database, blocking));
    store.close()?;
    let ratios = [
        get.ratio_to(&limit, "get / raw reads"),
        get_many.ratio_to(&limit, "get_many / raw reads"),
    ];
    Ok([limit, get, get_many, misses].into_iter().chain(ratios).collect())
}

/// Makes the store; its ids.
fn build(place: &Place, arguments: &ColdArguments) -> Outcome<RowIds> {
    let rows = Rows::generate(arguments.vectors, arguments.dim, arguments.ids_form);
    let store = place.fresh_store("store", 256 << 20)?;
    let options = DatabaseOptions::new(rows.dimension).id_kind(arguments.ids_form.kind());
    let database = store.create_database("vectors", options)?;
    rows.put_into(&database, 1000)?;
    store.close()?;
    Ok(rows.ids)
}

/// Reads from `depth` tasks; seconds taken.
fn read_each(
    database: &Database,
    ids: &RowIds,
    arguments: &ColdArguments,
    seed: u64,
) -> Outcome<f64> {
    let watch = Stopwatch::start();
    let depth = arguments.depth;
    let readers = (0..depth)
        .map(|task| {
            let reads = arguments.reads / depth + usize::from(task < arguments.reads % depth);
            let random = Random::new(seed << 32 | task as u64);
            read_some(database, ids, arguments.vectors, reads, random)
        })
        .collect();
    tasks::run(readers)?;
    Ok(watch.seconds())
}

async fn read_some(
    database: &Database,
    ids: &RowIds,
    vectors: usize,
    reads: usize,
    mut random: Random,
) -> Outcome<()> {
    for _ in 0..reads {
        let vector = database.get(ids.get(random.below(vectors))).await?;
        std::hint::black_box(vector.ok_or("a stored vector is missing")?[0]);
    }
    Ok(())
}

/// Reads `depth` ids at a time from one task; seconds taken.
async fn read_many(
    database: &Database,
    ids: &RowIds,
    arguments: &ColdArguments,
    seed: u64,
) -> Outcome<f64> {
    let mut random = Random::new(!seed);
    let watch = Stopwatch::start();
    let mut left = arguments.reads;
    while 0 < left {
        let count = left.min(arguments.depth);
        let wanted: Vec<IdRef<'_>> =
            (0..count).map(|_| ids.get(random.below(arguments.vectors))).collect();
        for vector in database.get_many(&wanted).await? {
            std::hint::black_box(vector.ok_or("a stored vector is missing")?[0]);
        }
        left -= count;
    }
    Ok(watch.seconds())
}
