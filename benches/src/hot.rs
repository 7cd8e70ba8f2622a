//! `hot`: random reads of vectors that are in memory, beside what people write themselves.
//!
//! Rivals, in the same rounds: a flat array of all vectors (rows are positions), a locked hash map
//! with the ids of the store, a mapped file behind a hash map, and `pread` from the system's cache.
//! One value of every cache line of a vector is loaded, so that a lookup which does not touch the
//! data cannot look fast.
//!
//! Reads come in two kinds. *One by one*: the next row follows from the vector just read, as in a
//! walk over a graph; this is the time that a read takes. *Overlapping*: the rows are known before,
//! so the processor works on several reads at once as far as their instructions let it.
//!
//! Times are processor time of the reading thread, so that what else runs on the machine counts
//! only by what it does to the caches. Of two threads the slower one counts. That is good for an
//! idle machine only: where other programs run, the two take turns more than they run at once, and
//! hide from each other. The ratio "on one page", which should be far below two, tells.

use std::{
    future::Future,
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
};

use clap::Args;
use nephrite::{DatabaseOptions, IdRef, VectorRef, blocking};
use nephrite_io::block_on;

use crate::{
    Outcome,
    clock::ThreadWatch,
    hot_rivals::Rivals,
    place::Place,
    report::Figure,
    rows::{IdForm, Random, Rows},
};

/// f32 values in a cache line.
const LINE: usize = 16;
/// Bytes in a cache line.
const LINE_BYTES: usize = 64;
/// Times that everything is read before it must be in the cache.
const PASSES_MAX: usize = 20;
/// Ids per `get_many`.
const MANY: usize = 100;
/// Bytes of vectors that fit a common last-level cache with what leads to them.
const SMALL_BYTES: usize = 8 << 20;
/// Threads of the figures for two.
const THREADS: usize = 2;

#[derive(Debug, Args)]
pub(crate) struct HotArguments {
    /// Vectors in the store
    #[arg(long, default_value_t = 1_000_000)]
    vectors: usize,
    /// Values per vector
    #[arg(long, default_value_t = 128)]
    dim: u32,
    /// Ids of the vectors
    #[arg(long, value_enum, default_value_t = IdForm::Dense)]
    ids_form: IdForm,
    /// Reads per measurement
    #[arg(long, default_value_t = 200_000)]
    reads: usize,
    /// Rounds
    #[arg(long, default_value_t = 11)]
    rounds: usize,
}

pub(crate) fn run(place: &Place, arguments: &HotArguments) -> Outcome<Vec<Figure>> {
    let rows = Rows::generate(arguments.vectors, arguments.dim, arguments.ids_form);
    let store = place.fresh_store("store", rows.bytes() * 4 + (64 << 20))?;
    let database = fill(&store, &rows)?;
    let rivals = Rivals::new(place, &rows)?;
    let orders = Orders::new(&rows, arguments.reads);
    let bench = Bench { rows: &rows, database: &database, rivals: &rivals, orders: &orders };
    let mut figures = Figures::default();
    for _ in 0..arguments.rounds {
        bench.round(&mut figures)?;
    }
    drop(database);
    store.close()?;
    Ok(figures.finish())
}

/// Rows to read.
struct Orders {
    all: Vec<usize>,
    other: Vec<usize>,
    small: Vec<usize>,
    one: Vec<usize>,
}

impl Orders {
    fn new(rows: &Rows, reads: usize) -> Self {
        let order = |seed, below: usize| {
            let mut random = Random::new(seed);
            (0..reads).map(|_| random.below(below)).collect()
        };
        let small = SMALL_BYTES / (rows.dimension as usize * 4);
        Self {
            all: order(5, rows.len()),
            other: order(6, rows.len()),
            small: order(7, rows.len().min(small)),
            one: order(8, 1),
        }
    }
}

