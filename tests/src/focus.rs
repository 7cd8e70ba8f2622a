//! Kills in the middle of one kind of operation: what the child does and what must be there after.
//!
//! Iteration `n` stores every id with stamp `n`, deletes every third, stores a marker durably, and
//! then does the one operation that is to be killed, which changes nothing that can be read. So
//! after a kill the store holds the state of the last iteration that was told, or that and a part
//! of the writes of the next one, in their order.

use std::{collections::BTreeMap, fmt, str::FromStr};

use nephrite::{
    Config, DatabaseOptions, Durability, Error,
    blocking::{Database, Store},
};

use crate::{crash::Line, small, vector};

/// Ids that are stored again and again.
pub const IDS: u64 = 150;
/// The id of the durable marker.
pub const MARKER: u64 = 1 << 40;
/// The database.
pub const NAME: &str = "focus";
const DIMENSION: usize = 96;

/// The operation that is to be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the tests name them all")]
pub enum Focus {
    /// Memtables become segments.
    Flush,
    /// Segments are merged.
    Compaction,
    /// Log segments fill, are released and used again.
    Recycling,
    /// A database with segments is dropped.
    Drop,
    /// The store is closed.
    Close,
}

impl fmt::Display for Focus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flush => "flush",
            Self::Compaction => "compaction",
            Self::Recycling => "recycling",
            Self::Drop => "drop",
            Self::Close => "close",
        })
    }
}

impl FromStr for Focus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Flush, Self::Compaction, Self::Recycling, Self::Drop, Self::Close];
        let found = all.into_iter().find(|focus| focus.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is no operation to be killed"))
    }
}

/// One write of an iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "puts and deletes")]
pub enum Change {
    /// Stores the iteration's stamp.
    Put(u64),
    /// Deletes.
    Delete(u64),
}

/// The writes of an iteration, in order; the last one is durable.
pub fn changes(iteration: u64) -> impl Iterator<Item = Change> {
    let deleted = (0..IDS).filter(move |id| id % 3 == iteration % 3);
    (0..IDS).map(Change::Put).chain(deleted.map(Change::Delete)).chain([Change::Put(MARKER)])
}

/// Applies a change to a state: stamps by id.
pub fn apply(state: &mut BTreeMap<u64, u64>, change: Change, iteration: u64) {
    match change {
        Change::Put(id) => drop(state.insert(id, iteration)),
        Change::Delete(id) => drop(state.remove(&id)),
    }
}

/// The configuration of these stores.
#[must_use]
pub fn config() -> Config {
    small().compaction_bytes_per_second(None)
}

/// Works until it is killed, beginning behind `iteration`.
///
/// # Errors
/// What must not happen.
pub fn work(path: &str, focus: Focus, mut iteration: u64) -> Result<(), Error> {
    let mut store = Store::open(path, config())?;
    Line::Ready.tell();
    loop {
        iteration += 1;
        let database = store.database(NAME)?;
        write(&database, iteration)?;
        let temporary = format!("temporary {iteration}");
        if focus == Focus::Drop {
            let other = store.create_database(&temporary, DatabaseOptions::new(8))?;
            (0..200).try_for_each(|id| other.put(id, &vector(id, 8)))?;
            other.flush()?;
        }
        Line::Begin { thread: 0, number: iteration }.tell();
        match focus {
            Focus::Flush => database.flush()?,
            Focus::Compaction => database.compact()?,
            Focus::Recycling => fill_log(&store, &database)?,
            Focus::Drop => store.drop_database(&temporary)?,
            Focus::Close => {
                drop(database);
                store.close()?;
                store = Store::open(path, config())?;
            }
        }
        Line::Acknowledged { thread: 0, number: iteration, changed: true }.tell();
    }
}

fn write(database: &Database, iteration: u64) -> Result<(), Error> {
    for change in changes(iteration) {
        let durability = match change {
            Change::Put(MARKER) => Durability::Synced,
            _ => Durability::Buffered,
        };
        match change {
            Change::Put(id) => {
                database.put_with(id, &vector(iteration, DIMENSION), durability)?;
            }
            Change::Delete(id) => drop(database.delete_with(id, durability)?),
        }
    }
    Ok(())
}

/// Writes more than two log segments hold, to a database that nobody looks at.
fn fill_log(store: &Store, database: &Database) -> Result<(), Error> {
    let filler = match store.database("filler") {
        Err(Error::DatabaseNotFound { .. }) => {
            store.create_database("filler", DatabaseOptions::new(1024))?
        }
        other => other?,
    };
    for id in 0..160 {
        filler.put(id, &vector(id, 1024))?;
    }
    database.flush()?;
    filler.flush()
}

/// Makes the store in which the work begins.
///
/// # Errors
/// What must not happen.
pub fn create(path: &std::path::Path) -> Result<(), Error> {
    let store = Store::create(path, config())?;
    let dimension = u32::try_from(DIMENSION).expect("a small number");
    store.create_database(NAME, DatabaseOptions::new(dimension))?;
    store.close()
}
