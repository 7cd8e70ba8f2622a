//! `open`: from a cold start to the first vector.
//!
//! The store was closed and its files were dropped from the system's cache. The clock runs over
//! `Store::open`, `database` and one `get` of a random id. Beside it: what choosing the I/O backend
//! costs (part of every open), and one direct read of a block.

use std::{fs, path::Path};

use clap::Args;
use nephrite::{DatabaseOptions, blocking::Store};
use nephrite_io::{DiskOptions, OpenOptions, block_on, open_disk};

use crate::{
    Outcome,
    clock::Stopwatch,
    device,
    place::{Place, evict},
    report::Figure,
    rows::{IdForm, Random, Rows},
};

#[derive(Debug, Args)]
pub(crate) struct OpenArguments {
    /// Vectors in the store
    #[arg(long, default_value_t = 1_000_000)]
    vectors: usize,
    /// Values per vector
    #[arg(long, default_value_t = 128)]
    dim: u32,
    /// Size of a log file, MiB
    #[arg(long, default_value_t = 16)]
    wal: u64,
    /// Rounds
    #[arg(long, default_value_t = 9)]
    rounds: usize,
}

const MEMORY_BYTES: u64 = 256 << 20;

pub(crate) fn run(place: &Place, arguments: &OpenArguments) -> Outcome<Vec<Figure>> {
    let mut figures = Vec::new();
    for form in [IdForm::Dense, IdForm::Shuffled, IdForm::Strings] {
        let rows = Rows::generate(arguments.vectors, arguments.dim, form);
        build(place, arguments, &rows)?;
        let figure = |what, unit| Figure::new(format!("{}: {what}", form.name()), unit);
        let mut parts = [
            figure("open", "ms"),
            figure("database", "ms"),
            figure("first get", "ms"),
            figure("total", "ms"),
            figure("read from disk", "MB"),
        ];
        let mut random = Random::new(4);
        for _ in 0..arguments.rounds {
            let row = random.below(rows.len());
            let found = open_and_read(place, arguments, &rows, row)?;
            parts.iter_mut().zip(found).for_each(|(part, found)| part.push(found));
        }
        figures.extend(parts);
    }
    figures.extend(baselines(place, arguments.rounds)?);
    Ok(figures)
}

fn build(place: &Place, arguments: &OpenArguments, rows: &Rows) -> Outcome<()> {
    place.remove("store")?;
    let config = place.config(MEMORY_BYTES).wal_segment_bytes(arguments.wal << 20);
    let store = Store::create(place.join("store"), config)?;
    let options = DatabaseOptions::new(rows.dimension).id_kind(rows.ids.kind());
    let database = store.create_database("vectors", options)?;
    rows.put_into(&database, 1000)?;
    Ok(store.close()?)
}

/// Milliseconds for open, database and get, and all together; megabytes read.
fn open_and_read(
    place: &Place,
    arguments: &OpenArguments,
    rows: &Rows,
    row: usize,
) -> Outcome<[f64; 5]> {
    let path = place.join("store");
    let config = place.config(MEMORY_BYTES).wal_segment_bytes(arguments.wal << 20);
    evict(&path)?;
    let watch = Stopwatch::start();
    let store = Store::open(&path, config)?;
    let opened = watch.seconds();
    let database = store.database("vectors")?;
    let found = watch.seconds();
    let vector = database.get(rows.ids.get(row))?;
    let total = watch.seconds();
    if vector.as_deref() != Some(rows.vector(row)) {
        return Err(format!("row {row} does not hold what was stored").into());
    }
    drop(vector);
    let read = store.stats().io.bytes_read as f64 / 1e6;
    store.close()?;
    Ok([opened * 1e3, (found - opened) * 1e3, (total - found) * 1e3, total * 1e3, read])
}

/// What an open cannot avoid.
fn baselines(place: &Place, rounds: usize) -> Outcome<Vec<Figure>> {
    let mut probe = Figure::new("raw: choosing the I/O backend", "ms");
    let mut read = Figure::new("raw: one direct read of 4 KiB", "ms");
    let segment = a_segment(&place.join("store").join("segments"))?;
    let file = block_on(place.disk.open(&segment, OpenOptions::read_only()))?;
    for round in 0..rounds {
        let watch = Stopwatch::start();
        let disk = open_disk(DiskOptions::new(), place.path())?;
        probe.push(watch.seconds() * 1e3);
        block_on(disk.shutdown())?;
        let seconds = device::random_read(&place.disk, &file, 4096, 1, 1, round as u64)?;
        read.push(seconds * 1e3);
    }
    Ok(vec![probe, read])
}

fn a_segment(directory: &Path) -> Outcome<std::path::PathBuf> {
    let first = fs::read_dir(directory)?.next().ok_or("the store has no segments")?;
    Ok(first?.path())
}
