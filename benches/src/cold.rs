//! `cold`: random reads of more data than the cache holds, beside raw reads at the same depth.
//!
//! Both sides keep the same number of reads in flight: the engine as that many tasks on two
//! threads that each `get` one vector after the other, the device through the I/O trait alone,
//! one page at a time. The order alternates. `get_many` is one task that asks for as many ids.
//! Ids are uniform, or popular after Zipf and scattered over the pages; then a round that is not
//! counted warms the cache.

use clap::Args;
use nephrite::{Database, DatabaseOptions, IdRef, blocking};
use nephrite_io::{OpenOptions, block_on};

use crate::{
    Outcome,
    clock::Stopwatch,
    device,
    place::Place,
    report::Figure,
    rows::{IdForm, Random, RowIds, Rows},
    tasks,
    zipf::Zipf,
};

#[derive(Debug, Args)]
pub(crate) struct ColdArguments {
    /// Vectors in the store
    #[arg(long, default_value_t = 2_000_000)]
    vectors: usize,
    /// Values per vector
    #[arg(long, default_value_t = 128)]
    dim: u32,
    /// Bytes of a page of vectors; the engine's own choice if not given
    #[arg(long)]
    page_bytes: Option<u32>,
    /// Ids of the vectors
    #[arg(long, value_enum, default_value_t = IdForm::Dense)]
    ids_form: IdForm,
    /// Memory limit of the store, MiB; half of it is cache
    #[arg(long, default_value_t = 64)]
    memory: u64,
    /// Popularity of the ids: uniform, or after Zipf with exponent 0.99
    #[arg(long)]
    zipf: bool,
    /// The threads of the tasks drive the reads on rings of their own
    #[arg(long)]
    driven: bool,
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

/// What is read: the ids, and how popular each is.
struct Wanted {
    ids: RowIds,
    rows: usize,
    zipf: Option<Zipf>,
}

impl Wanted {
    fn draw(&self, random: &mut Random) -> IdRef<'_> {
        let row = match &self.zipf {
            Some(zipf) => usize::try_from(zipf.draw(random)).expect("below the number of rows"),
            None => random.below(self.rows),
        };
        self.ids.get(row)
    }
}

pub(crate) fn run(place: &Place, arguments: &ColdArguments) -> Outcome<Vec<Figure>> {
    let wanted = build(place, arguments)?;
    let store = blocking::Store::open(place.join("store"), place.config(arguments.memory << 20))?;
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
    let mut kept = Figure::new("cache that holds vectors without their pages", "percent");
    let reads = arguments.reads as f64;
    if arguments.zipf {
        read_each(&store, &database, &wanted, arguments, u64::from(u32::MAX))?;
    }
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
        get.push(reads / read_each(&store, &database, &wanted, arguments, round)?);
        misses.push((store.stats().io.reads - before) as f64 / reads);
        let stats = store.stats();
        kept.push(stats.cache_record_bytes as f64 * 100.0 / stats.cache_bytes as f64);
        get_many.push(reads / block_on(read_many(&database, &wanted, arguments, round))?);
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
    Ok([limit, get, get_many, misses, kept].into_iter().chain(ratios).collect())
}

/// Makes the store; what is read of it.
fn build(place: &Place, arguments: &ColdArguments) -> Outcome<Wanted> {
    let rows = Rows::generate(arguments.vectors, arguments.dim, arguments.ids_form);
    let store = place.fresh_store("store", 256 << 20)?;
    let mut options = DatabaseOptions::new(rows.dimension).id_kind(arguments.ids_form.kind());
    if let Some(bytes) = arguments.page_bytes {
        options = options.page_bytes(bytes);
    }
    let database = store.create_database("vectors", options)?;
    rows.put_into(&database, 1000)?;
    store.close()?;
    let zipf = arguments.zipf.then(|| Zipf::new(arguments.vectors as u64));
    Ok(Wanted { ids: rows.ids, rows: arguments.vectors, zipf })
}

/// Reads from `depth` tasks; seconds taken.
fn read_each(
    store: &blocking::Store,
    database: &Database,
    wanted: &Wanted,
    arguments: &ColdArguments,
    seed: u64,
) -> Outcome<f64> {
    let watch = Stopwatch::start();
    let depth = arguments.depth;
    let readers = (0..depth)
        .map(|task| {
            let reads = arguments.reads / depth + usize::from(task < arguments.reads % depth);
            let random = Random::new(seed << 32 | task as u64);
            read_some(database, wanted, reads, random)
        })
        .collect();
    match arguments.driven {
        true => tasks::run_with(readers, |share| store.drive(share))?,
        false => tasks::run(readers)?,
    };
    Ok(watch.seconds())
}

async fn read_some(
    database: &Database,
    wanted: &Wanted,
    reads: usize,
    mut random: Random,
) -> Outcome<()> {
    for _ in 0..reads {
        let vector = database.get(wanted.draw(&mut random)).await?;
        std::hint::black_box(vector.ok_or("a stored vector is missing")?[0]);
    }
    Ok(())
}

/// Reads `depth` ids at a time from one task; seconds taken.
async fn read_many(
    database: &Database,
    wanted: &Wanted,
    arguments: &ColdArguments,
    seed: u64,
) -> Outcome<f64> {
    let mut random = Random::new(!seed);
    let watch = Stopwatch::start();
    let mut left = arguments.reads;
    while 0 < left {
        let count = left.min(arguments.depth);
        let ids: Vec<IdRef<'_>> = (0..count).map(|_| wanted.draw(&mut random)).collect();
        for vector in database.get_many(&ids).await? {
            std::hint::black_box(vector.ok_or("a stored vector is missing")?[0]);
        }
        left -= count;
    }
    Ok(watch.seconds())
}
