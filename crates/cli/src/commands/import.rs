//! `import`: loads a vector file.
//!
//! The header, the file length and the whole id file are checked before the first row is written.
//! A thread reads the next blocks while the calling thread hands the current one to the engine in
//! atomic batches; three blocks go round, so memory does not depend on the file.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use clap::{Args, value_parser};
use nephrite::blocking::{Database, Store};
use nephrite::{DatabaseOptions, Durability, Error, IdKind, Ids};
use serde::Serialize;

use crate::arguments::DurabilityName;
use crate::clock::Stopwatch;
use crate::context::Context;
use crate::failure::Failure;
use crate::figures::{count, megabytes_per_second, per_second, rate};
use crate::progress::Progress;
use crate::vectors::{IdBlock, IdFileReader, VectorFileError, VectorReader};

/// Bytes of vectors that are read at once, when batches are smaller than that.
const BLOCK_BYTES: usize = 2 << 20;
/// Bytes of vectors that one batch may have; `--batch` is cut down to it, and halved as often as
/// the engine says that it cannot make so large a batch atomic.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Blocks that go round between the reading and the writing thread.
const BLOCKS: usize = 3;

/// What `--help` says after the options.
const HELP: &str = r#"The end of FILE says what it is: .npy (two dimensions, C order, little- or
big-endian f32), .fvecs or .fbin. Without --ids, the ids are the row numbers from 0 and the
database needs u64 ids. With --ids, line i is the id of row i; a new database gets byte ids then
(for numbers, create it with --ids u64 first). An id that occurs twice, in the file or in the
database, keeps the later vector. A batch is atomic; --batch is cut down to 16 MiB and to what
--memory allows. The import ends with a flush, after which everything is durable.

JSON: {"database","vectors","dimension","bytes","batch","durability","load_seconds",
       "flush_seconds","seconds","vectors_per_second","megabytes_per_second"}; the rates are over
       load and flush together"#;

/// Arguments of `import`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ImportArguments {
    /// Directory of the store; made when absent
    store: PathBuf,
    /// Name of the database; made when absent, with the dimension of the file
    database: String,
    /// File to read: .npy, .fvecs or .fbin
    file: PathBuf,
    /// Text file with one id a line, as many as there are rows
    #[arg(long, value_name = "FILE.txt")]
    ids: Option<PathBuf>,
    /// When a batch counts as written
    #[arg(long, value_enum, default_value = "buffered")]
    durability: DurabilityName,
    /// Rows per atomic batch
    #[arg(long, value_name = "N", default_value_t = 1000)]
    #[arg(value_parser = value_parser!(u32).range(1..))]
    batch: u32,
}

#[derive(Serialize)]
struct Imported<'a> {
    database: &'a str,
    vectors: u64,
    dimension: u32,
    bytes: u64,
    batch: usize,
    durability: &'static str,
    load_seconds: f64,
    flush_seconds: f64,
    seconds: f64,
    vectors_per_second: f64,
    megabytes_per_second: f64,
}

/// How many rows go together.
#[derive(Clone, Copy)]
struct Portions {
    batch_rows: usize,
    block_rows: usize,
}

impl Portions {
    fn new(batch: u32, dimension: u32) -> Self {
        let row_bytes = dimension as usize * 4;
        let batch_rows = (batch as usize).min(BATCH_BYTES_MAX / row_bytes).max(1);
        let block_rows = batch_rows * (BLOCK_BYTES / (batch_rows * row_bytes)).max(1);
        Self { batch_rows, block_rows }
    }
}

/// A number of rows on their way, and their ids unless those are row numbers.
struct Block {
    values: Vec<f32>,
    ids: Option<IdBlock>,
    rows: usize,
}

pub(crate) fn run(arguments: &ImportArguments, context: &mut Context) -> Result<(), Failure> {
    let reader = VectorReader::open(&arguments.file)?;
    let (rows, dimension) = (reader.rows(), reader.dimension());
    let store = context.open_or_create(&arguments.store)?;
    let (database, ids) = prepare(arguments, &store, &reader)?;
    let portions = Portions::new(arguments.batch, dimension);
    let stopwatch = Stopwatch::start();
    let mut load = Load {
        database: &database,
        durability: arguments.durability.into(),
        batch_rows: portions.batch_rows,
        rows_written: 0,
        progress: Progress::bar("importing", rows, context.output.quiet()),
    };
    let outcome = load.run(reader, ids, portions.block_rows);
    let (rows_written, batch) = (load.rows_written, load.batch_rows);
    outcome.map_err(|failure| explain(failure, rows_written))?;
    drop(load);
    let load_seconds = stopwatch.seconds();
    flush(&store, context)?;
    let seconds = stopwatch.seconds();
    drop(database);
    store.close()?;

    let bytes = rows * u64::from(dimension) * 4;
    let imported = Imported {
        database: &arguments.database,
        vectors: rows,
        dimension,
        bytes,
        batch,
        durability: arguments.durability.name(),
        load_seconds,
        flush_seconds: seconds - load_seconds,
        seconds,
        vectors_per_second: per_second(rows, seconds),
        megabytes_per_second: megabytes_per_second(bytes, seconds),
    };
    print(&imported, context)
}

