//! `synced`: durable single writes of 512-byte vectors, from 1, 16 and 64 writers at once.
//!
//! Writers are async tasks on two threads; in a row of its own one writer is a thread that blocks.
//! Each put is acknowledged only when the log is on disk, so one writer pays a whole sync and many
//! share it. Beside it: one block written and synced at a time by plain system calls, without an
//! engine, to a file that grows and over blocks that exist.

use clap::Args;
use hdrhistogram::Histogram;
use nephrite::{Database, DatabaseOptions, Durability, blocking};
use nephrite_io::block_on;

use crate::{
    Outcome,
    clock::Stopwatch,
    device::{self, LogBlocks},
    place::Place,
    report::Figure,
    tasks,
};

const DIMENSION: u32 = 128;

#[derive(Debug, Args)]
pub(crate) struct SyncedArguments {
    /// How many writers; the first is the one that the others are compared with
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    writers: Vec<u64>,
    /// Seconds per measurement
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// What a number of writers did.
struct Series {
    writers: u64,
    rate: Figure,
    p50: Figure,
    p99: Figure,
}

impl Series {
    fn new(writers: u64) -> Self {
        Self::named(writers, &format!("{writers} writers"))
    }

    fn named(writers: u64, name: &str) -> Self {
        let figure = |what: &str, unit| Figure::new(format!("{name}{what}"), unit);
        Self {
            writers,
            rate: figure("", "writes/s"),
            p50: figure(", p50", "us"),
            p99: figure(", p99", "us"),
        }
    }

    fn push(&mut self, seconds: f64, latencies: &Histogram<u64>) {
        self.rate.push(latencies.len() as f64 / seconds);
        self.p50.push(latencies.value_at_quantile(0.50) as f64);
        self.p99.push(latencies.value_at_quantile(0.99) as f64);
    }
}

pub(crate) fn run(place: &Place, arguments: &SyncedArguments) -> Outcome<Vec<Figure>> {
    let mut written = Figure::new("raw: 4 KiB over written blocks + sync", "writes/s");
    let mut growing = Figure::new("raw: 4 KiB append + sync", "writes/s");
    let mut blocked = Series::named(1, "1 blocking writer");
    let mut series: Vec<Series> = arguments.writers.iter().map(|it| Series::new(*it)).collect();
    let store = place.fresh_store("store", 256 << 20)?;
    store.create_database("synced", DatabaseOptions::new(DIMENSION))?;
    let database = block_on(store.as_async().database("synced"))?;
    let thread = store.database("synced")?;
    for _ in 0..arguments.rounds {
        let (disk, path) = (&place.disk, place.join("raw"));
        for (blocks, figure) in
            [(LogBlocks::Written, &mut written), (LogBlocks::Growing, &mut growing)]
        {
            figure.push(device::synced_appends(disk, &path, blocks, arguments.seconds)?);
            place.remove("raw")?;
        }
        let watch = Stopwatch::start();
        let latencies = write_blocking(&thread, watch, arguments.seconds)?;
        blocked.push(watch.seconds(), &latencies);
        for of_count in &mut series {
            let (seconds, latencies) = measure(&database, of_count.writers, arguments.seconds)?;
            of_count.push(seconds, &latencies);
        }
    }
    drop((database, thread));
    store.close()?;
    Ok(figures(written, growing, blocked, series))
}

fn figures(written: Figure, growing: Figure, blocked: Series, series: Vec<Series>) -> Vec<Figure> {
    let mut figures: Vec<Figure> = series
        .iter()
        .map(|it| it.rate.ratio_to(&growing, format!("{} writers / raw append + sync", it.writers)))
        .collect();
    if let Some(first) = series.first() {
        let name = format!("{} writers / raw over written blocks", first.writers);
        figures.push(first.rate.ratio_to(&written, name));
        for other in series.iter().skip(1) {
            let name = format!("{} writers / {} writers", other.writers, first.writers);
            figures.push(other.rate.ratio_to(&first.rate, name));
        }
    }
    figures.push(blocked.rate.ratio_to(&growing, "1 blocking writer / raw append + sync"));
    figures.push(blocked.rate.ratio_to(&written, "1 blocking writer / raw over written blocks"));
    let mut all = vec![written, growing];
    let series = std::iter::once(blocked).chain(series);
    all.extend(series.flat_map(|of_count| [of_count.rate, of_count.p50, of_count.p99]));
    all.append(&mut figures);
    all
}

/// Runs the writers; seconds taken and the latency of every put in microseconds.
fn measure(database: &Database, writers: u64, seconds: f64) -> Outcome<(f64, Histogram<u64>)> {
    let watch = Stopwatch::start();
    let all = (0..writers).map(|writer| write(database.clone(), writer, watch, seconds)).collect();
    let mut latencies = Histogram::new(3)?;
    for of_writer in tasks::run(all)? {
        latencies.add(of_writer)?;
    }
    Ok((watch.seconds(), latencies))
}

/// One writer: the next put starts when the one before is acknowledged.
async fn write(
    database: Database,
    writer: u64,
    watch: Stopwatch,
    seconds: f64,
) -> Outcome<Histogram<u64>> {
    let mut latencies = Histogram::new(3)?;
    let vector = [writer as f32; DIMENSION as usize];
    let mut number = 0;
    while watch.seconds() < seconds {
        let id = writer << 32 | number;
        let one = Stopwatch::start();
        database.put_with(id, &vector, Durability::Synced).await?;
        latencies.record(one.microseconds())?;
        number += 1;
    }
    Ok(latencies)
}

/// One writer that blocks its thread.
fn write_blocking(
    database: &blocking::Database,
    watch: Stopwatch,
    seconds: f64,
) -> Outcome<Histogram<u64>> {
    let mut latencies = Histogram::new(3)?;
    let vector = [0.5; DIMENSION as usize];
    let mut number = 0;
    while watch.seconds() < seconds {
        let id = 1 << 40 | number;
        let one = Stopwatch::start();
        database.put_with(id, &vector, Durability::Synced)?;
        latencies.record(one.microseconds())?;
        number += 1;
    }
    Ok(latencies)
}