/// Samples by name, in the order of the first round.
#[derive(Default)]
struct Figures(Vec<(&'static str, Figure)>);

impl Figures {
    fn push(&mut self, name: &'static str, nanoseconds: f64) {
        if let Some((_, figure)) = self.0.iter_mut().find(|(known, _)| *known == name) {
            return figure.push(nanoseconds);
        }
        let mut figure = Figure::new(name, "ns/vector");
        figure.push(nanoseconds);
        self.0.push((name, figure));
    }

    /// With the ratios that have targets: both sides of each were measured side by side.
    fn finish(self) -> Vec<Figure> {
        let ratio = |of: &str, to: &str, name: &str| {
            let find = |name| self.0.iter().find(|(known, _)| *known == name).map(|(_, it)| it);
            Some(find(of)?.ratio_to(find(to)?, name))
        };
        let ratios = [
            ratio(FLAT, GET, "speed of get / flat array, one by one (dense: 0.8 or more)"),
            ratio(MAP, GET, "speed of get / locked map, one by one (dense: 2.3, others: 1.0)"),
            ratio(FLAT_AHEAD, GET_AHEAD, "speed of get / flat array, overlapping"),
            ratio(MAP_AHEAD, GET_AHEAD, "speed of get / locked map, overlapping"),
            ratio(MANY_AHEAD, GET_AHEAD, "time of get_many / get, overlapping (0.6 or less)"),
            ratio(MAPPED, GET, "speed of get / mapped file, one by one (1.0 or more)"),
            ratio(PREAD, GET, "speed of get / pread, one by one (20 or more)"),
            ratio(GET_AHEAD, GET_TWO, "two threads / one (1.8 or more)"),
            ratio(FLAT_AHEAD, FLAT_TWO, "two threads / one, of the flat array"),
            ratio(ONE_PAGE, ONE_PAGE_TWO, "two threads / one on one page"),
        ];
        let figures: Vec<Figure> = self.0.iter().map(|(_, figure)| figure.clone()).collect();
        figures.into_iter().chain(ratios.into_iter().flatten()).collect()
    }
}

const FLAT: &str = "flat array, one by one";
const FLAT_AHEAD: &str = "flat array, overlapping";
const MAP: &str = "locked map, one by one";
const MAP_AHEAD: &str = "locked map, overlapping";
const MAPPED: &str = "mapped file behind a map, one by one";
const PREAD: &str = "pread, one by one";
const GET: &str = "get, blocking, one by one";
const GET_ASYNC: &str = "get, async, one by one";
const GET_AHEAD: &str = "get, blocking, overlapping";
const GET_TWO: &str = "get, blocking, overlapping, per vector of two threads";
const FLAT_TWO: &str = "flat array, overlapping, per vector of two threads";
const MANY_AHEAD: &str = "get_many(100), overlapping";
const SMALL: &str = "get, one by one, of 8 MiB (60 or less)";
const SMALL_FLAT: &str = "flat array, one by one, of 8 MiB";
const ONE_PAGE: &str = "get of one vector";
const ONE_PAGE_TWO: &str = "get of one vector, per vector of two threads";

struct Bench<'a> {
    rows: &'a Rows,
    database: &'a blocking::Database,
    rivals: &'a Rivals<'a>,
    orders: &'a Orders,
}

impl Bench<'_> {
    fn round(&self, figures: &mut Figures) -> Outcome<()> {
        let Orders { all, small, one, .. } = self.orders;
        let rivals = self.rivals;
        let flat = |row| Ok(touch(rivals.flat(row)));
        let map = |row| rivals.locked(row, touch);
        let get = |row| self.get(row);
        let mut buffer = vec![0; self.rows.dimension as usize * 4];
        let mut pread = |row| {
            rivals.read(row, &mut buffer)?;
            Ok(touch_bytes(&buffer))
        };
        figures.push(FLAT, one_by_one(all, flat)?);
        figures.push(GET, one_by_one(all, get)?);
        figures.push(MAP, one_by_one(all, map)?);
        figures.push(GET_ASYNC, one_by_one(all, |row| self.get_async(row))?);
        figures.push(MAPPED, one_by_one(all, |row| Ok(touch_bytes(rivals.mapped(row)?)))?);
        figures.push(PREAD, one_by_one(&all[..all.len() / 10], &mut pread)?);
        figures.push(FLAT_AHEAD, overlapping(all, flat)?);
        figures.push(GET_AHEAD, overlapping(all, get)?);
        figures.push(MAP_AHEAD, overlapping(all, map)?);
        figures.push(MANY_AHEAD, timed(all.len(), || self.get_many(all))?);
        figures.push(GET_TWO, two_threads([all, &self.orders.other], get)?);
        figures.push(FLAT_TWO, two_threads([all, &self.orders.other], flat)?);
        one_by_one(small, get)?; // brings them into the processor's cache
        figures.push(SMALL, one_by_one(small, get)?);
        figures.push(SMALL_FLAT, one_by_one(small, flat)?);
        figures.push(ONE_PAGE, overlapping(one, get)?);
        figures.push(ONE_PAGE_TWO, two_threads([one, one], get)?);
        Ok(())
    }

    #[inline]
    fn get(&self, row: usize) -> Outcome<f32> {
        let vector = self.database.get(self.rows.ids.get(row))?;
        Ok(touch(&vector.ok_or("a stored vector is missing")?))
    }

    #[inline]
    fn get_async(&self, row: usize) -> Outcome<f32> {
        let vector = self.database.as_async().get(self.rows.ids.get(row));
        let Poll::Ready(vector) = pin!(vector).poll(&mut Context::from_waker(Waker::noop())) else {
            return Err("a vector in memory is told at the first poll".into());
        };
        Ok(touch(&vector?.ok_or("a stored vector is missing")?))
    }

    fn get_many(&self, order: &[usize]) -> Outcome<f32> {
        let mut sum = 0.0;
        let mut ids: Vec<IdRef<'_>> = Vec::with_capacity(MANY);
        for batch in order.chunks(MANY) {
            ids.clear();
            ids.extend(batch.iter().map(|row| self.rows.ids.get(*row)));
            for vector in self.database.get_many(&ids)? {
                sum += touch(&vector.ok_or("a stored vector is missing")?);
            }
        }
        Ok(sum)
    }
}

