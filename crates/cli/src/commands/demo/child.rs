//! The process that the demo kills, and the rule by which it writes.
//!
//! Several databases, two writers each, every write `Synced`. Writers with even numbers write
//! atomic batches of [`BATCH_ROWS`] vectors, and every fourth batch also deletes the first vector
//! of the batch before; writers with odd numbers write single vectors. After each acknowledgement
//! the child prints `database writer write` on a line of its own. The rule is all that the
//! parent needs to know what must be there.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;

use clap::Args;
use nephrite::blocking::Database;
use nephrite::{Batch, Durability};

use crate::context::Context;
use crate::embeddings::{Embeddings, mix};
use crate::failure::Failure;

/// Databases that a child writes to.
pub(super) const DATABASES: u64 = 4;
/// Writers of each database.
pub(super) const WRITERS: u64 = 2;
/// Vectors of one batch.
pub(super) const BATCH_ROWS: u64 = 8;
/// A child that nobody kills ends after so many writes of each writer.
const WRITES_MAX: u64 = 1 << 20;

/// Arguments of the hidden command.
#[derive(Debug, Args)]
pub(crate) struct ChildArguments {
    /// Directory of the store, in which the databases exist
    store: PathBuf,
    /// Seed of the vectors
    #[arg(long)]
    seed: u64,
    /// Values per vector
    #[arg(long)]
    dim: u32,
    /// Which child this is
    #[arg(long)]
    round: u64,
}

/// One writer of one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Writer {
    pub(super) round: u64,
    pub(super) database: u64,
    pub(super) number: u64,
}

impl Writer {
    /// All writers of one round.
    pub(super) fn all(round: u64) -> impl Iterator<Item = Self> {
        (0..DATABASES).flat_map(move |database| {
            (0..WRITERS).map(move |number| Self { round, database, number })
        })
    }

    /// Vectors of each write.
    pub(super) fn rows(self) -> u64 {
        if self.number.is_multiple_of(2) { BATCH_ROWS } else { 1 }
    }

    /// Whether this write also deletes the first vector of the write before.
    pub(super) fn deletes_before(self, write: u64) -> bool {
        1 < self.rows() && write % 4 == 3
    }

    /// The id of one vector of one write.
    pub(super) fn id(self, write: u64, row: u64) -> u64 {
        (self.round << 48) | (self.number << 40) | (write << 8) | row
    }

    /// The row of the generator that this id holds in this database.
    pub(super) fn generated_row(self, id: u64) -> u64 {
        mix(id ^ mix(self.database + 1))
    }

    /// What must be there of a vector when the writes up to and including `last` took effect.
    pub(super) fn is_there(self, write: u64, row: u64, last: Option<u64>) -> bool {
        let written = last.is_some_and(|last| write <= last);
        let deleted =
            row == 0 && self.deletes_before(write + 1) && last.is_some_and(|last| write < last);
        written && !deleted
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { round, database, number } = self;
        write!(f, "writer {number} to {} in round {round}", database_name(*database))
    }
}

/// Name of one of the child's databases.
pub(super) fn database_name(database: u64) -> String {
    format!("killed-{database}")
}

/// Writes until it is killed.
pub(crate) fn run_child(arguments: &ChildArguments, context: &Context) -> Result<(), Failure> {
    let store = context.open(&arguments.store)?;
    let embeddings = Embeddings::new(arguments.seed, arguments.dim as usize);
    let embeddings = &embeddings;
    thread::scope(|scope| {
        let mut handles = Vec::new();
        for writer in Writer::all(arguments.round) {
            let database = store.database(&database_name(writer.database))?;
            let handle = thread::Builder::new()
                .name(format!("nephrite-child-{}-{}", writer.database, writer.number))
                .spawn_scoped(scope, move || write(writer, &database, embeddings))
                .map_err(|error| Failure::error(format_args!("starting a thread: {error}")))?;
            handles.push(handle);
        }
        for handle in handles {
            match handle.join() {
                Ok(outcome) => outcome?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<(), Failure>(())
    })?;
    Ok(store.close()?)
}

fn write(writer: Writer, database: &Database, embeddings: &Embeddings) -> Result<(), Failure> {
    for number in 0..WRITES_MAX {
        let vector_of = |id| embeddings.row(writer.generated_row(id));
        if writer.rows() == 1 {
            let id = writer.id(number, 0);
            database.put_with(id, &vector_of(id), Durability::Synced)?;
        } else {
            let mut batch = Batch::new();
            for row in 0..writer.rows() {
                let id = writer.id(number, row);
                batch.put(id, &vector_of(id));
            }
            if writer.deletes_before(number) {
                batch.delete(writer.id(number - 1, 0));
            }
            database.batch_with(batch, Durability::Synced)?;
        }
        acknowledge(writer, number)?;
    }
    Ok(())
}

/// Tells the parent. One short line is one write to the pipe: it arrives whole or not at all.
fn acknowledge(writer: Writer, number: u64) -> Result<(), Failure> {
    let line = format!("{} {} {number}\n", writer.database, writer.number);
    let mut output = io::stdout().lock();
    output.write_all(line.as_bytes()).and_then(|()| output.flush()).map_err(|error| {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::error(format_args!("telling the demo what is stored: {error}")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_of_all_writers_of_a_database_differ() {
        let mut ids = HashSet::new();
        for writer in (0..3).flat_map(Writer::all).filter(|writer| writer.database == 0) {
            for write in 0..50 {
                assert!((0..writer.rows()).all(|row| ids.insert(writer.id(write, row))));
            }
        }
    }

    #[test]
    fn a_delete_takes_effect_with_the_write_that_carries_it() {
        let batches = Writer { round: 0, database: 0, number: 0 };
        assert!(!batches.is_there(2, 0, None));
        assert!(!batches.is_there(2, 0, Some(1)));
        assert!(batches.is_there(2, 0, Some(2)));
        assert!(!batches.is_there(2, 0, Some(3)));
        assert!(batches.is_there(2, 1, Some(3)));
        assert!(batches.is_there(1, 0, Some(3)));
        let singles = Writer { number: 1, ..batches };
        assert!(singles.is_there(2, 0, Some(3)));
    }
}
