//! `export`: writes one snapshot of a database to a vector file, rows in id order.
//!
//! Files appear under their names only when they are whole; an existing file is replaced then.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::clock::Stopwatch;
use crate::context::Context;
use crate::failure::Failure;
use crate::figures::{count, megabytes_per_second, per_second, rate};
use crate::progress::Progress;
use crate::vectors::{IdFileWriter, VectorWriter};

/// What `--help` says after the options.
const HELP: &str = r#"The end of FILE chooses the format: .npy, .fvecs or .fbin. Rows are in id
order: u64 ids by number, byte ids by their bytes. Without --ids the ids are not kept. Existing
files are replaced, once the new ones are whole.

JSON: {"vectors","dimension","bytes","seconds","vectors_per_second","megabytes_per_second"}"#;

/// Arguments of `export`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ExportArguments {
    /// Directory of the store
    store: PathBuf,
    /// Name of the database
    database: String,
    /// File to write: .npy, .fvecs or .fbin
    file: PathBuf,
    /// Text file to write the ids to, one a line, in row order
    #[arg(long, value_name = "FILE.txt")]
    ids: Option<PathBuf>,
}

#[derive(Serialize)]
struct Exported {
    vectors: u64,
    dimension: u32,
    bytes: u64,
    seconds: f64,
    vectors_per_second: f64,
    megabytes_per_second: f64,
}

pub(crate) fn run(arguments: &ExportArguments, context: &mut Context) -> Result<(), Failure> {
    let stopwatch = Stopwatch::start();
    let (store, database) = context.open_database(&arguments.store, &arguments.database)?;
    let dimension = database.dimension();
    let snapshot = database.snapshot()?;
    let rows = snapshot.count()?;
    let mut vectors = VectorWriter::create(&arguments.file, rows, dimension)?;
    let mut ids = arguments.ids.as_deref().map(IdFileWriter::create).transpose()?;
    let mut progress = Progress::bar("exporting", rows, context.output.quiet());
    for row in snapshot.scan()? {
        let (id, vector) = row?;
        vectors.write_row(&vector)?;
        if let Some(ids) = &mut ids {
            ids.write(&id)?;
        }
        progress.advance(1);
    }
    drop(progress);
    vectors.commit()?;
    ids.map_or(Ok(()), IdFileWriter::commit)?;
    drop((snapshot, database));
    store.close()?;
    let seconds = stopwatch.seconds();
    let bytes = rows * u64::from(dimension) * 4;
    let exported = Exported {
        vectors: rows,
        dimension,
        bytes,
        seconds,
        vectors_per_second: per_second(rows, seconds),
        megabytes_per_second: megabytes_per_second(bytes, seconds),
    };
    context.output.result(
        &exported,
        format_args!(
            "exported {} vectors of {dimension} values in {seconds:.2} s ({}, {:.0} MB/s)",
            count(rows),
            rate(exported.vectors_per_second),
            exported.megabytes_per_second
        ),
    )
}