/// Stores the rows and reads them until all are in the cache.
fn fill(store: &blocking::Store, rows: &Rows) -> Outcome<blocking::Database> {
    let options = DatabaseOptions::new(rows.dimension).id_kind(rows.ids.kind());
    let database = store.create_database("vectors", options)?;
    rows.put_into(&database, 1000)?;
    store.flush()?;
    // A compaction that still runs brings new pages; it ends.
    for _ in 0..PASSES_MAX {
        let before = store.stats().io.reads;
        read_all(&database, rows)?;
        if store.stats().io.reads == before {
            return Ok(database);
        }
    }
    Err(format!("pages are still being read after {PASSES_MAX} passes: this is not hot").into())
}

fn read_all(database: &blocking::Database, rows: &Rows) -> Outcome<()> {
    for start in (0..rows.len()).step_by(MANY) {
        let end = rows.len().min(start + MANY);
        let ids: Vec<IdRef<'_>> = (start..end).map(|row| rows.ids.get(row)).collect();
        let vectors = block_on(database.as_async().get_many(&ids))?;
        black_box::<Vec<Option<VectorRef>>>(vectors);
    }
    Ok(())
}

/// Nanoseconds per read of `reads` reads.
fn timed(reads: usize, read: impl FnOnce() -> Outcome<f32>) -> Outcome<f64> {
    let watch = ThreadWatch::start();
    black_box(read()?);
    Ok(watch.seconds() / reads as f64 * 1e9)
}

/// Nanoseconds per read when each row follows from the vector before.
fn one_by_one(order: &[usize], mut read: impl FnMut(usize) -> Outcome<f32>) -> Outcome<f64> {
    // Zero, which the compiler does not know: no vector changes the row, all must have arrived.
    let nothing = black_box(0);
    timed(order.len(), || {
        let (mut last, mut sum) = (0, 0.0);
        for row in order {
            let read = read(row + (last & nothing))?;
            last = read.to_bits() as usize;
            sum += read;
        }
        Ok(sum)
    })
}

/// Nanoseconds per read when all rows are known before.
fn overlapping(order: &[usize], mut read: impl FnMut(usize) -> Outcome<f32>) -> Outcome<f64> {
    timed(order.len(), || order.iter().map(|row| read(*row)).sum())
}

/// Nanoseconds per vector when both threads read at once and each has a processor.
fn two_threads(
    orders: [&[usize]; THREADS],
    read: impl Fn(usize) -> Outcome<f32> + Copy + Send,
) -> Outcome<f64> {
    let times = std::thread::scope(|scope| {
        let threads = orders.map(|order| scope.spawn(move || overlapping(order, read)));
        threads.map(|thread| thread.join().map_err(|_| "a benchmark thread panicked")?)
    });
    let mut slowest: f64 = 0.0;
    for time in times {
        slowest = slowest.max(time?);
    }
    Ok(slowest / THREADS as f64)
}

/// Loads every cache line of a vector.
#[inline]
fn touch(vector: &[f32]) -> f32 {
    vector.iter().step_by(LINE).sum()
}

/// Loads every cache line of a vector that is still bytes.
#[inline]
fn touch_bytes(vector: &[u8]) -> f32 {
    let first = |line: &[u8]| line.first_chunk().map_or(0.0, |value| f32::from_le_bytes(*value));
    vector.chunks(LINE_BYTES).map(first).sum()
}
