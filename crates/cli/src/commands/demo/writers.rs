//! Durable writes of single vectors: one writer, then 64 at once that share syncs.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use nephrite::blocking::{Database, Store};
use nephrite::{DatabaseOptions, Durability, Error};

use super::Demo;
use super::report::SyncedFigures;
use crate::clock::Stopwatch;
use crate::embeddings::Embeddings;
use crate::failure::Failure;
use crate::figures::{per_second, rate};

/// The database that is written to.
const DATABASE: &str = "synced";
/// Writers of the second measurement.
const WRITERS: u64 = 64;
/// How long each measurement takes.
const DURATION: Duration = Duration::from_millis(1200);
/// Ids of one writer begin at its number times this; rows of the generator are the ids.
const IDS_PER_WRITER: u64 = 1 << 32;

impl Demo<'_> {
    pub(super) fn write_synced(&mut self, store: &Store, dimension: u32) -> Result<(), Failure> {
        let database = store.create_database(DATABASE, DatabaseOptions::new(dimension))?;
        let one = self.write_together(&database, 1, 1)?;
        let many = self.write_together(&database, 2, WRITERS)?;
        let ratio = if 0.0 < one { many / one } else { 0.0 };
        self.report.synced = SyncedFigures {
            one_writer_per_second: one,
            writers: WRITERS,
            many_writers_per_second: many,
            ratio,
        };
        let text = format!(
            "{:>10}   1 writer; {WRITERS} writers {} ({ratio:.1} times)",
            rate(one),
            rate(many)
        );
        self.say("synced writes", &text)
    }

    /// Lets writers `first` to `first + writers` write for a while, checks what they wrote, and
    /// returns their rate.
    fn write_together(
        &mut self,
        database: &Database,
        first: u64,
        writers: u64,
    ) -> Result<f64, Failure> {
        let (written, seconds) = run_writers(&self.embeddings, database, first, writers)?;
        for (writer, count) in (first..).zip(&written) {
            let first_id = writer * IDS_PER_WRITER;
            let ids: Vec<u64> = (first_id..first_id + count).collect();
            self.check_ids_as(database, &ids, Some)?;
        }
        Ok(per_second(written.iter().sum(), seconds))
    }
}

/// Returns how many vectors each writer wrote, and the seconds they took together.
fn run_writers(
    embeddings: &Embeddings,
    database: &Database,
    first: u64,
    writers: u64,
) -> Result<(Vec<u64>, f64), Failure> {
    let start = Barrier::new(usize::try_from(writers).expect("a handful of writers") + 1);
    thread::scope(|scope| {
        let start = &start;
        let handles: Vec<_> = (first..first + writers)
            .map(|writer| {
                thread::Builder::new()
                    .name(format!("nephrite-demo-{writer}"))
                    .spawn_scoped(scope, move || {
                        start.wait();
                        write_for_a_while(embeddings, database, writer)
                    })
                    // A barrier that waits for a missing thread would never open.
                    .expect("the system starts 64 threads")
            })
            .collect();
        start.wait();
        let stopwatch = Stopwatch::start();
        let written = handles
            .into_iter()
            .map(|handle| match handle.join() {
                Ok(outcome) => outcome.map_err(Failure::from),
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect::<Result<Vec<u64>, Failure>>()?;
        Ok((written, stopwatch.seconds()))
    })
}

fn write_for_a_while(
    embeddings: &Embeddings,
    database: &Database,
    writer: u64,
) -> Result<u64, Error> {
    let stopwatch = Stopwatch::start();
    let mut vector = vec![0.0; database.dimension() as usize];
    let mut written = 0;
    while stopwatch.elapsed() < DURATION {
        let id = writer * IDS_PER_WRITER + written;
        embeddings.fill(id, &mut vector);
        database.put_with(id, &vector, Durability::Synced)?;
        written += 1;
    }
    Ok(written)
}