/// Finds or makes the database, after everything that can be checked was checked.
fn prepare(
    arguments: &ImportArguments,
    store: &Store,
    reader: &VectorReader,
) -> Result<(Database, Option<IdFileReader>), Failure> {
    let existing = existing_database(store, &arguments.database)?;
    check_against_database(arguments, existing.as_ref(), reader.dimension())?;
    let kind = match (&existing, &arguments.ids) {
        (Some(database), _) => database.id_kind(),
        (None, Some(_)) => IdKind::Bytes,
        (None, None) => IdKind::U64,
    };
    let ids =
        arguments.ids.as_deref().map(|path| open_ids(path, kind, reader.rows())).transpose()?;
    let database = match existing {
        Some(database) => database,
        None => {
            let options = DatabaseOptions::new(reader.dimension()).id_kind(kind);
            store.create_database(&arguments.database, options)?
        }
    };
    Ok((database, ids))
}

fn existing_database(store: &Store, name: &str) -> Result<Option<Database>, Failure> {
    match store.database(name) {
        Ok(database) => Ok(Some(database)),
        Err(Error::DatabaseNotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn check_against_database(
    arguments: &ImportArguments,
    existing: Option<&Database>,
    dimension: u32,
) -> Result<(), Failure> {
    let Some(database) = existing else { return Ok(()) };
    let (file, name) = (arguments.file.display(), &arguments.database);
    if database.dimension() != dimension {
        return Err(Failure::error(format_args!(
            "{file} has dimension {dimension}, database {name} has {}: import into another one",
            database.dimension()
        )));
    }
    if database.id_kind() == IdKind::Bytes && arguments.ids.is_none() {
        return Err(Failure::error(format_args!(
            "database {name} has byte ids, which row numbers are not: give the ids of {file} with \
             --ids FILE.txt"
        )));
    }
    Ok(())
}

/// Checks a whole id file and opens it again from the start.
fn open_ids(path: &Path, kind: IdKind, rows: u64) -> Result<IdFileReader, Failure> {
    let found = IdFileReader::check(path, kind)?;
    if found != rows {
        return Err(Failure::error(format_args!(
            "{} has {found} ids where the vector file has {rows} rows: one id a line is needed",
            path.display()
        )));
    }
    Ok(IdFileReader::open(path)?)
}

/// Rows on their way into one database.
struct Load<'a> {
    database: &'a Database,
    durability: Durability,
    batch_rows: usize,
    rows_written: u64,
    progress: Progress,
}

impl Load<'_> {
    fn run(
        &mut self,
        reader: VectorReader,
        ids: Option<IdFileReader>,
        block_rows: usize,
    ) -> Result<(), Failure> {
        let kind = self.database.id_kind();
        thread::scope(|scope| {
            let (full, filled) = sync_channel(BLOCKS);
            let (emptied, empty) = channel();
            for _ in 0..BLOCKS {
                let ids = ids.is_some().then(|| IdBlock::new(kind));
                let block = Block { values: Vec::new(), ids, rows: 0 };
                emptied.send(block).expect("the receiver is two lines above");
            }
            thread::Builder::new()
                .name("nephrite-import".into())
                .spawn_scoped(scope, move || read_blocks(reader, ids, block_rows, &full, &empty))
                .map_err(|error| Failure::error(format_args!("starting a thread: {error}")))?;
            self.write_blocks(filled, emptied)
        })
    }

    /// Writes blocks until the reader has no more. Both channel ends are dropped on return, which
    /// ends the reader.
    fn write_blocks(
        &mut self,
        filled: Receiver<Result<Block, VectorFileError>>,
        emptied: Sender<Block>,
    ) -> Result<(), Failure> {
        for block in filled {
            let block = block?;
            self.write_block(&block)?;
            // The reader is gone when it has read everything; the block is not needed then.
            let _reader_is_done = emptied.send(block);
        }
        Ok(())
    }

    fn write_block(&mut self, block: &Block) -> Result<(), Failure> {
        let dimension = self.database.dimension() as usize;
        let mut slices: Vec<&[u8]> = Vec::new();
        let mut start = 0;
        while start < block.rows {
            let end = block.rows.min(start + self.batch_rows);
            let values = &block.values[start * dimension..end * dimension];
            let ids = match &block.ids {
                None => Ids::Consecutive(self.rows_written),
                Some(IdBlock::U64(ids)) => Ids::U64(&ids[start..end]),
                Some(IdBlock::Bytes { bytes, ends }) => {
                    slices.clear();
                    slices.extend((start..end).map(|row| {
                        let from = row.checked_sub(1).map_or(0, |before| ends[before]);
                        &bytes[from..ends[row]]
                    }));
                    Ids::Bytes(&slices)
                }
            };
            match self.database.put_many(ids, values, self.durability) {
                // What can be atomic depends on the memory given; nothing was written yet.
                Err(Error::BatchTooLarge { .. }) if 1 < self.batch_rows => {
                    self.batch_rows = self.batch_rows.div_ceil(2);
                    continue;
                }
                outcome => outcome?,
            }
            let rows = (end - start) as u64;
            start = end;
            self.rows_written += rows;
            self.progress.advance(rows);
        }
        Ok(())
    }
}

/// Fills blocks until the file ends, a read fails, or nobody takes them any more.
fn read_blocks(
    mut reader: VectorReader,
    mut ids: Option<IdFileReader>,
    block_rows: usize,
    full: &SyncSender<Result<Block, VectorFileError>>,
    empty: &Receiver<Block>,
) {
    while let Ok(mut block) = empty.recv() {
        let filled = fill(&mut block, &mut reader, ids.as_mut(), block_rows);
        let done = !matches!(filled, Ok(rows) if 0 < rows);
        let message = match filled {
            Ok(0) => return,
            Ok(_) => Ok(block),
            Err(error) => Err(error),
        };
        if full.send(message).is_err() || done {
            return;
        }
    }
}

fn fill(
    block: &mut Block,
    reader: &mut VectorReader,
    ids: Option<&mut IdFileReader>,
    block_rows: usize,
) -> Result<usize, VectorFileError> {
    block.rows = reader.read_rows(block_rows, &mut block.values)?;
    if let (Some(ids), Some(id_block)) = (ids, &mut block.ids) {
        let found = ids.read_ids(block.rows, id_block)?;
        if found < block.rows {
            return Err(ids.changed());
        }
    }
    Ok(block.rows)
}

fn explain(failure: Failure, rows_written: u64) -> Failure {
    match failure {
        Failure::Error(text) if 0 < rows_written => {
            Failure::error(format_args!("{text}; the {rows_written} rows before it are stored"))
        }
        other => other,
    }
}

fn flush(store: &Store, context: &Context) -> Result<(), Failure> {
    let _spins_until_return = Progress::spinner("flushing", context.output.quiet());
    Ok(store.flush()?)
}

fn print(imported: &Imported<'_>, context: &mut Context) -> Result<(), Failure> {
    context.output.result(
        imported,
        format_args!(
            "imported {} vectors of {} values into {}: load {:.3} s, flush {:.3} s, together {} \
             ({:.0} MB/s)",
            count(imported.vectors),
            imported.dimension,
            imported.database,
            imported.load_seconds,
            imported.flush_seconds,
            rate(imported.vectors_per_second),
            imported.megabytes_per_second
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_whole_batches_within_the_limits() {
        for (batch, dimension) in [(1, 1), (1000, 128), (1000, 768), (7, 3), (u32::MAX, 4096)] {
            let Portions { batch_rows, block_rows } = Portions::new(batch, dimension);
            assert!(0 < batch_rows && batch_rows <= batch as usize);
            assert!(block_rows.is_multiple_of(batch_rows));
            let batch_bytes = batch_rows * dimension as usize * 4;
            let block_bytes = block_rows * dimension as usize * 4;
            assert!(batch_bytes <= BATCH_BYTES_MAX);
            assert!(block_bytes <= BLOCK_BYTES.max(batch_bytes));
        }
        assert_eq!(Portions::new(1000, 128).batch_rows, 1000);
        assert_eq!(Portions::new(5, 1 << 20).batch_rows, 4);
    }
}
