//! `import`: how fast a bulk load becomes durable.
//!
//! One round loads all rows with `put_many` into an empty store, `Buffered` (with `--synced` each
//! batch is durable before the next), and flushes; the clock runs from the first batch to the end
//! of the flush. Beside it the same number of bytes is written in order with direct I/O and synced.
//! Which of the two comes first alternates.

use std::path::PathBuf;

use clap::Args;
use nephrite::{DatabaseOptions, Durability};

use crate::{
    Outcome,
    clock::Stopwatch,
    device, npy,
    place::Place,
    report::Figure,
    rows::{IdForm, Rows},
};

#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// Vectors to generate
    #[arg(long, default_value_t = 1_000_000)]
    vectors: usize,
    /// Values per generated vector
    #[arg(long, default_value_t = 128)]
    dim: u32,
    /// Ids of the generated vectors
    #[arg(long, value_enum, default_value_t = IdForm::Dense)]
    ids_form: IdForm,
    /// Load this NumPy file (f32) instead, over and over into databases of their own
    #[arg(long, value_name = "FILE", requires = "ids")]
    npy: Option<PathBuf>,
    /// The ids of its rows, one a line
    #[arg(long, value_name = "FILE", requires = "npy")]
    ids: Option<PathBuf>,
    /// Vectors per `put_many`
    #[arg(long, default_value_t = 1000)]
    batch: usize,
    /// Make every batch durable before the next
    #[arg(long)]
    synced: bool,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Memory limit of the store, MiB
    #[arg(long, default_value_t = 256)]
    memory: u64,
}

/// Bytes that files are repeated to reach.
const BYTES_MIN: u64 = 512 << 20;

pub(crate) fn run(place: &Place, arguments: &ImportArguments) -> Outcome<Vec<Figure>> {
    let (rows, copies) = match (&arguments.npy, &arguments.ids) {
        (Some(vectors), Some(ids)) => {
            let rows = npy::read(vectors, ids)?;
            let copies = BYTES_MIN.div_ceil(rows.bytes().max(1));
            (rows, copies)
        }
        _ => (Rows::generate(arguments.vectors, arguments.dim, arguments.ids_form), 1),
    };
    let bytes = rows.bytes() * copies;
    let vectors = (rows.len() as u64 * copies) as f64;
    let mut rate = Figure::new("import", "vectors/s");
    let mut bandwidth = Figure::new("import", "MB/s");
    let mut limit = Figure::new("sequential direct write + sync", "MB/s");
    for round in 0..arguments.rounds {
        let mut measure_limit = || -> Outcome<()> {
            let seconds = device::sequential_write(&place.disk, &place.join("raw"), bytes)?;
            limit.push(bytes as f64 / 1e6 / seconds);
            place.remove("raw")
        };
        if round % 2 == 0 {
            measure_limit()?;
        }
        let seconds = load(place, arguments, &rows, copies)?;
        rate.push(vectors / seconds);
        bandwidth.push(bytes as f64 / 1e6 / seconds);
        if round % 2 == 1 {
            measure_limit()?;
        }
    }
    let ratio = bandwidth.ratio_to(&limit, "import / sequential direct write");
    Ok(vec![rate, bandwidth, limit, ratio])
}

/// One load into an empty store; seconds taken.
fn load(place: &Place, arguments: &ImportArguments, rows: &Rows, copies: u64) -> Outcome<f64> {
    let store = place.fresh_store("store", arguments.memory << 20)?;
    let options = DatabaseOptions::new(rows.dimension).id_kind(rows.ids.kind());
    let databases: Vec<_> = (0..copies)
        .map(|copy| store.create_database(&format!("copy-{copy}"), options.clone()))
        .collect::<Result<_, _>>()?;
    let durability = if arguments.synced { Durability::Synced } else { Durability::Buffered };
    let watch = Stopwatch::start();
    for database in &databases {
        rows.put_into_with(database, arguments.batch, durability)?;
    }
    store.flush()?;
    let seconds = watch.seconds();
    store.close()?;
    place.remove("store")?;
    Ok(seconds)
}
