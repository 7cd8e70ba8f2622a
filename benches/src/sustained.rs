//! `sustained`: random updates of a data set several times the cache, with flushes and compactions
//! running, and what reads cost meanwhile.
//!
//! One thread puts vectors under random known ids as fast as it is let, or at a rate that is given,
//! another gets random ids.
//! The clock of the updates runs until what they wrote is flushed. Beside it: sequential direct
//! writes before and after, the same reads without any writes, what was written for each byte of
//! the updates (log, compactions, all of it), and what the segments take at the end.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use clap::Args;
use hdrhistogram::Histogram;
use nephrite::{
    DatabaseOptions, Durability, Ids, StoreStats,
    blocking::{Database, Store},
};

use crate::{Outcome, clock::Stopwatch, device, place::Place, report::Figure, rows::Random};

/// Bytes of the sequential writes that the updates are compared with.
const RAW_BYTES: u64 = 1 << 30;
/// Vectors of one batch of the load.
const BATCH: u64 = 1000;
/// Longest read that the histogram tells apart, in nanoseconds.
const LATENCY_MAX: u64 = 60_000_000_000;

#[derive(Debug, Args)]
pub(crate) struct SustainedArguments {
    /// Memory limit of the store, MiB; half of it is the cache
    #[arg(long, default_value_t = 256)]
    memory: u64,
    /// Size of the data set, as a multiple of the cache
    #[arg(long, default_value_t = 4)]
    times: u64,
    /// Values per vector
    #[arg(long, default_value_t = 128)]
    dim: u32,
    /// Seconds of updates; the reads without writes take a quarter of that
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Updates per second, evenly but where it has to catch up; without it as many as are taken
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
}

impl SustainedArguments {
    fn record_bytes(&self) -> u64 {
        u64::from(self.dim) * 4
    }

    fn vectors(&self) -> u64 {
        (self.memory << 20) / 2 * self.times / self.record_bytes()
    }

    fn random_id(&self, random: &mut Random) -> Outcome<u64> {
        Ok(random.below(usize::try_from(self.vectors())?) as u64)
    }
}

pub(crate) fn run(place: &Place, arguments: &SustainedArguments) -> Outcome<Vec<Figure>> {
    let store = place.fresh_store("store", arguments.memory << 20)?;
    store.create_database("updated", DatabaseOptions::new(arguments.dim))?;
    let database = store.database("updated")?;
    load(&database, arguments)?;
    let mut raw = Figure::new("raw: sequential direct writes", "MB/s");
    raw.push(sequential(place)?);
    let quiet = reads(&database, arguments, arguments.seconds / 4.0, &AtomicBool::new(false))?;
    let before = store.stats();
    let (rate, busy) = updates_and_reads(&store, &database, arguments)?;
    let after = store.stats();
    raw.push(sequential(place)?);
    let mut updates = Figure::new("updates", "MB/s");
    updates.push(rate * arguments.record_bytes() as f64 / 1e6);
    let mut figures = vec![
        one("updates", "vectors/s", rate),
        updates.ratio_to(&raw, "updates / raw"),
        one("segments / live vectors", "x", space(&database, arguments)?),
    ];
    figures.extend(amounts(&before, &after, arguments));
    let (quiet_p99, busy_p99) =
        (p99("get without writes, p99", &quiet), p99("get meanwhile, p99", &busy));
    figures.push(busy_p99.ratio_to(&quiet_p99, "get p99 meanwhile / without writes"));
    figures.extend([raw, updates, quiet_p99, busy_p99]);
    drop(database);
    store.close()?;
    Ok(figures)
}

