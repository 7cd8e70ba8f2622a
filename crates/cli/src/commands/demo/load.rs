//! Loading the main database: a generator thread beside the writing one.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread;

use nephrite::blocking::{Database, Store};
use nephrite::{Durability, Ids};

use super::Demo;
use super::report::LoadFigures;
use crate::clock::Stopwatch;
use crate::embeddings::Embeddings;
use crate::failure::Failure;
use crate::figures::{count, megabytes_per_second, per_second, rate};
use crate::progress::Progress;

/// Rows of one atomic batch, when memory allows.
const BATCH_ROWS: u64 = 1000;
/// Share of the memory that one batch may have: below what the engine can make atomic.
const MEMORY_SHARE: u64 = 16;
/// Batches that go round between generator and writer.
const BATCHES: usize = 3;

impl Demo<'_> {
    /// Loads all rows, buffered, and flushes.
    pub(super) fn load(&mut self, store: &Store, database: &Database) -> Result<(), Failure> {
        let rows = self.expected.rows;
        let total = Stopwatch::start();
        let mut progress = Progress::bar("loading", rows, self.context.output.quiet());
        let row_bytes = u64::from(self.report.dimension) * 4;
        let batch_rows = (self.memory() / MEMORY_SHARE / row_bytes).clamp(1, BATCH_ROWS);
        let source = Source { embeddings: &self.embeddings, rows, batch_rows };
        let load_seconds = source.load_into(database, &mut progress)?;
        let generator_wait_seconds = (total.seconds() - load_seconds).max(0.0);
        drop(progress);
        let flush = Stopwatch::start();
        store.flush()?;
        let flush_seconds = flush.seconds();
        let found = database.count()?;
        self.checks.require(found == rows, || format!("{found} vectors after loading {rows}"));

        let bytes = rows * row_bytes;
        let seconds = load_seconds + flush_seconds;
        self.report.bytes_of_vectors = bytes;
        self.report.load = LoadFigures {
            vectors_per_second: per_second(rows, seconds),
            megabytes_per_second: megabytes_per_second(bytes, seconds),
            load_seconds,
            flush_seconds,
            generator_wait_seconds,
        };
        let text = format!(
            "{:>10}   {} vectors of {} values: load {load_seconds:.2} s + flush {:.2} s \
             ({:.0} MB/s), waiting for the generator {generator_wait_seconds:.2} s",
            rate(self.report.load.vectors_per_second),
            count(rows),
            self.report.dimension,
            flush_seconds,
            self.report.load.megabytes_per_second
        );
        self.say("load", &text)
    }
}

/// The rows to load, in batches.
#[derive(Clone, Copy)]
struct Source<'a> {
    embeddings: &'a Embeddings,
    rows: u64,
    batch_rows: u64,
}

impl Source<'_> {
    /// Writes all rows; returns the seconds inside the engine.
    fn load_into(self, database: &Database, progress: &mut Progress) -> Result<f64, Failure> {
        let dimension = database.dimension() as usize;
        thread::scope(|scope| {
            let (full, filled) = sync_channel::<Vec<f32>>(BATCHES);
            let (emptied, empty) = channel::<Vec<f32>>();
            for _ in 0..BATCHES {
                emptied.send(Vec::new()).expect("the receiver is two lines above");
            }
            thread::Builder::new()
                .name("nephrite-demo-rows".into())
                .spawn_scoped(scope, move || self.generate(dimension, &full, &empty))
                .map_err(|error| Failure::error(format_args!("starting a thread: {error}")))?;
            // Moved into this scope, so that the generator ends when this does.
            let (filled, emptied) = (filled, emptied);
            let mut first = 0;
            let mut seconds = 0.0;
            for values in filled {
                let stopwatch = Stopwatch::start();
                database.put_many(Ids::Consecutive(first), &values, Durability::Buffered)?;
                seconds += stopwatch.seconds();
                let batch = (values.len() / dimension) as u64;
                first += batch;
                progress.advance(batch);
                // The generator is gone when it has made every row; nobody needs the batch then.
                let _generator_is_done = emptied.send(values);
            }
            Ok(seconds)
        })
    }

    /// Fills batches until all rows are made or nobody takes them any more.
    fn generate(self, dimension: usize, full: &SyncSender<Vec<f32>>, empty: &Receiver<Vec<f32>>) {
        let mut first = 0;
        while let (true, Ok(mut values)) = (first < self.rows, empty.recv()) {
            let end = self.rows.min(first + self.batch_rows);
            let batch = usize::try_from(end - first).expect("at most BATCH_ROWS");
            values.resize(batch * dimension, 0.0);
            for (index, row) in (first..end).zip(values.chunks_exact_mut(dimension)) {
                self.embeddings.fill(index, row);
            }
            first = end;
            if full.send(values).is_err() {
                break;
            }
        }
    }
}
