//! `open`: from a cold start to the first vector.
//!
//! The store was closed and its files were dropped from the system's cache. The clock runs over
//! `Store::open`, `database` and one `get` of a random id. With `--beside` a second store of
//! another size is opened in turn with the first, and the ratio of both is printed: what an open
//! costs must not depend on how many vectors there are. Beside it: what choosing the I/O backend
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
    /// A second store with this many vectors, opened in turn with the first
    #[arg(long)]
    beside: Option<usize>,
    /// Only ids of this form; without it all forms, one after the other
    #[arg(long)]
    form: Option<IdForm>,
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

const FORMS: [IdForm; 3] = [IdForm::Dense, IdForm::Shuffled, IdForm::Strings];

/// A store to be opened, and what its opens took.
struct Opened {
    name: String,
    rows: Rows,
    /// Open, database, first get, total; megabytes read.
    parts: [Figure; 5],
}

impl Opened {
    fn build(
        place: &Place,
        arguments: &OpenArguments,
        form: IdForm,
        vectors: usize,
    ) -> Outcome<Self> {
        let rows = Rows::generate(vectors, arguments.dim, form);
        let name = format!("store-{vectors}");
        build(place, arguments, &name, &rows)?;
        let figure = |what, unit| Figure::new(format!("{} {vectors}: {what}", form.name()), unit);
        let parts = [
            figure("open", "ms"),
            figure("database", "ms"),
            figure("first get", "ms"),
            figure("total", "ms"),
            figure("read from disk", "MB"),
        ];
        Ok(Self { name, rows, parts })
    }

    fn measure(
        &mut self,
        place: &Place,
        arguments: &OpenArguments,
        random: &mut Random,
    ) -> Outcome<()> {
        let row = random.below(self.rows.len());
        let found = open_and_read(place, arguments, self, row)?;
        self.parts.iter_mut().zip(found).for_each(|(part, found)| part.push(found));
        Ok(())
    }

    fn total(&self) -> &Figure {
        &self.parts[3]
    }
}

pub(crate) fn run(place: &Place, arguments: &OpenArguments) -> Outcome<Vec<Figure>> {
    let mut figures = Vec::new();
    for form in arguments.form.map_or(FORMS.to_vec(), |form| vec![form]) {
        let sizes = [Some(arguments.vectors), arguments.beside];
        let mut stores = Vec::new();
        for vectors in sizes.into_iter().flatten() {
            stores.push(Opened::build(place, arguments, form, vectors)?);
        }
        let mut random = Random::new(4);
        for _ in 0..arguments.rounds {
            stores.iter_mut().try_for_each(|it| it.measure(place, arguments, &mut random))?;
        }
        if let [one, other] = stores.as_slice() {
            let (few, many) = (one.rows.len(), other.rows.len());
            let name = format!("{}: total of {many} / of {few}", form.name());
            figures.push(other.total().ratio_to(one.total(), name));
        }
        figures.extend(stores.into_iter().flat_map(|store| store.parts));
    }
    figures.extend(baselines(place, arguments)?);
    Ok(figures)
}

fn build(place: &Place, arguments: &OpenArguments, name: &str, rows: &Rows) -> Outcome<()> {
    place.remove(name)?;
    let config = place.config(MEMORY_BYTES).wal_segment_bytes(arguments.wal << 20);
    let store = Store::create(place.join(name), config)?;
    let options = DatabaseOptions::new(rows.dimension).id_kind(rows.ids.kind());
    let database = store.create_database("vectors", options)?;
    rows.put_into(&database, 1000)?;
    Ok(store.close()?)
}

/// Milliseconds for open, database and get, and all together; megabytes read.
fn open_and_read(
    place: &Place,
    arguments: &OpenArguments,
    opened: &Opened,
    row: usize,
) -> Outcome<[f64; 5]> {
    let (path, rows) = (place.join(&opened.name), &opened.rows);
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
fn baselines(place: &Place, arguments: &OpenArguments) -> Outcome<Vec<Figure>> {
    let mut probe = Figure::new("raw: choosing the I/O backend", "ms");
    let mut read = Figure::new("raw: one direct read of 4 KiB", "ms");
    let store = format!("store-{}", arguments.vectors);
    let segment = a_segment(&place.join(&store).join("segments"))?;
    let file = block_on(place.disk.open(&segment, OpenOptions::read_only()))?;
    for round in 0..arguments.rounds {
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