/// A counter with what it is called.
type Counter = (&'static str, fn(&StoreStats) -> u64);

/// What was done, and what it moved for each byte of the updates.
fn amounts(before: &StoreStats, after: &StoreStats, arguments: &SustainedArguments) -> Vec<Figure> {
    let counts: [Counter; 5] = [
        ("flushes", |stats| stats.flushes),
        ("compactions", |stats| stats.compactions),
        ("writes that waited", |stats| stats.write_stalls),
        ("flushes that waited", |stats| stats.flush_stalls),
        ("pieces that waited for readers", |stats| stats.writes_paced),
    ];
    let moved: [Counter; 4] = [
        ("log", |stats| stats.wal_bytes_written),
        ("read by compactions", |stats| stats.compaction_bytes_read),
        ("written by compactions", |stats| stats.compaction_bytes_written),
        ("written in all", |stats| stats.io.bytes_written),
    ];
    let grown = |of: fn(&StoreStats) -> u64| (of(after) - of(before)) as f64;
    let updated = grown(|stats| stats.wal_records) * arguments.record_bytes() as f64;
    let counted = counts.into_iter().map(|(name, of)| one(name, "", grown(of)));
    let bytes = moved
        .into_iter()
        .map(|(name, of)| one(&format!("{name} / bytes of updates"), "x", grown(of) / updated));
    counted.chain(bytes).collect()
}

/// Bytes of the segments over those of the vectors.
fn space(database: &Database, arguments: &SustainedArguments) -> Outcome<f64> {
    let live = arguments.vectors() * arguments.record_bytes();
    Ok(database.stats()?.segment_bytes as f64 / live as f64)
}

fn one(name: &str, unit: &'static str, sample: f64) -> Figure {
    let mut figure = Figure::new(name, unit);
    figure.push(sample);
    figure
}

fn p99(name: &str, latencies: &Histogram<u64>) -> Figure {
    one(name, "us", latencies.value_at_quantile(0.99) as f64 / 1e3)
}

/// Megabytes per second.
fn sequential(place: &Place) -> Outcome<f64> {
    let seconds = device::sequential_write(&place.disk, &place.join("raw"), RAW_BYTES)?;
    place.remove("raw")?;
    Ok(RAW_BYTES as f64 / 1e6 / seconds)
}

fn load(database: &Database, arguments: &SustainedArguments) -> Outcome<()> {
    let mut random = Random::new(5);
    for first in (0..arguments.vectors()).step_by(usize::try_from(BATCH)?) {
        let count = BATCH.min(arguments.vectors() - first);
        let values = (0..count * u64::from(arguments.dim)).map(|_| random.next_f32());
        let values: Vec<f32> = values.collect();
        database.put_many(Ids::Consecutive(first), &values, Durability::Buffered)?;
    }
    Ok(database.flush()?)
}

/// Random gets until the time is over or somebody says so.
fn reads(
    database: &Database,
    arguments: &SustainedArguments,
    seconds: f64,
    ended: &AtomicBool,
) -> Outcome<Histogram<u64>> {
    let mut random = Random::new(6);
    let mut latencies = Histogram::new_with_max(LATENCY_MAX, 3)?;
    let watch = Stopwatch::start();
    // Relaxed: a read more or less does not matter.
    while watch.seconds() < seconds && !ended.load(Ordering::Relaxed) {
        let id = arguments.random_id(&mut random)?;
        let one = Stopwatch::start();
        let found = database.get(id)?;
        latencies.saturating_record(one.nanoseconds());
        if found.is_none() {
            return Err(format!("id {id} is not there").into());
        }
    }
    Ok(latencies)
}

/// Updates per second, and what reads took meanwhile.
fn updates_and_reads(
    store: &Store,
    database: &Database,
    arguments: &SustainedArguments,
) -> Outcome<(f64, Histogram<u64>)> {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| reads(database, arguments, f64::INFINITY, &ended));
        let written = updates(store, database, arguments);
        ended.store(true, Ordering::Relaxed); // as above
        let latencies = reader.join().map_err(|_| "the reading thread panicked")??;
        Ok((written?, latencies))
    })
}

fn updates(store: &Store, database: &Database, arguments: &SustainedArguments) -> Outcome<f64> {
    let mut random = Random::new(7);
    let mut vector = vec![0.5_f32; arguments.dim as usize];
    let (watch, mut count) = (Stopwatch::start(), 0_u64);
    while watch.seconds() < arguments.seconds {
        if let Some(rate) = arguments.rate {
            sleep_until(watch, (count as f64 / rate).min(arguments.seconds));
        }
        vector[0] = random.next_f32();
        database.put(arguments.random_id(&mut random)?, &vector)?;
        count += 1;
    }
    store.flush()?;
    Ok(count as f64 / watch.seconds())
}

/// Sleeps until so many seconds of the watch have gone.
#[expect(clippy::disallowed_methods, reason = "a benchmark that keeps to a rate sleeps")]
fn sleep_until(watch: Stopwatch, seconds: f64) {
    let left = seconds - watch.seconds();
    if 0.0 < left {
        std::thread::sleep(Duration::from_secs_f64(left));
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if 0.0 < number && f64::is_finite(number) => Ok(number),
        _ => Err(format!("{text} is no positive number")),
    }
}
